//! One value for three formats: JSON, BSON and MessagePack.
//!
//! Each client and each back end chooses a format; a message in one format is encoded again for the
//! others. [`decode`] reads a whole message, which is one map in every format; [`encode`] writes
//! one.
//!
//! Only what the formats have in common is accepted: null, booleans, numbers, texts, arrays, and
//! maps with texts as keys. When a message is read, dates become ISO 8601 texts and binary data
//! becomes base64 text (RFC 4648 section 4). Everything that was accepted can be written in every
//! format. Therefore a key with U+0000, which BSON cannot have, is refused in all of them.
//!
//! Numbers: an integer of 64 bits is [`Value::Int`], even if a binary format wrote it as a double.
//! Any other number of a binary format is [`Value::Float`]; NaN and the infinities, which JSON does
//! not have, are refused. A JSON number whose text would change if it were one of these keeps its
//! text in [`Value::Number`]: `10.10` stays `10.10` from JSON to JSON, and is 10.1 as a double.

#[cfg_attr(not(feature = "zenith"), path = "value/binary/absent.rs")]
mod binary;
mod json;
#[cfg(feature = "zenith")]
#[cfg(test)]
mod tests;

use super::json::Scratch;
use binary::{bson, msgpack};
use std::collections::{HashSet, VecDeque};

/// The format of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// JSON (RFC 8259), in text messages.
    #[default]
    Json,
    /// BSON (bsonspec.org, version 1.1), in binary messages.
    Bson,
    /// MessagePack (msgpack.org), in binary messages.
    MsgPack,
}

impl Format {
    /// Every format, in the order of [`Format::index`].
    pub const ALL: [Format; 3] = [Format::Json, Format::Bson, Format::MsgPack];

    /// A number below `Format::ALL.len()`.
    pub fn index(self) -> usize {
        match self {
            Format::Json => 0,
            Format::Bson => 1,
            Format::MsgPack => 2,
        }
    }

    /// Whether its messages are text messages.
    pub fn is_text(self) -> bool {
        self == Format::Json
    }
}

/// A value of any of the formats.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A finite number that is not a [`Value::Int`].
    Float(f64),
    /// The text of a number in the grammar of RFC 8259 section 6, if neither [`Value::Int`] nor
    /// [`Value::Float`] would be written as the same text. The number is finite as a double.
    Number(Box<str>),
    /// A text.
    Text(Box<str>),
    /// An array.
    Array(Vec<Value>),
    /// A map with different keys, in the order in which they were written.
    Map(Vec<(Box<str>, Value)>),
}

/// The limits of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The maximum nesting depth of maps and arrays; the outermost one has depth 1.
    pub depth: usize,
    /// The maximum number of values, maps and arrays included. A value takes up to 64 bytes of
    /// memory for one or two bytes of the message, so this limit bounds the memory of a message.
    pub values: usize,
    /// The maximum length of the message in bytes.
    pub bytes: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        DecodeLimits { depth: 64, values: 128 * 1024, bytes: 1024 * 1024 }
    }
}

/// Why a message is refused. For all of these errors, the close code of RFC 6455 is 1007.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not of the format.
    #[error("the message is malformed")]
    Malformed,
    /// The message is shorter than its lengths say.
    #[error("the message is truncated")]
    Truncated,
    /// Bytes follow the document, or its length differs from that of the message.
    #[error("the message is not one document")]
    Trailing,
    /// The document is not a map.
    #[error("the message is not a map")]
    NotMap,
    /// More than [`DecodeLimits::depth`].
    #[error("the message is nested too deeply")]
    Depth,
    /// More than [`DecodeLimits::values`].
    #[error("the message has too many values")]
    Values,
    /// More than [`DecodeLimits::bytes`].
    #[error("the message is too long")]
    Bytes,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// A map has a key twice.
    #[error("a key is repeated")]
    Repeated,
    /// A key is not a text, or has U+0000.
    #[error("a key is not allowed")]
    Key,
    /// A type that not all formats have.
    #[error("a value's type is not allowed")]
    Type,
    /// NaN, an infinity, or a number beyond the range of a double.
    #[error("a number is out of range")]
    Number,
    /// A date outside of the years 0 to 9999.
    #[error("a date is out of range")]
    Date,
    /// A binary format, if this build has none.
    #[error("the format is not compiled in")]
    Absent,
}

