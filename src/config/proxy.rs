//! The proxy settings of a route with the endpoint `proxy`: its upstream servers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::{DnsName, ServerName};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::outgoing;
use super::size;
use super::tls::{Certificate, check_aliases, in_file, read_roots};
use crate::limits::UPSTREAMS;
use crate::settings::error::{Error, Problem};
use crate::settings::range::{DAY_S, GIB, HOUR_MS};
use crate::settings::secret::Secret;
use crate::settings::section::{Section, section, texts, words};
use crate::tls::{self, Connector, Offer, TlsVersion};
use crate::upstream::Balance;

/// Maximum number of entries of a list of header fields.
const MAX_FIELDS: u64 = 256;

/// The header fields that are passed by default.
const PASSED: [&str; 4] = ["Origin", "Cookie", "User-Agent", "Authorization"];

words!(Balance);

section! {
    /// Proxied WebSockets: a route can forward its WebSockets to upstream servers. Messages, pings,
    /// pongs and close codes are forwarded in both directions; if one side ends without a close
    /// frame, the client gets close code 1014 and the server 1001. The client's 101, or the
    /// response of a stream, is sent after the server's 101. If the server does not answer with
    /// 101, the client gets 502, 504 on a timeout, or 503 if this server has no connection left;
    /// the server's 401, 403 and 404 are forwarded, any other response below 500 becomes 502, and
    /// for 500 and above the next server is tried first.
    pub struct Proxy {
        /// URLs of the upstream servers: one URL or a list, ws:// or wss://, with a
        /// host name or an address (IPv6 in brackets). A server that is listed twice gets twice the
        /// share. If a URL has a path, it is used as it is with its query; otherwise the path and
        /// query of the client's request are used.
        #[serde(deserialize_with = "upstreams")]
        pub upstreams: Vec<Upstream> = Vec::new(), entries(1..=UPSTREAMS as u64);
        /// How the server for a WebSocket is chosen: "round-robin", "least-connections" (counted
        /// for this route), or "first", where the others are used only if it fails.
        pub balance: Balance = Balance::default();
        /// Timeout of the TCP connect to a server.
        pub connect_ms: u64 = 5_000, milliseconds(1..=HOUR_MS);
        /// Timeout from the end of the connect to the end of the server's handshake response,
        /// including a TLS handshake.
        pub handshake_ms: u64 = 10_000, milliseconds(1..=HOUR_MS);
        /// Number of consecutive failures after which a server is put aside. A failure is: no
        /// connection, no response in time, a response that is not HTTP, or 502 to 504. The client
        /// gets 504 when its WebSocket has taken twice the time allowed for one server.
        pub fail_after: u32 = 3, count(1..=10_000);
        /// How long a failed server stays put aside. Then one WebSocket tries it; if that fails, it
        /// is put aside for as long again. While all servers are put aside, the one that was put
        /// aside first is tried.
        pub retry_ms: u64 = 10_000, milliseconds(1..=HOUR_MS);
        /// How often host names are resolved again; after failures, sooner.
        pub resolve_s: u64 = 30, seconds(1..=DAY_S);
        /// Amount of data waiting to be written to one side from which reading from the other side
        /// is paused.
        #[serde(deserialize_with = "size::memory")]
        pub buffer_bytes: usize = 256 * 1024, bytes(4096..=GIB);
        /// Header fields of the client's request that are passed to the server.
        /// Authorization and Cookie may contain the token that a guard has read: leave them out if
        /// the server must not see it. The query, which may also contain a token, is forwarded with
        /// the path, unless the URL has its own path.
        pub pass_headers: Vec<String> =
            PASSED.map(str::to_owned).to_vec(), entries(0..=MAX_FIELDS);
        /// Header fields that are set in the request: { X-Token = "${TOKEN}" }.
        /// Without a Host field here, Host is that of the URL.
        pub set_headers: BTreeMap<String, Secret> = BTreeMap::new(), entries(0..=MAX_FIELDS);
        /// Whether requests are forwarded whose path servers interpret in different ways: with `\`,
        /// `;` or `#`, an escape of `/`, `\`, `;` or a control character, a `%` without two digits,
        /// or escapes that are not UTF-8. Otherwise they are answered with 400. If they are
        /// forwarded, a guard on a path protects it only if the server interprets the path as this
        /// server does.
        pub allow_ambiguous_paths: bool = false;
        /// Whether requests to the server have X-Forwarded-For, X-Forwarded-Proto and
        /// X-Forwarded-Host. If pass_headers names one of them, the client's value is kept; the
        /// client's address is appended to X-Forwarded-For.
        pub forwarded: bool = true;
        /// TLS settings for `wss` upstream servers.
        pub tls: ProxyTls = ProxyTls::default();
    }
}

