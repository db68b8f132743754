//! A proxied WebSocket is two connections of one core, each a half to the other: one that was
//! accepted, one that was dialled. This is the way of a message from one to the other.
//!
//! A half reads whole messages, pings, pongs and the close frame, and says each as a
//! [`PeerMessage`] to
//! the other half, which writes it to its own peer. While more than `buffer_bytes` wait for that
//! peer, the half that speaks is held up: nothing is read for it, and what one turn has received
//! beside that is held. Each half closes its own connection, and says one last word about that.

use super::inbound::Recipient;
use super::socket::{Endpoint, Socket};
use super::{After, Context, Ending, Session, Stage};
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

/// What a session asks of its shard beside the actions of its dialect.
pub enum ProxyEffect {
    /// To dial an upstream.
    Dial(Box<super::Dial>),
    /// To say something to another session of this core.
    Say {
        /// Which one.
        to: Slot,
        /// What.
        message: PeerMessage,
    },
}

/// What one half of a proxied connection has to say to the other.
#[derive(Debug)]
pub enum PeerMessage {
    /// What became of the dial.
    Answered(Result<Option<Box<str>>, UpstreamFailure>),
    /// A whole message.
    Message {
        /// Text or binary.
        kind: MessageKind,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// A ping or a pong.
    Control {
        /// Which of them.
        opcode: Opcode,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// Its peer has closed, with this code if there was one, or is gone. The last word.
    Close {
        /// The code.
        code: Option<u16>,
        /// The reason.
        reason: Cow<'static, str>,
    },
}

/// Keys that nobody can foresee: for masks (RFC 6455 section 5.3) and handshakes.
#[derive(Debug, Default)]
pub struct MaskKeys {
    /// Seeded by the system's random source.
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

    /// What a handshake's key is made of.
    pub fn nonce(&mut self) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.next());
        nonce[8..].copy_from_slice(&self.next());
        nonce
    }
}

/// What the server's own pings carry on a proxied connection, so that the answers to them are told
/// from those to the other side's.
const BEAT: &[u8] = b"\0polycast";

/// One half.
pub(super) struct ProxyLeg {
    pub(super) role: Role,
    other: Slot,
    buffer_bytes: usize,
    /// The mask of the close frame; there is only one.
    close_mask: [u8; 4],
    /// The other half's peer is to read first.
    held_up: bool,
    /// More than `buffer_bytes` wait for our peer: the other half is held up.
    full: bool,
    /// Pings of the server's own that were not answered.
    asked: u16,
    /// We close for a reason of our own.
    parts: bool,
    /// The last word was said.
    close_reported: bool,
    /// The upstream, of whose connections this is one.
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
            held_up: false,
            full: false,
            asked: 0,
            parts: false,
            close_reported: false,
            chosen: None,
        }
    }

    /// The mask of the close frame, if our frames have one.
    pub(super) fn close_mask(&self) -> Option<[u8; 4]> {
        self.role.masks().then_some(self.close_mask)
    }

    /// The mask of any other frame.
    pub(super) fn mask(&self, cx: &mut Context<'_>) -> Option<[u8; 4]> {
        self.role.masks().then(|| cx.keys.mask())
    }

    /// Bytes that wait for our peer at most: what its side is held up at, and the message that
    /// went beyond.
    pub(super) fn max_waiting(&self, limits: &Limits) -> usize {
        self.buffer_bytes.saturating_add(limits.message_bytes as usize)
    }

    pub(super) fn is_held_up(&self) -> bool {
        self.held_up
    }

    /// We close for a reason of our own.
    pub(super) fn parts(&mut self) {
        self.parts = true;
    }

    fn send_to_peer(&self, message: PeerMessage, cx: &mut Context<'_>) {
        cx.proxy_effects.push(ProxyEffect::Say { to: self.other, message });
    }

    /// Our peer has sent a message.
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

    /// Our peer has sent a ping or a pong. It is for the other side, but for answers to ours.
    pub(super) fn control(&mut self, opcode: Opcode, payload: &[u8], cx: &mut Context<'_>) {
        if opcode == Opcode::Pong && self.asked > 0 && payload == BEAT {
            self.asked -= 1;
            return;
        }
        self.send_to_peer(PeerMessage::Control { opcode, payload: payload.to_vec() }, cx);
    }

    /// Our peer has sent its close frame.
    /// The deadline is that of the end: the other half says how a close is answered that is
    /// `owed` an answer, which may take its peer's time.
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

    /// What the other side is told of an end for which there was no close frame.
    fn last_message(&self, draining: bool) -> PeerMessage {
        let closing = match self.role {
            _ if draining => Closing::new(close::GOING_AWAY, "the server is shutting down"),
            Role::Server => Closing::new(close::GOING_AWAY, "the client has gone"),
            Role::Client => Closing::new(close::BAD_GATEWAY, "the upstream has gone"),
        };
        PeerMessage::Close { code: Some(closing.code), reason: closing.reason }
    }
}

