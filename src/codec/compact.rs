//! A value in few bytes, as nodes of this program write it for each other. Unlike the formats of
//! clients it keeps every value exactly, the texts of numbers included.
//!
//! ```text
//! value = 0 null | 1 false | 2 true | 3 number (of an integer, in zigzag) | 4 double(8)
//!       | 5 text (of a number) | 6 text | 7 number(of elements) value*
//!       | 8 number(of members) (text value)*
//! text  = number(of bytes) bytes
//! ```
//!
//! A number is a varint: seven bits a byte, the low ones first. Nothing that is read is trusted.

use super::value::{Value, has_repeated};

/// The maximum nesting depth of what is read. Messages of clients have less.
const DEPTH: usize = 128;

/// Appends a value.
pub fn push(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0),
        Value::Bool(it) => out.push(1 + u8::from(*it)),
        Value::Int(number) => {
            out.push(3);
            push_number(out, ((number << 1) ^ (number >> 63)) as u64);
        }
        Value::Float(number) => {
            out.push(4);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        Value::Number(text) => {
            out.push(5);
            push_text(out, text);
        }
        Value::Text(text) => {
            out.push(6);
            push_text(out, text);
        }
        Value::Array(elements) => {
            push_array(elements.len(), elements.iter(), out);
        }
        Value::Map(members) => push_map(members, out),
    }
}

/// Appends an array of these elements.
pub fn push_array<'v>(count: usize, elements: impl Iterator<Item = &'v Value>, out: &mut Vec<u8>) {
    out.push(7);
    push_number(out, count as u64);
    elements.for_each(|element| push(element, out));
}

/// Appends a map of these members.
pub fn push_map(members: &[(Box<str>, Value)], out: &mut Vec<u8>) {
    out.push(8);
    push_number(out, members.len() as u64);
    for (key, value) in members {
        push_text(out, key);
        push(value, out);
    }
}

/// How many bytes [`push`] appends.
pub fn size(value: &Value) -> usize {
    1 + match value {
        Value::Null | Value::Bool(_) => 0,
        Value::Int(number) => number_size(((number << 1) ^ (number >> 63)) as u64),
        Value::Float(_) => 8,
        Value::Number(text) | Value::Text(text) => text_size(text),
        Value::Array(elements) => {
            number_size(elements.len() as u64) + elements.iter().map(size).sum::<usize>()
        }
        Value::Map(members) => {
            let each = members.iter().map(|(key, value)| text_size(key) + size(value));
            number_size(members.len() as u64) + each.sum::<usize>()
        }
    }
}

/// Reads one value, to the last byte; `None` if it is malformed, or one that no client can have
/// sent.
pub fn read(mut bytes: &[u8]) -> Option<Value> {
    let value = take_value(&mut bytes, DEPTH)?;
    (bytes.is_empty() && value.check().is_ok()).then_some(value)
}

fn take_value(rest: &mut &[u8], depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    Some(match take_byte(rest)? {
        0 => Value::Null,
        1 => Value::Bool(false),
        2 => Value::Bool(true),
        3 => {
            let bits = take_number(rest)?;
            Value::Int((bits >> 1) as i64 ^ -((bits & 1) as i64))
        }
        4 => Value::Float(f64::from_bits(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))),
        5 => Value::Number(take_text(rest)?.into()),
        6 => Value::Text(take_text(rest)?.into()),
        7 => {
            let count = take_count(rest)?;
            let mut elements = Vec::new();
            for _ in 0..count {
                elements.push(take_value(rest, depth)?);
            }
            Value::Array(elements)
        }
        8 => {
            let count = take_count(rest)?;
            let mut members: Vec<(Box<str>, Value)> = Vec::new();
            for _ in 0..count {
                members.push((take_text(rest)?.into(), take_value(rest, depth)?));
            }
            if has_repeated(&members) {
                return None;
            }
            Value::Map(members)
        }
        _ => return None,
    })
}

