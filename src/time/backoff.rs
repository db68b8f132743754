//! The wait after failures in a row, which doubles with each failure.

/// Counts failures in a row. The bounds of the wait are arguments, because a reload of the
/// configuration may change them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure. Returns the wait until the next attempt, in milliseconds.
    pub fn fail(&mut self, first_ms: u64, max_ms: u64) -> u64 {
        self.failures = self.failures.saturating_add(1);
        self.wait_ms(first_ms, max_ms)
    }

    /// The wait after the last failure, in milliseconds: `first_ms` after the first failure, twice
    /// as long after each further one, and at most `max_ms`. 0 if there was no failure.
    pub fn wait_ms(self, first_ms: u64, max_ms: u64) -> u64 {
        match self.failures.checked_sub(1) {
            // More doublings than these would wait for years.
            Some(doublings) => first_ms.saturating_mul(1 << doublings.min(32)).min(max_ms),
            None => 0,
        }
    }

    /// Failures since the last success.
    pub fn failures(self) -> u32 {
        self.failures
    }

    /// Notes a success. Returns the number of failures before it.
    pub fn succeed(&mut self) -> u32 {
        std::mem::take(&mut self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let mut backoff = Backoff::default();
        assert_eq!((backoff.wait_ms(1000, 5000), backoff.failures()), (0, 0));
        let waits = [(); 4].map(|()| backoff.fail(1000, 5000));
        assert_eq!(waits, [1000, 2000, 4000, 5000]);
        // Other bounds apply at once.
        assert_eq!((backoff.wait_ms(1000, 60_000), backoff.wait_ms(9, 3)), (8000, 3));
        assert_eq!((backoff.succeed(), backoff.succeed()), (4, 0));
        assert_eq!(backoff.fail(1000, 5000), 1000);
    }

    #[test]
    fn backoff_of_many_failures_does_not_overflow() {
        let mut backoff = Backoff { failures: u32::MAX - 1 };
        for _ in 0..3 {
            assert_eq!(backoff.fail(u64::MAX / 2, u64::MAX), u64::MAX);
        }
        assert_eq!(backoff.failures(), u32::MAX);
    }
}
