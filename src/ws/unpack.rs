//! A compressed message that cannot be decompressed at once: because its end has not come, because
//! it is more work than a turn has left, or because another message is being decompressed.
//!
//! What has come of it is decompressed and checked as it comes, so that bad octets are found where
//! they are. The memory for that is bounded by what came, and by what the core has left for all
//! such messages: beyond either, octets wait for the end. Of whole messages that take much memory,
//! one of a core is decompressed at a time ([`super::place`]).

use super::deflate::{BLOCK, INFLATER_BYTES, InflateError, InflateProgress, Inflater, Room};
use super::output::Codecs;
use super::{MessageKind, Violation, utf8};

/// Octets of output that an unfinished message may hold at least.
const AHEAD: usize = 16 * 1024;
/// And for each octet that came.
const AHEAD_TIMES: usize = 8;
/// Octets of output that a whole message may have while another one has the place for large ones.
pub(super) const SMALL: usize = 64 * 1024;
/// The work on one of them, in octets of output: some 60 000 octets of input at most.
pub(super) const SMALL_WORK: usize = 16 * SMALL;

/// See the module's documentation.
pub(super) struct Unpacking {
    kind: MessageKind,
    /// Octets of the message, of which `rest[at..]` wait.
    rest: Vec<u8>,
    at: usize,
    /// How many have come so far.
    came: usize,
    /// Whether that is all of it.
    whole: bool,
    out: Vec<u8>,
    /// How much of that is checked.
    checked: usize,
    text: utf8::Validator,
    progress: InflateProgress,
    /// For a peer that keeps no window; the other's is its channel's.
    own: Option<Box<Inflater>>,
    /// Bytes of heap that it is accounted for, and those of them that are for `out`.
    held: usize,
    out_held: usize,
    /// Whether it has the core's place for a large message.
    placed: bool,
    /// Whether it has turned out to be too large to be decompressed beside the one with the place.
    large: bool,
}

/// What became of a message for now.
#[derive(Debug, PartialEq, Eq)]
pub enum Unpacked {
    /// It is whole, and text is UTF-8.
    Whole(MessageKind, Vec<u8>),
    /// The rest has to come.
    Part,
    /// The turn's share of work is used up, or another message has the place for large ones: go on
    /// in a later turn.
    Busy,
}

/// Whoever decompresses for one peer.
pub(super) struct UnpackTarget<'a> {
    /// The peer's own, if it keeps its window.
    pub(super) kept: Option<&'a mut Inflater>,
    pub(super) codecs: &'a mut Codecs,
    /// Octets that a message may have, before and behind decompression.
    pub(super) max_bytes: usize,
}

impl Unpacking {
    /// A message of a peer that keeps its window, whose decompressor has begun with it; or of one
    /// that keeps none, which waits for its end if there is no memory for another decompressor.
    pub(super) fn new(kind: MessageKind, keeps: bool, codecs: &mut Codecs) -> Unpacking {
        let held = if keeps { 0 } else { codecs.hold(INFLATER_BYTES) };
        let own = (held > 0).then(|| Box::new(Inflater::new(false)));
        Unpacking { own, held, ..Unpacking::of(kind) }
    }

    /// One that is whole, with nothing of it decompressed.
    pub(super) fn whole(kind: MessageKind, message: &[u8]) -> Unpacking {
        let rest = message.to_vec();
        Unpacking { came: rest.len(), rest, whole: true, ..Unpacking::of(kind) }
    }

    /// Begins with it on the decompressor of a peer that keeps its window.
    pub(super) fn begin(&mut self, kept: &mut Inflater) {
        self.progress = kept.begin();
    }

    /// One that is whole, whose front `out` is decompressed. It takes the place for large ones,
    /// which must be free.
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
            came: 0,
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

    /// Whether its end has come, and work or the place is all that it waits for.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Bytes of heap that hold what came of it; what came out of it is the codecs' account.
    pub(super) fn compressed_bytes(&self) -> usize {
        self.rest.capacity()
    }

    /// Whether it has the place for a large message.
    pub(super) fn has_place(&self) -> bool {
        self.placed
    }

    /// It ends here, one way or another.
    pub(super) fn release(&mut self, codecs: &mut Codecs) {
        codecs.release(std::mem::take(&mut self.held));
        self.out_held = 0;
        if std::mem::take(&mut self.placed) {
            codecs.large.leave();
        }
    }

    /// More of it has come.
    pub(super) fn add(&mut self, part: &[u8], whole: bool) {
        self.rest.drain(..std::mem::take(&mut self.at));
        self.rest.extend_from_slice(part);
        self.came += part.len();
        self.whole = whole;
    }

    /// Goes on with it, as far as the turn's share of work and the core's memory go.
    pub(super) fn go_on(&mut self, place: &mut UnpackTarget<'_>) -> Result<Unpacked, Violation> {
        if self.came > place.max_bytes {
            return Err(Violation::TooBig);
        }
        if self.whole && self.came == 0 {
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

    /// How much output there may be for now, and how much work; `None` if no more of either.
    fn bounds(&mut self, codecs: &mut Codecs, max: usize) -> Option<(usize, usize)> {
        if self.placed {
            return Some((usize::MAX, codecs.work_left()));
        }
        let len = self.out.len();
        let (max_bytes, share) = match self.whole {
            true => (SMALL, SMALL_WORK),
            false => (AHEAD + AHEAD_TIMES * self.came, codecs.work_left().min(AHEAD)),
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

    /// Accounts for all that the output holds: whoever has the place need not ask.
    fn charge(&mut self, codecs: &mut Codecs) {
        let more = self.out.capacity().saturating_sub(self.out_held);
        codecs.charge(more);
        self.held += more;
        self.out_held += more;
    }

    /// Tries it on the core's own decompressor: it may be small. If it is not, nothing of it stays.
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
