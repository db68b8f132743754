//! The last epochs, for clients that were away. All cores share them.

use super::epoch::Epoch;
use crate::hub::ResumeOutcome;
use std::collections::VecDeque;
use std::sync::Arc;

/// The last epochs in ascending order, bounded in number and in memory.
#[derive(Debug, Default)]
pub(super) struct EpochHistory {
    epochs: VecDeque<Arc<Epoch>>,
    /// The sum of [`Epoch::memory`].
    bytes: usize,
    max: usize,
    max_bytes: usize,
}

impl EpochHistory {
    /// Sets the maximum number of epochs, and that of their bytes.
    pub(super) fn set_limit(&mut self, max: usize, max_bytes: usize) {
        (self.max, self.max_bytes) = (max, max_bytes);
        self.trim();
    }

    /// The estimated memory of the epochs, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The maximum number of epochs.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Adds an epoch, whose number is above that of the last one, and drops the oldest epochs
    /// beyond the limit.
    pub(super) fn push(&mut self, epoch: &Arc<Epoch>) {
        self.bytes += epoch.memory();
        self.epochs.push_back(epoch.clone());
        self.trim();
    }

    fn trim(&mut self) {
        while self.epochs.len() > self.max || self.bytes > self.max_bytes {
            let Some(oldest) = self.epochs.pop_front() else { return };
            self.bytes -= oldest.memory();
        }
        if self.epochs.is_empty() {
            self.epochs = VecDeque::new();
        }
    }

    /// The epochs after number `after`, if every one of them is here; with their transactions, if
    /// `wants_logs`. `last` is the number of the last epoch that was published.
    ///
    /// # Errors
    /// Why a client would miss epochs.
    pub(super) fn after(
        &self,
        after: u64,
        last: Option<u64>,
        wants_logs: bool,
    ) -> Result<Vec<Arc<Epoch>>, ResumeOutcome> {
        let Some(count) = last.and_then(|last| last.checked_sub(after)) else {
            return Err(ResumeOutcome::Future);
        };
        let begin = self.epochs.partition_point(|epoch| epoch.number() <= after);
        let later: Vec<_> = self.epochs.range(begin..).cloned().collect();
        // Numbers ascend, so none is missing if there are as many as there are numbers.
        let is_whole = later.len() as u64 == count;
        match is_whole && later.iter().all(|epoch| !wants_logs || epoch.has_transactions()) {
            true => Ok(later),
            false => Err(ResumeOutcome::Expired),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoch::Strictness;
    use super::*;

    fn epoch(number: u64, hashes: &str) -> Arc<Epoch> {
        let text = format!(
            r#"{{"TxBlock":{{"header":{{"BlockNum":"{number}"}}}},"TxHashes":[{hashes}]}}"#
        );
        Arc::new(Epoch::read(text, Strictness::Refuse).expect("an epoch"))
    }

    fn history(max: usize, max_bytes: usize, numbers: &[u64]) -> EpochHistory {
        let mut history = EpochHistory::default();
        history.set_limit(max, max_bytes);
        numbers.iter().for_each(|number| history.push(&epoch(*number, "")));
        history
    }

    fn numbers(history: &EpochHistory, after: u64, last: u64) -> Result<Vec<u64>, ResumeOutcome> {
        let found = history.after(after, Some(last), true)?;
        Ok(found.iter().map(|epoch| epoch.number()).collect())
    }

    #[test]
    fn zilliqa_history_has_all_later_epochs_or_none() {
        use ResumeOutcome::{Expired, Future};
        let three = history(3, 1 << 20, &[1, 2, 3, 4, 5]);
        assert_eq!(numbers(&three, 2, 5), Ok(vec![3, 4, 5]));
        assert_eq!(numbers(&three, 1, 5), Err(Expired));
        assert_eq!(numbers(&three, 5, 5), Ok(vec![]));
        assert_eq!(numbers(&three, 6, 5), Err(Future));
        assert_eq!(three.after(0, None, false).err(), Some(Future), "nothing is known");
        // A number that nobody has published, and an epoch that was not kept.
        let gap = history(9, 1 << 20, &[1, 2, 4]);
        assert_eq!(numbers(&gap, 3, 4), Ok(vec![4]));
        assert_eq!(numbers(&gap, 2, 4), Err(Expired));
        assert_eq!(numbers(&gap, 4, 5), Err(Expired));
        assert_eq!(numbers(&history(0, 1 << 20, &[1]), 1, 1), Ok(vec![]));
        assert_eq!(numbers(&history(0, 1 << 20, &[1]), 0, 1), Err(Expired));
    }

    #[test]
    fn zilliqa_history_is_bounded_in_memory() {
        let one = epoch(1, "").memory();
        assert_eq!(numbers(&history(9, 2 * one, &[1, 2, 3]), 1, 3), Ok(vec![2, 3]));
        let less = history(9, 2 * one - 1, &[1, 2, 3]);
        assert_eq!(numbers(&less, 1, 3), Err(ResumeOutcome::Expired));
        assert_eq!((numbers(&less, 2, 3), less.bytes()), (Ok(vec![3]), one));
        let mut shrunk = history(9, 1 << 20, &[1, 2, 3]);
        shrunk.set_limit(1, 1 << 20);
        assert_eq!((numbers(&shrunk, 2, 3), shrunk.bytes()), (Ok(vec![3]), one));
        shrunk.set_limit(0, 0);
        assert_eq!(shrunk.bytes(), 0);
    }

    #[test]
    fn zilliqa_history_knows_epochs_without_their_transactions() {
        let mut history = history(9, 1 << 20, &[1]);
        let hash = format!("[\"{}\"]", "a".repeat(64));
        history.push(&epoch(2, &hash));
        assert!(history.after(1, Some(2), false).is_ok());
        assert_eq!(history.after(1, Some(2), true).err(), Some(ResumeOutcome::Expired));
        history.push(&epoch(3, "[],null"));
        assert!(history.after(2, Some(3), true).is_ok(), "it has none");
    }
}
