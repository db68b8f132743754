//! A certificate with its private key, ready for handshakes.

use super::files::{Error, FileKind, Pair};
use super::listed::v1_public_key;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

/// Loads the key, and checks that it belongs to the certificate.
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

impl Pair {
    /// Checks that the key can be used and belongs to the first certificate.
    ///
    /// # Errors
    /// It cannot, or it does not.
    pub fn check(&self) -> Result<(), Error> {
        certified(self.clone(), &ring::default_provider()).map(drop)
    }
}

/// Whether the first certificate is of X.509 version 1 and its key is the private key's.
fn is_v1_pair(certified: &CertifiedKey) -> bool {
    let key = certified.cert.first().and_then(|it| v1_public_key(it));
    key.is_some() && certified.key.public_key().as_deref() == key
}

/// Whether the certificate is for this server name.
pub(super) fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.cert.first().and_then(|it| ParsedCertificate::try_from(it).ok());
    parsed.is_some_and(|parsed| verify_server_name(&parsed, name).is_ok())
}
