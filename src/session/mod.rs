//! One connection as a function of bytes and time: a link, which holds its write queue and its TLS
//! state, and a stage, which is HTTP first and then a WebSocket with an endpoint.
//!
//! No function returns an error for what a peer does wrong: the peer gets a response or a close
//! frame, and the session an [`Ending`].

mod broadcast;
mod client;
mod context;
mod dial;
mod ending;
mod event;
mod front;
mod link;
mod memory;
mod pause;
mod peer;
mod proxy_header;
mod queue;
mod replay;
mod stage;
#[cfg(test)]
mod test_core;
#[cfg(test)]
mod tests;

pub use broadcast::{Broadcast, DeliveryOutcome};
pub use client::AfterHeader;
pub use context::Context;
pub use dial::{Dial, MaskKeys};
pub use ending::Ending;
pub use event::SessionEvent;
pub use link::Link;
pub use memory::SendRate;
pub use pause::{HeldInput, TurnTime};
pub use queue::{QueueFull, WriteQueue};
pub use stage::upgrade;

use crate::config::SlowConsumer;
use crate::dialect::DialectMessage;
use crate::dialect::{Closing, Effect, Effects, Env, JoinOutcome, Why};
use crate::hub::{ConnId, Form};
use crate::mem::Segment;
use crate::stats::Counters;
use crate::time::{Deadline, Now};
use crate::tls::{Filter, PeerCertificate};
use crate::work::CONNECTION_FAILURES;
use crate::ws::close;
use crate::ws::output::Codecs;
use ending::Progress;
use front::Front;
use stage::Stage;
use std::net::SocketAddr;
use std::sync::Arc;

const TOO_MANY_FAILURES: &str = "too many refused tokens";

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

/// What the end of a session needs of its core.
pub struct CloseContext<'a> {
    /// The configuration and the applications.
    pub env: &'a Env,
    /// The counters of this core.
    pub counters: &'a Counters,
    /// The compressors and decompressors of this core.
    pub codecs: &'a mut Codecs,
    /// The effects that the end has on other connections.
    pub effects: Effects<'a>,
    /// Whether the server is draining.
    pub draining: bool,
}

/// One connection. See the module's documentation.
pub struct Session {
    /// The byte side of the connection.
    pub link: Link,
    stage: Stage,
}

impl Session {
    /// Creates the session of a connection that was just accepted by a listener.
    pub fn new(peer: SocketAddr, listener: u16, now: Now, env: &Env) -> Session {
        let deadline = now.plus_ms(env.config.timeouts.head_ms);
        let front = Front::of(peer, env.listener(listener));
        Session { link: Link::new(peer, listener, deadline), stage: Stage::accepted(front) }
    }

    /// Creates the session of a dial whose connection is not established yet.
    pub fn dialled(mut dial: Dial) -> Session {
        let mut link = Link::new(dial.address, 0, dial.deadline);
        if let Some(filter) = dial.filter.take() {
            link.secure(Box::new(filter));
        }
        Session { link, stage: Stage::dialled(dial) }
    }

    /// Adds TLS to this connection, which was just accepted. The deadline of the TLS handshake is
    /// `handshake_ms` milliseconds from now.
    pub fn secure(&mut self, filter: Filter, cx: &Context<'_>) {
        self.link.secure(Box::new(filter));
        self.link.deadline = cx.now.plus_ms(cx.env.config.timeouts.handshake_ms);
    }

    /// Whether no whole request has been read yet.
    pub fn is_fresh(&self) -> bool {
        self.stage.is_fresh()
    }

    /// Whether messages can be delivered to this session: it is a WebSocket and its close has not
    /// begun.
    pub fn is_open_socket(&self) -> bool {
        self.link.is_open() && self.stage.is_open_socket()
    }

    /// The client's certificate, if it has shown one and the connection is in its HTTP stage.
    pub fn identity(&self) -> Option<Arc<PeerCertificate>> {
        self.stage.is_http().then(|| self.link.identity()).flatten()
    }

    // --- input ---

    /// Decrypts bytes from the peer and appends the plaintext to `plain`. Returns true if the peer
    /// has ended its side after it.
    pub fn decrypt(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, cx: &mut Context<'_>) -> bool {
        let found = self.link.decrypt(bytes, plain, cx);
        if found.opened && !self.send_handshake(cx.now) {
            // The timeout of the first request runs from here.
            self.link.deadline = cx.now.plus_ms(cx.env.config.timeouts.head_ms);
        }
        if found.failed {
            self.stage.note_no_tls();
            self.end(Ending::Flush, cx);
            return false;
        }
        found.ended
    }

