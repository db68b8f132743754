//! The node among the others: what it says of itself, and what follows from what is read of nodes.

use super::ClusterNode;
use crate::cluster::arrival::Arrival;
use crate::cluster::engine::Engine;
use crate::cluster::nodes::{NodeEffect, NodeSummary};
use crate::crypto::sha256;
use crate::dialect::Env;
use crate::hub::StateAuthor;

impl ClusterNode {
    /// Lets other threads know of the nodes.
    pub(super) fn show_nodes(&self, env: &Env, now_ms: u64) {
        let (status, nodes) = (&env.runtime.cluster, self.nodes.statuses());
        self.setup.counters.cluster_nodes.set(nodes.len() as u64);
        status.set_leader(self.nodes.is_leader(now_ms));
        status.set_nodes(nodes);
    }

    /// Notes that the process is about to end.
    pub fn leave(&mut self) {
        self.nodes.leave();
    }

    /// Notes what this node says of itself.
    pub(super) fn note_summary(&mut self, env: &Env) {
        let version = env.runtime.version;
        let apps = match self.summary {
            Some((known, summary)) if known == version => summary.apps,
            _ => digest(env),
        };
        let connections = env.runtime.counters.iter().map(|core| core.connections.get()).sum();
        let summary = NodeSummary { apps, connections };
        self.summary = Some((version, summary));
        self.nodes.set_summary(summary);
    }

    /// Notes that the log was read from its beginning, if that has come to its end.
    pub(super) fn end_reading(&mut self, engine: &mut dyn Engine, now_ms: u64) {
        if self.follower.has_reread() {
            self.nodes.reread(now_ms);
            self.take_effects(engine);
        }
    }

    /// Does what follows from the entries about nodes.
    pub(super) fn take_effects(&mut self, engine: &mut dyn Engine) {
        while let Some(effect) = self.nodes.next_effect() {
            match effect {
                NodeEffect::Append(append) => engine.append(append),
                NodeEffect::Purge(tokens) => engine.purge(&tokens),
                NodeEffect::Died { node, is_ours } => {
                    self.reservations.remove_node(node, is_ours);
                    self.send_to_all(&Arrival::NodeGone(StateAuthor { node, is_ours }));
                }
                NodeEffect::Restate => {
                    self.queue.drop_states();
                    self.send_to_all(&Arrival::Restate);
                }
                NodeEffect::RefreshBegin => self.send_to_all(&Arrival::RefreshBegin),
                NodeEffect::RefreshEnd { is_ours } => {
                    self.reservations.settle();
                    self.send_to_all(&Arrival::RefreshEnd { is_ours })
                }
            }
        }
    }
}

/// A digest of the ids and keys of the applications, which all nodes should have the same.
fn digest(env: &Env) -> u64 {
    let mut apps: Vec<_> = env.config.apps.iter().map(|app| (&app.id, &app.key)).collect();
    apps.sort();
    let parts = apps.iter().flat_map(|(id, key)| [id.as_bytes(), b"\0", key.as_bytes(), b"\0"]);
    let digest = sha256(&parts.collect::<Vec<_>>());
    digest.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}
