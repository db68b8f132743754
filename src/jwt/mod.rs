//! JSON Web Tokens (RFC 7519) that others have signed: which are believed, and what they say.
//!
//! The signatures are `ring`'s work; the policy is ours. A key is used only with algorithms
//! that its own type has, `none` is no algorithm, and nothing in a token's header says where a key
//! comes from: `jwk`, `jku`, `x5c` and `x5u` are not looked at.

mod algorithm;
mod guard;
mod keys;
mod lease;
mod pem;
mod price;
mod refused;
mod strict;
#[cfg(test)]
mod tests;

pub use algorithm::Algorithm;
pub use guard::{Guard, RemoteKeys, Remotes, Unverified};
pub use keys::{Jwk, KeySet, VerifyingKey};
pub use lease::{Expiry, TokenHolders, TokenLease, TokenLeases};

use serde_json::{Map, Value};

/// What a token must be to be believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenPolicy {
    /// The `iss` that it must have; empty is any, or none.
    pub issuer: String,
    /// What `aud` must name; if this is empty, a token with an `aud` is for somebody else
    /// (RFC 7519 section 4.1.3).
    pub audience: String,
    /// The algorithms that are accepted; empty is every one that a key has.
    pub algorithms: Vec<Algorithm>,
    /// Path of the claim that lists the roles.
    pub roles: String,
    /// Path of the claim that says who it is.
    pub identity: String,
    /// Names, each with the path of the claim that it stands for.
    pub attributes: Vec<(String, String)>,
    /// Claims that a token must have, by name or path, whatever is in them but `null`.
    pub require: Vec<String>,
    /// By how many seconds clocks may differ.
    pub leeway_s: u64,
    /// Bytes of a token.
    pub token_bytes: usize,
}

/// What a token that is believed says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Who it is.
    pub identity: Option<String>,
    /// What it is allowed.
    pub roles: Vec<String>,
    /// When it ends, leeway included, in seconds since 1970; `None` is never.
    pub expires_s: Option<u64>,
    /// What the policy's attributes stand for, as far as the token has them.
    pub attributes: Vec<(String, String)>,
}

impl Claims {
    /// Whether all of `roles` are there.
    pub fn have(&self, roles: &[String]) -> bool {
        roles.iter().all(|role| self.roles.contains(role))
    }
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It has more bytes than the policy allows.
    #[error("it is too long")]
    TooLong,
    /// It is not three parts.
    #[error("it is not three parts with dots between them")]
    Shape,
    /// Its header is no JSON object in base64url, names a member twice, or asks for an extension.
    #[error("its header cannot be read")]
    Header,
    /// Its algorithm is none, unknown, not allowed, or not one of the key's.
    #[error("its algorithm is not accepted")]
    Algorithm,
    /// No key has its `kid`, or none is there that it could be signed with.
    #[error("its key is not known")]
    Key,
    /// The signature is not one of its key's.
    #[error("its signature is wrong")]
    Signature,
    /// Its claims are no JSON object in base64url, name a member twice, or have one of another
    /// type.
    #[error("its claims cannot be read")]
    Claims,
    /// A claim is not there that the policy requires.
    #[error("it lacks a claim that is required")]
    Missing,
    /// `exp` has come.
    #[error("it has expired")]
    Expired,
    /// `nbf` has not come, or `iat` is in the future.
    #[error("it is not valid yet")]
    NotYet,
    /// `iss` is another one.
    #[error("its issuer is another one")]
    Issuer,
    /// `aud` names others.
    #[error("it is for another audience")]
    Audience,
}

/// Checks `token` at `now_s` seconds since 1970.
///
/// # Errors
/// The first thing that is wrong with it. Nothing of its claims is looked at before the signature.
pub fn verify(
    token: &str,
    policy: &TokenPolicy,
    keys: &KeySet,
    now_s: u64,
) -> Result<Claims, Flaw> {
    if token.len() > policy.token_bytes {
        return Err(Flaw::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Flaw::Shape)?;
    let (header, claims) = message.split_once('.').ok_or(Flaw::Shape)?;
    if claims.contains('.') || header.is_empty() || claims.is_empty() {
        return Err(Flaw::Shape);
    }
    let header = strict::part(header).ok_or(Flaw::Header)?;
    // RFC 7515 section 4.1.11: who does not know an extension refuses it, and we know none.
    if header.contains_key("crit") {
        return Err(Flaw::Header);
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
    let algorithm = algorithm.ok_or(Flaw::Algorithm)?;
    if !policy.algorithms.is_empty() && !policy.algorithms.contains(&algorithm) {
        return Err(Flaw::Algorithm);
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        Some(_) => return Err(Flaw::Header),
    };
    let mut fitting = keys.of(kid, algorithm)?;
    let signature = strict::bytes(signature).ok_or(Flaw::Signature)?;
    if !fitting.any(|key| key.has_signed(message.as_bytes(), &signature, algorithm)) {
        return Err(Flaw::Signature);
    }
    let claims = strict::part(claims).ok_or(Flaw::Claims)?;
    check(&claims, policy, now_s)
}

fn check(claims: &Map<String, Value>, policy: &TokenPolicy, now_s: u64) -> Result<Claims, Flaw> {
    let is_there = |path: &String| find(claims, path).is_some_and(|value| !value.is_null());
    if !policy.require.iter().all(is_there) {
        return Err(Flaw::Missing);
    }
    let leeway = policy.leeway_s as f64;
    let now = now_s as f64;
    let expires = date(claims, "exp")?.map(|at| at + leeway);
    if expires.is_some_and(|at| now >= at) {
        return Err(Flaw::Expired);
    }
    for name in ["nbf", "iat"] {
        if date(claims, name)?.is_some_and(|at| at > now + leeway) {
            return Err(Flaw::NotYet);
        }
    }
    if !policy.issuer.is_empty() && text(claims, "iss") != Some(&policy.issuer) {
        return Err(Flaw::Issuer);
    }
    let is_ours = match claims.get("aud") {
        None => policy.audience.is_empty(),
        Some(Value::String(audience)) => *audience == policy.audience,
        Some(Value::Array(all)) => all.iter().any(|it| it.as_str() == Some(&policy.audience)),
        Some(_) => return Err(Flaw::Claims),
    };
    if !is_ours {
        return Err(Flaw::Audience);
    }
    let attributes = policy.attributes.iter();
    let attributes = attributes.filter_map(|(name, path)| {
        let value = match find(claims, path)? {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        Some((name.clone(), value))
    });
    Ok(Claims {
        identity: find(claims, &policy.identity).and_then(name),
        roles: find(claims, &policy.roles).map(words).unwrap_or_default(),
        // Rounded down: not a moment longer than it says.
        expires_s: expires.map(|at| at as u64),
        attributes: attributes.collect(),
    })
}

/// RFC 7519 section 2: a number of seconds, which may have a fraction.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, Flaw> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => number.as_f64().map(Some).ok_or(Flaw::Claims),
        Some(_) => Err(Flaw::Claims),
    }
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c String> {
    match claims.get(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// The claim of that name; if there is none, dots in it descend.
fn find<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut parts = path.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.as_object()?.get(part))
}

/// An identity is a text that is not empty, or a number.
fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A list of texts, or one text with white space between words (RFC 8693 section 4.2).
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Value::Array(all) => all.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}
