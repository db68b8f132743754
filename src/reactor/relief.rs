//! When to return freed memory to the operating system.

use crate::time::Now;

/// The minimum number of bytes, freed in large blocks, for which memory is returned. Returning it
/// takes milliseconds.
const WORTH_BYTES: u64 = 16 * 1024 * 1024;
/// The minimum number of bytes for which memory is returned when the core has been idle.
const WORTH_IDLE_BYTES: u64 = 1024 * 1024;
/// The minimum time between two returns of memory while more is being freed, in milliseconds.
const BUSY_MS: u64 = 5_000;
/// The same while memory is scarce.
const SCARCE_MS: u64 = 50;
/// How long nothing must have been freed for the core to count as idle, in milliseconds.
const IDLE_MS: u64 = 2_000;

/// Decides at each sweep whether to return freed memory. Memory is returned when nothing more is
/// being freed, because memory freed in the middle of work is soon used again. At intervals it is
/// also returned during work, so that no peer can prevent it. When the core has been idle, less is
/// worth the effort: a buffer that grew has left smaller pieces that are not counted. After memory
/// was returned during work, it is returned once more then: what was in flight is freed later.
#[derive(Debug, Default)]
pub(super) struct Relief {
    /// The total of freed bytes at the last sweep.
    seen: u64,
    /// The total of freed bytes when memory was last returned.
    given: u64,
    /// When memory was last returned, in milliseconds.
    given_ms: u64,
    /// The last sweep since which something was freed, in milliseconds.
    changed_ms: u64,
    /// Whether memory is returned once more when the core is idle.
    again: bool,
}

impl Relief {
    /// Whether to return memory now; `freed` is the total of bytes freed since the start.
    pub(super) fn is_due(&mut self, freed: u64, now: Now) -> bool {
        let quiet = std::mem::replace(&mut self.seen, freed) == freed;
        if !quiet {
            self.changed_ms = now.ms;
        }
        let waited = now.ms.saturating_sub(self.given_ms) >= BUSY_MS;
        let idle = quiet && now.ms.saturating_sub(self.changed_ms) >= IDLE_MS;
        let worth = freed.wrapping_sub(self.given);
        let due = worth >= WORTH_BYTES && (quiet || waited)
            || (worth >= WORTH_IDLE_BYTES || self.again) && idle && waited;
        if due {
            self.give(freed, now);
            self.again = !idle;
        }
        due
    }

    /// Whether to return memory in the middle of work, because much of the limit is in use: freed
    /// memory is memory of the process until it is returned.
    pub(super) fn is_due_while_scarce(&mut self, freed: u64, now: Now) -> bool {
        let waited = now.ms.saturating_sub(self.given_ms) >= SCARCE_MS;
        let due = freed.wrapping_sub(self.given) >= WORTH_BYTES && waited;
        if due {
            self.give(freed, now);
            self.again = true;
        }
        due
    }

    fn give(&mut self, freed: u64, now: Now) {
        self.given = freed;
        self.given_ms = now.ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_returned_when_enough_was_freed_and_nothing_more_is() {
        let mut relief = Relief { given_ms: 1000, ..Relief::default() };
        let mut due = |freed, ms| relief.is_due(freed, Now { ms, unix_s: 0 });
        assert!(!due(WORTH_BYTES - 1, 1000) && !due(WORTH_BYTES - 1, 1250), "too little");
        assert!(!due(WORTH_BYTES, 1500), "it has just been freed");
        assert!(due(WORTH_BYTES, 1750) && !due(WORTH_BYTES, 2000), "once");
        assert!(!due(2 * WORTH_BYTES - 1, 2250) && !due(2 * WORTH_BYTES - 1, 2500));
    }

    #[test]
    fn memory_is_returned_sooner_when_the_core_is_idle() {
        let mut relief = Relief { given_ms: 1000, ..Relief::default() };
        let mut due = |freed, ms| relief.is_due(freed, Now { ms, unix_s: 0 });
        assert!(
            !due(WORTH_IDLE_BYTES - 1, 7000) && !due(WORTH_IDLE_BYTES - 1, 10_000),
            "too little"
        );
        assert!(!due(WORTH_IDLE_BYTES, 11_000) && !due(WORTH_IDLE_BYTES, 11_000 + IDLE_MS - 1));
        assert!(due(WORTH_IDLE_BYTES, 11_000 + IDLE_MS));
        assert!(
            !due(2 * WORTH_IDLE_BYTES, 13_250) && !due(2 * WORTH_IDLE_BYTES, 16_000),
            "too soon"
        );
        assert!(due(2 * WORTH_IDLE_BYTES, 11_000 + IDLE_MS + BUSY_MS));
    }

    #[test]
    fn memory_is_returned_once_more_when_the_core_is_idle() {
        let mut relief = Relief { given_ms: 1000, ..Relief::default() };
        let mut due = |ms| relief.is_due(WORTH_BYTES, Now { ms, unix_s: 0 });
        let times: Vec<u64> = (1001..30_000).step_by(250).filter(|&ms| due(ms)).collect();
        assert_eq!(times, [1251, 6251]);
    }

    #[test]
    fn memory_is_returned_often_while_it_is_scarce() {
        let mut relief = Relief { given_ms: 1000, ..Relief::default() };
        let mut due = |freed, ms| relief.is_due_while_scarce(freed, Now { ms, unix_s: 0 });
        assert!(!due(WORTH_BYTES, 1000 + SCARCE_MS - 1), "too soon");
        assert!(!due(WORTH_BYTES - 1, 2000), "too little");
        assert!(due(WORTH_BYTES, 2000) && !due(WORTH_BYTES, 3000), "once");
        assert!(due(2 * WORTH_BYTES, 3000));
    }

    #[test]
    fn memory_is_returned_seldom_while_more_is_freed() {
        let mut relief = Relief { given_ms: 1000, ..Relief::default() };
        let mut due = |ms| relief.is_due(ms * WORTH_BYTES, Now { ms, unix_s: 0 });
        let times: Vec<u64> = (1001..16_500).step_by(250).filter(|&ms| due(ms)).take(3).collect();
        assert_eq!(times, [6001, 11_001, 16_001]);
    }
}
