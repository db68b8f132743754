//! The compiled models of a route, and the checks of its messages.

use super::build::{Wrong, prefix_of};
use super::prefix::{push_indexes, split_indexes};
use super::registry::Registries;
use super::source::SchemaSource;
use super::spec::{
    Catalog, CatalogKind, Direction, Governance, ModelKind, OnInvalid, OnMiss, PrefixKind, Spec,
    Validate,
};
use super::{Invalid, Model, Prefix, SchemaId};
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The compiled models of a route: what the payload of its messages must be.
#[derive(Debug)]
pub struct ModelRules {
    received: Pair,
    sent: Pair,
    on_invalid: OnInvalid,
}

#[derive(Debug)]
struct Pair {
    text: Option<Bound>,
    binary: Option<Bound>,
}

/// A model with its schema source, its prefix and its options.
#[derive(Debug)]
struct Bound {
    kind: ModelKind,
    source: SchemaSource,
    lenient: bool,
    view: bool,
    prefix: Option<Prefix>,
    /// Whether Confluent's message indexes follow the schema id. They select the Protobuf message
    /// type.
    is_indexed: bool,
}

/// The type of a message (RFC 6455 section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// A text message.
    Text,
    /// A binary message.
    Binary,
}

/// A message that passed its model, as it is processed further.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed<'m> {
    /// The type of the message after conversion.
    pub kind: PayloadKind,
    /// The payload after conversion, without a prefix if it was received.
    pub payload: Cow<'m, [u8]>,
    /// Whether the message breaks a rule of its schema and passes because the model is lenient.
    pub broken: bool,
    /// Whether the schema is not available and the message passes unchanged because of `on_miss`.
    pub missed: bool,
}

/// An error in the configuration of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct BadSpec {
    /// The path of the key, relative to the route's models.
    pub key: String,
    /// What is wrong with its value.
    pub problem: String,
}

/// The model rules of one connection. The connection keeps them when a reload changes its route,
/// and the schemas that they use are refreshed meanwhile.
#[derive(Debug)]
pub struct RuleSet {
    rules: Arc<ModelRules>,
    /// A number of the connection, unique in the process. A registry limits the queued schema
    /// fetches of each connection by this number.
    requester: u64,
}

impl RuleSet {
    /// Takes the rules for a new connection and adds it as a user of their schemas.
    pub fn new(rules: Arc<ModelRules>) -> RuleSet {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        rules.bounds().for_each(|bound| bound.source.hold());
        RuleSet { rules, requester: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Checks and converts a message from the client as [`ModelRules::receive`] does, on behalf of
    /// this connection.
    ///
    /// # Errors
    /// The message is invalid, or its schema is not available.
    pub fn receive<'m>(&self, kind: PayloadKind, message: &'m [u8]) -> Result<Passed<'m>, Invalid> {
        self.rules.receive_for(self.requester, kind, message)
    }

    /// Whether a received message has to wait for its schema: the model says so with `on_miss`, and
    /// the schema is not available yet and may still be fetched.
    pub fn await_schema(&self, kind: PayloadKind, message: &[u8]) -> bool {
        self.rules.await_schema(self.requester, kind, message)
    }
}

impl Deref for RuleSet {
    type Target = ModelRules;

    fn deref(&self) -> &ModelRules {
        &self.rules
    }
}

impl Drop for RuleSet {
    fn drop(&mut self) {
        self.rules.retire();
    }
}

impl<'m> Passed<'m> {
    fn as_is(kind: PayloadKind, message: &'m [u8]) -> Passed<'m> {
        Passed { kind, payload: Cow::Borrowed(message), broken: false, missed: false }
    }
}

impl ModelRules {
    /// Compiles the models of `governance`. Their schemas come from `catalogs`, whose files have
    /// been read.
    ///
    /// # Errors
    /// A key is not valid for its kind of model, has an invalid value or is missing, or a schema is
    /// missing or invalid.
    pub fn new(governance: &Governance, catalogs: &[Catalog]) -> Result<ModelRules, BadSpec> {
        let pair = |name: &str, direction: &Direction| {
            let bound = |kind: &str, spec: &Option<Spec>| {
                let place =
                    |(key, problem)| BadSpec { key: format!("{name}.{kind}{key}"), problem };
                spec.as_ref().map(|spec| Bound::new(spec, catalogs).map_err(place)).transpose()
            };
            let (text, binary) = (&direction.text, &direction.binary);
            Ok(Pair { text: bound("text", text)?, binary: bound("binary", binary)? })
        };
        for (kind, spec) in [("text", &governance.sent.text), ("binary", &governance.sent.binary)] {
            if spec.as_ref().is_some_and(|spec| spec.strategy.is_some()) {
                let problem = "sent messages have no schema id yet; use `subject`".to_owned();
                return Err(BadSpec { key: format!("sent.{kind}.strategy"), problem });
            }
        }
        Ok(ModelRules {
            received: pair("received", &governance.received)?,
            sent: pair("sent", &governance.sent)?,
            on_invalid: governance.on_invalid,
        })
    }

