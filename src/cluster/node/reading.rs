//! Where in the log the node goes on to read, and what it does when entries may be missing.

use super::ClusterNode;
use crate::cluster::arrival::Arrival;
use crate::cluster::engine::{Engine, LogInfo};

impl ClusterNode {
    /// Follows the log on from where this node is. Returns the number of entries that were stored
    /// meanwhile.
    pub(super) fn attach(&mut self, log: LogInfo, engine: &mut dyn Engine, now_ms: u64) -> u64 {
        let attached = self.follower.attached(log, now_ms);
        self.setup.counters.cluster_epochs.add(attached.is_new.into());
        if attached.is_gap {
            self.close_subscribers();
        }
        self.nodes.attached(&attached, now_ms);
        self.take_effects(engine);
        engine.follow(attached.after);
        attached.missed
    }

    /// Handles that entries may have expired before they were delivered. Returns whether the log is
    /// delivered anew.
    pub(super) fn notes_lag(
        &mut self,
        next: Option<u64>,
        engine: &mut dyn Engine,
        now_ms: u64,
    ) -> bool {
        let Some(log) = self.follower.lags(next, now_ms) else { return false };
        if self.follower.is_rereading() {
            self.close_subscribers();
            return false;
        }
        self.attach(log, engine, now_ms);
        true
    }

    fn close_subscribers(&mut self) {
        self.setup.counters.cluster_gaps.add(1);
        self.send_to_all(&Arrival::Gap);
    }
}
