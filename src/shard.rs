//! The shard: everything that one core owns above its ring, which is its sessions, its part of the
//! hub, and its timers.
//!
//! The public functions of [`Shard`] are its interface: a reactor calls them with events of the
//! kernel, a simulation with events of a script. Bytes and time come in through [`Shard::open`],
//! [`Shard::receive`], [`Shard::eof`], [`Shard::sent`] and [`Shard::sweep`]; connections with
//! pending work are listed by [`Shard::next_listed`]. No call returns an error.

mod account;
mod channels;
mod feed;
mod handshakes;
mod notices;
mod proxy;
mod secure;
mod streams;
mod turn;
mod warnings;

use crate::codec::json::Scratch;
use crate::dialect::{CoreState, Effect, Env, JoinOutcome, Why};
use crate::hub::{
    Ack, Answer, ChannelEvent, ConnId, Down, Hasher, Hub, JoinReply, OutgoingMail, Up,
};
use crate::mem::{Handle, Segment, Slot, Table};
use crate::session::{Context, Dial, Ending, MaskKeys, PeerMessage, ProxyEffect, Session};
use crate::stats::Counters;
use crate::time::Now;
use crate::work::{self, CostliestWork, Meter};
use crate::ws::output::Codecs;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use warnings::Warnings;

/// What all shards of a process share.
#[derive(Clone)]
pub struct Common {
    /// The configuration and the applications.
    pub env: Arc<Env>,
    /// Hashes channel names.
    pub hasher: Hasher,
    /// The number of shards.
    pub cores: u16,
    /// The maximum number of messages that may wait for one other core. At this bound the shard
    /// takes no more work.
    pub mail_bound: usize,
}

/// The connections and the channels of one core.
pub struct Shard {
    core: u16,
    env: Arc<Env>,
    sessions: Table<Session>,
    hub: Hub,
    mail: OutgoingMail,
    mail_bound: usize,
    json: Scratch,
    codecs: Codecs,
    effects: Vec<Effect>,
    shared: Vec<Handle>,
    core_state: CoreState,
    /// Effects that removed or closed connections leave behind, and the slot of each one's
    /// connection. [`Shard::run_closing_effects`] runs them.
    closing_effects: Vec<Effect>,
    closing_slots: Vec<Slot>,
    /// The proxy effects that sessions request, the dials that have no slot yet, and the last
    /// messages of removed connections to their other proxy legs.
    proxy_effects: Vec<ProxyEffect>,
    dials: VecDeque<Box<Dial>>,
    /// Whether some route leads to upstreams.
    dials_at_all: bool,
    last_messages: Vec<(Slot, PeerMessage)>,
    keys: MaskKeys,
    listed: VecDeque<Slot>,
    /// A buffer for decrypted bytes, used within one call and kept for reuse.
    plain: Vec<u8>,
    /// Connections with reading paused that wait for a later turn, because of congestion or because
    /// a share of work is used up.
    waiting: Vec<Slot>,
    /// The work of this turn so far, and the low bits of the turn's number.
    work: Meter,
    turn: u16,
    warnings: Warnings,
    counters: Arc<Counters>,
    /// The number of connections that have not sent a whole request yet.
    fresh: usize,
    /// Connections with the time at which they were accepted, in milliseconds, the oldest first.
    /// Some of them have sent their request or are closed.
    handshakes: VecDeque<(Slot, u64)>,
    drain: Option<Drain>,
    subscribers: Vec<u32>,
    /// A channel event that the reactor could not hand over yet.
    notice: Option<ChannelEvent>,
    cores: u16,
    account: account::Account,
}

/// Progress of a drain. Connections are closed in slices, so that their clients do not all
/// reconnect at the same time.
struct Drain {
    next: u32,
    slice: u32,
}

/// The maximum number of slices of a drain; each sweep closes one.
const DRAIN_SLICES: u32 = 16;
/// The minimum number of connections of a slice.
const DRAIN_SLICE_MIN: u32 = 256;

/// What a reactor has to know about a connection on the list of pending work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Whether bytes from the peer are to be read.
    pub read: bool,
    /// How the connection is to end.
    pub ending: Ending,
}

