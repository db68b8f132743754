//! The section `console`: the HTML page that shows and tries out the server.

use serde::Deserialize;

use super::error::Error;
use super::secret::Secret;
use super::text::check_token;

/// The console: an HTML page that connects, subscribes and publishes, and shows channels and
/// events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Console {
    /// The token that a request must present to see the console; at least 16 characters. Empty
    /// (default): no console, except with the demo configuration, where no token is needed.
    pub token: Secret,
}

impl Default for Console {
    fn default() -> Console {
        Console { token: Secret::new("") }
    }
}

/// Checks the token.
pub(super) fn check(section: &Console) -> Result<(), Error> {
    check_token("console.token", &section.token)
}