    fn bounds(&self) -> impl Iterator<Item = &Bound> {
        let ModelRules { received, sent, .. } = self;
        [&received.text, &received.binary, &sent.text, &sent.binary].into_iter().flatten()
    }

    /// Applies the rules: from now on `registries` keeps the schemas fetched that they use.
    pub fn bind(&self, registries: &Registries) {
        self.bounds().for_each(|bound| bound.source.bind(registries));
    }

    /// Ends one use of the rules. Their schemas are refreshed only while there are other users.
    pub fn retire(&self) {
        self.bounds().for_each(|bound| bound.source.release());
    }

    /// Whether the rules use schemas of a registry.
    pub fn need_registry(&self) -> bool {
        self.bounds().any(|bound| bound.source.is_remote())
    }

    /// What happens to a message that does not pass.
    pub fn on_invalid(&self) -> OnInvalid {
        self.on_invalid
    }

    /// Whether messages to clients are checked.
    pub fn govern_sent(&self) -> bool {
        self.sent.text.is_some() || self.sent.binary.is_some()
    }

    /// Checks a complete message from a client and converts it for the endpoint.
    ///
    /// # Errors
    /// The message is invalid, or its schema is not available.
    pub fn receive<'m>(&self, kind: PayloadKind, message: &'m [u8]) -> Result<Passed<'m>, Invalid> {
        self.receive_for(0, kind, message)
    }

    fn receive_for<'m>(
        &self,
        requester: u64,
        kind: PayloadKind,
        message: &'m [u8],
    ) -> Result<Passed<'m>, Invalid> {
        let bound = match kind {
            PayloadKind::Text => &self.received.text,
            PayloadKind::Binary => &self.received.binary,
        };
        match bound {
            Some(bound) => bound.receive(requester, kind, message).inspect_err(|it| bound.note(it)),
            None => Ok(Passed::as_is(kind, message)),
        }
    }

    fn await_schema(&self, requester: u64, kind: PayloadKind, message: &[u8]) -> bool {
        let bound = match kind {
            PayloadKind::Text => &self.received.text,
            PayloadKind::Binary => &self.received.binary,
        };
        let Some(Bound { source, prefix: Some(prefix), .. }) = bound else { return false };
        let SchemaSource::Encoded(remote, OnMiss::Wait) = source else { return false };
        let found = prefix.split(message).and_then(|(id, _)| remote.of(requester, id));
        found.is_err_and(|invalid| invalid.missing)
    }

    /// Checks a complete message to a client and converts it for the client.
    ///
    /// # Errors
    /// The message is invalid, or its schema is not available.
    pub fn send<'m>(&self, kind: PayloadKind, message: &'m [u8]) -> Result<Passed<'m>, Invalid> {
        let view = self.sent.binary.as_ref().filter(|bound| bound.view);
        let bound = match kind {
            PayloadKind::Text => view.or(self.sent.text.as_ref()),
            PayloadKind::Binary => self.sent.binary.as_ref(),
        };
        match bound {
            Some(bound) => bound.send(kind, message).inspect_err(|it| bound.note(it)),
            None => Ok(Passed::as_is(kind, message)),
        }
    }
}

impl Bound {
    fn new(spec: &Spec, catalogs: &[Catalog]) -> Result<Bound, Wrong> {
        if let Some(key) = spec.strange_key() {
            let problem = format!("a model of this kind does not accept the key `{key}`");
            return Err((format!(".{key}"), problem));
        }
        let (lenient, view) = (spec.validate == Validate::Lenient, spec.view.is_some());
        // Only Confluent's format has message indexes.
        let is_confluent = spec.prefix == Some(PrefixKind::Confluent);
        if let Some(catalog) = spec.registry(catalogs) {
            let (source, prefix) = spec.remote(catalog)?;
            let is_theirs = is_confluent || catalog.kind == CatalogKind::SchemaRegistry;
            let is_indexed = spec.model == ModelKind::Protobuf && prefix.is_some() && is_theirs;
            return Ok(Bound { kind: spec.model, source, lenient, view, prefix, is_indexed });
        }
        for (key, given) in
            [("strategy", spec.strategy.is_some()), ("on_miss", spec.on_miss.is_some())]
        {
            if given {
                return Err((
                    format!(".{key}"),
                    "the key is accepted only if the catalog is a registry".into(),
                ));
            }
        }
        let model = Box::new(spec.model(catalogs)?);
        let (prefix, id) = match (spec.prefix, spec.id) {
            (None, None) => (None, 0),
            (Some(kind), Some(id)) => (Some(prefix_of(kind, id)?), id),
            (Some(_), None) => {
                return Err((
                    ".id".to_owned(),
                    "the key is required if `prefix` is set".to_owned(),
                ));
            }
            (None, Some(_)) => {
                return Err((
                    ".prefix".to_owned(),
                    "the key is required if `id` is set".to_owned(),
                ));
            }
        };
        let is_indexed = spec.model == ModelKind::Protobuf && is_confluent;
        let source = SchemaSource::Here(model, id);
        Ok(Bound { kind: spec.model, source, lenient, view, prefix, is_indexed })
    }

