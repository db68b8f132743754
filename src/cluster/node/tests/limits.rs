//! The connections of an application on all nodes together.

use super::*;
use crate::cluster::entry::NodePhase;
use crate::dialect::Admission;
use std::collections::BTreeSet;

const STEP_MS: u64 = 20;
/// `rejoin_ms` by default.
const REJOIN_MS: u64 = 5000;

fn limited(limit: usize) -> Arc<Env> {
    let cluster = Cluster { engine: vec!["nats://a:1".to_owned()], ..Cluster::default() };
    let mut config = Config { cluster: Some(Box::new(cluster)), ..Config::demo() };
    config.apps[0].limits.connections = limit;
    Arc::new(Env::new(config, 0).expect("an environment"))
}

impl World {
    fn app(&self) -> &crate::dialect::App {
        self.env.apps.get(0)
    }

    fn open(&self) -> usize {
        self.app().connections()
    }

    /// So many clients connect.
    fn connect(&mut self, count: usize) {
        for _ in 0..count {
            assert_ne!(self.app().admit(self.now.ms), Admission::Full);
        }
    }

    /// Those that wait are admitted, as far as there is room.
    fn admit(&mut self) {
        while self.app().waiting() > 0 && self.app().admit_waiting(self.now.ms) {}
    }

    fn disconnect(&mut self, count: usize) {
        (0..count).for_each(|_| self.app().release());
    }
}

/// Nodes with one limit.
struct Nodes {
    log: Rc<RefCell<SimLog>>,
    list: Vec<World>,
    now_ms: u64,
    limit: usize,
    started: u64,
}

impl Nodes {
    /// Nodes that have joined, when the log has come to be trusted.
    fn new(count: usize, limit: usize) -> Nodes {
        let log = Rc::default();
        let mut nodes = Nodes { log, list: Vec::new(), now_ms: 1000, limit, started: 0 };
        (0..count).for_each(|_| nodes.start());
        nodes.run(REJOIN_MS + 1000);
        nodes
    }

    fn start(&mut self) {
        self.started += 1;
        let mut world = World::of(self.started, &self.log, limited(self.limit));
        world.engine.attach();
        self.list.push(world);
    }

    fn step(&mut self) {
        self.now_ms += STEP_MS;
        for world in &mut self.list {
            world.now = NodeTime { ms: self.now_ms, unix_ms: self.now_ms };
            world.turn();
            for _ in 0..20 {
                world.engine.store(true, self.now_ms);
                world.engine.deliver(1);
            }
            world.turn();
            world.admit();
        }
        assert!(self.open().iter().sum::<usize>() <= self.limit, "{:?}", self.open());
    }

    fn run(&mut self, ms: u64) {
        (0..ms / STEP_MS).for_each(|_| self.step());
    }

    fn open(&self) -> Vec<usize> {
        self.list.iter().map(World::open).collect()
    }

    fn waiting(&self) -> Vec<u32> {
        self.list.iter().map(|it| it.app().waiting()).collect()
    }

    fn reserved(&self) -> Vec<u32> {
        self.list.iter().map(|it| it.app().reserved()).collect()
    }
}

#[test]
fn cluster_limit_is_that_of_all_nodes_together() {
    let mut nodes = Nodes::new(3, 100);
    assert_eq!(nodes.reserved(), [0; 3], "nothing is reserved before somebody connects");
    for world in &mut nodes.list {
        world.connect(60);
        assert_eq!(world.open(), 0, "each waits for the log");
    }
    nodes.run(2000);
    assert_eq!(nodes.open().iter().sum::<usize>(), 100, "{:?}", nodes.open());
    assert_eq!(nodes.waiting().iter().sum::<u32>(), 80);
    assert!(nodes.list.iter().all(|it| it.app().is_full()), "that is known");
    // Whoever has left makes room on any node.
    let before = nodes.open();
    nodes.list[0].disconnect(before[0]);
    nodes.run(5000);
    assert_eq!(nodes.open().iter().sum::<usize>(), 100, "{:?}", nodes.open());
    let count = |world: &World| world.counters.cluster_reservations.get();
    let counts: Vec<u64> = nodes.list.iter().map(count).collect();
    assert!(counts.iter().all(|it| *it < 30), "they reserve several at a time: {counts:?}");
}

