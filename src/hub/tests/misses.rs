//! Misses of cached events on several nodes that follow one log.

use super::*;
use crate::hub::{LogMark, LogPlace, StateAuthor, StateProposal, StateTimes, Statement};

const TIMES: StateTimes =
    StateTimes { linger_ms: 3000, count_every_ms: 1000, picture_ms: 5000, hold_ms: 8000 };
const NAME: &str = "cache-a";
const TTL_MS: u64 = 10_000;

/// An entry of the log.
#[derive(Clone, Debug)]
enum Entry {
    State(u64, StateProposal<()>),
    Event,
    /// The node has ended.
    Ended(u64),
}

/// The one core of a node.
struct Node {
    id: u64,
    hub: Hub,
    mail: OutgoingMail,
    /// The number of entries that were applied.
    position: usize,
}

struct Cluster {
    nodes: Vec<Node>,
    log: Vec<Entry>,
    now_ms: u64,
}

impl Cluster {
    fn new(nodes: u64) -> Cluster {
        let mut cluster = Cluster { nodes: Vec::new(), log: Vec::new(), now_ms: NOW_MS };
        (0..nodes).for_each(|_| cluster.start());
        cluster
    }

    /// Starts a node, which reads the log.
    fn start(&mut self) {
        let mut hub = Hub::new(0, 1, Hasher::new(1), MAX_KEPT);
        hub.follow_log(TIMES);
        hub.watch(Arc::from([EventMask::MISSES]), 0);
        let (id, mail) = (self.nodes.len() as u64 + 1, OutgoingMail::new(1));
        self.nodes.push(Node { id, hub, mail, position: 0 });
        self.apply();
    }

    fn join(&mut self, node: usize, index: u32) {
        let Node { hub, mail, .. } = &mut self.nodes[node];
        let request = Some(JoinRequest { cached: true, ..JoinRequest::default() });
        let (slot, form) = (slot(index), Form::PUBLISHED);
        let join = Join { slot, app: 0, name: NAME, max: 9, is_public: false, request, form };
        hub.join(join, self.now_ms, mail);
    }

    fn leave(&mut self, node: usize, index: u32) {
        let Node { hub, mail, .. } = &mut self.nodes[node];
        assert!(hub.leave(slot(index), 0, NAME, mail));
    }

    /// The log takes what a node states.
    fn store(&mut self, node: usize) {
        let Node { id, hub, .. } = &mut self.nodes[node];
        let states = std::iter::from_fn(|| hub.next_state(self.now_ms));
        self.log.extend(states.map(|state| Entry::State(*id, state)));
    }

