//! All that one core owns above its ring: sessions, its share of the hub, timers.
//!
//! This is the seam: a reactor feeds it from the kernel, a simulator from a script. Bytes and time
//! come in ([`Shard::open`], [`Shard::receive`], [`Shard::eof`], [`Shard::sent`],
//! [`Shard::sweep`]); what is to be done comes out of one list ([`Shard::next_listed`]). No call
//! fails.

mod account;
mod alarms;
mod channels;
mod feed;
mod handshakes;
mod notices;
mod proxy;
mod secure;
mod streams;
mod turn;

use crate::codec::json::Scratch;
use crate::dialect::{CoreState, Effect, Env, JoinOutcome, Why};
use crate::hub::{
    Ack, Answer, ChannelEvent, ConnId, Down, Hasher, Hub, JoinReply, OutgoingMail, Up,
};
use crate::mem::{Handle, Segment, Slot, Table};
use crate::session::{Context, Dial, Ending, MaskKeys, PeerMessage, ProxyEffect, Session};
use crate::stats::Counters;
use crate::time::Now;
use crate::work::{self, Dearest, Meter};
use crate::ws::output::Codecs;
use alarms::Alarms;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// What belongs to all shards of a process.
#[derive(Clone)]
pub struct Common {
    /// Configuration and applications.
    pub env: Arc<Env>,
    /// Hashes channel names.
    pub hasher: Hasher,
    /// Number of shards.
    pub cores: u16,
    /// Messages for one other core that may wait here before this core takes on no more work.
    pub mail_bound: usize,
}

/// One core's connections and channels.
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
    /// What connections that are gone have left to be done, and which of them.
    closing_effects: Vec<Effect>,
    closing_slots: Vec<Slot>,
    /// What sessions ask beside actions, connections that are to be made, and what connections
    /// that are gone have left to be said.
    proxy_effects: Vec<ProxyEffect>,
    dials: VecDeque<Box<Dial>>,
    /// Whether a route leads to upstreams.
    dials_at_all: bool,
    last_messages: Vec<(Slot, PeerMessage)>,
    keys: MaskKeys,
    listed: VecDeque<Slot>,
    /// Plaintext on its way through TLS, during one call.
    plain: Vec<u8>,
    /// Sessions that stopped reading.
    waiting: Vec<Slot>,
    /// What this turn has cost so far, and the low bits of its number.
    work: Meter,
    turn: u16,
    alarms: Alarms,
    counters: Arc<Counters>,
    /// Connections without a whole request so far.
    fresh: usize,
    /// Those with the milliseconds at which they came, oldest first, and among them some that have
    /// sent theirs or are gone.
    handshakes: VecDeque<(Slot, u64)>,
    drain: Option<Drain>,
    subscribers: Vec<u32>,
    /// A notice that could not be handed over yet.
    notice: Option<ChannelEvent>,
    cores: u16,
    account: account::Account,
}

/// Progress of a shutdown: connections are closed in slices, so that their clients do not all
/// connect elsewhere in the same instant.
struct Drain {
    next: u32,
    slice: u32,
}

/// Slices into which a drain is cut at most; a sweep does one.
const DRAIN_SLICES: u32 = 16;
/// Connections that a slice has at least.
const DRAIN_SLICE_MIN: u32 = 256;

/// What a reactor has to know of a connection on its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Whether bytes from the peer are wanted.
    pub read: bool,
    /// How the connection is to end.
    pub ending: Ending,
}

impl Shard {
    /// The shard of core `core`.
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
            alarms: Alarms::default(),
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

    /// A connection was accepted at `index`, which must be free, by the first listener.
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

    /// Bytes have come from the peer. They are changed in place.
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

    /// The peer has ended its side.
    pub fn eof(&mut self, slot: Slot, now: Now) {
        if let Some((session, mut cx)) = self.session(slot, now) {
            session.eof(&mut cx);
            self.after(slot, now);
            self.list(slot);
        }
    }

    /// `n` bytes of the batch have left; `whole` is its emptied list when it is through.
    pub fn sent(&mut self, slot: Slot, n: usize, whole: Option<Vec<Segment>>, now: Now) {
        self.counters.sent_bytes.add(n as u64);
        self.count(slot, 0, n);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        self.account.sent(slot, n);
        match whole {
            Some(spare) => session.settled(spare, now),
            None => session.progressed(now),
        }
        self.go_on(slot, now);
        self.list(slot);
        self.relieve(slot, now);
    }

