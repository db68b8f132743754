//! What a core knows of the pictures in the log of a cluster.

use super::name::ChannelName;
use super::own_states::PicturePiece;
use super::picture::Picture;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

mod held;

pub(super) use held::{Collected, HeldChanges};

/// The maximum size of a piece, in bytes.
const PIECE_BYTES: usize = 128 * 1024;
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
    /// The channels whose pictures have changed, by the time at which they are to be stated, in
    /// milliseconds.
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
    /// The serial number of the last change.
    pub(super) changed: u64,
    /// The serial number of the last change in the picture that the log has.
    pub(super) stated: u64,
    /// The number of pieces that the log has.
    pub(super) count: u32,
    /// Whether the picture was dropped here for lack of memory, so that it is another one on other
    /// nodes.
    pub(super) is_dropped: bool,
    /// Whether pieces or changes are missing here until the picture is stated again.
    pub(super) is_partial: bool,
    /// The key in [`LoggedPictures::due`].
    pub(super) due: Option<(u64, u64)>,
    pub(super) outgoing: Option<OutgoingPicture>,
    pub(super) held: HeldChanges,
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

    pub(super) fn plan(&mut self, logged: &mut LoggedPicture, name: &ChannelName, at_ms: u64) {
        if logged.due.is_none() {
            self.plans += 1;
            let key = (at_ms, self.plans);
            self.due.insert(key, name.clone());
            logged.due = Some(key);
        }
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
