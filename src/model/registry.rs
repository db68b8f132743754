//! Schemas of registries: which are wanted, which are there, and when to ask for them again.
//!
//! Routes know a schema by its name, and get what was fetched last; or messages bring its number,
//! and then those that were used last are kept. Whoever fetches takes [`SchemaFetch`]s from each
//! [`RegistryHandle`]
//! and tells what came of them. Time comes in as an argument.

use super::spec::{Catalog, ModelKind};
use super::{Avro, BadSchema, JsonModel, Model, Protobuf, SchemaId};
use crate::mem::Notifier;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Schemas that are known by their numbers, of one registry; the one unused for longest goes.
const KNOWN: usize = 1024;
/// Numbers that the registry does not know, or not now, of one registry.
const VAIN: usize = 1024;
/// How long such a number is not asked for again, in milliseconds.
const VAIN_MS: u64 = 10_000;
/// Numbers that wait to be asked for.
const ASKED: usize = 64;
/// How many of those are of one connection: one that makes numbers up leaves room for others.
const SHARE: usize = 8;
/// Numbers that had a schema and went for want of room: those are asked for first.
const BELIEVED: usize = 1024;
/// Numbers that are asked for in a second: clients make them up.
const ASKED_PER_S: u32 = 32;
/// Schemas that are fetched from one registry at once.
const AT_ONCE: usize = 4;
/// How soon a schema is fetched again that was not to be had, in milliseconds; doubles each time.
const RETRY_MS: u64 = 1000;

/// A schema's text, and those that it refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doc {
    /// The text.
    pub text: String,
    /// Other texts, by what they are called in it, each behind those that it refers to itself.
    pub references: Vec<(String, String)>,
}

/// What is to be made of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// A model with a schema.
    pub kind: ModelKind,
    /// The type of message, of protobuf.
    pub record: Option<String>,
}

impl Shape {
    /// Makes a model of a text.
    ///
    /// # Errors
    /// It is no schema of that kind.
    pub fn compile(&self, doc: &Doc) -> Result<Model, BadSchema> {
        let Doc { text, references } = doc;
        match self.kind {
            ModelKind::Json => JsonModel::with(text, references).map(Model::Json),
            ModelKind::Avro => Avro::with(text, references).map(Model::Avro),
            ModelKind::Protobuf => {
                Protobuf::with(text, references, self.record.as_deref()).map(Model::Protobuf)
            }
            _ => Err(BadSchema::new("no model with a schema")),
        }
    }
}

/// How a schema is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaRef {
    /// By its name, and a version or `latest`.
    Subject {
        /// The name.
        name: String,
        /// The version.
        version: String,
    },
    /// By the registry's number.
    Id(SchemaId),
}

impl fmt::Display for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaRef::Subject { name, version } => write!(f, "{name}, version {version}"),
            SchemaRef::Id(id) => write!(f, "number {id}"),
        }
    }
}

/// A schema that was fetched.
#[derive(Debug)]
pub struct Schema {
    /// Its number.
    pub id: SchemaId,
    /// What messages have to look like.
    pub model: Model,
}

/// A schema that a route names, as of this moment.
#[derive(Debug)]
pub(super) struct SchemaCell {
    what: SchemaRef,
    shape: Shape,
    current: Mutex<Option<Arc<Schema>>>,
    /// Routes and connections that need it fresh.
    users: AtomicUsize,
}

impl SchemaCell {
    /// One more needs it.
    pub(super) fn hold(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// One less does.
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

/// Why a schema was not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailure {
    /// The registry says that there is none.
    #[error("there is none")]
    Gone,
    /// The registry was not reached, or did not answer as one.
    #[error("not to be had: {0}")]
    Failed(String),
    /// What it gave is no schema.
    #[error("no schema: {0}")]
    Bad(String),
}

/// What a number comes to.
#[derive(Debug)]
pub enum Find {
    /// Its schema.
    Here(Arc<Schema>),
    /// The registry does not know it.
    Gone,
    /// It is not there, and may come.
    Coming,
}

/// One schema that is to be fetched.
#[derive(Clone, Debug)]
pub struct SchemaFetch {
    /// From where.
    pub place: Arc<RegistryHandle>,
    /// Which one.
    pub what: SchemaRef,
    /// As what.
    pub shape: Shape,
    /// The number of the one that is there: if it is still the same, nothing more is needed.
    pub known: Option<SchemaId>,
    /// The route's, if it was not a message that named it.
    cell: Option<Arc<SchemaCell>>,
}

/// What an outcome means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaLookup {
    /// There is a schema, the one before or another one.
    Retrieved,
    /// There is none; the one before, if there is one, stays in use.
    Failed {
        /// Whether there is one before.
        stale: bool,
    },
}

