//! The schedule of repeated fetches: each entry of a list is fetched at the start, at an interval,
//! and on request, but not more often than a minimum interval allows. After failures the wait
//! doubles. Time is an argument.

use crate::mem::{RefreshList, RefreshRequest};
use crate::time::RefreshSchedule;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// An entry that is fetched repeatedly.
pub(super) trait Refreshable {
    /// Entries with equal keys share one fetch.
    type Key: Clone + Eq + Hash;

    fn key(&self) -> Self::Key;

    /// The request to fetch the entry before its interval is over.
    fn refresh(&self) -> &RefreshRequest;

    /// The interval between two fetches, in milliseconds.
    fn refresh_ms(&self) -> u64;

    /// The minimum time between the starts of two fetches, in milliseconds.
    fn floor_ms(&self) -> u64;
}

/// The schedule of one list; see the module's documentation.
pub(super) struct Schedule<T: Refreshable> {
    list: Arc<RefreshList<T>>,
    by_key: HashMap<T::Key, RefreshSchedule>,
}

/// When the next fetch starts, in milliseconds; `u64::MAX` while one is in flight.
fn due_ms(times: &RefreshSchedule, it: &impl Refreshable) -> u64 {
    match it.refresh().is_wanted() {
        true => times.requested_ms(it.floor_ms()),
        false => times.due_ms(),
    }
}

impl<T: Refreshable> Schedule<T> {
    pub(super) fn new(list: Arc<RefreshList<T>>) -> Schedule<T> {
        Schedule { list, by_key: HashMap::new() }
    }

    /// The entries to fetch now, one of each key, which are in flight from now on. The caller
    /// reports each result with [`Schedule::outcome`].
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Arc<T>> {
        let list = self.list.list();
        self.by_key.retain(|key, _| list.iter().any(|it| it.key() == *key));
        let mut due = Vec::new();
        for it in &list {
            let key = it.key();
            let times = self.by_key.entry(key.clone()).or_default();
            if due_ms(times, &**it) <= now_ms {
                times.begin(now_ms);
                list.iter().filter(|twin| twin.key() == key).for_each(|it| it.refresh().begin());
                due.push(it.clone());
            }
        }
        due
    }

    /// Takes the result of a fetch. Returns all listed entries with
    /// that key; none if the entry was removed from the list meanwhile.
    pub(super) fn outcome(&mut self, key: &T::Key, succeeded: bool, now_ms: u64) -> Vec<Arc<T>> {
        let Some(times) = self.by_key.get_mut(key) else { return Vec::new() };
        times.end(succeeded);
        let mut list = self.list.list();
        list.retain(|it| it.key() == *key);
        // The first wait after a failure is twice the minimum interval.
        let wait_ms =
            |it: &Arc<T>| times.wait_ms(2 * it.floor_ms(), it.refresh_ms()).max(it.floor_ms());
        let wait_ms = list.iter().map(wait_ms).min();
        times.set_next(now_ms + wait_ms.unwrap_or(0));
        list
    }

    /// When the next fetch is due, in milliseconds; `u64::MAX` if none is.
    pub(super) fn deadline_ms(&self) -> u64 {
        let due = |it: &Arc<T>| self.by_key.get(&it.key()).map_or(0, |times| due_ms(times, &**it));
        self.list.list().iter().map(due).min().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct It {
        name: &'static str,
        refresh_ms: u64,
        refresh: RefreshRequest,
    }

    impl Refreshable for It {
        type Key = &'static str;

        fn key(&self) -> &'static str {
            self.name
        }

        fn refresh(&self) -> &RefreshRequest {
            &self.refresh
        }

        fn refresh_ms(&self) -> u64 {
            self.refresh_ms
        }

        fn floor_ms(&self) -> u64 {
            5000
        }
    }

    fn it(name: &'static str, refresh_ms: u64) -> Arc<It> {
        Arc::new(It { name, refresh_ms, refresh: RefreshRequest::new(&Default::default()) })
    }

