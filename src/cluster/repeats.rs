//! Entries that the log has twice. A node sends an entry again, under the same number, when the
//! engine has not answered, and the engine stores it once. But an engine that loses a server may
//! forget that it has the entry. So a node also remembers the numbers of the entries that it has
//! applied, and applies each once. All nodes read the same log, so they decide the same.

use std::collections::HashMap;

/// How far behind a node's newest number a repeated one is recognised. An entry is sent again for
/// `hold_ms` at most, which is 8 s by default: 16 000 entries a second.
const WINDOW: u64 = 128 * 1024;
/// The maximum number of nodes whose numbers are remembered, at 16 KiB each: those that have
/// written last.
const NODES: usize = 64;

/// The numbers of the entries that were applied, by the node that has written them.
#[derive(Debug, Default)]
pub(super) struct AppliedNumbers {
    nodes: HashMap<u64, NodeNumbers>,
    clock: u64,
}

#[derive(Debug)]
struct NodeNumbers {
    newest: u64,
    /// A bit for each of the last `WINDOW` numbers, at the number's remainder.
    bits: Vec<u64>,
    /// When the node has last written, by `AppliedNumbers::clock`.
    used: u64,
}

impl AppliedNumbers {
    /// Whether the entry with this number of this node is to be applied: it was not before, as far
    /// as the numbers are remembered.
    pub(super) fn takes(&mut self, node: u64, number: u64) -> bool {
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
        let mut applied = AppliedNumbers::default();
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
        let mut applied = AppliedNumbers::default();
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
        let mut applied = AppliedNumbers::default();
        for node in 0..NODES as u64 {
            assert!(applied.takes(node, 1));
        }
        assert!(!applied.takes(0, 1), "the oldest is the newest now");
        assert!(applied.takes(NODES as u64, 1));
        assert!(!applied.takes(0, 1) && applied.takes(1, 1), "node 1 was forgotten");
        assert_eq!(applied.nodes.len(), NODES);
    }
}
