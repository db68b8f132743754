//! What the entries of the log are to the cores: events, states and epochs.

use super::ClusterNode;
use super::keys::keys_of;
use crate::cluster::arrival::Arrival;
use crate::cluster::entry::{self, Entry, LimitPart, NotAnEntry, PicturePart, StatePart};
use crate::cluster::events::{event_of, remembered_s};
use crate::cluster::follower::Taken;
use crate::cluster::keys::KeyDecision;
use crate::cluster::repeats::Repeat;
use crate::cluster::states;
use crate::dialect::{self, Env, Event};
use crate::hub::{LogPlace, PicturePiece, StateAuthor, log_serial};
use std::sync::Arc;

/// What is to be done with an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryUse {
    pub(super) taken: Taken,
    /// Whether it takes full effect if it is of an application for whose sake the log is read.
    pub(super) is_new_of_added: bool,
}

impl ClusterNode {
    /// Notes the state that an entry has, and applies its events if they are to be.
    pub(super) fn take_entry(
        &mut self,
        body: &[u8],
        (sequence, age_ms): (u64, u64),
        EntryUse { taken, is_new_of_added }: EntryUse,
        env: &Env,
        now_ms: u64,
    ) {
        self.tell_dialects(env);
        let entry = match entry::read_formats(body, self.nodes.formats()) {
            Ok(entry) => entry,
            // It was skipped before.
            Err(_) if taken == Taken::Repeated => return,
            Err(error) => return self.skip(error, taken, now_ms),
        };
        let is_of_added = is_new_of_added && self.is_of_added(entry.app, env);
        if taken == Taken::Repeated && !is_of_added {
            return;
        }
        self.is_unreadable = false;
        if entry.is_empty() {
            return;
        }
        // For a state it is enough to be in the log, so the next one need not wait for the answer.
        if entry.node == self.setup.id && self.queue.has_state(entry.number) {
            self.stored(entry.number);
        }
        for part in &entry.nodes {
            if !self.nodes.on_part(entry.node, part, sequence, now_ms) {
                self.setup.counters.cluster_skipped.add(1);
            }
        }
        if let Some(part) = &entry.limit {
            return self.take_limit(entry.app, part, sequence, env, now_ms);
        }
        if let Some(part) = &entry.counting {
            return self.take_counting(entry.app, *part, sequence, env, now_ms);
        }
        self.counted.note_nodes(!entry.nodes.is_empty());
        // An entry of a node itself has a number of another kind.
        if !entry.nodes.is_empty() {
            return self.apply_states(&entry, env, now_ms);
        }
        match taken == Taken::Apply || is_of_added {
            true => self.apply(entry, (sequence, age_ms), taken, env, now_ms),
            false => {
                self.applied.note(entry.node, entry.number);
                self.apply_states(&entry, env, now_ms);
                self.fold_pictures(&entry, (sequence, age_ms), env);
            }
        }
    }

    /// Notes what nodes have reserved of the connections of an application.
    fn take_limit(&mut self, app: &str, part: &LimitPart, sequence: u64, env: &Env, now_ms: u64) {
        self.setup.counters.cluster_entries.add(1);
        match self.logged_app(app, env) {
            Some(app) => self.reservations.on_part(app, part, sequence, &mut self.nodes, now_ms),
            None => self.setup.counters.cluster_skipped.add(1),
        }
    }

