//! Replies to HTTP requests.

use crate::hub::Answer;
use std::borrow::Cow;

/// A dialect's reply to an HTTP request.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// The body, in JSON.
    pub body: Cow<'static, [u8]>,
    /// The value of `Allow`, for status 405.
    pub allow: Option<&'static str>,
}

/// How a dialect answers an HTTP request.
pub enum Answered {
    /// The reply. It is sent after the homes have acknowledged everything that the request has
    /// published.
    Now(HttpReply),
    /// The reply is made from the answers of channel homes, each with its part of the request.
    Later(Finish),
    /// The same, with answers that may be large. Reading from the connection is paused until all of
    /// them have arrived, so that one connection has only one such reply pending.
    Gathered(Finish),
}

/// Makes a reply from the answers, each with its part of the request. If events of the request were
/// not published, the answers are an [`Answer::Unpublished`] for each of them, and the reply counts
/// only if a reason is [`Unpublished::KeyUsed`](crate::hub::Unpublished::KeyUsed).
pub type Finish = Box<dyn FnOnce(Vec<(u16, Answer)>) -> HttpReply>;

/// The reply to a request whose path names nothing.
pub(super) fn no_such_target(path: &str) -> HttpReply {
    let body: &[u8] = if path.contains("/apps/") {
        br#"{"error":"no application has this id","code":404}"#
    } else {
        br#"{"error":"nothing is served at this path","code":404}"#
    };
    HttpReply { status: 404, body: Cow::Borrowed(body), allow: None }
}
