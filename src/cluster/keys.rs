//! The idempotency keys of the events of the log.
//!
//! An event of a request with a key has the key in its entry. All nodes read the same keys in the
//! same order, so all decide the same: an event takes effect if the log does not have it with its
//! key already, and is skipped otherwise. A key is kept for [`KEY_S`] of the engine's time after
//! the first event with it, and belongs to what that event's request publishes.

use crate::hub::EventKey;
use std::collections::{HashMap, VecDeque};

/// How long a key is kept after the first event with it, in seconds.
pub(super) const KEY_S: u64 = 120;
/// How much longer the log keeps an event with a key than the event has an effect, in seconds. A
/// node that starts must decide as the others do, so it needs the first event with the key even if
/// a repetition, which was skipped at the end of the key's time, is still there: twice that time,
/// and a margin.
pub(super) const KEPT_LONGER_S: u64 = 2 * KEY_S + 30;
/// By how much an entry may be stored earlier, by the engine's time, than one before it, in
/// milliseconds: the clocks of its servers differ. More than that means that a clock was ahead.
const CLOCKS_MS: u64 = 10_000;
/// The estimated memory of a key, in bytes.
const KEY_BYTES: usize = 192;
/// The maximum number of expired keys of an application that are removed at a time.
const EXPIRED_AT_ONCE: usize = 16 * 1024;

/// What an application's keys may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyBounds {
    /// The maximum number of keys.
    pub(super) keys: usize,
    /// The maximum bytes of what is noted of requests with more than 64 events.
    pub(super) bytes: usize,
}

/// What the log says of an event with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyDecision {
    /// It takes effect.
    Publish,
    /// The log has it already.
    Repeated,
    /// The log has the key with another request.
    Used,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct LoggedKeys {
    apps: HashMap<u32, AppKeys>,
    /// The time of the log in milliseconds: the latest at which an entry was stored, of those that
    /// were read since a clock of the engine was last found ahead.
    log_ms: u64,
    /// When that entry was read, in milliseconds of the process's clock.
    read_ms: u64,
    dropped: u64,
}

#[derive(Debug, Default)]
struct AppKeys {
    by_key: HashMap<u128, LoggedRequest>,
    /// The keys in the order of their first events.
    by_age: VecDeque<u128>,
    /// The bytes of all [`LoggedRequest::others`].
    bytes: usize,
}

/// A request of which the log has events.
#[derive(Debug)]
struct LoggedRequest {
    /// What it publishes.
    digest: u128,
    /// When its first event was stored.
    begun_ms: u64,
    /// A bit for each of the request's first 64 events that the log has.
    first: u64,
    /// The same of its further events.
    others: Vec<u64>,
}

impl LoggedKeys {
    /// Notes that an entry was stored at `stored_ms` of the engine's time and is read now. After a
    /// clock was ahead, the keys of that time count as begun now.
    pub(super) fn note_time(&mut self, stored_ms: u64, now_ms: u64) {
        if stored_ms.saturating_add(CLOCKS_MS) < self.log_ms {
            let requests = self.apps.values_mut().flat_map(|keys| keys.by_key.values_mut());
            requests.for_each(|it| it.begun_ms = it.begun_ms.min(stored_ms));
            self.log_ms = stored_ms;
        }
        self.log_ms = self.log_ms.max(stored_ms);
        self.read_ms = now_ms;
    }

    /// Notes that the log is another one, whose engine may have another time. What was published
    /// before stays known: it must not be published again.
    pub(super) fn begin_log(&mut self) {
        self.log_ms = 0;
    }

    /// Takes over what was read apart of an application.
    pub(super) fn adopt(&mut self, app: u32, apart: &mut LoggedKeys) {
        self.dropped += apart.take_dropped();
        if let Some(keys) = apart.apps.remove(&app) {
            self.apps.insert(app, keys);
        }
    }

