//! Models check the payload of messages: JSON with or without a schema, Avro, Protocol Buffers, or
//! plain values. Avro and Protocol Buffers messages also have a JSON view.
//!
//! A [`Model`] is compiled from the text of a schema and keeps no state. [`ModelRules`] are the
//! models of one route. [`spec`] has the configuration keys that describe them.

mod avro;
mod json;
mod pattern;
mod plain;
mod prefix;
mod protobuf;
mod registry;
mod rules;
mod source;
pub mod spec;

pub use avro::Avro;
pub use json::JsonModel;
pub use plain::{Encoding, Float, Integer, Range, Text, Width, Writing};
pub use prefix::{Prefix, SchemaId};
pub use protobuf::Protobuf;
pub use registry::{
    Doc, FetchFailure, Find, Registries, RegistryHandle, Schema, SchemaFetch, SchemaLookup,
    SchemaRef, Shape,
};
pub use rules::{BadSpec, ModelRules, Passed, PayloadKind, RuleSet};

use std::fmt::{self, Display};

/// The maximum length of a reason in bytes. A reason goes into a Close frame (RFC 6455 section
/// 5.5.1).
const REASON_BYTES: usize = 123;

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Whether the message is not well-formed in its format. If false, it is well-formed and breaks
    /// a rule of its schema.
    pub malformed: bool,
    /// Whether the message cannot be checked because its schema is not available yet.
    pub missing: bool,
    /// Whether the check exceeded the work limit of one message. The connection is then closed,
    /// whatever `on_invalid` says, because its client could send such messages repeatedly.
    pub costly: bool,
    /// A description of the first error, of at most 123 bytes.
    pub reason: String,
}

impl Invalid {
    fn malformed(reason: impl Display) -> Invalid {
        Invalid { malformed: true, missing: false, costly: false, reason: cut(&reason.to_string()) }
    }

    fn missing(reason: impl Display) -> Invalid {
        Invalid { malformed: false, missing: true, costly: false, reason: cut(&reason.to_string()) }
    }

    fn costly(reason: impl Display) -> Invalid {
        Invalid { costly: true, ..Invalid::broken(reason) }
    }

    fn broken(reason: impl Display) -> Invalid {
        Invalid {
            malformed: false,
            missing: false,
            costly: false,
            reason: cut(&reason.to_string()),
        }
    }
}

impl Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The first line of `reason`, cut to [`REASON_BYTES`].
fn cut(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    line[..line.floor_char_boundary(REASON_BYTES)].to_owned()
}

/// The text of a schema is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSchema(String);

impl BadSchema {
    fn new(reason: impl Display) -> BadSchema {
        BadSchema(reason.to_string())
    }
}

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
    fn models_reason_fits_a_close_frame() {
        assert_eq!(cut("a\nb"), "a");
        assert_eq!(cut(&"x".repeat(123)).len(), 123);
        assert_eq!(cut(&"x".repeat(124)).len(), 123);
        assert_eq!(cut(&format!("{}é", "x".repeat(122))).len(), 122, "no half of a character");
    }

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
