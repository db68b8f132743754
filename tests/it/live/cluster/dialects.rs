//! Dialects without applications over several nodes: groups of `reflect`, and Zilliqa epochs.

use super::engine::{EngineServer, cluster_of};
use super::{joined, ready};
use crate::live::child::{BASE, Process};
use crate::live::nodes::chain::{Chain, Shape};
use crate::live::nodes::{Net, Watcher, polling};
use crate::net::*;
use polycast::config::{
    Condition, Config, EndpointKind, Grouping, Pattern, Route, Secret, ZilliqaPoll,
};
use polycast::server::Server;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// A node whose paths below `/groups/` are groups.
fn grouped(nats: &EngineServer, history: u32, exclude_sender: bool) -> Config {
    let mut config = cluster_of(nats);
    let when = vec![Condition { path: Pattern::new("/groups/*"), ..Condition::default() }];
    let mut route = Route { when, ..Route::to(EndpointKind::Reflect) };
    route.reflect.group = Grouping::Path;
    (route.reflect.history, route.reflect.exclude_sender) = (history, exclude_sender);
    route.stream = true;
    config.routes.insert(0, route);
    config
}

fn started(config: &Config) -> Option<Server> {
    let server = start(config.clone())?;
    joined(&server);
    Some(server)
}

fn member(server: &Server, path: &str) -> Client {
    Client::connect(server.addresses()[0]).upgrade(path)
}

/// A member, which is subscribed when it receives its own message. It may receive earlier messages
/// before, which its node had not read.
fn heard_member(server: &Server, path: &str, hello: &str, others: &mut [&mut Client]) -> Client {
    let mut client = member(server, path);
    client.send_text(hello);
    while client.text() != hello {}
    others.iter_mut().for_each(|other| assert_eq!(other.text(), hello));
    client
}

#[test]
fn cluster_p16_reflect_groups_have_one_order_on_all_nodes() {
    let Some(nats) = EngineServer::start("reflect") else { return };
    let config = grouped(&nats, 0, false);
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    let mut ada = heard_member(&first, "/groups/a", "ada", &mut []);
    let mut bob = heard_member(&second, "/groups/a", "bob", &mut [&mut ada]);
    let mut other = heard_member(&second, "/groups/b", "another group", &mut []);
    for n in 0..100 {
        ada.send_text(&format!("ada {n}"));
        bob.send_text(&format!("bob {n}"));
    }
    let [by_ada, by_bob] =
        [&mut ada, &mut bob].map(|client| (0..200).map(|_| client.text()).collect::<Vec<_>>());
    assert_eq!(by_ada, by_bob);
    for sender in ["ada", "bob"] {
        let own: Vec<_> = by_ada.iter().filter(|it| it.starts_with(sender)).collect();
        assert_eq!(
            own,
            (0..100)
                .map(|n| format!("{sender} {n}"))
                .collect::<Vec<_>>()
                .iter()
                .collect::<Vec<_>>()
        );
    }
    other.send(&masked(true, BINARY, &[0, 255]));
    assert_eq!(other.frame().payload, [0, 255], "and nothing of the first group");
    // The group has no history.
    let mut late = heard_member(&first, "/groups/a", "late", &mut [&mut ada, &mut bob]);
    late.sync();
}

/// The join goes to the group's home, on another core for half of the members, and the message to
/// the log, which returns it to that core.
#[test]
fn cluster_p16_reflect_member_that_sends_at_once_receives_its_message() {
    let Some(nats) = EngineServer::start("reflect-at-once") else { return };
    let Some(server) = started(&grouped(&nats, 0, false)) else { return };
    for n in 0..500 {
        let text = format!("at once {n}");
        let mut bytes = handshake(&format!("/groups/{n}"), "").into_bytes();
        bytes.extend(masked(true, TEXT, text.as_bytes()));
        let mut client = Client::connect(server.addresses()[0]);
        client.send(&bytes);
        assert_eq!(client.response().status, 101);
        assert_eq!(client.text(), text);
    }
}

