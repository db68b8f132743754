//! Engines that can be read and refuse what is to be stored, for a while or because of its size.

use super::engine::{EngineServer, impatient};
use super::refusals::doctor;
use super::zenith::{api, picture_is, published, started, topic, zenith_of};
use super::{joined, nodes, ready};
use crate::net::*;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// A primary without the replicas that it wants refuses all writes, and is read as before.
#[test]
fn cluster_redis_that_refuses_writes_is_read_and_not_ready() {
    let log = ["--appendonly", "yes"];
    let Some(server) = EngineServer::start_redis("redis-refuses", &log) else { return };
    let (Some(node), Some(other)) = (start(impatient(&server)), start(impatient(&server))) else {
        return;
    };
    [&node, &other].into_iter().for_each(joined);
    let mut hears = Client::subscriber(node.addresses()[0], "a");
    let mut api = Client::connect(other.addresses()[0]);
    api.publish("a", "1");
    assert_eq!(hears.text(), event("a", "1"));
    assert_eq!(server.ask("CONFIG SET min-replicas-to-write 1"), "+OK\r\n");
    api.send(&publish("a", "refused"));
    assert_eq!(api.response().status, 503);
    for node in [&node, &other] {
        wait("the node is not ready", || ready(node) == 503);
        assert_eq!(node.count("cluster_up"), 0);
    }
    // The nodes look at the engine every two seconds.
    for _ in 0..5 {
        thread::sleep(Duration::from_secs(1));
        assert_eq!((ready(&node), ready(&other)), (503, 503));
    }
    api.send(&publish("a", "refused, too"));
    assert_eq!(api.response().status, 503);
    hears.sync();
    for node in [&node, &other] {
        assert_eq!((node.count("cluster_lost"), node.count("cluster_fillings")), (0, 0));
        assert_eq!((node.count("cluster_gaps"), node.count("cluster_fenced")), (0, 1));
    }
    assert_eq!(server.ask("CONFIG SET min-replicas-to-write 0"), "+OK\r\n");
    [&node, &other].into_iter().for_each(joined);
    api.publish("a", "2");
    assert_eq!(hears.text(), event("a", "2"));
    assert_eq!((node.count("cluster_up"), node.count("cluster_new_ids")), (1, 0));
    assert_eq!(node.count("cluster_removed_nodes"), 0);
}

/// A NATS server that accepts entries of at most 64 KiB.
fn with_small_entries(name: &str) -> Option<EngineServer> {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.cfg"));
    fs::write(&file, "max_payload: 65536\n").unwrap();
    EngineServer::start_with(name, &["-c", file.to_str().unwrap()])
}

/// Events that wait for one channel go into entries of several, each of which the engine accepts.
#[test]
fn cluster_nats_with_small_entries_takes_many_events_of_a_channel() {
    const PUBLISHERS: usize = 50;
    const EVENTS: usize = 4;
    let Some(nats) = with_small_entries("small-entries") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let mut hears = Client::subscriber(second.addresses()[0], "a");
    let data = |n: usize| format!("{n:010}").repeat(1000);
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let address = first.addresses()[0];
            scope.spawn(move || {
                let mut api = Client::connect(address);
                for n in 0..EVENTS {
                    api.send(&publish("a", &data(publisher * EVENTS + n)));
                }
                for _ in 0..EVENTS {
                    let response = api.response();
                    assert_eq!(response.status, 200, "{response:?}");
                }
            });
        }
    });
    let mut heard: Vec<String> = (0..PUBLISHERS * EVENTS).map(|_| hears.text()).collect();
    heard.sort();
    let all: Vec<String> = (0..PUBLISHERS * EVENTS).map(|n| event("a", &data(n))).collect();
    assert_eq!(heard.len(), all.len());
    assert!(heard == all, "each is heard once");
    assert!(first.count("cluster_appends") < 200, "they shared entries");
    assert_eq!(first.count("cluster_refused"), 0);
}

#[test]
fn cluster_nats_doctor_warns_of_entries_that_are_too_small() {
    if !has_uring() {
        return;
    }
    let Some(nats) = with_small_entries("small-doctor") else { return };
    let report = |name: &str, bytes: usize| {
        let limits = format!("limits = {{ event_bytes = {bytes} }}\n");
        doctor(name, &format!("{limits}[cluster]\nengine = ['{}']\n", nats.url()))
    };
    let (text, code) = report("fits.toml", 10_240);
    assert!(text.contains("entries of up to 65536 bytes"), "{text}");
    assert!(!text.contains("warning") && code == Some(0), "{text}");
    let (text, code) = report("too-small.toml", 65_536);
    assert!(text.contains("warning: max_payload is 65536") && code == Some(0), "{text}");
}

/// Pictures go in pieces that the engine accepts, and a node that starts has all of them.
#[test]
fn cluster_nats_with_small_entries_has_large_pictures() {
    let Some(nats) = with_small_entries("small-pictures") else { return };
    let mut config = zenith_of(&nats);
    config.cluster.as_mut().unwrap().keep_s = 10;
    let Some(first) = started(&config) else { return };
    let mut api = api(&first);
    let members = |from: u32| {
        let member = |n: u32| format!(r#""m{n}":"{}""#, "x".repeat(30_000));
        format!("{{{}}}", (from..10).map(member).collect::<Vec<_>>().join(","))
    };
    for n in 0..10 {
        let data = format!(r#""Data":{{"m{n}":"{}"}}"#, "x".repeat(30_000));
        published(&mut api, &topic("S!large", &data));
    }
    picture_is(&first, "S!large", &members(0));
    wait("the picture is stated", || first.count("cluster_states") >= 10);
    let Some(second) = started(&config) else { return };
    picture_is(&second, "S!large", &members(0));
}
