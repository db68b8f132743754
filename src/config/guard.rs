//! Guards: who may use a route, by the JSON Web Tokens that they present, or by their certificate.

use std::collections::BTreeMap;
use std::path::Path;

use hyper::Uri;
use serde::Deserialize;

use super::certificate::{self, GuardCertificate, GuardKind};
use super::error::{Error, Problem};
use super::schema::Secret;
use super::size;
use crate::jwt::{self, Algorithm, Jwk};
use crate::tls;

/// Where a token is in the text that carries it.
pub const CREDENTIALS: &str = "{credentials}";

/// One guard. Its name stands in the `guarded` of routes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct GuardConfig {
    /// What routes call it.
    pub name: String,
    /// What it asks for.
    #[serde(default, rename = "type")]
    pub kind: GuardKind,
    /// The `iss` of its tokens; empty is any.
    #[serde(default)]
    pub issuer: String,
    /// What their `aud` names; empty is a token without.
    #[serde(default)]
    pub audience: String,
    /// Algorithms that are accepted; empty is all that the keys have.
    #[serde(default)]
    pub algorithms: Vec<Algorithm>,
    /// Keys that verify them.
    #[serde(default)]
    pub keys: Vec<GuardKey>,
    /// Where the keys are, if none stand here; empty is `.well-known/jwks.json` of the issuer.
    #[serde(default)]
    pub keys_url: String,
    /// How often they are fetched, in seconds.
    #[serde(default = "refresh_s")]
    pub keys_refresh_s: u64,
    /// The least time between two fetches, in seconds.
    #[serde(default = "floor_s")]
    pub keys_floor_s: u64,
    /// Whether they may be at a private, loopback or link-local address.
    #[serde(default)]
    pub allow_private: bool,
    /// A PEM file of the authorities that vouch for the server of their URL; empty: the system's.
    #[serde(default)]
    pub ca_file: String,
    /// Path of the claim that lists the roles.
    #[serde(default = "roles")]
    pub roles: String,
    /// Path of the claim that says who it is.
    #[serde(default = "identity")]
    pub identity: String,
    /// Names, each with the path of the claim that it stands for.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Claims that a token must have, by name or path.
    #[serde(default)]
    pub require: Vec<String>,
    /// By how many seconds clocks may differ.
    #[serde(default = "leeway_s")]
    pub leeway_s: u64,
    /// How many seconds before its end a token is to be renewed; 0 is never.
    #[serde(default)]
    pub challenge_s: u64,
    /// Bytes of a token.
    #[serde(default = "token_bytes", deserialize_with = "size::memory")]
    pub token_bytes: usize,
    /// Where tokens are in a request.
    #[serde(default)]
    pub credentials: Credentials,
    /// Which certificates it lets in, if it asks for these.
    #[serde(default)]
    pub certificate: GuardCertificate,
}

/// One key. A JWK, a key in PEM, or a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct GuardKey {
    /// Its name; empty is none.
    pub kid: String,
    /// The one algorithm that it is for; empty is every one that it can have.
    pub alg: String,
    /// A public key in PEM.
    pub pem: String,
    /// A secret that is shared with the issuer.
    pub secret: Secret,
    /// What kind of JWK it is: `RSA`, `EC`, `OKP` or `oct`.
    pub kty: String,
    /// `sig`, if anything.
    #[serde(rename = "use")]
    pub usage: String,
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
    /// A secret in base64url.
    pub k: Secret,
}

/// Names of fields, each with the text around a token.
type Places = BTreeMap<String, String>;

/// Where tokens are in a request: names, each with what stands around `{credentials}` there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Credentials {
    /// Cookies.
    pub cookies: Places,
    /// Header fields.
    pub headers: Places,
    /// Parameters of the query.
    pub query: Places,
    /// Subprotocols that a WebSocket's client offers; empty is none.
    pub protocol: String,
}

impl Default for Credentials {
    fn default() -> Credentials {
        let bearer = ("authorization".to_owned(), format!("Bearer {CREDENTIALS}"));
        Credentials {
            cookies: Places::new(),
            headers: Places::from([bearer]),
            query: Places::new(),
            protocol: String::new(),
        }
    }
}

