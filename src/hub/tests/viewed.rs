//! Numbers of subscribers by view, of several nodes with several cores that follow one log and
//! number their views differently.

use super::*;
use crate::hub::counting::LEASE_MS;
use crate::hub::tests::cores::Mail;
use crate::hub::{CountedKind, CountedNumbers, CountingStep};
use crate::hub::{StateAuthor, StateProposal, StateTimes, Statement};
use std::collections::{BTreeMap, BTreeSet};

const TIMES: StateTimes =
    StateTimes { linger_ms: 3000, count_every_ms: 1000, picture_ms: 5000, hold_ms: 8000 };
const BY_VIEW: CountedNumbers = CountedNumbers { app: 0, kind: CountedKind::ByView };
const CORES: u16 = 2;
/// The channels, and the keys of the views through which they have subscribers.
const NAMES: [&str; 3] = ["a", "b", "c"];
const KEYS: [u64; 3] = [11, 22, 33];

/// An entry of the log, with the node that has written it.
type Entry = (u64, StateProposal<()>);
/// The numbers of a channel by the key of the view; 0 is the source.
type Truth = BTreeMap<u64, u64>;

struct Node {
    id: u64,
    cores: Cores,
    /// The keys of views by their numbers.
    keys: Vec<u64>,
    /// The number of entries that were applied.
    position: usize,
    /// The channel and the view's key of each connection.
    subscribers: BTreeMap<(u16, u32), (&'static str, u64)>,
    question: Option<u64>,
    /// The cores of each node that have answered the question with this number.
    stated: BTreeMap<u64, (u64, BTreeSet<u16>)>,
    is_whole: bool,
}

impl Node {
    fn new(id: u64) -> Node {
        let mut cores = Cores::new(CORES, id, MAX_KEPT);
        let mut keys = KEYS;
        keys.rotate_left(id as usize);
        let keys = [&[0], &keys[..]].concat();
        for hub in &mut cores.hubs {
            hub.follow_log(TIMES);
            hub.name_views(keys.clone().into());
        }
        let (subscribers, stated) = (BTreeMap::new(), BTreeMap::new());
        Node { id, cores, keys, position: 0, subscribers, question: None, stated, is_whole: false }
    }

    fn join(&mut self, place: (u16, u32), name: &'static str, key: u64, now_ms: u64) {
        let view = self.keys.iter().position(|it| *it == key).expect("a view") as u16;
        let (slot, form) = (slot(place.1), Form { view, ..Form::PUBLISHED });
        let join = Join { slot, app: 0, name, max: 9, is_public: false, request: None, form };
        let (hub, mail) = self.cores.at(place.0);
        hub.join(join, now_ms, mail);
        self.subscribers.insert(place, (name, key));
    }

    fn leave(&mut self, place: (u16, u32)) {
        let (name, _) = self.subscribers.remove(&place).expect("a subscriber");
        let (hub, mail) = self.cores.at(place.0);
        assert!(hub.leave(slot(place.1), 0, name, mail));
    }

    /// Delivers everything between the cores, and puts what they state into the log.
    fn pump(&mut self, log: &mut Vec<Entry>, now_ms: u64) {
        loop {
            for core in 0..CORES {
                let (hub, mail) = self.cores.at(core);
                hub.report_counts(mail);
            }
            let Some((from, to, mail)) = self.cores.take(0) else { break };
            let (hub, outgoing) = self.cores.at(to);
            match mail {
                Mail::Up(up) => drop(hub.request(from, up, now_ms, outgoing)),
                Mail::Down(Down::Interested { request_id, name, .. }) => {
                    hub.interested(request_id, &name);
                }
                Mail::Down(other) => panic!("{other:?}"),
            }
        }
        for hub in &mut self.cores.hubs {
            log.extend(std::iter::from_fn(|| Some((self.id, hub.next_state(now_ms)?))));
        }
    }

