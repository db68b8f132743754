//! Guards: which clients may use a route, by a JSON Web Token or a client certificate.

use std::collections::BTreeMap;
use std::path::Path;

use hyper::Uri;

use super::certificate::{self, GuardCertificate, GuardKind};
use super::size;
use super::text::shape;
use crate::jwt::{self, Algorithm, Jwk};
use crate::settings::error::{Error, Problem};
use crate::settings::range::DAY_S;
use crate::settings::secret::Secret;
use crate::settings::section::{Section, section, words};
use crate::tls;

/// The placeholder for the token in a credentials pattern.
pub const CREDENTIALS: &str = "{credentials}";

words!(GuardKind, Algorithm);

section! {
    required
    /// Guards admit requests by the JSON Web Token that they carry, or by the client's certificate.
    pub struct GuardConfig {
        /// The name by which the key `guarded` of routes refers to the guard; unique. A-Z, a-z,
        /// 0-9, `_` and `-`. Required.
        pub name: String;
        /// "jwt"; or "certificate", which has no further keys except the table `certificate` below
        /// and needs a listener whose `tls` has `mutual`.
        #[serde(default)]
        pub kind as "type": GuardKind;
        /// The required `iss` claim of tokens. Empty is any.
        #[serde(default)]
        pub issuer: String;
        /// The audience that the `aud` claim must include. Empty accepts only tokens without an
        /// `aud` claim.
        #[serde(default)]
        pub audience: String;
        /// Accepted algorithms: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA,
        /// HS256, HS384, HS512. Empty is every algorithm that the token's key supports. A token
        /// with an algorithm that its key does not support is never accepted. ES512 is not
        /// supported.
        #[serde(default)]
        pub algorithms: Vec<Algorithm>;
        /// Keys in this file: JWKs, public keys or certificates in PEM, or secrets of at least 32
        /// bytes; RSA keys of 2048 to 4096 bits. A token with a `kid` is verified with the key of
        /// that kid, or with the keys without a kid if no key has it; a token without a `kid` is
        /// verified with the first 2 keys for its algorithm.
        #[serde(default)]
        pub keys: Vec<GuardKey>;
        /// The URL of the JWK set, used if `keys` is empty; empty is /.well-known/jwks.json of the
        /// issuer. https, or http with allow_private. A fetched set stays in use until a newer one
        /// has been fetched; until the first has been fetched, requests are answered with 503.
        #[serde(default)]
        pub keys_url: String;
        /// How often the key set is fetched.
        #[serde(default = "refresh_s")]
        pub keys_refresh_s: u64, seconds(10..=DAY_S);
        /// Minimum time between two fetches of the key set. A token with an unknown kid triggers a
        /// fetch at once unless the last one was more recent than this.
        #[serde(default = "floor_s")]
        pub keys_floor_s: u64, seconds(1..=3600);
        /// Whether the URL of the key set may be at a private, loopback or link-local address.
        #[serde(default)]
        pub allow_private: bool;
        /// PEM file of the certificate authorities that the server of the key set is verified with.
        /// Empty is those of the system.
        #[serde(default)]
        pub ca_file: String;
        /// The claim that lists the roles: a list, or words separated by spaces. A dot descends
        /// into an object, unless a claim has the whole name.
        #[serde(default = "roles")]
        pub roles: String;
        /// The claim that identifies the client. A client can renew its token while it is connected
        /// if the new token has the same identity.
        #[serde(default = "identity")]
        pub identity: String;
        /// Attributes of the client: names, each with the name or path of its claim: { name =
        /// "profile.name" }.
        #[serde(default)]
        pub attributes: BTreeMap<String, String>;
        /// Claims that a token must have, by name or path. A token without an `exp` never expires,
        /// unless it is required here: ["exp"].
        #[serde(default)]
        pub require: Vec<String>;
        /// Accepted clock difference: a token is valid from this long before its `nbf` and `iat`
        /// until this long after its `exp`.
        #[serde(default = "leeway_s")]
        pub leeway_s: u64, seconds(0..=3600);
        /// How long before its expiry the client is asked to renew a token; 0 is never.
        #[serde(default)]
        pub challenge_s: u64, seconds(0..=DAY_S);
        /// Maximum size of a token.
        #[serde(default = "token_bytes", deserialize_with = "size::memory")]
        pub token_bytes: usize, bytes(256..=32_768);
        /// Where a request carries its token.
        #[serde(default)]
        pub credentials: Credentials;
        /// The certificates that a guard of type `certificate` admits.
        #[serde(default)]
        pub certificate: GuardCertificate;
    }
}

