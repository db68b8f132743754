//! The section of the Pusher dialect.

use serde::Deserialize;

/// The Pusher dialect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct PusherConfig {
    /// What stands before `/app/...` and `/apps/...`: empty, or a path without `/` at its end.
    pub path_prefix: String,
    /// Silence after which client and server ask each other for a sign of life, in seconds.
    pub activity_timeout_s: u64,
    /// How long the answer to that may take, in seconds.
    pub pong_timeout_s: u64,
    /// Silence after which a client is closed that says it speaks a protocol below 5, which has no
    /// signs of life, in seconds.
    pub inactivity_timeout_s: u64,
    /// Whether a missing or unknown `protocol` is refused (4006 to 4008) instead of taken as 7.
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
