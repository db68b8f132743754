//! Models of plain values: text, numbers and booleans.

use super::{BadSchema, Invalid};
use regex::Regex;

/// The encoding of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8 (RFC 3629).
    #[default]
    Utf8,
    /// UTF-16, big-endian unless it begins with a byte order mark (RFC 2781).
    Utf16,
}

/// How a number or a boolean is written in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writing {
    /// As text: decimal digits, or `true` and `false`.
    #[default]
    Text,
    /// As big-endian bytes, or the byte 0 or 1.
    Binary,
}

/// The size of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

/// Rules for text.
#[derive(Clone, Debug, Default)]
pub struct Text {
    encoding: Encoding,
    min_length: Option<usize>,
    max_length: Option<usize>,
    pattern: Option<Regex>,
}

impl Text {
    /// Accepts text of `min_length` to `max_length` characters with a match of `pattern`, a regular
    /// expression of the `regex` crate.
    ///
    /// # Errors
    /// The pattern is not a valid regular expression.
    pub fn new(
        encoding: Encoding,
        min_length: Option<usize>,
        max_length: Option<usize>,
        pattern: Option<&str>,
    ) -> Result<Text, BadSchema> {
        let pattern = pattern.map(Regex::new).transpose().map_err(BadSchema::new)?;
        Ok(Text { encoding, min_length, max_length, pattern })
    }

    pub(super) fn check(&self, message: &[u8]) -> Result<(), Invalid> {
        match self.encoding {
            Encoding::Utf8 => match str::from_utf8(message) {
                Ok(text) => self.check_text(text),
                Err(_) => Err(Invalid::malformed("not UTF-8")),
            },
            Encoding::Utf16 => self.check_text(&from_utf16(message)?),
        }
    }

    fn check_text(&self, text: &str) -> Result<(), Invalid> {
        let length = text.chars().count();
        if self.min_length.is_some_and(|min| length < min) {
            return Err(Invalid::broken("shorter than minLength"));
        }
        if self.max_length.is_some_and(|max| length > max) {
            return Err(Invalid::broken("longer than maxLength"));
        }
        match &self.pattern {
            Some(pattern) if !pattern.is_match(text) => {
                Err(Invalid::broken("does not match the pattern"))
            }
            _ => Ok(()),
        }
    }
}

fn from_utf16(message: &[u8]) -> Result<String, Invalid> {
    let malformed = || Invalid::malformed("not UTF-16");
    let (message, little) = match message {
        [0xfe, 0xff, rest @ ..] => (rest, false),
        [0xff, 0xfe, rest @ ..] => (rest, true),
        _ => (message, false),
    };
    let (units, rest) = message.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(malformed());
    }
    let unit = |bytes: &[u8; 2]| match little {
        true => u16::from_le_bytes(*bytes),
        false => u16::from_be_bytes(*bytes),
    };
    char::decode_utf16(units.iter().map(unit)).collect::<Result<_, _>>().map_err(|_| malformed())
}

/// An interval: `[1,10]` includes its bounds, `(1,10)` excludes them; a bound may be left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range<T> {
    low: Option<(T, bool)>,
    high: Option<(T, bool)>,
}

impl<T: PartialOrd + Copy + std::str::FromStr> Range<T> {
    /// Parses an interval.
    ///
    /// # Errors
    /// The text is not an interval, or its lower bound is greater than its upper bound.
    pub fn parse(text: &str) -> Result<Range<T>, BadSchema> {
        let bad = || BadSchema::new(format_args!("`{text}` is not a range such as [1,10) or (,5]"));
        let opens = text.strip_prefix('[').map(|rest| (rest, true));
        let opens = opens.or_else(|| text.strip_prefix('(').map(|rest| (rest, false)));
        let (rest, with_low) = opens.ok_or_else(bad)?;
        let closes = rest.strip_suffix(']').map(|inner| (inner, true));
        let closes = closes.or_else(|| rest.strip_suffix(')').map(|inner| (inner, false)));
        let (inner, with_high) = closes.ok_or_else(bad)?;
        let (low, high) = inner.split_once(',').ok_or_else(bad)?;
        let end = |text: &str, with: bool| match text.trim() {
            "" => Ok(None),
            number => number.parse::<T>().map(|end| Some((end, with))).map_err(|_| bad()),
        };
        let range = Range { low: end(low, with_low)?, high: end(high, with_high)? };
        match (range.low, range.high) {
            (Some((low, _)), Some((high, _))) if low > high => Err(bad()),
            _ => Ok(range),
        }
    }

    fn has(&self, value: T) -> bool {
        self.low.is_none_or(|(low, with)| value > low || with && value == low)
            && self.high.is_none_or(|(high, with)| value < high || with && value == high)
    }
}

