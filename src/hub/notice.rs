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
pub struct Notice {
    /// The application's number.
    pub app: u32,
    /// The configuration that was in force on the channel's home: see [`Hub::watch`].
    pub version: u32,
    /// The channel.
    pub channel: Arc<str>,
    /// What has happened.
    pub what: What,
}

/// What can happen to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It has its first subscriber, over all cores.
    Occupied,
    /// It has lost its last one.
    Vacated,
    /// A user has come.
    Came(Arc<str>),
    /// A user has left.
    Left(Arc<str>),
    /// There was no event to give to a subscriber. Told once until an event is kept.
    Missed,
    /// It has so many subscriptions now.
    Count(u64),
    /// A client has published.
    Said(Arc<Said>),
}

/// An event that a client has published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
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
pub struct Kinds(u8);

impl Kinds {
    /// Nothing.
    pub const NONE: Kinds = Kinds(0);
    /// [`What::Occupied`] and [`What::Vacated`].
    pub const OCCUPANCY: Kinds = Kinds(1);
    /// [`What::Came`] and [`What::Left`].
    pub const MEMBERS: Kinds = Kinds(2);
    /// [`What::Missed`].
    pub const MISSES: Kinds = Kinds(4);
    /// [`What::Count`].
    pub const COUNTS: Kinds = Kinds(8);
    /// [`What::Said`].
    pub const SAID: Kinds = Kinds(16);

    /// Whether one of `others` is in.
    pub fn has(self, others: Kinds) -> bool {
        self.0 & others.0 != 0
    }

    fn without(self, others: Kinds) -> Kinds {
        Kinds(self.0 & !others.0)
    }
}

impl BitOr for Kinds {
    type Output = Kinds;

    fn bitor(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }
}

/// What has been noticed of a channel.
#[derive(Debug, Default)]
pub(super) struct Seen {
    occupied: bool,
    missed: bool,
    count: u64,
    counted_ms: u64,
    /// Whether it is in [`Notices::counting`].
    counting: bool,
}

impl Seen {
    /// An event is kept: a miss would be news again.
    pub(super) fn filled(&mut self) {
        self.missed = false;
    }
}

/// What one core has noticed and has not handed over.
#[derive(Default)]
pub(super) struct Notices {
    /// By the application's number; empty when nobody wants to know anything.
    wanted: Arc<[Kinds]>,
    /// What each notice says of when it was made.
    version: u32,
    waiting: VecDeque<Notice>,
    bytes: usize,
    lost: u64,
    /// Channels with many subscribers whose number has changed.
    counting: VecDeque<ChannelName>,
}

impl Notices {
    fn wanted(&self, name: &ChannelName) -> Kinds {
        match self.wanted.get(name.app() as usize) {
            // What is sent to one user is no channel to anybody outside.
            Some(kinds) if !name.text().starts_with('#') => *kinds,
            _ => Kinds::NONE,
        }
    }

    fn push(&mut self, name: &ChannelName, what: What) {
        let notice =
            Notice { app: name.app(), version: self.version, channel: name.shared(), what };
        let bytes = notice.bytes();
        if self.bytes + bytes > NOTICE_BYTES {
            self.lost += 1;
            return;
        }
        self.bytes += bytes;
        self.waiting.push_back(notice);
    }
}

impl Notice {
    /// What it holds in memory, roughly.
    pub fn bytes(&self) -> usize {
        let what = match &self.what {
            What::Came(user) | What::Left(user) => user.len(),
            What::Said(said) => {
                let texts = [&said.data, &said.user];
                let more = texts.iter().filter_map(|text| text.as_ref()).map(|text| text.len());
                said.event.len() + said.from.len() + more.sum::<usize>()
            }
            What::Occupied | What::Vacated | What::Missed | What::Count(_) => 0,
        };
        size_of::<Notice>() + self.channel.len() + what
    }
}

impl Hub {
    /// Takes notice of such kinds from now on, by the application's number; every notice carries
    /// `version`. Of a kind that was not wanted before, what already is so is no news.
    pub fn watch(&mut self, wanted: Arc<[Kinds]>, version: u32) {
        let before = std::mem::replace(&mut self.notices.wanted, wanted);
        self.notices.version = version;
        let before = |app: usize| before.get(app).copied().unwrap_or_default();
        let wanted = self.notices.wanted.iter().enumerate();
        let added: Vec<Kinds> = wanted.map(|(app, kinds)| kinds.without(before(app))).collect();
        if added.iter().any(|kinds| kinds.has(Kinds::OCCUPANCY | Kinds::COUNTS)) {
            self.catch_up(&added);
        }
    }

