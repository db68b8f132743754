//! The nodes of a cluster: this one's own entry in the log, and what the entries of all nodes say.
//!
//! Each node renews its entry by comparing and setting. A node of which no renewal has been read
//! for long is declared dead by the next entry on its subject, which expects the last one that was
//! read: so the engine lets exactly one node do it, and nobody if the node has renewed its entry
//! meanwhile. A death is an entry like others, so all nodes apply it at the same point of the log.
//!
//! A node that does not get its renewals through stops writing before others may declare it dead.
//! One that reads its own death goes on under another id, and states what is true of it again.
//!
//! No sockets and no clock: times are arguments, and what is to be done are [`NodeEffect`]s.

mod judge;
mod own;
mod table;
mod timing;

pub use timing::NodeTiming;

use super::engine::{Append, Refusal};
use super::entry::{self, NodePart, NodePhase};
use super::follower::Attached;
use super::subject;
use crate::runtime::NodeStatus;
use crate::stats::Counters;
use own::{OwnNode, Renewal};
use std::collections::VecDeque;
use std::sync::Arc;
use table::{NodeTable, TableChange};

/// The numbers of entries about nodes begin here, so that the engine's answers to them differ from
/// those to events.
const NUMBERS: u64 = 1 << 62;
/// The version of this release.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEffect {
    /// Send an entry.
    Append(Append),
    /// Remove the entries whose subjects begin with these tokens.
    Purge(String),
    /// A node is dead: its members and counts end.
    Died {
        /// The node.
        node: u64,
        /// Whether this process has declared it dead, so that it reports what this changes.
        is_ours: bool,
        /// Whether the node had announced its end.
        has_left: bool,
    },
    /// This node has another id, or the log is a new one: all members and counts of this node are
    /// to be proposed again.
    Restate,
    /// The log is read from its beginning.
    RefreshBegin,
    /// What was not read since then is not true any more.
    RefreshEnd {
        /// Whether this process reports what this changes.
        is_ours: bool,
    },
}

/// What a node says of itself, besides its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSummary {
    /// A digest of the settings that all nodes should have the same.
    pub apps: u64,
    /// The number of open connections.
    pub connections: u64,
}

/// What the nodes are made from.
#[derive(Clone, Debug)]
pub struct NodesSetup {
    /// A number that no other process has, drawn at random. It is the node's first id.
    pub process: u64,
    /// The name of the cluster.
    pub name: String,
    /// The times.
    pub timing: NodeTiming,
    /// The lowest and the highest format of entries that this release reads and writes.
    pub formats: (u8, u8),
}

/// See the module's documentation.
pub struct ClusterNodes {
    setup: NodesSetup,
    counters: Arc<Counters>,
    own: OwnNode,
    table: NodeTable,
    summary: NodeSummary,
    /// The number of the last entry about a node.
    number: u64,
    /// How many ids this process has had before.
    past_ids: u64,
    /// Whether the engine can be used.
    is_up: bool,
    /// When it has come back, in milliseconds.
    returned_ms: u64,
    /// When [`ClusterNodes::tick`] was last called, and since when it has been without a break, in
    /// milliseconds.
    ticked_ms: u64,
    steady_ms: u64,
    refresh: Option<Refresh>,
    has_served: bool,
    is_leaving: bool,
    /// Whether the log has it that this node is leaving.
    has_left: bool,
    /// Whether this release does not speak the format that the nodes write.
    is_excluded: bool,
    /// Whether there was an entry of a format that this release does not speak, whose author may
    /// live.
    has_unreadable: bool,
    was_fenced: bool,
    /// When the last renewal was sent that is in the log, in milliseconds.
    renewed_ms: u64,
    /// When deaths are looked for again, in milliseconds.
    check_ms: u64,
    /// When [`ClusterNodes::tick`] is due, in milliseconds.
    due_ms: u64,
    effects: VecDeque<NodeEffect>,
}

/// A reading of the log from its beginning.
#[derive(Clone, Copy, Debug)]
enum Refresh {
    /// The log is read.
    Reading { is_new: bool },
    /// It is read, and the other nodes have time to state again what is true, until then.
    Settling { until_ms: u64 },
}

impl ClusterNodes {
    /// The nodes of a cluster of which nothing has been read.
    pub fn new(setup: NodesSetup, counters: Arc<Counters>) -> ClusterNodes {
        ClusterNodes {
            own: OwnNode::new(setup.timing, setup.process),
            setup,
            counters,
            table: NodeTable::default(),
            summary: NodeSummary::default(),
            number: NUMBERS,
            past_ids: 0,
            is_up: false,
            returned_ms: 0,
            ticked_ms: 0,
            steady_ms: 0,
            refresh: None,
            has_served: false,
            is_leaving: false,
            has_left: false,
            is_excluded: false,
            has_unreadable: false,
            was_fenced: false,
            renewed_ms: 0,
            check_ms: 0,
            due_ms: u64::MAX,
            effects: VecDeque::new(),
        }
    }

