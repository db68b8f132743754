//! Where in the log the node goes on to read, and what it does when entries may be missing.

use super::applying::EntryUse;
use super::{ClusterNode, NodeTime};
use crate::cluster::arrival::Arrival;
use crate::cluster::engine::{Append, Engine, LogInfo};
use crate::cluster::follower::Taken;
use crate::cluster::places::LogChange;
use crate::cluster::{entry, subject};
use crate::dialect::Env;
use crate::hub::LogMark;

/// The time between two turns while the engine is away and nothing waits for it, in milliseconds.
const AWAY_TURN_MS: u64 = 1000;

impl ClusterNode {
    /// Up to where the entries of the log are in arrivals that were taken, if all were.
    pub fn mark(&self) -> LogMark {
        self.places.mark(self.follower.position())
    }

    /// Takes an entry: its sequence number, when it was stored, and whether it is the last one.
    /// Returns whether the log is delivered from another position on.
    pub(super) fn on_entry(
        &mut self,
        (sequence, stored_ms, is_last): (u64, u64, bool),
        body: &[u8],
        engine: &mut dyn Engine,
        env: &Env,
        now: NodeTime,
    ) -> bool {
        let age_ms = now.unix_ms.saturating_sub(stored_ms);
        if self.settles_doubt(Some((sequence, age_ms)), engine, env, now.ms)
            || self.notes_lag(Some(sequence), engine, env, now.ms)
        {
            return true;
        }
        let (is_new_of_added, news) = self.added.takes(sequence, (stored_ms, age_ms), now.ms);
        news.into_iter().for_each(|news| self.note_added(&news, false));
        let taken = self.follower.takes(sequence, is_last, now.ms);
        match taken {
            Taken::Apply => {
                // An earlier entry that is read again is no sign of a clock that was ahead.
                self.keys.note_time(stored_ms, now.ms);
                self.setup.counters.cluster_lag_ms.set(age_ms);
                let change = self.places.entry(sequence, age_ms, is_last);
                self.note_change(change);
            }
            Taken::Fold => {}
            Taken::Repeated if is_new_of_added => {}
            Taken::Repeated => self.setup.counters.cluster_repeated.add(1),
        }
        if taken != Taken::Repeated || is_new_of_added {
            let how = EntryUse { taken, is_new_of_added };
            self.take_entry(body, (sequence, age_ms), how, env, now.ms);
            self.take_effects(engine);
        }
        self.end_reading(engine, env, now.ms);
        self.note_counted();
        is_last && self.notes_caught_up(engine, env, now.ms)
    }

    /// Notes that everything that is stored has been delivered.
    pub(super) fn note_current(&mut self, engine: &mut dyn Engine) {
        let change = self.places.current();
        if change.is_some() && self.places.is_doubtful() {
            self.is_asked = engine.look();
        }
        self.note_change(change);
    }

    /// Tells the cores how the node goes on with the log.
    pub(super) fn note_change(&mut self, change: Option<LogChange>) {
        let Some(LogChange { start, is_gap }) = change else { return };
        if is_gap && self.follower.has_joined() {
            self.close_subscribers();
        }
        self.send_to_all(&Arrival::Log(start));
    }

    /// Handles that the engine can be used again. After an interruption so long that entries may
    /// have expired, the node first follows the log to see whether its next entry is there.
    pub(super) fn on_up(&mut self, log: LogInfo, engine: &mut dyn Engine, env: &Env, now_ms: u64) {
        (self.in_doubt, self.is_asked) = (None, false);
        let Some(log) = self.believe(log, engine) else { return };
        self.follower.note_log(now_ms);
        self.places.note_log();
        if self.follower.is_doubtful(log, now_ms) {
            self.in_doubt = Some(log);
            return engine.follow(self.follower.position());
        }
        self.come_up(log, engine, env, now_ms);
    }

    /// The log as it is. If the engine reports an end of the log before an entry that this node
    /// knows, either the log has lost its end, or the report is older than that entry. So the
    /// engine is asked once more. If the second report has all entries that were known when it was
    /// asked, the log has lost nothing. Returns nothing until the second report comes.
    fn believe(&mut self, log: LogInfo, engine: &mut dyn Engine) -> Option<LogInfo> {
        let known = self.follower.known_end(log.epoch);
        match self.asked_with.take() {
            _ if log.last >= known => Some(log),
            Some(before) if log.last >= before => Some(LogInfo { last: known, ..log }),
            Some(_) => Some(log),
            None if engine.look() => {
                self.asked_with = Some(known);
                None
            }
            None => Some(log),
        }
    }

