//! How an operator describes models and catalogs; the words are Zilla's where it has them.

use super::SchemaId;
use serde::Deserialize;

/// Where schemas come from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Catalog {
    /// How models name it.
    pub name: String,
    /// What kind of place it is.
    #[serde(rename = "type")]
    pub kind: CatalogKind,
    /// Its schemas, by subject.
    pub subjects: Vec<Subject>,
}

/// Kinds of catalogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogKind {
    /// The schemas stand in the configuration.
    Inline,
    /// The schemas are files.
    Filesystem,
}

/// One schema of a catalog.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Subject {
    /// What it is called.
    pub name: String,
    /// Which version of it this is.
    #[serde(default = "latest")]
    pub version: String,
    /// Its text, in an inline catalog.
    #[serde(default)]
    pub schema: Option<String>,
    /// Its file, in a filesystem catalog.
    #[serde(default)]
    pub path: Option<String>,
}

/// What the messages of a route have to look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Governance {
    /// Messages from clients.
    #[serde(default)]
    pub received: Direction,
    /// Messages to clients.
    #[serde(default)]
    pub sent: Direction,
    /// What happens when one does not.
    #[serde(default)]
    pub on_invalid: OnInvalid,
}

/// One direction, by the type of message; what is not there is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Direction {
    /// Text messages.
    #[serde(default)]
    pub text: Option<Spec>,
    /// Binary messages.
    #[serde(default)]
    pub binary: Option<Spec>,
}

/// What happens when a message is not as it has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInvalid {
    /// The connection is closed: 1007 for what is malformed, 1008 for what breaks the schema.
    #[default]
    Close,
    /// The message is dropped.
    Drop,
    /// It is dropped, and a client that sent it is told so by a JSON message.
    Reply,
}

/// One model. Which keys it has depends on what it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Spec {
    /// What it is.
    pub model: Kind,
    /// Whether what only breaks the rules of a schema passes all the same, and is counted.
    #[serde(default)]
    pub validate: Validate,
    /// The catalog that has its schema: json, avro, protobuf.
    #[serde(default)]
    pub catalog: Option<String>,
    /// Its subject there.
    #[serde(default)]
    pub subject: Option<String>,
    /// Which version of the subject.
    #[serde(default = "latest")]
    pub version: String,
    /// The number in front of each message, and how it is written: avro, protobuf, json.
    #[serde(default)]
    pub prefix: Option<PrefixKind>,
    /// The number that goes in front of messages that are sent.
    #[serde(default)]
    pub id: Option<SchemaId>,
    /// The type of message in the schema: protobuf.
    #[serde(default)]
    pub record: Option<String>,
    /// What the server's side sees: avro, protobuf.
    #[serde(default)]
    pub view: Option<View>,
    /// How text is encoded: string.
    #[serde(default)]
    pub encoding: Option<EncodingKind>,
    /// Characters at least: string.
    #[serde(default)]
    pub min_length: Option<usize>,
    /// Characters at most: string.
    #[serde(default)]
    pub max_length: Option<usize>,
    /// What has to occur: string. An expression of the `regex` crate.
    #[serde(default)]
    pub pattern: Option<String>,
    /// How it is written: numbers and boolean.
    #[serde(default)]
    pub format: Option<WritingKind>,
    /// Where it lies, such as `[1,10)`: numbers.
    #[serde(default)]
    pub range: Option<String>,
    /// What divides it: numbers.
    #[serde(default)]
    pub multiple: Option<String>,
}

/// Kinds of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A JSON document, with a schema if a catalog is named.
    Json,
    /// An Avro datum.
    Avro,
    /// A Protocol Buffers message.
    Protobuf,
    /// Text.
    String,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number of 32 bits.
    Float,
    /// A number of 64 bits.
    Double,
    /// True or false.
    Boolean,
    /// Anything.
    Bytes,
}

/// How strictly a schema is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validate {
    /// Every rule holds.
    #[default]
    Strict,
    /// A message that is well-formed passes.
    Lenient,
}

/// How the number of a schema is written in front of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixKind {
    /// A zero byte and four bytes.
    Confluent,
    /// A zero byte and eight bytes.
    Apicurio,
}

/// What the server's side sees of a binary message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// JSON text.
    Json,
}

/// Encodings of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum EncodingKind {
    /// UTF-8.
    #[serde(rename = "utf_8")]
    Utf8,
    /// UTF-16.
    #[serde(rename = "utf_16")]
    Utf16,
}

/// Ways to write a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WritingKind {
    /// In digits.
    Text,
    /// In bytes.
    Binary,
}

fn latest() -> String {
    "latest".to_owned()
}
