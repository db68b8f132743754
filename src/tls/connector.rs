//! The client side of TLS, for connections to upstream servers: versions, a client certificate, and
//! the roots by which servers are verified.

use super::Filter;
use super::acceptor::TlsVersion;
use super::certified::certified;
use super::files::{Error, FileKind, Pair, Roots};
use super::side::Conn;
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// The configuration of a [`Connector`].
pub struct Offer {
    /// The roots by which servers are verified; `None` is those of the system.
    pub roots: Option<Roots>,
    /// The client certificate and its key, for servers that request one.
    pub pair: Option<Pair>,
    /// The oldest version that is accepted.
    pub min_version: TlsVersion,
}

impl Offer {
    /// The settings of connections to servers, without an application protocol.
    ///
    /// # Errors
    /// The key does not belong to the certificate, or `rustls` refuses another setting.
    pub fn client_config(self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(ring::default_provider());
        let other = |error: rustls::Error| Error::new(Path::new("TLS"), FileKind::Refused(error));
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(self.min_version.on()).map_err(other)?;
        let verifier = self.roots.unwrap_or_else(Roots::of_system).verifier()?;
        // This verifier checks certificates that are not listed as the standard verifier does: see
        // `listed`.
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match self.pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = SingleCertAndKey::from(certified(pair, &provider)?);
                builder.with_client_cert_resolver(Arc::new(key))
            }
        };
        Ok(config)
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update([self.min_version as u8, self.roots.is_some().into()]);
        self.roots.iter().for_each(|roots| digest.update(roots.digest));
        if let Some(pair) = &self.pair {
            for it in pair.chain.iter().map(|it| &**it).chain([pair.key.secret_der()]) {
                digest.update(it.len().to_le_bytes());
                digest.update(it);
            }
        }
        digest.finalize().into()
    }
}

/// The TLS configuration for connections to servers. Two are equal if they were made from equal
/// configurations; the system's roots and the stored sessions are not compared. Sessions are stored
/// to resume them in later handshakes with the same server.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    /// SHA-256 of the configuration.
    digest: [u8; 32],
}

impl PartialEq for Connector {
    fn eq(&self, other: &Connector) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Connector {}

impl Connector {
    /// Checks the configuration.
    ///
    /// # Errors
    /// The key does not belong to the certificate, or `rustls` refuses another setting.
    pub fn new(offer: Offer) -> Result<Connector, Error> {
        let digest = offer.digest();
        let mut config = offer.client_config()?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Connector { config: Arc::new(config), digest })
    }

    /// Whether both are the same object, which shares its stored sessions, and not only made from
    /// equal configurations.
    pub fn is_same(&self, other: &Connector) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }

    /// Makes the filter of a connection to the server with this DNS name or address, which the
    /// server's certificate must have. It has a ClientHello to be sent at once. `None` if `name` is
    /// neither a DNS name nor an address.
    pub fn connect(&self, name: &str) -> Option<Filter> {
        let name = ServerName::try_from(name).ok()?.to_owned();
        let conn = UnbufferedClientConnection::new(self.config.clone(), name).ok()?;
        Some(Filter::new(Conn::Client(conn)))
    }
}
