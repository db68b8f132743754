//! Channel events for webhooks: a channel is occupied or vacated, members change, and so on.
//!
//! Only the home of a channel makes them, so all events of a channel come from one core, in order.
//! Only kinds that a webhook wants are made. Waiting events share one bound in bytes: applications
//! take turns, and at the bound the application with the most bytes loses the newest event of the
//! connection or channel that has caused the most. If a channel is occupied and vacated, or vacated
//! and occupied, while the first of the two events waits, both are dropped, because nothing has
//! changed.

use super::event::ClientEvent;
use super::name::ChannelName;
use crate::limits::NOTICE_BYTES;
use crate::mem::Shares;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::BitOr;
use std::sync::Arc;

/// One event of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelEvent {
    /// The application's number.
    pub app: u32,
    /// The version of the configuration that the channel's home had: see [`super::Hub::watch`].
    pub version: u32,
    /// The channel.
    pub channel: Arc<str>,
    /// The event.
    pub what: ChannelEventKind,
    /// The source of the event, by which a full queue decides what to drop: the connection that
    /// made the channel occupied, if it is known; otherwise, and for member changes and client
    /// events, the channel.
    pub source: u64,
    /// Whether this process reports the event. In a cluster it has also those that another node
    /// reports, because a return cancels a leave, whichever nodes report the two.
    pub is_ours: bool,
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
    /// No event: reads need the number of subscriptions of all nodes of a cluster.
    pub const READS: EventMask = EventMask(32);
    /// The kinds for which all nodes of a cluster must know the number of subscriptions.
    pub(super) const TOTALS: EventMask = EventMask(8 | 32);

    /// Whether the sets have a kind in common.
    pub fn has(self, others: EventMask) -> bool {
        self.0 & others.0 != 0
    }

    pub(super) fn without(self, others: EventMask) -> EventMask {
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
    pub(super) occupied: bool,
    pub(super) missed: bool,
    pub(super) count: u64,
    pub(super) counted_ms: u64,
    /// The connection that made the channel occupied, as the source of its events; 0 if it is not
    /// known.
    pub(super) maker: u64,
    /// Whether the channel is in [`ChannelEvents::counting`].
    pub(super) counting: bool,
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
    pub(super) wanted: Arc<[EventMask]>,
    /// The version of the configuration.
    pub(super) version: u32,
    waiting: BTreeMap<u32, AppEvents>,
    /// Applications that have waiting events, in the order of their turns.
    turns: VecDeque<u32>,
    pub(super) bytes: usize,
    /// The number of events made so far, which numbers them.
    made: u64,
    pub(super) lost: Vec<(u32, u64)>,
    pub(super) cancelled: u64,
    /// Channels with many subscribers whose number has changed.
    pub(super) counting: VecDeque<ChannelName>,
}

/// The waiting events of one application.
#[derive(Default)]
struct AppEvents {
    /// The events by their number.
    channel_events: BTreeMap<u64, ChannelEvent>,
    shares: Shares,
    /// The number of each channel's last waiting event that reports it as occupied or vacated. The
    /// entry is removed by a later event of the channel, except for counts and cache misses.
    occupancy: HashMap<Arc<str>, u64>,
    bytes: usize,
}

impl AppEvents {
    fn put(&mut self, number: u64, channel_event: ChannelEvent) {
        match channel_event.what {
            ChannelEventKind::Occupied | ChannelEventKind::Vacated => {
                self.occupancy.insert(channel_event.channel.clone(), number);
            }
            ChannelEventKind::MemberAdded(_)
            | ChannelEventKind::MemberRemoved(_)
            | ChannelEventKind::ClientEvent(_) => {
                self.occupancy.remove(&channel_event.channel);
            }
            ChannelEventKind::CacheMiss | ChannelEventKind::Count(_) => {}
        }
        self.bytes += channel_event.bytes();
        self.shares.add(channel_event.source, number);
        self.channel_events.insert(number, channel_event);
    }

    fn take(&mut self, number: u64) -> Option<ChannelEvent> {
        let channel_event = self.channel_events.remove(&number)?;
        self.bytes -= channel_event.bytes();
        self.shares.remove(channel_event.source, number);
        if self.occupancy.get(&channel_event.channel) == Some(&number) {
            self.occupancy.remove(&channel_event.channel);
        }
        Some(channel_event)
    }

    /// Removes and returns the waiting event that `channel_event` cancels, if there is one.
    fn undone(&mut self, channel_event: &ChannelEvent) -> Option<ChannelEvent> {
        if !matches!(channel_event.what, ChannelEventKind::Occupied | ChannelEventKind::Vacated) {
            return None;
        }
        let number = *self.occupancy.get(&channel_event.channel)?;
        let other = self.channel_events.get(&number)?;
        let undoes = other.what != channel_event.what && other.version == channel_event.version;
        if undoes { self.take(number) } else { None }
    }
}

impl ChannelEvents {
    pub(super) fn wanted(&self, name: &ChannelName) -> EventMask {
        match self.wanted.get(name.app() as usize) {
            // Channels for one user are internal.
            Some(mask) if !name.text().starts_with('#') => *mask,
            _ => EventMask::NONE,
        }
    }

    /// Adds an event. `maker` is the connection that is its source; 0 makes the channel its source.
    pub(super) fn push(&mut self, name: &ChannelName, what: ChannelEventKind, maker: u64) {
        self.push_by(true, name, what, maker);
    }

    /// Adds an event that this process reports, or that another node of the cluster reports.
    pub(super) fn push_by(
        &mut self,
        is_ours: bool,
        name: &ChannelName,
        what: ChannelEventKind,
        maker: u64,
    ) {
        let source = if maker == 0 { name.hash() } else { maker };
        let app = name.app();
        let channel_event = ChannelEvent {
            app,
            version: self.version,
            channel: name.shared(),
            what,
            source,
            is_ours,
        };
        let waiting = self.waiting.entry(app).or_default();
        if let Some(other) = waiting.undone(&channel_event) {
            self.bytes -= other.bytes();
            self.cancelled += 2;
            return self.forget_if_empty(app);
        }
        if waiting.channel_events.is_empty() {
            self.turns.push_back(app);
        }
        self.made += 1;
        self.bytes += channel_event.bytes();
        waiting.put(self.made, channel_event);
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
        let Some(channel_event) = number.and_then(|number| waiting.take(number)) else { return };
        self.bytes -= channel_event.bytes();
        match self.lost.iter_mut().find(|(other, _)| *other == app) {
            Some((_, count)) => *count += 1,
            None => self.lost.push((app, 1)),
        }
        self.forget_if_empty(app);
    }

    fn forget_if_empty(&mut self, app: u32) {
        if self.waiting.get(&app).is_some_and(|waiting| waiting.channel_events.is_empty()) {
            self.waiting.remove(&app);
            self.turns.retain(|other| *other != app);
        }
    }

    /// Whether no event waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Removes and returns the oldest event of the application whose turn it is.
    pub(super) fn next(&mut self) -> Option<ChannelEvent> {
        let app = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&app)?;
        let number = *waiting.channel_events.first_key_value()?.0;
        let channel_event = waiting.take(number)?;
        self.bytes -= channel_event.bytes();
        match waiting.channel_events.is_empty() {
            true => drop(self.waiting.remove(&app)),
            false => self.turns.push_back(app),
        }
        Some(channel_event)
    }
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