/// When a route's schema is fetched.
#[derive(Debug, Default)]
struct Schedule {
    busy: bool,
    next_ms: u64,
    failures: u32,
}

/// A number in a message, and which shape its schema is to have there.
type Key = (SchemaId, usize);

/// What is known by numbers.
#[derive(Debug, Default)]
struct Ids {
    /// With when it was used last, in uses.
    known: HashMap<Key, (Arc<Schema>, u64)>,
    uses: u64,
    /// Oldest first: until when, and whether the registry knows no such number.
    vain: VecDeque<(Key, u64, bool)>,
    /// With the connection that asked. The next one is in front.
    asked: VecDeque<(Key, u64)>,
    /// Oldest first.
    believed: VecDeque<Key>,
    busy: Vec<Key>,
    /// How many were asked for in which second.
    second: u64,
    begun: u32,
}

impl Ids {
    fn find(&mut self, asker: u64, key: Key) -> Find {
        self.uses += 1;
        if let Some((schema, used)) = self.known.get_mut(&key) {
            *used = self.uses;
            return Find::Here(schema.clone());
        }
        if let Some((_, _, gone)) = self.vain.iter().find(|(it, ..)| *it == key) {
            return if *gone { Find::Gone } else { Find::Coming };
        }
        let waits = self.busy.contains(&key) || self.asked.iter().any(|(it, _)| *it == key);
        if !waits && self.has_room(asker) {
            match self.believed.contains(&key) {
                true => self.asked.push_front((key, asker)),
                false => self.asked.push_back((key, asker)),
            }
        }
        Find::Coming
    }

    /// Whether one more may wait for that connection. If none may, the newest of a connection that
    /// has at least two more than this one makes room.
    fn has_room(&mut self, asker: u64) -> bool {
        let count = |of: u64| self.asked.iter().filter(|(_, it)| *it == of).count();
        let own = count(asker);
        if own >= SHARE {
            return false;
        }
        if self.asked.len() < ASKED {
            return true;
        }
        let largest = self.asked.iter().map(|(_, it)| (count(*it), *it)).max();
        let Some((_, largest)) = largest.filter(|(count, _)| *count > own + 1) else {
            return false;
        };
        let newest = self.asked.iter().rposition(|(_, it)| *it == largest);
        newest.and_then(|at| self.asked.remove(at)).is_some()
    }

    fn put(&mut self, key: Key, schema: Arc<Schema>) {
        if self.known.len() >= KNOWN && !self.known.contains_key(&key) {
            let oldest = self.known.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.known.remove(&oldest);
                if self.believed.len() >= BELIEVED {
                    self.believed.pop_front();
                }
                self.believed.push_back(oldest);
            }
        }
        self.believed.retain(|it| *it != key);
        self.uses += 1;
        self.known.insert(key, (schema, self.uses));
    }

    fn put_vain(&mut self, key: Key, gone: bool, now_ms: u64) {
        if self.vain.len() >= VAIN {
            self.vain.pop_front();
        }
        self.vain.push_back((key, now_ms + VAIN_MS, gone));
    }

    /// The next number to ask for now.
    fn next(&mut self, now_ms: u64) -> Option<Key> {
        if now_ms / 1000 != self.second {
            (self.second, self.begun) = (now_ms / 1000, 0);
        }
        if self.begun >= ASKED_PER_S {
            return None;
        }
        let (key, _) = self.asked.pop_front()?;
        self.begun += 1;
        self.busy.push(key);
        Some(key)
    }

    fn deadline_ms(&self) -> u64 {
        match (self.asked.is_empty(), self.begun >= ASKED_PER_S) {
            (true, _) => u64::MAX,
            (false, true) => (self.second + 1) * 1000,
            (false, false) => 0,
        }
    }
}

/// One registry, for all routes that describe it in the same way.
pub struct RegistryHandle {
    /// How it is described.
    pub catalog: Catalog,
    state: Mutex<State>,
    notifier: Notifier,
}

#[derive(Debug, Default)]
struct State {
    cells: Vec<(Arc<SchemaCell>, Schedule)>,
    shapes: Vec<Shape>,
    ids: Ids,
}

impl State {
    fn busy(&self) -> usize {
        let cells = self.cells.iter().filter(|(_, schedule)| schedule.busy);
        cells.count() + self.ids.busy.len()
    }
}

impl fmt::Debug for RegistryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}

impl RegistryHandle {
    pub(super) fn ring(&self) {
        self.notifier.notify();
    }

