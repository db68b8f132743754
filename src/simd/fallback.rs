//! What [`super::mask`] and its companions use on processors without a vector version.

use super::phase::Mask;
use super::portable::words;

/// There are no vector versions.
pub(super) fn versions() -> Vec<(&'static str, Mask)> {
    Vec::new()
}

/// XORs a short payload. Returns whether all octets are ASCII afterwards.
#[inline]
pub(super) fn short(buf: &mut [u8], key: u32) -> bool {
    words(buf, key)
}

/// XORs a long payload. Returns the same as [`short`].
pub(super) fn long(buf: &mut [u8], key: u32) -> bool {
    words(buf, key)
}

/// Appends `from`, XORed with `key`. Returns the same as [`short`].
pub(super) fn append(out: &mut Vec<u8>, from: &[u8], key: u32) -> bool {
    let start = out.len();
    out.extend_from_slice(from);
    words(&mut out[start..], key)
}
