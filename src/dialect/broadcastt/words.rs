//! The server's messages in the Broadcastt protocol, as JSON text. `data` is always a string of
//! JSON, because the client parses it before it looks at the event.

use super::super::channels::messages::push_event;
use crate::codec::json::{push_content, push_string};
use crate::hub::Users;
use serde::de::IgnoredAny;
use std::borrow::Cow;

pub(super) fn error(code: u16, message: &str) -> Vec<u8> {
    let mut data = format!(r#"{{"code":{code},"message":"#).into_bytes();
    push_string(&mut data, message);
    data.push(b'}');
    let mut out = br#"{"event":"broadcastt:error","data":""#.to_vec();
    push_content(&mut out, text(&data));
    out.extend_from_slice(br#""}"#);
    out
}

pub(super) fn subscription_error(name: &str, kind: &str, error: &str, status: u16) -> Vec<u8> {
    let mut data = br#"{"type":"#.to_vec();
    push_string(&mut data, kind);
    data.extend_from_slice(br#","error":"#);
    push_string(&mut data, error);
    data.extend_from_slice(format!(r#","status":{status}}}"#).as_bytes());
    let mut out = Vec::new();
    push_event(&mut out, "broadcastt:subscription_error", name, text(&data));
    out
}

/// The members of a presence channel, as JSON. `ids` has the user ids as JSON strings or numbers,
/// see [`id`]; `hash` has them as strings, because they are the names of an object's members.
pub(super) fn roster(users: &Users) -> Vec<u8> {
    let mut out = format!(r#"{{"presence":{{"count":{},"ids":["#, users.len()).into_bytes();
    for (at, (id, _)) in users.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(br#"],"hash":{"#);
    for (at, (id, info)) in users.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_quoted(&mut out, id);
        out.push(b':');
        out.extend_from_slice(info.as_deref().unwrap_or("null").as_bytes());
    }
    out.extend_from_slice(b"}}}");
    out
}

/// A user id as JSON in a canonical form: a string is escaped in one way only, and a number stays a
/// number.
pub(super) fn id<'i>(raw: &'i str, content: &str) -> Cow<'i, str> {
    if !raw.starts_with('"') {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    push_string(&mut out, content);
    String::from_utf8(out).map_or(Cow::Borrowed(raw), Cow::Owned)
}

/// Appends a user id as a JSON string.
pub(super) fn push_quoted(out: &mut Vec<u8>, id: &str) {
    match id.starts_with('"') {
        true => out.extend_from_slice(id.as_bytes()),
        false => push_string(out, id),
    }
}

/// Appends the event that notifies the members of a presence channel of a new member.
pub(super) fn push_member_added(out: &mut Vec<u8>, name: &str, id: &str, info: Option<&str>) {
    let data = match info {
        Some(info) => format!(r#"{{"user_id":{id},"user_info":{info}}}"#),
        None => format!(r#"{{"user_id":{id}}}"#),
    };
    push_event(out, "broadcastt_internal:member_added", name, &data);
}

/// Appends the event that notifies the members of a presence channel that a member has left.
pub(super) fn push_member_removed(out: &mut Vec<u8>, name: &str, id: &str) {
    let data = format!(r#"{{"user_id":{id}}}"#);
    push_event(out, "broadcastt_internal:member_removed", name, &data);
}

/// The data of a published event as subscribers get it. Text that is not JSON becomes a JSON
/// string, because the client parses the data as JSON.
pub(super) fn data(given: Cow<'_, str>, is_string: bool) -> Cow<'_, str> {
    if !is_string || is_json(&given) {
        return given;
    }
    let mut out = Vec::with_capacity(given.len() + 2);
    push_string(&mut out, &given);
    String::from_utf8(out).map_or(given, Cow::Owned)
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Appends a client event. `raw` is its `data` as JSON, or `None` if the client sent none.
pub(super) fn push_client_event(out: &mut Vec<u8>, event: &str, channel: &str, raw: Option<&str>) {
    let raw = raw.unwrap_or("{}");
    let content = raw.starts_with('"').then(|| serde_json::from_str::<String>(raw).ok()).flatten();
    let data = match &content {
        Some(content) if is_json(content) => content,
        _ => raw,
    };
    push_event(out, event, channel, data);
}

/// `data` is made of UTF-8 parts, so this cannot fail.
fn text(data: &[u8]) -> &str {
    str::from_utf8(data).unwrap_or("{}")
}
