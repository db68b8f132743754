//! Ranges of numbers with their units, and relations to other numbers.

use std::fmt;
use std::ops::RangeInclusive;

use super::error::{Error, Problem};

/// The number of milliseconds in an hour.
pub const HOUR_MS: u64 = 3_600_000;
/// The number of seconds in a day.
pub const DAY_S: u64 = 86_400;
/// The number of bytes in a GiB.
pub const GIB: u64 = 1 << 30;

/// The values that a number, or the length of a text or list, may have.
#[derive(Clone, Copy)]
pub struct KeyRange {
    min: u64,
    max: u64,
    /// The unit in error texts, with a space before it, or empty.
    unit: &'static str,
    /// Whether the file accepts units for the number.
    is_size: bool,
    is_power_of_two: bool,
    allows_zero: bool,
}

/// Defines a constructor for each unit.
macro_rules! units {
    ($($(#[doc = $doc:literal])* $name:ident $unit:literal $is_size:literal),* $(,)?) => {$(
        $(#[doc = $doc])*
        pub fn $name(range: RangeInclusive<u64>) -> KeyRange {
            let (min, max) = range.into_inner();
            KeyRange {
                min,
                max,
                unit: $unit,
                is_size: $is_size,
                is_power_of_two: false,
                allows_zero: false,
            }
        }
    )*};
}

impl KeyRange {
    units! {
        /// A number without a unit.
        count "" false,
        /// A size, for which the file accepts units such as KiB.
        bytes " bytes" true,
        /// A number of bytes, for which the file accepts no units.
        plain_bytes " bytes" false,
        /// A time in milliseconds.
        milliseconds " milliseconds" false,
        /// A time in seconds.
        seconds " seconds" false,
        /// The length of a text in characters.
        characters " characters" false,
        /// The length of a list or table.
        entries " entries" false,
    }

    /// A number that is a power of two.
    pub fn power_of_two(range: RangeInclusive<u64>) -> KeyRange {
        KeyRange { is_power_of_two: true, ..KeyRange::count(range) }
    }

    /// A size in bytes, or 0, which is outside the range.
    pub fn bytes_or_zero(range: RangeInclusive<u64>) -> KeyRange {
        KeyRange { allows_zero: true, ..KeyRange::bytes(range) }
    }

    /// Whether the file accepts units for the number.
    pub fn is_size(&self) -> bool {
        self.is_size
    }

    /// The smallest and the largest value.
    pub fn bounds(&self) -> (u64, u64) {
        (self.min, self.max)
    }

    /// Whether only powers of two are accepted.
    pub fn is_power_of_two(&self) -> bool {
        self.is_power_of_two
    }

    /// Whether 0 is accepted although it is outside the range.
    pub fn allows_zero(&self) -> bool {
        self.allows_zero
    }

    /// The unit in words; empty for a plain number.
    pub fn unit(&self) -> &'static str {
        self.unit.trim_start()
    }

    /// Refuses a number outside the range; `key` is for the error.
    pub fn check(&self, key: &str, found: u64) -> Result<(), Error> {
        let KeyRange { min, max, unit, .. } = *self;
        let is_between = (min..=max).contains(&found);
        if found == 0 && self.allows_zero {
            return Ok(());
        }
        if self.is_power_of_two && !(is_between && found.is_power_of_two()) {
            return Err(Error::keyed(key, Problem::PowerOfTwo { found, min, max }));
        }
        match is_between {
            true => Ok(()),
            false => Err(Error::keyed(key, Problem::Range { found, min, max, unit })),
        }
    }
}

/// Displays the range as the reference has it: `64KiB to 1GiB`.
impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |number: u64| match self.is_size {
            true => size_text(number),
            false => number.to_string(),
        };
        if self.is_power_of_two {
            f.write_str("a power of two, ")?;
        }
        write!(f, "{} to {}", text(self.min), text(self.max))?;
        if self.allows_zero { f.write_str(", or 0") } else { Ok(()) }
    }
}

/// A size in the largest unit of which it is a multiple.
pub fn size_text(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.iter().find(|(_, shift)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    match unit {
        Some((name, shift)) => format!("{}{name}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Refuses a number above `max`, the value of the key `bound`.
pub fn at_most(key: &str, found: u64, bound: &'static str, max: u64) -> Result<(), Error> {
    if found <= max {
        return Ok(());
    }
    Err(Error::keyed(key, Problem::Relation { found, bound, max }))
}
