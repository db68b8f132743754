//! Several nodes on one log without latency, in virtual time.

use super::*;
use crate::cluster::engine::LogInfo;
use crate::cluster::follower::Follower;
use std::collections::HashMap;

pub(super) const TIMING: NodeTiming =
    NodeTiming { renew_ms: 1000, dead_ms: 5000, rejoin_ms: 5000, linger_ms: 10_000, keep_s: 60 };
/// The time of a step.
const STEP_MS: u64 = 50;

pub(super) fn part(node: u64, state: NodePhase) -> NodePart<'static> {
    let (formats, apps) = ((1, 1), 0);
    NodePart { node, state, renewal: 0, formats, apps, connections: 0, release: "1.0.0" }
}

/// The subjects of a log, each with its last entry.
#[derive(Default)]
struct Log {
    epoch: u64,
    last: u64,
    subjects: HashMap<String, (u64, Append)>,
    /// Whatever was stored.
    entries: Vec<(u64, Vec<u8>)>,
    purged: Vec<String>,
    deaths: Vec<u64>,
}

impl Log {
    fn store(&mut self, append: Append) -> Result<u64, Refusal> {
        assert!(append.replaces);
        let last = self.subjects.get(&append.subject).map_or(0, |it| it.0);
        if append.expected.is_some_and(|expected| expected != last) {
            return Err(Refusal::Conflict);
        }
        self.last += 1;
        let entry = entry::read(&append.body).expect("an entry");
        let [part] = &entry.nodes[..] else { panic!("{entry:?}") };
        let is_dead = part.state == NodePhase::Dead;
        assert_eq!(append.ttl_s, is_dead.then_some(60));
        assert_eq!(append.subject, subject::of_node("test", part.node));
        self.deaths.extend(is_dead.then_some(part.node));
        self.entries.push((self.last, append.body.clone()));
        self.subjects.insert(append.subject.clone(), (self.last, append));
        Ok(self.last)
    }

    fn lose(&mut self) {
        *self = Log { epoch: self.epoch + 1, ..Log::default() };
    }
}

struct Peer {
    nodes: ClusterNodes,
    follower: Follower,
    counters: Arc<Counters>,
    is_up: bool,
    effects: Vec<NodeEffect>,
}

impl Peer {
    fn new(process: u64, formats: (u8, u8)) -> Peer {
        let setup = NodesSetup { process, name: "test".to_owned(), timing: TIMING, formats };
        let counters = Arc::new(Counters::default());
        Peer {
            nodes: ClusterNodes::new(setup, counters.clone()),
            follower: Follower::new(60_000),
            counters,
            is_up: false,
            effects: Vec::new(),
        }
    }

    fn died(&self) -> Vec<(u64, bool)> {
        let of = |effect: &NodeEffect| match effect {
            NodeEffect::Died { node, is_ours, .. } => Some((*node, *is_ours)),
            _ => None,
        };
        self.effects.iter().filter_map(of).collect()
    }

    fn living(&self) -> Vec<u64> {
        self.nodes.statuses().iter().map(|it| it.id).collect()
    }
}

/// Peers on one log.
struct World {
    log: Log,
    peers: Vec<Peer>,
    now_ms: u64,
    /// Whether a peer reads what it has appended before the answer comes.
    answers_late: bool,
}

impl World {
    fn new(processes: &[u64]) -> World {
        let peers = processes.iter().map(|id| Peer::new(*id, (1, 1))).collect();
        let mut world = World { log: Log::default(), peers, now_ms: 0, answers_late: false };
        (0..processes.len()).for_each(|at| world.attach(at));
        world.run(100);
        world
    }

    fn attach(&mut self, at: usize) {
        let log = LogInfo { epoch: self.log.epoch, last: self.log.last };
        let peer = &mut self.peers[at];
        let attached = peer.follower.attached(log, self.now_ms);
        peer.nodes.attached(&attached, self.now_ms);
        peer.is_up = true;
    }

    fn detach(&mut self, at: usize) {
        self.peers[at].is_up = false;
        self.peers[at].nodes.lost();
    }