    /// All nodes apply the log.
    fn apply(&mut self) {
        let (log, now_ms) = (&self.log, self.now_ms);
        for Node { id, hub, mail, position } in &mut self.nodes {
            for (at, entry) in log.iter().enumerate().skip(*position) {
                match entry {
                    Entry::State(node, StateProposal { name, state, .. }) => {
                        let author = StateAuthor { node: *node, is_ours: node == id };
                        match state {
                            Statement::Count(count) => {
                                hub.apply_count((0, name), author, count.clone())
                            }
                            Statement::Miss { is_missed, after } => {
                                hub.apply_miss((0, name), author, (*is_missed, *after));
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                    Entry::Event => {
                        let entry =
                            CacheEntry { ttl_ms: TTL_MS, event: "e".into(), data: "".into() };
                        let retain = Retention::Cache(Arc::new(entry));
                        let mut event = Event { retain, ..Event::from(Frozen::new(b"e")) };
                        let serial = (at as u64 + 1) * 64;
                        let place =
                            LogPlace { serial, age_ms: 0, ttl_s: None, was_delivered: false };
                        hub.apply(0, NAME, (&mut event, Some(place)), now_ms, mail);
                    }
                    Entry::Ended(node) => {
                        let author = StateAuthor { node: *node, is_ours: false };
                        hub.begin_visit(StateVisit::NodeGone(author));
                        while hub.is_visiting() {
                            hub.visit_slice(mail);
                        }
                    }
                }
                hub.reach(LogMark::new(0, at as u64 + 1));
                hub.invariants();
            }
            *position = log.len();
        }
    }

    /// Everything is stored and applied, after a time.
    fn rest(&mut self, ms: u64) {
        self.now_ms += ms;
        for node in &mut self.nodes {
            node.hub.sweep(self.now_ms);
        }
        for _ in 0..5 {
            (0..self.nodes.len()).for_each(|node| self.store(node));
            self.apply();
        }
    }

    /// How many misses each node reports.
    fn reported(&mut self) -> Vec<usize> {
        let reported = |node: &mut Node| {
            let events = std::iter::from_fn(|| node.hub.next_channel_event());
            events.filter(|it| it.is_ours && it.what == ChannelEventKind::CacheMiss).count()
        };
        self.nodes.iter_mut().map(reported).collect()
    }

    /// Whether the last statements of nodes say that they report a miss, as a node that starts
    /// reads them.
    fn stated(&self) -> Vec<bool> {
        let stated = |id: u64| {
            let misses = self.log.iter().rev().filter_map(|entry| match entry {
                Entry::State(
                    node,
                    StateProposal { state: Statement::Miss { is_missed, .. }, .. },
                ) if *node == id => Some(*is_missed),
                _ => None,
            });
            misses.into_iter().next().unwrap_or(false)
        };
        self.nodes.iter().map(|node| stated(node.id)).collect()
    }
}

#[test]
fn misses_on_several_nodes_are_reported_by_the_first_one_in_the_log() {
    let mut cluster = Cluster::new(2);
    cluster.join(0, 1);
    cluster.join(1, 1);
    cluster.store(1);
    cluster.rest(1);
    assert_eq!((cluster.reported(), cluster.stated()), (vec![0, 1], vec![false, true]));
    // Further ones are not, on a node that starts now either.
    cluster.start();
    for node in 0..3 {
        cluster.join(node, 2);
        cluster.rest(1);
    }
    assert_eq!((cluster.reported(), cluster.stated()), (vec![0; 3], vec![false, true, false]));
}

#[test]
fn misses_are_reported_again_after_an_event_was_cached() {
    let mut cluster = Cluster::new(2);
    cluster.join(0, 1);
    cluster.rest(1);
    assert_eq!(cluster.reported(), [1, 0]);
    cluster.log.push(Entry::Event);
    cluster.rest(1);
    assert_eq!(cluster.stated(), [false, false], "it is taken back");
    cluster.join(1, 2);
    cluster.rest(TTL_MS);
    assert_eq!(cluster.reported(), [0, 0], "there is an event");
    cluster.join(1, 3);
    cluster.rest(1);
    assert_eq!((cluster.reported(), cluster.stated()), (vec![0, 1], vec![false, true]));
}

#[test]
fn misses_are_reported_again_after_no_node_had_a_subscriber() {
    let mut cluster = Cluster::new(2);
    cluster.join(0, 1);
    cluster.join(1, 1);
    cluster.rest(1);
    assert_eq!(cluster.reported(), [1, 0]);
    cluster.leave(0, 1);
    (0..2).for_each(|_| cluster.rest(3001));
    cluster.join(0, 2);
    cluster.rest(1);
    assert_eq!(cluster.reported(), [0, 0], "the other node has one");
    cluster.leave(0, 2);
    cluster.leave(1, 1);
    (0..2).for_each(|_| cluster.rest(3001));
    assert_eq!(cluster.stated(), [false, false]);
    assert!(cluster.nodes.iter().all(|node| node.hub.channel_count() == 0));
    cluster.join(1, 2);
    cluster.rest(1);
    assert_eq!(cluster.reported(), [0, 1]);
}

#[test]
fn misses_before_an_event_that_the_node_had_not_read_are_not_reported() {
    let mut cluster = Cluster::new(2);
    cluster.join(0, 1);
    cluster.log.push(Entry::Event);
    cluster.rest(1);
    assert_eq!((cluster.reported(), cluster.stated()), (vec![0, 0], vec![false, false]));
    cluster.join(0, 2);
    cluster.rest(1);
    assert_eq!(cluster.reported(), [0, 0]);
}

#[test]
fn misses_are_reported_by_another_node_after_the_end_of_their_reporter() {
    let mut cluster = Cluster::new(2);
    cluster.join(0, 1);
    cluster.join(1, 1);
    cluster.rest(1);
    assert_eq!(cluster.reported(), [1, 0]);
    cluster.nodes.remove(0);
    cluster.log.push(Entry::Ended(1));
    cluster.rest(1);
    cluster.join(0, 2);
    cluster.rest(1);
    assert_eq!(cluster.reported(), [1]);
}

#[test]
fn misses_that_were_not_stored_are_stated_again() {
    let mut cluster = Cluster::new(1);
    cluster.join(0, 1);
    while let Some(StateProposal { app, name, state }) =
        cluster.nodes[0].hub.next_state(cluster.now_ms)
    {
        let Node { hub, mail, .. } = &mut cluster.nodes[0];
        match state {
            Statement::Miss { .. } => hub.miss_failed((app, &name), true),
            _ => hub.state_failed(app, &name, None, crate::hub::Unpublished::Refused, mail),
        }
    }
    cluster.rest(1000);
    assert_eq!(cluster.reported(), [1]);
}
