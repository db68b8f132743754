//! Points of secp256k1 (SEC 2 section 2.4.1), and Keccak-256, as Ethereum makes addresses of both.

use ::sha3::{Digest, Keccak256};
use k256::PublicKey;
use k256::elliptic_curve::sec1::ToSec1Point;

/// Keccak-256 of `data`: what became SHA3-256, before its padding was changed.
pub fn keccak256(data: &[u8]) -> [u8; 32] {
    Keccak256::digest(data).into()
}

/// The 65 bytes of a point of secp256k1 without compression (SEC 1 section 2.3.3), of its 33 bytes
/// with. `None` if those are no point of the curve.
pub fn uncompressed_point(compressed: &[u8; 33]) -> Option<[u8; 65]> {
    let key = PublicKey::from_sec1_bytes(compressed).ok()?;
    key.to_sec1_point(false).as_bytes().try_into().ok()
}