    /// Handles at most one message or request from the front of `input`. Returns the number of
    /// bytes taken.
    pub fn step(&mut self, input: &mut [u8], cx: &mut Context<'_>) -> (usize, Step) {
        if !self.link.is_open() {
            return (input.len(), Step::Need);
        }
        if self.must_hold(cx) {
            self.link.pause();
            return (0, Step::Hold);
        }
        cx.failures = self.link.failures;
        let mut out = self.link.queue.open_tail();
        let (taken, after) = self.stage.step(input, &mut out, &mut self.link.deadline, cx);
        self.link.note_client(cx);
        self.link.queue.close_tail(out, cx.now.ms);
        let _ = self.link.queue.push_all(cx.shared, usize::MAX, cx.now.ms);
        self.note_failures(cx);
        match self.stage.enter(after, &mut self.link.deadline, cx) {
            Progress::Need => (taken, Step::Need),
            Progress::Again if self.has_parked() => {
                self.link.pause();
                (taken, Step::Hold)
            }
            Progress::Again => (taken, Step::Again),
            Progress::End(ending) => {
                self.end(ending, cx);
                (input.len(), Step::Need)
            }
        }
    }

    /// Counts the tokens that were not accepted in this step. At [`CONNECTION_FAILURES`] a
    /// WebSocket is closed; the response to an HTTP request closes the connection instead.
    fn note_failures(&mut self, cx: &mut Context<'_>) {
        let failures = cx.work.take_failures();
        if failures == 0 {
            return;
        }
        let before = self.link.failures;
        self.link.failures = before.saturating_add(failures);
        if before < CONNECTION_FAILURES && self.link.failures >= CONNECTION_FAILURES {
            cx.counters.guard_failures_closed.add(1);
            self.on(SessionEvent::Close(&Closing::new(close::POLICY, TOO_MANY_FAILURES)), cx);
        }
    }

    fn must_hold(&self, cx: &Context<'_>) -> bool {
        let (replies, starved) = (self.link.queue.replies(), self.link.is_starved());
        cx.work.is_spent() || self.stage.must_hold(replies, starved, cx)
    }

    /// Whether reading is paused although no reason for it is left.
    pub fn may_resume(&self, cx: &Context<'_>) -> bool {
        self.link.is_paused() && !self.must_hold(cx)
    }

    /// Whether no received bytes are kept in the session: a WebSocket between two messages.
    pub fn keeps_nothing(&self) -> bool {
        self.stage.keeps_nothing()
    }

    /// Whether a message that was received waits: for its schema, or to be decompressed in a later
    /// turn.
    pub fn has_parked(&self) -> bool {
        self.stage.has_parked()
    }

    /// Whether a whole message waits for the core's place for large messages, which is not free.
    pub fn awaits_place(&self, cx: &Context<'_>) -> bool {
        self.stage.awaits_place(cx)
    }

    /// Notes that the peer has ended its side.
    pub fn eof(&mut self, cx: &mut Context<'_>) {
        self.link.eof = true;
        if self.link.is_paused() {
            return; // Handled when the held input has been stepped through.
        }
        self.note_torn_header(cx);
        self.link.note_truncation(cx);
        let otherwise = self.link.after_eof();
        let _ = self.call_bound(cx, usize::MAX, |stage, out, _, _| stage.on_eof(otherwise, out));
    }

    /// Notes that bytes were sent. `whole` is the emptied list of the batch's segments if the batch
    /// is complete.
    pub fn sent(&mut self, whole: Option<Vec<Segment>>, now: Now) {
        match whole {
            Some(spare) => self.link.settled(spare, now),
            None => self.link.progressed(now),
        }
    }

    // --- events ---

    /// Handles an event of the connection. What it requests is added to `cx.effects`.
    pub fn on(&mut self, event: SessionEvent<'_>, cx: &mut Context<'_>) {
        match event {
            SessionEvent::Joined { name, source, form, outcome } => {
                self.on_joined(name, source, form, outcome, cx);
            }
            SessionEvent::Connected(outcome) => self.on_connected(outcome, cx),
            SessionEvent::Peer(message) => self.on_peer(message, cx),
            SessionEvent::OutOfMemory => self.on_out_of_memory(cx),
            SessionEvent::CloseFor(Why::Slow) => {
                self.link.queue.drop_from_broadcast();
                self.call(cx, event);
            }
            event => self.call(cx, event),
        }
    }

