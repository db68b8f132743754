//! What visits all sessions: the sweep of deadlines, a reload of the configuration, and a drain.

use super::Shard;
use super::drain::Drain;
use crate::config::{EndpointKind, Route};
use crate::dialect::{Env, Why, reflect};
use crate::session::SessionEvent;
use crate::time::Now;
use std::sync::Arc;

impl Shard {
    /// Runs all timers that are due, in every session. Call it a few times a second.
    pub fn sweep(&mut self, now: Now) {
        let (mut queued, mut input) = (0, 0);
        let mut rates = std::mem::take(&mut self.account.rates);
        for index in 0..self.sessions.end() {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            let mark = self.effects.len();
            let Some((session, mut cx)) = self.session(slot, now) else { continue };
            let before = session.link.ending();
            session.sweep(rates.of(slot), &mut cx);
            if session.has_parked() && session.may_resume(&cx) {
                self.resume(slot, now);
                continue;
            }
            let is_changed = !session.link.shrink() || session.link.ending() != before;
            if is_changed || self.effects.len() > mark {
                self.after(slot, mark, now);
                self.list(slot);
            }
            if let Some(session) = self.sessions.get_mut(slot) {
                queued += session.link.queued_bytes();
                input += session.input_bytes();
                let is_starved = session.link.is_starved();
                self.account.stalls.note(slot, session.burden(), is_starved);
            }
        }
        // While `rates` was taken out, sessions that ended only wrote default entries.
        self.account.rates = rates;
        self.counters.queued_bytes.set(queued as u64);
        self.report_memory(input);
        self.hub.sweep(now.ms);
        self.continue_visit(now);
        self.answer_counted(now);
        let (waiting, refused) = self.hub.waiting_reads();
        self.counters.count_reads_waiting.set(waiting as u64);
        self.counters.count_reads_refused.add(refused);
        self.hub.refuse_overdue(now.ms, &mut self.mail);
        let (waiting, refused) = self.hub.waiting_joins();
        self.counters.cluster_joins_waiting.set(waiting as u64);
        self.counters.cluster_joins_refused.add(refused);
        while let Some(reply) = self.hub.next_reply() {
            self.answer(reply, now);
        }
        self.hub.set_piece_bytes(self.env.runtime.cluster.piece_bytes());
        self.hub.list_due_pictures(self.env.runtime.cluster.is_leader(), now.ms);
        let losses = self.hub.losses();
        self.counters.kept_dropped.add(losses.kept);
        self.counters.log_dropped.add(losses.elements);
        self.counters.kept_bytes.set(self.hub.kept_bytes() as u64);
        let (events, bytes) = self.hub.history_totals();
        self.counters.history_events.set(events as u64);
        self.counters.history_bytes.set(bytes as u64);
        if self.core == 0 {
            self.report_idempotency(now);
        }
        self.warnings.look(self.core, &self.counters, now);
        self.drain_slice(now);
        self.close_slice(now);
        self.offer_rooms(now);
    }

    /// Removes the idempotency keys whose time is over, and sets their counters. One core does so
    /// for all, because all cores share the keys.
    fn report_idempotency(&self, now: Now) {
        let counts = self.env.apps.sweep_idempotency(now.ms);
        self.counters.idempotency_keys.set(counts.keys);
        self.counters.idempotent_replays.set(counts.replays);
        self.counters.idempotency_refused.set(counts.refused);
        self.counters.idempotency_dropped.set(counts.dropped);
    }

    /// Installs a configuration that was reloaded.
    pub fn renew(&mut self, env: Arc<Env>, now: Now) {
        self.hub.watch(env.watched.clone(), env.runtime.version);
        self.hub.bound_channels(env.apps.channel_bounds());
        self.hub.name_views(env.links.keys());
        for (number, old) in self.env.apps.iter() {
            // Channels whose events were not kept for a time must not seem to have lost none.
            if env.apps.find(number).is_none_or(|new| new.config.history != old.config.history) {
                self.hub.end_histories(number);
            }
        }
        if histories_of_groups(&env) != histories_of_groups(&self.env) {
            self.hub.end_histories(reflect::APP);
        }
        env.runtime.cluster.note_version(self.core, env.runtime.version);
        self.env = env;
        self.dials_at_all = self.env.config.has_proxies();
        for index in 0..self.sessions.end() {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            self.on_event(slot, SessionEvent::Reload, now);
        }
    }

    /// Begins a drain: new WebSockets are refused, and the open ones are closed during the next
    /// sweeps.
    pub fn drain(&mut self) {
        let end = self.sessions.end();
        self.drain.get_or_insert_with(|| Drain::new(end));
        self.hub.leave_log();
    }

    fn drain_slice(&mut self, now: Now) {
        let end = self.sessions.end();
        let Some(drain) = &mut self.drain else { return };
        for index in drain.next_slice(end) {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            self.on_event(slot, SessionEvent::CloseFor(Why::Draining), now);
        }
    }
}

/// The settings on which the histories of groups depend.
fn histories_of_groups(env: &Env) -> Vec<&Route> {
    let routes = env.config.routes.iter();
    routes.filter(|route| route.endpoint == EndpointKind::Reflect).collect()
}
