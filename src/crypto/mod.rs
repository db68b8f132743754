//! Digests, signatures and base64: thin wrappers over libraries, so that other modules name an
//! algorithm without the generic types of its crate. Holds no keys and no policy.

mod base64;
mod digest;
mod hmac;
mod permutation;

pub use self::base64::{decode_base64, encode_base64, websocket_accept};
pub use self::digest::{hex, md5, sha1, sha256};
pub use self::hmac::{HmacKey, hmac_sha256};
pub use self::permutation::Permutation;

use subtle::ConstantTimeEq;

/// Whether two byte strings are equal. The time that this takes depends only on their lengths.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    // Eight bytes at a time: a comparison byte by byte takes as long as hashing the message.
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let words = left
        .iter()
        .zip(right)
        .map(|(left, right)| u64::from_ne_bytes(*left).ct_eq(&u64::from_ne_bytes(*right)));
    words.fold(left_rest.ct_eq(right_rest), |equal, word| equal & word).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crypto_equality_needs_the_same_length_and_bytes() {
        for (left, right, want) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "b", false),
            ("a", "ab", false),
            ("ab", "a", false),
            ("", "a", false),
        ] {
            assert_eq!(constant_time_eq(left.as_bytes(), right.as_bytes()), want, "{left} {right}");
        }
    }

    #[test]
    fn crypto_equality_sees_every_bit_of_texts_of_any_length() {
        for length in 1..=33 {
            let text: Vec<u8> = (0..length).collect();
            assert!(constant_time_eq(&text, &text.clone()), "{length}");
            for bit in 0..8 * usize::from(length) {
                let mut other = text.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(!constant_time_eq(&text, &other), "{length} {bit}");
            }
        }
    }
}
