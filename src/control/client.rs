//! One HTTP request at a time to one place, over a connection that is kept if it can be.
//!
//! A name is resolved here, its addresses are checked, and one that has passed is connected to: no
//! second look-up can give another. Redirects are answers like any other.

use super::address::is_public;
use crate::tls::{self, Roots};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, crypto};

/// Bytes of an answer that is no 200.
const ERROR_BYTES: usize = 16 * 1024;

/// A whole answer to a GET.
#[derive(Debug)]
pub(super) struct FetchedResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Where requests go, and what every one of them has.
pub(super) struct Target {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    path: String,
    fields: HeaderMap,
    allow_private: bool,
}

/// A connection that waits for the next request.
pub(super) type Kept = RefCell<Option<Connection>>;

/// A connection that can make a request.
pub(super) type Connection = SendRequest<Full<Bytes>>;

impl Target {
    /// The place of a checked configuration; `None` if it is none after all. The authorities that
    /// vouch for it are those of `ca_file`, or the system's: `tls` is what verifies by these, made
    /// when it is needed first.
    pub(super) fn new(
        url: &str,
        fields: HeaderMap,
        allow_private: bool,
        ca_file: &str,
        tls: &mut Option<TlsConnector>,
    ) -> Option<Target> {
        let uri: Uri = url.parse().ok()?;
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = match secure {
            true => {
                let connector = match ca_file {
                    "" => match tls {
                        Some(connector) => connector.clone(),
                        None => tls.insert(connector(Roots::of_system())?).clone(),
                    },
                    file => connector(roots_of(file)?)?,
                };
                Some((connector, ServerName::try_from(host.clone()).ok()?))
            }
            false => None,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let mut target = Target { host, port, tls, path, fields, allow_private };
        let authority = uri.authority()?.as_str();
        let set = [
            (header::HOST, authority),
            // Nothing behind it: some receivers compare the whole value.
            (header::CONTENT_TYPE, "application/json"),
            (header::USER_AGENT, concat!("polycast/", env!("CARGO_PKG_VERSION"))),
        ];
        for (name, value) in set {
            let value = HeaderValue::from_str(value).ok()?;
            target.fields.entry(name).or_insert(value);
        }
        Some(target)
    }

    /// The host, for the log: the rest of the URL may be secret.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The path that it was made with.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The head of the answer to one POST, over the kept connection or a new one; `None` if the
    /// place is where it may not be. Takes as long as it takes.
    pub(super) async fn send(
        &self,
        kept: &Kept,
        body: &Bytes,
        more: &[(HeaderName, String)],
    ) -> io::Result<Option<(Response<Incoming>, Connection)>> {
        let request = self.request(body, more).ok_or(io::ErrorKind::InvalidInput)?;
        let reused = kept.borrow_mut().take();
        if let Some(mut connection) = reused
            && connection.ready().await.is_ok()
            && let Ok(response) = connection.send_request(request.clone()).await
        {
            return Ok(Some((response, connection)));
        }
        // There was none, or the peer has closed it since, which is nobody's failure.
        let Some(mut connection) = self.connect().await? else { return Ok(None) };
        let response = connection.send_request(request).await.map_err(io::Error::other)?;
        Ok(Some((response, connection)))
    }

    /// What is there, by a connection of its own. `None` if it is not to be had in time, or has
    /// more than `max_bytes` bytes.
    pub(super) async fn get(&self, max_bytes: usize, within: Duration) -> Option<Bytes> {
        let got =
            self.get_at(&self.path, max_bytes, within).await.and_then(|got| match got.status {
                StatusCode::OK => Ok(got.body),
                status => Err(io::Error::other(status.to_string())),
            });
        match got {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::debug!(host = self.host, %error, "nothing is fetched");
                None
            }
        }
    }

    /// The answer of another path there, by a connection of its own; `within` a time, and of at
    /// most `max_bytes` bytes. The body of one that is no 200 is only for the log: if it has more
    /// than 16 KiB, it is left out.
    pub(super) async fn get_at(
        &self,
        path: &str,
        max_bytes: usize,
        within: Duration,
    ) -> io::Result<FetchedResponse> {
        let attempt = async {
            let mut request = Request::get(path).body(Full::default()).map_err(io::Error::other)?;
            *request.headers_mut() = self.fields.clone();
            request.headers_mut().remove(header::CONTENT_TYPE);
            let Some(mut connection) = self.connect().await? else {
                return Err(io::Error::other("it is at a private address, and not allowed to be"));
            };
            let response = connection.send_request(request).await.map_err(io::Error::other)?;
            let (head, body) = response.into_parts();
            let is_ok = head.status == StatusCode::OK;
            let max_bytes = if is_ok { max_bytes } else { max_bytes.min(ERROR_BYTES) };
            let body = match Limited::new(body, max_bytes).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if is_ok => return Err(io::Error::other(error)),
                Err(_) => Bytes::new(),
            };
            Ok(FetchedResponse { status: head.status, headers: head.headers, body })
        };
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(within, attempt).await.map_err(|_| late())?
    }

    fn request(&self, body: &Bytes, more: &[(HeaderName, String)]) -> Option<Request<Full<Bytes>>> {
        let mut request = Request::post(&self.path).body(Full::new(body.clone())).ok()?;
        *request.headers_mut() = self.fields.clone();
        for (name, value) in more {
            request.headers_mut().insert(name, HeaderValue::from_str(value).ok()?);
        }
        Some(request)
    }

    /// Connects to the first address that may be connected to and can be; `None` if none may.
    async fn connect(&self) -> io::Result<Option<Connection>> {
        let mut addresses = self.resolve().await?;
        let found = !addresses.is_empty();
        addresses.retain(|address| self.allow_private || is_public(address.ip()));
        if found && addresses.is_empty() {
            return Ok(None);
        }
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return self.speak(stream).await.map(Some),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        Ok(tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect())
    }

    async fn speak(&self, stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        match &self.tls {
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await?;
                handshake(TokioIo::new(stream)).await
            }
            None => handshake(TokioIo::new(stream)).await,
        }
    }
}

async fn handshake<S>(stream: S) -> io::Result<Connection>
where
    S: Read + Write + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    // Ends with the connection, or with its sender.
    tokio_uring::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// The body of an answer, of at most `max_bytes` bytes; keeps the connection if that was possible.
pub(super) async fn finish(
    response: Response<Incoming>,
    connection: Connection,
    kept: &Kept,
    max_bytes: usize,
) -> io::Result<Bytes> {
    let body = Limited::new(response.into_body(), max_bytes).collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    if !connection.is_closed() {
        *kept.borrow_mut() = Some(connection);
    }
    Ok(body)
}

/// Whether [`finish`] has failed because the body was too long.
pub(super) fn is_too_long(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<LengthLimitError>())
}

/// The authorities of a file that was read when the configuration was.
fn roots_of(file: &str) -> Option<Roots> {
    match tls::roots(Path::new(file)) {
        Ok(roots) => Some(roots),
        Err(error) => {
            tracing::warn!(%error, "authorities cannot be read");
            None
        }
    }
}

/// What verifies servers by `roots`.
fn connector(roots: Roots) -> Option<TlsConnector> {
    let verifier = match roots.verifier() {
        Ok(verifier) => verifier,
        Err(error) => {
            tracing::warn!(%error, "there are no authorities");
            return None;
        }
    };
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("this provider has the default versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Some(TlsConnector::from(Arc::new(config)))
}
