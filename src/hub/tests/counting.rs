//! Reads of numbers of subscribers that a node of a cluster does not always state.

use super::*;
use crate::hub::counting::{LEASE_MS, MAX_WAITING};
use crate::hub::{CountedKind, CountedNumbers, CountingStep, SubscriberCount};
use crate::hub::{StateAuthor, StateProposal, StateTimes, Statement};

const TIMES: StateTimes =
    StateTimes { linger_ms: 3000, count_every_ms: 1000, picture_ms: 5000, hold_ms: 8000 };
const OWN: StateAuthor = StateAuthor { node: 1, is_ours: true };
const OTHER: StateAuthor = StateAuthor { node: 2, is_ours: false };
const TOTALS: CountedNumbers = CountedNumbers { app: 0, kind: CountedKind::Totals };
const BY_VIEW: CountedNumbers = CountedNumbers { app: 0, kind: CountedKind::ByView };
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
        self.join_through(index, name, 0);
    }

    fn join_through(&mut self, index: u32, name: &str, view: u16) {
        let (slot, form) = (slot(index), Form { view, ..Form::PUBLISHED });
        let join = Join { slot, app: 0, name, max: 9, is_public: false, request: None, form };
        self.hub.join(join, self.now_ms, &mut self.mail);
    }

    /// What is to be stated, in words.
    fn states(&mut self) -> Vec<String> {
        let states = std::iter::from_fn(|| self.hub.next_state(self.now_ms));
        let words = |StateProposal { app, name, state }| match state {
            Statement::Count(SubscriberCount { all, views }) if views.is_empty() => {
                format!("{name} {all}")
            }
            Statement::Count(SubscriberCount { all, views }) => format!("{name} {all} {views:?}"),
            Statement::Counting(kind, step) => match step {
                CountingStep::Asked(_) => format!("{app} {kind:?} asked"),
                CountingStep::Read => format!("{app} {kind:?} read"),
                CountingStep::Ended => format!("{app} {kind:?} ended"),
                CountingStep::Stated { question, core, cores } => {
                    format!("{app} {kind:?} {core}/{cores} for {question}")
                }
            },
            other => panic!("{other:?}"),
        };
        states.map(words).collect()
    }

    fn apply(&mut self, author: StateAuthor, name: &str, count: u32) {
        self.hub.apply_count((0, name), author, count);
    }

    /// The log asks for the totals of the application.
    fn asks(&mut self, question: u64) {
        self.on(TOTALS, CountingStep::Asked(question));
    }

    fn on(&mut self, numbers: CountedNumbers, step: CountingStep) {
        self.hub.on_counting(numbers, step, self.now_ms);
    }

    fn note_whole(&mut self, numbers: CountedNumbers, is_whole: bool) {
        self.hub.note_counted(numbers, is_whole, self.now_ms);
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
    Query::Channel { app: 0, name: "a".into(), counts, by_view: false }
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
    assert_eq!(node.states(), ["0 Totals asked"], "once");
    node.asks(7);
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
    assert_eq!(node.states(), ["0 Totals 0/1 for 7"]);
    assert_eq!(node.answer(), None);
    node.note_whole(TOTALS, true);
    let answers = [node.answer(), node.answer(), node.answer()];
    assert_eq!(answers, [Some((7, false)), Some((7, false)), None]);
    assert!(!node.ask(&of_channel(true)) && !node.ask(&of_all()), "it is known from now on");
    // Numbers are stated again, as for applications that always do.
    node.join(4, "a");
    node.sweep(1000);
    assert_eq!(node.states(), ["a 4"]);
    // A node has come that has not stated its numbers.
    node.note_whole(TOTALS, false);
    assert!(node.ask(&of_channel(true)));
}

#[test]
fn counting_read_is_answered_in_time_that_the_number_is_unknown() {
    let mut node = asked();
    node.sweep(999);
    assert_eq!(node.states(), ["a 3"]);
    node.sweep(1000);
    assert_eq!((node.states().len(), node.answer()), (0, None), "the log has the question");
    node.sweep(1);
    assert_eq!([node.answer(), node.answer()], [Some((1, true)), Some((0, true))]);
    node.sweep(5000);
    assert_eq!(node.states(), [""; 0], "nobody waits");
}

