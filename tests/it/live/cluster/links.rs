//! Linked channels over nodes: an event that is published on one node reaches the views on all.

use super::engine::{EngineServer, cluster_of};
use super::{joined, level, ready_at};
use crate::live::child::{self, Process};
use crate::net::*;
use crate::peer::{ClientReader, Received};
use polycast::config::{Config, FileFormat};
use polycast::server::Server;
use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

/// What follows the keys of the first application.
const LINKED: &str = r#"
history = [{ channels = ["quotes-*"] }]
[[apps]]
id = "2"
key = "other-key"
secret = "other-secret"
dialect = "broadcastt"
[[routes]]
when = [{ path = "/rooms/*" }]
endpoint = "reflect"
stream = true
[routes.reflect]
group = "path"
[[routes]]
when = [{ path = "/groups/*" }]
endpoint = "reflect"
stream = true
[routes.reflect]
group = "path"
history = 3
[[routes]]
when = [{ path = "/raw/*" }]
endpoint = "channel"
stream = true
[[routes]]
when = [{ path = "/ready" }]
endpoint = "health"
[[routes]]
endpoint = "apps"
[[links]]
source = { app = "1", channel = "quotes-{symbol}" }
views = [
    { app = "2", channel = "q-{symbol}" },
    { reflect = "/rooms/{symbol}", publish = true },
    { path = "/raw/{symbol}", publish = true },
]
[[links]]
source = { reflect = "/groups/{name}" }
views = [{ app = "2", channel = "g-{name}", event = "said", publish = true }]
"#;
const APP: &str = "[[apps]]\nid = '1'\nkey = 'app-key'\nsecret = 'app-secret'\n";
const OTHER: Keys<'static> = Keys("other-key", "other-secret");

fn config_of(nats: &EngineServer) -> Config {
    let text = format!("{}{APP}{LINKED}", child::BASE);
    let mut config = Config::parse_with(&text, FileFormat::Toml, "links.toml", &|_| None).unwrap();
    config.cluster = cluster_of(nats).cluster;
    config
}

fn node(nats: &EngineServer) -> Option<Server> {
    let server = start(config_of(nats))?;
    joined(&server);
    Some(server)
}

/// A node that can be killed.
fn process(nats: &EngineServer, name: &str) -> Process {
    let engine = format!("[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\n", nats.url());
    let mut command = child::command(name, &format!("{}{engine}", child::BASE));
    child::rewrite(name, LINKED);
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("live/{name}.log"));
    command.stderr(fs::File::create(&log).unwrap());
    let process = Process::spawn(command, log);
    wait("the node joins", || ready_at(process.address) == 200);
    process
}

/// A subscriber of each view on a node.
struct Views {
    source: Client,
    broadcastt: Client,
    room: Client,
    raw: Client,
}

impl Views {
    fn open(server: &Server) -> Views {
        let address = server.addresses()[0];
        let mut source = Client::subscriber(address, "quotes-ACME");
        let broadcastt = broadcastt(address, "q-ACME");
        let room = Client::open(address, "/rooms/ACME");
        let raw = Client::open(address, "/raw/ACME");
        // Plain clients get no acknowledgement.
        wait("all are subscribed", || server.count("subscriptions") == 4);
        source.sync();
        Views { source, broadcastt, room, raw }
    }

    fn expect(&mut self, name: &str, data: &str) {
        self.expect_of_apps(name, data);
        assert_eq!((self.room.text(), self.raw.text()), (data.to_owned(), data.to_owned()));
    }

