//! The section `listeners`: the addresses on which the server accepts connections.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};

use super::error::{Error, Problem};
use super::pattern::Pattern;
use super::text::{Unique, check_name, check_origin};
use super::tls::{self, Tls};

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

/// The entry of `allowed_origins` that stands for the origin of the request's own host.
const SAME_ORIGIN: &str = "same-origin";

impl Listener {
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
        let address = listener.address;
        if is_demo && !address.ip().to_canonical().is_loopback() {
            return Err(Error::keyed(key, Problem::DemoAddress(address)));
        }
        let in_tls = |error: Error| error.under(&format!("listeners[{index}].tls"));
        tls::check(&listener.tls).map_err(in_tls)?;
        if address.port() != 0 {
            seen.add(&address.to_string(), key)?;
        }
        if !listener.name.is_empty() {
            names.add(&listener.name, format!("listeners[{index}].name"))?;
        }
        check_listener(listener).map_err(|error| error.under(&format!("listeners[{index}]")))?;
    }
    Ok(())
}

fn check_listener(listener: &Listener) -> Result<(), Error> {
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
