//! The stages of a connection. Only this file distinguishes them: a request comes first, then a
//! WebSocket, and before the WebSocket of a proxy route the wait for its upstream.
//!
//! A stage knows nothing of the write queue, of TLS and of the shard: it takes input, appends its
//! replies to a buffer, and returns what follows.

mod connecting;
mod cors;
mod dialling;
mod endpoint;
mod events;
mod heartbeat;
mod http;
mod inbound;
mod outbound;
mod parked;
mod policy;
mod proxy;
mod rate_limit;
mod records;
mod replies;
mod respond;
mod route;
mod timers;
mod transition;
mod unpack;
pub mod upgrade;
mod websocket;

pub(super) use websocket::Framing;

use super::ending::{Ending, Progress};
use super::front::Front;
use super::{Context, Dial, SessionEvent};
use crate::codec::Format;
use crate::config::SlowConsumer;
use crate::dialect::{DialectMessage, Effects, Env, PeerMessage};
use crate::hub::ConnId;
use crate::mem::Slot;
use crate::stats::{Counters, Streams};
use crate::time::Deadline;
use crate::ws::output::Codecs;
use crate::ws::record::RecordFraming;
use connecting::PendingUpstream;
use dialling::Dialling;
use http::Requests;
use proxy::ProxyLeg;
use transition::Transition;
use websocket::WebSocket;

/// What a connection is now.
pub(super) enum Stage {
    Http(Box<Requests>),
    WebSocket(WebSocket),
    /// A client on a proxy route, waiting for an upstream.
    Connecting(Box<PendingUpstream>),
    /// A connection to an upstream that has not accepted the handshake yet.
    Dialling(Box<Dialling>),
}

impl Stage {
    /// The stage of a connection that was just accepted.
    pub(super) fn accepted(front: Option<Front>) -> Stage {
        Stage::Http(Box::new(Requests::new(front)))
    }

    /// The stage of a connection that is being dialled.
    pub(super) fn dialled(dial: Dial) -> Stage {
        Stage::Dialling(Box::new(Dialling::new(dial)))
    }

    /// A WebSocket that echoes, for tests.
    #[cfg(test)]
    pub(super) fn echo() -> Stage {
        let endpoint = endpoint::Endpoint::Echo(0);
        Stage::WebSocket(WebSocket::new(records::Input::FRAMES, endpoint, None, None, 0))
    }

    /// The client's leg of a proxied connection whose other leg is at `other`, for tests.
    #[cfg(test)]
    pub(super) fn proxy_leg(other: Slot) -> Stage {
        let keys = &mut super::MaskKeys::default();
        let leg = ProxyLeg::new(crate::ws::Role::Server, other, 1 << 16, keys);
        let endpoint = endpoint::Endpoint::ProxyLeg(Box::new(leg));
        Stage::WebSocket(WebSocket::new(records::Input::FRAMES, endpoint, None, None, 0))
    }

    /// A stream of events whose client does not send, for tests.
    #[cfg(test)]
    pub(super) fn event_stream() -> Stage {
        Stage::event_stream_with(crate::ws::event_ids::EventIds::default())
    }

    /// The same for several channels, with the positions of the ids.
    #[cfg(test)]
    pub(super) fn event_stream_with(ids: crate::ws::event_ids::EventIds) -> Stage {
        let input = records::Input::Records(Box::new(records::Records::none()));
        let channel = crate::ws::output::Channel::of_records(RecordFraming::Events).with_ids(ids);
        let endpoint = endpoint::Endpoint::Echo(0);
        Stage::WebSocket(WebSocket::new(input, endpoint, Some(Box::new(channel)), None, 0))
    }

    // --- what it is ---

    fn requests(&self) -> Option<&Requests> {
        match self {
            Stage::Http(requests) => Some(requests),
            _ => None,
        }
    }

    /// What is known of the proxy in front, in the HTTP stage.
    pub(super) fn front(&self) -> Option<&Front> {
        self.requests()?.front.as_ref()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Front> {
        match self {
            Stage::Http(requests) => requests.front.as_mut(),
            _ => None,
        }
    }

    fn websocket(&self) -> Option<&WebSocket> {
        match self {
            Stage::WebSocket(socket) => Some(socket),
            _ => None,
        }
    }

    fn websocket_mut(&mut self) -> Option<&mut WebSocket> {
        match self {
            Stage::WebSocket(socket) => Some(socket),
            _ => None,
        }
    }

    fn leg(&self) -> Option<&ProxyLeg> {
        self.websocket()?.leg()
    }

    /// Whether the connection is in its HTTP stage.
    pub(super) fn is_http(&self) -> bool {
        self.requests().is_some()
    }

    /// Whether no whole request has been read yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.requests().is_some_and(Requests::is_fresh)
    }

