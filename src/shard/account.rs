//! The account of the memory that the sessions of one core hold.

use crate::mem::Slot;
use crate::session::SendRate;
use crate::time::Now;
use std::collections::BTreeMap;

/// Connections with fewer bytes are left alone: ending them would free almost nothing.
pub(super) const WORTH_BYTES: usize = 64 * 1024;
/// The minimum time between two searches for the largest holders, in milliseconds, unless much more
/// memory is held.
const SCAN_MS: u64 = 50;

/// See the module's documentation.
///
/// Invariants: `sessions` is the sum of `charged`; a slot without a session is charged nothing.
#[derive(Default)]
pub(super) struct Account {
    /// The bytes of each session by its index, as last updated, and their sum.
    charged: Vec<u32>,
    pub(super) sessions: u64,
    /// Bytes that sessions have freed in pieces of at least `WORTH_BYTES`, since the start.
    pub(super) freed: u64,
    /// Connections from which reading is paused because of the memory that they hold.
    pub(super) starved: Vec<Slot>,
    /// When the first of them was paused, in milliseconds.
    pub(super) starved_ms: u64,
    /// The bytes held at the last search for the largest holders, and its time in milliseconds.
    pub(super) scanned: u64,
    scanned_ms: u64,
    pub(super) rates: Rates,
    pub(super) stalls: Stalls,
}

/// How long the bytes of each connection with at least [`WORTH_BYTES`] have stayed the same, as a
/// number of sweeps. While reading is paused for lack of memory, this is not counted.
#[derive(Default)]
pub(super) struct Stalls(BTreeMap<Slot, Stall>);

struct Stall {
    bytes: usize,
    sweeps: u32,
}

impl Stalls {
    /// Notes at a sweep that a connection holds `bytes` bytes.
    pub(super) fn note(&mut self, slot: Slot, bytes: usize, is_starved: bool) {
        if bytes < WORTH_BYTES {
            self.0.remove(&slot);
            return;
        }
        let stall = self.0.entry(slot).or_insert(Stall { bytes, sweeps: 0 });
        match stall.bytes == bytes {
            true => stall.sweeps = stall.sweeps.saturating_add((!is_starved).into()),
            false => *stall = Stall { bytes, sweeps: 0 },
        }
    }

    /// The cost to others of a connection that holds `bytes` bytes: larger the more bytes it holds
    /// and the longer it has made no progress.
    pub(super) fn weight(&self, slot: Slot, bytes: usize) -> u128 {
        let sweeps = self.0.get(&slot).map_or(0, |stall| stall.sweeps);
        bytes as u128 * (1 + u128::from(sweeps))
    }
}

/// The rate at which each peer reads, by the index of its session.
#[derive(Default)]
pub(super) struct Rates(Vec<SendRate>);

impl Rates {
    pub(super) fn of(&mut self, slot: Slot) -> &mut SendRate {
        at(&mut self.0, slot)
    }
}

/// The entry of a slot; it is created if it does not exist.
fn at<T: Clone + Default>(of_slots: &mut Vec<T>, slot: Slot) -> &mut T {
    let index = slot.index as usize;
    if index >= of_slots.len() {
        of_slots.resize(index + 1, T::default());
    }
    &mut of_slots[index]
}

impl Account {
    /// Updates the bytes that a session holds.
    pub(super) fn charge(&mut self, slot: Slot, held: usize) {
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        let had = std::mem::replace(at(&mut self.charged, slot), held);
        self.sessions = self.sessions - u64::from(had) + u64::from(held);
        let freed = had.saturating_sub(held);
        if freed as usize >= WORTH_BYTES {
            self.freed += u64::from(freed);
        }
    }

    /// Asserts what the type's documentation states; `has_session` is for an index.
    pub(super) fn invariants(&self, has_session: impl Fn(u32) -> bool) {
        let charged = || (0..).zip(&self.charged);
        debug_assert_eq!(charged().map(|(_, bytes)| u64::from(*bytes)).sum::<u64>(), self.sessions);
        debug_assert!(charged().all(|(index, bytes)| *bytes == 0 || has_session(index)));
    }

    /// Clears the entries of a session that was removed.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.charge(slot, 0);
        self.stalls.0.remove(&slot);
        *self.rates.of(slot) = SendRate::default();
    }

    /// Notes that `n` bytes were sent.
    pub(super) fn sent(&mut self, slot: Slot, n: usize) {
        self.rates.of(slot).add(n);
    }

    /// Whether a search for the largest holders is due, with `total` bytes held.
    pub(super) fn is_scan_due(&mut self, total: u64, share: u64, now: Now) -> bool {
        let due = total > self.scanned + share / 64 || now.ms >= self.scanned_ms + SCAN_MS;
        if due {
            (self.scanned, self.scanned_ms) = (total, now.ms);
        }
        due
    }
}
