//! The binary formats, BSON and MessagePack.

pub(super) mod bson;
pub(super) mod msgpack;

use super::{
    Budget, DecodeLimits, Envelope, EnvelopeBody, Error, Value, check_key, check_members, json,
};

/// Nanoseconds of a second.
const NANOS: u32 = 1_000_000_000;

/// The ISO 8601 text, in UTC, of a time since 1970-01-01.
fn date(seconds: i64, nanos: u32) -> Result<Box<str>, Error> {
    /// From the beginning of the year 0 to the end of the year 9999.
    const YEARS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;
    if !YEARS.contains(&seconds) {
        return Err(Error::Date);
    }
    let whole = ::bson::DateTime::from_millis(seconds * 1000).try_to_rfc3339_string();
    let mut text = whole.map_err(|_| Error::Date)?;
    if nanos > 0 {
        let fraction = format!("{nanos:09}");
        text.truncate(text.trim_end_matches('Z').len());
        text.push('.');
        text.push_str(fraction.trim_end_matches('0'));
        text.push('Z');
    }
    Ok(text.into())
}
