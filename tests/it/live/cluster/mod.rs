//! Several nodes on a real server of an engine: `NATS_SERVER` and `REDIS_SERVER` name its program;
//! `tests/run` installs them.

mod checker;
mod dialects;
mod engine;
mod engines;
mod faults;
mod history;
mod keys;
mod limits;
mod link_counts;
mod links;
mod lives;
mod login;
mod presence;
mod promises;
mod readme;
mod redis;
mod refusals;
mod refused;
mod reload;
mod rolling;
mod slow;
mod swarm;
mod zenith;
mod zenith_ends;
mod zenith_links;

use crate::net::*;
use checker::Checker;
use engine::{EngineServer, cluster_of};
use polycast::config::Config;
use polycast::server::Server;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

/// Nodes that have joined.
fn nodes<const COUNT: usize>(nats: &EngineServer) -> Option<[Server; COUNT]> {
    nodes_of(&cluster_of(nats))
}

/// Nodes with this configuration that have joined.
fn nodes_of<const COUNT: usize>(config: &Config) -> Option<[Server; COUNT]> {
    let mut list = Vec::new();
    for _ in 0..COUNT {
        let server = start(config.clone())?;
        joined(&server);
        list.push(server);
    }
    list.try_into().ok()
}

/// Waits until a node has joined.
fn joined(server: &Server) {
    wait("the node joins", || ready(server) == 200);
}

/// Waits until nodes have read what the first one has, which clients of that one may have heard.
fn level(first: &Server, others: &[&Server]) {
    let position = |node: &Server| node.count("cluster_position");
    let wanted = position(first);
    wait("the nodes are level", || others.iter().all(|node| position(node) >= wanted));
}

/// The status of the readiness page.
fn ready(server: &Server) -> u16 {
    ready_at(server.addresses()[0])
}

fn ready_at(address: SocketAddr) -> u16 {
    let mut client = Client::connect(address);
    client.send(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.response().status
}

#[test]
fn cluster_p1_events_have_one_order_on_all_nodes() {
    let Some(nats) = EngineServer::start("order") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let checker = Checker::default();
    let channels = ["a", "b", "c"];
    let mut hearers = Vec::new();
    for server in [&first, &second] {
        for _ in 0..2 {
            hearers.push(checker.subscriber(server.addresses()[0], &channels));
        }
    }
    let publishers = [&first, &second, &first, &second].map(|it| it.addresses()[0]);
    thread::scope(|scope| {
        for (number, address) in publishers.into_iter().enumerate() {
            let checker = &checker;
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for n in 0..150 {
                    let channel = channels[n % channels.len()];
                    assert_eq!(checker.publish(&mut client, channel, number, n), 200);
                }
            });
        }
        for hearer in &mut hearers {
            scope.spawn(|| hearer.hear(600));
        }
    });
    checker.judge(&hearers);
    let mut client = Client::connect(first.addresses()[0]);
    client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let metrics = client.response().body;
    let appends = first.count("cluster_appends");
    for line in [
        "polycast_cluster_up 1".to_owned(),
        "polycast_cluster_events_total 600".to_owned(),
        format!("polycast_cluster_append_seconds_count {appends}"),
    ] {
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    for server in [&first, &second] {
        assert_eq!((server.count("cluster_events"), server.count("cluster_repeated")), (600, 0));
        assert_eq!((server.count("cluster_refused"), server.count("cluster_unknown")), (0, 0));
    }
}

