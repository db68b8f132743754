//! The ends of members that wait for events of their channel.

use super::key::QueueKey;
use std::collections::BTreeMap;

/// How long such an end waits, in milliseconds. A core has a limited number of states under way,
/// and a user who comes back waits for the end.
pub(super) const END_WAIT_MS: u64 = 500;

/// The ends that wait for events of one channel.
#[derive(Debug, Default)]
pub(super) struct BlockedEnds {
    /// By the serial number of the end: its key, and when it is sent all the same.
    ends: BTreeMap<u64, (QueueKey, u64)>,
}

impl BlockedEnds {
    /// Adds an end that was added to the queue at `since_ms`. Serial numbers rise.
    pub(super) fn add(&mut self, serial: u64, key: QueueKey, since_ms: u64) {
        self.ends.insert(serial, (key, since_ms + END_WAIT_MS));
    }

    /// Removes an end.
    pub(super) fn remove(&mut self, serial: u64) {
        self.ends.remove(&serial);
    }

    /// Removes all ends.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
    }

    /// Takes the ends out that have waited for long enough.
    pub(super) fn take_late(&mut self, now_ms: u64) -> BlockedEnds {
        let late = self.ends.values().take_while(|(_, until_ms)| *until_ms <= now_ms).count();
        match self.ends.keys().nth(late).copied() {
            Some(first) => self.take_before(Some(first)),
            None => self.take_before(None),
        }
    }

    /// Takes the ends out that were added before this serial number; without one, all.
    pub(super) fn take_before(&mut self, serial: Option<u64>) -> BlockedEnds {
        let left = match serial {
            Some(serial) if !self.ends.is_empty() => self.ends.split_off(&serial),
            _ => BTreeMap::new(),
        };
        BlockedEnds { ends: std::mem::replace(&mut self.ends, left) }
    }

    /// Adds ends of any channel.
    pub(super) fn append(&mut self, mut others: BlockedEnds) {
        self.ends.append(&mut others.ends);
    }

    /// The serial numbers and the keys; the oldest is first.
    pub(super) fn into_keys(self) -> impl Iterator<Item = (u64, QueueKey)> {
        self.ends.into_iter().map(|(serial, (key, _))| (serial, key))
    }

    /// The number of ends.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}