/// Rules for an integer.
#[derive(Clone, Debug)]
pub struct Integer {
    /// The size of the integer.
    pub width: Width,
    /// How the integer is written.
    pub writing: Writing,
    /// The interval that the integer must be in.
    pub range: Option<Range<i64>>,
    /// The integer must be a multiple of this.
    pub multiple: Option<i64>,
}

impl Integer {
    pub(super) fn check(&self, message: &[u8]) -> Result<(), Invalid> {
        let value = match (self.writing, self.width) {
            (Writing::Text, width) => parse_integer(message, width),
            (Writing::Binary, Width::Bits32) => {
                message.try_into().ok().map(|bytes| i64::from(i32::from_be_bytes(bytes)))
            }
            (Writing::Binary, Width::Bits64) => message.try_into().ok().map(i64::from_be_bytes),
        };
        let value = value.ok_or_else(|| Invalid::malformed("not a whole number of this size"))?;
        if self.range.is_some_and(|range| !range.has(value)) {
            return Err(Invalid::broken("outside the range"));
        }
        match self.multiple {
            Some(multiple) if value.checked_rem(multiple) != Some(0) => {
                Err(Invalid::broken(format_args!("not a multiple of {multiple}")))
            }
            _ => Ok(()),
        }
    }
}

fn parse_integer(message: &[u8], width: Width) -> Option<i64> {
    let text = str::from_utf8(message).ok().filter(|text| !text.starts_with('+'))?;
    let value: i64 = text.parse().ok()?;
    (width == Width::Bits64 || i32::try_from(value).is_ok()).then_some(value)
}

/// Rules for a floating-point number. It must be finite.
#[derive(Clone, Debug)]
pub struct Float {
    /// The size of the number.
    pub width: Width,
    /// How the number is written.
    pub writing: Writing,
    /// The interval that the number must be in.
    pub range: Option<Range<f64>>,
    /// The number must be a multiple of this.
    pub multiple: Option<f64>,
}

impl Float {
    pub(super) fn check(&self, message: &[u8]) -> Result<(), Invalid> {
        let value = match (self.writing, self.width) {
            (Writing::Text, _) => parse_float(message),
            (Writing::Binary, Width::Bits32) => {
                message.try_into().ok().map(|bytes| f64::from(f32::from_be_bytes(bytes)))
            }
            (Writing::Binary, Width::Bits64) => message.try_into().ok().map(f64::from_be_bytes),
        };
        let value = value.filter(|value| value.is_finite());
        let value = value.ok_or_else(|| Invalid::malformed("not a finite number"))?;
        if self.range.is_some_and(|range| !range.has(value)) {
            return Err(Invalid::broken("outside the range"));
        }
        match self.multiple {
            Some(multiple) if !is_multiple(value, multiple) => {
                Err(Invalid::broken(format_args!("not a multiple of {multiple}")))
            }
            _ => Ok(()),
        }
    }
}

/// Whether `value` is a multiple of `of` within rounding errors: 0.3 is a multiple of 0.1.
fn is_multiple(value: f64, of: f64) -> bool {
    let ratio = value / of;
    (ratio - ratio.round()).abs() <= ratio.abs() * f64::EPSILON
}

fn parse_float(message: &[u8]) -> Option<f64> {
    let text = str::from_utf8(message).ok()?;
    let is_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let plain = !text.starts_with('+') && text.bytes().all(is_number);
    text.parse().ok().filter(|_| plain)
}

