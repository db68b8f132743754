//! The section `listeners`: the addresses on which the server accepts connections.

use std::net::{IpAddr, SocketAddr};

use super::acme::{self, Acme};
use super::listen_address::{FileMode, ListenAddress};
use super::text::{Unique, check_name, check_origin};
use super::tls::{self, Tls};
use super::trusted::{self, ForwardedHeaders, ProxyProtocol, TrustedProxy};
use crate::settings::error::{Error, Problem};
use crate::settings::pattern::Pattern;
use crate::settings::section::{Section, section};

section! {
    required
    /// Addresses to listen on: IPv4 or IPv6 address and port, or Unix socket. One `[[listeners]]`
    /// for each; at least one.
    pub struct Listener {
        /// IPv4 or IPv6 address and port; port 0 lets the kernel choose one. Or `unix:` and the
        /// absolute path of a Unix socket. A socket file that no server answers any more is
        /// replaced, any other file is an error; the file is removed when the server stops.
        pub address: ListenAddress;
        /// Permissions of the Unix socket, as `chmod` takes them; "0660" lets its user and group
        /// connect.
        #[serde(default)]
        pub mode: FileMode;
        /// Whether an IPv6 address takes IPv6 connections only. Otherwise `[::]` also takes IPv4
        /// connections, unless another listener has an IPv4 address with the same port.
        #[serde(default)]
        pub v6_only: bool;
        /// The name by which routes refer to this listener; unique. Empty is no name.
        #[serde(default)]
        pub name: String;
        /// Origins from which browsers may open WebSockets here, such as `https://example.com` or
        /// `https://*.example.com`; "same-origin" is the host that the request is for. Empty is
        /// any. Other origins are refused with 403.
        #[serde(default)]
        pub allowed_origins: Vec<Pattern>;
        /// Whether connections begin with a header of the PROXY protocol, version 1 or 2, before
        /// TLS: "off", "accepted" (it may be there) or "required" (a connection without it is
        /// closed). The client's address is the one in the header. Only proxies in trusted_proxies
        /// may send a header; a connection from elsewhere that begins with one is closed, and with
        /// "required" every connection from elsewhere is. A header for a health check (LOCAL, or
        /// UNKNOWN) leaves the proxy's own address.
        #[serde(default)]
        pub proxy_protocol: ProxyProtocol;
        /// The header fields by which proxies name the client of a request: "off", "x-forwarded"
        /// (X-Forwarded-For and the last value of X-Forwarded-Proto) or "forwarded" (RFC 7239).
        /// Choose the one that every proxy writes, because a client's own value of the other may
        /// arrive unchanged. They are read only in requests from trusted_proxies; if they cannot be
        /// read there, the request is answered with 400.
        #[serde(default)]
        pub forwarded: ForwardedHeaders;
        /// How many proxies are in front of this server, and add an address to the field. The
        /// addresses are read from the last one on, at most this many; the first one that is not in
        /// trusted_proxies is the client's.
        #[serde(default = "one_hop")]
        pub forwarded_hops: u16, count(1..=16);
        /// The proxies that are believed about their clients: IP addresses, networks such as
        /// "10.0.0.0/8", and "unix" for everybody who may connect to the Unix socket. Their own
        /// connections are not limited by limits.connections_per_address, but those of their
        /// clients are.
        #[serde(default)]
        pub trusted_proxies: Vec<TrustedProxy>, entries(0..=256);
        /// TLS settings; TLS is on if they have certificates or the section acme.
        #[serde(default)]
        pub tls: Tls;
    }
    and {
        /// The name of the Zilla binding that this listener stands for; empty if the configuration
        /// is not a Zilla file.
        pub binding: String;
    }
}

