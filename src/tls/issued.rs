//! The certificates that a certificate authority has issued to this process (ACME, RFC 8555), and
//! the answers to its challenges that are pending.
//!
//! The acceptors of all listeners on all cores look certificates up here in each handshake. So a
//! new certificate is used by the next handshake on any core, while open connections and session
//! tickets stay as they are.

use super::certified::{certified, is_for};
use super::files::{Error, FileKind, Pair};
use super::holder::Holder;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The ALPN protocol of the challenge TLS-ALPN-01 (RFC 8737 section 6.2).
pub(super) const CHALLENGE_PROTOCOL: &[u8] = b"acme-tls/1";

/// A certificate of one domain with its key.
#[derive(Debug)]
pub struct IssuedCertificate {
    /// The domain, in lower case.
    pub domain: String,
    /// The first second of its validity, since 1970.
    pub from_s: i64,
    /// The last second of its validity, since 1970.
    pub until_s: i64,
    key: Arc<CertifiedKey>,
}

impl IssuedCertificate {
    /// Checks that the certificate is for `domain` and that the key belongs to it. Its dates are
    /// not checked.
    ///
    /// # Errors
    /// The certificate is not for `domain`, cannot be read, or has another key.
    pub fn new(domain: &str, pair: Pair) -> Result<IssuedCertificate, Error> {
        let file = pair.file.clone();
        let key = certified(pair, &ring::default_provider())?;
        let name = ServerName::try_from(domain).ok();
        if !name.is_some_and(|name| is_for(&key, &name)) {
            return Err(Error::new(&file, FileKind::OtherName(domain.to_owned())));
        }
        let holder = key.cert.first().and_then(|it| Holder::read(it));
        let Some(Holder { from_s, until_s, .. }) = holder else {
            return Err(Error::new(&file, FileKind::NoDates));
        };
        Ok(IssuedCertificate { domain: domain.to_owned(), from_s, until_s, key: Arc::new(key) })
    }

    /// The certificate in DER, without its chain.
    pub fn certificate(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |it| it)
    }
}

/// The domains of this process with their certificates; see the module's documentation.
#[derive(Debug, Default)]
pub struct IssuedCertificates {
    state: RwLock<IssuedState>,
    refused: AtomicU64,
    answered: AtomicU64,
}

#[derive(Debug, Default)]
struct IssuedState {
    /// The certificates by domain; `None` as long as there is none.
    by_domain: BTreeMap<String, Option<Arc<IssuedCertificate>>>,
    /// The certificates that answer a TLS-ALPN-01 challenge, by domain.
    challenges: HashMap<String, Arc<CertifiedKey>>,
    /// The responses to HTTP-01 challenges, by token.
    responses: HashMap<String, String>,
}

