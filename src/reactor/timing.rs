//! The durations of turns, and the logging of turns that take too long.

use crate::stats::Counters;
use crate::time::{Deadline, Now};

/// The duration above which a turn is logged, in nanoseconds.
const LONG_NS: u64 = 50_000_000;
/// The minimum time between two such log lines, in milliseconds.
const LOG_EVERY_MS: u64 = 10_000;
/// The number of intervals from which the longest turn of the last minute is computed, including
/// the current interval.
const INTERVALS: usize = 7;
/// The length of an interval, in milliseconds.
const INTERVAL_MS: u64 = 10_000;

/// The durations of one core's turns.
#[derive(Debug, Default)]
pub(super) struct Timing {
    /// The longest turn of each of the last intervals, in nanoseconds.
    longest_ns: [u64; INTERVALS],
    /// The number of the current interval.
    interval: u64,
    next_log: Option<Deadline>,
    /// Long turns that were not logged since the last that was.
    suppressed: u64,
    /// The total of all work before this turn.
    work: u64,
}

/// A long turn that is to be logged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Long {
    /// The number of long turns since the last that was logged.
    pub(super) suppressed: u64,
}

impl Timing {
    /// Records a turn of `ns` nanoseconds, after which the total of all work is `work`. Returns a
    /// value if the turn is to be logged.
    pub(super) fn ended(
        &mut self,
        ns: u64,
        work: u64,
        counters: &Counters,
        now: Now,
    ) -> Option<Long> {
        counters.turn_ns.observe(ns);
        counters.turn_work.observe(work.wrapping_sub(std::mem::replace(&mut self.work, work)));
        let interval = now.ms / INTERVAL_MS;
        let at = (interval % INTERVALS as u64) as usize;
        if interval != self.interval || ns > self.longest_ns[at] {
            self.note_longest(interval, ns);
            counters.turn_longest_ns.set(self.longest_ns.iter().copied().max().unwrap_or(0));
        }
        if ns <= LONG_NS {
            return None;
        }
        counters.turns_long.add(1);
        if self.next_log.is_some_and(|next| !next.due(now)) {
            self.suppressed += 1;
            return None;
        }
        self.next_log = Some(now.plus_ms(LOG_EVERY_MS));
        Some(Long { suppressed: std::mem::take(&mut self.suppressed) })
    }

    fn note_longest(&mut self, interval: u64, ns: u64) {
        // Intervals in which the core slept had no turns.
        for missed in (self.interval + 1..=interval).take(INTERVALS) {
            self.longest_ns[(missed % INTERVALS as u64) as usize] = 0;
        }
        if interval - self.interval >= INTERVALS as u64 {
            self.longest_ns = [0; INTERVALS];
        }
        self.interval = interval;
        let longest = &mut self.longest_ns[(interval % INTERVALS as u64) as usize];
        *longest = ns.max(*longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { ms, unix_s: 0 }
    }

    #[test]
    fn turn_that_is_long_is_logged_but_not_each_one() {
        let (mut timing, counters) = (Timing::default(), Counters::default());
        let mut ended = |ns, ms| timing.ended(ns, 0, &counters, at(ms));
        assert_eq!(ended(LONG_NS, 0), None);
        assert_eq!(ended(LONG_NS + 1, 5), Some(Long { suppressed: 0 }));
        assert_eq!(ended(LONG_NS + 1, 6), None);
        assert_eq!(ended(LONG_NS + 1, 4 + LOG_EVERY_MS), None);
        assert_eq!(ended(LONG_NS + 1, 5 + LOG_EVERY_MS), Some(Long { suppressed: 2 }));
        assert_eq!(counters.turns_long.get(), 4);
    }

    #[test]
    fn turn_that_was_longest_is_forgotten_after_a_minute() {
        let (mut timing, counters) = (Timing::default(), Counters::default());
        let mut longest = |ns, ms| {
            timing.ended(ns, 0, &counters, at(ms));
            counters.turn_longest_ns.get()
        };
        assert_eq!(longest(500, 1_000_000), 500);
        assert_eq!(longest(90, 1_005_000), 500);
        assert_eq!(longest(80, 1_030_000), 500);
        assert_eq!(longest(10, 1_060_000), 500, "a minute later");
        assert_eq!(longest(10, 1_070_000), 80);
        assert_eq!(longest(10, 1_090_000), 80);
        assert_eq!(longest(10, 1_100_000), 10);
        assert_eq!(longest(7, 9_000_000), 7, "a core that slept");
    }

    #[test]
    fn turn_is_counted_with_its_length_and_its_work() {
        let (mut timing, counters) = (Timing::default(), Counters::default());
        timing.ended(3000, 100, &counters, at(0));
        timing.ended(4000, 350, &counters, at(0));
        assert_eq!((counters.turn_ns.sum_ns(), counters.turn_work.sum_ns()), (7000, 350));
    }
}
