//! Numbers of subscribers of linked channels by the view through which they have subscribed, on a
//! node of a cluster.
//!
//! A core knows views by numbers, which differ between nodes and between configurations. What
//! leaves a core has the key of each view instead, which is the same on all nodes.

use super::members::Subscriber;
use std::collections::BTreeMap;

/// Pairs of the key of a view and the number of subscribers through it, by ascending key. A view
/// without subscribers is not among them.
pub type ViewCounts = Vec<(u64, u32)>;

/// The number of a node's subscribers of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriberCount {
    /// All of them, by whichever name they have subscribed.
    pub all: u32,
    /// Those who have subscribed through views; empty if nobody reads that.
    pub views: ViewCounts,
}

impl From<u32> for SubscriberCount {
    fn from(all: u32) -> SubscriberCount {
        SubscriberCount { all, views: ViewCounts::new() }
    }
}

/// The subscribers of a channel on one core that have subscribed through views.
#[derive(Debug, Default)]
pub(super) struct ViewTally {
    /// By the number of the view, each with at least one subscriber.
    pub(super) counts: Vec<(u16, u32)>,
    /// Whether the home was not sent the last change.
    pub(super) is_changed: bool,
}

impl ViewTally {
    pub(super) fn add(&mut self, view: u16) {
        self.is_changed = true;
        match self.counts.iter_mut().find(|(other, _)| *other == view) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((view, 1)),
        }
    }

    pub(super) fn remove(&mut self, view: u16) {
        self.is_changed = true;
        if let Some(at) = self.counts.iter().position(|(other, _)| *other == view) {
            self.counts[at].1 -= 1;
            if self.counts[at].1 == 0 {
                self.counts.swap_remove(at);
            }
        }
    }
}

impl ViewTally {
    /// Asserts that a channel's tally has its subscribers through views.
    pub(super) fn invariants(tally: Option<&ViewTally>, subscribers: &[Subscriber]) {
        let mut expected: BTreeMap<u16, u32> = BTreeMap::new();
        for view in subscribers.iter().map(|it| it.form.view).filter(|view| *view != 0) {
            *expected.entry(view).or_default() += 1;
        }
        let tally = tally.map_or(&[][..], |tally| &tally.counts);
        assert_eq!(tally.iter().copied().collect::<BTreeMap<_, _>>(), expected);
    }
}

/// The sum of numbers by view.
pub(super) fn sum_of_views<N: Copy + Default + std::ops::AddAssign + From<u32>>(
    counts: impl Iterator<Item = (u64, u32)>,
) -> Vec<(u64, N)> {
    let mut sum = BTreeMap::new();
    counts.for_each(|(key, count)| *sum.entry(key).or_insert_with(N::default) += count.into());
    sum.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_tally_has_the_views_with_subscribers() {
        let mut tally = ViewTally::default();
        [3, 1, 3].into_iter().for_each(|view| tally.add(view));
        assert_eq!(tally.counts, [(3, 2), (1, 1)]);
        assert!(std::mem::take(&mut tally.is_changed));
        [3, 3, 1, 1].into_iter().for_each(|view| tally.remove(view));
        assert!(tally.counts.is_empty() && tally.is_changed);
    }

    #[test]
    fn view_counts_are_summed_by_key() {
        let sum: Vec<(u64, u64)> = sum_of_views([(9, 1), (2, 3), (9, u32::MAX)].into_iter());
        assert_eq!(sum, [(2, 3), (9, 1 << 32)]);
    }
}
