//! How HTTP responses are written and counted, and the router of a connection's requests.

use super::cors;
use crate::dialect::{HttpReply, SharedWith};
use crate::gateway;
use crate::http::{self, Response};
use crate::session::Context;

/// How a response is written.
#[derive(Clone, Copy)]
pub(super) struct ResponseOptions {
    pub(super) connection: http::Connection,
    pub(super) head_only: bool,
}

/// Writes a reply as a JSON response.
pub(super) fn push(
    reply: &HttpReply,
    manner: ResponseOptions,
    shared_with: Option<&SharedWith>,
    out: &mut Vec<u8>,
    cx: &Context<'_>,
) {
    let own: &[(&str, &str)] = match (reply.status, reply.allow) {
        (405, Some(allow)) => &[("Allow", allow)],
        (429 | 503, _) => &[("Retry-After", "1")],
        (426, _) => {
            &[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        }
        _ => &[],
    };
    let mut fields = own.to_vec();
    // Whatever was read is as old as the loss of the cluster's engine.
    let stale_s = cx.env.runtime.cluster.stale_s(cx.now.ms).filter(|_| reply.status == 200);
    let stale = stale_s.map(|seconds| seconds.to_string());
    fields.extend(stale.iter().map(|seconds| ("X-Polycast-Stale", &**seconds)));
    if let Some(origin) = shared_with {
        fields.extend(cors::fields(origin));
    }
    let response = Response::json(reply.status, &reply.body).headers(&fields);
    let response = response.connection(manner.connection).head_only(manner.head_only);
    send(reply.status, &response, out, cx);
}

pub(super) fn send(status: u16, response: &Response<'_>, out: &mut Vec<u8>, cx: &Context<'_>) {
    cx.counters.http_requests.add(1);
    if status >= 400 {
        cx.counters.http_errors.add(1);
    }
    response.push(out);
}

pub(super) fn error(status: u16, message: &str) -> HttpReply {
    let body = format!(r#"{{"error":"{message}","code":{status}}}"#).into_bytes();
    HttpReply { status, body: body.into(), allow: None }
}

pub(super) const REJECTED: &str = "this is not served";

/// The router for requests of this connection.
pub(super) fn router<'a>(cx: &Context<'a>) -> gateway::Router<'a> {
    gateway::Router {
        config: &cx.env.config,
        guards: &cx.env.runtime.guards,
        listener: cx.env.listener(cx.listener),
        secure: cx.secure,
        client: cx.identity.clone(),
        now: cx.now,
        counters: cx.counters,
        work: cx.work,
        peer: cx.peer.ip(),
    }
}

/// Answers a plain HTTP request that the router refuses.
pub(super) fn refuse(
    refusal: gateway::RouteRefusal,
    connection: http::Connection,
    head_only: bool,
    out: &mut Vec<u8>,
    cx: &Context<'_>,
) {
    let body = error(refusal.status(), refusal.text()).body;
    let response = Response::json(refusal.status(), &body).headers(refusal.fields());
    send(refusal.status(), &response.connection(connection).head_only(head_only), out, cx);
}

/// Whether the connection closes after this response, as a `Connection` value and as a flag. It
/// always closes after too many tokens that were not accepted.
pub(super) fn unless_failed(
    connection: http::Connection,
    cx: &Context<'_>,
) -> (http::Connection, bool) {
    match cx.has_failed_too_often() {
        true => (http::Connection::Close, true),
        false => (connection, connection == http::Connection::Close),
    }
}
