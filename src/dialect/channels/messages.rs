//! Messages of the server that have the same form for all vendors, and the name of their event from
//! the vendor's table.

use super::data::VendorData;
use crate::codec::json::{push_content, push_string};

/// The first message of a connection.
pub(in super::super) fn established(data: &VendorData, socket_id: &str, activity_s: u64) -> String {
    let event = data.events.established;
    format!(
        r#"{{"event":"{event}","data":"{{\"socket_id\":\"{socket_id}\",\"activity_timeout\":{activity_s}}}"}}"#
    )
}

/// The acknowledgement of a subscription. `json` is the roster on presence channels, else `{}`.
pub(in super::super) fn subscribed(data: &VendorData, name: &str, json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(96 + name.len() + json.len() + json.len() / 4);
    // `json` is made of UTF-8 parts, so this cannot fail.
    push_event(&mut out, data.events.subscribed, name, str::from_utf8(json).unwrap_or("{}"));
    out
}

/// Appends the event that reports a channel's number of subscriptions. Returns false if the vendor
/// has no such event.
pub(super) fn push_count(data: &VendorData, out: &mut Vec<u8>, name: &str, count: u64) -> bool {
    let Some(event) = data.events.count else { return false };
    push_event(out, event, name, &format!(r#"{{"subscription_count":{count}}}"#));
    true
}

/// The message that a cache channel has no cached event.
pub(super) fn cache_miss(data: &VendorData, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_event(&mut out, data.events.cache_miss, name, "{}");
    out
}

/// The acknowledgement of a sign-in.
pub(super) fn signed_in(data: &VendorData, user_data: &str) -> Vec<u8> {
    let event = data.events.signed_in;
    let mut out = format!(r#"{{"event":"{event}","data":{{"user_data":"#).into_bytes();
    push_string(&mut out, user_data);
    out.extend_from_slice(b"}}");
    out
}

/// The users of a watchlist who are online and who are offline. An empty list is left out.
pub(super) fn watchlist(data: &VendorData, online: &[&str], offline: &[&str]) -> Vec<u8> {
    let mut json = br#"{"events":["#.to_vec();
    let lists = [("online", online), ("offline", offline)];
    for (name, users) in lists.into_iter().filter(|(_, users)| !users.is_empty()) {
        if json.last() == Some(&b'}') {
            json.push(b',');
        }
        json.extend_from_slice(format!(r#"{{"name":"{name}","user_ids":["#).as_bytes());
        for (at, user) in users.iter().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            push_string(&mut json, user);
        }
        json.extend_from_slice(b"]}");
    }
    json.extend_from_slice(b"]}");
    let event = data.events.watchlist;
    let mut out = format!(r#"{{"event":"{event}","data":""#).into_bytes();
    push_content(&mut out, str::from_utf8(&json).unwrap_or("{}"));
    out.extend_from_slice(br#""}"#);
    out
}

/// The body of an error reply of the HTTP API.
pub(super) fn api_error(data: &VendorData, status: u16, message: &str) -> Vec<u8> {
    let mut out = br#"{"error":"#.to_vec();
    push_string(&mut out, message);
    if data.quirks.error_codes {
        out.extend_from_slice(format!(r#","code":{status}"#).as_bytes());
    }
    out.push(b'}');
    out
}

/// Appends an event. `data` is written as the content of a JSON string.
pub(in super::super) fn push_event(out: &mut Vec<u8>, event: &str, channel: &str, data: &str) {
    out.extend_from_slice(br#"{"event":""#);
    push_content(out, event);
    out.extend_from_slice(br#"","channel":""#);
    push_content(out, channel);
    out.extend_from_slice(br#"","data":""#);
    push_content(out, data);
    out.extend_from_slice(br#""}"#);
}
