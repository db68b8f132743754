//! What a message has to look like: JSON by a schema, Avro, Protocol Buffers, or a plain value; and
//! the JSON view of the binary ones.
//!
//! A [`Model`] is a pure function of a schema's text; [`ModelRules`] are the models of a route, as
//! an
//! operator describes them in the words of [`spec`].

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

/// Bytes of a reason: it goes into a Close frame (RFC 6455 section 5.5.1).
const REASON_BYTES: usize = 123;

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Whether it is not even of its format; else it breaks its schema's rules.
    pub malformed: bool,
    /// Whether there is nothing to compare it with: its schema is not there yet.
    pub missing: bool,
    /// Whether to find out took more than a message may cost. The connection is closed, whatever
    /// is done about other messages that are refused: its client could send the next one at once.
    pub costly: bool,
    /// The first place that is wrong; at most 123 bytes.
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

/// The first line of `reason`, as far as it fits.
fn cut(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    line[..line.floor_char_boundary(REASON_BYTES)].to_owned()
}

/// A schema's text that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSchema(String);

impl BadSchema {
    fn new(reason: impl Display) -> BadSchema {
        BadSchema(reason.to_string())
    }
}

/// How messages have to look.
#[derive(Debug)]
pub enum Model {
    /// Any text of some length.
    Text(Text),
    /// A whole number.
    Integer(Integer),
    /// A number.
    Float(Float),
    /// True or false.
    Boolean(Writing),
    /// Anything.
    Bytes,
    /// A JSON document.
    Json(JsonModel),
    /// An Avro datum.
    Avro(Avro),
    /// A Protocol Buffers message.
    Protobuf(Protobuf),
}

impl Model {
    /// Checks one whole message.
    ///
    /// # Errors
    /// What is wrong first.
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

    /// Whether the format is a binary one that has a JSON view.
    pub fn has_view(&self) -> bool {
        matches!(self, Model::Avro(_) | Model::Protobuf(_))
    }

    /// The JSON view of a binary message, which is checked by that; of other models, the message.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn to_json(&self, message: &[u8]) -> Result<Vec<u8>, Invalid> {
        match self {
            Model::Avro(avro) => avro.to_json(message),
            Model::Protobuf(protobuf) => protobuf.to_json(message),
            _ => self.check(message).map(|()| message.to_vec()),
        }
    }

    /// The binary message of which `json` is the view, which is checked by that; of other models,
    /// the message.
    ///
    /// # Errors
    /// What is wrong first.
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
