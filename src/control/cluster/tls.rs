//! TLS to the engine.

use crate::config::Cluster;
use crate::tls::Roots;
use std::io;
use std::sync::Arc;
use tokio_rustls::rustls::{ClientConfig, crypto};

/// The settings of TLS connections to the engine.
///
/// # Errors
/// The certificate authorities cannot be used.
pub(super) fn client_config(cluster: &Cluster) -> io::Result<ClientConfig> {
    let roots = cluster.roots.clone().unwrap_or_else(Roots::of_system);
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(roots.verifier().map_err(io::Error::other)?)
        .with_no_client_auth();
    Ok(config)
}
