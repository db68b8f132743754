//! One connection, a function of bytes and time: HTTP, then WebSocket and a dialect; a write queue.
//!
//! Nothing here fails: what a peer does wrong becomes an answer in the queue and an [`Ending`].

mod around;
mod broadcast;
mod counted;
mod flood;
mod half;
mod pause;
mod queue;
mod recipient;
mod request;
mod secure;
mod socket;
mod stream;
mod tickets;
mod unpack;
pub mod upgrade;
mod upstream;

pub use around::Surroundings;
pub use broadcast::Broadcast;
pub use half::{Errand, Keys, Word};
pub use queue::{Full, Queue};
pub use upstream::Dial;

use crate::config::SlowConsumer;
use crate::dialect::{Action, Closing, Context, Env, JoinOutcome, Why};
use crate::hub::{Answer, ConnId, Told};
use crate::mem::Segment;
use crate::time::{Deadline, Now};
use crate::tls::Filter;
use crate::ws::output::{Channel, Codecs, Output};
use request::Requests;
use socket::Socket;
use std::net::{IpAddr, SocketAddr};
use upstream::{Dialling, Waiting};

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
    queue: Queue,
    /// TLS, if the listener speaks it.
    filter: Option<Box<Filter>>,
    /// Input that waits because reading is paused, and whether it is.
    held: Box<[u8]>,
    paused: bool,
    /// The peer has ended its side.
    eof: bool,
    ending: Ending,
    /// Whether the shard's list of work has this session; the shard's to keep.
    pub listed: bool,
    /// Whether the shard counts this session among those without a request; the shard's to keep.
    pub counted_fresh: bool,
    /// Whether it is counted as a WebSocket of its listener.
    counted_stream: bool,
    /// Whether the shard's list of those that congestion has paused has it; the shard's to keep.
    pub waits: bool,
    deadline: Deadline,
    /// Address and port of the peer, without the padding of a `SocketAddr`.
    ip: IpAddr,
    port: u16,
    listener: u16,
}

enum Stage {
    Http(Box<Requests>),
    Socket(Socket),
    /// Of a route to upstreams: waits for one of them.
    Waiting(Box<Waiting>),
    /// To an upstream that has not answered yet.
    Dialling(Box<Dialling>),
}

/// What a stage says after a step.
enum After {
    Need,
    Again,
    Upgraded(Box<Socket>),
    Waits(Box<Waiting>),
    End(Ending),
}

impl Session {
    /// A connection that has just been accepted by a listener.
    pub fn new(peer: SocketAddr, listener: u16, now: Now, env: &Env) -> Session {
        Session {
            stage: Stage::Http(Box::default()),
            queue: Queue::default(),
            filter: None,
            held: Box::default(),
            paused: false,
            eof: false,
            ending: Ending::Open,
            listed: false,
            counted_fresh: false,
            counted_stream: false,
            waits: false,
            deadline: now.plus_ms(env.config.timeouts.head_ms),
            ip: peer.ip(),
            port: peer.port(),
            listener,
        }
    }

    /// The number of the listener that it came by.
    pub fn listener(&self) -> u16 {
        self.listener
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
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
        !self.paused && (!self.eof || self.filter.is_some())
    }

    /// Bytes that wait to be written to it.
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Whether messages can be delivered to it: a WebSocket on which nobody has closed.
    pub fn is_open_socket(&self) -> bool {
        matches!(&self.stage, Stage::Socket(it) if self.ending == Ending::Open && it.is_open())
    }

