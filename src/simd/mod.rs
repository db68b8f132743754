//! Masking (RFC 6455 section 5.3): every payload octet is XORed with one octet of a four-octet key.
//!
//! `portable::scalar` is the specification; every other version is tested against it. The version
//! is chosen in two steps: up to 64 octets the code is inlined and uses only instructions that the
//! compiler may assume; above that the processor's features are looked up. So short payloads, which
//! are the most frequent ones of a chat server, do not pay for the look-up.
//!
//! On x86-64 the vectors are chosen at run time (SSE2, AVX2, AVX-512); 64-bit Arm has NEON always;
//! other processors use words of eight octets. `vector` describes the scheme of all vectors.

#![allow(unsafe_code)]

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
mod fallback;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
mod phase;
mod portable;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(not(any(
    target_arch = "x86_64",
    all(target_arch = "aarch64", target_endian = "little")
)))]
use fallback as native;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use neon as native;
#[cfg(target_arch = "x86_64")]
use x86 as native;

use native::{append, long, short};
pub use phase::Mask;
use phase::{after, turned};

/// XORs `buf` in place with `key`, beginning at octet `phase & 3` of the key.
///
/// Returns the phase (0 to 3) at which the next part of the same payload begins.
#[inline]
pub fn mask(buf: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    let next = after(buf, phase);
    let key = turned(key, phase);
    _ = if buf.len() <= SHORT { short(buf, key) } else { long(buf, key) };
    next
}

/// [`mask`] from phase 0 that also returns whether the unmasked payload is ASCII, which costs
/// little while the octets are in registers.
#[inline]
pub fn mask_ascii(buf: &mut [u8], key: [u8; 4]) -> bool {
    let key = turned(key, 0);
    if buf.len() <= SHORT { short(buf, key) } else { long(buf, key) }
}

/// Appends `from` to `out` and masks it from phase 0 in the same pass. Returns the same as
/// [`mask_ascii`].
#[inline]
pub fn mask_onto(out: &mut Vec<u8>, from: &[u8], key: [u8; 4]) -> bool {
    let key = turned(key, 0);
    if from.len() <= SHORT {
        let start = out.len();
        out.extend_from_slice(from);
        short(&mut out[start..], key)
    } else {
        append(out, from, key)
    }
}

/// `key`, rotated by `by` octets, for the next part of a payload.
#[inline]
pub fn turn(key: [u8; 4], by: usize) -> [u8; 4] {
    turned(key, by).to_le_bytes()
}

/// Every version that this processor can run, by name; the first is the specification.
pub fn versions() -> Vec<(&'static str, Mask)> {
    let mut all: Vec<(&'static str, Mask)> =
        vec![("scalar", portable::scalar), ("word", portable::word)];
    all.extend(native::versions());
    all.push(("mask", mask));
    all
}

/// Payloads up to this many octets are masked without a look at the processor's features.
const SHORT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// Runs every version over `len` bytes at `offset` and compares the whole buffer.
    fn check(buf: &[u8], offset: usize, len: usize, phase: usize) {
        let mut want = buf.to_vec();
        let next = portable::scalar(&mut want[offset..offset + len], KEY, phase);
        for (name, version) in versions() {
            let mut got = buf.to_vec();
            let answer = version(&mut got[offset..offset + len], KEY, phase);
            assert_eq!(answer, next, "{name}: phase after {len} bytes from phase {phase}");
            assert!(got == want, "{name}: {len} bytes at {offset}, phase {phase}");
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    #[test]
    fn mask_scalar_is_the_specification_of_section_5_3() {
        let mut hello = *b"Hello";
        assert_eq!(portable::scalar(&mut hello, KEY, 0), 1);
        assert_eq!(hello, [0x7f, 0x9f, 0x4d, 0x51, 0x58], "the example of section 5.7");
    }

    #[test]
    fn mask_has_the_vectors_of_the_target_among_its_versions() {
        let vectors = if cfg!(target_arch = "x86_64") {
            "sse2"
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
            "neon"
        } else {
            "mask"
        };
        assert_eq!(versions()[2].0, vectors);
    }

    #[test]
    fn mask_versions_equal_scalar_at_every_length_and_phase() {
        let buf = bytes(1100 + 80);
        for len in 0..=1100 {
            for phase in 0..4 {
                check(&buf[..len + 16], (len * 5 + phase) % 16, len, phase);
            }
        }
    }

    #[test]
    fn mask_versions_equal_scalar_at_every_offset() {
        let buf = bytes(700);
        for offset in 0..64 {
            for len in (0..=20).chain(28..=36).chain(60..=70).chain([127, 128, 129, 257, 600]) {
                check(&buf, offset, len, offset / 16);
            }
        }
    }

    #[test]
    fn mask_in_two_pieces_equals_one() {
        let buf = bytes(300);
        let mut want = buf.clone();
        mask(&mut want, KEY, 0);
        for cut in 0..=buf.len() {
            let mut got = buf.clone();
            let (head, tail) = got.split_at_mut(cut);
            let phase = mask(head, KEY, 0);
            mask(tail, KEY, phase);
            assert!(got == want, "cut at {cut}");
        }
    }

    #[test]
    fn mask_ascii_finds_one_octet_that_is_not_ascii_at_any_place() {
        for len in (0..150).chain([255, 256, 257, 400, 600, 1023]) {
            let steps = if len < 100 { 1 } else { 7 };
            for bad in (0..=len).step_by(steps).chain([len]) {
                let mut plain = (0..len).map(|i| i as u8 & 0x7f).collect::<Vec<_>>();
                if let Some(octet) = plain.get_mut(bad) {
                    *octet |= 0x80;
                }
                let mut masked = plain.clone();
                mask(&mut masked, KEY, 0);
                let mut onto = vec![9; len % 67];
                let ascii = mask_onto(&mut onto, &masked, KEY);
                assert_eq!(ascii, bad == len, "{len} octets appended, {bad} not ASCII");
                assert!(onto[len % 67..] == plain);
                assert_eq!(mask_ascii(&mut masked, KEY), bad == len, "{len} octets, at {bad}");
                assert!(masked == plain);
            }
        }
    }

    #[test]
    fn mask_onto_equals_mask_at_every_length_and_turn() {
        let from = bytes(700 + 3);
        for len in 0..=700 {
            for phase in 0..4 {
                let from = &from[phase..phase + len];
                let mut want = from.to_vec();
                portable::scalar(&mut want, KEY, phase);
                let mut got = vec![9; len % 67];
                mask_onto(&mut got, from, turn(KEY, phase));
                assert!(got[..len % 67].iter().all(|&octet| octet == 9));
                assert!(got[len % 67..] == want, "{len} octets, phase {phase}");
            }
        }
    }

    #[test]
    fn mask_takes_the_phase_modulo_four() {
        let mut one = bytes(99);
        let mut two = bytes(99);
        assert_eq!(mask(&mut one, KEY, usize::MAX), mask(&mut two, KEY, 3));
        assert!(one == two);
    }
}
