//! Finds the token of a request in its cookies, header fields, query and subprotocols.

use crate::config::{CREDENTIALS, Credentials};
use crate::http::Request;
use crate::http::query::{self, PlusSign};
use std::borrow::Cow;

/// The token of a request: that of the first configured cookie, else of the first header field,
/// else of the first query parameter that has one.
pub(super) fn find<'r>(places: &Credentials, request: &Request<'r>) -> Option<Cow<'r, str>> {
    let cookies = places.cookies.iter();
    let cookies = cookies.filter_map(|(name, pattern)| Some((cookie(request, name)?, pattern)));
    for (value, pattern) in cookies {
        if let Some(token) = inside(pattern, value, false) {
            return Some(Cow::Borrowed(token));
        }
    }
    for (name, pattern) in &places.headers {
        let mut tokens = request.header_values(name).filter_map(|it| inside(pattern, it, true));
        if let Some(token) = tokens.next() {
            return Some(Cow::Borrowed(token));
        }
    }
    for (name, pattern) in &places.query {
        if let Some(token) = parameter(request.query(), name, pattern) {
            return Some(token);
        }
    }
    None
}

/// The token in the name of an offered subprotocol, if it matches `places.protocol`.
pub(super) fn in_protocol<'n>(places: &Credentials, name: &'n str) -> Option<&'n str> {
    if places.protocol.is_empty() { None } else { inside(&places.protocol, name, false) }
}

/// The part of `text` at the place of `{credentials}` in `pattern`, if the rest of `text` equals
/// that of `pattern` and the part is not empty.
fn inside<'t>(pattern: &str, text: &'t str, any_case: bool) -> Option<&'t str> {
    let (head, tail) = pattern.split_once(CREDENTIALS)?;
    let (found, rest) = text.split_at_checked(head.len())?;
    // The name of an authentication scheme is case-insensitive (RFC 9110 section 11.1).
    let same = if any_case { found.eq_ignore_ascii_case(head) } else { found == head };
    let token = rest.strip_suffix(tail)?.trim_matches(' ');
    (same && !token.is_empty()).then_some(token)
}

/// The value of the first cookie of this name (RFC 6265 section 5.4), without its quotes.
fn cookie<'r>(request: &Request<'r>, name: &str) -> Option<&'r str> {
    let mut values = request.headers.values("cookie").filter_map(|it| str::from_utf8(it).ok());
    values.find_map(|value| {
        let mut pairs = value.split(';').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(found, _)| found.trim_matches([' ', '\t']) == name)?;
        let value = value.trim_matches([' ', '\t']);
        let quoted = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        Some(quoted.unwrap_or(value))
    })
}

fn parameter<'r>(query: &'r str, name: &str, pattern: &str) -> Option<Cow<'r, str>> {
    let decode = |text| query::decode(text, PlusSign::Literal);
    query::pairs(query).filter(|(found, _)| decode(found).is_some_and(|it| it == name)).find_map(
        |(_, value)| match decode(value)? {
            Cow::Borrowed(value) => inside(pattern, value, false).map(Cow::Borrowed),
            Cow::Owned(value) => inside(pattern, &value, false).map(|it| Cow::Owned(it.to_owned())),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, Reader, RequestEvent};
    use std::collections::BTreeMap;

    fn places() -> Credentials {
        let one =
            |name: &str, pattern: &str| BTreeMap::from([(name.to_owned(), pattern.to_owned())]);
        Credentials {
            cookies: one("token", "{credentials}"),
            headers: one("authorization", "Bearer {credentials}"),
            query: one("access token", "{credentials}"),
            protocol: "bearer.{credentials}".to_owned(),
        }
    }

    fn found(target: &str, fields: &str) -> Option<String> {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let mut bytes = bytes.into_bytes();
        let limits = HeadLimits { head_bytes: 4096, body_bytes: 0, ..HeadLimits::default() };
        match Reader::default().next(&limits, &mut bytes).1 {
            RequestEvent::Request(request) => find(&places(), &request).map(Cow::into_owned),
            _ => panic!("{target} {fields}"),
        }
    }

    #[test]
    fn token_is_read_from_each_place() {
        for (target, fields, want) in [
            ("/", "", None),
            ("/", "Authorization: Bearer a.b.c\r\n", Some("a.b.c")),
            ("/", "authorization: bearer   a.b.c\r\n", Some("a.b.c")),
            ("/", "Authorization: Basic a.b.c\r\n", None),
            ("/", "Authorization: Bearer\r\n", None),
            ("/", "Authorization: Bearer \r\n", None),
            ("/", "Authorization: Basic x\r\nAuthorization: Bearer y\r\n", Some("y")),
            ("/", "Cookie: token=a\r\n", Some("a")),
            ("/", "Cookie: x=1; token=a; y=2\r\n", Some("a")),
            ("/", "Cookie: x=1;token=\"a\";y=2\r\n", Some("a")),
            ("/", "Cookie: xtoken=a; tokenx=b; Token=c\r\n", None),
            ("/", "Cookie: x=1\r\nCookie: token=a=b\r\n", Some("a=b")),
            ("/", "Cookie: token=; x=1\r\n", None),
            ("/?access%20token=a", "", Some("a")),
            ("/?x=1&access%20token=a%2Eb&y", "", Some("a.b")),
            ("/?access%20token=&access%20token=b", "", Some("b")),
            ("/?access%20tokens=a", "", None),
            ("/?access%20token=%ff", "", None),
        ] {
            assert_eq!(found(target, fields).as_deref(), want, "{target} {fields}");
        }
        for (name, want) in
            [("bearer.a", Some("a")), ("bearer.", None), ("Bearer.a", None), ("bearer", None)]
        {
            assert_eq!(in_protocol(&places(), name), want, "{name}");
        }
        assert_eq!(in_protocol(&Credentials::default(), "bearer.a"), None);
    }

    #[test]
    fn token_is_read_from_cookie_then_header_then_query() {
        let all = "Authorization: Bearer h\r\nCookie: token=c\r\n";
        let query = "/?access%20token=q";
        assert_eq!(found(query, all).as_deref(), Some("c"));
        let header = "Authorization: Bearer h\r\n";
        assert_eq!(found(query, header).as_deref(), Some("h"));
        assert_eq!(found(query, "").as_deref(), Some("q"));
    }
}