    /// A turn of a peer: it reads everything, and what it appends is answered in this turn.
    fn turn(&mut self, at: usize) {
        let (log, peer, now_ms) = (&mut self.log, &mut self.peers[at], self.now_ms);
        let mut late = Vec::new();
        for _ in 0..3 {
            if peer.is_up {
                let from = peer.follower.attached_position();
                for (sequence, body) in log.entries.iter().filter(|it| it.0 > from) {
                    let is_last = *sequence == log.last;
                    peer.follower.takes(*sequence, is_last, now_ms);
                    let entry = entry::read(body).expect("an entry");
                    peer.nodes.on_part(entry.node, &entry.nodes[0], *sequence, now_ms);
                }
                peer.follower.current(now_ms);
                if peer.follower.has_reread() {
                    peer.nodes.reread(now_ms);
                }
            }
            late.drain(..).for_each(|(number, sequence)| {
                peer.nodes.stored(number, sequence);
            });
            peer.nodes.tick(peer.follower.has_joined(), now_ms);
            while let Some(effect) = peer.nodes.next_effect() {
                match &effect {
                    NodeEffect::Append(append) => {
                        assert!(peer.is_up, "an append to an engine that is away");
                        let number = append.number;
                        match log.store(append.clone()) {
                            Ok(sequence) if self.answers_late => late.push((number, sequence)),
                            Ok(sequence) => assert!(peer.nodes.stored(number, sequence)),
                            Err(refusal) => {
                                peer.nodes.refused(number, refusal, now_ms);
                            }
                        }
                    }
                    NodeEffect::Purge(tokens) => log.purged.push(tokens.clone()),
                    _ => {}
                }
                peer.effects.push(effect);
            }
        }
    }

    /// Lets these peers run for so long; the others stand still.
    fn run_only(&mut self, running: &[usize], ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms = (self.now_ms + STEP_MS).min(end_ms);
            running.iter().for_each(|at| self.turn(*at));
        }
    }

    fn run(&mut self, ms: u64) {
        let all: Vec<usize> = (0..self.peers.len()).collect();
        self.run_only(&all, ms);
    }
}

#[test]
fn cluster_nodes_join_and_know_each_other() {
    let mut world = World::new(&[3, 1, 2]);
    for at in 0..3 {
        assert!(world.peers[at].nodes.has_joined() && world.peers[at].nodes.may_append(100));
        assert_eq!(world.peers[at].living(), [1, 2, 3]);
        assert_eq!(world.peers[at].nodes.is_leader(100), at == 1);
        assert_eq!(world.peers[at].nodes.format(), 1);
    }
    let stored = world.log.last;
    world.run(60_000);
    assert_eq!(world.log.last, stored + 3 * 60, "each renews once a second");
    assert!(world.log.deaths.is_empty());
    let status = &world.peers[0].nodes.statuses()[0];
    assert_eq!((status.id, status.state, &*status.release), (1, "up", RELEASE));
    assert!(world.now_ms - status.read_ms <= 1000 && !status.is_own && status.has_same_settings);
    assert_eq!(world.peers[0].counters.cluster_node_renewals.get(), 62);
}

#[test]
fn cluster_nodes_serve_when_the_log_was_read() {
    let mut peer = Peer::new(1, (1, 1));
    let log = LogInfo { epoch: 0, last: 9 };
    let attached = peer.follower.attached(log, 0);
    peer.nodes.attached(&attached, 0);
    peer.nodes.tick(false, 0);
    assert_eq!((peer.nodes.next_effect(), peer.nodes.deadline_ms()), (None, u64::MAX));
    peer.nodes.tick(true, 1);
    let Some(NodeEffect::Append(append)) = peer.nodes.next_effect() else { panic!("none") };
    let entry = entry::read(&append.body).expect("an entry");
    assert_eq!((entry.nodes[0].state, append.expected), (NodePhase::Joining, Some(0)));
    assert!(peer.nodes.stored(append.number, 10) && !peer.nodes.stored(5, 11));
    assert!(!peer.nodes.has_joined(), "others may not know it");
    assert!(peer.nodes.on_part(1, &entry.nodes[0], 10, 2) && !peer.nodes.has_joined());
    peer.nodes.tick(true, 2);
    let Some(NodeEffect::Append(append)) = peer.nodes.next_effect() else { panic!("none") };
    let entry = entry::read(&append.body).expect("an entry");
    assert_eq!((entry.nodes[0].state, append.expected), (NodePhase::Up, Some(10)));
    assert!(peer.nodes.on_part(1, &entry.nodes[0], 11, 3) && peer.nodes.has_joined());
}

