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
mod encodings;
mod event;
mod forms;
mod frames;
mod history;
mod home;
mod kept;
mod mail;
mod members;
mod name;
mod occupancy;
mod picture;
mod replay;
mod reports;
mod resume;
mod rooms;
mod sequencer;
mod slab;
mod usage;

pub use channel_events::{ChannelEvent, ChannelEventKind, EventMask};
pub use encodings::Encodings;
pub use event::{
    CacheEntry, Clears, ClientEvent, Event, EventPayload, HistoryLimit, HubMessage, Mode,
    PictureChange, Retention,
};
pub use forms::{EventForms, Form, StreamPosition};
pub use frames::{CompressedFrames, SharedFrame};
pub use history::HistoryUsage;
pub use home::{
    ChannelFull, ChannelInfo, JoinRefusal, JoinReply, JoinRequest, Member, MemberChange, Users,
};
pub use kept::Losses;
pub use mail::{Ack, Answer, Down, OutgoingMail, Query, Up};
pub use members::Subscriber;
pub use name::{ChannelName, ConnId, CoreSet, Hasher};
pub use replay::{HistoryPage, MissedEvent, ResumeFrom, ResumeOutcome, ResumeReply, ResumeRequest};
pub use rooms::Claim;
pub use usage::ChannelUsage;

use crate::mem::Slot;
use channel::{ChannelState, HomeLink};
use channel_events::ChannelEvents;
use hashbrown::HashTable;
use kept::KeptStore;
use members::{Members, Start};
use name::home_among;
use rooms::{Rooms, UNLISTED};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The result of [`Hub::join`].
#[derive(Clone, Debug)]
pub enum Joined {
    /// Subscribed; with the home's reply, if there was a request.
    Now(Option<JoinReply>),
    /// The connection will be subscribed when the home's answer, which names the channel, arrives.
    Later,
    /// The connection had this subscription before; nothing changed.
    Already,
    /// The connection has its maximum number of subscriptions.
    SubscriptionLimit,
    /// The channel has its maximum number of members.
    ChannelFull,
    /// The channel is not occupied, and the application has its maximum number of channels.
    NoRoom,
}

/// A connection that joins a channel.
#[derive(Clone, Debug)]
pub struct Join<'n, M> {
    /// The connection.
    pub slot: Slot,
    /// The application's number.
    pub app: u32,
    /// The channel.
    pub name: &'n str,
    /// The maximum number of the connection's subscriptions.
    pub max: usize,
    /// Whether a subscription needs no signature, so that any client can make up the channel's
    /// name.
    pub is_public: bool,
    /// The request to the channel's home, if there is one.
    pub request: Option<JoinRequest<M>>,
    /// The form in which the connection receives the channel's events.
    pub form: Form,
}