    /// The connection cannot be sent to any more.
    pub fn lost(&mut self, slot: Slot) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.lost();
            self.list(slot);
        }
    }

    /// The connection is gone: forgets it and frees its place.
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

    /// Does what connections that are gone have left to be done for others. [`Shard::next_turn`]
    /// does, too.
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

    /// Does what time has made due, in every session. Call it a few times a second.
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
        // A session that has ended meanwhile has left nothing in the empty ones.
        self.account.rates = rates;
        self.counters.queued_bytes.set(queued as u64);
        self.report_memory(input);
        self.hub.sweep(now.ms);
        let losses = self.hub.losses();
        self.counters.kept_dropped.add(losses.kept);
        self.counters.log_dropped.add(losses.elements);
        self.counters.kept_bytes.set(self.hub.kept_bytes() as u64);
        self.alarms.look(self.core, &self.counters, now);
        self.drain_slice(now);
    }

    /// Takes over a configuration that was read anew.
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

    /// Begins a shutdown: new WebSockets are refused, the present ones are closed over the next
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
        // Over and over, for connections that were accepted meanwhile.
        drain.next = if to == end { 0 } else { to };
        for index in from..to {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            self.close_for(slot, Why::Draining, now);
        }
    }

    fn close_for(&mut self, slot: Slot, why: Why, now: Now) {
        // What another session has asked for is not this one's.
        let others = std::mem::take(&mut self.effects);
        if let Some((session, mut cx)) = self.session(slot, now) {
            session.close_for(why, &mut cx);
            self.after(slot, now);
            self.list(slot);
        }
        self.effects = others;
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Channels that this core keeps a picture of.
    pub fn picture_count(&self) -> usize {
        self.hub.picture_count()
    }

    /// Channels that this core knows.
    pub fn channel_count(&self) -> usize {
        self.hub.channel_count()
    }

    // --- what is to be done ---

    /// All work so far, by the prices of [`crate::work`].
    pub fn work(&self) -> u64 {
        self.work.total()
    }

    /// Whether this turn has a rest of its share of work.
    pub fn has_work_left(&self) -> bool {
        !self.work.is_spent()
    }

    /// Who has cost most since the last call, if anybody has cost something.
    pub fn take_dearest(&mut self) -> Dearest {
        self.work.take_dearest()
    }

    /// The next connection with something to write, to read again or to end.
    pub fn next_listed(&mut self) -> Option<Slot> {
        // In the order in which they came: a turn may not get to the end of the list.
        let slot = self.listed.pop_front()?;
        if let Some(session) = self.sessions.get_mut(slot) {
            session.listed = false;
            self.charge(slot);
        }
        Some(slot)
    }

    /// Whether anything is on the list.
    pub fn has_listed(&self) -> bool {
        !self.listed.is_empty()
    }

    /// The connection at `index`.
    pub fn slot_at(&self, index: u32) -> Option<Slot> {
        self.sessions.slot_at(index)
    }

    /// The connection that a completion is for: [`Table::slot_of_completion`].
    pub fn slot_of_completion(&self, index: u32, short: u32) -> Slot {
        self.sessions.slot_of_completion(index, short)
    }

    /// The peer's address.
    pub fn peer(&mut self, slot: Slot) -> Option<SocketAddr> {
        Some(self.sessions.get_mut(slot)?.peer())
    }

    /// The next batch for the peer.
    pub fn take_batch(&mut self, slot: Slot) -> Option<Vec<Segment>> {
        self.sessions.get_mut(slot)?.take_batch(&mut self.plain)
    }

    /// Bytes that wait on a connection: input for its turn, and output for its peer.
    pub fn waiting_bytes(&mut self, slot: Slot) -> usize {
        self.sessions.get_mut(slot).map_or(0, |it| it.held_bytes() + it.queued_bytes())
    }

    /// What is wanted for the connection.
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

    /// What this core has to say to the others.
    pub fn mail(&mut self) -> &mut OutgoingMail {
        &mut self.mail
    }

    /// Whether requests of other cores can be taken now.
    pub fn takes_requests(&self) -> bool {
        !self.mail.down_is_full(self.mail_bound)
    }

    /// Whether orders from outside the cores can be taken now.
    pub fn takes_orders(&self) -> bool {
        self.takes_requests() && !self.mail.up_is_full(self.mail_bound)
    }

    /// A request from core `from`.
    pub fn request(&mut self, from: u16, request: Up, now: Now) {
        self.work.add(work::EFFECT);
        match request {
            Up::Tell { to, what } => return self.pass_on(to, what, now),
            Up::Ask { ref query, .. } => self.charge_query(query),
            _ => {}
        }
        let published = self.hub.request(from, request, now.ms, &mut self.mail);
        if let Some((name, event)) = published {
            self.deliver(&name, &event, now);
        }
        self.deliver_local(now);
    }

    /// An answer or a delivery from the home of a channel.
    pub fn answer(&mut self, answer: Down, now: Now) {
        self.work.add(work::STEP);
        match answer {
            Down::Deliver { name, event } => self.deliver(&name, &event, now),
            Down::Interested { asked, name, granted: false } => {
                self.turned_down(asked, &name, now);
            }
            Down::Interested { asked, name, granted: true } => {
                let slots = self.hub.interested(asked, &name).iter().map(|it| it.slot);
                for index in slots.collect::<Vec<u32>>() {
                    if let Some(slot) = self.sessions.slot_at(index) {
                        self.on_joined(slot, name.text(), JoinOutcome::Joined(None), now);
                    }
                }
            }
            Down::Tell { slot, what } => self.tell(slot, &what, now),
            Down::Answer { ack, answer } => self.answered(ack, answer, now),
            Down::JoinReply { asked, slot, name, reply } => {
                let granted = reply.is_ok();
                if self.hub.on_join_reply(asked, slot, &name, granted, &mut self.mail) {
                    let outcome = match reply {
                        Ok(reply) => JoinOutcome::Joined(Some(reply)),
                        Err(why) => self.not_let_in(why),
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

    /// Shows a session the picture or the last events of the channel, if it has asked for that, and
    /// tells it that it has joined.
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
        self.go_on(ack.slot, now);
        self.list(ack.slot);
    }

    // --- inside ---

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

    /// Carries out what a session has asked for, and what follows from its state.
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

    /// Nothing reaches the peer of this connection any more: whoever waits for it hears of that
    /// with the next turn.
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
        // What others are to hear of it is delivered by whoever has called.
    }
}
