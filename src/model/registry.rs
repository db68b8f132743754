//! The cache of registry schemas: which schemas are needed, which have been fetched, and when each
//! is fetched again.
//!
//! A schema that a route names is kept at its last fetched version. Schemas that messages name by
//! id are kept in a bounded cache, which evicts the least recently used. The thread that fetches
//! takes [`SchemaFetch`]s from each [`RegistryHandle`] and reports their outcomes. Time is an
//! argument of the functions here.

mod ids;

pub use ids::Find;

use super::SchemaId;
use super::schema::{Schema, SchemaRef, Shape};
use super::spec::Catalog;
use crate::mem::Notifier;
use crate::time::RefreshSchedule;
use ids::Ids;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The maximum number of concurrent fetches from one registry.
const AT_ONCE: usize = 4;
/// The delay before the first retry of a failed fetch of a route's schema, in milliseconds. It
/// doubles with each failure, up to the catalog's maximum age.
const RETRY_MS: u64 = 1000;

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

#[cfg(test)]
mod tests;
