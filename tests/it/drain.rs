//! The pace of a shutdown: clients reconnect at once, so they are not all closed at the same time.

use crate::machine::{Machine, config};
use crate::peer::{self, Received};

const SOCKETS: usize = 600;

/// The number of clients that have received a Close frame.
fn closed(machine: &mut Machine) -> usize {
    let closes = |received: &Received| matches!(received, Received::Close(..));
    (0..SOCKETS).filter(|&at| machine.wire(at).received.iter().any(closes)).count()
}

#[test]
fn drain_closes_connections_in_slices() {
    let mut machine = Machine::new(config(""));
    for _ in 0..SOCKETS {
        let at = machine.open();
        machine.receive(at, &peer::handshake("/app/app-key", ""));
    }
    machine.shard.drain();
    assert_eq!(closed(&mut machine), 0);
    // There are four sweeps in a second, and each closes at least 256 sockets.
    for expected in [256, 512, SOCKETS] {
        machine.wait(250);
        assert_eq!(closed(&mut machine), expected);
    }
}