#[test]
fn cluster_limit_that_others_need_is_given_back_after_a_second() {
    let mut nodes = Nodes::new(2, 100);
    nodes.list[0].connect(100);
    nodes.run(500);
    assert_eq!(nodes.open(), [100, 0]);
    nodes.list[0].disconnect(50);
    nodes.list[1].connect(50);
    nodes.run(900);
    assert_eq!(nodes.open(), [50, 0], "they may come back");
    nodes.run(400);
    assert!(nodes.open()[1] >= 40, "{:?}", nodes.open());
    nodes.run(3000);
    assert_eq!(nodes.open(), [50, 50], "nothing is kept that others need");
    assert_eq!(nodes.reserved(), [50, 50]);
}

#[test]
fn cluster_limit_of_a_dead_node_is_free_again() {
    let mut nodes = Nodes::new(2, 10);
    nodes.list[0].connect(10);
    nodes.run(500);
    assert_eq!(nodes.open(), [10, 0]);
    nodes.list[1].connect(3);
    // It ends without notice.
    nodes.list.remove(0);
    nodes.run(2500);
    assert!(nodes.list[0].app().is_full(), "no node knows it yet");
    nodes.run(2000);
    assert!(!nodes.list[0].app().is_full(), "the node that has it may be dead");
    assert_eq!(nodes.open(), [0]);
    nodes.run(1500);
    assert_eq!((nodes.open(), nodes.waiting()), (vec![3], vec![0]));
}

/// A node that starts later does not take a dead node for one that has connections.
#[test]
fn cluster_limit_of_a_dead_node_is_removed_from_the_log() {
    let mut nodes = Nodes::new(2, 10);
    nodes.list[0].connect(10);
    nodes.run(500);
    nodes.list.remove(0);
    let last = |nodes: &Nodes| {
        let log = nodes.log.borrow();
        let limits = log.entries.iter().map(|it| entry::read(&it.2).expect("an entry").limit);
        let limits: Vec<_> = limits.flatten().collect();
        assert_eq!(limits.len(), 1, "one entry for each application");
        limits[0].reserved.len()
    };
    assert_eq!(last(&nodes), 1);
    nodes.run(7000);
    assert_eq!(last(&nodes), 0);
    nodes.start();
    nodes.list[1].connect(2);
    nodes.run(500);
    assert_eq!(nodes.open(), [0, 2]);
}

/// A node that is drained gives back what its connections leave, and ends when others know that.
#[test]
fn cluster_limit_of_a_drained_node_is_free_at_once() {
    let mut nodes = Nodes::new(2, 10);
    nodes.list[0].connect(10);
    nodes.run(500);
    nodes.list[0].node.drain();
    nodes.list[1].connect(10);
    nodes.run(500);
    assert!(!nodes.list[0].node.is_idle(), "its connections are open");
    nodes.list[0].disconnect(4);
    nodes.run(500);
    assert_eq!(nodes.open(), [6, 4]);
    nodes.list[0].disconnect(6);
    assert!(!nodes.list[0].node.is_idle());
    nodes.run(500);
    assert!(nodes.list[0].node.is_idle());
    assert_eq!(nodes.open(), [0, 10]);
}

/// A node that is about to end accepts connections until it is drained, as many as before.
#[test]
fn cluster_limit_of_a_node_that_leaves_is_used_until_it_is_drained() {
    let mut nodes = Nodes::new(2, 100);
    nodes.list[0].connect(1);
    nodes.run(500);
    nodes.list[0].node.leave();
    nodes.run(5000);
    nodes.list[0].connect(60);
    nodes.run(1000);
    assert_eq!(nodes.open(), [61, 0]);
    nodes.list[0].disconnect(61);
    nodes.list[0].node.drain();
    nodes.list[1].connect(100);
    nodes.run(500);
    assert_eq!(nodes.open(), [0, 100]);
    assert!(nodes.list[0].node.is_idle());
}

#[test]
fn cluster_limit_without_the_engine_is_what_was_reserved() {
    let mut nodes = Nodes::new(2, 100);
    nodes.list[0].connect(1);
    nodes.run(500);
    let reserved = nodes.reserved()[0];
    assert!(reserved > 1, "{reserved}");
    for world in &mut nodes.list {
        world.engine.detach(false, nodes.now_ms);
    }
    nodes.step();
    nodes.list[0].connect(50);
    nodes.run(10_000);
    assert_eq!((nodes.open(), nodes.waiting()[0]), (vec![reserved as usize, 0], 51 - reserved));
    assert!(!nodes.list[0].app().is_full(), "it cannot know that");
    for world in &mut nodes.list {
        world.engine.attach();
    }
    nodes.run(2000);
    assert_eq!(nodes.open(), [51, 0]);
}

