//! The proxy settings of a route with the endpoint `proxy`: its upstream servers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::{DnsName, ServerName};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::{Error, Problem};
use super::outgoing;
use super::range::{DAY_S, HOUR_MS, range};
use super::secret::Secret;
use super::size;
use super::tls::{Certificate, check_aliases, in_file, read_roots};
use crate::limits::UPSTREAMS;
use crate::tls::{self, Connector, Offer, TlsVersion};
use crate::upstream::{Balance, Names, Pool, PoolOptions, UpstreamServer};

/// Maximum number of entries of a list of header fields.
const MAX_FIELDS: u64 = 256;

/// The upstream servers of a route, one of which gets each WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Proxy {
    /// The URLs of the upstream servers, 1 to 256. A server that is listed twice counts as two.
    #[serde(deserialize_with = "upstreams")]
    pub upstreams: Vec<Upstream>,
    /// How the server for a WebSocket is chosen. Default: round-robin.
    pub balance: Balance,
    /// Timeout of the TCP connect to an upstream server, in milliseconds. 1 to 3600000, default
    /// 5000.
    pub connect_ms: u64,
    /// Timeout from the end of the connect to the end of the server's handshake response, including
    /// a TLS handshake, in milliseconds. 1 to 3600000, default 10000.
    pub handshake_ms: u64,
    /// Number of consecutive failures after which a server is put aside. 1 to 10000, default 3.
    pub fail_after: u32,
    /// How long a failed server stays put aside, in milliseconds. 1 to 3600000, default 10000.
    pub retry_ms: u64,
    /// How often host names are resolved again, in seconds. 1 to 86400, default 30.
    pub resolve_s: u64,
    /// Number of bytes waiting to be written to one side from which reading from the other side is
    /// paused. 4 KiB to 1 GiB, default 256 KiB.
    #[serde(deserialize_with = "size::memory")]
    pub buffer_bytes: usize,
    /// Names of the client's header fields that are passed to the server; at most 256. Default:
    /// `Origin`, `Cookie`, `User-Agent`, `Authorization`.
    pub pass_headers: Vec<String>,
    /// Header fields that are set in requests to the server, `Host` included; at most 256.
    pub set_headers: BTreeMap<String, Secret>,
    /// Whether requests are passed on whose path servers interpret differently; see
    /// [`NormalPath::is_ambiguous`]. Otherwise they are refused with 400. Default: false.
    ///
    /// [`NormalPath::is_ambiguous`]: crate::http::NormalPath::is_ambiguous
    pub allow_ambiguous_paths: bool,
    /// Whether requests to the server have `X-Forwarded-For`, `X-Forwarded-Proto` and
    /// `X-Forwarded-Host`. Default: true.
    pub forwarded: bool,
    /// TLS settings for `wss` upstream servers.
    pub tls: ProxyTls,
    /// The pool that servers are chosen from; its indexes are those of `upstreams`.
    #[serde(skip)]
    pub pool: Behind,
}

/// The server pool of a proxy. Two values always compare as equal, because the pool follows from
/// the proxy's other keys, which are compared.
#[derive(Clone, Debug, Default)]
pub struct Behind(pub(super) Arc<Pool>);

impl Deref for Behind {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.0
    }
}

impl PartialEq for Behind {
    fn eq(&self, _other: &Behind) -> bool {
        true
    }
}

impl Eq for Behind {}

impl Default for Proxy {
    fn default() -> Proxy {
        Proxy {
            upstreams: Vec::new(),
            balance: Balance::default(),
            connect_ms: 5_000,
            handshake_ms: 10_000,
            fail_after: 3,
            retry_ms: 10_000,
            resolve_s: 30,
            buffer_bytes: 256 * 1024,
            pass_headers: ["Origin", "Cookie", "User-Agent", "Authorization"]
                .map(str::to_owned)
                .to_vec(),
            set_headers: BTreeMap::new(),
            forwarded: true,
            allow_ambiguous_paths: false,
            tls: ProxyTls::default(),
            pool: Behind::default(),
        }
    }
}

/// TLS settings for upstream servers. Their certificates are always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct ProxyTls {
    /// File of the certificate authorities, in PEM, that the servers' certificates are verified
    /// with; empty (default) is those of the system.
    pub ca_file: String,
    /// The password of `ca_file`, which is PKCS#12 if a password is set.
    pub ca_password: Secret,
    /// Names of the trusted entries of a PKCS#12 `ca_file`; empty (default) is all that the file
    /// marks as trusted.
    pub ca_aliases: Vec<String>,
    /// Whether the system's authorities are trusted in addition to those of `ca_file`. Default:
    /// false.
    pub ca_system: bool,
    /// The server name for SNI and certificate verification; empty (default) is the host of the
    /// URL.
    pub server_name: String,
    /// The client certificate for servers that request one; empty (default) is none.
    pub certificate: Certificate,
    /// The minimum TLS version. Default: 1.2.
    pub min_version: TlsVersion,
    /// The connector made from the files; `None` until they have been read.
    #[serde(skip)]
    connector: Option<Connector>,
}

