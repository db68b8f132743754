//! Idempotency keys over nodes: whatever is sent again to whichever node, an event takes effect
//! once on all of them, and every answer is true.

use super::*;
use crate::cluster::keys::{KEPT_LONGER_S, KEY_S};
use crate::hub::EventKey;
use std::collections::HashMap;

type Log = Rc<RefCell<SimLog>>;

impl World {
    /// Publishes event `index` of a request with a key, in a channel of that number.
    fn publish_keyed(&mut self, ticket: u32, key: u128, request: u128, index: u16) {
        let text = format!("{key}/{request}/{index}");
        let key = Some(Box::new(EventKey { key, request, index }));
        let event = Event { key, ..Frozen::new(text.as_bytes()).into() };
        self.propose(["a", "b", "c"][usize::from(index) % 3], ticket, event);
    }
}

fn pair(log: &Log) -> (World, World) {
    (World::joined(1, log), World::joined(2, log))
}

fn repeats(world: &World) -> (u64, u64) {
    let counters = &world.counters;
    (counters.cluster_key_repeats.get(), counters.cluster_key_conflicts.get())
}

#[test]
fn cluster_node_key_that_the_log_has_publishes_nothing_on_any_node() {
    let log = Log::default();
    let (mut first, mut second) = pair(&log);
    first.publish_keyed(1, 5, 7, 0);
    first.rest();
    second.rest();
    let entries = log.borrow().entries.len();
    for (ticket, world) in [(2, &mut first), (3, &mut second)] {
        world.publish_keyed(ticket, 5, 7, 0);
        world.publish_keyed(ticket + 10, 5, 8, 0);
        world.turn();
        // No entry is needed for these answers.
        assert_eq!(world.outcomes[&ticket], None);
        assert_eq!(world.outcomes[&(ticket + 10)], Some(Unpublished::KeyUsed));
        assert_eq!(world.applied, ["a 5/7/0"]);
        assert_eq!(repeats(world), (1, 1));
    }
    assert_eq!(log.borrow().entries.len(), entries);
    // A node that comes later knows it from the log.
    let mut third = World::joined(3, &log);
    third.publish_keyed(4, 5, 7, 0);
    third.wait(100);
    assert_eq!((third.outcomes[&4], third.applied.len()), (None, 1));
    assert_eq!(third.counters.cluster_keys.get(), 1);
    assert!(third.env.runtime.cluster.key_bytes() > 0);
}

/// What was read may be on no replica yet, so a repetition is answered when a replica has it.
#[test]
fn cluster_node_key_is_answered_when_a_replica_has_its_event() {
    for (acks, is_sent) in [(ClusterAcks::Replica, true), (ClusterAcks::Engine, false)] {
        let mut world = World::of(1, &Log::default(), env_with(acks));
        world.engine.attach();
        world.rest();
        world.publish_keyed(1, 5, 7, 0);
        world.turn();
        world.engine.store(false, 0);
        (0..3).for_each(|_| world.engine.deliver(1));
        world.turn();
        assert_eq!((world.applied.len(), world.outcomes.len()), (1, 0), "no answer has come");
        world.engine.detach(false, 0);
        world.wait(8000);
        assert_eq!(world.outcomes[&1], Some(Unpublished::Unknown));
        world.engine.attach();
        world.rest();
        let before = world.counters.cluster_appends.get();
        world.publish_keyed(2, 5, 7, 0);
        world.turn();
        assert_eq!(world.counters.cluster_appends.get() - before, u64::from(is_sent));
        assert_eq!(world.outcomes.contains_key(&2), !is_sent);
        world.rest();
        assert_eq!((world.outcomes[&2], world.applied.len()), (None, 1));
        assert_eq!(repeats(&world), (1, 0));
        // Another event with the key is refused without an entry.
        let before = world.counters.cluster_appends.get();
        world.publish_keyed(3, 5, 8, 0);
        world.turn();
        assert_eq!(world.outcomes[&3], Some(Unpublished::KeyUsed));
        assert_eq!(world.counters.cluster_appends.get(), before);
    }
}