/// Reads one message: one map, to its last byte. `bytes` serves as working memory, so its content
/// is undefined afterwards.
///
/// # Errors
/// See [`Error`].
pub fn decode(
    format: Format,
    bytes: &mut [u8],
    limits: &DecodeLimits,
    scratch: &mut Scratch,
) -> Result<Value, Error> {
    let value = match format {
        Format::Json => decode_json(bytes, limits, scratch)?,
        _ if bytes.len() > limits.bytes => return Err(Error::Bytes),
        Format::Bson => bson::read(bytes, limits)?,
        Format::MsgPack => msgpack::read(bytes, limits)?,
    };
    match value {
        Value::Map(_) => Ok(value),
        _ => Err(Error::NotMap),
    }
}

/// Reads one JSON value of any type, as a back end publishes it.
///
/// # Errors
/// See [`Error`].
pub fn decode_json(
    bytes: &mut [u8],
    limits: &DecodeLimits,
    scratch: &mut Scratch,
) -> Result<Value, Error> {
    match bytes.len() > limits.bytes {
        true => Err(Error::Bytes),
        false => json::read(bytes, limits, scratch),
    }
}

/// Appends a map as one message.
///
/// # Errors
/// [`Error::NotMap`]; and as in [`encode_any`].
pub fn encode(format: Format, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match value {
        Value::Map(_) => encode_any(format, value, out),
        _ => Err(Error::NotMap),
    }
}

/// Appends a value; in BSON it must be a map. Appends nothing if it fails.
///
/// # Errors
/// None for values from [`decode`], alone or inside of further maps. BSON has no keys with U+0000
/// ([`Error::Key`]), and no binary format has messages of 2 GiB ([`Error::Bytes`]).
pub fn encode_any(format: Format, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    write(format, &EnvelopeBody::Value(value), None, out)
}

/// The parts of a message beside its value: the members before it, and the key of the value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Envelope {
    /// The members before the value.
    pub members: Vec<(Box<str>, Value)>,
    /// The value's key, which differs from those of the members.
    pub key: Box<str>,
}

impl Envelope {
    /// Appends one message: the members, and `body` under the key.
    ///
    /// # Errors
    /// As [`encode_any`].
    pub fn encode(
        &self,
        format: Format,
        body: &EnvelopeBody<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        write(format, body, Some(self), out)
    }

    /// Checks that every format can express the envelope.
    ///
    /// # Errors
    /// As [`Value::check`].
    pub fn check(&self) -> Result<(), Error> {
        check_key(&self.key)?;
        self.members.iter().try_for_each(|(key, value)| {
            check_key(key)?;
            value.check()
        })
    }

    /// Bytes of memory, estimated.
    pub fn memory(&self) -> usize {
        self.key.len() + self.members.iter().map(member_memory).sum::<usize>()
    }
}

