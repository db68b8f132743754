//! The models of routes: their keys in the reference, and their check.

use super::route::{EndpointKind, Route};
use crate::model::ModelRules;
use crate::model::spec::{Catalog, Governance, ModelKind, OnMiss, Spec, Validate};
use crate::settings::error::{Error, Problem};

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

/// A model with the defaults of its keys, for the reference.
pub(super) fn example_model() -> Spec {
    Spec {
        model: ModelKind::Json,
        validate: Validate::default(),
        catalog: None,
        subject: None,
        version: "latest".to_owned(),
        strategy: None,
        on_miss: Some(OnMiss::default()),
        prefix: None,
        id: None,
        record: None,
        view: None,
        encoding: None,
        min_length: None,
        max_length: None,
        pattern: None,
        format: None,
        range: None,
        multiple: None,
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