#[test]
fn cluster_nodes_declare_a_silent_one_dead_once() {
    let mut world = World::new(&[1, 2, 3]);
    world.run(10_000);
    let renewed_ms = world.peers[1].nodes.statuses()[0].read_ms;
    world.run_only(&[1, 2], renewed_ms + 4999 - world.now_ms);
    assert!(world.log.deaths.is_empty(), "not before dead_ms");
    world.run_only(&[1, 2], 351);
    assert_eq!(world.log.deaths, [1], "one death, of two that saw the silence");
    world.run_only(&[1, 2], 1000);
    for at in [1, 2] {
        assert_eq!(world.peers[at].living(), [2, 3]);
        assert_eq!(world.peers[at].counters.cluster_removed_nodes.get(), 1);
        assert_eq!(world.peers[at].nodes.is_leader(world.now_ms), at == 1);
    }
    let ours: Vec<_> = [1, 2].map(|at| world.peers[at].died()).concat();
    assert!(ours == [(1, true), (1, false)] || ours == [(1, false), (1, true)], "{ours:?}");
    // The author removes its state at once, and the leader once more.
    let state = subject::of_state("test", 1);
    assert_eq!(world.log.purged, std::slice::from_ref(&state));
    world.run_only(&[1, 2], 11_000);
    assert_eq!(world.log.purged, [state.clone(), state]);
}

#[test]
fn cluster_nodes_that_renew_in_time_are_not_declared_dead() {
    let mut world = World::new(&[1, 2]);
    world.run(10_000);
    // It stands still for almost as long as is allowed, again and again.
    for _ in 0..10 {
        world.run_only(&[1], 3900);
        world.run(100);
    }
    assert!(world.log.deaths.is_empty());
    // It is fenced as soon as it goes on, before it sends anything.
    world.run_only(&[1], 3900);
    assert!(!world.peers[0].nodes.may_append(world.now_ms));
    let fenced = world.peers[0].counters.cluster_fenced.get();
    world.run(100);
    assert!(world.peers[0].nodes.may_append(world.now_ms));
    assert_eq!(world.peers[0].counters.cluster_fenced.get(), fenced + 1);
}

/// Nobody is dead for a node that was itself away: it may not have read the renewals.
#[test]
fn cluster_nodes_that_stood_still_do_not_judge() {
    let mut world = World::new(&[1, 2]);
    world.run(10_000);
    // Both stand still, as in a virtual machine that is suspended, and one goes on first.
    world.run_only(&[], 20_000);
    world.run_only(&[0], 4900);
    assert!(world.log.deaths.is_empty());
    world.run(20_000);
    assert!(world.log.deaths.is_empty());
    world.run_only(&[], 20_000);
    world.run_only(&[0], 5350);
    assert_eq!(world.log.deaths, [2], "it judges after 5 s of renewals");
}

#[test]
fn cluster_nodes_read_their_own_death_and_go_on_under_another_id() {
    let mut world = World::new(&[1, 2]);
    world.run(10_000);
    world.run_only(&[1], 10_000);
    assert_eq!(world.log.deaths, [1]);
    world.run(100);
    let id = world.peers[0].nodes.id();
    assert!(id > 2, "{id}");
    assert!(world.peers[0].nodes.has_joined() && world.peers[0].nodes.may_append(world.now_ms));
    let ends = [NodeEffect::Died { node: 1, is_ours: false, has_left: false }, NodeEffect::Restate];
    let effects = &world.peers[0].effects;
    assert!(effects.windows(2).any(|it| it == ends), "{effects:?}");
    assert_eq!(world.peers[0].counters.cluster_new_ids.get(), 1);
    for peer in &world.peers {
        assert_eq!(peer.living(), [2, id]);
    }
    // And once more, under yet another one.
    world.run(10_000);
    world.run_only(&[1], 10_000);
    world.run(100);
    assert_eq!(world.log.deaths, [1, id]);
    assert!(![1, 2, id].contains(&world.peers[0].nodes.id()));
}

#[test]
fn cluster_nodes_are_not_declared_dead_while_the_engine_is_away() {
    let mut world = World::new(&[1, 2, 3]);
    world.run(10_000);
    (0..3).for_each(|at| world.detach(at));
    world.run(60_000);
    assert!(world.log.deaths.is_empty());
    assert!(!world.peers[1].nodes.may_append(world.now_ms));
    // One of them does not come back. The others wait for rejoin_ms, and for its silence.
    world.attach(1);
    world.attach(2);
    world.run_only(&[1, 2], 4950);
    assert!(world.log.deaths.is_empty());
    world.run_only(&[1, 2], 400);
    assert_eq!(world.log.deaths, [1]);
}

