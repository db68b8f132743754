//! The section `console`: the HTML page that shows and tries out the server.

use super::text::check_token;
use crate::settings::error::Error;
use crate::settings::secret::Secret;
use crate::settings::section::section;

section! {
    /// The console: an HTML page that connects, subscribes and publishes, and shows channels and
    /// events.
    pub struct Console {
        /// The token that a request must present to see the console, as /?token=... or
        /// `Authorization: Bearer ...`. At least 16 characters; empty disables the console. Better
        /// not stored in this file: "${CONSOLE_TOKEN:-}".
        pub token: Secret = Secret::new("");
    }
}

/// Checks the token; the key in errors is relative to the section.
pub(super) fn check(section: &Console) -> Result<(), Error> {
    check_token("token", &section.token)
}
