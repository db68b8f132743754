//! Zenith across several cores, with real sockets and a restart.

use super::child::*;
use crate::net::*;
use polycast::codec::Format;
use polycast::codec::json::Scratch;
use polycast::codec::value::{DecodeLimits, Value, decode, encode_any};
use polycast::config::{self, Config};
use polycast::server::Server;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

const ZENITH: &str = r#"
[zenith]
tokens = [{ token = "T", user = "u", sessions = 3 }]
services = [{ token = "SERVICE" }]
topics = [
    { controller = "Market", kind = "*" },
    { controller = "Market", kind = "Fixed", data = '{"a":1}' },
]
"#;

fn zenith() -> Config {
    let parsed = Config::parse(ZENITH, config::FileFormat::Toml, "test").unwrap();
    let mut config = config();
    (config.zenith, config.routes) = (parsed.zenith, parsed.routes);
    config
}

/// Opens a Zenith client with one of the formats.
pub(super) fn client(address: SocketAddr, protocol: &str, more: &str) -> Client {
    let mut client = Client::connect(address);
    let fields = format!("Sec-WebSocket-Protocol: {protocol}\r\n{more}");
    client.send(handshake("/Zenith", &fields).as_bytes());
    assert_eq!(client.response().status, 101);
    client
}

pub(super) fn say(client: &mut Client, format: Format, json: &str) {
    let mut out = Vec::new();
    encode_any(format, &parse(json), &mut out).unwrap();
    client.send_frame(if format.is_text() { TEXT } else { BINARY }, &out);
}

pub(super) fn parse(json: &str) -> Value {
    let mut bytes = json.as_bytes().to_vec();
    decode(Format::Json, &mut bytes, &DecodeLimits::default(), &mut Scratch::default()).unwrap()
}

pub(super) fn received(client: &mut Client, format: Format) -> Value {
    let mut frame = client.frame();
    assert_eq!(frame.opcode, if format.is_text() { TEXT } else { BINARY });
    decode(format, &mut frame.payload, &DecodeLimits::default(), &mut Scratch::default()).unwrap()
}

pub(super) fn ingest(client: &mut Client, body: &str) -> Response {
    client.send(&crate::peer::ingest("SERVICE", body.as_bytes()));
    client.response()
}

