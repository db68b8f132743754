//! Nodes as processes that are killed, stopped and drained, and what the others take them for.

use super::engine::EngineServer;
use crate::live::child::Process;
use crate::net::*;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The beginning of a node's configuration. One thread is enough, and several nodes are started.
const BASE: &str = "threads = 1\npin = false\nlisteners = [{ address = '127.0.0.1:0' }]\n";
const TOKEN: &str = "a-token-of-the-tests";

/// Lets one of these tests run at a time: each has several processes, and measures time.
pub fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Processes that have joined and know each other.
pub fn processes<const COUNT: usize>(
    nats: &EngineServer,
    name: &str,
    more: &str,
) -> [Process; COUNT] {
    let text = format!("[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\n{more}", nats.url());
    let started: [Process; COUNT] = std::array::from_fn(|at| {
        let process = Process::start(&format!("cluster-{name}-{at}"), &format!("{BASE}{text}"));
        wait("the node joins", || is_ready(process.address));
        process
    });
    for process in &started {
        wait("they know each other", || metric(process.address, "nodes") == COUNT as u64);
    }
    started
}

pub fn is_ready(address: SocketAddr) -> bool {
    let mut client = Client::connect(address);
    client.send(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.response().status == 200
}

/// A metric of the cluster: its name without what all of them begin and end with.
pub fn metric(address: SocketAddr, name: &str) -> u64 {
    let mut client = Client::connect(address);
    client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let metrics = client.response().body;
    let value = |line: &str| {
        let (metric, value) = line.split_once(' ')?;
        let metric = metric.strip_prefix("polycast_cluster_")?;
        (metric.strip_suffix("_total").unwrap_or(metric) == name).then(|| value.parse().unwrap())
    };
    metrics.lines().find_map(value).unwrap_or_else(|| panic!("{name} is not in {metrics}"))
}

/// The nodes that the console of a node shows: id, state, and whether it is that node.
fn listed(address: SocketAddr) -> Vec<(String, String, bool)> {
    let mut client = Client::connect(address);
    let get = "GET /console/nodes HTTP/1.1\r\nHost: localhost\r\n";
    client.send(format!("{get}\r\n").as_bytes());
    assert_eq!(client.response().status, 401, "it needs the token");
    client.send(format!("{get}Authorization: Bearer {TOKEN}\r\n\r\n").as_bytes());
    let page: serde_json::Value = serde_json::from_str(&client.response().body).unwrap();
    let text = |it: &serde_json::Value| it.as_str().unwrap().to_owned();
    let nodes = page["nodes"].as_array().unwrap().iter();
    let row = |node: &serde_json::Value| {
        assert_eq!(
            (node["has_same_settings"].as_bool(), node["age_ms"].is_u64()),
            (Some(true), true)
        );
        (text(&node["id"]), text(&node["state"]), node["is_own"].as_bool().unwrap())
    };
    nodes.map(row).collect()
}

/// `kill -9` of one of three nodes: the two others agree within 8 s that it is dead.
#[test]
fn cluster_p6_node_that_is_killed_is_dead_for_all_others() {
    let Some(nats) = EngineServer::start("killed-node") else { return };
    if !has_uring() {
        return;
    }
    let _alone = alone();
    let [mut killed, first, second] =
        processes(&nats, "killed", &format!("[console]\ntoken = '{TOKEN}'\n"));
    let are_up = |it: &[(String, String, bool)]| it.iter().all(|(_, state, _)| state == "up");
    wait("the first node has read that all are up", || are_up(&listed(first.address)));
    let before = listed(first.address);
    assert_eq!((before.len(), before.iter().filter(|it| it.2).count()), (3, 1));
    let dead = listed(killed.address).into_iter().find(|it| it.2).unwrap().0;
    killed.signal(libc::SIGKILL);
    killed.ended();
    let since = Instant::now();
    for other in [&first, &second] {
        wait("it is dead", || metric(other.address, "removed_nodes") == 1);
        println!("known {} ms after the kill", since.elapsed().as_millis());
        assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
        wait("it is not listed", || metric(other.address, "nodes") == 2);
        let others: Vec<_> = before.iter().map(|it| &it.0).filter(|id| **id != dead).collect();
        let listed = listed(other.address);
        assert_eq!(listed.iter().map(|it| &it.0).collect::<Vec<_>>(), others);
        assert!(other.logged().contains("a node is dead"), "{}", other.logged());
    }
    // One of them has written the death.
    let wrote = |it: &Process| it.logged().contains("is_ours=true");
    assert_eq!([&first, &second].map(wrote).into_iter().filter(|it| *it).count(), 1);
    assert!(since.elapsed() > Duration::from_secs(3), "it was declared dead too early");
    let mut hears = Client::subscriber(second.address, "a");
    Client::connect(first.address).publish("a", "after");
    assert_eq!(hears.text(), event("a", "after"));
}

/// A node that stands still is dead after `dead_ms`, not before. It goes on under another id, with
/// its clients.
#[test]
fn cluster_p6_node_that_was_stopped_goes_on() {
    let Some(nats) = EngineServer::start("stopped-node") else { return };
    if !has_uring() {
        return;
    }
    let _alone = alone();
    let [stopped, first, second] = processes(&nats, "stopped", "");
    let others = [&first, &second];
    let mut hears = Client::subscriber(stopped.address, "a");
    stopped.signal(libc::SIGSTOP);
    thread::sleep(Duration::from_secs(3));
    stopped.signal(libc::SIGCONT);
    thread::sleep(Duration::from_secs(6));
    for process in others.into_iter().chain([&stopped]) {
        let [nodes, removed, ids] =
            ["nodes", "removed_nodes", "new_ids"].map(|name| metric(process.address, name));
        assert_eq!((nodes, removed, ids), (3, 0, 0), "{}", process.logged());
    }
    stopped.signal(libc::SIGSTOP);
    thread::sleep(Duration::from_secs(10));
    for other in others {
        assert_eq!(metric(other.address, "nodes"), 2, "{}", other.logged());
    }
    Client::connect(first.address).publish("a", "meanwhile");
    stopped.signal(libc::SIGCONT);
    assert_eq!(hears.text(), event("a", "meanwhile"), "it has missed nothing");
    wait("it has another id", || metric(stopped.address, "new_ids") == 1);
    for process in others.into_iter().chain([&stopped]) {
        wait("it is there again", || metric(process.address, "nodes") == 3);
        assert_eq!(metric(process.address, "removed_nodes"), 1, "{}", process.logged());
    }
    Client::connect(stopped.address).publish("a", "again");
    assert_eq!(hears.text(), event("a", "again"));
    assert!(is_ready(stopped.address) && metric(stopped.address, "fenced") > 0);
}

/// A node that is drained says so, and is removed `drain_linger_ms` later.
#[test]
fn cluster_node_that_is_drained_is_removed_later() {
    let Some(nats) = EngineServer::start("drained-node") else { return };
    if !has_uring() {
        return;
    }
    let _alone = alone();
    let more = "drain_linger_ms = 7000\n";
    let [mut drained, other] = processes(&nats, "drained", more);
    let begun = Instant::now();
    drained.signal(libc::SIGTERM);
    assert!(drained.ended().success());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "it has no client to wait for: {took:?}");
    let since = Instant::now();
    wait("the other one knows", || other.logged().contains("state=\"leaving\""));
    thread::sleep(Duration::from_millis(5500));
    assert_eq!(metric(other.address, "nodes"), 2, "after dead_ms it is still there");
    wait("it is removed", || metric(other.address, "nodes") == 1);
    println!("removed {} ms after its end", since.elapsed().as_millis());
    assert!(since.elapsed() < Duration::from_secs(11), "{:?}", since.elapsed());
    assert!(other.logged().contains("a node has left"), "{}", other.logged());
}
