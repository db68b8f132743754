//! Nodes that are killed, stopped, cut off, drained and added, as a seed decides: every living node
//! is known to all, and no node is declared dead whose renewals are stored.

use super::*;
use crate::cluster::entry::NodePhase;
use std::collections::{BTreeSet, HashMap};

/// A process, and what holds it back.
struct Life {
    world: World,
    /// It stands still until then.
    stopped_ms: u64,
    /// The engine cannot be reached until then.
    cut_ms: u64,
    /// When the process ends, because it was drained.
    ends_ms: Option<u64>,
}

struct Lives {
    log: Rc<RefCell<SimLog>>,
    rng: fastrand::Rng,
    now_ms: u64,
    running: Vec<Life>,
    began: u64,
}

impl Lives {
    fn new(seed: u64) -> Lives {
        let rng = fastrand::Rng::with_seed(seed);
        let (log, running) = (Rc::default(), Vec::new());
        let mut lives = Lives { log, rng, now_ms: 1000, running, began: 0 };
        (0..3).for_each(|_| lives.add());
        lives
    }

    fn add(&mut self) {
        self.began += 1;
        let mut world = World::new(self.began, &self.log);
        world.engine.attach();
        self.running.push(Life { world, stopped_ms: 0, cut_ms: 0, ends_ms: None });
    }

    /// Lets everyone run who can. With faults deliveries and answers may be late or lost.
    fn step(&mut self, has_faults: bool) {
        self.now_ms += self.rng.u64(20..400);
        let (now_ms, log) = (self.now_ms, self.log.clone());
        for life in &mut self.running {
            if life.stopped_ms > now_ms {
                continue;
            }
            let world = &mut life.world;
            world.now = NodeTime { ms: now_ms, unix_ms: now_ms };
            if !world.engine.is_up && life.cut_ms <= now_ms {
                world.engine.attach();
            }
            world.turn();
            for _ in 0..30 {
                world.engine.store(!has_faults || self.rng.u8(..20) > 0, now_ms);
                world.engine.deliver(1);
            }
            world.turn();
        }
        let is_over = |life: &Life| life.ends_ms.is_some_and(|it| it <= now_ms);
        self.running.retain(|life| !is_over(life) || !life.world.node.is_idle());
        log.borrow_mut().expire(now_ms.saturating_sub(KEEP_MS));
    }

    fn fault(&mut self) {
        if self.running.is_empty() {
            self.add();
        }
        let now_ms = self.now_ms;
        let at = self.rng.usize(..self.running.len());
        let for_ms = self.rng.u64(100..15_000);
        match self.rng.u8(..6) {
            0 if self.running.len() > 1 => {
                let mut killed = self.running.swap_remove(at);
                killed.world.engine.detach(self.rng.bool(), now_ms);
            }
            1 | 2 => self.running[at].stopped_ms = now_ms + for_ms,
            3 => {
                let (life, arrives) = (&mut self.running[at], self.rng.bool());
                life.cut_ms = now_ms + for_ms;
                if life.world.engine.is_up {
                    life.world.engine.detach(arrives, now_ms);
                }
            }
            4 if self.running.len() > 1 => {
                let life = &mut self.running[at];
                life.world.node.drain();
                life.ends_ms.get_or_insert(now_ms + for_ms);
            }
            _ if self.running.len() < 6 => self.add(),
            _ => {}
        }
    }

    /// What each node takes for the nodes of the cluster is what runs.
    fn judge(&self, seed: u64) {
        let ids = self.running.iter().map(|life| life.world.node.nodes.id());
        let ids: BTreeSet<u64> = ids.collect();
        assert_eq!(ids.len(), self.running.len());
        for life in &self.running {
            let node = &life.world.node;
            let known = node.nodes.statuses().iter().map(|it| it.id).collect();
            assert_eq!(ids, known, "seed {seed}");
            assert_eq!(life.world.phase(), ClusterPhase::Joined);
            assert!(node.nodes.may_append(self.now_ms), "seed {seed}");
            // Each core has got each death that the node has read, once.
            let notes = &life.world.notes;
            let died = notes.iter().filter(|(_, note)| note.starts_with("NodeGone"));
            let once: BTreeSet<_> = died.clone().collect();
            assert_eq!(once.len(), died.clone().count(), "seed {seed}: {notes:?}");
            let count = life.world.counters.cluster_removed_nodes.get() as usize;
            assert_eq!(once.len(), 2 * count, "seed {seed}");
            assert!(notes.iter().all(|(_, note)| !note.starts_with("Refresh")), "no gap");
        }
        let leads = self.running.iter().filter(|it| it.world.node.nodes.is_leader(self.now_ms));
        assert_eq!(leads.count(), 1, "seed {seed}");
    }

    /// Every death is the only one of its node, and comes after silence. Returns their number.
    fn judge_deaths(&self, seed: u64) -> usize {
        let mut last = HashMap::new();
        let mut dead = BTreeSet::new();
        for (_, stored_ms, body) in &self.log.borrow().history {
            let entry = entry::read(body).expect("an entry");
            for part in entry.nodes {
                if part.state != NodePhase::Dead {
                    assert!(!dead.contains(&part.node), "seed {seed}: it lives again");
                    last.insert(part.node, (*stored_ms, part.state));
                    continue;
                }
                assert!(dead.insert(part.node), "seed {seed}: two deaths of one node");
                let (renewed_ms, state) = last[&part.node];
                let is_leaving = state == NodePhase::Leaving;
                let silence_ms = if is_leaving { 10_000 } else { 5000 };
                assert!(renewed_ms + silence_ms <= *stored_ms, "seed {seed}: it renewed in time");
            }
        }
        dead.len()
    }
}

#[test]
fn cluster_sim_nodes_agree_on_who_lives() {
    let (mut deaths, mut ids) = (0, 0);
    for seed in 0..60 {
        let mut lives = Lives::new(seed);
        for _ in 0..lives.rng.usize(50..300) {
            lives.step(true);
            if lives.rng.u8(..8) == 0 {
                lives.fault();
            }
        }
        for life in &mut lives.running {
            (life.stopped_ms, life.cut_ms) = (0, 0);
        }
        lives.running.iter().for_each(|life| assert_eq!(life.world.gaps, 0));
        let end_ms = lives.now_ms + 45_000;
        while lives.now_ms < end_ms || lives.running.iter().any(|life| life.ends_ms.is_some()) {
            lives.step(false);
        }
        if lives.running.is_empty() {
            continue;
        }
        lives.judge(seed);
        deaths += lives.judge_deaths(seed);
        ids += lives.running.iter().map(|it| it.world.counters.cluster_new_ids.get()).sum::<u64>();
    }
    assert!(deaths > 60 && ids > 10, "{deaths} deaths, {ids} other ids: the faults do too little");
}