    /// Whether this is an idle HTTP connection: it has had a request and waits for the next.
    pub(super) fn is_idle(&self) -> bool {
        self.requests().is_some_and(Requests::is_idle)
    }

    /// Whether this is a WebSocket whose close has not begun.
    pub(super) fn is_open_socket(&self) -> bool {
        self.websocket().is_some_and(WebSocket::is_open)
    }

    /// Whether this is a WebSocket whose close has begun.
    pub(super) fn is_closing(&self) -> bool {
        self.websocket().is_some_and(|socket| !socket.is_open())
    }

    /// Whether this is an HTTP stream whose end was sent. Its client sends no close frame: the
    /// connection ends without waiting for one.
    pub(super) fn is_through(&self) -> bool {
        self.websocket().is_some_and(WebSocket::is_through)
    }

    /// Whether this is one leg of a proxied connection.
    pub(super) fn is_leg(&self) -> bool {
        self.leg().is_some()
    }

    /// Whether more than `buffer_bytes` wait for the peer of this leg.
    pub(super) fn is_full_leg(&self) -> bool {
        self.leg().is_some_and(ProxyLeg::is_full)
    }

    /// Whether this is a connection to an upstream whose handshake is not answered.
    pub(super) fn is_dialling(&self) -> bool {
        matches!(self, Stage::Dialling(_))
    }

    /// Whether this is a connection to an upstream.
    pub(super) fn is_upstream(&self) -> bool {
        match self {
            Stage::Dialling(_) => true,
            Stage::WebSocket(socket) => socket.dials(),
            Stage::Http(_) | Stage::Connecting(_) => false,
        }
    }

    /// The format of messages to the peer, for events that have several encodings.
    pub(super) fn format(&self) -> Format {
        match self {
            Stage::WebSocket(socket) => socket.endpoint.format(),
            _ => Format::Json,
        }
    }

    /// Whether messages to the peer are server-sent events.
    pub(super) fn is_event_stream(&self) -> bool {
        self.websocket().is_some_and(|socket| socket.records() == Some(RecordFraming::Events))
    }