/// A node that alone is cut off admits no connection from when others may have declared it dead,
/// not even in place of one that ends.
#[test]
fn cluster_limit_of_a_node_that_is_cut_off_is_not_exceeded() {
    let mut nodes = Nodes::new(2, 100);
    nodes.list[0].connect(1);
    nodes.run(500);
    let reserved = nodes.reserved()[0] as usize;
    assert!(reserved > 4, "{reserved}");
    nodes.list[0].engine.detach(false, nodes.now_ms);
    nodes.run(1000);
    nodes.list[0].connect(2);
    assert_eq!(nodes.open(), [3, 0], "it is alive for the others");
    nodes.run(2500);
    nodes.list[0].disconnect(1);
    nodes.list[0].connect(2);
    nodes.run(500);
    assert_eq!((nodes.open()[0], nodes.waiting()[0]), (2, 2));
    nodes.list[1].connect(100);
    // It is dead: others may have all of the limit, besides what it has.
    nodes.limit = 102;
    nodes.run(5000);
    assert_eq!(nodes.open(), [2, 100]);
    nodes.list[0].connect(reserved);
    nodes.list[0].disconnect(2);
    nodes.run(5000);
    assert_eq!(nodes.open(), [0, 100]);
    nodes.list[0].engine.attach();
    nodes.list[1].disconnect(50);
    nodes.run(5000);
    assert!(nodes.open()[0] >= reserved, "{:?}", nodes.open());
}

/// The log has what a node has reserved of an application that a reload removes, and the node gives
/// it back.
#[test]
fn cluster_limit_of_a_removed_application_is_given_back() {
    let mut nodes = Nodes::new(1, 20);
    nodes.list[0].connect(5);
    nodes.run(500);
    assert_eq!(nodes.open(), [5]);
    let mut without = nodes.list[0].env.config.clone();
    without.apps[0].id = "other".into();
    without.apps[0].key = "other-key".into();
    let world = &mut nodes.list[0];
    world.env = Arc::new(world.env.reloaded(without).expect("it is valid"));
    world.disconnect(5);
    let before = world.counters.cluster_reservations.get();
    nodes.run(3000);
    let world = &mut nodes.list[0];
    let sent = world.counters.cluster_reservations.get() - before;
    assert!((1..4).contains(&sent), "{sent} entries");
    world.node.drain();
    nodes.run(500);
    assert!(nodes.list[0].node.is_idle(), "nothing has to be given back");
}

/// The log is empty, because it is new or because it was lost: a process that is new waits until
/// others would have reserved again what they had.
#[test]
fn cluster_limit_of_a_log_without_entries_is_not_used_at_once() {
    let log = Rc::default();
    let mut nodes = Nodes { log, list: Vec::new(), now_ms: 1000, limit: 10, started: 0 };
    nodes.start();
    nodes.list[0].connect(1);
    nodes.run(REJOIN_MS);
    assert_eq!(nodes.open(), [0]);
    nodes.run(500);
    assert_eq!(nodes.open(), [1]);
    // The log says that it can be trusted.
    nodes.start();
    nodes.list[1].connect(1);
    nodes.run(500);
    assert_eq!(nodes.open(), [1, 1]);
}

/// A node that comes back in time may use what it had reserved. One that others may have declared
/// dead in the lost log admits no client before all have reserved again what they had.
#[test]
fn cluster_limit_is_reserved_again_in_a_new_log() {
    for (away_ms, may_use) in [(1500, true), (3500, false)] {
        let mut nodes = Nodes::new(2, 200);
        nodes.list[0].connect(60);
        nodes.list[1].connect(25);
        nodes.run(3000);
        let before = nodes.reserved();
        assert!(before[1] > 25, "{before:?}");
        for world in &mut nodes.list {
            world.engine.detach(false, nodes.now_ms);
        }
        nodes.log.borrow_mut().lose();
        nodes.list[0].engine.attach();
        nodes.start();
        nodes.list[2].connect(20);
        nodes.run(away_ms);
        nodes.list[1].engine.attach();
        nodes.run(1000);
        nodes.list[1].connect(1);
        nodes.run(500);
        let second = if may_use { 26 } else { 25 };
        assert_eq!(nodes.open(), [60, second, 0], "{away_ms}");
        assert_eq!(nodes.reserved()[..2], [before[0], if may_use { before[1] } else { 0 }]);
        nodes.run(9000);
        assert_eq!(nodes.open(), [60, 26, 20], "{away_ms}");
    }
}

