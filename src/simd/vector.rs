//! The scheme that all vector versions share, for any width of vector: load the first and the last
//! vector unaligned, XOR the aligned middle in place, then store the two vectors that were loaded
//! first. They overlap the middle and write the same octets there, so no version needs a loop for
//! the head or the tail.

use super::phase::{after, further, turned};
use super::portable;

/// Where `len` octets are read and written: the same place, or two that do not overlap. A span is
/// valid while both may be accessed for that length.
#[derive(Clone, Copy)]
pub(super) struct Span {
    from: *const u8,
    to: *mut u8,
    len: usize,
}

impl Span {
    /// A span that reads and writes `buf`.
    #[inline(always)]
    pub(super) fn within(buf: &mut [u8]) -> Span {
        let to = buf.as_mut_ptr();
        Span { from: to.cast_const(), to, len: buf.len() }
    }
}

/// One width of vector.
///
/// # Safety
/// The processor has the instruction set of the implementation; `load` and `store` access `BYTES`
/// octets at an address of any alignment.
pub(super) trait Vector: Copy {
    const BYTES: usize;
    unsafe fn splat(key: u32) -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn ascii(self) -> bool;
}

/// XORs at most four vectors' worth of octets with the vectors that every processor of the target
/// has, of 16 octets. Returns whether all octets are ASCII afterwards.
///
/// # Safety
/// The processor has the instruction set of `V`, and `buf` holds at most `4 * V::BYTES` octets.
#[inline(always)]
pub(super) unsafe fn short<V: Vector>(buf: &mut [u8], key: u32) -> bool {
    const { assert!(V::BYTES == 16, "`tiny` takes no more than 16 octets") };
    if buf.len() < V::BYTES {
        return portable::tiny(buf, key);
    }
    // SAFETY: the buffer holds a vector; the caller guarantees the rest.
    unsafe { few::<V>(Span::within(buf), key).ascii() }
}

/// Appends `from` to `out`, XORed by `run`, and returns what `run` returns.
///
/// # Safety
/// The caller meets the conditions of `run` for a span of `from.len()` octets, and `run` writes all
/// of them.
#[inline(always)]
pub(super) unsafe fn append(
    out: &mut Vec<u8>,
    from: &[u8],
    key: u32,
    run: unsafe fn(Span, u32) -> bool,
) -> bool {
    out.reserve(from.len());
    let to = out.spare_capacity_mut().as_mut_ptr().cast();
    // SAFETY: the spare capacity holds `from.len()` octets since the call to `reserve`, and all of
    // them are written before the length is set.
    unsafe {
        let ascii = run(Span { from: from.as_ptr(), to, len: from.len() }, key);
        out.set_len(out.len() + from.len());
        ascii
    }
}

/// Masks with vectors of one width only, or in words where the buffer is shorter than one.
///
/// # Safety
/// The processor has the instruction set that `run` is compiled for.
#[inline(always)]
pub(super) unsafe fn version<V: Vector>(
    buf: &mut [u8],
    key: [u8; 4],
    phase: usize,
    run: unsafe fn(Span, u32) -> bool,
) -> usize {
    let key = turned(key, phase);
    if buf.len() < V::BYTES {
        portable::words(buf, key);
    } else {
        // SAFETY: the span is the buffer, which holds a vector; the caller guarantees the
        // instruction set.
        unsafe { run(Span::within(buf), key) };
    }
    after(buf, phase)
}

/// XORs a span of one vector or more. Returns the bitwise OR of all octets that were stored.
///
/// # Safety
/// The caller has the instruction set of `V`; the span is valid, and `V::BYTES <= span.len`.
#[inline(always)]
pub(super) unsafe fn whole<V: Vector>(span: Span, key: u32) -> V {
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
