//! The vendor's words: every message that goes out, as JSON text.

use crate::codec::json::{push_content, push_string};

/// Asks a client for a sign of life.
pub(super) const PING: &[u8] = br#"{"event":"pusher:ping","data":{}}"#;
/// The answer to a client that asks.
pub(super) const PONG: &[u8] = br#"{"event":"pusher:pong","data":{}}"#;

/// Kinds of a refused subscription.
pub(super) const AUTH: &str = "AuthError";
pub(super) const LIMIT: &str = "LimitReached";
pub(super) const UNSUPPORTED: &str = "Unsupported";

pub(super) fn established(socket_id: &str, activity_timeout_s: u64) -> String {
    format!(
        r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"{socket_id}\",\"activity_timeout\":{activity_timeout_s}}}"}}"#
    )
}

pub(super) fn error(code: Option<u16>, message: &str) -> Vec<u8> {
    let mut out = br#"{"event":"pusher:error","data":{"code":"#.to_vec();
    match code {
        Some(code) => out.extend_from_slice(code.to_string().as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","message":"#);
    push_string(&mut out, message);
    out.extend_from_slice(b"}}");
    out
}

pub(super) fn subscribed(name: &str) -> Vec<u8> {
    let mut out = br#"{"event":"pusher_internal:subscription_succeeded","channel":"#.to_vec();
    push_string(&mut out, name);
    out.extend_from_slice(br#","data":"{}"}"#);
    out
}

pub(super) fn subscription_error(name: &str, kind: &str, error: &str, status: u16) -> Vec<u8> {
    let mut out = br#"{"event":"pusher:subscription_error","channel":"#.to_vec();
    push_string(&mut out, name);
    out.extend_from_slice(br#","data":{"type":"#);
    push_string(&mut out, kind);
    out.extend_from_slice(br#","error":"#);
    push_string(&mut out, error);
    out.extend_from_slice(format!(r#","status":{status}}}}}"#).as_bytes());
    out
}

/// An event with `data`, which subscribers see as a JSON string.
pub(super) fn push_event(out: &mut Vec<u8>, event: &str, channel: &str, data: &str) {
    out.extend_from_slice(br#"{"event":""#);
    push_content(out, event);
    out.extend_from_slice(br#"","channel":""#);
    push_content(out, channel);
    out.extend_from_slice(br#"","data":""#);
    push_content(out, data);
    out.extend_from_slice(br#""}"#);
}

pub(super) fn api_error(status: u16, message: &str) -> Vec<u8> {
    let mut out = br#"{"error":"#.to_vec();
    push_string(&mut out, message);
    out.extend_from_slice(format!(r#","code":{status}}}"#).as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_a_string_of_json_inside_json() {
        let mut out = Vec::new();
        push_event(&mut out, "order.paid", "news", r#"{"id":7}"#);
        let expected = r#"{"event":"order.paid","channel":"news","data":"{\"id\":7}"}"#;
        assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
        let expected = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}"#;
        assert_eq!(established("1.2", 120), expected);
    }
}
