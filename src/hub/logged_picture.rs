//! What a core knows of the pictures in the log of a cluster.

use super::log_view::LATE_MS;
use super::name::ChannelName;
use super::own_states::PicturePiece;
use super::picture::Picture;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

mod held;

pub(super) use held::HeldChanges;

/// The maximum size of a piece, in bytes, until the engine's is known.
const PIECE_BYTES: usize = 128 * 1024;
/// The maximum number of pieces of a picture.
pub(super) const PIECES: u32 = 1024;
/// How long it is remembered that a channel has no picture any more, in milliseconds. An older
/// picture may be stored up to [`LATE_MS`] late.
const FORGET_MS: u64 = 2 * LATE_MS;

/// The pictures of one core; see the module [`super::logged_pictures`].
#[derive(Debug)]
pub(super) struct LoggedPictures {
    pub(super) every_ms: u64,
    /// The maximum size of a piece, in bytes.
    pub(super) piece_bytes: usize,
    pub(super) phase: ReadingPhase,
    /// Whether the log has been reached.
    pub(super) has_begun: bool,
    /// Whether the log is another one than that of the pictures, until it is read.
    pub(super) is_new: bool,
    /// All changes of pictures after this serial number were read.
    pub(super) known_after: u64,
    /// The channels whose pictures are to be stated or released, by the time at which that is due,
    /// in milliseconds.
    pub(super) due: BTreeMap<(u64, u64), ChannelName>,
    pub(super) plans: u64,
    /// The channels with a piece to send.
    pub(super) listed: VecDeque<ChannelName>,
    pub(super) under_way: usize,
    pub(super) sent_bytes: usize,
    pub(super) held_bytes: usize,
}

/// Whether the log is being read from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadingPhase {
    Done,
    /// For the first time.
    Joining,
    /// Once more. `hides` says that changes may have been missed, so that no picture is known until
    /// the end.
    Again {
        hides: bool,
    },
}

/// What a home knows of its picture in the log.
#[derive(Debug, Default)]
pub(super) struct LoggedPicture {
    /// The serial number of the last change, or one at which there was surely no picture.
    pub(super) changed: u64,
    /// The pieces that the log has, by number. The last one is not [`PieceMark::NONE`].
    pieces: Vec<PieceMark>,
    /// While the log is read, or the picture is partial: a picture of the log before this serial
    /// number is of no use here, because the value is known from there on, or because the changes
    /// up to there are not kept. 0 if neither is so.
    pub(super) needed_from: u64,
    /// Whether the picture was dropped here for lack of memory, so that it is another one on other
    /// nodes.
    pub(super) is_dropped: bool,
    /// Whether pieces or changes are missing here until the picture is stated again, or has a new
    /// value.
    pub(super) is_partial: bool,
    /// The key in [`LoggedPictures::due`].
    pub(super) due: Option<(u64, u64)>,
    pub(super) outgoing: Option<OutgoingPicture>,
    pub(super) held: HeldChanges,
}

/// The picture that a piece in the log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PieceMark {
    serial: u64,
    count: u32,
}

impl PieceMark {
    /// The log has no piece of this number.
    const NONE: PieceMark = PieceMark { serial: 0, count: 0 };
}

impl LoggedPicture {
    /// Notes a piece of the log, which replaces the one of the same number, whoever has written it.
    pub(super) fn note(&mut self, piece: &PicturePiece) {
        let PicturePiece { serial, index, count, .. } = *piece;
        let at = index as usize;
        if self.pieces.len() <= at {
            self.pieces.resize(at + 1, PieceMark::NONE);
        }
        self.pieces[at] = if index < count { PieceMark { serial, count } } else { PieceMark::NONE };
        while self.pieces.last() == Some(&PieceMark::NONE) {
            self.pieces.pop();
        }
    }

    /// The number of pieces that the log may have.
    pub(super) fn piece_count(&self) -> u32 {
        self.pieces.len() as u32
    }