    /// Logs why a message does not pass. The thread that fetches schemas logs that one is missing.
    fn note(&self, invalid: &Invalid) {
        if !invalid.missing {
            let (event, reason) = (self.kind.event(), &invalid.reason);
            tracing::debug!(event, reason, "a message is invalid");
        }
    }

    fn receive<'m>(
        &self,
        requester: u64,
        kind: PayloadKind,
        message: &'m [u8],
    ) -> Result<Passed<'m>, Invalid> {
        let (found, body) = match self.prefix.map(|prefix| prefix.split(message)).transpose()? {
            Some((found, body)) => (Some(found), body),
            None => (None, message),
        };
        let of_id = |id: SchemaId| match found {
            Some(found) if found != id => {
                Err(Invalid::broken(format_args!("unknown schema {found}")))
            }
            _ => Ok(()),
        };
        match &self.source {
            SchemaSource::Here(model, id) => of_id(*id).and_then(|()| self.take(model, kind, body)),
            SchemaSource::Named(remote) => {
                let schema = remote.current()?;
                of_id(schema.id).and_then(|()| self.take(&schema.model, kind, body))
            }
            SchemaSource::Encoded(remote, on_miss) => {
                match remote.of(requester, found.unwrap_or_default()) {
                    Ok(schema) => self.take(&schema.model, kind, body),
                    Err(_) if *on_miss == OnMiss::Pass => {
                        Ok(Passed { missed: true, ..Passed::as_is(kind, message) })
                    }
                    Err(invalid) => Err(invalid),
                }
            }
        }
    }

    fn take<'m>(
        &self,
        model: &Model,
        kind: PayloadKind,
        body: &'m [u8],
    ) -> Result<Passed<'m>, Invalid> {
        match model {
            Model::Protobuf(records) if self.is_indexed => {
                let (indexes, body) = split_indexes(body)?;
                self.take_body(&Model::Protobuf(records.at(&indexes)?), kind, body)
            }
            _ => self.take_body(model, kind, body),
        }
    }

    fn take_body<'m>(
        &self,
        model: &Model,
        kind: PayloadKind,
        body: &'m [u8],
    ) -> Result<Passed<'m>, Invalid> {
        if self.view {
            let payload = Cow::Owned(model.to_json(body)?);
            return Ok(Passed { kind: PayloadKind::Text, payload, broken: false, missed: false });
        }
        Ok(Passed { broken: self.check(model, body)?, ..Passed::as_is(kind, body) })
    }

    fn send<'m>(&self, kind: PayloadKind, message: &'m [u8]) -> Result<Passed<'m>, Invalid> {
        match &self.source {
            SchemaSource::Here(model, id) => self.give(model, *id, kind, message),
            SchemaSource::Named(remote) | SchemaSource::Encoded(remote, _) => {
                let schema = remote.current()?;
                self.give(&schema.model, schema.id, kind, message)
            }
        }
    }

    fn give<'m>(
        &self,
        model: &Model,
        id: SchemaId,
        kind: PayloadKind,
        message: &'m [u8],
    ) -> Result<Passed<'m>, Invalid> {
        let (kind, body, broken) = match self.view && kind == PayloadKind::Text {
            true => (PayloadKind::Binary, Cow::Owned(model.encode_json(message)?), false),
            false => (kind, Cow::Borrowed(message), self.check(model, message)?),
        };
        let Some(prefix) = self.prefix else {
            return Ok(Passed { kind, payload: body, broken, missed: false });
        };
        if !prefix.holds(id) {
            return Err(Invalid::broken("the schema id does not fit into the prefix"));
        }
        let mut payload = Vec::with_capacity(body.len() + 9);
        prefix.push(id, &mut payload);
        if let Model::Protobuf(record) = model
            && self.is_indexed
        {
            push_indexes(&record.indexes(), &mut payload);
        }
        payload.extend_from_slice(&body);
        Ok(Passed { kind, payload: Cow::Owned(payload), broken, missed: false })
    }

    /// Checks the message. Returns whether it passes although it breaks a rule.
    fn check(&self, model: &Model, message: &[u8]) -> Result<bool, Invalid> {
        match model.check(message) {
            Ok(()) => Ok(false),
            Err(invalid) if self.lenient && !invalid.malformed && !invalid.costly => Ok(true),
            Err(invalid) => Err(invalid),
        }
    }
}

#[cfg(test)]
mod tests;
