//! The configuration keys of models and catalogs. They have the names that Zilla uses, where Zilla
//! has such a key.

use super::SchemaId;
use crate::settings::Secret;
use crate::settings::range::DAY_S;
use crate::settings::section::{section, words};
use serde::Deserialize;
use std::path::Path;

section! {
    required
    /// Sources of message schemas, to which models refer by name.
    pub struct Catalog {
        /// The name by which models refer to the catalog.
        pub name: String;
        /// The type of the catalog.
        pub kind as "type": CatalogKind;
        /// The schemas of the catalog, each with its subject: inline and filesystem only.
        #[serde(default)]
        pub subjects: Vec<Subject>;
        /// The URL of the registry, with its path if its API is below one: registries only.
        #[serde(default)]
        pub url: String;
        /// The maximum age of a schema that is fetched by subject, in seconds: registries only.
        #[serde(default)]
        pub max_age_s: Option<u64>, seconds(1..=DAY_S);
        /// A PEM file of the certificate authorities that the registry's certificate is verified
        /// with. If empty, the system's are used.
        #[serde(default)]
        pub ca_file: String;
        /// The credentials that are sent to the registry: registries only.
        #[serde(default)]
        pub credentials: CatalogCredentials;
        /// The context of the subjects: schema-registry only.
        #[serde(default)]
        pub context: Option<String>;
        /// The group of the artifacts: apicurio only.
        #[serde(default)]
        pub group_id: Option<String>;
        /// Which of the two ids of Apicurio identifies a schema: apicurio only.
        #[serde(default)]
        pub use_id: Option<SchemaIdKind>;
        /// How the schema id is written in front of a message: apicurio only.
        #[serde(default)]
        pub id_encoding: Option<IdEncoding>;
        /// The version of the registry's REST API: apicurio only.
        #[serde(default)]
        pub api: Option<ApicurioApi>;
    }
}

impl Catalog {
    /// A registry at `url`, with the default of every other key.
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

    /// Reads the schema files that `specs` use, unless they have been read before. Their names are
    /// relative to `folder`.
    pub fn read_files(&mut self, specs: &[&Spec], folder: &Path) {
        if self.kind != CatalogKind::Filesystem {
            return;
        }
        for subject in &mut self.subjects {
            let is_used = specs.iter().any(|spec| {
                spec.catalog.as_ref() == Some(&self.name)
                    && spec.subject.as_ref() == Some(&subject.name)
                    && spec.version == subject.version
            });
            if let (Some(path), true, None) = (&subject.path, is_used, &subject.content) {
                let read = std::fs::read_to_string(folder.join(path));
                subject.content = Some(read.map_err(|error| format!("{path}: {error}")));
            }
        }
    }

    /// Whether the catalog is a registry, from which schemas are fetched.
    pub fn is_registry(&self) -> bool {
        matches!(self.kind, CatalogKind::SchemaRegistry | CatalogKind::Apicurio)
    }

    /// The maximum age of a schema that is fetched by subject, in milliseconds.
    pub fn max_age_ms(&self) -> u64 {
        self.max_age_s.unwrap_or(300) * 1000
    }

    /// Whether both catalogs are the same registry and give the same schemas. Credentials and the
    /// maximum age may differ.
    pub(super) fn is_same_place(&self, other: &Catalog) -> bool {
        let place = |it: &Catalog| {
            let (context, group, id) = (it.context.clone(), it.group_id.clone(), it.use_id);
            let api = it.api.unwrap_or_default();
            (it.kind, it.url.clone(), context, group, id.unwrap_or_default(), api)
        };
        place(self) == place(other)
    }
}

section! {
    /// The credentials that are sent to a registry.
    pub struct CatalogCredentials {
        /// Header fields of the requests.
        pub headers: ShownFields = ShownFields::default();
    }
}

section! {
    /// Header fields of requests to a registry that carry credentials.
    pub struct ShownFields {
        /// The value of the field `Authorization`; if empty, the field is not sent.
        pub authorization: Secret = Secret::default();
    }
}

