//! Links between topics of Zenith and channels of an application, over nodes.

use super::engine::{EngineServer, cluster_of};
use super::{joined, level};
use crate::live::zenith::{client, ingest, parse, received, say};
use crate::net::*;
use crate::peer::signed;
use polycast::codec::Format;
use polycast::codec::value::Value;
use polycast::config::{Config, FileFormat};
use polycast::server::Server;
use std::net::SocketAddr;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

const LINKED: &str = r#"
threads = 2
listeners = [{ address = "127.0.0.1:0" }]
[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"
history = [{ channels = ["quotes-*"] }]
[[routes]]
when = [{ path = "/raw/*" }]
endpoint = "channel"
[[routes]]
when = [{ path = "/ready" }]
endpoint = "health"
[[routes]]
when = [{ path = "/Zenith*" }]
endpoint = "zenith"
[[routes]]
endpoint = "apps"
[zenith]
tokens = [{ token = "ADA", user = "ada" }]
services = [{ token = "SERVICE" }]
topics = [{ controller = "Prices", kind = "*" }]
[[links]]
source = { app = "1", channel = "quotes-{symbol}" }
views = [{ zenith = "Prices/Quote/{symbol}", publish = true }]
[[links]]
source = { zenith = "Prices/Rate/{symbol}" }
views = [
    { app = "1", channel = "rates-{symbol}", event = "rate", publish = true },
    { path = "/raw/{symbol}", publish = true },
]
[[links]]
source = { app = "1", channel = "trades-{symbol}" }
views = [{ zenith = "Shop/Trade/{symbol}", publish = true }]
"#;
const FORMATS: [(&str, Format); 2] =
    [("ZenithJson", Format::Json), ("ZenithMsgPack", Format::MsgPack)];
const SERVICE: &str = "Authorization: Bearer SERVICE\r\n";

fn node(nats: &EngineServer) -> Option<Server> {
    let mut config = Config::parse(LINKED, FileFormat::Toml, "links.toml").unwrap();
    config.cluster = cluster_of(nats).cluster;
    config.cluster.as_mut().unwrap().keep_s = 10;
    let server = start(config)?;
    joined(&server);
    Some(server)
}

fn two(nats: &EngineServer) -> Option<[Server; 2]> {
    Some([node(nats)?, node(nats)?])
}

fn topic(topic: &str, rest: &str) -> String {
    format!(r#"{{"Controller":"Prices","Topic":"{topic}",{rest}}}"#)
}

/// A client with a confirmed subscription, and the picture of the topic.
fn zenith(address: SocketAddr, protocol: usize, name: &str) -> (Client, Option<Value>) {
    let (protocol, format) = FORMATS[protocol];
    let mut client = client(address, protocol, "");
    let sub = topic(name, r#""Action":"Sub","Confirm":true"#);
    say(&mut client, format, &sub);
    let first = received(&mut client, format);
    if first == parse(&sub) {
        return (client, None);
    }
    assert_eq!(received(&mut client, format), parse(&sub));
    (client, first.get("Data").cloned())
}

/// The data of the next event of a topic, in JSON without spaces.
fn data_of(client: &mut Client, format: Format, name: &str) -> String {
    let event = received(client, format);
    assert_eq!(event.get("Topic").and_then(Value::as_text), Some(name), "{event:?}");
    let number = event.get("Data").and_then(|data| data.get("n")).and_then(Value::as_int);
    format!(r#"{{"n":{}}}"#, number.expect("a number"))
}

/// Subscribers of both names of a linked channel, on one node.
struct Subscribers {
    pusher: Client,
    zenith: Vec<(Client, Format)>,
    /// The channel, the event's name, and the topic.
    names: [&'static str; 3],
}

impl Subscribers {
    fn open(server: &Server, names: [&'static str; 3]) -> Subscribers {
        let address = server.addresses()[0];
        let zenith = (0..FORMATS.len()).map(|at| (zenith(address, at, names[2]).0, FORMATS[at].1));
        let zenith = zenith.collect();
        Subscribers { pusher: Client::subscriber(address, names[0]), zenith, names }
    }

    /// The data of the next event, which all get.
    fn next(&mut self) -> String {
        let [channel, name, topic] = self.names;
        let mut all = self.zenith.iter_mut().map(|(it, format)| data_of(it, *format, topic));
        let data = all.next().unwrap();
        all.for_each(|other| assert_eq!(other, data));
        let escaped = data.replace('"', "\\\"");
        let expected = format!(r#"{{"event":"{name}","channel":"{channel}","data":"{escaped}"}}"#);
        assert_eq!(self.pusher.text(), expected);
        data
    }
}

fn publish_by_pusher(api: &mut Client, channel: &str, event: &str, data: &str) {
    let escaped = data.replace('"', "\\\"");
    let body = format!(r#"{{"name":"{event}","channel":"{channel}","data":"{escaped}"}}"#);
    api.send(&DEMO.request("POST", EVENTS, &body));
    let response = api.response();
    assert_eq!(response.status, 200, "{response:?}");
}

fn publish_by_zenith(api: &mut Client, name: &str, data: &str) {
    let answer = ingest(api, &topic(name, &format!(r#""Data":{data}"#)));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Two of these and one more are not more than a history keeps.
const EACH: usize = 40;

/// Publishes under both names at the same time, each on another node, and returns what all
/// subscribers have got, in one order.
fn published_by_both(nodes: &[Server; 2], names: [&'static str; 3]) -> Vec<String> {
    let mut subscribers = [0, 1].map(|at| Subscribers::open(&nodes[at], names));
    let [by_pusher, by_zenith] = [0, 1].map(|at| nodes[at].addresses()[0]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut api = Client::connect(by_pusher);
            for n in 0..EACH {
                publish_by_pusher(&mut api, names[0], names[1], &format!(r#"{{"n":{n}}}"#));
            }
        });
        scope.spawn(|| {
            let mut api = Client::connect(by_zenith);
            for n in EACH..2 * EACH {
                publish_by_zenith(&mut api, names[2], &format!(r#"{{"n":{n}}}"#));
            }
        });
    });
    let heard = subscribers.each_mut().map(|it| [(); 2 * EACH].map(|()| it.next()));
    assert_eq!(heard[0], heard[1], "one order on all nodes");
    // Nothing comes twice.
    publish_by_pusher(&mut Client::connect(by_pusher), names[0], names[1], r#"{"n":-1}"#);
    subscribers.iter_mut().for_each(|it| assert_eq!(it.next(), r#"{"n":-1}"#));
    heard[0].to_vec()
}

/// Each publisher's events are there, once and in its order.
fn expect_both(heard: &[String]) {
    let number = |it: &String| it[5..it.len() - 1].parse::<usize>().unwrap();
    let (by_pusher, by_zenith): (Vec<_>, Vec<_>) =
        heard.iter().map(number).partition(|n| *n < EACH);
    assert_eq!(by_pusher, (0..EACH).collect::<Vec<_>>());
    assert_eq!(by_zenith, (EACH..2 * EACH).collect::<Vec<_>>());
}

#[test]
fn cluster_zenith_links_have_one_order_on_all_nodes() {
    let Some(nats) = EngineServer::start("zenith-links") else { return };
    let Some(nodes) = two(&nats) else { return };
    let heard = published_by_both(&nodes, ["quotes-ACME", "message", "Quote/ACME"]);
    expect_both(&heard);
    let heard_rates = published_by_both(&nodes, ["rates-EUR", "rate", "Rate/EUR"]);
    expect_both(&heard_rates);
    // The source's history has what was published through the view.
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let pages = nodes.each_ref().map(|node| {
        let mut api = Client::connect(node.addresses()[0]);
        let path = "/apps/1/channels/quotes-ACME/events?limit=1000";
        api.send(&signed("GET", path, b"", unix_s));
        let response = api.response();
        assert_eq!(response.status, 200, "{response:?}");
        // Only the first node knows that there was nothing before.
        response.body.split_once(r#","complete":"#).unwrap().0.to_owned()
    });
    assert_eq!(pages[0], pages[1]);
    let mut rest = &*pages[0];
    for data in &heard {
        let wanted = format!(r#""data":"{}""#, data.replace('"', "\\\""));
        let at = rest.find(&wanted).unwrap_or_else(|| panic!("{wanted} in {rest}"));
        rest = &rest[at + wanted.len()..];
    }
    for node in &nodes {
        assert_eq!((node.count("link_refused"), node.count("link_unexpressed")), (0, 0));
        assert_eq!(node.count("cluster_events"), 4 * EACH as u64 + 2, "the log has each once");
    }
}

/// What is published through a view changes the picture of a topic that is the source, as a back
/// end's data does, on all nodes and on those that start later.
#[test]
fn cluster_zenith_links_change_the_picture_of_all_nodes() {
    let Some(nats) = EngineServer::start("zenith-links-picture") else { return };
    let Some(nodes) = two(&nats) else { return };
    let apis = || nodes.each_ref().map(|node| Client::connect(node.addresses()[0]));
    let picture_is = |node: &Server, expected: &str| {
        let expected = parse(&format!(r#"{{"Data":{expected}}}"#)).get("Data").cloned();
        wait("the node has the picture", || {
            zenith(node.addresses()[0], 1, "Rate/EUR").1 == expected
        });
    };
    let [mut first, mut second] = apis();
    let mut raws = nodes.each_ref().map(|node| Client::open(node.addresses()[0], "/raw/EUR"));
    wait("all are subscribed", || nodes.iter().all(|node| node.count("subscriptions") == 1));
    publish_by_zenith(&mut first, "Rate/EUR", r#"{"bid":1,"ask":2}"#);
    publish_by_pusher(&mut second, "rates-EUR", "rate", r#"{"bid":3}"#);
    nodes.iter().for_each(|node| picture_is(node, r#"{"bid":3,"ask":2}"#));
    // The sender on a plain path does not get its own message, and others do.
    for data in [r#"{"bid":1,"ask":2}"#, r#"{"bid":3}"#] {
        raws.iter_mut().for_each(|raw| assert_eq!(raw.text(), data));
    }
    raws[0].send_text(r#"{"ask":4}"#);
    assert_eq!(raws[1].text(), r#"{"ask":4}"#);
    publish_by_zenith(&mut second, "Rate/EUR", r#"{"mid":5}"#);
    raws.iter_mut().for_each(|raw| assert_eq!(raw.text(), r#"{"mid":5}"#));
    let Some(third) = node(&nats) else { return };
    level(&nodes[0], &[&nodes[1], &third]);
    let picture = r#"{"bid":3,"ask":4,"mid":5}"#;
    nodes.iter().chain([&third]).for_each(|node| picture_is(node, picture));
    let mut viewer = Client::subscriber(third.addresses()[0], "rates-EUR");
    publish_by_zenith(&mut first, "Rate/EUR", "7");
    assert_eq!(viewer.text(), r#"{"event":"rate","channel":"rates-EUR","data":"7"}"#);
}

/// A back end on one node authorises and answers clients of another one about a topic that is a
/// view, and ends it for one of them.
#[test]
fn cluster_zenith_links_leave_answers_to_their_client() {
    let Some(nats) = EngineServer::start("zenith-links-calls") else { return };
    let Some([first, second]) = two(&nats) else { return };
    let shop = |rest: &str| topic("Trade/A", rest).replacen("Prices", "Shop", 1);
    let mut backend = client(first.addresses()[0], "ZenithJson", SERVICE);
    backend.send_text(
        r#"{"Action":"Register","TransactionID":1,
            "Data":{"Topics":[{"Controller":"Shop","Kind":"Trade/A"}],"Authorises":true}}"#,
    );
    assert_eq!(backend.text(), r#"{"Controller":"Zenith","TransactionID":1}"#);
    level(&first, &[&second]);
    let ada = "Authorization: Bearer ADA\r\n";
    let mut client = client(second.addresses()[0], "ZenithJson", ada);
    client.send_text(&shop(r#""Action":"Sub","Confirm":true"#));
    let asked = received(&mut backend, Format::Json);
    let number = |asked: &Value| asked.get("TransactionID").and_then(Value::as_int).unwrap();
    let session = asked.get("Session").and_then(Value::as_text).unwrap().to_owned();
    backend.send_text(&shop(&format!(r#""TransactionID":{}"#, number(&asked))));
    assert_eq!(client.text(), shop(r#""Action":"Sub","Confirm":true"#));
    client.send_text(&shop(r#""TransactionID":5"#));
    let asked = received(&mut backend, Format::Json);
    backend.send_text(&shop(&format!(r#""TransactionID":{},"Data":[1]"#, number(&asked))));
    assert_eq!(client.text(), shop(r#""TransactionID":5,"Data":[1]"#));
    // A confirmation says that the log has the event.
    let mut trades = Client::subscriber(second.addresses()[0], "trades-A");
    backend.send_text(&shop(r#""Action":"Publish","TransactionID":6,"Data":{"n":1}"#));
    assert_eq!(backend.text(), shop(r#""TransactionID":6"#));
    assert_eq!(client.text(), shop(r#""Data":{"n":1}"#));
    assert!(trades.text().contains(r#""channel":"trades-A","data":"{\"n\":1}""#));
    backend.send_text(&shop(&format!(r#""Action":"End","Session":"{session}""#)));
    assert_eq!(client.text(), shop(r#""Action":"Unsub","Confirm":true"#));
    assert_eq!((first.count("link_refused"), second.count("link_refused")), (0, 0));
}

/// The log has the idempotency keys of an application's channels, but not of topics.
#[test]
fn cluster_zenith_links_refuse_idempotency_keys_of_topics() {
    let Some(nats) = EngineServer::start("zenith-links-keys") else { return };
    let Some([first, second]) = two(&nats) else { return };
    let mut quotes = Client::subscriber(first.addresses()[0], "quotes-ACME");
    let mut rates = Client::subscriber(first.addresses()[0], "rates-EUR");
    let answer = |node: &Server, path: &str, body: &str| {
        let mut api = Client::connect(node.addresses()[0]);
        api.send(&DEMO.request("POST", path, body));
        let response = api.response();
        (response.status, response.body)
    };
    let keyed = |channel: &str| {
        format!(r#"{{"name":"e","channel":"{channel}","data":"1","idempotency_key":"{channel}"}}"#)
    };
    for node in [&first, &second] {
        assert_eq!(answer(node, EVENTS, &keyed("quotes-ACME")), (200, "{}".to_owned()));
        let batch = r#"{"batch":[{"name":"e","channel":"quotes-ACME","data":"2"},
            {"name":"e","channel":"rates-EUR","data":"2"}],"idempotency_key":"b"}"#;
        let requests = [(EVENTS, keyed("rates-EUR")), ("/apps/1/batch_events", batch.to_owned())];
        for (path, body) in requests {
            let (status, body) = answer(node, path, &body);
            assert_eq!(status, 400, "{body}");
            assert!(body.contains("channel rates-EUR is linked with a topic of Zenith"), "{body}");
        }
    }
    publish_by_pusher(&mut Client::connect(second.addresses()[0]), "quotes-ACME", "e", "3");
    assert_eq!(quotes.text(), event("quotes-ACME", "1"), "once");
    assert_eq!(quotes.text(), event("quotes-ACME", "3"), "and nothing of the batch");
    publish_by_pusher(&mut Client::connect(second.addresses()[0]), "rates-EUR", "e", "4");
    assert_eq!(rates.text(), r#"{"event":"rate","channel":"rates-EUR","data":"4"}"#);
}
