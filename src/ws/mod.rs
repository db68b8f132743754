//! RFC 6455 after the 101 response, without a socket: bytes in, events out, for both roles.
//!
//! [`Reader`] turns received bytes into messages and control frames, or into the one [`Violation`]
//! that ends the connection; it reports the violation with the octet that breaks the rule, not at
//! the end of the frame. [`frame`] writes frames, [`close`] has the codes and the closing
//! handshake, [`utf8`] checks text as it arrives. Each rule is one function for reading and for
//! writing.
//!
//! This module has no clock: the session decides how long to wait for an answer.

pub mod close;
pub mod deflate;
pub mod extension;
pub mod frame;
pub mod output;
mod place;
mod read;
pub mod record;
mod unpack;
pub mod utf8;
mod violation;

pub use frame::Opcode;
pub use place::LargePlace;
pub use read::Reader;
pub use unpack::Unpacked;
pub use violation::Violation;

use crate::limits;

/// Which end of the connection we are (RFC 6455 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We accepted: the peer's frames must be masked, ours are not.
    Server,
    /// We dialled: the peer's frames must not be masked, ours are.
    Client,
}

impl Role {
    /// Whether the frames of the peer carry a masking key.
    #[inline]
    pub fn peer_masks(self) -> bool {
        self == Role::Server
    }

    /// Whether the frames that we write carry a masking key.
    #[inline]
    pub fn masks(self) -> bool {
        self == Role::Client
    }
}

/// What a reader admits. Shared by many connections, so it is passed to every call and never kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Payload bytes of one data frame.
    pub frame_bytes: u64,
    /// Payload bytes of one message, all its frames together, before any decompression.
    pub message_bytes: u64,
    /// Frames of one message, the first and the last included.
    pub fragments: u32,
    /// Whether the first frame of a message may carry RSV1 (RFC 7692 section 6).
    pub allow_rsv1: bool,
}

impl Default for FrameLimits {
    /// The bounds of [`crate::limits`], without compression.
    fn default() -> Self {
        FrameLimits {
            frame_bytes: limits::WS_FRAME_BYTES,
            message_bytes: limits::WS_MESSAGE_BYTES,
            fragments: limits::WS_FRAGMENTS,
            allow_rsv1: false,
        }
    }
}

/// What a message holds (RFC 6455 section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8 text.
    Text,
    /// Octets that only the application understands.
    Binary,
}

/// What [`Reader::next`] found at the front of its input.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameEvent<'a> {
    /// All of the input was taken and nothing is complete.
    Need,
    /// A whole message: in place in the input if it came whole and in one frame, else in the
    /// reader's buffer, which is released by the next call.
    Message {
        /// Text or binary. Text is valid UTF-8 unless it is compressed.
        kind: MessageKind,
        /// The first frame carried RSV1: the payload is to be inflated, and text to be checked.
        compressed: bool,
        /// The payload, unmasked.
        payload: &'a mut [u8],
    },
    /// A ping of at most 125 bytes; a pong with the same payload is owed (section 5.5.2).
    Ping(&'a [u8]),
    /// A pong of at most 125 bytes, asked for or not (section 5.5.3).
    Pong(&'a [u8]),
    /// The peer's close frame (section 5.5.1). The reader ignores whatever follows it.
    Close {
        /// The status code, if the frame had a payload; always one that may be on the wire.
        code: Option<u16>,
        /// The reason, empty if there was none.
        reason: &'a str,
    },
    /// The peer broke the protocol. The reader ignores whatever follows.
    Violation(Violation),
}
