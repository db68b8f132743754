//! Whether the engine stores what this node sends, and the phase that follows; and whether the log
//! has room for it.

use super::ClusterNode;
use crate::dialect::Env;
use crate::runtime::ClusterPhase;

/// The share of `cluster.log_bytes` from which on events are refused, so that renewals and what is
/// true of nodes have room.
const FULL_PERCENT: u64 = 80;
/// The share from which on states are refused, too, but for their ends. Clients can make up names
/// of channels, of each of which a node states that it has a subscriber; that must not keep nodes
/// from renewing their entries.
const FULL_OF_STATES_PERCENT: u64 = 95;

impl ClusterNode {
    /// Notes the size of the log, and logs when something begins or ceases to be refused for it.
    pub(super) fn note_size(&mut self, bytes: u64) {
        let percent = self.log_bytes / 100;
        let bounds = [
            (&mut self.is_full, FULL_PERCENT, "events"),
            (&mut self.is_full_of_states, FULL_OF_STATES_PERCENT, "joins and new channels"),
        ];
        for (is_full, bound, what) in bounds {
            let is_above = bytes >= percent * bound;
            match (std::mem::replace(is_full, is_above), is_above) {
                (false, true) => tracing::warn!(
                    bytes,
                    "cluster: the log has {bound} % of cluster.log_bytes; {what} are refused"
                ),
                (true, false) => {
                    tracing::info!(bytes, "cluster: the log has room for {what} again")
                }
                _ => {}
            }
        }
    }

    /// Lets entries have a size that the engine accepts.
    pub(super) fn note_max_entry(&mut self, bytes: usize, env: &Env) {
        self.queue.set_max_entry(bytes);
        env.runtime.cluster.set_max_entry(bytes);
        self.epochs.outbox.set_piece_bytes(env.runtime.cluster.piece_bytes());
    }

    /// Notes whether the engine stores what this node sends, and lets other threads know.
    pub(super) fn note_storing(&mut self, env: &Env, now_ms: u64) {
        self.is_away = self.finds_away(now_ms);
        let has_joined = self.follower.has_joined() && self.nodes.has_joined();
        let phase = match (has_joined, self.is_away) {
            (false, _) => ClusterPhase::Joining,
            (true, false) => ClusterPhase::Joined,
            (true, true) => ClusterPhase::Away,
        };
        let is_refused = phase == ClusterPhase::Away && self.nodes.is_refused(now_ms);
        if is_refused && !self.refusal_logged {
            let hold_ms = self.hold_ms;
            tracing::error!(
                hold_ms,
                "cluster: the engine has stored nothing of this node for hold_ms, so publishes \
                 fail and the node is not ready"
            );
            self.refusal_logged = true;
        }
        if phase == ClusterPhase::Joined && std::mem::take(&mut self.refusal_logged) {
            tracing::info!("cluster: the engine stores what this node sends again");
        }
        let is_usable = self.is_up && phase != ClusterPhase::Away;
        self.setup.counters.cluster_up.set(is_usable.into());
        env.runtime.cluster.set(phase);
    }

    /// Whether the engine cannot be reached, or stores no renewals, for `hold_ms`: as long as
    /// events wait. It ends when a renewal is stored.
    fn finds_away(&self, now_ms: u64) -> bool {
        match (self.is_up, self.nodes.may_append(now_ms)) {
            (true, true) => false,
            (false, _) if self.down_ms + self.hold_ms <= now_ms => true,
            (_, false) if self.nodes.renewed_ms() + self.hold_ms <= now_ms => true,
            _ => self.is_away,
        }
    }
}