    /// Queues the channel's picture and history if this connection has requested them, and then
    /// reports the outcome of its join to the dialect. Events that the peer has missed follow.
    fn on_joined(
        &mut self,
        name: &str,
        source: &str,
        form: Form,
        mut outcome: JoinOutcome,
        cx: &mut Context<'_>,
    ) {
        let mut missed = Vec::new();
        if let JoinOutcome::Joined(Some(reply)) = &mut outcome {
            if form.view != 0 {
                // A subscriber through a view does not get the members of the source.
                (reply.users, reply.cached) = (None, None);
            }
            if let Some(picture) = &reply.picture {
                self.show(picture, cx);
            }
            self.recall(&reply.history, cx);
            if let Some(resumed) = &mut reply.resumed {
                missed = self.take_replay(resumed, (source, form), cx);
                self.note_position(form, resumed.position.into());
            }
        }
        self.call(cx, SessionEvent::Joined { name, source, form, outcome });
        self.replay(missed, form, cx);
    }

    /// Gives a message from another connection's dialect to this connection's dialect. This is no
    /// event, because a core delivers a message once for each subscriber.
    ///
    /// # Errors
    /// The policy for this slow consumer: what the dialect would have sent exceeds the bound of
    /// shared frames that may wait, and none of it was queued.
    pub fn deliver_message(
        &mut self,
        what: &DialectMessage,
        cx: &mut Context<'_>,
    ) -> Result<(), SlowConsumer> {
        let bound = self.stage.queue_bytes(cx.env);
        self.call_bound(cx, bound, |stage, out, _, cx| stage.on_message(what, out, cx))
            .map_err(|_| self.stage.overrun(cx.env))
    }

    /// Passes an event to the stage, unless the connection ends, and carries out what it returns.
    /// Replies have no bound: reading is paused while too many of them wait.
    fn call(&mut self, cx: &mut Context<'_>, event: SessionEvent<'_>) {
        let _ = self.call_bound(cx, usize::MAX, |stage, out, deadline, cx| {
            stage.on(event, out, deadline, cx)
        });
    }