#[test]
fn cluster_nodes_that_were_drained_stay_for_a_while() {
    // An answer and what is read of the log come over different connections.
    for answers_late in [false, true] {
        drained_node_stays(World { answers_late, ..World::new(&[1, 2]) });
    }
}

fn drained_node_stays(mut world: World) {
    world.run(10_000);
    let renewals = |world: &World| world.peers[0].counters.cluster_node_renewals.get();
    assert_eq!(renewals(&world), 12);
    assert!(world.peers[0].nodes.may_end(), "nothing is under way");
    world.peers[0].nodes.leave();
    assert!(!world.peers[0].nodes.may_end());
    world.run(STEP_MS);
    assert!(world.peers[0].nodes.may_end(), "the other one knows");
    assert_eq!(renewals(&world), 13);
    let left_ms = world.now_ms;
    assert_eq!(world.peers[1].nodes.statuses()[0].state, "leaving");
    assert!(world.peers[1].nodes.is_leader(left_ms) && !world.peers[0].nodes.is_leader(left_ms));
    world.run_only(&[1], 9950);
    assert!(world.log.deaths.is_empty());
    world.run_only(&[1], 350);
    assert_eq!(world.log.deaths, [1]);
    // Without an engine the end cannot be stated, so the node does not wait for that.
    world.peers[1].nodes.leave();
    assert!(!world.peers[1].nodes.may_end());
    world.detach(1);
    assert!(world.peers[1].nodes.may_end());
}

#[test]
fn cluster_nodes_of_which_only_state_is_left_are_removed() {
    let mut world = World::new(&[1]);
    assert!(world.peers[0].nodes.note_state(77, world.now_ms));
    assert!(world.peers[0].nodes.note_state(78, world.now_ms));
    assert_eq!(world.peers[0].living(), [1], "they are not of the cluster");
    world.run(3000);
    // Of this one an entry comes after all.
    let name = subject::of_node("test", 78);
    let body = entry::write_node((78, 1), &part(78, NodePhase::Up));
    let (number, id, ttl_s) = (1, "78".to_owned(), None);
    let (replaces, expected) = (true, Some(0));
    let append = Append { number, subject: name, id, ttl_s, replaces, expected, body };
    world.log.store(append).expect("it is the first");
    world.run(2300);
    assert_eq!(world.log.deaths, [77]);
    assert_eq!(world.peers[0].died(), [(77, true)]);
    assert!(!world.peers[0].nodes.note_state(77, world.now_ms), "it does not count any more");
    world.run(3000);
    assert_eq!(world.log.deaths, [77, 78]);
}

/// Of nodes that were all killed somebody has to write the death later.
#[test]
fn cluster_nodes_that_begin_declare_those_dead_that_the_log_has() {
    let mut world = World::new(&[1, 2]);
    world.run(3000);
    world.peers = vec![Peer::new(3, (1, 1))];
    world.attach(0);
    world.run(5000);
    assert_eq!(world.peers[0].living(), [1, 2, 3]);
    assert!(world.log.deaths.is_empty());
    world.run(400);
    assert_eq!(world.log.deaths, [1, 2]);
    assert_eq!(world.peers[0].living(), [3]);
    // A death that is old when it is read is applied, too, and is not this node's.
    world.peers.push(Peer::new(4, (1, 1)));
    world.attach(1);
    world.run(100);
    assert_eq!(world.peers[1].died(), [(1, false), (2, false)]);
}

#[test]
fn cluster_nodes_write_the_highest_format_that_all_speak() {
    let mut world = World::new(&[1]);
    let format = |world: &World, at: usize| world.peers[at].nodes.format();
    world.peers.push(Peer::new(2, (1, 2)));
    world.attach(1);
    world.run(3000);
    assert_eq!((format(&world, 0), format(&world, 1)), (1, 1));
    assert!(world.peers[1].nodes.has_joined());
    // A release that speaks only the next format has to wait.
    world.peers.push(Peer::new(3, (2, 3)));
    world.attach(2);
    world.run(3000);
    assert!(!world.peers[2].nodes.has_joined());
    assert_eq!(world.peers[0].living(), [1, 2], "it has written nothing");
    // The old release is gone.
    world.run_only(&[1, 2], 8000);
    assert_eq!(world.log.deaths, [1]);
    assert!(world.peers[2].nodes.has_joined());
    assert_eq!((format(&world, 1), format(&world, 2)), (2, 2));
    // Now the old one is refused.
    world.peers[0] = Peer::new(4, (1, 1));
    world.attach(0);
    world.run(20_000);
    assert!(!world.peers[0].nodes.has_joined());
    assert_eq!(world.peers[1].living(), [2, 3]);
}

