//! The connections that the node reserves for its cores.

use super::ClusterNode;
use crate::cluster::arrival::Arrival;
use crate::cluster::engine::Engine;
use crate::cluster::entry;
use crate::dialect::Env;

impl ClusterNode {
    /// Lets the cores admit what is reserved, and changes what that is.
    pub(super) fn reserve(&mut self, engine: &mut dyn Engine, env: &Env, now_ms: u64) {
        let may_append = self.is_up && self.nodes.may_append(now_ms);
        let can_send = may_append && self.follower.has_joined();
        let work = self.reservations.examine(env, &self.nodes, can_send, now_ms);
        let Some(work) = work else { return };
        for mut append in work.appends {
            entry::set_format(&mut append.body, self.nodes.format());
            self.setup.counters.cluster_reservations.add(1);
            engine.append(append);
        }
        work.offers.into_iter().for_each(|app| self.send_to_all(&Arrival::Room { app }));
        self.setup.counters.cluster_reserved.set(work.reserved);
    }

    /// Whether the node is about to end, and others do not know yet that they may have what it has
    /// reserved.
    pub(super) fn has_to_give_back(&self) -> bool {
        let can_say_so = self.reservations.is_draining() && self.nodes.has_joined() && self.is_up;
        can_say_so && !self.reservations.has_given_back(self.nodes.id())
    }
}
