//! The cache of registry schemas: which schemas are needed, which have been fetched, and when each
//! is fetched again.
//!
//! A schema that a route names is kept at its last fetched version. Schemas that messages name by
//! id are kept in a bounded cache, which evicts the least recently used. The thread that fetches
//! takes [`SchemaFetch`]s from each [`RegistryHandle`] and reports their outcomes. Time is an
//! argument of the functions here.

use super::spec::{Catalog, ModelKind};
use super::{Avro, BadSchema, JsonModel, Model, Protobuf, SchemaId};
use crate::mem::Notifier;
use crate::time::{RateLimit, RefreshSchedule};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The maximum number of schemas that are cached by id, for each registry. The least recently used
/// is evicted.
const MAX_CACHED: usize = 1024;
/// The maximum number of ids whose fetch failed and that are remembered, for each registry.
const MAX_FAILED: usize = 1024;
/// How long an id whose fetch failed is not fetched again, in milliseconds.
const FAILED_RETRY_MS: u64 = 10_000;
/// The maximum number of ids that wait to be fetched, for each registry.
const MAX_QUEUED: usize = 64;
/// The maximum number of ids that wait to be fetched for one connection. It leaves room for other
/// connections if one sends ids that do not exist.
const SHARE: usize = 8;
/// The maximum number of evicted ids that are remembered, for each registry. They are known to
/// exist, so they are fetched before other ids.
const MAX_EVICTED: usize = 1024;
/// The maximum number of ids that are fetched in one second, for each registry. Clients can send
/// any number of ids that do not exist.
const MAX_FETCHES_PER_S: u32 = 32;
/// The maximum number of concurrent fetches from one registry.
const AT_ONCE: usize = 4;
/// The delay before the first retry of a failed fetch of a route's schema, in milliseconds. It
/// doubles with each failure, up to the catalog's maximum age.
const RETRY_MS: u64 = 1000;

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

/// The current version of a schema that routes name.
#[derive(Debug)]
pub(super) struct SchemaCell {
    what: SchemaRef,
    shape: Shape,
    current: Mutex<Option<Arc<Schema>>>,
    /// The number of routes and connections that use the schema. It is refreshed while there are
    /// any.
    users: AtomicUsize,
}

impl SchemaCell {
    /// Adds a user of the schema.
    pub(super) fn hold(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes a user of the schema.
    pub(super) fn release(&self) {
        let less = |users: usize| users.checked_sub(1);
        let _ = self.users.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn is_wanted(&self) -> bool {
        self.users.load(Ordering::Relaxed) > 0
    }

    pub(super) fn current(&self) -> Option<Arc<Schema>> {
        lock(&self.current).clone()
    }
}

/// Why a schema could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailure {
    /// The registry has no such schema.
    #[error("the registry does not have it")]
    NotFound,
    /// The registry was not reached, or its response was not one of a registry.
    #[error("it cannot be fetched: {0}")]
    Failed(String),
    /// The registry's response has no valid schema.
    #[error("the schema is invalid: {0}")]
    Bad(String),
}

/// The result of a lookup of a schema id.
#[derive(Debug)]
pub enum Find {
    /// The schema is in the cache.
    Here(Arc<Schema>),
    /// The registry has no valid schema with this id.
    NotFound,
    /// The schema is not in the cache, and may be fetched later.
    Coming,
}

/// A schema to fetch.
#[derive(Clone, Debug)]
pub struct SchemaFetch {
    /// The registry to fetch it from.
    pub place: Arc<RegistryHandle>,
    /// The schema's subject or id.
    pub what: SchemaRef,
    /// What the text is compiled to.
    pub shape: Shape,
    /// The id of the version that is in use. If the registry answers with the same id, the text
    /// need not be fetched.
    pub known: Option<SchemaId>,
    /// The cell of a schema that a route names; `None` if a message named the schema.
    cell: Option<Arc<SchemaCell>>,
}

/// The result of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaLookup {
    /// The fetch succeeded; the schema is new or unchanged.
    Retrieved,
    /// The fetch failed. An earlier version of the schema stays in use.
    Failed {
        /// Whether there is an earlier version.
        stale: bool,
    },
}

/// The schema id of a message, and the index of the shape that its schema is compiled to.
type Key = (SchemaId, usize);