#[test]
fn cluster_p16_reflect_sender_is_excluded_on_its_node() {
    let Some(nats) = EngineServer::start("reflect-except") else { return };
    let config = grouped(&nats, 1, true);
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    let mut ada = member(&first, "/groups/a");
    ada.send_text("of ada");
    // The message is kept as the history, so a member that gets it is subscribed after it.
    wait("the message is applied", || second.count("cluster_events") == 1);
    let mut bob = member(&second, "/groups/a");
    assert_eq!(bob.text(), "of ada");
    bob.send_text("of bob");
    assert_eq!(ada.text(), "of bob", "and not its own");
    ada.send_text("again of ada");
    assert_eq!(bob.text(), "again of ada", "and not its own");
}

#[test]
fn cluster_p16_reflect_history_is_the_same_on_all_nodes_and_for_new_ones() {
    let Some(nats) = EngineServer::start("reflect-history") else { return };
    let config = grouped(&nats, 3, false);
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    let mut ada = member(&first, "/groups/a");
    let mut bob = member(&second, "/groups/a");
    bob.sync();
    let texts: Vec<String> = (1..=5).map(|n| n.to_string()).collect();
    for text in &texts {
        ada.send_text(text);
        assert_eq!((ada.text(), bob.text()), (text.clone(), text.clone()));
    }
    let history = |server: &Server| -> Vec<String> {
        let mut client = member(server, "/groups/a");
        (0..3).map(|_| client.text()).collect()
    };
    assert_eq!(history(&second), texts[2..]);
    assert_eq!(history(&first), texts[2..]);
    // A node that comes later has read the log before it serves anybody.
    let Some(third) = started(&config) else { return };
    assert_eq!(history(&third), texts[2..]);
    // A history lives as long as the log keeps its messages, also without a member.
    drop((ada, bob));
    for server in [&first, &second, &third] {
        wait("all have left", || server.count("subscriptions") == 0);
    }
    assert_eq!(history(&second), texts[2..]);
    let mut other = member(&second, "/groups/b");
    other.send_text("first");
    assert_eq!(other.text(), "first");
}

/// A message is removed from the histories of all nodes after `history_s`. Until then nodes that
/// start have it.
#[test]
fn cluster_reflect_history_ends_with_the_log() {
    let Some(nats) = EngineServer::start("reflect-expiry") else { return };
    let mut config = grouped(&nats, 3, false);
    let cluster = config.cluster.as_mut().unwrap();
    (cluster.keep_s, cluster.history_s) = (10, 10);
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    let mut ada = heard_member(&first, "/groups/a", "old", &mut []);
    let mut bob = member(&second, "/groups/a");
    assert_eq!(bob.text(), "old");
    thread::sleep(Duration::from_millis(11_500));
    ada.send_text("new");
    assert_eq!((ada.text(), bob.text()), ("new".to_owned(), "new".to_owned()));
    for server in [&first, &second] {
        let mut late = member(server, "/groups/a");
        assert_eq!(late.text(), "new");
    }
    // A third node has what it reads late, too, if it starts in less than the time of a message.
    let in_time = (0..5).find_map(|n| {
        let text = n.to_string();
        ada.send_text(&text);
        assert_eq!((ada.text(), bob.text()), (text.clone(), text.clone()));
        let sent = Instant::now();
        let third = started(&config)?;
        let mut late = member(&third, "/groups/a");
        (sent.elapsed() < Duration::from_secs(8)).then(|| {
            let mut heard = late.text();
            while heard != text {
                assert_ne!(heard, "old");
                heard = late.text();
            }
        })
    });
    assert!(in_time.is_some(), "no node starts in time");
}

#[test]
fn cluster_reflect_waits_until_the_node_has_joined() {
    let Some(nats) = EngineServer::start("reflect-joining") else { return };
    let mut config = grouped(&nats, 1, false);
    config.cluster.as_mut().unwrap().engine = vec!["nats://127.0.0.1:1".to_owned()];
    let Some(server) = start(config) else { return };
    assert_eq!(ready(&server), 503);
    for (head, accept) in [(handshake("/groups/a", ""), ""), (String::new(), "text/event-stream")] {
        let mut client = Client::connect(server.addresses()[0]);
        let events = format!("GET /groups/a HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n");
        client.send(if head.is_empty() { events } else { head }.as_bytes());
        let refused = client.response();
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.body.contains("has not joined its cluster"), "{refused:?}");
    }
}

