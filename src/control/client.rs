//! An HTTP/1 client for one target: one request at a time, over a kept connection if there is one.
//!
//! The client resolves the host, checks the addresses, and connects to one of the checked
//! addresses, so that a second DNS lookup cannot replace it (DNS rebinding). Redirects are not
//! followed.

use super::address::is_public;
use super::authorities::Authorities;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::rt::{Read, Write};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// The maximum size of the body of a response whose status is not 200, in bytes.
const ERROR_BYTES: usize = 16 * 1024;
/// The error if no address of the host may be used.
const PRIVATE_ONLY: &str = "the host has only private addresses, which are not allowed";

/// A complete response to a GET request.
#[derive(Debug)]
pub(super) struct FetchedResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Where requests are sent, and the header fields that all of them have.
pub(super) struct Target {
    host: String,
    port: u16,
    tls: Option<(Rc<Authorities>, ServerName<'static>)>,
    path: String,
    fields: HeaderMap,
    allow_private: bool,
}

/// An idle connection that is kept for the next request, if there is one.
pub(super) type Kept = RefCell<Option<Connection>>;

/// An open HTTP connection that can send a request.
pub(super) type Connection = SendRequest<Full<Bytes>>;

impl Target {
    /// A target for `url`. Returns `None` if the URL is invalid. Servers are verified by the
    /// certificate authorities of `ca_file`, or by the system's, `system`, if `ca_file` is empty.
    pub(super) fn new(
        url: &str,
        fields: HeaderMap,
        allow_private: bool,
        ca_file: &str,
        system: &Rc<Authorities>,
    ) -> Option<Target> {
        let uri: Uri = url.parse().ok()?;
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = match secure {
            true => {
                let name = ServerName::try_from(host.clone()).ok()?;
                Some((Authorities::of(ca_file, system), name))
            }
            false => None,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let mut target = Target { host, port, tls, path, fields, allow_private };
        let authority = uri.authority()?.as_str();
        let set = [
            (header::HOST, authority),
            // Without parameters, because some receivers compare the whole value.
            (header::CONTENT_TYPE, "application/json"),
            (header::USER_AGENT, concat!("polycast/", env!("CARGO_PKG_VERSION"))),
        ];
        for (name, value) in set {
            let value = HeaderValue::from_str(value).ok()?;
            target.fields.entry(name).or_insert(value);
        }
        Some(target)
    }

    /// The host, for log lines: the rest of the URL may be secret.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The path and query of the target's URL.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Sends a POST request over the kept connection or a new one, and returns the head of the
    /// response. Returns `None` if the host has only private addresses and they are not allowed.
    /// There is no timeout.
    ///
    /// # Errors
    /// The request cannot be built, the host cannot be resolved, or the connection fails.
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
        // There was no kept connection, or the peer has closed it since, which is not an error.
        let Some(mut connection) = self.connect().await? else { return Ok(None) };
        let response = connection.send_request(request).await.map_err(io::Error::other)?;
        Ok(Some((response, connection)))
    }

    /// Fetches the target's URL over a new connection. Returns `None` if there is no response with
    /// status 200 within `within`, or its body has more than `max_bytes` bytes.
    pub(super) async fn get(&self, max_bytes: usize, within: Duration) -> Option<Bytes> {
        let got =
            self.get_at(&self.path, max_bytes, within).await.and_then(|got| match got.status {
                StatusCode::OK => Ok(got.body),
                status => Err(io::Error::other(status.to_string())),
            });
        match got {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::debug!(host = self.host, %error, "a fetch has failed");
                None
            }
        }
    }

    /// Fetches `path` from the target's host over a new connection. The body of a response with
    /// another status than 200 is only for the log: it is empty if it has more than 16 KiB.
    ///
    /// # Errors
    /// There is no complete response within `within`, the body of a 200 has more than `max_bytes`
    /// bytes, or the host has only private addresses and they are not allowed.
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
                return Err(io::Error::other(PRIVATE_ONLY));
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

    /// Sends a request of any method over a new connection. `fields` are set in addition to the
    /// target's. The response may have any status; its body is read up to `max_bytes` bytes.
    ///
    /// # Errors
    /// There is no complete response within `within`, its body is longer, or the host has only
    /// private addresses and they are not allowed.
    pub(super) async fn exchange(
        &self,
        method: Method,
        fields: &HeaderMap,
        body: Bytes,
        max_bytes: usize,
        within: Duration,
    ) -> io::Result<FetchedResponse> {
        let attempt = async {
            let mut request = Request::new(Full::new(body));
            *request.method_mut() = method;
            *request.uri_mut() = self.path.parse().map_err(io::Error::other)?;
            *request.headers_mut() = self.fields.clone();
            request.headers_mut().remove(header::CONTENT_TYPE);
            request.headers_mut().extend(fields.clone());
            let Some(mut connection) = self.connect().await? else {
                return Err(io::Error::other(PRIVATE_ONLY));
            };
            let response = connection.send_request(request).await.map_err(io::Error::other)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, max_bytes).collect().await.map_err(io::Error::other)?;
            let body = body.to_bytes();
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

    /// Connects to the first allowed address that accepts the connection. Returns `None` if no
    /// address is allowed.
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
            Some((authorities, name)) => {
                let connector = authorities.connector().await?;
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
    // The task ends when the connection is closed or its sender is dropped.
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Reads the body of a response, of at most `max_bytes` bytes, and keeps the connection if it is
/// still open.
///
/// # Errors
/// The connection fails, or the body is longer: see [`is_too_long`].
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

/// Whether [`finish`] failed because the body was longer than `max_bytes`.
pub(super) fn is_too_long(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<LengthLimitError>())
}
