//! The models of routes: their keys in the reference, and their check.

use super::error::{Error, Problem};
use super::route::{EndpointKind, Route};
use super::section::{ConfigType, ForeignKey};
use crate::model::ModelRules;
use crate::model::spec::{Catalog, Governance};

/// The documentation of the keys `model` in `polycast.example.toml`.
pub(super) const EXAMPLE: &str = r##"
Models that WebSocket messages must match: `received` for messages from clients and, only for
"echo" and "proxy", `sent` for messages to them; each has a model for text and one for binary
messages. Messages without a model are not checked. on_invalid: "close" (1007 if malformed, 1008
if the message does not match the schema), "drop", or "reply", which drops the message and sends
an error to the client. Models:
- json, with or without a catalog and a subject; drafts 4 to 2020-12, draft 7 if there is no
  `$schema`. Its patterns may take 5000 steps for all texts of a message; one that needs more
  closes the connection (1008)
- avro, protobuf (record: the message type); view = "json": the endpoint sees JSON text
- string (encoding "utf_8" or "utf_16", min_length, max_length, pattern), int32, int64, float,
  double (format "text" or "binary", range such as "[1,10)", multiple), boolean (format), bytes
Options of a model:
- validate: "lenient" passes and counts messages that are well-formed but do not match the schema
- prefix: "confluent" (5 bytes) or "apicurio" (9 bytes): the id of the schema is before each
  message; with "confluent" and protobuf, the index of the message type follows, as Confluent's
  clients write it. The key `id` sets the number; with a registry, a subject and a version, or an
  id alone, the number is the registry's
- strategy: "encoded": each received message names its schema by the number before it, and any
  schema of the registry is accepted; an unknown one is fetched
- on_miss: what happens to a message whose schema is not available: "wait" pauses reading from the
  connection, for at most 5 s, "reject" refuses the message, "pass" passes it unchecked
With the catalog above:
[routes.model]
received.text = { model = "json", catalog = "local", subject = "chat", version = "latest" }
received.binary = { model = "bytes" }
on_invalid = "close""##;

/// The keys of `[routes.model]`.
pub(super) const MODEL_KEYS: [ForeignKey; 3] = [
    ("received", "table", "{}", &["The models of messages from clients."]),
    ("sent", "table", "{}", &["The models of messages to clients."]),
    ("on_invalid", "close, drop, reply", r#""close""#, &["What happens to an invalid message."]),
];

/// The keys of one model: of `text` and `binary` in `received` and `sent`.
pub(super) const SPEC_KEYS: [ForeignKey; 18] = [
    (
        "model",
        "json, avro, protobuf, string, int32, int64, float, double, boolean, bytes",
        "",
        &["The kind of the model."],
    ),
    (
        "validate",
        "strict, lenient",
        r#""strict""#,
        &["How strictly the rules of the model are applied."],
    ),
    (
        "catalog",
        "text",
        "",
        &["The name of the catalog that has the schema: json, avro, protobuf."],
    ),
    ("subject", "text", "", &["The subject of the schema in the catalog: json, avro, protobuf."]),
    ("version", "text", r#""latest""#, &["The version of the subject."]),
    (
        "strategy",
        "encoded",
        "",
        &["How the schema is determined if the model does not name it: json, avro,", "protobuf."],
    ),
    (
        "on_miss",
        "wait, reject, pass",
        r#""wait""#,
        &["What happens to a message whose schema is not available: only with a strategy."],
    ),
    (
        "prefix",
        "confluent, apicurio",
        "",
        &["The format of the schema id in front of each message: json, avro, protobuf."],
    ),
    (
        "id",
        "integer",
        "",
        &[
            "The schema id. Without a registry, it is the id in front of each message, and",
            "needs `prefix`. With a registry, it identifies the schema, in place of",
            "`subject`.",
        ],
    ),
    (
        "record",
        "text",
        "",
        &[
            "The message type in the schema: protobuf only. The default is the first of the",
            "file.",
        ],
    ),
    ("view", "json", "", &["The form in which the endpoint sees the messages: avro, protobuf."]),
    ("encoding", "utf_8, utf_16", "", &["The encoding of the text: string only."]),
    ("min_length", "integer", "", &["The minimum length in characters: string only."]),
    ("max_length", "integer", "", &["The maximum length in characters: string only."]),
    (
        "pattern",
        "text",
        "",
        &[
            "A regular expression of the `regex` crate that must have a match in the text:",
            "string only.",
        ],
    ),
    ("format", "text, binary", "", &["How the value is written: numbers and boolean."]),
    (
        "range",
        "text",
        "",
        &["The interval that the value must be in, such as `[1,10)`: numbers only."],
    ),
    (
        "multiple",
        "text",
        "",
        &["The value must be a multiple of this number, which is greater than 0: numbers", "only."],
    ),
];

impl ConfigType for Governance {
    fn kind() -> String {
        "table".to_owned()
    }

    fn toml(&self) -> Option<String> {
        None
    }
}

impl Route {
    /// Compiles the models of the route, whose schema files have been read; `None` if it has none.
    ///
    /// # Errors
    /// The endpoint has no WebSocket messages, or no `sent` messages to check, or the model is
    /// invalid. The key in the error is relative to the route.
    pub fn compile_models(&self, catalogs: &[Catalog]) -> Result<Option<ModelRules>, Error> {
        if self.model == Governance::default() {
            return Ok(None);
        }
        if !self.endpoint.has_sockets() {
            let problem = "this endpoint has no WebSocket messages".to_owned();
            return Err(Error::keyed("model", Problem::Other(problem)));
        }
        let rules = ModelRules::new(&self.model, catalogs)
            .map_err(|bad| Error::keyed(bad.key, Problem::Other(bad.problem)).under("model"))?;
        let sends = matches!(self.endpoint, EndpointKind::Echo | EndpointKind::Proxy);
        if rules.govern_sent() && !sends {
            let problem = "only the endpoints `echo` and `proxy` accept this key; use `received`";
            return Err(Error::keyed("model.sent", Problem::Other(problem.to_owned())));
        }
        Ok(Some(rules))
    }
}
