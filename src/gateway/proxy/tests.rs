//! Tests of the requests to upstreams, and of which responses are accepted.

use super::*;
use crate::config::Credentials;
use crate::http::{HeadLimits, Reader, RequestEvent};

const NONCE: [u8; 16] = *b"the sample nonce";
/// The `Sec-WebSocket-Key` that is made from [`NONCE`].
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn proxy(toml: &str) -> Proxy {
    toml::from_str(&format!("upstreams = 'ws://up:81'\n{toml}")).expect(toml)
}

/// The handshake with `upstream` for a client's request with these header lines.
fn upgrade_query(proxy: &Proxy, upstream: &str, fields: &str) -> (UpstreamHandshake, String) {
    let text = format!("GET /a/b?c=d HTTP/1.1\r\nHost: front\r\n{fields}\r\n");
    let (mut reader, mut input) = (Reader::new(), text.into_bytes());
    let (_, RequestEvent::Request(request)) = reader.next(&HeadLimits::default(), &mut input)
    else {
        panic!("{fields}");
    };
    let credentials =
        Credentials { protocol: "bearer.{credentials}".to_owned(), ..Credentials::default() };
    let guard = GuardConfig { credentials, ..toml::from_str("name = 'g'").expect("a guard") };
    let client = IpAddr::from([192, 0, 2, 7]);
    let from = Origination { client, sender: client, secure: false };
    let upgrade_query = UpgradeQuery::new(proxy, &[guard], &request, from);
    let upstream = Upstream::new(upstream).expect(upstream);
    let (handshake, request) = UpstreamHandshake::new(proxy, &upstream, &upgrade_query, NONCE);
    (handshake, String::from_utf8(request).expect("text"))
}

#[test]
fn s4_1_proxy_request_is_complete() {
    let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a\r\n\
        Sec-WebSocket-Protocol: bearer.x, b, c\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\nOrigin: http://page\r\nX-Other: y\r\n\
        cookie: k=v\r\nX-Forwarded-For: 1.2.3.4\r\n";
    let (_, request) = upgrade_query(&proxy(""), "ws://up:81", fields);
    let want = format!(
        "GET /a/b?c=d HTTP/1.1\r\nHost: up:81\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: a, b, c\r\nOrigin: http://page\r\ncookie: k=v\r\n\
         X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: front\r\n\r\n"
    );
    assert_eq!(request, want);
}

#[test]
fn proxy_target_is_the_clients_if_the_url_has_none() {
    for (url, target) in [
        ("ws://up", "/a/b?c=d"),
        ("ws://up/", "/"),
        ("ws://up/x", "/x"),
        ("ws://up/x?y", "/x?y"),
        ("ws://up?y", "/?y"),
    ] {
        let (_, request) = upgrade_query(&proxy(""), url, "");
        assert!(request.starts_with(&format!("GET {target} HTTP/1.1\r\nHost: up\r\n")), "{url}");
    }
}

#[test]
fn proxy_fields_are_passed_set_and_appended() {
    let chosen = proxy(
        "pass_headers = ['x-other', 'x-forwarded-for', 'x-forwarded-proto']\n\
         set_headers = { host = 'inside', X-Token = 't', X-Forwarded-Host = 'set' }",
    );
    let fields = "Origin: o\r\nX-Other: 1\r\nX-Other: 2\r\nX-Forwarded-For: 1.2.3.4\r\n\
        X-Forwarded-Proto: https\r\nX-Forwarded-Host: no\r\nX-Forwarded-For: 5.6.7.8\r\n";
    let (_, request) = upgrade_query(&chosen, "ws://up", fields);
    let begin = "GET /a/b?c=d HTTP/1.1\r\nHost: inside\r\nUpgrade: websocket\r\n";
    let end = "X-Other: 1\r\nX-Other: 2\r\nX-Forwarded-Host: set\r\nX-Token: t\r\n\
        X-Forwarded-For: 1.2.3.4, 5.6.7.8, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert!(request.starts_with(begin), "{request}");
    assert!(request.ends_with(&format!("{KEY}\r\n{end}")), "{request}");
    let silent = proxy("forwarded = false\npass_headers = []");
    let (_, request) = upgrade_query(&silent, "ws://up", fields);
    assert!(request.ends_with(&format!("{KEY}\r\n\r\n")), "{request}");
}

