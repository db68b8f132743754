//! What a session requests of its shard for a proxied connection, beside the effects of a dialect:
//! dials, and messages to the other connection.

use crate::gateway::proxy::{UpstreamFailure, UpstreamHandshake};
use crate::mem::Slot;
use crate::time::Deadline;
use crate::tls::Filter;
use crate::ws::{MessageKind, Opcode};
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

/// What a session requests of its shard for a proxied connection, beside the effects of a dialect.
pub enum ProxyEffect {
    /// Dial an upstream.
    Dial(Box<Dial>),
    /// Send a message to another session of this core.
    Send {
        /// The session that receives the message.
        to: Slot,
        /// The message.
        message: PeerMessage,
    },
}

/// A message from one leg of a proxied connection to the other.
#[derive(Debug)]
pub enum PeerMessage {
    /// The outcome of the dial: the subprotocol that the upstream has chosen, or why there is no
    /// WebSocket.
    Answered(Result<Option<Box<str>>, UpstreamFailure>),
    /// A whole message.
    Message {
        /// Text or binary.
        kind: MessageKind,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A ping or a pong.
    Control {
        /// Ping or pong.
        opcode: Opcode,
        /// The payload.
        payload: Vec<u8>,
    },
    /// The sender's connection was closed or lost. It is the last message of a leg.
    Close {
        /// The close code, if there was one.
        code: Option<u16>,
        /// The close reason.
        reason: Cow<'static, str>,
    },
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
