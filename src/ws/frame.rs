//! Frame headers (RFC 6455 section 5.2), read and written.

use super::{FrameLimits, MessageKind, Role, Violation};
use crate::{limits::WS_CONTROL_BYTES, simd};

/// The longest header: two octets, a 64-bit length and a masking key.
pub const HEADER_BYTES: usize = 14;

/// The opcodes of frames (section 5.2). All others are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0,
    /// The first part of a text message.
    Text = 1,
    /// The first part of a binary message.
    Binary = 2,
    /// Connection close.
    Close = 8,
    /// Ping.
    Ping = 9,
    /// Pong.
    Pong = 10,
}

impl Opcode {
    /// Whether this is the opcode of a control frame (section 5.5).
    #[inline]
    pub fn is_control(self) -> bool {
        self as u8 >= 8
    }

    fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }
}

/// Checks the rule of section 5.5 for a control frame that is read or written: it is not
/// fragmented, and its payload has at most 125 bytes. Data frames always pass.
///
/// # Errors
/// [`Violation::FragmentedControl`] or [`Violation::LongControl`].
#[inline]
pub fn check(opcode: Opcode, fin: bool, len: u64) -> Result<(), Violation> {
    if opcode.is_control() && !fin {
        Err(Violation::FragmentedControl)
    } else if opcode.is_control() && len > WS_CONTROL_BYTES as u64 {
        Err(Violation::LongControl)
    } else {
        Ok(())
    }
}

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the frame is the last one of its message.
    pub fin: bool,
    /// Whether the message is compressed (RFC 7692); only on the first frame of a data message.
    pub rsv1: bool,
    /// The kind of the frame.
    pub opcode: Opcode,
    /// The masking key, if there is one.
    pub mask: Option<[u8; 4]>,
    /// Payload bytes, below 2^63.
    pub len: u64,
}

impl Header {
    /// The header of a whole, uncompressed data message.
    #[inline]
    pub(super) fn plain(kind: MessageKind, mask: Option<[u8; 4]>, len: usize) -> Header {
        let opcode = if kind == MessageKind::Text { Opcode::Text } else { Opcode::Binary };
        Header { fin: true, rsv1: false, opcode, mask, len: len as u64 }
    }

    /// Writes the header to the front of `out` and returns its length: 2 to 14 octets.
    #[inline]
    pub fn write(&self, out: &mut [u8; HEADER_BYTES]) -> usize {
        debug_assert_eq!(check(self.opcode, self.fin, self.len), Ok(()));
        debug_assert!(self.len >> 63 == 0);
        out[0] = u8::from(self.fin) << 7 | u8::from(self.rsv1) << 6 | self.opcode as u8;
        let (code, mut end) = match self.len {
            0..=125 => (self.len as u8, 2),
            126..=0xffff => {
                out[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
                (126, 4)
            }
            _ => {
                out[2..10].copy_from_slice(&self.len.to_be_bytes());
                (127, 10)
            }
        };
        out[1] = u8::from(self.mask.is_some()) << 7 | code;
        if let Some(key) = self.mask {
            out[end..end + 4].copy_from_slice(&key);
            end += 4;
        }
        end
    }
}

/// Appends a whole, unfragmented, uncompressed frame to `out`; masked with `mask` if there is one.
///
/// # Panics
/// If a control frame's payload is over 125 bytes; use [`check`] before.
pub fn push(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    let header = Header { fin: true, rsv1: false, opcode, mask, len: payload.len() as u64 };
    push_with(out, &header, payload);
}

/// Appends a frame with any header to `out`; `header.len` is the length of `payload`, which is
/// masked if the header has a key.
///
/// # Panics
/// If a control frame is fragmented or its payload over 125 bytes; use [`check`] before.
pub fn push_with(out: &mut Vec<u8>, header: &Header, payload: &[u8]) {
    assert_eq!(check(header.opcode, header.fin, header.len), Ok(()));
    debug_assert_eq!(header.len, payload.len() as u64);
    let mut head = [0; HEADER_BYTES];
    let len = header.write(&mut head);
    out.reserve(len + payload.len());
    out.extend_from_slice(&head[..len]);
    match header.mask {
        Some(key) => _ = simd::mask_onto(out, payload, key),
        None => out.extend_from_slice(payload),
    }
}

/// A whole server frame in a buffer of exactly its size, to be shared by many receivers.
///
/// # Panics
/// As [`push`].
pub fn frozen(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header_len(payload.len()) + payload.len());
    push(&mut out, opcode, payload, None);
    out
}

/// One whole unmasked frame whose payload is what `write` appends; `scratch` is working memory.
pub fn build(opcode: Opcode, scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
    scratch.clear();
    scratch.extend_from_slice(&[0; HEADER_BYTES]);
    write(scratch);
    let len = (scratch.len() - HEADER_BYTES) as u64;
    let mut header = [0; HEADER_BYTES];
    let octets = Header { fin: true, rsv1: false, opcode, mask: None, len }.write(&mut header);
    let begin = HEADER_BYTES - octets;
    scratch[begin..HEADER_BYTES].copy_from_slice(&header[..octets]);
    &scratch[begin..]
}

/// The opcode and the payload of one whole unfragmented frame that this server has made, which is
/// not masked.
pub fn split(frame: &[u8]) -> Option<(Opcode, &[u8])> {
    let (head, rest) = frame.split_first_chunk::<2>()?;
    let payload = match head[1] {
        126 => rest.get(2..)?,
        127 => rest.get(8..)?,
        _ => rest,
    };
    Some((Opcode::from_bits(head[0] & 0x0f)?, payload))
}

