//! The shard: everything that one core owns above its ring, which is its sessions, its part of the
//! hub, and its timers.
//!
//! The public functions of [`Shard`] are its interface: a reactor calls them with events of the
//! kernel, a simulation with events of a script. Bytes and time come in through [`Shard::open`],
//! [`Shard::receive`], [`Shard::eof`], [`Shard::sent`] and [`Shard::sweep`]; connections with
//! pending work are listed by [`Shard::next_listed`]. No call returns an error.

mod account;
mod channel_events;
mod cluster;
mod deliver;
mod drain;
mod effects;
mod entry;
mod feed;
mod handshakes;
mod mail;
mod memory;
mod node_end;
mod proxy;
mod relay;
mod room;
mod session_visit;
mod sweep;
mod turn;
mod waiting;
mod warnings;

pub use relay::{RelayArrival, RelayEnd};

use crate::codec::json::Scratch;
use crate::config::Cluster;
use crate::dialect::{CoreState, EffectList, Env};
use crate::dialect::{Hub, OutgoingMail};
use crate::hub::{ChannelEvent, ConnId, Form, Hasher, StateTimes};
use crate::mem::{Handle, Segment, Slot, Table};
use crate::session::{Context, Ending, MaskKeys, Session};
use crate::stats::Counters;
use crate::time::Now;
use crate::work::{CostliestWork, Meter};
use crate::ws::output::Codecs;
use std::collections::{BTreeMap, VecDeque};
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
    /// What sessions have requested and was not run yet; empty between two calls. While the effects
    /// of one session run, what other sessions request meanwhile is added to the end, and runs
    /// before the rest: see [`Shard::run_effects`].
    effects: EffectList,
    shared: Vec<Handle>,
    core_state: CoreState,
    /// Effects that removed or closed connections leave behind. [`Shard::run_closing_effects`] runs
    /// them.
    closing_effects: EffectList,
    /// The clients whose dials have no slot yet, in the order of their requests.
    dials: VecDeque<Slot>,
    /// The connections that wait until their application may have room, by its number.
    awaiting_room: BTreeMap<u32, Vec<Slot>>,
    /// Whether some route leads to upstreams.
    dials_at_all: bool,
    keys: MaskKeys,
    listed: VecDeque<Slot>,
    /// A buffer for decrypted bytes, used within one call and kept for reuse.
    plain: Vec<u8>,
    waiting: waiting::PausedConnections,
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
    drain: Option<drain::Drain>,
    /// The closing of subscribers that have missed events of the cluster's log.
    gap: Option<drain::Drain>,
    /// The visit of all connections because a node has ended.
    session_visit: Option<session_visit::SessionVisit>,
    subscribers: Vec<(u32, Form)>,
    /// A channel event that the reactor could not hand over yet.
    channel_event: Option<ChannelEvent>,
    cores: u16,
    account: account::Account,
}
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
        hub.watch(common.env.watched.clone(), common.env.runtime.version);
        hub.bound_channels(common.env.apps.channel_bounds());
        hub.name_views(common.env.links.keys());
        if let Some(cluster) = &common.env.config.cluster {
            let Cluster { linger_ms, count_every_ms, hold_ms, .. } = **cluster;
            let picture_ms = cluster.picture_ms();
            hub.follow_log(StateTimes { linger_ms, count_every_ms, picture_ms, hold_ms });
        }
        Shard {
            core,
            env: common.env.clone(),
            sessions: Table::default(),
            hub,
            mail: OutgoingMail::new(common.cores),
            mail_bound: common.mail_bound,
            json: Scratch::default(),
            codecs: Codecs::new(common.env.config.compression.windows_bytes),
            effects: EffectList::new(),
            shared: Vec::new(),
            core_state: CoreState::default(),
            closing_effects: EffectList::new(),
            dials: VecDeque::new(),
            awaiting_room: BTreeMap::new(),
            dials_at_all: common.env.config.has_proxies(),
            keys: MaskKeys::default(),
            listed: VecDeque::new(),
            plain: Vec::new(),
            waiting: waiting::PausedConnections::default(),
            work: Meter::default(),
            turn: 0,
            warnings: Warnings::default(),
            counters,
            fresh: 0,
            handshakes: VecDeque::new(),
            drain: None,
            gap: None,
            session_visit: None,
            subscribers: Vec::new(),
            channel_event: None,
            cores: common.cores,
            account: Default::default(),
        }
    }

    /// Asserts in debug builds what holds between two calls: in the table of sessions, in the hub,
    /// and in the account of memory. It visits everything, so tests and simulations call it.
    pub fn invariants(&self) {
        if cfg!(debug_assertions) {
            self.sessions.invariants();
            self.hub.invariants();
            self.account.invariants(|index| self.sessions.slot_at(index).is_some());
        }
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

    /// Bytes that cached events, pictures and histories hold.
    pub fn kept_bytes(&self) -> usize {
        self.hub.kept_bytes()
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
            session.link.listed = false;
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
        Some(self.sessions.get_mut(slot)?.link.peer())
    }

    /// The next batch of segments to send to the peer.
    pub fn take_batch(&mut self, slot: Slot) -> Option<Vec<Segment>> {
        self.sessions.get_mut(slot)?.link.take_batch(&mut self.plain)
    }

    /// Bytes that wait on the connection: received ones for a later turn, and its write queue.
    pub fn waiting_bytes(&mut self, slot: Slot) -> usize {
        self.sessions
            .get_mut(slot)
            .map_or(0, |it| it.link.held_input_bytes() + it.link.queued_bytes())
    }

    /// Whether to read from the connection and how it is to end.
    pub fn wants(&mut self, slot: Slot) -> Option<Wants> {
        let session = self.sessions.get_mut(slot)?;
        Some(Wants { read: session.link.wants_read(), ending: session.link.ending() })
    }

    fn list(&mut self, slot: Slot) {
        if let Some(session) = self.sessions.get_mut(slot)
            && !session.link.listed
        {
            session.link.listed = true;
            self.listed.push_back(slot);
        }
    }

    // --- private helpers ---

    /// The session at `slot` and the context of a call. Inlined, because the context is large and
    /// would be copied.
    #[inline(always)]
    fn session(&mut self, slot: Slot, now: Now) -> Option<(&mut Session, Context<'_>)> {
        let session = self.sessions.get_mut(slot)?;
        let peer = session.link.peer();
        let cx = Context {
            now,
            conn: ConnId { core: self.core, slot },
            peer,
            sender: session.sender().unwrap_or(peer),
            charged: session.link.is_charged(),
            listener: session.link.listener(),
            env: &self.env,
            waiting_bytes: session.link.waiting_bytes(),
            json: &mut self.json,
            codecs: &mut self.codecs,
            core_state: &mut self.core_state,
            shared: &mut self.shared,
            effects: &mut self.effects,
            keys: &mut self.keys,
            counters: &self.counters,
            work: &self.work,
            failures: 0,
            draining: self.drain.is_some(),
            congested: self.mail.up_is_full(self.mail_bound)
                || self.hub.proposal_count() > self.mail_bound,
            secure: session.is_client_secure(),
            identity: session.identity(),
        };
        Some((session, cx))
    }
}