#[test]
fn cluster_client_events_reach_other_nodes_and_not_their_sender() {
    let Some(nats) = EngineServer::start("client-events") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let private = |server: &Server| {
        let (mut client, id) = Client::app(server.addresses()[0]);
        let auth = DEMO.auth(&format!("{id}:private-a"));
        let data = format!(r#"{{"channel":"private-a","auth":"{auth}"}}"#);
        client.send_text(&format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#));
        assert_eq!(client.text(), subscribed("private-a"));
        (client, id)
    };
    let (mut ada, id) = private(&first);
    let (mut bob, _) = private(&second);
    let sent = r#"{"event":"client-sent","channel":"private-a","data":{"n":1}}"#;
    ada.send_text(sent);
    assert_eq!(bob.text(), sent);
    // Excluded by the socket id of another node.
    let body =
        format!(r#"{{"name":"e","channel":"private-a","data":"others","socket_id":"{id}"}}"#);
    let mut api = Client::connect(second.addresses()[0]);
    api.send(&DEMO.request("POST", EVENTS, &body));
    assert_eq!(api.response().status, 200);
    assert_eq!(bob.text(), event("private-a", "others"));
    api.publish("private-a", "all");
    assert_eq!(bob.text(), event("private-a", "all"));
    assert_eq!(ada.text(), event("private-a", "all"), "neither of the two before");
}

#[test]
fn cluster_p16_users_are_reached_and_terminated_on_any_node() {
    let Some(nats) = EngineServer::start("users") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let (mut ada, id) = Client::app(second.addresses()[0]);
    let user = r#"{\"id\":\"ada\"}"#;
    let auth = DEMO.auth(&format!(r#"{id}::user::{{"id":"ada"}}"#));
    let data = format!(r#"{{"auth":"{auth}","user_data":"{user}"}}"#);
    ada.send_text(&format!(r#"{{"event":"pusher:signin","data":{data}}}"#));
    assert!(ada.text().contains("pusher:signin_success"));
    ada.sync();
    let mut api = Client::connect(first.addresses()[0]);
    let body = r#"{"name":"e","data":"for you"}"#;
    api.send(&DEMO.request("POST", "/apps/1/users/ada/events", body));
    assert_eq!(api.response().status, 200);
    assert_eq!(ada.text(), event("#server-to-user-ada", "for you"));
    let path = "/apps/1/users/ada/terminate_connections";
    api.send(&DEMO.request("POST", path, "{}"));
    assert_eq!(api.response().status, 200);
    assert_eq!(ada.close(), (4009, "You got disconnected by the app.".to_owned()));
}

#[test]
fn cluster_cache_channels_keep_their_event_on_all_nodes_and_for_new_ones() {
    let Some(nats) = EngineServer::start("cache") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let cached = |server: &Server| {
        let mut client = Client::subscriber(server.addresses()[0], "cache-a");
        client.text()
    };
    let miss = r#"{"event":"pusher:cache_miss","channel":"cache-a","data":"{}"}"#;
    assert_eq!(cached(&second), miss);
    let mut api = Client::connect(first.addresses()[0]);
    for n in 1..=3 {
        api.publish("cache-a", &n.to_string());
    }
    for server in [&first, &second] {
        wait("the node has read it", || cached(server) == event("cache-a", "3"));
    }
    // A node that comes later has read the log before it serves anybody.
    let Some([third]) = nodes(&nats) else { return };
    assert_eq!(cached(&third), event("cache-a", "3"));
}

/// A WebSocket publisher gets its acknowledgements when the engine has stored its events.
#[test]
fn cluster_publishers_are_acknowledged() {
    let Some(nats) = EngineServer::start("publisher") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let mut hears = Client::subscriber(second.addresses()[0], "a");
    let (mut client, id) = Client::app(first.addresses()[0]);
    let auth = DEMO.auth(&format!("{id}:polycast:publisher"));
    let data = format!(r#"{{"auth":"{auth}","role":"publisher"}}"#);
    client.send_text(&format!(r#"{{"event":"polycast:authenticate","data":{data}}}"#));
    assert!(client.text().contains("polycast:authenticated"));
    for n in 0..100 {
        let data = format!(r#"{{"id":{n},"name":"e","channel":"a","data":"{n}"}}"#);
        client.send_text(&format!(r#"{{"event":"polycast:publish","data":{data}}}"#));
    }
    for n in 0..100 {
        assert_eq!(
            client.text(),
            format!(r#"{{"event":"polycast:published","data":{{"id":{n}}}}}"#)
        );
        assert_eq!(hears.text(), event("a", &n.to_string()));
    }
    // They came faster than the engine answers, so they shared entries.
    assert!(first.count("cluster_appends") < 100, "{}", first.count("cluster_appends"));
}

#[test]
fn cluster_two_clusters_on_one_engine_do_not_meet() {
    let Some(nats) = EngineServer::start("two") else { return };
    let Some([first]) = nodes(&nats) else { return };
    let mut config = cluster_of(&nats);
    config.cluster.as_mut().unwrap().name = "other".to_owned();
    let Some(other) = start(config) else { return };
    joined(&other);
    let mut hears = Client::subscriber(other.addresses()[0], "a");
    Client::connect(first.addresses()[0]).publish("a", "1");
    Client::connect(other.addresses()[0]).publish("a", "2");
    assert_eq!(hears.text(), event("a", "2"));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(other.count("cluster_events"), 1);
}
