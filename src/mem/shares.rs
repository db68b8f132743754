//! Counts the entries of a bounded queue by their source, so that at the bound the source with the
//! most entries loses one, and no other source.

use std::collections::{BTreeSet, HashMap};

/// The entries of a queue by their source. An entry has a number, which grows with time.
#[derive(Debug, Default)]
pub struct Shares {
    by_source: HashMap<u64, BTreeSet<u64>>,
    /// For each source: the number of its entries, its newest entry, and the source.
    ranks: BTreeSet<(usize, u64, u64)>,
}

impl Shares {
    /// Notes the entry `number` of `source`. Takes logarithmic time.
    pub fn add(&mut self, source: u64, number: u64) {
        self.change(source, |numbers| {
            numbers.insert(number);
        });
    }

    /// Forgets an entry that is no longer in the queue.
    pub fn remove(&mut self, source: u64, number: u64) {
        self.change(source, |numbers| {
            numbers.remove(&number);
        });
    }

    /// The newest entry of the source that has the most; of several such sources the one with the
    /// newest entry. `None` if the queue is empty.
    pub fn newest_of_busiest(&self) -> Option<u64> {
        self.ranks.last().map(|(_, number, _)| *number)
    }

    fn change(&mut self, source: u64, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let numbers = self.by_source.entry(source).or_default();
        if let Some(newest) = numbers.last() {
            self.ranks.remove(&(numbers.len(), *newest, source));
        }
        change(numbers);
        match numbers.last() {
            Some(newest) => {
                self.ranks.insert((numbers.len(), *newest, source));
            }
            None => {
                self.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_name_the_newest_entry_of_the_busiest_source() {
        let mut shares = Shares::default();
        assert_eq!(shares.newest_of_busiest(), None);
        for (source, number) in [(7, 1), (8, 2), (7, 3), (9, 4), (8, 5), (7, 6)] {
            shares.add(source, number);
        }
        assert_eq!(shares.newest_of_busiest(), Some(6));
        shares.remove(7, 6);
        // Sources 7 and 8 have two entries each; the source with the newest entry loses it first.
        assert_eq!(shares.newest_of_busiest(), Some(5));
        shares.remove(8, 5);
        assert_eq!(shares.newest_of_busiest(), Some(3));
        // The oldest entry leaves the queue when it is delivered.
        shares.remove(7, 1);
        assert_eq!(shares.newest_of_busiest(), Some(4));
        for (source, number) in [(7, 3), (8, 2), (9, 4), (9, 4)] {
            shares.remove(source, number);
        }
        assert_eq!(shares.newest_of_busiest(), None);
        assert!(shares.by_source.is_empty() && shares.ranks.is_empty());
    }
}