/// Both nodes have sent their entries before either has read the other's.
#[test]
fn cluster_node_key_that_two_nodes_send_at_once_counts_for_the_first_in_the_log() {
    for (request, outcome) in [(7, None), (8, Some(Unpublished::KeyUsed))] {
        let log = Log::default();
        let (mut first, mut second) = pair(&log);
        first.publish_keyed(1, 5, 7, 0);
        second.publish_keyed(2, 5, request, 0);
        first.turn();
        second.turn();
        for world in [&mut first, &mut second] {
            world.engine.store(true, 0);
            world.turn();
            assert_eq!(world.outcomes.len(), 0, "the log has not decided");
        }
        for world in [&mut first, &mut second] {
            world.rest();
            assert_eq!(world.applied, ["a 5/7/0"]);
            let is_other = outcome.is_some();
            assert_eq!(repeats(world), (u64::from(!is_other), u64::from(is_other)));
        }
        assert_eq!((first.outcomes[&1], second.outcomes[&2]), (None, outcome));
    }
}

/// The engine refuses one of two events of a request; its repetition publishes that one only.
#[test]
fn cluster_node_key_repetition_publishes_what_was_refused() {
    let log = Log::default();
    let (mut first, mut second) = pair(&log);
    first.publish_keyed(1, 5, 7, 0);
    first.publish_keyed(2, 5, 7, 1);
    first.turn();
    first.engine.store(true, 0);
    first.engine.refuse(false, 0);
    first.rest();
    assert_eq!((first.outcomes[&1], first.outcomes[&2]), (None, Some(Unpublished::Refused)));
    second.rest();
    second.publish_keyed(1, 5, 7, 0);
    second.publish_keyed(2, 5, 7, 1);
    second.rest();
    first.rest();
    assert_eq!(second.outcomes, BTreeMap::from([(1, None), (2, None)]));
    for world in [&first, &second] {
        assert_eq!(world.applied, ["a 5/7/0", "b 5/7/1"]);
    }
    // One that was refused altogether leaves the key to another request.
    second.engine.size(u64::MAX);
    second.turn();
    second.publish_keyed(3, 6, 7, 0);
    second.turn();
    assert_eq!(second.outcomes[&3], Some(Unpublished::Refused));
    second.engine.size(0);
    second.turn();
    second.publish_keyed(4, 6, 8, 0);
    second.rest();
    assert_eq!(second.outcomes[&4], None);
}

/// The outcome of the first request is not known; its node has lost the engine or has ended.
#[test]
fn cluster_node_key_of_a_request_without_outcome_is_settled_by_its_repetition() {
    for arrives in [true, false] {
        let log = Log::default();
        let (mut first, mut second) = pair(&log);
        first.publish_keyed(1, 5, 7, 0);
        first.turn();
        first.engine.detach(arrives, 0);
        first.wait(8000);
        assert_eq!(first.outcomes[&1], Some(Unpublished::Unknown));
        second.publish_keyed(2, 5, 7, 0);
        second.rest();
        assert_eq!((second.outcomes[&2], &*second.applied), (None, &["a 5/7/0".to_owned()][..]));
        assert_eq!(repeats(&second).0, u64::from(arrives));
        first.engine.attach();
        first.rest();
        assert_eq!(first.applied, ["a 5/7/0"]);
    }
}

/// A request waits for its answer as long as one without a key, also if its entry is stored.
#[test]
fn cluster_node_key_is_decided_within_hold_ms_or_not_known() {
    let mut world = World::joined(1, &Log::default());
    world.publish_keyed(1, 5, 7, 0);
    world.wait(1000);
    world.engine.store(true, world.now.ms);
    world.wait(6999);
    assert!(world.outcomes.is_empty() && !world.node.is_idle(), "stored, and not read");
    assert!(world.node.deadline_ms() < u64::MAX);
    world.wait(101);
    assert_eq!(world.outcomes[&1], Some(Unpublished::Unknown));
    assert_eq!(world.counters.cluster_unknown.get(), 1);
    // What comes later has no effect on the answer, and a repetition is answered at once.
    world.rest();
    world.publish_keyed(2, 5, 7, 0);
    world.turn();
    assert_eq!((world.outcomes[&2], world.applied.len()), (None, 1));
}