    /// Decides on an event of the entry whose time was noted last.
    pub(super) fn decide(&mut self, app: u32, key: &EventKey, bounds: KeyBounds) -> KeyDecision {
        let keys = self.apps.entry(app).or_default();
        keys.expire(self.log_ms);
        if keys.by_key.get(&key.key).is_some_and(|it| it.is_expired(self.log_ms)) {
            keys.remove(key.key);
        }
        if let Some(request) = keys.by_key.get(&key.key) {
            let decision = request.decision(key);
            if decision != KeyDecision::Publish {
                return decision;
            }
        } else {
            while keys.by_key.len() >= bounds.keys.max(1) {
                self.dropped += u64::from(keys.drop_oldest());
            }
            keys.begin(key, self.log_ms);
        }
        keys.note(key);
        while keys.bytes > bounds.bytes && keys.drop_oldest() {
            self.dropped += 1;
        }
        KeyDecision::Publish
    }

    /// What is known of an event before it is sent to the log; `None` if the log is to decide.
    pub(super) fn look_up(&self, app: u32, key: &EventKey, now_ms: u64) -> Option<KeyDecision> {
        let request = self.apps.get(&app)?.by_key.get(&key.key)?;
        // The log has no entries while the engine is away, but its time goes on.
        let log_ms = self.log_ms.saturating_add(now_ms.saturating_sub(self.read_ms));
        let decision = request.decision(key);
        let is_known = decision != KeyDecision::Publish && !request.is_expired(log_ms);
        is_known.then_some(decision)
    }

    /// Removes keys whose time is over.
    pub(super) fn expire(&mut self) {
        let log_ms = self.log_ms;
        self.apps.retain(|_, keys| {
            keys.expire(log_ms);
            !keys.by_key.is_empty()
        });
    }

    /// The number of keys.
    pub(super) fn count(&self) -> usize {
        self.apps.values().map(|keys| keys.by_key.len()).sum()
    }

    /// The estimated memory of all keys, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |keys: &AppKeys| keys.by_key.len() * KEY_BYTES + keys.bytes;
        self.apps.values().map(bytes).sum()
    }

    /// The number of keys that were removed before their time for lack of room, since the last
    /// call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

impl AppKeys {
    fn begin(&mut self, key: &EventKey, begun_ms: u64) {
        let request = LoggedRequest { digest: key.request, begun_ms, first: 0, others: Vec::new() };
        self.by_key.insert(key.key, request);
        self.by_age.push_back(key.key);
    }

    /// Notes that the log has this event.
    fn note(&mut self, key: &EventKey) {
        let Some(request) = self.by_key.get_mut(&key.key) else { return };
        let (word, bit) = place_of(key.index);
        let Some(word) = word.checked_sub(1) else {
            request.first |= bit;
            return;
        };
        if request.others.len() <= word {
            let before = request.others.len();
            request.others.resize(word + 1, 0);
            self.bytes += (request.others.len() - before) * size_of::<u64>();
        }
        request.others[word] |= bit;
    }

    fn expire(&mut self, log_ms: u64) {
        for _ in 0..EXPIRED_AT_ONCE {
            let Some(oldest) = self.by_age.front() else { return };
            if !self.by_key.get(oldest).is_some_and(|it| it.is_expired(log_ms)) {
                return;
            }
            self.drop_oldest();
        }
    }

    /// Removes a key that may be anywhere, which happens only after the engine's time has gone
    /// back, or while very many keys expire.
    fn remove(&mut self, key: u128) {
        self.by_age.retain(|it| *it != key);
        self.forget(key);
    }

    /// Returns whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let Some(key) = self.by_age.pop_front() else { return false };
        self.forget(key);
        true
    }

    fn forget(&mut self, key: u128) {
        let request = self.by_key.remove(&key);
        self.bytes -= request.map_or(0, |it| it.others.len() * size_of::<u64>());
    }
}

impl LoggedRequest {
    fn is_expired(&self, log_ms: u64) -> bool {
        log_ms >= self.begun_ms.saturating_add(KEY_S * 1000)
    }

    fn decision(&self, key: &EventKey) -> KeyDecision {
        let (word, bit) = place_of(key.index);
        let bits = match word.checked_sub(1) {
            None => self.first,
            Some(word) => self.others.get(word).copied().unwrap_or(0),
        };
        match bits & bit {
            _ if self.digest != key.request => KeyDecision::Used,
            0 => KeyDecision::Publish,
            _ => KeyDecision::Repeated,
        }
    }
}

/// The word and the bit of a request's event.
fn place_of(index: u16) -> (usize, u64) {
    (usize::from(index / 64), 1 << (index % 64))
}

#[cfg(test)]
mod tests;
