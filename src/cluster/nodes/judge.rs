//! What a node does by its clock: renewals, and the deaths of others.

use super::table::KnownNode;
use super::{ClusterNodes, Refresh};
use crate::cluster::entry::{NodePart, NodePhase};

impl ClusterNodes {
    /// Does what is due. `has_read` says whether the log was read to the end that it had when this
    /// process began.
    pub fn tick(&mut self, has_read: bool, now_ms: u64) {
        if self.ticked_ms + self.setup.timing.fence_ms() < now_ms {
            self.steady_ms = now_ms;
        }
        self.ticked_ms = now_ms;
        let is_fenced = self.own.is_fenced(now_ms);
        if is_fenced && !self.was_fenced {
            self.counters.cluster_fenced.add(1);
            if self.is_up {
                tracing::warn!(
                    "cluster: this node's renewals are not stored, so it publishes nothing"
                );
            }
        }
        self.was_fenced = is_fenced;
        let is_reading = matches!(self.refresh, Some(Refresh::Reading { .. }));
        self.due_ms = u64::MAX;
        if !self.is_up || !has_read || is_reading {
            return;
        }
        if self.own.is_stuck(now_ms) {
            self.change_id(now_ms);
        }
        if self.takes_part(now_ms) {
            let state = self.own_state();
            if let Some(renewal) = self.own.next(state, &mut self.number, now_ms) {
                self.renew(renewal);
            }
            self.due_ms = self.own.deadline_ms().max(now_ms + 1);
        }
        if now_ms >= self.check_ms {
            self.check_ms = now_ms + self.setup.timing.renew_ms / 4;
            self.check(now_ms);
        }
    }

    /// The state that the next renewal has.
    fn own_state(&self) -> NodePhase {
        let is_known = || self.table.living().any(|(id, _)| id == self.own.id());
        match () {
            () if self.is_leaving => NodePhase::Leaving,
            () if self.has_served || is_known() => NodePhase::Up,
            () => NodePhase::Joining,
        }
    }

    /// Whether this node may join: it speaks the format that is in use. Logs when that changes.
    fn takes_part(&mut self, now_ms: u64) -> bool {
        if self.has_served {
            return true;
        }
        if self.is_leaving {
            return false;
        }
        let speaks = self.speaks(now_ms);
        if speaks == self.is_excluded {
            self.is_excluded = !speaks;
            let (lowest, highest) = self.setup.formats;
            match speaks {
                false => tracing::error!(
                    format = self.format_in_use(now_ms),
                    lowest,
                    highest,
                    "cluster: the nodes write a format of entries that this release does not \
                     speak, so it does not join; it joins when all of them speak one that it does"
                ),
                true => tracing::info!("cluster: this release speaks the format in use now"),
            }
        }
        speaks
    }

    /// Whether this release speaks the format in use, and can read what living nodes have written.
    pub(super) fn speaks(&mut self, now_ms: u64) -> bool {
        let (lowest, highest) = self.setup.formats;
        let knows_more = self.others(now_ms).any(|node| node.formats.1 > highest);
        self.has_unreadable &= knows_more;
        let in_use = self.format_in_use(now_ms);
        !self.has_unreadable && in_use.is_none_or(|it| (lowest..=highest).contains(&it))
    }

    /// The format in which the nodes write that were there before this one.
    fn format_in_use(&self, now_ms: u64) -> Option<u8> {
        let own = self.table.living().find(|(id, _)| *id == self.own.id());
        let first = own.map_or(u64::MAX, |(_, node)| node.first);
        let before = self
            .others(now_ms)
            .filter(|node| node.state != Some(NodePhase::Joining) || node.first < first);
        before.map(|node| node.formats.1).min()
    }

    /// The other nodes that live. If all of them have ended, no node is left to declare them dead.
    /// So a node that has not served yet treats a node that was silent for too long as dead.
    fn others(&self, now_ms: u64) -> impl Iterator<Item = &KnownNode> {
        let timing = self.setup.timing;
        let steady_ms = self.returned_ms.max(self.steady_ms);
        let is_other = move |(id, node): &(u64, &KnownNode)| {
            let dead_ms = node.dead_ms(&timing).max(steady_ms + timing.dead_ms);
            *id != self.own.id() && (self.has_served || now_ms < dead_ms + timing.dead_ms)
        };
        self.table.living().filter(is_other).map(|(_, node)| node)
    }

    /// Ends a refresh, declares nodes dead, and removes what they have left.
    fn check(&mut self, now_ms: u64) {
        let timing = self.setup.timing;
        if let Some(Refresh::Settling { until_ms }) = self.refresh
            && until_ms <= now_ms
        {
            self.end_refresh(self.is_leader(now_ms));
        }
        let may_judge = self.can_judge(now_ms) && self.returned_ms + timing.rejoin_ms <= now_ms;
        if may_judge {
            for node in self.table.silent(self.own.id(), &timing, now_ms) {
                self.declare_dead(node, now_ms);
            }
        }
        if self.is_leader(now_ms) {
            for node in self.table.due_purges(now_ms) {
                self.purge(node);
            }
        }
        self.table.forget(&timing, now_ms);
    }

    fn declare_dead(&mut self, id: u64, now_ms: u64) {
        let Some(node) = self.table.get_mut(id) else { return };
        self.number += 1;
        let number = self.number;
        node.attempt = Some((number, now_ms + 2 * self.setup.timing.renew_ms));
        let part = NodePart {
            node: id,
            state: NodePhase::Dead,
            renewal: 0,
            formats: self.setup.formats,
            apps: 0,
            connections: 0,
            release: "",
        };
        let expected = node.sequence;
        self.append(id, number, expected, &part);
    }
}
