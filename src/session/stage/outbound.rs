//! What a WebSocket sends of its own accord or for the other leg of a proxied connection: messages,
//! pings, and the close.

use super::endpoint::Endpoint;
use super::inbound::Recipient;
use super::parked::ParkedMessage;
use super::proxy::{PING_PAYLOAD, ProxyLeg};
use super::websocket::WebSocket;
use crate::dialect::{Closing, DialectEvent, PeerMessage, Why};
use crate::session::Context;
use crate::session::context::context;
use crate::session::ending::{Ending, Progress};
use crate::time::Deadline;
use crate::ws::close::{self, CloseHandshake};
use crate::ws::{MessageKind, Opcode, Role, frame, record};

impl WebSocket {
    /// Ends the response of an HTTP stream whose client has closed its side after its whole request
    /// body.
    pub(super) fn hang_up(&mut self, out: &mut Vec<u8>) -> Progress {
        if self.closing.send() {
            self.push_close(out, None, "");
        }
        Progress::Again
    }

    /// Sends a heartbeat in the framing of the records, which is not a message.
    pub(super) fn push_heartbeat(&self, out: &mut Vec<u8>) {
        if let Some(framing) = self.records() {
            framing.push_alive(out);
        }
    }

    /// Checks a parked message again and gives it to the endpoint, or refuses it if it is invalid
    /// or its schema is still missing.
    pub(super) fn unpark(
        &mut self,
        mut parked: Box<ParkedMessage>,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> Progress {
        if !self.is_open() {
            return Progress::Again;
        }
        let mut wanted = None;
        let mut to = Recipient {
            endpoint: &mut self.endpoint,
            channel: self.channel.as_deref_mut(),
            rules: self.policy.as_ref().and_then(|policy| policy.rules.as_ref()),
            park: None,
            wanted: &mut wanted,
        };
        to.take_parked(&mut parked, out, cx);
        self.close_if(wanted, out, deadline, cx);
        Progress::Again
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

    /// Sends a heartbeat ping to the peer.
    pub(super) fn send_ping(&mut self, out: &mut Vec<u8>, cx: &mut Context<'_>) {
        let payload = if self.leg().is_some() { PING_PAYLOAD } else { b"" };
        self.push_control(Opcode::Ping, payload, out, cx);
        if let Some(leg) = self.leg_mut() {
            leg.note_ping();
        }
    }

    /// Handles a message from the other leg.
    pub(super) fn on_peer(
        &mut self,
        message: PeerMessage,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        let may_send = matches!(self.closing, CloseHandshake::Open | CloseHandshake::Received);
        match message {
            PeerMessage::Message { kind, payload } if may_send => {
                self.forward(kind, &payload, out, cx);
                Progress::Again
            }
            // The client of an HTTP stream cannot answer pings, so this leg answers them.
            PeerMessage::Control { opcode, payload } if self.records().is_some() => {
                if let Some(leg) = self.leg().filter(|_| opcode == Opcode::Ping) {
                    leg.send_to_peer(PeerMessage::Control { opcode: Opcode::Pong, payload }, cx);
                }
                Progress::Again
            }
            PeerMessage::Control { opcode, payload } if may_send => {
                self.push_control(opcode, &payload, out, cx);
                Progress::Again
            }
            // Nothing is sent after our close frame (RFC 6455 section 5.5.1).
            PeerMessage::Message { .. }
            | PeerMessage::Control { .. }
            | PeerMessage::Answered(_) => Progress::Again,
            PeerMessage::Close { code, reason } => {
                let nobody_answers = self.records().is_some();
                if let Some(leg) = self.leg_mut() {
                    leg.resume_reading();
                    if nobody_answers && !leg.note_close_reported() {
                        leg.send_to_peer(PeerMessage::Close { code, reason: "".into() }, cx);
                    }
                }
                self.close_as(code, &reason, out)
            }
        }
    }

    /// Sends a close frame with the code and the reason that the other leg has received.
    pub(super) fn close_as(
        &mut self,
        code: Option<u16>,
        reason: &str,
        out: &mut Vec<u8>,
    ) -> Progress {
        if self.closing.send() {
            self.push_close(out, code, reason);
        }
        self.when_closed()
    }

    /// What follows when the peer or the other leg has closed. When both close frames were
    /// exchanged, the server side of a WebSocket ends the TCP connection first (RFC 6455 section
    /// 7.1.1).
    pub(super) fn when_closed(&self) -> Progress {
        match (self.leg(), self.closing) {
            (None, _) => Progress::End(Ending::Flush),
            (Some(leg), CloseHandshake::Done) if leg.role == Role::Server => {
                Progress::End(Ending::Flush)
            }
            (Some(_), _) => Progress::Again,
        }
    }

    pub(super) fn push_close(&self, out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
        if self.records().is_some() {
            return record::push_end(out, code, reason);
        }
        // Without a code the payload of the close frame is empty.
        let payload = close::payload(code.unwrap_or(close::NO_CODE), reason);
        frame::push(out, Opcode::Close, &payload, self.leg().and_then(ProxyLeg::close_mask));
    }

    /// Sends our close frame if none was sent yet. The caller's deadline bounds the wait for the
    /// peer's.
    pub(crate) fn close(&mut self, closing: &Closing, out: &mut Vec<u8>) {
        if self.closing.send() {
            self.push_close(out, Some(closing.code), &closing.reason);
        }
        if let Some(leg) = self.leg_mut() {
            leg.note_closed_by_server();
        }
    }

    /// Closes with a code and a reason that the application has chosen, or the dialect instead.
    pub(super) fn close_with(
        &mut self,
        closing: Closing,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        let closing = self.before_close(closing, out, cx);
        self.close(&closing, out);
        Progress::Again
    }

    pub(super) fn close_for(
        &mut self,
        why: Why,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        let closing = self.endpoint.closing(why);
        let closing = self.before_close(closing, out, cx);
        self.close(&closing, out);
        match why {
            // The peer will not answer soon: the write queue is sent, and the connection ends
            // without waiting for the peer's close frame.
            Why::Slow | Why::Silent => Progress::End(Ending::Flush),
            Why::Draining | Why::Gap => Progress::Again,
        }
    }

    /// Lets the dialect send its own message before a close, and choose how to close.
    pub(crate) fn before_close(
        &mut self,
        mut closing: Closing,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Closing {
        match &mut self.endpoint {
            Endpoint::Dialect(it) if self.closing.may_send_data() => {
                let channel = self.channel.as_deref_mut();
                let event = DialectEvent::Closing(&mut closing);
                it.on(&mut context(out, channel, &mut None, cx), event);
            }
            _ => {}
        }
        closing
    }
}
