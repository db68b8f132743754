//! Polling in a cluster. Only some nodes poll: the leader, or all. What a poller publishes takes
//! effect when it comes back from the cluster's log; until then nothing further is published, so
//! that no epoch is missing between two of the log, whatever the engine refuses. A node that begins
//! to poll goes on after the last epoch of the log.

use super::{PollRole, Poller};

impl Poller {
    /// Polls or not from now on, as a node of a cluster whose log has had the epochs up to `last`.
    pub(super) fn follow(&mut self, polls: bool, last: Option<u64>, now_ms: u64) {
        match (self.role, polls) {
            (PollRole::Polls, true) => self.advance(last),
            (_, true) => {
                self.role = PollRole::Polls;
                (self.last, self.saved, self.awaited) = (None, last, None);
                (self.next_poll_ms, self.progress_ms) = (now_ms, now_ms);
            }
            (_, false) => {
                self.role = PollRole::Rests;
                self.fetches.clear();
                // The look-up of contracts counts epochs.
                (self.last, self.saved, self.awaited) = (last, None, None);
            }
        }
    }

    /// Goes on after epoch `last` of the log, if that is a later one than this node's own.
    fn advance(&mut self, last: Option<u64>) {
        if self.awaited <= last {
            self.awaited = None;
        }
        if self.last.is_none() {
            self.saved = last;
        } else if self.last < last {
            self.last = last;
            while self.fetches.front().is_some_and(|first| Some(first.number()) <= last) {
                self.fetches.pop_front();
            }
        }
    }

    /// The epoch that was published and that the log has not had yet.
    pub(super) fn awaited(&self) -> Option<u64> {
        self.awaited
    }

    /// Notes that an epoch is published, or is the one after which epochs are fetched.
    pub(super) fn await_log(&mut self, number: u64) {
        if self.role == PollRole::Polls {
            self.awaited = Some(number);
        }
    }

    /// Whether epochs are requested from nodes.
    pub(super) fn polls(&self) -> bool {
        self.role != PollRole::Rests
    }
}
