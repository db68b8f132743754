//! The position in the key at which a part of a payload begins, which all versions share.

/// A version of [`super::mask`]: takes buffer, key and phase, returns the new phase.
pub type Mask = fn(&mut [u8], [u8; 4], usize) -> usize;

/// The phase after `buf`.
#[inline]
pub(super) fn after(buf: &[u8], phase: usize) -> usize {
    phase.wrapping_add(buf.len()) & 3
}

/// The key as one little-endian word whose lowest octet belongs to the first octet of the buffer.
#[inline]
pub(super) fn turned(key: [u8; 4], phase: usize) -> u32 {
    u32::from_le_bytes(key).rotate_right(8 * (phase & 3) as u32)
}

/// `key`, rotated for an octet `by` positions later.
#[inline]
pub(super) fn further(key: u32, by: usize) -> u32 {
    key.rotate_right(8 * (by & 3) as u32)
}