/// The channels of one core: those with subscribers on it, and those that it is the home of.
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

    fn next_question(&mut self) -> u32 {
        // 31 bits, because the highest one is `MEMBER`; 0 stands for no request.
        self.request_id = (self.request_id + 1) & (u32::MAX >> 1);
        self.request_id = self.request_id.max(1);
        self.request_id
    }

    /// Subscribes a connection.
    pub fn join(&mut self, join: Join<'_, M>, now_ms: u64, mail: &mut OutgoingMail<M>) -> Joined {
        let Join { slot, app, name, max, is_public, request, form } = join;
        let hash = self.hasher.hash(app, name);
        let found = self.find(app, name, hash);
        if let Some(at) = found
            && self.members.has(slot.index, at)
        {
            return Joined::Already;
        }
        let count = self.members.count(slot.index);
        if count >= max {
            return Joined::SubscriptionLimit;
        }
        let (claim, home) = (Claim::new(is_public, count), self.home_of(hash));
        if home == self.core && !self.has_room(app, found, claim) {
            return Joined::NoRoom;
        }
        let at = found.unwrap_or_else(|| self.insert(self.hasher.name(app, name)));
        match home == self.core {
            true => self.join_here((slot, form), at, request, now_ms, mail),
            false => self.join_there((slot, form), at, request, claim, mail),
        }
    }

    fn join_here(
        &mut self,
        (slot, form): (Slot, Form),
        at: u32,
        request: Option<JoinRequest<M>>,
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) -> Joined {
        let conn = ConnId { core: self.core, slot };
        let member = request.as_ref().is_some_and(|request| request.member.is_some());
        let reply =
            match request.map(|request| self.grant(conn, at, request, now_ms, mail)).transpose() {
                Ok(reply) => reply,
                Err(ChannelFull) => {
                    self.release_if_empty(at);
                    return Joined::ChannelFull;
                }
            };
        if let Some(channel) = &mut self.channels[at as usize] {
            let start = Start { request_id: 0, member, form };
            self.members.add(slot.index, at, &mut channel.subscribers, start);
            channel.home_link = HomeLink::Known;
        }
        self.note_maker(at, conn);
        self.look(at);
        self.tally(at);
        Joined::Now(reply)
    }

    fn join_there(
        &mut self,
        (slot, form): (Slot, Form),
        at: u32,
        request: Option<JoinRequest<M>>,
        claim: Claim,
        mail: &mut OutgoingMail<M>,
    ) -> Joined {
        let question = self.next_question();
        let Some(channel) = &mut self.channels[at as usize] else {
            return Joined::SubscriptionLimit;
        };
        let name = channel.name.clone();
        let home = home_among(name.hash(), self.cores);
        let mut start = Start { form, ..Start::default() };
        // If the first subscriber's join request is not answered, the home may not know of this
        // core yet.
        let is_known = channel.subscribers.first().is_some_and(Subscriber::is_active);
        let asks = channel.home_link == HomeLink::Known && !is_known;
        if let Some(request) = request.or_else(|| asks.then(JoinRequest::default)) {
            start = Start { request_id: question, member: request.member.is_some(), form };
            mail.up(home, Up::Join { request_id: question, slot, name, request, claim });
            // The home sends publishes from that join on. Subscribers without a join reply are not
            // active and get none.
            // A request for interest that is under way is answered before this one.
            if channel.home_link == HomeLink::Unknown {
                channel.home_link = HomeLink::Known;
            }
        } else if channel.home_link == HomeLink::Unknown {
            channel.home_link = HomeLink::Requested(question);
            mail.up(home, Up::Interest { request_id: question, slot, name, claim });
        }
        self.members.add(slot.index, at, &mut channel.subscribers, start);
        let active = start.request_id == 0 && channel.home_link == HomeLink::Known;
        self.counts_changed(at);
        if active { Joined::Now(None) } else { Joined::Later }
    }

    /// The next event of the hub itself to be delivered to this core's subscribers.
    pub fn next_local(&mut self) -> Option<(ChannelName, Event<M>)> {
        self.local.pop_front()
    }

    /// Ends one subscription. Returns false if there was none.
    pub fn leave(&mut self, slot: Slot, app: u32, name: &str, mail: &mut OutgoingMail<M>) -> bool {
        let hash = self.hasher.hash(app, name);
        let Some(at) = self.find(app, name, hash) else { return false };
        let Some(position) = self.members.position(slot.index, at) else { return false };
        self.remove_member(slot, position, mail);
        true
    }

    /// Ends all subscriptions of a connection that has ended. Returns their number.
    pub fn leave_all(&mut self, slot: Slot, mail: &mut OutgoingMail<M>) -> usize {
        let mut left = 0;
        while self.members.count(slot.index) > 0 {
            self.remove_member(slot, self.members.count(slot.index) - 1, mail);
            left += 1;
        }
        self.members.forget(slot.index);
        left
    }

    fn remove_member(&mut self, slot: Slot, position: usize, mail: &mut OutgoingMail<M>) {
        let removed = self
            .members
            .remove(slot.index, position, &mut self.channels, |channel| &mut channel.subscribers);
        let Some((at, member)) = removed else { return };
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let name = channel.name.clone();
        let home = self.home_of(name.hash());
        if member && home == self.core {
            self.exit(ConnId { core: self.core, slot }, at, mail);
        } else if member {
            mail.up(home, Up::Leave { slot, name: name.clone() });
        }
        self.look(at);
        self.tally(at);
        let Some(channel) = &mut self.channels[at as usize] else { return };
        if !channel.subscribers.is_empty() {
            return self.counts_changed(at);
        }
        if channel.interest.is_empty() {
            self.note_idle(at);
        }
        let Some(channel) = &mut self.channels[at as usize] else { return };
        if channel.home_link != HomeLink::Unknown {
            channel.home_link = HomeLink::Unknown;
            channel.reported = 0;
            if home != self.core {
                mail.up(home, Up::Forget { name });
            }
        }
        self.release_if_empty(at);
    }

    fn counts_changed(&mut self, at: u32) {
        if let Some(channel) = &mut self.channels[at as usize]
            && !channel.recounting
            && self.cores > 1
        {
            channel.recounting = true;
            self.recount.push(at);
        }
    }

    /// Reports changed numbers of subscribers to the homes. Call once a turn.
    pub fn report_counts(&mut self, mail: &mut OutgoingMail<M>) {
        for at in std::mem::take(&mut self.recount) {
            let Some(channel) = self.channels.get_mut(at as usize).and_then(Option::as_mut) else {
                continue;
            };
            channel.recounting = false;
            let count = channel.subscribers.len() as u32;
            if count == channel.reported || count == 0 {
                continue;
            }
            channel.reported = count;
            let name = channel.name.clone();
            let home = self.home_of(name.hash());
            if home != self.core {
                mail.up(home, Up::Count { name, count });
            }
        }
    }

    /// Publishes `event` to every subscriber of the channel. If the home is another core, it
    /// answers `ack`, if there is one, with [`Down::Answer`]. If this core is the home and the
    /// channel has no subscriber, nothing is allocated, unless the event must be kept. `event` gets
    /// its position if this core is the home and a subscriber may need it.
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
        if self.home_of(hash) != self.core {
            let name = self.hasher.name(app, name);
            mail.up(self.home_of(hash), Up::Publish { name, event: event.clone(), ack });
            return Published::Sent;
        }
        let found = self.find(app, name, hash);
        let name = |hub: &Hub<M>| hub.hasher.name(app, name);
        match self.publish_at_home(found, name, event, now_ms, mail) {
            Some(at) => Published::Ordered(at),
            None => Published::NotSubscribed,
        }
    }

    /// Takes the home's answer to a join request. Returns whether the connection is subscribed now.
    /// An answer to an older request changes nothing.
    pub fn on_join_reply(
        &mut self,
        request_id: u32,
        slot: Slot,
        name: &ChannelName,
        granted: bool,
        mail: &mut OutgoingMail<M>,
    ) -> bool {
        let Some(at) = self.find(name.app(), name.text(), name.hash()) else { return false };
        let Some(position) = self.members.position(slot.index, at) else { return false };
        let Some(channel) = &mut self.channels[at as usize] else { return false };
        let subscribers = &mut channel.subscribers;
        if !self.members.activate(slot.index, position, request_id, subscribers) {
            return false;
        }
        if !granted {
            self.remove_member(slot, position, mail);
        }
        true
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

    /// Takes the home's answer to this core's interest in `name`. Returns the subscribers on this
    /// core that have waited for it, which are active from now on; none if the answer is to an
    /// older request.
    pub fn interested(&mut self, request_id: u32, name: &ChannelName) -> Vec<Subscriber> {
        let found = self.find(name.app(), name.text(), name.hash());
        match found.and_then(|at| self.channels[at as usize].as_mut()) {
            Some(channel) if channel.home_link == HomeLink::Requested(request_id) => {
                channel.home_link = HomeLink::Known;
                channel.subscribers.iter().filter(|it| it.is_active()).copied().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes the home's answer that there is no room for `name`. Returns the slot indexes of the
    /// subscribers that have waited, whose subscriptions the caller must end.
    pub fn join_refused(&mut self, request_id: u32, name: &ChannelName) -> Vec<u32> {
        let found = self.find(name.app(), name.text(), name.hash());
        match found.and_then(|at| self.channels[at as usize].as_mut()) {
            Some(channel) if channel.home_link == HomeLink::Requested(request_id) => {
                // Subscribers with join requests of their own get their own answers.
                let (waited, others): (Vec<&Subscriber>, Vec<&Subscriber>) =
                    channel.subscribers.iter().partition(|it| it.is_active());
                channel.home_link =
                    if others.is_empty() { HomeLink::Unknown } else { HomeLink::Known };
                waited.into_iter().map(|it| it.slot).collect()
            }
            _ => Vec::new(),
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
    /// Sent to the home core.
    Sent,
}

#[cfg(test)]
mod tests;
