//! What the log has of the reservations of one application.

use crate::time::Backoff;
use std::collections::BTreeMap;

/// How long after the first refusal of the engine the next attempt is made, and the longest time
/// after further ones while no later entry is read, in milliseconds.
const AGAIN_MS: (u64, u64) = (50, 3200);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct ReservationTable {
    /// The nodes that are not dead, each with the number of connections.
    rows: BTreeMap<u64, u32>,
    /// The sequence number of the entry that has them; 0 if the log has none.
    pub(super) sequence: u64,
    /// What this node had reserved when the log was lost, while the new one has no entry.
    lost: Option<u32>,
    /// What this node had reserved when the log was lost, while it may reserve that again.
    claim: u32,
    /// The entry that is on its way.
    attempt: Option<Attempt>,
    /// A lower number that may be on its way in an entry after this sequence number: no more may be
    /// used until the log has shown a later entry.
    ceiling: Option<(u64, u32)>,
    /// No attempt is made before this time, in milliseconds.
    again_ms: u64,
    /// The refusals since a later entry was read.
    refusals: Backoff,
    /// Since when more is reserved than needed, in milliseconds.
    pub(super) surplus_ms: Option<u64>,
    /// Whether the entry has nodes that this node has declared dead.
    pub(super) is_unclean: bool,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    number: u64,
    expected: u64,
    /// When it is given up.
    until_ms: u64,
}

impl ReservationTable {
    /// What the log has of this node.
    pub(super) fn stated(&self, own: u64) -> u32 {
        self.rows.get(&own).copied().unwrap_or_default()
    }

    /// What the log has of the other nodes.
    pub(super) fn others(&self, own: u64) -> u64 {
        let others = self.rows.iter().filter(|(node, _)| **node != own);
        others.map(|(_, count)| u64::from(*count)).sum()
    }

    /// The number that the log has of this node, or a lower one that may be on its way.
    pub(super) fn kept(&self, own: u64) -> u32 {
        let ceiling = self.ceiling.map_or(u32::MAX, |(_, count)| count);
        self.stated(own).min(ceiling)
    }

