//! The channels of one core and their subscribers. This module uses no sockets, no bytes of a
//! protocol and no clock.
//!
//! A channel has a *home* core, chosen by a hash of its application and name. Each core has the
//! list of its own subscribers; the home orders the publishes and notes which cores have
//! subscribers (their *interest*). A publish goes from its origin core to the home and from there
//! to the interested cores, so that all subscribers see the same order.
//!
//! A core's first subscriber of a channel waits until the home has noted the core's interest
//! ([`Joined::Later`]). From then on it gets every publish that the home orders.

mod cache;
mod channel;
mod channel_events;
mod counted_numbers;
mod counted_reads;
mod counting;
mod encodings;
mod event;
mod forms;
mod frames;
mod history;
mod home;
mod invariants;
mod join;
mod kept;
mod log_view;
mod logged_picture;
mod logged_pictures;
mod mail;
mod members;
mod miss;
mod misses;
mod name;
mod node_states;
mod nodes;
mod numbers;
mod occupancy;
mod own_states;
mod picture;
mod propose;
mod queries;
mod relay;
mod replay;
mod reports;
mod resume;
mod rooms;
mod roster;
mod sequencer;
mod slab;
mod statements;
mod subscriptions;
mod usage;
mod view_counts;
mod visits;
mod waiting_joins;

pub use channel_events::{ChannelEvent, ChannelEventKind, EventMask};
pub use counted_numbers::{CountedKind, CountedNumbers, CountingStep};
pub use counting::CountedAnswer;
pub use encodings::Encodings;
pub use event::{
    CacheEntry, Clears, ClientEvent, Event, EventKey, EventPayload, Excluded, HistoryLimit,
    HubMessage, Mode, PictureChange, Retention,
};
pub use forms::{EventForms, Form, StreamPosition};
pub use frames::{CompressedFrames, SharedFrame};
pub use history::HistoryUsage;
pub use home::{ChannelInfo, ChannelUsage};
pub use join::{JoinRefusal, JoinReply, JoinRequest};
pub use kept::Losses;
pub use log_view::{LATE_MS, LogMark, LogPlace, LogStart, SERIAL_END, log_serial};
pub use mail::{Ack, Answer, Down, OutgoingMail, Query, RequestMark, Unpublished, Up};
pub use members::Subscriber;
pub use name::{ChannelName, ConnId, CoreSet, Hasher};
pub use node_states::{StateAuthor, StateVisit, VisitedSlice};
pub use own_states::{PicturePiece, StateProposal, StateTimes, Statement};
pub use picture::picture_value;
pub use propose::Proposal;
pub use relay::{
    HubRelay, KeptChannel, KeptHistory, OrderedEvent, RelayDeparture, RelayRole, RelayedEvent,
};
pub use replay::{HistoryPage, MissedEvent, ResumeFrom, ResumeOutcome, ResumeReply, ResumeRequest};
pub use rooms::Claim;
pub use roster::{ChannelFull, Member, MemberChange, Users};
pub use subscriptions::{Join, Joined};
pub use view_counts::{SubscriberCount, ViewCounts};

use crate::mem::Slot;
use channel::{ChannelState, HomeLink};
use channel_events::ChannelEvents;
use counting::Counting;
use hashbrown::HashTable;
use kept::KeptStore;
use log_view::{HomeLogs, LogView};
use logged_picture::LoggedPictures;
use members::Members;
use name::home_among;
use node_states::UnfinishedVisit;
use own_states::OwnStates;
use rooms::{Rooms, UNLISTED};
use slab::Slab;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// The channels of one core: those with subscribers on it, and those that it is the home of.
///
/// Invariants: each channel is in `index`, and each of its subscribers in `members`, once; a
/// channel with another home has subscribers here and no state of a home; a channel of this home
/// has subscribers, interest of other cores, or something kept.
pub struct Hub<M> {
    core: u16,
    cores: u16,
    hasher: Hasher,
    index: HashTable<u32>,
    channels: Slab<ChannelState<M>>,
    members: Members,
    request_id: u32,
    /// Events of the hub itself, such as member changes, to be delivered on this core.
    local: VecDeque<(ChannelName, Event<M>)>,
    /// Channels with another home whose number of subscribers on this core has changed.
    recount: Vec<u32>,
    /// What the homes on this core keep for later subscribers.
    kept: KeptStore,
    channel_events: ChannelEvents,
    /// The channels that this core is the home of, by the application's number.
    rooms: HashMap<u32, Rooms>,
    /// The maximum number of occupied channels on this core, by the application's number.
    bounds: Box<[usize]>,
    /// The events that wait to be taken into the log of a cluster; `None` without a cluster.
    proposals: Option<VecDeque<Proposal<M>>>,
    /// What is exchanged with another process while one replaces the other.
    relay: Option<Box<HubRelay<M>>>,
    /// What this node states in the log of its cluster; `None` without a cluster.
    own_states: Option<Box<OwnStates<M>>>,
    /// The applications whose numbers of subscribers are read on some node of the cluster.
    counting: Counting,
    /// The keys of views, by their numbers.
    view_keys: Arc<[u64]>,
    /// What is known of the log of a cluster; `None` without a cluster.
    log: Option<LogView>,
    /// The last serial number of each application that a reload has added whose events may have
    /// expired before this node has read them.
    added_floors: BTreeMap<u32, u64>,
    /// The logs of the homes on all cores.
    logs: HomeLogs,
    /// A visit of all channels that has not ended.
    visit: Option<UnfinishedVisit>,
    /// The pictures in the log of a cluster; `None` without a cluster.
    pictures: Option<Box<LoggedPictures>>,
}