impl IssuedCertificates {
    fn read(&self) -> RwLockReadGuard<'_, IssuedState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, IssuedState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the domains that the configuration has. Domains that it no longer has are forgotten.
    /// `stored` are certificates of the store; one is used unless there is one that expires later.
    pub fn enter<'d>(
        &self,
        domains: impl IntoIterator<Item = &'d str>,
        stored: Vec<IssuedCertificate>,
    ) {
        let mut state = self.write();
        let mut before = std::mem::take(&mut state.by_domain);
        for domain in domains {
            let certificate = before.remove(domain).flatten();
            state.by_domain.insert(domain.to_owned(), certificate);
        }
        for certificate in stored {
            state.put(certificate);
        }
    }

    /// Uses a new certificate from the next handshake on, if the configuration has its domain and
    /// there is none that expires later.
    pub fn put(&self, certificate: IssuedCertificate) {
        self.write().put(certificate);
    }

    /// The certificate of a domain, if there is one.
    pub fn certificate(&self, domain: &str) -> Option<Arc<IssuedCertificate>> {
        self.read().by_domain.get(domain).cloned().flatten()
    }

    /// All domains, each with the last second of its certificate's validity since 1970, if it has
    /// a certificate.
    pub fn expiries(&self) -> Vec<(String, Option<i64>)> {
        let state = self.read();
        let until_s = |it: &Option<Arc<IssuedCertificate>>| it.as_ref().map(|it| it.until_s);
        state.by_domain.iter().map(|(domain, it)| (domain.clone(), until_s(it))).collect()
    }

    /// The number of domains, and of those without a certificate.
    pub fn count(&self) -> (usize, usize) {
        let state = self.read();
        (state.by_domain.len(), state.by_domain.values().filter(|it| it.is_none()).count())
    }

    /// The number of handshakes that failed because the certificate of their domain was not there
    /// yet.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The number of challenges that were answered, on any core.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Answers TLS-ALPN-01 challenges for `domain` with this certificate (RFC 8737 section 3),
    /// until [`IssuedCertificates::end_challenge`].
    ///
    /// # Errors
    /// The key is not supported.
    pub fn begin_challenge(&self, domain: &str, pair: Pair) -> Result<(), Error> {
        let key = ring::default_provider().key_provider.load_private_key(pair.key);
        let key = key.map_err(|_| Error::new(&pair.file, FileKind::KeyKind))?;
        let key = Arc::new(CertifiedKey::new(pair.chain, key));
        self.write().challenges.insert(domain.to_owned(), key);
        Ok(())
    }

    /// Ends a TLS-ALPN-01 challenge.
    pub fn end_challenge(&self, domain: &str) {
        self.write().challenges.remove(domain);
    }

    /// Answers HTTP-01 challenges for `token` with `response` (RFC 8555 section 8.3), until
    /// [`IssuedCertificates::end_response`].
    pub fn begin_response(&self, token: &str, response: &str) {
        self.write().responses.insert(token.to_owned(), response.to_owned());
    }

    /// Ends an HTTP-01 challenge.
    pub fn end_response(&self, token: &str) {
        self.write().responses.remove(token);
    }

    /// The response to an HTTP-01 challenge, if this token is pending.
    pub fn response(&self, token: &str) -> Option<String> {
        let response = self.read().responses.get(token).cloned()?;
        self.answered.fetch_add(1, Ordering::Relaxed);
        Some(response)
    }

    fn challenge(&self, domain: &str) -> Option<Arc<CertifiedKey>> {
        let key = self.read().challenges.get(domain).cloned()?;
        self.answered.fetch_add(1, Ordering::Relaxed);
        Some(key)
    }
}

impl IssuedState {
    fn put(&mut self, certificate: IssuedCertificate) {
        let Some(place) = self.by_domain.get_mut(&certificate.domain) else { return };
        if place.as_ref().is_none_or(|old| old.until_s <= certificate.until_s) {
            *place = Some(Arc::new(certificate));
        }
    }
}

/// The domains of one listener.
#[derive(Clone, Debug)]
pub struct IssuedNames {
    /// The certificates of all listeners.
    pub certificates: Arc<IssuedCertificates>,
    /// The domains of the listener, in the order of the configuration.
    pub domains: Vec<String>,
    /// Whether the listener answers TLS-ALPN-01 challenges.
    pub answers_challenges: bool,
}

/// The result of looking for the certificate of a server name.
pub(super) enum IssuedMatch {
    /// The name is a domain of the listener, and this is its certificate.
    Certificate(Arc<CertifiedKey>),
    /// The name is a domain of the listener without a certificate.
    Missing,
    /// The name is not a domain of the listener, or the client has sent none.
    Other,
}

impl IssuedNames {
    /// The certificate that answers a TLS-ALPN-01 challenge for `name`, if one is pending.
    pub(super) fn challenge(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase).filter(|_| self.answers_challenges)?;
        self.certificates.challenge(&name)
    }

    /// The certificate for the server name of a client.
    pub(super) fn find(&self, name: Option<&str>) -> IssuedMatch {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return IssuedMatch::Other };
        if !self.domains.contains(&name) {
            return IssuedMatch::Other;
        }
        match self.certificates.certificate(&name) {
            Some(it) => IssuedMatch::Certificate(it.key.clone()),
            None => IssuedMatch::Missing,
        }
    }

    /// The first certificate that is there, for clients whose server name is not known.
    pub(super) fn first(&self) -> Option<Arc<CertifiedKey>> {
        let found = self.domains.iter().find_map(|it| self.certificates.certificate(it));
        found.map(|it| it.key.clone())
    }

    /// Counts a handshake that fails because there is no certificate for it.
    pub(super) fn refuse(&self) {
        self.certificates.refused.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
