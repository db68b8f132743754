//! Several homes that read one simulated log: whatever is stored late, expires or is lost, a home
//! that has read the log has the picture that results from all changes.

use super::super::picture::tests::{changes, data, encodings, naive};
use super::super::{
    EventPayload, Form, Hasher, Join, JoinRequest, Joined, LogMark, LogStart, OutgoingMail,
    log_serial,
};
use super::*;
use crate::codec::{Format, Value};
use crate::hub::{LATE_MS, StateTimes, StateVisit};
use crate::mem::Slot;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

mod cases;

type TestHub = Hub<()>;

/// How long the log keeps a change, in milliseconds.
const KEPT_MS: u64 = 30_000;
const EVERY_MS: u64 = 5000;
/// An application of which nobody counts subscribers.
const APP: u32 = u32::MAX;
const NAMES: [&str; 2] = ["one", "two"];

fn envelope() -> Envelope {
    Envelope { members: vec![("Topic".into(), Value::text("t"))], key: "Data".into() }
}

fn event(change: PictureChange, value: &Value) -> Event<()> {
    let payload = match change {
        PictureChange::Clear => EventPayload::Nothing,
        _ => EventPayload::Value(encodings(value.clone())),
    };
    Event { payload, retain: Retention::Picture(change), ..Event::default() }
}

#[derive(Clone)]
enum Stored {
    Change(Event<()>),
    Piece(u64, PicturePiece),
}

#[derive(Clone)]
struct Entry {
    sequence: u64,
    stored_ms: u64,
    name: &'static str,
    what: Stored,
}

#[derive(Default)]
struct Log {
    generation: u16,
    last: u64,
    now_ms: u64,
    entries: Vec<Entry>,
    /// The picture of each channel, computed with whole values.
    truth: BTreeMap<&'static str, Value>,
}

impl Log {
    fn store(&mut self, name: &'static str, what: Stored) {
        if let Stored::Piece(_, piece) = &what {
            let is_replaced = |entry: &Entry| match &entry.what {
                Stored::Piece(_, other) => entry.name == name && other.index == piece.index,
                Stored::Change(_) => false,
            };
            self.entries.retain(|entry| !is_replaced(entry));
        }
        if let Stored::Change(event) = &what {
            let Retention::Picture(change) = event.retain else { panic!("a change") };
            let value = event.encodings().and_then(|it| it.value());
            match naive(self.truth.get(name), Some(change), value) {
                Some(value) => drop(self.truth.insert(name, value)),
                None => drop(self.truth.remove(name)),
            }
        }
        self.last += 1;
        let (sequence, stored_ms) = (self.last, self.now_ms);
        self.entries.push(Entry { sequence, stored_ms, name, what });
    }

    fn expire(&mut self) {
        let now_ms = self.now_ms;
        self.entries.retain(|entry| {
            let is_state = matches!(&entry.what, Stored::Piece(_, it) if it.index < it.count);
            is_state || entry.stored_ms + KEPT_MS > now_ms
        });
    }

    fn start(&self) -> LogStart {
        let stream = u64::from(self.generation);
        let read_until = self.last;
        LogStart { generation: self.generation, stream, read_until, known_after: 0, void_until: 0 }
    }
}

struct Node {
    id: u64,
    hub: TestHub,
    mail: OutgoingMail<()>,
    position: u64,
    /// Up to where entries are made again.
    refolds_to: u64,
    proposals: Vec<Proposed>,
}

/// A piece on its way into the log.
#[derive(Clone)]
struct Proposed {
    author: u64,
    proposed_ms: u64,
    name: &'static str,
    piece: PicturePiece,
}

impl Node {
    fn new(id: u64, log: &Log) -> Node {
        let mut hub = Hub::new(0, 1, Hasher::new(1), 1 << 20);
        hub.follow_log(StateTimes {
            linger_ms: 0,
            count_every_ms: 1,
            picture_ms: EVERY_MS,
            hold_ms: 1,
        });
        hub.pictures.as_mut().expect("a cluster").piece_bytes = 24;
        let mut mail = OutgoingMail::new(1);
        hub.begin_log(log.start(), &mut mail);
        Node { id, hub, mail, position: 0, refolds_to: 0, proposals: Vec::new() }
    }

