//! The times by which nodes are judged.

use crate::config::Cluster;

/// See the module's documentation. In milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct NodeTiming {
    /// The time between two renewals.
    pub renew_ms: u64,
    /// The silence after which a node is declared dead.
    pub dead_ms: u64,
    /// How long nobody is declared dead after the engine has come back.
    pub rejoin_ms: u64,
    /// The silence after which a node is declared dead that was leaving.
    pub linger_ms: u64,
    /// How long the log keeps a death.
    pub keep_s: u64,
}

impl NodeTiming {
    /// The times of a configuration.
    pub fn new(cluster: &Cluster) -> NodeTiming {
        NodeTiming {
            renew_ms: cluster.beat_ms,
            dead_ms: cluster.dead_ms,
            rejoin_ms: cluster.rejoin_ms,
            linger_ms: cluster.drain_linger_ms,
            keep_s: cluster.keep_s,
        }
    }

    /// How old the answer to the last renewal may be while a node appends: less than others wait,
    /// because an entry is still on its way after it was sent.
    pub fn fence_ms(&self) -> u64 {
        self.dead_ms / 5 * 3
    }
}