    /// Goes on with the log if it was in doubt whether entries have expired: not if the next one is
    /// there and young. `next` is the entry that is delivered and its age in milliseconds, `None`
    /// if there is no further one. Returns whether that was in doubt; then the log is delivered
    /// again.
    pub(super) fn settles_doubt(
        &mut self,
        next: Option<(u64, u64)>,
        engine: &mut dyn Engine,
        env: &Env,
        now_ms: u64,
    ) -> bool {
        let Some(log) = self.in_doubt.take() else { return false };
        if let Some((sequence, age_ms)) = next
            && self.follower.note_successor(sequence, now_ms.saturating_sub(age_ms))
        {
            self.places.note_successor(age_ms);
        }
        self.come_up(log, engine, env, now_ms);
        true
    }

    fn come_up(&mut self, log: LogInfo, engine: &mut dyn Engine, env: &Env, now_ms: u64) {
        let missed = self.attach(log, true, engine, env, now_ms);
        if self.was_up {
            let counters = &self.setup.counters;
            counters.cluster_fillings.add(1);
            counters.cluster_filled.add(missed);
        }
        (self.is_up, self.was_up) = (true, true);
    }

    /// Appends the first entry after a time in which nothing was stored, before all others. A
    /// renewal would be replaced by the next one; this entry stays, so that all nodes see from it
    /// that nothing has expired.
    pub(super) fn send_first(&mut self, engine: &mut dyn Engine) {
        let Some(log) = self.was_still.take() else { return };
        let process = self.setup.id;
        engine.append(Append {
            number: 0,
            subject: subject::of_first_entries(&self.name),
            id: format!("{process:016x}-first-{:x}-{}", log.epoch, log.last),
            ttl_s: Some(self.keep_s),
            replaces: false,
            expected: None,
            body: entry::write((process, 0), "", "", [].into_iter()),
        });
    }

    /// Follows the log on from where this node is. `is_whole` says that `log` has the last entry.
    /// Returns the number of entries that were stored meanwhile.
    pub(super) fn attach(
        &mut self,
        log: LogInfo,
        is_whole: bool,
        engine: &mut dyn Engine,
        env: &Env,
        now_ms: u64,
    ) -> u64 {
        let position = self.follower.position();
        let attached = self.follower.attached(log, now_ms);
        self.was_still = attached.was_still.then_some(log);
        self.setup.counters.cluster_epochs.add(attached.is_new.into());
        if attached.is_new {
            self.applied.begin_log();
            self.keys.begin_log();
        }
        if attached.is_gap {
            self.close_subscribers();
        }
        let mut change = match is_whole {
            true => self.places.attached(log, position, attached.is_gap),
            false => self.places.lag(),
        };
        // They are closed already.
        change.iter_mut().for_each(|change| change.is_gap &= !attached.is_gap);
        self.note_change(change);
        let restarted = Some(log.last).filter(|_| attached.is_new);
        let news = restarted.and_then(|last| self.added.begin_log(last));
        news.into_iter().for_each(|news| self.note_added(&news, false));
        self.reservations.attached(log.epoch);
        if attached.is_new {
            let may_use = self.nodes.may_append(now_ms);
            self.reservations.lose(may_use, self.nodes.id(), env);
        }
        self.nodes.attached(&attached, now_ms);
        self.take_effects(engine);
        let of_added = self.added.position().unwrap_or(u64::MAX);
        engine.follow(attached.after.min(of_added));
        attached.missed
    }

    /// Handles that entries may have expired before they were delivered. Returns whether the log is
    /// delivered again.
    pub(super) fn notes_lag(
        &mut self,
        next: Option<u64>,
        engine: &mut dyn Engine,
        env: &Env,
        now_ms: u64,
    ) -> bool {
        let Some(log) = self.follower.lags(next, now_ms) else { return false };
        if self.follower.is_rereading() {
            self.close_subscribers();
            self.follower.note_lag(now_ms);
            return false;
        }
        self.attach(log, false, engine, env, now_ms);
        if next.is_some() {
            self.follower.note_lag(now_ms);
        }
        true
    }

    /// Handles that everything that is stored has been delivered, after entries had expired before
    /// they were delivered. Returns whether the log is delivered anew.
    pub(super) fn notes_caught_up(
        &mut self,
        engine: &mut dyn Engine,
        env: &Env,
        now_ms: u64,
    ) -> bool {
        let Some(log) = self.follower.caught_up() else { return false };
        self.attach(log, true, engine, env, now_ms);
        true
    }

    /// When a turn is due while the engine is away: when the node counts as away, and now and then,
    /// because what the engine reports may be as old as the turn before.
    pub(super) fn away_deadline_ms(&self) -> u64 {
        let away_ms = self.down_ms + self.hold_ms;
        let next_ms = self.turn_ms + AWAY_TURN_MS;
        if away_ms > self.turn_ms { away_ms.min(next_ms) } else { next_ms }
    }

    pub(super) fn close_subscribers(&mut self) {
        self.setup.counters.cluster_gaps.add(1);
        self.send_to_all(&Arrival::Gap);
    }
}
