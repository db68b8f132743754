//! Passes received bytes to one connection, step by step, until its share of the turn is used up.

use super::Shard;
use crate::mem::Slot;
use crate::session::{Step, TurnTime};
use crate::time::Now;
use crate::work::{self, WorkKind};

impl Shard {
    /// Passes bytes to a connection. If reading is paused meanwhile, the session holds the bytes
    /// that were not taken.
    pub(super) fn feed_or_hold(&mut self, slot: Slot, bytes: &mut [u8], now: Now) {
        if let Some(at) = self.feed(slot, bytes, now) {
            if let Some(session) = self.sessions.get_mut(slot) {
                session.link.hold(&bytes[at..]);
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
        let (time, mut at) = (self.turn_time(now), 0);
        if self.sessions.get_mut(slot)?.link.has_used_share(time) {
            self.wait_for_turn(slot, now);
            return Some(0);
        }
        loop {
            let (work, codecs) = (self.work.total(), self.codecs.turn_work());
            let mark = self.effects.len();
            let (session, mut cx) = self.session(slot, now)?;
            let queued = session.link.queued_bytes();
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
            let written = session.link.queued_bytes().saturating_sub(queued);
            self.work.add(work::STEP + (taken + written) as u64 / 4);
            session.link.use_share(time, taken, self.work.total() - work);
            if step == Step::Need || at == bytes.len() && session.keeps_nothing() {
                return None;
            }
            if session.link.has_used_share(time)
                || self.waiting.serves_light && !session.link.is_light(time)
            {
                self.wait_for_turn(slot, now);
                return Some(at);
            }
        }
    }

    /// Pauses reading and adds the connection to the end of a list of connections that wait for a
    /// later turn.
    pub(super) fn wait_for_turn(&mut self, slot: Slot, now: Now) {
        let time = self.turn_time(now);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.link.pause();
        if !session.link.waits {
            session.link.waits = true;
            match session.link.is_light(time) {
                true => self.waiting.light.push(slot),
                false => self.waiting.busy.push(slot),
            }
            self.counters.work_held.add(1);
        }
    }

    pub(super) fn turn_time(&self, now: Now) -> TurnTime {
        TurnTime { turn: self.turn, period: (now.ms / work::LIGHT_MS) as u16 }
    }

    /// Whether a further step without input would find nothing to do.
    pub(super) fn keeps_nothing(&mut self, slot: Slot) -> bool {
        self.sessions.get_mut(slot).is_none_or(|session| session.keeps_nothing())
    }
}
