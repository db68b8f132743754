//! One connection as a function of bytes and time: HTTP first, then a WebSocket with a dialect; and
//! its write queue.
//!
//! No function returns an error for what a peer does wrong: the peer gets a response or a close
//! frame, and the session an [`Ending`].

mod broadcast;
mod context;
mod cors;
mod counted;
mod heartbeat;
mod inbound;
mod memory;
mod open;
mod pause;
mod proxy;
mod queue;
mod rate_limit;
mod records;
mod request;
mod secure;
mod socket;
mod stream;
mod unpack;
pub mod upgrade;
mod upstream;

pub use broadcast::Broadcast;
pub use context::Context;
use context::context;
pub use memory::SendRate;
pub use pause::HeldInput;
pub use proxy::{MaskKeys, PeerMessage, ProxyEffect};
pub use queue::{QueueFull, WriteQueue};
pub use upstream::Dial;

use crate::config::SlowConsumer;
use crate::dialect::{Closing, Effects, Env, JoinOutcome, Why};
use crate::hub::{Answer, ConnId, DialectMessage};
use crate::mem::Segment;
use crate::time::{Deadline, Now};
use crate::tls::Filter;
use crate::ws::output::Codecs;
use pause::Share;
use request::Requests;
use socket::Socket;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use upstream::{Dialling, PendingUpstream};

/// How a connection is to end, if it is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// The connection stays open.
    #[default]
    Open,
    /// The write queue is sent, then our side is shut down, and the peer has until a deadline to
    /// end its side. Bytes that the peer still sends are read and discarded, so that the kernel
    /// sends no reset that could destroy data on its way to the peer.
    Flush,
    /// The connection is closed at once; the write queue is discarded.
    Cut,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All input was taken.
    Need,
    /// The step has handled something; the rest of the input may contain more.
    Again,
    /// The rest of the input has to wait: reading is paused until [`Session::may_resume`].
    Hold,
}

/// One connection. See the module's documentation.
pub struct Session {
    stage: Stage,
    queue: WriteQueue,
    /// The TLS state, if the connection uses TLS.
    filter: Option<Box<Filter>>,
    /// Input that is held while reading is paused, and whether reading is paused.
    held: Option<Box<HeldInput>>,
    paused: bool,
    /// How much of its share of this turn the connection has used.
    share: Share,
    /// The number of the connection's tokens that were not accepted.
    failures: u8,
    /// Whether the peer has ended its side.
    eof: bool,
    ending: Ending,
    /// Whether this session is on the shard's list of pending work. Only the shard sets it.
    pub listed: bool,
    /// Whether the shard counts this session among those without a whole request. Only the shard
    /// sets it.
    pub counted_fresh: bool,
    /// Whether this session is on one of the shard's lists of paused connections. Only the shard
    /// sets it.
    pub waits: bool,
    deadline: Deadline,
    /// The peer's address and port, without the padding of a `SocketAddr`. An IPv4 address is
    /// stored as an IPv4-mapped IPv6 address.
    ip: [u8; 16],
    port: u16,
    listener: u16,
    /// Whether reading is paused because the core is short of memory.
    starved: bool,
}

enum Stage {
    Http(Box<Requests>),
    Socket(Socket),
    /// A client on a proxy route, waiting for an upstream.
    Connecting(Box<PendingUpstream>),
    /// A connection to an upstream that has not accepted the handshake yet.
    Dialling(Box<Dialling>),
}

/// The result of a stage's step.
enum StageResult {
    Need,
    Again,
    Upgraded(Box<Socket>),
    Connecting(Box<PendingUpstream>),
    End(Ending),
}

impl Session {
    /// Creates the session of a connection that was just accepted by a listener.
    pub fn new(peer: SocketAddr, listener: u16, now: Now, env: &Env) -> Session {
        Session {
            stage: Stage::Http(Box::default()),
            queue: WriteQueue::default(),
            filter: None,
            held: None,
            paused: false,
            share: Share::default(),
            failures: 0,
            eof: false,
            ending: Ending::Open,
            listed: false,
            counted_fresh: false,
            waits: false,
            deadline: now.plus_ms(env.config.timeouts.head_ms),
            ip: octets(peer.ip()),
            port: peer.port(),
            listener,
            starved: false,
        }
    }