/// The cache of schemas by id, and the queue of ids to fetch.
#[derive(Debug, Default)]
struct Ids {
    /// The cached schemas, each with the value of `uses` at its last use.
    known: HashMap<Key, (Arc<Schema>, u64)>,
    uses: u64,
    /// The ids whose fetch failed, the oldest first: until when the id is not fetched again, in
    /// milliseconds, and whether the registry has no valid schema with this id.
    failed: VecDeque<(Key, u64, bool)>,
    /// The queue of ids to fetch, the next one in front, each with the connection that needs it.
    queued: VecDeque<(Key, u64)>,
    /// The ids of evicted schemas, the oldest first.
    evicted: VecDeque<Key>,
    busy: Vec<Key>,
    /// Fetches that were begun.
    begun: RateLimit,
}

impl Ids {
    fn find(&mut self, requester: u64, key: Key) -> Find {
        self.uses += 1;
        if let Some((schema, used)) = self.known.get_mut(&key) {
            *used = self.uses;
            return Find::Here(schema.clone());
        }
        if let Some((_, _, is_missing)) = self.failed.iter().find(|(it, ..)| *it == key) {
            return if *is_missing { Find::NotFound } else { Find::Coming };
        }
        let waits = self.busy.contains(&key) || self.queued.iter().any(|(it, _)| *it == key);
        if !waits && self.has_room(requester) {
            match self.evicted.contains(&key) {
                true => self.queued.push_front((key, requester)),
                false => self.queued.push_back((key, requester)),
            }
        }
        Find::Coming
    }

    /// Whether one more id may be queued for the connection `requester`. If the queue is full, the
    /// newest entry of the connection with the most entries is removed, if that connection has at
    /// least two more than `requester`.
    fn has_room(&mut self, requester: u64) -> bool {
        let count = |of: u64| self.queued.iter().filter(|(_, it)| *it == of).count();
        let own = count(requester);
        if own >= SHARE {
            return false;
        }
        if self.queued.len() < MAX_QUEUED {
            return true;
        }
        let largest = self.queued.iter().map(|(_, it)| (count(*it), *it)).max();
        let Some((_, largest)) = largest.filter(|(count, _)| *count > own + 1) else {
            return false;
        };
        let newest = self.queued.iter().rposition(|(_, it)| *it == largest);
        newest.and_then(|at| self.queued.remove(at)).is_some()
    }

    fn put(&mut self, key: Key, schema: Arc<Schema>) {
        if self.known.len() >= MAX_CACHED && !self.known.contains_key(&key) {
            let oldest = self.known.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.known.remove(&oldest);
                if self.evicted.len() >= MAX_EVICTED {
                    self.evicted.pop_front();
                }
                self.evicted.push_back(oldest);
            }
        }
        self.evicted.retain(|it| *it != key);
        self.uses += 1;
        self.known.insert(key, (schema, self.uses));
    }

    fn put_failed(&mut self, key: Key, is_missing: bool, now_ms: u64) {
        if self.failed.len() >= MAX_FAILED {
            self.failed.pop_front();
        }
        self.failed.push_back((key, now_ms + FAILED_RETRY_MS, is_missing));
    }

    /// Takes the next id to fetch from the queue, if the limit of this second allows a fetch.
    fn next(&mut self, now_ms: u64) -> Option<Key> {
        if self.begun.count(now_ms) >= MAX_FETCHES_PER_S {
            return None;
        }
        let (key, _) = self.queued.pop_front()?;
        self.begun.add(1, now_ms);
        self.busy.push(key);
        Some(key)
    }

    fn deadline_ms(&self, now_ms: u64) -> u64 {
        match (self.queued.is_empty(), self.begun.count(now_ms) >= MAX_FETCHES_PER_S) {
            (true, _) => u64::MAX,
            (false, true) => RateLimit::next_second_ms(now_ms),
            (false, false) => 0,
        }
    }
}

/// One registry with its cached schemas, shared by all routes whose catalogs are equal.
pub struct RegistryHandle {
    /// The catalog of the configuration that describes the registry.
    pub catalog: Catalog,
    state: Mutex<State>,
    notifier: Notifier,
}

#[derive(Debug, Default)]
struct State {
    cells: Vec<(Arc<SchemaCell>, RefreshSchedule)>,
    shapes: Vec<Shape>,
    ids: Ids,
}

impl State {
    fn busy(&self) -> usize {
        let cells = self.cells.iter().filter(|(_, schedule)| schedule.is_in_flight());
        cells.count() + self.ids.busy.len()
    }
}

impl fmt::Debug for RegistryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryHandle").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}

impl RegistryHandle {
    pub(super) fn ring(&self) {
        self.notifier.notify();
    }

