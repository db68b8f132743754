//! Fetches schemas from schema registries and compiles them, away from the reactors. Each request
//! has a timeout, and each response a maximum size.
//!
//! Three APIs are supported: that of Confluent's Schema Registry (which Karapace also offers), and
//! versions 2 and 3 of Apicurio Registry's REST API. Redirects are not followed.

mod answer;
mod apicurio;
mod confluent;

use super::authorities::Authorities;
use super::client::{FetchedResponse, Target};
use super::job::{Job, JobKind, JobSetup, Turn};
use super::results::Results;
use crate::dialect::Env;
use crate::model::spec::{Catalog, CatalogKind, ModelKind};
use crate::model::{
    Doc, FetchFailure, Registries, Schema, SchemaFetch, SchemaId, SchemaLookup, SchemaRef,
};
use crate::stats::Counters;
use answer::json;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Timeout of one request.
const ANSWER: Duration = Duration::from_secs(4);
/// Timeout of all requests for a schema and its references.
const LOOK_UP: Duration = Duration::from_secs(10);
/// The maximum size of one response body, in bytes.
const ANSWER_BYTES: usize = 512 * 1024;
/// The maximum size of a schema with all its references, in bytes.
const TEXT_BYTES: usize = 512 * 1024;
/// The maximum number of direct and indirect references of a schema.
const REFERENCES: usize = 32;
/// The maximum depth of the references.
const DEPTH: usize = 8;

/// The outcome of a schema fetch; `Ok(None)` means that the known schema is still the current one.
type SchemaOutcome = Result<Option<Arc<Schema>>, FetchFailure>;

pub(super) const JOB: JobKind = JobKind { is_needed, start };

fn is_needed(env: &Env) -> bool {
    !env.runtime.registries.places().is_empty()
}

fn start(setup: &mut JobSetup) -> io::Result<Box<dyn Job>> {
    let (registries, notifier) = (setup.env.runtime.registries.clone(), setup.notifier.clone());
    let done = Results::new(&notifier);
    registries.notifier().attach(move || notifier.notify());
    let (counters, authorities) = (setup.counters.clone(), setup.authorities.clone());
    Ok(Box::new(SchemaJob { registries, counters, done, authorities }))
}

/// The schema fetches of all registries.
struct SchemaJob {
    registries: Arc<Registries>,
    counters: Arc<Counters>,
    done: Results<(SchemaFetch, SchemaOutcome)>,
    /// The system's certificate authorities.
    authorities: Rc<Authorities>,
}

impl Job for SchemaJob {
    fn turn(&mut self, turn: &mut Turn<'_>) {
        for (job, outcome) in self.done.take() {
            self.report(&job, outcome, turn.now_ms);
        }
        for place in self.registries.places() {
            for job in place.due(turn.now_ms) {
                let target = target(&place.catalog, &self.authorities);
                let done = self.done.clone();
                tokio::task::spawn_local(async move {
                    let outcome = match target {
                        Some(target) => look_up(&target, &job).await,
                        None => {
                            Err(FetchFailure::Failed("its URL or ca_file is invalid".to_owned()))
                        }
                    };
                    done.put((job, outcome));
                });
            }
        }
    }

    fn deadline_ms(&self, turn: &Turn<'_>) -> u64 {
        let places = self.registries.places();
        places.iter().map(|place| place.deadline_ms(turn.now_ms)).min().unwrap_or(u64::MAX)
    }
}

impl SchemaJob {
    fn report(&self, job: &SchemaFetch, outcome: SchemaOutcome, now_ms: u64) {
        let (catalog, what) = (&job.place.catalog.name, &job.what);
        let found = match &outcome {
            Ok(schema) => Ok(schema.as_ref().map(|schema| schema.id)),
            Err(failure) => Err(failure.clone()),
        };
        let outcome = job.place.outcome(job, outcome, now_ms);
        let event = event(job.place.catalog.kind, what, &outcome);
        match &found {
            Ok(Some(id)) => tracing::info!(event, catalog, %what, id, "a schema was fetched"),
            Ok(None) => {}
            // Logged at debug level, because clients can send any schema id.
            Err(FetchFailure::NotFound) if matches!(what, SchemaRef::Id(_)) => {
                tracing::debug!(event, catalog, %what, "the registry has no schema with this id");
            }
            Err(failure) => {
                tracing::warn!(event, catalog, %what, %failure, "a schema cannot be fetched")
            }
        }
        let bad = matches!(found, Err(FetchFailure::Bad(_)));
        self.counters.schemas_bad.add(bad.into());
        match outcome {
            SchemaLookup::Retrieved => self.counters.schemas_retrieved.add(1),
            SchemaLookup::Failed { stale } => {
                self.counters.schemas_unretrievable.add((!bad).into());
                self.counters.schemas_stale.add(stale.into());
            }
        }
    }
}

