//! The configuration section of the Pusher dialect.

use serde::Deserialize;

use super::error::Error;
use super::range::{DAY_S, range};
use super::text::{is_path, shape};

/// The configuration section of the Pusher dialect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct PusherConfig {
    /// The path prefix before `/app/...` and `/apps/...`: empty (default), or a path that begins
    /// with `/` and does not end with it.
    pub path_prefix: String,
    /// Activity timeout: silence in seconds after which client and server ping each other. 1 to
    /// 86400, default 120.
    pub activity_timeout_s: u64,
    /// Pong timeout: how long the server waits for a pong, in seconds. 1 to 86400, default 30.
    pub pong_timeout_s: u64,
    /// Silence in seconds after which a client is closed that uses a protocol version below 5,
    /// which has no pings. 1 to 604800, default 86400.
    pub inactivity_timeout_s: u64,
    /// Whether a missing or unknown `protocol` parameter is refused (4006 to 4008) instead of being
    /// treated as 7. Default: false.
    pub strict_protocol: bool,
}

impl Default for PusherConfig {
    fn default() -> PusherConfig {
        PusherConfig {
            path_prefix: String::new(),
            activity_timeout_s: 120,
            pong_timeout_s: 30,
            inactivity_timeout_s: 86_400,
            strict_protocol: false,
        }
    }
}

/// Checks the ranges of the section and the form of the path prefix.
pub(super) fn check(pusher: &PusherConfig) -> Result<(), Error> {
    range("pusher.activity_timeout_s", pusher.activity_timeout_s, 1..=DAY_S, " seconds")?;
    range("pusher.pong_timeout_s", pusher.pong_timeout_s, 1..=DAY_S, " seconds")?;
    let inactivity = pusher.inactivity_timeout_s;
    range("pusher.inactivity_timeout_s", inactivity, 1..=7 * DAY_S, " seconds")?;
    let prefix = pusher.path_prefix.as_str();
    let framed = prefix.is_empty() || (prefix.starts_with('/') && !prefix.ends_with('/'));
    if !framed || !is_path(prefix) {
        let accepted = "an empty string, or a path that begins with `/` and does not end with `/`";
        return Err(shape("pusher.path_prefix", prefix, accepted));
    }
    Ok(())
}
