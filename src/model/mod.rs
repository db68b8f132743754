//! Models check the payload of messages: JSON with or without a schema, Avro, Protocol Buffers, or
//! plain values. Avro and Protocol Buffers messages also have a JSON view.
//!
//! A [`Model`] is compiled from the text of a schema and keeps no state. [`ModelRules`] are the
//! models of one route. [`spec`] has the configuration keys that describe them.

mod avro;
mod build;
mod invalid;
mod json;
mod pattern;
mod plain;
mod prefix;
mod protobuf;
mod registry;
mod rules;
mod schema;
mod source;
pub mod spec;

pub use avro::Avro;
pub use invalid::{BadSchema, Invalid};
pub use json::JsonModel;
pub use plain::{Encoding, Float, Integer, Range, Text, Width, Writing};
pub use prefix::{Prefix, SchemaId};
pub use protobuf::Protobuf;
pub use registry::{FetchFailure, Find, Registries, RegistryHandle, SchemaFetch, SchemaLookup};
pub use rules::{BadSpec, ModelRules, Passed, PayloadKind, RuleSet};
pub use schema::{Doc, Schema, SchemaRef, Shape};

/// What the payload of a message must be.
#[derive(Debug)]
pub enum Model {
    /// Text, with optional bounds of its length and an optional pattern.
    Text(Text),
    /// An integer.
    Integer(Integer),
    /// A floating-point number.
    Float(Float),
    /// A boolean.
    Boolean(Writing),
    /// Any bytes.
    Bytes,
    /// A JSON document.
    Json(JsonModel),
    /// An Avro datum.
    Avro(Avro),
    /// A Protocol Buffers message.
    Protobuf(Protobuf),
}

impl Model {
    /// Checks the payload of one complete message.
    ///
    /// # Errors
    /// The first error that was found.
    pub fn check(&self, message: &[u8]) -> Result<(), Invalid> {
        match self {
            Model::Text(rules) => rules.check(message),
            Model::Integer(rules) => rules.check(message),
            Model::Float(rules) => rules.check(message),
            Model::Boolean(writing) => plain::check_boolean(*writing, message),
            Model::Bytes => Ok(()),
            Model::Json(json) => json.check(message),
            Model::Avro(avro) => avro.check(message),
            Model::Protobuf(protobuf) => protobuf.check(message),
        }
    }

    /// Whether the model is of a binary format that has a JSON view.
    pub fn has_view(&self) -> bool {
        matches!(self, Model::Avro(_) | Model::Protobuf(_))
    }

    /// Checks a binary message and converts it to its JSON view. A model without a JSON view checks
    /// the message and returns it unchanged.
    ///
    /// # Errors
    /// The first error that was found.
    pub fn to_json(&self, message: &[u8]) -> Result<Vec<u8>, Invalid> {
        match self {
            Model::Avro(avro) => avro.to_json(message),
            Model::Protobuf(protobuf) => protobuf.to_json(message),
            _ => self.check(message).map(|()| message.to_vec()),
        }
    }

    /// Checks a JSON view and converts it to the binary message. A model without a JSON view checks
    /// the message and returns it unchanged.
    ///
    /// # Errors
    /// The first error that was found.
    pub fn encode_json(&self, json: &[u8]) -> Result<Vec<u8>, Invalid> {
        match self {
            Model::Avro(avro) => avro.encode_json(json),
            Model::Protobuf(protobuf) => protobuf.encode_json(json),
            _ => self.check(json).map(|()| json.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_without_a_view_pass_messages_unchanged() {
        let model = Model::Boolean(Writing::Text);
        assert!(!model.has_view());
        assert_eq!(model.to_json(b"true").unwrap(), b"true");
        assert_eq!(model.encode_json(b"false").unwrap(), b"false");
        assert!(model.to_json(b"yes").is_err() && model.encode_json(b"").is_err());
        assert_eq!(Model::Bytes.check(b"\xff\0"), Ok(()));
    }
}
