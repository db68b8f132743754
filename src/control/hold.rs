//! Leavings that wait a while, because who leaves often comes back at once: a client that loads
//! its next page. Who does was never away, as far as anybody is told.

use crate::hub::{Notice, What};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Leavings held at once; one more, and the oldest is told early.
const MOST: usize = 64 * 1024;

/// See the module's documentation. Time comes in as an argument.
#[derive(Debug)]
pub(super) struct Hold {
    hold_ms: u64,
    /// When each is due, oldest first. An entry that is not in `leavings` was cancelled.
    due: VecDeque<(u64, u64, Key)>,
    leavings: HashMap<Key, (u64, Notice)>,
    held: u64,
}

/// Who has left what; no user stands for the channel's last subscriber.
type Key = (u32, Arc<str>, Option<Arc<str>>);

impl Hold {
    pub(super) fn new(hold_ms: u64) -> Hold {
        Hold { hold_ms, due: VecDeque::new(), leavings: HashMap::new(), held: 0 }
    }

    /// Takes a notice; gives what is to be told at once.
    pub(super) fn take(&mut self, notice: Notice, now_ms: u64) -> Option<Notice> {
        let key = |user: Option<&Arc<str>>| (notice.app, notice.channel.clone(), user.cloned());
        match &notice.what {
            What::Vacated => self.hold(key(None), notice, now_ms),
            What::Left(user) => self.hold(key(Some(user)), notice, now_ms),
            What::Occupied => match self.leavings.remove(&key(None)) {
                Some(_) => None,
                None => Some(notice),
            },
            What::Came(user) => match self.leavings.remove(&key(Some(user))) {
                Some(_) => None,
                None => Some(notice),
            },
            What::Missed | What::Count(_) | What::Said(_) => Some(notice),
        }
    }

    fn hold(&mut self, key: Key, notice: Notice, now_ms: u64) -> Option<Notice> {
        self.held += 1;
        self.due.push_back((now_ms + self.hold_ms, self.held, key.clone()));
        self.leavings.insert(key, (self.held, notice));
        if self.due.len() > MOST { self.pop() } else { None }
    }

    /// The next leaving that nobody has taken back in time.
    pub(super) fn next_due(&mut self, now_ms: u64) -> Option<Notice> {
        while self.due.front().is_some_and(|(due_ms, ..)| *due_ms <= now_ms) {
            if let Some(notice) = self.pop() {
                return Some(notice);
            }
        }
        None
    }

    fn pop(&mut self) -> Option<Notice> {
        let (_, number, key) = self.due.pop_front()?;
        let (held, _) = self.leavings.get(&key)?;
        // Held again since, which has an entry of its own.
        if *held != number {
            return None;
        }
        self.leavings.remove(&key).map(|(_, notice)| notice)
    }

    /// When to look again.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.due.front().map_or(u64::MAX, |(due_ms, ..)| *due_ms)
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.leavings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(channel: &str, what: What) -> Notice {
        Notice { app: 0, version: 0, channel: channel.into(), what }
    }

    fn left(user: &str) -> Notice {
        notice("p", What::Left(user.into()))
    }

    fn came(user: &str) -> Notice {
        notice("p", What::Came(user.into()))
    }

    #[test]
    fn a_leaving_is_told_at_its_time_and_not_before() {
        let mut hold = Hold::new(3000);
        assert_eq!(hold.take(notice("a", What::Vacated), 100), None);
        assert_eq!((hold.next_due(3099), hold.deadline_ms()), (None, 3100));
        assert_eq!(hold.next_due(3100), Some(notice("a", What::Vacated)));
        assert!(hold.is_empty() && hold.deadline_ms() == u64::MAX);
        let again = notice("a", What::Occupied);
        assert_eq!(hold.take(again.clone(), 3101), Some(again));
    }

    #[test]
    fn a_return_in_time_is_told_no_more_than_the_leaving() {
        let mut hold = Hold::new(3000);
        for notice in [left("ada"), left("bob"), notice("p", What::Vacated)] {
            assert_eq!(hold.take(notice, 0), None);
        }
        assert_eq!(hold.take(notice("p", What::Occupied), 1000), None);
        assert_eq!(hold.take(came("ada"), 1000), None);
        assert_eq!(hold.take(came("eve"), 1000), Some(came("eve")));
        // Another channel and another application are others.
        let other = Notice { app: 1, ..came("bob") };
        assert_eq!(hold.take(other.clone(), 1000), Some(other));
        assert_eq!(hold.next_due(3000), Some(left("bob")));
        assert_eq!(hold.next_due(u64::MAX), None);
    }

    #[test]
    fn who_leaves_again_is_held_again_for_the_whole_time() {
        let mut hold = Hold::new(3000);
        assert_eq!(hold.take(left("ada"), 0), None);
        assert_eq!(hold.take(came("ada"), 2000), None);
        assert_eq!(hold.take(left("ada"), 2500), None);
        assert_eq!(hold.next_due(5499), None);
        assert_eq!(hold.next_due(5500), Some(left("ada")));
        assert_eq!(hold.next_due(u64::MAX), None);
    }

    #[test]
    fn what_is_no_leaving_passes_and_too_many_leavings_push_the_oldest_out() {
        let mut hold = Hold::new(3000);
        assert!(hold.take(notice("a", What::Missed), 0).is_some());
        assert!(hold.take(notice("a", What::Count(3)), 0).is_some());
        let channel = |n: usize| notice(&n.to_string(), What::Vacated);
        assert!((0..MOST).all(|n| hold.take(channel(n), 0).is_none()));
        assert_eq!(hold.take(channel(MOST), 0), Some(channel(0)));
    }
}
