//! The version with NEON, which every 64-bit Arm processor has, so that nothing is looked up at run
//! time.

use std::arch::aarch64::*;

use super::phase::Mask;
use super::vector::{self, Span, Vector, version, whole};

/// The vector version, which every processor of this target can run.
pub(super) fn versions() -> Vec<(&'static str, Mask)> {
    vec![("neon", neon)]
}

/// XORs at most 64 octets. Returns whether all of them are ASCII afterwards.
#[inline]
pub(super) fn short(buf: &mut [u8], key: u32) -> bool {
    debug_assert!(buf.len() <= 64);
    // SAFETY: NEON is part of the baseline of 64-bit Arm; the callers check the length.
    unsafe { vector::short::<uint8x16_t>(buf, key) }
}

/// XORs more than 64 octets. Returns the same as [`short`].
#[inline]
pub(super) fn long(buf: &mut [u8], key: u32) -> bool {
    assert!(buf.len() > 64);
    // SAFETY: the span is the buffer, and its length was just checked.
    unsafe { with_neon(Span::within(buf), key) }
}

/// Appends `from`, more than 64 octets, XORed with `key`. Returns the same as [`short`].
#[inline]
pub(super) fn append(out: &mut Vec<u8>, from: &[u8], key: u32) -> bool {
    assert!(from.len() > 64);
    // SAFETY: the length was just checked, and `with_neon` writes all of the span.
    unsafe { vector::append(out, from, key, with_neon) }
}

fn neon(buf: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    // SAFETY: NEON is part of the baseline of 64-bit Arm.
    unsafe { version::<uint8x16_t>(buf, key, phase, with_neon) }
}

/// # Safety
/// The span is valid and has 16 octets or more.
unsafe fn with_neon(span: Span, key: u32) -> bool {
    // SAFETY: NEON is part of the baseline of 64-bit Arm; the caller guarantees the span.
    unsafe { whole::<uint8x16_t>(span, key).ascii() }
}

impl Vector for uint8x16_t {
    const BYTES: usize = 16;

    #[inline(always)]
    unsafe fn splat(key: u32) -> Self {
        // SAFETY: NEON is part of the baseline of 64-bit Arm. The lowest octet of the key comes
        // first, because `neon` is only compiled for little-endian targets.
        unsafe { vreinterpretq_u8_u32(vdupq_n_u32(key)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller guarantees 16 readable octets; they need no alignment.
        unsafe { vld1q_u8(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller guarantees 16 writable octets; they need no alignment.
        unsafe { vst1q_u8(to, self) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: NEON is part of the baseline of 64-bit Arm.
        unsafe { veorq_u8(self, other) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: NEON is part of the baseline of 64-bit Arm.
        unsafe { vorrq_u8(self, other) }
    }

    #[inline(always)]
    unsafe fn ascii(self) -> bool {
        // SAFETY: NEON is part of the baseline of 64-bit Arm.
        unsafe { vmaxvq_u8(self) < 0x80 }
    }
}
