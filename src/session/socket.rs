//! The WebSocket stage: messages in both directions, the closing handshake, and heartbeats.

use super::heartbeat::{HeartbeatDue, Liveness, full, spread};
use super::inbound::Recipient;
use super::pause::ParkedMessage;
use super::proxy::ProxyLeg;
use super::rate_limit::ControlFrameLimit;
use super::stream::Input;
use super::{Context, Ending, StageResult, context};
use crate::codec::Format;
use crate::config::SlowConsumer;
use crate::dialect::{
    Closing, Connection, DialectContext, Effects, Env, Heartbeat, JoinOutcome, Why,
};
use crate::hub::{Answer, ConnId, DialectMessage};
use crate::jwt::{Expiry, TokenLeases};
use crate::model::{ModelRules, RuleSet};
use crate::time::Deadline;
use crate::ws::close::{self, CloseHandshake};
use crate::ws::output::{Channel, Codecs};
use crate::ws::record;
use crate::ws::{self, FrameEvent, Opcode, Violation, frame};
use std::sync::Arc;

/// One WebSocket, or an HTTP stream that takes the place of one.
pub(super) struct Socket {
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

/// The rules and token leases of one connection.
pub(super) struct ConnectionPolicy {
    /// The rules that messages must satisfy, if the route has some.
    pub(super) rules: Option<RuleSet>,
    /// The leases of the connection's tokens, if it has some.
    leases: Option<Box<TokenLeases>>,
    /// A message that is parked while its schema is fetched.
    pub(super) parked: Option<Box<ParkedMessage>>,
}

impl ConnectionPolicy {
    /// A policy of these rules and leases; `None` if there are neither.
    pub(super) fn new(
        rules: Option<Arc<ModelRules>>,
        leases: Option<Box<TokenLeases>>,
    ) -> Option<Box<ConnectionPolicy>> {
        let any = rules.is_some() || leases.is_some();
        any.then(|| {
            Box::new(ConnectionPolicy { rules: rules.map(RuleSet::new), leases, parked: None })
        })
    }
}

pub(super) const LATE: Closing = Closing::new(close::POLICY, "the message took too long to arrive");
pub(super) const EXPIRED: Closing = Closing::new(close::POLICY, "the token has expired");
const FLOOD: Closing = Closing::new(close::POLICY, "too many control frames");

/// Where received messages go.
pub(super) enum Endpoint {
    /// Echoes messages of at most this many bytes; 0 is the server's own limit.
    Echo(u32),
    Dialect(Connection),
    /// The connection is one leg of a proxied WebSocket.
    ProxyLeg(Box<ProxyLeg>),
    /// The dialect has refused the connection, and its close frame is queued.
    Refused,
}

impl Socket {
    pub(super) fn new(
        input: Input,
        endpoint: Endpoint,
        channel: Option<Box<Channel>>,
        policy: Option<Box<ConnectionPolicy>>,
        now_ms: u64,
    ) -> Socket {
        Socket {
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

    /// Whether the connection is open and a lease deadline is due.
    pub(super) fn has_expired(&self, cx: &Context<'_>) -> bool {
        self.is_open() && self.lease_deadline().due(cx.now)
    }

    /// Our role on this WebSocket: the client's on a connection to an upstream, else the server's.
    fn role(&self) -> ws::Role {
        self.leg().map_or(ws::Role::Server, |leg| leg.role)
    }

    pub(super) fn is_open(&self) -> bool {
        self.closing.may_send_data()
    }

    pub(super) fn step(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> (usize, StageResult) {
        self.liveness.heard(cx.now);
        let (role, limits) = (self.role(), self.limits(cx.env));
        // What the peer sends after our close frame is ignored (RFC 6455 section 5.5.1).
        let ignores = !self.is_open() && self.leg().is_none();
        if let Some(parked) = self.policy.as_mut().and_then(|policy| policy.parked.take()) {
            return (0, self.unpark(parked, out, deadline, cx));
        }
        if self.is_unpacking() {
            return (0, self.unpack_on(&limits, ignores, out, deadline, cx));
        }
        let (taken, event) = self.input.next(role, &limits, input);
        let mut wanted = None;
        let after = match event {
            FrameEvent::Need if ignores => StageResult::Need,
            FrameEvent::Need => self.needs_more(&limits, out, deadline, cx),
            FrameEvent::Message { .. } | FrameEvent::Ping(_) | FrameEvent::Pong(_) if ignores => {
                StageResult::Again
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
                let (rules, park) = match self.policy.as_deref_mut() {
                    Some(policy) => (policy.rules.as_ref(), Some(&mut policy.parked)),
                    None => (None, None),
                };
                let channel = self.channel.as_deref_mut();
                let (endpoint, wanted) = (&mut self.endpoint, &mut wanted);
                let mut to = Recipient { endpoint, channel, rules, park, wanted };
                to.give(kind, payload, out, cx);
                StageResult::Again
            }
            FrameEvent::Ping(payload) => self.endpoint.control(Opcode::Ping, payload, out, cx),
            FrameEvent::Pong(payload) => self.endpoint.control(Opcode::Pong, payload, out, cx),
            FrameEvent::Close { code, reason } => {
                let owed = self.closing.receive();
                if let Endpoint::ProxyLeg(leg) = &mut self.endpoint {
                    *deadline = leg.closed(code, reason, owed, cx);
                } else if owed && self.closing.send() {
                    self.push_close(out, self.close_reply(code), "");
                }
                self.when_closed()
            }
            FrameEvent::Violation(violation) => self.violated(violation, out, cx),
        };
        self.input.take_back();
        self.close_if(wanted, out, deadline, cx);
        (taken, after)
    }

    /// The close code with which the peer's close frame is answered.
    fn close_reply(&self, code: Option<u16>) -> Option<u16> {
        match &self.endpoint {
            Endpoint::Dialect(it) => it.close_reply(code),
            _ => code,
        }
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
    ) -> StageResult {
        cx.counters.control_floods.add(1);
        let closing = self.before_close(FLOOD, out, cx);
        self.close_if(Some(closing), out, deadline, cx);
        StageResult::Again
    }

    /// Handles the state after all received bytes were taken: partial compressed messages, empty
    /// frames, and the deadline of an unfinished message.
    fn needs_more(
        &mut self,
        limits: &ws::FrameLimits,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> StageResult {
        let empty = self.input.take_empty_frames();
        match self.unpack_part(limits, cx) {
            Err(violation) => self.violated(violation, out, cx),
            Ok(()) if empty > 0 && self.rate_limit.is_over(empty, cx) => {
                self.is_over_limit(out, deadline, cx)
            }
            Ok(()) => self.time_message(deadline, cx),
        }
    }

    /// Sets the deadline of an unfinished message. Its timeout runs from its first byte, however
    /// its bytes are spread over time.
    fn time_message(&mut self, deadline: &mut Deadline, cx: &Context<'_>) -> StageResult {
        if !self.input.mid_message() {
            self.begun = 0;
        } else if self.begun == 0 {
            self.begun = (cx.now.ms as u32).max(1);
            *deadline = (*deadline).min(self.message_deadline(cx));
        }
        StageResult::Need
    }

    pub(super) fn message_deadline(&self, cx: &Context<'_>) -> Deadline {
        Deadline(full(self.begun, cx.now) + cx.env.config.timeouts.message_ms)
    }

    pub(super) fn violated(
        &mut self,
        violation: Violation,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> StageResult {
        cx.counters.violations.add(1);
        let mut closing = Closing::new(violation.code(), violation.reason());
        if violation == Violation::TooBig {
            closing = self.before_close(closing, out, cx);
        }
        self.close(&closing, out);
        StageResult::End(Ending::Flush)
    }

    /// The earlier of the dialect's own deadline and that of the token leases.
    pub(super) fn own_deadline(&self) -> Deadline {
        self.lease_deadline().min(self.dialect_deadline())
    }

    /// When a token expires or has to be challenged.
    pub(super) fn lease_deadline(&self) -> Deadline {
        let leases = self.policy.as_ref().and_then(|policy| policy.leases.as_ref());
        leases.map_or(Deadline::NEVER, |leases| leases.deadline())
    }

    pub(super) fn dialect_deadline(&self) -> Deadline {
        match &self.endpoint {
            Endpoint::Dialect(it) => it.deadline(),
            _ => Deadline::NEVER,
        }
    }

    /// Whether a token has expired and was not replaced. Counts challenges that are due.
    pub(super) fn expiry(&mut self, cx: &Context<'_>) -> bool {
        if !self.has_expired(cx) {
            return false;
        }
        let leases = self.policy.as_mut().and_then(|policy| policy.leases.as_mut());
        match leases.map_or(Expiry::None, |leases| leases.look(cx.now)) {
            Expiry::None => return false,
            Expiry::Challenge => cx.counters.guard_challenges.add(1),
            Expiry::Expired => {
                cx.counters.guard_expired.add(1);
                return true;
            }
        }
        false
    }

    /// Whether the reader holds no memory that a further step would free, and no event to report.
    pub(super) fn keeps_nothing(&self) -> bool {
        self.input.keeps_nothing()
    }

    /// Whether messages may be compressed.
    pub(super) fn compresses(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.records().is_none())
    }

    pub(super) fn push_close(&self, out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
        if self.records().is_some() {
            return record::push_end(out, code, reason);
        }
        // Without a code the payload of the close frame is empty.
        let payload = close::payload(code.unwrap_or(close::NO_CODE), reason);
        frame::push(out, Opcode::Close, &payload, self.leg().and_then(ProxyLeg::close_mask));
    }

    /// The format of messages to the peer, for events that have several encodings.
    pub(super) fn format(&self) -> Format {
        match &self.endpoint {
            Endpoint::Dialect(it) => it.format(),
            _ => Format::Json,
        }
    }

    /// The negotiated compression of messages, or for an HTTP stream the framing of its records.
    pub(super) fn channel(&mut self) -> Option<&mut Channel> {
        self.channel.as_deref_mut()
    }

    fn limits(&self, env: &Env) -> ws::FrameLimits {
        let limits = self.unmodelled_limits(env);
        let is_modelled = self.policy.as_ref().is_some_and(|policy| policy.rules.is_some());
        let max = if is_modelled { env.config.limits.model_message_bytes } else { u64::MAX };
        ws::FrameLimits { message_bytes: limits.message_bytes.min(max), ..limits }
    }

    fn unmodelled_limits(&self, env: &Env) -> ws::FrameLimits {
        let allow_rsv1 = self.compresses();
        match &self.endpoint {
            Endpoint::Dialect(it) => ws::FrameLimits { allow_rsv1, ..it.limits(env) },
            other => {
                let limits = &env.config.limits;
                let own = match other {
                    Endpoint::Echo(own @ 1..) => u64::from(*own),
                    _ => u64::MAX,
                };
                ws::FrameLimits {
                    frame_bytes: limits.frame_bytes.min(own),
                    message_bytes: limits.message_bytes.min(own),
                    fragments: limits.fragments,
                    allow_rsv1,
                }
            }
        }
    }

    /// Handles a deadline that is due: sends the next heartbeat, or closes the connection.
    pub(super) fn on_deadline(
        &mut self,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> StageResult {
        let now = cx.now;
        if !self.is_open() {
            // The peer did not send its close frame in time.
            cx.counters.timed_out.add(1);
            return StageResult::End(Ending::Cut);
        }
        if self.input.mid_message() && self.message_deadline(cx).due(now) {
            return self.end_late(out, cx);
        }
        if self.expiry(cx) {
            self.close(&EXPIRED, out);
            *deadline = now.plus_ms(cx.env.config.timeouts.close_ms);
            return StageResult::Again;
        }
        if self.dialect_deadline().due(now) {
            let after = self.call_dialect(out, cx, |it, context| it.on_deadline(context));
            if !self.is_open() {
                *deadline = now.plus_ms(cx.env.config.timeouts.close_ms);
                return after;
            }
        }
        let due = self.liveness.due(self.heartbeat_times(cx), self.records().is_none(), now);
        if let HeartbeatDue::Record(_) = due {
            self.push_heartbeat(out);
        }
        let until = match due {
            HeartbeatDue::Heard(until) if self.input.mid_message() => {
                until.min(self.message_deadline(cx))
            }
            HeartbeatDue::Heard(until) | HeartbeatDue::Asked(until) => until,
            HeartbeatDue::Record(until) => until,
            HeartbeatDue::Ping(until) => {
                self.send_ping(out, cx);
                until
            }
            HeartbeatDue::AppPing(until) => {
                self.call_dialect(out, cx, |it, context| it.app_ping(context));
                until
            }
            HeartbeatDue::Silent => {
                cx.counters.timed_out.add(1);
                return self.close_for(Why::Silent, out, cx);
            }
        };
        *deadline = until.min(self.own_deadline());
        StageResult::Again
    }

    /// Closes the connection because a message did not arrive within `timeouts.message_ms`.
    fn end_late(&mut self, out: &mut Vec<u8>, cx: &Context<'_>) -> StageResult {
        cx.counters.timed_out.add(1);
        self.close(&LATE, out);
        StageResult::End(Ending::Flush)
    }

    /// The heartbeat times of this connection, spread by its index.
    fn heartbeat_times(&self, cx: &Context<'_>) -> Heartbeat {
        spread(self.heartbeat(cx.env), cx.conn.slot)
    }

    /// When the first heartbeat is sent, or an earlier deadline of the connection's own is due.
    pub(super) fn first_deadline(&self, cx: &Context<'_>) -> Deadline {
        cx.now.plus_ms(self.heartbeat_times(cx).silence_ms).min(self.own_deadline())
    }

    /// The configured heartbeat times: how long the peer may be silent, and how long it has to
    /// answer, in milliseconds.
    pub(super) fn heartbeat(&self, env: &Env) -> Heartbeat {
        match &self.endpoint {
            Endpoint::Dialect(it) => it.heartbeat(env),
            _ => {
                let pusher = &env.config.pusher;
                let (silence_s, answer_s) = (pusher.activity_timeout_s, pusher.pong_timeout_s);
                Heartbeat { silence_ms: silence_s * 1000, answer_ms: answer_s * 1000 }
            }
        }
    }

    /// Sends our close frame if none was sent yet. The caller's deadline bounds the wait for the
    /// peer's.
    pub(super) fn close(&mut self, closing: &Closing, out: &mut Vec<u8>) {
        if self.closing.send() {
            self.push_close(out, Some(closing.code), &closing.reason);
        }
        if let Some(leg) = self.leg_mut() {
            leg.note_closed_by_server();
        }
    }

    pub(super) fn close_for(
        &mut self,
        why: Why,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> StageResult {
        let closing = match &self.endpoint {
            Endpoint::Dialect(it) => it.closing(why),
            _ => plain_closing(why),
        };
        let closing = self.before_close(closing, out, cx);
        self.close(&closing, out);
        match why {
            // The peer will not answer soon: the write queue is sent, and the connection ends
            // without waiting for the peer's close frame.
            Why::Slow | Why::Silent => StageResult::End(Ending::Flush),
            Why::Draining => StageResult::Again,
        }
    }

    /// Lets the dialect send its own message before a close, and choose how to close.
    pub(super) fn before_close(
        &mut self,
        closing: Closing,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Closing {
        match &mut self.endpoint {
            Endpoint::Dialect(it) if self.closing.may_send_data() => {
                let channel = self.channel.as_deref_mut();
                it.before_close(&mut context(out, channel, &mut None, cx), closing)
            }
            _ => closing,
        }
    }

    pub(super) fn answered(
        &mut self,
        part: u16,
        answer: Answer,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> StageResult {
        self.call_dialect(out, cx, |it, context| it.answered(context, part, answer))
    }

    pub(super) fn joined(
        &mut self,
        name: &str,
        outcome: JoinOutcome,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> StageResult {
        self.call_dialect(out, cx, |it, context| it.joined(context, name, outcome))
    }

    pub(super) fn not_subscribed(
        &mut self,
        name: &str,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> StageResult {
        self.call_dialect(out, cx, |it, context| it.not_subscribed(context, name))
    }

    pub(super) fn queue_bytes(&self, env: &Env) -> usize {
        match &self.endpoint {
            Endpoint::Dialect(it) => it.queue_bytes(env),
            _ => env.config.limits.write_queue_bytes,
        }
    }

    pub(super) fn overrun(&mut self, env: &Env) -> SlowConsumer {
        match &mut self.endpoint {
            Endpoint::Dialect(it) => it.overrun(env),
            _ => env.config.slow_consumer,
        }
    }

    pub(super) fn on_message(
        &mut self,
        what: &DialectMessage,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> StageResult {
        self.call_dialect(out, cx, |it, context| it.on_message(context, what))
    }

    pub(super) fn on_reload(&mut self, out: &mut Vec<u8>, cx: &mut Context<'_>) -> StageResult {
        self.call_dialect(out, cx, |it, context| it.on_reload(context))
    }

    /// Calls the dialect, unless the connection is closing.
    pub(super) fn call_dialect(
        &mut self,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
        what: impl FnOnce(&mut Connection, &mut DialectContext<'_>),
    ) -> StageResult {
        let mut wanted = None;
        if self.is_open()
            && let Endpoint::Dialect(it) = &mut self.endpoint
        {
            let channel = self.channel.as_deref_mut();
            what(it, &mut context(out, channel, &mut wanted, cx));
        }
        if let Some(closing) = wanted {
            self.close(&closing, out);
        }
        StageResult::Again
    }

    pub(super) fn on_close(&mut self, env: &Env, us: ConnId, out: &mut Effects<'_>) {
        if let Endpoint::Dialect(it) = &mut self.endpoint {
            it.on_close(env, us, out);
        }
    }

    pub(super) fn on_drop(&mut self, env: &Env, codecs: &mut Codecs) {
        if let Endpoint::Dialect(it) = &mut self.endpoint {
            it.on_drop(env);
        }
        if let Some(channel) = &mut self.channel {
            channel.release(codecs);
        }
    }
}

/// The server's close reasons with the codes of RFC 6455, for endpoints without a dialect.
fn plain_closing(why: Why) -> Closing {
    match why {
        Why::Silent => Closing::new(close::GOING_AWAY, "no sign of life"),
        Why::Draining => Closing::new(close::GOING_AWAY, "the server is shutting down"),
        Why::Slow => Closing::new(close::POLICY, "the client does not read what it is sent"),
    }
}
