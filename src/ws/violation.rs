//! The rules of RFC 6455 that a peer can break.

use super::codes;

/// A broken rule of RFC 6455, which fails the connection (section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// RSV2 or RSV3 is set, or RSV1 where no extension gives it a meaning (section 5.2).
    ReservedBits,
    /// An opcode of 3 to 7 or 11 to 15 (section 5.2).
    ReservedOpcode,
    /// A control frame without FIN (section 5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (section 5.5).
    LongControl,
    /// A continuation frame while no message is open (section 5.4).
    LooseContinuation,
    /// A text or binary frame while a message is open (section 5.4).
    InterruptedMessage,
    /// More frames in one message than the limit admits.
    TooManyFragments,
    /// A client's frame without a mask (section 5.1).
    Unmasked,
    /// A server's frame with a mask (section 5.1).
    Masked,
    /// A length in more octets than it needs (section 5.2).
    OverlongLength,
    /// A 64-bit length with its most significant bit set (section 5.2).
    NegativeLength,
    /// A frame or message longer than the limit admits.
    TooBig,
    /// A text message that is not UTF-8 (section 8.1).
    TextNotUtf8,
    /// A compressed message that is not a DEFLATE stream (RFC 7692 section 7.2.2).
    NotDeflate,
    /// A close frame with one octet of payload (section 5.5.1).
    HalfCloseCode,
    /// A close code that must not be on the wire (section 7.4).
    CloseCode(u16),
    /// A close reason that is not UTF-8 (section 5.5.1).
    ReasonNotUtf8,
    /// A body that ends inside a record ([`super::record`]).
    CutRecord,
    /// A body whose chunks are malformed (RFC 9112 section 7.1).
    Chunk,
}

impl Violation {
    /// The code that our close frame carries: 1002, 1007 or 1009 (section 7.4.1).
    pub fn code(self) -> u16 {
        self.code_and_reason().0
    }

    /// A reason for our close frame: ASCII, at most 123 bytes.
    pub fn reason(self) -> &'static str {
        self.code_and_reason().1
    }

    fn code_and_reason(self) -> (u16, &'static str) {
        use Violation::*;
        match self {
            ReservedBits => (codes::PROTOCOL, "reserved bit set"),
            ReservedOpcode => (codes::PROTOCOL, "reserved opcode"),
            FragmentedControl => (codes::PROTOCOL, "fragmented control frame"),
            LongControl => (codes::PROTOCOL, "control frame over 125 bytes"),
            LooseContinuation => (codes::PROTOCOL, "continuation without a message"),
            InterruptedMessage => (codes::PROTOCOL, "data frame inside a fragmented message"),
            TooManyFragments => (codes::TOO_BIG, "too many fragments"),
            Unmasked => (codes::PROTOCOL, "frame without a mask"),
            Masked => (codes::PROTOCOL, "masked frame from a server"),
            OverlongLength => (codes::PROTOCOL, "length not in its shortest form"),
            NegativeLength => (codes::PROTOCOL, "top bit of the length set"),
            TooBig => (codes::TOO_BIG, "message too big"),
            TextNotUtf8 => (codes::INVALID_DATA, "text is not UTF-8"),
            NotDeflate => (codes::INVALID_DATA, "compressed message is damaged"),
            HalfCloseCode => (codes::PROTOCOL, "close frame of one byte"),
            CloseCode(_) => (codes::PROTOCOL, "close code not allowed"),
            ReasonNotUtf8 => (codes::INVALID_DATA, "close reason is not UTF-8"),
            CutRecord => (codes::PROTOCOL, "the body ends inside of a record"),
            Chunk => (codes::PROTOCOL, "malformed chunk"),
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Violation::CloseCode(code) => write!(f, "{}: {code}", self.reason()),
            _ => f.write_str(self.reason()),
        }
    }
}

impl std::error::Error for Violation {}
