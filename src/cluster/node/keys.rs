//! The idempotency keys of a node: what the log says of them, and who waits for that.

use super::super::awaited::Decided;
use super::super::entry::{Entry, KeyPart};
use super::super::keys::{KEPT_LONGER_S, KeyBounds, KeyDecision};
use super::super::queue::ChannelKey;
use super::super::states::Origin;
use super::{Arrival, ClusterNode};
use crate::dialect::Env;
use crate::hub::{EventKey, Unpublished};

impl ClusterNode {
    /// How long the log keeps an event that is cached or remembered for `kept_s`, in seconds.
    pub(super) fn ttl_s(&self, kept_s: u64, key: Option<&EventKey>) -> u64 {
        let with_key = key.map_or(0, |_| kept_s.saturating_add(KEPT_LONGER_S));
        self.keep_s.max(kept_s).max(with_key)
    }

    /// Until when the request of an event with a key waits, in milliseconds.
    pub(super) fn key_until_ms(&self, key: Option<&EventKey>, now_ms: u64) -> Option<u64> {
        key.map(|_| now_ms + self.hold_ms)
    }

    /// What is known of an event before it is sent to the log. With `acks = "replica"` an event
    /// that was read may be on no replica yet. So a repetition of it is sent to the log, too, and
    /// is answered when a replica has that entry.
    pub(super) fn known_key(
        &self,
        app: u32,
        key: Option<&EventKey>,
        now_ms: u64,
    ) -> Option<KeyDecision> {
        let decision = self.keys.look_up(app, key?, now_ms)?;
        if decision == KeyDecision::Repeated && self.has_replica_acks {
            return None;
        }
        self.count_decision(decision);
        Some(decision)
    }

    /// Decides about an event of the log; one without a key takes effect.
    pub(super) fn decide(&mut self, app: u32, key: Option<&EventKey>, env: &Env) -> KeyDecision {
        let config = env.apps.find(app).map(|app| &app.config.limits);
        let (Some(key), Some(limits)) = (key, config) else { return KeyDecision::Publish };
        let bounds = KeyBounds { keys: limits.idempotency_keys, bytes: limits.idempotency_bytes };
        let keys = self.added.reading_of(app).map_or(&mut self.keys, |reading| &mut reading.keys);
        let decision = keys.decide(app, key, bounds);
        self.count_decision(decision);
        decision
    }

    fn count_decision(&self, decision: KeyDecision) {
        let counters = &self.setup.counters;
        match decision {
            KeyDecision::Publish => {}
            KeyDecision::Repeated => counters.cluster_key_repeats.add(1),
            KeyDecision::Used => counters.cluster_key_conflicts.add(1),
        }
    }

    /// Answers the requests of an entry that was read, if it is one of this node's and known to be
    /// stored.
    pub(super) fn note_decisions(
        &mut self,
        (node, number): (u64, u64),
        decisions: Vec<KeyDecision>,
    ) {
        if decisions.is_empty() || node != self.setup.id {
            return;
        }
        let is_under_way = self.queue.has(number);
        let decided = self.awaited.decided(number, decisions, is_under_way);
        self.answer_decided(decided);
    }

    /// Answers the requests of an entry that is stored, if it was read.
    pub(super) fn stored_with_keys(
        &mut self,
        number: u64,
        channel: ChannelKey,
        origins: Vec<Origin>,
    ) {
        if !origins.is_empty() {
            let decided = self.awaited.stored(number, channel, origins);
            self.answer_decided(decided);
        }
    }

    fn answer_decided(&mut self, decided: Option<Decided>) {
        let Some((channel, origins)) = decided else { return };
        for (origin, decision) in origins {
            match decision {
                Some(decision) => self.answer_key(origin, channel.clone(), decision),
                None => self.fail((Some(origin), channel.clone().into(), Unpublished::Unknown)),
            }
        }
    }

    /// Answers the request of an event about whose key a decision is known.
    pub(super) fn answer_key(
        &mut self,
        origin: Origin,
        channel: ChannelKey,
        decision: KeyDecision,
    ) {
        let failed = match decision {
            KeyDecision::Publish => return self.settle_stored(origin, &channel),
            KeyDecision::Repeated => None,
            KeyDecision::Used => Some((channel.1, Unpublished::KeyUsed)),
        };
        if let Some((core, ack)) = origin.request {
            self.arrivals.push_back((core, Arrival::Settled { ack, failed }));
        }
    }

    /// Fails the requests that have waited too long, and forgets keys whose time is over.
    pub(super) fn tick_keys(&mut self, env: &Env, now_ms: u64) {
        let ClusterNode { awaited, queue, .. } = self;
        for (channel, origin) in awaited.tick(now_ms, |number| queue.has(number)) {
            self.fail((Some(origin), channel.into(), Unpublished::Unknown));
        }
        let logged = &mut self.keys;
        logged.expire();
        let counters = &self.setup.counters;
        counters.cluster_keys.set(logged.count() as u64);
        counters.cluster_keys_dropped.add(logged.take_dropped());
        env.runtime.cluster.set_key_bytes(logged.bytes());
    }
}

/// The keys of an entry's events, in the order of the events.
pub(super) fn keys_of(entry: &Entry<'_>) -> Vec<Option<EventKey>> {
    let mut keys = vec![None; entry.events.len()];
    for KeyPart { event, key } in &entry.keys {
        if let Some(found) = keys.get_mut(*event) {
            *found = Some(*key);
        }
    }
    keys
}
