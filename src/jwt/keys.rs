//! Keys that verify tokens: from JWKs (RFC 7517), PEM and shared secrets.

use super::algorithm::{Algorithm, Material, is_on_curve};
use super::{Flaw, pem, strict};
use serde::Deserialize;
use serde_json::Value;
use std::fmt;

/// Keys of one set that are looked at; further ones are left out.
const KEYS: usize = 64;
/// Keys that a token without `kid` is tried with: each costs as much as a signature.
const TRIED: usize = 2;
/// Bytes of an RSA modulus: from 2048 bits (RFC 7518 section 3.3; `ring` takes no shorter one) to
/// 4096, because the cost grows with the square of the length.
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
#[derive(Clone)]
pub struct VerifyingKey {
    kid: Option<String>,
    /// Of one family only: what the key's type has, or what it says itself.
    algorithms: Vec<Algorithm>,
    material: Material,
}

/// Without the key itself, which may be a secret.
impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VerifyingKey { kid, algorithms, .. } = self;
        let mut shown = f.debug_struct("Key");
        shown.field("kid", kid).field("algorithms", algorithms).finish_non_exhaustive()
    }
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

    /// A public key in PEM: RSA, EC or Ed25519; or that of a certificate, whose dates and signer do
    /// not count.
    ///
    /// # Errors
    /// What has to be otherwise.
    pub fn from_pem(text: &str) -> Result<VerifyingKey, &'static str> {
        pem::read(text)
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
        match Algorithm::named(name).filter(|it| self.algorithms.contains(it)) {
            Some(one) => Ok(VerifyingKey { algorithms: vec![one], ..self }),
            None => Err("an `alg` that a key of this kind and length can have"),
        }
    }

    /// Whether one of `accepted` is the key's; whether it has any if that is empty.
    pub fn fits(&self, accepted: &[Algorithm]) -> bool {
        accepted.is_empty() || self.algorithms.iter().any(|it| accepted.contains(it))
    }

    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8], with: Algorithm) -> bool {
        debug_assert!(self.algorithms.contains(&with));
        self.material.has_signed(message, signature, with)
    }

    fn new(algorithms: Vec<Algorithm>, material: Material) -> VerifyingKey {
        VerifyingKey { kid: None, algorithms, material }
    }
}

pub(super) fn rsa(n: &[u8], e: &[u8]) -> Result<VerifyingKey, &'static str> {
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
    Ok(VerifyingKey::new(RSA.to_vec(), Material::Rsa { n, e }))
}

pub(super) fn point(
    x: &[u8],
    y: &[u8],
    len: usize,
    with: Algorithm,
) -> Result<VerifyingKey, &'static str> {
    if x.len() != len || y.len() != len {
        return Err("coordinates of the curve's length");
    }
    let point = [&[4], x, y].concat();
    if !is_on_curve(&point, with) {
        return Err("coordinates of a point on the curve");
    }
    Ok(VerifyingKey::new(vec![with], Material::Curve(point)))
}

pub(super) fn ed25519(x: &[u8]) -> Result<VerifyingKey, &'static str> {
    if x.len() != 32 {
        return Err("a key of 32 bytes");
    }
    Ok(VerifyingKey::new(vec![Algorithm::EdDSA], Material::Curve(x.to_vec())))
}

fn secret(text: &[u8]) -> Result<VerifyingKey, &'static str> {
    let long_enough = HMAC.iter().filter(|(_, min)| text.len() >= *min);
    let algorithms: Vec<Algorithm> = long_enough.map(|(algorithm, _)| *algorithm).collect();
    if algorithms.is_empty() {
        return Err("a secret of at least 32 bytes");
    }
    Ok(VerifyingKey::new(algorithms, Material::Secret(text.to_vec())))
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