/// The value in an [`Envelope`].
#[derive(Clone, Copy, Debug)]
pub enum EnvelopeBody<'v> {
    /// A value.
    Value(&'v Value),
    /// A map of these members.
    Members(&'v [(Box<str>, Value)]),
    /// An array of these elements.
    Elements(&'v VecDeque<Value>),
}

fn write(
    format: Format,
    body: &EnvelopeBody<'_>,
    envelope: Option<&Envelope>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let before = out.len();
    let written = match format {
        Format::Json => {
            json::write(body, envelope, out);
            Ok(())
        }
        Format::Bson => bson::write(body, envelope, out),
        Format::MsgPack => msgpack::write(body, envelope, out),
    };
    if written.is_err() {
        out.truncate(before);
    }
    written
}

impl Value {
    /// A text.
    pub fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    /// A map of these members.
    pub fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
        Value::Map(members.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// A finite number: a [`Value::Int`] if it is an integer of 64 bits and not -0.
    pub fn number(number: f64) -> Option<Value> {
        const END: f64 = 9_223_372_036_854_775_808.0; // 2^63
        let minus_zero = number == 0.0 && number.is_sign_negative();
        if !number.is_finite() {
            None
        } else if number.trunc() == number && (-END..END).contains(&number) && !minus_zero {
            Some(Value::Int(number as i64))
        } else {
            Some(Value::Float(number))
        }
    }

    /// The number with this text; `None` if RFC 8259 has no such number or it is beyond a double.
    pub fn number_text(text: &str) -> Option<Value> {
        json::number(text)
    }

    /// The value under a key of a map.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.members()?.iter().find(|(other, _)| **other == *key).map(|(_, value)| value)
    }

    /// The members of a map.
    pub fn members(&self) -> Option<&[(Box<str>, Value)]> {
        match self {
            Value::Map(members) => Some(members),
            _ => None,
        }
    }

    /// The elements of an array.
    pub fn elements(&self) -> Option<&[Value]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The text, if this is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(it) => Some(*it),
            _ => None,
        }
    }

    /// The integer, if this is one of 64 bits in any notation: `1.0` and `1e0` are 1.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Number(text) => match json::nearest(text)? {
                Value::Int(number) => Some(number),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the value is a number.
    pub fn is_number(&self) -> bool {
        matches!(self, Value::Int(_) | Value::Float(_) | Value::Number(_))
    }

    /// Checks that every format can express the value. Values from [`decode`] always pass.
    ///
    /// # Errors
    /// [`Error::Key`]: a key has U+0000. [`Error::Number`]: JSON has no such number.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Value::Float(number) if !number.is_finite() => Err(Error::Number),
            Value::Number(text) if json::number(text).is_none() => Err(Error::Number),
            Value::Array(elements) => elements.iter().try_for_each(Value::check),
            Value::Map(members) => members.iter().try_for_each(|(key, value)| {
                check_key(key)?;
                value.check()
            }),
            _ => Ok(()),
        }
    }

    /// Whether the value is null.
    pub fn is_null(&self) -> bool {
        *self == Value::Null
    }

    /// Bytes of memory, estimated: the value itself and what it holds.
    pub fn memory(&self) -> usize {
        size_of::<Value>()
            + match self {
                Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
                Value::Number(text) | Value::Text(text) => text.len(),
                Value::Array(elements) => elements.iter().map(Value::memory).sum(),
                Value::Map(members) => members.iter().map(member_memory).sum(),
            }
    }
}

/// Bytes of memory of a map's member, estimated.
pub fn member_memory((key, value): &(Box<str>, Value)) -> usize {
    size_of::<Box<str>>() + key.len() + value.memory()
}

/// The depth and the number of values that a document may still have while it is read.
struct Budget {
    depth: usize,
    values: usize,
}

impl Budget {
    fn new(limits: &DecodeLimits) -> Budget {
        Budget { depth: limits.depth, values: limits.values }
    }

    /// Counts `values` more values.
    fn spend(&mut self, values: usize) -> Result<(), Error> {
        self.values = self.values.checked_sub(values).ok_or(Error::Values)?;
        Ok(())
    }

    /// Counts one level of nesting while `read` reads a map or an array.
    fn nested<R>(
        &mut self,
        read: impl FnOnce(&mut Budget) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.depth = self.depth.checked_sub(1).ok_or(Error::Depth)?;
        let result = read(self);
        self.depth += 1;
        result
    }
}

fn check_key(key: &str) -> Result<(), Error> {
    match memchr::memchr(0, key.as_bytes()) {
        Some(_) => Err(Error::Key),
        None => Ok(()),
    }
}

/// Checks that no key is repeated.
fn check_members(members: &[(Box<str>, Value)]) -> Result<(), Error> {
    if has_repeated(members) { Err(Error::Repeated) } else { Ok(()) }
}

/// Whether a key is repeated.
pub(super) fn has_repeated(members: &[(Box<str>, Value)]) -> bool {
    const FEW: usize = 16;
    if members.len() <= FEW {
        let before = |at: usize| members[..at].iter().map(|(key, _)| key);
        members.iter().enumerate().any(|(at, (key, _))| before(at).any(|other| other == key))
    } else {
        let mut seen = HashSet::with_capacity_and_hasher(members.len(), ahash::RandomState::new());
        !members.iter().all(|(key, _)| seen.insert(&**key))
    }
}
