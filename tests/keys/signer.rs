//! Signs tokens for the tests: what the server itself never does.

use super::Algorithm;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};

/// A private key.
pub(crate) enum Private {
    Secret(Vec<u8>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Private {
    /// The key of a PEM file in PKCS#8, for that algorithm.
    pub(crate) fn from_pem(pem: &str, algorithm: Algorithm) -> Private {
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        let der = STANDARD.decode(lines.collect::<String>()).expect("PEM");
        let random = SystemRandom::new();
        let ec = |curve| EcdsaKeyPair::from_pkcs8(curve, &der, &random).expect("a key of EC");
        match algorithm {
            Algorithm::ES256 => Private::Ec(ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)),
            Algorithm::ES384 => Private::Ec(ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)),
            Algorithm::EdDSA => {
                let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
                Private::Ed(key.expect("a key of Ed25519"))
            }
            _ => Private::Rsa(RsaKeyPair::from_pkcs8(&der).expect("a key of RSA")),
        }
    }

    pub(crate) fn from_secret(secret: &[u8]) -> Private {
        Private::Secret(secret.to_vec())
    }

    /// The public key: a point, the bytes of Ed25519, or `RSAPublicKey` in DER.
    pub(crate) fn public(&self) -> &[u8] {
        match self {
            Private::Secret(_) => panic!("a secret has no public key"),
            Private::Ec(key) => key.public_key().as_ref(),
            Private::Ed(key) => key.public_key().as_ref(),
            Private::Rsa(key) => key.public().as_ref(),
        }
    }

    /// A signature in base64url.
    pub(crate) fn sign(&self, message: &str, algorithm: Algorithm) -> String {
        let (message, random) = (message.as_bytes(), SystemRandom::new());
        let signature = match self {
            Private::Secret(secret) => {
                let hash = match algorithm {
                    Algorithm::HS256 => hmac::HMAC_SHA256,
                    Algorithm::HS384 => hmac::HMAC_SHA384,
                    _ => hmac::HMAC_SHA512,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
            Private::Ec(key) => key.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Private::Ed(key) => key.sign(message).as_ref().to_vec(),
            Private::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    Algorithm::RS256 => &signature::RSA_PKCS1_SHA256,
                    Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &signature::RSA_PSS_SHA256,
                    Algorithm::PS384 => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut out = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, message, &mut out).expect("a signature");
                out
            }
        };
        URL_SAFE_NO_PAD.encode(signature)
    }
}
