//! What the entries of the log are to the cores: events, states and epochs.

use super::ClusterNode;
use super::keys::keys_of;
use crate::cluster::arrival::Arrival;
use crate::cluster::entry::{self, Entry, LimitPart, NotAnEntry};
use crate::cluster::events::{event_of, remembered_s};
use crate::cluster::follower::Taken;
use crate::cluster::keys::KeyDecision;
use crate::cluster::repeats::Repeat;
use crate::cluster::states;
use crate::dialect::{self, Env};
use crate::hub::{LogPlace, StateAuthor, log_serial};
use std::sync::Arc;

impl ClusterNode {
    /// Notes the state that an entry has, and applies its events if they are to be.
    pub(super) fn take_entry(
        &mut self,
        body: &[u8],
        (sequence, age_ms): (u64, u64),
        taken: Taken,
        env: &Env,
        now_ms: u64,
    ) {
        let counters = &self.setup.counters;
        let entry = match entry::read_formats(body, self.nodes.formats()) {
            Ok(entry) => entry,
            Err(error) => return self.skip(error, taken, now_ms),
        };
        self.is_unreadable = false;
        for part in &entry.nodes {
            if !self.nodes.on_part(entry.node, part, sequence, now_ms) {
                counters.cluster_skipped.add(1);
            }
        }
        if let Some(part) = &entry.limit {
            return self.take_limit(entry.app, part, sequence, env, now_ms);
        }
        // An entry of a node itself has a number of another kind.
        if !entry.nodes.is_empty() {
            return self.apply_states(&entry, env, now_ms);
        }
        match taken {
            Taken::Apply => self.apply(entry, (sequence, age_ms), env, now_ms),
            Taken::Fold | Taken::Repeated => {
                self.applied.note(entry.node, entry.number);
                self.apply_states(&entry, env, now_ms);
            }
        }
    }

    /// Notes what nodes have reserved of the connections of an application.
    fn take_limit(&mut self, app: &str, part: &LimitPart, sequence: u64, env: &Env, now_ms: u64) {
        self.setup.counters.cluster_entries.add(1);
        match env.apps.by_id(app) {
            Some(app) => self.reservations.on_part(app, part, sequence, &mut self.nodes, now_ms),
            None => self.setup.counters.cluster_skipped.add(1),
        }
    }

    /// Skips an entry. What is in one of another format is missing here: subscribers are closed,
    /// and this node serves only if those that write so are gone.
    fn skip(&mut self, error: NotAnEntry, taken: Taken, now_ms: u64) {
        self.setup.counters.cluster_skipped.add(1);
        if !std::mem::replace(&mut self.is_unreadable, true) {
            tracing::warn!(%error, "the cluster's log has something unreadable");
        }
        if matches!(error, NotAnEntry::Format(_)) {
            if taken == Taken::Apply {
                let change = self.places.lag();
                self.note_change(change);
            }
            self.nodes.note_unreadable(now_ms);
        }
    }

    /// Sends the events of an entry to the home of their channel. Events that this node has applied
    /// out of an earlier log belong to the histories of this one, too.
    fn apply(&mut self, entry: Entry<'_>, (sequence, age_ms): (u64, u64), env: &Env, now_ms: u64) {
        let counters = self.setup.counters.clone();
        counters.cluster_entries.add(1);
        let repeat = self.applied.takes(entry.node, entry.number);
        counters.cluster_repeated.add((repeat != Repeat::New).into());
        if repeat == Repeat::OfThisLog {
            return;
        }
        let was_delivered = repeat == Repeat::OfEarlierLog;
        counters.cluster_skipped.add(entry.skipped as u64);
        if !entry.states.is_empty() {
            self.apply_states(&entry, env, now_ms);
        }
        let Some(app) = env.app_of_log_id(entry.app) else {
            return counters.cluster_skipped.add(1);
        };
        let core = self.home(app, entry.channel);
        let channel: Arc<str> = entry.channel.into();
        // An epoch has no place in a history.
        for part in entry.epochs.iter().filter(|_| !was_delivered) {
            let Some(event) = self.take_epoch(part, env) else { continue };
            let (channel, event) = (channel.clone(), Box::new(event));
            self.arrivals.push_back((core, Arrival::Apply { app, channel, event, place: None }));
        }
        let (author, keys) = ((entry.node, entry.number), keys_of(&entry));
        let mut decisions = Vec::new();
        for (index, (part, key)) in entry.events.into_iter().zip(keys).enumerate() {
            let decision = self.decide(app, key.as_ref(), env);
            decisions.extend(key.map(|_| decision));
            if decision != KeyDecision::Publish {
                continue;
            }
            counters.cluster_events.add(1);
            let serial = log_serial(sequence, index);
            // No node writes an entry of so many events.
            counters.cluster_skipped.add(serial.is_none().into());
            let ttl_s = remembered_s(&part);
            let place = serial.map(|serial| LogPlace { serial, age_ms, ttl_s, was_delivered });
            let event = event_of(part, age_ms, env);
            let event = Box::new(dialect::from_log(env, (app, &channel), age_ms, event));
            let channel = channel.clone();
            self.arrivals.push_back((core, Arrival::Apply { app, channel, event, place }));
        }
        self.note_decisions(author, decisions);
    }

    /// Sends the states of an entry to the home of their channel. States of dead nodes do not
    /// count.
    fn apply_states(&mut self, entry: &Entry<'_>, env: &Env, now_ms: u64) {
        let Some(app) = env.app_of_log_id(entry.app) else { return };
        let core = self.home(app, entry.channel);
        for part in &entry.states {
            let node = part.node();
            if !self.nodes.note_state(node, now_ms) {
                self.setup.counters.cluster_skipped.add(1);
                continue;
            }
            self.setup.counters.cluster_states.add(1);
            let author = StateAuthor { node, is_ours: node == self.nodes.id() };
            let arrival = states::arrival_of(part, (app, entry.channel.into()), author);
            self.arrivals.push_back((core, arrival));
        }
    }
}