section! {
    /// One key: a JWK, a key in PEM, or a shared secret. Exactly one of `pem`, `secret` and `kty`
    /// is set.
    pub struct GuardKey {
        /// The key id; empty is none.
        pub kid: String = Default::default();
        /// The only algorithm that the key is for; empty is every algorithm that it supports.
        pub alg: String = Default::default();
        /// A public key or certificate in PEM.
        pub pem: String = Default::default();
        /// A secret that is shared with the issuer; at least 32 bytes.
        pub secret: Secret = Default::default();
        /// The key type of a JWK: `RSA`, `EC`, `OKP` or `oct`.
        pub kty: String = Default::default();
        /// The use of a JWK: `sig` or empty.
        pub usage as "use": String = Default::default();
        /// The curve of an `EC` or `OKP` key.
        pub crv: String = Default::default();
        /// The modulus of an RSA key, in base64url.
        pub n: String = Default::default();
        /// The exponent of an RSA key, in base64url.
        pub e: String = Default::default();
        /// The x coordinate of an elliptic curve point, or an Ed25519 public key, in base64url.
        pub x: String = Default::default();
        /// The y coordinate of an elliptic curve point, in base64url.
        pub y: String = Default::default();
        /// The secret of an `oct` key, in base64url.
        pub k: Secret = Default::default();
    }
}

/// Field names, each with the pattern of the text around the token.
type Places = BTreeMap<String, String>;

section! {
    /// Where requests carry tokens: names, each with a pattern that contains {credentials} once, in
    /// the place of the token. The first token that is found counts. Browsers send cookies with
    /// requests of any web page, so set allowed_origins if you use cookies.
    pub struct Credentials {
        /// By cookie name: { token = "{credentials}" }.
        pub cookies: Places = Places::new();
        /// By header field name.
        pub headers: Places = Places::from([(
            "authorization".to_owned(),
            format!("Bearer {CREDENTIALS}"),
        )]);
        /// By query parameter name: { access_token = "{credentials}" }.
        pub query: Places = Places::new();
        /// Pattern of a subprotocol that the WebSocket client offers: "bearer.{credentials}". The
        /// server does not select that subprotocol, unless it is the only one offered.
        pub protocol: String = String::new();
    }
}

impl GuardConfig {
    /// A guard of that name with every other key at its default. It has no keys, so it admits
    /// no request.
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

    /// The URL that the key set is fetched from; empty if the keys are in the configuration or the
    /// guard is for certificates.
    pub fn url(&self) -> String {
        match (self.keys.is_empty(), self.keys_url.as_str()) {
            _ if self.kind == GuardKind::Certificate => String::new(),
            (false, _) => String::new(),
            (true, "") => format!("{}/.well-known/jwks.json", self.issuer.trim_end_matches('/')),
            (true, url) => url.to_owned(),
        }
    }

    /// The rules that the guard's tokens must satisfy.
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

