//! Certificates that a certificate authority issues to this server by ACME (RFC 8555).

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::outgoing::is_target;
use super::text::{Unique, shape};
use crate::settings::error::{Error, Problem};
use crate::settings::secret::Secret;
use crate::settings::section::{Section, section, words};
use crate::tls::{self, CertificateStore, FileKind, IssuedCertificate, Mutual, Pair};

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The maximum length of a domain in characters (RFC 1035 section 2.3.4, without the root).
const DOMAIN_CHARACTERS: usize = 253;
/// The maximum length of a label of a domain in characters.
const LABEL_CHARACTERS: usize = 63;

words!(AcmeChallenge);

section! {
    /// Certificates from a certificate authority, such as Let's Encrypt, by the protocol ACME (RFC
    /// 8555): they are ordered and renewed while the server runs, one for each domain. The listener
    /// may have certificates of files as well; a domain that is listed here has the issued one. See
    /// docs/acme.md.
    pub struct Acme {
        /// Whether you accept the terms of service of the certificate authority; must be true.
        pub accept_terms: bool = false;
        /// The DNS names to have certificates for, in lower case, without `*`. Internationalized
        /// names are written in ASCII (`xn--`). Listeners may have domains in common; they use the
        /// same certificate.
        pub domains: Vec<String> = Vec::new(), entries(1..=100);
        /// The folder in which the account and the certificates with their keys are kept. It is
        /// created with mode 0700 and its files with mode 0600. A file in it that cannot be read,
        /// or that belongs to another directory or domain, is an error and is never replaced.
        /// Listeners with the same folder share the account; their settings must be equal except
        /// for domains.
        pub store: String = Default::default();
        /// Mail addresses at which the certificate authority may contact you.
        pub contact: Vec<String> = Default::default(), entries(0..=10);
        /// The directory of the certificate authority: an https URL.
        pub directory: String = LETS_ENCRYPT.to_owned();
        /// How the certificate authority checks that the domain is yours: "tls-alpn-01" connects to
        /// port 443 of the domain, which must lead to this listener; "http-01" sends a request to
        /// port 80, which must lead to a listener without TLS.
        pub challenge: AcmeChallenge = AcmeChallenge::default();
        /// PEM file of the certificate authorities that the directory is verified with. Empty is
        /// those of the system.
        pub ca_file: String = Default::default();
        /// The key identifier of an external account binding, if the certificate authority needs
        /// one.
        pub eab_key_id: String = Default::default();
        /// The key of the external account binding, in base64url.
        pub eab_key: Secret = Default::default();
        /// How many days before its end a certificate is renewed, but not before half of its
        /// lifetime. 0 is a third of its lifetime, or half if the lifetime is below ten days. The
        /// certificate authority may ask for an earlier renewal (RFC 9773).
        pub renew_before_days: u64 = 0, count(0..=365);
    }
}

/// How a certificate authority checks that a domain belongs to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum AcmeChallenge {
    /// By a TLS handshake (RFC 8737).
    #[default]
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
    /// By an HTTP request (RFC 8555 section 8.3).
    #[serde(rename = "http-01")]
    Http,
}

/// A certificate that was found in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCertificate {
    /// The domain.
    pub domain: String,
    /// The certificate with its key.
    pub pair: Pair,
}

impl StoredCertificate {
    /// The certificate for use in handshakes.
    ///
    /// # Errors
    /// As [`IssuedCertificate::new`]; not if it was read by [`super::Config::load`].
    pub fn issued(&self) -> Result<IssuedCertificate, Error> {
        let issued = IssuedCertificate::new(&self.domain, self.pair.clone());
        issued.map_err(|error| of_file("listeners", &error))
    }
}

impl Acme {
    /// The folder of the certificates.
    pub fn certificate_store(&self) -> CertificateStore {
        CertificateStore::new(&self.store)
    }

