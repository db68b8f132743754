//! Channel events for webhooks: a channel is occupied or vacated, members change, and so on.
//!
//! Only the home of a channel makes them, so all events of a channel come from one core, in order.
//! Only kinds that a webhook wants are made. Waiting events share one bound in bytes: applications
//! take turns, and at the bound the application with the most bytes loses the newest event of the
//! connection or channel that has caused the most. If a channel is occupied and vacated, or vacated
//! and occupied, while the first of the two events waits, both are dropped, because nothing has
//! changed.

use super::Hub;
use super::name::{ChannelName, ConnId};
use crate::limits::{COUNT_EVERY_MS, COUNT_SMALL, NOTICE_BYTES};
use crate::mem::Shares;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::BitOr;
use std::sync::Arc;

/// One event of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelEvent {
    /// The application's number.
    pub app: u32,
    /// The version of the configuration that the channel's home had: see [`Hub::watch`].
    pub version: u32,
    /// The channel.
    pub channel: Arc<str>,
    /// The event.
    pub what: ChannelEventKind,
    /// The source of the event, by which a full queue decides what to drop: the connection that
    /// made the channel occupied, if it is known; otherwise, and for member changes and client
    /// events, the channel.
    pub source: u64,
}

/// The kinds of channel events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEventKind {
    /// The channel has its first subscriber, over all cores.
    Occupied,
    /// The channel has lost its last subscriber.
    Vacated,
    /// A user has joined.
    MemberAdded(Arc<str>),
    /// A user has left.
    MemberRemoved(Arc<str>),
    /// A new subscriber found no cached event. Reported once until an event is cached.
    CacheMiss,
    /// The present number of subscriptions.
    Count(u64),
    /// A client has published an event.
    ClientEvent(Arc<ClientEvent>),
}

/// An event that a client has published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEvent {
    /// The event's name.
    pub event: Box<str>,
    /// Its data as text, if it has data.
    pub data: Option<Box<str>>,
    /// The socket id of the connection, in the form of its dialect.
    pub from: Box<str>,
    /// The user that the connection is in this channel, if it is a member.
    pub user: Option<Box<str>>,
}

/// A set of kinds of channel events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventMask(u8);

impl EventMask {
    /// Nothing.
    pub const NONE: EventMask = EventMask(0);
    /// [`ChannelEventKind::Occupied`] and [`ChannelEventKind::Vacated`].
    pub const OCCUPANCY: EventMask = EventMask(1);
    /// [`ChannelEventKind::MemberAdded`] and [`ChannelEventKind::MemberRemoved`].
    pub const MEMBERS: EventMask = EventMask(2);
    /// [`ChannelEventKind::CacheMiss`].
    pub const MISSES: EventMask = EventMask(4);
    /// [`ChannelEventKind::Count`].
    pub const COUNTS: EventMask = EventMask(8);
    /// [`ChannelEventKind::ClientEvent`].
    pub const CLIENT_EVENTS: EventMask = EventMask(16);

    /// Whether the sets have a kind in common.
    pub fn has(self, others: EventMask) -> bool {
        self.0 & others.0 != 0
    }

    fn without(self, others: EventMask) -> EventMask {
        EventMask(self.0 & !others.0)
    }
}

impl BitOr for EventMask {
    type Output = EventMask;

    fn bitor(self, other: EventMask) -> EventMask {
        EventMask(self.0 | other.0)
    }
}

/// What has been reported of a channel.
#[derive(Debug, Default)]
pub(super) struct Reported {
    occupied: bool,
    missed: bool,
    count: u64,
    counted_ms: u64,
    /// The connection that made the channel occupied, as the source of its events; 0 if it is not
    /// known.
    maker: u64,
    /// Whether the channel is in [`ChannelEvents::counting`].
    counting: bool,
}

impl Reported {
    /// Notes that an event is cached, so that the next miss is reported again.
    pub(super) fn filled(&mut self) {
        self.missed = false;
    }
}

/// The channel events of one core that the control thread has not taken.
#[derive(Default)]
pub(super) struct ChannelEvents {
    /// The kinds that webhooks want, by the application's number; empty if there is no webhook.
    wanted: Arc<[EventMask]>,
    /// The version of the configuration.
    version: u32,
    waiting: BTreeMap<u32, Waiting>,
    /// Applications that have waiting events, in the order of their turns.
    turns: VecDeque<u32>,
    bytes: usize,
    /// The number of events made so far, which numbers them.
    made: u64,
    lost: Vec<(u32, u64)>,
    cancelled: u64,
    /// Channels with many subscribers whose number has changed.
    counting: VecDeque<ChannelName>,
}

