//! The versions that need no instruction set: one octet at a time, and eight.

use super::{after, further, turned};

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

/// XORs `buf` with `key` by words of eight octets; the rest by [`tiny`].
#[inline]
pub(super) fn words(buf: &mut [u8], key: u32) {
    let wide = wide(key);
    let (chunks, rest) = buf.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_le_bytes(*chunk) ^ wide).to_le_bytes();
    }
    tiny(rest, key);
}

/// XORs at most 16 octets: two loads that overlap, then two stores.
#[inline]
pub(super) fn tiny(buf: &mut [u8], key: u32) {
    let len = buf.len();
    debug_assert!(len <= 16);
    if let (Some(&head), Some(&tail)) = (buf.first_chunk::<8>(), buf.last_chunk::<8>()) {
        let head = u64::from_le_bytes(head) ^ wide(key);
        let tail = u64::from_le_bytes(tail) ^ wide(further(key, len));
        buf[..8].copy_from_slice(&head.to_le_bytes());
        buf[len - 8..].copy_from_slice(&tail.to_le_bytes());
    } else if let (Some(&head), Some(&tail)) = (buf.first_chunk::<4>(), buf.last_chunk::<4>()) {
        let head = u32::from_le_bytes(head) ^ key;
        let tail = u32::from_le_bytes(tail) ^ further(key, len);
        buf[..4].copy_from_slice(&head.to_le_bytes());
        buf[len - 4..].copy_from_slice(&tail.to_le_bytes());
    } else {
        for (octet, key) in buf.iter_mut().zip(key.to_le_bytes()) {
            *octet ^= key;
        }
    }
}

/// The key twice; the same at every distance that is a multiple of four.
#[inline]
fn wide(key: u32) -> u64 {
    u64::from(key) << 32 | u64::from(key)
}