impl<M: HubMessage> Hub<M> {
    /// The hub of core `core` out of `cores`. All cores of a process use the same `hasher`. Cached
    /// events, pictures and histories may hold `kept_max` bytes.
    pub fn new(core: u16, cores: u16, hasher: Hasher, kept_max: usize) -> Hub<M> {
        debug_assert!(core < cores);
        Hub {
            core,
            cores,
            hasher,
            index: HashTable::new(),
            channels: Slab::default(),
            members: Members::default(),
            request_id: 0,
            local: VecDeque::new(),
            recount: Vec::new(),
            kept: KeptStore::new(kept_max),
            channel_events: ChannelEvents::default(),
            rooms: HashMap::new(),
            bounds: Box::default(),
            proposals: None,
            relay: None,
            own_states: None,
            counting: Counting::default(),
            view_keys: Arc::default(),
            log: None,
            added_floors: BTreeMap::new(),
            logs: HomeLogs::default(),
            visit: None,
            pictures: None,
        }
    }

    /// The channel `name` of application `app` with its hash, which is the same on all cores.
    pub fn name(&self, app: u32, name: &str) -> ChannelName {
        self.hasher.name(app, name)
    }

    /// The core that is the home of a channel.
    pub fn home(&self, app: u32, name: &str) -> u16 {
        self.home_of(self.hasher.hash(app, name))
    }

    fn home_of(&self, hash: u64) -> u16 {
        home_among(hash, self.cores)
    }

    /// The next event of the hub itself to be delivered to this core's subscribers.
    pub fn next_local(&mut self) -> Option<(ChannelName, Event<M>)> {
        self.local.pop_front()
    }

    /// Publishes `event` to every subscriber of the channel. If the home is another core, it
    /// answers `ack`, if there is one, with [`Down::Answer`]. If this core is the home and the
    /// channel has no subscriber, nothing is allocated, unless the event must be kept. `event` gets
    /// its position if this core is the home and a subscriber may need it. In a cluster the event
    /// is only proposed, on any core; see [`Proposal`]. The same is true in a process that is being
    /// replaced.
    pub fn publish(
        &mut self,
        app: u32,
        name: &str,
        event: &mut Event<M>,
        ack: Option<Ack>,
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) -> Published {
        let hash = self.hasher.hash(app, name);
        if self.proposals.is_some() || self.relay.is_some() {
            let from = (ack, mail.last_request(self.home_of(hash)));
            if self.propose(app, name, event, from)
                || self.propose_to_replacement(app, name, event, from)
            {
                return Published::Sent;
            }
        }
        if self.home_of(hash) != self.core {
            let name = self.hasher.name(app, name);
            mail.up(self.home_of(hash), Up::Publish { name, event: event.clone(), ack });
            return Published::Sent;
        }
        let found = self.find(app, name, hash);
        let name = |hub: &Hub<M>| hub.hasher.name(app, name);
        match self.publish_at_home(found, name, (event, None), now_ms, mail) {
            Some(at) => Published::Ordered(at),
            None => Published::NotSubscribed,
        }
    }

