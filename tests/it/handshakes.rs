//! Connections that have not said what they want.

use crate::machine::{Machine, config};
use crate::peer;
use polycast::config::Config;
use polycast::dialect::Env;
use std::sync::Arc;

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
    assert!(silent.iter().all(|&at| !machine.wire(at).gone), "as many as there may be");
    let fourth = machine.open();
    machine.settle();
    assert!(machine.wire(silent[0]).gone && !machine.wire(silent[1]).gone);
    machine.shard.renew(Arc::new(Env::new(at_most(1), 7)), machine.now);
    // Each new one costs the oldest its place, and is served.
    for gone in [silent[1], silent[2], fourth] {
        assert!(!machine.wire(gone).gone);
        let at = machine.open();
        machine.receive(at, &peer::handshake("/echo", ""));
        assert!(machine.wire(gone).gone && machine.wire(at).heard.len() == 1);
    }
    assert_eq!(machine.counters.refused_handshake.get(), 4);
    machine.end();
}
