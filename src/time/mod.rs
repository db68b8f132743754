//! Time as an argument: the reactor reads the clocks, and the modules below it read no clock. Here
//! are also the rules of timing that several modules share: waits after failures, limits per
//! second, and repeated fetches.

mod backoff;
mod rate_limit;
mod refresh;

pub use backoff::Backoff;
pub use rate_limit::RateLimit;
pub use refresh::RefreshSchedule;

/// One reading of the clocks, which the reactor takes once a turn and passes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since an arbitrary start, on a clock that never goes back.
    pub ms: u64,
    /// Seconds since 1970-01-01 UTC, to compare with times that peers send.
    pub unix_s: u64,
}

impl Now {
    /// The instant `ms` milliseconds later.
    pub fn plus_ms(self, ms: u64) -> Deadline {
        Deadline(self.ms.saturating_add(ms))
    }
}

/// An instant on the clock of [`Now::ms`]; `Deadline::NEVER` sorts last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub u64);

impl Deadline {
    /// A deadline that no clock reaches.
    pub const NEVER: Deadline = Deadline(u64::MAX);

    /// Whether the instant is now or in the past.
    pub fn due(self, now: Now) -> bool {
        self.0 <= now.ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_is_due_at_its_instant_and_not_before() {
        let now = Now { ms: 100, unix_s: 0 };
        let deadline = now.plus_ms(50);
        assert!(!deadline.due(Now { ms: 149, ..now }));
        assert!(deadline.due(Now { ms: 150, ..now }));
        assert!(!Deadline::NEVER.due(Now { ms: u64::MAX - 1, ..now }));
    }
}
