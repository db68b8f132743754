//! The gateway: which route and endpoint a request reaches, and the endpoints that have no dialect:
//! `echo`, `proxy` and the pages.

mod access;
mod certificate;
mod challenge;
mod console;
pub mod forwarded;
mod metrics;
mod page;
pub mod proxy;
mod router;
mod token;

pub use challenge::challenge;
pub use page::{Page, Visit};
pub use router::{RouteMatch, RouteRefusal, Router};

use crate::config::EndpointKind;
use crate::http::Request;
use crate::stats::Counters;
use crate::ws::MessageKind;
use crate::ws::output::Output;

/// The `echo` endpoint: sends a message back unchanged. False if the peer's record framing has no
/// record for the message.
pub fn echo(out: &mut Output<'_>, kind: MessageKind, payload: &[u8]) -> bool {
    out.message(kind, payload)
}

/// Answers an HTTP request for an endpoint that has pages. `None` if the endpoint has no pages, or
/// its page is switched off. A method other than GET or HEAD gets 405.
pub fn page(endpoint: EndpointKind, request: &Request<'_>, visit: &Visit<'_>) -> Option<Page> {
    let answer = match endpoint {
        EndpointKind::Console => console::answer(request, visit)?,
        EndpointKind::Metrics => metrics::answer(request, visit),
        EndpointKind::Health => health(request.path(), visit),
        _ => return None,
    };
    if !matches!(request.method, "GET" | "HEAD") {
        return Some(Page { fields: ALLOW, ..Page::text(405, "only GET and HEAD\n") });
    }
    Some(answer)
}

/// How long a thread may go without updating `beat_ms` before it counts as stalled, in
/// milliseconds. An idle thread updates it every second.
pub const STALLED_MS: u64 = 10_000;

/// Whether the thread of these counters has started and has not updated `beat_ms` for more than
/// [`STALLED_MS`].
pub fn is_stalled(counters: &Counters, now_ms: u64) -> bool {
    let beat_ms = counters.beat_ms.get();
    beat_ms > 0 && now_ms.saturating_sub(beat_ms) > STALLED_MS
}

/// The liveness page, or the readiness page if the path ends with `/ready`. The process is live if
/// no core is stalled; it is ready if the control thread is not stalled either and the server is
/// neither draining nor about to drain. Missing certificates do not count: a certificate authority
/// may reach the server only through a balancer that looks at this page.
fn health(path: &str, visit: &Visit<'_>) -> Page {
    let ready = path.ends_with("/ready");
    if ready && visit.leaving {
        return Page::text(503, "shutting down\n");
    }
    if visit.counters.iter().any(|core| is_stalled(core, visit.now_ms)) {
        return Page::text(503, "a reactor makes no progress\n");
    }
    if ready && is_stalled(visit.control, visit.now_ms) {
        return Page::text(503, "the control thread makes no progress\n");
    }
    if ready && let (domains, missing @ 1..) = visit.issued.count() {
        let text = format!("ok\n{missing} of {domains} ACME domains have no certificate yet\n");
        return Page { body: text.into_bytes().into(), ..Page::text(200, "") };
    }
    Page::text(200, "ok\n")
}

const ALLOW: &[(&str, &str)] = &[("Allow", "GET, HEAD")];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::runtime::ClusterStatus;
    use crate::tls::IssuedCertificates;
    use std::sync::Arc;

    /// The statuses of `/live` and `/ready` at 100 000 ms, with these values of `beat_ms`.
    fn statuses(leaving: bool, cores: [u64; 2], control: u64) -> [u16; 2] {
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
            issued: &IssuedCertificates::default(),
            cluster: &ClusterStatus::default(),
            leaving,
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