    fn call_bound(
        &mut self,
        cx: &mut Context<'_>,
        bound: usize,
        act: impl FnOnce(&mut Stage, &mut Vec<u8>, &mut Deadline, &mut Context<'_>) -> Progress,
    ) -> Result<(), QueueFull> {
        if !self.link.is_open() {
            return Ok(());
        }
        let was_open = self.is_open_socket();
        let mut out = self.link.queue.open_tail();
        let after = act(&mut self.stage, &mut out, &mut self.link.deadline, cx);
        if was_open {
            self.link.deadline = self.stage.deadline_after(self.link.deadline, cx);
        }
        self.link.queue.close_tail(out, cx.now.ms);
        let queued = self.link.queue.push_all(cx.shared, bound, cx.now.ms);
        if let Progress::End(ending) = after {
            self.end(ending, cx);
        }
        queued
    }

    fn end(&mut self, ending: Ending, cx: &Context<'_>) {
        self.link.end(ending, cx);
        self.stage.discard();
    }

    /// Discards a message that is being decompressed if the connection no longer needs it.
    fn drop_unneeded(&mut self, cx: &mut Context<'_>) {
        self.stage.drop_unneeded(!self.link.is_open(), cx);
    }

    /// Whether [`Session::settle`] would do nothing: an open WebSocket without another leg has no
    /// replies to requests and no end to report.
    pub fn is_settled(&self) -> bool {
        self.is_open_socket() && !self.stage.is_leg()
    }

    /// Moves the replies that are complete into the write queue, and reports the end of a proxy leg
    /// to the other one.
    pub fn settle(&mut self, cx: &mut Context<'_>) {
        self.drop_unneeded(cx);
        if self.stage.is_through() {
            self.end(Ending::Flush, cx);
        }
        if self.stage.has_ready_reply() {
            let mut out = self.link.queue.open_tail();
            let last = self.stage.flush(&mut out, cx);
            self.link.queue.close_tail(out, cx.now.ms);
            // Held input may still contain requests.
            let done = self.link.eof && !self.link.is_paused() && self.stage.ticket().is_none();
            if last || done {
                self.end(Ending::Flush, cx);
            }
        }
        self.report_end(cx);
    }

    /// Adds the effects that are due for other connections when this one is closed.
    pub fn on_close(&mut self, env: &Env, us: ConnId, out: &mut Effects<'_>) {
        self.stage.on_close(env, us, out);
    }

    /// Ends the session of a connection that was removed: counts its end, adds the effects that are
    /// due for other connections, and releases what it holds outside its own memory.
    pub fn close(mut self, us: ConnId, core: CloseContext<'_>) {
        let CloseContext { env, counters, codecs, mut effects, draining } = core;
        self.on_close(env, us, &mut effects);
        if let Some((to, message)) = self.stage.last_message(true, draining) {
            effects.push(Effect::PeerMessage { to, message });
        }
        self.stage.count_end(counters, self.link.listener());
        self.stage.drop_state(env, codecs);
    }

    // --- deadlines ---

    /// Runs the timers that are due: sends heartbeats, and ends what has timed out or reads too
    /// slowly. `rate` is that at which bytes leave this write queue.
    pub fn sweep(&mut self, rate: &mut SendRate, cx: &mut Context<'_>) {
        self.end_if_too_slow(rate, cx);
        let timeouts = &cx.env.config.timeouts;
        let link = &mut self.link;
        if link.queue.is_stuck(timeouts.send_ms, cx.now.ms) {
            cx.counters.timed_out.add(1);
            return self.end(Ending::Cut, cx);
        }
        if !link.deadline.due(cx.now) {
            return;
        }
        if self.awaits_proxy_header() {
            self.note_torn_header(cx);
            cx.counters.timed_out.add(1);
            return self.end(Ending::Cut, cx);
        }
        let link = &mut self.link;
        if link.is_sealed() && !self.stage.is_dialling() {
            cx.counters.timed_out.add(1);
            cx.counters.tls_failed.add(1);
            let event = "BINDING_TLS_HANDSHAKE_FAILED";
            tracing::debug!(event, peer = %cx.peer, "a TLS handshake has timed out");
            return self.end(Ending::Cut, cx);
        }
        if !link.is_open() || self.stage.is_closing() {
            if !link.queue.is_empty() && !link.queue.is_stuck(timeouts.close_ms, cx.now.ms) {
                link.deadline = cx.now.plus_ms(timeouts.close_ms);
                return;
            }
            cx.counters.timed_out.add(1);
            return self.end(Ending::Cut, cx);
        }
        if link.is_paused()
            && !link.is_starved()
            && let Some(lease) = self.stage.valid_lease(cx)
        {
            // Heartbeat answers are not read while reading is paused. If the peer does not read
            // either, `send_ms` ends the connection.
            link.deadline = cx.now.plus_ms(timeouts.send_ms).min(lease);
            return;
        }
        let mut out = link.queue.open_tail();
        let after = self.stage.on_deadline(&mut out, &mut link.deadline, cx);
        link.queue.close_tail(out, cx.now.ms);
        let _ = link.queue.push_all(cx.shared, usize::MAX, cx.now.ms);
        if let Progress::End(ending) = after {
            self.end(ending, cx);
        }
    }

    /// The keep-alive deadline of an idle HTTP connection, which is one that has had a request and
    /// waits for the next. The connection with the earliest deadline has been idle for longest.
    pub fn idle_until(&self) -> Option<Deadline> {
        let link = &self.link;
        let is_idle = link.is_open() && !link.is_paused() && link.queue.is_empty();
        (is_idle && self.stage.is_idle()).then_some(link.deadline)
    }

    // --- requests that wait for other cores ---

    /// The ticket of the newest HTTP request that is not answered yet. Acknowledgements and answers
    /// find the request by this number.
    pub fn ticket(&self) -> Option<u32> {
        self.stage.ticket()
    }

    /// The ticket under which a publish is acknowledged. For a WebSocket it is 0, and only
    /// publishes with a `part` above 0 are acknowledged.
    pub fn ticket_of_publish(&self, part: u16) -> Option<u32> {
        self.stage.ticket_of_publish(part)
    }

    /// Whether the reply to request `ticket` is made from answers of channels' homes.
    pub fn collects_answers(&self, ticket: u32) -> bool {
        self.stage.collects_answers(ticket)
    }

    // --- counters ---

    /// Counts bytes of a client's WebSocket, and the WebSocket itself with its first bytes.
    pub fn count(&mut self, received: usize, sent: usize, counters: &Counters) {
        if self.is_upstream() {
            return;
        }
        self.stage.count(received, sent, counters.streams(self.link.listener()));
    }
}