#[test]
fn counting_question_is_put_again_while_reads_wait() {
    let mut node = Node::new();
    assert!(node.ask(&of_channel(true)));
    assert_eq!(node.states(), ["0 Totals asked"]);
    node.sweep(999);
    assert_eq!(node.states(), [""; 0]);
    node.sweep(1);
    assert_eq!(node.states(), ["0 Totals asked"], "the log does not have it");
    // If the log has it, other nodes may know another log.
    node.asks(7);
    assert_eq!(node.states(), ["0 Totals 0/1 for 7"]);
    node.sweep(9999);
    assert!(node.ask(&of_channel(true)));
    assert_eq!(node.states(), [""; 0]);
    node.sweep(1);
    assert_eq!(node.states(), ["0 Totals asked"]);
}

#[test]
fn counting_is_said_again_if_that_was_not_stored_and_after_all_was_stated_again() {
    let mut node = asked();
    assert_eq!(node.states(), ["a 3"]);
    node.apply(OWN, "a", 3);
    assert_eq!(node.states(), ["0 Totals 0/1 for 7"]);
    node.asks(7);
    assert_eq!(node.states(), [""; 0], "it was said");
    node.hub.counting_failed(TOTALS);
    assert_eq!(node.states(), [""; 0], "not at once");
    node.sweep(250);
    assert_eq!(node.states(), ["0 Totals 0/1 for 7"]);
    node.hub.begin_visit(StateVisit::Restate);
    while node.hub.is_visiting() {
        node.hub.visit_slice(&mut node.mail);
    }
    node.sweep(250);
    assert_eq!(node.states(), ["a 3"]);
    node.sweep(250);
    assert_eq!(node.states(), [""; 0]);
    node.apply(OWN, "a", 3);
    assert_eq!(node.states(), ["0 Totals 0/1 for 7"]);
}

#[test]
fn counting_does_not_concern_applications_that_always_state_and_internal_channels() {
    let mut node = Node::new();
    node.hub.watch(Arc::from([EventMask::READS]), 0);
    assert!(!node.ask(&of_channel(true)) && !node.ask(&of_all()));
    let mut node = Node::new();
    assert!(!node.ask(&Query::Channel { app: 0, name: "#a".into(), counts: true, by_view: true }));
    let mut alone = Node { hub: Hub::new(0, 1, Hasher::new(1), MAX_KEPT), ..Node::new() };
    assert!(!alone.ask(&of_channel(true)));
}

#[test]
fn counting_answer_to_another_core_waits() {
    let mut node = Node::new();
    let query = Up::Query { query: of_channel(true), ack: ACK };
    assert!(node.hub.request(3, query, node.now_ms, &mut node.mail).is_none());
    assert_eq!(node.states(), ["0 Totals asked"]);
    node.note_whole(TOTALS, true);
    let answer = node.hub.next_counted();
    assert!(matches!(answer, Some((3, ACK, Answer::Channel(_)))), "{answer:?}");
}

fn of_link() -> Query {
    Query::Channel { app: 0, name: "a".into(), counts: false, by_view: true }
}

