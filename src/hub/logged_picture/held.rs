//! What a home keeps of the log until the picture in it is whole: the changes that follow a stated
//! picture, and the pieces of one.

use crate::codec::Value;
use crate::hub::encodings::Encodings;
use crate::hub::event::PictureChange;
use crate::hub::own_states::PicturePiece;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The maximum number of pieces of a picture.
const PIECES: u32 = 1024;
/// The estimated bytes of a change besides its value.
const CHANGE_BYTES: usize = 64;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in crate::hub) struct HeldChanges {
    changes: Vec<HeldChange>,
    pieces: Option<HeldPieces>,
    /// The serial number of the last change that was forgotten for lack of memory.
    lost: u64,
}

#[derive(Debug)]
struct HeldChange {
    serial: u64,
    change: PictureChange,
    encodings: Option<Arc<Encodings>>,
    bytes: usize,
}

#[derive(Debug)]
struct HeldPieces {
    serial: u64,
    count: u32,
    have: BTreeMap<u32, Arc<[u8]>>,
}

/// What has become of the pieces.
pub(in crate::hub) enum Collected {
    /// All are there; none if the channel has no picture.
    Whole(Vec<u8>),
    /// The picture is being written anew, and what is there is not one picture.
    Partial,
    /// Further pieces follow.
    Nothing,
}

impl HeldPieces {
    fn bytes(&self) -> usize {
        self.have.values().map(|piece| piece.len()).sum()
    }
}

impl HeldChanges {
    /// Adds a change. Returns the bytes that it takes.
    pub(in crate::hub) fn push(
        &mut self,
        serial: u64,
        change: PictureChange,
        encodings: Option<&Arc<Encodings>>,
    ) -> usize {
        let bytes = CHANGE_BYTES + encodings.and_then(|it| it.value()).map_or(0, Value::memory);
        self.changes.push(HeldChange { serial, change, encodings: encodings.cloned(), bytes });
        bytes
    }

    /// Whether nothing is kept.
    pub(in crate::hub) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.pieces.is_none()
    }

    /// Forgets everything. Returns the bytes that it has taken.
    pub(in crate::hub) fn clear(&mut self) -> usize {
        self.lost = self.changes.last().map_or(self.lost, |change| change.serial);
        let changes: usize = self.changes.drain(..).map(|change| change.bytes).sum();
        changes + self.pieces.take().map_or(0, |pieces| pieces.bytes())
    }

    /// Forgets the changes up to a serial number, and all pieces. Returns their bytes.
    pub(in crate::hub) fn forget_up_to(&mut self, serial: u64) -> usize {
        let mut bytes = self.pieces.take().map_or(0, |pieces| pieces.bytes());
        self.changes.retain(|it| {
            if it.serial <= serial {
                bytes += it.bytes;
            }
            it.serial > serial
        });
        bytes
    }

    /// The changes, in their order.
    pub(in crate::hub) fn changes(&self) -> Vec<(PictureChange, Option<Arc<Encodings>>)> {
        self.changes.iter().map(|it| (it.change, it.encodings.clone())).collect()
    }

    /// Adds a piece. `held` are the bytes that all channels hold, at most `max`.
    pub(in crate::hub) fn collect(
        &mut self,
        piece: &PicturePiece,
        held: &mut usize,
        max: usize,
    ) -> Collected {
        let PicturePiece { serial, index, count, ref bytes } = *piece;
        if index >= count {
            // Only the first piece says that there is no picture.
            let is_none = index == 0 && serial >= self.lost;
            return if is_none { Collected::Whole(Vec::new()) } else { Collected::Nothing };
        }
        if self.pieces.as_ref().is_none_or(|it| (it.serial, it.count) != (serial, count)) {
            *held -= self.pieces.take().map_or(0, |pieces| pieces.bytes());
            self.pieces = Some(HeldPieces { serial, count, have: BTreeMap::new() });
        }
        if count > PIECES || *held + bytes.len() > max {
            *held -= self.pieces.take().map_or(0, |pieces| pieces.bytes());
            return Collected::Partial;
        }
        let Some(pieces) = &mut self.pieces else { return Collected::Nothing };
        *held += bytes.len();
        *held -= pieces.have.insert(index, bytes.clone()).map_or(0, |before| before.len());
        let is_whole = pieces.have.len() == count as usize;
        match (index, is_whole && serial >= self.lost) {
            (0, true) => {
                Collected::Whole(pieces.have.values().flat_map(|it| it.to_vec()).collect())
            }
            (0, false) => Collected::Partial,
            _ => Collected::Nothing,
        }
    }
}