    /// Takes what it can from the front of `input`: at most one message or request.
    pub fn step(&mut self, input: &mut [u8], around: &mut Surroundings<'_>) -> (usize, Step) {
        if self.ending != Ending::Open {
            return (input.len(), Step::Need);
        }
        if self.must_hold(around) {
            self.paused = true;
            return (0, Step::Hold);
        }
        let mut out = self.queue.open_tail();
        let (taken, after) = match &mut self.stage {
            Stage::Http(requests) => requests.step(input, &mut out, &mut self.deadline, around),
            Stage::Socket(socket) => socket.step(input, &mut out, &mut self.deadline, around),
            Stage::Dialling(dialling) => dialling.step(input, around),
            Stage::Waiting(_) => (0, After::Need),
        };
        if let Stage::Socket(socket) = &self.stage
            && socket.is_open()
        {
            self.deadline = self.deadline.min(socket.own_deadline());
        }
        self.queue.close_tail(out, around.now.ms);
        let _ = self.queue.push_all(around.shared, usize::MAX, around.now.ms);
        match after {
            After::Need => (taken, Step::Need),
            After::Again if self.has_parked() => {
                self.paused = true;
                (taken, Step::Hold)
            }
            After::Again => (taken, Step::Again),
            After::Upgraded(socket) => {
                self.upgraded(*socket, around);
                (taken, Step::Again)
            }
            After::Waits(waiting) => {
                // Each upstream that is tried has its time; all of them, that of two.
                let one = waiting.proxy.connect_ms + waiting.proxy.handshake_ms;
                self.deadline = around.now.plus_ms(2 * one);
                self.stage = Stage::Waiting(waiting);
                (taken, Step::Again)
            }
            After::End(ending) => {
                self.end(ending, around);
                (input.len(), Step::Need)
            }
        }
    }

    fn upgraded(&mut self, socket: Socket, around: &Surroundings<'_>) {
        let env = around.env;
        self.deadline = around.now.plus_ms(match socket.is_open() {
            true => socket.heartbeat(env).silence_ms,
            false => env.config.timeouts.close_ms,
        });
        self.deadline = self.deadline.min(socket.own_deadline());
        self.stage = Stage::Socket(socket);
    }

    fn end(&mut self, ending: Ending, around: &Surroundings<'_>) {
        if self.ending == Ending::Open {
            self.ending = ending;
            self.deadline = around.now.plus_ms(around.env.config.timeouts.close_ms);
        }
        if ending == Ending::Cut {
            self.ending = ending;
        }
        if self.filter.is_some() {
            self.queue.waits(around.now.ms); // TLS's last word does.
        }
        // What comes from now on is read and thrown away, also if reading was paused.
        self.paused = false;
        self.held = Box::default();
    }

    fn must_hold(&self, around: &Surroundings<'_>) -> bool {
        let answers_wait = match &self.stage {
            Stage::Http(requests) => requests.is_full(),
            Stage::Socket(socket) => {
                let spent = socket.compresses() && around.codecs.is_spent();
                let waits = spent || socket.is_held(around);
                if let Some(half) = socket.half() {
                    // Nearly all that waits for its peer is not its own, and nothing of it goes
                    // elsewhere; but refusals are.
                    let limits = &around.env.config.limits;
                    let most = half.most_waiting(limits) + limits.write_queue_bytes / 4;
                    return waits || half.is_held_up() || self.queue.replies() > most;
                }
                waits
            }
            Stage::Waiting(_) => return true,
            Stage::Dialling(_) => return false,
        };
        answers_wait
            || around.congested
            || self.queue.replies() > around.env.config.limits.write_queue_bytes / 4
    }

    /// Whether nothing that was read is kept: a WebSocket between two messages.
    pub fn keeps_nothing(&self) -> bool {
        match &self.stage {
            Stage::Socket(socket) => socket.keeps_nothing(),
            _ => false,
        }
    }

    /// Whether reading is paused without a reason any more.
    pub fn may_resume(&self, around: &Surroundings<'_>) -> bool {
        self.paused && !self.must_hold(around)
    }

    /// One answer to part `part` of request `ticket`, or of what the dialect asked.
    pub fn answered(
        &mut self,
        ticket: u32,
        part: u16,
        answer: Answer,
        around: &mut Surroundings<'_>,
    ) {
        match &mut self.stage {
            Stage::Http(requests) => requests.answered(ticket, part, answer),
            _ => self.with_socket(around, |socket, out, around| {
                socket.answered(part, answer, out, around)
            }),
        }
    }

    /// Queues the replies that wait for nothing any more.
    pub fn settle(&mut self, around: &mut Surroundings<'_>) {
        let requests = match &mut self.stage {
            Stage::Http(requests) => requests,
            // Nobody answers the end of a stream.
            Stage::Socket(socket) if socket.is_through() => return self.end(Ending::Flush, around),
            _ => return,
        };
        if !requests.has_ready_reply() {
            return;
        }
        let mut out = self.queue.open_tail();
        let last = requests.flush(&mut out, around);
        self.queue.close_tail(out, around.now.ms);
        // What is held has not been asked for yet.
        let done = self.eof && !self.paused && requests.ticket().is_none();
        if last || done {
            self.end(Ending::Flush, around);
        }
    }

