//! Identifiers: of channels, of connections, and sets of cores.

use crate::limits::MAX_CORES;
use crate::mem::Slot;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// A connection anywhere in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// The core that holds it.
    pub core: u16,
    /// Its slot on that core.
    pub slot: Slot,
}

/// A channel of an application, with its hash. A clone shares the text.
#[derive(Clone, Debug)]
pub struct ChannelName {
    hash: u64,
    app: u32,
    text: Arc<str>,
}

impl ChannelName {
    /// The application's number.
    pub fn app(&self) -> u32 {
        self.app
    }

    /// The name as clients write it, without the application.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A shared copy of the name.
    pub fn shared(&self) -> Arc<str> {
        self.text.clone()
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn is(&self, app: u32, text: &str) -> bool {
        self.app == app && *self.text == *text
    }
}

/// Hashes channel names with a secret key, because any client can choose names.
#[derive(Clone, Debug)]
pub struct Hasher(ahash::RandomState);

impl Hasher {
    /// A hasher with a secret seed. All cores of a process use the same.
    pub fn new(seed: u64) -> Hasher {
        let spread =
            |n: u64| seed.rotate_left(17 * n as u32) ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Hasher(ahash::RandomState::with_seeds(spread(1), spread(2), spread(3), spread(4)))
    }

    pub(super) fn hash(&self, app: u32, name: &str) -> u64 {
        let mut state = self.0.build_hasher();
        app.hash(&mut state);
        name.hash(&mut state);
        std::hash::Hasher::finish(&state)
    }

    /// The core, out of `cores`, that is the home of a channel.
    pub fn home(&self, app: u32, name: &str, cores: u16) -> u16 {
        home_among(self.hash(app, name), cores)
    }

    /// The channel `name` of `app`.
    pub fn name(&self, app: u32, name: &str) -> ChannelName {
        ChannelName { hash: self.hash(app, name), app, text: Arc::from(name) }
    }
}

/// A set of cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreSet([u64; MAX_CORES / 64]);

impl CoreSet {
    /// Adds `core`.
    pub fn insert(&mut self, core: u16) {
        self.0[core as usize / 64] |= 1 << (core % 64);
    }

    /// Removes `core`.
    pub fn remove(&mut self, core: u16) {
        self.0[core as usize / 64] &= !(1 << (core % 64));
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The cores in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < 64).then_some((at * 64) as u16 + bit as u16)
            })
        })
    }
}

/// The home core, out of `cores`, of a channel with this hash.
pub(super) fn home_among(hash: u64, cores: u16) -> u16 {
    // The high half: the table's index uses the low bits.
    ((hash >> 32) % u64::from(cores)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_set_lists_its_cores_in_order() {
        let mut set = CoreSet::default();
        assert!(set.is_empty());
        for core in [255, 0, 63, 64, 1] {
            set.insert(core);
        }
        set.remove(1);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 255]);
    }

    #[test]
    fn channel_names_of_two_applications_differ() {
        let hasher = Hasher::new(7);
        assert_ne!(hasher.hash(1, "news"), hasher.hash(2, "news"));
        assert!(!hasher.name(1, "news").is(2, "news"));
    }
}
