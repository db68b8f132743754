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
mod respond;
mod route;
mod transition;
mod unpack;
pub mod upgrade;
mod websocket;

pub(super) use http::Requests;
pub(super) use proxy::ProxyLeg;
pub(super) use transition::Transition;
pub(super) use websocket::{Framing, WebSocket};

use super::Context;
use super::effect::{Dial, PeerMessage};
use super::ending::{Ending, Progress};
use super::front::Front;
use crate::codec::Format;
use crate::config::SlowConsumer;
use crate::dialect::{Closing, Effects, Env, Why};
use crate::http::{Connection, Response};
use crate::hub::ConnId;
use crate::mem::Slot;
use crate::time::Deadline;
use crate::ws::close;
use crate::ws::output::Codecs;
use crate::ws::record::RecordFraming;
use connecting::PendingUpstream;
use dialling::Dialling;

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

    /// A stream of events whose client does not send, for tests.
    #[cfg(test)]
    pub(super) fn event_stream() -> Stage {
        let input = records::Input::Records(Box::new(records::Records::none()));
        let channel = crate::ws::output::Channel::of_records(RecordFraming::Events);
        let endpoint = endpoint::Endpoint::Echo(0);
        Stage::WebSocket(WebSocket::new(input, endpoint, Some(Box::new(channel)), None, 0))
    }

    // --- what it is ---

    /// The requests, in the HTTP stage.
    pub(super) fn requests(&self) -> Option<&Requests> {
        match self {
            Stage::Http(requests) => Some(requests),
            _ => None,
        }
    }

    pub(super) fn requests_mut(&mut self) -> Option<&mut Requests> {
        match self {
            Stage::Http(requests) => Some(requests),
            _ => None,
        }
    }

    /// The WebSocket, in that stage.
    pub(super) fn websocket(&self) -> Option<&WebSocket> {
        match self {
            Stage::WebSocket(socket) => Some(socket),
            _ => None,
        }
    }

    pub(super) fn websocket_mut(&mut self) -> Option<&mut WebSocket> {
        match self {
            Stage::WebSocket(socket) => Some(socket),
            _ => None,
        }
    }

    /// The leg of a proxied connection, if this is a WebSocket that is one.
    pub(super) fn leg_mut(&mut self) -> Option<&mut ProxyLeg> {
        self.websocket_mut()?.leg_mut()
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
            Stage::WebSocket(socket) => {
                let spent = socket.compresses() && cx.codecs.is_spent();
                if socket.has_place() {
                    // This connection has the core's place for large messages, and others wait for
                    // that place: it goes on even if its peer does not read.
                    return spent || cx.congested;
                }
                let parked = socket.is_held(cx) || socket.is_open() && socket.endpoint.is_full();
                let waits = spent || socket.awaits_place(cx) || parked;
                if starved {
                    return true;
                }
                if let Some(leg) = socket.leg() {
                    // Nearly all bytes in this queue come from the other leg, and what the client
                    // sends goes to the other leg. Only refusals of invalid messages add replies
                    // here.
                    let limits = &cx.env.config.limits;
                    let max = leg.max_waiting(limits) + limits.write_queue_bytes / 4;
                    return waits || leg.is_read_paused() || replies > max;
                }
                waits
            }
            Stage::Connecting(_) => return true,
            Stage::Dialling(_) => return false,
        };
        answers_wait
            || starved
            || cx.congested
            || replies > cx.env.config.limits.write_queue_bytes / 4
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

    // --- events ---

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

    /// Closes the connection for a reason of the server's own.
    pub(super) fn close_for(
        &mut self,
        why: Why,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        match self {
            Stage::WebSocket(socket) => socket.close_for(why, out, cx),
            Stage::Http(requests) if requests.ticket().is_some() => Progress::Need,
            Stage::Http(_) => Progress::End(Ending::Flush),
            Stage::Connecting(waiting) => waiting.shut_down(out, cx),
            // The client's leg refuses the client, and then ends this connection.
            Stage::Dialling(_) if why == Why::Draining => Progress::Need,
            Stage::Dialling(_) => Progress::End(Ending::Cut),
        }
    }

    /// Ends the connection because the core is short of memory, with a last reply if one fits.
    pub(super) fn end_for_memory(&mut self, out: &mut Vec<u8>, cx: &Context<'_>) -> Progress {
        match self {
            Stage::WebSocket(socket) => {
                let closing = Closing::new(close::TRY_AGAIN, "the server is short of memory");
                socket.close(&closing, out);
                Progress::End(Ending::Flush)
            }
            Stage::Http(requests) if requests.ticket().is_none() => {
                let answer = Response::text(503, "the server is short of memory\n");
                answer.connection(Connection::Close).push(out);
                cx.counters.http_errors.add(1);
                Progress::End(Ending::Flush)
            }
            _ => Progress::End(Ending::Cut),
        }
    }

    /// Handles a message from the other leg, or from the dial that is to become the other leg.
    pub(super) fn on_peer(
        &mut self,
        message: PeerMessage,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> Progress {
        match (&mut *self, message) {
            (Stage::WebSocket(socket), message) => socket.on_peer(message, out, cx),
            (Stage::Connecting(waiting), PeerMessage::Answered(Ok(protocol))) => {
                match waiting.linked(protocol, out, cx) {
                    Some(leg) => self.enter(Transition::Upgraded(Box::new(leg)), deadline, cx),
                    None => Progress::Need,
                }
            }
            (Stage::Connecting(waiting), PeerMessage::Answered(Err(cause))) => {
                waiting.unlinked(&cause, out, cx)
            }
            // The client is gone.
            (Stage::Dialling(_), PeerMessage::Close { .. }) => Progress::End(Ending::Cut),
            (Stage::Http(_) | Stage::Connecting(_) | Stage::Dialling(_), _) => Progress::Need,
        }
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

    /// Whether this client waits for a dial that has no slot yet.
    pub(super) fn waits_for_dial(&self) -> bool {
        matches!(self, Stage::Connecting(waiting) if waiting.dialled.is_none())
    }

    /// Notes that the connection which is being dialled for this client has slot `slot`.
    pub(super) fn dials(&mut self, slot: Slot) {
        if let Stage::Connecting(waiting) = self {
            waiting.dialled = Some(slot);
        }
    }
}
