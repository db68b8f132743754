//! The Pusher dialect over the wire: messages, close codes, errors, and the HTTP API.

use crate::net::*;
use polycast::config::{AppConfig, Config, DuplicateSubscribe, KeyPair, Pattern, Secret};
use std::net::SocketAddr;

fn app(id: &str, key: &str) -> AppConfig {
    let mut app = Config::demo().apps.remove(0);
    (app.id, app.key) = (id.to_owned(), key.to_owned());
    app
}

fn error(code: &str, message: &str) -> String {
    format!(r#"{{"event":"pusher:error","data":{{"code":{code},"message":"{message}"}}}}"#)
}

/// Checks a handshake that the application refuses: first comes the error event, then the close
/// with its reason.
fn check_refused(address: SocketAddr, path: &str, more: &str, code: u16, reason: &str) {
    let mut client = Client::connect(address);
    client.send(handshake(path, more).as_bytes());
    assert_eq!(client.response().status, 101, "{path}");
    assert_eq!(client.text(), error(&code.to_string(), reason), "{path}");
    assert_eq!(client.close(), (code, reason.to_owned()), "{path}");
    client.send_close(code);
    client.end();
}

#[test]
fn pusher_first_frame_has_socket_id_and_activity_timeout() {
    let Some(server) = start(config()) else { return };
    let mut client = Client::open(server.addresses()[0], APP_PATH);
    let text = client.text();
    let rest = text
        .strip_prefix(r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\""#)
        .unwrap();
    let id = rest.strip_suffix(r#"\",\"activity_timeout\":120}"}"#).unwrap();
    let (left, right) = id.split_once('.').unwrap();
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    assert!(digits(left) && digits(right), "{id}");
}

#[test]
fn pusher_subscribe_and_unsubscribe() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let (mut client, id) = Client::app(address);
    let mut publisher = Client::connect(address);
    client.subscribe("news");
    // Some client libraries send `data` as a string of JSON.
    client.send_text(r#"{"event":"pusher:subscribe","data":"{\"channel\":\"text\"}"}"#);
    assert_eq!(client.text(), subscribed("text"));
    for (channel, data) in [("private-a", None), ("private-b", Some(r#"{"user_id":1}"#))] {
        let signed = match data {
            Some(data) => format!("{id}:{channel}:{data}"),
            None => format!("{id}:{channel}"),
        };
        let auth = DEMO.auth(&signed);
        let data = data.map_or(String::new(), |data| {
            format!(r#","channel_data":"{}""#, data.replace('"', r#"\""#))
        });
        let request = format!(r#""channel":"{channel}","auth":"{auth}"{data}"#);
        client.send_text(&format!(r#"{{"event":"pusher:subscribe","data":{{{request}}}}}"#));
        assert_eq!(client.text(), subscribed(channel));
    }
    wait_count(&server, "subscriptions", 4);
    for channel in ["news", "text", "private-a", "private-b"] {
        publisher.publish(channel, "1");
        assert_eq!(client.text(), event(channel, "1"));
    }
    // An unsubscribe is not answered, even without a subscription.
    for _ in 0..3 {
        client.send_text(r#"{"event":"pusher:unsubscribe","data":{"channel":"news"}}"#);
    }
    client.sync();
    publisher.publish("news", "2");
    publisher.publish("text", "2");
    assert_eq!(client.text(), event("text", "2"));
    client.subscribe("news");
    publisher.publish("news", "3");
    assert_eq!(client.text(), event("news", "3"));
}

#[test]
fn pusher_second_subscription_never_delivers_twice() {
    let mut config = config();
    config.apps[0].limits.subscriptions_per_connection = 2;
    let mut ack = app("2", "ack-key");
    ack.duplicate_subscribe = DuplicateSubscribe::Ack;
    config.apps.push(ack);
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    for (key, answer) in [
        ("app-key", error("null", "Existing subscription to channel news")),
        ("ack-key", subscribed("news")),
    ] {
        let mut client = Client::open(address, &format!("/app/{key}"));
        client.established();
        client.subscribe("news");
        client.send_text(&subscribe("news"));
        assert_eq!(client.text(), answer);
        let path = if key == "app-key" { "/apps/1/events" } else { "/apps/ack-key/events" };
        let body = event_body("news", "1");
        let mut publisher = Client::connect(address);
        publisher.send(&Keys(key, "app-secret").request("POST", path, &body));
        assert_eq!(publisher.response().status, 200);
        assert_eq!(client.text(), event("news", "1"));
        client.sync();
    }
    let mut client = Client::subscriber(address, "a");
    client.subscribe("b");
    client.send_text(&subscribe("c"));
    assert_eq!(
        client.text(),
        concat!(
            r#"{"event":"pusher:subscription_error","channel":"c","data":{"type":"LimitReached","#,
            r#""error":"A connection may hold 2 subscriptions","status":4100}}"#
        )
    );
}

#[test]
fn pusher_refused_connection_gets_error_event_then_close() {
    let mut config = config();
    let mut tls = app("2", "tls-key");
    tls.require_tls = true;
    let mut disabled = app("3", "disabled-key");
    disabled.enabled = false;
    let mut origins = app("4", "origin-key");
    origins.allowed_origins = vec![Pattern::new("https://*.example.com")];
    config.apps.extend([tls, disabled, origins]);
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let tls = "Application only accepts TLS connections, reconnect using wss://";
    let origin = "Connection is unauthorized: origin not allowed";
    for (path, more, code, reason) in [
        ("/app/tls-key", "", 4000, tls),
        ("/app/no-such-key", "", 4001, "Application does not exist"),
        ("/app/disabled-key", "", 4003, "Application disabled"),
        ("/", "", 4005, "Path not found"),
        ("/app/", "", 4005, "Path not found"),
        ("/app/app-key/more", "", 4005, "Path not found"),
        ("/app/origin-key", "", 4009, origin),
        ("/app/origin-key", "Origin: https://example.com\r\n", 4009, origin),
    ] {
        check_refused(address, path, more, code, reason);
    }
    let mut client = Client::connect(address);
    let allowed = "Origin: https://www.example.com\r\n";
    client.send(handshake("/app/origin-key?protocol=99", allowed).as_bytes());
    assert_eq!(client.response().status, 101);
    client.established();
}

#[test]
fn pusher_strict_versions_are_4006_to_4008() {
    let mut config = config();
    config.pusher.strict_protocol = true;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    for (query, code, reason) in [
        ("?protocol=seven", 4006, "Invalid version string format"),
        ("?protocol=3", 4007, "Unsupported protocol version"),
        ("?protocol=8", 4007, "Unsupported protocol version"),
        ("?client=js", 4008, "No protocol version supplied"),
        ("", 4008, "No protocol version supplied"),
    ] {
        check_refused(address, &format!("/app/app-key{query}"), "", code, reason);
    }
    for version in 4..=7 {
        Client::open(address, &format!("/app/app-key?protocol={version}")).established();
    }
}

#[test]
fn pusher_connection_over_quota_is_4004() {
    let mut config = config();
    config.apps[0].limits.connections = 2;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let (first, _) = Client::app(address);
    let (_second, _) = Client::app(address);
    let reason = "Application is over connection quota";
    check_refused(address, APP_PATH, "", 4004, reason);
    drop(first);
    wait_count(&server, "connections", 1);
    Client::app(address);
}

#[test]
fn pusher_more_than_ten_errors_a_second_are_4100() {
    let Some(server) = start(config()) else { return };
    let (mut client, _) = Client::app(server.addresses()[0]);
    let nonsense = masked(true, TEXT, b"nonsense");
    // The burst may start in one second and end in the next.
    client.send(&nonsense.repeat(21));
    let mut errors = 0;
    let close = loop {
        let frame = client.frame();
        if frame.opcode == CLOSE {
            break frame.payload;
        }
        assert_eq!(frame.payload, error("null", "Invalid JSON").as_bytes());
        errors += 1;
    };
    assert!((10..=20).contains(&errors), "{errors}");
    assert_eq!(
        close,
        [&4100u16.to_be_bytes(), &b"Over capacity: too many messages that are errors"[..]].concat()
    );
    client.send_close(4100);
    client.end();
}

#[test]
fn pusher_silent_peer_is_pinged_and_closed_with_4201() {
    let mut config = config();
    config.pusher.activity_timeout_s = 1;
    config.pusher.pong_timeout_s = 2;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    // A client that answers WebSocket pings gets no `pusher:ping`, whatever the two intervals are.
    let alive = std::thread::spawn(move || {
        let mut alive = Client::open(address, "/app/app-key");
        alive.established();
        for _ in 0..4 {
            assert_eq!(alive.frame().opcode, PING);
            alive.send_frame(PONG, b"");
        }
    });
    let mut silent = Client::open(address, "/app/app-key");
    assert!(silent.text().ends_with(r#"\"activity_timeout\":1}"}"#));
    assert_eq!(
        silent.frame(),
        Frame { fin: true, compressed: false, opcode: PING, payload: Vec::new() }
    );
    assert_eq!(silent.text(), r#"{"event":"pusher:ping","data":{}}"#);
    let reason = "Pong reply not received: ping was sent, but no reply came in time";
    assert_eq!(silent.close(), (4201, reason.to_owned()));
    silent.end();
    alive.join().unwrap();
    assert_eq!(server.count("timed_out"), 1);
}

#[test]
fn pusher_drain_closes_with_4200_and_waits_for_the_answer() {
    let Some(mut server) = start(config()) else { return };
    let address = server.addresses()[0];
    let mut client = Client::subscriber(address, "c");
    let mut echo = Client::open(address, "/echo");
    let mut idle = Client::connect(address);
    wait_count(&server, "connections", 3);
    server.stop();
    let reason = "Server is shutting down, reconnect immediately";
    assert_eq!(client.close(), (4200, reason.to_owned()));
    assert_eq!(echo.close().0, 1001);
    client.send_close(4200);
    client.end();
    echo.send_close(1001);
    echo.end();
    idle.end();
    drop(idle);
    server.join().unwrap();
    assert!(std::net::TcpStream::connect_timeout(&address, PATIENCE).is_err());
}

#[test]
fn pusher_api_has_no_cors_fields_by_default() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    for method in ["GET", "POST", "OPTIONS"] {
        let mut client = Client::connect(address);
        let request = format!(
            "{method} /apps/1/events HTTP/1.1\r\nHost: a\r\nOrigin: https://b.example\r\n\
             Content-Length: 0\r\n\r\n"
        );
        client.send(request.as_bytes());
        let answer = client.response();
        assert_eq!(answer.status, 401);
        let fields = answer.head.to_ascii_lowercase();
        assert!(!fields.contains("access-control"), "{fields}");
    }
}

#[test]
fn pusher_errors_that_leave_the_connection_open() {
    let mut config = config();
    config.apps[0].client_events = false;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let json = "Invalid JSON";
    let object = "Message must be a JSON object with an event";
    let data = "Message data must be a JSON object";
    for (message, code, text) in [
        ("", "null", json),
        ("{", "null", json),
        ("[]", "null", object),
        ("7", "null", object),
        ("null", "null", object),
        ("{}", "null", object),
        (r#"{"event":1}"#, "null", object),
        (r#"{"event":"x"}"#, "null", "Unsupported event received on socket: x"),
        (r#"{"event":"pusher:x"}"#, "null", "Unsupported event received on socket: pusher:x"),
        (r#"{"event":"pusher:subscribe"}"#, "null", "Message has no data"),
        (r#"{"event":"pusher:subscribe","data":7}"#, "null", data),
        (r#"{"event":"pusher:subscribe","data":"x"}"#, "null", data),
        (r#"{"event":"pusher:subscribe","data":"7"}"#, "null", data),
        (r#"{"event":"pusher:subscribe","data":{}}"#, "null", "Message data must name a channel"),
        (r#"{"event":"pusher:unsubscribe","data":[]}"#, "null", data),
    ] {
        let (mut client, _) = Client::app(address);
        client.send_text(message);
        assert_eq!(client.text(), error(code, text), "{message}");
        client.sync();
    }
    let (mut client, _) = Client::app(address);
    client.send_text(r#"{"event":"client-x","channel":"private-a","data":1}"#);
    let refused = error("4301", "The app does not have client messaging enabled.");
    let refused = refused.replace(r#""data""#, r#""channel":"private-a","data""#);
    assert_eq!(client.text(), refused);
    for _ in 0..3 {
        client.send_frame(BINARY, b"x");
        assert_eq!(client.text(), error("null", "Binary messages are not supported"));
    }
    client.send_frame(BINARY, b"x");
    assert_eq!(client.close().0, 1003);
}

#[test]
fn pusher_refused_subscriptions() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let (mut client, id) = Client::app(address);
    let long = "x".repeat(201);
    let other = Keys("app-key", "other").auth(&format!("{id}:private-a"));
    let unknown = Keys("other", "app-secret").auth(&format!("{id}:private-a"));
    for (channel, auth, kind, status) in [
        ("", "", "LimitReached", 4009),
        ("a b", "", "LimitReached", 4009),
        (&long, "", "LimitReached", 4009),
        ("private-a", "", "AuthError", 401),
        ("private-a", &other, "AuthError", 401),
        ("private-encrypted-a", &other, "AuthError", 401),
        ("private-a", &unknown, "AuthError", 401),
    ] {
        client.send_text(&format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":"{auth}"}}}}"#
        ));
        let text = client.text();
        assert!(text.contains(r#""event":"pusher:subscription_error""#), "{text}");
        assert!(text.contains(&format!(r#""type":"{kind}""#)), "{text}");
        assert!(text.ends_with(&format!(r#""status":{status}}}}}"#)), "{text}");
    }
    client.sync();
    assert_eq!(server.count("subscriptions"), 0);
}

#[test]
fn pusher_answers_pings_of_both_layers() {
    let Some(server) = start(config()) else { return };
    let (mut client, _) = Client::app(server.addresses()[0]);
    let pong = r#"{"event":"pusher:pong","data":{}}"#;
    for ping in [r#"{"event":"pusher:ping","data":{}}"#, r#"{"event":"pusher:ping"}"#] {
        client.send_text(ping);
        assert_eq!(client.text(), pong);
    }
    client.sync();
}

#[test]
fn pusher_api_errors_deliver_nothing() {
    let mut config = config();
    let mut disabled = app("3", "disabled-key");
    disabled.enabled = false;
    config.apps.push(disabled);
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut subscriber = Client::subscriber(address, "c");
    let mut client = Client::connect(address);
    let long = format!(r#"{{"name":"e","channel":"c","data":"{}"}}"#, "x".repeat(10_241));
    let many: Vec<String> = (0..101).map(|n| format!(r#""c{n}""#)).collect();
    let many = format!(r#"{{"name":"e","channels":[{}],"data":""}}"#, many.join(","));
    let both = r#"{"name":"e","channel":"c","channels":["c"],"data":""}"#;
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        (r#"{"name":"e","channel":"c"}"#, 400),
        (r#"{"name":"","channel":"c","data":""}"#, 400),
        (r#"{"name":"pusher:x","channel":"c","data":""}"#, 400),
        (r#"{"name":"e","channel":"c d","data":""}"#, 400),
        (r#"{"name":"e","channels":[],"data":""}"#, 400),
        (r#"{"name":"e","channels":["private-encrypted-a","c"],"data":""}"#, 400),
        (r#"{"name":"e","channel":"c","data":"","socket_id":"1.x"}"#, 400),
        (both, 400),
        (&many, 400),
        (&long, 413),
    ] {
        client.send(&DEMO.request("POST", EVENTS, body));
        let response = client.response();
        assert_eq!(response.status, status, "{body}: {response:?}");
        assert!(response.body.starts_with(r#"{"error":""#), "{response:?}");
        assert!(response.body.ends_with(&format!(r#","code":{status}}}"#)), "{response:?}");
    }
    let body = event_body("c", "x");
    let old = DEMO.sign("POST", EVENTS, &body, 700);
    let good = DEMO.sign("POST", EVENTS, &body, 0);
    for (query, why) in [
        ("", "Unknown auth_key"),
        (old.as_str(), "Timestamp expired"),
        (&good.replace("version=1.0", "version=2.0"), "auth_version"),
        // The signature covers `body_md5`, and is checked first.
        (&good.replace("body_md5=", "body_md5=0"), "auth_signature"),
        (&good.replace("signature=", "signature=0"), "auth_signature"),
    ] {
        let len = body.len();
        let head = format!("POST {EVENTS}?{query} HTTP/1.1\r\nHost: h\r\nContent-Length: {len}");
        client.send(format!("{head}\r\n\r\n{body}").as_bytes());
        let response = client.response();
        assert_eq!(response.status, 401, "{response:?}");
        assert!(response.body.contains(why), "{response:?}");
    }
    let disabled = Keys("disabled-key", "app-secret");
    client.send(&disabled.request("POST", "/apps/3/events", &body));
    assert_eq!(client.response().status, 403);
    client.send(&DEMO.request("POST", "/apps/9/events", &body));
    assert_eq!(client.response().status, 404);
    client.publish("c", "good");
    assert_eq!(subscriber.text(), event("c", "good"));
}

#[test]
fn pusher_data_of_any_json_arrives_as_a_string() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let mut subscriber = Client::subscriber(address, "c");
    let mut client = Client::connect(address);
    for (data, seen) in [
        (r#""""#, ""),
        (r#""{\"id\":7}""#, r#"{\"id\":7}"#),
        (r#"{"id":7}"#, r#"{\"id\":7}"#),
        ("[1,null]", "[1,null]"),
        (r#""Zoë 🦀""#, "Zoë 🦀"),
        (r#""\u0000\n""#, r"\u0000\n"),
    ] {
        let body = format!(r#"{{"name":"e","channels":["c","c"],"data":{data}}}"#);
        client.send(&DEMO.request("POST", EVENTS, &body));
        assert_eq!(client.response().status, 200, "{data}");
        assert_eq!(subscriber.text(), event("c", seen), "{data}");
    }
    subscriber.sync();
}

#[test]
fn pusher_every_key_of_an_application_serves_and_signs() {
    let mut config = config();
    let pair = KeyPair { key: "new-key".to_owned(), secret: Secret::new("new-secret") };
    config.apps[0].keys = vec![pair];
    config.pusher.path_prefix = "/ws".to_owned();
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let new = Keys("new-key", "new-secret");
    let mut clients = Vec::new();
    for keys in [DEMO, new] {
        let mut client = Client::open(address, &format!("/ws/app/{}", keys.0));
        let id = client.established();
        let auth = keys.auth(&format!("{id}:private-c"));
        client.send_text(&format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"private-c","auth":"{auth}"}}}}"#
        ));
        assert_eq!(client.text(), subscribed("private-c"));
        clients.push(client);
    }
    let body = event_body("private-c", "x");
    for (keys, path, signed, status) in [
        (DEMO, "/ws/apps/1/events", "/ws/apps/1/events", 200),
        (new, "/ws/apps/1/events", "/ws/apps/1/events", 200),
        (new, "/ws/apps/1/events", "/apps/1/events", 200),
        (Keys("new-key", "app-secret"), "/ws/apps/1/events", "/ws/apps/1/events", 401),
        (DEMO, "/apps/1/events", "/apps/1/events", 404),
    ] {
        let mut publisher = Client::connect(address);
        let query = keys.sign("POST", signed, &body, 0);
        let len = body.len();
        let head = format!("POST {path}?{query} HTTP/1.1\r\nHost: h\r\nContent-Length: {len}");
        publisher.send(format!("{head}\r\n\r\n{body}").as_bytes());
        assert_eq!(publisher.response().status, status, "{path} {signed}");
        if status == 200 {
            for client in &mut clients {
                assert_eq!(client.text(), event("private-c", "x"));
            }
        }
    }
    check_refused(address, "/app/app-key", "", 4005, "Path not found");
}

#[test]
fn pusher_reload_drops_only_disabled_applications() {
    let config = config();
    let Some(mut server) = start(config.clone()) else { return };
    let address = server.addresses()[0];
    let mut stays = Client::subscriber(address, "news");
    let mut changed = config.clone();
    let mut second = config.apps[0].clone();
    (second.id, second.key) = ("2".to_owned(), "second".to_owned());
    changed.apps.push(second);
    server.renew(changed);
    wait("the new application is served", || {
        let mut client = Client::open(address, "/app/second?protocol=7");
        client.text().contains("connection_established")
    });
    Client::connect(address).publish("news", "still here");
    assert_eq!(stays.text(), event("news", "still here"));
    let mut changed = config;
    changed.apps[0].enabled = false;
    server.renew(changed);
    assert_eq!(stays.close(), (4003, "Application disabled".to_owned()));
}
