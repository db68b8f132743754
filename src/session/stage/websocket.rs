//! The WebSocket stage: messages from the peer, the closing handshake, and heartbeats. The files
//! `outbound` and `unpack` hold what is sent and the decompression of what is received.
//!
//! After our close frame no data is sent. A WebSocket must not know which stage came before it, and
//! where its bytes come from and go to.

use super::endpoint::Endpoint;
use super::heartbeat::Liveness;
use super::inbound::Recipient;
use super::policy::ConnectionPolicy;
use super::proxy::ProxyLeg;
use super::rate_limit::ControlFrameLimit;
use super::records::Input;
use crate::dialect::DialectMessage;
use crate::dialect::{Closing, DialectEvent, Env};
use crate::session::context::context;
use crate::session::ending::{Ending, Progress};
use crate::session::{Context, SessionEvent};
use crate::stats::{Counters, Streams};
use crate::time::Deadline;
use crate::ws::close::{self, CloseHandshake};
use crate::ws::event_ids::EventIds;
use crate::ws::output::{Channel, Codecs};
use crate::ws::record::RecordFraming;
use crate::ws::{self, FrameEvent, Opcode, Violation};

/// What messages to one peer look like on the wire.
pub(crate) enum Framing<'s> {
    /// Plain frames.
    Plain,
    /// Frames that may be compressed.
    Compressed(&'s mut Channel),
    /// The records of an HTTP stream, and for a stream of events of several channels the positions
    /// that the ids of its events have.
    Records(RecordFraming, Option<&'s mut EventIds>),
}

/// One WebSocket, or an HTTP stream that takes the place of one.
pub(crate) struct WebSocket {
    pub(super) input: Input,
    pub(super) endpoint: Endpoint,
    /// The negotiated compression of messages, or for an HTTP stream the framing of its records.
    pub(super) channel: Option<Box<Channel>>,
    /// When the unfinished message began: the low 32 bits of the time in milliseconds; 0 between
    /// messages.
    pub(super) begun: u32,
    pub(super) closing: CloseHandshake,
    pub(super) liveness: Liveness,
    /// Whether it was counted as a WebSocket of its listener.
    pub(super) counted: bool,
    pub(super) rate_limit: ControlFrameLimit,
    /// The rules and token leases that apply to this connection, if any.
    pub(super) policy: Option<Box<ConnectionPolicy>>,
}

const NO_MEMORY: Closing = Closing::new(close::TRY_AGAIN, "the server is short of memory");
const FLOOD: Closing = Closing::new(close::POLICY, "too many control frames");

impl WebSocket {
    pub(super) fn new(
        input: Input,
        endpoint: Endpoint,
        channel: Option<Box<Channel>>,
        policy: Option<Box<ConnectionPolicy>>,
        now_ms: u64,
    ) -> WebSocket {
        WebSocket {
            input,
            endpoint,
            channel,
            begun: 0,
            closing: CloseHandshake::Open,
            liveness: Liveness::new(now_ms),
            counted: false,
            rate_limit: ControlFrameLimit::default(),
            policy,
        }
    }

    /// Our role on this WebSocket: the client's on a connection to an upstream, else the server's.
    fn role(&self) -> ws::Role {
        self.leg().map_or(ws::Role::Server, |leg| leg.role)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.closing.may_send_data()
    }

    pub(super) fn step(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> (usize, Progress) {
        self.liveness.heard(cx.now);
        let limits = self.limits(cx.env);
        // What the peer sends after our close frame is ignored (RFC 6455 section 5.5.1).
        let ignores = !self.is_open() && self.leg().is_none();
        if let Some(parked) = self.policy.as_mut().and_then(|policy| policy.parked.take()) {
            return (0, self.unpark(parked, out, deadline, cx));
        }
        if self.is_unpacking() {
            return (0, self.unpack_on(&limits, ignores, out, deadline, cx));
        }
        let (taken, after, wanted) = self.step_frame(input, &limits, ignores, out, deadline, cx);
        self.input.take_back();
        self.close_if(wanted, out, deadline, cx);
        (taken, after)
    }

    /// Handles at most one message or frame. Returns the number of bytes taken, what follows, and
    /// the close that the endpoint requests.
    #[inline]
    fn step_frame(
        &mut self,
        input: &mut [u8],
        limits: &ws::FrameLimits,
        ignores: bool,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> (usize, Progress, Option<Closing>) {
        let role = self.role();
        let (taken, event) = self.input.next(role, limits, input);
        let mut wanted = None;
        let after = match event {
            FrameEvent::Need if ignores => Progress::Need,
            FrameEvent::Need => self.needs_more(limits, out, deadline, cx),
            FrameEvent::Message { .. } | FrameEvent::Ping(_) | FrameEvent::Pong(_) if ignores => {
                Progress::Again
            }
            FrameEvent::Message { kind, compressed: true, payload } => {
                let unpacked = match &mut self.channel {
                    Some(it) => it.unpack(kind, payload, limits.message_bytes, cx.codecs),
                    None => Err(Violation::ReservedBits),
                };
                self.unpacked(unpacked, out, deadline, cx)
            }
            FrameEvent::Message { payload: &mut [], .. }
            | FrameEvent::Ping(_)
            | FrameEvent::Pong(_)
                if self.rate_limit.is_over(1, cx) =>
            {
                self.is_over_limit(out, deadline, cx)
            }
            FrameEvent::Message { kind, payload, .. } => {
                cx.counters.messages_received.add(1);
                self.begun = 0;
                let (channel, policy) = (self.channel.as_deref_mut(), self.policy.as_deref_mut());
                let mut to = Recipient::new(&mut self.endpoint, channel, policy, &mut wanted);
                to.give(kind, payload, out, cx);
                Progress::Again
            }
            FrameEvent::Ping(payload) => self.endpoint.control(Opcode::Ping, payload, out, cx),
            FrameEvent::Pong(payload) => self.endpoint.control(Opcode::Pong, payload, out, cx),
            FrameEvent::Close { code, reason } => {
                let owed = self.closing.receive();
                if let Endpoint::ProxyLeg(leg) = &mut self.endpoint {
                    *deadline = leg.closed(code, reason, owed, cx);
                } else if owed && self.closing.send() {
                    self.push_close(out, self.endpoint.close_reply(code, cx.env), "");
                }
                self.when_closed()
            }
            FrameEvent::Violation(violation) => self.violated(violation, out, cx),
        };
        (taken, after, wanted)
    }

    /// Whether input has to wait. `replies` is the number of bytes of replies in the write queue,
    /// `starved` whether the core is short of memory.
    pub(super) fn must_hold(&self, replies: usize, starved: bool, cx: &Context<'_>) -> bool {
        let spent = self.compresses() && cx.codecs.is_spent();
        if self.has_place() {
            // This connection has the core's place for large messages, and others wait for that
            // place: it goes on even if its peer does not read.
            return spent || cx.congested;
        }
        let parked = self.is_held(cx) || self.is_open() && self.endpoint.is_full();
        let waits = spent || self.awaits_place(cx) || parked;
        let limits = &cx.env.config.limits;
        let max = limits.write_queue_bytes / 4;
        if let Some(leg) = self.leg() {
            // Nearly all bytes in this queue come from the other leg, and what the client sends
            // goes to the other leg. Only refusals of invalid messages add replies here.
            let max = leg.max_waiting(limits) + max;
            return waits || starved || leg.is_read_paused() || replies > max;
        }
        waits || starved || cx.congested || replies > max
    }

    /// Sends our close frame if `wanted` is set, and sets the deadline for the peer's.
    pub(super) fn close_if(
        &mut self,
        wanted: Option<Closing>,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &Context<'_>,
    ) {
        if let Some(closing) = wanted {
            self.close(&closing, out);
            *deadline = cx.now.plus_ms(cx.env.config.timeouts.close_ms);
        }
    }

    /// Closes a connection whose peer has exceeded `limits.control_frames_per_s`.
    pub(super) fn is_over_limit(
        &mut self,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> Progress {
        cx.counters.control_floods.add(1);
        let closing = self.before_close(FLOOD, out, cx);
        self.close_if(Some(closing), out, deadline, cx);
        Progress::Again
    }

    /// Handles the state after all received bytes were taken: partial compressed messages, empty
    /// frames, and the deadline of an unfinished message.
    fn needs_more(
        &mut self,
        limits: &ws::FrameLimits,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> Progress {
        let empty = self.input.take_empty_frames();
        match self.unpack_part(limits, cx) {
            Err(violation) => self.violated(violation, out, cx),
            Ok(()) if empty > 0 && self.rate_limit.is_over(empty, cx) => {
                self.is_over_limit(out, deadline, cx)
            }
            Ok(()) => self.time_message(deadline, cx),
        }
    }

    pub(super) fn violated(
        &mut self,
        violation: Violation,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        cx.counters.violations.add(1);
        let mut closing = Closing::new(violation.code(), violation.reason());
        if violation == Violation::TooBig {
            closing = self.before_close(closing, out, cx);
        }
        self.close(&closing, out);
        Progress::End(Ending::Flush)
    }

    /// Whether the reader holds no memory that a further step would free, and no event to report.
    pub(crate) fn keeps_nothing(&self) -> bool {
        self.input.keeps_nothing()
    }

    /// Whether messages may be compressed.
    pub(super) fn compresses(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.records().is_none())
    }

    fn limits(&self, env: &Env) -> ws::FrameLimits {
        let limits = self.endpoint.limits(self.compresses(), env);
        let is_modelled = self.policy.as_ref().is_some_and(|policy| policy.rules.is_some());
        let max = if is_modelled { env.config.limits.model_message_bytes } else { u64::MAX };
        ws::FrameLimits { message_bytes: limits.message_bytes.min(max), ..limits }
    }

    /// Handles an event of the connection.
    pub(super) fn on(
        &mut self,
        event: SessionEvent<'_>,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        match event {
            SessionEvent::Answered { part, answer, .. } => {
                self.call_dialect(DialectEvent::Answered { part, answer }, out, cx)
            }
            SessionEvent::Joined { name, outcome, .. } => {
                self.call_dialect(DialectEvent::Joined { name, outcome }, out, cx)
            }
            SessionEvent::NotSubscribed(name) => {
                self.call_dialect(DialectEvent::NotSubscribed(name), out, cx)
            }
            SessionEvent::Room => self.call_dialect(DialectEvent::Room, out, cx),
            SessionEvent::Reload => self.call_dialect(DialectEvent::Reload, out, cx),
            SessionEvent::NodeGone => self.call_dialect(DialectEvent::NodeGone, out, cx),
            SessionEvent::Close(closing) => self.close_with(closing.clone(), out, cx),
            SessionEvent::CloseFor(why) => self.close_for(why, out, cx),
            SessionEvent::OutOfMemory => {
                self.close(&NO_MEMORY, out);
                Progress::End(Ending::Flush)
            }
            SessionEvent::Peer(message) => self.on_peer(message, out, cx),
            SessionEvent::OtherLegFull => {
                self.leg_mut().into_iter().for_each(ProxyLeg::pause_reading);
                Progress::Need
            }
            SessionEvent::OtherLegDrained => {
                self.leg_mut().into_iter().for_each(ProxyLeg::resume_reading);
                Progress::Need
            }
            SessionEvent::AcksAwaited { .. }
            | SessionEvent::Acked(_)
            | SessionEvent::DialledAt(_)
            | SessionEvent::Connected(_) => Progress::Need,
        }
    }

    /// Gives a message from another connection to the dialect.
    pub(super) fn on_message(
        &mut self,
        what: &DialectMessage,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        self.call_dialect(DialectEvent::Message(what), out, cx)
    }

    /// Gives the dialect an event, unless the connection is closing.
    pub(super) fn call_dialect(
        &mut self,
        event: DialectEvent<'_>,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        let mut wanted = None;
        if self.is_open()
            && let Endpoint::Dialect(it) = &mut self.endpoint
        {
            let channel = self.channel.as_deref_mut();
            it.on(&mut context(out, channel, &mut wanted, cx), event);
        }
        if let Some(closing) = wanted {
            self.close(&closing, out);
        }
        Progress::Again
    }

    /// The proxy leg, if this is a proxied connection.
    pub(crate) fn leg(&self) -> Option<&ProxyLeg> {
        self.endpoint.leg()
    }

    pub(super) fn leg_mut(&mut self) -> Option<&mut ProxyLeg> {
        self.endpoint.leg_mut()
    }

    /// Whether this connection was dialled: it is the leg to an upstream.
    pub(super) fn dials(&self) -> bool {
        self.leg().is_some_and(|leg| leg.role == ws::Role::Client)
    }

    /// Whether a message is parked.
    pub(super) fn has_parked(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.parked.is_some())
    }

    /// Whether reading is paused because a parked message still waits for its schema.
    pub(super) fn is_held(&self, cx: &Context<'_>) -> bool {
        self.is_open() && self.policy.as_ref().is_some_and(|policy| policy.is_held(cx))
    }

    /// The framing of the records, if this is an HTTP stream.
    pub(super) fn records(&self) -> Option<RecordFraming> {
        self.channel.as_ref().and_then(|channel| channel.records())
    }

    /// Whether this is an HTTP stream whose close was sent.
    pub(crate) fn is_through(&self) -> bool {
        !self.is_open() && self.records().is_some()
    }

    /// Whether the client of an HTTP stream has sent its whole request body.
    pub(super) fn has_sent_all(&self) -> bool {
        self.input.has_ended()
    }

    /// What messages to the peer look like on the wire.
    pub(super) fn framing(&mut self) -> Framing<'_> {
        match self.channel.as_deref_mut() {
            None => Framing::Plain,
            Some(channel) => match channel.records() {
                Some(framing) => Framing::Records(framing, channel.ids()),
                None => Framing::Compressed(channel),
            },
        }
    }

    /// Releases what the connection holds outside its own memory.
    pub(super) fn drop_state(&mut self, env: &Env, codecs: &mut Codecs) {
        self.endpoint.on_drop(env);
        if let Some(channel) = &mut self.channel {
            channel.release(codecs);
        }
    }

    /// Heap bytes of unfinished, parked and unanswered messages.
    pub(super) fn held_bytes(&self) -> usize {
        let parked = self.policy.as_ref().and_then(|policy| policy.parked.as_ref());
        let parked = parked.map_or(0, |it| it.payload.capacity());
        let channel = self.channel.as_ref().map_or(0, |channel| channel.compressed_bytes());
        self.input.held_bytes() + parked + channel + self.endpoint.held_bytes()
    }

    /// Frees all input: nothing more is read.
    pub(super) fn discard(&mut self) {
        self.input.discard();
        if let Some(policy) = &mut self.policy {
            policy.parked = None;
        }
    }

    /// Counts bytes, and the WebSocket itself with its first bytes. The first bytes sent are not
    /// counted: they are the handshake's response.
    pub(crate) fn count(&mut self, received: usize, sent: usize, streams: &Streams) {
        streams.received_bytes.add(received as u64);
        if self.counted {
            streams.sent_bytes.add(sent as u64);
        } else {
            self.counted = true;
            streams.opened.add(1);
        }
    }

    /// Counts how the WebSocket has ended, if it was counted.
    pub(crate) fn count_end(&self, counters: &Counters, listener: u16) {
        let is_event_stream = self.records() == Some(RecordFraming::Events);
        counters.event_streams.sub(is_event_stream.into());
        if !self.counted {
            return;
        }
        let streams = counters.streams(listener);
        let (received, sent) = match self.closing {
            CloseHandshake::Open => (0, 0),
            CloseHandshake::Sent => (0, 1),
            CloseHandshake::Received => (1, 0),
            CloseHandshake::Done => (1, 1),
        };
        streams.ended.add(1);
        streams.closes_received.add(received);
        streams.closes_sent.add(sent);
    }
}