    /// The number of connections that this node may admit: its number in the log, but no more than
    /// the others leave of the limit. What the others reserve later leaves that, too.
    pub(super) fn usable(&self, own: u64, limit: u32) -> u32 {
        if let Some(lost) = self.lost {
            return lost;
        }
        let left = u64::from(limit).saturating_sub(self.others(own));
        self.kept(own).min(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// What this node had before the log was lost, and may reserve again.
    pub(super) fn claim(&self) -> u32 {
        self.claim
    }

    /// The nodes that have reserved something.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u64> {
        self.rows.keys().copied()
    }

    /// The rows of an entry in which this node has reserved `count`.
    pub(super) fn with(&self, own: u64, count: u32) -> Vec<(u64, u32)> {
        let mut rows = self.rows.clone();
        rows.insert(own, count);
        rows.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Whether the log has something else than that this node has reserved `count`.
    pub(super) fn differs(&self, own: u64, count: u32) -> bool {
        self.stated(own) != count || self.ceiling.is_some() || self.is_unclean
    }

    /// Notes an entry that was read. Returns false if a later one was read before.
    pub(super) fn read(&mut self, rows: BTreeMap<u64, u32>, sequence: u64) -> bool {
        if sequence <= self.sequence {
            return false;
        }
        (self.rows, self.sequence) = (rows, sequence);
        (self.lost, self.is_unclean) = (None, false);
        // Both expect the entry before, so that they are stored before this one, or never.
        self.ceiling.take_if(|(after, _)| *after < sequence);
        self.attempt.take_if(|it| it.expected < sequence);
        self.again_ms = 0;
        self.refusals.succeed();
        true
    }

    /// Notes the end of a node. Returns whether it had something reserved.
    pub(super) fn remove(&mut self, node: u64) -> bool {
        self.rows.remove(&node).is_some()
    }

    /// Whether an entry is on its way, or the next attempt must wait.
    pub(super) fn is_busy(&mut self, now_ms: u64) -> bool {
        self.attempt.take_if(|it| it.until_ms <= now_ms);
        self.attempt.is_some() || now_ms < self.again_ms
    }

    /// Notes that an entry with this number is on its way, in which this node has reserved `count`.
    pub(super) fn attempt(&mut self, own: u64, count: u32, number: u64, until_ms: u64) {
        let expected = self.sequence;
        self.attempt = Some(Attempt { number, expected, until_ms });
        if count < self.kept(own) || self.ceiling.is_some() {
            let lowest = count.min(self.kept(own));
            self.ceiling = Some((expected, lowest));
        }
    }

    /// Notes that the entry with this number was not stored. Returns when the next attempt may be
    /// made, in milliseconds, if it was on its way.
    pub(super) fn refused(&mut self, number: u64, now_ms: u64) -> Option<u64> {
        self.attempt.take_if(|it| it.number == number)?;
        let (first_ms, max_ms) = AGAIN_MS;
        self.again_ms = now_ms + self.refusals.fail(first_ms, max_ms);
        Some(self.again_ms)
    }

    /// Notes that the answer to what is on its way will not come.
    pub(super) fn give_up(&mut self) {
        self.attempt = None;
    }

    /// Notes that the log is another one, which has nothing yet, and what this node may reserve
    /// again.
    pub(super) fn lose(&mut self, usable: u32) {
        *self = ReservationTable { lost: Some(usable), claim: usable, ..Default::default() };
    }

    /// Notes that all nodes had time to reserve again what they had before the log was lost.
    pub(super) fn settle(&mut self) {
        (self.lost, self.claim) = (None, 0);
    }

    /// Whether this node has something to do here, or may soon.
    pub(super) fn is_in_use(&self, own: u64) -> bool {
        self.stated(own) > 0 || self.ceiling.is_some() || self.is_unclean || self.claim > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 1;

    fn table(rows: &[(u64, u32)], sequence: u64) -> ReservationTable {
        let mut table = ReservationTable::default();
        assert!(table.read(rows.iter().copied().collect(), sequence));
        table
    }

    #[test]
    fn reservations_are_usable_within_what_others_leave() {
        for (limit, usable) in [(100, 30), (90, 30), (89, 29), (60, 0), (59, 0)] {
            assert_eq!(table(&[(OWN, 30), (2, 40), (3, 20)], 5).usable(OWN, limit), usable);
        }
        let mut table = table(&[(OWN, 30), (2, 40)], 5);
        assert_eq!(table.usable(OWN, 50), 10);
        assert!(table.remove(2) && !table.remove(2));
        assert_eq!(table.usable(OWN, 50), 30);
        assert_eq!(table.with(OWN, 0), []);
        assert_eq!(table.with(4, 7), [(OWN, 30), (4, 7)]);
    }

    #[test]
    fn reservations_of_earlier_entries_are_skipped() {
        let mut table = table(&[(OWN, 30)], 5);
        assert!(!table.read(BTreeMap::from([(OWN, 50)]), 5));
        assert_eq!(table.stated(OWN), 30);
        assert!(table.read(BTreeMap::from([(OWN, 50)]), 6));
        assert_eq!(table.stated(OWN), 50);
    }

    /// Whoever does not read what others write asks the engine less and less often.
    #[test]
    fn reservations_that_are_refused_again_are_tried_with_growing_pauses() {
        let mut table = table(&[(2, 30)], 5);
        let refuse = |table: &mut ReservationTable, now_ms| {
            table.attempt(OWN, 1, now_ms, now_ms + 1);
            table.refused(now_ms, now_ms).map(|again_ms| again_ms - now_ms)
        };
        for pause_ms in [50, 100, 200, 400, 800, 1600, 3200, 3200] {
            assert_eq!(refuse(&mut table, 1000), Some(pause_ms));
        }
        assert!(!table.read(BTreeMap::new(), 5) && table.read(BTreeMap::new(), 6));
        assert!(!table.is_busy(1000), "it knows what it was refused for");
        assert_eq!(refuse(&mut table, 1000), Some(50));
    }

    /// What may have been given back is not used until the log shows what has become of it.
    #[test]
    fn reservations_that_may_be_given_back_are_not_used() {
        let mut table = table(&[(OWN, 30)], 5);
        table.attempt(OWN, 10, 1, 100);
        assert_eq!((table.usable(OWN, 100), table.is_busy(99)), (10, true));
        // No answer: it is tried again, with another number.
        assert!(!table.is_busy(100));
        assert!(table.differs(OWN, 30) && table.differs(OWN, 10));
        table.attempt(OWN, 20, 2, 200);
        assert_eq!(table.usable(OWN, 100), 10, "the first one may be stored");
        assert_eq!((table.refused(2, 250), table.refused(2, 250)), (Some(300), None));
        assert!(table.is_busy(299) && !table.is_busy(300));
        assert!(table.read(BTreeMap::from([(OWN, 20)]), 6));
        assert_eq!((table.usable(OWN, 100), table.differs(OWN, 20)), (20, false));
        // More is used when the entry was read.
        table.attempt(OWN, 40, 3, 400);
        assert_eq!(table.usable(OWN, 100), 20);
        table.give_up();
        assert!(!table.is_busy(300));
    }

    #[test]
    fn reservations_of_a_lost_log_are_used_until_the_new_one_has_others() {
        let mut table = table(&[(OWN, 30), (2, 40)], 5);
        table.lose(30);
        assert_eq!((table.usable(OWN, 100), table.claim(), table.stated(OWN)), (30, 30, 0));
        assert!(table.read(BTreeMap::from([(2, 80)]), 1));
        assert_eq!((table.usable(OWN, 100), table.claim()), (0, 30));
        table.attempt(OWN, 30, 1, 10);
        assert!(table.read(BTreeMap::from([(OWN, 30), (2, 80)]), 2));
        assert_eq!(table.usable(OWN, 100), 20);
        table.settle();
        assert_eq!((table.usable(OWN, 100), table.claim()), (20, 0));
        // Whoever has not reserved it again in time has lost it.
        table.lose(20);
        table.settle();
        assert_eq!(table.usable(OWN, 100), 0);
    }
}
