//! From a request to a WebSocket or to an HTTP stream: the router, the handshake, and the endpoint.

use super::connecting::{PendingUpstream, UpstreamRequest, begin_stream};
use super::cors;
use super::endpoint::Endpoint;
use super::policy::ConnectionPolicy;
use super::records::{Input, Records};
use super::respond::{self, REJECTED, router};
use super::transition::Transition;
use super::upgrade;
use super::websocket::WebSocket;
use crate::claims::Claims;
use crate::config;
use crate::dialect::{Connection, DialectContext, Opening};
use crate::gateway::{self, RouteMatch, RouteRefusal};
use crate::http::{self, Body, Request, Response, push_field, push_status};
use crate::runtime::LiveRoute;
use crate::session::Context;
use crate::session::context::context;
use crate::stats::Counters;
use crate::ws::extension::{self, Agreed, Compression};
use crate::ws::output::Channel;
use crate::ws::record::{self, EVENT_STREAM, RecordFraming};

pub(super) const TOO_MANY: &str = "this address has too many connections\n";

/// Handles a WebSocket handshake. All earlier requests must have been answered.
pub(super) fn open(request: &Request<'_>, out: &mut Vec<u8>, cx: &mut Context<'_>) -> Transition {
    let counters = cx.counters;
    let refuse_with = |out: &mut Vec<u8>, status, text: &str, fields: &[(&str, &str)]| {
        refuse_handshake(out, (status, text), fields, counters)
    };
    let refuse = |out: &mut Vec<u8>, status, text: &str| refuse_with(out, status, text, &[]);
    let accepted = match upgrade::check(request) {
        Ok(accepted) => accepted,
        Err(refusal) => {
            refusal.respond(out);
            cx.counters.http_errors.add(1);
            return Transition::FLUSH;
        }
    };
    if !cx.admit() {
        return refuse_with(out, 429, TOO_MANY, &[("Retry-After", "1")]);
    }
    let gateway::RouteMatch { route, number, protocol: listed, leases, claims } =
        match router(cx).socket(request) {
            Ok(entry) => entry,
            Err(refusal) => {
                let text = format!("{}\n", refusal.text());
                return refuse_with(out, refusal.status(), &text, refusal.fields());
            }
        };
    if route.endpoint == config::EndpointKind::Reject {
        return refuse(out, route.status, &format!("{REJECTED}\n"));
    }
    let Ok(agreed) = extension::negotiate(accepted.extensions(), compression(route)) else {
        return refuse(out, 400, "Sec-WebSocket-Extensions is malformed\n");
    };
    let LiveRoute { rules, upstreams } = cx.env.runtime.route(number);
    if let Some(upstreams) = upstreams {
        let channel = agreed.and_then(|agreed| compress(agreed, &accepted, cx));
        let policy = ConnectionPolicy::new(rules.clone(), leases);
        let upgrade = UpstreamRequest { head: begun(&accepted), records: None, channel, policy };
        return match PendingUpstream::begin(upstreams, request, upgrade, cx) {
            Ok(waiting) => Transition::Connecting(waiting),
            Err((status, text)) => refuse(out, status, &format!("{text}\n")),
        };
    }
    let opening = opening(route, request, claims.as_ref(), cx);
    let chosen = match route.endpoint {
        config::EndpointKind::Echo => Ok(None),
        _ => Connection::subprotocol(cx.env, &opening),
    };
    let protocol = match chosen {
        Ok(protocol) => protocol.or(listed),
        Err(refused) => return refuse(out, refused.status, &format!("{}\n", refused.text)),
    };
    let channel = agreed.and_then(|agreed| compress(agreed, &accepted, cx));
    let answer = channel.as_ref().map(|channel| channel.agreed().answer());
    upgrade::accept(out, &accepted, protocol, answer.as_deref());
    cx.counters.upgrades.add(1);
    let policy = ConnectionPolicy::new(rules.clone(), leases);
    enter(Input::FRAMES, channel, policy, &opening, out, cx)
}

/// The head of the response to a handshake, up to what the upstream decides.
fn begun(accepted: &upgrade::Upgrade<'_>) -> Vec<u8> {
    let mut head = Vec::new();
    upgrade::begin(&mut head, accepted);
    head
}

/// Answers a handshake with an error. The connection ends.
fn refuse_handshake(
    out: &mut Vec<u8>,
    (status, text): (u16, &str),
    fields: &[(&str, &str)],
    counters: &Counters,
) -> Transition {
    let response = Response::text(status, text).headers(fields);
    response.connection(http::Connection::Close).push(out);
    counters.http_errors.add(1);
    Transition::FLUSH
}

