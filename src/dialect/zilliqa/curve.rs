//! Points of the curve secp256k1 (SEC 2 section 2.4.1) and Keccak-256, from which Ethereum derives
//! addresses.

use k256::PublicKey;
use k256::elliptic_curve::sec1::ToSec1Point;
use sha3::{Digest, Keccak256};

/// Keccak-256 of `data`: SHA3-256 with the padding that it had before it was standardised.
pub(super) fn keccak256(data: &[u8]) -> [u8; 32] {
    Keccak256::digest(data).into()
}

/// Expands a compressed point of 33 bytes to the uncompressed 65 bytes (SEC 1 section 2.3.3).
/// `None` if the bytes are not a point of the curve.
pub(super) fn uncompressed_point(compressed: &[u8; 33]) -> Option<[u8; 65]> {
    let key = PublicKey::from_sec1_bytes(compressed).ok()?;
    key.to_sec1_point(false).as_bytes().try_into().ok()
}
