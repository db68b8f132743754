//! All nodes, as the log has them.

use super::timing::NodeTiming;
use crate::cluster::entry::{NodePart, NodePhase};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The maximum number of nodes that are known, dead ones included. Further ones are skipped.
pub(super) const NODES: usize = 4096;
/// How long after a death the state of the node is removed from the log once more, in
/// milliseconds.
pub(super) const PURGE_MS: u64 = 10_000;

/// All nodes that the log has, by their ids.
#[derive(Debug, Default)]
pub(super) struct NodeTable {
    nodes: BTreeMap<u64, KnownNode>,
}

/// What is known of a node.
#[derive(Clone, Debug)]
pub(super) struct KnownNode {
    /// The state; `None` of a node of which the log has no entry of its own, only state.
    pub(super) state: Option<NodePhase>,
    /// The sequence number of its first entry, in the order of which nodes join.
    pub(super) first: u64,
    /// The sequence number of its last entry; 0 if there is none.
    pub(super) sequence: u64,
    pub(super) formats: (u8, u8),
    pub(super) apps: u64,
    pub(super) connections: u64,
    pub(super) release: Box<str>,
    /// When its last entry was read.
    pub(super) read_ms: u64,
    /// The number of the entry that would declare it dead and was not answered, and when that is
    /// given up.
    pub(super) attempt: Option<(u64, u64)>,
    /// Whether it was read since the log is read from its beginning.
    is_confirmed: bool,
    /// Whether its state was removed from the log for the second time.
    is_purged: bool,
}

impl KnownNode {
    pub(super) fn is_dead(&self) -> bool {
        self.state == Some(NodePhase::Dead)
    }

    /// Whether it is one of the cluster: it has an entry and is not dead.
    fn is_living(&self) -> bool {
        self.is_confirmed && self.state.is_some_and(|state| state != NodePhase::Dead)
    }

    /// When it counts as dead if nothing more is read of it, in milliseconds.
    pub(super) fn dead_ms(&self, timing: &NodeTiming) -> u64 {
        let silence_ms = match self.state {
            Some(NodePhase::Leaving) => timing.linger_ms,
            _ => timing.dead_ms,
        };
        self.read_ms.saturating_add(silence_ms)
    }
}

/// What an entry has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableChange {
    /// The node was not known, or only by its state.
    Appeared,
    /// It has another state than before, which this was; and it is not dead.
    Became(NodePhase),
    /// It is dead now.
    Died,
    /// Only its values.
    Nothing,
    /// There are too many nodes, or it is dead already.
    Skipped,
}

impl NodeTable {
    /// Notes an entry.
    pub(super) fn note(&mut self, part: &NodePart<'_>, sequence: u64, now_ms: u64) -> TableChange {
        let is_full = self.nodes.len() >= NODES;
        let node = match self.nodes.entry(part.node) {
            Entry::Vacant(_) if is_full => return TableChange::Skipped,
            Entry::Vacant(vacant) => vacant.insert(unknown(now_ms)),
            Entry::Occupied(occupied) => occupied.into_mut(),
        };
        let was = node.state;
        node.is_confirmed = true;
        if was == Some(NodePhase::Dead) {
            return TableChange::Skipped;
        }
        if part.state == NodePhase::Dead {
            (node.state, node.sequence) = (Some(NodePhase::Dead), sequence);
            (node.read_ms, node.attempt) = (now_ms, None);
            return TableChange::Died;
        }
        if node.first == 0 {
            node.first = sequence;
        }
        *node = KnownNode {
            state: Some(part.state),
            sequence,
            formats: part.formats,
            apps: part.apps,
            connections: part.connections,
            release: part.release.into(),
            read_ms: now_ms,
            attempt: None,
            ..*node
        };
        match was {
            None => TableChange::Appeared,
            Some(was) if was != part.state => TableChange::Became(was),
            Some(_) => TableChange::Nothing,
        }
    }

    /// Notes that the log has state of a node. Returns whether that counts: not if the node is
    /// dead.
    pub(super) fn note_state(&mut self, id: u64, now_ms: u64) -> bool {
        if let Some(node) = self.nodes.get_mut(&id) {
            if !node.is_confirmed {
                *node = unknown(now_ms);
            }
            return !node.is_dead();
        }
        let has_room = self.nodes.len() < NODES;
        if has_room {
            self.nodes.insert(id, unknown(now_ms));
        }
        has_room
    }

