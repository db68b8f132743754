//! The reader of frames: takes received octets, and returns events.

use super::frame::{FrameRules, Header, Opcode, plain_message};
use super::partial_header::PartialHeader;
use super::{FrameEvent, FrameLimits, MessageKind, Role, Violation, close, utf8};
use crate::simd;

/// The reader of one connection, with the state that it keeps between two pieces of input.
///
/// For frames that arrive whole, nothing is kept. An unfinished header is kept in
/// `head`, an unfinished message in `buf`: `buf[..start]` from earlier frames,
/// `buf[start..]` from the current one, which needs `left` more octets. A control frame inside a
/// fragmented message uses the end of the same buffer.
///
/// Invariants: `start <= buf.len()`; `head` has octets only between frames; `fragments > 0` exactly
/// while a message is open; an idle reader has an empty `buf`, and between two inputs no capacity.
#[derive(Debug)]
pub struct Reader {
    buf: Vec<u8>,
    start: usize,
    left: u64,
    /// The masking key of the current frame, rotated so that its first octet is used next; zeros if
    /// the frame has none, because masking with zeros is copying.
    key: [u8; 4],
    fragments: u32,
    empty_frames: u16,
    head: PartialHeader,
    text: utf8::Validator,
    stage: Stage,
    opcode: Opcode,
    fin: bool,
    kind: MessageKind,
    compressed: bool,
}

/// A buffer of at most this size is kept for the next unfinished frame of the same input, so that a
/// stream whose frames are cut by every input allocates only once.
const SPARE_BYTES: usize = 32 * 1024;
/// The capacity in bytes above which [`Reader::take_back_long`] frees a buffer.
const LONG_BYTES: usize = 64 * 1024;

/// The position of a reader in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before a header, with no message open and nothing kept.
    Idle,
    /// Before or inside a header.
    Header,
    /// Inside a payload.
    Payload,
    /// `buf[start..]` was returned; the next call takes it back.
    Delivered,
    /// After a violation or a close frame.
    Dead,
}

/// An event without references to the payload.
enum Parsed {
    Need,
    Frame(Opcode, Place),
    Violation(Violation),
}

/// Where the payload of a frame or message is.
enum Place {
    Input { start: usize, end: usize },
    Buffer,
}

impl Default for Reader {
    fn default() -> Self {
        Reader::new()
    }
}

impl Reader {
    /// A reader at the start of a connection.
    pub const fn new() -> Self {
        Reader {
            buf: Vec::new(),
            start: 0,
            left: 0,
            key: [0; 4],
            fragments: 0,
            empty_frames: 0,
            head: PartialHeader::new(),
            text: utf8::Validator::new(),
            stage: Stage::Idle,
            opcode: Opcode::Continuation,
            fin: false,
            kind: MessageKind::Binary,
            compressed: false,
        }
    }

