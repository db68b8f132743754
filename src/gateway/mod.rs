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
    /// The events for its webhooks that were dropped.
    pub dropped_hooks: &'a dyn Fn(usize) -> u64,
    /// Whether the server is being shut down.
    pub draining: bool,
    /// Milliseconds on the clock of all threads.
    pub now_ms: u64,
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
        EndpointKind::Health => health(request.path(), visit),
    };
    if !matches!(request.method, "GET" | "HEAD") {
        return Some(Page { fields: ALLOW, ..Page::text(405, "only GET and HEAD\n") });
    }
    Some(answer)
}

/// How long a thread may do without a sign of life, in milliseconds. An idle one gives a sign each
/// second.
pub const STALLED_MS: u64 = 10_000;

/// Whether a thread with these counters, which has begun, stands still.
pub fn is_stalled(counters: &Counters, now_ms: u64) -> bool {
    let beat_ms = counters.beat_ms.get();
    beat_ms > 0 && now_ms.saturating_sub(beat_ms) > STALLED_MS
}

/// Whoever asks is answered by one core: the process lives if all others move, too. It is ready if
/// the control thread does so as well.
fn health(path: &str, visit: &Visit<'_>) -> Page {
    let ready = path.ends_with("/ready");
    if ready && visit.draining {
        return Page::text(503, "shutting down\n");
    }
    if visit.counters.iter().any(|core| is_stalled(core, visit.now_ms)) {
        return Page::text(503, "a reactor stands still\n");
    }
    if ready && is_stalled(visit.control, visit.now_ms) {
        return Page::text(503, "the control thread stands still\n");
    }
    Page::text(200, "ok\n")
}

const NO_STORE: &[(&str, &str)] = &[("Cache-Control", "no-store")];
const ALLOW: &[(&str, &str)] = &[("Allow", "GET, HEAD")];

#[cfg(test)]
mod tests {
    use super::*;

    /// The statuses of `/live` and `/ready` with these signs of life, at 100 000 ms.
    fn statuses(draining: bool, cores: [u64; 2], control: u64) -> [u16; 2] {
        let counters = |beat_ms| {
            let counters = Counters::default();
            counters.beat_ms.set(beat_ms);
            counters
        };
        let cores = cores.map(|beat_ms| Arc::new(counters(beat_ms)));
        let visit = Visit {
            peer: std::net::Ipv4Addr::LOCALHOST.into(),
            config: &Config::demo(),
            counters: &cores,
            control: &counters(control),
            connections: &|_| 0,
            dropped_hooks: &|_| 0,
            draining,
            now_ms: 100_000,
        };
        ["/live", "/ready"].map(|path| health(path, &visit).status)
    }

    #[test]
    fn health_ends_with_readiness_before_the_process() {
        assert_eq!(statuses(false, [100_000; 2], 0), [200, 200]);
        assert_eq!(statuses(true, [100_000; 2], 0), [200, 503]);
    }

    #[test]
    fn health_fails_when_a_thread_stands_still() {
        let (late, too_late) = (100_000 - STALLED_MS, 100_000 - STALLED_MS - 1);
        assert_eq!(statuses(false, [100_000, late], late), [200, 200]);
        assert_eq!(statuses(false, [100_000, too_late], late), [503, 503]);
        assert_eq!(statuses(false, [100_000, late], too_late), [200, 503]);
        assert_eq!(statuses(false, [100_000, 0], 0), [200, 200], "one has not begun");
    }
}
