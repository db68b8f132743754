//! JSON, read by simd-json.
//!
//! simd-json turns every number into a double or an integer of 64 bits and refuses larger integers.
//! So the text is scanned first: every number except an integer of at most [`PLAIN_DIGITS`] digits
//! is stored separately and replaced by a zero. The same scan counts values and depth before memory
//! is allocated for them.

use super::{Budget, DecodeLimits, Envelope, EnvelopeBody, Error, Value, check_key, check_members};
use crate::codec::json::{MalformedJson, Scratch, push_string};
use simd_json::{Node, StaticNode};
use std::slice;

/// The maximum number of digits with which simd-json reads every integer exactly.
const PLAIN_DIGITS: usize = 18;

pub(super) fn read(
    text: &mut [u8],
    limits: &DecodeLimits,
    scratch: &mut Scratch,
) -> Result<Value, Error> {
    let special = look(text, limits)?;
    let read = |nodes: &[Node<'_>]| {
        let mut reader =
            Reader { nodes: nodes.iter(), special: special.into_iter().peekable(), numbers: 0 };
        reader.value(&mut Budget::new(limits))
    };
    match scratch.parse_nodes(text, read) {
        Ok(value) => value,
        // simd-json does not say whether this was the reason.
        Err(MalformedJson) => Err(Error::Malformed),
    }
}

/// A number that simd-json would read differently: its position among the numbers, from 0, and its
/// value.
type Special = (usize, Value);

/// Counts values and depth, and takes out the numbers that simd-json would read differently.
fn look(text: &mut [u8], limits: &DecodeLimits) -> Result<Vec<Special>, Error> {
    // While an empty map or array is open, it counts as if it had one value. So the count is at
    // most `depth` too high.
    let max = limits.values.saturating_add(limits.depth);
    let mut special = Vec::new();
    let (mut depth, mut values, mut numbers) = (0_usize, 1_usize, 0);
    let mut opened = false;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => continue,
            b'"' => at = end_of_string(text, at),
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                values -= usize::from(opened);
            }
            b',' => values += 1,
            b'-' | b'0'..=b'9' => {
                let begin = at - 1;
                let more = text[at..].iter().position(|byte| !is_of_number(*byte));
                at = more.map_or(text.len(), |more| at + more);
                if let Some(value) = take_out(&mut text[begin..at])? {
                    special.push((numbers, value));
                }
                numbers += 1;
            }
            _ => {}
        }
        opened = matches!(byte, b'[' | b'{');
        if depth > limits.depth {
            return Err(Error::Depth);
        }
        if values > max {
            return Err(Error::Values);
        }
    }
    Ok(special)
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
}

/// The position after the quote that ends the string which begins before `at`.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(next) = memchr::memchr2(b'"', b'\\', &text[at..]) {
        at += next + 1;
        match text[at - 1] {
            b'"' => return at,
            _ => at = (at + 1).min(text.len()),
        }
    }
    text.len()
}

/// Replaces a number that simd-json would read differently by a zero, and returns its value. A text
/// that is not a number is not changed, so that simd-json refuses it.
fn take_out(token: &mut [u8]) -> Result<Option<Value>, Error> {
    let digits = token.strip_prefix(b"-").unwrap_or(token);
    let minus_zero = token[0] == b'-' && digits == b"0";
    if digits.len() <= PLAIN_DIGITS && digits.iter().all(u8::is_ascii_digit) && !minus_zero {
        return Ok(None);
    }
    let Ok(text) = str::from_utf8(token) else { return Ok(None) };
    if !is_number(text) {
        return Ok(None);
    }
    let value = number(text).ok_or(Error::Number)?;
    token.fill(b' ');
    token[0] = b'0';
    Ok(Some(value))
}

/// Whether `text` is a number by the grammar of RFC 8259 section 6.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) => (text, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|it| digits(it.strip_prefix(['+', '-']).unwrap_or(it)))
}

/// The number of a text, in the variant that keeps its text.
pub(super) fn number(text: &str) -> Option<Value> {
    if !is_number(text) {
        return None;
    }
    let nearest = nearest(text)?;
    let mut written = Vec::with_capacity(text.len());
    push(&nearest, &mut written);
    if written == text.as_bytes() { Some(nearest) } else { Some(Value::Number(text.into())) }
}