impl ProxyTls {
    /// The TLS filter for a connection to `upstream`; `None` if it is not `wss` or the files have
    /// not been read.
    pub fn connect(&self, upstream: &Upstream) -> Option<tls::Filter> {
        let name = if self.server_name.is_empty() { &upstream.host } else { &self.server_name };
        self.connector.as_ref().filter(|_| upstream.secure)?.connect(name)
    }

    /// Every file that these settings name, relative to `folder` unless its path is absolute.
    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let Certificate { cert, key, pkcs12, .. } = &self.certificate;
        let names = [&self.ca_file, cert, key, pkcs12];
        names.into_iter().filter(|name| !name.is_empty()).map(|name| folder.join(name)).collect()
    }

    /// Reads the files, unless they have been read before.
    pub(super) fn prepare(&mut self, folder: &Path) -> Result<(), Error> {
        if self.connector.is_some() {
            return Ok(());
        }
        let roots = match self.ca_file.as_str() {
            "" => None,
            file => {
                let roots = read_roots(&folder.join(file), &self.ca_password, &self.ca_aliases);
                let roots = roots.map_err(in_file("ca_file"))?;
                Some(if self.ca_system { roots.with_system() } else { roots })
            }
        };
        let pair = match self.certificate == Certificate::default() {
            true => None,
            false => Some(self.certificate.read(folder).map_err(|it| it.under("certificate"))?),
        };
        let connector = Connector::new(Offer { roots, pair, min_version: self.min_version });
        self.connector = Some(connector.map_err(in_file("certificate"))?);
        Ok(())
    }
}

/// One upstream server, from its URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Whether the server uses TLS (`wss`).
    pub secure: bool,
    /// The host name in lower case, or the IP address without brackets.
    pub host: String,
    /// The port: that of the URL, else 80 for `ws` or 443 for `wss`.
    pub port: u16,
    /// The path and query of the URL, which every request to the server uses. If the URL has none
    /// it is empty, and the client's path and query are used. It may contain a secret, so it is
    /// never logged.
    pub target: Secret,
}

impl Upstream {
    /// Parses a `ws` or `wss` URL; `None` if it is not valid.
    pub fn new(url: &str) -> Option<Upstream> {
        let (scheme, rest) = url.split_once("://")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            _ => return None,
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return None;
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|it| it.split_once(']')) {
            Some((host, port)) => (host.parse::<Ipv6Addr>().ok()?.to_string(), port),
            None => {
                let (host, port) =
                    authority.split_at(authority.find(':').unwrap_or(authority.len()));
                (host_name(host)?, port)
            }
        };
        let port = match port {
            "" => default_port(secure),
            port => decimal(port.strip_prefix(':')?).filter(|port| *port != 0)?,
        };
        // A URL such as `wss://host?a=b` has a query, so its path is `/`.
        let slash = if target.starts_with('?') { "/" } else { "" };
        Some(Upstream { secure, host, port, target: Secret::new(format!("{slash}{target}")) })
    }

    /// The server's socket address if its host is an IP address.
    pub fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }

    /// Host and port as in a `Host` field (RFC 9110 section 7.2): without the port if it is the
    /// scheme's default.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        if self.port == default_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }
}

impl Proxy {
    /// Makes the pool, which takes over the state of the servers that `old` also has.
    pub(super) fn make_pool(&self, old: &Pool, names: &Names) -> Pool {
        let server = |it: &Upstream| UpstreamServer {
            secure: it.secure,
            host: it.host.clone(),
            port: it.port,
        };
        let options = PoolOptions {
            balance: self.balance,
            fail_after: self.fail_after,
            retry_ms: self.retry_ms,
            refresh_ms: self.resolve_s * 1000,
        };
        Pool::after(old, self.upstreams.iter().map(server), options, names)
    }
}

/// Displays the URL without path and query, which may contain a secret.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({self})")
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Upstream, D::Error> {
        let url = String::deserialize(deserializer)?;
        Upstream::new(&url).ok_or_else(|| no_url(&url))
    }
}

/// The error for an invalid URL. It does not show the path, which may contain a secret.
fn no_url<E: de::Error>(url: &str) -> E {
    let end = url.split_once("://").map_or(0, |(scheme, _)| scheme.len() + 3);
    let end = url[end..].find(['/', '?', '#', '@']).map_or(url.len(), |at| end + at);
    let (shown, dots) = (&url[..end], if end < url.len() { "..." } else { "" });
    let words = match url[end..].contains('@') {
        true => "a text with `@` (not shown)".to_owned(),
        false => format!("`{shown}{dots}`"),
    };
    let expected = "a URL such as \"wss://example.com:8443/path\": ws or wss, a host name or an \
                    address (IPv6 in brackets), without `user@` and `#fragment`";
    E::invalid_value(de::Unexpected::Other(&words), &expected)
}

/// Reads a section that many connections share.
pub(super) fn shared<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Arc<Proxy>>, D::Error> {
    Proxy::deserialize(deserializer).map(|proxy| Some(Arc::new(proxy)))
}

