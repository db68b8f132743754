//! Passes received bytes to one connection, step by step, until its share of the turn is used up.

use super::Shard;
use crate::mem::Slot;
use crate::session::Step;
use crate::time::Now;
use crate::work::{self, WorkKind};

impl Shard {
    /// Passes bytes to a connection. If reading is paused meanwhile, the session holds the bytes
    /// that were not taken.
    pub(super) fn feed_or_hold(&mut self, slot: Slot, bytes: &mut [u8], now: Now) {
        if let Some(at) = self.feed(slot, bytes, now) {
            if let Some(session) = self.sessions.get_mut(slot) {
                session.hold(&bytes[at..]);
            }
            self.try_resume(slot, now);
        }
        self.list(slot);
    }

    /// Passes bytes to a connection. If reading is paused, returns the number of bytes taken; the
    /// caller must hold the rest and then call [`Shard::try_resume`]. Returns `None` if no bytes
    /// need to be held.
    pub(super) fn feed(&mut self, slot: Slot, bytes: &mut [u8], now: Now) -> Option<usize> {
        let begun = self.work.begin();
        let held = self.feed_steps(slot, bytes, now);
        self.work.end(slot.index, begun);
        held
    }

    fn feed_steps(&mut self, slot: Slot, bytes: &mut [u8], now: Now) -> Option<usize> {
        let (turn, mut at) = (self.turn, 0);
        if self.sessions.get_mut(slot)?.has_used_share(turn) {
            self.wait_for_turn(slot);
            return Some(0);
        }
        loop {
            let (work, codecs) = (self.work.total(), self.codecs.turn_work());
            let mark = self.effects.len();
            let (session, mut cx) = self.session(slot, now)?;
            let queued = session.queued_bytes();
            let (taken, step) = session.step(&mut bytes[at..], &mut cx);
            at += taken;
            if step == Step::Hold {
                return Some(at);
            }
            self.after(slot, mark, now);
            let inflated = codecs.saturating_sub(self.codecs.turn_work());
            if inflated > 0 {
                self.work.charge(WorkKind::Compression, inflated as u64);
            }
            let session = self.sessions.get_mut(slot)?;
            let written = session.queued_bytes().saturating_sub(queued);
            self.work.add(work::STEP + (taken + written) as u64 / 4);
            session.use_share(turn, taken, self.work.total() - work);
            if step == Step::Need || at == bytes.len() && session.keeps_nothing() {
                return None;
            }
            if session.has_used_share(turn) {
                self.wait_for_turn(slot);
                return Some(at);
            }
        }
    }

    /// Pauses reading and adds the connection to the end of the list of connections that wait for a
    /// later turn.
    pub(super) fn wait_for_turn(&mut self, slot: Slot) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.pause();
        if !session.waits {
            session.waits = true;
            self.waiting.push(slot);
            self.counters.work_held.add(1);
        }
    }

    /// Whether a further step without input would find nothing to do.
    pub(super) fn keeps_nothing(&mut self, slot: Slot) -> bool {
        self.sessions.get_mut(slot).is_none_or(|session| session.keeps_nothing())
    }
}
