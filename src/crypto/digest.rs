//! SHA-1, SHA-256, MD5 and their text form.

use ::md5::Md5;
use ::sha1::Sha1;
use ::sha2::{Digest, Sha256};

/// SHA-1 of `data` (RFC 3174): only for the handshake of RFC 6455, which is not a signature.
pub fn sha1(data: &[u8]) -> [u8; 20] {
    Sha1::digest(data).into()
}

/// SHA-256 of the concatenation of `parts`.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// MD5 of `data` (RFC 1321): only where a vendor's protocol asks for it.
pub fn md5(data: &[u8]) -> [u8; 16] {
    Md5::digest(data).into()
}

/// Lower-case hexadecimal text of `bytes`. Does not compile unless `TEXT` is twice `BYTES`.
pub fn hex<const BYTES: usize, const TEXT: usize>(bytes: &[u8; BYTES]) -> [u8; TEXT] {
    const { assert!(TEXT == 2 * BYTES, "two digits a byte") };
    let mut text = [0; TEXT];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX_DIGITS[usize::from(byte >> 4)];
        pair[1] = HEX_DIGITS[usize::from(byte & 15)];
    }
    text
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_matches_published_vectors() {
        // RFC 3174 section 7.3, RFC 1321 appendix A.5, FIPS 180-2 appendix B.1.
        assert_eq!(&hex::<20, 40>(&sha1(b"abc")), b"a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(&hex::<16, 32>(&md5(b"")), b"d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(&hex::<16, 32>(&md5(b"abc")), b"900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            &hex::<32, 64>(&sha256(&[b"a", b"", b"bc"])),
            b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn digest_hex_writes_every_byte_in_order() {
        assert_eq!(&hex::<4, 8>(&[0x00, 0x0f, 0xa5, 0xff]), b"000fa5ff");
    }
}
