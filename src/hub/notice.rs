//! What happens to channels, for those outside who want to know.
//!
//! A channel's home alone takes notice, so all notices of a channel come from one core, in order.
//! Only kinds that somebody wants to know of are made.

use super::Hub;
use super::name::ChannelName;
use crate::limits::{COUNT_EVERY_MS, COUNT_SMALL, NOTICE_BYTES};
use std::collections::VecDeque;
use std::ops::BitOr;
use std::sync::Arc;

/// One thing that has happened to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelEvent {
    /// The application's number.
    pub app: u32,
    /// The configuration that was in force on the channel's home: see [`Hub::watch`].
    pub version: u32,
    /// The channel.
    pub channel: Arc<str>,
    /// What has happened.
    pub what: ChannelEventKind,
}

/// What can happen to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEventKind {
    /// It has its first subscriber, over all cores.
    Occupied,
    /// It has lost its last one.
    Vacated,
    /// A user has come.
    MemberAdded(Arc<str>),
    /// A user has left.
    MemberRemoved(Arc<str>),
    /// There was no event to give to a subscriber. Told once until an event is kept.
    CacheMiss,
    /// It has so many subscriptions now.
    Count(u64),
    /// A client has published.
    ClientEvent(Arc<ClientEvent>),
}

/// An event that a client has published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEvent {
    /// The event's name.
    pub event: Box<str>,
    /// Its data as text, if it has any.
    pub data: Option<Box<str>>,
    /// The connection, in the words of its dialect.
    pub from: Box<str>,
    /// Who that is in this channel, if it is somebody.
    pub user: Option<Box<str>>,
}

/// A set of kinds of notices.
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

    /// Whether one of `others` is in.
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

/// What has been noticed of a channel.
#[derive(Debug, Default)]
pub(super) struct Reported {
    occupied: bool,
    missed: bool,
    count: u64,
    counted_ms: u64,
    /// Whether it is in [`ChannelEvents::counting`].
    counting: bool,
}

impl Reported {
    /// An event is kept: a miss would be news again.
    pub(super) fn filled(&mut self) {
        self.missed = false;
    }
}

/// What one core has noticed and has not handed over.
#[derive(Default)]
pub(super) struct ChannelEvents {
    /// By the application's number; empty when nobody wants to know anything.
    wanted: Arc<[EventMask]>,
    /// What each notice says of when it was made.
    version: u32,
    waiting: VecDeque<ChannelEvent>,
    bytes: usize,
    lost: u64,
    /// Channels with many subscribers whose number has changed.
    counting: VecDeque<ChannelName>,
}

impl ChannelEvents {
    fn wanted(&self, name: &ChannelName) -> EventMask {
        match self.wanted.get(name.app() as usize) {
            // What is sent to one user is no channel to anybody outside.
            Some(mask) if !name.text().starts_with('#') => *mask,
            _ => EventMask::NONE,
        }
    }

    fn push(&mut self, name: &ChannelName, what: ChannelEventKind) {
        let notice =
            ChannelEvent { app: name.app(), version: self.version, channel: name.shared(), what };
        let bytes = notice.bytes();
        if self.bytes + bytes > NOTICE_BYTES {
            self.lost += 1;
            return;
        }
        self.bytes += bytes;
        self.waiting.push_back(notice);
    }
}

impl ChannelEvent {
    /// What it holds in memory, roughly.
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
    /// Takes notice of such kinds from now on, by the application's number; every notice carries
    /// `version`. Of a kind that was not wanted before, what already is so is no news.
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

    /// Takes what is so now for what was told last, of the kinds `added`.
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

    /// The next thing that has happened.
    pub fn next_notice(&mut self) -> Option<ChannelEvent> {
        let notice = self.notices.waiting.pop_front()?;
        self.notices.bytes -= notice.bytes();
        Some(notice)
    }

    /// Whether anything has happened that is not handed over.
    pub fn notice_bytes(&self) -> usize {
        self.notices.bytes
    }

    /// Whether notices wait.
    pub fn has_notices(&self) -> bool {
        !self.notices.waiting.is_empty()
    }

    /// How many notices found no room since the last call.
    pub fn lost_notices(&mut self) -> u64 {
        std::mem::take(&mut self.notices.lost)
    }

    /// Looks at a channel of ours whose subscribers may have changed.
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
            self.notices.push(&channel.name, what);
        }
        if !wanted.has(EventMask::COUNTS) || count == home.reported.count {
            return;
        }
        if count <= COUNT_SMALL {
            home.reported.count = count;
            self.notices.push(&channel.name, ChannelEventKind::Count(count));
        } else if !home.reported.counting {
            home.reported.counting = true;
            self.notices.counting.push_back(channel.name.clone());
        }
    }

    /// A connection is let into a channel of ours: it is occupied, if it was not before.
    pub(super) fn note_occupied(&mut self, at: u32) {
        self.note(at, EventMask::OCCUPANCY, |reported| {
            let first = !std::mem::replace(&mut reported.occupied, true);
            first.then_some(ChannelEventKind::Occupied)
        });
    }

    /// A user has come to a channel of ours.
    pub(super) fn note_member_added(&mut self, at: u32, user: &Arc<str>) {
        self.note(at, EventMask::MEMBERS, |_| Some(ChannelEventKind::MemberAdded(user.clone())));
    }

    /// A user has left a channel of ours.
    pub(super) fn note_member_removed(&mut self, at: u32, user: &Arc<str>) {
        self.note(at, EventMask::MEMBERS, |_| Some(ChannelEventKind::MemberRemoved(user.clone())));
    }

    /// A channel of ours had no event to give.
    pub(super) fn note_cache_miss(&mut self, at: u32) {
        self.note(at, EventMask::MISSES, |reported| {
            let first = !std::mem::replace(&mut reported.missed, true);
            first.then_some(ChannelEventKind::CacheMiss)
        });
    }

    /// A client has published on a channel of ours.
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
        if let Some(what) = what(&mut channel.home.get_or_insert_default().reported) {
            self.notices.push(&channel.name, what);
        }
    }

    /// Tells the numbers of channels with many subscribers, each once in a while.
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
                self.notices.push(&name, ChannelEventKind::Count(count));
            }
        }
    }
}
