//! A simulation of several nodes of a cluster in one thread: their shards and clients, the mail
//! between the cores, a simulated engine with one log, and a clock, all driven by one seed.
//!
//! The simulator delays, refuses and loses what is between a node and the log, cuts nodes off,
//! stops, kills and starts them, lets entries expire and lets the engine lose its log. In half of
//! the runs it reloads them, one after another, with a second application, whose clients come
//! meanwhile. [`site`] is
//! one node, [`client`] what a client does, [`judge`] what all clients together may have seen.
//!
//! `SIM_SEED`, `SIM_SEEDS`, `SIM_FROM` and `SIM_STEPS` are as for the simulation of one process.

mod client;
mod judge;
mod limit;
mod site;

use super::run_seeds;
use fastrand::Rng;
use judge::Judge;
use polycast::cluster::sim::SimLog;
use site::Site;
use std::cell::RefCell;
use std::rc::Rc;

/// The maximum number of nodes.
const SITES: usize = 3;
/// How long the log keeps an event, in milliseconds. A cluster's `keep_s` is the same time.
const KEEP_MS: u64 = 10_000;
/// The maximum number of rounds until all work is done once nothing is disturbed.
const REST_ROUNDS: usize = 2000;
/// How much time passes in one of these rounds, in milliseconds.
const REST_MS: u64 = 50;
/// The number of these rounds in which the nodes learn of all that have ended: 30 s.
const DEATH_ROUNDS: usize = 600;
/// The number of these rounds after which all connections are open that the limit has room for:
/// 5 s.
const CROWD_ROUNDS: usize = 100;

#[test]
fn cluster_simulation_delivers_the_log_to_all_subscribers_of_all_nodes() {
    let mut totals = Totals::default();
    let is_one = run_seeds(|seed, steps| World::new(seed).run(steps), |run| totals.add(&run));
    println!("{totals:?}");
    if !is_one {
        let Totals { received, stored, refused, unknown, killed, gaps, .. } = totals;
        let Totals { epochs, members, limited, full, .. } = totals;
        for (count, what) in [
            (received, "received event"),
            (stored, "acknowledged publish"),
            (refused, "refused publish"),
            (unknown, "publish of unknown outcome"),
            (killed, "killed node"),
            (gaps, "gap"),
            (epochs, "lost log"),
            (members, "member"),
            (totals.skipped, "event that was skipped because of its key"),
            (totals.key_used, "publish that was refused because of its key"),
            (limited, "run with a limit"),
            (full, "run with as many connections as its limit"),
            (totals.readings, "reading of the log for an application that was added"),
        ] {
            assert!(count > 0, "no {what}");
        }
    }
}

/// What has happened in all runs.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    received: u64,
    stored: u64,
    refused: u64,
    unknown: u64,
    killed: u64,
    gaps: u64,
    epochs: u64,
    /// The users that are members of a channel at the end.
    members: u64,
    /// Events of the log that were skipped, and publishes that were refused, because of their keys.
    skipped: u64,
    key_used: u64,
    /// The runs with a limit of connections, and those in which it was reached.
    limited: u64,
    full: u64,
    /// How often nodes have read the log for an application that a reload has added.
    readings: u64,
}

impl Totals {
    fn add(&mut self, run: &Totals) {
        self.received += run.received;
        self.stored += run.stored;
        self.refused += run.refused;
        self.unknown += run.unknown;
        self.killed += run.killed;
        self.gaps += run.gaps;
        self.epochs += run.epochs;
        self.members += run.members;
        self.skipped += run.skipped;
        self.key_used += run.key_used;
        self.limited += run.limited;
        self.full += run.full;
        self.readings += run.readings;
    }
}

