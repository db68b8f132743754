//! Keys that verify tokens: from JWKs (RFC 7517), PEM or shared secrets.

use super::algorithm::{Algorithm, Material, is_on_curve};
use super::{Flaw, strict};
use serde::Deserialize;
use serde_json::Value;
use std::fmt;

/// The maximum number of keys of a JWK set; further keys are ignored.
const KEYS: usize = 64;
/// The maximum number of keys that a token is tried with; each costs one signature verification.
const TRIED: usize = 2;
/// The accepted lengths of an RSA modulus in bytes: from 2048 bits (RFC 7518 section 3.3; `ring`
/// accepts no shorter one) to 4096 bits, because the cost grows with the square of the length.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// The HMAC algorithms, each with the minimum length of its secret in bytes (RFC 7518 section 3.2).
const HMAC: [(Algorithm, usize); 3] =
    [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)];

/// The members of a JWK that are used here; a missing string is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Jwk {
    /// The key type: `RSA`, `EC`, `OKP` or `oct`.
    pub kty: String,
    /// The key ID, by which tokens name the key.
    pub kid: Option<String>,
    /// The only algorithm that the key may be used with; empty is any of its type.
    pub alg: String,
    /// The member `use`: `sig` or empty.
    #[serde(rename = "use")]
    pub usage: String,
    /// The permitted operations; unless empty, `verify` must be among them.
    pub key_ops: Vec<String>,
    /// The curve: `P-256`, `P-384` or `Ed25519`.
    pub crv: String,
    /// The RSA modulus, in base64url.
    pub n: String,
    /// The RSA public exponent, in base64url.
    pub e: String,
    /// The x coordinate of a point, or an Ed25519 public key, in base64url.
    pub x: String,
    /// The y coordinate of a point, in base64url.
    pub y: String,
    /// The shared secret, in base64url.
    pub k: String,
}

/// A key, and the algorithms that it may verify.
#[derive(Clone)]
pub struct VerifyingKey {
    kid: Option<String>,
    /// Algorithms of one family only: those of the key's type, or the one of its `alg`.
    algorithms: Vec<Algorithm>,
    material: Material,
}

/// Omits the key itself, which may be a secret.
impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VerifyingKey { kid, algorithms, .. } = self;
        let mut output = f.debug_struct("VerifyingKey");
        output.field("kid", kid).field("algorithms", algorithms).finish_non_exhaustive()
    }
}

impl VerifyingKey {
    /// Makes a key from a JWK.
    ///
    /// # Errors
    /// What the JWK would have to be.
    pub fn from_jwk(jwk: &Jwk) -> Result<VerifyingKey, &'static str> {
        if !matches!(jwk.usage.as_str(), "" | "sig") {
            return Err("a key whose `use` is `sig`");
        }
        if !jwk.key_ops.is_empty() && !jwk.key_ops.iter().any(|it| it == "verify") {
            return Err("a key whose `key_ops` include `verify`");
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

    /// Makes a key from a secret that is shared with the issuer, for HMAC.
    ///
    /// # Errors
    /// The secret is shorter than 32 bytes.
    pub fn from_secret(text: &[u8]) -> Result<VerifyingKey, &'static str> {
        secret(text)
    }

    /// The same key with this key ID.
    pub fn named(self, kid: Option<String>) -> VerifyingKey {
        VerifyingKey { kid, ..self }
    }

    /// The same key for the algorithm `name` only; unchanged if `name` is empty.
    ///
    /// # Errors
    /// The key cannot be used with that algorithm.
    pub fn only(self, name: &str) -> Result<VerifyingKey, &'static str> {
        if name.is_empty() {
            return Ok(self);
        }
        match Algorithm::named(name).filter(|it| self.algorithms.contains(it)) {
            Some(one) => Ok(VerifyingKey { algorithms: vec![one], ..self }),
            None => Err("an `alg` that a key of this type and length supports"),
        }
    }

    /// Whether the key has one of the algorithms `accepted`; true if `accepted` is empty.
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
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    if !RSA_BYTES.contains(&n.len()) || !is_odd(&n) {
        return Err("an RSA key of 2048 to 4096 bits");
    }
    // From 3 to 2^32 - 1.
    if !is_odd(&e) || e.len() > 4 || e == [1] {
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

/// The keys of one guard at one time.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<VerifyingKey>);

impl KeySet {
    /// A set of these keys.
    pub fn new(keys: Vec<VerifyingKey>) -> KeySet {
        KeySet(keys)
    }

    /// The keys of a JWK set (RFC 7517 section 5) that can verify tokens. `None` if the text is not
    /// a JWK set, or none of its keys can be used. Shared secrets (`oct`) are ignored: a secret
    /// that a server publishes is not a secret.
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

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set has no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys that a token is tried with, at most [`TRIED`]. A token with a `kid` is tried with
    /// the keys of that ID, or, if there are none, with the keys that have no ID. A token without
    /// `kid` is tried with any key for the algorithm.
    ///
    /// # Errors
    /// [`Flaw::Key`] if no key has the right ID, [`Flaw::Algorithm`] if none of those has the
    /// algorithm.
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
