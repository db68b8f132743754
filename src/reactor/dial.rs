//! Outgoing connections: takes a descriptor, creates the socket, and then connects it.

use super::{Conn, Reactor};
use crate::driver::{Completion, Driver};
use crate::time::Now;

impl<D: Driver> Reactor<D> {
    /// Starts the connections that the shard has requested. Each connection takes a descriptor, as
    /// an accepted connection does.
    pub(super) fn dial(&mut self, now: Now) {
        while let Some(dial) = self.shard.next_dial() {
            let Some(file) = self.free.take() else {
                self.shard.no_slot_for_dial(&dial, now);
                continue;
            };
            if file as usize >= self.conns.len() {
                self.conns.resize(file as usize + 1, Conn::default());
            }
            let address = dial.address;
            self.conns[file as usize] = Conn { dialling: true, ..Conn::default() };
            let slot = self.shard.dial_at(file, dial, now);
            self.driver.socket(slot, address);
            self.next_sweep = self.next_sweep.min(now.plus_ms(super::SWEEP_MS));
        }
    }

    pub(super) fn socket_made(&mut self, done: &Completion, now: Now) {
        let slot = self.slot(done);
        let conn = self.conns[slot.index as usize];
        let address = self.shard.peer(slot);
        match (done.outcome(), address) {
            (Ok(_), Some(address)) if !conn.tearing => self.driver.connect(slot, address),
            (outcome, _) => self.dialled(done, outcome.err().map_or(Ok(()), Err), now),
        }
    }

    pub(super) fn connected(&mut self, done: &Completion, now: Now) {
        self.driver.connected(done);
        self.dialled(done, done.outcome().map(|_| ()), now);
    }

    /// Completes a dial after its last operation. `outcome` is the errno of a failure.
    fn dialled(&mut self, done: &Completion, outcome: Result<(), i32>, now: Now) {
        let slot = self.slot(done);
        let conn = &mut self.conns[slot.index as usize];
        conn.dialling = false;
        let tearing = conn.tearing;
        match tearing {
            true => self.counters.late_completions.add(1),
            false => self.shard.connected(slot, outcome, now),
        }
        self.close_when_quiet_after(slot, tearing);
    }
}
