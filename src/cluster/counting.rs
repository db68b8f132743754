//! Of which applications all nodes have stated their numbers of subscribers.
//!
//! Numbers above 0 cost entries, so nodes state them only of applications that somebody reads. A
//! question in the log makes all nodes do so from then on. Each core answers in the log when it has
//! stated the numbers of all channels that it is the home of. The numbers of an application are
//! whole while each core of each node that serves has answered, and behind that place in the log.

use std::collections::{BTreeMap, BTreeSet};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct CountedApps {
    /// By the application's number.
    apps: BTreeMap<u32, CountedApp>,
    /// Whether something has changed since [`CountedApps::changes`] was called.
    is_changed: bool,
}

#[derive(Debug, Default)]
struct CountedApp {
    /// The cores that have answered and the number of cores, by the node.
    nodes: BTreeMap<u64, (BTreeSet<u16>, u16)>,
    is_whole: bool,
}

impl CountedApps {
    /// Notes that the numbers of an application are asked for.
    pub(super) fn ask(&mut self, app: u32) {
        self.apps.entry(app).or_default();
        self.is_changed = true;
    }

    /// Notes that a core of a node, which has so many cores, has stated its numbers.
    pub(super) fn note(&mut self, app: u32, node: u64, (core, cores): (u16, u16)) {
        let stated = self.apps.entry(app).or_default().nodes.entry(node).or_default();
        stated.0.insert(core);
        stated.1 = cores;
        self.is_changed = true;
    }

    /// Notes whether nodes may have changed.
    pub(super) fn note_nodes(&mut self, are_changed: bool) {
        self.is_changed |= are_changed;
    }

    /// Notes that a node has ended.
    pub(super) fn remove_node(&mut self, node: u64) {
        self.apps.values_mut().for_each(|app| drop(app.nodes.remove(&node)));
        self.is_changed = true;
    }

    /// Notes that the log is read from its beginning: what it still has of answers comes again.
    pub(super) fn begin_refresh(&mut self) {
        self.apps.values_mut().for_each(|app| app.nodes.clear());
        self.is_changed = true;
    }

    /// The applications whose numbers have become whole, or are not any more, while these nodes
    /// serve.
    pub(super) fn changes(&mut self, serving: impl FnOnce() -> Vec<u64>) -> Vec<(u32, bool)> {
        if !std::mem::take(&mut self.is_changed) || self.apps.is_empty() {
            return Vec::new();
        }
        let serving = serving();
        let mut changes = Vec::new();
        for (number, app) in &mut self.apps {
            let has_stated = |node| {
                let stated = app.nodes.get(node);
                stated.is_some_and(|(stated, cores)| stated.len() == usize::from(*cores))
            };
            let is_whole = !serving.is_empty() && serving.iter().all(has_stated);
            if std::mem::replace(&mut app.is_whole, is_whole) != is_whole {
                changes.push((*number, is_whole));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_counted_apps_are_whole_while_all_cores_of_all_nodes_have_stated() {
        let mut counted = CountedApps::default();
        assert_eq!(counted.changes(|| panic!("nobody has asked")), []);
        counted.ask(7);
        assert_eq!(counted.changes(|| vec![1, 2]), []);
        counted.note(7, 1, (0, 1));
        counted.note(7, 2, (1, 2));
        assert_eq!(counted.changes(|| vec![1, 2]), [], "one core of two");
        counted.note(7, 2, (1, 2));
        assert_eq!(counted.changes(|| vec![1, 2]), [], "it was that core");
        counted.note(7, 2, (0, 2));
        assert_eq!(counted.changes(|| vec![1, 2]), [(7, true)]);
        assert_eq!(counted.changes(|| panic!("nothing has changed")), []);
        counted.note_nodes(true);
        assert_eq!(counted.changes(|| vec![1, 2, 3]), [(7, false)], "a node has come");
        counted.note(7, 3, (0, 1));
        counted.note(8, 3, (0, 1));
        assert_eq!(counted.changes(|| vec![1, 2, 3]), [(7, true)]);
        counted.remove_node(2);
        assert_eq!(counted.changes(|| vec![1, 3]), [], "it is not needed");
        counted.begin_refresh();
        assert_eq!(counted.changes(|| vec![1, 3]), [(7, false)]);
        assert_eq!(counted.changes(Vec::new), []);
    }

    #[test]
    fn cluster_counted_apps_are_not_whole_while_no_node_serves() {
        let mut counted = CountedApps::default();
        counted.ask(7);
        assert_eq!(counted.changes(Vec::new), []);
    }
}
