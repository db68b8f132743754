//! Account addresses: 20 bytes, written as 40 hexadecimal digits.

use super::curve::{keccak256, uncompressed_point};
use crate::crypto::{hex, sha256};

/// The address of an account.
pub type Address = [u8; 20];

/// The length in bytes of a compressed point of secp256k1: the sign of y, then x (SEC 1 section
/// 2.3.3).
pub const KEY_BYTES: usize = 33;

/// Parses 40 hexadecimal digits of either case, without a prefix.
pub fn parse(text: &str) -> Option<Address> {
    unhex(text)
}

/// Parses 40 hexadecimal digits of either case after an optional `0x`.
pub(super) fn parse_with_prefix(text: &str) -> Option<Address> {
    unhex(text.strip_prefix("0x").unwrap_or(text))
}

/// Parses the 66 hexadecimal digits of a compressed public key after an optional `0x`.
pub(super) fn parse_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    unhex(text.strip_prefix("0x").unwrap_or(text))
}

/// The address as lower-case hexadecimal digits, without a prefix.
pub fn text(address: &Address) -> [u8; 40] {
    hex(address)
}

/// A bit mask of the upper-case letters among 40 hexadecimal digits: bit n stands for digit n.
pub(super) fn case(digits: &str) -> u64 {
    let upper = digits.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_uppercase());
    upper.fold(0, |case, (at, _)| case | 1 << (at & 63))
}

/// The address as hexadecimal digits without a prefix, in the case that a mask of [`case`] gives.
pub(super) fn spelt(address: &Address, case: u64) -> [u8; 40] {
    let mut digits = text(address);
    for (at, digit) in digits.iter_mut().enumerate().filter(|_| case != 0) {
        if case >> at & 1 == 1 {
            digit.make_ascii_uppercase();
        }
    }
    digits
}

/// The account of a public key: the last 20 bytes of the SHA-256 of the compressed key.
pub fn of_key(key: &[u8; KEY_BYTES]) -> Address {
    tail(&sha256(&[key]))
}

/// The account of a public key that signs as Ethereum does: the last 20 bytes of the Keccak-256 of
/// the uncompressed key without its first byte. `None` if the key is not a point on the curve.
pub fn of_ethereum_key(key: &[u8; KEY_BYTES]) -> Option<Address> {
    Some(tail(&keccak256(&uncompressed_point(key)?[1..])))
}

fn tail(digest: &[u8; 32]) -> Address {
    let mut address = [0; 20];
    address.copy_from_slice(&digest[12..]);
    address
}

fn unhex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * BYTES {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zilliqa_address_is_read_in_either_case() {
        let written = "2ce491a0fd9e318b39172258101b7c836da7449b";
        let address = parse(&written.to_uppercase()).expect("an address");
        assert_eq!(&text(&address), written.as_bytes());
        assert_eq!(parse_with_prefix(&format!("0x{written}")), Some(address));
        assert_eq!(parse_with_prefix(written), Some(address));
        assert_eq!(parse(&format!("0x{written}")), None);
        for bad in ["", "2c", &written[1..], &format!("{written}0"), &format!("{}g", &written[1..])]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&"é".repeat(20)), None, "40 bytes, not 40 digits");
    }

    /// The generator of secp256k1 (SEC 2 section 2.4.1) is the public key of the secret key 1,
    /// whose Ethereum account is well known.
    #[test]
    fn zilliqa_accounts_follow_from_public_keys() {
        let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let key = parse_key(generator).expect("a key");
        let ethereum = of_ethereum_key(&key).map(|address| text(&address));
        assert_eq!(ethereum.as_ref(), Some(b"7e5f4552091a69125d5dfcb7b8c2659029395bdf"));
        let mut none = [0xff; KEY_BYTES];
        none[0] = 2;
        assert_eq!(of_ethereum_key(&none), None, "x is no coordinate of the field");
    }

    /// Keys and accounts from the tests of zilliqa-js, `address.fixtures.ts`.
    #[test]
    fn zilliqa_account_of_a_zilliqa_key() {
        for (key, address) in VECTORS {
            let key = parse_key(key).expect("a key");
            assert_eq!(Some(of_key(&key)), parse(address));
        }
    }

    const VECTORS: [(&str, &str); 2] = [
        (
            "0x0314738163B9BB67AD11AA464FE69A1147DF263E8970D7DCFD8F993DDD39E81BD9",
            "4BAF5FADA8E5DB92C3D3242618C5B47133AE003C",
        ),
        (
            "034CE268AC5A340038D8ACEBBDD7363611A5B1197916775E32481F5D6B104FAF65",
            "448261915A80CDE9BDE7C7A791685200D3A0BF4E",
        ),
    ];
}
