//! Guards that admit clients by their verified TLS certificate.

use std::fmt;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};

use crate::settings::error::{Error, Problem};
use crate::settings::pattern::Pattern;
use crate::settings::section::{section, texts};

/// What a client must present to a guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuardKind {
    /// A JSON Web Token.
    #[default]
    Jwt,
    /// A client certificate that the listener has verified in the TLS handshake.
    Certificate,
}

section! {
    /// The clients that a guard of type "certificate" admits: those whose certificate matches any
    /// entry of any list; if all lists are empty, all whose certificate the listener has verified.
    /// The certificate's validity dates are checked with each request. Roles are the organisational
    /// units (OU) of the subject; the identity is its common name, or else an alternative name.
    pub struct GuardCertificate {
        /// SHA-256 fingerprints of certificates, in hexadecimal digits.
        pub fingerprints: Vec<Fingerprint> = Default::default();
        /// Common names (CN) of the subject; `*` matches any run of characters.
        pub common_names: Vec<Pattern> = Default::default();
        /// Subject alternative names, with their kind; DNS names in lower case. Examples:
        /// `dns:*.devices.example.com`, `email:ada@example.com`, `uri:spiffe://a/*`,
        /// `ip:192.0.2.1`.
        pub alternative_names: Vec<Pattern> = Default::default();
    }
}

/// The SHA-256 digest of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

texts! {
    Fingerprint: |it| format!("{it:?}");
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        let text = String::deserialize(deserializer)?;
        let found = format!("`{text}`");
        let accepted = "a SHA-256 fingerprint of 64 hexadecimal digits, with or without `:` after \
                        every two digits";
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
    /// Whether all lists are empty.
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
            && self.common_names.is_empty()
            && self.alternative_names.is_empty()
    }
}

/// Checks the names of certificates; the keys in errors are relative to the guard.
pub(super) fn check(certificate: &GuardCertificate) -> Result<(), Error> {
    let GuardCertificate { fingerprints: _, common_names, alternative_names } = certificate;
    let names = common_names.iter().enumerate().map(|it| ("common_names", it));
    let alternatives = alternative_names.iter().enumerate().map(|it| ("alternative_names", it));
    for (list, (place, pattern)) in names.chain(alternatives) {
        let name = pattern.as_str();
        let (kinds, accepted): (&[&str], _) = match list {
            "common_names" => (&[""], "a name; `*` matches any run of characters"),
            _ => (
                &["dns:", "email:", "uri:", "ip:"],
                "a name that begins with `dns:`, `email:`, `uri:` or `ip:`; `*` matches any run of \
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
