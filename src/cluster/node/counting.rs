//! Which applications' numbers of subscribers all nodes state, because somebody reads them.

use super::ClusterNode;
use crate::cluster::arrival::Arrival;
use crate::cluster::entry::CountingPart;
use crate::dialect::Env;

impl ClusterNode {
    /// Takes a question for the numbers of an application, which every core answers, or the answer
    /// of a core.
    pub(super) fn take_counting(&mut self, app: &str, part: &CountingPart, env: &Env, now_ms: u64) {
        let counters = self.setup.counters.clone();
        counters.cluster_entries.add(1);
        let Some(app) = self.logged_app(app, env) else { return counters.cluster_skipped.add(1) };
        let Some(stated) = part.stated else {
            self.counted.ask(app);
            return self.send_to_all(&Arrival::Counting { app });
        };
        match self.nodes.note_state(part.node, now_ms) {
            true => self.counted.note(app, part.node, stated),
            false => counters.cluster_skipped.add(1),
        }
    }

    /// Sends the cores of which applications the numbers are whole from here on in the log, or are
    /// not any more.
    pub(super) fn note_counted(&mut self) {
        for (app, is_whole) in self.counted.changes(|| self.nodes.serving().collect()) {
            self.send_to_all(&Arrival::Counted { app, is_whole });
        }
    }
}
