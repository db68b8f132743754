//! Listeners: the addresses on which the server accepts connections.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};

use super::error::{Error, Problem};
use super::pattern::Pattern;
use super::tls::Tls;

/// One address to listen on, with its settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Listener {
    /// IPv4 or IPv6 address and port; port 0 lets the kernel choose one. Default: 127.0.0.1:6001.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// The name by which routes refer to the listener; unique. Empty (default) is no name.
    #[serde(default)]
    pub name: String,
    /// Origins from which browsers may open WebSockets; `same-origin` is the host of the request.
    /// Empty (default) is any origin.
    #[serde(default)]
    pub allowed_origins: Vec<Pattern>,
    /// TLS settings; TLS is on if they have certificates.
    #[serde(default)]
    pub tls: Tls,
    /// The name of the Zilla binding that this listener stands for; empty if the configuration is
    /// not a Zilla file.
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

/// Makes listeners at `addresses` with the settings of the configured listeners: TLS, origins and
/// name.
///
/// # Errors
/// The listeners differ in more than their address, so that it is unclear which settings apply; or
/// several addresses would share the listener's name.
pub(super) fn listen_at(
    listeners: &[Listener],
    addresses: &[SocketAddr],
) -> Result<Vec<Listener>, Error> {
    let refuse = |problem: &str| Error::keyed("--listen", Problem::Other(problem.to_owned()));
    let Some(first) = listeners.first() else {
        return Ok(Vec::new());
    };
    let at = |address: &SocketAddr| Listener { address: *address, ..first.clone() };
    if listeners.iter().any(|it| *it != at(&it.address)) {
        return Err(refuse(
            "the listeners of the configuration differ in tls, allowed_origins or name, so the \
             settings of the new addresses are ambiguous; change the addresses in the \
             configuration",
        ));
    }
    if addresses.len() > 1 && !first.name.is_empty() {
        return Err(refuse(
            "the listener of the configuration has a name, which several addresses cannot share; \
             give one address only, or configure one listener for each address",
        ));
    }
    Ok(addresses.iter().map(at).collect())
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
