//! The shard's part of proxied connections: dials, and messages between the two proxy legs.

use super::Shard;
use crate::dialect::PeerMessage;
use crate::mem::Slot;
use crate::session::{Dial, Session, SessionEvent};
use crate::time::Now;
use crate::upstream::UpstreamFailure;

impl Shard {
    /// Whether this shard may dial upstreams, because some route leads to them.
    pub fn dials(&self) -> bool {
        self.dials_at_all
    }

    /// The number of connections that have not sent a whole request yet.
    pub fn fresh(&self) -> usize {
        self.fresh
    }

    /// The next dial. Give it a slot with [`Shard::dial_at`], or report with
    /// [`Shard::no_slot_for_dial`] that there is none.
    pub fn next_dial(&mut self) -> Option<Dial> {
        loop {
            let client = self.dials.pop_front()?;
            // Skips clients that no longer wait.
            if let Some(dial) = self.sessions.get_mut(client).and_then(|it| it.take_dial()) {
                return Some(*dial);
            }
        }
    }

    /// Adds the connection of a dial at `index`, which must be free.
    pub fn dial_at(&mut self, index: u32, dial: Dial, now: Now) -> Slot {
        self.counters.connections.add(1);
        self.counters.upstreams.add(1);
        self.counters.proxy_dials.add(1);
        let client = dial.client;
        let slot = self.sessions.insert(index, Session::dialled(dial));
        self.on_event(client, SessionEvent::DialledAt(slot), now);
        slot
    }

    /// Reports to the client that there is no slot for its dial.
    pub fn no_slot_for_dial(&mut self, dial: &Dial, now: Now) {
        self.deliver_to_leg(dial.client, PeerMessage::Answered(Err(UpstreamFailure::NoSlot)), now);
    }

    /// Handles the outcome of a connect: success, or the errno of the failure.
    pub fn connected(&mut self, slot: Slot, outcome: Result<(), i32>, now: Now) {
        self.on_event(slot, SessionEvent::Connected(outcome), now);
    }

    /// Delivers a message of the leg at `from` to its other leg, at `to`.
    pub(super) fn send_to_leg(&mut self, from: Slot, to: Slot, message: PeerMessage, now: Now) {
        self.deliver_to_leg(to, message, now);
        let is_full = self.sessions.get_mut(to).is_some_and(|it| it.is_full());
        if is_full && let Some((session, mut cx)) = self.session(from, now) {
            session.on(SessionEvent::OtherLegFull, &mut cx);
        }
    }

    /// Delivers a message to session `to`.
    fn deliver_to_leg(&mut self, to: Slot, message: PeerMessage, now: Now) {
        let mark = self.effects.len();
        let Some((session, mut cx)) = self.session(to, now) else { return };
        session.on(SessionEvent::Peer(message), &mut cx);
        self.after(to, mark, now);
        // The message may have ended the reason for which reading was paused.
        self.try_resume(to, now);
        self.list(to);
    }

    /// Resumes reading from the other leg if it was paused because this connection's queue was full
    /// and bytes were sent since.
    pub(super) fn resume_other_leg(&mut self, slot: Slot, now: Now) {
        let Some(other) = self.sessions.get_mut(slot).and_then(|it| it.has_drained()) else {
            return;
        };
        if let Some((session, mut cx)) = self.session(other, now) {
            session.on(SessionEvent::OtherLegDrained, &mut cx);
            self.try_resume(other, now);
            self.list(other);
        }
    }
}