    /// What messages to the peer look like on the wire.
    pub(super) fn framing(&mut self) -> Framing<'_> {
        match self {
            Stage::WebSocket(socket) => socket.framing(),
            _ => Framing::Plain,
        }
    }

    /// The maximum number of bytes of shared frames in this peer's write queue.
    pub(super) fn queue_bytes(&self, env: &Env) -> usize {
        match self {
            Stage::WebSocket(socket) => socket.endpoint.queue_bytes(env),
            _ => env.config.limits.write_queue_bytes,
        }
    }

    /// The policy for a peer whose write queue has exceeded [`Stage::queue_bytes`].
    pub(super) fn overrun(&mut self, env: &Env) -> SlowConsumer {
        match self {
            Stage::WebSocket(socket) => socket.endpoint.overrun(env),
            _ => env.config.slow_consumer,
        }
    }

    // --- input ---

    /// Handles at most one message or request from the front of `input`. Returns the number of
    /// bytes taken, and what follows, which is given to [`Stage::enter`].
    pub(super) fn step(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> (usize, Transition) {
        match self {
            Stage::Http(requests) => requests.step(input, out, deadline, cx),
            Stage::WebSocket(socket) => {
                let (taken, after) = socket.step(input, out, deadline, cx);
                if socket.is_open() {
                    *deadline = (*deadline).min(socket.own_deadline());
                }
                (taken, Transition::Stay(after))
            }
            Stage::Dialling(dialling) => dialling.step(input, cx),
            Stage::Connecting(_) => (0, Transition::NEED),
        }
    }

    /// Replaces the stage by the one that follows it, if any.
    pub(super) fn enter(
        &mut self,
        after: Transition,
        deadline: &mut Deadline,
        cx: &Context<'_>,
    ) -> Progress {
        match after {
            Transition::Stay(progress) => return progress,
            Transition::Upgraded(socket) => {
                *deadline = socket.first_deadline(cx);
                *self = Stage::WebSocket(*socket);
            }
            Transition::Connecting(waiting) => {
                *deadline = waiting.deadline(cx.now);
                *self = Stage::Connecting(waiting);
            }
        }
        Progress::Again
    }

    /// Whether input has to wait. `replies` is the number of bytes of replies in the write queue,
    /// `starved` whether the core is short of memory.
    pub(super) fn must_hold(&self, replies: usize, starved: bool, cx: &Context<'_>) -> bool {
        let answers_wait = match self {
            Stage::Http(requests) => requests.is_full(),
            Stage::WebSocket(socket) => return socket.must_hold(replies, starved, cx),
            Stage::Connecting(_) => return true,
            Stage::Dialling(_) => return false,
        };
        answers_wait
            || starved
            || cx.congested
            || replies > cx.env.config.limits.write_queue_bytes / 4
    }

    /// Whether no received bytes are kept: a WebSocket between two messages.
    pub(super) fn keeps_nothing(&self) -> bool {
        self.websocket().is_some_and(WebSocket::keeps_nothing)
    }

    /// Whether a whole message waits for the core's place for large messages, which is not free.
    pub(super) fn awaits_place(&self, cx: &Context<'_>) -> bool {
        self.websocket().is_some_and(|socket| socket.awaits_place(cx))
    }

    /// Whether a message that was received waits: for its schema, or to be decompressed in a later
    /// turn.
    pub(super) fn has_parked(&self) -> bool {
        self.websocket().is_some_and(|socket| socket.has_parked() || socket.is_unpacking())
    }

    /// Heap bytes of input that was not handled yet.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Stage::Http(requests) => requests.held_bytes(),
            Stage::WebSocket(socket) => socket.held_bytes(),
            Stage::Dialling(dialling) => dialling.held_bytes(),
            Stage::Connecting(_) => 0,
        }
    }

    /// Frees the input of a connection that has ended.
    pub(super) fn discard(&mut self) {
        match self {
            Stage::Http(requests) => requests.discard(),
            Stage::WebSocket(socket) => socket.discard(),
            Stage::Connecting(_) | Stage::Dialling(_) => {}
        }
    }

    /// Discards a message that is being decompressed if the connection no longer needs it. `ended`
    /// is whether the connection ends.
    pub(super) fn drop_unneeded(&mut self, ended: bool, cx: &mut Context<'_>) {
        if let Stage::WebSocket(socket) = self
            && (ended || !socket.is_open() && socket.leg().is_none())
        {
            socket.drop_unpacking(cx);
        }
    }

    // --- replies to requests ---

    /// The ticket of the newest HTTP request that is not answered yet.
    pub(super) fn ticket(&self) -> Option<u32> {
        self.requests()?.ticket()
    }

    /// The ticket under which a publish is acknowledged. For a WebSocket it is 0, and only
    /// publishes with a `part` above 0 are acknowledged.
    pub(super) fn ticket_of_publish(&self, part: u16) -> Option<u32> {
        match self {
            Stage::Http(requests) => requests.ticket(),
            Stage::WebSocket(_) => (part > 0).then_some(0),
            _ => None,
        }
    }

    /// Whether the reply to request `ticket` is made from answers of channels' homes.
    pub(super) fn collects_answers(&self, ticket: u32) -> bool {
        match self {
            Stage::Http(requests) => requests.collects_answers(ticket),
            Stage::WebSocket(_) => true,
            _ => false,
        }
    }

    /// Whether the oldest reply is complete.
    pub(super) fn has_ready_reply(&self) -> bool {
        self.requests().is_some_and(Requests::has_ready_reply)
    }

    /// Moves the replies that are complete into `out`. Returns true if the connection ends after
    /// them.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>, cx: &Context<'_>) -> bool {
        match self {
            Stage::Http(requests) => requests.flush(out, cx),
            _ => false,
        }
    }

    // --- events ---

    /// Handles an event of the connection.
    pub(super) fn on(
        &mut self,
        event: SessionEvent<'_>,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> Progress {
        match self {
            Stage::Http(requests) => requests.on(event, out, cx),
            Stage::WebSocket(socket) => socket.on(event, out, cx),
            Stage::Dialling(dialling) => dialling.on(&event),
            Stage::Connecting(waiting) => match waiting.on(event, out, cx) {
                Ok(progress) => progress,
                Err(leg) => self.enter(Transition::Upgraded(leg), deadline, cx),
            },
        }
    }

    /// Gives a message from another connection to the dialect.
    #[inline]
    pub(super) fn on_message(
        &mut self,
        what: &DialectMessage,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        match self {
            Stage::WebSocket(socket) => socket.on_message(what, out, cx),
            _ => Progress::Need,
        }
    }

    /// The deadline of a WebSocket after an event: `before` or an earlier one of its own, or that
    /// of the close that the event has begun.
    #[inline]
    pub(super) fn deadline_after(&self, before: Deadline, cx: &Context<'_>) -> Deadline {
        match self {
            Stage::WebSocket(socket) if socket.is_open() => before.min(socket.own_deadline()),
            Stage::WebSocket(_) => cx.now.plus_ms(cx.env.config.timeouts.close_ms),
            _ => before,
        }
    }

    /// When a token expires or has to be challenged, if this is a WebSocket and that time has not
    /// come.
    pub(super) fn valid_lease(&self, cx: &Context<'_>) -> Option<Deadline> {
        let socket = self.websocket().filter(|socket| !socket.has_expired(cx))?;
        Some(socket.lease_deadline())
    }

    /// Handles a deadline that is due.
    pub(super) fn on_deadline(
        &mut self,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> Progress {
        match self {
            Stage::Http(requests) => requests.on_deadline(out, cx),
            Stage::WebSocket(socket) => socket.on_deadline(out, deadline, cx),
            Stage::Dialling(dialling) => dialling.on_deadline(),
            Stage::Connecting(waiting) => waiting.on_deadline(out, cx),
        }
    }

    /// Handles the end of the peer's side. `otherwise` is how a WebSocket ends without a closing
    /// handshake.
    pub(super) fn on_eof(&mut self, otherwise: Ending, out: &mut Vec<u8>) -> Progress {
        match self {
            Stage::WebSocket(socket) if socket.has_sent_all() => socket.hang_up(out),
            Stage::WebSocket(_) => Progress::End(otherwise),
            Stage::Http(requests) if requests.ticket().is_some() => Progress::Need,
            Stage::Dialling(dialling) => {
                dialling.ended();
                Progress::End(Ending::Cut)
            }
            Stage::Http(_) | Stage::Connecting(_) => Progress::End(Ending::Flush),
        }
    }

    /// Notes that `replies` bytes wait for the peer of this leg.
    pub(super) fn note_waiting(&mut self, replies: usize) {
        if let Some(leg) = self.websocket_mut().and_then(WebSocket::leg_mut) {
            leg.note_waiting(replies);
        }
    }

    /// Returns the other leg if this leg was full and little enough waits for its peer now.
    pub(super) fn has_drained(&mut self, replies: usize) -> Option<Slot> {
        self.websocket_mut()?.leg_mut()?.has_drained(replies)
    }

    /// The close message for the other leg, if this connection has not reported its end. `ends` is
    /// whether the connection ends.
    pub(super) fn last_message(
        &mut self,
        ends: bool,
        draining: bool,
    ) -> Option<(Slot, PeerMessage)> {
        match self {
            Stage::Http(_) => None,
            Stage::WebSocket(socket) => socket.leg_mut()?.take_last_message(ends, draining),
            Stage::Connecting(waiting) if ends => waiting.last_message(),
            Stage::Dialling(dialling) if ends => dialling.last_message(),
            Stage::Connecting(_) | Stage::Dialling(_) => None,
        }
    }

    /// Releases what the connection holds outside its own memory, such as compression windows.
    pub(super) fn drop_state(&mut self, env: &Env, codecs: &mut Codecs) {
        match self {
            Stage::WebSocket(socket) => socket.drop_state(env, codecs),
            Stage::Connecting(waiting) => waiting.drop_state(codecs),
            Stage::Http(_) | Stage::Dialling(_) => {}
        }
    }

    /// Adds the effects that are due for other connections when this one is closed.
    pub(super) fn on_close(&mut self, env: &Env, us: ConnId, out: &mut Effects<'_>) {
        if let Stage::WebSocket(socket) = self {
            socket.endpoint.on_close(env, us, out);
        }
    }

    // --- counters ---

    /// Counts bytes of a WebSocket, and the WebSocket itself with its first bytes.
    pub(super) fn count(&mut self, received: usize, sent: usize, streams: &Streams) {
        if let Stage::WebSocket(socket) = self {
            socket.count(received, sent, streams);
        }
    }

    /// Counts how a WebSocket has ended, if it was counted.
    pub(super) fn count_end(&self, counters: &Counters, listener: u16) {
        if let Stage::WebSocket(socket) = self {
            socket.count_end(counters, listener);
        }
    }

    // --- dials ---

    /// Notes that the connection to the upstream is established. Returns the timeout of the
    /// handshake, in milliseconds; `None` if this is no such connection.
    pub(super) fn connected(&mut self) -> Option<u64> {
        match self {
            Stage::Dialling(dialling) => Some(dialling.connected()),
            _ => None,
        }
    }

    /// Takes the request of the handshake with an upstream; `None` if this is no connection to an
    /// upstream.
    pub(super) fn take_handshake(&mut self) -> Option<Vec<u8>> {
        match self {
            Stage::Dialling(dialling) => Some(dialling.take_request()),
            _ => None,
        }
    }

    /// Notes that TLS has failed.
    pub(super) fn note_no_tls(&mut self) {
        if let Stage::Dialling(dialling) = self {
            dialling.note_no_tls();
        }
    }

    /// Takes the dial that this client has requested and that has no slot yet.
    pub(super) fn take_dial(&mut self) -> Option<Box<Dial>> {
        match self {
            Stage::Connecting(waiting) => waiting.take_dial(),
            _ => None,
        }
    }
}