    /// Whether the connection receives what is published on the channel.
    pub fn is_subscribed(&self, slot: Slot, app: u32, name: &str) -> bool {
        let at = self.find(app, name, self.hasher.hash(app, name));
        let channel = at.and_then(|at| self.channels[at as usize].as_ref());
        match (at, channel) {
            (Some(at), Some(channel)) if channel.home_link == HomeLink::Known => {
                let position = self.members.position(slot.index, at);
                position.is_some_and(|position| {
                    self.members.is_active(slot.index, position, &channel.subscribers)
                })
            }
            _ => false,
        }
    }

    /// The subscribers on this core that receive what is delivered on `name` now.
    pub fn subscribers(&self, name: &ChannelName) -> &[Subscriber] {
        match self.find(name.app(), name.text(), name.hash()) {
            Some(at) => self.subscribers_at(at),
            None => &[],
        }
    }

    /// The subscribers on this core that receive what is delivered on the channel at `at` now.
    pub fn subscribers_at(&self, at: u32) -> &[Subscriber] {
        match self.channels.get(at as usize) {
            Some(Some(channel)) if channel.home_link == HomeLink::Known => &channel.subscribers,
            _ => &[],
        }
    }

    /// The name of the channel at `at`.
    pub fn name_at(&self, at: u32) -> Option<Arc<str>> {
        self.channels.get(at as usize)?.as_ref().map(|channel| channel.name.shared())
    }

    /// The form in which a connection receives the events of a channel, if it has subscribed to it.
    pub fn form_of(&self, slot: Slot, name: &ChannelName) -> Option<Form> {
        let at = self.find(name.app(), name.text(), name.hash())?;
        let position = self.members.position(slot.index, at)?;
        let channel = self.channels[at as usize].as_ref()?;
        self.members.subscriber(slot.index, position, &channel.subscribers).map(|it| it.form)
    }

    /// Channels of this home that have a picture or a history.
    pub fn picture_count(&self) -> usize {
        self.kept.pictures.len()
    }

    /// Channels that this core has an entry for, as a subscribing core or as their home.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Subscriptions of one connection.
    pub fn subscription_count(&self, slot: Slot) -> usize {
        self.members.count(slot.index)
    }

    fn find(&self, app: u32, name: &str, hash: u64) -> Option<u32> {
        let same = |&at: &u32| match &self.channels[at as usize] {
            Some(channel) => channel.name.is(app, name),
            None => false,
        };
        self.index.find(hash, same).copied()
    }

    fn insert(&mut self, name: ChannelName) -> u32 {
        let hash = name.hash();
        let channel = ChannelState {
            name,
            subscribers: Vec::new(),
            home_link: HomeLink::Unknown,
            interest: CoreSet::default(),
            home: None,
            reported: 0,
            recounting: false,
            views: None,
            occupied: false,
            listed: UNLISTED,
        };
        let at = self.channels.insert(channel);
        self.enlist(at);
        let channels = &self.channels;
        let rehash =
            |&at: &u32| channels[at as usize].as_ref().map_or(0, |channel| channel.name.hash());
        self.index.insert_unique(hash, at, rehash);
        at
    }

    fn release_if_empty(&mut self, at: u32) {
        let Some(channel) = &self.channels[at as usize] else {
            return;
        };
        let kept = channel.home.as_ref().is_some_and(|home| !home.is_empty());
        if !channel.subscribers.is_empty() || !channel.interest.is_empty() || kept {
            return;
        }
        if let Ok(entry) = self.index.find_entry(channel.name.hash(), |&other| other == at) {
            entry.remove();
        }
        let Some(removed) = self.channels.remove(at) else { return };
        self.unlist(&removed.name, removed.listed, removed.occupied);
        if let Some(history) = removed.home.and_then(|home| home.history) {
            self.kept.bytes -= self.note_history_dropped(&history);
        }
        if self.index.is_empty() {
            self.recount = Vec::new();
            if self.index.capacity() > KEPT_INDEX {
                self.index = HashTable::new();
            }
        }
    }
}

/// An index with room for this many channels at most is kept while there is no channel.
const KEPT_INDEX: usize = 256;

/// The result of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Ordered by this core; the channel with its subscribers is at this index.
    Ordered(u32),
    /// Ordered by this core; there is no subscriber on it.
    NotSubscribed,
    /// Sent to the home core, or proposed to the log of the cluster.
    Sent,
}

#[cfg(test)]
mod tests;
