//! BSON (bsonspec.org, version 1.1), read by the raw documents of the `bson` crate.
//!
//! This module writes documents without the crate's builder, because the builder copies every
//! document into the one that contains it.

use super::{
    Budget, DecodeLimits, Envelope, EnvelopeBody, Error, NANOS, Value, check_key, check_members,
    date, json,
};
use ::bson::RawBsonRef;
use ::bson::error::ErrorKind;
use ::bson::raw::{RawDocument, RawElement};
use ::bson::spec::ElementType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Write;

pub(in crate::codec::value) fn read(bytes: &[u8], limits: &DecodeLimits) -> Result<Value, Error> {
    let Some(&prefix) = bytes.first_chunk() else { return Err(Error::Truncated) };
    match usize::try_from(i32::from_le_bytes(prefix)) {
        Ok(length) if length == bytes.len() => {}
        Ok(length) if length > bytes.len() => return Err(Error::Truncated),
        Ok(length) if length >= 5 => return Err(Error::Trailing),
        _ => return Err(Error::Malformed),
    }
    let document = RawDocument::from_bytes(bytes).map_err(malformed)?;
    let mut budget = Budget::new(limits);
    budget.spend(1)?;
    map(document, &mut budget)
}

fn malformed(error: ::bson::error::Error) -> Error {
    match error.kind {
        ErrorKind::Utf8Encoding { .. } => Error::Utf8,
        _ => Error::Malformed,
    }
}

fn map(document: &RawDocument, budget: &mut Budget) -> Result<Value, Error> {
    budget.nested(|budget| {
        let mut members = Vec::new();
        for element in document.iter_elements() {
            let element = element.map_err(malformed)?;
            members.push((element.key().as_str().into(), value(&element, budget)?));
        }
        check_members(&members)?;
        Ok(Value::Map(members))
    })
}

/// The keys of an array are ignored, because they only repeat its order.
fn array(document: &RawDocument, budget: &mut Budget) -> Result<Value, Error> {
    budget.nested(|budget| {
        let mut elements = Vec::new();
        for element in document.iter_elements() {
            elements.push(value(&element.map_err(malformed)?, budget)?);
        }
        Ok(Value::Array(elements))
    })
}

fn value(element: &RawElement<'_>, budget: &mut Budget) -> Result<Value, Error> {
    budget.spend(1)?;
    let allowed = matches!(
        element.element_type(),
        ElementType::Null
            | ElementType::Boolean
            | ElementType::Int32
            | ElementType::Int64
            | ElementType::Double
            | ElementType::Decimal128
            | ElementType::String
            | ElementType::DateTime
            | ElementType::Binary
            | ElementType::Array
            | ElementType::EmbeddedDocument
    );
    if !allowed {
        return Err(Error::Type);
    }
    Ok(match element.value().map_err(malformed)? {
        RawBsonRef::Null => Value::Null,
        RawBsonRef::Boolean(it) => Value::Bool(it),
        RawBsonRef::Int32(number) => Value::Int(number.into()),
        RawBsonRef::Int64(number) => Value::Int(number),
        RawBsonRef::Double(number) => Value::number(number).ok_or(Error::Number)?,
        RawBsonRef::Decimal128(number) => json::number(&number.to_string()).ok_or(Error::Number)?,
        RawBsonRef::String(text) => Value::text(text),
        RawBsonRef::DateTime(at) => {
            let ms = at.timestamp_millis();
            let nanos = ms.rem_euclid(1000) as u32 * (NANOS / 1000);
            Value::Text(date(ms.div_euclid(1000), nanos)?)
        }
        RawBsonRef::Binary(binary) => Value::Text(STANDARD.encode(binary.bytes).into()),
        RawBsonRef::Array(it) => array(document_of(it)?, budget)?,
        RawBsonRef::Document(it) => map(it, budget)?,
        _ => return Err(Error::Type),
    })
}

fn document_of(array: &::bson::raw::RawArray) -> Result<&RawDocument, Error> {
    RawDocument::from_bytes(array.as_bytes()).map_err(malformed)
}