const TOKEN: &str = "0123456789abcdef";
const SHAPE: Shape = Shape::Zq2;

fn epoch(number: u64, padding: usize) -> String {
    let pad = "x".repeat(padding);
    format!(r#"{{"TxBlock":{{"header":{{"BlockNum":"{number}"}},"pad":"{pad}"}},"TxHashes":[]}}"#)
}

fn notification(number: u64, padding: usize) -> String {
    let epoch = epoch(number, padding);
    format!(r#"{{"type":"Notification","values":[{{"query":"NewBlock","value":{epoch}}}]}}"#)
}

/// Posts an epoch, and returns the status of the answer.
fn post(server: &Server, document: &str) -> u16 {
    let len = document.len();
    let head = format!(
        "POST /epochs HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {len}\r\n\r\n"
    );
    let mut client = Client::connect(server.addresses()[0]);
    client.send(head.as_bytes());
    client.send(document.as_bytes());
    client.response().status
}

fn posted_to(nats: &EngineServer) -> Config {
    let mut config = polling(cluster_of(nats), Vec::new());
    config.zilliqa.publish_token = Secret::new(TOKEN);
    let when = vec![Condition { path: Pattern::new("/epochs"), ..Condition::default() }];
    config.routes.insert(0, Route { when, ..Route::to(EndpointKind::Zilliqa) });
    config
}

/// A client that continues after an epoch that it knows.
fn resumed(address: SocketAddr, after: u64) -> Client {
    let mut client = Client::open(address, "/");
    let query = format!(r#"{{"query":"NewBlock","after":"{after}"}}"#);
    client.send_text(&query);
    assert_eq!(client.text(), query);
    client
}

#[test]
fn cluster_p16_zilliqa_epochs_are_posted_on_any_node() {
    let Some(nats) = EngineServer::start("zilliqa-posted") else { return };
    let config = posted_to(&nats);
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    let servers = [&first, &second];
    let mut watchers = servers.map(|server| Watcher::new(server.addresses()[0]));
    // The third one needs several entries of the log.
    let paddings = [10, 10, 300_000, 10, 10, 10];
    for (number, padding) in (1..).zip(paddings) {
        let at = number as usize % 2;
        assert_eq!(post(servers[at], &epoch(number, padding)), 200);
        for watcher in &mut watchers {
            assert!(whole(&mut watcher.0) == notification(number, padding), "{number}");
        }
        assert_eq!(post(servers[1 - at], &epoch(number, padding)), 409);
    }
    // A node that comes later has the history of the log.
    let Some(third) = started(&config) else { return };
    for server in [&first, &second, &third] {
        let mut client = resumed(server.addresses()[0], 3);
        for number in 4..=6 {
            assert_eq!(client.text(), notification(number, 10));
        }
        wait_count(server, "last_epoch", 6);
        assert_eq!(server.count("epochs"), 6);
    }
    assert_eq!(post(&third, &epoch(6, 10)), 409);
    assert_eq!(post(&third, &epoch(7, 10)), 200);
    for watcher in &mut watchers {
        assert_eq!(watcher.0.text(), notification(7, 10));
    }
    nats.stop();
    assert!([503, 504].contains(&post(&first, &epoch(8, 10))));
    nats.signal(libc::SIGCONT);
}

/// A message in one or more frames.
fn whole(client: &mut Client) -> String {
    let mut payload = Vec::new();
    loop {
        let frame = client.frame();
        payload.extend(frame.payload);
        if frame.fin {
            return String::from_utf8(payload).unwrap();
        }
    }
}

#[test]
fn cluster_p16_zilliqa_every_node_may_poll() {
    let Some(nats) = EngineServer::start("zilliqa-each") else { return };
    let net = Net::start(&[SHAPE, SHAPE]);
    let [first, second] = [0, 1].map(|node| {
        let mut config = polling(cluster_of(&nats), vec![net.url(node)]);
        config.zilliqa.poll = ZilliqaPoll::Each;
        started(&config)
    });
    let (Some(first), Some(second)) = (first, second) else { return };
    for server in [&first, &second] {
        wait_count(server, "last_epoch", 100);
    }
    let mut watchers = [&first, &second].map(|server| Watcher::new(server.addresses()[0]));
    let chain = Chain::new(SHAPE);
    for by in [1, 1, 5, 3] {
        let tip = net.grow(by);
        watchers.iter_mut().for_each(|watcher| watcher.expect(tip - by + 1..=tip, &chain));
    }
    for (node, server) in [&first, &second].into_iter().enumerate() {
        assert!(net.requests(node) > 0);
        wait_count(server, "epochs", 10);
    }
}

/// The value of a metric of a process.
fn metric(process: &Process, name: &str) -> u64 {
    let mut client = Client::connect(process.address);
    client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let metrics = client.response().body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("polycast_{name} ")));
    line.unwrap_or_else(|| panic!("{name} is not in {metrics}")).parse().unwrap()
}

/// A process that polls a node of its own.
fn polling_process(nats: &EngineServer, net: &Net, number: usize) -> Process {
    let (engine, url) = (nats.url(), net.url(number));
    let route = |path: &str, endpoint: &str| {
        format!("[[routes]]\nwhen = [{{ path = '{path}' }}]\nendpoint = '{endpoint}'\n")
    };
    let routes = [("/", "zilliqa"), ("/metrics", "metrics"), ("/ready", "health")];
    let routes: String = routes.iter().map(|(path, endpoint)| route(path, endpoint)).collect();
    let process = Process::start(
        &format!("cluster-zilliqa-{number}"),
        &format!(
            "{BASE}[cluster]\nengine = ['{engine}']\nlog_bytes = '64MiB'\n\
             beat_ms = 200\ndead_ms = 1000\n[zilliqa.node]\nurls = ['{url}']\n\
             interval_ms = 20\n{routes}[[routes]]\nendpoint = 'apps'\n"
        ),
    );
    wait("the node joins", || {
        let mut client = Client::connect(process.address);
        client.send(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.response().status == 200
    });
    process
}

/// Which of two nodes is the only one that polls, once they know each other.
fn only_poller(net: &Net) -> usize {
    let mut found = None;
    wait("one node polls", || {
        let before = [0, 1].map(|node| net.requests(node));
        thread::sleep(Duration::from_millis(1500));
        let [first, second] = [0, 1].map(|node| net.requests(node) > before[node]);
        found = (first != second).then_some(usize::from(second));
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn cluster_p16_zilliqa_one_node_polls_and_another_goes_on() {
    let Some(nats) = EngineServer::start("zilliqa-leader") else { return };
    if !has_uring() {
        return;
    }
    let net = Net::start(&[SHAPE, SHAPE, SHAPE]);
    let mut processes = [0, 1].map(|number| polling_process(&nats, &net, number));
    for process in &processes {
        wait("the log has where epochs begin", || metric(process, "last_epoch") == 100);
    }
    let polls = only_poller(&net);
    let rests = 1 - polls;
    let before = net.requests(rests);
    let mut watchers = [0, 1].map(|node| Watcher::new(processes[node].address));
    let chain = Chain::new(SHAPE);
    for by in [1, 5, 1, 1] {
        let tip = net.grow(by);
        watchers.iter_mut().for_each(|watcher| watcher.expect(tip - by + 1..=tip, &chain));
    }
    assert_eq!(net.requests(rests), before, "one node polls");
    // The polling node is killed, and the other goes on after the last epoch of the log.
    processes[polls].signal(libc::SIGKILL);
    processes[polls].ended();
    let tip = net.grow(6);
    watchers[rests].expect(tip - 5..=tip, &chain);
    assert!(net.requests(rests) > before);
    let tip = net.grow(1);
    watchers[rests].expect(tip..=tip, &chain);
    assert_eq!(metric(&processes[rests], "epochs_total"), tip - 100);
    // A node that comes late knows all of them.
    let late = polling_process(&nats, &net, 2);
    for process in [&late, &processes[rests]] {
        let mut watcher = Watcher(resumed(process.address, tip - 10));
        watcher.expect(tip - 9..=tip, &chain);
    }
}
