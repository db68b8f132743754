//! Which proxies in front of a listener are believed about their clients, and in which form they
//! name them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::listen_address::parse;
use crate::settings::error::{Error, Problem};
use crate::settings::section::{texts, words};

const UNIX: &str = "unix";

words!(ProxyProtocol, ForwardedHeaders);

texts! {
    TrustedProxy: TrustedProxy::to_string;
}

/// Whether connections begin with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// No header is read.
    #[default]
    Off,
    /// A connection may begin with a header.
    Accepted,
    /// A connection without a header is closed.
    Required,
}

/// The header fields in which proxies name their clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardedHeaders {
    /// No field is read.
    #[default]
    Off,
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    #[serde(rename = "x-forwarded")]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Proxies that are believed about their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// All addresses of a network.
    Network(IpNet),
    /// Whoever may connect to the Unix socket.
    Unix,
}

impl TrustedProxy {
    /// Whether a connection from `peer` comes from such a proxy. The unspecified address is that of
    /// a peer on a Unix socket.
    fn holds(&self, peer: IpAddr) -> bool {
        match self {
            TrustedProxy::Network(network) => !peer.is_unspecified() && network.contains(&peer),
            TrustedProxy::Unix => peer.is_unspecified(),
        }
    }
}

impl FromStr for TrustedProxy {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<TrustedProxy, ipnet::AddrParseError> {
        match (text, text.parse::<IpAddr>()) {
            (UNIX, _) => Ok(TrustedProxy::Unix),
            (_, Ok(address)) => Ok(TrustedProxy::Network(address.to_canonical().into())),
            // Without the bits of the host, so that equal networks are equal.
            (_, Err(_)) => text.parse().map(|it: IpNet| TrustedProxy::Network(it.trunc())),
        }
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrustedProxy::Network(network) => network.fmt(f),
            TrustedProxy::Unix => f.write_str(UNIX),
        }
    }
}

impl<'de> Deserialize<'de> for TrustedProxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TrustedProxy, D::Error> {
        parse(
            deserializer,
            "an IP address, a network such as \"10.0.0.0/8\" or \"fd00::/8\", or \"unix\"",
        )
    }
}

/// Whether one of the proxies is `peer`.
pub(super) fn holds(proxies: &[TrustedProxy], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    proxies.iter().any(|proxy| proxy.holds(peer))
}

/// Checks the trusted proxies of a listener. `reads` is whether anything that they say is read,
/// `is_unix` whether the listener is a Unix socket.
pub(super) fn check(proxies: &[TrustedProxy], reads: bool, is_unix: bool) -> Result<(), Error> {
    let needed = |text| Err(Error::keyed("trusted_proxies", Problem::Needed(text)));
    match proxies {
        [] if reads => {
            needed("the networks of the proxies, because proxy_protocol or forwarded is on")
        }
        [_, ..] if !reads => {
            needed("no entry, or proxy_protocol or forwarded, because both are off")
        }
        proxies if proxies.contains(&TrustedProxy::Unix) && !is_unix => {
            needed("networks, because \"unix\" is for a listener on a Unix socket")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusts(proxies: &[&str], peer: &str) -> bool {
        let proxies: Vec<TrustedProxy> = proxies.iter().map(|it| it.parse().unwrap()).collect();
        holds(&proxies, peer.parse().unwrap())
    }

    #[test]
    fn trusted_proxies_are_the_addresses_of_the_networks_only() {
        for (proxies, inside, outside) in [
            (&["10.0.0.0/8"][..], "10.255.255.255", "11.0.0.0"),
            (&["10.1.2.3/8"], "10.0.0.0", "9.255.255.255"),
            (&["192.0.2.7"], "192.0.2.7", "192.0.2.8"),
            (&["192.0.2.7"], "::ffff:192.0.2.7", "::ffff:192.0.2.6"),
            (&["fd00::/8"], "fdff::1", "fe00::1"),
            (&["0.0.0.0/0"], "192.0.2.1", "2001:db8::1"),
            (&["0.0.0.0/0"], "192.0.2.1", "0.0.0.0"),
            (&["unix"], "0.0.0.0", "127.0.0.1"),
            (&["::1", "127.0.0.0/8"], "127.0.0.1", "::2"),
        ] {
            assert!(trusts(proxies, inside), "{proxies:?} {inside}");
            assert!(!trusts(proxies, outside), "{proxies:?} {outside}");
        }
        assert!(!trusts(&[], "127.0.0.1"));
        for text in ["", "localhost", "10.0.0.0/33", "10.0.0/8", "::/129", "Unix"] {
            assert!(text.parse::<TrustedProxy>().is_err(), "{text}");
        }
    }
}
