//! What the APIs of all registries have in common: path segments, schema ids, JSON bodies, errors
//! and content types.

use crate::control::client::FetchedResponse;
use crate::model::{FetchFailure, SchemaId};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;

/// The maximum length of a registry's error message in a log line, in characters.
const MESSAGE_CHARS: usize = 200;
/// Apicurio's header field with the type of a schema whose response body is the bare schema text.
const ARTIFACT_TYPE: HeaderName = HeaderName::from_static("x-registry-artifacttype");

/// The characters that are not percent-encoded in a path segment: the unreserved ones (RFC 3986
/// section 2.3).
pub(super) const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as a path segment, percent-encoded.
pub(super) fn part(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Parses a JSON response body.
///
/// # Errors
/// The body is not JSON, or not of the type `T`.
pub(super) fn json<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, FetchFailure> {
    serde_json::from_slice(answer).map_err(|error| {
        FetchFailure::Failed(format!("the response has an unexpected format: {error}"))
    })
}

/// A schema id. The published API descriptions say int64; a string of digits is also accepted,
/// because gateways that avoid JavaScript numbers above 2^53 send one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(pub(super) SchemaId);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer, 0 or more, or a string of its digits")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
        Ok(Number(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_digits);
        number.map(Number).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// The failure for a response whose status is not 200. `message` parses the vendor's error format;
/// it returns `None` for a body of another format.
///
/// A 404 means that the schema does not exist only if its body has the vendor's format. Anything
/// else that answers 404 at this address (a proxy, another API version) knows nothing about
/// schemas.
pub(super) fn failure(
    answer: &FetchedResponse,
    message: impl Fn(&[u8]) -> Option<String>,
) -> FetchFailure {
    match (answer.status, message(&answer.body)) {
        (StatusCode::NOT_FOUND, Some(_)) => FetchFailure::NotFound,
        (StatusCode::NOT_FOUND, None) => {
            let hint = "404 without the registry's error format; check `url` and the version of \
                        the API";
            FetchFailure::Failed(hint.to_owned())
        }
        (status, Some(message)) => {
            FetchFailure::Failed(format!("{status}: {}", printable(&message)))
        }
        (status, None) => FetchFailure::Failed(status.to_string()),
    }
}

/// An external text as it is written to a log line: without control characters and at most
/// `MESSAGE_CHARS` characters long.
fn printable(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(MESSAGE_CHARS).collect()
}

/// Checks that a response whose body should be a bare schema is not an HTML page.
pub(super) fn check_content(answer: &FetchedResponse) -> Result<(), FetchFailure> {
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let is_page =
        kind.is_some_and(|it| it.trim_start().to_ascii_lowercase().starts_with("text/html"));
    match is_page {
        true => Err(FetchFailure::Failed("the response is a web page, not a schema".to_owned())),
        false => Ok(()),
    }
}

/// The type of a bare schema, if the response has a header field for it.
pub(super) fn artifact_type(answer: &FetchedResponse) -> Option<&str> {
    answer.headers.get(ARTIFACT_TYPE).and_then(|it| it.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::Bytes;
    use hyper::header::{HeaderMap, HeaderValue};

    fn answer(status: u16, kind: &'static str, body: &'static str) -> FetchedResponse {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let status = StatusCode::from_u16(status).unwrap();
        FetchedResponse { status, headers, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn registry_number_is_an_integer_or_a_string_of_digits() {
        let max = format!("{}", u64::MAX);
        for (text, want) in [
            ("7", Some(7)),
            ("\"7\"", Some(7)),
            ("0", Some(0)),
            (&*max, Some(u64::MAX)),
            (&*format!("\"{max}\""), Some(u64::MAX)),
            ("18446744073709551616", None),
            ("\"18446744073709551616\"", None),
            ("-1", None),
            ("\"-1\"", None),
            ("\"+1\"", None),
            ("\"\"", None),
            ("\" 7\"", None),
            ("\"Procurement-Invoice\"", None),
            ("1.5", None),
            ("null", None),
            ("[7]", None),
        ] {
            let found: Option<Number> = serde_json::from_str(text).ok();
            assert_eq!(found.map(|it| it.0), want, "{text}");
        }
    }

    #[test]
    fn registry_404_means_gone_only_in_the_vendors_format() {
        let theirs = |body: &[u8]| (body == b"theirs").then(|| "not\nfound".to_owned());
        let of = |status, body| failure(&answer(status, "application/json", body), theirs);
        assert_eq!(of(404, "theirs"), FetchFailure::NotFound);
        assert!(matches!(of(404, "<html>"), FetchFailure::Failed(why) if why.contains("`url`")));
        assert_eq!(of(500, "<html>"), FetchFailure::Failed("500 Internal Server Error".to_owned()));
        let want = "500 Internal Server Error: notfound".to_owned();
        assert_eq!(of(500, "theirs"), FetchFailure::Failed(want));
        let long = failure(&answer(500, "a/b", ""), |_| Some("é".repeat(10_000)));
        assert!(matches!(long, FetchFailure::Failed(why) if why.chars().count() == 27 + 200));
    }

    #[test]
    fn registry_content_is_no_web_page() {
        for (kind, fits) in [
            ("application/json", true),
            ("application/x-protobuf", true),
            ("application/octet-stream", true),
            ("text/html", false),
            ("Text/HTML; charset=utf-8", false),
        ] {
            assert_eq!(check_content(&answer(200, kind, "{}")).is_ok(), fits, "{kind}");
        }
    }
}