/// The waiting events of one application.
#[derive(Default)]
struct Waiting {
    /// The events by their number.
    notices: BTreeMap<u64, ChannelEvent>,
    shares: Shares,
    /// The number of each channel's last waiting event that reports it as occupied or vacated. The
    /// entry is removed by a later event of the channel, except for counts and cache misses.
    occupancy: HashMap<Arc<str>, u64>,
    bytes: usize,
}

impl Waiting {
    fn put(&mut self, number: u64, notice: ChannelEvent) {
        match notice.what {
            ChannelEventKind::Occupied | ChannelEventKind::Vacated => {
                self.occupancy.insert(notice.channel.clone(), number);
            }
            ChannelEventKind::MemberAdded(_)
            | ChannelEventKind::MemberRemoved(_)
            | ChannelEventKind::ClientEvent(_) => {
                self.occupancy.remove(&notice.channel);
            }
            ChannelEventKind::CacheMiss | ChannelEventKind::Count(_) => {}
        }
        self.bytes += notice.bytes();
        self.shares.add(notice.source, number);
        self.notices.insert(number, notice);
    }

    fn take(&mut self, number: u64) -> Option<ChannelEvent> {
        let notice = self.notices.remove(&number)?;
        self.bytes -= notice.bytes();
        self.shares.remove(notice.source, number);
        if self.occupancy.get(&notice.channel) == Some(&number) {
            self.occupancy.remove(&notice.channel);
        }
        Some(notice)
    }

    /// Removes and returns the waiting event that `notice` cancels, if there is one.
    fn undone(&mut self, notice: &ChannelEvent) -> Option<ChannelEvent> {
        if !matches!(notice.what, ChannelEventKind::Occupied | ChannelEventKind::Vacated) {
            return None;
        }
        let number = *self.occupancy.get(&notice.channel)?;
        let other = self.notices.get(&number)?;
        let undoes = other.what != notice.what && other.version == notice.version;
        if undoes { self.take(number) } else { None }
    }
}

impl ChannelEvents {
    fn wanted(&self, name: &ChannelName) -> EventMask {
        match self.wanted.get(name.app() as usize) {
            // Channels for one user are internal.
            Some(mask) if !name.text().starts_with('#') => *mask,
            _ => EventMask::NONE,
        }
    }

    /// Adds an event. `maker` is the connection that is its source; 0 makes the channel its source.
    fn push(&mut self, name: &ChannelName, what: ChannelEventKind, maker: u64) {
        let source = if maker == 0 { name.hash() } else { maker };
        let app = name.app();
        let notice =
            ChannelEvent { app, version: self.version, channel: name.shared(), what, source };
        let waiting = self.waiting.entry(app).or_default();
        if let Some(other) = waiting.undone(&notice) {
            self.bytes -= other.bytes();
            self.cancelled += 2;
            return self.forget_if_empty(app);
        }
        if waiting.notices.is_empty() {
            self.turns.push_back(app);
        }
        self.made += 1;
        self.bytes += notice.bytes();
        waiting.put(self.made, notice);
        while self.bytes > NOTICE_BYTES {
            self.lose();
        }
    }

    /// Drops one event of the application whose waiting events hold the most bytes.
    fn lose(&mut self) {
        let Some((app, waiting)) = self.waiting.iter_mut().max_by_key(|(_, it)| it.bytes) else {
            return;
        };
        let app = *app;
        let number = waiting.shares.newest_of_busiest();
        let Some(notice) = number.and_then(|number| waiting.take(number)) else { return };
        self.bytes -= notice.bytes();
        match self.lost.iter_mut().find(|(other, _)| *other == app) {
            Some((_, count)) => *count += 1,
            None => self.lost.push((app, 1)),
        }
        self.forget_if_empty(app);
    }

    fn forget_if_empty(&mut self, app: u32) {
        if self.waiting.get(&app).is_some_and(|waiting| waiting.notices.is_empty()) {
            self.waiting.remove(&app);
            self.turns.retain(|other| *other != app);
        }
    }

