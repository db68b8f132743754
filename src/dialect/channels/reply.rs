//! The replies of the HTTP API.

use super::super::reply::HttpReply;
use super::messages;
use super::vendor::Vendor;
use std::borrow::Cow;

pub(super) type ApiRefusal = (u16, Cow<'static, str>);

/// Why a request is refused about an application of which the log was not read.
pub(super) const NOT_READ: &str = "This node has not read the cluster's log yet";
/// Why a request is refused whose idempotency key belongs to another one.
pub(super) const KEY_USED: &str = "the idempotency key was used for another request";

/// An error reply in the vendor's format.
pub(super) fn json_error<V: Vendor>(status: u16, message: &str) -> HttpReply {
    HttpReply {
        status,
        body: Cow::Owned(messages::api_error(V::DATA, status, message)),
        allow: None,
    }
}

/// A reply with status 200.
pub(super) fn ok(body: Vec<u8>) -> HttpReply {
    HttpReply { status: 200, body: Cow::Owned(body), allow: None }
}

/// The reply to a request that has nothing to report.
pub(super) fn empty() -> HttpReply {
    HttpReply { status: 200, body: Cow::Borrowed(b"{}"), allow: None }
}
