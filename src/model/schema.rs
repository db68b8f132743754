//! A schema of a registry: how it is identified there, its text, and the model that it is compiled
//! to.

use super::spec::ModelKind;
use super::{Avro, BadSchema, JsonModel, Model, Protobuf, SchemaId};
use std::fmt;

/// The text of a schema and the texts that it refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doc {
    /// The text of the schema.
    pub text: String,
    /// The referenced texts: the name by which they are referred to, and the text. Each comes after
    /// those that it refers to itself.
    pub references: Vec<(String, String)>,
}

/// The model that a schema's text is compiled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The kind of model: one that has a schema.
    pub kind: ModelKind,
    /// The message type, of protobuf.
    pub record: Option<String>,
}

impl Shape {
    /// Compiles the text of a schema to a model.
    ///
    /// # Errors
    /// The text is not a valid schema of this kind.
    pub fn compile(&self, doc: &Doc) -> Result<Model, BadSchema> {
        let Doc { text, references } = doc;
        match self.kind {
            ModelKind::Json => JsonModel::with(text, references).map(Model::Json),
            ModelKind::Avro => Avro::with(text, references).map(Model::Avro),
            ModelKind::Protobuf => {
                Protobuf::with(text, references, self.record.as_deref()).map(Model::Protobuf)
            }
            _ => Err(BadSchema::new("a model of this kind has no schema")),
        }
    }
}

/// How a schema is identified in its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaRef {
    /// By its subject and a version, which may be `latest`.
    Subject {
        /// The name of the subject.
        name: String,
        /// The version, or `latest`.
        version: String,
    },
    /// By the id that the registry gave to it.
    Id(SchemaId),
}

impl fmt::Display for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaRef::Subject { name, version } => write!(f, "{name}, version {version}"),
            SchemaRef::Id(id) => write!(f, "id {id}"),
        }
    }
}

/// A schema that was fetched.
#[derive(Debug)]
pub struct Schema {
    /// The id of the schema in its registry.
    pub id: SchemaId,
    /// The model that the schema was compiled to.
    pub model: Model,
}
