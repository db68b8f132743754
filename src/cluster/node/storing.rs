//! Whether the engine stores what this node sends, and the phase that follows.

use super::ClusterNode;
use crate::dialect::Env;
use crate::runtime::ClusterPhase;

impl ClusterNode {
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