/// The entry is read before the engine has answered, as with `acks = "replica"`.
#[test]
fn cluster_node_key_is_answered_when_the_engine_has_answered() {
    let log = Log::default();
    let mut world = World::joined(1, &log);
    world.publish_keyed(1, 5, 7, 0);
    world.turn();
    world.engine.store(false, world.now.ms);
    while world.applied.is_empty() {
        world.engine.deliver(1);
        world.turn();
    }
    assert!(world.outcomes.is_empty());
    // It is sent again, and answered.
    world.wait(2000);
    world.rest();
    assert_eq!((world.outcomes[&1], world.applied.len()), (None, 1));
}

#[test]
fn cluster_node_key_is_kept_by_the_log_longer_than_by_nodes() {
    let log = Log::default();
    let mut world = World::joined(1, &log);
    let cached = || {
        let entry = CacheEntry { ttl_ms: 1500, event: "e".into(), data: "d".into() };
        Retention::Cache(Arc::new(entry))
    };
    let key = || Some(Box::new(EventKey { key: 1, request: 2, index: 0 }));
    let kept = KEPT_LONGER_S;
    for (ticket, key, retain, ttl_s) in [
        (1, None, Retention::Nothing, 60),
        (2, key(), Retention::Nothing, kept),
        (3, None, cached(), 60),
        (4, key(), cached(), 2 + kept),
    ] {
        // Each with another key, because the log would not be asked otherwise.
        let key = key.map(|it| Box::new(EventKey { key: ticket.into(), ..*it }));
        world.propose("a", ticket, Event { key, retain, ..Frozen::new(b"f").into() });
        world.turn();
        world.engine.store(true, 0);
        assert_eq!(log.borrow().last_subject(), Some(&("polycast.i.1.a".into(), Some(ttl_s))));
        world.rest();
    }
    const { assert!(KEPT_LONGER_S > 2 * KEY_S) };
}

#[test]
fn cluster_node_keys_are_bounded_and_counted() {
    let log = Log::default();
    let mut world = World::joined(1, &log);
    let mut config = world.env.config.clone();
    config.apps[0].limits.idempotency_keys = 2;
    world.env = Arc::new(Env::new(config, 0).expect("an environment"));
    for key in 1..=3 {
        world.publish_keyed(key, key.into(), 7, 0);
        world.rest();
        world.wait(100);
    }
    let counters = &world.counters;
    assert_eq!((counters.cluster_keys.get(), counters.cluster_keys_dropped.get()), (2, 1));
    world.publish_keyed(4, 2, 7, 0);
    world.publish_keyed(5, 1, 7, 0);
    world.rest();
    assert_eq!(world.applied, ["a 1/7/0", "a 2/7/0", "a 3/7/0", "a 1/7/0"], "1 was forgotten");
    // After their time nothing is left.
    for _ in 0..KEY_S + 10 {
        world.wait(1000);
        world.rest();
    }
    assert_eq!(world.counters.cluster_keys.get(), 0);
    assert_eq!(world.env.runtime.cluster.key_bytes(), 0);
}

/// Any faults between three nodes and the engine, nodes that end and start, and requests that are
/// sent again to any of them: the nodes agree, no event takes effect twice, and answers are true.
#[test]
fn cluster_sim_keys_let_each_event_take_effect_once() {
    let mut counts = [0; 5];
    for seed in 0..100 {
        let run = KeyRun::new(seed).run();
        counts.iter_mut().zip(run).for_each(|(all, one)| *all += one);
    }
    assert!(counts.iter().all(|it| *it > 100), "{counts:?}");
}

struct KeyRun {
    seed: u64,
    rng: fastrand::Rng,
    log: Log,
    worlds: Vec<World>,
    started: u64,
    /// What each ticket has published: its key, request and number.
    asked: HashMap<u32, (u128, u128, u16)>,
    outcomes: BTreeMap<u32, Option<Unpublished>>,
}

impl KeyRun {
    fn new(seed: u64) -> KeyRun {
        let log = Log::default();
        KeyRun {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            worlds: (1..=3).map(|id| World::joined(id, &log)).collect(),
            log,
            started: 3,
            asked: HashMap::new(),
            outcomes: BTreeMap::new(),
        }
    }

