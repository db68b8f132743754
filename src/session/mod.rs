//! One connection, a function of bytes and time: HTTP, then WebSocket and a dialect; a write queue.
//!
//! Nothing here fails: what a peer does wrong becomes an answer in the queue and an [`Ending`].

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
use crate::dialect::{Closing, Effect, Env, JoinOutcome, Why};
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

/// How a connection is to end, if it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It goes on.
    #[default]
    Open,
    /// What is queued goes out, then our side is shut down; the peer has until a deadline to end
    /// its side. What it still sends is read and thrown away, so that no reset destroys what is
    /// on its way to it.
    Flush,
    /// At once, whatever is queued.
    Cut,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All input was taken.
    Need,
    /// Something was done; there may be more in the rest.
    Again,
    /// The rest has to wait: reading stops until [`Session::may_resume`].
    Hold,
}

/// One connection. See the module's documentation.
pub struct Session {
    stage: Stage,
    queue: WriteQueue,
    /// TLS, if the listener speaks it.
    filter: Option<Box<Filter>>,
    /// Input that waits because reading is paused, and whether it is.
    held: Option<Box<HeldInput>>,
    paused: bool,
    /// What it has asked for in this turn.
    share: Share,
    /// Tokens that it has brought and that were not believed.
    failures: u8,
    /// The peer has ended its side.
    eof: bool,
    ending: Ending,
    /// Whether the shard's list of work has this session; the shard's to keep.
    pub listed: bool,
    /// Whether the shard counts this session among those without a request; the shard's to keep.
    pub counted_fresh: bool,
    /// Whether the shard's list of those that congestion has paused has it; the shard's to keep.
    pub waits: bool,
    deadline: Deadline,
    /// Address and port of the peer, without the padding of a `SocketAddr`; an IPv4 address as an
    /// IPv6 one.
    ip: [u8; 16],
    port: u16,
    listener: u16,
    /// Reading waits because the core has too little memory.
    starved: bool,
}

enum Stage {
    Http(Box<Requests>),
    Socket(Socket),
    /// Of a route to upstreams: waits for one of them.
    Connecting(Box<PendingUpstream>),
    /// To an upstream that has not answered yet.
    Dialling(Box<Dialling>),
}

/// What a stage says after a step.
enum After {
    Need,
    Again,
    Upgraded(Box<Socket>),
    Connecting(Box<PendingUpstream>),
    End(Ending),
}

impl Session {
    /// A connection that has just been accepted by a listener.
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