    fn read(&mut self, log: &Log, max: usize) {
        let from = self.position;
        let entries = log.entries.iter().filter(|entry| entry.sequence > from).take(max);
        for Entry { sequence, name, what, .. } in entries.cloned() {
            self.position = sequence;
            let serial = log_serial(sequence, 0).expect("a number");
            let place = LogPlace { serial, age_ms: 0, ttl_s: None, was_delivered: false };
            match what {
                Stored::Change(event) if sequence <= self.refolds_to => {
                    self.hub.fold_picture((APP, name), &event, place, log.now_ms);
                }
                Stored::Change(mut event) => {
                    let event = (&mut event, Some(place));
                    self.hub.apply(APP, name, event, log.now_ms, &mut self.mail);
                }
                Stored::Piece(author, piece) => {
                    let is_ours = author == self.id;
                    let whole = self.hub.note_picture_piece((APP, name), &piece, is_ours);
                    if let Some(bytes) = whole {
                        let whole = (piece.serial, &*bytes);
                        let with = (envelope(), false);
                        assert!(self.hub.adopt_picture((APP, name), whole, with, log.now_ms));
                    }
                }
            }
        }
        let is_current = log.entries.last().is_none_or(|it| it.sequence <= self.position);
        if is_current {
            self.hub.reach(LogMark::new(log.generation, log.last));
        }
    }

    fn sweep(&mut self, leads: bool, now_ms: u64) {
        self.hub.sweep(now_ms);
        self.visit();
        self.hub.list_due_pictures(leads, now_ms);
        while let Some(StateProposal { name, state, .. }) = self.hub.next_picture() {
            let Statement::Picture(piece) = state else { panic!("{state:?}") };
            let name = NAMES.iter().find(|it| **it == &*name).expect("a channel");
            self.proposals.push(Proposed { author: self.id, proposed_ms: now_ms, name, piece });
        }
    }

    /// Ends the visit of all channels that has begun, if one has.
    fn visit(&mut self) {
        while self.hub.is_visiting() {
            self.hub.visit_slice(&mut self.mail);
        }
    }

    fn begin_log(&mut self, log: &Log) {
        self.hub.begin_log(log.start(), &mut self.mail);
        self.visit();
    }

    fn picture(&mut self, name: &str) -> Result<Option<Value>, ()> {
        let request = JoinRequest { picture: Some(Format::Bson), ..JoinRequest::default() };
        let slot = Slot { index: 9, generation: 1 };
        let join = Join {
            slot,
            app: APP,
            name,
            max: 9,
            is_public: false,
            request: Some(request),
            form: Form::PUBLISHED,
        };
        let Joined::Now(Some(reply)) = self.hub.join(join, 0, &mut self.mail) else {
            panic!("the home is here")
        };
        assert!(self.hub.leave(slot, APP, name, &mut self.mail));
        assert!(!reply.is_picture_unknown || reply.picture.is_none());
        match reply.is_picture_unknown {
            true => Err(()),
            false => Ok(reply.picture.map(|it| data(it.encoded(Format::Bson), Format::Bson))),
        }
    }

    /// Whether it has the pictures of the log.
    fn assert_level(&mut self, log: &Log) {
        for name in NAMES {
            let expected = log.truth.get(name).cloned().map(sorted);
            assert_eq!(self.picture(name), Ok(expected), "node {} {name}", self.id);
        }
    }
}

impl Log {
    /// The number of pieces of a channel's picture; `None` if they are not those of one picture.
    fn whole(&self, name: &str) -> Option<u32> {
        let pieces = self.entries.iter().filter(|entry| entry.name == name);
        let mut marks: Vec<_> = pieces
            .filter_map(|entry| match &entry.what {
                Stored::Piece(_, piece) if piece.index < piece.count => {
                    Some((piece.index, piece.serial, piece.count))
                }
                _ => None,
            })
            .collect();
        marks.sort_unstable();
        let (_, serial, count) = marks.first().copied().unwrap_or_default();
        let is_whole = marks.into_iter().eq((0..count).map(|index| (index, serial, count)));
        is_whole.then_some(count)
    }