/// The integer or the double of a number's text.
pub(super) fn nearest(text: &str) -> Option<Value> {
    match text.parse() {
        Ok(0) if text.starts_with('-') => Some(Value::Float(-0.0)),
        Ok(number) => Some(Value::Int(number)),
        Err(_) => Value::number(text.parse().ok()?),
    }
}

/// Reads the values of a tape.
struct Reader<'t, 'i, S: Iterator<Item = Special>> {
    nodes: slice::Iter<'t, Node<'i>>,
    special: std::iter::Peekable<S>,
    numbers: usize,
}

impl<S: Iterator<Item = Special>> Reader<'_, '_, S> {
    fn value(&mut self, budget: &mut Budget) -> Result<Value, Error> {
        budget.spend(1)?;
        match self.nodes.next() {
            Some(Node::String(text)) => Ok(Value::text(text)),
            Some(Node::Static(it)) => self.plain(it),
            Some(&Node::Array { len, .. }) => budget.nested(|budget| {
                let mut elements = Vec::with_capacity(len.min(budget.values));
                for _ in 0..len {
                    elements.push(self.value(budget)?);
                }
                Ok(Value::Array(elements))
            }),
            Some(&Node::Object { len, .. }) => budget.nested(|budget| {
                let mut members = Vec::with_capacity(len.min(budget.values));
                for _ in 0..len {
                    let Some(Node::String(key)) = self.nodes.next() else {
                        return Err(Error::Malformed);
                    };
                    check_key(key)?;
                    members.push(((*key).into(), self.value(budget)?));
                }
                check_members(&members)?;
                Ok(Value::Map(members))
            }),
            None => Err(Error::Malformed),
        }
    }

    fn plain(&mut self, node: &StaticNode) -> Result<Value, Error> {
        let value = match node {
            StaticNode::Null => return Ok(Value::Null),
            StaticNode::Bool(it) => return Ok(Value::Bool(*it)),
            StaticNode::I64(number) => Value::Int(*number),
            StaticNode::U64(number) => Value::Int(i64::try_from(*number).unwrap_or(i64::MAX)),
            StaticNode::F64(number) => Value::number(*number).ok_or(Error::Number)?,
        };
        let number = self.numbers;
        self.numbers += 1;
        let special = self.special.next_if(|(which, _)| *which == number);
        Ok(special.map_or(value, |(_, value)| value))
    }
}

pub(super) fn write(body: &EnvelopeBody<'_>, envelope: Option<&Envelope>, out: &mut Vec<u8>) {
    let Some(envelope) = envelope else { return push_body(body, out) };
    out.push(b'{');
    for member in &envelope.members {
        push_member(member, out);
        out.push(b',');
    }
    push_string(out, &envelope.key);
    out.push(b':');
    push_body(body, out);
    out.push(b'}');
}

fn push_body(body: &EnvelopeBody<'_>, out: &mut Vec<u8>) {
    match body {
        EnvelopeBody::Value(value) => push(value, out),
        EnvelopeBody::Members(members) => push_list(b"{}", members.iter(), out, push_member),
        EnvelopeBody::Elements(elements) => push_list(b"[]", elements.iter(), out, push),
    }
}

fn push(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        // Writing a number into a vector cannot fail.
        Value::Int(number) => drop(serde_json::to_writer(out, number)),
        Value::Float(number) => drop(serde_json::to_writer(out, number)),
        Value::Number(text) => out.extend_from_slice(text.as_bytes()),
        Value::Text(text) => push_string(out, text),
        Value::Array(elements) => push_list(b"[]", elements.iter(), out, push),
        Value::Map(members) => push_list(b"{}", members.iter(), out, push_member),
    }
}

fn push_member((key, value): &(Box<str>, Value), out: &mut Vec<u8>) {
    push_string(out, key);
    out.push(b':');
    push(value, out);
}

fn push_list<T>(
    [open, close]: &[u8; 2],
    items: impl Iterator<Item = T>,
    out: &mut Vec<u8>,
    push: fn(T, &mut Vec<u8>),
) {
    out.push(*open);
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push(item, out);
    }
    out.push(*close);
}
