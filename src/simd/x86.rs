//! Versions with SSE2, which every x86-64 processor has, and with AVX2 and AVX-512, which are
//! chosen at run time.

use std::arch::x86_64::*;

use super::phase::Mask;
use super::vector::{self, Span, Vector, version, whole};

/// The vector versions that this processor can run.
pub(super) fn versions() -> Vec<(&'static str, Mask)> {
    let mut all: Vec<(&'static str, Mask)> = vec![("sse2", sse2)];
    if has_avx2() {
        all.push(("avx2", avx2));
    }
    if has_avx512() {
        all.push(("avx512", avx512));
    }
    all
}

/// XORs at most 64 octets with SSE2. Returns whether all of them are ASCII afterwards.
#[inline]
pub(super) fn short(buf: &mut [u8], key: u32) -> bool {
    debug_assert!(buf.len() <= 64);
    // SAFETY: SSE2 is part of the x86-64 baseline; the callers check the length.
    unsafe { vector::short::<__m128i>(buf, key) }
}

/// XORs more than 64 octets with the widest vectors of the processor. Returns the same as
/// [`short`].
#[inline]
pub(super) fn long(buf: &mut [u8], key: u32) -> bool {
    assert!(buf.len() > 64);
    // SAFETY: the span is the buffer, and its length was just checked.
    unsafe { widest(Span::within(buf), key) }
}

/// Appends `from`, more than 64 octets, XORed with `key`. Returns the same as [`short`].
#[inline]
pub(super) fn append(out: &mut Vec<u8>, from: &[u8], key: u32) -> bool {
    assert!(from.len() > 64);
    // SAFETY: the length was just checked, and `widest` writes all of the span.
    unsafe { vector::append(out, from, key, widest) }
}

/// # Safety
/// The span is valid and has more than 64 octets.
#[inline]
unsafe fn widest(span: Span, key: u32) -> bool {
    // SAFETY: the feature is checked before each call; 64 octets hold the widest vector.
    unsafe {
        if has_avx512() {
            with_avx512(span, key)
        } else if has_avx2() {
            with_avx2(span, key)
        } else {
            with_sse2(span, key)
        }
    }
}

/// The standard library caches the result, so this is one load and one test.
#[inline]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
}

#[inline]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
}

fn sse2(buf: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    // SAFETY: SSE2 is part of the x86-64 baseline.
    unsafe { version::<__m128i>(buf, key, phase, with_sse2) }
}

fn avx2(buf: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    assert!(has_avx2());
    // SAFETY: the assertion above has checked that the processor has the feature.
    unsafe { version::<__m256i>(buf, key, phase, with_avx2) }
}

fn avx512(buf: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    assert!(has_avx512());
    // SAFETY: the assertion above has checked that the processor has the feature.
    unsafe { version::<__m512i>(buf, key, phase, with_avx512) }
}

/// # Safety
/// The span is valid and has 16 octets or more.
unsafe fn with_sse2(span: Span, key: u32) -> bool {
    // SAFETY: SSE2 is part of the x86-64 baseline; the caller guarantees the span.
    unsafe { whole::<__m128i>(span, key).ascii() }
}

/// # Safety
/// The processor has AVX2; the span is valid and has 32 octets or more.
#[target_feature(enable = "avx2")]
unsafe fn with_avx2(span: Span, key: u32) -> bool {
    // SAFETY: the caller guarantees the instruction set and the span.
    unsafe { whole::<__m256i>(span, key).ascii() }
}

/// # Safety
/// The processor has AVX-512F; the span is valid and has 64 octets or more.
#[target_feature(enable = "avx512f")]
unsafe fn with_avx512(span: Span, key: u32) -> bool {
    // SAFETY: the caller guarantees the instruction set and the span.
    unsafe { whole::<__m512i>(span, key).ascii() }
}

macro_rules! vector {
    ($vector:ty, $bytes:literal, $splat:ident, $load:ident, $store:ident,
     $xor:ident, $or:ident, |$vector_name:ident| $ascii:expr) => {
        impl Vector for $vector {
            const BYTES: usize = $bytes;
            #[inline(always)]
            unsafe fn splat(key: u32) -> Self {
                // SAFETY: the caller has the instruction set.
                unsafe { $splat(key.cast_signed()) }
            }
            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: the caller guarantees `BYTES` readable octets.
                unsafe { $load(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: the caller guarantees `BYTES` writable octets.
                unsafe { $store(to.cast(), self) }
            }
            #[inline(always)]
            unsafe fn xor(self, other: Self) -> Self {
                // SAFETY: the caller has the instruction set.
                unsafe { $xor(self, other) }
            }
            #[inline(always)]
            unsafe fn or(self, other: Self) -> Self {
                // SAFETY: the caller has the instruction set.
                unsafe { $or(self, other) }
            }
            #[inline(always)]
            unsafe fn ascii(self) -> bool {
                let $vector_name = self;
                // SAFETY: the caller has the instruction set.
                unsafe { $ascii }
            }
        }
    };
}

vector!(
    __m128i,
    16,
    _mm_set1_epi32,
    _mm_loadu_si128,
    _mm_storeu_si128,
    _mm_xor_si128,
    _mm_or_si128,
    |all| _mm_movemask_epi8(all) == 0
);
vector!(
    __m256i,
    32,
    _mm256_set1_epi32,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_xor_si256,
    _mm256_or_si256,
    |all| _mm256_movemask_epi8(all) == 0
);
vector!(
    __m512i,
    64,
    _mm512_set1_epi32,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_xor_si512,
    _mm512_or_si512,
    |all| _mm512_test_epi32_mask(all, _mm512_set1_epi8(-0x80)) == 0
);