    /// The key of the external account binding; `None` if there is no binding.
    pub fn binding(&self) -> Option<(String, Vec<u8>)> {
        let key = decoded(self.eab_key.expose())?;
        (!self.eab_key_id.is_empty()).then(|| (self.eab_key_id.clone(), key))
    }

    /// The same settings without domains, which are equal for all listeners with the same store.
    pub fn without_domains(&self) -> Acme {
        Acme { domains: Vec::new(), ..self.clone() }
    }

    /// Makes the paths absolute, relative to `folder`, and reads `ca_file` once, so that a wrong
    /// file is reported when the server starts.
    pub(super) fn prepare(&mut self, folder: &Path) -> Result<(), Error> {
        let absolute = |key: &str, path: &str| {
            let path = std::path::absolute(folder.join(path));
            path.map_err(|error| Error::keyed(key, Problem::Read(error)))
        };
        self.store = absolute("store", &self.store)?.to_string_lossy().into_owned();
        if !self.ca_file.is_empty() {
            let file = absolute("ca_file", &self.ca_file)?;
            tls::roots(&file).map_err(|it| of_file("ca_file", &it))?;
            self.ca_file = file.to_string_lossy().into_owned();
        }
        Ok(())
    }

    /// Checks the stored account, and reads the stored certificates.
    fn stored(&self) -> Result<Vec<StoredCertificate>, tls::Error> {
        /// What is needed of the account here.
        #[derive(Deserialize)]
        struct AccountHead {
            directory: String,
        }

        let store = self.certificate_store();
        if let Some(text) = store.account()? {
            let account: Result<AccountHead, _> = serde_json::from_slice(&text);
            let problem = match account {
                // The parser's message is not passed on, because it may contain a part of the key.
                Err(_) => Some("the content is damaged".to_owned()),
                Ok(it) if it.directory != self.directory => {
                    Some(format!("it belongs to the directory {}", it.directory))
                }
                Ok(_) => None,
            };
            if let Some(problem) = problem {
                let (file, what) = (store.account_file(), FileKind::Account(problem));
                return Err(tls::Error { file, what });
            }
        }
        let read = |domain: &String| {
            let pair = store.certificate(domain).transpose()?;
            Some(pair.map(|pair| StoredCertificate { domain: domain.clone(), pair }))
        };
        self.domains.iter().filter_map(read).collect()
    }
}

/// Reads the stores of all sections, each of which comes with the number of its listener.
pub(super) fn read_stores<'a>(
    sections: impl Iterator<Item = (usize, &'a Acme)>,
) -> Result<Vec<StoredCertificate>, Error> {
    let mut found = BTreeMap::new();
    for (index, acme) in sections {
        let stored = acme
            .stored()
            .map_err(|error| of_file(&format!("listeners[{index}].tls.acme.store"), &error))?;
        found.extend(stored.into_iter().map(|it| (it.domain.clone(), it)));
    }
    Ok(found.into_values().collect())
}

/// Checks what types cannot express; the keys in errors are relative to the listener's `tls`, which
/// has these protocols and this setting of `mutual`.
pub(super) fn check(acme: &Acme, alpn: &[String], mutual: Mutual) -> Result<(), Error> {
    let needed = |key: &str, words| Err(Error::keyed(key, Problem::Needed(words)));
    if !acme.accept_terms {
        return needed(
            "acme.accept_terms",
            "true: certificates are issued only to those who accept the terms of service of the \
             certificate authority",
        );
    }
    check_own(acme).map_err(|error| error.under("acme"))?;
    if acme.challenge == AcmeChallenge::TlsAlpn && alpn.is_empty() {
        return needed("alpn", "\"http/1.1\", because the challenge tls-alpn-01 uses ALPN");
    }
    if acme.challenge == AcmeChallenge::TlsAlpn && mutual == Mutual::Required {
        let words = "\"http-01\", because `mutual` is \"required\" and the certificate authority \
                     shows no certificate when it connects for tls-alpn-01";
        return needed("acme.challenge", words);
    }
    Ok(())
}

