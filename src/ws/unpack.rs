//! A compressed message that cannot be decompressed at once: because it has not arrived completely,
//! because it takes more work than the turn has left, or because another large message is being
//! decompressed.
//!
//! The octets that have arrived are decompressed and checked as they come, so that invalid octets
//! are found early. The memory for that is bounded by the number of octets that have arrived, and
//! by what the core has left for all such messages; at either bound, octets wait for the end of the
//! message. A core decompresses one complete large message at a time ([`super::place`]).

use super::codecs::{Codecs, SMALL, SMALL_WORK};
use super::deflate::{BLOCK, INFLATER_BYTES, InflateError, InflateProgress, Inflater, Room};
use super::{MessageKind, Violation, utf8};

/// The minimum output, in octets, that an incomplete message may have in memory.
const AHEAD: usize = 16 * 1024;
/// The additional output, in octets, for each octet that has arrived.
const AHEAD_TIMES: usize = 8;

/// A message that is not decompressed completely; see the module's documentation.
pub(super) struct Unpacking {
    kind: MessageKind,
    /// Compressed octets of the message, of which `rest[at..]` wait.
    rest: Vec<u8>,
    at: usize,
    /// The number of octets that have arrived.
    received: usize,
    /// Whether the message has arrived completely.
    whole: bool,
    out: Vec<u8>,
    /// How many octets of `out` are checked as UTF-8.
    checked: usize,
    text: utf8::Validator,
    progress: InflateProgress,
    /// The message's own decompressor, for a peer that keeps no window. That of a peer with a
    /// window is in its `Channel`.
    own: Option<Box<Inflater>>,
    /// The heap bytes that the message is accounted for, and those of them that are for `out`.
    held: usize,
    out_held: usize,
    /// Whether the message has the core's place for large messages.
    placed: bool,
    /// Whether the message has proved too large to be decompressed without the place for large
    /// messages.
    large: bool,
}

/// The result of decompressing a message as far as possible.
#[derive(Debug, PartialEq, Eq)]
pub enum Unpacked {
    /// The whole message; text is valid UTF-8.
    Whole(MessageKind, Vec<u8>),
    /// The rest of the message has not arrived.
    Part,
    /// The turn's share of work is used up, or another message has the place for large messages:
    /// continue in a later turn.
    Busy,
}

/// The decompressors for one peer.
pub(super) struct UnpackTarget<'a> {
    /// The peer's own decompressor, if it keeps its window.
    pub(super) kept: Option<&'a mut Inflater>,
    pub(super) codecs: &'a mut Codecs,
    /// The maximum length of a message in octets, both compressed and decompressed.
    pub(super) max_bytes: usize,
}

impl Unpacking {
    /// An incomplete message. If the peer keeps its window (`keeps`), its own decompressor has
    /// begun with the message. Otherwise the message gets a decompressor; if there is no memory for
    /// one, it waits for its end.
    pub(super) fn new(kind: MessageKind, keeps: bool, codecs: &mut Codecs) -> Unpacking {
        let held = if keeps { 0 } else { codecs.hold(INFLATER_BYTES) };
        let own = (held > 0).then(|| Box::new(Inflater::new(false)));
        Unpacking { own, held, ..Unpacking::of(kind) }
    }

    /// A complete message of which nothing is decompressed.
    pub(super) fn whole(kind: MessageKind, message: &[u8]) -> Unpacking {
        let rest = message.to_vec();
        Unpacking { received: rest.len(), rest, whole: true, ..Unpacking::of(kind) }
    }

    /// Begins the message on the decompressor of a peer that keeps its window.
    pub(super) fn begin(&mut self, kept: &mut Inflater) {
        self.progress = kept.begin();
    }

    /// A complete message whose first part is decompressed into `out`. It takes the place for large
    /// messages, which must be free.
    pub(super) fn after(
        kind: MessageKind,
        own: Option<Box<Inflater>>,
        progress: InflateProgress,
        out: Vec<u8>,
        rest: &[u8],
        codecs: &mut Codecs,
    ) -> Unpacking {
        let placed = codecs.large.take();
        debug_assert!(placed, "the place is free");
        let whole = Unpacking::whole(kind, rest);
        let mut unpacking = Unpacking { own, progress, out, placed, ..whole };
        unpacking.charge(codecs);
        unpacking
    }

    fn of(kind: MessageKind) -> Unpacking {
        Unpacking {
            kind,
            rest: Vec::new(),
            at: 0,
            received: 0,
            whole: false,
            out: Vec::new(),
            checked: 0,
            text: utf8::Validator::new(),
            progress: InflateProgress::default(),
            own: None,
            held: 0,
            out_held: 0,
            placed: false,
            large: false,
        }
    }

    /// Whether the message has arrived completely, so that it waits only for work or for the place
    /// for large messages.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// The heap bytes of the compressed octets; those of the output are accounted for by the
    /// codecs.
    pub(super) fn compressed_bytes(&self) -> usize {
        self.rest.capacity()
    }

    /// Whether the message has the place for large messages.
    pub(super) fn has_place(&self) -> bool {
        self.placed
    }

    /// Releases the memory and the place of a message that is complete, refused or dropped.
    pub(super) fn release(&mut self, codecs: &mut Codecs) {
        codecs.release(std::mem::take(&mut self.held));
        self.out_held = 0;
        if std::mem::take(&mut self.placed) {
            codecs.large.leave();
        }
    }

