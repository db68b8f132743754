//! HMAC-SHA256 (RFC 2104) with the key's two blocks hashed once and kept.

use std::fmt;

use ::hmac::{Hmac, KeyInit, Mac};
use ::sha2::Sha256;

/// A prepared key. Signing a message copies this state and does not hash the key again.
#[derive(Clone)]
pub struct HmacKey(Hmac<Sha256>);

impl HmacKey {
    /// Prepares `secret`, of any length, for signing.
    pub fn new(secret: &[u8]) -> HmacKey {
        // Cannot happen: HMAC takes a key of any length (RFC 2104).
        HmacKey(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"))
    }

    /// The signature of the concatenation of `parts`.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey(..)")
    }
}

/// HMAC-SHA256 of the concatenation of `parts`, for a key that is used once.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    HmacKey::new(key).sign(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    /// RFC 4231 section 4: key, data, signature.
    #[test]
    fn hmac_matches_the_vectors_of_rfc_4231() {
        let long_key = [0xaa; 131];
        let cases: [(&[u8], &[u8], &[u8; 64]); 3] = [
            (
                &[0x0b; 20],
                b"Hi There",
                b"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                b"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &long_key,
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                b"60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, data, want) in cases {
            assert_eq!(&hex::<32, 64>(&hmac_sha256(key, &[data])), want);
            let ready = HmacKey::new(key);
            for cut in 0..=data.len() {
                let (head, tail) = data.split_at(cut);
                assert_eq!(&hex::<32, 64>(&ready.sign(&[head, tail])), want, "cut at {cut}");
            }
        }
    }

    #[test]
    fn hmac_debug_text_hides_the_secret() {
        assert_eq!(format!("{:?}", HmacKey::new(b"secret-9b7e")), "HmacKey(..)");
    }
}
