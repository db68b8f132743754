//! The job that runs this process's node of a cluster: between the queues of the cores and the
//! engine. What a node does is decided in [`crate::cluster`]; the engines are in `nats` and
//! `redis`.

#[cfg(feature = "cluster-nats")]
mod api;
#[cfg(feature = "cluster-nats")]
mod nats;
#[cfg(any(feature = "cluster-nats", feature = "cluster-redis"))]
mod pause;
#[cfg(any(feature = "cluster-nats", feature = "cluster-redis"))]
mod probe;
#[cfg(feature = "cluster-redis")]
mod redis;
mod tls;

use super::job::{Job, JobKind, JobSetup, Turn};
use crate::cluster::{Arrival, ClusterNode, Engine, NodeSetup, NodeTime};
use crate::config::Cluster;
use crate::dialect::Env;
use crate::limits::CLUSTER_QUEUE;
#[cfg(not(all(feature = "cluster-nats", feature = "cluster-redis")))]
use crate::parts::AbsentPart;
use crate::reactor::CoreLink;
use crate::uring::sys;
use std::io;
use std::sync::Arc;

pub(crate) const JOB: JobKind = JobKind { is_needed, start };

/// How long after a push into a core's full queue the next attempt is made, in milliseconds.
const RETRY_MS: u64 = 1;
/// The maximum number of proposals that are taken from one core in one turn: as many as its queue
/// has room for, so that none stays there that was there before a state.
const PROPOSALS: usize = CLUSTER_QUEUE;

fn is_needed(env: &Env) -> bool {
    env.config.cluster.is_some()
}

fn start(setup: &mut JobSetup) -> io::Result<Box<dyn Job>> {
    let Some(links) = setup.cluster.take() else { return Ok(Box::new(NoCluster)) };
    let Some(cluster) = &setup.env.config.cluster else { return Ok(Box::new(NoCluster)) };
    setup.env.apps.notify_of_need(&setup.notifier);
    let id = sys::random_u64()?;
    let node = NodeSetup {
        id,
        hasher: links.hasher,
        cores: links.cores.len() as u16,
        counters: setup.counters.clone(),
    };
    let node = ClusterNode::new(node, cluster, setup.now_ms);
    let env = setup.env.clone();
    match cluster.kind().is_redis() {
        #[cfg(feature = "cluster-redis")]
        true => {
            let engine = redis::RedisEngine::start(cluster, &setup.notifier)?;
            Ok(Box::new(ClusterJob::new(node, engine, links.cores, env)))
        }
        #[cfg(feature = "cluster-nats")]
        false => {
            let engine = nats::NatsEngine::start(cluster, id, &setup.notifier)?;
            Ok(Box::new(ClusterJob::new(node, engine, links.cores, env)))
        }
        // The check of the configuration refuses it.
        #[cfg(not(all(feature = "cluster-nats", feature = "cluster-redis")))]
        _ => Err(io::Error::other(AbsentPart(cluster.kind().part()))),
    }
}

/// Logs in at the engine once and reports what it has and what it lacks, in lines of text. The
/// largest event has `event_bytes`. The second value says whether a node could use it.
#[cfg_attr(not(feature = "cluster-nats"), expect(unused_variables))]
pub(crate) fn examine(cluster: &Cluster, event_bytes: usize) -> (String, bool) {
    match cluster.kind().is_redis() {
        #[cfg(feature = "cluster-redis")]
        true => redis::examine(cluster),
        #[cfg(feature = "cluster-nats")]
        false => nats::examine(cluster, event_bytes),
        #[cfg(not(all(feature = "cluster-nats", feature = "cluster-redis")))]
        _ => (format!("engine: {}\n", AbsentPart(cluster.kind().part())), false),
    }
}

/// The job of a process that is not a node of a cluster. Only a restart makes it one.
struct NoCluster;

