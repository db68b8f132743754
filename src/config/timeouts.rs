//! The section `timeouts`: the times after which a connection is closed.

use serde::Deserialize;

use super::error::Error;
use super::range::{HOUR_MS, range};

/// Timeouts after which a connection is closed, in milliseconds. Each is 1 to 3600000.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Timeouts {
    /// From the accept to the end of the TLS handshake. Default: 10000.
    pub handshake_ms: u64,
    /// From the first byte of a request (or the accept, or the end of the TLS handshake) to the end
    /// of the request head. Default: 10000.
    pub head_ms: u64,
    /// From the end of a request head to the end of the request body. Default: 30000.
    pub body_ms: u64,
    /// Idle time between two requests of one connection (keep-alive). Default: 60000.
    pub keep_alive_ms: u64,
    /// From the first byte of a WebSocket message to its last byte. Default: 60000.
    pub message_ms: u64,
    /// For the WebSocket close handshake, and for lingering after an HTTP response that closes the
    /// connection. Default: 5000.
    pub close_ms: u64,
    /// Time in which a write queue that is not empty makes no progress. Default: 30000.
    pub send_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            handshake_ms: 10_000,
            head_ms: 10_000,
            body_ms: 30_000,
            keep_alive_ms: 60_000,
            message_ms: 60_000,
            close_ms: 5_000,
            send_ms: 30_000,
        }
    }
}

pub(super) fn check(timeouts: &Timeouts) -> Result<(), Error> {
    for (key, milliseconds) in [
        ("timeouts.handshake_ms", timeouts.handshake_ms),
        ("timeouts.head_ms", timeouts.head_ms),
        ("timeouts.body_ms", timeouts.body_ms),
        ("timeouts.keep_alive_ms", timeouts.keep_alive_ms),
        ("timeouts.message_ms", timeouts.message_ms),
        ("timeouts.close_ms", timeouts.close_ms),
        ("timeouts.send_ms", timeouts.send_ms),
    ] {
        range(key, milliseconds, 1..=HOUR_MS, " milliseconds")?;
    }
    Ok(())
}