    /// The keys of the configuration, which has been checked.
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

/// Checks what types cannot express; the keys in errors are relative to the guard.
/// `asks_certificates` says whether any listener requests client certificates.
pub(super) fn check(guard: &GuardConfig, asks_certificates: bool) -> Result<(), Error> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if guard.name.is_empty() || !guard.name.bytes().all(known) {
        return Err(shape("name", &guard.name, "one or more of A-Z, a-z, 0-9, `_` and `-`"));
    }
    check_kind(guard)?;
    if guard.kind == GuardKind::Certificate {
        certificate::check(&guard.certificate)?;
        return match asks_certificates {
            true => Ok(()),
            false => Err(needed(
                "type",
                "\"jwt\", or a listener whose `tls.mutual` is \"requested\" or \"required\"",
            )),
        };
    }
    for (index, key) in guard.keys.iter().enumerate() {
        let key = key.read().and_then(|key| match key.fits(&guard.algorithms) {
            true => Ok(()),
            false => Err("a key for at least one of the guard's `algorithms`"),
        });
        if let Err(accepted) = key {
            return Err(Error::keyed(format!("keys[{index}]"), Problem::Secret { accepted }));
        }
    }
    if guard.keys.is_empty() && !is_source(&guard.url(), guard.allow_private) {
        let key = if guard.keys_url.is_empty() { "keys" } else { "keys_url" };
        let accepted = "at least one entry in `keys`, or an `https://` URL in `keys_url` or \
                        `issuer` (`http://` only with `allow_private`)";
        return Err(shape(key, &guard.url(), accepted));
    }
    guard.check_ranges()?;
    for (key, path) in [("roles", &guard.roles), ("identity", &guard.identity)] {
        if path.is_empty() {
            return Err(shape(
                key,
                path,
                "the name or path of a claim, such as `realm_access.roles`",
            ));
        }
    }
    for (index, path) in guard.require.iter().enumerate() {
        if path.is_empty() {
            let key = format!("require[{index}]");
            return Err(shape(key, path, "the name or path of a claim, such as `exp`"));
        }
    }
    check_credentials(&guard.credentials)
}

/// Refuses keys that guards of this type do not have.
fn check_kind(guard: &GuardConfig) -> Result<(), Error> {
    let (kind, certificate) = (guard.kind, guard.certificate.clone());
    if kind == GuardKind::Jwt {
        let words = "no value, because the guard's `type` is not \"certificate\"";
        let is_needed = !certificate.is_empty();
        return if is_needed { Err(needed("certificate", words)) } else { Ok(()) };
    }
    if (GuardConfig { kind, certificate, ..GuardConfig::new(&guard.name) }) != *guard {
        let words = "\"jwt\", because the guard has keys that only this type accepts";
        return Err(needed("type", words));
    }
    Ok(())
}

fn needed(key: &str, words: &'static str) -> Error {
    Error::keyed(key, Problem::Needed(words))
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
                let accepted = "a valid name with a value that contains `{credentials}` exactly \
                                once";
                return Err(shape(key, pattern, accepted));
            }
        }
    }
    if protocol.is_empty() {
        return Ok(());
    }
    let parts = protocol.split_once(CREDENTIALS);
    let plain = |(head, tail): (&str, &str)| head.bytes().chain(tail.bytes()).all(token);
    // A bare `{credentials}` would take every subprotocol for a token.
    if protocol.len() == CREDENTIALS.len() || !parts.is_some_and(plain) {
        let accepted = "a subprotocol that contains `{credentials}` exactly once and other \
                        characters, such as `bearer.{credentials}`";
        return Err(shape("credentials.protocol", protocol, accepted));
    }
    Ok(())
}

/// Resolves the `ca_file` of guards relative to `folder` and reads each once, so that a wrong file
/// is reported when the server starts.
pub(super) fn prepare(guards: &mut [GuardConfig], folder: &Path) -> Result<(), Error> {
    for (index, guard) in guards.iter_mut().enumerate() {
        if guard.ca_file.is_empty() {
            continue;
        }
        let file = folder.join(&guard.ca_file);
        let key = format!("guards[{index}].ca_file");
        tls::roots(&file).map_err(|error| Error::keyed(key, Problem::Other(error.to_string())))?;
        guard.ca_file = file.to_string_lossy().into_owned();
    }
    Ok(())
}

/// Whether keys may be fetched from `url`. An attacker who can modify the key set in transit can
/// sign tokens, so `http` needs `allow_private`.
fn is_source(url: &str, allow_private: bool) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => allow_private,
        _ => false,
    };
    secure && uri.host().is_some_and(|host| !host.is_empty()) && !url.contains(['@', '#'])
}

fn refresh_s() -> u64 {
    300
}

fn floor_s() -> u64 {
    10
}

/// Clocks that are synchronised by NTP differ by less.
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
