//! One node: its cores, its end of the log, and its clients.

use super::KEEP_MS;
use super::client::Client;
use super::judge::{Ended, Judge};
use crate::cores::Cores;
use crate::machine::{SWEEP_MS, UNIX_S, common, config};
use crate::peer::SECOND;
use fastrand::Rng;
use polycast::cluster::sim::{SimEngine, SimLog};
use polycast::cluster::{ClusterNode, NodeSetup, NodeTime};
use polycast::config::{Cluster, Config, Secret};
use polycast::dialect::Env;
use polycast::mem::FreeList;
use polycast::runtime::ClusterPhase;
use polycast::session::Ending;
use polycast::shard::Common;
use polycast::stats::Counters;
use polycast::time::Now;
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// The maximum number of concurrent clients of a node.
const CLIENTS: usize = 6;

/// How long a node may take to close its subscribers after a gap, in milliseconds.
const CLOSING_MS: u64 = 5000;

/// See the module's documentation.
pub(super) struct Site {
    node: ClusterNode,
    engine: SimEngine,
    common: Common,
    counters: Arc<Counters>,
    cores: Cores,
    /// The configuration that a reload has given to the node's thread, for each core that has not
    /// taken it.
    renewals: Vec<Option<Arc<Env>>>,
    free: Vec<FreeList>,
    clients: Vec<Client>,
    next_sweep_ms: u64,
    /// The number of gaps that it has noticed, and when that was last, in milliseconds.
    gaps: u64,
    gap_ms: u64,
    /// Whether its process stands still.
    pub(super) is_stopped: bool,
}

/// A configuration with the second application or without.
fn in_cluster(limit: usize, has_second: bool) -> Config {
    let cluster = Cluster {
        engine: vec!["nats://a:1".to_owned()],
        keep_s: KEEP_MS / 1000,
        hold_ms: 2000,
        append_ms: 500,
        ..Cluster::default()
    };
    let app = format!("client_events = true\nlimits = {{ connections = {limit} }}\n");
    let mut config = Config { cluster: Some(Box::new(cluster)), ..config(&app) };
    if has_second {
        let (id, key, secret) = SECOND;
        let mut app = config.apps[0].clone();
        (app.id, app.key, app.secret) = (id.to_owned(), key.to_owned(), Secret::new(secret));
        config.apps.push(app);
    }
    config
}

impl Site {
    /// Starts a node with this id, and this maximum number of connections, with the second
    /// application or without.
    pub(super) fn start(
        id: u64,
        (limit, has_second): (usize, bool),
        log: &Rc<RefCell<SimLog>>,
        rng: &mut Rng,
        ms: u64,
    ) -> Site {
        let cores = rng.u16(1..=3);
        let common = common(in_cluster(limit, has_second), cores, rng.u64(..), rng.usize(1..20));
        let counters = Arc::new(Counters::default());
        let (hasher, env) = (common.hasher.clone(), common.env.clone());
        let setup = NodeSetup { id, hasher, cores, counters: counters.clone() };
        let cluster = env.config.cluster.as_deref().expect("a cluster");
        Site {
            node: ClusterNode::new(setup, cluster, ms),
            engine: SimEngine::new(log),
            cores: Cores::of(&common, rng.usize(1..40)),
            common,
            renewals: vec![None; usize::from(cores)],
            counters,
            free: (0..cores).map(|_| FreeList::new(CLIENTS as u32)).collect(),
            clients: Vec::new(),
            next_sweep_ms: ms,
            gaps: 0,
            gap_ms: 0,
            is_stopped: false,
        }
    }

    /// Reloads the configuration, which has the second application from then on. The cores take it
    /// later.
    pub(super) fn reload(&mut self, limit: usize) {
        if self.common.env.config.apps.len() > 1 {
            return;
        }
        let env = self.common.env.reloaded(in_cluster(limit, true)).expect("it is valid");
        self.common.env = Arc::new(env);
        self.renewals.fill(Some(self.common.env.clone()));
    }

    /// How often the node has read the log for an application that was added.
    pub(super) fn readings(&self) -> u64 {
        self.counters.cluster_added_readings.get()
    }

    /// The number of applications that a core has.
    fn apps(&self, core: usize) -> usize {
        if self.renewals[core].is_some() { 1 } else { self.common.env.config.apps.len() }
    }

    /// The number of gaps that the node has noticed.
    pub(super) fn gaps(&self) -> u64 {
        self.counters.cluster_gaps.get()
    }