    /// The serial number and the number of pieces of the picture in the log, if all of its pieces
    /// are there.
    pub(super) fn whole(&self) -> Option<(u64, u32)> {
        let first = *self.pieces.first()?;
        let pieces = self.pieces.get(..first.count as usize)?;
        let is_whole = first != PieceMark::NONE && pieces.iter().all(|piece| *piece == first);
        is_whole.then_some((first.serial, first.count))
    }

    /// Whether the log has this picture and nothing else, or a later picture.
    pub(super) fn is_stated(&self, has_picture: bool) -> bool {
        match self.whole() {
            Some((serial, count)) => serial >= self.changed && count == self.piece_count(),
            None => self.pieces.is_empty() && !has_picture,
        }
    }

    /// Whether the log has a piece of a picture that has changes which are not known here.
    pub(super) fn is_behind(&self) -> bool {
        self.pieces.iter().any(|piece| piece.serial > self.changed)
    }

    /// The lowest serial number of a picture of the log that is needed here.
    pub(super) fn needed_from(&self, phase: ReadingPhase) -> u64 {
        match phase == ReadingPhase::Done && !self.is_partial {
            true => self.changed.saturating_add(1),
            false => self.needed_from,
        }
    }

    /// Notes that the picture is not known, if the log has its first piece and not all others.
    pub(super) fn note_partial(&mut self, phase: ReadingPhase) {
        let needed_from = self.needed_from(phase);
        let is_known = match phase {
            ReadingPhase::Done => self.pieces.first().is_none_or(|it| it.serial < needed_from),
            // The log has all changes after one whose result is known.
            _ => needed_from > 0 || self.pieces.first().is_none_or(|it| *it == PieceMark::NONE),
        };
        if !is_known && self.whole().is_none() {
            self.lose(needed_from);
        }
    }

    /// Notes that the picture is not known until one of the log from this serial number on is.
    pub(super) fn lose(&mut self, needed_from: u64) {
        (self.is_partial, self.needed_from) = (true, needed_from);
    }

    /// Notes that the picture is known that results from the changes up to a serial number.
    pub(super) fn learn(&mut self, serial: u64) {
        self.changed = self.changed.max(serial);
        (self.is_partial, self.is_dropped) = (false, false);
        self.needed_from = serial.saturating_add(1);
    }

    /// Notes that the log is another one, which does not have the picture. `base` is the serial
    /// number of the last change that may be in it.
    pub(super) fn begin_log(&mut self, base: u64) {
        (self.changed, self.needed_from) = (base, base);
        self.pieces.clear();
    }
}

/// A picture on its way into the log, piece by piece.
#[derive(Debug)]
pub(super) struct OutgoingPicture {
    pub(super) serial: u64,
    pub(super) bytes: Arc<[u8]>,
    pub(super) piece_bytes: usize,
    pub(super) count: u32,
    /// The numbers of the pieces that were not sent, the next one last.
    pub(super) pending: Vec<u32>,
    pub(super) under_way: Option<u32>,
}

impl LoggedPictures {
    pub(super) fn new(every_ms: u64) -> LoggedPictures {
        LoggedPictures {
            every_ms,
            piece_bytes: PIECE_BYTES,
            phase: ReadingPhase::Joining,
            has_begun: false,
            is_new: false,
            known_after: u64::MAX,
            due: BTreeMap::new(),
            plans: 0,
            listed: VecDeque::new(),
            under_way: 0,
            sent_bytes: 0,
            held_bytes: 0,
        }
    }

    /// Whether the picture of a channel is not known for now.
    pub(super) fn hides(&self, logged: Option<&LoggedPicture>) -> bool {
        self.phase == (ReadingPhase::Again { hides: true })
            || logged.is_some_and(|logged| logged.is_partial)
    }

    /// Plans that a picture is examined at a time, or before it.
    pub(super) fn plan(&mut self, logged: &mut LoggedPicture, name: &ChannelName, at_ms: u64) {
        if logged.due.is_some_and(|(due_ms, _)| due_ms <= at_ms) {
            return;
        }
        self.unplan(logged);
        self.plans += 1;
        let key = (at_ms, self.plans);
        self.due.insert(key, name.clone());
        logged.due = Some(key);
    }