/// The name that Zilla gives to this outcome in its event log.
fn event(kind: CatalogKind, what: &SchemaRef, outcome: &SchemaLookup) -> String {
    let (registry, one) = match kind {
        CatalogKind::Apicurio => ("APICURIO_REGISTRY", "ARTIFACT"),
        _ => ("SCHEMA_REGISTRY", "SCHEMA"),
    };
    let by = match what {
        SchemaRef::Id(_) => "ID",
        SchemaRef::Subject { .. } => "SUBJECT_VERSION",
    };
    match outcome {
        SchemaLookup::Retrieved => format!("CATALOG_{registry}_RETRIEVED_{one}_{by}"),
        SchemaLookup::Failed { stale: false } => {
            format!("CATALOG_{registry}_UNRETRIEVABLE_{one}_{by}")
        }
        SchemaLookup::Failed { stale: true } => {
            format!("CATALOG_{registry}_UNRETRIEVABLE_{one}_{by}_STALE_{one}")
        }
    }
}

fn target(catalog: &Catalog, system: &Rc<Authorities>) -> Option<Target> {
    let mut fields = HeaderMap::new();
    let authorization = catalog.credentials.headers.authorization.expose();
    if !authorization.is_empty() {
        fields.insert(AUTHORIZATION, HeaderValue::from_str(authorization).ok()?);
    }
    // Private addresses are allowed, because the operator configures the URL.
    Target::new(&catalog.url, fields, true, &catalog.ca_file, system)
}

async fn look_up(target: &Target, job: &SchemaFetch) -> SchemaOutcome {
    let mut look_up = LookUp { target, catalog: &job.place.catalog, bytes: 0 };
    let late = || FetchFailure::Failed("the registry has not answered in time".to_owned());
    let found = tokio::time::timeout(LOOK_UP, look_up.run(job)).await;
    let Some((id, doc)) = found.map_err(|_| late())?? else { return Ok(None) };
    let shape = job.shape.clone();
    // Compiling can take long, so it runs on a blocking thread. A panic in it becomes a failure.
    let compiled = tokio::task::spawn_blocking(move || shape.compile(&doc)).await;
    let bad = |reason: String| FetchFailure::Bad(reason);
    let model = compiled.map_err(|_| bad("it cannot be compiled".to_owned()))?;
    let model = model.map_err(|error| bad(error.to_string()))?;
    Ok(Some(Arc::new(Schema { id, model })))
}

/// The fetch of one schema and its references.
struct LookUp<'l> {
    target: &'l Target,
    catalog: &'l Catalog,
    /// Bytes of all schema texts so far.
    bytes: usize,
}

/// A reference from one schema to another: the name used in the referring schema, and the location
/// of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reference {
    name: String,
    /// The artifact group in Apicurio; empty for other registries.
    group: String,
    subject: String,
    version: String,
}

impl From<confluent::ConfluentReference> for Reference {
    fn from(it: confluent::ConfluentReference) -> Reference {
        let version = match it.version {
            -1 => "latest".to_owned(),
            version => version.to_string(),
        };
        Reference { name: it.name, group: String::new(), subject: it.subject, version }
    }
}

impl From<apicurio::ApicurioReference> for Reference {
    fn from(it: apicurio::ApicurioReference) -> Reference {
        let (group, version) = (it.group().to_owned(), it.version().to_owned());
        Reference { name: it.name, group, subject: it.artifact_id, version }
    }
}

