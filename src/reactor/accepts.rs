//! Accepting connections: the accepts in flight for each listener of this core, and for other cores
//! that have no room.

use super::accept_slots::AcceptSlot;
use super::{ACCEPT_RETRY_MS, Reactor, SWEEP_MS};
use crate::driver::Driver;
use crate::time::{Deadline, Now};
use socket2::Socket;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The minimum number of idle HTTP connections to close when all connection slots are taken.
const IDLE_CLOSED: usize = 32;
/// The minimum time between two log lines about accepts without a file, in milliseconds.
const LOG_EVERY_MS: u64 = 10_000;

impl<D: Driver> Reactor<D> {
    pub(super) fn arm_accepts(&mut self, now: Now) {
        (self.accepts.no_slot, self.accepts.held) = (false, false);
        for at in 0..self.accepts.places.len() {
            if !self.accepts.places[at].for_others {
                self.arm_accept(at, now);
            }
        }
        self.publish_fullness();
    }

    pub(super) fn arm_accept(&mut self, at: usize, now: Now) {
        let is_off = self.stopping.is_some() || self.accepts.is_paused;
        if is_off || self.accepts.again != Deadline::NEVER {
            return;
        }
        let Some(listening) = self.accepts.socket_of(at).cloned() else { return };
        if !self.accepts.places[at].in_flight && self.has_room(at, now) {
            self.arm(at, &listening.socket);
        }
    }

    /// Whether one more accept may be started at this place.
    fn has_room(&mut self, at: usize, now: Now) -> bool {
        let place = self.accepts.places[at];
        let armed = match place.for_others {
            false => self.accepts.armed[place.number],
            true => 1,
        };
        if !self.may_take_newcomers(now) {
            self.accepts.held = true;
            return false;
        }
        // An accept in flight holds a descriptor, so the last descriptors are divided among the
        // listeners.
        if armed > 0 && armed >= self.free.left() / self.accepts.own.len().max(1) {
            return false;
        }
        if !self.leaves_room_for_dials() || self.free.left() == 0 && place.file.is_none() {
            if armed == 0 {
                self.accepts.no_slot = true;
                self.counters.accept_no_slot.add(1);
            }
            return false;
        }
        true
    }

    /// Whether one more connection may be accepted, in addition to those whose accepts are in
    /// flight, within the limit of connections without a whole request.
    fn may_take_newcomers(&mut self, now: Now) -> bool {
        match self.shard.handshakes_left() {
            0 => self.shard.takes_newcomers(now),
            left => self.accepts.in_flight < left,
        }
    }

    fn arm(&mut self, at: usize, listener: &Arc<Socket>) {
        let place = &mut self.accepts.places[at];
        place.file = place.file.or_else(|| self.free.take());
        let Some(file) = place.file else { return };
        place.in_flight = true;
        self.accepts.in_flight += 1;
        if !place.for_others {
            self.accepts.armed[place.number] += 1;
        }
        self.driver.accept(at as u32, listener, file);
    }

    /// Whether, after one more accept, enough descriptors are left to dial an upstream for every
    /// connection that has not sent a whole request yet, including those of accepts in flight.
    /// Always true without proxies.
    fn leaves_room_for_dials(&self) -> bool {
        let armed = self.accepts.in_flight;
        !self.shard.dials() || self.free.left() >= armed + self.shard.fresh() + 2
    }

    /// Starts one more accept for each socket of this core with an idle place, after a descriptor
    /// was freed.
    pub(super) fn arm_missing_accepts(&mut self, now: Now) {
        for number in 0..self.accepts.own.len() {
            let is_idle = |it: &AcceptSlot| !it.in_flight && !it.for_others && it.number == number;
            if let Some(at) = self.accepts.places.iter().position(is_idle) {
                self.arm_accept(at, now);
            }
        }
        let lacks = self.accepts.armed.contains(&0);
        self.accepts.no_slot &= lacks;
        self.publish_fullness();
    }

