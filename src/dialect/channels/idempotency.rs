//! Idempotency keys of one application: a publish that is repeated with the same key within two
//! minutes gets the first answer, and publishes nothing.
//!
//! In a cluster these are the keys of this node's requests. The events of such a request have the
//! key, too, and the log decides which of them are published. So nothing is kept here before all
//! of them are.
//!
//! The requests of an application arrive on all cores, so all cores share the keys of an
//! application, under a lock. Only a request with a key takes the lock, for a look-up and for the
//! storage of its answer; both take a fraction of a microsecond.

use super::super::reply::HttpReply;
use crate::codec::json::{JsonText, push_string};
use crate::crypto::sha256;
use crate::hub::EventKey;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The HTTP header field with the key.
pub(super) const HEADER: &str = "x-idempotency-key";
/// The member of a body with the key.
pub(super) const MEMBER: &str = "idempotency_key";
/// How long a key is kept after its first request, in milliseconds.
const KEEP_MS: u64 = 120_000;
/// The maximum length of a key in bytes.
const MAX_LENGTH: usize = 128;
/// The estimated memory of one key without the body of its answer, in bytes.
const KEY_BYTES: usize = 192;
/// The maximum number of expired keys that one look-up removes. [`IdempotencyKeys::sweep`] removes
/// the others.
const EXPIRED_PER_LOOKUP: usize = 16;
/// The maximum number of expired keys that one sweep removes, about 2 ms of work.
const EXPIRED_PER_SWEEP: usize = 16 * 1024;

/// What one application may keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The maximum number of keys.
    pub(super) keys: usize,
    /// The maximum bytes of all bodies of answers.
    pub(super) bytes: usize,
}

/// The idempotency keys of one application, shared by all cores.
#[derive(Debug, Default)]
pub struct IdempotencyKeys {
    table: Mutex<Table>,
    /// The number of keys, readable without the lock.
    len: AtomicUsize,
    /// The memory of the keys of all applications, in bytes.
    all_bytes: Arc<AtomicUsize>,
    replays: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
}

/// The numbers of one application's keys, or of several applications' together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdempotencyCounts {
    /// Keys held now.
    pub keys: u64,
    /// Requests answered with the answer of an earlier request.
    pub replays: u64,
    /// Requests refused because their key was used for another request, or by one in progress.
    pub refused: u64,
    /// Keys removed before their time for lack of room.
    pub dropped: u64,
}

impl std::ops::AddAssign for IdempotencyCounts {
    fn add_assign(&mut self, other: IdempotencyCounts) {
        self.keys += other.keys;
        self.replays += other.replays;
        self.refused += other.refused;
        self.dropped += other.dropped;
    }
}

#[derive(Debug, Default)]
struct Table {
    by_key: HashMap<u128, Entry>,
    /// The keys in the order of their first requests, by the number of the request.
    by_age: BTreeMap<u64, u128>,
    next_number: u64,
    /// The bytes of the bodies of all answers.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// The number of the first request, which a later request with the same key does not have.
    number: u64,
    /// The hash of what the first request publishes.
    fingerprint: u128,
    begun_ms: u64,
    /// The answer; `None` while the first request is in progress.
    answer: Option<HttpReply>,
}

/// What is known about the key of a request.
#[derive(Debug)]
pub(super) enum KeyLookup {
    /// Nothing: this is the first request.
    First(FirstRequest),
    /// The answer to the first request.
    Replay(HttpReply),
    /// The first request publishes something else.
    Mismatch,
    /// The first request is not answered yet.
    InProgress,
}

/// The first request with a key, from its look-up until its answer is complete.
///
/// If it is dropped before that, the key is removed, unless the request has published: then the
/// key keeps the answer of [`FirstRequest::accept`]. In a cluster the log knows what the request
/// has published, so the key is removed.
#[derive(Debug)]
pub(super) struct FirstRequest {
    keys: Arc<IdempotencyKeys>,
    key: u128,
    number: u64,
    max_bytes: usize,
    fallback: Option<HttpReply>,
    /// What the events of the request have of it, if the log of a cluster decides about them.
    logged: Option<EventKey>,
    is_complete: bool,
}

impl IdempotencyKeys {
    /// Creates the keys of an application; `all_bytes` is the memory of all applications' keys.
    pub(in super::super) fn new(all_bytes: Arc<AtomicUsize>) -> IdempotencyKeys {
        IdempotencyKeys { all_bytes, ..IdempotencyKeys::default() }
    }