pub(super) fn check_boolean(writing: Writing, message: &[u8]) -> Result<(), Invalid> {
    match (writing, message) {
        (Writing::Text, b"true" | b"false") | (Writing::Binary, [0 | 1]) => Ok(()),
        _ => Err(Invalid::malformed("neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn malformed(result: Result<(), Invalid>) -> Option<bool> {
        result.err().map(|invalid| invalid.malformed)
    }

    #[test]
    fn plain_text_length_is_in_characters() {
        let text = Text::new(Encoding::Utf8, Some(2), Some(3), None).unwrap();
        for (message, want) in [("é", Some(false)), ("éé", None), ("ééé", None)] {
            assert_eq!(malformed(text.check(message.as_bytes())), want, "{message}");
        }
        assert_eq!(malformed(text.check("éééé".as_bytes())), Some(false));
    }

    #[test]
    fn plain_text_must_be_utf_8() {
        let text = Text::default();
        for bad in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82"] {
            assert_eq!(malformed(text.check(bad)), Some(true), "{bad:x?}");
        }
        assert_eq!(malformed(text.check(b"")), None);
    }

    #[test]
    fn plain_text_in_utf_16() {
        let text = Text::new(Encoding::Utf16, None, Some(1), Some("^[aé😀]$")).unwrap();
        for good in [&b"\0a"[..], b"\xfe\xff\0a", b"\xff\xfea\0", b"\xd8\x3d\xde\x00"] {
            assert_eq!(malformed(text.check(good)), None, "{good:x?}");
        }
        for bad in [&b"a"[..], b"\xd8\x3d", b"\xde\x00\xd8\x3d"] {
            assert_eq!(malformed(text.check(bad)), Some(true), "{bad:x?}");
        }
        assert_eq!(malformed(text.check(b"\0b")), Some(false));
    }

    #[test]
    fn plain_text_patterns() {
        let text = Text::new(Encoding::Utf8, None, None, Some("^a+$")).unwrap();
        assert_eq!(malformed(text.check(b"aaa")), None);
        assert_eq!(malformed(text.check(b"aab")), Some(false));
        assert!(Text::new(Encoding::Utf8, None, None, Some("(")).is_err());
    }

    #[test]
    fn plain_number_ranges_with_and_without_their_ends() {
        for (range, inside, outside) in [
            ("[1,3]", vec![1, 3], vec![0, 4]),
            ("(1,3)", vec![2], vec![1, 3]),
            ("[1,3)", vec![1, 2], vec![3]),
            ("(,3]", vec![i64::MIN, 3], vec![4]),
            ("[1,)", vec![1, i64::MAX], vec![0]),
        ] {
            let parsed = Range::<i64>::parse(range).unwrap();
            assert!(inside.iter().all(|&value| parsed.has(value)), "{range}");
            assert!(!outside.iter().any(|&value| parsed.has(value)), "{range}");
        }
        for bad in ["", "1,2", "[1,2", "[1]", "[a,b]", "[3,1]", "{1,2}"] {
            assert!(Range::<i64>::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_integers_of_32_and_64_bits() {
        let integer = |width, writing| Integer { width, writing, range: None, multiple: None };
        let int = integer(Width::Bits32, Writing::Text);
        for good in ["0", "-1", "2147483647", "-2147483648", "007"] {
            assert_eq!(malformed(int.check(good.as_bytes())), None, "{good}");
        }
        for bad in ["", "-", "+1", "1.0", " 1", "2147483648", "-2147483649", "0x1", "é"] {
            assert_eq!(malformed(int.check(bad.as_bytes())), Some(true), "{bad}");
        }
        let long = integer(Width::Bits64, Writing::Text);
        assert_eq!(malformed(long.check(b"9223372036854775807")), None);
        assert_eq!(malformed(long.check(b"9223372036854775808")), Some(true));
        let int = integer(Width::Bits32, Writing::Binary);
        assert_eq!(malformed(int.check(&[0; 4])), None);
        assert_eq!(malformed(int.check(&[0; 3])), Some(true));
        assert_eq!(malformed(int.check(&[0; 5])), Some(true));
        let long = Integer { range: Some(Range::parse("(,-1]").unwrap()), ..long };
        let long = Integer { writing: Writing::Binary, multiple: Some(2), ..long };
        assert_eq!(malformed(long.check(&(-2_i64).to_be_bytes())), None);
        assert_eq!(malformed(long.check(&(-1_i64).to_be_bytes())), Some(false));
        assert_eq!(malformed(long.check(&0_i64.to_be_bytes())), Some(false));
        assert_eq!(malformed(long.check(&[0; 4])), Some(true));
    }

    #[test]
    fn numbers() {
        let float = |width, writing| Float { width, writing, range: None, multiple: None };
        let text = float(Width::Bits64, Writing::Text);
        for good in ["0", "-1.5", "1e3", "1E-3", ".5"] {
            assert_eq!(malformed(text.check(good.as_bytes())), None, "{good}");
        }
        for bad in ["", "+1", "NaN", "inf", "1e999", "1,5", "0x1", "-"] {
            assert_eq!(malformed(text.check(bad.as_bytes())), Some(true), "{bad}");
        }
        let binary = float(Width::Bits32, Writing::Binary);
        assert_eq!(malformed(binary.check(&1.5_f32.to_be_bytes())), None);
        assert_eq!(malformed(binary.check(&f32::NAN.to_be_bytes())), Some(true));
        assert_eq!(malformed(binary.check(&1.5_f64.to_be_bytes())), Some(true));
        let double = float(Width::Bits64, Writing::Binary);
        let double = Float { range: Some(Range::parse("[0,1)").unwrap()), ..double };
        let double = Float { multiple: Some(0.1), ..double };
        assert_eq!(malformed(double.check(&0.3_f64.to_be_bytes())), None);
        assert_eq!(malformed(double.check(&0.35_f64.to_be_bytes())), Some(false));
        assert_eq!(malformed(double.check(&1.0_f64.to_be_bytes())), Some(false));
    }

    #[test]
    fn booleans() {
        for (writing, good, bad) in [
            (Writing::Text, [&b"true"[..], b"false"], [&b"True"[..], b"1"]),
            (Writing::Binary, [b"\0", b"\x01"], [b"\x02", b"\0\0"]),
        ] {
            assert!(good.iter().all(|message| check_boolean(writing, message).is_ok()));
            assert!(bad.iter().all(|message| check_boolean(writing, message).is_err()));
        }
    }
}
