//! The limit of connections that have not sent a request yet.

use crate::machine::{Machine, config};
use crate::peer;
use polycast::config::Config;
use polycast::dialect::Env;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The time in milliseconds after which a connection without a request may be replaced by another.
const TIME_MS: u64 = 2000;

fn at_most(handshakes: usize) -> Config {
    let mut config = config("");
    config.limits.handshakes = handshakes;
    config
}

#[test]
fn handshakes_oldest_is_closed_after_a_reload_with_a_lower_limit() {
    let mut machine = Machine::new(at_most(3));
    let silent: Vec<usize> = (0..3).map(|_| machine.open()).collect();
    machine.settle();
    assert!(silent.iter().all(|&at| !machine.wire(at).closed), "as many as there may be");
    machine.wait(TIME_MS - 1);
    assert!(!machine.shard.takes_newcomers(machine.now), "they still have time");
    machine.now.ms += 1;
    assert!(machine.shard.takes_newcomers(machine.now));
    let fourth = machine.open();
    machine.settle();
    assert!(machine.wire(silent[0]).closed && !machine.wire(silent[1]).closed);
    machine.wait(TIME_MS);
    machine.shard.renew(Arc::new(Env::new(at_most(1), 7).unwrap()), machine.now);
    // Each new connection replaces the oldest one, and is served.
    for closed in [silent[1], silent[2], fourth] {
        assert!(!machine.wire(closed).closed);
        let at = machine.open();
        machine.receive(at, &peer::handshake("/echo", ""));
        assert!(machine.wire(closed).closed && machine.wire(at).received.len() == 1);
    }
    assert_eq!(machine.counters.refused_handshake.get(), 4);
    machine.end();
}

#[test]
fn handshakes_that_come_at_once_are_served_and_none_of_them_is_closed() {
    let mut machine = Machine::new(at_most(100));
    let mut all = Vec::new();
    // As a reactor does, accept while the shard allows it, and serve the connections with a
    // request.
    while all.len() < 1000 {
        while all.len() < 1000 && machine.shard.takes_newcomers(machine.now) {
            all.push(machine.open());
        }
        assert_eq!(machine.shard.handshakes_left(), 0);
        assert_eq!(machine.shard.fresh(), 100);
        let first = all.len() - 100;
        for &at in &all[first..] {
            machine.receive(at, &peer::handshake("/echo", ""));
        }
    }
    assert!(all.iter().all(|&at| !machine.wire(at).closed && machine.wire(at).received.len() == 1));
    assert_eq!(machine.counters.refused_handshake.get(), 0);
    machine.end();
}

#[test]
fn handshakes_over_the_bound_close_no_connection_that_has_time_left() {
    let mut machine = Machine::new(at_most(3));
    // Accepts that were in flight add more connections.
    let all: Vec<usize> = (0..10).map(|_| machine.open()).collect();
    machine.settle();
    assert!(all.iter().all(|&at| !machine.wire(at).closed));
    assert!(!machine.shard.takes_newcomers(machine.now));
    machine.wait(TIME_MS);
    assert!(machine.shard.takes_newcomers(machine.now));
    machine.open();
    machine.settle();
    assert!(machine.wire(all[0]).closed && !machine.wire(all[1]).closed, "one for each that comes");
    machine.end();
}

#[test]
fn handshakes_are_not_closed_for_a_connection_that_is_refused() {
    let mut config = at_most(2);
    config.limits.connections_per_address = 1;
    let mut machine = Machine::new(config);
    let address = |last| Ipv4Addr::new(10, 0, 0, last);
    let silent: Vec<usize> = (1..=2).map(|last| machine.open_from(address(last))).collect();
    machine.wait(TIME_MS);
    for _ in 0..5 {
        let refused = machine.open_from(address(2));
        machine.settle();
        assert!(machine.wire(refused).closed);
    }
    assert!(silent.iter().all(|&at| !machine.wire(at).closed));
    assert_eq!(machine.counters.refused_handshake.get(), 0);
    machine.open_from(address(3));
    machine.settle();
    assert!(machine.wire(silent[0]).closed && !machine.wire(silent[1]).closed);
    machine.end();
}

#[test]
fn handshakes_idle_http_connections_make_room_and_the_longest_idle_is_closed_first() {
    let mut machine = Machine::new(at_most(100));
    let fresh = machine.open();
    let socket = machine.open();
    machine.receive(socket, &peer::handshake("/echo", ""));
    let mut idle = Vec::new();
    for _ in 0..4 {
        let at = machine.open();
        machine.receive(at, b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n");
        idle.push(at);
        machine.wait(250);
    }
    // One connection has sent a part of its next request; another one has just had a response.
    machine.receive(idle[1], b"GET /live HTTP/1.1\r\n");
    machine.receive(idle[0], b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(machine.shard.close_idle(2), 2);
    machine.settle();
    let closed: Vec<bool> = idle.iter().map(|&at| machine.wire(at).closed).collect();
    assert_eq!(closed, [false, false, true, true]);
    assert_eq!(machine.shard.close_idle(2), 1);
    machine.settle();
    assert!(machine.wire(idle[0]).closed && !machine.wire(idle[1]).closed);
    assert!(!machine.wire(fresh).closed && !machine.wire(socket).closed);
    assert_eq!(machine.counters.idle_closed.get(), 3);
    machine.end();
}
