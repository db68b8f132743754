//! A proxied WebSocket has two connections on one core: the client's, which was accepted, and the
//! upstream's, which was dialled. Each is one proxy leg. This file passes messages between them.
//!
//! A leg reads whole messages, pings, pongs and the close frame, and sends each as a
//! [`PeerMessage`] to the other leg, which writes it to its own peer. While more than
//! `buffer_bytes` wait for that peer, reading from the sending leg is paused, and what it has
//! already received in this turn is held. Each leg closes its own connection, and reports that to
//! the other leg once.

use super::inbound::Recipient;
use super::socket::{Endpoint, Socket};
use super::{Context, Ending, Session, Stage, StageResult};
use crate::config::Limits;
use crate::dialect::Closing;
use crate::gateway::proxy::UpstreamFailure;
use crate::mem::Slot;
use crate::time::Deadline;
use crate::upstream::Chosen;
use crate::ws::close::{self, CloseHandshake};
use crate::ws::{MessageKind, Opcode, Role, frame};
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

/// What a session requests of its shard for a proxied connection, beside the effects of a dialect.
pub enum ProxyEffect {
    /// Dial an upstream.
    Dial(Box<super::Dial>),
    /// Send a message to another session of this core.
    Send {
        /// The session that receives the message.
        to: Slot,
        /// The message.
        message: PeerMessage,
    },
}

/// A message from one leg of a proxied connection to the other.
#[derive(Debug)]
pub enum PeerMessage {
    /// The outcome of the dial: the subprotocol that the upstream has chosen, or why there is no
    /// WebSocket.
    Answered(Result<Option<Box<str>>, UpstreamFailure>),
    /// A whole message.
    Message {
        /// Text or binary.
        kind: MessageKind,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A ping or a pong.
    Control {
        /// Ping or pong.
        opcode: Opcode,
        /// The payload.
        payload: Vec<u8>,
    },
    /// The sender's connection was closed or lost. It is the last message of a leg.
    Close {
        /// The close code, if there was one.
        code: Option<u16>,
        /// The close reason.
        reason: Cow<'static, str>,
    },
}

/// Generates unpredictable keys for masks (RFC 6455 section 5.3) and handshakes.
#[derive(Debug, Default)]
pub struct MaskKeys {
    /// Seeded from the system's random source.
    state: RandomState,
    count: u64,
}

impl MaskKeys {
    fn next(&mut self) -> [u8; 8] {
        self.count += 1;
        self.state.hash_one(self.count).to_ne_bytes()
    }

    /// A masking key.
    pub fn mask(&mut self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.next();
        [a, b, c, d]
    }

    /// The 16 bytes of which a handshake's `Sec-WebSocket-Key` is made.
    pub fn nonce(&mut self) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.next());
        nonce[8..].copy_from_slice(&self.next());
        nonce
    }
}

/// The payload of the server's own pings on a proxied connection. It distinguishes their pongs from
/// the pongs to pings of the other side.
const BEAT: &[u8] = b"\0polycast";

/// One leg of a proxied connection.
pub(super) struct ProxyLeg {
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

