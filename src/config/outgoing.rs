//! Checks of the URLs and header fields of requests that the server sends.

use std::collections::BTreeMap;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use crate::settings::error::{Error, Problem};
use crate::settings::secret::Secret;

/// Checks additional header fields; `taken` are those that the request sets itself.
pub(super) fn check_headers(
    headers: &BTreeMap<String, Secret>,
    taken: &[&str],
) -> Result<(), Error> {
    for (name, value) in headers {
        let key = format!("headers.{name}");
        if !is_free(name, taken) {
            let accepted = "the name of a header field that the server does not set itself";
            return Err(Error::keyed(key, Problem::Shape { found: name.clone(), accepted }));
        }
        if HeaderValue::from_str(value.expose()).is_err() {
            let accepted = "printable ASCII characters";
            return Err(Error::keyed(key, Problem::Secret { accepted }));
        }
    }
    Ok(())
}

/// Whether `name` is a valid header field name that is not in `taken`.
pub(super) fn is_free(name: &str, taken: &[&str]) -> bool {
    let taken = taken.iter().any(|taken| taken.eq_ignore_ascii_case(name));
    !taken && HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// Whether a request can be sent to `url`: `http` or `https` with a host, without `user@` and
/// fragment.
pub(super) fn is_target(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.host().is_some_and(|host| !host.is_empty());
    known && host && !url.contains(['@', '#'])
}
