//! Where in the log the node goes on to read, and what it does when entries may be missing.

use super::ClusterNode;
use crate::cluster::arrival::Arrival;
use crate::cluster::engine::{Engine, LogInfo};
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
        self.reservations.attached(log.epoch);
        if attached.is_new {
            let may_use = self.nodes.may_append(now_ms);
            self.reservations.lose(may_use, self.nodes.id(), env);
        }
        self.nodes.attached(&attached, now_ms);
        self.take_effects(engine);
        engine.follow(attached.after);
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
