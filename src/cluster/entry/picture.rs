//! The content of a part that is a piece of the picture of a channel. A picture may be larger than
//! what the engine takes at once, so it goes into the log in pieces, the first one last.

use crate::hub::SERIAL_END;

/// A piece of a picture. Each replaces the earlier piece with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PicturePart<'e> {
    /// The place in the log of the last change that is in the picture; see
    /// [`crate::hub::LogPlace`]. Below [`SERIAL_END`].
    pub serial: u64,
    /// The number of the piece, from 0.
    pub index: u32,
    /// The number of pieces. Not above `index` if the picture has no piece of that number any more.
    pub count: u32,
    /// The piece.
    pub piece: &'e [u8],
}

impl<'e> PicturePart<'e> {
    /// Whether it ends an earlier piece.
    pub fn is_end(&self) -> bool {
        self.index >= self.count
    }

    /// Appends the part.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        super::push_number(out, self.serial);
        super::push_number(out, self.index.into());
        super::push_number(out, self.count.into());
        out.extend_from_slice(self.piece);
    }

    /// Reads the part; `None` if it is malformed.
    pub(super) fn read(mut rest: &'e [u8]) -> Option<PicturePart<'e>> {
        let serial = super::take_number(&mut rest).filter(|serial| *serial < SERIAL_END)?;
        let index = u32::try_from(super::take_number(&mut rest)?).ok()?;
        let count = u32::try_from(super::take_number(&mut rest)?).ok()?;
        let part = PicturePart { serial, index, count, piece: rest };
        (part.is_end() == rest.is_empty()).then_some(part)
    }
}
