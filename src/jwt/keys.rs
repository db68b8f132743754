//! Keys that verify tokens: from JWKs (RFC 7517), PEM and shared secrets.

use super::{Flaw, strict};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::Value;

/// Keys of one set that are looked at; further ones are left out.
const KEYS: usize = 64;
/// Keys that a token without `kid` is tried with: each costs as much as a signature.
const TRIED: usize = 4;
/// Bytes of an RSA modulus: 2048 bits (RFC 7518 section 3.3) to what the library takes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// With the bytes that a secret must have at least (RFC 7518 section 3.2).
const HMAC: [(Algorithm, usize); 3] =
    [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)];

/// The members of a JWK that mean something here; a text that is missing is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Jwk {
    /// What kind of key it is: `RSA`, `EC`, `OKP` or `oct`.
    pub kty: String,
    /// Its name.
    pub kid: Option<String>,
    /// The one algorithm that it is for.
    pub alg: String,
    /// `sig`, if anything.
    #[serde(rename = "use")]
    pub usage: String,
    /// With `verify` among them, if there are any.
    pub key_ops: Vec<String>,
    /// The curve.
    pub crv: String,
    /// An RSA modulus.
    pub n: String,
    /// An RSA exponent.
    pub e: String,
    /// The first coordinate of a point, or a public key of Ed25519.
    pub x: String,
    /// The second coordinate of a point.
    pub y: String,
    /// A shared secret.
    pub k: String,
}

/// One key and what it may verify.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    kid: Option<String>,
    /// Of one family only: what the key's type has, or what it says itself.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// The key of a JWK.
    ///
    /// # Errors
    /// What has to be otherwise.
    pub fn from_jwk(jwk: &Jwk) -> Result<VerifyingKey, &'static str> {
        if !matches!(jwk.usage.as_str(), "" | "sig") {
            return Err("a key whose `use` is `sig`");
        }
        if !jwk.key_ops.is_empty() && !jwk.key_ops.iter().any(|it| it == "verify") {
            return Err("a key whose `key_ops` have `verify`");
        }
        let of = |text: &str| strict::bytes(text).ok_or("members in base64url without padding");
        let key = match (jwk.kty.as_str(), jwk.crv.as_str()) {
            ("RSA", _) => rsa(&of(&jwk.n)?, &of(&jwk.e)?),
            ("EC", "P-256") => point(&of(&jwk.x)?, &of(&jwk.y)?, 32, Algorithm::ES256),
            ("EC", "P-384") => point(&of(&jwk.x)?, &of(&jwk.y)?, 48, Algorithm::ES384),
            ("OKP", "Ed25519") => ed25519(&of(&jwk.x)?),
            ("oct", _) => secret(&of(&jwk.k)?),
            _ => Err("`kty` RSA, EC with `crv` P-256 or P-384, OKP with Ed25519, or oct"),
        };
        key?.named(jwk.kid.clone()).only(&jwk.alg)
    }

    /// A public key in PEM: RSA, EC or Ed25519.
    ///
    /// # Errors
    /// What has to be otherwise.
    pub fn from_pem(pem: &str) -> Result<VerifyingKey, &'static str> {
        const ACCEPTED: &str = "a public key in PEM of RSA, EC (P-256, P-384) or Ed25519";
        let text = pem.as_bytes();
        if !pem.contains("PUBLIC KEY-----") {
            return Err(ACCEPTED);
        }
        if let Ok(key) = DecodingKey::from_ec_pem(text) {
            return match key.as_bytes() {
                [4, point @ ..] if point.len() == 64 => {
                    self::point(&point[..32], &point[32..], 32, Algorithm::ES256)
                }
                [4, point @ ..] if point.len() == 96 => {
                    self::point(&point[..48], &point[48..], 48, Algorithm::ES384)
                }
                _ => Err(ACCEPTED),
            };
        }
        if let Ok(key) = DecodingKey::from_ed_pem(text) {
            return ed25519(key.as_bytes());
        }
        let key = DecodingKey::from_rsa_pem(text).map_err(|_| ACCEPTED)?;
        let (n, e) = rsa_of_der(key.as_bytes()).ok_or(ACCEPTED)?;
        rsa(n, e)
    }

    /// A secret that is shared with the issuer, for HMAC.
    ///
    /// # Errors
    /// It is too short.
    pub fn from_secret(text: &[u8]) -> Result<VerifyingKey, &'static str> {
        secret(text)
    }

    /// The same key under a name.
    pub fn named(self, kid: Option<String>) -> VerifyingKey {
        VerifyingKey { kid, ..self }
    }

    /// The same key for one algorithm only; for all that it has if that is empty.
    ///
    /// # Errors
    /// It is none of the key's.
    pub fn only(self, name: &str) -> Result<VerifyingKey, &'static str> {
        if name.is_empty() {
            return Ok(self);
        }
        match algorithm(name).filter(|it| self.algorithms.contains(it)) {
            Some(one) => Ok(VerifyingKey { algorithms: vec![one], ..self }),
            None => Err("an `alg` that a key of this kind and length can have"),
        }
    }

    /// Whether one of `accepted` is the key's; whether it has any if that is empty.
    pub fn fits(&self, accepted: &[Algorithm]) -> bool {
        accepted.is_empty() || self.algorithms.iter().any(|it| accepted.contains(it))
    }

    pub(super) fn has_signed(&self, message: &[u8], signature: &str, with: Algorithm) -> bool {
        debug_assert!(self.algorithms.contains(&with));
        crypto::verify(signature, message, &self.key, with).unwrap_or(false)
    }

    /// A key whose numbers the library accepts, too.
    fn new(algorithms: Vec<Algorithm>, key: DecodingKey) -> Result<VerifyingKey, &'static str> {
        // It looks at the key before it looks at a signature.
        let first = *algorithms.first().ok_or("a longer key")?;
        match crypto::verify("", b"", &key, first) {
            Ok(_) => Ok(VerifyingKey { kid: None, algorithms, key }),
            Err(_) => Err("a key whose numbers belong together"),
        }
    }
}