/// The applications of a node that is reloaded.
#[test]
fn cluster_limit_may_be_changed_by_a_reload() {
    let mut nodes = Nodes::new(1, 20);
    nodes.list[0].connect(15);
    nodes.run(500);
    let reload = |nodes: &mut Nodes, limit: usize| {
        let world = &mut nodes.list[0];
        let mut config = world.env.config.clone();
        config.apps[0].limits.connections = limit;
        world.env = Arc::new(world.env.reloaded(config).expect("it is valid"));
    };
    reload(&mut nodes, 10);
    nodes.limit = 15;
    nodes.step();
    nodes.list[0].connect(1);
    nodes.run(2000);
    assert_eq!((nodes.open(), nodes.waiting()), (vec![15], vec![1]), "who is there stays");
    nodes.list[0].disconnect(5);
    nodes.run(2000);
    assert_eq!((nodes.open(), nodes.waiting()), (vec![10], vec![1]));
    nodes.list[0].disconnect(1);
    nodes.run(2000);
    assert_eq!((nodes.open(), nodes.waiting()), (vec![10], vec![0]));
    // Without a limit nothing is reserved.
    nodes.limit = 20;
    reload(&mut nodes, 0);
    nodes.list[0].connect(9);
    assert_eq!(nodes.open(), [19]);
    nodes.run(2000);
    assert_eq!(nodes.reserved(), [0]);
    reload(&mut nodes, 20);
    nodes.list[0].connect(3);
    nodes.run(2000);
    assert_eq!((nodes.open(), nodes.waiting()), (vec![20], vec![2]));
}

/// Nodes of different configurations: each reserves within its own limit.
#[test]
fn cluster_limit_may_differ_between_nodes() {
    let mut nodes = Nodes::new(1, 10);
    nodes.limit = 20;
    nodes.start();
    nodes.run(1000);
    nodes.list[0].connect(20);
    nodes.run(1000);
    assert_eq!(nodes.open(), [10, 0]);
    nodes.list[1].connect(20);
    nodes.run(1000);
    assert_eq!(nodes.open(), [10, 10]);
}

/// Nodes that connect, disconnect, are killed, stopped and cut off, on a log that is lost at times.
struct Chaos {
    nodes: Nodes,
    rng: fastrand::Rng,
    /// Of each node: until when it stands still, and how many of its connections have outlived the
    /// place in the log of a node with this id, so that they do not count.
    stopped_ms: Vec<u64>,
    outlived: Vec<(u64, usize)>,
    /// The ids that are dead in the log, and those that have reserved something there.
    dead: BTreeSet<u64>,
    stated: BTreeSet<u64>,
    seen: usize,
    lost_ms: Option<u64>,
    peak: usize,
    seed: u64,
}

impl Chaos {
    fn new(seed: u64) -> Chaos {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = Nodes::new(3, rng.usize(1..200));
        Chaos {
            nodes,
            rng,
            stopped_ms: vec![0; 3],
            outlived: vec![(0, 0); 3],
            dead: BTreeSet::new(),
            stated: BTreeSet::new(),
            seen: 0,
            lost_ms: None,
            peak: 0,
            seed,
        }
    }

    fn act(&mut self) {
        let at = self.rng.usize(..self.nodes.list.len());
        let for_ms = self.rng.u64(100..12_000);
        let world = &mut self.nodes.list[at];
        // Its cores know the time, even if its own thread has stood still.
        world.now.ms = self.nodes.now_ms;
        match self.rng.u32(0..1000) {
            0..400 => world.connect(self.rng.usize(1..=1 + self.nodes.limit / 4)),
            400..700 => {
                let count = self.rng.usize(..=world.open());
                world.disconnect(count);
                let outlived = &mut self.outlived[at].1;
                *outlived = outlived.saturating_sub(count);
            }
            700..800 => (0..world.app().waiting()).for_each(|_| world.app().stop_waiting()),
            800..805 => self.stopped_ms[at] = self.nodes.now_ms + for_ms,
            805..810 if world.engine.is_up => {
                world.engine.detach(self.rng.bool(), self.nodes.now_ms);
            }
            810..813 => {
                world.engine.detach(self.rng.bool(), self.nodes.now_ms);
                self.nodes.list.remove(at);
                self.stopped_ms.remove(at);
                self.outlived.remove(at);
                self.begin();
            }
            813 => {
                let now_ms = self.nodes.now_ms;
                let up = self.nodes.list.iter_mut().filter(|it| it.engine.is_up);
                up.for_each(|world| world.engine.detach(false, now_ms));
                self.nodes.log.borrow_mut().lose();
                (self.seen, self.lost_ms) = (0, Some(now_ms));
                self.stated.clear();
            }
            _ => {}
        }
    }