    pub(super) fn get(&self, id: u64) -> Option<&KnownNode> {
        self.nodes.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut KnownNode> {
        self.nodes.get_mut(&id)
    }

    /// The nodes that have an entry and are not dead.
    pub(super) fn living(&self) -> impl Iterator<Item = (u64, &KnownNode)> {
        self.nodes.iter().filter(|(_, node)| node.is_living()).map(|(id, node)| (*id, node))
    }

    /// The lowest id of those that serve; of those that are leaving if nobody serves.
    pub(super) fn leader(&self) -> Option<u64> {
        let mut states = [NodePhase::Up, NodePhase::Leaving].into_iter();
        states.find_map(|state| {
            self.living().find(|(_, node)| node.state == Some(state)).map(|(id, _)| id)
        })
    }

    /// The nodes besides this one that count as dead now and are not declared so yet.
    pub(super) fn silent(&self, own: u64, timing: &NodeTiming, now_ms: u64) -> Vec<u64> {
        let is_silent = |(id, node): &(&u64, &KnownNode)| {
            **id != own
                && !node.is_dead()
                && node.dead_ms(timing) <= now_ms
                && node.attempt.is_none_or(|(_, until_ms)| until_ms <= now_ms)
        };
        self.nodes.iter().filter(is_silent).map(|(id, _)| *id).collect()
    }

    /// The node that this attempt to declare it dead is about.
    pub(super) fn of_attempt(&mut self, number: u64) -> Option<&mut KnownNode> {
        let is_of = |node: &KnownNode| node.attempt.is_some_and(|(it, _)| it == number);
        self.nodes.values_mut().find(|node| is_of(node))
    }

    /// Notes that the answers to all attempts are lost.
    pub(super) fn give_attempts_up(&mut self) {
        self.nodes.values_mut().for_each(|node| node.attempt = None);
    }

    /// The dead nodes whose state is to be removed once more, each once.
    pub(super) fn due_purges(&mut self, now_ms: u64) -> Vec<u64> {
        let mut due = Vec::new();
        for (id, node) in &mut self.nodes {
            if node.is_dead() && !node.is_purged && node.read_ms + PURGE_MS <= now_ms {
                node.is_purged = true;
                due.push(*id);
            }
        }
        due
    }

    /// Forgets the dead whose state cannot come from the log any more.
    pub(super) fn forget(&mut self, timing: &NodeTiming, now_ms: u64) {
        let kept_ms = (timing.keep_s * 1000).max(2 * PURGE_MS);
        self.nodes.retain(|_, node| !node.is_dead() || node.read_ms + kept_ms > now_ms);
    }

    /// The log is read from its beginning: whatever it does not have any more is to be removed.
    /// Another log does not know the dead of this one.
    pub(super) fn begin_reading(&mut self, is_new: bool) {
        if is_new {
            self.nodes.retain(|_, node| !node.is_dead());
        }
        self.nodes.values_mut().for_each(|node| node.is_confirmed = node.is_dead());
    }

    /// Removes the nodes that were not read since then, and returns how many.
    pub(super) fn remove_unconfirmed(&mut self) -> usize {
        let before = self.nodes.len();
        self.nodes.retain(|_, node| node.is_confirmed);
        before - self.nodes.len()
    }
}

/// A node of which nothing is known but that the log names it.
fn unknown(now_ms: u64) -> KnownNode {
    KnownNode {
        state: None,
        first: 0,
        sequence: 0,
        formats: (0, u8::MAX),
        apps: 0,
        connections: 0,
        release: "".into(),
        read_ms: now_ms,
        attempt: None,
        is_confirmed: true,
        is_purged: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::nodes::tests::{TIMING, part};
    use NodePhase::{Dead, Joining, Leaving, Up};

    #[test]
    fn cluster_table_notes_what_entries_change() {
        let mut table = NodeTable::default();
        let mut note = |state, sequence| table.note(&part(1, state), sequence, 0);
        assert_eq!(note(Joining, 3), TableChange::Appeared);
        assert_eq!(note(Up, 4), TableChange::Became(Joining));
        assert_eq!(note(Up, 5), TableChange::Nothing);
        assert_eq!(note(Leaving, 6), TableChange::Became(Up));
        assert_eq!(note(Dead, 7), TableChange::Died);
        assert_eq!(note(Dead, 8), TableChange::Skipped, "once");
        assert_eq!(note(Up, 9), TableChange::Skipped, "for ever");
        let node = table.get(1).expect("it is remembered");
        assert_eq!((node.first, node.sequence), (3, 7));
        assert_eq!(table.living().count(), 0);
        // Of a node that nobody knew.
        assert_eq!(table.note(&part(2, Dead), 9, 0), TableChange::Died);
    }

    #[test]
    fn cluster_table_finds_who_is_silent() {
        let (own, mut table) = (9, NodeTable::default());
        table.note(&part(own, Up), 1, 0);
        table.note(&part(1, Up), 2, 100);
        table.note(&part(2, Joining), 3, 200);
        table.note(&part(3, Leaving), 4, 100);
        assert!(table.note_state(4, 300));
        table.note(&part(5, Dead), 5, 0);
        for (now_ms, expected) in [
            (5099, vec![]),
            (5100, vec![1]),
            (5199, vec![1]),
            (5200, vec![1, 2]),
            (5299, vec![1, 2]),
            (5300, vec![1, 2, 4]),
            (10_099, vec![1, 2, 4]),
            (10_100, vec![1, 2, 3, 4]),
        ] {
            assert_eq!(table.silent(own, &TIMING, now_ms), expected, "{now_ms}");
        }
        table.get_mut(1).expect("known").attempt = Some((70, 12_000));
        assert_eq!(table.silent(own, &TIMING, 11_999), [2, 3, 4], "an attempt is under way");
        assert_eq!(table.silent(own, &TIMING, 12_000), [1, 2, 3, 4]);
        assert_eq!(table.of_attempt(70).map(|node| node.sequence), Some(2));
        assert!(table.of_attempt(71).is_none());
        table.give_attempts_up();
        assert_eq!(table.silent(own, &TIMING, 11_999), [1, 2, 3, 4]);
    }

    #[test]
    fn cluster_table_leader_is_the_lowest_that_serves() {
        let mut table = NodeTable::default();
        assert_eq!(table.leader(), None);
        table.note(&part(2, Joining), 1, 0);
        assert_eq!(table.leader(), None);
        table.note(&part(3, Leaving), 2, 0);
        assert_eq!(table.leader(), Some(3));
        table.note(&part(5, Up), 3, 0);
        table.note(&part(4, Up), 4, 0);
        assert_eq!(table.leader(), Some(4));
        table.note(&part(4, Dead), 5, 0);
        assert_eq!(table.leader(), Some(5));
    }

    #[test]
    fn cluster_table_remembers_the_dead_for_a_while() {
        let mut table = NodeTable::default();
        table.note(&part(1, Up), 1, 0);
        table.note(&part(1, Dead), 2, 1000);
        assert!(!table.note_state(1, 1000), "its state does not count");
        assert!(table.due_purges(10_999).is_empty());
        assert_eq!(table.due_purges(11_000), [1]);
        assert!(table.due_purges(11_000).is_empty(), "once");
        table.forget(&TIMING, 60_999);
        assert!(table.get(1).is_some());
        table.forget(&TIMING, 61_000);
        assert!(table.get(1).is_none());
        assert!(table.note_state(1, 61_000), "as of any node");
        table.forget(&TIMING, u64::MAX);
        assert!(table.get(1).is_some(), "it is not dead");
    }

    #[test]
    fn cluster_table_has_a_bound() {
        let mut table = NodeTable::default();
        for id in 1..NODES as u64 {
            assert_eq!(table.note(&part(id, Up), id, 0), TableChange::Appeared);
        }
        assert!(table.note_state(u64::MAX, 0));
        assert!(!table.note_state(u64::MAX - 1, 0) && table.note_state(u64::MAX, 0));
        assert_eq!(table.note(&part(0, Up), 1, 0), TableChange::Skipped);
        assert_eq!(table.note(&part(1, Up), 1, 0), TableChange::Nothing, "a known one");
    }

    #[test]
    fn cluster_table_removes_what_another_reading_does_not_find() {
        for is_new in [false, true] {
            let mut table = NodeTable::default();
            for id in 1..=3 {
                table.note(&part(id, Up), id, 0);
            }
            assert!(table.note_state(4, 0) && table.note_state(5, 0));
            table.note(&part(6, Dead), 6, 0);
            table.begin_reading(is_new);
            assert_eq!(table.living().count(), 0);
            table.note(&part(1, Up), 1, 5000);
            table.note(&part(2, Dead), 2, 5000);
            assert!(table.note_state(3, 5000), "of its own entry nothing is left");
            assert!(table.note_state(4, 5000));
            assert_eq!(table.note_state(6, 5000), is_new, "another log does not have its death");
            assert_eq!(table.remove_unconfirmed(), 1);
            assert_eq!(table.living().map(|(id, _)| id).collect::<Vec<_>>(), [1]);
            let mut silent = vec![1, 3, 4];
            silent.extend(is_new.then_some(6));
            assert_eq!(table.silent(0, &TIMING, 10_000), silent);
        }
    }
}
