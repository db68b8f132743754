//! The server side of TLS: versions, certificates by server name, and client certificates.

use super::Filter;
use super::files::{Error, FileKind, Pair, Roots};
use super::listed::{client_verifier, v1_public_key};
use super::side::Conn;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    UnbufferedServerConnection,
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
    fn digest(&self) -> [u8; 32] {
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
        let provider = Arc::new(ring::default_provider());
        let digest = setup.digest();
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
        let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
        config.alpn_protocols = setup.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
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

pub(super) fn certified(pair: Pair, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let refused = |what| Error::new(&pair.key_file, what);
    let key = provider.key_provider.load_private_key(pair.key.clone_key());
    let key = key.map_err(|_| refused(FileKind::KeyKind))?;
    let certified = CertifiedKey::new(pair.chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        // `rustls` cannot read a certificate of X.509 version 1.
        Err(_) if is_v1_pair(&certified) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(refused(FileKind::OtherKey(pair.file))),
        Err(error) => Err(Error::new(&pair.file, FileKind::Refused(error))),
    }
}

/// Whether the first certificate is of X.509 version 1 and its key is the private key's.
fn is_v1_pair(certified: &CertifiedKey) -> bool {
    let key = certified.cert.first().and_then(|it| v1_public_key(it));
    key.is_some() && certified.key.public_key().as_deref() == key
}

/// Selects a certificate by the client's server name (RFC 6066 section 3), in the order of the
/// configuration.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let schemes = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let named = |key: &&Arc<CertifiedKey>| match &name {
            Some(name) => is_for(key, name),
            None => false,
        };
        let found = self.0.iter().filter(named).find(fits);
        let found = found.or_else(|| self.0.iter().find(fits));
        // If no key has a signature scheme of the client, any certificate will do: the handshake
        // then fails because there is no common scheme.
        found.or_else(|| self.0.first()).cloned()
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.cert.first().and_then(|it| ParsedCertificate::try_from(it).ok());
    parsed.is_some_and(|parsed| verify_server_name(&parsed, name).is_ok())
}