    /// The peer has ended its side.
    pub fn eof(&mut self, around: &mut Surroundings<'_>) {
        self.eof = true;
        if self.paused {
            return; // Taken up when the held input has been stepped through.
        }
        self.note_truncation(around);
        match &mut self.stage {
            _ if self.ending != Ending::Open => {}
            Stage::Socket(socket) if socket.has_said_all() => {
                self.with_socket(around, |socket, out, _| socket.hang_up(out));
            }
            Stage::Socket(_) => self.end(self.after_eof(), around),
            Stage::Http(requests) if requests.ticket().is_some() => {}
            Stage::Dialling(dialling) => {
                dialling.ended();
                self.end(Ending::Cut, around);
            }
            Stage::Http(_) | Stage::Waiting(_) => self.end(Ending::Flush, around),
        }
    }

    /// Tells the dialect what its join came to.
    pub fn joined(&mut self, name: &str, outcome: JoinOutcome, around: &mut Surroundings<'_>) {
        self.with_socket(around, |socket, out, around| socket.joined(name, outcome, out, around));
    }

    /// Tells the dialect that it has spoken where it is not subscribed.
    pub fn not_subscribed(&mut self, name: &str, around: &mut Surroundings<'_>) {
        self.with_socket(around, |socket, out, around| socket.not_subscribed(name, out, around));
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
    pub fn told(
        &mut self,
        what: &Told,
        bound: usize,
        around: &mut Surroundings<'_>,
    ) -> Result<(), Full> {
        self.with_socket_bound(around, bound, |socket, out, around| socket.told(what, out, around))
    }

    /// The configuration was read anew.
    pub fn renewed(&mut self, around: &mut Surroundings<'_>) {
        self.with_socket(around, |socket, out, around| socket.renewed(out, around));
    }

    /// Closes as the application wants it.
    pub fn close_with(&mut self, closing: &Closing, around: &mut Surroundings<'_>) {
        self.with_socket(around, |socket, out, _| {
            socket.close(closing, out);
            After::Again
        });
    }

    /// Closes for a reason of the server's.
    pub fn close_for(&mut self, why: Why, around: &mut Surroundings<'_>) {
        if why == Why::Slow {
            self.queue.drop_from_broadcast();
        }
        match &self.stage {
            Stage::Socket(_) => {
                self.with_socket(around, |socket, out, around| socket.close_for(why, out, around));
            }
            Stage::Http(requests) if requests.ticket().is_some() => {}
            Stage::Http(_) => self.end(Ending::Flush, around),
            Stage::Waiting(_) => self.refuse(503, SHUTTING_DOWN, &[], around),
            // The client is told by its own half, which then ends this one.
            Stage::Dialling(_) if why == Why::Draining => {}
            Stage::Dialling(_) => self.end(Ending::Cut, around),
        }
    }

    fn with_socket(
        &mut self,
        around: &mut Surroundings<'_>,
        act: impl FnOnce(&mut Socket, &mut Vec<u8>, &mut Surroundings<'_>) -> After,
    ) {
        // Replies are not bounded: reading stops while they wait.
        let _ = self.with_socket_bound(around, usize::MAX, act);
    }

    fn with_socket_bound(
        &mut self,
        around: &mut Surroundings<'_>,
        bound: usize,
        act: impl FnOnce(&mut Socket, &mut Vec<u8>, &mut Surroundings<'_>) -> After,
    ) -> Result<(), Full> {
        let Stage::Socket(socket) = &mut self.stage else { return Ok(()) };
        if self.ending != Ending::Open {
            return Ok(());
        }
        let mut out = self.queue.open_tail();
        let was_open = socket.is_open();
        let after = act(socket, &mut out, around);
        if was_open && !socket.is_open() {
            self.deadline = around.now.plus_ms(around.env.config.timeouts.close_ms);
        } else if was_open {
            self.deadline = self.deadline.min(socket.own_deadline());
        }
        self.queue.close_tail(out, around.now.ms);
        let queued = self.queue.push_all(around.shared, bound, around.now.ms);
        if let After::End(ending) = after {
            self.end(ending, around);
        }
        queued
    }

    /// Does what is due: heartbeats, and the end of what has taken too long.
    pub fn sweep(&mut self, around: &mut Surroundings<'_>) {
        let timeouts = &around.env.config.timeouts;
        if self.queue.is_stuck(timeouts.send_ms, around.now.ms) {
            around.counters.timed_out.add(1);
            return self.end(Ending::Cut, around);
        }
        if !self.deadline.due(around.now) {
            return;
        }
        let dials = matches!(self.stage, Stage::Dialling(_));
        if self.is_handshaking() && self.ending == Ending::Open && !dials {
            around.counters.timed_out.add(1);
            around.counters.tls_failed.add(1);
            let event = "BINDING_TLS_HANDSHAKE_FAILED";
            tracing::debug!(event, peer = %around.peer, "a TLS handshake takes too long");
            return self.end(Ending::Cut, around);
        }
        let closing = self.ending != Ending::Open
            || matches!(&self.stage, Stage::Socket(socket) if !socket.is_open());
        if closing {
            if !self.queue.is_empty() && !self.queue.is_stuck(timeouts.close_ms, around.now.ms) {
                self.deadline = around.now.plus_ms(timeouts.close_ms);
                return;
            }
            around.counters.timed_out.add(1);
            return self.end(Ending::Cut, around);
        }
        if let Stage::Socket(socket) = &self.stage
            && self.paused
            && !socket.has_expired(around)
        {
            // Its signs of life are not read; `send_ms` ends it if it does not read, either.
            self.deadline = around.now.plus_ms(timeouts.send_ms).min(socket.lease_deadline());
            return;
        }
        if let Stage::Waiting(_) = self.stage {
            return self.refuse(504, TOO_LATE, &[], around);
        }
        let mut out = self.queue.open_tail();
        let after = match &mut self.stage {
            Stage::Http(requests) => requests.late(&mut out, around),
            Stage::Socket(socket) => socket.beat(&mut out, &mut self.deadline, around),
            Stage::Dialling(dialling) => dialling.late(),
            Stage::Waiting(_) => After::Need,
        };
        self.queue.close_tail(out, around.now.ms);
        let _ = self.queue.push_all(around.shared, usize::MAX, around.now.ms);
        if let After::End(ending) = after {
            self.end(ending, around);
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
    pub fn relax(&mut self) -> bool {
        self.queue.relax();
        self.queue.is_empty() && !self.filter.as_ref().is_some_and(|it| it.has_records())
    }

    /// Sending has failed: the peer is gone.
    pub fn lost(&mut self) {
        self.ending = Ending::Cut;
    }

    /// Says what is left to be done for others when the connection is gone.
    pub fn farewell(&mut self, env: &Env, us: ConnId, out: &mut Vec<Action>) {
        if let Stage::Socket(socket) = &mut self.stage {
            socket.farewell(env, us, out);
        }
    }

    /// Undoes what the connection holds beside its own memory.
    pub fn gone(&mut self, env: &Env, codecs: &mut Codecs) {
        match &mut self.stage {
            Stage::Socket(socket) => socket.gone(env, codecs),
            Stage::Waiting(waiting) => waiting.gone(codecs),
            Stage::Http(_) | Stage::Dialling(_) => {}
        }
    }
}

const TOO_LATE: &str = "no server has answered in time";
const SHUTTING_DOWN: &str = "the server is shutting down";

/// A dialect's context, over a session's surroundings.
fn context<'c>(
    bytes: &'c mut Vec<u8>,
    channel: Option<&'c mut Channel>,
    closing: &'c mut Option<Closing>,
    around: &'c mut Surroundings<'_>,
) -> Context<'c> {
    let out = match channel {
        Some(channel) => channel.output(bytes, around.codecs),
        None => Output::plain(bytes),
    };
    Context {
        now: around.now,
        conn: around.conn,
        env: around.env,
        json: around.json,
        out,
        desk: around.desk,
        shared: around.shared,
        actions: around.actions,
        closing,
        draining: around.draining,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_fits_a_size_class_of_the_allocator() {
        assert!(size_of::<Session>() <= 256, "{} bytes", size_of::<Session>());
    }
}