    fn run(mut self) -> [usize; 5] {
        for _ in 0..self.rng.usize(100..400) {
            self.step();
        }
        for world in &mut self.worlds {
            if !world.engine.is_up {
                world.engine.attach();
            }
            world.rest();
            world.wait(8100);
            world.rest();
        }
        self.worlds.iter_mut().for_each(World::rest);
        self.judge()
    }

    fn step(&mut self) {
        let at = self.rng.usize(..self.worlds.len());
        let KeyRun { rng, worlds, log, .. } = self;
        let world = &mut worlds[at];
        let now_ms = world.now.ms;
        match rng.u8(..20) {
            0..7 => {
                // Few keys and requests, so that most are sent again.
                let asked = (rng.u128(..6), rng.u128(..2).max(rng.u128(..2)), rng.u16(..3));
                let ticket = self.asked.len() as u32;
                self.asked.insert(ticket, asked);
                world.publish_keyed(ticket, asked.0, asked.1, asked.2);
            }
            7..10 => world.engine.store(rng.u8(..10) > 0, now_ms),
            10 => world.engine.refuse(rng.bool(), now_ms),
            11..15 => world.engine.deliver(rng.usize(1..3)),
            15 if world.engine.is_up => world.engine.detach(rng.bool(), now_ms),
            15 | 16 => world.engine.attach(),
            17 if rng.u8(..4) == 0 => {
                // The node ends at once, and what it has sent arrives or does not.
                world.engine.detach(rng.bool(), now_ms);
                self.started += 1;
                let other = World::joined(self.started, log);
                let ended = std::mem::replace(world, other);
                self.outcomes.extend(ended.outcomes);
                return;
            }
            _ => world.wait(rng.u64(1..1000)),
        }
        world.turn();
    }

    fn judge(mut self) -> [usize; 5] {
        // What the log says, by a fold of its own.
        let (mut owners, mut published) = (HashMap::new(), HashMap::new());
        let mut entries = std::collections::HashSet::new();
        let mut expected = Vec::new();
        let mut skipped = 0;
        for (.., body) in &self.log.borrow().history {
            let entry = entry::read(body).expect("an entry");
            if !entries.insert((entry.node, entry.number)) || !entry.nodes.is_empty() {
                continue;
            }
            assert_eq!(entry.keys.len(), entry.events.len());
            for part in &entry.keys {
                let EventKey { key, request, index } = part.key;
                let is_owner = *owners.entry(key).or_insert(request) == request;
                if is_owner && published.insert((key, index), request).is_none() {
                    let channel = ["a", "b", "c"][usize::from(index) % 3];
                    expected.push(format!("{channel} {key}/{request}/{index}"));
                } else {
                    skipped += 1;
                }
            }
        }
        let seed = self.seed;
        for world in &self.worlds {
            assert_eq!(world.applied, expected, "seed {seed}");
            assert_eq!(world.gaps, 0);
        }
        let worlds = std::mem::take(&mut self.worlds);
        self.outcomes.extend(worlds.into_iter().flat_map(|world| world.outcomes));
        let mut counts = [0, 0, 0, 0, skipped];
        for (ticket, outcome) in &self.outcomes {
            let (key, request, index) = self.asked[ticket];
            let of_log = published.get(&(key, index));
            match outcome {
                None => {
                    counts[0] += 1;
                    assert_eq!(of_log, Some(&request), "seed {seed}: {ticket} was acknowledged");
                }
                Some(Unpublished::KeyUsed) => {
                    counts[1] += 1;
                    let owner = owners.get(&key);
                    assert!(owner.is_some_and(|it| *it != request), "seed {seed}: {ticket}");
                }
                // It may have been published by another request with its key.
                Some(Unpublished::Refused) => counts[2] += 1,
                Some(Unpublished::Unknown) => counts[3] += 1,
            }
        }
        // What every request was refused for is not in the log.
        for ((key, index), request) in &published {
            let is_it = |ticket: &&u32| self.asked[*ticket] == (*key, *request, *index);
            let tickets: Vec<&u32> = self.asked.keys().filter(is_it).collect();
            let is_refused =
                |it: &&u32| self.outcomes.get(*it) == Some(&Some(Unpublished::Refused));
            assert!(!tickets.iter().all(is_refused), "seed {seed}: {key} {index}");
        }
        counts
    }
}