    fn expect_of_apps(&mut self, name: &str, data: &str) {
        let event = |channel: &str| {
            format!(r#"{{"event":"{name}","channel":"{channel}","data":"{data}"}}"#)
        };
        assert_eq!(self.source.text(), event("quotes-ACME"));
        assert_eq!(self.broadcastt.text(), event("q-ACME"));
    }

    /// The data of the next event, which all get.
    fn next(&mut self) -> String {
        let data = self.raw.text();
        self.expect_of_apps("message", &data);
        assert_eq!(self.room.text(), data);
        data
    }
}

fn broadcastt(address: SocketAddr, channel: &str) -> Client {
    let mut client = Client::open(address, "/apps/other-key");
    assert!(client.text().contains("connection_established"));
    let data = format!(r#"{{"channel":"{channel}"}}"#);
    client.send_text(&format!(r#"{{"event":"broadcastt:subscribe","data":{data}}}"#));
    assert!(client.text().contains(&format!(r#""channel":"{channel}""#)));
    client
}

/// Publishes as the second application, and returns the status of the answer.
fn publish_as_other(api: &mut Client, channel: &str, data: &str) -> u16 {
    api.send(&OTHER.request("POST", "/apps/2/event", &event_body(channel, data)));
    api.response().status
}

#[test]
fn cluster_links_reach_the_views_of_all_nodes() {
    let Some(nats) = EngineServer::start("links") else { return };
    let (Some(first), Some(second)) = (node(&nats), node(&nats)) else { return };
    let mut views = [Views::open(&first), Views::open(&second)];
    let mut api = Client::connect(first.addresses()[0]);
    for n in 0..20 {
        api.publish("quotes-ACME", &n.to_string());
    }
    for view in &mut views {
        (0..20).for_each(|n| view.expect("e", &n.to_string()));
    }
    // A view that may publish does so for all, on any node.
    views[1].room.send_text("42");
    views.iter_mut().for_each(|view| view.expect("message", "42"));
    // The sender on a plain path does not get its own message, and nobody gets one twice.
    views[1].raw.send_text("43");
    views[0].expect("message", "43");
    views[1].expect_of_apps("message", "43");
    assert_eq!(views[1].room.text(), "43");
    // A view that may not publish is refused, with an answer, and nothing is proposed.
    let mut other = Client::connect(second.addresses()[0]);
    let refused = publish_as_other(&mut other, "q-ACME", "no");
    assert!((400..500).contains(&refused), "{refused}");
    api.publish("quotes-ACME", "99");
    views.iter_mut().for_each(|view| view.expect("e", "99"));
    for server in [&first, &second] {
        assert_eq!((server.count("cluster_refused"), server.count("link_unexpressed")), (0, 0));
        assert_eq!(server.count("cluster_events"), 23, "the log has an event once");
    }
}

/// `kill -9` of a node whose client publishes through a view: the others get what that client has
/// received itself, once and in order, in all views.
#[test]
fn cluster_links_outlive_the_node_that_publishes() {
    let Some(nats) = EngineServer::start("links-kill") else { return };
    let Some(other) = node(&nats) else { return };
    let mut process = process(&nats, "cluster-links");
    let mut views = Views::open(&other);
    let mut sender = Client::open(process.address, "/rooms/ACME");
    // A member of the room gets its own messages when they have come back from the log.
    sender.send_text("0");
    assert_eq!(sender.text(), "0");
    for n in 1..50 {
        sender.send_text(&n.to_string());
        assert_eq!(sender.text(), n.to_string());
    }
    // Some of these may be stored, none without those before it.
    (50..60).for_each(|n| sender.send_text(&n.to_string()));
    process.signal(libc::SIGKILL);
    process.ended();
    let mut room = Client::open(other.addresses()[0], "/rooms/ACME");
    wait("it is subscribed", || other.count("subscriptions") == 5);
    room.send_text("99");
    let mut heard = vec![views.next()];
    while heard.last().is_some_and(|last| last != "99") {
        heard.push(views.next());
    }
    assert!((51..=61).contains(&heard.len()), "{heard:?}");
    let in_order: Vec<_> = (0..heard.len() - 1).map(|n| n.to_string()).collect();
    assert_eq!(heard[..heard.len() - 1], in_order);
}

/// The source decides about the history, also if it is a group: what is published through a view
/// is kept as long as its own messages, and nodes that start later have it.
#[test]
fn cluster_links_of_a_group_have_its_history_on_all_nodes() {
    let Some(nats) = EngineServer::start("links-group") else { return };
    let (Some(first), Some(second)) = (node(&nats), node(&nats)) else { return };
    let mut viewer = broadcastt(second.addresses()[0], "g-a");
    let mut member = Client::open(first.addresses()[0], "/groups/a");
    member.send_text("0");
    assert_eq!(member.text(), "0");
    let mut api = Client::connect(second.addresses()[0]);
    for n in 1..4 {
        assert_eq!(publish_as_other(&mut api, "g-a", &n.to_string()), 200);
        assert_eq!(member.text(), n.to_string());
    }
    for n in 0..4 {
        let expected = format!(r#"{{"event":"said","channel":"g-a","data":"{n}"}}"#);
        assert_eq!(viewer.text(), expected);
    }
    let Some(third) = node(&nats) else { return };
    level(&first, &[&second, &third]);
    for server in [&first, &second, &third] {
        let mut late = Client::open(server.addresses()[0], "/groups/a");
        assert_eq!([0; 3].map(|_| late.text()), ["1", "2", "3"]);
    }
}

/// Plain paths are served when the node has read the log, as everything else.
#[test]
fn cluster_links_wait_until_the_node_has_joined() {
    let Some(nats) = EngineServer::start("links-joining") else { return };
    let mut config = config_of(&nats);
    config.cluster.as_mut().unwrap().engine = vec!["nats://127.0.0.1:1".to_owned()];
    let Some(server) = start(config) else { return };
    let mut client = Client::connect(server.addresses()[0]);
    client.send(handshake("/raw/ACME", "").as_bytes());
    let refused = client.response();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("has not joined its cluster"), "{refused:?}");
}

/// A stream of server-sent events.
struct Stream {
    tcp: TcpStream,
    reader: ClientReader,
    received: VecDeque<Received>,
}

impl Stream {
    /// Begins after the event with this id.
    fn open(server: &Server, path: &str, last: &str) -> Stream {
        let mut tcp = Client::connect(server.addresses()[0]).stream;
        let last =
            if last.is_empty() { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
        let accept = "Accept: text/event-stream\r\n";
        let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{accept}{last}\r\n");
        tcp.write_all(head.as_bytes()).unwrap();
        Stream { tcp, reader: ClientReader::default(), received: VecDeque::new() }
    }

    /// The same for the view of the second application; returns whether the client has recovered,
    /// too.
    fn of_app(server: &Server, last: &str) -> (Stream, bool) {
        let mut stream = Stream::open(server, "/apps/other-key/events?channels=q-ACME", last);
        let (_, text) = stream.event();
        assert!(text.contains("subscription_succeeded"), "{text}");
        (stream, text.ends_with(r#""recovered":true}"#))
    }

    /// The id and the data of the next event.
    fn event(&mut self) -> (String, String) {
        let mut piece = vec![0; 64 * 1024];
        loop {
            while let Some(received) = self.received.pop_front() {
                if let Received::Event(id, text) = received {
                    return (id, text);
                }
            }
            let n = self.tcp.read(&mut piece).unwrap();
            assert_ne!(n, 0, "the end");
            self.received.extend(self.reader.hear(&piece[..n]));
        }
    }
}

/// Positions are those of the source's history, on all nodes and in all views.
#[test]
fn cluster_links_resume_through_a_view_on_another_node() {
    let Some(nats) = EngineServer::start("links-resume") else { return };
    let (Some(first), Some(second)) = (node(&nats), node(&nats)) else { return };
    let (mut events, _) = Stream::of_app(&first, "");
    let mut api = Client::connect(second.addresses()[0]);
    (0..3).for_each(|n| api.publish("quotes-ACME", &n.to_string()));
    let heard: Vec<_> = (0..3).map(|_| events.event()).collect();
    assert!(heard[1].1.contains(r#""channel":"q-ACME","data":"1""#), "{heard:?}");
    level(&first, &[&second]);
    let (mut events, is_recovered) = Stream::of_app(&second, &heard[0].0);
    assert!(is_recovered);
    assert_eq!([events.event(), events.event()], [heard[1].clone(), heard[2].clone()]);
    // Through other views the ids are the same.
    for path in ["/rooms/ACME", "/raw/ACME"] {
        let mut stream = Stream::open(&second, path, &heard[0].0);
        let rest = [stream.event(), stream.event()];
        assert_eq!(rest, [1, 2].map(|n| (heard[n].0.clone(), n.to_string())), "{path}");
    }
}

/// The ids of the events of a group are positions in the log, so its streams go on on any node.
#[test]
fn cluster_p16_reflect_stream_goes_on_on_another_node() {
    let Some(nats) = EngineServer::start("links-stream") else { return };
    let (Some(first), Some(second)) = (node(&nats), node(&nats)) else { return };
    let mut member = Client::open(first.addresses()[0], "/groups/a");
    let mut stream = Stream::open(&first, "/groups/a", "");
    wait("both are subscribed", || first.count("subscriptions") == 2);
    for n in 0..3 {
        member.send_text(&n.to_string());
        assert_eq!(member.text(), n.to_string());
    }
    let heard = [0; 3].map(|_| stream.event());
    level(&first, &[&second]);
    let mut stream = Stream::open(&second, "/groups/a", &heard[0].0);
    assert_eq!([stream.event(), stream.event()], heard[1..]);
}