impl LookUp<'_> {
    /// Fetches a schema's id, text and references. Returns `None` if the id is the known one.
    async fn run(&mut self, job: &SchemaFetch) -> Result<Option<(SchemaId, Doc)>, FetchFailure> {
        let kind = job.shape.kind;
        let id = match &job.what {
            SchemaRef::Id(id) => *id,
            SchemaRef::Subject { name, version } => self.named(name, version, kind).await?,
        };
        if job.known == Some(id) {
            return Ok(None);
        }
        let (text, references) = self.numbered(id, kind).await?;
        let references = self.all(references, kind).await?;
        Ok(Some((id, Doc { text, references })))
    }

    /// Fetches the schema id for a name and a version.
    async fn named(
        &self,
        name: &str,
        version: &str,
        kind: ModelKind,
    ) -> Result<SchemaId, FetchFailure> {
        if !self.is_apicurio() {
            let found = self.get(&confluent::version_path(self.catalog, name, version)).await?;
            let found: confluent::SubjectVersion = json(&found.body)?;
            fits(found.text.kind(), kind)?;
            return Ok(found.id.0);
        }
        let (api, use_id) = (self.api(), self.catalog.use_id.unwrap_or_default());
        let path = api.metadata(apicurio::group(self.catalog), name, version);
        let (id, found) = api.number(&self.get(&path).await?.body, use_id)?;
        fits(&found, kind)?;
        Ok(id)
    }

    /// Fetches the text and the references of a schema by its id.
    async fn numbered(
        &mut self,
        id: SchemaId,
        kind: ModelKind,
    ) -> Result<(String, Vec<Reference>), FetchFailure> {
        if self.is_apicurio() {
            let use_id = self.catalog.use_id.unwrap_or_default();
            return self.artifact(self.api().by_number(use_id, id), kind).await;
        }
        let found = self.get(&confluent::id_path(self.catalog, id)).await?;
        self.registered(json(&found.body)?, kind)
    }

    /// Fetches the name and text of all direct and indirect references. Each comes after the
    /// references of its own.
    async fn all(
        &mut self,
        references: Vec<Reference>,
        kind: ModelKind,
    ) -> Result<Vec<(String, String)>, FetchFailure> {
        let bad = |reason: &str| FetchFailure::Bad(reason.to_owned());
        let mut texts = Vec::new();
        // A stack: the last entry is next. An entry that has its text is output, as all its
        // references were output before.
        let mut left: Vec<_> = references.into_iter().rev().map(|it| (it, 1, None)).collect();
        let mut begun: Vec<String> = Vec::new();
        while let Some((reference, depth, text)) = left.pop() {
            if let Some(text) = text {
                texts.push((reference.name, text));
                continue;
            }
            if begun.contains(&reference.name) {
                if texts.iter().any(|(name, _)| *name == reference.name) {
                    continue;
                }
                return Err(bad("it refers to itself"));
            }
            if begun.len() >= REFERENCES || depth > DEPTH {
                return Err(bad("it has too many references, or they are nested too deeply"));
            }
            begun.push(reference.name.clone());
            let (text, further) = self.referred(&reference, kind).await?;
            left.push((reference, depth, Some(text)));
            left.extend(further.into_iter().rev().map(|it| (it, depth + 1, None)));
        }
        Ok(texts)
    }

    async fn referred(
        &mut self,
        reference: &Reference,
        kind: ModelKind,
    ) -> Result<(String, Vec<Reference>), FetchFailure> {
        let Reference { group, subject, version, .. } = reference;
        if self.is_apicurio() {
            return self.artifact(self.api().by_version(group, subject, version), kind).await;
        }
        let found = self.get(&confluent::version_path(self.catalog, subject, version)).await?;
        let found: confluent::SubjectVersion = json(&found.body)?;
        self.registered(found.text, kind)
    }

    /// Fetches the text and the references of an Apicurio artifact. Registries before version 2.3
    /// have no references, and answer 404.
    async fn artifact(
        &mut self,
        places: apicurio::Places,
        kind: ModelKind,
    ) -> Result<(String, Vec<Reference>), FetchFailure> {
        let found = self.get(&places.content).await?;
        answer::check_content(&found)?;
        if let Some(found) = answer::artifact_type(&found) {
            fits(found, kind)?;
        }
        let text = self.text(found.body.to_vec())?;
        let found = self.fetch(&places.references).await?;
        let references: Vec<apicurio::ApicurioReference> = match found.status {
            StatusCode::OK => json(&found.body)?,
            StatusCode::NOT_FOUND => Vec::new(),
            _ => return Err(self.failure(&found)),
        };
        Ok((text, references.into_iter().map(Reference::from).collect()))
    }

    /// Checks a Confluent schema and returns its text and references.
    fn registered(
        &mut self,
        found: confluent::SchemaText,
        kind: ModelKind,
    ) -> Result<(String, Vec<Reference>), FetchFailure> {
        fits(found.kind(), kind)?;
        let (text, references) = found.into_parts();
        let text = self.text(text.into_bytes())?;
        Ok((text, references.into_iter().map(Reference::from).collect()))
    }

    fn text(&mut self, text: Vec<u8>) -> Result<String, FetchFailure> {
        self.bytes += text.len();
        if self.bytes > TEXT_BYTES {
            return Err(FetchFailure::Bad(
                "it is too large together with its references".to_owned(),
            ));
        }
        let strange = |_| FetchFailure::Failed("the text is not UTF-8".to_owned());
        String::from_utf8(text).map_err(strange)
    }

    fn is_apicurio(&self) -> bool {
        self.catalog.kind == CatalogKind::Apicurio
    }

    fn api(&self) -> apicurio::Api {
        apicurio::Api::of(self.catalog)
    }

    /// Sends a GET request and returns the response, whatever its status is.
    async fn fetch(&self, path: &str) -> Result<FetchedResponse, FetchFailure> {
        let path = format!("{}{path}", self.target.path().trim_end_matches('/'));
        let answer = self.target.get_at(&path, ANSWER_BYTES, ANSWER).await;
        answer.map_err(|error| FetchFailure::Failed(error.to_string()))
    }

    /// Sends a GET request and returns the response if its status is 200.
    async fn get(&self, path: &str) -> Result<FetchedResponse, FetchFailure> {
        let answer = self.fetch(path).await?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            _ => Err(self.failure(&answer)),
        }
    }

    /// The failure that a response with another status than 200 means.
    fn failure(&self, answer: &FetchedResponse) -> FetchFailure {
        answer::failure(answer, |body| match self.is_apicurio() {
            true => self.api().message(body),
            false => confluent::message(body),
        })
    }
}

