//! Access to the pages that are not public: by token, or by a request from this machine.

use crate::config::Secret;
use crate::crypto::{constant_time_eq, sha256};
use crate::http::Request;
use crate::http::query::{self, PlusSign};
use std::net::{IpAddr, Ipv4Addr};

/// Whether `request` presents `token` as a bearer token or as the query parameter `token`. False if
/// `token` is empty.
pub(super) fn presents(request: &Request<'_>, token: &Secret) -> bool {
    let is_token = |given: &str| {
        // Digests are compared, so that the duration does not reveal even the token's length.
        let [given, token] = [given, token.expose()].map(|text| sha256(&[text.as_bytes()]));
        constant_time_eq(&given, &token)
    };
    let asked =
        query::get(request.query(), "token").and_then(|it| query::decode(it, PlusSign::Literal));
    !token.expose().is_empty()
        && (request.header("authorization").and_then(bearer).is_some_and(is_token)
            || asked.is_some_and(|given| is_token(&given)))
}

/// The token of an `Authorization` field with the scheme `Bearer` (RFC 6750 section 2.1).
fn bearer(field: &str) -> Option<&str> {
    let (scheme, token) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_start_matches(' '))
}

/// Whether the request comes from this machine and its host is this machine. The peer's address
/// alone does not suffice: a local proxy forwards the requests of others, which its header fields
/// or the host show, and a browser on this machine may run a foreign page whose host name resolves
/// to a loopback address.
pub(super) fn is_local(request: &Request<'_>, peer: IpAddr) -> bool {
    const ON_BEHALF: [&str; 7] = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
        "via",
    ];
    peer.to_canonical().is_loopback()
        && request.authority().is_some_and(is_loopback)
        && ON_BEHALF.iter().all(|name| request.headers.first(name).is_none())
}

/// Whether a host, with or without a port, is `localhost` or a loopback address.
fn is_loopback(authority: &str) -> bool {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((host, port)) = authority.strip_prefix('[').and_then(|it| it.split_once(']')) {
        let is_address = host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    is_port(port)
        && (host.eq_ignore_ascii_case("localhost")
            || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, Reader, RequestEvent};

    fn with(target: &str, field: &str, check: impl FnOnce(&Request<'_>)) {
        with_host(target, "Host: localhost", field, check);
    }

    fn with_host(target: &str, host: &str, field: &str, check: impl FnOnce(&Request<'_>)) {
        let mut bytes = format!("GET {target} HTTP/1.1\r\n{host}\r\n{field}\r\n\r\n").into_bytes();
        let limits = HeadLimits { head_bytes: 4096, body_bytes: 0, ..HeadLimits::default() };
        match Reader::default().next(&limits, &mut bytes).1 {
            RequestEvent::Request(request) => check(&request),
            _ => panic!("{target} {field}"),
        }
    }

    #[test]
    fn access_token_must_match_whole() {
        let token = Secret::new("a+b%c-0123456789");
        for (target, field, expected) in [
            ("/", "A: b", false),
            ("/?token=", "A: b", false),
            ("/?token=a+b%25c-0123456789", "A: b", true),
            ("/?x=1&token=a%2Bb%25c-0123456789", "A: b", true),
            ("/?token=a+b%25c-012345678", "A: b", false),
            ("/?token=a+b%25c-01234567890", "A: b", false),
            ("/", "Authorization: Bearer a+b%c-0123456789", true),
            ("/", "authorization: bearer  a+b%c-0123456789", true),
            ("/", "Authorization: Basic a+b%c-0123456789", false),
            ("/", "Authorization: a+b%c-0123456789", false),
            ("/?token=wrong", "Authorization: Bearer a+b%c-0123456789", true),
        ] {
            with(target, field, |it| {
                assert_eq!(presents(it, &token), expected, "{target} {field}")
            });
        }
        with("/?token=", "Authorization: Bearer ", |it| assert!(!presents(it, &Secret::new(""))));
    }

    #[test]
    fn access_forwarded_request_is_not_local() {
        for (peer, field, expected) in [
            ("127.0.0.1", "A: b", true),
            ("127.9.9.9", "A: b", true),
            ("::1", "A: b", true),
            ("::ffff:127.0.0.1", "A: b", true),
            ("192.0.2.1", "A: b", false),
            ("::ffff:192.0.2.1", "A: b", false),
            ("127.0.0.1", "X-Forwarded-For: 127.0.0.1", false),
            ("127.0.0.1", "Forwarded: for=192.0.2.1", false),
            ("127.0.0.1", "X-Forwarded-Proto: https", false),
            ("127.0.0.1", "X-Forwarded-Host: a", false),
            ("127.0.0.1", "X-Forwarded-Port: 443", false),
        ] {
            with("/", field, |it| {
                assert_eq!(is_local(it, peer.parse().unwrap()), expected, "{peer} {field}");
            });
        }
    }

    #[test]
    fn metrics_are_local_only_for_a_host_that_is_this_machine() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:6001", true),
            ("127.0.0.1", true),
            ("127.255.255.254:9", true),
            ("[::1]", true),
            ("[::1]:6001", true),
            ("[::ffff:127.0.0.1]:6001", true),
            ("evil.example", false),
            ("evil.example:6001", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("128.0.0.1", false),
            ("126.255.255.255", false),
            ("0.0.0.0", false),
            ("[::2]", false),
            ("[::]", false),
        ] {
            for (target, field) in
                [("/", format!("Host: {host}")), ("/x?y", format!("host:{host}"))]
            {
                with_host(target, &field, "A: b", |it| {
                    assert_eq!(is_local(it, IpAddr::from([127, 0, 0, 1])), expected, "{host}");
                });
            }
            // The authority of an absolute target is used, not the `Host` field (RFC 9112 section
            // 3.2.2).
            with_host(&format!("http://{host}/"), "Host: localhost", "A: b", |it| {
                assert_eq!(is_local(it, IpAddr::from([127, 0, 0, 1])), expected, "{host}");
            });
        }
        let mut old = b"GET / HTTP/1.0\r\n\r\n".to_vec();
        let limits = HeadLimits { head_bytes: 4096, body_bytes: 0, ..HeadLimits::default() };
        let mut reader = Reader::default();
        let RequestEvent::Request(request) = reader.next(&limits, &mut old).1 else { panic!() };
        assert!(!is_local(&request, IpAddr::from([127, 0, 0, 1])), "without any host");
    }
}