impl Shard {
    /// Creates the shard of core `core`.
    pub fn new(core: u16, common: &Common, counters: Arc<Counters>) -> Shard {
        let kept = common.env.config.limits.cached_bytes;
        let mut hub = Hub::new(core, common.cores, common.hasher.clone(), kept);
        hub.watch(common.env.watched.clone(), common.env.version);
        hub.bound_channels(common.env.apps.channel_bounds());
        Shard {
            core,
            env: common.env.clone(),
            sessions: Table::default(),
            hub,
            mail: OutgoingMail::new(common.cores),
            mail_bound: common.mail_bound,
            json: Scratch::default(),
            codecs: Codecs::new(common.env.config.compression.windows_bytes),
            effects: Vec::new(),
            shared: Vec::new(),
            core_state: CoreState::default(),
            closing_effects: Vec::new(),
            closing_slots: Vec::new(),
            proxy_effects: Vec::new(),
            dials: VecDeque::new(),
            dials_at_all: common.env.config.has_proxies(),
            last_messages: Vec::new(),
            keys: MaskKeys::default(),
            listed: VecDeque::new(),
            plain: Vec::new(),
            waiting: Vec::new(),
            work: Meter::default(),
            turn: 0,
            warnings: Warnings::default(),
            counters,
            fresh: 0,
            handshakes: VecDeque::new(),
            drain: None,
            subscribers: Vec::new(),
            notice: None,
            cores: common.cores,
            account: Default::default(),
        }
    }

    /// Adds a connection that the first listener accepted at `index`, which must be free.
    pub fn open(&mut self, index: u32, peer: SocketAddr, now: Now) -> Slot {
        self.open_by(0, index, peer, now)
    }

    fn open_by(&mut self, listener: u16, index: u32, peer: SocketAddr, now: Now) -> Slot {
        self.counters.connections.add(1);
        let session = Session::new(peer, listener, now, &self.env);
        self.make_room_for_handshake(now);
        let slot = self.sessions.insert(index, session);
        self.begin_handshake(slot, now);
        self.list(slot);
        slot
    }

    /// Takes bytes that were received from the peer; they are changed in place.
    pub fn receive(&mut self, slot: Slot, bytes: &mut [u8], now: Now) {
        self.counters.received_bytes.add(bytes.len() as u64);
        self.count(slot, bytes.len(), 0);
        match self.sessions.get_mut(slot) {
            Some(session) if session.is_secure() => self.receive_secure(slot, bytes, now),
            Some(session) if session.is_paused() => {
                session.hold(bytes);
                self.charge(slot);
            }
            Some(_) => self.feed_or_hold(slot, bytes, now),
            None => {}
        }
    }

    /// Notes that the peer has ended its side of the connection.
    pub fn eof(&mut self, slot: Slot, now: Now) {
        if let Some((session, mut cx)) = self.session(slot, now) {
            session.eof(&mut cx);
            self.after(slot, now);
            self.list(slot);
        }
    }

    /// Notes that `n` bytes of the batch were sent. `whole` is the emptied list of its segments if
    /// the batch is complete.
    pub fn sent(&mut self, slot: Slot, n: usize, whole: Option<Vec<Segment>>, now: Now) {
        self.counters.sent_bytes.add(n as u64);
        self.count(slot, 0, n);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        self.account.sent(slot, n);
        match whole {
            Some(spare) => session.settled(spare, now),
            None => session.progressed(now),
        }
        self.try_resume(slot, now);
        self.list(slot);
        self.resume_other_leg(slot, now);
    }