impl Job for NoCluster {
    fn turn(&mut self, _turn: &mut Turn<'_>) {}

    fn deadline_ms(&self, _turn: &Turn<'_>) -> u64 {
        u64::MAX
    }
}

/// A node and its engine.
struct ClusterJob<E> {
    node: ClusterNode,
    engine: E,
    cores: Vec<CoreLink>,
    env: Arc<Env>,
    /// Whether a core had no room for what is for it.
    is_paused: bool,
    /// Whether the cores have ended, so that they take nothing any more.
    has_no_cores: bool,
}

impl<E: Engine> ClusterJob<E> {
    fn new(node: ClusterNode, engine: E, cores: Vec<CoreLink>, env: Arc<Env>) -> ClusterJob<E> {
        ClusterJob { node, engine, cores, env, is_paused: false, has_no_cores: false }
    }

    /// Takes the events and states that the cores propose.
    fn take_proposals(&mut self, now: NodeTime) {
        let ClusterJob { node, cores, env, .. } = self;
        let propose = |proposal| node.propose(proposal, env, now);
        let states = take_all(cores, CoreLink::next_state, CoreLink::next_proposal, propose);
        states.iter().for_each(|state| self.node.propose_state(state, now));
    }

    /// Sends the cores what is for them. Stops at a full queue, so that no core gets its events in
    /// another order.
    fn hand_over(&mut self) {
        let was_paused = std::mem::replace(&mut self.is_paused, false);
        if self.has_no_cores {
            while self.node.next_arrival().is_some() {}
        }
        while let Some((core, arrival)) = self.node.next_arrival() {
            if !matches!(arrival, Arrival::Gap) && !self.cores.iter().all(CoreLink::has_taken_gaps)
            {
                self.node.return_arrival(core, arrival);
                self.is_paused = true;
                break;
            }
            let Some(link) = self.cores.get_mut(usize::from(core)) else { continue };
            if let Err(arrival) = link.push(arrival) {
                self.node.return_arrival(core, arrival);
                self.is_paused = true;
                break;
            }
        }
        if !self.is_paused {
            let mark = self.node.mark();
            self.cores.iter_mut().for_each(|core| core.reach(mark));
        }
        self.cores.iter_mut().for_each(CoreLink::wake);
        if was_paused != self.is_paused {
            self.engine.pause(self.is_paused);
        }
    }
}

/// Takes the states of all cores, then their events, which are proposed, and returns the states. So
/// all events that were there before a state are proposed before it, those of other cores, too:
/// the home of a channel states that a member has left, and another core may have proposed the
/// member's last event.
fn take_all<L, S, P>(
    links: &mut [L],
    next_state: impl Fn(&mut L) -> Option<S>,
    next_proposal: impl Fn(&mut L) -> Option<P>,
    mut propose: impl FnMut(P),
) -> Vec<S> {
    let mut states = Vec::new();
    for link in &mut *links {
        states.extend(std::iter::from_fn(|| next_state(link)).take(PROPOSALS));
    }
    for link in links {
        std::iter::from_fn(|| next_proposal(link)).take(PROPOSALS).for_each(&mut propose);
    }
    states
}

impl<E: Engine> Job for ClusterJob<E> {
    fn reload(&mut self, env: &Arc<Env>, _now_ms: u64) {
        self.env = env.clone();
    }

    fn turn(&mut self, turn: &mut Turn<'_>) {
        let now = NodeTime { ms: turn.now_ms, unix_ms: turn.unix_ms };
        self.take_proposals(now);
        if turn.draining {
            self.node.drain();
        } else if self.env.runtime.departure.is_leaving() {
            self.node.leave();
        }
        self.node.turn(&mut self.engine, &self.env, now);
        self.hand_over();
    }

    fn finish(&mut self, _turn: &Turn<'_>) {
        self.has_no_cores = true;
    }

    fn deadline_ms(&self, turn: &Turn<'_>) -> u64 {
        let again = if self.is_paused { turn.now_ms + RETRY_MS } else { u64::MAX };
        self.node.deadline_ms().min(again)
    }

