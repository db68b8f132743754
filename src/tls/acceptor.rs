//! The server side of TLS: versions, certificates by server name, and client certificates.

use super::Filter;
use super::certified::{certified, is_for};
use super::files::{Error, FileKind, Pair, Roots};
use super::issued::{CHALLENGE_PROTOCOL, IssuedMatch, IssuedNames};
use super::listed::client_verifier;
use super::side::Conn;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mutual {
    /// No certificate is requested.
    #[default]
    None,
    /// A certificate is requested; without one the connection is accepted, with an invalid one it
    /// is refused.
    Requested,
    /// A valid certificate is required.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), only with cipher suites that have forward secrecy and authenticated
    /// encryption.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V13,
}

impl TlsVersion {
    /// This version and all newer ones.
    pub(super) fn on(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            TlsVersion::V12 => &ALL,
            TlsVersion::V13 => &ALL[..1],
        }
    }
}

/// The configuration of an [`Acceptor`].
pub struct Setup<'a> {
    /// Certificates with their keys. The first is used for clients whose server name none of the
    /// others has.
    pub pairs: Vec<Pair>,
    /// Whether clients have to show a certificate.
    pub mutual: Mutual,
    /// The certificate authorities, or certificates, by which client certificates are verified.
    pub client_ca: Option<Roots>,
    /// The oldest version that is accepted.
    pub min_version: TlsVersion,
    /// ALPN protocols in the order of preference; if empty, ALPN is not used.
    pub alpn: &'a [String],
}

impl Setup<'_> {
    fn digest(&self, issued: Option<&IssuedNames>) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut add = |bytes: &[u8]| {
            digest.update(bytes.len().to_le_bytes());
            digest.update(bytes);
        };
        for pair in &self.pairs {
            pair.chain.iter().for_each(|it| add(it));
            add(pair.key.secret_der());
        }
        add(&[self.mutual as u8, self.min_version as u8, self.pairs.len() as u8]);
        self.client_ca.iter().for_each(|roots| add(&roots.digest));
        self.alpn.iter().for_each(|name| add(name.as_bytes()));
        if let Some(issued) = issued {
            add(&[u8::from(issued.answers_challenges)]);
            issued.domains.iter().for_each(|domain| add(domain.as_bytes()));
        }
        digest.finalize().into()
    }
}

/// A listener's TLS configuration. Two are equal if they were made from equal configurations; their
/// ticket keys may differ.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// SHA-256 of the configuration.
    digest: [u8; 32],
}

impl PartialEq for Acceptor {
    fn eq(&self, other: &Acceptor) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Acceptor {}

impl Acceptor {
    /// Checks the configuration, and makes keys for session tickets, which are rotated
    /// automatically.
    ///
    /// # Errors
    /// A key does not belong to its certificate, or `rustls` refuses another setting.
    pub fn new(setup: Setup<'_>) -> Result<Acceptor, Error> {
        Acceptor::with_issued(setup, None)
    }

    /// As [`Acceptor::new`]; `issued` are the domains whose certificates an authority issues while
    /// the server runs, so that `setup` need not have certificates.
    ///
    /// # Errors
    /// As [`Acceptor::new`].
    pub fn with_issued(setup: Setup<'_>, issued: Option<IssuedNames>) -> Result<Acceptor, Error> {
        let provider = Arc::new(ring::default_provider());
        let digest = setup.digest(issued.as_ref());
        let mut keys = Vec::new();
        for pair in setup.pairs {
            keys.push(Arc::new(certified(pair, &provider)?));
        }
        let other = |error: rustls::Error| Error::new(Path::new("TLS"), FileKind::Refused(error));
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(setup.min_version.on()).map_err(other)?;
        let builder = match (setup.mutual, setup.client_ca) {
            (Mutual::None, _) | (_, None) => builder.with_no_client_auth(),
            (mutual, Some(roots)) => {
                let file = roots.file.clone();
                let verifier = client_verifier(roots, mutual == Mutual::Requested, &provider);
                let refused = |error| Error::new(&file, FileKind::Verifier(error));
                builder.with_client_cert_verifier(verifier.map_err(refused)?)
            }
        };
        let answers = issued.as_ref().is_some_and(|it| it.answers_challenges);
        let names = ByName { files: keys, issued };
        let mut config = builder.with_cert_resolver(Arc::new(names));
        config.alpn_protocols = setup.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        if answers {
            // The last, so that it is chosen only for clients that offer nothing else.
            config.alpn_protocols.push(CHALLENGE_PROTOCOL.to_vec());
        }
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ring::Ticketer::new().map_err(other)?;
        Ok(Acceptor { config: Arc::new(config), digest })
    }

    /// Whether both are the same object, which shares the keys of its session tickets, and not only
    /// made from equal configurations.
    pub fn is_same(&self, other: &Acceptor) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }

    /// Makes the filter of an accepted connection. `None` if `rustls` refuses the configuration.
    pub fn accept(&self) -> Option<Filter> {
        let conn = UnbufferedServerConnection::new(self.config.clone()).ok()?;
        Some(Filter::new(Conn::Server(conn)))
    }
}

/// Selects a certificate by the client's server name (RFC 6066 section 3). Issued certificates come
/// first, then those of files in the order of the configuration.
#[derive(Debug)]
struct ByName {
    files: Vec<Arc<CertifiedKey>>,
    issued: Option<IssuedNames>,
}

impl ByName {
    /// The certificate of a file for this name; if `any`, another certificate if none is for it.
    fn of_files(&self, hello: &ClientHello<'_>, any: bool) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let schemes = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let named = |key: &&Arc<CertifiedKey>| match &name {
            Some(name) => is_for(key, name),
            None => false,
        };
        let found = self.files.iter().filter(named).find(fits);
        if !any {
            return found.cloned();
        }
        let found = found.or_else(|| self.files.iter().find(fits));
        // If no key has a signature scheme of the client, any certificate will do: the handshake
        // then fails because there is no common scheme.
        found.or_else(|| self.files.first()).cloned()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(issued) = &self.issued else { return self.of_files(&hello, true) };
        let name = hello.server_name();
        // RFC 8737 section 3: the authority offers this protocol and no other.
        if hello.alpn().is_some_and(|offered| offered.eq([CHALLENGE_PROTOCOL])) {
            return issued.challenge(name);
        }
        let found = match issued.find(name) {
            IssuedMatch::Certificate(key) => Some(key),
            IssuedMatch::Missing => self.of_files(&hello, false),
            IssuedMatch::Other => self.of_files(&hello, true).or_else(|| issued.first()),
        };
        if found.is_none() {
            issued.refuse();
        }
        found
    }
}
