//! The session's part of a proxied WebSocket: the dial, and the pauses of reading between the two
//! legs, whose rules are in [`super::stage`].

use super::{Context, PeerMessage, Session};
use crate::mem::Slot;
use crate::time::Now;

impl Session {
    /// Notes that the connection is established. The handshake request is queued, or TLS begins
    /// first.
    pub fn connected(&mut self, cx: &mut Context<'_>) {
        let Some(handshake_ms) = self.stage.connected() else { return };
        self.link.deadline = cx.now.plus_ms(handshake_ms);
        if self.link.is_secure() {
            self.link.queue.waits(cx.now.ms);
        } else {
            self.send_handshake(cx.now);
        }
    }

    /// Queues the handshake request for the upstream. Returns false if this is no connection to an
    /// upstream.
    pub(super) fn send_handshake(&mut self, now: Now) -> bool {
        let Some(request) = self.stage.take_handshake() else { return false };
        self.link.queue.close_tail(request, now.ms);
        true
    }

    /// Whether this client waits for a dial that has no slot yet.
    pub fn waits_for_dial(&self) -> bool {
        self.link.is_open() && self.stage.waits_for_dial()
    }

    /// Notes that the connection which is being dialled for this client has slot `slot`.
    pub fn dials(&mut self, slot: Slot) {
        self.stage.dials(slot);
    }

    /// Handles a message from the other leg, or from the dial that is to become the other leg.
    pub fn on_peer(&mut self, message: PeerMessage, cx: &mut Context<'_>) {
        let was_leg = self.stage.leg_mut().is_some();
        self.call(cx, |stage, out, deadline, cx| stage.on_peer(message, out, deadline, cx));
        let replies = self.link.queue.replies();
        if was_leg && let Some(leg) = self.stage.leg_mut() {
            leg.note_waiting(replies);
        }
    }

    /// Whether too much waits for this leg's peer, so that reading from the other leg must be
    /// paused.
    pub fn is_full(&mut self) -> bool {
        self.link.is_open() && self.stage.leg_mut().is_some_and(|leg| leg.is_full())
    }

    /// Pauses reading from this leg's peer until [`Session::resume_reading`].
    pub fn pause_reading(&mut self) {
        if let Some(leg) = self.stage.leg_mut() {
            leg.pause_reading();
        }
    }

    /// Allows reading from this leg's peer again: the other leg's peer has read enough.
    pub fn resume_reading(&mut self) {
        if let Some(leg) = self.stage.leg_mut() {
            leg.resume_reading();
        }
    }

    /// Call when bytes were sent. Returns the other leg if its reading was paused because this
    /// queue was full, and at most half of `buffer_bytes` wait now.
    pub fn has_drained(&mut self) -> Option<Slot> {
        let replies = self.link.queue.replies();
        self.stage.leg_mut()?.has_drained(replies)
    }

    /// The close message for the other leg, if this session has ended and has not reported that.
    /// `is_gone` is whether the connection itself is removed.
    pub fn last_message(&mut self, is_gone: bool, draining: bool) -> Option<(Slot, PeerMessage)> {
        let ends = is_gone || !self.link.is_open();
        self.stage.last_message(ends, draining)
    }

    /// Whether this is a connection to an upstream.
    pub fn is_upstream(&self) -> bool {
        self.stage.is_upstream()
    }
}
