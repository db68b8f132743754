//! The cached events of channels: the indexes by age and by time of expiry, and the memory that the
//! events hold.
//!
//! A sweep, which runs a few times a second, examines only the events that are due, regardless of
//! the number of events that are kept.

use super::home::Home;
use super::mail::Event;
use super::name::ChannelName;
use super::{Channel, Hub};
use crate::hub::CacheEntry;
use std::collections::{BTreeMap, BTreeSet};

/// The maximum number of kept events that one sweep examines.
const EXPIRED_PER_SWEEP: usize = 1000;

/// The position of a kept event in [`Keepers`].
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptPlace {
    /// The sequence number that was assigned when the channel began to keep an event.
    began: u64,
    /// The time of the next examination, in milliseconds. A new event of the same channel moves it
    /// only if the event expires earlier. Otherwise the examination finds an event that is not due,
    /// and sets the time again.
    look_ms: u64,
}

/// Channels with a kept event.
#[derive(Debug, Default)]
pub(super) struct Keepers {
    by_age: BTreeMap<u64, u32>,
    by_time: BTreeSet<(u64, u64)>,
    /// The number of examinations by sweeps.
    pub(super) visited: u64,
}

impl Keepers {
    /// The sequence number of the oldest kept event.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.by_age.first_key_value().map(|(began, _)| *began)
    }

    /// Notes that the channel of `home` has moved to number `to`.
    pub(super) fn moved(&mut self, home: &Home, to: u32) {
        if let Some(at) = home.place.and_then(|place| self.by_age.get_mut(&place.began)) {
            *at = to;
        }
    }
}

/// Bytes that a kept event holds beside its texts, with the tables of a channel that exists only
/// for this event. A rough estimate, which is rather too high than too low.
pub(super) fn overhead(name: &ChannelName) -> usize {
    const ALLOCATION: usize = 16;
    let counted = 2 * size_of::<usize>() + ALLOCATION;
    // The estimate assumes that B-trees are two thirds full, and the index seven sixteenths.
    let tables = (size_of::<(u64, u32)>() + size_of::<(u64, u64)>()) * 3 / 2 + 5 * 16 / 7;
    let channel = size_of::<Channel>() + size_of::<Home>() + ALLOCATION;
    channel + tables + size_of::<CacheEntry>() + 3 * counted + 2 * ALLOCATION + name.text().len()
}

impl Hub {
    pub(super) fn keep(&mut self, at: u32, event: &Event, now_ms: u64) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let home = channel.home.get_or_insert_default();
        home.reported.filled();
        let (before, until_ms) = (home.kept_bytes(), home.keep(event, now_ms));
        let place = home.place.get_or_insert_with(|| {
            self.began += 1;
            self.keepers.by_age.insert(self.began, at);
            self.kept_bytes += overhead(&channel.name);
            KeptPlace { began: self.began, look_ms: u64::MAX }
        });
        if until_ms < place.look_ms {
            self.keepers.by_time.remove(&(place.look_ms, place.began));
            place.look_ms = until_ms;
            self.keepers.by_time.insert((until_ms, place.began));
        }
        self.kept_bytes = self.kept_bytes + home.kept_bytes() - before;
        self.make_room();
    }

    /// Drops the oldest kept event.
    pub(super) fn forget_oldest(&mut self) {
        if let Some((_, at)) = self.keepers.by_age.pop_first() {
            self.forget_kept(at);
        }
    }

    fn forget_kept(&mut self, at: u32) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let Some(home) = &mut channel.home else { return };
        if let Some(KeptPlace { began, look_ms }) = home.place.take() {
            self.keepers.by_age.remove(&began);
            self.keepers.by_time.remove(&(look_ms, began));
            self.kept_bytes -= home.forget() + overhead(&channel.name);
            self.release_if_empty(at);
        }
    }

    /// Drops kept events that have expired. Examines at most [`EXPIRED_PER_SWEEP`] events.
    pub(super) fn sweep_kept(&mut self, now_ms: u64) {
        for _ in 0..EXPIRED_PER_SWEEP {
            let Some((look_ms, began)) = self.keepers.by_time.first().copied() else { return };
            if look_ms > now_ms {
                return;
            }
            self.keepers.visited += 1;
            self.keepers.by_time.pop_first();
            let Some(at) = self.keepers.by_age.get(&began).copied() else { continue };
            let Some(home) = self.channels[at as usize].as_mut().and_then(|it| it.home.as_mut())
            else {
                continue;
            };
            let until_ms = home.kept_until();
            match (&mut home.place, until_ms) {
                (Some(place), Some(until_ms)) if until_ms > now_ms => {
                    place.look_ms = until_ms;
                    self.keepers.by_time.insert((until_ms, began));
                }
                _ => self.forget_kept(at),
            }
        }
    }
}
