//! A proxied WebSocket has two connections on one core: the client's, which was accepted, and the
//! upstream's, which was dialled. Each is one proxy leg.
//!
//! A leg reads whole messages, pings, pongs and the close frame, and sends each as a
//! [`PeerMessage`] to the other leg, which writes it to its own peer. While more than
//! `buffer_bytes` wait for that peer, reading from the sending leg is paused, and what it has
//! already received in this turn is held. Each leg closes its own connection, and reports that to
//! the other leg once.

use crate::config::Limits;
use crate::dialect::{Closing, Effect, PeerMessage};
use crate::mem::Slot;
use crate::session::{Context, MaskKeys};
use crate::time::Deadline;
use crate::upstream::Chosen;
use crate::ws::close;
use crate::ws::{MessageKind, Opcode, Role};

/// The payload of the server's own pings on a proxied connection. It distinguishes their pongs from
/// the pongs to pings of the other side.
pub(super) const PING_PAYLOAD: &[u8] = b"\0polycast";

/// One leg of a proxied connection.
pub(crate) struct ProxyLeg {
    pub(super) role: Role,
    other: Slot,
    buffer_bytes: usize,
    /// The masking key of the close frame; a connection sends only one.
    close_mask: [u8; 4],
    /// Whether reading is paused until the other leg's peer has read more.
    read_paused: bool,
    /// More than `buffer_bytes` wait for our peer, so reading from the other leg's peer is paused.
    full: bool,
    /// The number of the server's own pings that were not answered yet.
    pings_unanswered: u16,
    /// This leg closes for a reason of the server's own, not because its peer or the other leg has
    /// closed.
    closed_by_server: bool,
    /// Whether the close was reported to the other leg.
    close_reported: bool,
    /// The upstream whose connection count includes this one.
    pub(super) chosen: Option<Chosen>,
}

impl ProxyLeg {
    pub(super) fn new(
        role: Role,
        other: Slot,
        buffer_bytes: usize,
        keys: &mut MaskKeys,
    ) -> ProxyLeg {
        ProxyLeg {
            role,
            other,
            buffer_bytes,
            close_mask: keys.mask(),
            read_paused: false,
            full: false,
            pings_unanswered: 0,
            closed_by_server: false,
            close_reported: false,
            chosen: None,
        }
    }

    /// The masking key of the close frame, if our frames are masked.
    pub(super) fn close_mask(&self) -> Option<[u8; 4]> {
        self.role.masks().then_some(self.close_mask)
    }

    /// A new masking key for any other frame, if our frames are masked.
    pub(super) fn mask(&self, cx: &mut Context<'_>) -> Option<[u8; 4]> {
        self.role.masks().then(|| cx.keys.mask())
    }

    /// The maximum number of bytes that wait for our peer: the bound at which reading from the
    /// other leg is paused, and one message beyond it.
    pub(super) fn max_waiting(&self, limits: &Limits) -> usize {
        self.buffer_bytes.saturating_add(limits.message_bytes as usize)
    }

    pub(super) fn is_read_paused(&self) -> bool {
        self.read_paused
    }

    /// Notes that this leg closes for a reason of the server's own.
    pub(super) fn note_closed_by_server(&mut self) {
        self.closed_by_server = true;
    }

    pub(super) fn send_to_peer(&self, message: PeerMessage, cx: &mut Context<'_>) {
        cx.request(Effect::PeerMessage { to: self.other, message });
    }

    /// Passes on a message that our peer has sent.
    pub(super) fn message(&self, kind: MessageKind, payload: &[u8], cx: &mut Context<'_>) {
        let counters = cx.counters;
        let (messages, bytes) = match self.role {
            Role::Server => (&counters.proxy_sent, &counters.proxy_sent_bytes),
            Role::Client => (&counters.proxy_received, &counters.proxy_received_bytes),
        };
        messages.add(1);
        bytes.add(payload.len() as u64);
        self.send_to_peer(PeerMessage::Message { kind, payload: payload.to_vec() }, cx);
    }

    /// Passes on a ping or a pong that our peer has sent, except for pongs to the server's own
    /// pings.
    pub(super) fn control(&mut self, opcode: Opcode, payload: &[u8], cx: &mut Context<'_>) {
        if opcode == Opcode::Pong && self.pings_unanswered > 0 && payload == PING_PAYLOAD {
            self.pings_unanswered -= 1;
            return;
        }
        self.send_to_peer(PeerMessage::Control { opcode, payload: payload.to_vec() }, cx);
    }

    /// Passes on the close frame that our peer has sent, and returns the deadline for the end of
    /// this connection. The deadline is twice as long if our close frame is still `owed`: the other
    /// leg determines that frame, and its peer may take `close_ms` to answer.
    pub(super) fn closed(
        &mut self,
        code: Option<u16>,
        reason: &str,
        owed: bool,
        cx: &mut Context<'_>,
    ) -> Deadline {
        if !self.close_reported {
            self.close_reported = true;
            self.send_to_peer(PeerMessage::Close { code, reason: reason.to_owned().into() }, cx);
        }
        cx.now.plus_ms((1 + u64::from(owed)) * cx.env.config.timeouts.close_ms)
    }

    /// Notes that the close was reported to the other leg. Returns whether it had been before.
    pub(super) fn note_close_reported(&mut self) -> bool {
        std::mem::replace(&mut self.close_reported, true)
    }

    /// Counts a ping of the server's own.
    pub(super) fn note_ping(&mut self) {
        self.pings_unanswered = self.pings_unanswered.saturating_add(1);
    }

    /// Notes that `replies` bytes wait for this leg's peer.
    pub(crate) fn note_waiting(&mut self, replies: usize) {
        self.full = self.full || replies > self.buffer_bytes;
    }

    /// Whether more than `buffer_bytes` wait for this leg's peer.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Pauses reading from this leg's peer, unless its close was reported.
    pub(crate) fn pause_reading(&mut self) {
        self.read_paused |= !self.close_reported;
    }

    /// Allows reading from this leg's peer again.
    pub(crate) fn resume_reading(&mut self) {
        self.read_paused = false;
    }

    /// Returns the other leg if this leg was full and at most half of `buffer_bytes` wait now.
    pub(crate) fn has_drained(&mut self, replies: usize) -> Option<Slot> {
        if !self.full {
            return None;
        }
        self.full = replies > self.buffer_bytes / 2;
        (!self.full).then_some(self.other)
    }

    /// The close message for the other leg, if this leg ends and has not reported that.
    pub(super) fn take_last_message(
        &mut self,
        ends: bool,
        draining: bool,
    ) -> Option<(Slot, PeerMessage)> {
        if self.close_reported || !(ends || self.closed_by_server) {
            return None;
        }
        self.close_reported = true;
        Some((self.other, self.last_message(draining)))
    }

    /// The close message for the other leg when this leg ends without a close frame from its peer.
    fn last_message(&self, draining: bool) -> PeerMessage {
        let closing = match self.role {
            _ if draining => Closing::new(close::GOING_AWAY, "the server is shutting down"),
            Role::Server => Closing::new(close::GOING_AWAY, "the client has gone"),
            Role::Client => Closing::new(close::BAD_GATEWAY, "the upstream has gone"),
        };
        PeerMessage::Close { code: Some(closing.code), reason: closing.reason }
    }
}