/// A number of values, each of which takes a byte or more.
fn take_count(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(take_number(rest)?).ok().filter(|count| *count <= rest.len())
}

fn number_size(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

fn text_size(text: &str) -> usize {
    number_size(text.len() as u64) + text.len()
}

/// Appends a number.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends the length of a text, and the text.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    push_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Takes this number of bytes from the beginning; `None` if there are fewer.
pub fn take<'e>(rest: &mut &'e [u8], count: usize) -> Option<&'e [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

/// Takes one byte.
pub fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    take(rest, 1)?.first().copied()
}

/// Takes an integer of eight bytes.
pub fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
}

/// Takes a number of at most 64 bits.
pub fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(rest)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Takes a number, and that number of bytes after it.
pub fn take_counted<'e>(rest: &mut &'e [u8]) -> Option<&'e [u8]> {
    let count = usize::try_from(take_number(rest)?).ok()?;
    take(rest, count)
}

/// Takes the number of a text's bytes, and the text after it.
pub fn take_text<'e>(rest: &mut &'e [u8]) -> Option<&'e str> {
    str::from_utf8(take_counted(rest)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_filter("JSON has it", |it| it.is_finite()).prop_map(Value::Float),
            Just(Value::number_text("10.10").expect("a number")),
            "\\PC{0,9}".prop_map(|text| Value::text(&text)),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let members = prop::collection::btree_map("[a-z]{0,4}", inner.clone(), 0..5);
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(Value::Array),
                members.prop_map(|it| {
                    Value::Map(it.into_iter().map(|(key, value)| (key.into(), value)).collect())
                }),
            ]
        })
    }

    fn written(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        push(value, &mut out);
        out
    }

    proptest! {
        #[test]
        fn compact_value_is_read_as_it_was_written(value in values()) {
            let bytes = written(&value);
            prop_assert_eq!(bytes.len(), size(&value));
            prop_assert_eq!(read(&bytes), Some(value));
            for end in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..end]), None);
            }
            prop_assert_eq!(read(&[&bytes[..], &[0]].concat()), None);
        }

        #[test]
        fn compact_value_of_any_bytes_is_read_or_refused(bytes: Vec<u8>) {
            if let Some(value) = read(&bytes) {
                prop_assert!(value.check().is_ok());
                prop_assert_eq!(read(&written(&value)), Some(value));
            }
        }
    }

    #[test]
    fn compact_value_must_be_one_that_every_format_has() {
        let nan = [&[4][..], &f64::NAN.to_bits().to_le_bytes()].concat();
        let key = written(&Value::map([("a\0", Value::Null)]));
        let number = [&[5, 3][..], b"1.x"].concat();
        let repeated = [8, 2, 1, b'a', 0, 1, b'a', 0];
        for bytes in [&nan[..], &key, &number, &repeated, &[9], &[7, 0xff, 0xff, 3], &[6, 1, 0xff]]
        {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
        assert_eq!(read(&[8, 2, 1, b'a', 0, 1, b'b', 0]).map(|it| it.memory() > 0), Some(true));
    }

    #[test]
    fn compact_value_has_a_maximum_depth() {
        let nested = |depth: usize| [&[7, 1].repeat(depth - 1)[..], &[0]].concat();
        assert!(read(&nested(DEPTH)).is_some());
        assert!(read(&nested(DEPTH + 1)).is_none());
    }

    #[test]
    fn compact_numbers_have_at_most_64_bits() {
        for number in [0, 127, 128, 1 << 32, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(out.len(), number_size(number));
            assert_eq!(take_number(&mut &out[..]), Some(number));
        }
        let too_large = [[0xff; 9].as_slice(), &[2]].concat();
        assert_eq!(take_number(&mut &too_large[..]), None);
        assert_eq!(take_number(&mut &[0xff; 11][..]), None);
    }
}
