//! Server-sent events (WHATWG HTML, section 9.2): a GET request whose response is a stream of
//! events. The request is either for channels of an application, at the path for events of that
//! application, or for an endpoint of a route with `stream`, with an `Accept` that names
//! `text/event-stream`.
//!
//! Everything is checked before the response begins, so that a client gets an HTTP error. After
//! that the connection is that of any other HTTP stream, except that its client sends nothing.

use super::connecting::begin_stream;
use super::cors;
use super::endpoint::Endpoint;
use super::policy::ConnectionPolicy;
use super::records::{Input, Records};
use super::respond::{self, ResponseOptions, error, refuse, router, send, unless_failed};
use super::route::{self, opening, push_head};
use super::transition::Transition;
use super::websocket::WebSocket;
use crate::config::{EndpointKind, Route};
use crate::dialect::{self, Connection, ConnectionEnd, HttpReply, PathError, Rejection};
use crate::gateway::{RouteMatch, RouteRefusal};
use crate::http::{HttpVersion, Request, Response};
use crate::session::Context;
use crate::session::context::context;
use crate::ws::output::Channel;
use crate::ws::record::RecordFraming;

/// The methods of a path for events.
const METHODS: &str = "GET, HEAD, OPTIONS";
/// The header fields that a page of another origin may send with its request.
const FIELDS: &str = "Accept, Authorization, Cache-Control, Last-Event-ID";
const TOO_EARLY: &str = "earlier requests are not answered yet, or this one has a long body";
const OLD_VERSION: &str = "a stream of events needs HTTP/1.1";

/// What a request for server-sent events is for.
#[derive(Clone, Copy)]
pub(super) enum EventsTarget {
    /// The channels of an application; `None` if no application has the key.
    Channels(Option<u32>),
    /// An endpoint with streams.
    Endpoint,
}

/// Whether a request is for server-sent events, and what for.
pub(super) fn target(
    route: &Route,
    request: &Request<'_>,
    cx: &Context<'_>,
) -> Option<EventsTarget> {
    match route.endpoint {
        EndpointKind::Apps => match cx.env.app_of_events(request.path(), request.method) {
            Err(PathError::NoSuchPath) => None,
            found => Some(EventsTarget::Channels(found.ok())),
        },
        EndpointKind::Echo => None,
        _ => {
            let reads = matches!(request.method, "GET" | "HEAD");
            (route.stream && reads && route::accepts_events(request))
                .then_some(EventsTarget::Endpoint)
        }
    }
}

/// The reply to a request for which no stream is opened.
enum Reply {
    /// The head of the stream, for HEAD.
    Head,
    /// The response to a CORS preflight.
    Preflight,
    /// An error.
    Refused(HttpReply),
}

/// Answers a request for server-sent events. If a stream is opened, the head of its response is
/// written to `room`, and the result is `Err` with the transition of the connection to that stream.
/// Any other response is returned as bytes, with whether the connection ends after it. Without
/// `room`, no stream may be opened now, and a GET is refused.
///
/// # Errors
/// The transition to the stream, which is no failure.
pub(super) fn answer(
    target: EventsTarget,
    entry: RouteMatch<'_, '_>,
    request: &Request<'_>,
    room: Option<&mut Vec<u8>>,
    cx: &mut Context<'_>,
) -> Result<(Vec<u8>, bool), Transition> {
    let head_only = request.method == "HEAD";
    let mut bytes = Vec::new();
    let refuses_origin = refuses_origin(target, request, cx);
    let reply = match refuses_origin {
        true => None,
        false => Some(open(target, entry, request, room, cx)?),
    };
    let (connection, last) = unless_failed(request.connection(), cx);
    let shared_with = cors::reader(request);
    match reply {
        None => {
            cx.counters.origins_refused.add(1);
            refuse(RouteRefusal::Origin, connection, head_only, &mut bytes, cx);
        }
        Some(Reply::Head) => {
            cx.counters.http_requests.add(1);
            let fields = shared_with.as_ref().map(cors::fields).unwrap_or_default();
            push_head(request, RecordFraming::Events, &fields, &mut bytes);
            bytes.extend_from_slice(b"\r\n");
            return Ok((bytes, true));
        }
        Some(Reply::Preflight) => {
            let mut fields = shared_with.as_ref().map(cors::fields).unwrap_or_default();
            fields.extend([
                ("Access-Control-Allow-Methods", METHODS),
                ("Access-Control-Allow-Headers", FIELDS),
                ("Access-Control-Max-Age", cors::MAX_AGE_S),
            ]);
            let response = Response::new(204, "", b"").headers(&fields).connection(connection);
            send(204, &response, &mut bytes, cx);
        }
        Some(Reply::Refused(reply)) => {
            let manner = ResponseOptions { connection, head_only };
            respond::push(&reply, manner, shared_with.as_ref(), &mut bytes, cx);
        }
    }
    Ok((bytes, last))
}