impl Endpoint {
    /// Takes a ping or a pong: our own answer to a ping, unless it is for somebody else.
    pub(super) fn control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> After {
        match self {
            Endpoint::ProxyLeg(leg) => leg.control(opcode, payload, cx),
            _ if opcode == Opcode::Ping => frame::push(out, Opcode::Pong, payload, None),
            _ => {}
        }
        After::Again
    }
}

impl Socket {
    /// The same as the other half wants it.
    pub(super) fn close_as(&mut self, code: Option<u16>, reason: &str, out: &mut Vec<u8>) -> After {
        if self.closing.send() {
            self.push_close(out, code, reason);
        }
        self.when_closed()
    }

    /// What becomes of a connection whose peer has closed, or which was closed by the other half:
    /// when both sides have, the server of a connection ends it first (section 7.1.1).
    pub(super) fn when_closed(&self) -> After {
        match (self.leg(), self.closing) {
            (None, _) => After::End(Ending::Flush),
            (Some(leg), CloseHandshake::Done) if leg.role == Role::Server => {
                After::End(Ending::Flush)
            }
            (Some(_), _) => After::Again,
        }
    }

    /// This half of a proxied connection, if it is one.
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

    /// Sends what the other half has read, if the route's models have nothing against it.
    pub(super) fn pass_on(
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

    /// Sends a ping or a pong.
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

    /// Whether it was dialled by us.
    pub(super) fn dials(&self) -> bool {
        self.leg().is_some_and(|leg| leg.role == Role::Client)
    }

    /// Asks the peer for a sign of life.
    pub(super) fn ask(&mut self, out: &mut Vec<u8>, cx: &mut Context<'_>) {
        let payload = if self.leg().is_some() { BEAT } else { b"" };
        self.push_control(Opcode::Ping, payload, out, cx);
        if let Some(leg) = self.leg_mut() {
            leg.asked = leg.asked.saturating_add(1);
        }
    }

    /// Takes a word of the other half.
    fn on_peer(&mut self, message: PeerMessage, out: &mut Vec<u8>, cx: &mut Context<'_>) -> After {
        let may_send = matches!(self.closing, CloseHandshake::Open | CloseHandshake::Received);
        match message {
            PeerMessage::Message { kind, payload } if may_send => {
                self.pass_on(kind, &payload, out, cx);
                After::Again
            }
            // The client of a stream has no pings: we are its end of them.
            PeerMessage::Control { opcode, payload } if self.records().is_some() => {
                if let Some(leg) = self.leg().filter(|_| opcode == Opcode::Ping) {
                    leg.send_to_peer(PeerMessage::Control { opcode: Opcode::Pong, payload }, cx);
                }
                After::Again
            }
            PeerMessage::Control { opcode, payload } if may_send => {
                self.push_control(opcode, &payload, out, cx);
                After::Again
            }
            // Behind our close frame nothing is sent (section 5.5.1).
            PeerMessage::Message { .. }
            | PeerMessage::Control { .. }
            | PeerMessage::Answered(_) => After::Again,
            PeerMessage::Close { code, reason } => {
                let nobody_answers = self.records().is_some();
                if let Some(leg) = self.leg_mut() {
                    leg.held_up = false;
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
    /// Takes a word of the other half, or of the dial that is to become it.
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
            // Its client is gone.
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

    /// Whether more waits for its peer than may: whoever speaks to it is to be held up.
    pub fn is_full(&mut self) -> bool {
        self.ending == Ending::Open && self.leg_mut().is_some_and(|leg| leg.full)
    }

    /// Nothing is to be read for it until [`Session::may_speak`].
    pub fn hold_up(&mut self) {
        if let Some(leg) = self.leg_mut() {
            leg.held_up = !leg.close_reported;
        }
    }

    /// The other half's peer has read enough.
    pub fn may_speak(&mut self) {
        if let Some(leg) = self.leg_mut() {
            leg.held_up = false;
        }
    }

    /// Bytes have left: the other half, if it was held up for want of room and there is room again.
    pub fn has_drained(&mut self) -> Option<Slot> {
        let replies = self.queue.replies();
        let leg = self.leg_mut().filter(|leg| leg.full)?;
        leg.full = replies > leg.buffer_bytes / 2;
        (!leg.full).then_some(leg.other)
    }

    /// The last word to the other half, if this one has ended and nothing was said about that;
    /// `is_gone` if nothing of it is left.
    pub fn last_message(&mut self, is_gone: bool, draining: bool) -> Option<(Slot, PeerMessage)> {
        let ends = is_gone || self.ending != Ending::Open;
        match &mut self.stage {
            Stage::Http(_) => None,
            Stage::Socket(socket) => {
                let leg = socket.leg_mut()?;
                if leg.close_reported || !(ends || leg.parts) {
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

    /// Whether it is a connection to an upstream.
    pub fn is_upstream(&self) -> bool {
        match &self.stage {
            Stage::Dialling(_) => true,
            Stage::Socket(socket) => socket.dials(),
            Stage::Http(_) | Stage::Connecting(_) => false,
        }
    }
}
