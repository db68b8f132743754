//! RFC 6455 after the 101 response, without a socket: takes received bytes and returns events, as a
//! server or as a client.
//!
//! [`Reader`] turns received bytes into messages and control frames, or into the one [`Violation`]
//! that ends the connection. The reader reports a violation at the octet that breaks the rule, not
//! at the end of the frame. [`frame`] writes frames, [`close`] has the close codes and the closing
//! handshake, [`utf8`] checks text as it arrives. A rule that applies to reading and to writing is
//! one function, which both call.
//!
//! This module has no clock: the session decides how long to wait for an answer.

pub mod close;
pub mod codecs;
mod codes;
pub mod deflate;
pub mod extension;
pub mod frame;
pub mod output;
mod partial_header;
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

/// The limits of a reader. Many connections share one value, so every call of a reader takes a
/// reference and no reader stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// The maximum payload bytes of one data frame.
    pub frame_bytes: u64,
    /// The maximum payload bytes of one message, all its frames together, before any decompression.
    pub message_bytes: u64,
    /// The maximum number of frames of one message, the first and the last included.
    pub fragments: u32,
    /// Whether the first frame of a message may carry RSV1 (RFC 7692 section 6).
    pub allow_rsv1: bool,
}

impl Default for FrameLimits {
    /// The limits of [`crate::limits`], without compression.
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
    /// The whole input was consumed, and no message or control frame is complete.
    Need,
    /// A whole message. If the message is one frame that is whole in the input, the payload is in
    /// the input. Otherwise it is in the reader's buffer, which the next call releases.
    Message {
        /// Text or binary. Text is valid UTF-8 unless it is compressed.
        kind: MessageKind,
        /// Whether the first frame carried RSV1: the payload is still compressed, and text is not
        /// checked.
        compressed: bool,
        /// The payload, unmasked.
        payload: &'a mut [u8],
    },
    /// A ping of at most 125 bytes, which must be answered by a pong with the same payload (section
    /// 5.5.2).
    Ping(&'a [u8]),
    /// A pong of at most 125 bytes, solicited or unsolicited (section 5.5.3).
    Pong(&'a [u8]),
    /// The peer's close frame (section 5.5.1). The reader ignores all input after it.
    Close {
        /// The status code, if the frame had a payload. It is always a code that a close frame may
        /// carry.
        code: Option<u16>,
        /// The reason, empty if there was none.
        reason: &'a str,
    },
    /// The peer broke the protocol. The reader ignores all further input.
    Violation(Violation),
}
