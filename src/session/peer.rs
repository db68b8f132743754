//! The session's part of a proxied WebSocket: the dial, and the pauses of reading between the two
//! legs, whose rules are in [`super::stage`].

use super::{Context, Dial, Session, SessionEvent};
use crate::dialect::{Effect, PeerMessage};
use crate::mem::Slot;
use crate::time::Now;

impl Session {
    /// Handles the outcome of a connect. If it has succeeded, the handshake request is queued, or
    /// TLS begins first.
    pub(super) fn on_connected(&mut self, outcome: Result<(), i32>, cx: &Context<'_>) {
        if let Err(errno) = outcome {
            tracing::debug!(upstream = %self.link.peer(), errno, "an upstream is unavailable");
            return self.link.lost();
        }
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

    /// Takes the dial that this client has requested by [`Effect::Dial`]; `None` if it no longer
    /// waits for one.
    pub fn take_dial(&mut self) -> Option<Box<Dial>> {
        self.stage.take_dial().filter(|_| self.link.is_open())
    }

    /// Handles a message from the other leg, or from the dial that is to become the other leg.
    pub(super) fn on_peer(&mut self, message: PeerMessage, cx: &mut Context<'_>) {
        let was_leg = self.stage.is_leg();
        self.call(cx, SessionEvent::Peer(message));
        if was_leg {
            self.stage.note_waiting(self.link.queue.replies());
        }
    }

    /// Whether too much waits for this leg's peer, so that reading from the other leg must be
    /// paused.
    pub fn is_full(&self) -> bool {
        self.link.is_open() && self.stage.is_full_leg()
    }

    /// Call when bytes were sent. Returns the other leg if its reading was paused because this
    /// queue was full, and at most half of `buffer_bytes` wait now.
    pub fn has_drained(&mut self) -> Option<Slot> {
        self.stage.has_drained(self.link.queue.replies())
    }

    /// Reports to the other leg that this connection ends, if it does and has not reported it.
    pub(super) fn report_end(&mut self, cx: &mut Context<'_>) {
        let ends = !self.link.is_open();
        if let Some((to, message)) = self.stage.last_message(ends, cx.draining) {
            cx.request(Effect::PeerMessage { to, message });
        }
    }

    /// Whether this is a connection to an upstream.
    pub fn is_upstream(&self) -> bool {
        self.stage.is_upstream()
    }
}