impl Default for Listener {
    fn default() -> Listener {
        Listener {
            address: SocketAddr::from(([127, 0, 0, 1], 6001)).into(),
            mode: FileMode::default(),
            v6_only: false,
            name: String::new(),
            allowed_origins: Vec::new(),
            proxy_protocol: ProxyProtocol::default(),
            forwarded: ForwardedHeaders::default(),
            forwarded_hops: one_hop(),
            trusted_proxies: Vec::new(),
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
    addresses: &[ListenAddress],
) -> Result<Vec<Listener>, Error> {
    let refuse = |problem: &str| Error::keyed("--listen", Problem::Other(problem.to_owned()));
    let Some(first) = listeners.first() else {
        return Ok(Vec::new());
    };
    let at = |address: &ListenAddress| Listener { address: address.clone(), ..first.clone() };
    if listeners.iter().any(|it| *it != at(&it.address)) {
        return Err(refuse(
            "the listeners of the configuration differ in other settings than the \
             address, so the settings of the new addresses are ambiguous; change the addresses in \
             the configuration",
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

fn one_hop() -> u16 {
    1
}

/// The entry of `allowed_origins` that stands for the origin of the request's own host.
const SAME_ORIGIN: &str = "same-origin";

impl Listener {
    /// Whether what `peer` says about its client is believed. The unspecified address is that of a
    /// peer on a Unix socket.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        trusted::holds(&self.trusted_proxies, peer)
    }

    /// Whether a WebSocket may be opened from `origin` by a request for `authority`. A request
    /// without `Origin` is admitted: it does not come from a browser, and another client could send
    /// any origin.
    pub fn admits(&self, origin: Option<&str>, authority: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        self.allowed_origins.is_empty()
            || self.allowed_origins.iter().any(|it| match it.as_str() {
                SAME_ORIGIN => is_same_origin(origin, authority),
                _ => it.matches(origin),
            })
    }
}

/// Compares the hosts only: behind a proxy that terminates TLS, the schemes differ.
fn is_same_origin(origin: &str, authority: Option<&str>) -> bool {
    let own = match origin.split_once("://") {
        Some(("http" | "ws", host)) => (":80", host),
        Some(("https" | "wss", host)) => (":443", host),
        _ => return false,
    };
    let bare = |text: &str| text.strip_suffix(own.0).unwrap_or(text).to_ascii_lowercase();
    authority.is_some_and(|authority| bare(authority) == bare(own.1))
}

/// Checks all listeners. Those of the demo may have only loopback addresses.
pub(super) fn check(listeners: &[Listener], is_demo: bool) -> Result<(), Error> {
    let (mut seen, mut names) = (Unique::default(), Unique::default());
    if listeners.is_empty() {
        return Err(Error::keyed("listeners", Problem::Empty));
    }
    for (index, listener) in listeners.iter().enumerate() {
        let key = format!("listeners[{index}].address");
        let address = &listener.address;
        if let Some(address) = address.ip()
            && is_demo
            && !address.ip().to_canonical().is_loopback()
        {
            return Err(Error::keyed(key, Problem::DemoAddress(address)));
        }
        let in_tls = |error: Error| error.under(&format!("listeners[{index}].tls"));
        tls::check(&listener.tls).map_err(in_tls)?;
        if address.port() != 0 || address.path().is_some() {
            seen.add(&address.to_string(), key)?;
        }
        if !listener.name.is_empty() {
            names.add(&listener.name, format!("listeners[{index}].name"))?;
        }
        check_listener(listener).map_err(|error| error.under(&format!("listeners[{index}]")))?;
    }
    acme::check_together(acme_sections(listeners))
}

/// The ACME sections of the listeners, with the listeners' numbers.
pub(super) fn acme_sections(listeners: &[Listener]) -> impl Iterator<Item = (usize, &Acme)> {
    let listeners = listeners.iter().enumerate();
    listeners.filter_map(|(index, it)| Some((index, &**it.tls.acme.as_ref()?)))
}

fn check_listener(listener: &Listener) -> Result<(), Error> {
    listener.check_ranges()?;
    let needed = |key: &str, text| Err(Error::keyed(key, Problem::Needed(text)));
    if listener.mode != FileMode::default() && listener.address.path().is_none() {
        return needed("mode", "no mode, because the address is no Unix socket");
    }
    if listener.v6_only && !listener.address.ip().is_some_and(|address| address.is_ipv6()) {
        return needed("v6_only", "false, because the address is not an IPv6 address");
    }
    let reads = listener.proxy_protocol != ProxyProtocol::Off
        || listener.forwarded != ForwardedHeaders::Off;
    trusted::check(&listener.trusted_proxies, reads, listener.address.path().is_some())?;
    if !listener.name.is_empty() {
        check_name("name", &listener.name)?;
    }
    for (index, origin) in listener.allowed_origins.iter().enumerate() {
        if origin.as_str() != "same-origin" {
            check_origin(&format!("allowed_origins[{index}]"), origin.as_str())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_origins_of_a_listener() {
        let admits = |allowed: &[&str], origin: &str, authority: &str| {
            let allowed_origins = allowed.iter().map(|it| Pattern::new(*it)).collect();
            let origin = Some(origin).filter(|origin| !origin.is_empty());
            Listener { allowed_origins, ..Listener::default() }.admits(origin, Some(authority))
        };
        for (allowed, origin, authority, admitted) in [
            (&[][..], "https://evil.example", "h", true),
            (&["https://a.example"], "https://a.example", "h", true),
            (&["https://a.example"], "https://b.example", "h", false),
            (&["https://a.example"], "", "h", true),
            (&["https://a.example"], "null", "h", false),
            (&["same-origin"], "https://a.example", "a.example", true),
            (&["same-origin"], "https://a.example", "A.example:443", true),
            (&["same-origin"], "http://a.example:80", "a.example", true),
            (&["same-origin"], "http://a.example:81", "a.example", false),
            (&["same-origin"], "http://a.example:81", "a.example:81", true),
            (&["same-origin"], "https://b.example", "a.example", false),
            (&["same-origin"], "null", "null", false),
            (&["same-origin"], "a.example", "a.example", false),
            (&["same-origin", "https://*.b.example"], "https://x.b.example", "a", true),
        ] {
            assert_eq!(admits(allowed, origin, authority), admitted, "{allowed:?} {origin}");
        }
    }
}
