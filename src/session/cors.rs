//! Answers for pages of other origins: the fields of the Fetch standard's CORS protocol.

use crate::dialect::SharedWith;
use crate::http::Request;

/// How long a browser may take a preflight's answer for granted, in seconds.
const MAX_AGE_S: &str = "600";

/// Whether a browser asks what it may ask.
pub(super) fn is_preflight(request: &Request<'_>) -> bool {
    request.method == "OPTIONS" && request.header("access-control-request-method").is_some()
}

/// What an answer says of the origin that may read it.
pub(super) fn fields(origin: &SharedWith) -> Vec<(&str, &str)> {
    match origin {
        SharedWith::Everybody => vec![("Access-Control-Allow-Origin", "*")],
        SharedWith::Origin(origin) => {
            vec![("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        }
    }
}

/// The answer to a preflight.
pub(super) fn preflight(origin: &SharedWith) -> Vec<(&str, &str)> {
    let mut fields = fields(origin);
    fields.extend([
        ("Access-Control-Allow-Methods", "GET, POST"),
        ("Access-Control-Allow-Headers", "Content-Type, X-Requested-With, X-Pusher-Library"),
        ("Access-Control-Max-Age", MAX_AGE_S),
    ]);
    fields
}