    fn begin(&mut self) {
        self.nodes.start();
        self.stopped_ms.push(0);
        self.outlived.push((0, 0));
    }

    fn step(&mut self, has_faults: bool) {
        self.nodes.now_ms += self.rng.u64(1..60);
        let now_ms = self.nodes.now_ms;
        for at in 0..self.nodes.list.len() {
            if has_faults && self.stopped_ms[at] > now_ms {
                continue;
            }
            let world = &mut self.nodes.list[at];
            world.now = NodeTime { ms: now_ms, unix_ms: now_ms };
            if !world.engine.is_up && (!has_faults || self.rng.u32(0..60) == 0) {
                world.engine.attach();
            }
            self.turn(at);
            for _ in 0..if has_faults { self.rng.usize(0..4) } else { 8 } {
                let engine = &mut self.nodes.list[at].engine;
                match self.rng.u32(0..40) {
                    0 if has_faults => engine.refuse(self.rng.bool(), now_ms),
                    1 if has_faults => engine.store(false, now_ms),
                    _ => engine.store(true, now_ms),
                }
                // Before any node has read it.
                self.judge();
                self.nodes.list[at].engine.deliver(1);
                if self.rng.bool() {
                    self.turn(at);
                }
            }
            self.turn(at);
        }
    }

    fn turn(&mut self, at: usize) {
        self.nodes.list[at].turn();
        self.nodes.list[at].admit();
        self.judge();
    }

    /// Asserts that the connections of all nodes are within the limit, but for those of a node that
    /// has died in the log while it lived, or has not come back in time after the log was lost.
    fn judge(&mut self) {
        let log = self.nodes.log.borrow();
        for (.., body) in &log.history[self.seen..] {
            let entry = entry::read(body).expect("an entry");
            let dead = entry.nodes.iter().filter(|it| it.state == NodePhase::Dead);
            self.dead.extend(dead.map(|it| it.node));
            let rows = entry.limit.iter().flat_map(|it| &it.reserved);
            self.stated.extend(rows.map(|(node, _)| *node));
        }
        self.seen = log.history.len();
        drop(log);
        let is_late = self.lost_ms.is_some_and(|it| it + REJOIN_MS <= self.nodes.now_ms);
        let mut total = 0;
        for (world, outlived) in self.nodes.list.iter().zip(&mut self.outlived) {
            let (id, open) = (world.node.nodes.id(), world.open());
            let is_void = self.dead.contains(&id) || is_late && !self.stated.contains(&id);
            // Those count that it admits later.
            if is_void && outlived.0 != id {
                *outlived = (id, open);
            }
            total += open - outlived.1.min(open);
        }
        self.peak = self.peak.max(total);
        let (limit, seed) = (self.nodes.limit, self.seed);
        assert!(total <= limit, "{total} of {limit}, seed {seed}");
    }

    /// Without faults all of the limit is in use, if enough clients want it.
    fn rest(&mut self) {
        let end_ms = self.nodes.now_ms + 40_000;
        while self.nodes.now_ms < end_ms {
            self.step(false);
            for world in &mut self.nodes.list {
                if world.app().waiting() == 0 {
                    world.connect(1 + self.nodes.limit / 4);
                }
            }
        }
        let open = self.nodes.open();
        assert!(open.iter().sum::<usize>() >= self.nodes.limit, "{open:?} of {}", self.nodes.limit);
        assert!(self.peak > self.nodes.limit / 2);
    }
}

#[test]
fn cluster_sim_limit_is_never_exceeded() {
    let (mut ids, mut deaths) = (0, 0);
    for seed in 0..12 {
        let mut chaos = Chaos::new(seed);
        for _ in 0..2000 {
            chaos.act();
            chaos.step(true);
        }
        chaos.rest();
        let count = |world: &World| world.counters.cluster_new_ids.get();
        ids += chaos.nodes.list.iter().map(count).sum::<u64>();
        deaths += chaos.dead.len();
    }
    assert!(ids > 0 && deaths > 0, "{ids} {deaths}");
}