    /// The number of the listener that accepted the connection.
    pub fn listener(&self) -> u16 {
        self.listener
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port)
    }

    /// Whether no whole request has been read yet.
    pub fn is_fresh(&self) -> bool {
        match &self.stage {
            Stage::Http(requests) => requests.is_fresh(),
            _ => false,
        }
    }

    /// How the connection is to end.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Whether bytes from the peer are to be read now.
    pub fn wants_read(&self) -> bool {
        // With TLS, the end of the TCP stream is still read after the peer's close_notify alert.
        (!self.paused || self.may_read_ahead()) && (!self.eof || self.filter.is_some())
    }

    /// Bytes of shared frames in the write queue.
    pub fn waiting_bytes(&self) -> usize {
        self.queue.broadcasts()
    }

    /// Whether messages can be delivered to this session: it is a WebSocket and its close has not
    /// begun.
    pub fn is_open_socket(&self) -> bool {
        matches!(&self.stage, Stage::Socket(it) if self.ending == Ending::Open && it.is_open())
    }

    /// Handles at most one message or request from the front of `input`. Returns the number of
    /// bytes taken.
    pub fn step(&mut self, input: &mut [u8], cx: &mut Context<'_>) -> (usize, Step) {
        if self.ending != Ending::Open {
            return (input.len(), Step::Need);
        }
        if self.must_hold(cx) {
            self.paused = true;
            return (0, Step::Hold);
        }
        cx.failures = self.failures;
        let mut out = self.queue.open_tail();
        let (taken, after) = match &mut self.stage {
            Stage::Http(requests) => requests.step(input, &mut out, &mut self.deadline, cx),
            Stage::Socket(socket) => socket.step(input, &mut out, &mut self.deadline, cx),
            Stage::Dialling(dialling) => dialling.step(input, cx),
            Stage::Connecting(_) => (0, StageResult::Need),
        };
        if let Stage::Socket(socket) = &self.stage
            && socket.is_open()
        {
            self.deadline = self.deadline.min(socket.own_deadline());
        }
        self.queue.close_tail(out, cx.now.ms);
        let _ = self.queue.push_all(cx.shared, usize::MAX, cx.now.ms);
        self.note_failures(cx);
        match after {
            StageResult::Need => (taken, Step::Need),
            StageResult::Again if self.has_parked() => {
                self.paused = true;
                (taken, Step::Hold)
            }
            StageResult::Again => (taken, Step::Again),
            StageResult::Upgraded(socket) => {
                self.upgraded(*socket, cx);
                (taken, Step::Again)
            }
            StageResult::Connecting(waiting) => {
                // Each upstream has its own timeouts; all attempts together have twice those of
                // one.
                let one = waiting.proxy.connect_ms + waiting.proxy.handshake_ms;
                self.deadline = cx.now.plus_ms(2 * one);
                self.stage = Stage::Connecting(waiting);
                (taken, Step::Again)
            }
            StageResult::End(ending) => {
                self.end(ending, cx);
                (input.len(), Step::Need)
            }
        }
    }

    fn upgraded(&mut self, socket: Socket, cx: &Context<'_>) {
        self.deadline = match socket.is_open() {
            true => socket.first_deadline(cx),
            false => cx.now.plus_ms(cx.env.config.timeouts.close_ms).min(socket.own_deadline()),
        };
        self.stage = Stage::Socket(socket);
    }

    fn end(&mut self, ending: Ending, cx: &Context<'_>) {
        if self.ending == Ending::Open {
            self.ending = ending;
            self.deadline = cx.now.plus_ms(cx.env.config.timeouts.close_ms);
        }
        if ending == Ending::Cut {
            self.ending = ending;
        }
        if self.filter.is_some() {
            self.queue.waits(cx.now.ms); // TLS has its close_notify alert to send.
        }
        // Bytes from now on are read and discarded, even if reading was paused.
        self.paused = false;
        self.discard_input();
    }

    fn must_hold(&self, cx: &Context<'_>) -> bool {
        if cx.work.is_spent() {
            return true;
        }
        let answers_wait = match &self.stage {
            Stage::Http(requests) => requests.is_full(),
            Stage::Socket(socket) => {
                let spent = socket.compresses() && cx.codecs.is_spent();
                if socket.has_place() {
                    // This connection has the core's place for large messages, and others wait for
                    // that place: it goes on even if its peer does not read.
                    return spent || cx.congested;
                }
                let waits = spent || socket.awaits_place(cx) || socket.is_held(cx);
                if self.starved {
                    return true;
                }
                if let Some(leg) = socket.leg() {
                    // Nearly all bytes in this queue come from the other leg, and what the client
                    // sends goes to the other leg. Only refusals of invalid messages add replies
                    // here.
                    let limits = &cx.env.config.limits;
                    let max = leg.max_waiting(limits) + limits.write_queue_bytes / 4;
                    return waits || leg.is_read_paused() || self.queue.replies() > max;
                }
                waits
            }
            Stage::Connecting(_) => return true,
            Stage::Dialling(_) => return false,
        };
        answers_wait
            || self.starved
            || cx.congested
            || self.queue.replies() > cx.env.config.limits.write_queue_bytes / 4
    }

    /// Whether no received bytes are kept in the session: a WebSocket between two messages.
    pub fn keeps_nothing(&self) -> bool {
        match &self.stage {
            Stage::Socket(socket) => socket.keeps_nothing(),
            _ => false,
        }
    }

    /// Whether reading is paused although no reason for it is left.
    pub fn may_resume(&self, cx: &Context<'_>) -> bool {
        self.paused && !self.must_hold(cx)
    }

    /// Takes one answer for part `part` of request `ticket`, or of a query of the dialect.
    pub fn answered(&mut self, ticket: u32, part: u16, answer: Answer, cx: &mut Context<'_>) {
        match &mut self.stage {
            Stage::Http(requests) => requests.answered(ticket, part, answer),
            _ => self.with_socket(cx, |socket, out, cx| socket.answered(part, answer, out, cx)),
        }
    }

    /// Moves the replies that are complete into the write queue.
    pub fn settle(&mut self, cx: &mut Context<'_>) {
        self.drop_unneeded(cx);
        let requests = match &mut self.stage {
            Stage::Http(requests) => requests,
            // The client of an HTTP stream sends no close frame: the connection ends without
            // waiting for one.
            Stage::Socket(socket) if socket.is_through() => return self.end(Ending::Flush, cx),
            _ => return,
        };
        if !requests.has_ready_reply() {
            return;
        }
        let mut out = self.queue.open_tail();
        let last = requests.flush(&mut out, cx);
        self.queue.close_tail(out, cx.now.ms);
        // Held input may still contain requests.
        let done = self.eof && !self.paused && requests.ticket().is_none();
        if last || done {
            self.end(Ending::Flush, cx);
        }
    }

    /// Notes that the peer has ended its side.
    pub fn eof(&mut self, cx: &mut Context<'_>) {
        self.eof = true;
        if self.paused {
            return; // Handled when the held input has been stepped through.
        }
        self.note_truncation(cx);
        match &mut self.stage {
            _ if self.ending != Ending::Open => {}
            Stage::Socket(socket) if socket.has_sent_all() => {
                self.with_socket(cx, |socket, out, _| socket.hang_up(out));
            }
            Stage::Socket(_) => self.end(self.after_eof(), cx),
            Stage::Http(requests) if requests.ticket().is_some() => {}
            Stage::Dialling(dialling) => {
                dialling.ended();
                self.end(Ending::Cut, cx);
            }
            Stage::Http(_) | Stage::Connecting(_) => self.end(Ending::Flush, cx),
        }
    }

    /// Reports the outcome of a join to the dialect.
    pub fn joined(&mut self, name: &str, outcome: JoinOutcome, cx: &mut Context<'_>) {
        self.with_socket(cx, |socket, out, cx| socket.joined(name, outcome, out, cx));
    }

    /// Reports to the dialect that it has published to a channel to which it is not subscribed.
    pub fn not_subscribed(&mut self, name: &str, cx: &mut Context<'_>) {
        self.with_socket(cx, |socket, out, cx| socket.not_subscribed(name, out, cx));
    }

    /// The maximum number of bytes of shared frames in this peer's write queue.
    pub fn queue_bytes(&self, env: &Env) -> usize {
        match &self.stage {
            Stage::Socket(socket) => socket.queue_bytes(env),
            _ => env.config.limits.write_queue_bytes,
        }
    }

    /// The policy for a peer whose write queue has exceeded [`Session::queue_bytes`].
    pub fn overrun(&mut self, env: &Env) -> SlowConsumer {
        match &mut self.stage {
            Stage::Socket(socket) => socket.overrun(env),
            _ => env.config.slow_consumer,
        }
    }

    /// Gives a message from another connection's dialect to this connection's dialect.
    ///
    /// # Errors
    /// More than `bound` bytes of shared frames would wait; none of them was queued.
    pub fn on_message(
        &mut self,
        what: &DialectMessage,
        bound: usize,
        cx: &mut Context<'_>,
    ) -> Result<(), QueueFull> {
        self.with_socket_bound(cx, bound, |socket, out, cx| socket.on_message(what, out, cx))
    }

    /// Handles a reload of the configuration.
    pub fn on_reload(&mut self, cx: &mut Context<'_>) {
        self.with_socket(cx, |socket, out, cx| socket.on_reload(out, cx));
    }

    /// Closes the WebSocket with a close code and a reason that the application has chosen.
    pub fn close_with(&mut self, closing: &Closing, cx: &mut Context<'_>) {
        self.with_socket(cx, |socket, out, cx| {
            let closing = socket.before_close(closing.clone(), out, cx);
            socket.close(&closing, out);
            StageResult::Again
        });
    }

    /// Closes the connection for a reason of the server's own.
    pub fn close_for(&mut self, why: Why, cx: &mut Context<'_>) {
        if why == Why::Slow {
            self.queue.drop_from_broadcast();
        }
        match &self.stage {
            Stage::Socket(_) => {
                self.with_socket(cx, |socket, out, cx| socket.close_for(why, out, cx));
            }
            Stage::Http(requests) if requests.ticket().is_some() => {}
            Stage::Http(_) => self.end(Ending::Flush, cx),
            Stage::Connecting(_) => self.refuse(503, SHUTTING_DOWN, &[], cx),
            // The client's leg refuses the client, and then ends this connection.
            Stage::Dialling(_) if why == Why::Draining => {}
            Stage::Dialling(_) => self.end(Ending::Cut, cx),
        }
    }

    fn with_socket(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Socket, &mut Vec<u8>, &mut Context<'_>) -> StageResult,
    ) {
        // Replies have no bound: reading is paused while too many of them wait.
        let _ = self.with_socket_bound(cx, usize::MAX, act);
    }

    fn with_socket_bound(
        &mut self,
        cx: &mut Context<'_>,
        bound: usize,
        act: impl FnOnce(&mut Socket, &mut Vec<u8>, &mut Context<'_>) -> StageResult,
    ) -> Result<(), QueueFull> {
        let Stage::Socket(socket) = &mut self.stage else { return Ok(()) };
        if self.ending != Ending::Open {
            return Ok(());
        }
        let mut out = self.queue.open_tail();
        let was_open = socket.is_open();
        let after = act(socket, &mut out, cx);
        if was_open && !socket.is_open() {
            self.deadline = cx.now.plus_ms(cx.env.config.timeouts.close_ms);
        } else if was_open {
            self.deadline = self.deadline.min(socket.own_deadline());
        }
        self.queue.close_tail(out, cx.now.ms);
        let queued = self.queue.push_all(cx.shared, bound, cx.now.ms);
        if let StageResult::End(ending) = after {
            self.end(ending, cx);
        }
        queued
    }

    /// Runs the timers that are due: sends heartbeats, and ends what has timed out.
    pub fn sweep(&mut self, cx: &mut Context<'_>) {
        let timeouts = &cx.env.config.timeouts;
        let stuck = self.queue.is_stuck(timeouts.send_ms, cx.now.ms);
        if stuck {
            cx.counters.timed_out.add(1);
            return self.end(Ending::Cut, cx);
        }
        if !self.deadline.due(cx.now) {
            return;
        }
        let dials = matches!(self.stage, Stage::Dialling(_));
        if self.is_handshaking() && self.ending == Ending::Open && !dials {
            cx.counters.timed_out.add(1);
            cx.counters.tls_failed.add(1);
            let event = "BINDING_TLS_HANDSHAKE_FAILED";
            tracing::debug!(event, peer = %cx.peer, "a TLS handshake has timed out");
            return self.end(Ending::Cut, cx);
        }
        let closing = self.ending != Ending::Open
            || matches!(&self.stage, Stage::Socket(socket) if !socket.is_open());
        if closing {
            if !self.queue.is_empty() && !self.queue.is_stuck(timeouts.close_ms, cx.now.ms) {
                self.deadline = cx.now.plus_ms(timeouts.close_ms);
                return;
            }
            cx.counters.timed_out.add(1);
            return self.end(Ending::Cut, cx);
        }
        if let Stage::Socket(socket) = &self.stage
            && self.paused
            && !self.starved
            && !socket.has_expired(cx)
        {
            // Heartbeat answers are not read while reading is paused. If the peer does not read
            // either, `send_ms` ends the connection.
            self.deadline = cx.now.plus_ms(timeouts.send_ms).min(socket.lease_deadline());
            return;
        }
        if let Stage::Connecting(_) = self.stage {
            return self.refuse(504, TOO_LATE, &[], cx);
        }
        let mut out = self.queue.open_tail();
        let after = match &mut self.stage {
            Stage::Http(requests) => requests.on_deadline(&mut out, cx),
            Stage::Socket(socket) => socket.on_deadline(&mut out, &mut self.deadline, cx),
            Stage::Dialling(dialling) => dialling.on_deadline(),
            Stage::Connecting(_) => StageResult::Need,
        };
        self.queue.close_tail(out, cx.now.ms);
        let _ = self.queue.push_all(cx.shared, usize::MAX, cx.now.ms);
        if let StageResult::End(ending) = after {
            self.end(ending, cx);
        }
    }

    /// The next batch of segments to send. `scratch` is working memory.
    pub fn take_batch(&mut self, scratch: &mut Vec<u8>) -> Option<Vec<Segment>> {
        match (self.ending, &self.filter) {
            (Ending::Cut, _) => None,
            (_, None) => self.queue.take_batch(),
            (_, Some(_)) => self.take_sealed(scratch),
        }
    }

    /// Notes that some bytes of the batch were sent.
    pub fn progressed(&mut self, now: Now) {
        self.queue.progressed(now.ms);
    }

    /// Notes that the batch was sent completely; `spare` is its emptied list.
    pub fn settled(&mut self, spare: Vec<Segment>, now: Now) {
        self.queue.settled(spare, now.ms);
    }

    /// Frees memory that an idle write queue does not need. Returns whether nothing waits to be
    /// sent.
    pub fn shrink(&mut self) -> bool {
        self.queue.shrink();
        self.queue.is_empty() && !self.filter.as_ref().is_some_and(|it| it.has_records())
    }

    /// Notes that sending has failed: the connection ends at once.
    pub fn lost(&mut self) {
        self.ending = Ending::Cut;
    }

    /// Adds the effects that are due for other connections when this one is closed.
    pub fn on_close(&mut self, env: &Env, us: ConnId, out: &mut Effects<'_>) {
        if let Stage::Socket(socket) = &mut self.stage {
            socket.on_close(env, us, out);
        }
    }

    /// Releases what the connection holds outside its own memory, such as compression windows.
    pub fn drop_state(&mut self, env: &Env, codecs: &mut Codecs) {
        match &mut self.stage {
            Stage::Socket(socket) => socket.on_drop(env, codecs),
            Stage::Connecting(waiting) => waiting.drop_state(codecs),
            Stage::Http(_) | Stage::Dialling(_) => {}
        }
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

const TOO_LATE: &str = "no upstream has answered in time";
const SHUTTING_DOWN: &str = "the server is shutting down";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_fits_a_size_class_of_the_allocator() {
        assert!(size_of::<Session>() <= 256, "{} bytes", size_of::<Session>());
    }
}
