//! The cached events of channels: when each is dropped, and the memory that all of them hold.
//!
//! A sweep, which runs a few times a second, examines only the events that are due, regardless of
//! the number of events that are kept.

use super::channel::ChannelState;
use super::event::CacheEntry;
use super::home::Home;
use super::kept::KeptPlace;
use super::name::ChannelName;
use super::{Hub, HubMessage};
use crate::mem::Frozen;
use std::sync::Arc;

/// The maximum number of kept events that one sweep examines.
const EXPIRED_PER_SWEEP: usize = 1000;

/// Bytes that a kept event holds beside its texts, with the tables of a channel that exists only
/// for this event. A rough estimate, which is rather too high than too low.
pub(super) fn overhead<M>(name: &ChannelName) -> usize {
    const ALLOCATION: usize = 16;
    let counted = 2 * size_of::<usize>() + ALLOCATION;
    // The estimate assumes that B-trees are two thirds full, and the index seven sixteenths.
    let tables = (size_of::<(u64, u32)>() + size_of::<(u64, u64)>()) * 3 / 2 + 5 * 16 / 7;
    let channel = size_of::<ChannelState<M>>() + size_of::<Home<M>>() + ALLOCATION;
    channel + tables + size_of::<CacheEntry>() + 3 * counted + 2 * ALLOCATION + name.text().len()
}

impl<M: HubMessage> Hub<M> {
    /// Caches an event's frame in place of the channel's cached one.
    pub(super) fn keep(&mut self, at: u32, frame: Frozen, entry: &Arc<CacheEntry>, now_ms: u64) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let home = channel.home.get_or_insert_default();
        home.reported.filled();
        let (before, until_ms) = (home.kept_bytes(), home.keep(frame, entry, now_ms));
        let place = home.place.get_or_insert_with(|| {
            self.kept.began += 1;
            self.kept.keepers.by_age.insert(self.kept.began, at);
            self.kept.bytes += overhead::<M>(&channel.name);
            KeptPlace { began: self.kept.began, look_ms: u64::MAX }
        });
        if until_ms < place.look_ms {
            self.kept.keepers.by_time.remove(&(place.look_ms, place.began));
            place.look_ms = until_ms;
            self.kept.keepers.by_time.insert((until_ms, place.began));
        }
        self.kept.bytes = self.kept.bytes + home.kept_bytes() - before;
        self.make_room();
    }

    /// Drops the oldest kept event.
    pub(super) fn forget_oldest(&mut self) {
        if let Some((_, at)) = self.kept.keepers.by_age.pop_first() {
            self.forget_kept(at);
        }
    }

    fn forget_kept(&mut self, at: u32) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let Some(home) = &mut channel.home else { return };
        if let Some(KeptPlace { began, look_ms }) = home.place.take() {
            self.kept.keepers.by_age.remove(&began);
            self.kept.keepers.by_time.remove(&(look_ms, began));
            self.kept.bytes -= home.forget() + overhead::<M>(&channel.name);
            self.release_if_empty(at);
        }
    }

    /// Drops kept events that have expired. Examines at most [`EXPIRED_PER_SWEEP`] events.
    pub(super) fn sweep_kept(&mut self, now_ms: u64) {
        for _ in 0..EXPIRED_PER_SWEEP {
            let Some((look_ms, began)) = self.kept.keepers.by_time.first().copied() else { return };
            if look_ms > now_ms {
                return;
            }
            self.kept.keepers.visited += 1;
            self.kept.keepers.by_time.pop_first();
            let Some(at) = self.kept.keepers.by_age.get(&began).copied() else { continue };
            let Some(home) = self.channels[at as usize].as_mut().and_then(|it| it.home.as_mut())
            else {
                continue;
            };
            let until_ms = home.kept_until();
            match (&mut home.place, until_ms) {
                (Some(place), Some(until_ms)) if until_ms > now_ms => {
                    place.look_ms = until_ms;
                    self.kept.keepers.by_time.insert((until_ms, began));
                }
                _ => self.forget_kept(at),
            }
        }
    }
}
