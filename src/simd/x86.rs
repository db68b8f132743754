//! SSE2, which every x86-64 has, and AVX2 and AVX-512, which are asked for at run time.

use std::arch::x86_64::*;

use super::{Mask, after, further, portable, turned};

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

/// XORs at most 64 octets with what every x86-64 has. Answers whether all of them are ASCII now.
#[inline]
pub(super) fn short(buf: &mut [u8], key: u32) -> bool {
    if buf.len() < 16 {
        return portable::tiny(buf, key);
    }
    // SAFETY: SSE2 is part of the x86-64 baseline; the buffer holds 16 octets and at most 64.
    unsafe { _mm_movemask_epi8(few::<__m128i>(buf, key)) == 0 }
}

/// XORs a buffer of more than 64 octets with the widest vectors there are.
#[inline]
pub(super) fn long(buf: &mut [u8], key: u32) {
    if has_avx512() {
        // SAFETY: the processor was asked one line above.
        unsafe { with_avx512(buf, key) }
    } else if has_avx2() {
        // SAFETY: the processor was asked one line above.
        unsafe { with_avx2(buf, key) }
    } else {
        with_sse2(buf, key);
    }
}

/// The standard library keeps the answer, so this is one load and one test.
#[inline]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
}

#[inline]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
}

fn sse2(buf: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    with_sse2(buf, turned(key, phase));
    after(buf, phase)
}

fn avx2(buf: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    assert!(has_avx2());
    // SAFETY: asserted one line above.
    unsafe { with_avx2(buf, turned(key, phase)) };
    after(buf, phase)
}

fn avx512(buf: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    assert!(has_avx512());
    // SAFETY: asserted one line above.
    unsafe { with_avx512(buf, turned(key, phase)) };
    after(buf, phase)
}

fn with_sse2(buf: &mut [u8], key: u32) {
    // SAFETY: SSE2 is part of the x86-64 baseline.
    unsafe { whole::<__m128i>(buf, key) }
}

#[target_feature(enable = "avx2")]
fn with_avx2(buf: &mut [u8], key: u32) {
    // SAFETY: this function is compiled for AVX2, so whoever calls it has it.
    unsafe { whole::<__m256i>(buf, key) }
}

#[target_feature(enable = "avx512f")]
fn with_avx512(buf: &mut [u8], key: u32) {
    // SAFETY: this function is compiled for AVX-512F, so whoever calls it has it.
    unsafe { whole::<__m512i>(buf, key) }
}

/// One width of vector.
///
/// # Safety
/// The caller of any method has the instruction set of the implementation. `load` and `store`
/// touch `BYTES` octets at the pointer; the `_aligned` forms want it aligned to `BYTES`.
trait Vector: Copy {
    const BYTES: usize;
    unsafe fn splat(key: u32) -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn load_aligned(from: *const u8) -> Self;
    unsafe fn store_aligned(self, to: *mut u8);
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
}

