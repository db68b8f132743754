//! Judges that the connections of all nodes together are within the application's limit.

use polycast::cluster::entry::{Entry, NodePhase};
use std::collections::BTreeSet;

/// How long nodes have to reserve again what they had when the log was lost, in milliseconds:
/// `rejoin_ms` by default.
const REJOIN_MS: u64 = 5000;

/// What the log has of the nodes.
#[derive(Default)]
pub(super) struct LimitJudge {
    /// The id of the application.
    pub(super) app: &'static str,
    /// The limit; 0 is none.
    pub(super) limit: usize,
    /// The ids of the nodes that are dead, and of those that have reserved something in the log.
    dead: BTreeSet<u64>,
    reserved: BTreeSet<u64>,
    lost_ms: Option<u64>,
    /// The largest number of connections that there were.
    pub(super) peak: usize,
}

impl LimitJudge {
    pub(super) fn observe(&mut self, entry: &Entry<'_>) {
        let dead = entry.nodes.iter().filter(|it| it.state == NodePhase::Dead);
        self.dead.extend(dead.map(|it| it.node));
        let limit = entry.limit.iter().filter(|_| entry.app == self.app);
        let rows = limit.flat_map(|it| &it.reserved);
        self.reserved.extend(rows.map(|(node, _)| *node));
    }

    pub(super) fn lost(&mut self, ms: u64) {
        self.lost_ms = Some(ms);
        self.reserved.clear();
    }

    /// Whether the connections that a living process has now do not count any more: the log has
    /// the death of its node, or the node has not come back in time after the log was lost.
    pub(super) fn is_void(&self, node: u64, ms: u64) -> bool {
        let is_late = self.lost_ms.is_some_and(|it| it + REJOIN_MS <= ms);
        self.dead.contains(&node) || is_late && !self.reserved.contains(&node)
    }

    /// So many connections count.
    pub(super) fn judge(&mut self, count: usize) {
        self.peak = self.peak.max(count);
        assert!(self.limit == 0 || count <= self.limit, "{count} of {}", self.limit);
    }
}