    /// Adds octets that have arrived; `whole` if they are the last ones.
    pub(super) fn add(&mut self, part: &[u8], whole: bool) {
        self.rest.drain(..std::mem::take(&mut self.at));
        self.rest.extend_from_slice(part);
        self.received += part.len();
        self.whole = whole;
    }

    /// Decompresses as far as the turn's share of work and the core's memory allow.
    ///
    /// # Errors
    /// Why the message is refused.
    pub(super) fn continue_unpacking(
        &mut self,
        place: &mut UnpackTarget<'_>,
    ) -> Result<Unpacked, Violation> {
        if self.received > place.max_bytes {
            return Err(Violation::TooBig);
        }
        if self.whole && self.received == 0 {
            return Ok(Unpacked::Whole(self.kind, Vec::new()));
        }
        if self.whole && !self.placed {
            self.placed = place.codecs.large.take();
            if !self.placed && self.large {
                return Ok(Unpacked::Busy);
            }
        }
        let mut inflater = match (self.own.take(), place.kept.is_some()) {
            (Some(own), _) => Some(own),
            (None, true) => None,
            (None, false) if !self.whole => return Ok(Unpacked::Part),
            (None, false) if !self.placed => return self.attempt(place),
            (None, false) => {
                let mut lent = place.codecs.lend();
                self.progress = lent.begin();
                Some(lent)
            }
        };
        let outcome = match (&mut inflater, &mut place.kept) {
            (Some(own), _) => self.inflate(own, place.codecs, place.max_bytes),
            (None, Some(kept)) => self.inflate(kept, place.codecs, place.max_bytes),
            (None, None) => Ok(Unpacked::Part),
        };
        self.own = inflater;
        outcome
    }

    fn inflate(
        &mut self,
        inflater: &mut Inflater,
        codecs: &mut Codecs,
        max: usize,
    ) -> Result<Unpacked, Violation> {
        let later = if self.whole { Unpacked::Busy } else { Unpacked::Part };
        while self.has_rest() {
            let Some((until, mut share)) = self.bounds(codecs, max) else { return Ok(later) };
            let before = share;
            let input = &self.rest[self.at..];
            let (out, progress) = (&mut self.out, &mut self.progress);
            let taken = inflater.part(input, Room { max, until }, out, progress, &mut share);
            codecs.spend(before - share);
            self.at += taken.map_err(violation)?;
            if self.placed {
                self.charge(codecs);
            }
            let new = &self.out[self.checked..];
            if self.kind == MessageKind::Text && !self.text.feed(new) {
                return Err(Violation::TextNotUtf8);
            }
            self.checked = self.out.len();
            if self.has_rest() && self.whole && !self.placed {
                self.large = true;
                return Ok(later);
            }
            if codecs.is_spent() && self.has_rest() {
                return Ok(later);
            }
        }
        self.rest = Vec::new();
        self.at = 0;
        if !self.whole {
            return Ok(Unpacked::Part);
        }
        let mut out = std::mem::take(&mut self.out);
        inflater.end(max, &mut out, self.progress).map_err(violation)?;
        if self.kind == MessageKind::Text && !self.text.complete() {
            return Err(Violation::TextNotUtf8);
        }
        Ok(Unpacked::Whole(self.kind, out))
    }

    fn has_rest(&self) -> bool {
        self.at < self.rest.len() || !self.progress.is_drained()
    }

    /// The length of the output at which to stop for now, and the share of work; `None` if the
    /// memory does not allow more output.
    fn bounds(&mut self, codecs: &mut Codecs, max: usize) -> Option<(usize, usize)> {
        if self.placed {
            return Some((usize::MAX, codecs.work_left()));
        }
        let len = self.out.len();
        let (max_bytes, share) = match self.whole {
            true => (SMALL, SMALL_WORK),
            false => (AHEAD + AHEAD_TIMES * self.received, codecs.work_left().min(AHEAD)),
        };
        let max_bytes = max_bytes.min(max);
        let aim = if self.whole { max_bytes } else { max_bytes.min(len + AHEAD.max(len / 2)) };
        let wanted = (aim + BLOCK).saturating_sub(self.out_held);
        let held = codecs.hold(wanted);
        self.held += held;
        self.out_held += held;
        let until = self.out_held.saturating_sub(BLOCK);
        (len < max_bytes && len < until || len == max).then_some((until, share))
    }

    /// Accounts for all memory of the output; a message with the place for large messages may
    /// exceed the limit.
    fn charge(&mut self, codecs: &mut Codecs) {
        let more = self.out.capacity().saturating_sub(self.out_held);
        codecs.charge(more);
        self.held += more;
        self.out_held += more;
    }

    /// Decompresses a complete message on the core's shared decompressor, in case it is small. If
    /// it is not, the output is dropped and the message waits.
    fn attempt(&mut self, place: &mut UnpackTarget<'_>) -> Result<Unpacked, Violation> {
        let done = place.codecs.attempt(&self.rest, place.max_bytes).map_err(violation)?;
        let Some(out) = done else {
            self.large = true;
            return Ok(Unpacked::Busy);
        };
        if self.kind == MessageKind::Text && !utf8::valid(&out) {
            return Err(Violation::TextNotUtf8);
        }
        self.rest = Vec::new();
        Ok(Unpacked::Whole(self.kind, out))
    }
}

pub(super) fn violation(error: InflateError) -> Violation {
    match error {
        InflateError::TooBig => Violation::TooBig,
        InflateError::Invalid => Violation::NotDeflate,
    }
}
