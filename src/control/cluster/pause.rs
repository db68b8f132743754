//! The pauses between attempts to connect to an engine.

use crate::uring::sys;
use std::time::Duration;

/// The first pause, in milliseconds; each one is twice as long as the one before.
const FIRST_MS: u64 = 100;
/// The longest pause, in milliseconds.
const LONGEST_MS: u64 = 2000;

/// The pause after so many attempts that failed after a first one: of 100 ms to 2 s, a random part
/// of at least half, so that the nodes that have lost a server do not come back to it together.
pub(super) fn reconnect_pause(attempts: u32) -> Duration {
    // Without random numbers it is the longest one.
    pause(attempts, sys::random_u64().unwrap_or(u64::MAX))
}

fn pause(attempts: u32, random: u64) -> Duration {
    let all_ms = (FIRST_MS << attempts.min(5)).min(LONGEST_MS);
    let random_us = (u128::from(random) * u128::from(all_ms * 500)) >> u64::BITS;
    Duration::from_micros(all_ms * 500 + random_us as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_engine_is_reconnected_with_growing_pauses() {
        for (attempts, ms) in [(0, 100), (1, 200), (4, 1600), (5, 2000), (6, 2000), (1000, 2000)] {
            let of = |random| pause(attempts, random).as_micros() as u64;
            assert_eq!((of(0), of(1 << 63)), (ms * 500, ms * 750), "{attempts}");
            assert_eq!(of(u64::MAX), ms * 1000 - 1, "{attempts}");
            let drawn = reconnect_pause(attempts).as_micros() as u64;
            assert!((ms * 500..ms * 1000).contains(&drawn), "{attempts}: {drawn}");
        }
    }

    #[test]
    fn cluster_engine_pauses_are_spread_over_half_of_their_length() {
        let drawn: Vec<u64> = (0..1000).map(|_| reconnect_pause(5).as_millis() as u64).collect();
        let in_quarter =
            |from_ms: u64| drawn.iter().filter(|ms| (from_ms..from_ms + 250).contains(ms)).count();
        for from_ms in [1000, 1250, 1500, 1750] {
            // 250 are expected; 150 are more than seven standard deviations less.
            assert!(in_quarter(from_ms) > 150, "{from_ms}: {drawn:?}");
        }
    }
}
