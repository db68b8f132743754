//! Zenith over several nodes: topics, their pictures, and what back ends are told.

use super::engine::{EngineServer, cluster_of};
use super::{joined, ready};
use crate::live::child::{BASE, Process};
use crate::live::zenith::{client, ingest, parse, received, say};
use crate::net::*;
use polycast::codec::Format;
use polycast::codec::value::Value;
use polycast::config::{self, Config};
use polycast::server::Server;
use std::net::SocketAddr;
use std::thread;

pub(super) const ZENITH: &str = r#"
[zenith]
tokens = [{ token = "T", user = "u", sessions = 3 }, { token = "ADA", user = "ada" }]
services = [{ token = "SERVICE" }]
feeds = [{ name = "XYZ", class = "News" }]
topics = [
    { controller = "Market", kind = "*" },
    { controller = "Market", kind = "News", retain = "none" },
    { controller = "Market", kind = "Log", retain = "log" },
]
"#;
const SERVICE: &str = "Authorization: Bearer SERVICE\r\n";
const FORMATS: [(&str, Format); 3] = [
    ("ZenithJson", Format::Json),
    ("ZenithBson", Format::Bson),
    ("ZenithMsgPack", Format::MsgPack),
];

pub(super) fn zenith_of(nats: &EngineServer) -> Config {
    let parsed = Config::parse(ZENITH, config::FileFormat::Toml, "test").unwrap();
    let mut config = cluster_of(nats);
    config.zenith = parsed.zenith;
    config.routes.splice(0..0, parsed.routes);
    config
}

pub(super) fn started(config: &Config) -> Option<Server> {
    let server = start(config.clone())?;
    joined(&server);
    Some(server)
}

fn two(nats: &EngineServer) -> Option<[Server; 2]> {
    let config = zenith_of(nats);
    Some([started(&config)?, started(&config)?])
}

