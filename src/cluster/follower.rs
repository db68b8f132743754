//! The position up to which a node has applied the log.

use super::engine::LogInfo;

/// An interruption counts as too long this much earlier than the log forgets, in milliseconds.
const MARGIN_MS: u64 = 2000;

/// See the module's documentation.
#[derive(Debug)]
pub struct Follower {
    /// How long the log keeps every entry, in milliseconds.
    keep_ms: u64,
    epoch: Option<u64>,
    position: u64,
    /// The position at which the node has read everything that was stored when it came.
    target: u64,
    has_joined: bool,
    /// When everything that was stored had been delivered, in milliseconds.
    current_ms: u64,
}

/// How a node goes on when the engine can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The position behind which the log is to be delivered.
    pub after: u64,
    /// Whether entries that this node has not applied may have expired.
    pub is_gap: bool,
    /// Whether the log is another one than before.
    pub is_new: bool,
    /// The number of entries that were stored meanwhile, some of which may have expired.
    pub missed: u64,
}

impl Follower {
    /// A follower that has applied nothing.
    pub fn new(keep_ms: u64) -> Follower {
        let (position, target) = (0, 0);
        Follower { keep_ms, epoch: None, position, target, has_joined: false, current_ms: 0 }
    }

    /// The sequence number of the last entry that was applied.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether everything was read that was stored when the node came.
    pub fn has_joined(&self) -> bool {
        self.has_joined
    }

    /// Notes that the engine can be used again.
    pub fn attached(&mut self, log: LogInfo, now_ms: u64) -> Attached {
        let before = self.epoch.replace(log.epoch);
        let is_same = before == Some(log.epoch);
        // A log that ends before our position has lost its end, and uses those numbers again.
        let has_shrunk = is_same && log.last < self.position;
        self.position = if is_same { self.position.min(log.last) } else { 0 };
        if before.is_none() {
            self.target = log.last;
        }
        let missed = if before.is_some() { log.last - self.position } else { 0 };
        let was_long =
            now_ms.saturating_sub(self.current_ms).saturating_add(MARGIN_MS) >= self.keep_ms;
        let is_gap = before.is_some() && self.has_joined && missed > 0 && is_same && was_long;
        if self.position == log.last {
            self.current(now_ms);
        }
        let is_new = before.is_some() && !is_same || has_shrunk;
        Attached { after: self.position, is_gap, is_new, missed }
    }

    /// Whether an entry is to be applied: it was not before.
    pub fn takes(&mut self, sequence: u64, is_last: bool, now_ms: u64) -> bool {
        let is_fresh = sequence > self.position;
        if is_fresh {
            self.position = sequence;
        }
        self.has_joined |= self.position >= self.target;
        if is_last {
            self.current(now_ms);
        }
        is_fresh
    }

    /// Notes that everything that is stored has been delivered.
    pub fn current(&mut self, now_ms: u64) {
        self.has_joined = true;
        self.current_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_MS: u64 = 60_000;

    fn log(epoch: u64, last: u64) -> LogInfo {
        LogInfo { epoch, last }
    }

    /// A follower that has applied the entries up to 5, and was current at `1000`.
    fn joined() -> Follower {
        let mut follower = Follower::new(KEEP_MS);
        let attached = follower.attached(log(1, 5), 0);
        assert_eq!(attached, Attached { after: 0, is_gap: false, is_new: false, missed: 0 });
        assert!(!follower.has_joined());
        assert!(follower.takes(4, false, 500), "entries before it have expired");
        assert!(!follower.has_joined());
        assert!(follower.takes(5, true, 1000));
        assert!(follower.has_joined());
        follower
    }

    #[test]
    fn cluster_follower_joins_an_empty_log_at_once() {
        let mut follower = Follower::new(KEEP_MS);
        follower.attached(log(1, 0), 0);
        assert!(follower.has_joined());
        // Everything that was stored has expired.
        let mut follower = Follower::new(KEEP_MS);
        follower.attached(log(1, 9), 0);
        assert!(!follower.has_joined());
        follower.current(1);
        assert!(follower.has_joined());
    }

    #[test]
    fn cluster_follower_applies_an_entry_once() {
        let mut follower = joined();
        assert!(!follower.takes(5, true, 1001) && !follower.takes(3, true, 1001));
        assert!(follower.takes(7, true, 1002), "6 has expired or was removed");
        assert_eq!(follower.position(), 7);
    }

    #[test]
    fn cluster_follower_goes_on_behind_its_position() {
        let mut follower = joined();
        let attached = follower.attached(log(1, 8), 5000);
        assert_eq!(attached, Attached { after: 5, is_gap: false, is_new: false, missed: 3 });
        let mut follower = joined();
        let attached = follower.attached(log(1, 5), u64::MAX);
        assert_eq!(attached, Attached { after: 5, is_gap: false, is_new: false, missed: 0 });
    }

    #[test]
    fn cluster_follower_has_a_gap_when_it_was_away_as_long_as_the_log_keeps() {
        let late = 1000 + KEEP_MS - MARGIN_MS;
        for (now_ms, last, is_gap) in [(late - 1, 6, false), (late, 6, true), (late, 5, false)] {
            let attached = joined().attached(log(1, last), now_ms);
            assert_eq!((attached.is_gap, attached.after), (is_gap, 5), "{now_ms} {last}");
        }
    }

    #[test]
    fn cluster_follower_begins_again_with_another_log() {
        for (other, after) in [(log(2, 9), 0), (log(1, 4), 4)] {
            let mut follower = joined();
            let attached = follower.attached(other, 5000);
            assert_eq!((attached.after, attached.is_gap, attached.is_new), (after, false, true));
            assert!(follower.has_joined(), "clients stay connected");
            assert!(follower.takes(after + 1, false, 5001));
            assert!(!follower.takes(after, false, 5001), "that was applied before");
        }
    }
}