    /// Looks up the schema with this id. If it is not cached, the id is queued to be fetched for
    /// the connection `requester`. `shape` is an index that [`RegistryHandle::shape`] returned.
    pub(super) fn find(&self, requester: u64, id: SchemaId, shape: usize) -> Find {
        let mut state = lock(&self.state);
        let waited = state.ids.queued.len();
        let found = state.ids.find(requester, (id, shape));
        let asks = state.ids.queued.len() > waited;
        drop(state);
        if asks {
            self.ring();
        }
        found
    }

    /// The cell of a schema that a route names; it is created if there is none. A new cell takes
    /// its current version from `like`, another handle of the same registry.
    pub(super) fn cell(
        &self,
        what: &SchemaRef,
        shape: &Shape,
        like: Option<&RegistryHandle>,
    ) -> Arc<SchemaCell> {
        let same = |cell: &SchemaCell| cell.what == *what && cell.shape == *shape;
        let in_place = |place: &RegistryHandle| {
            let state = lock(&place.state);
            state.cells.iter().map(|(cell, _)| cell).find(|cell| same(cell)).cloned()
        };
        if let Some(cell) = in_place(self) {
            return cell;
        }
        let current = like.and_then(in_place).and_then(|cell| cell.current());
        let (what, shape) = (what.clone(), shape.clone());
        let cell = Arc::new(SchemaCell {
            what,
            shape,
            current: Mutex::new(current),
            users: AtomicUsize::new(0),
        });
        lock(&self.state).cells.push((cell.clone(), RefreshSchedule::default()));
        cell
    }

    /// The index of a shape to which schemas named by messages are compiled. A new shape is added.
    pub(super) fn shape(&self, shape: &Shape) -> usize {
        let shapes = &mut lock(&self.state).shapes;
        shapes.iter().position(|it| it == shape).unwrap_or_else(|| {
            shapes.push(shape.clone());
            shapes.len() - 1
        })
    }

    /// Copies the shapes and the schemas cached by id from another handle of the same registry.
    fn inherit(&self, other: &RegistryHandle) {
        let other = lock(&other.state);
        let mut state = lock(&self.state);
        state.shapes.clone_from(&other.shapes);
        state.ids.known.clone_from(&other.ids.known);
        state.ids.uses = other.ids.uses;
    }

    /// Takes the schemas to fetch now. The caller reports each with [`RegistryHandle::outcome`].
    pub fn due(self: &Arc<RegistryHandle>, now_ms: u64) -> Vec<SchemaFetch> {
        let mut state = lock(&self.state);
        // Remove cells that only this list refers to.
        state
            .cells
            .retain(|(cell, schedule)| schedule.is_in_flight() || Arc::strong_count(cell) > 1);
        while state.ids.failed.front().is_some_and(|(_, until_ms, _)| *until_ms <= now_ms) {
            state.ids.failed.pop_front();
        }
        let mut room = AT_ONCE.saturating_sub(state.busy());
        let mut jobs = Vec::new();
        for (cell, schedule) in &mut state.cells {
            if schedule.due_ms() > now_ms || !cell.is_wanted() {
                continue;
            }
            if room == 0 {
                break;
            }
            room -= 1;
            schedule.begin(now_ms);
            let (what, shape) = (cell.what.clone(), cell.shape.clone());
            let known = cell.current().map(|schema| schema.id);
            jobs.push(SchemaFetch {
                place: self.clone(),
                what,
                shape,
                known,
                cell: Some(cell.clone()),
            });
        }
        while room > 0 {
            let Some((id, shape)) = state.ids.next(now_ms) else { break };
            room -= 1;
            let Some(shape) = state.shapes.get(shape).cloned() else { continue };
            let (place, what) = (self.clone(), SchemaRef::Id(id));
            jobs.push(SchemaFetch { place, what, shape, known: None, cell: None });
        }
        jobs
    }

    /// Stores the outcome of a fetch. `Ok(None)` means that the known version is still the current
    /// one.
    pub fn outcome(
        &self,
        job: &SchemaFetch,
        outcome: Result<Option<Arc<Schema>>, FetchFailure>,
        now_ms: u64,
    ) -> SchemaLookup {
        let mut state = lock(&self.state);
        match &job.cell {
            Some(cell) => self.outcome_of_name(&mut state, cell, outcome, now_ms),
            None => RegistryHandle::outcome_of_id(&mut state, job, outcome, now_ms),
        }
    }

