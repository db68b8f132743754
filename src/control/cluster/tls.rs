//! TLS to the engine.

use crate::config::Cluster;
use crate::tls::{Offer, TlsVersion};
use std::io;
use tokio_rustls::rustls::ClientConfig;

/// The settings of TLS connections to the engine.
///
/// # Errors
/// The certificate authorities, or the certificate of the process, cannot be used.
pub(super) fn client_config(cluster: &Cluster) -> io::Result<ClientConfig> {
    let (roots, pair) = (cluster.roots.clone(), cluster.pair.clone());
    let offer = Offer { roots, pair, min_version: TlsVersion::V12 };
    offer.client_config().map_err(io::Error::other)
}
