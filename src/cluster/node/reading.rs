//! Where in the log the node goes on to read, and what it does when entries may be missing.

use super::applying::EntryUse;
use super::{ClusterNode, NodeTime};
use crate::cluster::arrival::Arrival;
use crate::cluster::engine::{Engine, LogInfo};
use crate::cluster::follower::Taken;
use crate::cluster::places::LogChange;
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
        if self.notes_lag(Some(sequence), engine, env, now.ms) {
            return true;
        }
        let age_ms = now.unix_ms.saturating_sub(stored_ms);
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
            engine.look();
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
