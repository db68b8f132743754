//! Which numbers of subscribers all nodes have stated.
//!
//! Numbers above 0 cost entries, so nodes state them only while somebody reads them. A question in
//! the log makes all nodes do so from then on. Each core answers in the log when it has stated the
//! numbers of all channels that it is the home of. Numbers are whole while each core of each node
//! that serves has answered the last question, and behind that place in the log. The end of a
//! question voids the answers.

use crate::hub::CountedNumbers;
use std::collections::{BTreeMap, BTreeSet};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct CountedApps {
    numbers: BTreeMap<CountedNumbers, CountedByNodes>,
    /// Whether something has changed since [`CountedApps::changes`] was called.
    is_changed: bool,
}

#[derive(Debug, Default)]
struct CountedByNodes {
    /// The number of the last question; `None` if it has ended.
    question: Option<u64>,
    nodes: BTreeMap<u64, StatedByCores>,
    is_whole: bool,
}

/// Which cores of a node have answered a question.
#[derive(Debug, Default)]
struct StatedByCores {
    question: u64,
    stated: BTreeSet<u16>,
    cores: u16,
}

impl CountedApps {
    /// Notes that numbers are asked for by the question with this number.
    pub(super) fn ask(&mut self, numbers: CountedNumbers, question: u64) {
        let it = self.numbers.entry(numbers).or_default();
        if it.question != Some(question) {
            // The cores know that numbers are not whole after another question.
            (it.question, it.is_whole) = (Some(question), false);
            self.is_changed = true;
        }
    }

    /// Notes that a core of a node, which has so many cores, has stated its numbers, in answer to
    /// the question with this number.
    pub(super) fn note(
        &mut self,
        numbers: CountedNumbers,
        node: u64,
        (question, core, cores): (u64, u16, u16),
    ) {
        let it = self.numbers.entry(numbers).or_default().nodes.entry(node).or_default();
        if it.question != question {
            *it = StatedByCores { question, ..StatedByCores::default() };
        }
        it.stated.insert(core);
        it.cores = cores;
        self.is_changed = true;
    }

    /// Notes that numbers are not stated any more.
    pub(super) fn end(&mut self, numbers: CountedNumbers) {
        self.numbers.remove(&numbers);
    }

    /// Notes whether nodes may have changed.
    pub(super) fn note_nodes(&mut self, are_changed: bool) {
        self.is_changed |= are_changed;
    }

    /// Notes that a node has ended.
    pub(super) fn remove_node(&mut self, node: u64) {
        self.numbers.values_mut().for_each(|it| drop(it.nodes.remove(&node)));
        self.is_changed = true;
    }

    /// Notes that the log is read from its beginning: what it still has of questions and answers
    /// comes again. Returns the numbers that were asked for.
    pub(super) fn begin_refresh(&mut self) -> Vec<CountedNumbers> {
        let asked = std::mem::take(&mut self.numbers).into_iter();
        asked.filter(|(_, it)| it.question.is_some()).map(|(numbers, _)| numbers).collect()
    }

    /// The numbers that have become whole, or are not any more, while these nodes serve.
    pub(super) fn changes(
        &mut self,
        serving: impl FnOnce() -> Vec<u64>,
    ) -> Vec<(CountedNumbers, bool)> {
        if !std::mem::take(&mut self.is_changed) || self.numbers.is_empty() {
            return Vec::new();
        }
        let serving = serving();
        let mut changes = Vec::new();
        for (numbers, it) in &mut self.numbers {
            let has_stated = |node| {
                let stated: Option<&StatedByCores> = it.nodes.get(node);
                stated.is_some_and(|stated| {
                    let is_all = stated.stated.len() == usize::from(stated.cores);
                    it.question == Some(stated.question) && is_all
                })
            };
            let is_whole = !serving.is_empty() && serving.iter().all(has_stated);
            if std::mem::replace(&mut it.is_whole, is_whole) != is_whole {
                changes.push((*numbers, is_whole));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::CountedKind;

    const SEVEN: CountedNumbers = CountedNumbers { app: 7, kind: CountedKind::Totals };
    const EIGHT: CountedNumbers = CountedNumbers { app: 8, kind: CountedKind::Totals };

    #[test]
    fn cluster_counted_apps_are_whole_while_all_cores_of_all_nodes_have_stated() {
        let mut counted = CountedApps::default();
        assert_eq!(counted.changes(|| panic!("nobody has asked")), []);
        counted.ask(SEVEN, 50);
        assert_eq!(counted.changes(|| vec![1, 2]), []);
        counted.note(SEVEN, 1, (50, 0, 1));
        counted.note(SEVEN, 2, (50, 1, 2));
        assert_eq!(counted.changes(|| vec![1, 2]), [], "one core of two");
        counted.note(SEVEN, 2, (50, 1, 2));
        assert_eq!(counted.changes(|| vec![1, 2]), [], "it was that core");
        counted.note(SEVEN, 2, (50, 0, 2));
        assert_eq!(counted.changes(|| vec![1, 2]), [(SEVEN, true)]);
        assert_eq!(counted.changes(|| panic!("nothing has changed")), []);
        counted.note_nodes(true);
        assert_eq!(counted.changes(|| vec![1, 2, 3]), [(SEVEN, false)], "a node has come");
        counted.note(SEVEN, 3, (50, 0, 1));
        counted.note(EIGHT, 3, (50, 0, 1));
        assert_eq!(counted.changes(|| vec![1, 2, 3]), [(SEVEN, true)]);
        counted.remove_node(2);
        assert_eq!(counted.changes(|| vec![1, 3]), [], "it is not needed");
        assert_eq!(counted.changes(Vec::new), []);
        counted.note_nodes(true);
        assert_eq!(counted.changes(Vec::new), [(SEVEN, false)]);
    }

    #[test]
    fn cluster_counted_apps_need_answers_to_the_last_question() {
        let mut counted = CountedApps::default();
        counted.note(SEVEN, 1, (50, 0, 1));
        assert_eq!(counted.changes(|| vec![1]), [], "nobody has asked");
        counted.ask(SEVEN, 50);
        assert_eq!(counted.changes(|| vec![1]), [(SEVEN, true)], "the log is read from its end");
        counted.ask(SEVEN, 50);
        assert_eq!(counted.changes(|| panic!("it is the same question")), []);
        counted.ask(SEVEN, 60);
        assert_eq!(counted.changes(|| vec![1]), [], "the cores know that by the question");
        counted.note(SEVEN, 1, (50, 0, 1));
        assert_eq!(counted.changes(|| vec![1]), [], "a late answer");
        counted.note(SEVEN, 1, (60, 1, 2));
        counted.note(SEVEN, 1, (60, 0, 2));
        assert_eq!(counted.changes(|| vec![1]), [(SEVEN, true)]);
        counted.end(SEVEN);
        counted.note(SEVEN, 1, (60, 0, 2));
        assert_eq!(counted.changes(|| vec![1]), []);
        counted.ask(SEVEN, 70);
        assert_eq!(counted.changes(|| vec![1]), []);
        assert_eq!(counted.begin_refresh(), [SEVEN]);
        counted.note(EIGHT, 1, (60, 0, 1));
        assert_eq!(counted.begin_refresh(), [], "nobody has asked for those");
    }

    #[test]
    fn cluster_counted_apps_are_not_whole_while_no_node_serves() {
        let mut counted = CountedApps::default();
        counted.ask(SEVEN, 50);
        assert_eq!(counted.changes(Vec::new), []);
    }
}