    /// Lets the next entry of the log take effect.
    fn apply(&mut self, log: &[Entry], nodes: &[u64], now_ms: u64) {
        let Some((node, StateProposal { name, state, .. })) = log.get(self.position) else {
            return;
        };
        self.position += 1;
        let author = StateAuthor { node: *node, is_ours: *node == self.id };
        let step = match state {
            Statement::Count(count) => {
                let (hub, _) = self.cores.at(self.cores.home(name));
                return hub.apply_count((0, name), author, count.clone());
            }
            Statement::Counting(CountedKind::ByView, step) => *step,
            other => panic!("{other:?}"),
        };
        let step = match step {
            CountingStep::Asked(_) => {
                self.question = Some(self.position as u64);
                CountingStep::Asked(self.position as u64)
            }
            CountingStep::Stated { question, core, cores } => {
                assert_eq!(cores, CORES);
                let it = self.stated.entry(*node).or_default();
                if it.0 != question {
                    *it = (question, BTreeSet::new());
                }
                it.1.insert(core);
                step
            }
            CountingStep::Ended => {
                self.question = None;
                step
            }
            CountingStep::Read => step,
        };
        self.cores.hubs.iter_mut().for_each(|hub| hub.on_counting(BY_VIEW, step, now_ms));
        let has_stated = |node: &u64| {
            let stated = self.stated.get(node).filter(|it| Some(it.0) == self.question);
            stated.is_some_and(|it| it.1.len() == usize::from(CORES))
        };
        let is_whole = nodes.iter().all(has_stated);
        if is_whole != std::mem::replace(&mut self.is_whole, is_whole) {
            let hubs = self.cores.hubs.iter_mut();
            hubs.for_each(|hub| hub.note_counted(BY_VIEW, is_whole, now_ms));
        }
    }

    /// Puts a read to the home of a channel. Returns its numbers if they are known at once.
    fn read(&mut self, name: &str, now_ms: u64) -> Option<Truth> {
        let query = Query::Channel { app: 0, name: name.into(), counts: false, by_view: true };
        let ack = Ack { slot: slot(900), ticket: 1, part: 0 };
        let (hub, mail) = self.cores.at(self.cores.home(name));
        let (answer, _) = hub.put(&query, ack, now_ms, mail);
        answer.map(numbers_of)
    }

    /// The answers to reads that have waited.
    fn answers(&mut self) -> Vec<Answer> {
        let hubs = self.cores.hubs.iter_mut();
        hubs.flat_map(|hub| std::iter::from_fn(|| hub.next_counted().map(|it| it.2))).collect()
    }
}

fn numbers_of(answer: Answer) -> Truth {
    let Answer::Channel(info) = answer else { panic!("{answer:?}") };
    assert!(!info.is_count_unknown);
    let through_views: u64 = info.views.iter().map(|it| it.1).sum();
    let source = (0, info.subscriptions - through_views);
    info.views.into_iter().chain([source]).filter(|(_, count)| *count > 0).collect()
}

struct World {
    nodes: Vec<Node>,
    log: Vec<Entry>,
    now_ms: u64,
}

impl World {
    fn new(nodes: u64) -> World {
        World { nodes: (1..=nodes).map(Node::new).collect(), log: Vec::new(), now_ms: NOW_MS }
    }

    fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Lets time pass, in which each node applies the whole log.
    fn rest(&mut self, ms: u64) {
        let (ids, step_ms) = (self.ids(), if ms > 60_000 { 2000 } else { 250 });
        for _ in 0..ms.div_ceil(step_ms) {
            self.now_ms += step_ms;
            for node in &mut self.nodes {
                node.cores.hubs.iter_mut().for_each(|hub| hub.sweep(self.now_ms));
                node.pump(&mut self.log, self.now_ms);
            }
            for node in &mut self.nodes {
                while node.position < self.log.len() {
                    node.apply(&self.log, &ids, self.now_ms);
                    node.pump(&mut self.log, self.now_ms);
                }
            }
        }
    }

    fn truth(&self, name: &str) -> Truth {
        let mut truth = Truth::new();
        let all = self.nodes.iter().flat_map(|node| node.subscribers.values());
        for (_, key) in all.filter(|(other, _)| *other == name) {
            *truth.entry(*key).or_default() += 1;
        }
        truth
    }

