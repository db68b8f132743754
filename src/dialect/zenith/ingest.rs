//! The HTTP API of back ends: `POST .../ingest` with one message or an array of messages.

use super::commands::{self, CommandRefusal};
use super::directory::{ServiceEntry, TokenOwner};
use super::negotiate::credentials;
use super::sign_in;
use super::wire::MessageEnvelope;
use crate::codec::Value;
use crate::codec::json::push_string;
use crate::codec::value::{DecodeLimits, Error, decode_json};
use crate::dialect::{Answered, DialectContext, HttpReply};
use crate::http::Request;
use std::borrow::Cow;
use std::sync::Arc;

/// Answers an HTTP request at the endpoint. A request that is refused has no effect. The reply to a
/// request that publishes is sent after the homes have ordered all its events.
pub(super) fn answer(context: &mut DialectContext<'_>, request: &mut Request<'_>) -> Answered {
    Answered::Now(reply(context, request))
}

/// Whether a request is a publish with a back end's token, decided by its head alone.
pub(super) fn may_publish(context: &DialectContext<'_>, request: &Request<'_>) -> bool {
    let token = request.header("authorization").and_then(credentials);
    let found = token.and_then(|token| context.env.zenith.token(token));
    request.path().ends_with("/ingest")
        && request.method == "POST"
        && matches!(found, Some(TokenOwner::Service(_)))
}

fn reply(context: &mut DialectContext<'_>, request: &mut Request<'_>) -> HttpReply {
    if !request.path().ends_with("/ingest") {
        return error(426, "a WebSocket is served here; back ends post to /ingest below", None);
    }
    if request.method != "POST" {
        let reply = error(405, "only POST", None);
        return HttpReply { allow: Some("POST"), ..reply };
    }
    let token = request.header("authorization").and_then(credentials);
    let (env, conn, peer, now) = (context.env, context.conn, context.peer, context.now);
    if token.is_some() && sign_in::is_refused(env, conn, peer, now) {
        return error(429, "too many wrong tokens from this address", None);
    }
    let found = token.and_then(|token| context.env.zenith.token(token));
    let Some(TokenOwner::Service(service)) = found else {
        if token.is_some() {
            sign_in::note_wrong(env, conn, peer, now);
        }
        return error(401, "a service's token is needed: Authorization: Bearer ...", None);
    };
    if context.draining {
        return error(503, "the server is shutting down", None);
    }
    if let Err(refused) = context.env.check_joined() {
        return error(refused.status, &refused.text, None);
    }
    let limits = DecodeLimits { bytes: request.body.len(), ..DecodeLimits::default() };
    match decode_json(request.body, &limits, context.json) {
        Ok(Value::Array(containers)) => batch(context, &service, containers),
        Ok(one) => batch(context, &service, vec![one]),
        Err(Error::Malformed) => error(400, "the body is not JSON", None),
        Err(other) => error(400, &other.to_string(), None),
    }
}

fn batch(
    context: &mut DialectContext<'_>,
    service: &Arc<ServiceEntry>,
    containers: Vec<Value>,
) -> HttpReply {
    let max = context.env.zenith.config.batch;
    if containers.len() > max {
        return error(413, &format!("a request may have {max} containers"), None);
    }
    let mut orders = Vec::with_capacity(containers.len());
    for (at, value) in containers.into_iter().enumerate() {
        let order = match MessageEnvelope::of(value) {
            Ok(it) => commands::read(context.env, service, it),
            Err(text) => Err(CommandRefusal { code: "", text }),
        };
        match order {
            Ok(order) => orders.push(order),
            Err(refusal) => return error(400, refusal.text, Some(at)),
        }
    }
    let mut kicked = 0;
    for (part, order) in orders.into_iter().enumerate() {
        kicked += commands::carry_out(context, order, part as u16);
    }
    let body = if kicked == 0 { "{}".to_owned() } else { format!(r#"{{"kicked":{kicked}}}"#) };
    HttpReply { status: 200, body: Cow::Owned(body.into_bytes()), allow: None }
}

/// An error reply; `at` is the index of the invalid message in the array.
fn error(status: u16, text: &str, at: Option<usize>) -> HttpReply {
    let mut body = br#"{"error":"#.to_vec();
    push_string(&mut body, text);
    if let Some(at) = at {
        body.extend_from_slice(format!(r#","at":{at}"#).as_bytes());
    }
    body.extend_from_slice(format!(r#","code":{status}}}"#).as_bytes());
    HttpReply { status, body: Cow::Owned(body), allow: None }
}