    /// A client comes, does something, or leaves.
    pub(super) fn act(&mut self, rng: &mut Rng, judge: &mut Judge, ms: u64) {
        let now = now(ms);
        if self.clients.is_empty() || self.clients.len() < CLIENTS && rng.u32(0..4) == 0 {
            let core = rng.usize(0..self.cores.len());
            let Some(index) = self.free[core].take() else { return };
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            let slot = self.cores[core].shard.open(index, peer, now);
            let app = rng.usize(0..self.apps(core));
            let mut client = Client::new(app, core, slot, rng);
            let hello = client.begins();
            self.clients.push(client);
            return self.send(self.clients.len() - 1, &hello, now);
        }
        let at = rng.usize(0..self.clients.len());
        if rng.u32(0..30) == 0 {
            let (core, slot) = self.clients[at].place;
            self.cores[core].shard.lost(slot);
            return self.remove(at, false, judge, now);
        }
        let ended = self.ended(false, ms);
        let bytes = self.clients[at].acts(rng, judge, now.unix_s, ended);
        self.send(at, &bytes, now);
    }

    /// Subscribers come until there are as many clients as the node may have. Returns the number of
    /// clients of the application that subscribe.
    pub(super) fn newcomers(&mut self, app: usize, rng: &mut Rng, ms: u64) -> usize {
        while self.clients.len() < CLIENTS {
            let core = rng.usize(0..self.cores.len());
            let Some(index) = self.free[core].take() else { break };
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            let slot = self.cores[core].shard.open(index, peer, now(ms));
            let mut client = Client::subscriber(app, core, slot, rng);
            let hello = client.begins();
            self.clients.push(client);
            self.send(self.clients.len() - 1, &hello, now(ms));
        }
        self.clients.iter().filter(|client| client.subscribes() && client.app == app).count()
    }

    /// All clients of an application join its channel with members.
    pub(super) fn join_room(&mut self, app: usize, ms: u64) {
        for at in 0..self.clients.len() {
            if self.clients[at].app == app {
                let bytes = self.clients[at].joins_room();
                self.send(at, &bytes, now(ms));
            }
        }
    }

    /// The number of connections of an application that count, as their clients know it. Of a node
    /// that has lost its place in the log, those count that it admits later.
    pub(super) fn counted(&mut self, app: usize, judge: &Judge, ms: u64) -> usize {
        let is_void = judge.limits[app].is_void(self.node.id(), ms);
        let clients = self.clients.iter_mut().filter(|client| client.app == app);
        let admitted = clients.filter(|client| client.is_admitted());
        admitted.fold(0, |count, client| {
            client.is_void |= is_void && client.was_admitted;
            client.was_admitted = true;
            count + usize::from(!client.is_void)
        })
    }

    /// The number of clients of an application whose connections were admitted.
    pub(super) fn admitted(&self, app: usize) -> usize {
        self.clients.iter().filter(|client| client.is_admitted() && client.app == app).count()
    }

    /// A client sends, as soon as its core reads from it.
    fn send(&mut self, at: usize, bytes: &[u8], now: Now) {
        let client = &mut self.clients[at];
        client.unread.extend_from_slice(bytes);
        let (core, slot) = client.place;
        let shard = &mut self.cores[core].shard;
        if !client.unread.is_empty() && shard.wants(slot).is_some_and(|wants| wants.read) {
            shard.receive(slot, &mut std::mem::take(&mut client.unread), now);
        }
    }

    /// How a subscription ends now. After a gap the node closes its subscribers one after another.
    fn ended(&self, is_closed: bool, ms: u64) -> Ended {
        let has_gap = ms < self.gap_ms + CLOSING_MS;
        if is_closed || has_gap { Ended::ByServer } else { Ended::ByClient }
    }

    /// Removes a client whose connection has ended.
    fn remove(&mut self, at: usize, is_closed: bool, judge: &mut Judge, now: Now) {
        let ended = self.ended(is_closed, now.ms);
        let mut client = self.clients.swap_remove(at);
        let (core, slot) = client.place;
        client.leaves(ended, judge);
        self.cores[core].shard.close(slot);
        self.cores[core].shard.run_closing_effects(now);
        self.free[core].give(slot.index);
    }

    /// What happens between the node and the engine.
    pub(super) fn disturb(&mut self, rng: &mut Rng, rough: bool, ms: u64, judge: &mut Judge) {
        if !self.engine.is_up {
            if !rough || rng.u32(0..10) == 0 {
                self.engine.attach();
            }
            return;
        }
        let count = if rough { rng.usize(0..4) } else { 50 };
        for _ in 0..count {
            match rng.u32(0..40) {
                0 if rough => self.engine.refuse(rng.bool(), ms),
                1 if rough => self.engine.store(false, ms),
                _ => self.engine.store(true, ms),
            }
            judge.observe(&self.engine.log.borrow());
        }
        let count = if rough { rng.usize(0..4) } else { 50 };
        for _ in 0..count {
            self.engine.deliver(if rough && rng.u32(0..20) == 0 { 2 } else { 1 });
        }
        // A delivery was lost, which the connection notices.
        if rough && rng.u32(0..60) == 0 {
            self.engine.attach();
        }
    }

