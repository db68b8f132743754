//! Signature algorithms (RFC 7518 section 3.1, RFC 8037), verified by `ring`.

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{agreement, hmac, rand};
use serde::Deserialize;

/// A signature algorithm of JWS. ES512 is not supported, because `ring` has no P-521.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[allow(missing_docs, reason = "the names are those of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

impl Algorithm {
    /// The algorithm of this name, which is case-sensitive. EdDSA has a second name, `Ed25519` (RFC
    /// 9864).
    pub(super) fn named(name: &str) -> Option<Algorithm> {
        Some(match name {
            "HS256" => Algorithm::HS256,
            "HS384" => Algorithm::HS384,
            "HS512" => Algorithm::HS512,
            "ES256" => Algorithm::ES256,
            "ES384" => Algorithm::ES384,
            "RS256" => Algorithm::RS256,
            "RS384" => Algorithm::RS384,
            "RS512" => Algorithm::RS512,
            "PS256" => Algorithm::PS256,
            "PS384" => Algorithm::PS384,
            "PS512" => Algorithm::PS512,
            "EdDSA" | "Ed25519" => Algorithm::EdDSA,
            _ => return None,
        })
    }

    /// The estimated time of one verification in microseconds, on a core of 2020 or later; for RSA
    /// with a key of 4096 bits. It bounds the work that a connection may cause.
    pub const fn cost_us(self) -> u64 {
        match self {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => 1,
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => 80,
            Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => 80,
            Algorithm::ES256 | Algorithm::EdDSA => 50,
            // `ring` has no optimised code for this curve.
            Algorithm::ES384 => 750,
        }
    }

    fn rsa(self) -> Option<&'static signature::RsaParameters> {
        Some(match self {
            Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }

    /// The verification algorithm for ECDSA and Ed25519 signatures.
    fn curve(self) -> Option<&'static dyn signature::VerificationAlgorithm> {
        Some(match self {
            Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDSA => &signature::ED25519,
            _ => return None,
        })
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        Some(match self {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => return None,
        })
    }
}

/// The bytes of a key. With an algorithm of another kind, no signature verifies. `VerifyingKey` has
/// the algorithms that the key may be used with.
#[derive(Clone)]
pub(super) enum Material {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point of P-256 or P-384, uncompressed (SEC 1 section 2.3.3), or an Ed25519 public key.
    Curve(Vec<u8>),
    /// A shared secret for HMAC.
    Secret(Vec<u8>),
}

impl Material {
    /// Whether `signature` is this key's signature of `message`. A wrong signature takes as long as
    /// a right one.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8], with: Algorithm) -> bool {
        match self {
            Material::Rsa { n, e } => with.rsa().is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            Material::Curve(key) => with.curve().is_some_and(|curve| {
                UnparsedPublicKey::new(curve, key).verify(message, signature).is_ok()
            }),
            Material::Secret(secret) => with.hmac().is_some_and(|hash| {
                hmac::verify(&hmac::Key::new(hash, secret), message, signature).is_ok()
            }),
        }
    }
}

/// Whether an uncompressed point is on its curve. `ring` checks this only when the point is used,
/// and key agreement is the one use that needs no signature.
pub(super) fn is_on_curve(point: &[u8], with: Algorithm) -> bool {
    let curve = match with {
        Algorithm::ES256 => &agreement::ECDH_P256,
        Algorithm::ES384 => &agreement::ECDH_P384,
        _ => return false,
    };
    let own = agreement::EphemeralPrivateKey::generate(curve, &rand::SystemRandom::new());
    let peer = agreement::UnparsedPublicKey::new(curve, point);
    own.is_ok_and(|own| agreement::agree_ephemeral(own, &peer, |_| ()).is_ok())
}