/// The two ids that Apicurio gives to a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum SchemaIdKind {
    /// The id of the artifact's version.
    #[default]
    #[serde(rename = "globalId")]
    GlobalId,
    /// The id of the schema's content.
    #[serde(rename = "contentId")]
    ContentId,
}

/// How Apicurio's schema id is written in front of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdEncoding {
    /// In eight bytes, after a zero byte.
    #[default]
    Default,
    /// In four bytes, after a zero byte.
    Legacy,
}

/// The versions of Apicurio Registry's REST API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApicurioApi {
    /// `/apis/registry/v2`, which registries 2.x and 3.x serve. Zilla supports only this version.
    #[default]
    V2,
    /// `/apis/registry/v3`, which registries 3.x serve.
    V3,
}

/// The types of catalogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogKind {
    /// The schemas are in the configuration.
    Inline,
    /// The schemas are files.
    Filesystem,
    /// Confluent's Schema Registry, Karapace, and other registries with the same API.
    #[serde(
        rename = "schema-registry",
        alias = "confluent-schema-registry",
        alias = "karapace",
        alias = "karapace-schema-registry"
    )]
    SchemaRegistry,
    /// Apicurio Registry, with version 2 or 3 of its REST API.
    #[serde(alias = "apicurio-registry")]
    Apicurio,
}

section! {
    required
    /// The schemas of an inline or filesystem catalog.
    pub struct Subject {
        /// The name of the subject.
        pub name: String;
        /// The version of the subject that this schema is.
        #[serde(default = "latest")]
        pub version: String;
        /// The text of the schema: inline catalogs only.
        #[serde(default)]
        pub schema: Option<String>;
        /// The path of the schema's file: filesystem catalogs only.
        #[serde(default)]
        pub path: Option<String>;
    }
    and {
        /// The content of the file at `path`, or why it cannot be read; `None` before it is read.
        pub content: Option<Result<String, String>>;
    }
}

section! {
    /// The models of a route, `received` and `sent`: what the payload of messages from and to
    /// clients must be.
    pub struct Governance {
        /// The models of messages from clients.
        pub received: Direction = Direction::default();
        /// The models of messages to clients.
        pub sent: Direction = Direction::default();
        /// What happens to an invalid message.
        pub on_invalid: OnInvalid = OnInvalid::default();
    }
}

impl Governance {
    /// All models.
    pub fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.places().map(|(_, spec)| spec)
    }

    /// All models, each with its key.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, &Spec)> {
        let Governance { received, sent, .. } = self;
        let all = [
            ("received.text", &received.text),
            ("received.binary", &received.binary),
            ("sent.text", &sent.text),
            ("sent.binary", &sent.binary),
        ];
        all.into_iter().filter_map(|(key, spec)| Some((key, spec.as_ref()?)))
    }
}

section! {
    /// The models of one direction, by message type. Messages of a type without a model are not
    /// checked.
    pub struct Direction {
        /// The model of text messages.
        pub text: Option<Spec> = None;
        /// The model of binary messages.
        pub binary: Option<Spec> = None;
    }
}

/// What happens to an invalid message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInvalid {
    /// The connection is closed, with close code 1007 for a malformed message, 1008 for one that
    /// breaks its schema, and 1013 for one whose schema is not available.
    #[default]
    Close,
    /// The message is dropped.
    Drop,
    /// The message is dropped, and the client gets a JSON message with the error and its close
    /// code.
    Reply,
}

