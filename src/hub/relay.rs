//! What two processes exchange while one replaces the other, as the hub of one core sees it.
//!
//! The replaced process orders nothing any more that the other one can carry: it proposes the event
//! to its replacement, which orders, keeps and delivers it, and sends every event that it has
//! ordered back. So both deliver the events of a channel in one order. What the homes of the
//! replaced process keep for later subscribers is handed over before the first proposal.

use super::event::{CacheEntry, Event, EventPayload, HistoryLimit, Retention};
use super::forms::StreamPosition;
use super::frames::SharedFrame;
use super::mail::{Ack, OutgoingMail, RequestMark};
use super::name::ChannelName;
use super::propose::Proposal;
use super::{Hub, HubMessage};
use crate::mem::Frozen;
use std::collections::VecDeque;
use std::sync::Arc;

/// The estimated bytes of an event in a queue besides its frame.
const EVENT_BYTES: u64 = 128;

/// The part that a process has in its replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayRole {
    /// It is replaced, and proposes events.
    Replaced,
    /// It replaces the other one, and orders the events of both.
    Replacement,
}

/// What a core sends to the other process.
#[derive(Debug)]
pub enum RelayDeparture<M> {
    /// An event that the replacement is to order.
    Proposed(Box<Proposal<M>>),
    /// An event that this process has ordered.
    Ordered(Box<OrderedEvent<M>>),
    /// What the home of a channel keeps.
    Kept(Box<KeptChannel>),
    /// Everything that this core keeps was sent.
    KeptEnd,
    /// Nothing more follows.
    Stopped,
}

/// An event that the replacement has ordered.
#[derive(Debug)]
pub struct OrderedEvent<M> {
    /// The channel.
    pub name: ChannelName,
    /// The event.
    pub event: Event<M>,
    /// Its position, if it is in the channel's history.
    pub position: Option<StreamPosition>,
    /// The number under which the replaced process has proposed it, if it has.
    pub number: Option<u64>,
}

impl<M> OrderedEvent<M> {
    /// Bytes that the event holds, estimated.
    pub fn bytes(&self) -> u64 {
        self.event.frame().map_or(0, |frame| frame.len() as u64) + EVENT_BYTES
    }
}

/// What the home of a channel keeps for later subscribers.
#[derive(Debug)]
pub struct KeptChannel {
    /// The application's number.
    pub app: u32,
    /// The channel.
    pub name: Arc<str>,
    /// The cached event, whose lifetime is what is left of it.
    pub cached: Option<(Frozen, CacheEntry)>,
    /// The history.
    pub history: Option<KeptHistory>,
}

/// The history of a channel.
#[derive(Debug)]
pub struct KeptHistory {
    /// The position of the last event.
    pub position: StreamPosition,
    /// The events, the oldest first, each with the milliseconds that are left of its lifetime.
    pub events: Vec<(Frozen, u64)>,
}

/// Where an event comes from that was ordered, or is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct RelayedEvent {
    /// Its position in the history of the process that has ordered it.
    pub position: Option<StreamPosition>,
    /// The number of its proposal, if this process is to order it.
    pub number: Option<u64>,
}

/// The exchange of one core with the other process. See the module's documentation.
#[derive(Debug)]
pub struct HubRelay<M> {
    role: RelayRole,
    departures: VecDeque<RelayDeparture<M>>,
    /// The bytes of all ordered events so far.
    bytes: u64,
    /// The number of the proposal that is being ordered.
    number: Option<u64>,
}

impl<M: HubMessage> Hub<M> {
    /// Proposes events from now on, or sends what is ordered here to the process that is replaced.
    pub fn begin_relay(&mut self, role: RelayRole) {
        let departures = VecDeque::new();
        self.relay = Some(Box::new(HubRelay { role, departures, bytes: 0, number: None }));
    }

    /// Ends that. Returns what was not sent.
    pub fn end_relay(&mut self) -> VecDeque<RelayDeparture<M>> {
        self.relay.take().map(|relay| relay.departures).unwrap_or_default()
    }

    /// Orders events here until [`Hub::resume_relay`].
    pub fn suspend_relay(&mut self) -> Option<Box<HubRelay<M>>> {
        self.relay.take()
    }