/// Checks that the schema type `found` is the one for a model of `kind`.
fn fits(found: &str, kind: ModelKind) -> Result<(), FetchFailure> {
    let wanted = match kind {
        ModelKind::Json => "JSON",
        ModelKind::Avro => "AVRO",
        _ => "PROTOBUF",
    };
    match found == wanted {
        true => Ok(()),
        false => Err(FetchFailure::Bad(format!("its type is {found}, not {wanted}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_events_have_the_names_of_zilla() {
        let subject = SchemaRef::Subject { name: "chat".to_owned(), version: "latest".to_owned() };
        let (stale, none) =
            (SchemaLookup::Failed { stale: true }, SchemaLookup::Failed { stale: false });
        for (kind, what, outcome, want) in [
            (
                CatalogKind::SchemaRegistry,
                &SchemaRef::Id(7),
                &SchemaLookup::Retrieved,
                "RETRIEVED_SCHEMA_ID",
            ),
            (CatalogKind::SchemaRegistry, &SchemaRef::Id(7), &none, "UNRETRIEVABLE_SCHEMA_ID"),
            (
                CatalogKind::SchemaRegistry,
                &subject,
                &SchemaLookup::Retrieved,
                "RETRIEVED_SCHEMA_SUBJECT_VERSION",
            ),
            (
                CatalogKind::SchemaRegistry,
                &subject,
                &stale,
                "UNRETRIEVABLE_SCHEMA_SUBJECT_VERSION_STALE_SCHEMA",
            ),
            (
                CatalogKind::Apicurio,
                &SchemaRef::Id(7),
                &SchemaLookup::Retrieved,
                "RETRIEVED_ARTIFACT_ID",
            ),
            (
                CatalogKind::Apicurio,
                &subject,
                &stale,
                "UNRETRIEVABLE_ARTIFACT_SUBJECT_VERSION_STALE_ARTIFACT",
            ),
        ] {
            let registry = match kind {
                CatalogKind::Apicurio => "APICURIO_REGISTRY",
                _ => "SCHEMA_REGISTRY",
            };
            assert_eq!(event(kind, what, outcome), format!("CATALOG_{registry}_{want}"));
        }
    }
}
