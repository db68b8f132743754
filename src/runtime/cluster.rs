//! Whether this node of a cluster has joined it. The control thread writes it, and cores read it.

use std::sync::atomic::{AtomicU8, Ordering};

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

/// The phase, for all threads.
#[derive(Debug, Default)]
pub struct ClusterStatus(AtomicU8);

impl ClusterStatus {
    /// Changes the phase.
    pub fn set(&self, phase: ClusterPhase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    /// The present phase.
    pub fn phase(&self) -> ClusterPhase {
        let phases = [ClusterPhase::Joining, ClusterPhase::Joined, ClusterPhase::Away];
        let now = self.0.load(Ordering::Acquire);
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
    fn cluster_phase_decides_what_is_served() {
        let status = ClusterStatus::default();
        assert_eq!(
            (status.phase(), status.serves(), status.is_ready()),
            (ClusterPhase::Alone, true, true)
        );
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
        }
    }
}
