//! Sizes in bytes: an integer, or a string with a unit.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Reads a size as `u64`.
pub(super) fn wide<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(SizeVisitor)
}

/// Reads a size as `usize`, for data in memory.
pub(super) fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let bytes = wide(deserializer)?;
    usize::try_from(bytes)
        .map_err(|_| de::Error::invalid_value(de::Unexpected::Unsigned(bytes), &SizeVisitor))
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a size: an integer in bytes, or a string with a unit (B, KiB, MiB, GiB, KB, MB, GB) \
             such as \"64KiB\"",
        )
    }

    fn visit_u64<E>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse(text).ok_or_else(|| {
            // The value is shown: a size is not a secret, and the user needs to see what to
            // correct.
            E::invalid_value(de::Unexpected::Other(&format!("`{text}`")), &self)
        })
    }
}

fn parse(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let unit = unit.trim_start_matches(' ');
    let factor = match unit {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_with_and_without_a_unit() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("64 kib", Some(65_536)),
            ("1MiB", Some(1_048_576)),
            ("2GB", Some(2_000_000_000)),
            ("", None),
            ("KiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("1 Mi B", None),
            ("64k", None),
            ("99999999999GiB", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(parse(text), bytes, "{text}");
        }
    }
}
