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
    left.ct_eq(right).into()
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
}