macro_rules! vector {
    ($vector:ty, $bytes:literal, $splat:ident, $load:ident, $store:ident,
     $load_aligned:ident, $store_aligned:ident, $xor:ident, $or:ident) => {
        impl Vector for $vector {
            const BYTES: usize = $bytes;
            #[inline(always)]
            unsafe fn splat(key: u32) -> Self {
                // SAFETY: the caller has the instruction set.
                unsafe { $splat(key.cast_signed()) }
            }
            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: the caller vouches for `BYTES` readable octets.
                unsafe { $load(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: the caller vouches for `BYTES` writable octets.
                unsafe { $store(to.cast(), self) }
            }
            #[inline(always)]
            unsafe fn load_aligned(from: *const u8) -> Self {
                // SAFETY: as `load`, and the caller vouches for the alignment.
                unsafe { $load_aligned(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_aligned(self, to: *mut u8) {
                // SAFETY: as `store`, and the caller vouches for the alignment.
                unsafe { $store_aligned(to.cast(), self) }
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
        }
    };
}

vector!(
    __m128i,
    16,
    _mm_set1_epi32,
    _mm_loadu_si128,
    _mm_storeu_si128,
    _mm_load_si128,
    _mm_store_si128,
    _mm_xor_si128,
    _mm_or_si128
);
vector!(
    __m256i,
    32,
    _mm256_set1_epi32,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_load_si256,
    _mm256_store_si256,
    _mm256_xor_si256,
    _mm256_or_si256
);
vector!(
    __m512i,
    64,
    _mm512_set1_epi32,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_load_si512,
    _mm512_store_si512,
    _mm512_xor_si512,
    _mm512_or_si512
);

/// XORs a buffer of any length.
///
/// # Safety
/// The caller has the instruction set of `V`.
#[inline(always)]
unsafe fn whole<V: Vector>(buf: &mut [u8], key: u32) {
    if buf.len() > 4 * V::BYTES {
        // SAFETY: the length was just checked; the instruction set is the caller's word.
        unsafe { many::<V>(buf, key) }
    } else if buf.len() >= V::BYTES {
        // SAFETY: as above.
        unsafe { few::<V>(buf, key) };
    } else if buf.len() >= 16 {
        short(buf, key);
    } else {
        portable::tiny(buf, key);
    }
}

/// XORs one to four vectors' worth of octets without a loop: all loads come before all stores, so
/// that they may overlap. Answers the disjunction of all octets that were stored.
///
/// # Safety
/// The caller has the instruction set of `V`; `V::BYTES <= buf.len() <= 4 * V::BYTES`.
#[inline(always)]
unsafe fn few<V: Vector>(buf: &mut [u8], key: u32) -> V {
    let len = buf.len();
    debug_assert!((V::BYTES..=4 * V::BYTES).contains(&len));
    let start = buf.as_mut_ptr();
    // SAFETY: every pointer is `V::BYTES` or more before the end: the first and last vector lie
    // inside by the lower bound, the two inner ones are only touched above twice the width.
    unsafe {
        let end = start.add(len - V::BYTES);
        let (front, back) = (V::splat(key), V::splat(further(key, len)));
        let (first, last) = (V::load(start).xor(front), V::load(end).xor(back));
        let mut all = first.or(last);
        if len > 2 * V::BYTES {
            let (second, third) = (start.add(V::BYTES), end.sub(V::BYTES));
            let (two, three) = (V::load(second).xor(front), V::load(third).xor(back));
            two.store(second);
            three.store(third);
            all = all.or(two.or(three));
        }
        first.store(start);
        last.store(end);
        all
    }
}

/// XORs more than four vectors' worth: an aligned middle, four vectors a round, under two
/// unaligned ends.
///
/// # Safety
/// The caller has the instruction set of `V`; `buf.len() > 4 * V::BYTES`.
#[inline(always)]
unsafe fn many<V: Vector>(buf: &mut [u8], key: u32) {
    let len = buf.len();
    debug_assert!(len > 4 * V::BYTES);
    let start = buf.as_mut_ptr();
    let skip = start.align_offset(V::BYTES) % V::BYTES;
    // SAFETY: `skip < V::BYTES`, and `at` only advances while the vectors that it steps over end
    // inside the buffer; from `skip` on it is aligned because it advances by whole vectors.
    unsafe {
        let end = len - V::BYTES;
        let first = V::load(start).xor(V::splat(key));
        let last = V::load(start.add(end)).xor(V::splat(further(key, len)));
        let middle = V::splat(further(key, skip));
        let mut at = skip;
        while at + 4 * V::BYTES <= len {
            let p = start.add(at);
            for i in 0..4 {
                let p = p.add(i * V::BYTES);
                V::load_aligned(p).xor(middle).store_aligned(p);
            }
            at += 4 * V::BYTES;
        }
        while at <= end {
            V::load_aligned(start.add(at))
                .xor(middle)
                .store_aligned(start.add(at));
            at += V::BYTES;
        }
        first.store(start);
        last.store(start.add(end));
    }
}