    /// Removes and returns the oldest event of the application whose turn it is.
    fn next(&mut self) -> Option<ChannelEvent> {
        let app = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&app)?;
        let number = *waiting.notices.first_key_value()?.0;
        let notice = waiting.take(number)?;
        self.bytes -= notice.bytes();
        match waiting.notices.is_empty() {
            true => drop(self.waiting.remove(&app)),
            false => self.turns.push_back(app),
        }
        Some(notice)
    }
}

/// The number of a connection as the source of events; never 0. Two connections of one slot have
/// the same number if their generations differ by a multiple of 2^24, and then count as one source.
fn source_of(conn: ConnId) -> u64 {
    let slot = conn.slot;
    let generation = slot.generation & 0xff_ffff;
    1 << 63 | u64::from(conn.core) << 56 | generation << 32 | u64::from(slot.index)
}

impl ChannelEvent {
    /// Bytes of memory, estimated.
    pub fn bytes(&self) -> usize {
        let what = match &self.what {
            ChannelEventKind::MemberAdded(user) | ChannelEventKind::MemberRemoved(user) => {
                user.len()
            }
            ChannelEventKind::ClientEvent(client_event) => {
                let texts = [&client_event.data, &client_event.user];
                let more = texts.iter().filter_map(|text| text.as_ref()).map(|text| text.len());
                client_event.event.len() + client_event.from.len() + more.sum::<usize>()
            }
            ChannelEventKind::Occupied
            | ChannelEventKind::Vacated
            | ChannelEventKind::CacheMiss
            | ChannelEventKind::Count(_) => 0,
        };
        size_of::<ChannelEvent>() + self.channel.len() + what
    }
}

impl Hub {
    /// Sets the kinds of events to be made, by the application's number. Every event carries
    /// `version`. For a kind that was not wanted before, the present state is not reported, only
    /// later changes.
    pub fn watch(&mut self, wanted: Arc<[EventMask]>, version: u32) {
        let before = std::mem::replace(&mut self.notices.wanted, wanted);
        self.notices.version = version;
        let before = |app: usize| before.get(app).copied().unwrap_or_default();
        let wanted = self.notices.wanted.iter().enumerate();
        let added: Vec<EventMask> = wanted.map(|(app, mask)| mask.without(before(app))).collect();
        if added.iter().any(|mask| mask.has(EventMask::OCCUPANCY | EventMask::COUNTS)) {
            self.catch_up(&added);
        }
    }

    /// Marks the present state as reported, for the kinds `added`.
    fn catch_up(&mut self, added: &[EventMask]) {
        let (core, cores) = (self.core, self.cores);
        for channel in self.channels.iter_mut().flatten() {
            let added = added.get(channel.name.app() as usize).copied().unwrap_or_default();
            let is_ours = super::home_among(channel.name.hash(), cores) == core;
            if !is_ours || !added.has(EventMask::OCCUPANCY | EventMask::COUNTS) {
                continue;
            }
            let home = channel.home.get_or_insert_default();
            if added.has(EventMask::OCCUPANCY) {
                home.reported.occupied =
                    !channel.subscribers.is_empty() || !channel.interest.is_empty();
            }
            if added.has(EventMask::COUNTS) {
                home.reported.count = channel.subscribers.len() as u64 + home.remote_count();
            }
        }
    }

    /// The next channel event.
    pub fn next_notice(&mut self) -> Option<ChannelEvent> {
        self.notices.next()
    }

    /// Bytes of the waiting channel events.
    pub fn notice_bytes(&self) -> usize {
        self.notices.bytes
    }

    /// Whether there is a channel event.
    pub fn has_notices(&self) -> bool {
        !self.notices.waiting.is_empty()
    }

