//! Connections of an application with a limit, on a shard of a node in a cluster: they wait until
//! the node has reserved connections for them.

use crate::machine::{Machine, config};
use crate::peer::{Received, handshake, text};
use polycast::cluster::Arrival;
use polycast::config::{Cluster, Config};
use std::mem::take;

/// How long a connection waits if all nodes together seem to have the maximum, in milliseconds.
const FULL_MS: u64 = 2000;
/// `hold_ms` by default.
const HOLD_MS: u64 = 8000;
const MAX_WAITING: usize = 1024;
const OVER_QUOTA: &str = "Application is over connection quota";
const OVERLOADED: &str = "Over capacity: the server is overloaded";

fn machine_with(more: &str, dialect: &str) -> Machine {
    let cluster = Cluster { engine: vec!["nats://a:1".to_owned()], ..Cluster::default() };
    let more = format!("{dialect}limits = {{ connections = 100 }}\n{more}");
    Machine::new(Config { cluster: Some(Box::new(cluster)), ..config(&more) })
}

fn machine() -> Machine {
    machine_with("", "")
}

fn client(machine: &mut Machine) -> usize {
    let at = machine.open();
    machine.receive(at, &handshake("/app/app-key", ""));
    assert!(matches!(take(&mut machine.wire(at).received)[..], [Received::Answer { .. }, ..]));
    at
}

fn listener(machine: &mut Machine, channel: &str) -> usize {
    let at = machine.open();
    let target = format!("GET /app/app-key/events?channels={channel} HTTP/1.1");
    machine.receive(at, format!("{target}\r\nHost: a\r\n\r\n").as_bytes());
    at
}

fn received(machine: &mut Machine, at: usize) -> Vec<String> {
    let received = take(&mut machine.wire(at).received);
    received.iter().map(|it| format!("{it:?}")).collect()
}

/// The node has reserved so many connections, and says so.
fn reserve(machine: &mut Machine, count: u32) {
    machine.env.apps.get(0).reserve((count, u64::MAX), u32::MAX, false);
    machine.shard.arrive(Arrival::Room { app: 0 }, machine.now);
    machine.settle();
}

#[test]
fn cluster_room_lets_clients_wait_until_connections_are_reserved() {
    let mut machine = machine();
    let [first, second] = [client(&mut machine), client(&mut machine)];
    // A client that does not wait for its greeting is not read.
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"a"}}"#;
    machine.receive(first, &text(subscribe));
    assert!(!machine.wants_read(first) && received(&mut machine, first).is_empty());
    let waiting = |machine: &Machine| {
        let app = machine.env.apps.get(0);
        (app.connections(), app.waiting())
    };
    assert_eq!((waiting(&machine), machine.counters.room_waits.get()), ((0, 2), 2));
    reserve(&mut machine, 1);
    let texts = received(&mut machine, first);
    assert!(texts[0].contains("connection_established"), "{texts:?}");
    assert!(texts[1].contains("subscription_succeeded"), "{texts:?}");
    assert_eq!((waiting(&machine), received(&mut machine, second).len()), ((1, 1), 0));
    reserve(&mut machine, 2);
    assert!(received(&mut machine, second)[0].contains("connection_established"));
    assert_eq!(waiting(&machine), (2, 0));
    // A client that leaves makes room for one that waits.
    let third = client(&mut machine);
    machine.hang_up(first);
    assert!(machine.env.apps.take_need());
    reserve(&mut machine, 2);
    assert!(received(&mut machine, third)[0].contains("connection_established"));
    machine.env.apps.get(0).reserve((100, u64::MAX), u32::MAX, false);
    let fourth = machine.open();
    machine.receive(fourth, &handshake("/app/app-key", ""));
    assert_eq!(received(&mut machine, fourth).len(), 2, "it is greeted at once");
    machine.end();
    assert_eq!(waiting(&machine), (0, 0));
}

#[test]
fn cluster_room_of_a_client_that_leaves_while_it_waits_goes_to_the_next() {
    let mut machine = machine();
    let (ended, stays) = (client(&mut machine), client(&mut machine));
    machine.hang_up(ended);
    assert_eq!(machine.env.apps.get(0).waiting(), 1);
    reserve(&mut machine, 1);
    assert!(received(&mut machine, stays)[0].contains("connection_established"));
    machine.end();
}

