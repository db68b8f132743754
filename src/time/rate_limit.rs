//! A count of events in the current second, against which a limit per second is compared.

/// Counts the events of one source by the second, in four bytes. The clock is that of
/// [`super::Now::ms`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit(u32);

/// The low bits of [`RateLimit`], which hold the count; the high bits hold the second. A source
/// that is silent for a multiple of 4096 seconds, and not a second more or less, is counted as if
/// no time had passed.
const COUNT_BITS: u32 = 20;

impl RateLimit {
    /// The highest count. Every limit must be lower.
    pub const MAX: u32 = (1 << COUNT_BITS) - 1;

    /// Counts `more` events. Returns how many there were in this second, at most
    /// [`RateLimit::MAX`].
    pub fn add(&mut self, more: u32, now_ms: u64) -> u32 {
        let count = self.count(now_ms).saturating_add(more).min(RateLimit::MAX);
        self.0 = second(now_ms) << COUNT_BITS | count;
        count
    }

    /// How many events were counted in this second.
    pub fn count(self, now_ms: u64) -> u32 {
        match self.0 >> COUNT_BITS == second(now_ms) {
            true => self.0 & RateLimit::MAX,
            false => 0,
        }
    }

    /// When the next second begins, in milliseconds.
    pub fn next_second_ms(now_ms: u64) -> u64 {
        (now_ms / 1000 + 1) * 1000
    }
}

/// The low bits of the second, as many as there is room for.
fn second(now_ms: u64) -> u32 {
    (now_ms / 1000) as u32 & (u32::MAX >> COUNT_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_counts_each_second_by_itself() {
        let mut limit = RateLimit::default();
        assert_eq!((limit.count(0), limit.add(0, 0)), (0, 0));
        assert_eq!([0, 500, 999].map(|now_ms| limit.add(2, now_ms)), [2, 4, 6]);
        assert_eq!((limit.count(999), limit.count(1000)), (6, 0));
        assert_eq!((limit.add(1, 1000), limit.count(1999), limit.count(999)), (1, 1, 0));
        assert_eq!([1000, 1999, 2000].map(RateLimit::next_second_ms), [2000, 2000, 3000]);
        // The second is compared by its low 12 bits.
        assert_eq!((limit.count(4_096_000), limit.count(4_097_000)), (0, 1));
    }

    #[test]
    fn rate_limit_count_stays_at_its_maximum() {
        let mut limit = RateLimit::default();
        assert_eq!(limit.add(RateLimit::MAX - 1, 7000), RateLimit::MAX - 1);
        assert_eq!(limit.add(1, 7000), RateLimit::MAX);
        assert_eq!(limit.add(u32::MAX, 7000), RateLimit::MAX);
        assert_eq!((limit.count(7000), limit.count(8000)), (RateLimit::MAX, 0));
        assert!(RateLimit::MAX > 1_000_000, "the highest limit that can be configured");
        assert_eq!(size_of::<RateLimit>(), 4);
    }
}
