//! Guards by the certificates that clients show: which of those that a listener has verified.

use std::fmt;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};

use super::error::{Error, Problem};
use super::guard::GuardConfig;
use super::pattern::Pattern;
use super::schema::Config;
use crate::tls::Mutual;

/// What a guard asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuardKind {
    /// A JSON Web Token.
    #[default]
    Jwt,
    /// A certificate, by which the client's side of TLS was verified.
    Certificate,
}

/// Certificates that a guard lets in: those that stand in any list. Without any list, every one
/// that the listener has verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct GuardCertificate {
    /// By their fingerprint.
    pub fingerprints: Vec<Fingerprint>,
    /// By a common name of the subject.
    pub common_names: Vec<Pattern>,
    /// By an alternative name, with its kind in front.
    pub alternative_names: Vec<Pattern>,
}

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        let text = String::deserialize(deserializer)?;
        let found = format!("`{text}`");
        let accepted = "a SHA-256 in 64 hexadecimal digits, perhaps with `:` between each two";
        read(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Other(&found), &accepted))
    }
}

fn read(text: &str) -> Option<Fingerprint> {
    let mut pairs = match text.contains(':') {
        true => text.split(':').collect::<Vec<_>>(),
        false => text.as_bytes().chunks(2).map(|it| str::from_utf8(it).unwrap_or("")).collect(),
    }
    .into_iter();
    let mut digest = [0; 32];
    for byte in &mut digest {
        let pair = pairs.next().filter(|pair| pair.len() == 2 && !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(Fingerprint(digest))
}

impl GuardCertificate {
    /// Whether there is no list.
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
            && self.common_names.is_empty()
            && self.alternative_names.is_empty()
    }
}

/// Checks a guard by certificates; the keys in errors begin below the guard.
pub(super) fn check(guard: &GuardConfig) -> Result<(), Error> {
    let GuardCertificate { fingerprints: _, common_names, alternative_names } = &guard.certificate;
    let (kind, certificate) = (guard.kind, guard.certificate.clone());
    if kind == GuardKind::Jwt {
        let words = "nothing, unless the guard's `type` is \"certificate\"";
        let is_needed = !certificate.is_empty();
        return if is_needed { Err(needed("certificate", words)) } else { Ok(()) };
    }
    if (GuardConfig { kind, certificate, ..GuardConfig::new(&guard.name) }) != *guard {
        let words = "\"jwt\", since the guard has keys that are for tokens";
        return Err(needed("type", words));
    }
    let names = common_names.iter().enumerate().map(|it| ("common_names", it));
    let alternatives = alternative_names.iter().enumerate().map(|it| ("alternative_names", it));
    for (list, (place, pattern)) in names.chain(alternatives) {
        let name = pattern.as_str();
        let (kinds, accepted): (&[&str], _) = match list {
            "common_names" => (&[""], "a name; `*` is any run of characters"),
            _ => (
                &["dns:", "email:", "uri:", "ip:"],
                "a name that begins with `dns:`, `email:`, `uri:` or `ip:`; `*` is any run of \
                 characters",
            ),
        };
        if !kinds.iter().any(|kind| name.strip_prefix(kind).is_some_and(|it| !it.is_empty())) {
            let found = name.to_owned();
            return Err(Error::keyed(
                format!("certificate.{list}[{place}]"),
                Problem::Shape { found, accepted },
            ));
        }
    }
    Ok(())
}

/// Checks that clients can show certificates at all where a guard wants them; the key in the error
/// begins below the guard.
pub(super) fn check_listeners(guard: &GuardConfig, config: &Config) -> Result<(), Error> {
    let asks = config.listeners.iter().any(|listener| listener.tls.mutual != Mutual::None);
    match guard.kind == GuardKind::Certificate && !asks {
        true => Err(needed("type", "\"jwt\", or a listener whose `tls` has `mutual`")),
        false => Ok(()),
    }
}

fn needed(key: &str, words: &'static str) -> Error {
    Error::keyed(key, Problem::Needed(words))
}
