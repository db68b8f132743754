//! The node among the others: what it says of itself, and what follows from what is read of nodes.

use super::{ClusterNode, NodeNews, NodeTime, settings};
use crate::cluster::arrival::Arrival;
use crate::cluster::engine::Engine;
use crate::cluster::nodes::{NodeEffect, NodeSummary};
use crate::cluster::repeats::AppliedNumbers;
use crate::dialect::{self, Env, Event, Proposal};
use crate::hub::StateAuthor;

/// The maximum number of events about the ends of nodes that one turn publishes.
pub(super) const REPORTS: usize = 256;

impl ClusterNode {
    /// Lets other threads know of the nodes.
    pub(super) fn show_nodes(&self, env: &Env, now_ms: u64) {
        let (status, nodes) = (&env.runtime.cluster, self.nodes.statuses());
        self.setup.counters.cluster_nodes.set(nodes.len() as u64);
        status.set_leader(self.nodes.is_leader(now_ms));
        status.set_nodes(nodes);
    }

    /// Notes that the process is about to end. It may still accept connections.
    pub fn leave(&mut self) {
        self.nodes.leave();
    }

    /// Notes that the process is about to end, and accepts no connections any more.
    pub fn drain(&mut self) {
        self.nodes.leave();
        self.reservations.drain();
    }

    /// Notes what this node says of itself.
    pub(super) fn note_summary(&mut self, env: &Env) {
        let version = env.runtime.version;
        let apps = match self.summary {
            Some((known, summary)) if known == version => summary.apps,
            _ => settings::digest(&env.config),
        };
        let connections = env.runtime.counters.iter().map(|core| core.connections.get()).sum();
        let summary = NodeSummary { apps, connections };
        self.summary = Some((version, summary));
        self.nodes.set_summary(summary);
    }

    /// Notes that the log was read from its beginning, if that has come to its end.
    pub(super) fn end_reading(&mut self, engine: &mut dyn Engine, env: &Env, now_ms: u64) {
        self.end_added(env, now_ms);
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
                NodeEffect::Died { node, is_ours, has_left } => {
                    self.reservations.remove_node(node, is_ours);
                    self.counted.remove_node(node);
                    self.news.push_back(NodeNews::Ended { node, is_ours, has_left });
                    self.send_to_all(&Arrival::NodeGone(StateAuthor { node, is_ours }));
                }
                NodeEffect::Restate => {
                    self.queue.drop_states();
                    self.send_to_all(&Arrival::Restate);
                }
                NodeEffect::RefreshBegin => {
                    self.news.push_back(NodeNews::Reads);
                    self.folded = AppliedNumbers::default();
                    self.end_counting();
                    self.send_to_all(&Arrival::RefreshBegin);
                }
                NodeEffect::RefreshEnd { is_ours } => {
                    self.reservations.settle();
                    self.counted.note_nodes(true);
                    self.news.push_back(NodeNews::HasRead { is_ours });
                    self.send_to_all(&Arrival::RefreshEnd { is_ours });
                }
            }
        }
    }
}

impl ClusterNode {
    /// Reports to the dialects what has happened to nodes, before anything later in the log takes
    /// effect, and notes what is to be published because of that.
    pub(super) fn tell_dialects(&mut self, env: &Env) {
        while let Some(news) = self.news.pop_front() {
            let (reports, is_ours) = match news {
                NodeNews::Ended { node, is_ours, has_left } => {
                    (dialect::remove_node(env, Some(node), has_left), is_ours)
                }
                NodeNews::HasRead { is_ours } => (dialect::remove_node(env, None, false), is_ours),
                NodeNews::Reads => {
                    dialect::begin_refresh(env);
                    continue;
                }
            };
            if is_ours {
                self.reports.extend(reports);
            }
        }
    }

    /// Publishes the end of a picture whose back end on this node has ended, by the end of its
    /// membership of this channel, if the first attempt may have failed.
    pub(super) fn end_picture(&mut self, app: u32, channel: &str) {
        let Some(picture) = dialect::owned_picture(app, channel) else { return };
        if self.unstored.remove(picture) {
            self.reports.push_back((app, picture.to_owned(), Event::clear()));
        }
    }

    /// Publishes what follows from the end of nodes, as far as the queue has room.
    pub(super) fn propose_reports(&mut self, env: &Env, now: NodeTime) {
        for _ in 0..REPORTS {
            if self.queue.is_almost_full() {
                return;
            }
            let Some((app, channel, event)) = self.reports.pop_front() else { return };
            let proposal = Proposal::new(app, channel, event, None);
            self.propose(proposal, env, now);
        }
    }
}