impl GuardConfig {
    /// A guard of that name with every other key at its default, which lets nobody in.
    pub fn new(name: &str) -> GuardConfig {
        GuardConfig {
            name: name.to_owned(),
            kind: GuardKind::Jwt,
            issuer: String::new(),
            audience: String::new(),
            algorithms: Vec::new(),
            keys: Vec::new(),
            keys_url: String::new(),
            keys_refresh_s: refresh_s(),
            keys_floor_s: floor_s(),
            allow_private: false,
            ca_file: String::new(),
            roles: roles(),
            identity: identity(),
            attributes: BTreeMap::new(),
            require: Vec::new(),
            leeway_s: leeway_s(),
            challenge_s: 0,
            token_bytes: token_bytes(),
            credentials: Credentials::default(),
            certificate: GuardCertificate::default(),
        }
    }

    /// Where its keys are fetched from; empty if they stand in the configuration.
    pub fn url(&self) -> String {
        match (self.keys.is_empty(), self.keys_url.as_str()) {
            _ if self.kind == GuardKind::Certificate => String::new(),
            (false, _) => String::new(),
            (true, "") => format!("{}/.well-known/jwks.json", self.issuer.trim_end_matches('/')),
            (true, url) => url.to_owned(),
        }
    }

    /// What its tokens must be.
    pub fn policy(&self) -> jwt::TokenPolicy {
        jwt::TokenPolicy {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            algorithms: self.algorithms.clone(),
            roles: self.roles.clone(),
            identity: self.identity.clone(),
            attributes: self.attributes.clone().into_iter().collect(),
            require: self.require.clone(),
            leeway_s: self.leeway_s,
            token_bytes: self.token_bytes,
        }
    }

    /// The keys that stand in the configuration, which has been checked.
    pub fn keys(&self) -> jwt::KeySet {
        jwt::KeySet::new(self.keys.iter().filter_map(|key| key.read().ok()).collect())
    }
}

impl GuardKey {
    fn read(&self) -> Result<jwt::VerifyingKey, &'static str> {
        let secret = self.secret.expose();
        let forms = [&self.pem, secret, &self.kty].iter().filter(|it| !it.is_empty()).count();
        if forms != 1 {
            return Err("exactly one of `pem`, `secret` and `kty`");
        }
        let kid = Some(self.kid.clone()).filter(|kid| !kid.is_empty());
        if !self.pem.is_empty() {
            return jwt::VerifyingKey::from_pem(&self.pem)?.named(kid).only(&self.alg);
        }
        if !secret.is_empty() {
            return jwt::VerifyingKey::from_secret(secret.as_bytes())?.named(kid).only(&self.alg);
        }
        jwt::VerifyingKey::from_jwk(&Jwk {
            kty: self.kty.clone(),
            kid,
            alg: self.alg.clone(),
            usage: self.usage.clone(),
            key_ops: Vec::new(),
            crv: self.crv.clone(),
            n: self.n.clone(),
            e: self.e.clone(),
            x: self.x.clone(),
            y: self.y.clone(),
            k: self.k.expose().to_owned(),
        })
    }
}