fn rsa(n: &[u8], e: &[u8]) -> Result<VerifyingKey, &'static str> {
    let strip = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        number[zeros..].to_vec()
    };
    let (n, e) = (strip(n), strip(e));
    let anomaly = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    if !RSA_BYTES.contains(&n.len()) || !anomaly(&n) {
        return Err("an RSA key of 2048 to 4096 bits");
    }
    // From 3 to what fits into 32 bits.
    if !anomaly(&e) || e.len() > 4 || e == [1] {
        return Err("an RSA exponent that is odd, from 3 to 4294967295");
    }
    VerifyingKey::new(RSA.to_vec(), DecodingKey::from_rsa_raw_components(&n, &e))
}

fn point(x: &[u8], y: &[u8], len: usize, with: Algorithm) -> Result<VerifyingKey, &'static str> {
    if x.len() != len || y.len() != len {
        return Err("coordinates of the curve's length");
    }
    VerifyingKey::new(vec![with], DecodingKey::from_ec_der(&[&[4], x, y].concat()))
}

fn ed25519(x: &[u8]) -> Result<VerifyingKey, &'static str> {
    if x.len() != 32 {
        return Err("a key of 32 bytes");
    }
    VerifyingKey::new(vec![Algorithm::EdDSA], DecodingKey::from_ed_der(x))
}

fn secret(text: &[u8]) -> Result<VerifyingKey, &'static str> {
    let long_enough = HMAC.iter().filter(|(_, min)| text.len() >= *min);
    let algorithms: Vec<Algorithm> = long_enough.map(|(algorithm, _)| *algorithm).collect();
    if algorithms.is_empty() {
        return Err("a secret of at least 32 bytes");
    }
    VerifyingKey::new(algorithms, DecodingKey::from_secret(text))
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

/// The content of the value of that type that `der` begins with, and what follows it.
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

/// The algorithm of that name; RFC 9864 has a second one for EdDSA.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "Ed25519" => Some(Algorithm::EdDSA),
        name => name.parse().ok(),
    }
}

/// The keys that one guard has at one time.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<VerifyingKey>);

impl KeySet {
    /// These keys.
    pub fn new(keys: Vec<VerifyingKey>) -> KeySet {
        KeySet(keys)
    }

    /// The public keys of a JWK set (RFC 7517 section 5) that are for signatures of ours. `None` if
    /// the text is no such set, or none of its keys can be used. Secrets are left out: what a
    /// server gives to whoever asks is no secret.
    pub fn from_set(text: &[u8]) -> Option<KeySet> {
        let mut set = strict::object(text)?;
        let Some(Value::Array(list)) = set.remove("keys") else { return None };
        let keys = list.into_iter().take(KEYS).filter_map(|jwk| {
            let jwk: Jwk = serde_json::from_value(jwk).ok()?;
            if jwk.kty == "oct" { None } else { VerifyingKey::from_jwk(&jwk).ok() }
        });
        let keys: Vec<VerifyingKey> = keys.collect();
        (!keys.is_empty()).then_some(KeySet(keys))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys that a token may be signed with. One that names its key is tried with that one; if
    /// none has the name, with those that have no name. One that does not is tried with the first
    /// few that fit.
    pub(super) fn of<'k>(
        &'k self,
        kid: Option<&'k str>,
        algorithm: Algorithm,
    ) -> Result<impl Iterator<Item = &'k VerifyingKey>, Flaw> {
        let is_known =
            kid.is_none_or(|kid| self.0.iter().any(|key| key.kid.as_deref() == Some(kid)));
        let named = move |key: &&VerifyingKey| match kid {
            None => true,
            Some(_) if !is_known => key.kid.is_none(),
            Some(kid) => key.kid.as_deref() == Some(kid),
        };
        let mut named = self.0.iter().filter(named).peekable();
        if named.peek().is_none() {
            return Err(Flaw::Key);
        }
        let mut fitting = named.filter(move |key| key.algorithms.contains(&algorithm)).peekable();
        match fitting.peek() {
            Some(_) => Ok(fitting.take(TRIED)),
            None => Err(Flaw::Algorithm),
        }
    }
}