    /// The schema of that number; if it is not there, it is asked for.
    /// `asker` is the connection that needs it.
    pub(super) fn find(&self, asker: u64, id: SchemaId, shape: usize) -> Find {
        let mut state = lock(&self.state);
        let waited = state.ids.asked.len();
        let found = state.ids.find(asker, (id, shape));
        let asks = state.ids.asked.len() > waited;
        drop(state);
        if asks {
            self.ring();
        }
        found
    }

    /// The place of a route's schema, which is fetched while anybody holds it; `like` is of another
    /// place with the same schemas.
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
        lock(&self.state).cells.push((cell.clone(), Schedule::default()));
        cell
    }

    /// The number of a shape that messages name schemas of.
    pub(super) fn shape(&self, shape: &Shape) -> usize {
        let shapes = &mut lock(&self.state).shapes;
        shapes.iter().position(|it| it == shape).unwrap_or_else(|| {
            shapes.push(shape.clone());
            shapes.len() - 1
        })
    }

    /// Takes what is known of numbers from another place with the same schemas.
    fn inherit(&self, other: &RegistryHandle) {
        let other = lock(&other.state);
        let mut state = lock(&self.state);
        state.shapes.clone_from(&other.shapes);
        state.ids.known.clone_from(&other.ids.known);
        state.ids.uses = other.ids.uses;
    }

    /// What is to be fetched now. Each is answered by [`RegistryHandle::outcome`].
    pub fn due(self: &Arc<RegistryHandle>, now_ms: u64) -> Vec<SchemaFetch> {
        let mut state = lock(&self.state);
        // What is nobody's any more is only here.
        state.cells.retain(|(cell, schedule)| schedule.busy || Arc::strong_count(cell) > 1);
        while state.ids.vain.front().is_some_and(|(_, until_ms, _)| *until_ms <= now_ms) {
            state.ids.vain.pop_front();
        }
        let mut room = AT_ONCE.saturating_sub(state.busy());
        let mut jobs = Vec::new();
        for (cell, schedule) in &mut state.cells {
            if schedule.busy || schedule.next_ms > now_ms || !cell.is_wanted() {
                continue;
            }
            if room == 0 {
                break;
            }
            room -= 1;
            schedule.busy = true;
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

    /// Takes what came of a job; no schema means that the one that is known is still the one.
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
        schedule.busy = false;
        let mut current = lock(&cell.current);
        match outcome {
            Ok(schema) => {
                schedule.failures = 0;
                // What is behind a number never changes.
                schedule.next_ms = match cell.what {
                    SchemaRef::Subject { .. } => now_ms + max_age_ms,
                    SchemaRef::Id(_) => u64::MAX,
                };
                *current = schema.or_else(|| current.take());
                SchemaLookup::Retrieved
            }
            Err(_) => {
                let later_ms = RETRY_MS << schedule.failures.min(20);
                schedule.failures += 1;
                schedule.next_ms = now_ms + later_ms.min(max_age_ms);
                SchemaLookup::Failed { stale: current.is_some() }
            }
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
                // Nor will a text that is no schema become one.
                let gone = !matches!(failure, FetchFailure::Failed(_));
                state.ids.put_vain(key, gone, now_ms);
                SchemaLookup::Failed { stale: false }
            }
        }
    }

    /// When to look again.
    pub fn deadline_ms(&self) -> u64 {
        let state = lock(&self.state);
        if state.busy() >= AT_ONCE {
            return u64::MAX;
        }
        let due = |(cell, schedule): &(Arc<SchemaCell>, Schedule)| {
            let waits = cell.is_wanted() && !schedule.busy;
            if waits { schedule.next_ms } else { u64::MAX }
        };
        let cells = state.cells.iter().map(due).min();
        cells.unwrap_or(u64::MAX).min(state.ids.deadline_ms())
    }
}

/// All registries that routes use. Lives as long as the process; a place lives as long as the
/// routes and connections whose rules name it.
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
    /// Every registry that is in use.
    pub fn places(&self) -> Vec<Arc<RegistryHandle>> {
        let mut list = lock(&self.list);
        list.retain(|place| place.strong_count() > 0);
        list.iter().filter_map(Weak::upgrade).collect()
    }

    /// The registry of that description, and one with the same schemas, if there is one.
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

    /// Has a registry looked after that may have been another process part's before.
    pub(super) fn keep(&self, place: &Arc<RegistryHandle>) {
        let mut list = lock(&self.list);
        if !list.iter().any(|it| std::ptr::eq(it.as_ptr(), Arc::as_ptr(place))) {
            list.push(Arc::downgrade(place));
        }
    }

    /// Wakes who fetches.
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