    /// Marks the connection as broken: nothing can be sent to the peer any more.
    pub fn lost(&mut self, slot: Slot) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.lost();
            self.list(slot);
        }
    }

    /// Removes a closed connection and frees its slot.
    pub fn close(&mut self, slot: Slot) {
        if let Some(mut session) = self.sessions.remove(slot) {
            self.fresh -= usize::from(session.counted_fresh);
            let (us, from) = (ConnId { core: self.core, slot }, self.closing_effects.len());
            session.on_close(&self.env, us, &mut self.closing_effects);
            let last = self.closing_effects.len();
            self.closing_slots.extend((from..last).map(|_| slot));
            self.last_messages.extend(session.last_message(true, self.drain.is_some()));
            self.count_end(&session);
            self.counters.upstreams.sub(session.is_upstream().into());
            self.account.forget(slot);
            session.drop_state(&self.env, &mut self.codecs);
            self.leave_all(slot);
            self.counters.connections.sub(1);
        }
    }

    /// Runs the effects and delivers the last messages that closed connections have left.
    /// [`Shard::next_turn`] calls this too.
    pub fn run_closing_effects(&mut self, now: Now) {
        let closing_slots = std::mem::take(&mut self.closing_slots);
        let closing_effects = std::mem::take(&mut self.closing_effects);
        for (slot, effect) in closing_slots.into_iter().zip(closing_effects) {
            self.act(slot, effect, now);
        }
        for (to, message) in std::mem::take(&mut self.last_messages) {
            self.send_to_peer(to, message, now);
        }
    }

    /// Runs all timers that are due, in every session. Call it a few times a second.
    pub fn sweep(&mut self, now: Now) {
        let (mut queued, mut input) = (0, 0);
        let mut rates = std::mem::take(&mut self.account.rates);
        for index in 0..self.sessions.end() {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            let Some((session, mut cx)) = self.session(slot, now) else { continue };
            let before = session.ending();
            session.end_if_too_slow(rates.of(slot), &mut cx);
            session.sweep(&mut cx);
            if session.has_parked() && session.may_resume(&cx) {
                self.resume(slot, now);
                continue;
            }
            if !session.shrink() || session.ending() != before {
                self.after(slot, now);
                self.list(slot);
            }
            if let Some(session) = self.sessions.get_mut(slot) {
                queued += session.queued_bytes();
                input += session.input_bytes();
            }
        }
        // While `rates` was taken out, sessions that ended only wrote default entries.
        self.account.rates = rates;
        self.counters.queued_bytes.set(queued as u64);
        self.report_memory(input);
        self.hub.sweep(now.ms);
        let losses = self.hub.losses();
        self.counters.kept_dropped.add(losses.kept);
        self.counters.log_dropped.add(losses.elements);
        self.counters.kept_bytes.set(self.hub.kept_bytes() as u64);
        self.warnings.look(self.core, &self.counters, now);
        self.drain_slice(now);
    }

    /// Installs a configuration that was reloaded.
    pub fn renew(&mut self, env: Arc<Env>, now: Now) {
        self.hub.watch(env.watched.clone(), env.version);
        self.hub.bound_channels(env.apps.channel_bounds());
        self.env = env;
        self.dials_at_all = self.env.config.has_proxies();
        for index in 0..self.sessions.end() {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            if let Some((session, mut cx)) = self.session(slot, now) {
                session.on_reload(&mut cx);
                self.after(slot, now);
                self.list(slot);
            }
        }
    }

    /// Begins a drain: new WebSockets are refused, and the open ones are closed during the next
    /// sweeps.
    pub fn drain(&mut self) {
        let slice = self.sessions.end().div_ceil(DRAIN_SLICES).max(DRAIN_SLICE_MIN);
        self.drain.get_or_insert(Drain { next: 0, slice });
    }

    fn drain_slice(&mut self, now: Now) {
        let Some(drain) = &mut self.drain else { return };
        let end = self.sessions.end();
        let from = drain.next.min(end);
        let to = from.saturating_add(drain.slice).min(end);
        // The drain starts again from the first index, for connections that were accepted
        // meanwhile.
        drain.next = if to == end { 0 } else { to };
        for index in from..to {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            self.close_for(slot, Why::Draining, now);
        }
    }

    fn close_for(&mut self, slot: Slot, why: Why, now: Now) {
        // Effects of another session that is being served must not run for this one.
        let others = std::mem::take(&mut self.effects);
        if let Some((session, mut cx)) = self.session(slot, now) {
            session.close_for(why, &mut cx);
            self.after(slot, now);
            self.list(slot);
        }
        self.effects = others;
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The number of channels of which this core keeps a picture.
    pub fn picture_count(&self) -> usize {
        self.hub.picture_count()
    }

    /// The number of channels that this core knows.
    pub fn channel_count(&self) -> usize {
        self.hub.channel_count()
    }

    // --- pending work ---

    /// All work so far, in the units of [`crate::work`].
    pub fn work(&self) -> u64 {
        self.work.total()
    }

    /// Whether some of this turn's share of work is left.
    pub fn has_work_left(&self) -> bool {
        !self.work.is_spent()
    }

    /// Returns the connection that has cost the most work since the last call; its cost is 0 if
    /// there was none.
    pub fn take_costliest(&mut self) -> CostliestWork {
        self.work.take_costliest()
    }

    /// The next connection that has bytes to write, or to be read again, or is to end.
    pub fn next_listed(&mut self) -> Option<Slot> {
        // First in, first out: a turn may not reach the end of the list.
        let slot = self.listed.pop_front()?;
        if let Some(session) = self.sessions.get_mut(slot) {
            session.listed = false;
            self.charge(slot);
        }
        Some(slot)
    }

    /// Whether any connection is on the list of pending work.
    pub fn has_listed(&self) -> bool {
        !self.listed.is_empty()
    }

    /// The connection at `index`.
    pub fn slot_at(&self, index: u32) -> Option<Slot> {
        self.sessions.slot_at(index)
    }

    /// The connection that a completion belongs to; see [`Table::slot_of_completion`].
    pub fn slot_of_completion(&self, index: u32, short: u32) -> Slot {
        self.sessions.slot_of_completion(index, short)
    }

    /// The peer's address.
    pub fn peer(&mut self, slot: Slot) -> Option<SocketAddr> {
        Some(self.sessions.get_mut(slot)?.peer())
    }

    /// The next batch of segments to send to the peer.
    pub fn take_batch(&mut self, slot: Slot) -> Option<Vec<Segment>> {
        self.sessions.get_mut(slot)?.take_batch(&mut self.plain)
    }

    /// Bytes that wait on the connection: received ones for a later turn, and its write queue.
    pub fn waiting_bytes(&mut self, slot: Slot) -> usize {
        self.sessions.get_mut(slot).map_or(0, |it| it.waiting_input_bytes() + it.queued_bytes())
    }

    /// Whether to read from the connection and how it is to end.
    pub fn wants(&mut self, slot: Slot) -> Option<Wants> {
        let session = self.sessions.get_mut(slot)?;
        Some(Wants { read: session.wants_read(), ending: session.ending() })
    }

    fn list(&mut self, slot: Slot) {
        if let Some(session) = self.sessions.get_mut(slot)
            && !session.listed
        {
            session.listed = true;
            self.listed.push_back(slot);
        }
    }

    // --- mail ---

    /// Outgoing mail to the other cores.
    pub fn mail(&mut self) -> &mut OutgoingMail {
        &mut self.mail
    }

    /// Whether requests of other cores can be taken now.
    pub fn takes_requests(&self) -> bool {
        !self.mail.down_is_full(self.mail_bound)
    }

    /// Whether commands from outside the cores, such as those of the control thread, can be taken
    /// now.
    pub fn takes_commands(&self) -> bool {
        self.takes_requests() && !self.mail.up_is_full(self.mail_bound)
    }

    /// Handles a request from core `from`.
    pub fn request(&mut self, from: u16, request: Up, now: Now) {
        self.work.add(work::EFFECT);
        match request {
            Up::Message { to, what } => return self.forward(to, what, now),
            Up::Query { ref query, .. } => self.charge_query(query),
            _ => {}
        }
        let published = self.hub.request(from, request, now.ms, &mut self.mail);
        if let Some((name, event)) = published {
            self.deliver(&name, &event, now);
        }
        self.deliver_local(now);
    }

    /// Handles a delivery or an answer from the home of a channel.
    pub fn answer(&mut self, answer: Down, now: Now) {
        self.work.add(work::STEP);
        match answer {
            Down::Deliver { name, event } => self.deliver(&name, &event, now),
            Down::Interested { request_id, name, granted: false } => {
                self.join_refused(request_id, &name, now);
            }
            Down::Interested { request_id, name, granted: true } => {
                let slots = self.hub.interested(request_id, &name).iter().map(|it| it.slot);
                for index in slots.collect::<Vec<u32>>() {
                    if let Some(slot) = self.sessions.slot_at(index) {
                        self.on_joined(slot, name.text(), JoinOutcome::Joined(None), now);
                    }
                }
            }
            Down::Message { slot, what } => self.deliver_message(slot, &what, now),
            Down::Answer { ack, answer } => self.answered(ack, answer, now),
            Down::JoinReply { request_id, slot, name, reply } => {
                let granted = reply.is_ok();
                if self.hub.on_join_reply(request_id, slot, &name, granted, &mut self.mail) {
                    let outcome = match reply {
                        Ok(reply) => JoinOutcome::Joined(Some(reply)),
                        Err(why) => self.join_refusal(why),
                    };
                    self.on_joined(slot, name.text(), outcome, now);
                }
            }
        }
    }

    fn on_joined(&mut self, slot: Slot, name: &str, outcome: JoinOutcome, now: Now) {
        if let Some((session, mut cx)) = self.session(slot, now) {
            Shard::deliver_outcome(session, name, outcome, &mut cx);
            self.after(slot, now);
            self.list(slot);
        }
    }

    /// Queues the channel's picture and history if the session has requested them, and then reports
    /// the outcome of its join.
    fn deliver_outcome(
        session: &mut Session,
        name: &str,
        outcome: JoinOutcome,
        cx: &mut Context<'_>,
    ) {
        if let JoinOutcome::Joined(Some(JoinReply { picture, history, .. })) = &outcome {
            if let Some(picture) = picture {
                session.show(picture, cx);
            }
            session.recall(history, cx);
        }
        session.joined(name, outcome, cx);
    }

    fn answered(&mut self, ack: Ack, answer: Answer, now: Now) {
        let Some((session, mut cx)) = self.session(ack.slot, now) else { return };
        session.answered(ack.ticket, ack.part, answer, &mut cx);
        session.acked(ack.ticket);
        session.settle(&mut cx);
        self.try_resume(ack.slot, now);
        self.list(ack.slot);
    }

    // --- private helpers ---

    fn session(&mut self, slot: Slot, now: Now) -> Option<(&mut Session, Context<'_>)> {
        let session = self.sessions.get_mut(slot)?;
        let cx = Context {
            now,
            conn: ConnId { core: self.core, slot },
            peer: session.peer(),
            listener: session.listener(),
            env: &self.env,
            waiting_bytes: session.waiting_bytes(),
            json: &mut self.json,
            codecs: &mut self.codecs,
            core_state: &mut self.core_state,
            shared: &mut self.shared,
            effects: &mut self.effects,
            proxy_effects: &mut self.proxy_effects,
            keys: &mut self.keys,
            counters: &self.counters,
            work: &self.work,
            failures: 0,
            draining: self.drain.is_some(),
            congested: self.mail.up_is_full(self.mail_bound),
            secure: session.is_secure(),
            identity: session.identity(),
        };
        Some((session, cx))
    }

    /// Runs the effects that a session has requested, and then whatever its new state requires.
    fn after(&mut self, slot: Slot, now: Now) {
        while !self.effects.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.act(slot, effect, now);
            }
            if self.effects.is_empty() {
                self.effects = effects;
            }
        }
        let Some((session, mut cx)) = self.session(slot, now) else { return };
        session.settle(&mut cx);
        let waits = session.is_fresh() && session.ending() == Ending::Open;
        let answered = session.counted_fresh && !waits;
        session.counted_fresh &= !answered;
        let open = session.is_open_socket();
        let last_message = session.last_message(false, cx.draining);
        self.fresh -= usize::from(answered);
        if !open {
            self.note_close(slot);
        }
        if !open && self.hub.subscription_count(slot) > 0 {
            self.leave_all(slot);
        }
        if !self.proxy_effects.is_empty() || last_message.is_some() {
            self.run_proxy_effects(slot, last_message, now);
        }
    }

    /// Runs the dialect's `on_close` for a connection that can send nothing more. The effects for
    /// connections that wait for it run in the next turn.
    fn note_close(&mut self, slot: Slot) {
        let (us, from) = (ConnId { core: self.core, slot }, self.closing_effects.len());
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.on_close(&self.env, us, &mut self.closing_effects);
        let last = self.closing_effects.len();
        self.closing_slots.extend((from..last).map(|_| slot));
    }

    fn leave_all(&mut self, slot: Slot) {
        let left = self.hub.leave_all(slot, &mut self.mail);
        self.counters.subscriptions.sub(left as u64);
        // The caller delivers the events that result for other subscribers.
    }
}
