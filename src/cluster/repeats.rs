//! Entries that the log has twice. A node sends an entry again, under the same number, when the
//! engine has not answered, and the engine stores it once. But an engine that loses a server may
//! forget that it has the entry. So a node also remembers the numbers of the entries that it has
//! applied, and applies each once. All nodes read the same log, so they decide the same.
//!
//! If the engine loses its log, an entry that is sent again may be in that log and in the next one.
//! It has a place in the next one for all nodes, and some of them have applied it before.

use std::collections::HashMap;

/// How far below a node's newest number a repeated one is recognised. An entry is sent again for
/// `hold_ms` at most, which is 8 s by default: 16 000 entries a second.
const WINDOW: u64 = 128 * 1024;
/// The maximum number of nodes whose numbers are remembered, at 16 KiB each: those that have
/// written last.
const NODES: usize = 64;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct AppliedNumbers {
    of_all_logs: EntryNumbers,
    /// Those of the present log, if it is not the first one.
    of_log: Option<EntryNumbers>,
}

/// Whether an entry was applied before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It was not, as far as the numbers are remembered.
    New,
    /// It was, out of an earlier log.
    OfEarlierLog,
    /// It was, out of this log.
    OfThisLog,
}

/// The numbers of entries, by the node that has written them.
#[derive(Debug, Default)]
struct EntryNumbers {
    nodes: HashMap<u64, NodeNumbers>,
    clock: u64,
}

#[derive(Debug)]
struct NodeNumbers {
    newest: u64,
    /// A bit for each of the last `WINDOW` numbers, at the number's remainder.
    bits: Vec<u64>,
    /// When the node has last written, by `EntryNumbers::clock`.
    used: u64,
}

impl AppliedNumbers {
    /// Notes that another log begins, or that the log has lost its end. What is left of it is
    /// [noted](AppliedNumbers::note) again.
    pub(super) fn begin_log(&mut self) {
        self.of_log = Some(EntryNumbers::default());
    }

    /// Notes that the log has an entry that was applied before.
    pub(super) fn note(&mut self, node: u64, number: u64) {
        if let Some(of_log) = &mut self.of_log {
            of_log.takes(node, number);
        }
    }

    /// Takes the entry with this number of this node.
    pub(super) fn takes(&mut self, node: u64, number: u64) -> Repeat {
        let is_new = self.of_all_logs.takes(node, number);
        let is_new_here = self.of_log.as_mut().map_or(is_new, |it| it.takes(node, number));
        match (is_new, is_new_here) {
            (_, false) => Repeat::OfThisLog,
            (false, true) => Repeat::OfEarlierLog,
            (true, true) => Repeat::New,
        }
    }
}

impl EntryNumbers {
    /// Whether the entry with this number of this node is not among these, as far as they are
    /// remembered. From now on it is.
    fn takes(&mut self, node: u64, number: u64) -> bool {
        self.clock += 1;
        if !self.nodes.contains_key(&node) && self.nodes.len() >= NODES {
            let oldest = self.nodes.iter().min_by_key(|(_, it)| it.used).map(|(node, _)| *node);
            oldest.and_then(|oldest| self.nodes.remove(&oldest));
        }
        let numbers = self.nodes.entry(node).or_insert_with(|| NodeNumbers {
            newest: number,
            bits: vec![0; (WINDOW / 64) as usize],
            used: 0,
        });
        numbers.used = self.clock;
        numbers.takes(number)
    }
}

impl NodeNumbers {
    fn takes(&mut self, number: u64) -> bool {
        if number > self.newest {
            // Numbers that were skipped have not been applied.
            let first = (self.newest + 1).max(number.saturating_sub(WINDOW - 1));
            for skipped in first..=number {
                let (word, bit) = self.word(skipped);
                *word &= !bit;
            }
            self.newest = number;
        } else if self.newest - number >= WINDOW {
            return true;
        }
        let (word, bit) = self.word(number);
        let is_fresh = *word & bit == 0;
        *word |= bit;
        is_fresh
    }

    /// The word and the bit of a number.
    fn word(&mut self, number: u64) -> (&mut u64, u64) {
        let at = number % WINDOW;
        (&mut self.bits[(at / 64) as usize], 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_repeated_numbers_are_applied_once_in_any_order() {
        let mut applied = EntryNumbers::default();
        for number in [5, 7, 6, 1, 9] {
            assert!(applied.takes(1, number));
        }
        for number in [9, 7, 6, 5, 1] {
            assert!(!applied.takes(1, number), "{number}");
        }
        assert!(applied.takes(1, 8) && applied.takes(2, 9), "of another node");
    }

    #[test]
    fn cluster_repeated_numbers_are_known_within_the_window() {
        let mut applied = EntryNumbers::default();
        assert!(applied.takes(1, 1) && applied.takes(1, 2));
        assert!(applied.takes(1, WINDOW));
        assert!(!applied.takes(1, 1) && applied.takes(1, 3), "the window has them");
        assert!(applied.takes(1, WINDOW + 1));
        assert!(applied.takes(1, 1), "behind the window");
        assert!(!applied.takes(1, 2));
        // A jump over the whole window forgets all.
        assert!(applied.takes(1, 10 * WINDOW + 2));
        assert!(applied.takes(1, 9 * WINDOW + 3) && !applied.takes(1, 9 * WINDOW + 3));
        assert!(applied.takes(1, u64::MAX) && !applied.takes(1, u64::MAX));
        assert!(applied.takes(1, 0));
    }

    #[test]
    fn cluster_repeated_numbers_of_the_last_nodes_are_kept() {
        let mut applied = EntryNumbers::default();
        for node in 0..NODES as u64 {
            assert!(applied.takes(node, 1));
        }
        assert!(!applied.takes(0, 1), "the oldest is the newest now");
        assert!(applied.takes(NODES as u64, 1));
        assert!(!applied.takes(0, 1) && applied.takes(1, 1), "node 1 was forgotten");
        assert_eq!(applied.nodes.len(), NODES);
    }

    /// What is in the log is decided by that log; what a node has delivered, by all logs.
    #[test]
    fn cluster_repeated_numbers_of_an_earlier_log_are_new_in_the_next_one() {
        let mut applied = AppliedNumbers::default();
        assert_eq!(applied.takes(1, 1), Repeat::New);
        assert_eq!(applied.takes(1, 1), Repeat::OfThisLog);
        applied.begin_log();
        assert_eq!(applied.takes(1, 2), Repeat::New);
        assert_eq!(
            [1, 1, 2].map(|it| applied.takes(1, it)),
            [Repeat::OfEarlierLog, Repeat::OfThisLog, Repeat::OfThisLog]
        );
        // All earlier logs are remembered, and not only the last one.
        applied.begin_log();
        assert_eq!(applied.takes(1, 3), Repeat::New);
        applied.begin_log();
        let all = [1, 2, 3].map(|it| applied.takes(1, it));
        assert_eq!(all, [Repeat::OfEarlierLog; 3]);
        // A log that has lost its end still has its beginning.
        applied.begin_log();
        applied.note(1, 1);
        assert_eq!(applied.takes(1, 1), Repeat::OfThisLog);
        assert_eq!(applied.takes(1, 2), Repeat::OfEarlierLog);
    }
}
