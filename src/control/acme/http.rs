//! The HTTP requests of the ACME client, on the connections of the control thread.

use super::failure::ErrorStatus;
use crate::control::authorities::Authorities;
use crate::control::client::{FetchedResponse, Target};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::sync::{mpsc, oneshot};

/// Timeout of one request.
const ANSWER: Duration = Duration::from_secs(30);
/// The maximum size of a response body, in bytes. A chain of certificates has a few KiB.
const ANSWER_BYTES: usize = 256 * 1024;
/// The number of requests that may wait for the task that sends them.
const QUEUE: usize = 8;
/// The name of this client, for the certificate authority.
const USER_AGENT: &str = concat!("polycast/", env!("CARGO_PKG_VERSION"), " instant-acme");

tokio::task_local! {
    /// How long the last refused request of this task is to wait, in seconds; 0 if the certificate
    /// authority has not said so.
    static ASKED_S: Arc<AtomicU64>;
}

/// Runs the requests of one order. Returns its result, and for how many seconds the certificate
/// authority has asked to wait after its last refusal; 0 if it has not.
pub(super) async fn noting_retry_after<F: Future>(order: F) -> (F::Output, u64) {
    let asked_s = Arc::new(AtomicU64::new(0));
    let output = ASKED_S.scope(asked_s.clone(), order).await;
    (output, asked_s.load(Ordering::Relaxed))
}

/// A request that waits to be sent.
struct Exchange {
    request: Request<BodyWrapper<Bytes>>,
    reply: oneshot::Sender<io::Result<FetchedResponse>>,
}

/// Passes requests to a task of the control thread. The client's own requests must be `Send`, which
/// connections of that thread are not.
pub(super) struct RequestQueue(mpsc::Sender<Exchange>);

impl RequestQueue {
    /// A queue whose requests are sent until it is dropped. Servers are verified by `authorities`.
    pub(super) fn new(authorities: Rc<Authorities>) -> RequestQueue {
        let (sender, mut receiver) = mpsc::channel::<Exchange>(QUEUE);
        tokio::task::spawn_local(async move {
            while let Some(Exchange { request, reply }) = receiver.recv().await {
                let authorities = authorities.clone();
                tokio::task::spawn_local(async move {
                    let _ = reply.send(send(request, &authorities).await);
                });
            }
        });
        RequestQueue(sender)
    }
}

impl HttpClient for RequestQueue {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let asked_s = ASKED_S.try_with(Arc::clone).unwrap_or_default();
        let queue = self.0.clone();
        Box::pin(async move {
            let (reply, answered) = oneshot::channel();
            let ended = || io::Error::other("the server stops");
            queue.send(Exchange { request, reply }).await.map_err(|_| other(ended()))?;
            let response = answered.await.map_err(|_| other(ended()))?.map_err(other)?;
            checked(response, &asked_s)
        })
    }
}

async fn send(
    request: Request<BodyWrapper<Bytes>>,
    authorities: &Rc<Authorities>,
) -> io::Result<FetchedResponse> {
    let (head, body) = request.into_parts();
    let invalid = || io::Error::other(format!("its URL {} cannot be used", head.uri));
    if head.uri.scheme_str() != Some("https") {
        return Err(invalid());
    }
    // The authorities of a file are read once, so here they stand in for the system's.
    let url = head.uri.to_string();
    // The directory is the operator's own choice, and often on a private network.
    let target = Target::new(&url, HeaderMap::new(), true, "", authorities).ok_or_else(invalid)?;
    let mut fields = head.headers;
    fields.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    target.exchange(head.method, &fields, body, ANSWER_BYTES, ANSWER).await
}

/// Passes a response on, unless it is an error that the client cannot read.
fn checked(response: FetchedResponse, asked_s: &AtomicU64) -> Result<BytesResponse, Error> {
    let FetchedResponse { status, headers, body } = response;
    if status.is_client_error() || status.is_server_error() {
        let now_s = OffsetDateTime::now_utc().unix_timestamp();
        asked_s.store(retry_after_s(&headers, now_s), Ordering::Relaxed);
        if serde_json::from_slice::<Problem>(&body).is_err() {
            return Err(Error::Other(Box::new(ErrorStatus { status: status.as_u16() })));
        }
    } else if status.is_redirection() {
        // Redirects are not followed, and the client would take the body for what it asked for.
        return Err(Error::Other(Box::new(ErrorStatus { status: status.as_u16() })));
    }
    let mut passed = Response::new(http_body_util::Full::new(body));
    *passed.status_mut() = status;
    *passed.headers_mut() = headers;
    Ok(BytesResponse::from(passed))
}

/// The wait that a Retry-After field asks for (RFC 9110 section 10.2.3), in seconds; 0 if there is
/// none, or none that can be read.
fn retry_after_s(headers: &HeaderMap, now_s: i64) -> u64 {
    let Some(text) = headers.get(header::RETRY_AFTER).and_then(|it| it.to_str().ok()) else {
        return 0;
    };
    let text = text.trim();
    text.parse().unwrap_or_else(|_| {
        let date = OffsetDateTime::parse(text, &Rfc2822).ok();
        date.map_or(0, |date| u64::try_from(date.unix_timestamp() - now_s).unwrap_or(0))
    })
}

fn other(error: io::Error) -> Error {
    Error::Other(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    #[test]
    fn acme_retry_after_is_seconds_or_a_date() {
        for (text, wait_s) in [
            ("120", 120),
            (" 7 ", 7),
            ("Fri, 31 Dec 1999 23:59:59 GMT", 59),
            ("Fri, 31 Dec 1999 23:58:00 GMT", 0),
            ("soon", 0),
            ("-5", 0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
            // 1999-12-31T23:59:00Z.
            assert_eq!(retry_after_s(&headers, 946_684_740), wait_s, "{text}");
        }
        assert_eq!(retry_after_s(&HeaderMap::new(), 0), 0);
    }

    #[test]
    fn acme_responses_without_a_problem_document_are_errors_by_status() {
        let response = |status, body: &'static str| FetchedResponse {
            status,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let asked_s = AtomicU64::new(0);
        let problem = "{\"type\":\"urn:ietf:params:acme:error:malformed\"}";
        for (status, body, passes) in [
            (StatusCode::OK, "anything", true),
            (StatusCode::BAD_REQUEST, problem, true),
            (StatusCode::BAD_GATEWAY, "<html>", false),
            (StatusCode::TOO_MANY_REQUESTS, "", false),
            (StatusCode::MOVED_PERMANENTLY, "{}", false),
        ] {
            let passed = checked(response(status, body), &asked_s);
            assert_eq!(passed.is_ok(), passes, "{status}");
        }
    }
}
