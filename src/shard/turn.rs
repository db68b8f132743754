//! The start of a turn: connections whose reading is paused resume when the reason for the pause
//! has ended, as far as the turn's share of work allows.

use super::Shard;
use crate::mem::Slot;
use crate::time::Now;
use crate::work;

impl Shard {
    /// Whether waiting work can continue in the next turn, so that the reactor must not sleep.
    pub fn has_waiting_work(&self) -> bool {
        !self.closing_effects.is_empty()
            || (!self.waiting.is_empty() || self.codecs.large.has_next()) && !self.is_congested()
    }

    /// Whether the connection has caused little work lately; see [`work::LIGHT`].
    pub fn is_light(&mut self, slot: Slot, now: Now) -> bool {
        let time = self.turn_time(now);
        self.sessions.get_mut(slot).is_some_and(|session| session.link.is_light(time))
    }

    /// Heap bytes of kept compression windows and of messages that are being decompressed.
    pub fn inflated_bytes(&self) -> usize {
        self.codecs.held_bytes()
    }

    /// Call once a turn, after mail was handed over. Resumes connections that were paused by
    /// congestion or because the turn's share of work was used up.
    pub fn next_turn(&mut self, now: Now) {
        self.codecs.new_turn();
        self.work.new_turn();
        self.turn = self.turn.wrapping_add(1);
        debug_assert!(self.effects.is_empty(), "every effect runs in the call that requests it");
        self.keep_memory(now);
        self.run_closing_effects(now);
        self.deliver_local(now);
        self.hub.report_counts(&mut self.mail);
        self.mail.measure();
        if self.is_congested() {
            return;
        }
        self.next_waiting(now);
        self.next_large(now);
    }

    /// Serves the connections that wait: first the light ones, then the busy ones. Each of the two
    /// gets at most half of a turn, so that neither can keep the other waiting forever.
    fn next_waiting(&mut self, now: Now) {
        for serves_light in [true, false] {
            self.waiting.serves_light = serves_light;
            self.serve_list(self.work.of_turn() + work::TURN / 2, now);
        }
    }

    /// Serves one of the lists of waiting connections, until the turn's work reaches `bound`.
    fn serve_list(&mut self, bound: u64, now: Now) {
        let mut unserved = Vec::new();
        for slot in std::mem::take(self.waiting.list()) {
            if self.codecs.is_spent() || self.work.of_turn() >= bound {
                // In the new list, connections that were not served come before those that have
                // used up their share of this turn.
                unserved.push(slot);
                continue;
            }
            if let Some(session) = self.sessions.get_mut(slot) {
                session.link.waits = false;
                // The previous connection may have caused congestion. Then `try_resume` adds this
                // connection to a list again.
                self.try_resume(slot, now);
                // The connection may now be paused for a reason for which nothing may be read
                // ahead, so the reactor must check it again.
                self.list(slot);
            }
        }
        let list = self.waiting.list();
        unserved.append(list);
        *list = unserved;
    }

    /// Decompresses large messages, one after the other.
    fn next_large(&mut self, now: Now) {
        while !self.codecs.is_spent()
            && let Some(slot) = self.codecs.large.call()
        {
            if let Some(session) = self.sessions.get_mut(slot) {
                session.link.waits = false;
                self.try_resume(slot, now);
                self.list(slot);
            }
            self.codecs.large.end_call();
        }
    }

    /// Resumes reading from a connection if nothing prevents it. [`Shard::next_turn`] calls this
    /// for connections paused by congestion or by the turn's share of work. For any other pause,
    /// the code that ends its reason calls this.
    pub(super) fn try_resume(&mut self, slot: Slot, now: Now) {
        // Called after each send, mostly for a connection that is not paused. One that waits is
        // resumed by `next_turn`.
        let link = self.sessions.get_mut(slot).map(|session| &session.link);
        if !link.is_some_and(|link| link.is_paused() && !link.waits) {
            return;
        }
        let Some((session, cx)) = self.session(slot, now) else { return };
        if session.may_resume(&cx) {
            self.resume(slot, now);
        } else if session.awaits_place(&cx) {
            session.link.waits = true;
            self.counters.inflate_waits.add(1);
            self.codecs.large.wait(slot);
        } else if cx.congested || cx.codecs.is_spent() || cx.work.is_spent() {
            self.wait_for_turn(slot, now);
        }
    }

    pub(super) fn resume(&mut self, slot: Slot, now: Now) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let waited = session.has_parked();
        let (held, eof) = session.link.resume();
        match held {
            Some(mut held) if session.link.is_sealed() => {
                self.receive_secure(slot, held.rest(), now)
            }
            Some(mut held) => {
                if let Some(at) = self.feed(slot, held.rest(), now) {
                    held.take(at);
                    if let Some(session) = self.sessions.get_mut(slot) {
                        session.link.hold_again(held);
                    }
                    self.try_resume(slot, now);
                }
            }
            None if waited || !self.keeps_nothing(slot) => {
                self.feed_or_hold(slot, &mut [], now);
            }
            None => {}
        }
        if eof {
            self.eof(slot, now);
        }
        self.list(slot);
    }
}