    /// Asserts that the log has the pictures and nothing else.
    fn assert_whole(&self) {
        for name in NAMES {
            let has_picture = self.whole(name).map(|count| count > 0);
            assert_eq!(has_picture, Some(self.truth.contains_key(name)), "{name}");
        }
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Map(mut members) => {
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Map(members)
        }
        value => value,
    }
}

fn visit(node: &mut Node, visit: StateVisit) {
    node.hub.begin_visit(visit);
    node.visit();
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Publish(usize, PictureChange, Value),
    /// A node reads some entries.
    Read(usize, usize),
    /// What a node proposes is stored, or is not.
    Store(usize, bool),
    /// What a node proposes is stored later, also if the node has ended.
    Delay(usize),
    /// Some of what was delayed is stored.
    StoreDelayed(usize),
    Wait(u64),
    /// A node starts in place of another one.
    Start(usize),
    /// A node has missed entries, and reads the log again.
    Again(usize),
    /// The log is lost.
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        prop::collection::btree_map("[a-d]", 0..9i64, 0..4).prop_map(|map| {
            let members = map.into_iter().map(|(key, it)| (key.into(), Value::Int(it)));
            Value::Map(members.collect())
        }),
        prop::collection::vec((0..9i64).prop_map(Value::Int), 0..4).prop_map(Value::Array),
        Just(Value::text("a longer text, of several pieces")),
    ];
    prop_oneof![
        8 => (0..2usize, changes(), value).prop_map(|(at, it, value)| Step::Publish(at, it, value)),
        6 => (0..3usize, 1..9usize).prop_map(|(node, max)| Step::Read(node, max)),
        6 => (0..3usize, any::<bool>()).prop_map(|(node, is_stored)| Step::Store(node, is_stored)),
        1 => (0..3usize).prop_map(Step::Delay),
        2 => (1..4usize).prop_map(Step::StoreDelayed),
        3 => (1..4000u64).prop_map(Step::Wait),
        1 => (0..3usize).prop_map(Step::Start),
        1 => (0..3usize).prop_map(Step::Again),
        1 => Just(Step::Lose),
    ]
}

struct World {
    log: Log,
    nodes: Vec<Node>,
    started: u64,
    delayed: VecDeque<Proposed>,
}

impl World {
    fn new() -> World {
        let log = Log { generation: 1, ..Log::default() };
        let nodes = (0..3).map(|id| Node::new(id, &log)).collect();
        World { log, nodes, started: 3, delayed: VecDeque::new() }
    }

    fn store(&mut self, node: usize, is_stored: bool) {
        for proposed in std::mem::take(&mut self.nodes[node].proposals) {
            self.store_one(proposed, is_stored);
        }
    }

    /// Nothing is stored later than a node tries.
    fn store_one(&mut self, proposed: Proposed, is_stored: bool) {
        let Proposed { author, proposed_ms, name, piece } = proposed;
        if is_stored && proposed_ms + LATE_MS >= self.log.now_ms {
            return self.log.store(name, Stored::Piece(author, piece));
        }
        if let Some(node) = self.nodes.iter_mut().find(|node| node.id == author) {
            node.hub.picture_failed(APP, name, self.log.now_ms);
        }
    }

    fn delay(&mut self, node: usize) {
        self.delayed.extend(self.nodes[node].proposals.drain(..));
    }

    fn store_delayed(&mut self, max: usize) {
        for proposed in self.delayed.drain(..max.min(self.delayed.len())).collect::<Vec<_>>() {
            self.store_one(proposed, true);
        }
    }