    /// Consumes octets from the front of `input`. Returns how many, and the event.
    ///
    /// Call it with the rest of the input until it returns [`FrameEvent::Need`], which always
    /// consumes all of it and releases the buffer of a message that was returned before. After
    /// [`FrameEvent::Close`] and [`FrameEvent::Violation`] the reader consumes and ignores
    /// everything.
    #[inline]
    pub fn next<'a>(
        &'a mut self,
        role: Role,
        limits: &FrameLimits,
        input: &'a mut [u8],
    ) -> (usize, FrameEvent<'a>) {
        self.invariants();
        let all = input.len();
        if self.stage != Stage::Idle {
            self.take_back();
            if self.stage == Stage::Payload && self.left > all as u64 {
                return (all, self.part(input));
            }
            if self.stage != Stage::Idle {
                return self.next_of_any(role, limits, input);
            }
        }
        let Some((kind, start, len)) = plain_message(role, limits, input) else {
            return self.next_of_any(role, limits, input);
        };
        let (head, rest) = input.split_at_mut(start);
        let key = head.last_chunk().filter(|_| role.peer_masks());
        if rest.len() < len {
            self.begin(&Header::plain(kind, key.copied(), len));
            return (all, self.part(rest));
        }
        let payload = &mut rest[..len];
        let ascii = key.is_some_and(|key| simd::mask_ascii(payload, *key));
        if kind == MessageKind::Text && !ascii && !utf8::valid(payload) {
            self.die();
            return (all, FrameEvent::Violation(Violation::TextNotUtf8));
        }
        (start + len, FrameEvent::Message { kind, compressed: false, payload })
    }

    /// Heap bytes that the reader holds for an unfinished message; 0 if there is none.
    pub fn held_bytes(&self) -> usize {
        self.buf.capacity()
    }

    /// Bytes of an unfinished message that have arrived. Reserved memory beyond them is not
    /// counted, because it takes no physical memory until it is filled.
    pub fn filled_bytes(&self) -> usize {
        self.buf.len()
    }

    /// Frees the buffer of a long message that was returned. Call it after the message was
    /// processed, if its results may have to wait for a long time.
    pub fn take_back_long(&mut self) {
        if self.stage == Stage::Delivered && self.buf.capacity() > LONG_BYTES {
            self.take_back();
        }
    }

    /// Whether a frame or a fragmented message has begun and not ended. The deadline for slow
    /// senders applies while it has.
    pub fn mid_message(&self) -> bool {
        match self.stage {
            Stage::Idle | Stage::Dead => false,
            Stage::Header | Stage::Payload => true,
            Stage::Delivered => self.fragments > 0,
        }
    }

    /// Takes the arrived part of an unfinished compressed message out of the reader. Call it after
    /// [`FrameEvent::Need`]. That part does not count towards the limit of the message any more.
    pub fn take_compressed(&mut self) -> Option<(MessageKind, Vec<u8>)> {
        if self.fragments == 0 || !self.compressed {
            return None;
        }
        let end = match self.stage {
            Stage::Payload if self.opcode.is_control() => self.start,
            Stage::Payload | Stage::Header => self.buf.len(),
            Stage::Idle | Stage::Delivered | Stage::Dead => 0,
        };
        if end == 0 {
            return None;
        }
        let behind = self.buf.split_off(end);
        self.start = 0;
        Some((self.kind, std::mem::replace(&mut self.buf, behind)))
    }

    /// The number of empty frames since the last call, without those that are whole messages.
    pub fn take_empty_frames(&mut self) -> u16 {
        std::mem::take(&mut self.empty_frames)
    }

    /// Keeps a part of the current payload, which is not complete after it.
    #[inline(never)]
    fn part<'a>(&'a mut self, part: &[u8]) -> FrameEvent<'a> {
        let kept = self.keep(part);
        self.release();
        match kept {
            Ok(()) => FrameEvent::Need,
            Err(violation) => {
                self.die();
                FrameEvent::Violation(violation)
            }
        }
    }

    #[inline(never)]
    fn next_of_any<'a>(
        &'a mut self,
        role: Role,
        limits: &FrameLimits,
        input: &'a mut [u8],
    ) -> (usize, FrameEvent<'a>) {
        let all = input.len();
        let (taken, found) = match self.advance(role, limits, input) {
            Ok(found) => found,
            Err(violation) => (all, Parsed::Violation(violation)),
        };
        let (opcode, place) = match found {
            Parsed::Need => {
                self.release();
                return (taken, FrameEvent::Need);
            }
            Parsed::Violation(violation) => {
                self.die();
                return (all, FrameEvent::Violation(violation));
            }
            Parsed::Frame(opcode, place) => (opcode, place),
        };
        let payload = match place {
            Place::Input { start, end } => &mut input[start..end],
            Place::Buffer => &mut self.buf[self.start..],
        };
        match opcode {
            Opcode::Ping => (taken, FrameEvent::Ping(payload)),
            Opcode::Pong => (taken, FrameEvent::Pong(payload)),
            Opcode::Close => match close::parse(payload) {
                Ok((code, reason)) => (all, FrameEvent::Close { code, reason }),
                Err(violation) => (all, FrameEvent::Violation(violation)),
            },
            _ => {
                let (kind, compressed) = (self.kind, self.compressed);
                (taken, FrameEvent::Message { kind, compressed, payload })
            }
        }
    }

    /// Reads `input` up to the first event.
    fn advance(
        &mut self,
        role: Role,
        limits: &FrameLimits,
        input: &mut [u8],
    ) -> Result<(usize, Parsed), Violation> {
        if self.stage == Stage::Dead {
            return Ok((input.len(), Parsed::Need));
        }
        let mut taken = 0;
        loop {
            if self.stage != Stage::Payload {
                let Some((size, header)) = self.header(role, limits, &input[taken..])? else {
                    return Ok((input.len(), Parsed::Need));
                };
                taken += size;
                self.begin(&header);
                if self.is_whole_in(input.len() - taken) {
                    let end = taken + header.len as usize;
                    self.in_place(&mut input[taken..end])?;
                    let place = Place::Input { start: taken, end };
                    return Ok((end, Parsed::Frame(self.opcode, place)));
                }
            }
            let part = self.left.min((input.len() - taken) as u64) as usize;
            self.keep(&input[taken..taken + part])?;
            taken += part;
            if self.left > 0 {
                return Ok((taken, Parsed::Need));
            }
            if let Some(opcode) = self.end()? {
                return Ok((taken, Parsed::Frame(opcode, Place::Buffer)));
            }
        }
    }

    /// Reads a header whose first octets may have arrived earlier. Returns how many octets of
    /// `input` belong to it; `None` if all were kept because the header is not complete.
    #[inline(always)]
    fn header(
        &mut self,
        role: Role,
        limits: &FrameLimits,
        input: &[u8],
    ) -> Result<Option<(usize, Header)>, Violation> {
        let rules = self.rules(role, limits);
        if self.head.is_empty()
            && let Some(whole) = rules.read(input)?
        {
            return Ok(Some(whole));
        }
        if input.is_empty() {
            return Ok(None);
        }
        let whole = self.head.read(&rules, input)?;
        if whole.is_none() {
            self.stage = Stage::Header;
        }
        Ok(whole)
    }

    fn rules(&self, role: Role, limits: &FrameLimits) -> FrameRules {
        let room = limits.message_bytes.saturating_sub(self.buf.len() as u64);
        FrameRules {
            role,
            allow_rsv1: limits.allow_rsv1,
            open: self.fragments > 0,
            more: self.fragments < limits.fragments,
            room: room.min(limits.frame_bytes),
        }
    }

    /// Begins the payload after `header`.
    #[inline]
    fn begin(&mut self, header: &Header) {
        self.stage = Stage::Payload;
        self.start = self.buf.len();
        self.left = header.len;
        self.key = header.mask.unwrap_or_default();
        self.opcode = header.opcode;
        self.fin = header.fin;
        if header.opcode.is_control() {
            return;
        }
        self.fragments += 1;
        let alone = header.fin && header.opcode != Opcode::Continuation;
        if header.len == 0 && !alone {
            self.empty_frames = self.empty_frames.saturating_add(1);
        }
        if header.opcode != Opcode::Continuation {
            let text = header.opcode == Opcode::Text;
            self.kind = if text { MessageKind::Text } else { MessageKind::Binary };
            self.compressed = header.rsv1;
            self.text = utf8::Validator::new();
        }
    }

    /// Whether the frame that just began needs no buffer: it is not a fragment, and it is whole in
    /// the `there` octets that are left of the input.
    fn is_whole_in(&self, there: usize) -> bool {
        let alone = self.opcode.is_control() || (self.fin && self.opcode != Opcode::Continuation);
        alone && self.left <= there as u64
    }

    /// Unmasks and checks the payload of such a frame in place, and ends the frame.
    fn in_place(&mut self, payload: &mut [u8]) -> Result<(), Violation> {
        let ascii = simd::mask_ascii(payload, self.key);
        self.left = 0;
        match self.opcode {
            Opcode::Ping | Opcode::Pong => self.rest(),
            Opcode::Close => {
                close::parse(payload)?;
                self.die();
            }
            _ => {
                if self.checks_text() && !ascii && !utf8::valid(payload) {
                    return Err(Violation::TextNotUtf8);
                }
                self.fragments = 0;
                self.rest();
            }
        }
        Ok(())
    }

    /// Moves a part of the current payload from the input to the buffer, unmasked and checked.
    fn keep(&mut self, part: &[u8]) -> Result<(), Violation> {
        self.reserve(part.len());
        let from = self.buf.len();
        let ascii = simd::mask_onto(&mut self.buf, part, self.key);
        self.key = simd::turn(self.key, part.len());
        self.left -= part.len() as u64;
        if self.opcode == Opcode::Close {
            return close::check_part(&self.buf[self.start..]);
        }
        let text = !self.opcode.is_control() && self.checks_text();
        let plain = ascii && self.text.complete();
        if text && !plain && !self.text.feed(&self.buf[from..]) {
            return Err(Violation::TextNotUtf8);
        }
        Ok(())
    }

    /// Makes room for `part` more octets. The declared length is not trusted: the room is for twice
    /// the octets that have arrived, or 16 times as many in the last frame of a message once 64 KiB
    /// have arrived. In the last frame, the declared length is an upper bound, so no room is
    /// wasted.
    fn reserve(&mut self, part: usize) {
        let len = self.buf.len();
        if self.buf.capacity() - len >= part {
            return;
        }
        let arrived = len + part;
        let times = if self.fin && arrived >= 64 * 1024 { 16 } else { 2 };
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
        let max_bytes = arrived.saturating_mul(times).max(128) - len;
        let room = if self.fin { wanted.min(max_bytes) } else { max_bytes };
        self.buf.reserve_exact(room.max(part));
    }

    /// Ends a payload in the buffer. Returns the opcode of the message or control frame that is
    /// complete now.
    fn end(&mut self) -> Result<Option<Opcode>, Violation> {
        match self.opcode {
            Opcode::Ping | Opcode::Pong => self.stage = Stage::Delivered,
            Opcode::Close => {
                close::parse(&self.buf[self.start..])?;
                self.stage = Stage::Delivered;
                self.fragments = 0;
            }
            _ if !self.fin => {
                self.stage = Stage::Header;
                return Ok(None);
            }
            _ => {
                if self.checks_text() && !self.text.complete() {
                    return Err(Violation::TextNotUtf8);
                }
                self.start = 0;
                self.fragments = 0;
                self.stage = Stage::Delivered;
            }
        }
        Ok(Some(self.opcode))
    }

    /// Releases the payload that the last call returned.
    fn take_back(&mut self) {
        if self.stage != Stage::Delivered {
            return;
        }
        self.buf.truncate(self.start);
        if self.opcode == Opcode::Close {
            self.die();
        } else {
            self.rest();
        }
    }

    /// Goes back to the state before a header. A small buffer is kept for the frame that the end of
    /// this input may cut; [`Reader::release`] frees it if there is none.
    fn rest(&mut self) {
        if self.buf.is_empty() && self.buf.capacity() > SPARE_BYTES {
            self.buf = Vec::new();
        }
        self.stage = if self.fragments > 0 { Stage::Header } else { Stage::Idle };
    }

    /// Frees the buffer at the end of an input if it is empty.
    fn release(&mut self) {
        if self.buf.is_empty() && self.buf.capacity() > 0 {
            self.buf = Vec::new();
        }
    }

    fn die(&mut self) {
        self.buf = Vec::new();
        self.start = 0;
        self.stage = Stage::Dead;
    }

    /// Checked at the beginning of a call, because at its end the event borrows the reader.
    fn invariants(&self) {
        let held = self.buf.len();
        debug_assert!(self.start <= held);
        debug_assert!(match self.stage {
            Stage::Idle => held == 0 && self.buf.capacity() <= SPARE_BYTES && self.fragments == 0,
            // A message is open, or the first header is cut.
            Stage::Header => self.fragments > 0 || !self.head.is_empty(),
            Stage::Payload => self.opcode.is_control() || self.fragments > 0,
            Stage::Delivered => true,
            Stage::Dead => held == 0,
        });
        let may_have_head = matches!(self.stage, Stage::Header | Stage::Dead);
        debug_assert!(self.head.is_empty() || may_have_head, "a cut header is between frames");
    }

    fn checks_text(&self) -> bool {
        self.kind == MessageKind::Text && !self.compressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_is_small_because_every_idle_connection_has_one() {
        assert!(size_of::<Reader>() <= 72, "{} bytes", size_of::<Reader>());
    }
}
