//! MessagePack (msgpack.org), by `rmp`.
//!
//! A header may claim 2^32 elements. No memory is allocated for more elements than the remaining
//! bytes can hold.

use super::{
    Budget, DecodeLimits, Envelope, EnvelopeBody, Error, NANOS, Value, check_key, check_members,
    date, json,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmp::Marker;
use rmp::decode::{RmpRead, ValueReadError, read_marker};
use rmp::encode as put;
use std::io;

/// The extension type of a timestamp.
const TIMESTAMP: i8 = -1;

pub(in crate::codec::value) fn read(bytes: &[u8], limits: &DecodeLimits) -> Result<Value, Error> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(&mut Budget::new(limits))?;
    if reader.rest.is_empty() { Ok(value) } else { Err(Error::Trailing) }
}

impl From<ValueReadError<io::Error>> for Error {
    /// The only possible error is the end of the bytes, because the marker is checked before.
    fn from(_: ValueReadError<io::Error>) -> Error {
        Error::Truncated
    }
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn value(&mut self, budget: &mut Budget) -> Result<Value, Error> {
        budget.spend(1)?;
        let rest = &mut self.rest;
        let marker = read_marker(rest).map_err(|_| Error::Truncated)?;
        Ok(match marker {
            Marker::Null => Value::Null,
            Marker::True => Value::Bool(true),
            Marker::False => Value::Bool(false),
            Marker::FixPos(number) => Value::Int(number.into()),
            Marker::FixNeg(number) => Value::Int(number.into()),
            Marker::U8 => Value::Int(rest.read_data_u8()?.into()),
            Marker::U16 => Value::Int(rest.read_data_u16()?.into()),
            Marker::U32 => Value::Int(rest.read_data_u32()?.into()),
            Marker::U64 => unsigned(rest.read_data_u64()?),
            Marker::I8 => Value::Int(rest.read_data_i8()?.into()),
            Marker::I16 => Value::Int(rest.read_data_i16()?.into()),
            Marker::I32 => Value::Int(rest.read_data_i32()?.into()),
            Marker::I64 => Value::Int(rest.read_data_i64()?),
            Marker::F32 => Value::number(rest.read_data_f32()?.into()).ok_or(Error::Number)?,
            Marker::F64 => Value::number(rest.read_data_f64()?).ok_or(Error::Number)?,
            Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                Value::text(self.text(marker)?)
            }
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
                let len = self.length(marker)?;
                Value::Text(STANDARD.encode(self.take(len)?).into())
            }
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
                let len = self.length(marker)?;
                self.array(len, budget)?
            }
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
                let len = self.length(marker)?;
                self.map(len, budget)?
            }
            Marker::FixExt4 => self.timestamp(4)?,
            Marker::FixExt8 => self.timestamp(8)?,
            Marker::Ext8 => {
                let len = rest.read_data_u8()?.into();
                self.timestamp(len)?
            }
            Marker::Reserved => return Err(Error::Malformed),
            _ => return Err(Error::Type),
        })
    }

    /// The length that a marker contains, or that follows it.
    fn length(&mut self, marker: Marker) -> Result<usize, Error> {
        let rest = &mut self.rest;
        let length = match marker {
            Marker::FixStr(length) | Marker::FixArray(length) | Marker::FixMap(length) => {
                length.into()
            }
            Marker::Str8 | Marker::Bin8 => rest.read_data_u8()?.into(),
            Marker::Str16 | Marker::Bin16 | Marker::Array16 | Marker::Map16 => {
                rest.read_data_u16()?.into()
            }
            _ => rest.read_data_u32()?,
        };
        Ok(length as usize)
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self, marker: Marker) -> Result<&'b str, Error> {
        let length = self.length(marker)?;
        simdutf8::basic::from_utf8(self.take(length)?).map_err(|_| Error::Utf8)
    }

    /// An element has at least one byte.
    fn array(&mut self, length: usize, budget: &mut Budget) -> Result<Value, Error> {
        budget.nested(|budget| {
            self.check_claim(length, 1, budget)?;
            let mut elements = Vec::with_capacity(length);
            for _ in 0..length {
                elements.push(self.value(budget)?);
            }
            Ok(Value::Array(elements))
        })
    }

    /// A member has at least two bytes.
    fn map(&mut self, length: usize, budget: &mut Budget) -> Result<Value, Error> {
        budget.nested(|budget| {
            self.check_claim(length, 2, budget)?;
            let mut members = Vec::with_capacity(length);
            for _ in 0..length {
                let key = self.key()?;
                members.push((key.into(), self.value(budget)?));
            }
            check_members(&members)?;
            Ok(Value::Map(members))
        })
    }

    fn check_claim(&self, length: usize, bytes: usize, budget: &Budget) -> Result<(), Error> {
        if length > budget.values {
            Err(Error::Values)
        } else if length.saturating_mul(bytes) > self.rest.len() {
            Err(Error::Truncated)
        } else {
            Ok(())
        }
    }

    fn key(&mut self) -> Result<&'b str, Error> {
        let marker = read_marker(&mut self.rest).map_err(|_| Error::Truncated)?;
        match marker {
            Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                let key = self.text(marker)?;
                check_key(key)?;
                Ok(key)
            }
            _ => Err(Error::Key),
        }
    }

    /// An extension of `length` bytes: a timestamp, or refused.
    fn timestamp(&mut self, length: usize) -> Result<Value, Error> {
        let kind = self.rest.read_data_i8()?;
        if kind != TIMESTAMP {
            return Err(Error::Type);
        }
        let mut data = self.take(length)?;
        let (seconds, nanos) = match length {
            4 => (data.read_data_u32()?.into(), 0),
            8 => {
                let both = data.read_data_u64()?;
                ((both & ((1 << 34) - 1)) as i64, (both >> 34) as u32)
            }
            12 => {
                let nanos = data.read_data_u32()?;
                (data.read_data_i64()?, nanos)
            }
            _ => return Err(Error::Malformed),
        };
        if nanos >= NANOS {
            return Err(Error::Malformed);
        }
        date(seconds, nanos).map(Value::Text)
    }
}