/// Of two that begin at once and do not understand each other, one serves.
#[test]
fn cluster_nodes_with_other_formats_that_begin_at_once() {
    let mut world =
        World { log: Log::default(), peers: Vec::new(), now_ms: 0, answers_late: false };
    for (id, formats) in [(1, (1, 1)), (2, (2, 2))] {
        world.peers.push(Peer::new(id, formats));
        let at = world.peers.len() - 1;
        world.attach(at);
    }
    // Both have read an empty log, and write.
    for at in 0..2 {
        let peer = &mut world.peers[at];
        peer.nodes.tick(true, 0);
        let Some(NodeEffect::Append(append)) = peer.nodes.next_effect() else { panic!("none") };
        let number = append.number;
        let sequence = world.log.store(append).expect("there is none");
        peer.nodes.stored(number, sequence);
    }
    world.run(20_000);
    let joined = world.peers.iter().map(|peer| peer.nodes.has_joined()).collect::<Vec<_>>();
    assert_eq!(joined, [true, false]);
    assert_eq!(world.peers[0].living(), [1]);
    assert_eq!(world.peers[0].nodes.format(), 1);
}

#[test]
fn cluster_nodes_state_everything_again_in_another_log() {
    let mut world = World::new(&[1, 2, 3]);
    world.run(10_000);
    (0..3).for_each(|at| world.detach(at));
    world.log.lose();
    world.peers.iter_mut().for_each(|peer| peer.effects.clear());
    // The third one does not come back.
    world.attach(0);
    world.attach(1);
    world.run_only(&[0, 1], 4900);
    let without_appends = |peer: &Peer| {
        let is_other = |it: &&NodeEffect| !matches!(it, NodeEffect::Append(_));
        peer.effects.iter().filter(is_other).cloned().collect::<Vec<_>>()
    };
    for at in 0..2 {
        let effects = without_appends(&world.peers[at]);
        assert_eq!(effects, [NodeEffect::RefreshBegin, NodeEffect::Restate], "{at}");
    }
    world.run_only(&[0, 1], 400);
    let leader = (0..2).find(|at| world.peers[*at].nodes.is_leader(world.now_ms));
    for at in 0..2 {
        let end = NodeEffect::RefreshEnd { is_ours: Some(at) == leader };
        assert_eq!(without_appends(&world.peers[at]).last(), Some(&end));
        assert_eq!(world.peers[at].living().len(), 2);
    }
    assert!(leader.is_some() && world.log.deaths.is_empty());
    world.run_only(&[0, 1], 20_000);
    assert!(world.log.deaths.is_empty(), "the log has nothing of the third one");
}

#[test]
fn cluster_nodes_read_the_log_again_after_a_gap() {
    for is_dead in [false, true] {
        let mut world = World::new(&[1, 2, 3]);
        world.run(10_000);
        world.detach(0);
        world.peers[0].effects.clear();
        let running: &[usize] = if is_dead { &[1] } else { &[] };
        world.run_only(running, 70_000);
        if is_dead {
            // What was true of them has expired meanwhile.
            assert_eq!(world.log.deaths, [1, 3]);
            for node in [1, 3] {
                world.log.subjects.remove(&subject::of_node("test", node));
            }
            let is_of_2 = |(_, body): &(u64, Vec<u8>)| {
                entry::read(body).is_ok_and(|entry| entry.nodes[0].node == 2)
            };
            world.log.entries.retain(is_of_2);
        } else {
            world.turn(1);
        }
        world.attach(0);
        world.run_only(&[0], 100);
        let peer = &world.peers[0];
        let effects: Vec<_> =
            peer.effects.iter().filter(|it| !matches!(it, NodeEffect::Append(_))).collect();
        let end = &NodeEffect::RefreshEnd { is_ours: false };
        if is_dead {
            assert_eq!(effects, [&NodeEffect::RefreshBegin, &NodeEffect::Restate, end]);
            assert_ne!(peer.nodes.id(), 1);
            assert_eq!(peer.living(), [2, peer.nodes.id()]);
        } else {
            assert_eq!(effects, [&NodeEffect::RefreshBegin, end]);
            assert_eq!((peer.nodes.id(), peer.living().len()), (1, 3));
        }
        assert!(peer.nodes.may_append(world.now_ms));
    }
}
