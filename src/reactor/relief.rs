//! When memory that was freed is worth giving back to the system.

use crate::time::Now;

/// Bytes freed in large pieces that are worth the milliseconds which giving back takes.
const WORTH_BYTES: u64 = 16 * 1024 * 1024;
/// How often it is done at most while more is freed all the time.
const BUSY_MS: u64 = 5_000;

/// Asked at each sweep. Memory is given back once nothing more is freed, because what is freed in
/// the middle of work is used again at once; and now and then also in the middle of it, so that no
/// peer can keep it from being done.
#[derive(Debug, Default)]
pub(super) struct Relief {
    /// What was freed in all at the last sweep, and when memory was given back.
    seen: u64,
    given: u64,
    /// When it was given back, in milliseconds.
    given_ms: u64,
}

impl Relief {
    /// Whether to give back now, `freed` bytes having been freed since the start.
    pub(super) fn is_due(&mut self, freed: u64, now: Now) -> bool {
        let quiet = std::mem::replace(&mut self.seen, freed) == freed;
        let waited = now.ms.saturating_sub(self.given_ms) >= BUSY_MS;
        let due = freed.wrapping_sub(self.given) >= WORTH_BYTES && (quiet || waited);
        if due {
            self.given = freed;
            self.given_ms = now.ms;
        }
        due
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
    fn memory_is_returned_seldom_while_more_is_freed() {
        let mut relief = Relief { given_ms: 1000, ..Relief::default() };
        let mut due = |ms| relief.is_due(ms * WORTH_BYTES, Now { ms, unix_s: 0 });
        let times: Vec<u64> = (1001..16_500).step_by(250).filter(|&ms| due(ms)).take(3).collect();
        assert_eq!(times, [6001, 11_001, 16_001]);
    }
}
