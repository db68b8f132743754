//! The answers to HTTP-01 challenges (RFC 8555 section 8.3), by which a certificate authority
//! checks that a domain leads to this server.

use super::page::{NO_STORE, Page};
use crate::http::Request;
use crate::tls::IssuedCertificates;

/// The path of challenges, before the token.
const PATH: &str = "/.well-known/acme-challenge/";

/// The answer to a request for a challenge that is pending. `None` for any other request, which the
/// routes then serve: an upstream server may have challenges of its own.
///
/// The answer is given on every listener and without a guard, because a certificate authority has
/// no token. It tells nothing that the authority does not know.
pub fn challenge(request: &Request<'_>, issued: &IssuedCertificates) -> Option<Page> {
    let token = request.path().strip_prefix(PATH)?;
    if !matches!(request.method, "GET" | "HEAD") {
        return None;
    }
    let response = issued.response(token)?;
    Some(Page {
        status: 200,
        content_type: "application/octet-stream",
        fields: NO_STORE,
        body: response.into_bytes().into(),
    })
}
