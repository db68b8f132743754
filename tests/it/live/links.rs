//! Linked channels: one event reaches the clients of every dialect, in one order.

use crate::net::*;
use polycast::codec::Format;
use polycast::codec::json::Scratch;
use polycast::codec::value::{DecodeLimits, Value, decode, encode_any};
use polycast::config::{Config, FileFormat};
use polycast::server::Server;
use std::collections::HashSet;
use std::net::SocketAddr;

const LINKED: &str = r#"
threads = 2
listeners = [{ address = "127.0.0.1:0" }]
[[routes]]
when = [{ path = "/rooms/*" }]
endpoint = "reflect"
stream = true
[routes.reflect]
group = "path"
[[routes]]
when = [{ path = "/halls/*" }]
endpoint = "reflect"
[routes.reflect]
group = "path"
[[routes]]
when = [{ path = "/raw/*" }, { path = "/in/*" }, { path = "/rate/*" }]
endpoint = "channel"
[[routes]]
endpoint = "apps"
[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"
client_events = true
[[apps]]
id = "2"
key = "other-key"
secret = "other-secret"
dialect = "broadcastt"
[[apps]]
id = "3"
key = "third-key"
secret = "third-secret"
client_events = true
[zenith]
services = [{ token = "SERVICE" }]
topics = [{ controller = "Prices", kind = "*" }]
[[links]]
source = { app = "1", channel = "quotes-{symbol}" }
views = [
    { app = "2", channel = "q-{symbol}" },
    { app = "3", channel = "private-{symbol}-quotes", publish = true },
    { zenith = "Prices/Quote/{symbol}" },
    { reflect = "/rooms/{symbol}", publish = true },
    { path = "/raw/{symbol}" },
    { path = "/in/{symbol}", publish = true },
]
[[links]]
source = { reflect = "/halls/{hall}" }
views = [{ app = "1", channel = "hall-{hall}" }]
[[links]]
source = { zenith = "Prices/Rate/{symbol}" }
views = [
    { app = "1", channel = "rates-{symbol}", event = "rate" },
    { path = "/rate/{symbol}" },
]
"#;

fn server() -> Option<Server> {
    start(Config::parse(LINKED, FileFormat::Toml, "test").unwrap())
}

/// One client of each view of the channel `quotes-ACME`, and how it reads an event.
struct Views {
    pusher: Client,
    broadcastt: Client,
    other_app: Client,
    zenith: [(Client, Format); 3],
    room: Client,
    raw: Client,
}

fn zenith(address: SocketAddr, protocol: &str) -> Client {
    let mut client = Client::connect(address);
    let fields = format!("Sec-WebSocket-Protocol: {protocol}\r\n");
    client.send(handshake("/Zenith", &fields).as_bytes());
    assert_eq!(client.response().status, 101);
    client
}

fn value(json: &str) -> Value {
    let mut bytes = json.as_bytes().to_vec();
    decode(Format::Json, &mut bytes, &DecodeLimits::default(), &mut Scratch::default()).unwrap()
}

fn say(client: &mut Client, format: Format, json: &str) {
    let mut out = Vec::new();
    encode_any(format, &value(json), &mut out).unwrap();
    client.send_frame(if format.is_text() { TEXT } else { BINARY }, &out);
}

fn received(client: &mut Client, format: Format) -> Value {
    let mut frame = client.frame();
    assert_eq!(frame.opcode, if format.is_text() { TEXT } else { BINARY });
    decode(format, &mut frame.payload, &DecodeLimits::default(), &mut Scratch::default()).unwrap()
}

fn topic(client: &mut Client, format: Format, topic: &str) {
    let sub =
        format!(r#"{{"Controller":"Prices","Topic":"{topic}","Action":"Sub","Confirm":true}}"#);
    say(client, format, &sub);
    assert_eq!(received(client, format), value(&sub));
}

impl Views {
    fn open(address: SocketAddr) -> Views {
        let pusher = Client::subscriber(address, "quotes-ACME");
        let mut broadcastt = Client::open(address, "/apps/other-key");
        assert!(broadcastt.text().contains("connection_established"));
        broadcastt.send_text(r#"{"event":"broadcastt:subscribe","data":{"channel":"q-ACME"}}"#);
        assert!(broadcastt.text().contains(r#""channel":"q-ACME""#));
        let (other_app, _) = third(address);
        let zenith = [
            ("ZenithJson", Format::Json),
            ("ZenithMsgPack", Format::MsgPack),
            ("ZenithBson", Format::Bson),
        ]
        .map(|(protocol, format)| {
            let mut client = zenith(address, protocol);
            topic(&mut client, format, "Quote/ACME");
            (client, format)
        });
        let room = Client::open(address, "/rooms/ACME");
        let raw = Client::open(address, "/raw/ACME");
        Views { pusher, broadcastt, other_app, zenith, room, raw }
    }

    /// Every view receives the event `name` with the JSON value `data`.
    fn expect(&mut self, name: &str, data: &str) {
        let escaped = data.replace('"', "\\\"");
        let event = |channel: &str| {
            format!(r#"{{"event":"{name}","channel":"{channel}","data":"{escaped}"}}"#)
        };
        assert_eq!(self.pusher.text(), event("quotes-ACME"));
        assert_eq!(self.broadcastt.text(), event("q-ACME"));
        assert_eq!(self.other_app.text(), event("private-ACME-quotes"));
        let topic =
            value(&format!(r#"{{"Controller":"Prices","Topic":"Quote/ACME","Data":{data}}}"#));
        for (client, format) in &mut self.zenith {
            assert_eq!(received(client, *format), topic);
        }
        assert_eq!(self.room.text(), data);
        assert_eq!(self.raw.text(), data);
    }
}

/// A subscriber of the third application's view.
fn third(address: SocketAddr) -> (Client, String) {
    let mut client = Client::open(address, "/app/third-key?protocol=7&client=test");
    let id = client.established();
    let channel = "private-ACME-quotes";
    let auth = Keys("third-key", "third-secret").auth(&format!("{id}:{channel}"));
    client.send_text(&format!(
        r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":"{auth}"}}}}"#
    ));
    assert_eq!(client.text(), subscribed(channel));
    (client, id)
}

#[test]
fn links_event_reaches_the_clients_of_every_dialect() {
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    // The kernel spreads the clients over both cores.
    let mut views: Vec<Views> = (0..3).map(|_| Views::open(address)).collect();
    let mut publisher = Client::connect(address);
    for number in 0..50 {
        let data = format!(r#"{{\"price\":{number}}}"#);
        let body = format!(r#"{{"name":"tick","channel":"quotes-ACME","data":"{data}"}}"#);
        publisher.send(&DEMO.request("POST", EVENTS, &body));
        assert_eq!(publisher.response().status, 200);
    }
    for number in 0..50 {
        views.iter_mut().for_each(|views| {
            views.expect("tick", &format!(r#"{{"price":{number}}}"#));
        });
    }
    assert_eq!((server.count("link_refused"), server.count("link_unexpressed")), (0, 0));
}

#[test]
fn links_view_that_may_publish_publishes_for_all() {
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    let mut views = Views::open(address);
    let mut sender = Client::open(address, "/in/ACME");
    sender.send_text(r#"{"n":1}"#);
    views.expect("message", r#"{"n":1}"#);
    let mut member = Client::open(address, "/rooms/ACME");
    member.send_text(r#"{"n":2}"#);
    assert_eq!(member.text(), r#"{"n":2}"#);
    // The sender of the first event hears of the second one.
    assert_eq!(sender.text(), r#"{"n":2}"#);
    views.expect("message", r#"{"n":2}"#);
    let (mut client, _) = third(address);
    client.send_text(r#"{"event":"client-say","channel":"private-ACME-quotes","data":{"n":3}}"#);
    views.expect("client-say", r#"{"n":3}"#);
    client.sync();
}

#[test]
fn links_source_of_another_dialect_is_named_by_the_configuration() {
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    let mut pusher = Client::subscriber(address, "rates-EUR");
    let mut raw = Client::open(address, "/rate/EUR");
    let mut zenith = zenith(address, "ZenithJson");
    topic(&mut zenith, Format::Json, "Rate/EUR");
    let mut backend = Client::connect(address);
    let data = r#"{"Controller":"Prices","Topic":"Rate/EUR","Data":{"bid":1.5}}"#;
    backend.send(&crate::peer::ingest("SERVICE", data.as_bytes()));
    assert_eq!(backend.response().status, 200);
    assert_eq!(received(&mut zenith, Format::Json), value(data));
    assert_eq!(raw.text(), r#"{"bid":1.5}"#);
    let event = r#"{"event":"rate","channel":"rates-EUR","data":"{\"bid\":1.5}"}"#;
    assert_eq!(pusher.text(), event);
}

#[test]
fn links_view_that_may_not_publish_is_refused_in_its_dialect() {
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    let mut raw = Client::open(address, "/raw/ACME");
    raw.send_text("no");
    assert_eq!(raw.close(), (1008, "the channel accepts no messages".to_owned()));
    let mut publisher = Client::connect(address);
    publisher.send(&publish("rates-EUR", "x"));
    let response = publisher.response();
    assert_eq!(response.status, 403);
    assert!(response.body.contains("rates-EUR is linked"), "{}", response.body);
    publisher.send(&publish("quotes-ACME", "x"));
    assert_eq!(publisher.response().status, 200);
    let mut backend = Client::connect(address);
    let data = br#"{"Controller":"Prices","Topic":"Quote/ACME","Data":1}"#;
    backend.send(&crate::peer::ingest("SERVICE", data));
    let response = backend.response();
    assert_eq!(response.status, 400);
    assert!(response.body.contains("the topic is linked"), "{}", response.body);
    // A path that no link maps.
    let mut nowhere = Client::connect(address);
    nowhere.send(handshake("/raw/EUR/more", "").as_bytes());
    assert_eq!(nowhere.response().status, 404, "no channel has such a name");
    let mut nowhere = Client::connect(address);
    nowhere.send(handshake("/in/", "").as_bytes());
    assert_eq!(nowhere.response().status, 404);
}

#[test]
fn links_event_that_a_view_cannot_express_is_counted() {
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    let mut pusher = Client::subscriber(address, "quotes-ACME");
    let mut sender = Client::open(address, "/in/ACME");
    sender.send_frame(BINARY, b"\x01\x02");
    wait_count(&server, "link_refused", 1);
    sender.send_text("text");
    assert_eq!(pusher.text(), r#"{"event":"message","channel":"quotes-ACME","data":"text"}"#);
    // Presence and other events of the protocol itself stay with the source.
    pusher.sync();
}

#[test]
fn links_message_that_a_view_cannot_carry_closes_no_client() {
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    let mut pusher = Client::subscriber(address, "hall-A");
    let mut quotes = Client::subscriber(address, "quotes-ACME");
    let mut member = Client::open(address, "/halls/A");
    // In JSON each of these characters takes six bytes, so that the event would not fit any queue.
    let long = "\u{1}".repeat(250 * 1024);
    member.send_text(&long);
    assert_eq!(member.text(), long);
    member.send_text("short");
    assert_eq!(member.text(), "short");
    let event = r#"{"event":"message","channel":"hall-A","data":"short"}"#;
    assert_eq!(pusher.text(), event);
    let mut room = Client::open(address, "/rooms/ACME");
    room.send_text(&long);
    room.send_text("short");
    assert_eq!(room.text(), "short");
    assert!(quotes.text().contains(r#""data":"short""#));
    assert_eq!(server.count("link_unexpressed"), 1);
    assert_eq!((server.count("link_refused"), server.count("slow_consumer_closed")), (1, 0));
}

#[test]
fn links_order_is_one_over_all_views_and_cores() {
    const EVENTS_EACH: usize = 200;
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    let mut raws: Vec<Client> = (0..8).map(|_| Client::open(address, "/raw/ACME")).collect();
    let mut apps: Vec<Client> =
        (0..8).map(|_| Client::subscriber(address, "quotes-ACME")).collect();
    // One of the publishers is a plain WebSocket. It stays open, because a connection that is
    // closed with unread events would be reset.
    let mut sender = Client::open(address, "/in/ACME");
    let publishers: Vec<_> = (1..3)
        .map(|publisher| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for number in 0..EVENTS_EACH {
                    client.publish("quotes-ACME", &format!("{publisher}-{number}"));
                }
            })
        })
        .collect();
    for number in 0..EVENTS_EACH {
        sender.send_text(&format!("0-{number}"));
    }
    let first: Vec<String> = (0..3 * EVENTS_EACH).map(|_| raws[0].text()).collect();
    for raw in &mut raws[1..] {
        assert!(first.iter().all(|text| raw.text() == *text), "another order");
    }
    for app in &mut apps {
        for text in &first {
            assert!(app.text().ends_with(&format!(r#""data":"{text}"}}"#)), "another order");
        }
        app.sync();
    }
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 3 * EVENTS_EACH);
    drop((raws, apps, sender));
    wait_count(&server, "subscriptions", 0);
}
