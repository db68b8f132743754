//! When one thing that is fetched again and again is fetched next.

use super::Backoff;

/// The schedule of one thing: at the start, then at an interval, after failures with a growing
/// wait, and on request. One fetch is in flight at a time.
#[derive(Clone, Debug, Default)]
pub struct RefreshSchedule {
    in_flight: bool,
    /// When the last fetch started, in milliseconds.
    last_ms: Option<u64>,
    /// When the next fetch starts without a request, in milliseconds.
    next_ms: u64,
    backoff: Backoff,
}

impl RefreshSchedule {
    /// Whether a fetch is in flight.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// When the next fetch is due if none is requested, in milliseconds; `u64::MAX` while one is in
    /// flight.
    pub fn due_ms(&self) -> u64 {
        if self.in_flight { u64::MAX } else { self.next_ms }
    }

    /// As [`RefreshSchedule::due_ms`], but for a fetch that is requested: it is due as soon as
    /// `floor_ms` have passed since the last one started.
    pub fn requested_ms(&self, floor_ms: u64) -> u64 {
        let soonest_ms = self.last_ms.map_or(0, |last_ms| last_ms.saturating_add(floor_ms));
        self.due_ms().min(if self.in_flight { u64::MAX } else { soonest_ms })
    }

    /// Notes that a fetch starts.
    pub fn begin(&mut self, now_ms: u64) {
        (self.in_flight, self.last_ms) = (true, Some(now_ms));
    }

    /// Notes that the fetch has ended, and whether it succeeded. `RefreshSchedule::wait` sets
    /// when the next one is due.
    pub fn end(&mut self, succeeded: bool) {
        self.in_flight = false;
        match succeeded {
            true => _ = self.backoff.succeed(),
            false => _ = self.backoff.fail(0, 0),
        }
    }

    /// The wait after the last fetch in milliseconds: `refresh_ms` if it succeeded; otherwise
    /// `first_ms`, doubled with each further failure up to `refresh_ms`.
    pub fn wait_ms(&self, first_ms: u64, refresh_ms: u64) -> u64 {
        match self.backoff.failures() {
            0 => refresh_ms,
            _ => self.backoff.wait_ms(first_ms, refresh_ms),
        }
    }

    /// Makes the next fetch due at `next_ms`; `u64::MAX` is never.
    pub fn set_next(&mut self, next_ms: u64) {
        self.next_ms = next_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refresh_is_due_at_start_then_after_its_wait() {
        let mut refresh = RefreshSchedule::default();
        assert_eq!((refresh.due_ms(), refresh.requested_ms(500)), (0, 0));
        refresh.begin(100);
        assert!(refresh.is_in_flight());
        assert_eq!((refresh.due_ms(), refresh.requested_ms(500)), (u64::MAX, u64::MAX));
        refresh.end(true);
        refresh.set_next(200 + refresh.wait_ms(1000, 60_000));
        assert_eq!((refresh.due_ms(), refresh.requested_ms(500)), (60_200, 600));
        assert_eq!(refresh.requested_ms(u64::MAX), 60_200, "a request never delays");
        let waits = [false, false, false, true, false].map(|succeeded| {
            refresh.begin(0);
            refresh.end(succeeded);
            refresh.wait_ms(1000, 3000)
        });
        assert_eq!(waits, [1000, 2000, 3000, 3000, 1000]);
    }
}