    /// Looks a key up at `now_ms`, and enters it if it is new.
    pub(super) fn look_up(
        self: &Arc<Self>,
        key: u128,
        fingerprint: u128,
        now_ms: u64,
        bounds: Bounds,
    ) -> KeyLookup {
        let mut table = self.lock();
        table.expire(now_ms, EXPIRED_PER_LOOKUP);
        let expired = table.by_key.get(&key).is_some_and(|entry| entry.is_expired(now_ms));
        if expired {
            table.remove(key);
        }
        if let Some(entry) = table.by_key.get(&key) {
            let found = match &entry.answer {
                _ if entry.fingerprint != fingerprint => KeyLookup::Mismatch,
                None => KeyLookup::InProgress,
                Some(reply) => KeyLookup::Replay(copy_of(reply)),
            };
            let counter = match found {
                KeyLookup::Replay(_) => &self.replays,
                _ => &self.refused,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            self.publish_len(&table);
            return found;
        }
        while table.by_key.len() >= bounds.keys.max(1) {
            self.drop_oldest(&mut table);
        }
        let number = table.next_number;
        table.next_number += 1;
        table.by_age.insert(number, key);
        table.by_key.insert(key, Entry { number, fingerprint, begun_ms: now_ms, answer: None });
        self.publish_len(&table);
        drop(table);
        KeyLookup::First(FirstRequest {
            keys: self.clone(),
            key,
            number,
            max_bytes: bounds.bytes,
            fallback: None,
            logged: None,
            is_complete: false,
        })
    }

    /// Removes keys whose time is over. Returns the counts.
    pub fn sweep(&self, now_ms: u64) -> IdempotencyCounts {
        if self.len.load(Ordering::Relaxed) > 0 {
            let mut table = self.lock();
            table.expire(now_ms, EXPIRED_PER_SWEEP);
            if table.by_key.is_empty() {
                *table = Table { next_number: table.next_number, ..Table::default() };
            }
            self.publish_len(&table);
        }
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IdempotencyCounts {
            keys: self.len.load(Ordering::Relaxed) as u64,
            replays: get(&self.replays),
            refused: get(&self.refused),
            dropped: get(&self.dropped),
        }
    }

    fn lock(&self) -> TableGuard<'_> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let charged = table.charge();
        TableGuard { keys: self, table, charged }
    }

    fn publish_len(&self, table: &Table) {
        self.len.store(table.by_key.len(), Ordering::Relaxed);
    }

    fn drop_oldest(&self, table: &mut Table) {
        if let Some((_, key)) = table.by_age.first_key_value() {
            let key = *key;
            table.remove(key);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Stores the answer of the first request. It has no effect if the key was removed meanwhile.
    fn store(&self, key: u128, number: u64, reply: &HttpReply, max_bytes: usize) {
        let mut table = self.lock();
        let Some(entry) = table.by_key.get_mut(&key).filter(|entry| entry.number == number) else {
            return;
        };
        let bytes = owned_bytes(reply);
        if bytes > max_bytes {
            // It would displace all other keys.
            table.remove(key);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return self.publish_len(&table);
        }
        entry.answer = Some(copy_of(reply));
        table.bytes += bytes;
        while table.bytes > max_bytes {
            self.drop_oldest(&mut table);
        }
        self.publish_len(&table);
    }

    fn forget(&self, key: u128, number: u64) {
        let mut table = self.lock();
        if table.by_key.get(&key).is_some_and(|entry| entry.number == number) {
            table.remove(key);
        }
        self.publish_len(&table);
    }
}

/// The locked table; adds the change of its memory to the sum of all applications at its end.
struct TableGuard<'k> {
    keys: &'k IdempotencyKeys,
    table: MutexGuard<'k, Table>,
    charged: usize,
}

impl std::ops::Deref for TableGuard<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl std::ops::DerefMut for TableGuard<'_> {
    fn deref_mut(&mut self) -> &mut Table {
        &mut self.table
    }
}

impl Drop for TableGuard<'_> {
    fn drop(&mut self) {
        // Wraps around for a decrease.
        let change = self.table.charge().wrapping_sub(self.charged);
        self.keys.all_bytes.fetch_add(change, Ordering::Relaxed);
    }
}

impl Table {
    /// The memory of the keys, in bytes.
    fn charge(&self) -> usize {
        self.by_key.len() * KEY_BYTES + self.bytes
    }

    fn remove(&mut self, key: u128) {
        if let Some(entry) = self.by_key.remove(&key) {
            self.by_age.remove(&entry.number);
            self.bytes -= entry.answer.as_ref().map_or(0, owned_bytes);
        }
    }

    /// Removes at most `max` of the oldest keys if their time is over.
    fn expire(&mut self, now_ms: u64, max: usize) {
        for _ in 0..max {
            let Some((_, &key)) = self.by_age.first_key_value() else { return };
            if !self.by_key.get(&key).is_some_and(|entry| entry.is_expired(now_ms)) {
                return;
            }
            self.remove(key);
        }
    }
}

