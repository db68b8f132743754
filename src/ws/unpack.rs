//! A compressed message that cannot be decompressed at once: because its end has not come, or
//! because it is more work than a turn has left.
//!
//! What has come of it is decompressed and checked as it comes, so that bad octets are found where
//! they are. The memory for that is bounded by what came: beyond, octets wait for the end.

use super::deflate::{INFLATER_BYTES, InflateError, InflateProgress, Inflater};
use super::output::Codecs;
use super::{MessageKind, Violation, utf8};

/// Octets of output that an unfinished message may hold at least.
const AHEAD: usize = 16 * 1024;
/// And for each octet that came.
const AHEAD_TIMES: usize = 8;

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
    /// Bytes of heap that it is accounted for.
    held: usize,
}

/// What became of a message for now.
#[derive(Debug, PartialEq, Eq)]
pub enum Unpacked {
    /// It is whole, and text is UTF-8.
    Whole(MessageKind, Vec<u8>),
    /// The rest has to come.
    Part,
    /// The turn's share of work is used up: go on in the next one.
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

    /// One that is whole, whose front `out` is decompressed.
    pub(super) fn after(
        kind: MessageKind,
        own: Option<Box<Inflater>>,
        progress: InflateProgress,
        out: Vec<u8>,
        rest: &[u8],
    ) -> Unpacking {
        let rest = rest.to_vec();
        Unpacking { own, progress, out, rest, whole: true, ..Unpacking::of(kind) }
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
        }
    }

    /// Whether its end has come, and work is all that it waits for.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// It ends here, one way or another.
    pub(super) fn release(&mut self, codecs: &mut Codecs) {
        codecs.release(std::mem::take(&mut self.held));
    }

    /// More of it has come.
    pub(super) fn add(&mut self, part: &[u8], whole: bool) {
        self.rest.drain(..std::mem::take(&mut self.at));
        self.rest.extend_from_slice(part);
        self.came += part.len();
        self.whole = whole;
    }

    /// Goes on with it, as far as the turn's share of work goes.
    pub(super) fn go_on(&mut self, place: &mut UnpackTarget<'_>) -> Result<Unpacked, Violation> {
        if self.came > place.max_bytes {
            return Err(Violation::TooBig);
        }
        let inflater = match (&mut self.own, &mut place.kept) {
            (Some(own), _) => &mut **own,
            (None, Some(kept)) => kept,
            (None, None) if !self.whole => return Ok(Unpacked::Part),
            (own, None) => {
                let lent = own.insert(place.codecs.lend());
                self.progress = lent.begin();
                lent
            }
        };
        while self.at < self.rest.len() || !self.progress.is_drained() {
            if !self.whole && self.out.len() >= AHEAD + AHEAD_TIMES * self.came {
                return Ok(Unpacked::Part);
            }
            let left = place.codecs.work_left();
            let mut share = if self.whole { *left } else { (*left).min(AHEAD) };
            let before = share;
            let input = &self.rest[self.at..];
            let (out, progress) = (&mut self.out, &mut self.progress);
            let taken = inflater.part(input, place.max_bytes, out, progress, &mut share);
            *left -= before - share;
            self.at += taken.map_err(violation)?;
            let new = &self.out[self.checked..];
            if self.kind == MessageKind::Text && !self.text.feed(new) {
                return Err(Violation::TextNotUtf8);
            }
            self.checked = self.out.len();
            if *left == 0 && (self.at < self.rest.len() || !self.progress.is_drained()) {
                return Ok(if self.whole { Unpacked::Busy } else { Unpacked::Part });
            }
        }
        self.rest = Vec::new();
        self.at = 0;
        if !self.whole {
            return Ok(Unpacked::Part);
        }
        let mut out = std::mem::take(&mut self.out);
        inflater.end(place.max_bytes, &mut out, self.progress).map_err(violation)?;
        if self.kind == MessageKind::Text && !self.text.complete() {
            return Err(Violation::TextNotUtf8);
        }
        Ok(Unpacked::Whole(self.kind, out))
    }
}

pub(super) fn violation(error: InflateError) -> Violation {
    match error {
        InflateError::TooBig => Violation::TooBig,
        InflateError::Invalid => Violation::NotDeflate,
    }
}