    /// Postpones accepting, because the kernel had no file or memory for a connection: until a
    /// connection of this core is closed, or for a moment, in which another core may close one.
    pub(super) fn accept_lacked_file(&mut self, now: Now) {
        self.counters.accept_no_file.add(1);
        self.accepts.again = now.plus_ms(ACCEPT_RETRY_MS);
        self.accepts.lacks_file = true;
        if self.accepts.next_log.due(now) {
            self.accepts.next_log = now.plus_ms(LOG_EVERY_MS);
            tracing::warn!(
                core = self.mail.core(),
                "no open file or no memory is left for a new connection: connections wait until \
                 one closes; the limit of open files is that of `ulimit -n`"
            );
        }
    }

    /// Restarts accepts that were postponed, when the reason is gone. Call once a turn.
    pub(super) fn maintain_accepts(&mut self, now: Now) {
        if self.accepts.again.due(now) {
            (self.accepts.again, self.accepts.lacks_file) = (Deadline::NEVER, false);
            self.arm_accepts(now);
        } else if self.accepts.held && self.may_take_newcomers(now) {
            self.arm_accepts(now);
        }
    }

    /// Pauses or continues accepting if the main thread has asked for it. While accepting is paused
    /// and no accept is in flight, reports how many connections have not sent a whole request. Call
    /// once a turn.
    pub(super) fn follow_pause(&mut self, now: Now) {
        let is_asked = self.mail.me().accepting.is_pause_asked();
        if is_asked != self.accepts.is_paused {
            self.accepts.is_paused = is_asked;
            match is_asked {
                // A connection that an accept has taken before its cancellation is served.
                true => self.driver.cancel_accepts(self.accepts.places.len() as u32),
                false => self.arm_accepts(now),
            }
        }
        if is_asked && !self.accepts.are_in_flight() {
            self.mail.me().accepting.report(self.shard.fresh());
        }
    }

    /// Whether [`Reactor::follow_pause`] has something to do.
    pub(super) fn is_pause_changed(&self) -> bool {
        self.mail.me().accepting.is_pause_asked() != self.accepts.is_paused
    }

    /// Closes idle connections if all slots are taken, and starts accepts for cores that have no
    /// room. Call a few times a second.
    pub(super) fn sweep_accepts(&mut self, now: Now) {
        if self.stopping.is_some() || self.accepts.is_paused {
            return;
        }
        if self.accepts.no_slot && self.accepts.armed.contains(&0) {
            self.shard.close_idle(IDLE_CLOSED.max(self.shard.len() / 32));
        }
        if self.accepts.held {
            // The oldest connection without a whole request may have used up its time by then.
            self.next_sweep = self.next_sweep.min(now.plus_ms(SWEEP_MS));
        }
        self.publish_fullness();
        if self.is_full() {
            return;
        }
        let me = self.mail.core();
        let mut full = self.mail.full_cores(me).peekable();
        if full.peek().is_none() {
            return;
        }
        let full: Vec<u16> = full.collect();
        let mut next = full.iter().cycle();
        for at in 0..self.accepts.places.len() {
            let place = &mut self.accepts.places[at];
            if place.for_others && !place.in_flight {
                place.core = *next.next().unwrap_or(&me);
                self.arm_accept(at, now);
            }
        }
    }

    /// Whether an accept at this place is still useful: it is on this core's own socket, or its
    /// core still has no room.
    pub(super) fn still_helps(&self, at: usize) -> bool {
        let place = self.accepts.places[at];
        !place.for_others || self.mail.peer(place.core).full.load(Ordering::Relaxed)
    }

    /// Counts a connection if it was accepted for another core.
    pub(super) fn count_help(&self, at: usize) {
        let place = self.accepts.places[at];
        self.counters.accepted_for_others.add(place.for_others.into());
    }

    /// Whether a listener of this core has no accept in flight because there is no room.
    fn is_full(&self) -> bool {
        (self.accepts.no_slot || self.accepts.held) && self.accepts.armed.contains(&0)
    }

    /// Publishes whether this core has room. Other cores accept from the sockets of a core without.
    fn publish_fullness(&self) {
        let full = self.is_full() && self.stopping.is_none();
        let mine = &self.mail.me().full;
        if mine.load(Ordering::Relaxed) != full {
            mine.store(full, Ordering::Relaxed);
            self.counters.accept_handshakes.add((full && self.accepts.held).into());
        }
    }
}