const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The outcome of the valid response with `from` replaced by `to`, for a client that offers the
/// subprotocols a and b.
fn judged(from: &str, to: &str) -> HandshakeOutcome {
    let (handshake, _) = upgrade_query(&proxy(""), "ws://up", "Sec-WebSocket-Protocol: a, b\r\n");
    assert!(ANSWER.contains(from), "{from}");
    handshake.judge(ANSWER.replacen(from, to, 1).as_bytes())
}

#[test]
fn s4_1_proxy_accepts_valid_responses() {
    for (from, to, protocol) in [
        ("\r\n\r\n", "\r\n\r\n", None),
        ("Upgrade: websocket", "upgrade:  WebSocket ", None),
        ("Connection: Upgrade", "connection: keep-alive, UPGRADE", None),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: b\r\n\r\n", Some("b")),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol:\r\n\r\n", None),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions:\r\n\r\n", None),
        ("Switching Protocols", "", None),
    ] {
        assert_eq!(judged(from, to), HandshakeOutcome::Open(protocol.map(Box::from)), "{to}");
    }
}

#[test]
fn s4_1_proxy_refuses_invalid_responses() {
    for (from, to) in [
        ("Upgrade: websocket\r\n", ""),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade\r\n", ""),
        ("Connection: Upgrade", "Connection: close"),
        ("s3pPLMBi", "S3pPLMBi"),
        ("Sec-WebSocket-Accept", "X-Accept"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: c\r\n\r\n"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: A\r\n\r\n"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("101", "99999"),
    ] {
        let outcome = judged(from, to);
        assert!(
            matches!(outcome, HandshakeOutcome::Failed(UpstreamFailure::InvalidReply(_))),
            "{to}: {outcome:?}"
        );
        let HandshakeOutcome::Failed(cause) = outcome else { continue };
        assert_eq!((cause.status(), cause.may_be_tried_elsewhere()), (502, true));
    }
}

#[test]
fn proxy_maps_other_statuses() {
    for (status, passed_on, elsewhere) in [
        ("200", 502, false),
        ("302", 502, false),
        ("400", 502, false),
        ("403", 403, false),
        ("404", 404, false),
        ("500", 502, true),
        ("503", 502, true),
    ] {
        let HandshakeOutcome::Failed(cause) = judged("101", status) else { panic!("{status}") };
        let refused = UpstreamFailure::Refused(status.parse().expect("a number"), None);
        assert_eq!(cause, refused);
        assert_eq!(
            (cause.status(), cause.may_be_tried_elsewhere()),
            (passed_on, elsewhere),
            "{status}"
        );
    }
    let challenged = judged("101 Switching Protocols", "401 No\r\nWWW-Authenticate: Basic");
    assert_eq!(
        challenged,
        HandshakeOutcome::Failed(UpstreamFailure::Refused(401, Some("Basic".into())))
    );
    assert_eq!(judged("101", "103"), HandshakeOutcome::Interim);
}

#[test]
fn proxy_distinguishes_server_faults_from_address_faults() {
    let (late, later) =
        (UpstreamFailure::Late { connected: false }, UpstreamFailure::Late { connected: true });
    let refused = |status| UpstreamFailure::Refused(status, None);
    for (cause, status, elsewhere, fault, address) in [
        (UpstreamFailure::NoSlot, 503, false, false, false),
        (UpstreamFailure::Unreachable, 502, true, true, true),
        (late, 504, true, true, true),
        (later, 504, true, true, false),
        (UpstreamFailure::InvalidReply(""), 502, true, true, false),
        (refused(404), 404, false, false, false),
        (refused(499), 502, false, false, false),
        (refused(500), 502, true, false, false),
        (refused(501), 502, true, false, false),
        (refused(502), 502, true, true, false),
        (refused(504), 502, true, true, false),
        (refused(505), 502, true, false, false),
    ] {
        assert_eq!((cause.status(), cause.may_be_tried_elsewhere()), (status, elsewhere));
        assert_eq!((cause.is_fault(), cause.is_of_the_address()), (fault, address), "{cause:?}");
    }
}