#[test]
fn cluster_p12_link_read_makes_nodes_state_who_has_come_through_views() {
    let mut node = Node::new();
    node.hub.name_views(Arc::from([0, 70, 50]));
    node.join_through(1, "a", 1);
    node.join_through(2, "a", 2);
    node.join(3, "a");
    node.join(4, "b");
    assert_eq!(node.states(), ["a 3", "b 1"]);
    node.apply(OWN, "a", 3);
    node.apply(OWN, "b", 1);
    assert!(node.ask(&of_link()));
    assert_eq!(node.states(), ["0 ByView asked"]);
    node.on(BY_VIEW, CountingStep::Asked(9));
    assert_eq!(node.states(), ["a 3 [(50, 1), (70, 1)]"], "only of channels with views");
    node.hub.apply_count((0, "a"), OWN, with_views(3, &[(50, 1), (70, 1)]));
    assert_eq!(node.states(), ["0 ByView 0/1 for 9"]);
    node.hub.apply_count((0, "a"), OTHER, with_views(4, &[(60, 2), (70, 1)]));
    node.note_whole(BY_VIEW, true);
    let Some((.., Answer::Channel(info))) = node.hub.next_counted() else { panic!("an answer") };
    assert_eq!((info.subscriptions, info.views), (7, vec![(50, 1), (60, 2), (70, 2)]));
    // The total stays the same, and the numbers by view do not; they are stated once a second.
    node.hub.leave(slot(1), 0, "a", &mut node.mail);
    node.join_through(5, "a", 2);
    node.sweep(999);
    assert_eq!(node.states(), [""; 0]);
    node.sweep(1);
    assert_eq!(node.states(), ["a 3 [(50, 2)]"]);
    // A node that has ended is not counted.
    node.hub.begin_visit(StateVisit::NodeGone(OTHER));
    node.hub.visit_slice(&mut node.mail);
    assert!(!node.ask(&of_link()));
    let (ours, _) = node.hub.put(&of_link(), ACK, node.now_ms, &mut node.mail);
    let Some(Answer::Channel(info)) = ours else { panic!("an answer") };
    assert_eq!(info.views, [(50, 1), (70, 1)]);
}

fn with_views(all: u32, views: &[(u64, u32)]) -> SubscriberCount {
    SubscriberCount { all, views: views.to_vec() }
}

/// Also of an application that always states its totals: a node of an earlier release states no
/// numbers by view.
#[test]
fn cluster_p12_link_read_waits_for_an_answer_about_views() {
    let mut node = Node::new();
    node.hub.watch(Arc::from([EventMask::READS]), 0);
    assert!(!node.ask(&of_channel(true)) && node.ask(&of_link()));
    assert_eq!(node.states(), ["0 ByView asked"]);
    for kind in [CountedKind::Unleased, CountedKind::Totals] {
        node.note_whole(CountedNumbers { app: 0, kind }, true);
    }
    assert_eq!(node.answer(), None);
    node.sweep(2000);
    assert_eq!(node.answer(), Some((0, true)));
}

/// Earlier releases ask for totals for ever; their question helps reads of totals here.
#[test]
fn cluster_p12_counts_that_an_earlier_release_asks_for_are_stated_for_ever() {
    let mut node = Node::new();
    let unleased = CountedNumbers { app: 0, kind: CountedKind::Unleased };
    assert!(node.ask(&of_channel(true)));
    assert_eq!(node.states(), ["0 Totals asked"]);
    node.on(unleased, CountingStep::Asked(0));
    assert_eq!(node.states(), ["0 Unleased 0/1 for 0"]);
    node.note_whole(unleased, true);
    assert_eq!(node.answer(), Some((0, false)));
    assert!(!node.ask(&of_channel(true)));
    node.sweep(LEASE_MS + 1);
    assert_eq!(node.states(), [""; 0]);
}

#[test]
fn cluster_p12_counts_are_stated_while_they_are_read() {
    let mut node = asked();
    assert_eq!(node.states(), ["a 3"]);
    node.apply(OWN, "a", 3);
    assert_eq!(node.states(), ["0 Totals 0/1 for 7"]);
    node.note_whole(TOTALS, true);
    assert!(node.answer().is_some() && node.answer().is_some());
    node.sweep(LEASE_MS / 2 - 1);
    assert!(!node.ask(&of_all()));
    assert_eq!(node.states(), [""; 0], "the log says so since less than half of the lease");
    node.sweep(1);
    assert!(!node.ask(&of_all()) && !node.ask(&of_channel(true)));
    assert_eq!(node.states(), ["0 Totals read"], "once");
    node.on(TOTALS, CountingStep::Read);
    node.sweep(LEASE_MS - 1);
    assert_eq!(node.states(), [""; 0]);
    node.sweep(1);
    assert_eq!(node.states(), ["0 Totals ended"]);
    node.sweep(59_999);
    assert_eq!(node.states(), [""; 0], "it is on its way");
    node.sweep(1);
    assert_eq!(node.states(), ["0 Totals ended"], "it was not stored");
    node.on(TOTALS, CountingStep::Ended);
    node.join(4, "a");
    node.sweep(1000);
    assert_eq!(node.states(), [""; 0], "nobody reads the number");
    assert!(node.ask(&of_channel(true)));
    assert_eq!(node.states(), ["0 Totals asked"]);
    node.asks(8);
    assert_eq!(node.states(), ["a 4"]);
}

