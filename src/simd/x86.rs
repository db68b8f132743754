//! Versions with SSE2, which every x86-64 processor has, and with AVX2 and AVX-512, which are
//! chosen at run time.

use std::arch::x86_64::*;

use super::phase::{Mask, after, further, turned};
use super::portable;

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
    if buf.len() < 16 {
        return portable::tiny(buf, key);
    }
    // SAFETY: SSE2 is part of the x86-64 baseline; the buffer holds 16 octets and at most 64.
    unsafe { few::<__m128i>(Span::within(buf), key).ascii() }
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
    out.reserve(from.len());
    let to = out.spare_capacity_mut().as_mut_ptr().cast();
    // SAFETY: the spare capacity holds `from.len()` octets since the call to `reserve`, and all of
    // them are written before the length is set.
    unsafe {
        let ascii = widest(Span { from: from.as_ptr(), to, len: from.len() }, key);
        out.set_len(out.len() + from.len());
        ascii
    }
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

/// Masks with vectors of one width only, or with [`short`] where the buffer is shorter than one.
///
/// # Safety
/// The processor has the instruction set that `run` is compiled for.
#[inline(always)]
unsafe fn version<V: Vector>(
    buf: &mut [u8],
    key: [u8; 4],
    phase: usize,
    run: unsafe fn(Span, u32) -> bool,
) -> usize {
    let key = turned(key, phase);
    if buf.len() < V::BYTES {
        short(buf, key);
    } else {
        // SAFETY: the span is the buffer, which holds a vector; the caller guarantees the
        // instruction set.
        unsafe { run(Span::within(buf), key) };
    }
    after(buf, phase)
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

/// Where `len` octets are read and written: the same place, or two that do not overlap. A span is
/// valid while both may be accessed for that length.
#[derive(Clone, Copy)]
struct Span {
    from: *const u8,
    to: *mut u8,
    len: usize,
}

impl Span {
    /// A span that reads and writes `buf`.
    #[inline(always)]
    fn within(buf: &mut [u8]) -> Span {
        let to = buf.as_mut_ptr();
        Span { from: to.cast_const(), to, len: buf.len() }
    }
}

/// One width of vector.
///
/// # Safety
/// The processor has the instruction set of the implementation; `load` and `store` access `BYTES`
/// octets at an address of any alignment.
trait Vector: Copy {
    const BYTES: usize;
    unsafe fn splat(key: u32) -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn ascii(self) -> bool;
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

/// XORs a span of one vector or more. Returns the bitwise OR of all octets that were stored.
///
/// # Safety
/// The caller has the instruction set of `V`; the span is valid, and `V::BYTES <= span.len`.
#[inline(always)]
unsafe fn whole<V: Vector>(span: Span, key: u32) -> V {
    // SAFETY: the bounds on the length are checked here; the caller guarantees the rest.
    unsafe { if span.len > 4 * V::BYTES { many::<V>(span, key) } else { few::<V>(span, key) } }
}

/// XORs one to four vectors' worth of octets without a loop: all loads come before all stores, so
/// the vectors may overlap. Returns the bitwise OR of all octets that were stored.
///
/// # Safety
/// The caller has the instruction set of `V`; the span is valid, and
/// `V::BYTES <= span.len <= 4 * V::BYTES`.
#[inline(always)]
unsafe fn few<V: Vector>(Span { from, to, len }: Span, key: u32) -> V {
    debug_assert!((V::BYTES..=4 * V::BYTES).contains(&len));
    let end = len.wrapping_sub(V::BYTES);
    // SAFETY: every place is `V::BYTES` or more before the end: the first and last vector lie
    // inside by the lower bound, the two inner ones are only touched above twice the width.
    unsafe {
        let (front, back) = (V::splat(key), V::splat(further(key, len)));
        let first = V::load(from).xor(front);
        let last = V::load(from.add(end)).xor(back);
        let mut all = first.or(last);
        if len > 2 * V::BYTES {
            let (second, third) = (V::BYTES, end - V::BYTES);
            let two = V::load(from.add(second)).xor(front);
            let three = V::load(from.add(third)).xor(back);
            two.store(to.add(second));
            three.store(to.add(third));
            all = all.or(two.or(three));
        }
        first.store(to);
        last.store(to.add(end));
        all
    }
}

/// XORs more than four vectors' worth of octets: the middle with aligned stores, four vectors per
/// round, and one unaligned vector at each end. Returns the same as [`few`].
///
/// # Safety
/// The caller has the instruction set of `V`; the span is valid, and `span.len > 4 * V::BYTES`.
#[inline(always)]
unsafe fn many<V: Vector>(Span { from, to, len }: Span, key: u32) -> V {
    debug_assert!(len > 4 * V::BYTES);
    let skip = to.align_offset(V::BYTES) % V::BYTES;
    let end = len.wrapping_sub(V::BYTES);
    // SAFETY: `skip < V::BYTES`, and `at` only advances while the vectors that it steps over end
    // inside the span.
    unsafe {
        let first = V::load(from).xor(V::splat(key));
        let last = V::load(from.add(end)).xor(V::splat(further(key, len)));
        let middle = V::splat(further(key, skip));
        let mut all = [first, last, first, last];
        let mut at = skip;
        while at + 4 * V::BYTES <= len {
            for (i, all) in all.iter_mut().enumerate() {
                let part = V::load(from.add(at + i * V::BYTES)).xor(middle);
                part.store(to.add(at + i * V::BYTES));
                *all = all.or(part);
            }
            at += 4 * V::BYTES;
        }
        while at <= end {
            let part = V::load(from.add(at)).xor(middle);
            part.store(to.add(at));
            all[0] = all[0].or(part);
            at += V::BYTES;
        }
        first.store(to);
        last.store(to.add(end));
        all[0].or(all[1]).or(all[2].or(all[3]))
    }
}
