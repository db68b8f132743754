//! JSON Web Tokens (RFC 7519) that others have signed: verification, and the claims of accepted
//! tokens.
//!
//! `ring` verifies the signatures; this module decides what is accepted. A key is used only with
//! algorithms of its own type, `none` is not an algorithm, and the header members `jwk`, `jku`,
//! `x5c` and `x5u` are ignored, so that a token cannot choose where its key comes from.

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

use crate::claims::Claims;
use serde_json::{Map, Value};

/// What a token must have to be accepted, and how its claims are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenPolicy {
    /// The `iss` that a token must have; if this is empty, any `iss` or none is accepted.
    pub issuer: String,
    /// The name that `aud` must contain; if this is empty, a token with an `aud` is refused,
    /// because it is for another audience (RFC 7519 section 4.1.3).
    pub audience: String,
    /// The accepted algorithms; if empty, every algorithm that the key has.
    pub algorithms: Vec<Algorithm>,
    /// The path of the claim with the roles.
    pub roles: String,
    /// The path of the claim with the identity.
    pub identity: String,
    /// The attributes: each a name and the path of the claim with its value.
    pub attributes: Vec<(String, String)>,
    /// Claims that a token must have, by name or path, with any value except `null`.
    pub require: Vec<String>,
    /// The permitted clock difference in seconds, for `exp`, `nbf` and `iat`.
    pub leeway_s: u64,
    /// The maximum length of a token in bytes.
    pub token_bytes: usize,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The token is longer than the policy allows.
    #[error("it is too long")]
    TooLong,
    /// The token does not consist of three parts.
    #[error("it does not have three parts separated by dots")]
    Shape,
    /// The header is not a JSON object in base64url, has a duplicate member, or has `crit`.
    #[error("its header cannot be read")]
    Header,
    /// The algorithm is `none`, unknown, not allowed, or not one of the key's.
    #[error("its algorithm is not accepted")]
    Algorithm,
    /// No key has the token's `kid`, or there is no key for it.
    #[error("its key is unknown")]
    Key,
    /// The signature does not match the key.
    #[error("its signature is wrong")]
    Signature,
    /// The claims are not a JSON object in base64url, have a duplicate member, or a claim has the
    /// wrong type.
    #[error("its claims cannot be read")]
    Claims,
    /// A claim that the policy requires is missing.
    #[error("a required claim is missing")]
    Missing,
    /// `exp` has passed.
    #[error("it has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("it is not valid yet")]
    NotYet,
    /// `iss` is not that of the policy.
    #[error("its issuer is not the required one")]
    Issuer,
    /// `aud` does not contain the policy's audience.
    #[error("its audience is not the required one")]
    Audience,
}

/// Verifies `token` at `now_s` seconds since 1970 and returns its claims.
///
/// # Errors
/// The first flaw that is found. No claim is read before the signature is verified.
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
    // A token with extensions that the recipient does not know must be refused (RFC 7515 section
    // 4.1.11), and no extension is supported here.
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
        // Rounded down, so that it is never later than the token says.
        expires_s: expires.map(|at| at as u64),
        attributes: attributes.collect(),
    })
}

/// A `NumericDate` (RFC 7519 section 2): a number of seconds, which may have a fraction.
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

/// The claim with the name `path`; if there is none, the value at `path` with dots as separators.
fn find<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut parts = path.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.as_object()?.get(part))
}

/// An identity: a string that is not empty, or a number.
fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Roles: an array of strings, or one string with white space between the words (RFC 8693 section
/// 4.2).
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Value::Array(all) => all.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}
