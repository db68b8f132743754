//! From a request to a WebSocket: the gateway, the handshake, and the endpoint.

use super::request::{REJECTED, router};
use super::socket::{ConnectionPolicy, Endpoint, Socket};
use super::stream::Input;
use super::upstream::{self, UpstreamRequest};
use super::{Context, Ending, StageResult, context, upgrade};
use crate::config;
use crate::dialect::{Connection, DialectContext, Opening};
use crate::gateway;
use crate::http::{self, Request, Response};
use crate::jwt::TokenLeases;
use crate::ws::extension::{self, Agreed, Compression};
use crate::ws::output::Channel;

/// Handles a WebSocket handshake. All earlier requests must have been answered.
pub(super) fn open(request: &Request<'_>, out: &mut Vec<u8>, cx: &mut Context<'_>) -> StageResult {
    let counters = cx.counters;
    let refuse_with = |out: &mut Vec<u8>, status, text: &str, fields: &[(&str, &str)]| {
        let response = Response::text(status, text).headers(fields);
        response.connection(http::Connection::Close).push(out);
        counters.http_errors.add(1);
        StageResult::End(Ending::Flush)
    };
    let refuse = |out: &mut Vec<u8>, status, text: &str| refuse_with(out, status, text, &[]);
    let accepted = match upgrade::check(request) {
        Ok(accepted) => accepted,
        Err(refusal) => {
            refusal.respond(out);
            cx.counters.http_errors.add(1);
            return StageResult::End(Ending::Flush);
        }
    };
    let gateway::RouteMatch { route, protocol: listed, leases, claims } =
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
    if let Some(proxy) = &route.proxy {
        let channel = agreed.and_then(|agreed| compress(agreed, &accepted, cx));
        let policy = ConnectionPolicy::new(route.rules.get().cloned(), leases);
        let mut head = Vec::new();
        upgrade::begin(&mut head, &accepted);
        let upgrade = UpstreamRequest { head, records: None, channel, policy };
        let waiting = upstream::PendingUpstream::begin(proxy, request, upgrade, cx);
        return waiting.unwrap_or_else(|(status, text)| refuse(out, status, &format!("{text}\n")));
    }
    let opening = Opening {
        now: cx.now,
        conn: cx.conn,
        peer: cx.peer,
        route,
        path: request.path(),
        query: request.query(),
        origin: accepted.origin(),
        secure: cx.secure,
        headers: &request.headers,
        claims: claims.as_ref(),
    };
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
    enter(Input::FRAMES, channel, leases, &opening, out, cx)
}

/// Opens a connection at the endpoint of its route; the response to its handshake is already
/// written.
pub(super) fn enter(
    input: Input,
    mut channel: Option<Box<Channel>>,
    leases: Option<Box<TokenLeases>>,
    opening: &Opening<'_>,
    out: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> StageResult {
    let mut wanted = None;
    let endpoint = endpoint(opening, &mut context(out, channel.as_deref_mut(), &mut wanted, cx));
    let policy = ConnectionPolicy::new(opening.route.rules.get().cloned(), leases);
    let mut socket = Socket::new(input, endpoint, channel, policy, cx.now.ms);
    if let Some(closing) = wanted {
        socket.close(&closing, out);
    }
    StageResult::Upgraded(Box::new(socket))
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