/// Whether the listener, or the application, does not admit the request's origin.
fn refuses_origin(target: EventsTarget, request: &Request<'_>, cx: &Context<'_>) -> bool {
    let admits = router(cx).listener.admits(request.header("origin"), request.authority());
    let app_admits = match target {
        EventsTarget::Channels(Some(app)) => dialect::admits_events(cx.env, app, request),
        EventsTarget::Channels(None) | EventsTarget::Endpoint => true,
    };
    !admits || !app_admits
}

fn open(
    target: EventsTarget,
    entry: RouteMatch<'_, '_>,
    request: &Request<'_>,
    room: Option<&mut Vec<u8>>,
    cx: &mut Context<'_>,
) -> Result<Reply, Transition> {
    let refused = |status, text: &str| Ok(Reply::Refused(error(status, text)));
    if cors::is_preflight(request) {
        return Ok(Reply::Preflight);
    }
    let room = match request.method {
        "HEAD" => None,
        "GET" if request.version < HttpVersion::Http11 => return refused(505, OLD_VERSION),
        "GET" if room.is_none() => return refused(400, TOO_EARLY),
        "GET" => room,
        _ => {
            let reply = HttpReply { allow: Some(METHODS), ..error(405, "events are read by GET") };
            return Ok(Reply::Refused(reply));
        }
    };
    match (target, room) {
        (EventsTarget::Channels(None), _) => refused(404, "no application has this key"),
        (EventsTarget::Channels(Some(app)), room) => open_channels(app, entry, request, room, cx),
        (EventsTarget::Endpoint, _)
            if let Some(Rejection { status, text }) = rejection(&entry, request, cx) =>
        {
            refused(status, &text)
        }
        (EventsTarget::Endpoint, None) => Ok(Reply::Head),
        (EventsTarget::Endpoint, Some(out)) => {
            let (records, framing) = (Records::none(), RecordFraming::Events);
            Err(route::begin(request, entry, records, framing, out, cx))
        }
    }
}

/// Why the endpoint of a route refuses a request, as it would refuse a WebSocket.
fn rejection(
    entry: &RouteMatch<'_, '_>,
    request: &Request<'_>,
    cx: &Context<'_>,
) -> Option<Rejection> {
    let opening = opening(entry.route, request, entry.claims.as_ref(), cx);
    let is_dialect = entry.route.endpoint != EndpointKind::Proxy;
    Connection::subprotocol(cx.env, &opening).err().filter(|_| is_dialect)
}

/// Opens a connection to channels of application `app`; without `room`, only checks that one could
/// be opened.
fn open_channels(
    app: u32,
    entry: RouteMatch<'_, '_>,
    request: &Request<'_>,
    room: Option<&mut Vec<u8>>,
    cx: &mut Context<'_>,
) -> Result<Reply, Transition> {
    let RouteMatch { route, number, leases, claims, .. } = entry;
    let mut opening = opening(route, request, claims.as_ref(), cx);
    opening.receives_events = true;
    let before = cx.effects.len();
    // The dialect sends nothing now: its first messages follow from its effects.
    let (mut unsent, mut closing) = (Vec::new(), None);
    let mut context = context(&mut unsent, None, &mut closing, cx);
    let (mut connection, ids) = match Connection::listen(&mut context, app, &opening) {
        Ok(opened) => opened,
        Err(reply) => return Ok(Reply::Refused(reply)),
    };
    // A client behind a proxy is counted for its own address only here. A refusal is not counted:
    // the proxy's connection may carry another client's request next.
    let is_refused = room.is_some() && !cx.admit();
    let Some(out) = room.filter(|_| !is_refused) else {
        cx.effects.truncate(before);
        connection.ended(cx.env, ConnectionEnd::Dropped);
        return Ok(match is_refused {
            true => Reply::Refused(error(429, route::TOO_MANY.trim_end())),
            false => Reply::Head,
        });
    };
    let framing = RecordFraming::Events;
    let shared_with = cors::reader(request);
    let fields = shared_with.as_ref().map(cors::fields).unwrap_or_default();
    push_head(request, framing, &fields, out);
    out.extend_from_slice(b"\r\n");
    begin_stream(Some(framing), opening.last_event_id().as_deref(), out, cx);
    let policy = ConnectionPolicy::new(cx.env.runtime.route(number).rules.clone(), leases);
    let input = Input::Records(Box::new(Records::none()));
    let channel = Some(Box::new(Channel::of_records(framing).with_ids(ids)));
    let endpoint = Endpoint::Dialect(connection);
    let socket = WebSocket::new(input, endpoint, channel, policy, cx.now.ms);
    Err(Transition::Upgraded(Box::new(socket)))
}