#[test]
fn cluster_room_refuses_clients_when_all_nodes_have_the_maximum() {
    let mut machine = machine();
    let at = client(&mut machine);
    machine.env.apps.get(0).reserve((0, u64::MAX), u32::MAX, true);
    machine.wait(FULL_MS - 250);
    assert_eq!(received(&mut machine, at), [""; 0], "another node may have given one back");
    machine.wait(250);
    let texts = received(&mut machine, at);
    assert!(texts[0].contains("pusher:error") && texts[0].contains("4004"), "{texts:?}");
    assert_eq!(texts[1], format!("Close(Some(4004), {OVER_QUOTA:?})"));
    let counters = &machine.counters;
    assert_eq!((counters.refused_quota.get(), counters.refused_not_reserved.get()), (1, 0));
    assert_eq!(machine.env.apps.get(0).waiting(), 0, "before its connection has ended");
    machine.end();
    assert_eq!(machine.env.apps.get(0).waiting(), 0);
}

#[test]
fn cluster_room_that_is_not_known_in_time_may_be_asked_for_again() {
    let mut machine = machine();
    let at = client(&mut machine);
    // It may have sent something: nothing is read, and it is refused nevertheless.
    machine.receive(at, &text("{}"));
    machine.wait(HOLD_MS - 250);
    assert_eq!(received(&mut machine, at), [""; 0]);
    machine.wait(250);
    let texts = received(&mut machine, at);
    assert_eq!(texts[1], format!("Close(Some(4100), {OVERLOADED:?})"));
    let counters = &machine.counters;
    assert_eq!((counters.refused_quota.get(), counters.refused_not_reserved.get()), (0, 1));
    machine.end();
}

#[test]
fn cluster_room_bounds_how_many_clients_wait() {
    let mut machine = machine();
    for _ in 0..MAX_WAITING {
        client(&mut machine);
    }
    assert_eq!(machine.counters.refused_not_reserved.get(), 0);
    let at = machine.open();
    machine.receive(at, &handshake("/app/app-key", ""));
    let texts = received(&mut machine, at);
    assert_eq!(texts[2], format!("Close(Some(4100), {OVERLOADED:?})"));
    assert_eq!(machine.counters.refused_not_reserved.get(), 1);
    machine.end();
}

/// The subscriptions of a stream of events begin when it is admitted.
#[test]
fn cluster_room_of_streams_of_events() {
    let mut machine = machine();
    let [first, refused] = ["a", "b"].map(|channel| listener(&mut machine, channel));
    let texts = received(&mut machine, first);
    assert!(texts.iter().any(|it| it.starts_with("Start")), "{texts:?}");
    assert_eq!((machine.counters.subscriptions.get(), machine.shard.channel_count()), (0, 0));
    reserve(&mut machine, 1);
    assert_eq!((machine.counters.subscriptions.get(), machine.shard.channel_count()), (1, 1));
    machine.env.apps.get(0).reserve((1, u64::MAX), u32::MAX, true);
    received(&mut machine, refused);
    machine.wait(FULL_MS);
    let texts = received(&mut machine, refused);
    assert!(texts[0].contains("4004"), "{texts:?}");
    assert!(texts.last().is_some_and(|it| it.starts_with("End")), "{texts:?}");
    // Only the head was asked for.
    let at = machine.open();
    let head = "HEAD /app/app-key/events?channels=a HTTP/1.1\r\nHost: a\r\n\r\n";
    machine.receive(at, head.as_bytes());
    assert_eq!(machine.env.apps.get(0).waiting(), 0);
    machine.end();
    let app = machine.env.apps.get(0);
    assert_eq!((app.connections(), app.waiting()), (0, 0));
}

/// Broadcastt's codes are its own, and the time for a sign-in begins with the greeting.
#[test]
fn cluster_room_of_other_vendors_and_deadlines() {
    let mut machine = machine_with("", "dialect = 'broadcastt'\n");
    let at = client(&mut machine);
    machine.env.apps.get(0).reserve((0, u64::MAX), u32::MAX, true);
    machine.wait(FULL_MS);
    let texts = received(&mut machine, at);
    assert!(texts.last().is_some_and(|it| it.contains("4004")), "{texts:?}");
    let mut machine = machine_with("", "authorise_within_s = 2\n");
    let at = client(&mut machine);
    machine.wait(5000);
    reserve(&mut machine, 1);
    assert_eq!(received(&mut machine, at).len(), 1);
    machine.wait(1500);
    assert_eq!(received(&mut machine, at), [""; 0]);
    machine.wait(1500);
    let texts = received(&mut machine, at);
    assert!(texts.last().is_some_and(|it| it.contains("4009")), "{texts:?}");
}
