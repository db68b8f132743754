//! The versions without special instructions: one octet at a time, and eight at a time.

use super::phase::{after, further, turned};

/// The specification: RFC 6455 section 5.3, one octet at a time.
pub(super) fn scalar(buf: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    for (i, octet) in buf.iter_mut().enumerate() {
        *octet ^= key[(phase.wrapping_add(i)) & 3];
    }
    phase.wrapping_add(buf.len()) & 3
}

/// Eight octets at a time.
pub(super) fn word(buf: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    words(buf, turned(key, phase));
    after(buf, phase)
}

/// XORs `buf` with `key` in words of eight octets, and the rest by [`tiny`]. Returns whether all
/// octets are ASCII afterwards.
#[inline]
pub(super) fn words(buf: &mut [u8], key: u32) -> bool {
    let wide = wide(key);
    let (chunks, rest) = buf.as_chunks_mut::<8>();
    let mut all = 0;
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk) ^ wide;
        *chunk = word.to_le_bytes();
        all |= word;
    }
    tiny(rest, key) && all & HIGH == 0
}

/// XORs at most 16 octets: two loads that overlap, then two stores. Returns whether all octets are
/// ASCII afterwards.
#[inline]
pub(super) fn tiny(buf: &mut [u8], key: u32) -> bool {
    let len = buf.len();
    debug_assert!(len <= 16);
    if let (Some(&head), Some(&tail)) = (buf.first_chunk::<8>(), buf.last_chunk::<8>()) {
        let head = u64::from_le_bytes(head) ^ wide(key);
        let tail = u64::from_le_bytes(tail) ^ wide(further(key, len));
        buf[..8].copy_from_slice(&head.to_le_bytes());
        buf[len - 8..].copy_from_slice(&tail.to_le_bytes());
        (head | tail) & HIGH == 0
    } else if let (Some(&head), Some(&tail)) = (buf.first_chunk::<4>(), buf.last_chunk::<4>()) {
        let head = u32::from_le_bytes(head) ^ key;
        let tail = u32::from_le_bytes(tail) ^ further(key, len);
        buf[..4].copy_from_slice(&head.to_le_bytes());
        buf[len - 4..].copy_from_slice(&tail.to_le_bytes());
        u64::from(head | tail) & HIGH == 0
    } else {
        let mut all = 0;
        for (octet, key) in buf.iter_mut().zip(key.to_le_bytes()) {
            *octet ^= key;
            all |= *octet;
        }
        all < 0x80
    }
}

/// The top bit of every octet.
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The key twice in one word, so that it applies at every offset that is a multiple of four.
#[inline]
fn wide(key: u32) -> u64 {
    u64::from(key) << 32 | u64::from(key)
}
