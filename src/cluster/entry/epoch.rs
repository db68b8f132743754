//! The content of a part that is a piece of an epoch of the Zilliqa dialect. An epoch may be larger
//! than an entry that the engine takes, so it goes into the log in pieces, in their order.

/// A piece of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochPart<'e> {
    /// The number of the epoch. Below [`u64::MAX`], so that there is one after it.
    pub number: u64,
    /// The beginning of the SHA-256 digest of the whole document, by which the pieces of two
    /// documents of the same epoch are distinguished.
    pub digest: u64,
    /// The bytes of the whole document. 0 if only the number is known: epochs are fetched after
    /// this one.
    pub bytes: u64,
    /// Where in the document the piece begins.
    pub offset: u64,
    /// The piece.
    pub piece: &'e [u8],
}

impl<'e> EpochPart<'e> {
    /// Appends the part.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        super::push_number(out, self.number);
        out.extend_from_slice(&self.digest.to_le_bytes());
        super::push_number(out, self.bytes);
        super::push_number(out, self.offset);
        out.extend_from_slice(self.piece);
    }

    /// Reads the part; `None` if the piece is not one of the document, or no epoch has the
    /// number.
    pub(super) fn read(mut rest: &'e [u8]) -> Option<EpochPart<'e>> {
        let number = super::take_number(&mut rest).filter(|number| *number < u64::MAX)?;
        let digest = u64::from_le_bytes(super::take(&mut rest, 8)?.try_into().ok()?);
        let bytes = super::take_number(&mut rest)?;
        let offset = super::take_number(&mut rest)?;
        let is_within = offset.checked_add(rest.len() as u64)? <= bytes;
        let is_whole = bytes == 0 || !rest.is_empty();
        (is_within && is_whole).then_some(EpochPart { number, digest, bytes, offset, piece: rest })
    }
}