section! {
    required
    /// One model; also `received.binary`, `sent.text` and `sent.binary`. The keys that it may have
    /// depend on its kind.
    pub struct Spec {
        /// The kind of the model.
        pub model: ModelKind;
        /// How strictly the rules of the model are applied.
        #[serde(default)]
        pub validate: Validate;
        /// The name of the catalog that has the schema: json, avro, protobuf.
        #[serde(default)]
        pub catalog: Option<String>;
        /// The subject of the schema in the catalog: json, avro, protobuf.
        #[serde(default)]
        pub subject: Option<String>;
        /// The version of the subject.
        #[serde(default = "latest")]
        pub version: String;
        /// How the schema is determined if the model does not name it: json, avro, protobuf.
        #[serde(default)]
        pub strategy: Option<Strategy>;
        /// What happens to a message whose schema is not available: only with a strategy.
        #[serde(default)]
        pub on_miss: Option<OnMiss>;
        /// The format of the schema id in front of each message: json, avro, protobuf.
        #[serde(default)]
        pub prefix: Option<PrefixKind>;
        /// The schema id. Without a registry, it is the id in front of each message, and needs
        /// `prefix`. With a registry, it identifies the schema, in place of `subject`.
        #[serde(default)]
        pub id: Option<SchemaId>;
        /// The message type in the schema: protobuf only. The default is the first of the file.
        #[serde(default)]
        pub record: Option<String>;
        /// The form in which the endpoint sees the messages: avro, protobuf.
        #[serde(default)]
        pub view: Option<View>;
        /// The encoding of the text: string only.
        #[serde(default)]
        pub encoding: Option<EncodingKind>;
        /// The minimum length in characters: string only.
        #[serde(default)]
        pub min_length: Option<usize>;
        /// The maximum length in characters: string only.
        #[serde(default)]
        pub max_length: Option<usize>;
        /// A regular expression of the `regex` crate that must have a match in the text: string
        /// only.
        #[serde(default)]
        pub pattern: Option<String>;
        /// How the value is written: numbers and boolean.
        #[serde(default)]
        pub format: Option<WritingKind>;
        /// The interval that the value must be in, such as `[1,10)`: numbers only.
        #[serde(default)]
        pub range: Option<String>;
        /// The value must be a multiple of this number, which is greater than 0: numbers only.
        #[serde(default)]
        pub multiple: Option<String>;
    }
}

/// The kinds of models.
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
    /// An integer of 32 bits.
    Int32,
    /// An integer of 64 bits.
    Int64,
    /// A floating-point number of 32 bits.
    Float,
    /// A floating-point number of 64 bits.
    Double,
    /// A boolean.
    Boolean,
    /// Any bytes.
    Bytes,
}

impl ModelKind {
    /// Zilla's name of the event that a message fails the validation by a model of this kind.
    pub fn event(self) -> &'static str {
        match self {
            ModelKind::Json => "MODEL_JSON_VALIDATION_FAILED",
            ModelKind::Avro => "MODEL_AVRO_VALIDATION_FAILED",
            ModelKind::Protobuf => "MODEL_PROTOBUF_VALIDATION_FAILED",
            _ => "MODEL_CORE_VALIDATION_FAILED",
        }
    }
}

/// How the schema of a message is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// By the schema id in front of the message.
    Encoded,
}

/// What happens to a message whose schema is not available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMiss {
    /// The message is parked and reading from its connection is paused until the schema is
    /// available or a timeout expires. After the timeout, the message is refused.
    #[default]
    Wait,
    /// The message is refused, as an invalid message is.
    Reject,
    /// The message passes unchanged.
    Pass,
}

/// How strictly the rules of a model are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validate {
    /// A message that breaks a rule is invalid.
    #[default]
    Strict,
    /// A message that is well-formed and breaks a rule passes, and is counted.
    Lenient,
}

/// The formats of a schema id in front of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixKind {
    /// A zero byte and the id in four bytes; for protobuf also the message indexes.
    Confluent,
    /// Apicurio's format: a zero byte and the id in eight bytes, or in four if the catalog's
    /// `id_encoding` is `legacy`.
    Apicurio,
}

/// The form in which the endpoint sees binary messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// JSON text.
    Json,
}

/// The encodings of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum EncodingKind {
    /// UTF-8.
    #[serde(rename = "utf_8")]
    Utf8,
    /// UTF-16.
    #[serde(rename = "utf_16")]
    Utf16,
}

/// How a number or a boolean is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WritingKind {
    /// As text: decimal digits, or `true` and `false`.
    Text,
    /// As big-endian bytes, or the byte 0 or 1.
    Binary,
}

fn latest() -> String {
    "latest".to_owned()
}

words! {
    ApicurioApi, CatalogKind, EncodingKind, IdEncoding, ModelKind, OnInvalid, OnMiss, PrefixKind,
    SchemaIdKind, Strategy, Validate, View, WritingKind,
}
