//! What is offered to servers: versions, a certificate, and who has to vouch for theirs.

use super::Filter;
use super::acceptor::{TlsVersion, certified};
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

/// What a [`Connector`] is made of.
pub struct Offer {
    /// Who vouches for servers; `None` is those whom the system trusts.
    pub roots: Option<Roots>,
    /// What is shown to a server that asks for a certificate.
    pub pair: Option<Pair>,
    /// The oldest version that is accepted.
    pub min_version: TlsVersion,
}

impl Offer {
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

/// What is offered to servers. Two are equal when they are made of the same, what the system trusts
/// and sessions aside. It keeps sessions, so that the next handshake with a server is shorter.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    /// Of all that it is made of.
    digest: [u8; 32],
}

impl PartialEq for Connector {
    fn eq(&self, other: &Connector) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Connector {}

impl Connector {
    /// Checks that everything fits together.
    ///
    /// # Errors
    /// The key does not belong to the certificate, or the library refuses something else.
    pub fn new(offer: Offer) -> Result<Connector, Error> {
        let provider = Arc::new(ring::default_provider());
        let digest = offer.digest();
        let other = |error: rustls::Error| Error::new(Path::new("TLS"), FileKind::Refused(error));
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(offer.min_version.on()).map_err(other)?;
        let verifier = offer.roots.unwrap_or_else(Roots::of_system).verifier()?;
        // Not less than the library's own verifier: see `listed`.
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match offer.pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = SingleCertAndKey::from(certified(pair, &provider)?);
                builder.with_client_cert_resolver(Arc::new(key))
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Connector { config: Arc::new(config), digest })
    }

    /// A filter for a connection that has just been made to the server of this name or address,
    /// which its certificate has to have. It has something to say first. `None` if that is neither.
    pub fn connect(&self, name: &str) -> Option<Filter> {
        let name = ServerName::try_from(name).ok()?.to_owned();
        let conn = UnbufferedClientConnection::new(self.config.clone(), name).ok()?;
        Some(Filter::new(Conn::Client(conn)))
    }
}
