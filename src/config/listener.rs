//! Where the server listens.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};

use super::pattern::Pattern;
use super::tls::Tls;

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Listener {
    /// IPv4 or IPv6 address and port; port 0 lets the kernel choose one.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// What routes call it; empty is nothing.
    #[serde(default)]
    pub name: String,
    /// Origins from which browsers may open WebSockets, `same-origin` among them; empty is any.
    #[serde(default)]
    pub allowed_origins: Vec<Pattern>,
    /// Encryption, if it has certificates.
    #[serde(default)]
    pub tls: Tls,
    /// The binding that it stands for, in a file of Zilla's.
    #[serde(skip)]
    pub binding: String,
}

impl Default for Listener {
    fn default() -> Listener {
        Listener {
            address: SocketAddr::from(([127, 0, 0, 1], 6001)),
            name: String::new(),
            allowed_origins: Vec::new(),
            tls: Tls::default(),
            binding: String::new(),
        }
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
