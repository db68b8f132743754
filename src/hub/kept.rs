//! The indexes of all cached events of a core: by age, and by the time of expiry.

use std::collections::{BTreeMap, BTreeSet};

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
