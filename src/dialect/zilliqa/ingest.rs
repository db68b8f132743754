//! Epochs published over HTTP: each is the document of one POST request, in the order of the
//! blocks.

use super::epoch::{Epoch, Strictness};
use super::messages::ZilliqaMessage;
use super::shared::{APP, CHANNEL, EpochRange, EpochRejected};
use crate::codec::json::push_string;
use crate::config::Secret;
use crate::crypto::{constant_time_eq, sha256};
use crate::dialect::{Answered, DialectContext, Effect, Event, HttpReply};
use crate::http::Request;
use std::borrow::Cow;
use std::sync::Arc;

/// Answers a request that is not a WebSocket handshake: publishes an epoch, or reports the status.
pub(super) fn answer(context: &mut DialectContext<'_>, request: &mut Request<'_>) -> Answered {
    let section = &context.env.config.zilliqa;
    let token = &section.publish_token;
    let publishes = request.path() == section.publish_path && !token.expose().is_empty();
    match (publishes, request.method) {
        (true, "POST") if !presents(request, token) => {
            Answered::Now(refused(401, "the token is missing or wrong"))
        }
        (true, "POST") => publish(context, request.body),
        (true, _) => not_allowed("POST"),
        (false, "GET" | "HEAD") => Answered::Now(status(context)),
        (false, _) => not_allowed("GET, HEAD"),
    }
}

/// Whether a request publishes an epoch and has the token, by its head.
pub(super) fn may_publish(context: &DialectContext<'_>, request: &Request<'_>) -> bool {
    let section = &context.env.config.zilliqa;
    let token = &section.publish_token;
    let publishes = request.path() == section.publish_path && !token.expose().is_empty();
    publishes && request.method == "POST" && presents(request, token)
}

/// Whether the request has the token as a bearer token (RFC 6750 section 2.1).
fn presents(request: &Request<'_>, token: &Secret) -> bool {
    let given = request.header("authorization").and_then(|field| field.split_once(' '));
    given.is_some_and(|(scheme, given)| {
        // The SHA-256 digests are compared, so that the time does not even reveal the token's
        // length.
        let [given, token] = [given.trim_start_matches(' '), token.expose()];
        let [given, token] = [given, token].map(|text| sha256(&[text.as_bytes()]));
        scheme.eq_ignore_ascii_case("bearer") && constant_time_eq(&given, &token)
    })
}

fn publish(context: &mut DialectContext<'_>, body: &[u8]) -> Answered {
    if context.draining {
        return Answered::Now(refused(503, "the server is shutting down"));
    }
    if let Err(rejection) = context.env.check_joined() {
        return Answered::Now(refused(rejection.status, &rejection.text));
    }
    let Ok(text) = str::from_utf8(body) else {
        return Answered::Now(refused(400, "the document is not UTF-8"));
    };
    let epoch = match Epoch::read(text.to_owned(), Strictness::Refuse) {
        Ok(epoch) => Arc::new(epoch),
        Err(error) => return Answered::Now(refused(400, &error.to_string())),
    };
    let number = epoch.number();
    match admit(context, &epoch) {
        Ok(range) => {
            context.effects.push(Effect::Publish {
                app: APP,
                name: CHANNEL.to_owned(),
                event: Event::message(ZilliqaMessage::Epoch(epoch).into()),
                part: 0,
            });
            // The reply waits until the home core has ordered the epoch, or the engine of the
            // cluster has stored it.
            Answered::Later(Box::new(move |_| done(number, range.as_ref())))
        }
        Err(EpochRejected::Late(last)) => {
            let text = format!("BlockNum {number} is not above the last one, {last}");
            Answered::Now(refused(409, &text))
        }
        Err(EpochRejected::Busy) => {
            Answered::Now(refused(503, "another epoch is being published; try again"))
        }
    }
}

/// Accepts an epoch. In a cluster its place is the one that the log gives it.
fn admit(
    context: &DialectContext<'_>,
    epoch: &Arc<Epoch>,
) -> Result<Option<EpochRange>, EpochRejected> {
    let shared = &context.env.zilliqa;
    if context.env.config.cluster.is_none() {
        return shared.admit(epoch, context.conn.core).map(Some);
    }
    let last = shared.last().filter(|last| *last >= epoch.number());
    last.map_or(Ok(None), |last| Err(EpochRejected::Late(last)))
}

fn done(number: u64, _: Option<&EpochRange>) -> HttpReply {
    let body = format!(r#"{{"BlockNum":"{number}"}}"#).into_bytes();
    HttpReply { status: 200, body: body.into(), allow: None }
}

/// The reply to a load balancer: that the server runs, and the number of the last epoch. The status
/// is 503 while the server drains, or has not joined its cluster.
fn status(context: &DialectContext<'_>) -> HttpReply {
    let number = context.env.zilliqa.last();
    let number = number.map_or("null".to_owned(), |number| format!("\"{number}\""));
    let serves = !context.draining && context.env.check_joined().is_ok();
    let status = if serves { 200 } else { 503 };
    let body = format!(r#"{{"server":"zilliqa","BlockNum":{number}}}"#).into_bytes();
    HttpReply { status, body: body.into(), allow: None }
}

fn not_allowed(methods: &'static str) -> Answered {
    let body: &[u8] = br#"{"error":"the method is not allowed here","code":405}"#;
    Answered::Now(HttpReply { status: 405, body: Cow::Borrowed(body), allow: Some(methods) })
}

fn refused(status: u16, what: &str) -> HttpReply {
    let mut body = br#"{"error":"#.to_vec();
    push_string(&mut body, what);
    body.extend_from_slice(format!(r#","code":{status}}}"#).as_bytes());
    HttpReply { status, body: body.into(), allow: None }
}