    /// The id of this node. It changes when others have declared the node dead.
    pub fn id(&self) -> u64 {
        self.own.id()
    }

    /// Whether this node is one of the cluster, and may serve. Stays true, unless the others write
    /// a format that this release does not speak, because they took this node for dead.
    pub fn has_joined(&self) -> bool {
        self.has_served
    }

    /// Whether entries besides those of this module may be sent.
    pub fn may_append(&self, now_ms: u64) -> bool {
        self.own.may_append(now_ms)
    }

    /// Until when that is so if the engine does not answer any more, in milliseconds; `None` if it
    /// is not so.
    pub fn appends_until_ms(&self) -> Option<u64> {
        self.own.appends_until_ms()
    }

    /// When the last renewal of this process was sent that is in the log, or since when
    /// [`ClusterNodes::tick`] has been called without a break if that is later, in milliseconds.
    pub fn renewed_ms(&self) -> u64 {
        self.renewed_ms.max(self.steady_ms)
    }

    /// Whether renewals are sent to an engine that can be used, and none was stored for so long
    /// that this node may not append.
    pub fn is_refused(&self, now_ms: u64) -> bool {
        let is_reading = matches!(self.refresh, Some(Refresh::Reading { .. }));
        let since_ms = self.renewed_ms().max(self.returned_ms);
        let is_long = since_ms + self.setup.timing.fence_ms() < now_ms;
        self.is_up && !is_reading && is_long && !self.may_append(now_ms)
    }

    /// Whether this node does what one node of the cluster is to do. Two may do so for a moment.
    pub fn is_leader(&self, now_ms: u64) -> bool {
        self.own.may_append(now_ms) && self.table.leader() == Some(self.own.id())
    }

    /// Whether the process is about to end.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// The number of nodes that are not dead.
    pub fn living_count(&self) -> u32 {
        self.table.living().count() as u32
    }

    /// The nodes that serve clients; none while that is not known, because the log is read from its
    /// beginning.
    pub fn serving(&self) -> impl Iterator<Item = u64> {
        let is_known = self.refresh.is_none();
        let serves = move |node: &table::KnownNode| is_known && node.state == Some(NodePhase::Up);
        self.table.living().filter(move |(_, node)| serves(node)).map(|(id, _)| id)
    }

    /// Whether something was read of a node so lately that it cannot be dead.
    pub fn is_alive(&self, node: u64, now_ms: u64) -> bool {
        let fence_ms = self.setup.timing.fence_ms();
        self.table.living().any(|(id, known)| id == node && now_ms <= known.read_ms + fence_ms)
    }

    /// Whether this node has followed the log for so long that it knows who is dead.
    pub fn can_judge(&self, now_ms: u64) -> bool {
        self.has_served && self.refresh.is_none() && self.own.can_judge(now_ms)
    }

    /// The lowest and the highest format that this release speaks.
    pub fn formats(&self) -> (u8, u8) {
        self.setup.formats
    }

    /// The format in which entries are written: the highest that all living nodes speak.
    pub fn format(&self) -> u8 {
        let (lowest, highest) = self.setup.formats;
        self.table.living().map(|(_, node)| node.formats.1).fold(highest, u8::min).max(lowest)
    }

    /// The nodes that are not dead, for pages.
    pub fn statuses(&self) -> Vec<NodeStatus> {
        let status = |(id, node): (u64, &table::KnownNode)| NodeStatus {
            id,
            is_own: id == self.own.id(),
            state: node.state.map_or("", NodePhase::word),
            release: node.release.clone(),
            has_same_settings: node.apps == self.summary.apps,
            connections: node.connections,
            read_ms: node.read_ms,
        };
        self.table.living().map(status).collect()
    }

    /// When [`ClusterNodes::tick`] is due, in milliseconds.
    pub fn deadline_ms(&self) -> u64 {
        if self.is_up { self.due_ms } else { u64::MAX }
    }

    /// What is to be done next.
    pub fn next_effect(&mut self) -> Option<NodeEffect> {
        self.effects.pop_front()
    }

    /// Notes what this node says of itself from the next renewal on.
    pub fn set_summary(&mut self, summary: NodeSummary) {
        self.summary = summary;
    }