    /// Continues as before the suspension.
    pub fn resume_relay(&mut self, suspended: Option<Box<HubRelay<M>>>) {
        self.relay = suspended;
    }

    /// Whether the other process can carry an event. What the dialects without applications publish
    /// stays in its process.
    fn is_relayed(&self, app: u32, event: &Event<M>) -> bool {
        let is_carried = matches!(event.payload, EventPayload::Frame(_) | EventPayload::Close(..))
            && !matches!(event.retain, Retention::Picture(_));
        is_carried && (app as usize) < self.bounds.len()
    }

    /// Proposes an event to the replacement of this process, if it has one.
    pub(super) fn propose_to_replacement(
        &mut self,
        app: u32,
        name: &str,
        event: &Event<M>,
        (ack, after): (Option<Ack>, RequestMark),
    ) -> bool {
        if !self.is_relayed(app, event) {
            return false;
        }
        let origin = ack.map(|ack| (self.core, ack));
        let Some(relay) = self.relay.as_mut().filter(|it| it.role == RelayRole::Replaced) else {
            return false;
        };
        let proposal = Proposal { app, name: name.into(), event: event.clone(), origin, after };
        relay.departures.push_back(RelayDeparture::Proposed(Box::new(proposal)));
        true
    }

    /// Whether events that are ordered here are sent to the process that is replaced.
    pub(super) fn is_replacement(&self) -> bool {
        self.relay.as_ref().is_some_and(|relay| relay.role == RelayRole::Replacement)
    }

    /// Sends an event that was ordered here to the process that is replaced. `at` is its channel,
    /// if it has an entry.
    pub(super) fn relay_ordered(&mut self, name: ChannelName, at: Option<u32>, event: &Event<M>) {
        let is_relayed = self.is_relayed(name.app(), event);
        let is_numbered =
            matches!(event.retain, Retention::History(_) | Retention::CacheAndHistory(..));
        let channel = at.filter(|_| is_numbered).and_then(|at| self.channels.get(at as usize));
        let home = channel.and_then(|channel| channel.as_ref()?.home.as_ref());
        let position = home.and_then(|home| Some(home.history.as_ref()?.position()));
        let Some(relay) = self.relay.as_mut().filter(|_| is_relayed) else { return };
        let number = relay.number.take();
        let ordered = OrderedEvent { name, event: event.clone(), position, number };
        relay.bytes += ordered.bytes();
        relay.departures.push_back(RelayDeparture::Ordered(Box::new(ordered)));
    }

    /// The oldest departure that was not handed over.
    pub fn next_departure(&mut self) -> Option<RelayDeparture<M>> {
        self.relay.as_mut()?.departures.pop_front()
    }

    /// Takes back a departure for which there is no room yet.
    pub fn return_departure(&mut self, departure: RelayDeparture<M>) {
        if let Some(relay) = &mut self.relay {
            relay.departures.push_front(departure);
        }
    }

    /// The number of departures that were not handed over.
    pub fn departure_count(&self) -> usize {
        self.relay.as_ref().map_or(0, |relay| relay.departures.len())
    }

    /// The number of events that wait to be proposed, and so keep this core from reading on.
    pub(super) fn waiting_for_replacement(&self) -> usize {
        let relay = self.relay.as_ref().filter(|relay| relay.role == RelayRole::Replaced);
        relay.map_or(0, |relay| relay.departures.len())
    }

    /// The bytes of all events that were ordered since [`Hub::begin_relay`].
    pub fn ordered_bytes(&self) -> u64 {
        self.relay.as_ref().map_or(0, |relay| relay.bytes)
    }

    /// Lets an event of the other process take effect. This core is the channel's home. Returns the
    /// channel's index if the event is to be delivered to this core's subscribers.
    pub fn apply_relayed(
        &mut self,
        (app, name): (u32, &str),
        event: &mut Event<M>,
        relayed: RelayedEvent,
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) -> Option<u32> {
        if let Some(position) = relayed.position {
            self.number_next(app, name, position);
        }
        if let Some(relay) = &mut self.relay {
            relay.number = relayed.number;
        }
        let at = self.apply(app, name, (event, None), now_ms, mail);
        self.kept.begin_at = None;
        at
    }