pub(in crate::codec::value) fn write(
    body: &EnvelopeBody<'_>,
    envelope: Option<&Envelope>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    match (envelope, body) {
        (Some(envelope), body) => document(out, |out| {
            push_members(&envelope.members, out)?;
            push_body(&envelope.key, body, out)
        }),
        (None, EnvelopeBody::Value(Value::Map(members))) => {
            document(out, |out| push_members(members, out))
        }
        (None, EnvelopeBody::Members(members)) => document(out, |out| push_members(members, out)),
        (None, _) => Err(Error::NotMap),
    }
}

/// Writes a document: its length, what `fill` writes, and the zero byte that ends it.
fn document(
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out)?;
    out.push(0);
    let length = length(out.len() - begin)?;
    out[begin..begin + 4].copy_from_slice(&length);
    Ok(())
}

fn length(bytes: usize) -> Result<[u8; 4], Error> {
    i32::try_from(bytes).map(i32::to_le_bytes).map_err(|_| Error::Bytes)
}

fn push_body(key: &str, body: &EnvelopeBody<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    match body {
        EnvelopeBody::Value(value) => push(key, value, out),
        EnvelopeBody::Members(members) => {
            begin(ElementType::EmbeddedDocument, key, out)?;
            document(out, |out| push_members(members, out))
        }
        EnvelopeBody::Elements(elements) => {
            begin(ElementType::Array, key, out)?;
            document(out, |out| push_elements(elements.iter(), out))
        }
    }
}

fn push_members(members: &[(Box<str>, Value)], out: &mut Vec<u8>) -> Result<(), Error> {
    members.iter().try_for_each(|(key, value)| push(key, value, out))
}

fn push_elements<'v>(
    elements: impl Iterator<Item = &'v Value>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut key = Vec::new();
    for (at, element) in elements.enumerate() {
        key.clear();
        // Writing into a vector cannot fail, and digits are UTF-8.
        let _ = write!(key, "{at}");
        push(str::from_utf8(&key).unwrap_or_default(), element, out)?;
    }
    Ok(())
}

/// The type and the key of an element.
fn begin(kind: ElementType, key: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    check_key(key)?;
    out.push(kind as u8);
    out.extend_from_slice(key.as_bytes());
    out.push(0);
    Ok(())
}

fn push(key: &str, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match value {
        Value::Null => begin(ElementType::Null, key, out),
        Value::Bool(it) => {
            begin(ElementType::Boolean, key, out)?;
            out.push((*it).into());
            Ok(())
        }
        Value::Int(number) => push_int(key, *number, out),
        Value::Float(number) => push_double(key, *number, out),
        Value::Number(text) => match json::nearest(text).ok_or(Error::Number)? {
            Value::Int(number) => push_int(key, number, out),
            Value::Float(number) => push_double(key, number, out),
            _ => Err(Error::Number),
        },
        Value::Text(text) => {
            begin(ElementType::String, key, out)?;
            out.extend_from_slice(&length(text.len() + 1)?);
            out.extend_from_slice(text.as_bytes());
            out.push(0);
            Ok(())
        }
        Value::Array(elements) => {
            begin(ElementType::Array, key, out)?;
            document(out, |out| push_elements(elements.iter(), out))
        }
        Value::Map(members) => {
            begin(ElementType::EmbeddedDocument, key, out)?;
            document(out, |out| push_members(members, out))
        }
    }
}

fn push_int(key: &str, number: i64, out: &mut Vec<u8>) -> Result<(), Error> {
    match i32::try_from(number) {
        Ok(number) => {
            begin(ElementType::Int32, key, out)?;
            out.extend_from_slice(&number.to_le_bytes());
        }
        Err(_) => {
            begin(ElementType::Int64, key, out)?;
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    Ok(())
}

fn push_double(key: &str, number: f64, out: &mut Vec<u8>) -> Result<(), Error> {
    begin(ElementType::Double, key, out)?;
    out.extend_from_slice(&number.to_le_bytes());
    Ok(())
}
