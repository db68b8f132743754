//! What nodes do at the limits of a NATS server: of consumers, and of the size of an entry.

use super::engine::{EngineServer, Route, cluster_of, impatient};
use super::{joined, nodes, ready};
use crate::net::*;
use polycast::config::{Config, Secret};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;

/// A server with these lines in its configuration.
fn with_lines(name: &str, lines: &str) -> Option<EngineServer> {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.cfg"));
    fs::write(&file, lines).unwrap();
    EngineServer::start_with(name, &["-c", file.to_str().unwrap()])
}

/// The configuration of a node that logs in and reaches the server by a route.
fn by(route: &Route, nats: &EngineServer) -> Config {
    let mut config = impatient(nats);
    let cluster = config.cluster.as_mut().unwrap();
    cluster.engine = vec![format!("nats://127.0.0.1:{}", route.port)];
    (cluster.user, cluster.password) = ("ada".to_owned(), Secret::new("right"));
    config
}

/// The consumer of a connection that was lost lasts for ten seconds, in which the limit of the
/// account leaves no room for another one.
#[test]
fn cluster_node_whose_consumer_is_refused_is_away_until_it_has_one() {
    let limits = "jetstream: { max_file: 1GB, max_streams: 4, max_consumers: 1 }";
    let users = "users: [ { user: ada, password: right } ]";
    let lines = format!("accounts: {{ P: {{ {limits}, {users} }} }}\n");
    let Some(nats) = with_lines("consumers", &lines) else { return };
    let route = Route::to(&nats);
    let Some(node) = start(by(&route, &nats)) else { return };
    joined(&node);
    let mut hears = Client::subscriber(node.addresses()[0], "a");
    let mut api = Client::connect(node.addresses()[0]);
    api.publish("a", "1");
    assert_eq!(hears.text(), event("a", "1"));
    route.cut();
    wait_count(&node, "cluster_lost", 1);
    route.mend();
    wait("the node is not ready", || ready(&node) == 503);
    api.send(&publish("a", "refused"));
    assert_eq!(api.response().status, 503, "no client of this node would receive it");
    joined(&node);
    // It has tried again from time to time, without beginning each time.
    let fillings = node.count("cluster_fillings");
    assert!((1..=3).contains(&fillings), "{fillings}");
    api.publish("a", "2");
    assert_eq!(hears.text(), event("a", "2"));
    assert_eq!(node.count("cluster_gaps"), 0);
}

/// Stores an entry with one part of so many bytes, of a kind that this release does not know.
fn store(nats: &EngineServer, bytes: usize) {
    let mut body = vec![1];
    body.extend([7; 8]);
    body.extend([1, 0, 0, 1, 127]);
    let mut left = bytes;
    while left > 127 {
        body.push(left as u8 | 128);
        left >>= 7;
    }
    body.push(left as u8);
    body.resize(body.len() + bytes, b'x');
    let mut stream = TcpStream::connect(("127.0.0.1", nats.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let line = format!("CONNECT {{\"verbose\":false}}\r\nPUB polycast.i.+d {}\r\n", body.len());
    for part in [line.as_bytes(), &body, b"\r\nPING\r\n"] {
        stream.write_all(part).unwrap();
    }
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.any(|line| line.unwrap() == "PONG"));
}

/// The server does not deliver an entry that is larger than a request for entries allows.
#[test]
fn cluster_entry_that_is_larger_than_a_request_for_entries_stops_nobody() {
    let Some(nats) = with_lines("large", "max_payload: 16MB\nmax_pending: 64MB\n") else { return };
    let Some([first]) = nodes(&nats) else { return };
    let mut hears = Client::subscriber(first.addresses()[0], "a");
    let mut api = Client::connect(first.addresses()[0]);
    api.publish("a", "1");
    store(&nats, 10 << 20);
    api.publish("a", "2");
    store(&nats, 9 << 20);
    store(&nats, 9 << 20);
    api.publish("a", "3");
    for n in 1..=3 {
        assert_eq!(hears.text(), event("a", &n.to_string()));
    }
    // So does a node that starts.
    let Some(second) = start(cluster_of(&nats)) else { return };
    joined(&second);
    let mut hears = Client::subscriber(second.addresses()[0], "a");
    api.publish("a", "4");
    assert_eq!(hears.text(), event("a", "4"));
    assert_eq!((first.count("cluster_gaps"), second.count("cluster_gaps")), (0, 0));
}
