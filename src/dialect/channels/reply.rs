//! Parts of the replies of the HTTP API, and of the events.

use super::super::reply::HttpReply;
use super::vendor::Vendor;
use crate::codec::json::push_content;
use std::borrow::Cow;

pub(super) type ApiRefusal = (u16, Cow<'static, str>);

/// An error reply in the vendor's format.
pub(super) fn json_error<V: Vendor>(status: u16, message: &str) -> HttpReply {
    HttpReply { status, body: Cow::Owned(V::api_error(status, message)), allow: None }
}

/// A reply with status 200.
pub(super) fn ok(body: Vec<u8>) -> HttpReply {
    HttpReply { status: 200, body: Cow::Owned(body), allow: None }
}

/// The reply to a request that has nothing to report.
pub(super) fn empty() -> HttpReply {
    HttpReply { status: 200, body: Cow::Borrowed(b"{}"), allow: None }
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
