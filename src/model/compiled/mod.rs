//! Models that are compiled from the text of a schema: JSON Schema, Avro and Protocol Buffers.

mod avro;
mod document;
mod pattern;
mod protobuf;

pub use avro::Avro;
pub use document::JsonSchema;
pub use protobuf::Protobuf;
