//! Linked channels over nodes: an event that is published on one node reaches the views on all.

use super::engine::{Nats, cluster_of};
use super::joined;
use crate::net::*;
use crate::peer::{ClientReader, Received};
use polycast::config::{Config, FileFormat};
use polycast::server::Server;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;

const LINKED: &str = r#"
threads = 2
listeners = [{ address = "127.0.0.1:0" }]
[[routes]]
when = [{ path = "/rooms/*" }]
endpoint = "reflect"
[routes.reflect]
group = "path"
[[routes]]
when = [{ path = "/raw/*" }]
endpoint = "channel"
[[routes]]
when = [{ path = "/ready" }]
endpoint = "health"
[[routes]]
endpoint = "apps"
[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"
history = [{ channels = ["quotes-*"] }]
[[apps]]
id = "2"
key = "other-key"
secret = "other-secret"
dialect = "broadcastt"
[[links]]
source = { app = "1", channel = "quotes-{symbol}" }
views = [
    { app = "2", channel = "q-{symbol}" },
    { reflect = "/rooms/{symbol}", publish = true },
    { path = "/raw/{symbol}" },
]
"#;

fn node(nats: &Nats) -> Option<Server> {
    let mut config = Config::parse_with(LINKED, FileFormat::Toml, "links.toml", &|_| None).unwrap();
    config.cluster = cluster_of(nats).cluster;
    let server = start(config)?;
    joined(&server);
    Some(server)
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
        let source = Client::subscriber(address, "quotes-ACME");
        let mut broadcastt = Client::open(address, "/apps/other-key");
        assert!(broadcastt.text().contains("connection_established"));
        broadcastt.send_text(r#"{"event":"broadcastt:subscribe","data":{"channel":"q-ACME"}}"#);
        assert!(broadcastt.text().contains(r#""channel":"q-ACME""#));
        let room = Client::open(address, "/rooms/ACME");
        let raw = Client::open(address, "/raw/ACME");
        Views { source, broadcastt, room, raw }
    }

    fn expect(&mut self, name: &str, data: &str) {
        let event = |channel: &str| {
            format!(r#"{{"event":"{name}","channel":"{channel}","data":"{data}"}}"#)
        };
        assert_eq!(self.source.text(), event("quotes-ACME"));
        assert_eq!(self.broadcastt.text(), event("q-ACME"));
        assert_eq!((self.room.text(), self.raw.text()), (data.to_owned(), data.to_owned()));
    }
}

#[test]
fn cluster_links_reach_the_views_of_all_nodes() {
    let Some(nats) = Nats::start("links") else { return };
    let (Some(first), Some(second)) = (node(&nats), node(&nats)) else { return };
    let mut views = [Views::open(&first), Views::open(&second)];
    // Plain clients are subscribed when they have heard something.
    views.iter_mut().for_each(|it| it.source.sync());
    let mut api = Client::connect(first.addresses()[0]);
    for n in 0..20 {
        api.publish("quotes-ACME", &n.to_string());
    }
    for view in &mut views {
        (0..20).for_each(|n| view.expect("e", &n.to_string()));
    }
    // A view that may publish does so for all, also on the node that is not the publisher's.
    views[1].room.send_text("42");
    views.iter_mut().for_each(|view| view.expect("message", "42"));
    // One that may not is refused, with an answer.
    let body = event_body("q-ACME", "no");
    let path = "/apps/2/event";
    let mut other = Client::connect(second.addresses()[0]);
    other.send(&Keys("other-key", "other-secret").request("POST", path, &body));
    let refused = other.response().status;
    assert!((400..500).contains(&refused), "{refused}");
    api.publish("quotes-ACME", "99");
    views.iter_mut().for_each(|view| view.expect("e", "99"));
    for server in [&first, &second] {
        assert_eq!((server.count("cluster_refused"), server.count("link_unexpressed")), (0, 0));
    }
}

/// A stream of the events of a view.
struct Stream {
    tcp: TcpStream,
    reader: ClientReader,
    received: VecDeque<Received>,
}

impl Stream {
    /// Begins after the event with this id; returns whether the client has recovered, too.
    fn open(server: &Server, last: &str) -> (Stream, bool) {
        let client = Client::connect(server.addresses()[0]);
        let mut tcp = client.stream;
        let last =
            if last.is_empty() { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
        let head =
            format!("GET /apps/other-key/events?channels=q-ACME HTTP/1.1\r\nHost: h\r\n{last}\r\n");
        tcp.write_all(head.as_bytes()).unwrap();
        let mut stream = Stream { tcp, reader: ClientReader::default(), received: VecDeque::new() };
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
    let Some(nats) = Nats::start("links-resume") else { return };
    let (Some(first), Some(second)) = (node(&nats), node(&nats)) else { return };
    let (mut events, _) = Stream::open(&first, "");
    let mut api = Client::connect(second.addresses()[0]);
    (0..3).for_each(|n| api.publish("quotes-ACME", &n.to_string()));
    let heard: Vec<_> = (0..3).map(|_| events.event()).collect();
    assert!(heard[1].1.contains(r#""channel":"q-ACME","data":"1""#), "{heard:?}");
    wait("the node has read them", || second.count("cluster_events") == 3);
    let (mut events, is_recovered) = Stream::open(&second, &heard[0].0);
    assert!(is_recovered);
    assert_eq!([events.event(), events.event()], [heard[1].clone(), heard[2].clone()]);
}