fn sub(topic: &str) -> String {
    format!(r#"{{"Controller":"Market","Topic":"{topic}","Action":"Sub","Confirm":true}}"#)
}

fn confirmed(topic: &str) -> Value {
    parse(&sub(topic))
}

fn server() -> Option<Server> {
    start(zenith())
}

#[test]
fn zenith_closes_the_oldest_sessions_of_a_user_on_any_core() {
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    let mut clients = Vec::new();
    for at in 0..12 {
        clients.push(client(address, "ZenithJson", "Authorization: Bearer T\r\n"));
        // Each client is connected before the next one.
        clients[at].sync();
    }
    for client in &mut clients[..9] {
        assert_eq!(client.close(), (4000, "the account has too many sessions".to_owned()));
        client.send_close(4000);
        client.end();
    }
    clients[9..].iter_mut().for_each(Client::sync);
    let mut backend = Client::connect(address);
    let answer = ingest(&mut backend, r#"{"Action":"Kick","UserID":"u"}"#);
    assert_eq!(answer.body, r#"{"kicked":3}"#);
    for client in &mut clients[9..] {
        assert_eq!(client.close().0, 4000);
    }
}

#[test]
fn zenith_back_end_serves_clients_of_all_cores() {
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    let mut backend = client(address, "ZenithMsgPack", "Authorization: Bearer SERVICE\r\n");
    say(
        &mut backend,
        Format::MsgPack,
        r#"{"Action":"Register","TransactionID":1,"Data":{"Controllers":["Market"]}}"#,
    );
    received(&mut backend, Format::MsgPack);
    for at in 0..12 {
        let mut client = client(address, "ZenithJson", "");
        let call = format!(r#"{{"Controller":"Market","Topic":"Q","TransactionID":{at}}}"#);
        client.send_text(&call);
        let asked = received(&mut backend, Format::MsgPack);
        let number = asked.get("TransactionID").and_then(Value::as_int).unwrap();
        let answer = format!(
            r#"{{"Controller":"Market","Topic":"Q","TransactionID":{number},"Data":[{at}]}}"#
        );
        say(&mut backend, Format::MsgPack, &answer);
        let reply =
            format!(r#"{{"Controller":"Market","Topic":"Q","TransactionID":{at},"Data":[{at}]}}"#);
        assert_eq!(client.text(), reply);
        let topic = format!("S!{at}");
        let data = format!(r#""TransactionID":1,"Data":{{"n":{at}}}"#);
        let publish =
            format!(r#"{{"Controller":"Market","Topic":"{topic}","Action":"Publish",{data}}}"#);
        say(&mut backend, Format::MsgPack, &publish);
        received(&mut backend, Format::MsgPack);
        // The event was confirmed after the home ordered it, so it is in the picture.
        client.send_text(&sub(&topic));
        let picture = format!(r#"{{"Controller":"Market","Topic":"{topic}","Data":{{"n":{at}}}}}"#);
        assert_eq!(client.text(), picture);
        assert_eq!(parse(&client.text()), confirmed(&topic));
    }
}

#[test]
fn zenith_client_that_does_not_read_is_closed_with_1001() {
    let mut config = zenith();
    config.limits.write_queue_bytes = 64 * 1024;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut slow = Client::connect_narrow(address);
    slow.send(handshake("/Zenith", "").as_bytes());
    assert_eq!(slow.response().status, 101);
    slow.send_text(&sub("S"));
    assert_eq!(parse(&slow.text()), confirmed("S"));
    let mut backend = Client::connect(address);
    let body = format!(
        r#"{{"Controller":"Market","Topic":"S","Retain":"None","Data":{{"a":"{}"}}}}"#,
        "x".repeat(10_000)
    );
    for round in 0.. {
        assert!(round < 5000, "it is never noticed");
        if server.count("slow_consumer_closed") > 0 {
            break;
        }
        assert_eq!(ingest(&mut backend, &body).status, 200);
    }
    let last = std::iter::from_fn(|| slow.try_frame()).last().unwrap();
    assert_eq!((last.opcode, &last.payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
}

#[test]
fn zenith_backend_that_does_not_read_gets_no_calls_and_is_closed_in_time() {
    let mut config = zenith();
    config.limits.write_queue_bytes = 64 * 1024;
    config.timeouts.send_ms = 3000;
    let section = config.zenith.as_mut().unwrap();
    (section.message_bytes, section.pending_per_connection) = (16 * 1024, 100_000);
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut backend = Client::connect_narrow(address);
    let fields = "Authorization: Bearer SERVICE\r\n";
    backend.send(handshake("/Zenith", fields).as_bytes());
    assert_eq!(backend.response().status, 101);
    backend.send_text(r#"{"Action":"Register","Data":{"Controllers":["Market"]}}"#);
    backend.sync();
    let mut client = client(address, "ZenithJson", "");
    let call = format!(
        r#"{{"Controller":"Market","Topic":"Q","TransactionID":1,"Data":"{}"}}"#,
        "x".repeat(10_000)
    );
    let mut calls = 0;
    let refused = loop {
        assert!(calls < 5000, "it is never noticed");
        client.send_text(&call);
        client.send_frame(PING, b"");
        calls += 1;
        // Only pongs arrive as long as the calls fit.
        let frame = client.frame();
        if frame.opcode == TEXT {
            break String::from_utf8_lossy(&frame.payload).into_owned();
        }
    };
    assert!(refused.contains(r#""TransactionID":1,"Data":"Limited""#), "{refused}");
    assert_eq!(server.count("slow_consumer_closed"), 0, "others do not end it");
    assert!(server.count("backend_calls_refused") > 0);
    let failed = r#""Action":"Error","TransactionID":1,"Data":"Market.Unavailable""#;
    // The kernel may have taken all calls that were accepted, so further ones are made until the
    // back end's queue stands still for three seconds.
    let mut has_failed = false;
    wait("what waits fails", || {
        client.send_text(&call);
        client.send_frame(PING, b"");
        loop {
            let frame = client.frame();
            if frame.opcode != TEXT {
                break;
            }
            has_failed |= String::from_utf8_lossy(&frame.payload).contains(failed);
        }
        has_failed
    });
}

#[test]
fn zenith_back_end_restart_restores_the_state() {
    if !has_uring() {
        return;
    }
    let text = format!("{BASE}drain_s = 15\n{ZENITH}");
    let publish = r#"{"Controller":"Market","Topic":"S","Data":{"n":7}}"#;
    for round in 0..2 {
        let mut process = Process::start("zenith-restart", &text);
        let mut backend = Client::connect(process.address);
        assert_eq!(ingest(&mut backend, publish).status, 200);
        let mut client = client(process.address, "ZenithJson", "");
        for (topic, data) in [("Fixed", r#"{"a":1}"#), ("S", r#"{"n":7}"#)] {
            client.send_text(&sub(topic));
            let first = format!(r#"{{"Controller":"Market","Topic":"{topic}","Data":{data}}}"#);
            assert_eq!(client.text(), first, "round {round}");
            assert_eq!(parse(&client.text()), confirmed(topic));
        }
        process.signal(libc::SIGTERM);
        assert_eq!(client.close().0, 1012);
        client.send_close(1012);
        client.end();
        drop((client, backend));
        assert_eq!(process.ended().code(), Some(0));
    }
}

/// The number of fields of the large topic.
const FIELDS: usize = 10_000;

#[test]
fn zenith_large_picture_reaches_a_thousand_subscribers() {
    large_picture(1_000, 100, 200);
}

/// The full load needs a dedicated machine, and runs only if `PICTURE_UPDATES` sets the number of
/// updates: `PICTURE_UPDATES=5000 cargo test --release --test it thousand_updates_a_second`.
#[test]
fn zenith_large_picture_takes_a_thousand_updates_a_second() {
    let whole = std::env::var("PICTURE_UPDATES").ok().and_then(|it| it.parse().ok());
    let (subscribers, updates) = whole.map_or((60, 1_000), |updates| (1_000, updates));
    let took = large_picture(subscribers, 1_000, updates);
    if whole.is_some() {
        println!("{updates} updates for {subscribers} subscribers were published in {took:?}");
        let planned = Duration::from_millis(updates as u64);
        assert!(cfg!(debug_assertions) || took < planned * 21 / 20, "too slow: {took:?}");
    }
}

/// Publishes `updates` to a topic of many fields, at `per_second`, for subscribers of all formats.
/// Each subscriber must receive all updates in order, and the picture must have them at the end.
/// Returns the time that the publishing took.
fn large_picture(subscribers: usize, per_second: u32, updates: usize) -> Duration {
    let Some(server) = server() else { return Duration::ZERO };
    let address = server.addresses()[0];
    let mut backend = Client::connect(address);
    let field = |at: usize| format!(r#""f{at}":{at}"#);
    let all: Vec<String> = (0..FIELDS).map(field).collect();
    let body = format!(r#"{{"Controller":"Market","Topic":"Big","Data":{{{}}}}}"#, all.join(","));
    assert_eq!(ingest(&mut backend, &body).status, 200);
    let formats = [
        ("ZenithJson", Format::Json),
        ("ZenithBson", Format::Bson),
        ("ZenithMsgPack", Format::MsgPack),
    ];
    let mut picture = parse(&body);
    let mut clients = Vec::new();
    for at in 0..subscribers {
        let (protocol, format) = formats[at % 3];
        let mut client = client(address, protocol, "");
        say(&mut client, format, &sub("Big"));
        // Decoding takes time, so only a few pictures are decoded.
        match at < 6 {
            true => assert_eq!(received(&mut client, format), picture),
            false => assert!(client.frame().payload.len() > FIELDS * 8),
        }
        assert_eq!(received(&mut client, format), confirmed("Big"));
        clients.push((client, format));
    }
    let took = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_fields(&mut backend, per_second, updates));
        for half in clients.chunks_mut(subscribers.div_ceil(2)) {
            scope.spawn(move || {
                // Read in turn, because a client that does not read for long is closed.
                for from in (0..updates).step_by(50) {
                    let part = from..updates.min(from + 50);
                    half.iter_mut().for_each(|it| hear_fields(it, part.clone()));
                }
            });
        }
        publisher.join().unwrap()
    });
    let Value::Map(members) = &mut picture else { panic!() };
    let Some((_, Value::Map(fields))) = members.last_mut() else { panic!() };
    for at in 0..updates {
        fields[at * 7 % FIELDS].1 = Value::Int(1_000_000 + at as i64);
    }
    for (protocol, format) in formats {
        let mut client = client(address, protocol, "");
        say(&mut client, format, &sub("Big"));
        assert_eq!(received(&mut client, format), picture);
    }
    assert_eq!(server.count("slow_consumer_closed"), 0);
    took
}

/// Publishes at a steady rate, whatever the answers are: a late server gets more at once.
fn publish_fields(backend: &mut Client, per_second: u32, updates: usize) -> Duration {
    let (start, mut out) = (Instant::now(), backend.stream.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for at in 0..updates {
                let data = format!(r#"{{"f{}":{}}}"#, at * 7 % FIELDS, 1_000_000 + at);
                let body = format!(r#"{{"Controller":"Market","Topic":"Big","Data":{data}}}"#);
                out.write_all(&crate::peer::ingest("SERVICE", body.as_bytes())).unwrap();
                let next = start + Duration::from_secs(1) / per_second * (at as u32 + 1);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        (0..updates).for_each(|_| assert_eq!(backend.response().status, 200));
    });
    start.elapsed()
}

fn hear_fields((client, format): &mut (Client, Format), updates: Range<usize>) {
    for at in updates {
        let data = received(client, *format);
        let value = data.get("Data").and_then(|it| it.get(&format!("f{}", at * 7 % FIELDS)));
        assert_eq!(value.and_then(Value::as_int), Some(1_000_000 + at as i64));
    }
}

#[test]
fn zenith_reload_changes_rights_and_notifies_clients() {
    let config = zenith();
    let Some(mut server) = start(config.clone()) else { return };
    let address = server.addresses()[0];
    let mut client = client(address, "ZenithJson", "Authorization: Bearer T\r\n");
    let own = |topic: &str| {
        let (controller, topic) = topic.split_once('/').unwrap();
        format!(r#"{{"Controller":"{controller}","Topic":"{topic}","Action":"Sub"}}"#)
    };
    client.send_text(&own("Zenith/ServerInfo"));
    assert!(client.text().contains(r#""Name":"polycast""#));
    client.send_text(&own("Auth/Identify"));
    assert!(client.text().contains(r#""Result":"Success""#));
    client.send_text(&own("Market/Fixed"));
    assert!(client.text().ends_with(r#""Data":{"a":1}}"#));
    let mut changed = config;
    let section = changed.zenith.as_mut().unwrap();
    section.name = "other".to_owned();
    section.topics[1].data = r#"{"a":2}"#.to_owned();
    server.renew(changed.clone());
    assert!(client.text().ends_with(r#""Data":{"a":2}}"#));
    assert!(client.text().contains(r#""Name":"other""#));
    changed.zenith.as_mut().unwrap().tokens.clear();
    server.renew(changed);
    assert!(client.text().contains(r#""Result":"Rejected""#));
    client.sync();
}
