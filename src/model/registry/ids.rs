//! The schemas that messages name by id: a bounded cache, and the queue of ids to fetch.

use super::super::SchemaId;
use super::super::schema::Schema;
use crate::time::RateLimit;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The maximum number of schemas that are cached by id, for each registry. The least recently used
/// is evicted.
pub(super) const MAX_CACHED: usize = 1024;
/// The maximum number of ids whose fetch failed and that are remembered, for each registry.
pub(super) const MAX_FAILED: usize = 1024;
/// How long an id whose fetch failed is not fetched again, in milliseconds.
pub(super) const FAILED_RETRY_MS: u64 = 10_000;
/// The maximum number of ids that wait to be fetched, for each registry.
pub(super) const MAX_QUEUED: usize = 64;
/// The maximum number of ids that wait to be fetched for one connection. It leaves room for other
/// connections if one sends ids that do not exist.
pub(super) const SHARE: usize = 8;
/// The maximum number of evicted ids that are remembered, for each registry. They are known to
/// exist, so they are fetched before other ids.
pub(super) const MAX_EVICTED: usize = 1024;
/// The maximum number of ids that are fetched in one second, for each registry. Clients can send
/// any number of ids that do not exist.
pub(super) const MAX_FETCHES_PER_S: u32 = 32;
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

/// The schema id of a message, and the index of the shape that its schema is compiled to.
pub(super) type Key = (SchemaId, usize);

/// The cache of schemas by id, and the queue of ids to fetch.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// The cached schemas, each with the value of `uses` at its last use.
    pub(super) known: HashMap<Key, (Arc<Schema>, u64)>,
    pub(super) uses: u64,
    /// The ids whose fetch failed, the oldest first: until when the id is not fetched again, in
    /// milliseconds, and whether the registry has no valid schema with this id.
    pub(super) failed: VecDeque<(Key, u64, bool)>,
    /// The queue of ids to fetch, the next one in front, each with the connection that needs it.
    pub(super) queued: VecDeque<(Key, u64)>,
    /// The ids of evicted schemas, the oldest first.
    pub(super) evicted: VecDeque<Key>,
    pub(super) busy: Vec<Key>,
    /// Fetches that were begun.
    begun: RateLimit,
}

impl Ids {
    pub(super) fn find(&mut self, requester: u64, key: Key) -> Find {
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

    pub(super) fn put(&mut self, key: Key, schema: Arc<Schema>) {
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

    pub(super) fn put_failed(&mut self, key: Key, is_missing: bool, now_ms: u64) {
        if self.failed.len() >= MAX_FAILED {
            self.failed.pop_front();
        }
        self.failed.push_back((key, now_ms + FAILED_RETRY_MS, is_missing));
    }

    /// Takes the next id to fetch from the queue, if the limit of this second allows a fetch.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<Key> {
        if self.begun.count(now_ms) >= MAX_FETCHES_PER_S {
            return None;
        }
        let (key, _) = self.queued.pop_front()?;
        self.begun.add(1, now_ms);
        self.busy.push(key);
        Some(key)
    }

    pub(super) fn deadline_ms(&self, now_ms: u64) -> u64 {
        match (self.queued.is_empty(), self.begun.count(now_ms) >= MAX_FETCHES_PER_S) {
            (true, _) => u64::MAX,
            (false, true) => RateLimit::next_second_ms(now_ms),
            (false, false) => 0,
        }
    }
}
