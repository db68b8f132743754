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
    /// Its schemas, by subject: inline, filesystem.
    #[serde(default)]
    pub subjects: Vec<Subject>,
    /// Where it is: registries. Also its path, if its API is below one.
    #[serde(default)]
    pub url: String,
    /// How old a schema that is known by name may be, in seconds: registries.
    #[serde(default)]
    pub max_age_s: Option<u64>,
    /// A PEM file of the authorities that vouch for it; empty: the system's.
    #[serde(default)]
    pub ca_file: String,
    /// What it is shown: registries.
    #[serde(default)]
    pub credentials: CatalogCredentials,
    /// The context that subjects are in: schema-registry.
    #[serde(default)]
    pub context: Option<String>,
    /// The group of its artifacts: apicurio.
    #[serde(default)]
    pub group_id: Option<String>,
    /// Which of its two numbers a schema is known by: apicurio.
    #[serde(default)]
    pub use_id: Option<SchemaIdKind>,
    /// How that number is written in front of a message: apicurio.
    #[serde(default)]
    pub id_encoding: Option<IdEncoding>,
    /// The version of its REST API: apicurio.
    #[serde(default)]
    pub api: Option<ApicurioApi>,
}

impl Catalog {
    /// A registry at `url` with every other key at its default.
    pub fn registry(name: &str, kind: CatalogKind, url: &str) -> Catalog {
        Catalog {
            name: name.to_owned(),
            kind,
            subjects: Vec::new(),
            url: url.to_owned(),
            max_age_s: None,
            ca_file: String::new(),
            credentials: CatalogCredentials::default(),
            context: None,
            group_id: None,
            use_id: None,
            id_encoding: None,
            api: None,
        }
    }

    /// Whether its schemas are fetched.
    pub fn is_registry(&self) -> bool {
        matches!(self.kind, CatalogKind::SchemaRegistry | CatalogKind::Apicurio)
    }

    /// How old a schema that is known by name may be, in milliseconds.
    pub fn max_age_ms(&self) -> u64 {
        self.max_age_s.unwrap_or(300) * 1000
    }

    /// Whether both give the same schemas.
    pub(super) fn is_same_place(&self, other: &Catalog) -> bool {
        let place = |it: &Catalog| {
            let (context, group, id) = (it.context.clone(), it.group_id.clone(), it.use_id);
            let api = it.api.unwrap_or_default();
            (it.kind, it.url.clone(), context, group, id.unwrap_or_default(), api)
        };
        place(self) == place(other)
    }
}

/// What a registry is shown of us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct CatalogCredentials {
    /// In header fields.
    pub headers: ShownFields,
}

/// Header fields that a registry is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct ShownFields {
    /// Its value; empty is none.
    pub authorization: SecretHeader,
}

/// A text that must not be logged: its `Debug` does not show it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SecretHeader(String);

impl SecretHeader {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> SecretHeader {
        SecretHeader(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(not shown)")
    }
}

/// The two numbers that Apicurio gives a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum SchemaIdKind {
    /// That of the artifact's version.
    #[default]
    #[serde(rename = "globalId")]
    GlobalId,
    /// That of its text.
    #[serde(rename = "contentId")]
    ContentId,
}

/// How Apicurio's number is written in front of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdEncoding {
    /// In eight bytes.
    #[default]
    Default,
    /// In four.
    Legacy,
}

/// Versions of Apicurio Registry's REST API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApicurioApi {
    /// `/apis/registry/v2`, which registries 2.x and 3.x serve. Zilla knows only this one.
    #[default]
    V2,
    /// `/apis/registry/v3`, which registries 3.x serve.
    V3,
}

/// Kinds of catalogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogKind {
    /// The schemas stand in the configuration.
    Inline,
    /// The schemas are files.
    Filesystem,
    /// Confluent's Schema Registry, Karapace, and others with their API.
    #[serde(
        rename = "schema-registry",
        alias = "confluent-schema-registry",
        alias = "karapace",
        alias = "karapace-schema-registry"
    )]
    SchemaRegistry,
    /// Apicurio Registry, by version 2 or 3 of its API.
    #[serde(alias = "apicurio-registry")]
    Apicurio,
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
    pub model: ModelKind,
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
    /// Where the schema is named, if not here: avro, protobuf, json.
    #[serde(default)]
    pub strategy: Option<Strategy>,
    /// What becomes of a message whose schema is not there: with a strategy.
    #[serde(default)]
    pub on_miss: Option<OnMiss>,
    /// The number in front of each message, and how it is written: avro, protobuf, json.
    #[serde(default)]
    pub prefix: Option<PrefixKind>,
    /// The number that goes in front of messages that are sent; of a registry, the schema's.
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
pub enum ModelKind {
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

impl ModelKind {
    /// What Zilla calls the event that a message is not as a model of this kind wants it.
    pub fn event(self) -> &'static str {
        match self {
            ModelKind::Json => "MODEL_JSON_VALIDATION_FAILED",
            ModelKind::Avro => "MODEL_AVRO_VALIDATION_FAILED",
            ModelKind::Protobuf => "MODEL_PROTOBUF_VALIDATION_FAILED",
            _ => "MODEL_CORE_VALIDATION_FAILED",
        }
    }
}

/// Where the schema of a message is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// In the message, by the number in front of it.
    Encoded,
}

/// What becomes of a message whose schema is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMiss {
    /// Nothing more is read from its connection until the schema is there, for a bounded time;
    /// then it is refused.
    #[default]
    Wait,
    /// It is refused, as one that is invalid.
    Reject,
    /// It passes as it came.
    Pass,
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
