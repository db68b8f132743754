//! Closing (RFC 6455 sections 5.5.1, 7.1 and 7.4): codes, payloads and the handshake.

pub use super::codes::*;

use super::Violation;
use crate::limits::WS_CONTROL_BYTES;

/// Whether a close frame may carry `code` (section 7.4 and its registry): 1000 to 1003, 1007 to
/// 1014, and 3000 to 4999. The same rule applies to reading and to writing.
pub fn on_the_wire(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The payload of a close frame, ready to be written; at most 125 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    bytes: [u8; WS_CONTROL_BYTES],
    len: u8,
}

impl std::ops::Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Builds the payload of a close frame. A reason of more than 123 bytes is cut at a character
/// boundary; a code that may not be on the wire gives the empty payload, which means "no code".
pub fn payload(code: u16, reason: &str) -> Payload {
    let mut payload = Payload { bytes: [0; WS_CONTROL_BYTES], len: 0 };
    if !on_the_wire(code) {
        return payload;
    }
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(WS_CONTROL_BYTES - 2)];
    let end = 2 + reason.len();
    payload.bytes[..2].copy_from_slice(&code.to_be_bytes());
    payload.bytes[2..end].copy_from_slice(reason);
    payload.len = end as u8;
    payload
}

/// Reads the payload of a whole close frame: the code and the reason.
///
/// # Errors
/// [`Violation::HalfCloseCode`], [`Violation::CloseCode`] or [`Violation::ReasonNotUtf8`].
pub fn parse(payload: &[u8]) -> Result<(Option<u16>, &str), Violation> {
    check_part(payload)?;
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok((None, "")) } else { Err(Violation::HalfCloseCode) };
    };
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::ReasonNotUtf8)?;
    Ok((Some(u16::from_be_bytes(*code)), reason))
}

/// Checks the first octets of a close payload that may not be complete.
///
/// # Errors
/// The payload is invalid, whatever follows.
pub(super) fn check_part(part: &[u8]) -> Result<(), Violation> {
    let Some((code, reason)) = part.split_first_chunk::<2>() else {
        return Ok(());
    };
    let code = u16::from_be_bytes(*code);
    if !on_the_wire(code) {
        return Err(Violation::CloseCode(code));
    }
    match std::str::from_utf8(reason) {
        Err(e) if e.error_len().is_some() => Err(Violation::ReasonNotUtf8),
        _ => Ok(()),
    }
}

/// The closing handshake (section 7.1): each side sends one close frame and no data after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseHandshake {
    /// Neither side has closed.
    #[default]
    Open,
    /// Our close frame was sent; the peer's has not arrived.
    Sent,
    /// The peer's close frame has arrived; ours was not sent yet.
    Received,
    /// Both close frames were exchanged: the server ends the TCP connection first (section 7.1.1).
    Done,
}

impl CloseHandshake {
    /// Notes that we want to send a close frame. Returns whether we may send it: true at most once.
    #[must_use]
    pub fn send(&mut self) -> bool {
        let (next, may) = match self {
            CloseHandshake::Open => (CloseHandshake::Sent, true),
            CloseHandshake::Received => (CloseHandshake::Done, true),
            CloseHandshake::Sent | CloseHandshake::Done => return false,
        };
        *self = next;
        may
    }

    /// Notes that the peer's close frame has arrived. Returns whether we must answer it with ours.
    #[must_use]
    pub fn receive(&mut self) -> bool {
        let (next, owed) = match self {
            CloseHandshake::Open => (CloseHandshake::Received, true),
            CloseHandshake::Sent => (CloseHandshake::Done, false),
            CloseHandshake::Received | CloseHandshake::Done => return false,
        };
        *self = next;
        owed
    }

    /// Whether data frames may still be sent.
    pub fn may_send_data(self) -> bool {
        self == CloseHandshake::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_on_the_wire_are_the_registered_ones() {
        let allowed = (0..=u16::MAX).filter(|&code| on_the_wire(code)).collect::<Vec<_>>();
        let want = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect::<Vec<_>>();
        assert_eq!(allowed, want);
    }

    #[test]
    fn close_payload_is_read_as_written() {
        for (code, reason) in [(1000, ""), (1001, "bye"), (4999, "gr\u{fc}\u{df}e")] {
            assert_eq!(parse(&payload(code, reason)), Ok((Some(code), reason)));
        }
    }

    #[test]
    fn close_reason_is_cut_between_characters() {
        assert_eq!(payload(1000, &"x".repeat(123)).len(), 125);
        assert_eq!(payload(1000, &"x".repeat(124)).len(), 125);
        let euros = "\u{20ac}".repeat(60);
        assert_eq!(payload(1000, &euros).len(), 2 + 41 * 3);
        let shifted = format!("x{euros}");
        assert_eq!(payload(1000, &shifted).len(), 2 + 1 + 40 * 3);
    }

    #[test]
    fn close_code_that_may_not_be_on_the_wire_is_not_written() {
        for code in [0, 999, NO_CODE, ABNORMAL, 1015, 2999, 5000, u16::MAX] {
            assert!(payload(code, "reason").is_empty(), "{code}");
        }
    }

    #[test]
    fn close_handshake_has_one_frame_from_each_side() {
        let mut ours = CloseHandshake::Open;
        assert!(ours.send() && !ours.may_send_data() && !ours.send());
        assert!(!ours.receive());
        assert_eq!(ours, CloseHandshake::Done);
        let mut theirs = CloseHandshake::Open;
        assert!(theirs.receive() && !theirs.may_send_data() && !theirs.receive());
        assert!(theirs.send() && !theirs.send() && !theirs.receive());
        assert_eq!(theirs, CloseHandshake::Done);
    }
}