    /// Gives the next event of a channel's history this position. A history that has gone on
    /// differently is dropped.
    fn number_next(&mut self, app: u32, name: &str, position: StreamPosition) {
        let before = StreamPosition { serial: position.serial.saturating_sub(1), ..position };
        let at = self.find(app, name, self.hasher.hash(app, name));
        let channel = at.and_then(|at| self.channels[at as usize].as_mut());
        let home = channel.and_then(|channel| channel.home.as_mut());
        if let Some(home) = home {
            if home.history.as_ref().is_some_and(|history| history.position() == before) {
                return;
            }
            if let Some(history) = home.history.take() {
                self.kept.bytes -= self.note_history_dropped(&history);
            }
        }
        self.kept.begin_at = Some(before);
    }

    /// The channels of applications of which this core keeps a cached event or a history with
    /// positions.
    pub fn kept_channels(&self) -> VecDeque<ChannelName> {
        let cached = self.kept.keepers.by_age.values();
        let cached = cached.filter_map(|at| self.channels.get(*at as usize)?.as_ref());
        let mut names: Vec<&ChannelName> = cached.map(|channel| &channel.name).collect();
        names.extend(self.kept.pictures.values());
        names.retain(|name| (name.app() as usize) < self.bounds.len());
        names.sort_unstable_by_key(|name| (name.app(), name.text()));
        names.dedup_by_key(|name| (name.app(), name.text()));
        names.into_iter().cloned().collect()
    }

    /// What this core keeps of a channel of which it is the home.
    pub fn kept_of(&self, name: &ChannelName, now_ms: u64) -> Option<KeptChannel> {
        let at = self.find(name.app(), name.text(), name.hash())?;
        let home = self.channels[at as usize].as_ref()?.home.as_ref()?;
        let cached = home.cache_info(now_ms).and_then(|(entry, ttl_ms)| {
            let (event, data) = (entry.event.clone(), entry.data.clone());
            Some((home.kept(now_ms)?.clone(), CacheEntry { ttl_ms, event, data }))
        });
        let history = home.history.as_ref().filter(|history| history.outlives());
        let history = history.map(|history| KeptHistory {
            position: history.position(),
            events: history.left(now_ms),
        });
        let (app, name) = (name.app(), name.text().into());
        (cached.is_some() || history.is_some()).then_some(KeptChannel {
            app,
            name,
            cached,
            history,
        })
    }

    /// Keeps what the home of a channel has kept in the process that this one replaces. `limit` is
    /// that of the channel's history, if it has one here. This core is the channel's home.
    pub fn adopt(
        &mut self,
        kept: KeptChannel,
        limit: Option<HistoryLimit>,
        compresses: bool,
        now_ms: u64,
    ) {
        let name = self.hasher.name(kept.app, &kept.name);
        let shared = |frame| SharedFrame { frame, compressed: compresses.then(Default::default) };
        if let Some((history, limit)) = kept.history.zip(limit.filter(|limit| limit.ttl_s > 0)) {
            let at = self.find_or_insert(&name);
            self.adopt_history(at, history, limit, shared, now_ms);
        }
        if let Some((frame, entry)) = kept.cached {
            let at = self.find_or_insert(&name);
            self.keep(at, frame, &Arc::new(entry), now_ms);
        }
        self.make_room();
    }

    fn adopt_history(
        &mut self,
        at: u32,
        history: KeptHistory,
        limit: HistoryLimit,
        shared: impl Fn(Frozen) -> SharedFrame,
        now_ms: u64,
    ) {
        let KeptHistory { position, events } = history;
        let serial = position.serial.saturating_sub(events.len() as u64);
        self.kept.begin_at = Some(StreamPosition { serial, ..position });
        self.change_history(at, limit, now_ms, |history, _| {
            let longest_ms = limit.ttl_ms();
            let push = |(frame, left_ms): (Frozen, u64)| {
                let until_ms = now_ms.saturating_add(left_ms.min(longest_ms));
                history.push_until(shared(frame), None, limit, until_ms, None)
            };
            events.into_iter().map(push).sum()
        });
        self.kept.begin_at = None;
    }
}