    /// Notes that the process is about to end.
    pub fn leave(&mut self) {
        if !std::mem::replace(&mut self.is_leaving, true) {
            self.own.hasten();
        }
    }

    /// Whether the process may end: the other nodes know that it is leaving, or cannot be reached.
    pub fn may_end(&self) -> bool {
        !self.is_leaving || self.has_left || !self.has_served || !self.is_up
    }

    /// Notes that the engine can be used, and how the log is read.
    pub fn attached(&mut self, attached: &Attached, now_ms: u64) {
        if !std::mem::replace(&mut self.is_up, true) {
            self.returned_ms = now_ms;
        }
        self.own.attached(now_ms);
        if attached.rereads {
            let was_new = matches!(self.refresh, Some(Refresh::Reading { is_new: true }));
            let is_new = attached.is_new || was_new;
            self.refresh = Some(Refresh::Reading { is_new });
            self.table.begin_reading(is_new);
            self.own.suspend();
            self.effects.push_back(NodeEffect::RefreshBegin);
        } else if let Some(Refresh::Settling { until_ms }) = &mut self.refresh {
            *until_ms = now_ms + self.setup.timing.rejoin_ms;
        }
    }

    /// Notes that the engine cannot be used.
    pub fn lost(&mut self) {
        self.is_up = false;
        self.own.lost();
        self.table.give_attempts_up();
    }

    /// Notes that the log has been read from its beginning.
    pub fn reread(&mut self, now_ms: u64) {
        let Some(Refresh::Reading { is_new }) = self.refresh else { return };
        let mut living = self.table.living();
        let own = living.find(|(id, _)| *id == self.own.id()).map(|(_, node)| node.sequence);
        drop(living);
        match own {
            Some(sequence) => {
                self.own.resume(sequence);
                if is_new {
                    self.effects.push_back(NodeEffect::Restate);
                }
            }
            None if self.has_served => self.change_id(now_ms),
            None => {}
        }
        if is_new {
            let until_ms = now_ms + self.setup.timing.rejoin_ms;
            self.refresh = Some(Refresh::Settling { until_ms });
        } else {
            // What is not in the log is not true, and was reported by others.
            self.end_refresh(false);
        }
    }

    fn end_refresh(&mut self, is_ours: bool) {
        self.refresh = None;
        let removed = self.table.remove_unconfirmed();
        if removed > 0 {
            tracing::info!(removed, "cluster: the log does not have these nodes any more");
        }
        self.effects.push_back(NodeEffect::RefreshEnd { is_ours });
    }

    /// Notes that an entry is stored. Returns whether it is one of this module.
    pub fn stored(&mut self, number: u64, sequence: u64) -> bool {
        if number <= NUMBERS {
            return false;
        }
        let stored = self.own.stored(number, sequence);
        self.note_renewal(stored);
        true
    }

    /// Notes that the log has the renewal that was under way, with this state.
    fn note_renewal(&mut self, stored: Option<NodePhase>) {
        if let Some(state) = stored {
            self.counters.cluster_node_renewals.add(1);
            self.renewed_ms = self.own.acked_ms().unwrap_or(0).max(self.renewed_ms);
            self.has_left |= state == NodePhase::Leaving;
        }
    }

    /// Notes that an entry was not stored. Returns whether it is one of this module.
    pub fn refused(&mut self, number: u64, refusal: Refusal, now_ms: u64) -> bool {
        if number <= NUMBERS {
            return false;
        }
        let is_conflict = refusal == Refusal::Conflict;
        let is_own = self.own.refused(number, is_conflict, now_ms);
        if !is_own
            && is_conflict
            && let Some(node) = self.table.of_attempt(number)
        {
            // It has renewed its entry, or another node was first.
            (node.attempt, node.read_ms) = (None, now_ms);
        }
        true
    }

    /// Notes that the log has state of a node. Returns whether that counts: not if the node is
    /// dead.
    pub fn note_state(&mut self, node: u64, now_ms: u64) -> bool {
        self.table.note_state(node, now_ms)
    }