/// Checks what types cannot say; the keys in errors begin below the guard.
pub(super) fn check(guard: &GuardConfig) -> Result<(), Error> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if guard.name.is_empty() || !guard.name.bytes().all(known) {
        return Err(shape("name", &guard.name, "one or more of A-Z, a-z, 0-9, `_` and `-`"));
    }
    certificate::check(guard)?;
    if guard.kind == GuardKind::Certificate {
        return Ok(());
    }
    for (index, key) in guard.keys.iter().enumerate() {
        let key = key.read().and_then(|key| match key.fits(&guard.algorithms) {
            true => Ok(()),
            false => Err("a key that one of the guard's `algorithms` fits"),
        });
        if let Err(accepted) = key {
            return Err(Error::keyed(format!("keys[{index}]"), Problem::Secret { accepted }));
        }
    }
    if guard.keys.is_empty() && !is_source(&guard.url(), guard.allow_private) {
        let key = if guard.keys_url.is_empty() { "keys" } else { "keys_url" };
        let accepted = "`keys`, or an `https://` URL in `keys_url` or as the `issuer`; `http://` \
                        with `allow_private`";
        return Err(shape(key, &guard.url(), accepted));
    }
    for (key, found, min, max) in [
        ("keys_refresh_s", guard.keys_refresh_s, 10, 86_400),
        ("keys_floor_s", guard.keys_floor_s, 1, 3600),
        ("leeway_s", guard.leeway_s, 0, 3600),
        ("challenge_s", guard.challenge_s, 0, 86_400),
    ] {
        range(key, found, min, max, " seconds")?;
    }
    range("token_bytes", guard.token_bytes as u64, 256, 32_768, " bytes")?;
    for (key, path) in [("roles", &guard.roles), ("identity", &guard.identity)] {
        if path.is_empty() {
            return Err(shape(key, path, "a claim, such as `realm_access.roles`"));
        }
    }
    for (index, path) in guard.require.iter().enumerate() {
        if path.is_empty() {
            let key = format!("require[{index}]");
            return Err(shape(key, path, "a claim, such as `exp`"));
        }
    }
    check_credentials(&guard.credentials)
}

fn check_credentials(credentials: &Credentials) -> Result<(), Error> {
    let Credentials { cookies, headers, query, protocol } = credentials;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let value = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    for (section, places) in [("cookies", cookies), ("headers", headers), ("query", query)] {
        for (name, pattern) in places {
            let key = format!("credentials.{section}.{name}");
            let named = !name.is_empty() && (section == "query" || name.bytes().all(token));
            if !named || pattern.matches(CREDENTIALS).count() != 1 || !pattern.bytes().all(value) {
                let accepted = "the name of a field, and a text with `{credentials}` once in it";
                return Err(shape(key, pattern, accepted));
            }
        }
    }
    if protocol.is_empty() {
        return Ok(());
    }
    let parts = protocol.split_once(CREDENTIALS);
    let plain = |(head, tail): (&str, &str)| head.bytes().chain(tail.bytes()).all(token);
    // Without anything around it, every subprotocol would be a token.
    if protocol.len() == CREDENTIALS.len() || !parts.is_some_and(plain) {
        let accepted = "characters of a subprotocol with `{credentials}` once among them, such as \
                        `bearer.{credentials}`";
        return Err(shape("credentials.protocol", protocol, accepted));
    }
    Ok(())
}

/// Looks for the files that guards name below `folder`, and reads them once: what is wrong with
/// them is told when the server starts.
pub(super) fn prepare(guards: &mut [GuardConfig], folder: &Path) -> Result<(), Error> {
    for (index, guard) in guards.iter_mut().enumerate() {
        if guard.ca_file.is_empty() {
            continue;
        }
        let file = folder.join(&guard.ca_file);
        let key = format!("guards[{index}].ca_file");
        tls::roots(&file).map_err(|error| Error::keyed(key, Problem::File(error)))?;
        guard.ca_file = file.to_string_lossy().into_owned();
    }
    Ok(())
}

/// Who can change keys on their way can sign tokens, so they come encrypted from afar.
fn is_source(url: &str, allow_private: bool) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => allow_private,
        _ => false,
    };
    secure && uri.host().is_some_and(|host| !host.is_empty()) && !url.contains(['@', '#'])
}

fn range(key: &str, found: u64, min: u64, max: u64, unit: &'static str) -> Result<(), Error> {
    match (min..=max).contains(&found) {
        true => Ok(()),
        false => Err(Error::keyed(key, Problem::Range { found, min, max, unit })),
    }
}

fn shape(key: impl Into<String>, found: &str, accepted: &'static str) -> Error {
    Error::keyed(key, Problem::Shape { found: found.to_owned(), accepted })
}

fn refresh_s() -> u64 {
    300
}

fn floor_s() -> u64 {
    10
}

/// Clocks that are kept by NTP differ by less.
fn leeway_s() -> u64 {
    5
}

fn roles() -> String {
    "scope".to_owned()
}

fn identity() -> String {
    "sub".to_owned()
}

fn token_bytes() -> usize {
    8192
}
