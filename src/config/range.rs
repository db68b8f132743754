//! Checks of numbers: ranges, and relations to other numbers.

use std::ops::RangeInclusive;

use super::error::{Error, Problem};

/// The number of milliseconds in an hour.
pub(super) const HOUR_MS: u64 = 3_600_000;
/// The number of seconds in a day.
pub(super) const DAY_S: u64 = 86_400;
/// The number of bytes in a GiB.
pub(super) const GIB: u64 = 1 << 30;

/// Refuses a number outside its range.
pub(super) fn range(
    key: &str,
    found: u64,
    accepted: RangeInclusive<u64>,
    unit: &'static str,
) -> Result<(), Error> {
    let (min, max) = accepted.into_inner();
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(Error::keyed(key, Problem::Range { found, min, max, unit }))
}

/// Refuses a number that is outside its range or not a power of two.
pub(super) fn power_of_two(
    key: &str,
    found: usize,
    accepted: RangeInclusive<u64>,
) -> Result<(), Error> {
    let (min, max) = accepted.into_inner();
    let found = found as u64;
    if (min..=max).contains(&found) && found.is_power_of_two() {
        return Ok(());
    }
    Err(Error::keyed(key, Problem::PowerOfTwo { found, min, max }))
}

/// Refuses a number above `max`, the value of the key `bound`.
pub(super) fn at_most(key: &str, found: u64, bound: &'static str, max: u64) -> Result<(), Error> {
    if found <= max {
        return Ok(());
    }
    Err(Error::keyed(key, Problem::Relation { found, bound, max }))
}