/// Octets of the header of an unmasked frame: 2, 4 or 10.
pub fn header_len(payload: usize) -> usize {
    match payload {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// What a reader, in its present state, accepts as the next frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameRules {
    pub(super) role: Role,
    pub(super) allow_rsv1: bool,
    /// Whether a fragmented message is open.
    pub(super) open: bool,
    /// Whether the open message may have another frame.
    pub(super) more: bool,
    /// The maximum payload bytes of a data frame.
    pub(super) room: u64,
}

impl FrameRules {
    /// Reads a header from the front of `bytes`. Returns its length and the header, or `None` if it
    /// is not complete.
    ///
    /// # Errors
    /// The violation of the first octet that makes the header invalid, whatever follows.
    // Always inlined: returned through memory, the header costs three stalled loads.
    #[inline(always)]
    pub(super) fn read(&self, bytes: &[u8]) -> Result<Option<(usize, Header)>, Violation> {
        let [first, ref rest @ ..] = *bytes else {
            return Ok(None);
        };
        let (fin, rsv1, opcode) = self.first(first)?;
        let [second, ref rest @ ..] = *rest else {
            return Ok(None);
        };
        let masked = second & 0x80 != 0;
        let code = second & 0x7f;
        self.second(opcode, masked, code)?;
        let width = match code {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(len) = self.length(opcode, code, &rest[..width.min(rest.len())])? else {
            return Ok(None);
        };
        let mask = match rest[width..].first_chunk::<4>() {
            _ if !masked => None,
            Some(key) => Some(*key),
            None => return Ok(None),
        };
        let size = 2 + width + 4 * usize::from(masked);
        Ok(Some((size, Header { fin, rsv1, opcode, mask, len })))
    }

    /// Reads the first octet: FIN, the reserved bits and the opcode.
    #[inline]
    fn first(&self, octet: u8) -> Result<(bool, bool, Opcode), Violation> {
        let (fin, rsv1) = (octet & 0x80 != 0, octet & 0x40 != 0);
        if octet & 0x30 != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::from_bits(octet & 0x0f).ok_or(Violation::ReservedOpcode)?;
        let starts = matches!(opcode, Opcode::Text | Opcode::Binary);
        if rsv1 && !(starts && self.allow_rsv1) {
            return Err(Violation::ReservedBits);
        }
        check(opcode, fin, 0)?;
        match opcode {
            Opcode::Continuation if !self.open => Err(Violation::LooseContinuation),
            Opcode::Text | Opcode::Binary if self.open => Err(Violation::InterruptedMessage),
            _ if !opcode.is_control() && !self.more => Err(Violation::TooManyFragments),
            _ => Ok((fin, rsv1, opcode)),
        }
    }

    /// Checks the second octet: the mask bit, and the length code of a control frame.
    #[inline]
    fn second(&self, opcode: Opcode, masked: bool, code: u8) -> Result<(), Violation> {
        match (self.role.peer_masks(), masked) {
            (true, false) => return Err(Violation::Unmasked),
            (false, true) => return Err(Violation::Masked),
            _ => check(opcode, true, u64::from(code))?,
        }
        if opcode == Opcode::Close && code == 1 {
            return Err(Violation::HalfCloseCode);
        }
        Ok(())
    }

    /// Reads the length from its code and the extended octets that have arrived. Returns `None` if
    /// some are missing. The missing octets leave a range of possible lengths; if the whole range
    /// is above the limit, that is already a violation.
    #[inline]
    fn length(&self, opcode: Opcode, code: u8, bytes: &[u8]) -> Result<Option<u64>, Violation> {
        let (width, min) = match code {
            126 => (2, 126),
            127 => (8, 0x1_0000),
            _ => (0, 0),
        };
        let missing = 8 * (width - bytes.len()) as u32;
        let known = bytes.iter().fold(0, |len, &octet| len << 8 | u64::from(octet));
        let (low, high) = match code {
            126 | 127 if missing == 64 => (0, u64::MAX),
            126 | 127 => (known << missing, known << missing | ((1 << missing) - 1)),
            _ => (u64::from(code), u64::from(code)),
        };
        if min > self.room && !opcode.is_control() {
            return Err(Violation::TooBig);
        }
        if low >> 63 != 0 {
            return Err(Violation::NegativeLength);
        }
        if high < min {
            return Err(Violation::OverlongLength);
        }
        if low > self.room && !opcode.is_control() {
            return Err(Violation::TooBig);
        }
        Ok((missing == 0).then_some(low))
    }
}

/// The frequent case: an uncompressed data frame that is a whole message of less than 64 KiB, and
/// whose header is complete. Returns its kind, and the start and length of its payload. Every other
/// case and every error is left to [`FrameRules::read`].
#[inline]
pub(super) fn plain_message(
    role: Role,
    limits: &FrameLimits,
    input: &[u8],
) -> Option<(MessageKind, usize, usize)> {
    let [first, second, a, b, ..] = *input else {
        return None;
    };
    let kind = match first {
        0x81 => MessageKind::Text,
        0x82 => MessageKind::Binary,
        _ => return None,
    };
    let key = if role.peer_masks() { 4 } else { 0 };
    let code = second ^ if role.peer_masks() { 0x80 } else { 0 };
    let (start, len) = match code {
        0..=125 => (2 + key, usize::from(code)),
        126 if a != 0 || b >= 126 => (4 + key, usize::from(u16::from_be_bytes([a, b]))),
        _ => return None,
    };
    let admitted = len as u64 <= limits.frame_bytes.min(limits.message_bytes);
    (admitted && limits.fragments > 0 && start <= input.len()).then_some((kind, start, len))
}
