//! The control thread: one thread on an async runtime for all I/O to other systems: webhook
//! requests, Zilliqa nodes, key sets of guards, schemas from registries, DNS lookups of upstream
//! names, and certificates that are ordered by ACME.
//!
//! Each of these is a `Job` in a file or folder of its own, and an entry in `JOBS`. This file
//! starts, runs and ends the thread, and depends on no job in particular.
//!
//! The reactors and this thread exchange messages only through bounded mailboxes. A reactor never
//! waits for the control thread: a channel event for which its mailbox has no room is dropped and
//! counted. In the other direction the control thread waits until there is room, so no command is
//! lost.

#[cfg(feature = "acme")]
mod acme;
mod address;
mod authorities;
mod backlog;
mod client;
#[cfg(any(feature = "cluster-nats", feature = "cluster-redis"))]
mod cluster;
mod dns;
mod executor;
mod job;
mod jwks;
mod results;
mod schedule;
#[cfg(feature = "models")]
mod schemas;
mod webhooks;
#[cfg(feature = "zilliqa")]
mod zilliqa;

use crate::config::Config;
use crate::dialect::Env;
use crate::hub::Hasher;
use crate::limits::CHANNEL_EVENT_QUEUE;
use crate::mem::Notifier;
use crate::mem::mailbox::mailbox;
#[cfg(not(any(feature = "cluster-nats", feature = "cluster-redis")))]
use crate::parts::AbsentPart;
use crate::reactor::{ClusterLink, Inbox, Outbox, Peers, cluster_link, command_queue};
use crate::stats::Counters;
use crate::uring::sys::Clock;
use backlog::Backlog;
use executor::Executor;
use job::{ClusterEnds, Job, JobKind, JobSetup, Turn};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// All jobs, in the order of their turns.
const JOBS: &[JobKind] = &[
    #[cfg(feature = "acme")]
    acme::JOB,
    #[cfg(any(feature = "cluster-nats", feature = "cluster-redis"))]
    cluster::JOB,
    webhooks::JOB,
    jwks::JOB,
    dns::JOB,
    #[cfg(feature = "models")]
    schemas::JOB,
    #[cfg(feature = "zilliqa")]
    zilliqa::job::JOB,
];
/// The longest sleep between two turns, in milliseconds. It bounds the delay after a missed
/// wake-up.
const IDLE_MS: u64 = 1000;
/// The minimum time for final deliveries, in milliseconds, even if the drain of the reactors took
/// all of the configured drain time.
const CUT_GRACE_MS: u64 = 1000;
/// How long after the thread's deadline [`Control::finish`] still waits for the thread.
const PATIENCE: Duration = Duration::from_millis(500);

/// Reports whether the engine of a cluster can be used, and what it lacks; `None` if the
/// configuration has no cluster.
pub fn examine_cluster(config: &Config) -> Option<(String, bool)> {
    let cluster = config.cluster.as_deref()?;
    #[cfg(any(feature = "cluster-nats", feature = "cluster-redis"))]
    {
        let events = config.apps.iter().map(|app| app.limits.event_bytes);
        Some(cluster::examine(cluster, events.max().unwrap_or(0)))
    }
    #[cfg(not(any(feature = "cluster-nats", feature = "cluster-redis")))]
    Some((format!("{}: {}", cluster.name, AbsentPart(cluster.kind().part())), false))
}

/// The server's handle to the control thread. Dropping it ends the thread without waiting for
/// undelivered events.
pub struct Control {
    shared: Arc<Shared>,
    clock: Clock,
    started: mpsc::Receiver<io::Result<()>>,
    ended: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shared.until_ms.store(0, Ordering::Release);
        self.shared.woken.notify_one();
    }
}