    /// Skips an entry. After an entry of another format subscribers are closed, because its events
    /// are missing, and this node serves only when the nodes that write that format have ended.
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
    fn apply(
        &mut self,
        entry: Entry<'_>,
        (sequence, age_ms): (u64, u64),
        taken: Taken,
        env: &Env,
        now_ms: u64,
    ) {
        let counters = self.setup.counters.clone();
        counters.cluster_entries.add(1);
        let app = self.logged_app(entry.app, env);
        let repeat = self.note_number(&entry, app, taken);
        counters.cluster_repeated.add((repeat != Repeat::New).into());
        if repeat == Repeat::OfThisLog {
            return;
        }
        let was_delivered = repeat == Repeat::OfEarlierLog;
        counters.cluster_skipped.add(entry.skipped as u64);
        if !entry.states.is_empty() || !entry.pictures.is_empty() {
            self.apply_states(&entry, env, now_ms);
        }
        let Some(app) = app else { return counters.cluster_skipped.add(1) };
        let core = self.home(app, entry.channel);
        let channel: Arc<str> = entry.channel.into();
        // An epoch has no place in a history.
        for part in entry.epochs.iter().filter(|_| !was_delivered) {
            let Some(event) = self.take_epoch(part, env) else { continue };
            let (channel, event) = (channel.clone(), Box::new(event));
            self.arrivals.push_back((core, Arrival::Apply { app, channel, event, place: None }));
        }
        if !was_delivered {
            self.apply_own(&entry, (app, core), (sequence, age_ms), env);
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
        let Some(app) = self.logged_app(entry.app, env) else { return };
        let core = self.home(app, entry.channel);
        for part in &entry.states {
            let node = part.node();
            if !self.nodes.note_state(node, now_ms) {
                self.setup.counters.cluster_skipped.add(1);
                continue;
            }
            self.setup.counters.cluster_states.add(1);
            let author = StateAuthor { node, is_ours: node == self.nodes.id() };
            if let StatePart::Member { user, present, .. } = part {
                let info = present.as_ref().map(|present| present.info.unwrap_or(""));
                let member = (*user, info);
                if author.is_ours && info.is_none() {
                    self.end_picture(app, entry.channel);
                }
                let direct = dialect::note_member(env, (app, entry.channel), node, member);
                let direct = direct.into_iter();
                self.arrivals
                    .extend(direct.map(|(to, what)| (to.core, Arrival::Tell { to, what })));
            }
            let arrival = states::arrival_of(part, (app, entry.channel.into()), author);
            self.arrivals.push_back((core, arrival));
        }
        for &PicturePart { serial, index, count, piece } in &entry.pictures {
            self.setup.counters.cluster_states.add(1);
            let piece = Box::new(PicturePiece { serial, index, count, bytes: piece.into() });
            let follows = dialect::note_piece(env, (app, entry.channel), &piece);
            self.apply_following(app, follows);
            let (channel, is_ours) = (entry.channel.into(), entry.node == self.setup.id);
            let arrival = Arrival::Picture { app, channel, piece, is_ours };
            self.arrivals.push_back((core, arrival));
        }
    }

    /// Sends the events of an entry that are in the form of their dialect to the home of their
    /// channel.
    fn apply_own(
        &mut self,
        entry: &Entry<'_>,
        (app, core): (u32, u16),
        (sequence, age_ms): (u64, u64),
        env: &Env,
    ) {
        for (index, part) in entry.own.iter().enumerate() {
            let serial = log_serial(sequence, index);
            let event = dialect::event_of_log(env, (app, entry.channel), part);
            let (Some(serial), Some(event)) = (serial, event) else {
                self.setup.counters.cluster_skipped.add(1);
                continue;
            };
            self.setup.counters.cluster_events.add(1);
            if entry.node == self.setup.id && event.removes_picture() {
                self.unstored.remove(entry.channel);
            }
            if let Some(direct) = dialect::direct_of(&event) {
                // Without a connection it is for another node.
                let arrival = direct.map(|(to, what)| (core, Arrival::Tell { to, what }));
                self.arrivals.extend(arrival);
                continue;
            }
            let follows = dialect::note_event(env, (app, entry.channel), &event, serial);
            self.apply_following(app, follows);
            let (channel, event) = (entry.channel.into(), Box::new(event));
            let place = Some(LogPlace { serial, age_ms, ttl_s: None, was_delivered: false });
            self.arrivals.push_back((core, Arrival::Apply { app, channel, event, place }));
        }
    }

    /// Sends the event that follows from another one to the home of its channel.
    fn apply_following(&mut self, app: u32, follows: Option<(String, Event)>) {
        let Some((channel, event)) = follows else { return };
        let core = self.home(app, &channel);
        let (channel, event, place) = (channel.into(), Box::new(event), None);
        self.arrivals.push_back((core, Arrival::Apply { app, channel, event, place }));
    }

    /// Makes the changes of pictures again that an entry has, since the log is read from its
    /// beginning.
    fn fold_pictures(&mut self, entry: &Entry<'_>, (sequence, age_ms): (u64, u64), env: &Env) {
        let app = self.logged_app(entry.app, env).filter(|_| !entry.own.is_empty());
        let Some(app) = app else { return };
        if self.folded.takes(entry.node, entry.number) != Repeat::New {
            return;
        }
        let core = self.home(app, entry.channel);
        for (index, part) in entry.own.iter().enumerate() {
            let serial = log_serial(sequence, index);
            let event = dialect::event_of_log(env, (app, entry.channel), part);
            if let (Some(serial), Some(event)) = (serial, event) {
                let follows = dialect::note_event(env, (app, entry.channel), &event, serial);
                self.apply_following(app, follows);
                let (channel, event) = (entry.channel.into(), Box::new(event));
                let place = LogPlace { serial, age_ms, ttl_s: None, was_delivered: false };
                self.arrivals.push_back((core, Arrival::Fold { app, channel, event, place }));
            }
        }
    }
}
