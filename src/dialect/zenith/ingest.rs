//! The HTTP door for back ends: `POST .../ingest` with one container or an array of them.

use super::negotiate::credentials;
use super::realm::{Found, ServiceEntry};
use super::verbs::{self, Refusal};
use super::words::Container;
use crate::codec::Value;
use crate::codec::json::push_string;
use crate::codec::value::{Error, Limits, decode_json};
use crate::dialect::{Answered, Context, Reply};
use crate::http::Request;
use std::borrow::Cow;
use std::sync::Arc;

/// Answers a plain request at the endpoint. One that is refused does nothing; the reply to one
/// that publishes waits until all of it has its place.
pub(super) fn answer(context: &mut Context<'_>, request: &mut Request<'_>) -> Answered {
    Answered::Now(reply(context, request))
}

fn reply(context: &mut Context<'_>, request: &mut Request<'_>) -> Reply {
    if !request.path().ends_with("/ingest") {
        return error(426, "a WebSocket is served here; back ends post to /ingest below", None);
    }
    if request.method != "POST" {
        let reply = error(405, "only POST", None);
        return Reply { allow: Some("POST"), ..reply };
    }
    let token = request.header("authorization").and_then(credentials);
    let found = token.and_then(|token| context.env.zenith.token(token));
    let Some(Found::Service(service)) = found else {
        return error(401, "a service's token is needed: Authorization: Bearer ...", None);
    };
    if context.draining {
        return error(503, "the server is shutting down", None);
    }
    let limits = Limits { bytes: request.body.len(), ..Limits::default() };
    match decode_json(request.body, &limits, context.json) {
        Ok(Value::Array(containers)) => batch(context, &service, containers),
        Ok(one) => batch(context, &service, vec![one]),
        Err(Error::Malformed) => error(400, "the body is not JSON", None),
        Err(other) => error(400, &other.to_string(), None),
    }
}

fn batch(context: &mut Context<'_>, service: &Arc<ServiceEntry>, containers: Vec<Value>) -> Reply {
    let most = context.env.zenith.config.batch;
    if containers.len() > most {
        return error(413, &format!("a request may have {most} containers"), None);
    }
    let mut orders = Vec::with_capacity(containers.len());
    for (at, value) in containers.into_iter().enumerate() {
        let order = match Container::of(value) {
            Ok(it) => verbs::read(context.env, service, it),
            Err(text) => Err(Refusal { code: "", text }),
        };
        match order {
            Ok(order) => orders.push(order),
            Err(refusal) => return error(400, refusal.text, Some(at)),
        }
    }
    let mut kicked = 0;
    for (part, order) in orders.into_iter().enumerate() {
        kicked += verbs::carry_out(context, order, part as u16);
    }
    let body = if kicked == 0 { "{}".to_owned() } else { format!(r#"{{"kicked":{kicked}}}"#) };
    Reply { status: 200, body: Cow::Owned(body.into_bytes()), allow: None }
}

/// An error; `at` is the place in the array of what is wrong.
fn error(status: u16, text: &str, at: Option<usize>) -> Reply {
    let mut body = br#"{"error":"#.to_vec();
    push_string(&mut body, text);
    if let Some(at) = at {
        body.extend_from_slice(format!(r#","at":{at}"#).as_bytes());
    }
    body.extend_from_slice(format!(r#","code":{status}}}"#).as_bytes());
    Reply { status, body: Cow::Owned(body), allow: None }
}