    /// Loses the connection to the engine; what was on its way arrives nevertheless, or does not.
    pub(super) fn cut(&mut self, arrives: bool, ms: u64, judge: &mut Judge) {
        if self.engine.is_up {
            self.engine.detach(arrives, ms);
            judge.observe(&self.engine.log.borrow());
        }
    }

    /// One turn of the node's thread and of its cores.
    pub(super) fn turn(&mut self, rng: &mut Rng, rough: bool, ms: u64, judge: &mut Judge) {
        let now = now(ms);
        let luck = |rng: &mut Rng| match rough {
            true if rng.bool() => 0,
            true => rng.usize(0..8),
            false => usize::MAX,
        };
        let time = NodeTime { ms, unix_ms: UNIX_S * 1000 + ms };
        for at in 0..self.cores.len() {
            for _ in 0..luck(rng) {
                let Some(proposal) = self.cores[at].shard.next_proposal() else { break };
                self.node.propose(proposal, &self.common.env, time);
            }
            for _ in 0..luck(rng) {
                let Some(state) = self.cores[at].shard.next_state(now) else { break };
                self.node.propose_state(&state, time);
            }
        }
        self.node.turn(&mut self.engine, &self.common.env, time);
        if self.gaps() > self.gaps {
            (self.gaps, self.gap_ms) = (self.gaps(), ms);
        }
        for _ in 0..luck(rng) {
            let Some((core, arrival)) = self.node.next_arrival() else { break };
            self.cores[usize::from(core)].shard.arrive(arrival, now);
        }
        for at in 0..self.cores.len() {
            if (!rough || rng.u32(0..10) == 0)
                && let Some(env) = self.renewals[at].take()
            {
                self.cores[at].shard.renew(env, now);
            }
        }
        let sweeps = ms >= self.next_sweep_ms;
        if sweeps {
            self.next_sweep_ms = ms + SWEEP_MS;
        }
        let cores = self.cores.len();
        for at in 0..cores {
            for from in 0..cores {
                for _ in 0..luck(rng) {
                    if !self.cores[at].receive_answer(from, now) {
                        break;
                    }
                }
                for _ in 0..luck(rng) {
                    let core = &mut self.cores[at];
                    if !core.shard.takes_requests() || !core.receive_request(from, now) {
                        break;
                    }
                }
            }
            if sweeps {
                self.cores[at].shard.sweep(now);
            }
            self.cores.send_mail(at);
            self.cores[at].shard.next_turn(now);
            while self.cores[at].shard.next_channel_event(now).is_some() {}
        }
        self.read(judge, now);
    }

    /// The clients read what was sent to them.
    fn read(&mut self, judge: &mut Judge, now: Now) {
        for core in self.cores.iter_mut() {
            while core.shard.next_listed().is_some() {}
        }
        for at in (0..self.clients.len()).rev() {
            let client = &mut self.clients[at];
            let (core, slot) = client.place;
            let core = &mut self.cores[core];
            let received = core.read(slot, &mut client.reader, now);
            let is_closed = client.reads(received, judge);
            match core.shard.wants(slot) {
                Some(wants) if wants.ending == Ending::Open && !is_closed => {
                    self.send(at, &[], now)
                }
                _ => self.remove(at, is_closed, judge, now),
            }
        }
    }

    /// Whether nothing is on its way.
    pub(super) fn is_quiet(&mut self) -> bool {
        let cores = self.cores.iter_mut();
        let mut idle = cores.map(|core| {
            core.has_no_mail() && core.shard.mail().is_empty() && !core.shard.has_proposals()
        });
        let joined = self.common.env.runtime.cluster.phase() == ClusterPhase::Joined;
        let unread = self.clients.iter().any(|client| !client.unread.is_empty());
        let are_read = self.common.env.apps.iter().all(|(_, app)| app.is_read());
        idle.all(|it| it)
            && are_read
            && !unread
            && joined
            && self.node.is_idle()
            && !self.engine.has_work()
    }

    /// A description of what is on its way.
    pub(super) fn busy(&mut self) -> String {
        let (node, engine) = (self.node.is_idle(), self.engine.has_work());
        let phase = self.common.env.runtime.cluster.phase();
        format!("node idle {node}, engine has work {engine}, {phase:?}")
    }

    /// The node's process ends at once.
    pub(super) fn vanish(mut self, ms: u64, judge: &mut Judge) {
        let ended = self.ended(false, ms);
        self.clients.iter_mut().for_each(|client| client.leaves(ended, judge));
    }

    /// The simulation ends: every subscriber must have run the log to its end.
    pub(super) fn end(&mut self, judge: &mut Judge) {
        let position = self.counters.cluster_position.get();
        assert_eq!(position, self.engine.log.borrow().last, "the node has read the log to its end");
        self.clients.iter_mut().for_each(|client| client.stays(judge));
    }
}

fn now(ms: u64) -> Now {
    Now { ms, unix_s: UNIX_S + ms / 1000 }
}