    fn outcome_of_name(
        &self,
        state: &mut State,
        cell: &Arc<SchemaCell>,
        outcome: Result<Option<Arc<Schema>>, FetchFailure>,
        now_ms: u64,
    ) -> SchemaLookup {
        let max_age_ms = self.catalog.max_age_ms();
        let mut cells = state.cells.iter_mut();
        let Some((_, schedule)) = cells.find(|(it, _)| Arc::ptr_eq(it, cell)) else {
            return SchemaLookup::Failed { stale: false };
        };
        schedule.end(outcome.is_ok());
        schedule.set_next(match (&outcome, &cell.what) {
            // The schema of an id never changes.
            (Ok(_), SchemaRef::Id(_)) => u64::MAX,
            _ => now_ms + schedule.wait_ms(RETRY_MS, max_age_ms),
        });
        let mut current = lock(&cell.current);
        match outcome {
            Ok(schema) => {
                *current = schema.or_else(|| current.take());
                SchemaLookup::Retrieved
            }
            Err(_) => SchemaLookup::Failed { stale: current.is_some() },
        }
    }

    fn outcome_of_id(
        state: &mut State,
        job: &SchemaFetch,
        outcome: Result<Option<Arc<Schema>>, FetchFailure>,
        now_ms: u64,
    ) -> SchemaLookup {
        let shape = state.shapes.iter().position(|it| *it == job.shape);
        let (SchemaRef::Id(id), Some(shape)) = (&job.what, shape) else {
            return SchemaLookup::Failed { stale: false };
        };
        let key = (*id, shape);
        state.ids.busy.retain(|busy| *busy != key);
        match outcome {
            Ok(Some(schema)) => {
                state.ids.put(key, schema);
                SchemaLookup::Retrieved
            }
            Ok(None) => SchemaLookup::Failed { stale: false },
            Err(failure) => {
                // Only `Failed` may succeed later: a text that is not a valid schema does not
                // change.
                let is_missing = !matches!(failure, FetchFailure::Failed(_));
                state.ids.put_failed(key, is_missing, now_ms);
                SchemaLookup::Failed { stale: false }
            }
        }
    }

    /// When [`RegistryHandle::due`] is to be called again, in milliseconds; `u64::MAX` if no fetch
    /// is due before a running fetch ends or a schema is needed.
    pub fn deadline_ms(&self, now_ms: u64) -> u64 {
        let state = lock(&self.state);
        if state.busy() >= AT_ONCE {
            return u64::MAX;
        }
        let due = |(cell, schedule): &(Arc<SchemaCell>, RefreshSchedule)| {
            if cell.is_wanted() { schedule.due_ms() } else { u64::MAX }
        };
        let cells = state.cells.iter().map(due).min();
        cells.unwrap_or(u64::MAX).min(state.ids.deadline_ms(now_ms))
    }
}

/// All registries that routes use. It lives as long as the process. A [`RegistryHandle`] lives as
/// long as the routes and connections whose rules refer to it.
#[derive(Default)]
pub struct Registries {
    list: Mutex<Vec<Weak<RegistryHandle>>>,
    notifier: Notifier,
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.places()).finish()
    }
}

impl Registries {
    /// All registries that are in use.
    pub fn places(&self) -> Vec<Arc<RegistryHandle>> {
        let mut list = lock(&self.list);
        list.retain(|place| place.strong_count() > 0);
        list.iter().filter_map(Weak::upgrade).collect()
    }

    /// The handle of the registry that `catalog` describes, which is created if there is none, and
    /// the newest other handle of the same registry, if there is one.
    pub(super) fn place(
        &self,
        catalog: &Catalog,
    ) -> (Arc<RegistryHandle>, Option<Arc<RegistryHandle>>) {
        let places = self.places();
        let alike = |place: &&Arc<RegistryHandle>| {
            place.catalog != *catalog && place.catalog.is_same_place(catalog)
        };
        let like = places.iter().rev().find(alike).cloned();
        if let Some(place) = places.iter().find(|place| place.catalog == *catalog) {
            return (place.clone(), like);
        }
        let (catalog, notifier) = (catalog.clone(), self.notifier.clone());
        let place = Arc::new(RegistryHandle { catalog, state: Mutex::default(), notifier });
        if let Some(like) = &like {
            place.inherit(like);
        }
        self.keep(&place);
        (place, like)
    }

    /// Adds a handle to the list if it is not in it. The handle may be from another `Registries`.
    pub(super) fn keep(&self, place: &Arc<RegistryHandle>) {
        let mut list = lock(&self.list);
        if !list.iter().any(|it| std::ptr::eq(it.as_ptr(), Arc::as_ptr(place))) {
            list.push(Arc::downgrade(place));
        }
    }

    /// Wakes the thread that fetches schemas.
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(feature = "models")]
#[cfg(test)]
mod tests;