/// Reads a list of URLs, or a single URL.
fn upstreams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Upstream>, D::Error> {
    struct Urls;
    impl<'de> Visitor<'de> for Urls {
        type Value = Vec<Upstream>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a URL, or a list of URLs")
        }

        fn visit_str<E: de::Error>(self, url: &str) -> Result<Vec<Upstream>, E> {
            Ok(vec![Upstream::new(url).ok_or_else(|| no_url(url))?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Upstream>, A::Error> {
            let mut urls = Vec::new();
            while let Some(url) = list.next_element()? {
                urls.push(url);
            }
            Ok(urls)
        }
    }
    deserializer.deserialize_any(Urls)
}

/// Parses a host name or an IPv4 address.
fn host_name(host: &str) -> Option<String> {
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Some(address.to_string()),
        Err(_) => Some(DnsName::try_from(host).ok()?.as_ref().to_ascii_lowercase()),
    }
}

/// Parses a port of decimal digits only, without a sign.
fn decimal(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// Hop-by-hop header fields, and those that the WebSocket handshake sets itself.
const TAKEN: [&str; 16] = [
    "connection",
    "upgrade",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "expect",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "sec-websocket-accept",
];

/// Checks what types cannot express; the keys in errors are relative to the route.
pub(super) fn check(proxy: Option<&Proxy>, is_proxy: bool) -> Result<(), Error> {
    let Some(proxy) = proxy else {
        let problem = Problem::Needed("`upstreams`, because the endpoint is \"proxy\"");
        return if is_proxy { Err(Error::keyed("proxy", problem)) } else { Ok(()) };
    };
    if !is_proxy {
        let problem = "only the endpoint `proxy` accepts this section".to_owned();
        return Err(Error::keyed("proxy", Problem::Other(problem)));
    }
    check_proxy(proxy).map_err(|error| error.under("proxy"))
}

fn check_proxy(proxy: &Proxy) -> Result<(), Error> {
    if proxy.upstreams.is_empty() {
        return Err(Error::keyed("upstreams", Problem::Empty));
    }
    range("upstreams", proxy.upstreams.len() as u64, 1..=UPSTREAMS as u64, " entries")?;
    range("connect_ms", proxy.connect_ms, 1..=HOUR_MS, " milliseconds")?;
    range("handshake_ms", proxy.handshake_ms, 1..=HOUR_MS, " milliseconds")?;
    range("fail_after", proxy.fail_after.into(), 1..=10_000, "")?;
    range("retry_ms", proxy.retry_ms, 1..=HOUR_MS, " milliseconds")?;
    range("resolve_s", proxy.resolve_s, 1..=DAY_S, " seconds")?;
    range("buffer_bytes", proxy.buffer_bytes as u64, 4096..=1 << 30, " bytes")?;
    check_headers(proxy)?;
    check_tls(proxy).map_err(|error| error.under("tls"))
}

fn check_headers(proxy: &Proxy) -> Result<(), Error> {
    range("pass_headers", proxy.pass_headers.len() as u64, 0..=MAX_FIELDS, " entries")?;
    range("set_headers", proxy.set_headers.len() as u64, 0..=MAX_FIELDS, " entries")?;
    for (index, name) in proxy.pass_headers.iter().enumerate() {
        let set = proxy.set_headers.keys().any(|set| set.eq_ignore_ascii_case(name));
        if set || name.eq_ignore_ascii_case("host") || !outgoing::is_free(name, &TAKEN) {
            let accepted = "the name of a header field that is set neither by the handshake nor by \
                            `set_headers`";
            let problem = Problem::Shape { found: name.clone(), accepted };
            return Err(Error::keyed(format!("pass_headers[{index}]"), problem));
        }
    }
    let wrong = |error: Error| Error { key: format!("set_{}", error.key), ..error };
    outgoing::check_headers(&proxy.set_headers, &TAKEN).map_err(wrong)
}

fn check_tls(proxy: &Proxy) -> Result<(), Error> {
    let tls = &proxy.tls;
    if *tls != ProxyTls::default() && !proxy.upstreams.iter().any(|it| it.secure) {
        let words = "at least one `wss://` URL in `upstreams`, because the section has no effect \
                     without one";
        return Err(Error::keyed("", Problem::Needed(words)));
    }
    if !tls.server_name.is_empty() && ServerName::try_from(tls.server_name.as_str()).is_err() {
        let (found, accepted) = (tls.server_name.clone(), "a host name or an address");
        return Err(Error::keyed("server_name", Problem::Shape { found, accepted }));
    }
    if tls.ca_file.is_empty() && (tls.ca_system || !tls.ca_password.expose().is_empty()) {
        let key = if tls.ca_system { "ca_system" } else { "ca_password" };
        let words = "no value, because `ca_file` is not set";
        return Err(Error::keyed(key, Problem::Needed(words)));
    }
    check_aliases("ca_aliases", &tls.ca_aliases, &tls.ca_password)?;
    match tls.certificate == Certificate::default() {
        true => Ok(()),
        false => tls.certificate.check().map_err(|error| error.under("certificate")),
    }
}