/// All nodes and their engine.
struct World {
    rng: Rng,
    log: Rc<RefCell<SimLog>>,
    judge: Judge,
    sites: Vec<Site>,
    ms: u64,
    /// Whether the simulator disturbs.
    rough: bool,
    /// Whether nodes are reloaded with the second application, and whether one was.
    adds: bool,
    is_added: bool,
    /// The number of nodes and clients that were started.
    started: u64,
    totals: Totals,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::with_seed(seed);
        let log = Rc::default();
        let sites = rng.usize(2..=SITES);
        let mut judge = Judge::default();
        // Every fourth run has a limit.
        let limit = if seed % 4 == 3 { 3 + seed as usize % 7 } else { 0 };
        for (app, judge) in ["1", "2"].into_iter().zip(&mut judge.limits) {
            (judge.app, judge.limit) = (app, limit);
        }
        let mut world = World {
            rng,
            log,
            judge,
            sites: Vec::new(),
            ms: 1_000_000,
            rough: true,
            adds: (seed / 4).is_multiple_of(2),
            is_added: false,
            started: 0,
            totals: Totals::default(),
        };
        (0..sites).for_each(|_| world.start());
        world
    }

    /// Starts a node.
    fn start(&mut self) {
        self.started += 1;
        let limit = self.judge.limits[0].limit;
        // The file of a node that starts may not have the application yet.
        let config = (limit, self.is_added && self.rng.bool());
        let site = Site::start(self.started, config, &self.log, &mut self.rng, self.ms);
        self.sites.push(site);
    }

    fn run(mut self, steps: u64) -> Totals {
        for _ in 0..steps {
            self.step();
        }
        if self.adds {
            (0..self.sites.len()).for_each(|at| self.reload(at));
        }
        self.rest(DEATH_ROUNDS);
        if self.judge.limits[0].limit > 0 {
            self.newcomers();
        }
        if self.adds {
            self.meet();
        }
        self.totals.gaps += self.sites.iter().map(Site::gaps).sum::<u64>();
        self.totals.readings += self.sites.iter().map(Site::readings).sum::<u64>();
        for site in &mut self.sites {
            site.end(&mut self.judge);
        }
        self.judge.check();
        let judge = &self.judge;
        Totals {
            received: judge.received,
            stored: judge.stored,
            refused: judge.refused,
            unknown: judge.unknown,
            members: judge.members(),
            skipped: judge.skipped,
            key_used: judge.key_used,
            ..self.totals
        }
    }

    fn step(&mut self) {
        let at = self.rng.usize(0..self.sites.len());
        match self.rng.u32(0..1000) {
            0..600 => self.sites[at].act(&mut self.rng, &mut self.judge, self.ms),
            600..610 => self.kill(at),
            610..630 => self.cut(at),
            630..640 if self.adds => self.reload(at),
            630..640 => self.cut(at),
            640..650 => self.sites[at].is_stopped = true,
            650..654 => self.lose(),
            654..700 => self.pass(1000),
            700..704 => self.pass(KEEP_MS),
            _ => self.pass(20),
        }
        self.round();
    }

    fn pass(&mut self, ms: u64) {
        self.ms += ms;
        self.log.borrow_mut().expire_due(self.ms);
    }

    /// Each node has a turn, with a random part of what is on its way.
    fn round(&mut self) {
        for at in 0..self.sites.len() {
            let site = &mut self.sites[at];
            if site.is_stopped {
                site.is_stopped = self.rough && self.rng.u32(0..20) > 0;
                continue;
            }
            site.disturb(&mut self.rng, self.rough, self.ms, &mut self.judge);
            site.turn(&mut self.rng, self.rough, self.ms, &mut self.judge);
            self.count();
        }
    }

    /// Judges how many connections there are.
    fn count(&mut self) {
        let World { sites, judge, ms, .. } = self;
        for app in 0..judge.limits.len() {
            let count = sites.iter_mut().map(|site| site.counted(app, judge, *ms)).sum();
            judge.limits[app].judge(count);
        }
    }

    /// More clients of an application come than the limit has room for: all of it is in use.
    fn newcomers(&mut self) {
        let app = usize::from(self.adds);
        let World { sites, rng, ms, .. } = self;
        let clients: usize = sites.iter_mut().map(|site| site.newcomers(app, rng, *ms)).sum();
        self.rest(CROWD_ROUNDS);
        let limit = self.judge.limits[app].limit;
        let open: usize = self.sites.iter().map(|site| site.admitted(app)).sum();
        assert!(open >= limit.min(clients), "{open} of {clients}, the limit is {limit}");
        self.totals.limited += 1;
        self.totals.full += u64::from(self.judge.limits[app].peak == limit);
    }

    /// Clients of the second application come to all nodes, of which the last ones were reloaded at
    /// the end, and all of them become members.
    fn meet(&mut self) {
        let World { sites, rng, ms, .. } = self;
        sites.iter_mut().for_each(|site| _ = site.newcomers(1, rng, *ms));
        self.rest(CROWD_ROUNDS);
        self.sites.iter_mut().for_each(|site| site.join_room(1, self.ms));
        self.rest(CROWD_ROUNDS);
    }

    /// A node ends at once, with its clients, and another one starts.
    fn kill(&mut self, at: usize) {
        let site = self.sites.swap_remove(at);
        self.totals.killed += 1;
        self.totals.gaps += site.gaps();
        self.totals.readings += site.readings();
        site.vanish(self.ms, &mut self.judge);
        self.start();
    }

    /// A node is reloaded with the second application.
    fn reload(&mut self, at: usize) {
        self.is_added = true;
        self.sites[at].reload(self.judge.limits[0].limit);
    }

    /// A node loses its connection to the engine, which it finds again some time later.
    fn cut(&mut self, at: usize) {
        let arrives = self.rng.bool();
        self.sites[at].cut(arrives, self.ms, &mut self.judge);
    }

    /// The engine loses its log: all nodes lose their connection.
    fn lose(&mut self) {
        for site in &mut self.sites {
            site.cut(false, self.ms, &mut self.judge);
        }
        self.log.borrow_mut().lose();
        self.judge.lost(self.ms);
        self.totals.epochs += 1;
    }

    /// Lets all that is on its way arrive, without a disturbance.
    fn rest(&mut self, rounds: usize) {
        self.rough = false;
        for round in 0..REST_ROUNDS {
            // Nothing expires any more, so that every node can be compared with the log.
            self.ms += REST_MS;
            self.round();
            let is_quiet = self.sites.iter_mut().all(|site| site.is_quiet());
            if is_quiet && round > rounds {
                return;
            }
        }
        panic!("no rest: {:?}", self.sites.iter_mut().map(|it| it.busy()).collect::<Vec<_>>());
    }
}