    /// The number of channel events lost for lack of room since the last call, by application.
    pub fn lost_notices(&mut self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.notices.lost)
    }

    /// The number of channel events that have cancelled each other since the last call.
    pub fn cancelled_notices(&mut self) -> u64 {
        std::mem::take(&mut self.notices.cancelled)
    }

    /// Notes that a connection joins a channel of this home. If the channel is not reported as
    /// occupied, the connection becomes the source of its events.
    pub(super) fn note_maker(&mut self, at: u32, conn: ConnId) {
        let Some(Some(channel)) = self.channels.get_mut(at as usize) else { return };
        if self.notices.wanted(&channel.name) == EventMask::NONE {
            return;
        }
        let reported = &mut channel.home.get_or_insert_default().reported;
        if !reported.occupied {
            reported.maker = source_of(conn);
        }
    }

    /// Reports occupancy and count of a channel whose subscribers may have changed, if this core is
    /// its home.
    pub(super) fn look(&mut self, at: u32) {
        let Some(channel) = &self.channels[at as usize] else { return };
        let wanted = self.notices.wanted(&channel.name);
        if wanted == EventMask::NONE || self.home_of(channel.name.hash()) != self.core {
            return;
        }
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let home = channel.home.get_or_insert_default();
        let count = channel.subscribers.len() as u64 + home.remote_count();
        let occupied = !channel.subscribers.is_empty() || !channel.interest.is_empty();
        if wanted.has(EventMask::OCCUPANCY) && occupied != home.reported.occupied {
            home.reported.occupied = occupied;
            let what =
                if occupied { ChannelEventKind::Occupied } else { ChannelEventKind::Vacated };
            self.notices.push(&channel.name, what, home.reported.maker);
        }
        if !wanted.has(EventMask::COUNTS) || count == home.reported.count {
            return;
        }
        if count <= COUNT_SMALL {
            home.reported.count = count;
            self.notices.push(&channel.name, ChannelEventKind::Count(count), home.reported.maker);
        } else if !home.reported.counting {
            home.reported.counting = true;
            self.notices.counting.push_back(channel.name.clone());
        }
    }

    /// Reports that a channel of this home is occupied, unless it was before.
    pub(super) fn note_occupied(&mut self, at: u32) {
        self.note(at, EventMask::OCCUPANCY, |reported| {
            let first = !std::mem::replace(&mut reported.occupied, true);
            first.then_some(ChannelEventKind::Occupied)
        });
    }

    /// Reports that a user has joined a channel of this home.
    pub(super) fn note_member_added(&mut self, at: u32, user: &Arc<str>) {
        self.note(at, EventMask::MEMBERS, |_| Some(ChannelEventKind::MemberAdded(user.clone())));
    }

    /// Reports that a user has left a channel of this home.
    pub(super) fn note_member_removed(&mut self, at: u32, user: &Arc<str>) {
        self.note(at, EventMask::MEMBERS, |_| Some(ChannelEventKind::MemberRemoved(user.clone())));
    }

    /// Reports that a channel of this home had no cached event for a subscriber.
    pub(super) fn note_cache_miss(&mut self, at: u32) {
        self.note(at, EventMask::MISSES, |reported| {
            let first = !std::mem::replace(&mut reported.missed, true);
            first.then_some(ChannelEventKind::CacheMiss)
        });
    }

    /// Reports that a client has published on a channel of this home.
    pub(super) fn note_client_event(&mut self, at: u32, client_event: &Arc<ClientEvent>) {
        self.note(at, EventMask::CLIENT_EVENTS, |_| {
            Some(ChannelEventKind::ClientEvent(client_event.clone()))
        });
    }

    fn note(
        &mut self,
        at: u32,
        kind: EventMask,
        what: impl FnOnce(&mut Reported) -> Option<ChannelEventKind>,
    ) {
        let Some(Some(channel)) = self.channels.get_mut(at as usize) else { return };
        if !self.notices.wanted(&channel.name).has(kind) {
            return;
        }
        let reported = &mut channel.home.get_or_insert_default().reported;
        let Some(what) = what(reported) else { return };
        // Member changes and client events need a signed subscription, so their source is the
        // channel.
        let maker = if kind.has(EventMask::MEMBERS | EventMask::CLIENT_EVENTS) {
            0
        } else {
            reported.maker
        };
        self.notices.push(&channel.name, what, maker);
    }

    /// Reports the counts of channels with many subscribers, each at most once in
    /// [`COUNT_EVERY_MS`].
    pub(super) fn sweep_counts(&mut self, now_ms: u64) {
        for name in std::mem::take(&mut self.notices.counting) {
            let found = self.find(name.app(), name.text(), name.hash());
            let channel = found.and_then(|at| self.channels[at as usize].as_mut());
            let Some(channel) = channel else { continue };
            let home = channel.home.get_or_insert_default();
            let count = channel.subscribers.len() as u64 + home.remote_count();
            let due = home.reported.counted_ms + COUNT_EVERY_MS <= now_ms;
            if count != home.reported.count && !due {
                self.notices.counting.push_back(name);
                continue;
            }
            home.reported.counting = false;
            if count != home.reported.count {
                home.reported.count = count;
                home.reported.counted_ms = now_ms;
                let maker = home.reported.maker;
                self.notices.push(&name, ChannelEventKind::Count(count), maker);
            }
        }
    }
}
