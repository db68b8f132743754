//! Public keys in PEM (RFC 7468): `PUBLIC KEY` (RFC 5280 section 4.1.2.7), `RSA PUBLIC KEY` (RFC
//! 8017 appendix A.1.1), and the public key of a `CERTIFICATE`.

use super::keys::{ed25519, point, rsa};
use super::{Algorithm, VerifyingKey};
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;
use x509_parser::x509::SubjectPublicKeyInfo;

const ACCEPTED: &str = "a public key in PEM of RSA, EC (P-256, P-384) or Ed25519";

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const ED25519: &str = "1.3.101.112";

impl VerifyingKey {
    /// Reads a public key in PEM: RSA, EC, Ed25519, or the public key of a certificate, whose dates
    /// and signature are not checked.
    ///
    /// # Errors
    /// What the text would have to be.
    pub fn from_pem(text: &str) -> Result<VerifyingKey, &'static str> {
        read(text)
    }
}

/// Reads the key of the first PEM section. Only the key of a certificate is used; its dates and its
/// signature are not checked.
fn read(text: &str) -> Result<VerifyingKey, &'static str> {
    let (_, section) = parse_x509_pem(text.as_bytes()).map_err(|_| ACCEPTED)?;
    let der = section.contents.as_slice();
    match section.label.as_str() {
        "PUBLIC KEY" => match SubjectPublicKeyInfo::from_der(der) {
            Ok(([], info)) => key(&info),
            _ => Err(ACCEPTED),
        },
        "RSA PUBLIC KEY" => rsa_key(der),
        "CERTIFICATE" => match X509Certificate::from_der(der) {
            Ok(([], certificate)) => key(certificate.public_key()),
            _ => Err(ACCEPTED),
        },
        _ => Err(ACCEPTED),
    }
}

fn key(info: &SubjectPublicKeyInfo<'_>) -> Result<VerifyingKey, &'static str> {
    let bits: &[u8] = &info.subject_public_key.data;
    let curve = info.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
    let curve = curve.map(|it| it.to_id_string()).unwrap_or_default();
    match (info.algorithm.algorithm.to_id_string().as_str(), curve.as_str(), bits) {
        (RSA, _, der) => rsa_key(der),
        (EC, P256, [4, xy @ ..]) if xy.len() == 64 => {
            point(&xy[..32], &xy[32..], 32, Algorithm::ES256)
        }
        (EC, P384, [4, xy @ ..]) if xy.len() == 96 => {
            point(&xy[..48], &xy[48..], 48, Algorithm::ES384)
        }
        (ED25519, _, key) => ed25519(key),
        _ => Err(ACCEPTED),
    }
}

fn rsa_key(der: &[u8]) -> Result<VerifyingKey, &'static str> {
    let (n, e) = rsa_of_der(der).ok_or(ACCEPTED)?;
    rsa(n, e)
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 appendix A.1.1) in DER.
fn rsa_of_der(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    let (inside, rest) = der_value(der, SEQUENCE)?;
    let (n, more) = der_value(inside, INTEGER)?;
    let (e, end) = der_value(more, INTEGER)?;
    (rest.is_empty() && end.is_empty()).then_some((n, e))
}

/// The content of the DER value with type `tag` at the beginning of `der`, and the bytes after it.
fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=127 => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let value = rest.split_at_checked(len)?;
    (found == tag).then_some(value)
}