/// As [`check`], for what depends on this section only.
fn check_own(acme: &Acme) -> Result<(), Error> {
    acme.check_ranges()?;
    let mut domains = Unique::default();
    for (index, domain) in acme.domains.iter().enumerate() {
        let key = format!("domains[{index}]");
        if !is_domain(domain) {
            let accepted = "a DNS name in lower case and ASCII, without `*`; an internationalized \
                            name begins with `xn--`";
            return Err(shape(key, domain, accepted));
        }
        domains.add(domain, key)?;
    }
    if acme.store.is_empty() {
        return Err(Error::keyed("store", Problem::Needed("a folder for the certificates")));
    }
    for (index, contact) in acme.contact.iter().enumerate() {
        if !is_mail_address(contact) {
            let accepted = "a mail address, such as ops@example.com";
            return Err(shape(format!("contact[{index}]"), contact, accepted));
        }
    }
    if !is_target(&acme.directory) || !acme.directory.starts_with("https://") {
        let accepted = "an `https://` URL with a host, without `user@` and `#fragment`";
        return Err(shape("directory", &acme.directory, accepted));
    }
    if acme.eab_key_id.is_empty() != acme.eab_key.expose().is_empty() {
        let words = "`eab_key_id` and `eab_key`, or neither";
        return Err(Error::keyed("eab_key_id", Problem::Needed(words)));
    }
    if !acme.eab_key_id.is_empty() && acme.binding().is_none_or(|(_, key)| key.is_empty()) {
        return Err(Error::keyed("eab_key", Problem::Secret { accepted: "a key in base64url" }));
    }
    Ok(())
}

/// Checks the sections of different listeners against each other; each comes with the number of its
/// listener.
pub(super) fn check_together<'a>(
    sections: impl Iterator<Item = (usize, &'a Acme)>,
) -> Result<(), Error> {
    let mut by_store: BTreeMap<&str, Acme> = BTreeMap::new();
    let mut store_of: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    for (index, acme) in sections {
        let key = |rest: &str| format!("listeners[{index}].tls.acme.{rest}");
        let own = acme.without_domains();
        if by_store.get(&*acme.store).is_some_and(|other| *other != own) {
            let words = "another folder, because a listener above has this one with other \
                         settings than these";
            return Err(Error::keyed(key("store"), Problem::Needed(words)));
        }
        by_store.insert(&acme.store, own);
        for (at, domain) in acme.domains.iter().enumerate() {
            let path = key(&format!("domains[{at}]"));
            match store_of.get(&**domain) {
                Some((store, other)) if *store != acme.store => {
                    let (value, other) = (domain.clone(), other.clone());
                    return Err(Error::keyed(path, Problem::Duplicate { value, other }));
                }
                _ => _ = store_of.insert(domain, (&acme.store, path)),
            }
        }
    }
    Ok(())
}

/// Whether a text is a DNS name that a certificate can be for: letters in lower case, digits and
/// hyphens (RFC 5890 section 2.3.1), and no IP address.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=LABEL_CHARACTERS).contains(&label.len())
            && label.bytes().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= DOMAIN_CHARACTERS
        && text.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text can follow `mailto:`: one address, without header fields (RFC 8555 section 7.3).
fn is_mail_address(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?,<>:\"".contains(&byte);
    let parts = text.split_once('@');
    parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
        && text.bytes().all(plain)
}

/// The error of a file that the key leads to.
fn of_file(key: &str, error: &tls::Error) -> Error {
    Error::keyed(key, Problem::Other(error.to_string()))
}

fn decoded(base64url: &str) -> Option<Vec<u8>> {
    let padded = || URL_SAFE.decode(base64url).ok();
    URL_SAFE_NO_PAD.decode(base64url).ok().or_else(padded)
}

#[cfg(feature = "acme")]
#[cfg(test)]
mod tests;