    /// Takes what is so now for what was told last, of the kinds `added`.
    fn catch_up(&mut self, added: &[Kinds]) {
        let (core, cores) = (self.core, self.cores);
        for channel in self.channels.iter_mut().flatten() {
            let added = added.get(channel.name.app() as usize).copied().unwrap_or_default();
            let is_ours = super::home_among(channel.name.hash(), cores) == core;
            if !is_ours || !added.has(Kinds::OCCUPANCY | Kinds::COUNTS) {
                continue;
            }
            let home = channel.home.get_or_insert_default();
            if added.has(Kinds::OCCUPANCY) {
                home.seen.occupied =
                    !channel.subscribers.is_empty() || !channel.interest.is_empty();
            }
            if added.has(Kinds::COUNTS) {
                home.seen.count = channel.subscribers.len() as u64 + home.remote_count();
            }
        }
    }

    /// The next thing that has happened.
    pub fn next_notice(&mut self) -> Option<Notice> {
        let notice = self.notices.waiting.pop_front()?;
        self.notices.bytes -= notice.bytes();
        Some(notice)
    }

    /// Whether anything has happened that is not handed over.
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
        if wanted == Kinds::NONE || self.home_of(channel.name.hash()) != self.core {
            return;
        }
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let home = channel.home.get_or_insert_default();
        let count = channel.subscribers.len() as u64 + home.remote_count();
        let occupied = !channel.subscribers.is_empty() || !channel.interest.is_empty();
        if wanted.has(Kinds::OCCUPANCY) && occupied != home.seen.occupied {
            home.seen.occupied = occupied;
            let what = if occupied { What::Occupied } else { What::Vacated };
            self.notices.push(&channel.name, what);
        }
        if !wanted.has(Kinds::COUNTS) || count == home.seen.count {
            return;
        }
        if count <= COUNT_SMALL {
            home.seen.count = count;
            self.notices.push(&channel.name, What::Count(count));
        } else if !home.seen.counting {
            home.seen.counting = true;
            self.notices.counting.push_back(channel.name.clone());
        }
    }

    /// A connection is let into a channel of ours: it is occupied, if it was not before.
    pub(super) fn note_occupied(&mut self, at: u32) {
        self.note(at, Kinds::OCCUPANCY, |seen| {
            let first = !std::mem::replace(&mut seen.occupied, true);
            first.then_some(What::Occupied)
        });
    }

    /// A user has come to a channel of ours.
    pub(super) fn note_came(&mut self, at: u32, user: &Arc<str>) {
        self.note(at, Kinds::MEMBERS, |_| Some(What::Came(user.clone())));
    }

    /// A user has left a channel of ours.
    pub(super) fn note_left(&mut self, at: u32, user: &Arc<str>) {
        self.note(at, Kinds::MEMBERS, |_| Some(What::Left(user.clone())));
    }

    /// A channel of ours had no event to give.
    pub(super) fn note_missed(&mut self, at: u32) {
        self.note(at, Kinds::MISSES, |seen| {
            let first = !std::mem::replace(&mut seen.missed, true);
            first.then_some(What::Missed)
        });
    }

    /// A client has published on a channel of ours.
    pub(super) fn note_said(&mut self, at: u32, said: &Arc<Said>) {
        self.note(at, Kinds::SAID, |_| Some(What::Said(said.clone())));
    }

    fn note(&mut self, at: u32, kind: Kinds, what: impl FnOnce(&mut Seen) -> Option<What>) {
        let Some(Some(channel)) = self.channels.get_mut(at as usize) else { return };
        if !self.notices.wanted(&channel.name).has(kind) {
            return;
        }
        if let Some(what) = what(&mut channel.home.get_or_insert_default().seen) {
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
            let due = home.seen.counted_ms + COUNT_EVERY_MS <= now_ms;
            if count != home.seen.count && !due {
                self.notices.counting.push_back(name);
                continue;
            }
            home.seen.counting = false;
            if count != home.seen.count {
                home.seen.count = count;
                home.seen.counted_ms = now_ms;
                self.notices.push(&name, What::Count(count));
            }
        }
    }
}
