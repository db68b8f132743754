//! Reads of numbers of subscribers that a node of a cluster does not always state.

use super::*;
use crate::hub::{StateAuthor, StateProposal, StateTimes, Statement};

const TIMES: StateTimes =
    StateTimes { linger_ms: 3000, count_every_ms: 1000, picture_ms: 5000, hold_ms: 8000 };
const OWN: StateAuthor = StateAuthor { node: 1, is_ours: true };
const OTHER: StateAuthor = StateAuthor { node: 2, is_ours: false };
const ACK: Ack = Ack { slot: Slot { index: 9, generation: 1 }, ticket: 4, part: 2 };

/// The one core of a node.
struct Node {
    hub: Hub,
    mail: OutgoingMail,
    now_ms: u64,
}

impl Node {
    fn new() -> Node {
        let mut hub = Hub::new(0, 1, Hasher::new(1), MAX_KEPT);
        hub.follow_log(TIMES);
        Node { hub, mail: OutgoingMail::new(1), now_ms: NOW_MS }
    }

    fn join(&mut self, index: u32, name: &str) {
        let (slot, form) = (slot(index), Form::PUBLISHED);
        let join = Join { slot, app: 0, name, max: 9, is_public: false, request: None, form };
        self.hub.join(join, self.now_ms, &mut self.mail);
    }

    /// What is to be stated, in words.
    fn states(&mut self) -> Vec<String> {
        let states = std::iter::from_fn(|| self.hub.next_state(self.now_ms));
        let words = |StateProposal { app, name, state }| match state {
            Statement::Count(count) => format!("{name} {count}"),
            Statement::Counting(None) => format!("{app} asked"),
            Statement::Counting(Some((core, cores))) => format!("{app} {core}/{cores}"),
            other => panic!("{other:?}"),
        };
        states.map(words).collect()
    }

    fn apply(&mut self, author: StateAuthor, name: &str, count: u32) {
        self.hub.apply_count((0, name), author, count);
    }

    /// Puts a query. Returns whether its answer has to wait.
    fn ask(&mut self, query: &Query) -> bool {
        let (ours, count) = self.hub.put(query, ACK, self.now_ms, &mut self.mail);
        assert_eq!(ours.is_some(), count == 0);
        count == 1
    }

    fn sweep(&mut self, ms: u64) {
        self.now_ms += ms;
        self.hub.sweep(self.now_ms);
    }

    /// The number of subscribers in the next answer, and whether that is not known.
    fn answer(&mut self) -> Option<(u64, bool)> {
        let (core, ack, answer) = self.hub.next_counted()?;
        assert_eq!((core, ack), (0, ACK));
        match answer {
            Answer::Channel(info) => Some((info.subscriptions, info.is_count_unknown)),
            Answer::Channels(list) => Some((list.iter().map(|it| it.1.subscriptions).sum(), false)),
            Answer::CountsUnknown => Some((0, true)),
            other => panic!("{other:?}"),
        }
    }
}

fn of_channel(counts: bool) -> Query {
    Query::Channel { app: 0, name: "a".into(), counts }
}

fn of_all() -> Query {
    Query::Channels { app: 0, prefix: "".into(), max: 9, counts: true }
}

/// A node with three subscribers of `a`, of which the log knows one, that has read the question.
fn asked() -> Node {
    let mut node = Node::new();
    node.join(1, "a");
    assert_eq!(node.states(), ["a 1"]);
    node.apply(OWN, "a", 1);
    node.join(2, "a");
    node.join(3, "a");
    node.sweep(5000);
    assert_eq!(node.states(), [""; 0], "nobody reads the number");
    assert!(!node.ask(&of_channel(false)) && node.ask(&of_channel(true)) && node.ask(&of_all()));
    assert_eq!(node.states(), ["0 asked"], "once");
    node.hub.begin_counting(0);
    node
}

#[test]
fn counting_read_waits_until_all_nodes_have_stated() {
    let mut node = asked();
    assert_eq!(node.states(), ["a 3"]);
    node.sweep(250);
    assert_eq!(node.states(), [""; 0], "the number is not in the log yet");
    node.apply(OTHER, "a", 4);
    node.apply(OWN, "a", 3);
    assert_eq!(node.states(), ["0 0/1"]);
    assert_eq!(node.answer(), None);
    node.hub.note_counted(0, true, node.now_ms);
    let answers = [node.answer(), node.answer(), node.answer()];
    assert_eq!(answers, [Some((7, false)), Some((7, false)), None]);
    assert!(!node.ask(&of_channel(true)) && !node.ask(&of_all()), "it is known from now on");
    // Numbers are stated again, as for applications that always do.
    node.join(4, "a");
    node.sweep(1000);
    assert_eq!(node.states(), ["a 4"]);
    // A node has come that has not stated its numbers.
    node.hub.note_counted(0, false, node.now_ms);
    assert!(node.ask(&of_channel(true)));
}

#[test]
fn counting_read_is_answered_in_time_that_the_number_is_unknown() {
    let mut node = asked();
    node.sweep(999);
    assert_eq!(node.states(), ["a 3"]);
    node.sweep(1);
    assert_eq!(node.states(), ["0 asked"], "again");
    node.sweep(999);
    assert_eq!(node.answer(), None);
    node.sweep(1);
    assert_eq!([node.answer(), node.answer()], [Some((1, true)), Some((0, true))]);
    node.sweep(5000);
    assert_eq!(node.states(), [""; 0], "nobody waits");
}

#[test]
fn counting_is_said_again_if_that_was_not_stored_and_after_all_was_stated_again() {
    let mut node = asked();
    assert_eq!(node.states(), ["a 3"]);
    node.apply(OWN, "a", 3);
    assert_eq!(node.states(), ["0 0/1"]);
    node.hub.begin_counting(0);
    assert_eq!(node.states(), [""; 0], "it was said");
    node.hub.counting_failed(0);
    assert_eq!(node.states(), [""; 0], "not at once");
    node.sweep(250);
    assert_eq!(node.states(), ["0 0/1"]);
    node.hub.begin_visit(StateVisit::Restate);
    while node.hub.is_visiting() {
        node.hub.visit_slice(&mut node.mail);
    }
    node.sweep(250);
    assert_eq!(node.states(), ["a 3"]);
    node.sweep(250);
    assert_eq!(node.states(), [""; 0]);
    node.apply(OWN, "a", 3);
    assert_eq!(node.states(), ["0 0/1"]);
}

#[test]
fn counting_does_not_concern_applications_that_always_state_and_internal_channels() {
    let mut node = Node::new();
    node.hub.watch(Arc::from([EventMask::READS]), 0);
    assert!(!node.ask(&of_channel(true)) && !node.ask(&of_all()));
    let mut node = Node::new();
    assert!(!node.ask(&Query::Channel { app: 0, name: "#a".into(), counts: true }));
    let mut alone = Node { hub: Hub::new(0, 1, Hasher::new(1), MAX_KEPT), ..Node::new() };
    assert!(!alone.ask(&of_channel(true)));
}

#[test]
fn counting_answer_to_another_core_waits() {
    let mut node = Node::new();
    let query = Up::Query { query: of_channel(true), ack: ACK };
    assert!(node.hub.request(3, query, node.now_ms, &mut node.mail).is_none());
    assert_eq!(node.states(), ["0 asked"]);
    node.hub.note_counted(0, true, node.now_ms);
    let answer = node.hub.next_counted();
    assert!(matches!(answer, Some((3, ACK, Answer::Channel(_)))), "{answer:?}");
}