impl Entry {
    fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.begun_ms.saturating_add(KEEP_MS)
    }
}

/// The heap bytes of a reply.
fn owned_bytes(reply: &HttpReply) -> usize {
    match &reply.body {
        Cow::Borrowed(_) => 0,
        Cow::Owned(bytes) => bytes.len(),
    }
}

fn copy_of(reply: &HttpReply) -> HttpReply {
    HttpReply { status: reply.status, body: reply.body.clone(), allow: reply.allow }
}

impl FirstRequest {
    /// Notes that the request was valid and has published. `fallback` is the answer that is kept if
    /// the connection of the request ends before the request's own answer is complete.
    pub(super) fn accept(&mut self, fallback: HttpReply) {
        self.fallback = Some(fallback).filter(|_| self.logged.is_none());
    }

    /// Notes that some events of the request were not published, or that this is not known. The key
    /// is removed, so that the request may be repeated.
    pub(super) fn refuse(mut self) {
        self.fallback = None;
    }

    /// Lets the log of a cluster decide about the events of the request. `key` is a digest of the
    /// key and its application, `request` one of what is published.
    pub(super) fn let_log_decide(&mut self, key: u128, request: u128) {
        self.logged = Some(EventKey { key, request, index: 0 });
    }

    /// The key of an event of the request, if the log decides about it.
    pub(super) fn event_key(&self, index: u16) -> Option<Box<EventKey>> {
        self.logged.map(|key| Box::new(EventKey { index, ..key }))
    }

    /// Keeps the answer for later requests with the key.
    pub(super) fn complete(mut self, reply: &HttpReply) {
        self.is_complete = true;
        self.keys.store(self.key, self.number, reply, self.max_bytes);
    }
}

impl Drop for FirstRequest {
    fn drop(&mut self) {
        match &self.fallback {
            _ if self.is_complete => {}
            Some(reply) => self.keys.store(self.key, self.number, reply, self.max_bytes),
            None => self.keys.forget(self.key, self.number),
        }
    }
}

/// Reads the key of a request: the values of the header field, and the member of the body.
///
/// # Errors
/// The problem as text: the key has a length or characters that are not allowed, or there are
/// several.
pub(super) fn read_key<'k>(
    header: Option<&'k [u8]>,
    body: JsonText<'k, '_>,
) -> Result<Option<&'k [u8]>, Cow<'static, str>> {
    let member = body.get(MEMBER).filter(|member| !member.is_null());
    let member = match member.map(|member| member.text()) {
        None => None,
        Some(Some(text)) => Some(text.as_bytes()),
        Some(None) => return Err("idempotency_key must be a string".into()),
    };
    let key = match (header, member) {
        (Some(header), Some(member)) if header != member => {
            return Err("X-Idempotency-Key and idempotency_key differ".into());
        }
        (header, member) => header.or(member),
    };
    let is_allowed = |key: &[u8]| {
        (1..=MAX_LENGTH).contains(&key.len()) && key.iter().all(|byte| (0x20..0x7f).contains(byte))
    };
    match key {
        Some(key) if !is_allowed(key) => {
            let text =
                format!("an idempotency key has 1 to {MAX_LENGTH} printable ASCII characters");
            Err(text.into())
        }
        key => Ok(key),
    }
}

/// The hash under which a key is kept.
pub(super) fn hash_key(key: &[u8]) -> u128 {
    first_half(sha256(&[key]))
}

/// The hash of a key by which all nodes of a cluster know it as one of this application.
pub(super) fn hash_logged_key(app: &str, key: &[u8]) -> u128 {
    first_half(sha256(&[app.as_bytes(), b"\0", key]))
}

/// The hash of what a request publishes: `target` and the members of its body, except those of
/// `skipped`. White space between the members is not covered.
pub(super) fn fingerprint(target: &str, body: JsonText<'_, '_>, skipped: &[&str]) -> u128 {
    let mut text = Vec::with_capacity(256);
    match body.members() {
        Some(members) => {
            for (name, value) in members.filter(|(name, _)| !skipped.contains(name)) {
                push_string(&mut text, name);
                text.push(b':');
                value.push_to(&mut text);
                text.push(b',');
            }
        }
        None => body.push_to(&mut text),
    }
    first_half(sha256(&[target.as_bytes(), b"\0", &text]))
}

fn first_half(digest: [u8; 32]) -> u128 {
    u128::from_be_bytes(std::array::from_fn(|at| digest[at]))
}

#[cfg(test)]
mod tests;