/// Of applications without numbers of their own nothing stays in the log when nobody reads them.
#[test]
fn cluster_p12_link_counts_of_groups_end_with_the_lease() {
    let mut node = Node::new();
    let app = u32::MAX - 3;
    let (slot, form) = (slot(1), Form::PUBLISHED);
    let join = Join { slot, app, name: "g", max: 9, is_public: false, request: None, form };
    node.hub.join(join, node.now_ms, &mut node.mail);
    assert_eq!(node.states(), [""; 0]);
    let numbers = CountedNumbers { app, kind: CountedKind::ByView };
    node.on(numbers, CountingStep::Asked(3));
    assert_eq!(node.states(), ["g 1"]);
    node.hub.apply_count((app, "g"), OWN, 1u32);
    assert_eq!(node.states().len(), 1, "all are stated");
    node.on(numbers, CountingStep::Ended);
    node.sweep(0);
    assert_eq!(node.states(), [""; 0]);
    node.sweep(TIMES.linger_ms);
    assert_eq!(node.states(), ["g 0"]);
    node.hub.apply_count((app, "g"), OWN, 0u32);
    node.sweep(5000);
    assert_eq!(node.states(), [""; 0]);
}

/// Every core lists all channels for a question, so those that not all nodes answer become rarer.
#[test]
fn cluster_p12_counts_questions_without_answers_become_rarer() {
    let mut node = Node::new();
    assert!(node.ask(&of_channel(true)));
    node.states();
    let next_asks_after = |node: &mut Node, question: u64, ms: u64| {
        node.asks(question);
        node.states();
        node.sweep(ms - 1);
        assert!(node.ask(&of_channel(true)));
        assert_eq!(node.states(), [""; 0], "{question}");
        node.sweep(1);
        assert_eq!(node.states(), ["0 Totals asked"], "{question}");
    };
    for (question, ms) in [(1, 10_000), (2, 20_000), (3, 40_000), (4, 60_000), (5, 60_000)] {
        next_asks_after(&mut node, question, ms);
    }
    node.note_whole(TOTALS, true);
    node.note_whole(TOTALS, false);
    next_asks_after(&mut node, 6, 10_000);
}

#[test]
fn cluster_p12_counts_another_question_is_answered_again() {
    let mut node = asked();
    assert_eq!(node.states(), ["a 3"]);
    node.apply(OWN, "a", 3);
    assert_eq!(node.states(), ["0 Totals 0/1 for 7"]);
    node.note_whole(TOTALS, true);
    node.asks(7);
    assert_eq!(node.states(), [""; 0], "it was answered");
    node.asks(8);
    assert_eq!(node.states(), ["0 Totals 0/1 for 8"]);
    assert!(node.answer().is_some() && node.answer().is_some());
    assert!(node.ask(&of_channel(true)), "others have not answered yet");
}

#[test]
fn cluster_p12_counts_reads_beyond_a_bound_do_not_wait() {
    let mut node = Node::new();
    for _ in 0..MAX_WAITING {
        assert!(node.ask(&of_channel(true)));
    }
    assert_eq!((node.answer(), node.hub.waiting_reads()), (None, (MAX_WAITING, 0)));
    assert!(node.ask(&of_channel(true)) && node.ask(&of_all()));
    assert_eq!([node.answer(), node.answer()], [Some((0, true)), Some((0, true))]);
    assert_eq!(node.hub.waiting_reads(), (MAX_WAITING, 2));
    assert_eq!(node.hub.waiting_reads(), (MAX_WAITING, 0), "they are counted once");
    node.sweep(2000);
    for _ in 0..MAX_WAITING {
        assert_eq!(node.answer(), Some((0, true)));
    }
    assert!(node.ask(&of_channel(true)), "there is room again");
    assert_eq!(node.hub.waiting_reads(), (1, 0));
}
