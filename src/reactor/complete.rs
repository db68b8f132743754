//! Processing of completions: what the result of each operation means, including its errors.

use super::{ACCEPT_RETRY_MS, Conn, Reactor};
use crate::driver::{Completion, Driver, Op, Sent};
use crate::mem::Slot;
use crate::time::{Deadline, Now};

impl<D: Driver> Reactor<D> {
    pub(super) fn complete(&mut self, done: Completion, now: Now) {
        match done.op {
            Op::Accept => self.accepted(&done, now),
            Op::Receive => self.received(&done, now),
            Op::Send => self.sent(&done, now),
            Op::Shutdown => self.shut(&done),
            Op::Close => self.closed(&done, now),
            // The result of a cancellation is ignored: the completion of the cancelled operation
            // reports the outcome.
            Op::Cancel | Op::Wake | Op::WakeSent => {}
            Op::Socket => self.socket_made(&done, now),
            Op::Connect => self.connected(&done, now),
            // An error is ignored: some kernels cannot set socket options of direct descriptors.
            Op::Option => {}
        }
    }

    fn accepted(&mut self, done: &Completion, now: Now) {
        self.driver.accept_settled();
        let at = done.index as usize;
        self.accepts.accept_ended(at);
        match done.outcome() {
            Ok(_) => {
                if let Some(file) = self.accepts.places[at].file.take() {
                    self.count_help(at);
                    self.opened(file, at, done, now);
                }
            }
            Err(libc::ECANCELED) => self.counters.cancelled.add(1),
            Err(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                self.accept_lacked_file(now);
            }
            // The connection was closed before it was accepted.
            Err(libc::ECONNABORTED | libc::EPROTO | libc::EINTR | libc::EAGAIN) => {
                self.counters.accept_errors.add(1);
            }
            Err(_) => {
                self.counters.accept_errors.add(1);
                self.accepts.again = now.plus_ms(ACCEPT_RETRY_MS);
            }
        }
        if self.still_helps(at) {
            self.arm_accept(at, now);
        } else if let Some(file) = self.accepts.places[at].file.take() {
            self.free.give(file);
        }
    }

    fn opened(&mut self, file: u32, place: usize, done: &Completion, now: Now) {
        let peer = self.driver.accepted(done);
        if file as usize >= self.conns.len() {
            self.conns.resize(file as usize + 1, Conn::default());
        }
        self.counters.accepted.add(1);
        self.conns[file as usize] = Conn::default();
        let listener = self.accepts.socket_of(place).map_or(0, |socket| socket.listener);
        let scarce = self.shard.refuses_connections();
        let slot = self.shard.open_at(file, peer, listener, now);
        if scarce {
            self.counters.refused_memory.add(1);
            self.tear_down(slot);
        } else if !self.shard.admit(slot, now) {
            self.tear_down(slot);
        }
        self.next_sweep = self.next_sweep.min(now.plus_ms(super::SWEEP_MS));
    }

    pub(super) fn slot(&self, done: &Completion) -> Slot {
        self.shard.slot_of_completion(done.index, done.generation)
    }

    fn received(&mut self, done: &Completion, now: Now) {
        let slot = self.slot(done);
        if !done.more() {
            let conn = &mut self.conns[slot.index as usize];
            conn.receiving = false;
            conn.cancelling = false;
            self.touched.push(slot);
        }
        let tearing = self.conns[slot.index as usize].tearing;
        match done.outcome() {
            _ if tearing => {
                self.counters.late_completions.add(1);
                self.driver.give_back(done);
            }
            Ok(0) => {
                self.driver.give_back(done);
                self.conns[slot.index as usize].eof = true;
                self.shard.eof(slot, now);
            }
            Ok(_) => {
                self.conns[slot.index as usize].fed = true;
                let shard = &mut self.shard;
                self.driver.take_received(done, |piece| shard.receive(slot, piece, now));
            }
            // All buffers are in use by this process, and are returned to the ring in this turn.
            Err(libc::ENOBUFS) => {
                self.counters.receive_no_buffer.add(1);
                if self.shard.is_light(slot, now) {
                    self.starved.push_front(slot);
                } else if !self.conns[slot.index as usize].fed {
                    self.starved.push_back(slot);
                }
            }
            Err(libc::ECANCELED) => self.counters.cancelled.add(1),
            Err(libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT | libc::EHOSTUNREACH) => {
                self.counters.receive_reset.add(1);
                self.shard.lost(slot);
            }
            Err(_) => {
                self.counters.receive_errors.add(1);
                self.shard.lost(slot);
            }
        }
        self.close_when_quiet_after(slot, tearing && !done.more());
    }

    fn sent(&mut self, done: &Completion, now: Now) {
        let slot = self.slot(done);
        self.counters.sends.add(1);
        let tearing = self.conns[slot.index as usize].tearing;
        match self.driver.sent(done) {
            Sent::Short(n) if !tearing => {
                self.counters.short_sends.add(1);
                self.shard.sent(slot, n, None, now);
                self.driver.send_rest(slot);
                return;
            }
            Sent::Short(_) => self.driver.drop_rest(slot),
            Sent::Whole(n, spare) => self.shard.sent(slot, n, Some(spare), now),
            Sent::Failed(errno) => {
                match errno {
                    libc::EPIPE | libc::ECONNRESET => self.counters.send_peer_gone.add(1),
                    libc::ECANCELED => self.counters.cancelled.add(1),
                    _ => self.counters.send_errors.add(1),
                }
                self.shard.lost(slot);
            }
        }
        // The shard has listed the connection if more is to be done, so that is done in this turn.
        self.conns[slot.index as usize].sending = false;
        self.close_when_quiet_after(slot, tearing);
    }

    fn shut(&mut self, done: &Completion) {
        let slot = self.slot(done);
        let conn = &mut self.conns[slot.index as usize];
        conn.shutting = false;
        let tearing = conn.tearing;
        if done.outcome().is_err() {
            // ENOTCONN: the peer has reset the connection.
            self.shard.lost(slot);
        }
        self.close_when_quiet_after(slot, tearing);
    }

    pub(super) fn close_when_quiet_after(&mut self, slot: Slot, tearing: bool) {
        if tearing {
            self.close_when_quiet(slot);
        }
    }

    fn closed(&mut self, done: &Completion, now: Now) {
        self.free.give(done.index);
        if std::mem::take(&mut self.accepts.lacks_file) {
            self.accepts.again = Deadline::NEVER;
            self.arm_accepts(now);
        } else {
            self.arm_missing_accepts(now);
        }
    }
}