    /// Asserts that a read on each node is answered with what is true, at once or after a wait.
    fn check(&mut self) {
        for at in 0..self.nodes.len() {
            for name in NAMES {
                let read = self.nodes[at].read(name, self.now_ms).unwrap_or_else(|| {
                    self.rest(1500);
                    let mut answers = self.nodes[at].answers();
                    assert_eq!(answers.len(), 1);
                    numbers_of(answers.remove(0))
                });
                assert_eq!(read, self.truth(name), "{name} on node {}", at + 1);
            }
        }
    }
}

#[test]
fn cluster_p12_link_counts_of_all_cores_and_nodes_are_summed_by_view() {
    let mut world = World::new(2);
    let now_ms = world.now_ms;
    for (node, core, index, key) in
        [(0, 0, 1, 0), (0, 1, 1, 11), (0, 1, 2, 11), (1, 0, 1, 11), (1, 1, 1, 33), (1, 0, 2, 22)]
    {
        world.nodes[node].join((core, index), "a", key, now_ms);
    }
    world.rest(5000);
    let has_views =
        |(_, it): &Entry| matches!(&it.state, Statement::Count(it) if !it.views.is_empty());
    assert!(!world.log.iter().any(has_views), "nobody reads them");
    world.check();
    let read = world.nodes[1].read("a", world.now_ms);
    assert_eq!(read, Some(Truth::from([(0, 1), (11, 3), (22, 1), (33, 1)])));
    // On each core one comes as another one leaves, in the same turn: the number of all is the
    // same.
    let now_ms = world.now_ms;
    world.nodes[0].leave((1, 2));
    world.nodes[0].join((1, 3), "a", 22, now_ms);
    world.nodes[0].leave((0, 1));
    world.nodes[0].join((0, 4), "a", 33, now_ms);
    world.rest(1250);
    let read = world.nodes[1].read("a", world.now_ms);
    assert_eq!(read, Some(Truth::from([(11, 2), (22, 2), (33, 2)])));
}

/// Numbers at rest are those of the open connections, whatever has come and gone while they were
/// asked for and while they were not.
#[test]
fn cluster_p12_link_counts_at_rest_are_the_subscribers_of_each_view() {
    for seed in 1..=8u64 {
        let (mut world, mut random) = (World::new(1 + seed % 3), seed);
        let mut next = |max: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
            (random >> 33) % max
        };
        for round in 0..4 {
            // In the third round nobody reads until its end.
            let is_read = round != 2;
            if !is_read {
                world.rest(LEASE_MS + 5000);
                assert!(world.nodes.iter().all(|node| node.question.is_none()));
            }
            for _ in 0..60 {
                let node = &mut world.nodes[next(1 + seed % 3) as usize];
                let place = (next(u64::from(CORES)) as u16, next(12) as u32);
                match node.subscribers.contains_key(&place) {
                    true => node.leave(place),
                    false => {
                        let name = NAMES[next(3) as usize];
                        let key = [&[0], &KEYS[..]].concat()[next(4) as usize];
                        node.join(place, name, key, world.now_ms);
                    }
                }
                match next(6) {
                    0 if is_read => drop(node.read(NAMES[0], world.now_ms)),
                    1 => world.rest(250 * next(4)),
                    _ => {}
                }
            }
            world.rest(5000);
            world.nodes.iter_mut().for_each(|node| drop(node.answers()));
            world.check();
        }
    }
}

#[test]
fn cluster_p12_link_counts_end_for_all_nodes_when_none_has_read_them() {
    let mut world = World::new(2);
    world.nodes[0].join((0, 1), "a", 11, NOW_MS);
    world.nodes[1].join((1, 1), "a", 11, NOW_MS);
    world.rest(1000);
    world.check();
    let question = world.nodes[0].question;
    assert!(question.is_some());
    // Reads keep the numbers alive, whichever node reads.
    for _ in 0..3 {
        world.rest(LEASE_MS / 2 + 1000);
        assert!(world.nodes[1].read("a", world.now_ms).is_some());
        world.rest(250);
    }
    assert_eq!(world.nodes[0].question, question);
    world.rest(LEASE_MS - 4000);
    assert_eq!(world.nodes[0].question, question, "the lease has not ended");
    world.rest(8000);
    assert!(world.nodes.iter().all(|node| node.question.is_none()));
    let before = world.log.len();
    world.nodes[0].join((0, 2), "a", 22, world.now_ms);
    world.rest(5000);
    assert_eq!(world.log.len(), before, "numbers are not stated any more");
    assert_eq!(world.nodes[1].read("a", world.now_ms), None, "they are asked for again");
    world.rest(250);
    let answers: Vec<Truth> = world.nodes[1].answers().into_iter().map(numbers_of).collect();
    assert_eq!(answers, [Truth::from([(11, 2), (22, 1)])]);
}
