//! Responses to pages of other origins: the header fields of the CORS protocol of the Fetch
//! standard.

use crate::dialect::SharedWith;
use crate::http::Request;

/// How long a browser may cache the response to a preflight, in seconds.
pub(super) const MAX_AGE_S: &str = "600";

/// Whether a request is a CORS preflight.
pub(super) fn is_preflight(request: &Request<'_>) -> bool {
    request.method == "OPTIONS" && request.header("access-control-request-method").is_some()
}

/// The header fields that name the origin which may read a response.
pub(super) fn fields(origin: &SharedWith) -> Vec<(&str, &str)> {
    match origin {
        SharedWith::Everybody => vec![("Access-Control-Allow-Origin", "*")],
        SharedWith::Origin(origin) => {
            vec![("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        }
    }
}

/// The origin that may read a stream of events, for a request whose origin was admitted.
pub(super) fn reader(request: &Request<'_>) -> Option<SharedWith> {
    Some(SharedWith::Origin(request.header("origin")?.to_owned()))
}

/// The header fields of the response to a preflight.
pub(super) fn preflight(origin: &SharedWith) -> Vec<(&str, &str)> {
    let mut fields = fields(origin);
    fields.extend([
        ("Access-Control-Allow-Methods", "GET, POST"),
        (
            "Access-Control-Allow-Headers",
            "Content-Type, X-Requested-With, X-Pusher-Library, X-Idempotency-Key",
        ),
        ("Access-Control-Max-Age", MAX_AGE_S),
    ]);
    fields
}