    /// Plans what is to be done about a picture: it is stated again if the log does not have it,
    /// and released if there is none.
    pub(super) fn review(
        &mut self,
        logged: &mut LoggedPicture,
        (name, has_picture): (&ChannelName, bool),
        now_ms: u64,
    ) {
        let is_stated = logged.is_stated(has_picture);
        if is_stated {
            self.unplan(logged);
        }
        match (is_stated, has_picture) {
            (false, _) => self.plan(logged, name, now_ms.saturating_add(self.every_ms)),
            (true, false) => self.plan(logged, name, now_ms.saturating_add(FORGET_MS)),
            (true, true) => {}
        }
    }

    /// Keeps the bytes of a piece that is in the log, if they are needed. At most `max_bytes` are
    /// kept of all channels.
    pub(super) fn hold(
        &mut self,
        logged: &mut LoggedPicture,
        piece: &PicturePiece,
        max_bytes: usize,
    ) {
        let PicturePiece { serial, index, count, ref bytes } = *piece;
        let needed_from = logged.needed_from(self.phase);
        self.held_bytes -= logged.held.remove_piece(index);
        if serial < needed_from || index >= count {
            return;
        }
        if count > PIECES || self.held_bytes + bytes.len() > max_bytes {
            self.held_bytes -= logged.held.forget_pieces();
            return logged.lose(needed_from);
        }
        self.held_bytes += bytes.len();
        logged.held.insert_piece(index, bytes);
    }

    pub(super) fn unplan(&mut self, logged: &mut LoggedPicture) {
        if let Some(key) = logged.due.take() {
            self.due.remove(&key);
        }
    }

    /// Gives up a picture that is being sent.
    pub(super) fn give_up(&mut self, logged: &mut LoggedPicture) {
        if let Some(outgoing) = logged.outgoing.take() {
            self.sent_bytes -= outgoing.bytes.len();
            self.under_way -= usize::from(outgoing.under_way.is_some());
        }
    }

    pub(super) fn forget_held(&mut self, logged: &mut LoggedPicture) {
        self.held_bytes -= logged.held.clear();
    }
}

impl OutgoingPicture {
    pub(super) fn new(
        serial: u64,
        picture: Option<&Picture>,
        count_before: u32,
        piece_bytes: usize,
    ) -> OutgoingPicture {
        let bytes: Arc<[u8]> = picture.map(Picture::written).unwrap_or_default().into();
        let count = bytes.len().div_ceil(piece_bytes) as u32;
        // The first piece makes the others valid. What is left of a larger picture ends last.
        let ends = (count.max(1)..count_before).rev();
        let pending = ends.chain([0]).chain(1..count).collect();
        OutgoingPicture { serial, bytes, piece_bytes, count, pending, under_way: None }
    }

    pub(super) fn next_piece(&mut self) -> Option<PicturePiece> {
        let index = self.pending.pop()?;
        self.under_way = Some(index);
        let from = index as usize * self.piece_bytes;
        let bytes = match index < self.count {
            true => self.bytes[from..self.bytes.len().min(from + self.piece_bytes)].into(),
            false => Arc::default(),
        };
        Some(PicturePiece { serial: self.serial, index, count: self.count, bytes })
    }
}

impl LoggedPictures {
    /// Notes that a piece of this node is in the log.
    pub(super) fn sent(
        &mut self,
        logged: &mut LoggedPicture,
        name: &ChannelName,
        piece: &PicturePiece,
    ) {
        let Some(outgoing) = &mut logged.outgoing else { return };
        if outgoing.serial != piece.serial || outgoing.under_way != Some(piece.index) {
            return;
        }
        (outgoing.under_way, self.under_way) = (None, self.under_way - 1);
        match outgoing.pending.is_empty() {
            false => self.listed.push_front(name.clone()),
            true => self.give_up(logged),
        }
    }
}
