//! The section `timeouts`: the times after which a connection is closed.

use crate::settings::range::HOUR_MS;
use crate::settings::section::section;

section! {
    /// Timeouts after which a connection is closed.
    pub struct Timeouts {
        /// From the accept to the end of the TLS handshake.
        pub handshake_ms: u64 = 10_000, milliseconds(1..=HOUR_MS);
        /// From the first byte of a request (or the accept, or the end of the TLS handshake) to the
        /// end of the request head.
        pub head_ms: u64 = 10_000, milliseconds(1..=HOUR_MS);
        /// From the end of the request head to the end of the request body.
        pub body_ms: u64 = 30_000, milliseconds(1..=HOUR_MS);
        /// Idle time between two requests of one connection (keep-alive).
        pub keep_alive_ms: u64 = 60_000, milliseconds(1..=HOUR_MS);
        /// From the first byte of a WebSocket message to its last byte.
        pub message_ms: u64 = 60_000, milliseconds(1..=HOUR_MS);
        /// For the WebSocket close handshake, and for lingering after an HTTP response that closes
        /// the connection.
        pub close_ms: u64 = 5_000, milliseconds(1..=HOUR_MS);
        /// Time in which a write queue that is not empty makes no progress.
        pub send_ms: u64 = 30_000, milliseconds(1..=HOUR_MS);
    }
}
