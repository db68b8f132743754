//! What a home keeps of the log until the picture in it is whole: the changes that follow a stated
//! picture, and the pieces of one.

use crate::codec::Value;
use crate::hub::encodings::Encodings;
use crate::hub::event::PictureChange;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The estimated bytes of a change besides its value.
const CHANGE_BYTES: usize = 64;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in crate::hub) struct HeldChanges {
    changes: Vec<HeldChange>,
    /// The pieces, by number.
    pieces: BTreeMap<u32, Arc<[u8]>>,
}

#[derive(Debug)]
struct HeldChange {
    serial: u64,
    change: PictureChange,
    encodings: Option<Arc<Encodings>>,
    bytes: usize,
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

    /// The number of changes and pieces.
    pub(in crate::hub) fn len(&self) -> usize {
        self.changes.len() + self.pieces.len()
    }

    /// Forgets everything. Returns the bytes that it has taken.
    pub(in crate::hub) fn clear(&mut self) -> usize {
        self.forget_changes(u64::MAX) + self.forget_pieces()
    }

    /// Forgets the changes up to a serial number. Returns their bytes.
    pub(in crate::hub) fn forget_changes(&mut self, serial: u64) -> usize {
        let forgotten = self.changes.extract_if(.., |it| it.serial <= serial);
        forgotten.map(|change| change.bytes).sum()
    }

    /// Forgets the pieces. Returns their bytes.
    pub(in crate::hub) fn forget_pieces(&mut self) -> usize {
        std::mem::take(&mut self.pieces).values().map(|piece| piece.len()).sum()
    }

    /// The changes, in their order.
    pub(in crate::hub) fn changes(&self) -> Vec<(PictureChange, Option<Arc<Encodings>>)> {
        self.changes.iter().map(|it| (it.change, it.encodings.clone())).collect()
    }

    /// Keeps a piece.
    pub(in crate::hub) fn insert_piece(&mut self, index: u32, bytes: &Arc<[u8]>) {
        self.pieces.insert(index, bytes.clone());
    }

    /// Forgets a piece. Returns its bytes.
    pub(in crate::hub) fn remove_piece(&mut self, index: u32) -> usize {
        self.pieces.remove(&index).map_or(0, |piece| piece.len())
    }

    /// The bytes of the first `count` pieces, if all of them are kept.
    pub(in crate::hub) fn whole(&self, count: u32) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for index in 0..count {
            bytes.extend_from_slice(self.pieces.get(&index)?);
        }
        Some(bytes)
    }
}
