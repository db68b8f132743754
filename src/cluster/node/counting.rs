//! Which numbers of subscribers all nodes state, because somebody reads them.

use super::ClusterNode;
use crate::cluster::arrival::Arrival;
use crate::cluster::entry::CountingPart;
use crate::cluster::queue::CountingSubject;
use crate::dialect::Env;
use crate::hub::{CountedKind, CountedNumbers, CountingStep};

impl ClusterNode {
    /// Takes what an entry with this sequence number says of the statement of numbers: a question,
    /// which every core answers, the answer of a core, or what follows.
    pub(super) fn take_counting(
        &mut self,
        app: &str,
        part: CountingPart,
        sequence: u64,
        env: &Env,
        now_ms: u64,
    ) {
        let counters = self.setup.counters.clone();
        counters.cluster_entries.add(1);
        let Some(app) = self.logged_app(app, env) else { return counters.cluster_skipped.add(1) };
        let (CountingPart { node, kind, mut step }, numbers) =
            (part, CountedNumbers { app, kind: part.kind });
        match &mut step {
            CountingStep::Asked(question) => {
                // Earlier releases ask again and again, and answer once.
                *question = if kind == CountedKind::Unleased { 0 } else { sequence };
                self.counted.ask(numbers, *question);
            }
            CountingStep::Stated { question, core, cores } => {
                let answer = (*question, *core, *cores);
                return match self.nodes.note_state(node, now_ms) {
                    true => self.counted.note(numbers, node, answer),
                    false => counters.cluster_skipped.add(1),
                };
            }
            CountingStep::Read => {}
            CountingStep::Ended => self.counted.end(numbers),
        }
        self.send_to_all(&Arrival::Counting { numbers, step });
    }

    /// Notes that something about numbers was not taken into the log. A core says again what it has
    /// stated; everything else is said again if it is still true.
    pub(super) fn fail_counting(&mut self, numbers: CountedNumbers, subject: CountingSubject) {
        if let CountingSubject::Core(core) = subject {
            self.arrivals.push_back((core, Arrival::Uncounted { numbers }));
        }
    }

    /// Notes that the log is read from its beginning: what it still has of questions and answers
    /// comes again.
    pub(super) fn end_counting(&mut self) {
        for numbers in self.counted.begin_refresh() {
            self.send_to_all(&Arrival::Counting { numbers, step: CountingStep::Ended });
        }
    }

    /// Sends the cores which numbers are whole from here on in the log, or are not any more.
    pub(super) fn note_counted(&mut self) {
        for (numbers, is_whole) in self.counted.changes(|| self.nodes.serving().collect()) {
            self.send_to_all(&Arrival::Counted { numbers, is_whole });
        }
    }
}