    fn is_idle(&self) -> bool {
        self.node.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::sim::{SimEngine, SimLog};
    use crate::config::Config;
    use crate::control::backlog::Backlog;
    use crate::dialect::{Event, Proposal};
    use crate::hub::Hasher;
    use crate::mem::{Frozen, Notifier};
    use crate::reactor::{ClusterLink, Peers, cluster_link, command_queue};
    use crate::stats::Counters;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    const NOW: NodeTime = NodeTime { ms: 0, unix_ms: 0 };

    /// A job whose core takes nothing, on an engine that has answered it.
    fn job() -> (ClusterJob<SimEngine>, Rc<RefCell<SimLog>>, ClusterLink) {
        let cluster = Cluster { engine: vec!["nats://a:1".to_owned()], ..Cluster::default() };
        let config = Config { cluster: Some(Box::new(cluster.clone())), ..Config::demo() };
        let env = Arc::new(Env::new(config, 0).expect("an environment"));
        let counters = Arc::new(Counters::default());
        let setup = NodeSetup { id: 1, hasher: Hasher::new(7), cores: 1, counters };
        let (link, core) = cluster_link(&Arc::new(Peers::new(1)), 0, &Notifier::default());
        let log: Rc<RefCell<SimLog>> = Rc::default();
        let node = ClusterNode::new(setup, &cluster, 0);
        let job = ClusterJob::new(node, SimEngine::new(&log), vec![core], env);
        (job, log, link)
    }

    impl ClusterJob<SimEngine> {
        fn step(&mut self) {
            self.node.turn(&mut self.engine, &self.env.clone(), NOW);
            self.hand_over();
            (0..64).for_each(|_| self.engine.store(true, 0));
            (0..64).for_each(|_| self.engine.deliver(1));
        }
    }

    /// A core that proposes an event while the states are taken, and a state after it.
    #[test]
    fn cluster_job_takes_the_events_of_all_cores_before_a_state() {
        let queues = |first: usize| (0..first).map(|it| it.to_string()).collect::<VecDeque<_>>();
        let mut links = [(queues(1), queues(0)), (queues(0), queues(PROPOSALS + 1))];
        let order = RefCell::new(Vec::new());
        let take = |what: &str, from: &mut VecDeque<String>| {
            order.borrow_mut().push(what.to_owned());
            from.pop_front()
        };
        let states = take_all(
            &mut links,
            |(states, _)| take("state", states),
            |(_, proposals)| take("proposal", proposals),
            |proposal| order.borrow_mut().push(proposal),
        );
        assert_eq!((states, links[1].1.len()), (vec!["0".to_owned()], 1));
        let order = order.into_inner();
        assert_eq!(
            order[..7],
            ["state", "state", "state", "proposal", "proposal", "0", "proposal"]
        );
        assert!(!order[3..].contains(&"state".to_owned()), "a state that comes now may be later");
    }

    /// The log goes on after the cores have ended. What it has for them is dropped, so that the
    /// thread need not wait until its time is over.
    #[test]
    fn cluster_job_without_cores_drops_what_is_for_them() {
        let (mut job, _log, link) = job();
        job.engine.attach();
        (0..5).for_each(|_| job.step());
        for round in 0.. {
            assert!(round < 100_000, "a full queue lets the job wait");
            if job.is_paused {
                break;
            }
            for _ in 0..64 {
                let event: Event = Frozen::new(b"x").into();
                let proposal = Proposal::new(0, "a", event, None);
                job.node.propose(proposal, &job.env.clone(), NOW);
            }
            job.step();
        }
        (0..100).for_each(|_| job.step());
        assert!(!job.is_idle() && job.is_paused);
        drop(link);
        let mut backlog = Backlog::new(command_queue(&Arc::new(Peers::new(1)), 0).0);
        job.finish(&Turn { now_ms: 0, unix_ms: 0, backlog: &mut backlog, draining: true });
        (0..100).for_each(|_| job.step());
        assert!(job.is_idle() && !job.is_paused);
    }
}
