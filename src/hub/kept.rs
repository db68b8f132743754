//! What the homes on one core keep for later subscribers: the indexes by which it is found and
//! dropped, and its bytes. The events themselves stay in their channels.

use super::forms::StreamPosition;
use super::name::ChannelName;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

/// The account of all that the homes on a core keep.
#[derive(Debug, Default)]
pub(super) struct KeptStore {
    /// Channels with a cached event.
    pub(super) keepers: Keepers,
    /// Channels with a picture or a history, by their number from `began`.
    pub(super) pictures: BTreeMap<u64, ChannelName>,
    /// The histories that never had an event, which any client can begin: they are dropped first.
    pub(super) empty: BTreeSet<u64>,
    /// The histories that a sweep must examine: the time in milliseconds, and the number in
    /// `pictures`.
    pub(super) expiries: BTreeSet<(u64, u64)>,
    /// The time of the last sweep, in milliseconds.
    pub(super) now_ms: u64,
    /// Events and bytes of histories with positions, and the number of examinations by sweeps.
    pub(super) history_events: usize,
    pub(super) history_bytes: usize,
    pub(super) examined: u64,
    /// Draws the numbers of streams, at random.
    streams: RandomState,
    /// The position after which the next history begins, if it does not begin a new stream.
    pub(super) begin_at: Option<StreamPosition>,
    /// The last number that was given to a cached event, a picture or a history.
    pub(super) began: u64,
    /// Bytes that cached events, pictures and histories hold, and the maximum.
    pub(super) bytes: usize,
    pub(super) max_bytes: usize,
    pub(super) losses: Losses,
}

impl KeptStore {
    pub(super) fn new(max_bytes: usize) -> KeptStore {
        KeptStore { max_bytes, ..KeptStore::default() }
    }

    /// A random number for the stream of a history that begins.
    pub(super) fn stream(&self) -> u64 {
        self.streams.hash_one(self.began)
    }

    /// Moves the examination of a history with this number to `to_ms`; `u64::MAX` is never.
    pub(super) fn look_at(&mut self, since: u64, look_ms: &mut u64, to_ms: u64) {
        self.expiries.remove(&(*look_ms, since));
        *look_ms = to_ms;
        if to_ms < u64::MAX {
            self.expiries.insert((to_ms, since));
        }
    }
}

/// What was dropped before its time since the last call of `Hub::losses`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Cached events, pictures and histories dropped for lack of memory.
    pub kept: u64,
    /// Elements of log pictures, and events of histories, beyond their limits.
    pub elements: u64,
}

/// The position of a kept event in [`Keepers`].
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptPlace {
    /// The sequence number that was assigned when the channel began to keep an event.
    pub(super) began: u64,
    /// The time of the next examination, in milliseconds. A new event of the same channel moves it
    /// only if the event expires earlier. Otherwise the examination finds an event that is not due,
    /// and sets the time again.
    pub(super) look_ms: u64,
}

/// Channels with a kept event.
#[derive(Debug, Default)]
pub(super) struct Keepers {
    pub(super) by_age: BTreeMap<u64, u32>,
    pub(super) by_time: BTreeSet<(u64, u64)>,
    /// The number of examinations by sweeps.
    pub(super) visited: u64,
}

impl Keepers {
    /// The sequence number of the oldest kept event.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.by_age.first_key_value().map(|(began, _)| *began)
    }

    /// Notes that the channel whose event is at `place` has moved to number `to`.
    pub(super) fn moved(&mut self, place: KeptPlace, to: u32) {
        if let Some(at) = self.by_age.get_mut(&place.began) {
            *at = to;
        }
    }
}