    /// Notes what an entry says of a node. Returns false if that is skipped.
    pub fn on_part(
        &mut self,
        process: u64,
        part: &NodePart<'_>,
        sequence: u64,
        now_ms: u64,
    ) -> bool {
        let NodePart { node, state, release, .. } = part;
        let is_own = *node == self.own.id();
        let was = self.table.get(*node).and_then(|it| it.state);
        let change = self.table.note(part, sequence, now_ms);
        if is_own && *state != NodePhase::Dead {
            let stored = self.own.read(part.renewal, sequence, now_ms);
            self.note_renewal(stored);
            self.on_own(change);
        }
        let id = format!("{node:016x}");
        match change {
            TableChange::Appeared => {
                let state = state.word();
                tracing::info!(id, release, state, is_own, "cluster: a node appears");
                self.compare_apps(part);
            }
            TableChange::Became(_) => {
                tracing::info!(id, state = state.word(), is_own, "cluster: a node changes");
            }
            TableChange::Died => {
                self.on_death(*node, was, process == self.setup.process, now_ms);
            }
            TableChange::Nothing => {}
            TableChange::Skipped => return false,
        }
        true
    }

    fn on_own(&mut self, change: TableChange) {
        let is_up = self.table.get(self.own.id()).is_some_and(|it| it.state == Some(NodePhase::Up));
        self.has_served |= is_up;
        if change == TableChange::Appeared && !is_up {
            // Others know this node now, so it can serve.
            self.own.hasten();
        }
    }

    /// Logs that a node has other settings of those that all should have the same.
    fn compare_apps(&self, part: &NodePart<'_>) {
        let (ours, theirs) = (self.summary.apps, part.apps);
        if part.node != self.own.id() && self.has_served && ours != theirs {
            let id = format!("{:016x}", part.node);
            tracing::warn!(
                id,
                "cluster: the node has other applications, links or settings than this one, which \
                 should be equal; docs/cluster.md lists them"
            );
        }
    }

    fn on_death(&mut self, node: u64, was: Option<NodePhase>, is_ours: bool, now_ms: u64) {
        let id = format!("{node:016x}");
        match was {
            Some(NodePhase::Leaving) => tracing::info!(id, "cluster: a node has left"),
            None => tracing::info!(id, "cluster: what a node has left in the log is removed"),
            Some(_) => tracing::warn!(id, is_ours, "cluster: a node is dead"),
        }
        self.counters.cluster_removed_nodes.add(1);
        let has_left = was == Some(NodePhase::Leaving);
        self.effects.push_back(NodeEffect::Died { node, is_ours, has_left });
        if is_ours {
            self.purge(node);
        }
        let is_reading = matches!(self.refresh, Some(Refresh::Reading { .. }));
        if node == self.own.id() && !is_reading {
            self.change_id(now_ms);
        }
    }

    fn purge(&mut self, node: u64) {
        let tokens = subject::of_state(&self.setup.name, node);
        self.effects.push_back(NodeEffect::Purge(tokens));
    }

    /// Notes an entry of a format that this release does not speak.
    pub fn note_unreadable(&mut self, now_ms: u64) {
        self.has_unreadable = true;
        if self.has_served && !self.speaks(now_ms) {
            self.change_id(now_ms);
        }
    }

    /// Goes on under another id, since the present one has come to its end in the log. This node
    /// joins again if the others write another format meanwhile.
    fn change_id(&mut self, now_ms: u64) {
        self.past_ids += 1;
        let was = format!("{:016x}", self.own.id());
        self.own.begin(mixed(self.setup.process ^ mixed(self.past_ids)));
        self.has_served &= self.speaks(now_ms);
        let id = format!("{:016x}", self.own.id());
        tracing::warn!(was, id, "cluster: this node goes on under another id");
        self.counters.cluster_new_ids.add(1);
        self.effects.push_back(NodeEffect::Restate);
    }

    fn append(&mut self, node: u64, number: u64, expected: u64, part: &NodePart<'_>) {
        let is_dead = part.state == NodePhase::Dead;
        let process = self.setup.process;
        self.effects.push_back(NodeEffect::Append(Append {
            number,
            subject: subject::of_node(&self.setup.name, node),
            id: format!("{process:016x}-n{number}"),
            ttl_s: is_dead.then_some(self.setup.timing.keep_s),
            replaces: true,
            expected: Some(expected),
            body: entry::write_node((process, number), part),
        }));
    }

    fn renew(&mut self, renewal: Renewal) {
        let Renewal { number, state, expected, .. } = renewal;
        let node = self.own.id();
        let NodeSummary { apps, connections } = self.summary;
        let formats = self.setup.formats;
        let part =
            NodePart { node, state, renewal: number, formats, apps, connections, release: RELEASE };
        self.append(node, number, expected, &part);
    }
}

/// A number whose bits all depend on all bits of `seed`; different seeds have different ones.
fn mixed(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
impl ClusterNodes {
    /// Speaks these formats, as another release does.
    pub(super) fn set_formats(&mut self, formats: (u8, u8)) {
        self.setup.formats = formats;
    }
}

#[cfg(test)]
mod tests;