struct Shared {
    woken: Arc<Notify>,
    /// The deadline by which the thread must end, in milliseconds; `u64::MAX` until
    /// [`Control::finish`] is called.
    until_ms: AtomicU64,
    /// Whether the reactors are being drained: no new work is started for them.
    draining: AtomicBool,
    /// Reloaded configurations that the thread has not taken over yet, oldest first.
    reloaded: Mutex<Vec<Arc<Env>>>,
}

impl Shared {
    fn new() -> Shared {
        Shared {
            woken: Arc::new(Notify::new()),
            until_ms: AtomicU64::new(u64::MAX),
            draining: AtomicBool::new(false),
            reloaded: Mutex::default(),
        }
    }

    fn lock_reloaded(&self) -> MutexGuard<'_, Vec<Arc<Env>>> {
        self.reloaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Control::start`] returns: the handle, the queue from each core to the thread, the queue
/// from the thread to the first core, and the queues of each core to and from the cluster's log, if
/// there is one.
pub type Started = (Control, Vec<Outbox>, Inbox, Vec<ClusterLink>);

impl Control {
    /// Starts the control thread, which uses the clock of the reactors. `hasher` is that of the
    /// reactors, at the start of the process. Returns `None` if the configuration has no webhooks,
    /// Zilliqa nodes, registries, remote key sets, upstream names, ACME domains or cluster.
    ///
    /// # Errors
    /// The operating system cannot start a thread.
    pub fn start(
        env: &Arc<Env>,
        cores: u16,
        peers: &Arc<Peers>,
        clock: Clock,
        hasher: Option<&Hasher>,
    ) -> io::Result<Option<Started>> {
        if !JOBS.iter().any(|job| (job.is_needed)(env)) {
            return Ok(None);
        }
        let shared = Arc::new(Shared::new());
        let notify = shared.woken.clone();
        let notifier = Notifier::new(move || notify.notify_one());
        let (mut outboxes, mut event_queues) = (Vec::new(), Vec::new());
        for _ in 0..cores {
            let (sender, receiver) = mailbox(CHANNEL_EVENT_QUEUE);
            outboxes.push(Outbox::new(sender, notifier.clone()));
            event_queues.push(receiver);
        }
        let (commands, inbox) = command_queue(peers, 0);
        let hasher = hasher.filter(|_| env.config.cluster.is_some());
        let (links, cluster) = hasher.map(|it| link_cores(it, cores, peers, &notifier)).unzip();
        let (end, ended) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let (env, theirs) = (env.clone(), shared.clone());
        let builder = std::thread::Builder::new().name("control".to_owned());
        let thread = builder.spawn(move || {
            let executor = match Executor::new(env.config.io) {
                Ok(executor) => executor,
                Err(error) => return drop(ready.send(Err(error))),
            };
            executor.block_on(async {
                let counters = env.runtime.control.clone();
                let mut setup = JobSetup {
                    env,
                    event_queues,
                    cluster,
                    notifier,
                    counters: counters.clone(),
                    authorities: Rc::default(),
                    now_ms: clock.now().ms,
                };
                let jobs: io::Result<_> = JOBS.iter().map(|job| (job.start)(&mut setup)).collect();
                // Dropped here, so that the thread does not keep the first configuration in memory.
                drop(setup);
                match jobs {
                    Ok(jobs) => {
                        let _ = ready.send(Ok(()));
                        let backlog = Backlog::new(commands);
                        Thread { jobs, backlog, shared: theirs, counters }.run(clock).await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
            // Report the end before the runtime is dropped, because that waits for DNS lookups.
            drop(end);
        })?;
        let links = links.unwrap_or_default();
        Ok(Some((Control { shared, clock, started, ended, thread }, outboxes, inbox, links)))
    }

    /// Passes a reloaded configuration to the thread. Call it before any core gets the
    /// configuration, because channel events of the new version are reported according to it.
    pub fn renew(&self, env: &Arc<Env>) {
        self.shared.lock_reloaded().push(env.clone());
        self.shared.woken.notify_one();
    }

    /// Stops new work for the reactors, which are about to end.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.woken.notify_one();
    }

    /// Waits until the thread runs or has failed to start. Call it once.
    ///
    /// # Errors
    /// The runtime cannot be set up, or the state file of the Zilliqa epochs cannot be read.
    pub fn started(&self) -> io::Result<()> {
        self.started.recv().map_err(io::Error::other)?
    }

    /// Whether the thread has ended. Before [`Control::finish`] is called, that means that it
    /// panicked.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// The current time in milliseconds, on the clock that [`Control::finish`] uses.
    pub fn now_ms(&self) -> u64 {
        self.clock.now().ms
    }

    /// Ends the thread: it delivers what is queued until `until_ms`, but has at least one second.
    /// Returns when the thread has ended, or half a second after that deadline. Call it when every
    /// reactor has ended.
    pub fn finish(&self, until_ms: u64) {
        let until_ms = until_ms.max(self.now_ms() + CUT_GRACE_MS);
        self.shared.until_ms.store(until_ms, Ordering::Release);
        self.shared.woken.notify_one();
        let left = Duration::from_millis(until_ms.saturating_sub(self.now_ms()));
        // Receiving fails when the thread has dropped its sender or when the time is over.
        let _ = self.ended.recv_timeout(left + PATIENCE);
    }
}

/// Creates the queues of all cores to and from the cluster's log: the cores' ends and the thread's.
fn link_cores(
    hasher: &Hasher,
    cores: u16,
    peers: &Arc<Peers>,
    notifier: &Notifier,
) -> (Vec<ClusterLink>, ClusterEnds) {
    let link = |core| cluster_link(peers, core, notifier);
    let (links, cores) = (0..cores).map(link).unzip();
    (links, ClusterEnds { hasher: hasher.clone(), cores })
}

/// The state of the control thread.
struct Thread {
    jobs: Vec<Box<dyn Job>>,
    backlog: Backlog,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
}

impl Thread {
    /// Runs turns until [`Control::finish`] was called and everything is delivered or the deadline
    /// has passed.
    async fn run(mut self, clock: Clock) {
        while let Some(wait_ms) = self.turn(clock.now().ms) {
            let wait = Duration::from_millis(wait_ms);
            let _ = tokio::time::timeout(wait, self.shared.woken.notified()).await;
        }
    }

    /// Runs one turn. Returns how long the thread may sleep after it, in milliseconds; `None` if
    /// the thread ends.
    fn turn(&mut self, now_ms: u64) -> Option<u64> {
        self.counters.beat_ms.set(now_ms);
        for env in std::mem::take(&mut *self.shared.lock_reloaded()) {
            self.jobs.iter_mut().for_each(|job| job.reload(&env, now_ms));
        }
        let until_ms = self.shared.until_ms.load(Ordering::Acquire);
        let finishing = until_ms != u64::MAX;
        self.backlog.hand_over();
        let draining = finishing || self.shared.draining.load(Ordering::Acquire);
        let backlog = &mut self.backlog;
        let mut turn = Turn { now_ms, unix_ms: unix_ms(), backlog, draining };
        if finishing {
            self.jobs.iter_mut().for_each(|job| job.finish(&turn));
            // The reactors have ended, so no command is taken any more.
            turn.backlog.abandon();
        }
        self.jobs.iter_mut().for_each(|job| job.turn(&mut turn));
        if finishing && (now_ms >= until_ms || self.jobs.iter().all(|job| job.is_idle())) {
            self.jobs.iter_mut().for_each(|job| job.give_up());
            return None;
        }
        let next_ms = self.jobs.iter().map(|job| job.deadline_ms(&turn)).min();
        let next_ms = next_ms.unwrap_or(u64::MAX).min(turn.backlog.deadline_ms(now_ms));
        Some(next_ms.min(until_ms).saturating_sub(now_ms).min(IDLE_MS))
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    since.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Event;
    use crate::limits::COMMAND_QUEUE;
    use crate::reactor::ReactorCommand;
    use std::cell::Cell;

    /// What a [`StubJob`] is asked to do, and what it has done.
    #[derive(Default)]
    struct Script {
        commands: Cell<usize>,
        is_busy: Cell<bool>,
        deadline_ms: Cell<u64>,
        finished: Cell<u32>,
        gave_up: Cell<u32>,
    }

    struct StubJob(Rc<Script>);

    impl Job for StubJob {
        fn turn(&mut self, turn: &mut Turn<'_>) {
            for _ in 0..self.0.commands.take() {
                let (channel, event) = ("c".into(), Event::default());
                turn.backlog.put(ReactorCommand::Publish { app: 0, channel, event });
            }
        }

        fn deadline_ms(&self, _turn: &Turn<'_>) -> u64 {
            self.0.deadline_ms.get()
        }

        fn finish(&mut self, _turn: &Turn<'_>) {
            self.0.finished.set(self.0.finished.get() + 1);
        }

        fn is_idle(&self) -> bool {
            !self.0.is_busy.get()
        }

        fn give_up(&mut self) {
            self.0.gave_up.set(self.0.gave_up.get() + 1);
        }
    }

    /// A thread with one job, which is never due, and the queue of its commands.
    fn thread() -> (Thread, Rc<Script>, Inbox) {
        let script = Rc::new(Script::default());
        script.deadline_ms.set(u64::MAX);
        let (commands, inbox) = command_queue(&Arc::new(Peers::new(1)), 0);
        let shared = Arc::new(Shared {
            woken: Arc::default(),
            until_ms: AtomicU64::new(u64::MAX),
            draining: AtomicBool::new(false),
            reloaded: Mutex::default(),
        });
        let jobs: Vec<Box<dyn Job>> = vec![Box::new(StubJob(script.clone()))];
        let backlog = Backlog::new(commands);
        (Thread { jobs, backlog, shared, counters: Arc::default() }, script, inbox)
    }

    #[test]
    fn control_sleeps_until_a_job_is_due() {
        let (mut thread, script, _inbox) = thread();
        for (deadline_ms, wait_ms) in [(u64::MAX, IDLE_MS), (5000, IDLE_MS), (107, 7), (3, 0)] {
            script.deadline_ms.set(deadline_ms);
            assert_eq!(thread.turn(100), Some(wait_ms));
        }
    }

    #[test]
    fn control_retries_a_full_queue_soon_even_while_draining() {
        let (mut thread, script, mut inbox) = thread();
        script.commands.set(COMMAND_QUEUE + 1);
        assert_eq!(thread.turn(100), Some(1));
        thread.shared.draining.store(true, Ordering::Release);
        assert_eq!(thread.turn(101), Some(1));
        assert!(inbox.pop().is_some());
        assert_eq!(thread.turn(102), Some(IDLE_MS));
    }

    #[test]
    fn control_finish_does_not_wait_for_a_queue_that_stays_full() {
        let (mut thread, script, _inbox) = thread();
        script.commands.set(COMMAND_QUEUE + 1);
        assert_eq!(thread.turn(100), Some(1));
        thread.shared.until_ms.store(60_000, Ordering::Release);
        assert_eq!(thread.turn(101), None);
        assert!(thread.backlog.has_room());
    }

    #[test]
    fn control_finish_waits_for_jobs_until_its_deadline() {
        let (mut thread, script, _inbox) = thread();
        script.is_busy.set(true);
        thread.shared.until_ms.store(150, Ordering::Release);
        assert_eq!((thread.turn(100), thread.turn(149)), (Some(50), Some(1)));
        assert_eq!((script.finished.get(), script.gave_up.get()), (2, 0));
        assert_eq!((thread.turn(150), script.gave_up.get()), (None, 1));
        script.is_busy.set(false);
        assert_eq!(thread.turn(120), None, "nothing is left to do");
    }
}