pub(super) fn topic(topic: &str, rest: &str) -> String {
    format!(r#"{{"Controller":"Market","Topic":"{topic}",{rest}}}"#)
}

fn sub(name: &str) -> String {
    topic(name, r#""Action":"Sub","Confirm":true"#)
}

/// A client with a confirmed subscription, and the picture of the topic.
pub(super) fn subscribed(server: &Server, protocol: usize, name: &str) -> (Client, Option<Value>) {
    let (protocol, format) = FORMATS[protocol];
    let mut client = client(server.addresses()[0], protocol, "");
    say(&mut client, format, &sub(name));
    let first = received(&mut client, format);
    if first == parse(&sub(name)) {
        return (client, None);
    }
    assert_eq!(received(&mut client, format), parse(&sub(name)));
    (client, first.get("Data").cloned())
}

pub(super) fn published(api: &mut Client, body: &str) {
    let answer = ingest(api, body);
    assert_eq!(answer.status, 200, "{answer:?}");
}

pub(super) fn api(server: &Server) -> Client {
    Client::connect(server.addresses()[0])
}

/// Waits until a subscriber of this node gets this picture.
pub(super) fn picture_is(server: &Server, name: &str, expected: &str) {
    let expected = parse(&format!(r#"{{"Data":{expected}}}"#));
    let expected = expected.get("Data").cloned();
    wait("the node has the picture", || subscribed(server, 0, name).1 == expected);
}

#[test]
fn cluster_p16_zenith_topics_have_one_order_on_all_nodes() {
    let Some(nats) = EngineServer::start("zenith-topics") else { return };
    let Some(servers) = two(&nats) else { return };
    let mut hearers = Vec::new();
    for server in &servers {
        for (protocol, (_, format)) in FORMATS.iter().enumerate() {
            hearers.push((subscribed(server, protocol, "News!a").0, *format));
        }
    }
    let (mut other, _) = subscribed(&servers[1], 0, "News!b");
    // By HTTP on one node, and by a back end's connection on the other.
    let mut backend = client(servers[1].addresses()[0], "ZenithMsgPack", SERVICE);
    let mut http = api(&servers[0]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..100 {
                published(&mut http, &topic("News!a", &format!(r#""Data":{{"http":{n}}}"#)));
            }
        });
        scope.spawn(|| {
            for n in 0..100 {
                let data = format!(r#""TransactionID":{n},"Action":"Publish","Data":{{"ws":{n}}}"#);
                say(&mut backend, Format::MsgPack, &topic("News!a", &data));
            }
            for n in 0..100 {
                let done = received(&mut backend, Format::MsgPack);
                assert_eq!(done.get("TransactionID").and_then(Value::as_int), Some(n), "{done:?}");
                assert_eq!(done.get("Action"), None);
            }
        });
    });
    let mut all: Vec<Vec<Value>> = Vec::new();
    for (client, format) in &mut hearers {
        all.push((0..200).map(|_| received(client, *format)).collect());
    }
    for heard in &all[1..] {
        assert_eq!(heard, &all[0]);
    }
    for publisher in ["http", "ws"] {
        let own = all[0].iter().filter_map(|it| it.get("Data")?.get(publisher)?.as_int());
        assert_eq!(own.collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }
    published(&mut api(&servers[0]), &topic("News!b", r#""Data":10.10"#));
    assert_eq!(other.text(), topic("News!b", r#""Data":10.10"#), "as it was written");
}

#[test]
fn cluster_p16_zenith_pictures_are_the_same_on_all_nodes_and_for_new_ones() {
    let Some(nats) = EngineServer::start("zenith-pictures") else { return };
    let mut config = zenith_of(&nats);
    config.cluster.as_mut().unwrap().keep_s = 10;
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    let (mut hears, none) = subscribed(&second, 1, "S!a");
    assert_eq!(none, None);
    published(&mut api(&first), &topic("S!a", r#""Data":{"Last":10,"Bid":9}"#));
    published(&mut api(&second), &topic("S!a", r#""Data":{"Last":11}"#));
    published(&mut api(&first), &topic("Log!a", r#""Data":[1,2]"#));
    published(&mut api(&second), &topic("Log!a", r#""Data":[3]"#));
    for data in [r#""Data":{"Last":10,"Bid":9}"#, r#""Data":{"Last":11}"#] {
        assert_eq!(received(&mut hears, Format::Bson), parse(&topic("S!a", data)));
    }
    // A picture of several pieces.
    let large = format!(r#"{{"a":"{}","b":1}}"#, "x".repeat(300_000));
    published(&mut api(&second), &topic("S!large", &format!(r#""Data":{large}"#)));
    published(&mut api(&first), &topic("S!gone", r#""Data":{"a":1}"#));
    published(&mut api(&second), &topic("S!gone", r#""Action":"Clear""#));
    for server in [&first, &second] {
        picture_is(server, "S!a", r#"{"Last":11,"Bid":9}"#);
        picture_is(server, "Log!a", "[1,2,3]");
        picture_is(server, "S!large", &large);
    }
    // One node states them in the log: three pieces of one, and two pictures of one piece. One that
    // was removed before it was stated is nowhere.
    wait("all pictures are stated", || second.count("cluster_states") >= 5);
    published(&mut api(&second), &topic("S!a", r#""Data":{"Ask":12}"#));
    let Some(third) = started(&config) else { return };
    picture_is(&third, "S!a", r#"{"Last":11,"Bid":9,"Ask":12}"#);
    picture_is(&third, "Log!a", "[1,2,3]");
    picture_is(&third, "S!large", &large);
    assert_eq!(subscribed(&third, 0, "S!gone").1, None);
    // It goes on from there.
    published(&mut api(&third), &topic("S!a", r#""Data":{"Bid":1}"#));
    for server in [&first, &second, &third] {
        picture_is(server, "S!a", r#"{"Last":11,"Bid":1,"Ask":12}"#);
    }
    let (mut ends, _) = subscribed(&third, 0, "S!a");
    published(&mut api(&first), &topic("S!a", r#""Action":"End","Error":"Fault""#));
    assert_eq!(ends.text(), topic("S!a", r#""Action":"Error","Data":"Fault""#));
    assert_eq!(ends.text(), topic("S!a", r#""Action":"Unsub","Confirm":true"#));
    for server in [&first, &second, &third] {
        wait("the picture is gone", || subscribed(server, 0, "S!a").1.is_none());
    }
}

#[test]
fn cluster_p16_zenith_pictures_survive_the_loss_of_the_log() {
    let Some(mut nats) = EngineServer::start_with("zenith-lost", &[]) else { return };
    let mut config = zenith_of(&nats);
    let cluster = config.cluster.as_mut().unwrap();
    cluster.storage = config::ClusterStorage::Memory;
    (cluster.keep_s, cluster.rejoin_ms) = (10, 1000);
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    published(&mut api(&first), &topic("S!a", r#""Data":{"a":1}"#));
    picture_is(&second, "S!a", r#"{"a":1}"#);
    nats.kill();
    nats.again();
    for server in [&first, &second] {
        wait_count(server, "cluster_epochs", 1);
        wait("the node is ready", || ready(server) == 200);
        picture_is(server, "S!a", r#"{"a":1}"#);
    }
    wait("it is stated in the new log", || second.count("cluster_states") > 0);
    let Some(third) = started(&config) else { return };
    picture_is(&third, "S!a", r#"{"a":1}"#);
}

#[test]
fn cluster_p16_zenith_back_ends_learn_what_is_not_stored() {
    let Some(nats) = EngineServer::start("zenith-away") else { return };
    let Some([first, _second]) = two(&nats) else { return };
    let mut backend = client(first.addresses()[0], "ZenithJson", SERVICE);
    let mut api = api(&first);
    nats.stop();
    backend.send_text(&topic("S!a", r#""TransactionID":1,"Action":"Publish","Data":{"a":1}"#));
    let answer = ingest(&mut api, &topic("S!b", r#""Data":{"a":1}"#));
    assert!([503, 504].contains(&answer.status), "{answer:?}");
    let error = received(&mut backend, Format::Json);
    let code = error.get("Data").and_then(Value::as_text).unwrap();
    assert!(["Retry", "Operation.Timeout"].contains(&code), "{error:?}");
    assert_eq!(backend.text(), topic("S!a", r#""TransactionID":1"#));
    nats.signal(libc::SIGCONT);
    // What is too large for the log is refused at once.
    let large = format!(r#""Data":"{}""#, "x".repeat(1_045_000));
    let answer = ingest(&mut api, &topic("S!a", &large));
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("too large for the log"), "{answer:?}");
}

#[test]
fn cluster_zenith_waits_until_the_node_has_joined() {
    let Some(nats) = EngineServer::start("zenith-joining") else { return };
    let mut config = zenith_of(&nats);
    config.cluster.as_mut().unwrap().engine =
        vec![nats.url().replace(&format!(":{}", nats.port), ":1")];
    let Some(server) = start(config) else { return };
    assert_eq!(ready(&server), 503);
    let mut client = Client::connect(server.addresses()[0]);
    client.send(handshake("/Zenith", "").as_bytes());
    let refused = client.response();
    assert!(refused.status == 503 && refused.body.contains("has not joined"), "{refused:?}");
    let refused = ingest(&mut api(&server), &topic("S!a", r#""Data":1"#));
    assert!(refused.status == 503 && refused.body.contains("has not joined"), "{refused:?}");
}

/// A back end on a node that has registered something.
pub(super) fn backend(address: SocketAddr, registers: &str) -> Client {
    let mut backend = client(address, "ZenithMsgPack", SERVICE);
    let register = format!(r#"{{"Action":"Register","TransactionID":1,"Data":{registers}}}"#);
    say(&mut backend, Format::MsgPack, &register);
    let done = received(&mut backend, Format::MsgPack);
    assert_eq!(done, parse(r#"{"Controller":"Zenith","TransactionID":1}"#));
    backend
}

fn call(client: &mut Client, name: &str, number: usize) {
    client.send_text(&topic(name, &format!(r#""TransactionID":{number}"#)));
}

/// What a back end is asked, and the number of the question.
fn asked(backend: &mut Client) -> (Value, i64) {
    let asked = received(backend, Format::MsgPack);
    let number = asked.get("TransactionID").and_then(Value::as_int);
    (asked, number.expect("a number"))
}

fn answer(backend: &mut Client, name: &str, number: i64, rest: &str) {
    let answer = topic(name, &format!(r#""TransactionID":{number}{rest}"#));
    say(backend, Format::MsgPack, &answer);
}

/// Waits until clients of this node find a back end for a topic.
fn finds(server: &Server, name: &str) {
    wait("the node knows the back end", || {
        let mut client = client(server.addresses()[0], "ZenithJson", "");
        call(&mut client, name, 1);
        client.send_text(&topic(name, r#""Action":"Cancel","TransactionID":1"#));
        client.text().contains("Operation.Abort")
    });
}

/// Answers what the back end was asked by [`finds`], which was cancelled.
fn skipped(backend: &mut Client) -> (Value, i64) {
    loop {
        let (question, number) = asked(backend);
        if question.get("Action").and_then(Value::as_text) == Some("Cancel") {
            continue;
        }
        if question.get("UserID").is_some() {
            return (question, number);
        }
    }
}

#[test]
fn cluster_p16_zenith_back_end_serves_clients_of_all_nodes() {
    let Some(nats) = EngineServer::start("zenith-back-end") else { return };
    let Some([first, second]) = two(&nats) else { return };
    let registers = r#"{"Topics":[{"Controller":"Shop","Kind":"Q"},{"Controller":"Shop","Kind":"S"}],
                        "Authorises":true}"#;
    let mut backend = backend(second.addresses()[0], registers);
    let shop = |name: &str, rest: &str| topic(name, rest).replacen("Market", "Shop", 1);
    let ada = "Authorization: Bearer ADA\r\n";
    let mut clients = [&first, &second].map(|server| {
        let address = server.addresses()[0];
        wait("the node knows the back end", || {
            let mut client = client(address, "ZenithJson", "");
            client.send_text(&shop("Q", r#""TransactionID":1"#));
            client.send_text(&shop("Q", r#""Action":"Cancel","TransactionID":1"#));
            client.text().contains("Operation.Abort")
        });
        client(address, "ZenithJson", ada)
    });
    for (at, client) in clients.iter_mut().enumerate() {
        for n in 0..3 {
            client.send_text(&shop("Q", &format!(r#""TransactionID":{n},"Data":[{n}]"#)));
            let (question, number) = skipped(&mut backend);
            assert_eq!(question.get("UserID"), Some(&Value::text("ada")), "{question:?}");
            assert_eq!(question.get("Data"), Some(&Value::Array(vec![Value::Int(n)])));
            let data = shop("Q", &format!(r#""TransactionID":{number},"Data":{{"n":{n}}}"#));
            say(&mut backend, Format::MsgPack, &data);
            let reply = shop("Q", &format!(r#""TransactionID":{n},"Data":{{"n":{n}}}"#));
            assert_eq!(client.text(), reply, "node {at}");
        }
        // A picture that the back end publishes before it grants the subscription is there.
        let name = format!("S!{at}");
        client.send_text(&shop(&name, r#""Action":"Sub","Confirm":true"#));
        let (question, number) = skipped(&mut backend);
        assert_eq!(question.get("Action"), Some(&Value::text("Sub")));
        let session = question.get("Session").and_then(Value::as_text).unwrap().to_owned();
        for data in [r#""Data":{"a":1}"#.to_owned(), format!(r#""TransactionID":{number}"#)] {
            say(&mut backend, Format::MsgPack, &shop(&name, &data));
        }
        assert_eq!(client.text(), shop(&name, r#""Data":{"a":1}"#));
        assert_eq!(client.text(), shop(&name, r#""Action":"Sub","Confirm":true"#));
        // What is for one session follows what was published before.
        let end = format!(r#""Action":"End","Session":"{session}""#);
        for data in [r#""Data":{"a":2}"#, &end] {
            say(&mut backend, Format::MsgPack, &shop(&name, data));
        }
        assert_eq!(client.text(), shop(&name, r#""Data":{"a":2}"#));
        assert_eq!(client.text(), shop(&name, r#""Action":"Unsub","Confirm":true"#));
    }
    // Both clients wait for the back end, which closes.
    for client in &mut clients {
        client.send_text(&shop("Q", r#""TransactionID":9"#));
        skipped(&mut backend);
    }
    drop(backend);
    for client in &mut clients {
        let error = r#""Action":"Error","TransactionID":9,"Data":"Shop.Unavailable""#;
        assert_eq!(client.text(), shop("Q", error));
        assert_eq!(client.text(), shop("Q", r#""TransactionID":9"#));
    }
    for client in &mut clients {
        wait("nobody serves it", || {
            client.send_text(&shop("Q", r#""TransactionID":10"#));
            let error = client.text();
            assert_eq!(client.text(), shop("Q", r#""TransactionID":10"#));
            error.contains("Shop.Unavailable")
        });
    }
}

#[test]
fn cluster_p16_zenith_back_end_whose_node_is_killed_is_unavailable() {
    let Some(nats) = EngineServer::start("zenith-killed") else { return };
    if !has_uring() {
        return;
    }
    let mut config = zenith_of(&nats);
    let cluster = config.cluster.as_mut().unwrap();
    (cluster.beat_ms, cluster.dead_ms) = (200, 1000);
    let Some(server) = started(&config) else { return };
    let engine = nats.url();
    let mut process = Process::start(
        "cluster-zenith-killed",
        &format!(
            "{BASE}[cluster]\nengine = ['{engine}']\nlog_bytes = '64MiB'\nhold_ms = 1500\n\
             append_ms = 500\nbeat_ms = 200\ndead_ms = 1000\n{ZENITH}\
             [[routes]]\nwhen = [{{ path = '/ready' }}]\nendpoint = 'health'\n\
             [[routes]]\nwhen = [{{ path = '/Zenith*' }}]\nendpoint = 'zenith'\n\
             [[routes]]\nendpoint = 'apps'\n"
        ),
    );
    wait("the node joins", || super::ready_at(process.address) == 200);
    let mut backend = backend(process.address, r#"{"Controllers":["Market"],"Feeds":["XYZ"]}"#);
    finds(&server, "Q");
    let mut feeds = client(server.addresses()[0], "ZenithJson", "");
    feeds.send_text(r#"{"Controller":"Zenith","Topic":"Feeds","Action":"Sub"}"#);
    assert!(feeds.text().contains(r#""Status":"Active""#));
    let mut client = client(server.addresses()[0], "ZenithJson", "Authorization: Bearer ADA\r\n");
    call(&mut client, "Q", 5);
    let (_, number) = skipped(&mut backend);
    answer(&mut backend, "Q", number, r#","Data":[1]"#);
    assert_eq!(client.text(), topic("Q", r#""TransactionID":5,"Data":[1]"#));
    call(&mut client, "Q", 6);
    skipped(&mut backend);
    process.signal(libc::SIGKILL);
    let error = r#""Action":"Error","TransactionID":6,"Data":"Market.Unavailable""#;
    assert_eq!(client.text(), topic("Q", error));
    assert_eq!(client.text(), topic("Q", r#""TransactionID":6"#));
    assert!(feeds.text().contains(r#""Status":"Inactive""#));
    call(&mut client, "Q", 7);
    assert!(client.text().contains("Market.Unavailable"));
    process.ended();
}

#[test]
fn cluster_p16_zenith_sessions_of_a_user_are_bounded_over_all_nodes() {
    let Some(nats) = EngineServer::start("zenith-sessions") else { return };
    let Some([first, second]) = two(&nats) else { return };
    let mut clients = Vec::new();
    for at in 0..6 {
        let server = [&first, &second][at % 2];
        let states = server.count("cluster_states");
        let signed_in = client(server.addresses()[0], "ZenithJson", "Authorization: Bearer T\r\n");
        clients.push(signed_in);
        wait("the session is in the log", || server.count("cluster_states") > states);
        super::level(server, &[&first, &second]);
    }
    // Six have come, and three were ended.
    wait("all is in the log", || {
        [&first, &second].iter().all(|server| server.count("cluster_states") == 9)
    });
    for client in &mut clients[..3] {
        assert_eq!(client.close(), (4000, "the account has too many sessions".to_owned()));
        client.send_close(4000);
        client.end();
    }
    clients[3..].iter_mut().for_each(Client::sync);
    let answer = ingest(&mut api(&first), r#"{"Action":"Kick","UserID":"u"}"#);
    assert_eq!((answer.status, answer.body), (200, r#"{"kicked":3}"#.to_owned()));
    for client in &mut clients[3..] {
        assert_eq!(client.close(), (4000, "the session was ended by the back end".to_owned()));
    }
}

#[test]
fn cluster_p16_zenith_feeds_have_one_state_on_all_nodes_and_for_new_ones() {
    let Some(nats) = EngineServer::start("zenith-feeds") else { return };
    let mut config = zenith_of(&nats);
    config.cluster.as_mut().unwrap().keep_s = 10;
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    let feeds = |status: &str| {
        let feed = format!(r#"{{"Name":"XYZ","Class":"News","Status":"{status}"}}"#);
        format!(r#"{{"Controller":"Zenith","Topic":"Feeds","Data":[{feed}]}}"#)
    };
    let subscriber = |server: &Server| {
        let mut client = client(server.addresses()[0], "ZenithJson", "");
        client.send_text(r#"{"Controller":"Zenith","Topic":"Feeds","Action":"Sub"}"#);
        client
    };
    let mut hearers = [&first, &second].map(subscriber);
    hearers.iter_mut().for_each(|client| assert_eq!(client.text(), feeds("Active")));
    published(&mut api(&second), r#"{"Action":"Feed","Topic":"XYZ","Data":"Impaired"}"#);
    hearers.iter_mut().for_each(|client| assert_eq!(client.text(), feeds("Impaired")));
    wait("the state is in the log", || first.count("cluster_states") > 0);
    let Some(third) = started(&config) else { return };
    assert_eq!(subscriber(&third).text(), feeds("Impaired"));
    // A back end that has the feed, and closes.
    let registered = backend(third.addresses()[0], r#"{"Feeds":["XYZ"]}"#);
    hearers.iter_mut().for_each(|client| assert_eq!(client.text(), feeds("Active")));
    drop(registered);
    hearers.iter_mut().for_each(|client| assert_eq!(client.text(), feeds("Inactive")));
}

/// Each change of a feed reaches the clients of all nodes when the log has it, in its order: the
/// picture of the states, which is stated some seconds later, has only the last one.
#[test]
fn cluster_p16_zenith_changes_of_feeds_have_one_order_on_all_nodes() {
    const CHANGES: usize = 20;
    const STATES: [&str; 2] = ["Impaired", "Expired"];
    let Some(nats) = EngineServer::start("zenith-feed-changes") else { return };
    let mut config = zenith_of(&nats);
    let feeds = &mut config.zenith.as_mut().unwrap().feeds;
    feeds.push(config::ZenithFeed { name: "ABC".to_owned(), ..feeds[0].clone() });
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    let subscriber = |server: &Server| {
        let mut client = client(server.addresses()[0], "ZenithJson", "");
        client.send_text(r#"{"Controller":"Zenith","Topic":"Feeds","Action":"Sub"}"#);
        assert!(client.text().matches(r#""Status":"Active""#).count() == 2);
        client
    };
    let mut hearers = [&first, &second].map(subscriber);
    thread::scope(|scope| {
        for (server, name) in [(&first, "XYZ"), (&second, "ABC")] {
            let mut api = api(server);
            scope.spawn(move || {
                for n in 0..CHANGES {
                    let (action, state) = (r#""Action":"Feed""#, STATES[n % 2]);
                    let body = format!(r#"{{{action},"Topic":"{name}","Data":"{state}"}}"#);
                    published(&mut api, &body);
                }
            });
        }
    });
    let heard = hearers.each_mut().map(|client| [(); 2 * CHANGES].map(|()| client.text()));
    assert_eq!(heard[0], heard[1], "one order");
    for name in ["XYZ", "ABC"] {
        let state_of = |text: &String| {
            let (_, rest) = text.split_once(&format!(r#""Name":"{name}""#)).unwrap();
            let (_, rest) = rest.split_once(r#""Status":""#).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let mut states: Vec<String> = heard[0].iter().map(state_of).collect();
        states.dedup();
        let changes = (0..CHANGES).map(|n| STATES[n % 2].to_owned());
        let all: Vec<String> = std::iter::once("Active".to_owned()).chain(changes).collect();
        let all = if states[0] == "Active" { &all[..] } else { &all[1..] };
        assert_eq!(states, all, "{name}");
    }
}
