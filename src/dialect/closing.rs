//! How and why a connection is closed.

use std::borrow::Cow;

/// A close code with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The close code.
    pub code: u16,
    /// The reason, as the vendor words it; truncated to 123 bytes.
    pub reason: Cow<'static, str>,
}

impl Closing {
    /// A close with a fixed reason.
    pub const fn new(code: u16, reason: &'static str) -> Closing {
        Closing { code, reason: Cow::Borrowed(reason) }
    }
}

/// The server's reasons for closing a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The peer has sent nothing within its timeouts.
    Silent,
    /// The server is being shut down.
    Draining,
    /// The peer is a slow consumer: its write queue is full.
    Slow,
    /// Events of the cluster's log that the peer should have got may be lost.
    Gap,
}
