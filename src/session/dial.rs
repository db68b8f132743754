//! A connection to an upstream that is to be dialled, and the random keys of client connections.

use crate::gateway::proxy::UpstreamHandshake;
use crate::mem::Slot;
use crate::time::Deadline;
use crate::tls::Filter;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

/// A connection to an upstream that is to be dialled.
pub struct Dial {
    /// The upstream's address.
    pub address: SocketAddr,
    /// The client that the connection is for.
    pub client: Slot,
    /// The deadline of the connect.
    pub(super) deadline: Deadline,
    /// TLS, if the upstream uses it.
    pub(super) filter: Option<Filter>,
    /// The handshake and its request.
    pub(super) handshake: UpstreamHandshake,
    pub(super) request: Vec<u8>,
    /// The timeout of the handshake, in milliseconds.
    pub(super) handshake_ms: u64,
    /// The bytes that may wait for one leg before reading from the other is paused.
    pub(super) buffer_bytes: usize,
}

/// Generates unpredictable keys for masks (RFC 6455 section 5.3) and handshakes.
#[derive(Debug, Default)]
pub struct MaskKeys {
    /// Seeded from the system's random source.
    state: RandomState,
    count: u64,
}

impl MaskKeys {
    fn next(&mut self) -> [u8; 8] {
        self.count += 1;
        self.state.hash_one(self.count).to_ne_bytes()
    }

    /// A masking key.
    pub fn mask(&mut self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.next();
        [a, b, c, d]
    }

    /// The 16 bytes of which a handshake's `Sec-WebSocket-Key` is made.
    pub fn nonce(&mut self) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.next());
        nonce[8..].copy_from_slice(&self.next());
        nonce
    }
}
