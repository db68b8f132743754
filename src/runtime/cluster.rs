//! Whether this node of a cluster has joined it. The control thread writes it, and cores read it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The maximum size of the pieces of pictures and epochs in the log, in bytes, unless the engine
/// accepts only smaller entries.
pub const PIECE_BYTES: usize = 128 * 1024;
/// The minimum of that size, in bytes, whatever the engine accepts.
const MIN_PIECE_BYTES: usize = 1024;

/// The phase of a process in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ClusterPhase {
    /// The process is not a node of a cluster.
    Alone,
    /// The node has not read the log yet, so it serves no application.
    Joining,
    /// The node follows the log.
    Joined,
    /// The node had joined, and has not reached the engine for `cluster.hold_ms`.
    Away,
}

/// A node of the cluster, for pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The id.
    pub id: u64,
    /// Whether it is this process.
    pub is_own: bool,
    /// The word for its state.
    pub state: &'static str,
    /// The version of its release.
    pub release: Box<str>,
    /// Whether it has the same settings as this process, of those that all nodes should have the
    /// same: applications, what is kept and bounded of them, links, and times of the cluster.
    pub has_same_settings: bool,
    /// The number of its open connections.
    pub connections: u64,
    /// When its last renewal was read, in milliseconds.
    pub read_ms: u64,
}

/// What this process knows of its cluster, for all threads.
#[derive(Debug, Default)]
pub struct ClusterStatus {
    phase: AtomicU8,
    /// The number that the process has drawn at its start.
    process: AtomicU64,
    is_leader: AtomicBool,
    /// When the engine was lost, in milliseconds of the process's clock, and one more; 0 while it
    /// can be used.
    lost: AtomicU64,
    nodes: Mutex<Arc<[NodeStatus]>>,
    /// The version of the configuration that each core has taken last; a core that still has the
    /// first one is missing.
    versions: Mutex<BTreeMap<u16, u32>>,
    /// The memory of the idempotency keys of the log, in bytes.
    key_bytes: AtomicUsize,
    /// The number of times that [`PIECE_BYTES`] is halved.
    piece_halvings: AtomicU8,
}

impl ClusterStatus {
    /// Notes the maximum size of an entry of the engine, in bytes.
    pub fn set_max_entry(&self, bytes: usize) {
        // Nodes of different servers make pieces of different sizes, but never the same number of
        // them for one picture, and end pieces of an epoch at common places.
        let sizes = (0..).map(|halvings| (halvings, PIECE_BYTES >> halvings));
        let fits = |(_, size): &(u8, usize)| *size <= bytes / 2 || *size <= MIN_PIECE_BYTES;
        let halvings = sizes.into_iter().find(fits).map_or(0, |(halvings, _)| halvings);
        self.piece_halvings.store(halvings, Ordering::Release);
    }

    /// The maximum size of a piece of a picture or of an epoch, in bytes: at most half of what the
    /// engine accepts, because an entry has more in it than that.
    pub fn piece_bytes(&self) -> usize {
        PIECE_BYTES >> self.piece_halvings.load(Ordering::Acquire)
    }

