//! Where the server listens.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};

use super::tls::Tls;

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Listener {
    /// IPv4 or IPv6 address and port; port 0 lets the kernel choose one.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// Encryption, if it has certificates.
    #[serde(default)]
    pub tls: Tls,
}

impl Default for Listener {
    fn default() -> Listener {
        Listener { address: SocketAddr::from(([127, 0, 0, 1], 6001)), tls: Tls::default() }
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let found = format!("`{text}`");
        let expected = "an IPv4 or IPv6 address and a port, such as \"127.0.0.1:6001\" or \
                        \"[::1]:6001\"";
        serde::de::Error::invalid_value(serde::de::Unexpected::Other(&found), &expected)
    })
}