    fn schedule(list: &[&Arc<It>]) -> (Schedule<It>, Arc<RefreshList<It>>) {
        let refresh_list = Arc::new(RefreshList::default());
        refresh_list.replace(list.iter().copied().cloned().collect());
        (Schedule::new(refresh_list.clone()), refresh_list)
    }

    impl Schedule<It> {
        fn began(&mut self, now_ms: u64) -> Vec<&'static str> {
            self.due(now_ms).iter().map(|it| it.name).collect()
        }
    }

    #[test]
    fn schedule_runs_at_start_and_at_the_interval() {
        let (mut all, _) = schedule(&[&it("a", 60_000)]);
        assert_eq!((all.deadline_ms(), all.began(100).len()), (0, 1));
        assert_eq!((all.deadline_ms(), all.began(100).len()), (u64::MAX, 0), "one at a time");
        assert_eq!(all.outcome(&"a", true, 200).len(), 1);
        assert_eq!((all.deadline_ms(), all.began(60_199).len()), (60_200, 0));
        assert_eq!(all.began(60_200), ["a"]);
    }

    #[test]
    fn schedule_runs_on_request_but_not_before_the_floor() {
        let a = it("a", 60_000);
        let (mut all, _) = schedule(&[&a]);
        all.due(0);
        all.outcome(&"a", true, 100);
        a.refresh.want();
        assert_eq!((all.deadline_ms(), all.began(4999).len()), (5000, 0));
        assert_eq!(all.began(5000), ["a"]);
        assert!(!a.refresh.is_wanted());
        // Requested again during the fetch: one more fetch after the minimum interval.
        a.refresh.want();
        assert!(all.began(5001).is_empty());
        all.outcome(&"a", true, 5100);
        assert_eq!((all.began(9999).len(), all.began(10_000).len()), (0, 1));
        all.outcome(&"a", true, 10_100);
        assert_eq!(all.deadline_ms(), 70_100);
    }

    #[test]
    fn schedule_backs_off_after_failures() {
        let (mut all, _) = schedule(&[&it("a", 60_000)]);
        let mut now_ms = 0;
        for wait_ms in [10_000, 20_000, 40_000, 60_000, 60_000] {
            assert_eq!(all.began(now_ms), ["a"]);
            all.outcome(&"a", false, now_ms);
            now_ms += wait_ms;
            assert_eq!(all.deadline_ms(), now_ms);
        }
        all.due(now_ms);
        all.outcome(&"a", true, now_ms);
        assert_eq!(all.deadline_ms(), now_ms + 60_000);
        all.due(now_ms + 60_000);
        all.outcome(&"a", false, now_ms + 60_000);
        assert_eq!(all.deadline_ms(), now_ms + 70_000, "the first failure after a success");
    }

    #[test]
    fn schedule_interval_is_at_least_the_floor() {
        let (mut all, _) = schedule(&[&it("a", 1000)]);
        for succeeded in [true, false, false] {
            all.outcome(&"a", succeeded, 0);
            all.due(0);
            all.outcome(&"a", succeeded, 0);
            assert_eq!(all.deadline_ms(), 5000);
            all.by_key.clear();
        }
    }

    #[test]
    fn schedule_fetches_entries_with_one_key_once() {
        let (long, short, other) = (it("a", 60_000), it("a", 30_000), it("b", 60_000));
        let (mut all, refresh_list) = schedule(&[&short, &long, &other]);
        long.refresh.want();
        assert_eq!(all.began(0), ["a", "b"]);
        assert!(!long.refresh.is_wanted(), "it is on its way");
        assert_eq!(all.outcome(&"a", true, 0).len(), 2);
        all.outcome(&"b", true, 0);
        assert_eq!(all.deadline_ms(), 30_000);
        all.due(30_000);
        refresh_list.replace(vec![other]);
        all.due(30_001);
        assert_eq!(all.by_key.len(), 1);
        assert!(all.outcome(&"a", true, 30_002).is_empty(), "no entry requests it any more");
    }
}