/// Opens an HTTP stream for the head of a request. All earlier requests must have been answered.
pub(super) fn open_stream(
    request: &Request<'_>,
    body: Body,
    entry: Result<RouteMatch<'_, '_>, RouteRefusal>,
    out: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Transition {
    let entry = match entry {
        Ok(entry) => entry,
        Err(refusal) => {
            respond::refuse(refusal, http::Connection::Close, false, out, cx);
            return Transition::FLUSH;
        }
    };
    let Some(framing) = request.header("content-type").and_then(RecordFraming::of) else {
        let text = "a stream is application/x-ndjson, application/octet-stream or text";
        return bad(415, text, out, cx);
    };
    let half_open = entry.route.endpoint != config::EndpointKind::Echo;
    let max_overhead = cx.env.config.limits.http_head_bytes;
    let records = Records::new(framing, body, max_overhead, half_open);
    let framing = match accepts_events(request) {
        true => RecordFraming::Events,
        false => framing,
    };
    begin(request, entry, records, framing, out, cx)
}

/// Opens an HTTP stream whose records to the client have a framing.
pub(super) fn begin(
    request: &Request<'_>,
    entry: RouteMatch<'_, '_>,
    records: Records,
    framing: RecordFraming,
    out: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Transition {
    let RouteMatch { route, number, leases, claims, .. } = entry;
    if !cx.admit() {
        return bad(429, TOO_MANY.trim_end(), out, cx);
    }
    let is_events = framing == RecordFraming::Events;
    let shared_with = cors::reader(request).filter(|_| is_events);
    let fields = shared_with.as_ref().map(cors::fields).unwrap_or_default();
    let records = Box::new(records);
    let channel = Some(Box::new(Channel::of_records(framing)));
    let LiveRoute { rules, upstreams } = cx.env.runtime.route(number);
    if let Some(upstreams) = upstreams {
        let mut head = Vec::new();
        push_head(request, framing, &fields, &mut head);
        let policy = ConnectionPolicy::new(rules.clone(), leases);
        let upgrade = UpstreamRequest { head, records: Some(records), channel, policy };
        let waiting = PendingUpstream::begin(upstreams, request, upgrade, cx);
        return match waiting {
            Ok(waiting) => Transition::Connecting(waiting),
            Err((status, text)) => bad(status, text, out, cx),
        };
    }
    let mut opening = opening(route, request, claims.as_ref(), cx);
    opening.receives_events = is_events;
    push_head(request, framing, &fields, out);
    out.extend_from_slice(b"\r\n");
    begin_stream(Some(framing), opening.last_event_id().as_deref(), out, cx);
    let policy = ConnectionPolicy::new(rules.clone(), leases);
    enter(Input::Records(records), channel, policy, &opening, out, cx)
}

/// Whether the client names `text/event-stream` among the types that it accepts.
pub(super) fn accepts_events(request: &Request<'_>) -> bool {
    request.headers.tokens("accept").any(|range| {
        let essence = range.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(EVENT_STREAM)
    })
}

fn bad(status: u16, text: &str, out: &mut Vec<u8>, cx: &Context<'_>) -> Transition {
    cx.counters.http_requests.add(1);
    cx.counters.http_errors.add(1);
    let text = format!("{text}\n");
    let response = http::Response::text(status, &text);
    response.connection(http::Connection::Close).push(out);
    Transition::FLUSH
}

/// Writes the head of the response, without its final blank line. If the request has `Expect:
/// 100-continue`, a 100 response comes first, because not every client accepts a final response in
/// its place (RFC 9110 section 10.1.1).
pub(super) fn push_head(
    request: &Request<'_>,
    framing: RecordFraming,
    fields: &[(&str, &str)],
    out: &mut Vec<u8>,
) {
    if request.headers.has_token("Expect", "100-continue") {
        out.extend_from_slice(http::CONTINUE);
    }
    push_status(out, 200);
    push_field(out, "Content-Type", framing.media_type());
    push_field(out, "Transfer-Encoding", "chunked");
    push_field(out, "Trailer", record::TRAILER);
    push_field(out, "Cache-Control", "no-store");
    if framing == RecordFraming::Events {
        // Tells nginx not to gather the response before it forwards it.
        push_field(out, "X-Accel-Buffering", "no");
    }
    for (name, value) in fields {
        push_field(out, name, value);
    }
    push_field(out, "Connection", "close");
}

/// The facts about a new connection by which its dialect opens it.
pub(super) fn opening<'o>(
    route: &'o config::Route,
    request: &'o Request<'_>,
    claims: Option<&'o Claims>,
    cx: &Context<'_>,
) -> Opening<'o> {
    Opening {
        now: cx.now,
        conn: cx.conn,
        peer: cx.peer,
        route,
        path: request.path(),
        query: request.query(),
        origin: request.header("origin"),
        secure: cx.secure,
        headers: &request.headers,
        claims,
        receives_events: false,
    }
}

/// Opens a connection at the endpoint of its route; the response to its handshake is already
/// written.
fn enter(
    input: Input,
    mut channel: Option<Box<Channel>>,
    policy: Option<Box<ConnectionPolicy>>,
    opening: &Opening<'_>,
    out: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Transition {
    let mut wanted = None;
    let endpoint = endpoint(opening, &mut context(out, channel.as_deref_mut(), &mut wanted, cx));
    let mut socket = WebSocket::new(input, endpoint, channel, policy, cx.now.ms);
    if let Some(closing) = wanted {
        socket.close(&closing, out);
    }
    Transition::Upgraded(Box::new(socket))
}

fn endpoint(opening: &Opening<'_>, context: &mut DialectContext<'_>) -> Endpoint {
    if opening.route.endpoint == config::EndpointKind::Echo {
        // A route's limit is at most the server's limit, which is at most 1 GiB.
        return Endpoint::Echo(opening.route.message_bytes as u32);
    }
    Connection::open(context, opening).map_or(Endpoint::Refused, Endpoint::Dialect)
}

fn compression(route: &config::Route) -> Compression {
    match route.compression {
        config::CompressionMode::Off => Compression::Off,
        config::CompressionMode::Shared => Compression::Shared,
        config::CompressionMode::Dedicated => Compression::Dedicated,
    }
}

/// Sets up the negotiated compression, or compression with shared windows if the core's memory for
/// kept windows is used up.
fn compress(
    agreed: Agreed,
    accepted: &upgrade::Upgrade<'_>,
    cx: &mut Context<'_>,
) -> Option<Box<Channel>> {
    let min_bytes = cx.env.config.compression.min_bytes;
    let channel = Channel::new(agreed, min_bytes, cx.codecs).or_else(|| {
        cx.counters.windows_refused.add(1);
        let shared = extension::negotiate(accepted.extensions(), Compression::Shared);
        Channel::new(shared.ok()??, min_bytes, cx.codecs)
    });
    channel.map(Box::new)
}