    fn read_all(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.read(&self.log, usize::MAX));
    }

    /// The log has everything, and all nodes have read it.
    fn rest(&mut self) {
        self.rest_for(24);
    }

    fn rest_for(&mut self, rounds: u32) {
        for round in 0..rounds {
            self.read_all();
            if round == 3 {
                self.store_delayed(usize::MAX);
            }
            self.log.now_ms += EVERY_MS / 2;
            self.log.expire();
            for at in 0..3 {
                self.nodes[at].sweep(at == 0, self.log.now_ms);
                self.store(at, true);
            }
        }
        self.read_all();
    }

    /// Whether something has all pictures if a node forgets what it knows: another node, or the
    /// log, of which no piece is about to be replaced.
    fn may_forget(&mut self, at: usize) -> bool {
        let is_at_rest = self.delayed.is_empty() && self.nodes[at].proposals.is_empty();
        let is_whole = is_at_rest && NAMES.iter().all(|name| self.log.whole(name).is_some());
        let mut others = (0..3).filter(|other| *other != at);
        is_whole
            || others.any(|other| {
                let node = &mut self.nodes[other];
                let pictures = node.hub.pictures.as_ref().expect("a cluster");
                pictures.phase == ReadingPhase::Done
                    && NAMES.iter().all(|name| node.picture(name).is_ok())
            })
    }

    fn start(&mut self, at: usize) {
        self.delay(at);
        self.nodes[at] = Node::new(self.started, &self.log);
        self.started += 1;
    }

    fn read_again(&mut self, at: usize) {
        let (node, log) = (&mut self.nodes[at], &self.log);
        node.begin_log(log);
        visit(node, StateVisit::RefreshBegin);
        (node.refolds_to, node.position) = (node.position, 0);
        for name in NAMES {
            assert_eq!(node.picture(name), Err(()), "nothing is known");
        }
        node.read(log, usize::MAX);
        visit(node, StateVisit::RefreshEnd { is_ours: false });
    }

    fn lose(&mut self) {
        // The nodes have read all of the log, so that they agree.
        self.rest();
        self.lose_without_rest();
    }

    fn lose_without_rest(&mut self) {
        self.read_all();
        self.delayed.clear();
        let Log { generation, now_ms, truth, .. } = std::mem::take(&mut self.log);
        self.log = Log { generation: generation + 1, now_ms, truth, ..Log::default() };
        for node in &mut self.nodes {
            (node.position, node.refolds_to) = (0, 0);
            node.proposals.clear();
            node.begin_log(&self.log);
            visit(node, StateVisit::RefreshBegin);
            visit(node, StateVisit::Restate);
            node.hub.reach(LogMark::new(self.log.generation, 0));
            visit(node, StateVisit::RefreshEnd { is_ours: false });
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Publish(name, change, value) => {
                self.log.store(NAMES[name], Stored::Change(event(change, &value)));
            }
            Step::Read(node, max) => self.nodes[node].read(&self.log, max),
            Step::Store(node, is_stored) => self.store(node, is_stored),
            Step::Delay(node) => self.delay(node),
            Step::StoreDelayed(max) => self.store_delayed(max),
            Step::Wait(ms) => {
                self.log.now_ms += ms;
                for at in 0..3 {
                    self.nodes[at].read(&self.log, usize::MAX);
                    self.nodes[at].sweep(at == 0, self.log.now_ms);
                }
                // The leading node is not late for ever.
                if self.log.now_ms.is_multiple_of(3) {
                    self.store(0, true);
                }
            }
            Step::Start(node) | Step::Again(node) if !self.may_forget(node) => {}
            Step::Start(node) => self.start(node),
            Step::Again(node) => self.read_again(node),
            Step::Lose => {
                self.lose();
                self.rest();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn pictures_of_all_nodes_result_from_all_changes(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        world.rest();
        let World { log, nodes, .. } = &mut world;
        nodes.iter_mut().for_each(|node| node.assert_level(log));
        let held = nodes.iter().map(|node| node.hub.pictures.as_ref().expect("some").held_bytes);
        prop_assert_eq!(held.sum::<usize>(), 0);
        log.assert_whole();
        // Who comes when the changes have expired has them all the same.
        world.log.now_ms += KEPT_MS;
        world.log.expire();
        world.start(1);
        world.read_all();
        let World { log, nodes, .. } = &mut world;
        nodes.iter_mut().for_each(|node| node.assert_level(log));
        nodes[1].hub.sweep(log.now_ms);
        let all = log.truth.len();
        prop_assert_eq!(nodes[1].hub.picture_count(), all);
        prop_assert_eq!(nodes[1].hub.channel_count(), all, "nothing is left of others");
    }
}

fn number(key: &str, number: i64) -> Value {
    Value::map([(key, Value::Int(number))])
}

const MERGE: PictureChange = PictureChange::Update(Mode::Merge { null_deletes: false });
