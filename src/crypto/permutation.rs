//! A secret permutation of all 128-bit numbers: AES with one block.

use std::fmt;

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

/// Maps each 128-bit number to another one and back. Without the key, an image reveals nothing
/// about its number, and the image of a chosen number cannot be computed.
#[derive(Clone)]
pub struct Permutation(Aes128);

impl Permutation {
    /// The permutation of this key.
    pub fn new(key: [u8; 16]) -> Permutation {
        Permutation(Aes128::new(&key.into()))
    }

    /// The image of `number`.
    pub fn apply(&self, number: u128) -> u128 {
        let mut block = number.to_be_bytes().into();
        self.0.encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    }

    /// The number whose image is `image`.
    pub fn invert(&self, image: u128) -> u128 {
        let mut block = image.to_be_bytes().into();
        self.0.decrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    }
}

impl fmt::Debug for Permutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permutation(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of FIPS 197, appendix C.1.
    #[test]
    fn permutation_is_aes_and_leads_back() {
        let key = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f_u128.to_be_bytes();
        let permutation = Permutation::new(key);
        let number = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;
        let image = permutation.apply(number);
        assert_eq!(image, 0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55a);
        assert_eq!(permutation.invert(image), number);
        assert_eq!(format!("{permutation:?}"), "Permutation(..)");
    }
}
