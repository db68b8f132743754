//! The front door: which endpoint a request reaches, and the endpoints that speak no dialect.

mod access;
mod certificate;
mod console;
mod metrics;
pub mod proxy;
mod router;
mod token;

pub use router::{RouteMatch, RouteRefusal, Router};

use crate::config::{Config, EndpointKind};
use crate::http::Request;
use crate::stats::Counters;
use crate::ws::MessageKind;
use crate::ws::output::Output;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// The `echo` endpoint: sends each message back as it came; false if that cannot be said.
pub fn echo(out: &mut Output<'_>, kind: MessageKind, payload: &[u8]) -> bool {
    out.message(kind, payload)
}

/// What a page is made from, beside the request for it.
#[derive(Clone, Copy)]
pub struct Visit<'a> {
    /// Who asks.
    pub peer: IpAddr,
    /// The configuration.
    pub config: &'a Config,
    /// What each core counts.
    pub counters: &'a [Arc<Counters>],
    /// What the control thread counts.
    pub control: &'a Counters,
    /// The connections of the application with this number.
    pub connections: &'a dyn Fn(usize) -> usize,
    /// Whether the server is being shut down.
    pub draining: bool,
}

/// An answer to a plain request.
#[derive(Debug)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The type of the body.
    pub content_type: &'static str,
    /// Further header fields.
    pub fields: &'static [(&'static str, &'static str)],
    /// The body.
    pub body: Cow<'static, [u8]>,
}

impl Page {
    /// A few words that nobody keeps.
    fn text(status: u16, words: &'static str) -> Page {
        Page {
            status,
            content_type: "text/plain; charset=utf-8",
            fields: NO_STORE,
            body: Cow::Borrowed(words.as_bytes()),
        }
    }
}

/// Answers a plain request for an endpoint that has pages. `None` where nothing is served: at an
/// endpoint without pages, or at one that is switched off.
pub fn page(endpoint: EndpointKind, request: &Request<'_>, visit: &Visit<'_>) -> Option<Page> {
    let answer = match endpoint {
        EndpointKind::Echo
        | EndpointKind::Reflect
        | EndpointKind::Proxy
        | EndpointKind::Apps
        | EndpointKind::Zenith
        | EndpointKind::Zilliqa
        | EndpointKind::Reject => return None,
        EndpointKind::Console => console::answer(request, visit)?,
        EndpointKind::Metrics => metrics::answer(request, visit),
        EndpointKind::Health => health(request.path(), visit.draining),
    };
    if !matches!(request.method, "GET" | "HEAD") {
        return Some(Page { fields: ALLOW, ..Page::text(405, "only GET and HEAD\n") });
    }
    Some(answer)
}

/// Whoever asks is answered at all: the process runs.
fn health(path: &str, draining: bool) -> Page {
    match draining && path.ends_with("/ready") {
        false => Page::text(200, "ok\n"),
        true => Page::text(503, "shutting down\n"),
    }
}

const NO_STORE: &[(&str, &str)] = &[("Cache-Control", "no-store")];
const ALLOW: &[(&str, &str)] = &[("Allow", "GET, HEAD")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_ready_ends_before_live() {
        let status = |path, draining| health(path, draining).status;
        assert_eq!([status("/live", false), status("/live", true)], [200, 200]);
        assert_eq!([status("/ready", false), status("/ready", true)], [200, 503]);
    }
}