    fn send_to_peer(&self, message: PeerMessage, cx: &mut Context<'_>) {
        cx.proxy_effects.push(ProxyEffect::Send { to: self.other, message });
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
        if opcode == Opcode::Pong && self.pings_unanswered > 0 && payload == BEAT {
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

    /// The close message for the other leg when this leg ends without a close frame from its peer.
    fn last_message(&self, draining: bool) -> PeerMessage {
        let closing = match self.role {
            _ if draining => Closing::new(close::GOING_AWAY, "the server is shutting down"),
            Role::Server => Closing::new(close::GOING_AWAY, "the client has disconnected"),
            Role::Client => Closing::new(close::BAD_GATEWAY, "the upstream has disconnected"),
        };
        PeerMessage::Close { code: Some(closing.code), reason: closing.reason }
    }
}

impl Endpoint {
    /// Handles a ping or a pong: a proxy leg passes it on, any other endpoint answers a ping.
    pub(super) fn control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> StageResult {
        match self {
            Endpoint::ProxyLeg(leg) => leg.control(opcode, payload, cx),
            _ if opcode == Opcode::Ping => frame::push(out, Opcode::Pong, payload, None),
            _ => {}
        }
        StageResult::Again
    }
}

impl Socket {
    /// Sends a close frame with the code and the reason that the other leg has received.
    pub(super) fn close_as(
        &mut self,
        code: Option<u16>,
        reason: &str,
        out: &mut Vec<u8>,
    ) -> StageResult {
        if self.closing.send() {
            self.push_close(out, code, reason);
        }
        self.when_closed()
    }

    /// What follows when the peer or the other leg has closed. When both close frames were
    /// exchanged, the server side of a WebSocket ends the TCP connection first (RFC 6455 section
    /// 7.1.1).
    pub(super) fn when_closed(&self) -> StageResult {
        match (self.leg(), self.closing) {
            (None, _) => StageResult::End(Ending::Flush),
            (Some(leg), CloseHandshake::Done) if leg.role == Role::Server => {
                StageResult::End(Ending::Flush)
            }
            (Some(_), _) => StageResult::Again,
        }
    }

    /// The proxy leg, if this is a proxied connection.
    pub(super) fn leg(&self) -> Option<&ProxyLeg> {
        match &self.endpoint {
            Endpoint::ProxyLeg(leg) => Some(leg),
            _ => None,
        }
    }

    pub(super) fn leg_mut(&mut self) -> Option<&mut ProxyLeg> {
        match &mut self.endpoint {
            Endpoint::ProxyLeg(leg) => Some(leg),
            _ => None,
        }
    }

    /// Sends a message that the other leg has received, if the route's rules accept it.
    pub(super) fn forward(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        let mut wanted = None;
        self.recipient(&mut wanted).send(kind, payload, out, cx);
        if let Some(closing) = wanted {
            self.close(&closing, out);
        }
    }

    fn recipient<'s>(&'s mut self, wanted: &'s mut Option<Closing>) -> Recipient<'s> {
        Recipient {
            endpoint: &mut self.endpoint,
            channel: self.channel.as_deref_mut(),
            rules: self.policy.as_ref().and_then(|policy| policy.rules.as_ref()),
            park: None,
            wanted,
        }
    }

    /// Sends a ping or a pong frame.
    pub(super) fn push_control(
        &self,
        opcode: Opcode,
        payload: &[u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        let mask = self.leg().and_then(|leg| leg.mask(cx));
        frame::push(out, opcode, payload, mask);
    }

    /// Whether this connection was dialled: it is the leg to an upstream.
    pub(super) fn dials(&self) -> bool {
        self.leg().is_some_and(|leg| leg.role == Role::Client)
    }

    /// Sends a heartbeat ping to the peer.
    pub(super) fn send_ping(&mut self, out: &mut Vec<u8>, cx: &mut Context<'_>) {
        let payload = if self.leg().is_some() { BEAT } else { b"" };
        self.push_control(Opcode::Ping, payload, out, cx);
        if let Some(leg) = self.leg_mut() {
            leg.pings_unanswered = leg.pings_unanswered.saturating_add(1);
        }
    }

    /// Handles a message from the other leg.
    fn on_peer(
        &mut self,
        message: PeerMessage,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> StageResult {
        let may_send = matches!(self.closing, CloseHandshake::Open | CloseHandshake::Received);
        match message {
            PeerMessage::Message { kind, payload } if may_send => {
                self.forward(kind, &payload, out, cx);
                StageResult::Again
            }
            // The client of an HTTP stream cannot answer pings, so this leg answers them.
            PeerMessage::Control { opcode, payload } if self.records().is_some() => {
                if let Some(leg) = self.leg().filter(|_| opcode == Opcode::Ping) {
                    leg.send_to_peer(PeerMessage::Control { opcode: Opcode::Pong, payload }, cx);
                }
                StageResult::Again
            }
            PeerMessage::Control { opcode, payload } if may_send => {
                self.push_control(opcode, &payload, out, cx);
                StageResult::Again
            }
            // Nothing is sent after our close frame (RFC 6455 section 5.5.1).
            PeerMessage::Message { .. }
            | PeerMessage::Control { .. }
            | PeerMessage::Answered(_) => StageResult::Again,
            PeerMessage::Close { code, reason } => {
                let nobody_answers = self.records().is_some();
                if let Some(leg) = self.leg_mut() {
                    leg.read_paused = false;
                    if nobody_answers && !std::mem::replace(&mut leg.close_reported, true) {
                        leg.send_to_peer(PeerMessage::Close { code, reason: "".into() }, cx);
                    }
                }
                self.close_as(code, &reason, out)
            }
        }
    }
}

impl Session {
    /// Handles a message from the other leg, or from the dial that is to become the other leg.
    pub fn on_peer(&mut self, message: PeerMessage, cx: &mut Context<'_>) {
        match (&self.stage, message) {
            (Stage::Socket(_), message) => {
                self.with_socket(cx, |socket, out, cx| socket.on_peer(message, out, cx));
                self.note_backlog();
            }
            (Stage::Connecting(_), PeerMessage::Answered(Ok(protocol))) => {
                self.linked(protocol, cx)
            }
            (Stage::Connecting(_), PeerMessage::Answered(Err(cause))) => self.unlinked(&cause, cx),
            // The client is gone.
            (Stage::Dialling(_), PeerMessage::Close { .. }) => self.end(Ending::Cut, cx),
            (Stage::Http(_) | Stage::Connecting(_) | Stage::Dialling(_), _) => {}
        }
    }

    fn leg_mut(&mut self) -> Option<&mut ProxyLeg> {
        match &mut self.stage {
            Stage::Socket(socket) => socket.leg_mut(),
            _ => None,
        }
    }

    fn note_backlog(&mut self) {
        let replies = self.queue.replies();
        if let Some(leg) = self.leg_mut() {
            leg.full = leg.full || replies > leg.buffer_bytes;
        }
    }

    /// Whether too much waits for this leg's peer, so that reading from the other leg must be
    /// paused.
    pub fn is_full(&mut self) -> bool {
        self.ending == Ending::Open && self.leg_mut().is_some_and(|leg| leg.full)
    }

    /// Pauses reading from this leg's peer until [`Session::resume_reading`].
    pub fn pause_reading(&mut self) {
        if let Some(leg) = self.leg_mut() {
            leg.read_paused = !leg.close_reported;
        }
    }

    /// Allows reading from this leg's peer again: the other leg's peer has read enough.
    pub fn resume_reading(&mut self) {
        if let Some(leg) = self.leg_mut() {
            leg.read_paused = false;
        }
    }

    /// Call when bytes were sent. Returns the other leg if its reading was paused because this
    /// queue was full, and at most half of `buffer_bytes` wait now.
    pub fn has_drained(&mut self) -> Option<Slot> {
        let replies = self.queue.replies();
        let leg = self.leg_mut().filter(|leg| leg.full)?;
        leg.full = replies > leg.buffer_bytes / 2;
        (!leg.full).then_some(leg.other)
    }

    /// The close message for the other leg, if this session has ended and has not reported that.
    /// `is_gone` is whether the connection itself is removed.
    pub fn last_message(&mut self, is_gone: bool, draining: bool) -> Option<(Slot, PeerMessage)> {
        let ends = is_gone || self.ending != Ending::Open;
        match &mut self.stage {
            Stage::Http(_) => None,
            Stage::Socket(socket) => {
                let leg = socket.leg_mut()?;
                if leg.close_reported || !(ends || leg.closed_by_server) {
                    return None;
                }
                leg.close_reported = true;
                Some((leg.other, leg.last_message(draining)))
            }
            Stage::Connecting(waiting) if ends => waiting.last_message(),
            Stage::Dialling(dialling) if ends => dialling.last_message(),
            Stage::Connecting(_) | Stage::Dialling(_) => None,
        }
    }

    /// Whether this is a connection to an upstream.
    pub fn is_upstream(&self) -> bool {
        match &self.stage {
            Stage::Dialling(_) => true,
            Stage::Socket(socket) => socket.dials(),
            Stage::Http(_) | Stage::Connecting(_) => false,
        }
    }
}