    /// The number of the listener that it came by.
    pub fn listener(&self) -> u16 {
        self.listener
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port)
    }

    /// Whether no request has been read to its end yet.
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

    /// Whether bytes from the peer are wanted now.
    pub fn wants_read(&self) -> bool {
        // Behind a peer's last word in TLS, the end of its stream is still to come.
        (!self.paused || self.may_read_ahead()) && (!self.eof || self.filter.is_some())
    }

    /// Bytes of shared frames that wait to be written to the peer.
    pub fn waiting_bytes(&self) -> usize {
        self.queue.broadcasts()
    }

    /// Whether messages can be delivered to it: a WebSocket on which nobody has closed.
    pub fn is_open_socket(&self) -> bool {
        matches!(&self.stage, Stage::Socket(it) if self.ending == Ending::Open && it.is_open())
    }

    /// Takes what it can from the front of `input`: at most one message or request.
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
            Stage::Connecting(_) => (0, After::Need),
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
            After::Need => (taken, Step::Need),
            After::Again if self.has_parked() => {
                self.paused = true;
                (taken, Step::Hold)
            }
            After::Again => (taken, Step::Again),
            After::Upgraded(socket) => {
                self.upgraded(*socket, cx);
                (taken, Step::Again)
            }
            After::Connecting(waiting) => {
                // Each upstream that is tried has its time; all of them, that of two.
                let one = waiting.proxy.connect_ms + waiting.proxy.handshake_ms;
                self.deadline = cx.now.plus_ms(2 * one);
                self.stage = Stage::Connecting(waiting);
                (taken, Step::Again)
            }
            After::End(ending) => {
                self.end(ending, cx);
                (input.len(), Step::Need)
            }
        }
    }

    fn upgraded(&mut self, socket: Socket, cx: &Context<'_>) {
        let env = cx.env;
        self.deadline = cx.now.plus_ms(match socket.is_open() {
            true => socket.silence_ms(env, cx.conn.slot),
            false => env.config.timeouts.close_ms,
        });
        self.deadline = self.deadline.min(socket.own_deadline());
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
            self.queue.waits(cx.now.ms); // TLS's last word does.
        }
        // What comes from now on is read and thrown away, also if reading was paused.
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
                    // Others wait for it, whatever its peer does not read.
                    return spent || cx.congested;
                }
                let waits = spent || socket.awaits_place(cx) || socket.is_held(cx);
                if self.starved {
                    return true;
                }
                if let Some(leg) = socket.leg() {
                    // Nearly all that waits for its peer is not its own, and nothing of it goes
                    // elsewhere; but refusals are.
                    let limits = &cx.env.config.limits;
                    let max = leg.max_waiting(limits) + limits.write_queue_bytes / 4;
                    return waits || leg.is_held_up() || self.queue.replies() > max;
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

    /// Whether nothing that was read is kept: a WebSocket between two messages.
    pub fn keeps_nothing(&self) -> bool {
        match &self.stage {
            Stage::Socket(socket) => socket.keeps_nothing(),
            _ => false,
        }
    }

    /// Whether reading is paused without a reason any more.
    pub fn may_resume(&self, cx: &Context<'_>) -> bool {
        self.paused && !self.must_hold(cx)
    }

    /// One answer to part `part` of request `ticket`, or of what the dialect asked.
    pub fn answered(&mut self, ticket: u32, part: u16, answer: Answer, cx: &mut Context<'_>) {
        match &mut self.stage {
            Stage::Http(requests) => requests.answered(ticket, part, answer),
            _ => self.with_socket(cx, |socket, out, cx| socket.answered(part, answer, out, cx)),
        }
    }

    /// Queues the replies that wait for nothing any more.
    pub fn settle(&mut self, cx: &mut Context<'_>) {
        self.drop_unneeded(cx);
        let requests = match &mut self.stage {
            Stage::Http(requests) => requests,
            // Nobody answers the end of a stream.
            Stage::Socket(socket) if socket.is_through() => return self.end(Ending::Flush, cx),
            _ => return,
        };
        if !requests.has_ready_reply() {
            return;
        }
        let mut out = self.queue.open_tail();
        let last = requests.flush(&mut out, cx);
        self.queue.close_tail(out, cx.now.ms);
        // What is held has not been asked for yet.
        let done = self.eof && !self.paused && requests.ticket().is_none();
        if last || done {
            self.end(Ending::Flush, cx);
        }
    }

    /// The peer has ended its side.
    pub fn eof(&mut self, cx: &mut Context<'_>) {
        self.eof = true;
        if self.paused {
            return; // Taken up when the held input has been stepped through.
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

    /// Tells the dialect what its join came to.
    pub fn joined(&mut self, name: &str, outcome: JoinOutcome, cx: &mut Context<'_>) {
        self.with_socket(cx, |socket, out, cx| socket.joined(name, outcome, out, cx));
    }

    /// Tells the dialect that it has spoken where it is not subscribed.
    pub fn not_subscribed(&mut self, name: &str, cx: &mut Context<'_>) {
        self.with_socket(cx, |socket, out, cx| socket.not_subscribed(name, out, cx));
    }

    /// Bytes of shared frames that may wait for this peer.
    pub fn queue_bytes(&self, env: &Env) -> usize {
        match &self.stage {
            Stage::Socket(socket) => socket.queue_bytes(env),
            _ => env.config.limits.write_queue_bytes,
        }
    }

    /// What becomes of a peer for which that was not enough.
    pub fn overrun(&mut self, env: &Env) -> SlowConsumer {
        match &mut self.stage {
            Stage::Socket(socket) => socket.overrun(env),
            _ => env.config.slow_consumer,
        }
    }

    /// Tells the dialect what somebody has to say to it.
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

    /// The configuration was read anew.
    pub fn on_reload(&mut self, cx: &mut Context<'_>) {
        self.with_socket(cx, |socket, out, cx| socket.on_reload(out, cx));
    }

    /// Closes as the application wants it.
    pub fn close_with(&mut self, closing: &Closing, cx: &mut Context<'_>) {
        self.with_socket(cx, |socket, out, cx| {
            let closing = socket.before_close(closing.clone(), out, cx);
            socket.close(&closing, out);
            After::Again
        });
    }

    /// Closes for a reason of the server's.
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
            // The client is told by its own half, which then ends this one.
            Stage::Dialling(_) if why == Why::Draining => {}
            Stage::Dialling(_) => self.end(Ending::Cut, cx),
        }
    }

    fn with_socket(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Socket, &mut Vec<u8>, &mut Context<'_>) -> After,
    ) {
        // Replies are not bounded: reading stops while they wait.
        let _ = self.with_socket_bound(cx, usize::MAX, act);
    }

    fn with_socket_bound(
        &mut self,
        cx: &mut Context<'_>,
        bound: usize,
        act: impl FnOnce(&mut Socket, &mut Vec<u8>, &mut Context<'_>) -> After,
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
        if let After::End(ending) = after {
            self.end(ending, cx);
        }
        queued
    }

    /// Does what is due: heartbeats, and the end of what has taken too long.
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
            tracing::debug!(event, peer = %cx.peer, "a TLS handshake takes too long");
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
            // Its signs of life are not read; `send_ms` ends it if it does not read, either.
            self.deadline = cx.now.plus_ms(timeouts.send_ms).min(socket.lease_deadline());
            return;
        }
        if let Stage::Connecting(_) = self.stage {
            return self.refuse(504, TOO_LATE, &[], cx);
        }
        let mut out = self.queue.open_tail();
        let after = match &mut self.stage {
            Stage::Http(requests) => requests.on_deadline(&mut out, cx),
            Stage::Socket(socket) => socket.liveness(&mut out, &mut self.deadline, cx),
            Stage::Dialling(dialling) => dialling.on_deadline(),
            Stage::Connecting(_) => After::Need,
        };
        self.queue.close_tail(out, cx.now.ms);
        let _ = self.queue.push_all(cx.shared, usize::MAX, cx.now.ms);
        if let After::End(ending) = after {
            self.end(ending, cx);
        }
    }

    /// The next batch for the kernel. `scratch` is memory to work with.
    pub fn take_batch(&mut self, scratch: &mut Vec<u8>) -> Option<Vec<Segment>> {
        match (self.ending, &self.filter) {
            (Ending::Cut, _) => None,
            (_, None) => self.queue.take_batch(),
            (_, Some(_)) => self.take_sealed(scratch),
        }
    }

    /// Some bytes have left.
    pub fn progressed(&mut self, now: Now) {
        self.queue.progressed(now.ms);
    }

    /// A batch is through.
    pub fn settled(&mut self, spare: Vec<Segment>, now: Now) {
        self.queue.settled(spare, now.ms);
    }

    /// Whether nothing waits to be sent; if so, memory that an idle connection does not need is
    /// freed.
    pub fn shrink(&mut self) -> bool {
        self.queue.shrink();
        self.queue.is_empty() && !self.filter.as_ref().is_some_and(|it| it.has_records())
    }

    /// Sending has failed: the peer is gone.
    pub fn lost(&mut self) {
        self.ending = Ending::Cut;
    }

    /// Says what is left to be done for others when the connection is gone.
    pub fn on_close(&mut self, env: &Env, us: ConnId, out: &mut Vec<Effect>) {
        if let Stage::Socket(socket) = &mut self.stage {
            socket.on_close(env, us, out);
        }
    }

    /// Undoes what the connection holds beside its own memory.
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

const TOO_LATE: &str = "no server has answered in time";
const SHUTTING_DOWN: &str = "the server is shutting down";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_fits_a_size_class_of_the_allocator() {
        assert!(size_of::<Session>() <= 256, "{} bytes", size_of::<Session>());
    }
}