    /// Changes the memory of the idempotency keys of the log, in bytes.
    pub fn set_key_bytes(&self, bytes: usize) {
        self.key_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The memory of the idempotency keys of the log, in bytes.
    pub fn key_bytes(&self) -> usize {
        self.key_bytes.load(Ordering::Relaxed)
    }

    /// Changes the phase.
    pub fn set(&self, phase: ClusterPhase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Notes the number that the process has drawn at its start.
    pub fn set_process(&self, process: u64) {
        self.process.store(process, Ordering::Release);
    }

    /// The number that the process has drawn at its start; 0 if it is not a node of a cluster.
    pub fn process(&self) -> u64 {
        self.process.load(Ordering::Acquire)
    }

    /// Changes whether this node leads.
    pub fn set_leader(&self, is_leader: bool) {
        self.is_leader.store(is_leader, Ordering::Release);
    }

    /// Whether this process does what only one node of a cluster is to do: it serves and has the
    /// lowest id, or it is alone. Two nodes may lead for a moment, or none.
    pub fn is_leader(&self) -> bool {
        self.phase() == ClusterPhase::Alone || self.is_leader.load(Ordering::Acquire)
    }

    /// Changes the list of the nodes.
    pub fn set_nodes(&self, nodes: Vec<NodeStatus>) {
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = nodes.into();
    }

    /// The nodes that are not dead, by their ids, as they were known within the last second.
    pub fn nodes(&self) -> Arc<[NodeStatus]> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a core has taken the configuration of this version.
    pub fn note_version(&self, core: u16, version: u32) {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).insert(core, version);
    }

    /// Whether all of so many cores have taken the configuration of this version, or a later one.
    pub fn have_version(&self, cores: u16, version: u32) -> bool {
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        (0..cores).all(|core| versions.get(&core).copied().unwrap_or(0) >= version)
    }

    /// Changes since when the engine cannot be used, in milliseconds; `None` if it can.
    pub fn set_lost(&self, since_ms: Option<u64>) {
        self.lost.store(since_ms.map_or(0, |ms| ms + 1), Ordering::Release);
    }

    /// For how many seconds nothing has come from the engine because it cannot be used; `None` if
    /// it can, or if the process is not a node of a cluster.
    pub fn stale_s(&self, now_ms: u64) -> Option<u64> {
        let since_ms = self.lost.load(Ordering::Acquire).checked_sub(1)?;
        Some(now_ms.saturating_sub(since_ms) / 1000)
    }

    /// The present phase.
    pub fn phase(&self) -> ClusterPhase {
        let phases = [ClusterPhase::Joining, ClusterPhase::Joined, ClusterPhase::Away];
        let now = self.phase.load(Ordering::Acquire);
        phases.into_iter().find(|phase| *phase as u8 == now).unwrap_or(ClusterPhase::Alone)
    }

    /// Whether applications are served.
    pub fn serves(&self) -> bool {
        self.phase() != ClusterPhase::Joining
    }

    /// Whether events that are published now are likely to be stored.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase(), ClusterPhase::Alone | ClusterPhase::Joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_status_says_how_stale_the_node_is() {
        let status = ClusterStatus::default();
        assert_eq!(status.stale_s(5000), None);
        status.set_lost(Some(0));
        assert_eq!((status.stale_s(999), status.stale_s(1000)), (Some(0), Some(1)));
        status.set_lost(None);
        assert_eq!(status.stale_s(5000), None);
    }

    #[test]
    fn cluster_status_knows_which_configuration_all_cores_have() {
        let status = ClusterStatus::default();
        assert!(status.have_version(2, 0) && !status.have_version(2, 1));
        status.note_version(0, 2);
        assert!(!status.have_version(2, 1) && status.have_version(1, 2));
        status.note_version(1, 1);
        assert!(status.have_version(2, 1) && !status.have_version(2, 2));
    }

    #[test]
    fn cluster_pieces_have_at_most_half_of_what_the_engine_accepts() {
        let status = ClusterStatus::default();
        assert_eq!(status.piece_bytes(), 128 << 10);
        for (max, bytes) in [
            (usize::MAX, 128 << 10),
            (256 << 10, 128 << 10),
            ((256 << 10) - 1, 64 << 10),
            (64 << 10, 32 << 10),
            (2048, 1024),
            (0, 1024),
            (1 << 20, 128 << 10),
        ] {
            status.set_max_entry(max);
            assert_eq!(status.piece_bytes(), bytes, "{max}");
        }
    }

    #[test]
    fn cluster_phase_decides_what_is_served() {
        let status = ClusterStatus::default();
        assert_eq!(
            (status.phase(), status.serves(), status.is_ready()),
            (ClusterPhase::Alone, true, true)
        );
        assert!(status.is_leader(), "nobody else is there");
        for (phase, serves, is_ready) in [
            (ClusterPhase::Joining, false, false),
            (ClusterPhase::Joined, true, true),
            (ClusterPhase::Away, true, false),
        ] {
            status.set(phase);
            assert_eq!(
                (status.phase(), status.serves(), status.is_ready()),
                (phase, serves, is_ready)
            );
            for is_leader in [true, false] {
                status.set_leader(is_leader);
                assert_eq!(status.is_leader(), is_leader);
            }
        }
    }
}