fn unsigned(number: u64) -> Value {
    match i64::try_from(number) {
        Ok(number) => Value::Int(number),
        Err(_) => Value::Number(number.to_string().into()),
    }
}

pub(in crate::codec::value) fn write(
    body: &EnvelopeBody<'_>,
    envelope: Option<&Envelope>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let Some(envelope) = envelope else { return push_body(body, out) };
    put::write_map_len(out, length(envelope.members.len() + 1)?).map_err(never)?;
    push_members(&envelope.members, out)?;
    push_key(&envelope.key, out)?;
    push_body(body, out)
}

fn push_body(body: &EnvelopeBody<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    match body {
        EnvelopeBody::Value(value) => push(value, out),
        EnvelopeBody::Members(members) => {
            put::write_map_len(out, length(members.len())?).map_err(never)?;
            push_members(members, out)
        }
        EnvelopeBody::Elements(elements) => {
            put::write_array_len(out, length(elements.len())?).map_err(never)?;
            elements.iter().try_for_each(|element| push(element, out))
        }
    }
}

/// Lengths have 32 bits in this format; 31 of them are used, as in BSON.
fn length(length: usize) -> Result<u32, Error> {
    i32::try_from(length).map(i32::unsigned_abs).map_err(|_| Error::Bytes)
}

/// Writing into a vector cannot fail.
fn never<E>(_: E) -> Error {
    Error::Bytes
}

fn push_members(members: &[(Box<str>, Value)], out: &mut Vec<u8>) -> Result<(), Error> {
    members.iter().try_for_each(|(key, value)| {
        push_key(key, out)?;
        push(value, out)
    })
}

/// Refuses keys that BSON cannot have.
fn push_key(key: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    check_key(key)?;
    push_text(key, out)
}

fn push_text(text: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    length(text.len())?;
    put::write_str(out, text).map_err(never)
}

fn push(value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match value {
        Value::Null => put::write_nil(out).map_err(never),
        Value::Bool(it) => put::write_bool(out, *it).map_err(never),
        Value::Int(number) => put::write_sint(out, *number).map(drop).map_err(never),
        Value::Float(number) => put::write_f64(out, *number).map_err(never),
        Value::Number(text) => match (text.parse(), json::nearest(text).ok_or(Error::Number)?) {
            (Ok(number), Value::Float(_)) => put::write_uint(out, number).map(drop).map_err(never),
            (_, nearest) => push(&nearest, out),
        },
        Value::Text(text) => push_text(text, out),
        Value::Array(elements) => {
            put::write_array_len(out, length(elements.len())?).map_err(never)?;
            elements.iter().try_for_each(|element| push(element, out))
        }
        Value::Map(members) => {
            put::write_map_len(out, length(members.len())?).map_err(never)?;
            push_members(members, out)
        }
    }
}
