//! In place of the models that are compiled from the text of a schema, in a build without them. No
//! value of these types exists, because the constructors return an error.

use crate::model::{BadSchema, Invalid};
use crate::parts::{AbsentPart, OptionalPart};
use std::convert::Infallible;

fn absent<T>() -> Result<T, BadSchema> {
    Err(BadSchema::new(AbsentPart(OptionalPart::Models)))
}

/// A JSON Schema.
#[derive(Debug)]
pub struct JsonSchema(Infallible);

impl JsonSchema {
    /// Returns the error that the part is absent.
    pub fn new(_: &str, _: &[(String, String)]) -> Result<JsonSchema, BadSchema> {
        absent()
    }

    pub(in crate::model) fn check(&self, _: &serde_json::Value) -> Result<(), Invalid> {
        match self.0 {}
    }
}

/// Rules for an Avro datum.
#[derive(Debug)]
pub struct Avro(Infallible);

impl Avro {
    /// Returns the error that the part is absent.
    pub fn new(_: &str) -> Result<Avro, BadSchema> {
        absent()
    }

    /// Returns the error that the part is absent.
    pub fn with(_: &str, _: &[(String, String)]) -> Result<Avro, BadSchema> {
        absent()
    }

    pub(in crate::model) fn check(&self, _: &[u8]) -> Result<(), Invalid> {
        match self.0 {}
    }

    pub(in crate::model) fn to_json(&self, _: &[u8]) -> Result<Vec<u8>, Invalid> {
        match self.0 {}
    }

    pub(in crate::model) fn encode_json(&self, _: &[u8]) -> Result<Vec<u8>, Invalid> {
        match self.0 {}
    }
}

/// Rules for a Protocol Buffers message.
#[derive(Debug)]
pub struct Protobuf(Infallible);

impl Protobuf {
    /// Returns the error that the part is absent.
    pub fn new(_: &str, _: Option<&str>) -> Result<Protobuf, BadSchema> {
        absent()
    }

    /// Returns the error that the part is absent.
    pub fn with(_: &str, _: &[(String, String)], _: Option<&str>) -> Result<Protobuf, BadSchema> {
        absent()
    }

    pub(in crate::model) fn indexes(&self) -> Vec<usize> {
        match self.0 {}
    }

    pub(in crate::model) fn at(&self, _: &[usize]) -> Result<Protobuf, Invalid> {
        match self.0 {}
    }

    pub(in crate::model) fn check(&self, _: &[u8]) -> Result<(), Invalid> {
        match self.0 {}
    }

    pub(in crate::model) fn to_json(&self, _: &[u8]) -> Result<Vec<u8>, Invalid> {
        match self.0 {}
    }

    pub(in crate::model) fn encode_json(&self, _: &[u8]) -> Result<Vec<u8>, Invalid> {
        match self.0 {}
    }
}