section! {
    /// Only for wss:// URLs. The certificates of the servers are always verified.
    pub struct ProxyTls {
        /// PEM file of the certificate authorities that the server is verified with. Empty is those
        /// of the system. A server whose own certificate is in this file is also accepted; its
        /// common name counts if it has no subjectAltName.
        pub ca_file: String = Default::default();
        /// The password of ca_file; if it is set, the file is PKCS#12.
        pub ca_password: Secret = Default::default();
        /// Names of the trusted entries of a PKCS#12 `ca_file`. Empty is all that the file
        /// marks as trusted.
        pub ca_aliases: Vec<String> = Default::default();
        /// Whether the system's authorities are trusted in addition to those of ca_file.
        pub ca_system: bool = Default::default();
        /// The server name for SNI and certificate verification. Empty is the host of the URL.
        pub server_name: String = Default::default();
        /// The client certificate for a server that requests one, in the form of a listener's;
        /// empty is none.
        pub certificate: Certificate = Default::default();
        /// Minimum TLS version: "1.2" or "1.3".
        pub min_version: TlsVersion = Default::default();
    }
    and {
        /// The content of the files; `None` until they have been read.
        content: Option<Arc<ProxyTlsFiles>>;
    }
}

/// The content of the files of a proxy's TLS settings.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ProxyTlsFiles {
    /// The authorities of the servers; `None` is those of the system.
    roots: Option<tls::Roots>,
    /// The client certificate.
    pair: Option<tls::Pair>,
}

impl ProxyTls {
    /// Makes a TLS connector from the content of the files; `None` if they have not been read.
    ///
    /// # Errors
    /// The key does not belong to the certificate, or `rustls` refuses a setting. The key in the
    /// error is relative to these settings.
    pub fn connector(&self) -> Result<Option<Connector>, Error> {
        let Some(content) = &self.content else { return Ok(None) };
        let ProxyTlsFiles { roots, pair } = (**content).clone();
        let connector = Connector::new(Offer { roots, pair, min_version: self.min_version });
        connector.map(Some).map_err(in_file("certificate"))
    }

    /// The name by which `upstream` is verified, and which it is sent for SNI.
    pub fn name_of<'n>(&'n self, upstream: &'n Upstream) -> &'n str {
        if self.server_name.is_empty() { &upstream.host } else { &self.server_name }
    }

    /// Every file that these settings name, relative to `folder` unless its path is absolute.
    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let Certificate { cert, key, pkcs12, .. } = &self.certificate;
        let names = [&self.ca_file, cert, key, pkcs12];
        names.into_iter().filter(|name| !name.is_empty()).map(|name| folder.join(name)).collect()
    }

    /// Reads the files, unless they have been read before, and checks that a connector can be made
    /// from them.
    pub(super) fn prepare(&mut self, folder: &Path) -> Result<(), Error> {
        if self.content.is_some() {
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
        self.content = Some(Arc::new(ProxyTlsFiles { roots, pair }));
        self.connector().map(drop)
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

texts! {
    Upstream: |it| format!("{it}{}", it.target.expose());
}

/// The error for an invalid URL. It does not show the path, which may contain a secret.
fn no_url<E: de::Error>(url: &str) -> E {
    let end = url.split_once("://").map_or(0, |(scheme, _)| scheme.len() + 3);
    let end = url[end..].find(['/', '?', '#', '@']).map_or(url.len(), |at| end + at);
    let (start, dots) = (&url[..end], if end < url.len() { "..." } else { "" });
    let words = match url[end..].contains('@') {
        true => "a text with `@` (not shown)".to_owned(),
        false => format!("`{start}{dots}`"),
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
    proxy.check_ranges()?;
    check_headers(proxy)?;
    check_tls(proxy).map_err(|error| error.under("tls"))
}

fn check_headers(proxy: &Proxy) -> Result<(), Error> {
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
