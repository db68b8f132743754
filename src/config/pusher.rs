//! The configuration section of the Pusher dialect.

use super::text::{is_path, shape};
use crate::settings::error::Error;
use crate::settings::range::DAY_S;
use crate::settings::section::{Section, section};

section! {
    /// The Pusher dialect.
    pub struct PusherConfig {
        /// Path prefix before /app/... and /apps/...: empty, or a path such as "/ws" without / at
        /// its end.
        pub path_prefix: String = String::new();
        /// Activity timeout: silence after which client and server ping each other.
        pub activity_timeout_s: u64 = 120, seconds(1..=DAY_S);
        /// Pong timeout: how long the server waits for a pong.
        pub pong_timeout_s: u64 = 30, seconds(1..=DAY_S);
        /// Silence after which a client with a protocol version below 5, which has no pings, is
        /// closed with 4202.
        pub inactivity_timeout_s: u64 = 86_400, seconds(1..=7 * DAY_S);
        /// Whether a missing or unknown `protocol` parameter is refused (4006 to 4008) instead of
        /// being treated as 7.
        pub strict_protocol: bool = false;
    }
}

/// Checks the ranges and the form of the path prefix; the keys in errors are relative to the
/// section.
pub(super) fn check(pusher: &PusherConfig) -> Result<(), Error> {
    pusher.check_ranges()?;
    let prefix = pusher.path_prefix.as_str();
    let framed = prefix.is_empty() || (prefix.starts_with('/') && !prefix.ends_with('/'));
    if !framed || !is_path(prefix) {
        let accepted = "an empty string, or a path that begins with `/` and does not end with `/`";
        return Err(shape("path_prefix", prefix, accepted));
    }
    Ok(())
}
