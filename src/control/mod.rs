//! The control thread: one thread on `tokio-uring` for all I/O to other systems: webhook requests,
//! Zilliqa nodes, key sets of guards, schemas from registries and DNS lookups of upstream names.
//!
//! The reactors and this thread exchange messages only through bounded mailboxes. A reactor never
//! waits for the control thread: a channel event for which its mailbox has no room is dropped and
//! counted. In the other direction the control thread waits until there is room, so no command is
//! lost.

mod address;
mod authorities;
mod backlog;
mod client;
mod debounce;
mod dns;
mod jwks;
mod node;
mod post;
mod queue;
mod results;
mod schedule;
mod schemas;
mod webhooks;

use crate::dialect::Env;
use crate::hub::ChannelEvent;
use crate::limits::CHANNEL_EVENT_QUEUE;
use crate::mem::Notifier;
use crate::mem::mailbox::{Receiver, mailbox};
use crate::reactor::{Inbox, Outbox, Peers, command_queue};
use crate::stats::Counters;
use crate::uring::sys::Clock;
use authorities::Authorities;
use backlog::Backlog;
use client::{Kept, Target};
use dns::Lookups;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use jwks::Fetches;
use node::run::Follower;
use post::PostOutcome;
use results::Results;
use schemas::Schemas;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use webhooks::{HOLD_MS, WebhookDelivery, Webhooks};

/// Channel events taken from one core per turn of the control thread.
const TAKEN_PER_TURN: usize = 1024;
/// Timeout for fetching one key set.
const FETCH: Duration = Duration::from_secs(4);
/// The longest sleep between two turns, in milliseconds. It bounds the delay after a missed
/// wake-up.
const IDLE_MS: u64 = 1000;
/// The minimum time for final deliveries, in milliseconds, even if the drain of the reactors took
/// all of the configured drain time.
const CUT_GRACE_MS: u64 = 1000;
/// How long after the thread's deadline [`Control::finish`] still waits for the thread.
const PATIENCE: Duration = Duration::from_millis(500);

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
    fn lock_renewed(&self) -> MutexGuard<'_, Vec<Arc<Env>>> {
        self.reloaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Control::start`] returns: the handle, the queue from each core to the thread, and the
/// queue from the thread to the first core.
pub type Started = (Control, Vec<Outbox>, Inbox);

impl Control {
    /// Starts the control thread, which uses the clock of the reactors. Returns `None` if the
    /// configuration has no webhooks, Zilliqa nodes, registries, remote key sets or upstream names.
    ///
    /// # Errors
    /// The operating system cannot start a thread.
    pub fn start(
        env: &Arc<Env>,
        cores: u16,
        peers: &Arc<Peers>,
        clock: Clock,
    ) -> io::Result<Option<Started>> {
        let has_webhooks = env.config.apps.iter().any(|app| !app.webhooks.is_empty());
        let has_nodes = !env.config.zilliqa.node.urls.is_empty();
        let has_registries = !env.registries.places().is_empty();
        let has_remotes = !env.remotes.list().is_empty() || !env.names.list().is_empty();
        if !has_webhooks && !has_nodes && !has_registries && !has_remotes {
            return Ok(None);
        }
        let woken = Arc::new(Notify::new());
        let notify = woken.clone();
        let shared = Arc::new(Shared {
            woken,
            until_ms: AtomicU64::new(u64::MAX),
            draining: AtomicBool::new(false),
            reloaded: Mutex::default(),
        });
        let notifier = Notifier::new(move || notify.notify_one());
        for theirs in [env.remotes.notifier(), env.names.notifier(), env.registries.notifier()] {
            let notifier = notifier.clone();
            theirs.attach(move || notifier.notify());
        }
        let (mut outboxes, mut inlets) = (Vec::new(), Vec::new());
        for _ in 0..cores {
            let (sender, receiver) = mailbox(CHANNEL_EVENT_QUEUE);
            outboxes.push(Outbox::new(sender, notifier.clone()));
            inlets.push(receiver);
        }
        let (commands, inbox) = command_queue(peers, 0);
        let (end, ended) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let (env, theirs) = (env.clone(), shared.clone());
        let builder = std::thread::Builder::new().name("control".to_owned());
        let thread = builder.spawn(move || {
            let runtime = match tokio_uring::Runtime::new(&tokio_uring::builder()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                match Thread::new(env, inlets, Backlog::new(commands), theirs, clock, &notifier)
                    .await
                {
                    Ok(thread) => {
                        let _ = ready.send(Ok(()));
                        thread.run().await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
            // Report the end before the runtime is dropped, because that waits for DNS lookups.
            drop(end);
        })?;
        Ok(Some((Control { shared, clock, started, ended, thread }, outboxes, inbox)))
    }

    /// Passes a reloaded configuration to the thread. Call it before any core gets the
    /// configuration, because channel events of the new version are reported according to it.
    pub fn renew(&self, env: &Arc<Env>) {
        self.shared.lock_renewed().push(env.clone());
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

/// A URL of a key set and the response body; `None` if the fetch failed.
type Fetched = (String, Option<Bytes>);

/// A name and port, and the addresses that the DNS lookup found.
type Found = (dns::HostPort, io::Result<Vec<SocketAddr>>);

/// The state of the control thread.
struct Thread {
    hooks: Webhooks,
    fetches: Fetches,
    lookups: Lookups,
    schemas: Schemas,
    inlets: Vec<Receiver<ChannelEvent>>,
    lane: Backlog,
    /// Fetches epochs from Zilliqa nodes, if any are configured.
    follower: Option<Follower>,
    /// A reloaded configuration whose Zilliqa nodes are not followed yet.
    unfollowed: Option<Arc<Env>>,
    /// Wakes the control thread.
    notifier: Notifier,
    shared: Arc<Shared>,
    clock: Clock,
    counters: Arc<Counters>,
    targets: Vec<Option<Rc<Target>>>,
    /// Idle HTTP connections, by endpoint and lane.
    kept: Vec<Vec<Rc<Kept>>>,
    outcomes: Results<(usize, usize, PostOutcome)>,
    /// Finished fetches of key sets.
    fetched: Results<Fetched>,
    /// Finished DNS lookups.
    found: Results<Found>,
    /// The system's certificate authorities.
    authorities: Rc<Authorities>,
}

impl Thread {
    async fn new(
        env: Arc<Env>,
        inlets: Vec<Receiver<ChannelEvent>>,
        lane: Backlog,
        shared: Arc<Shared>,
        clock: Clock,
        notifier: &Notifier,
    ) -> io::Result<Thread> {
        let counters = env.control.clone();
        let follower = follower(&env, notifier, clock.now().ms).await?;
        let fetches = Fetches::new(env.remotes.clone(), counters.clone());
        let lookups = Lookups::new(env.names.clone(), counters.clone());
        let schemas = Schemas::new(env.registries.clone(), counters.clone(), notifier);
        let hooks = Webhooks::new(env, HOLD_MS, counters.clone());
        let mut thread = Thread {
            hooks,
            fetches,
            lookups,
            schemas,
            inlets,
            lane,
            follower,
            unfollowed: None,
            notifier: notifier.clone(),
            shared,
            clock,
            counters,
            targets: Vec::new(),
            kept: Vec::new(),
            outcomes: Results::new(notifier),
            fetched: Results::new(notifier),
            found: Results::new(notifier),
            authorities: Rc::default(),
        };
        thread.aim();
        Ok(thread)
    }

    /// Takes over the reloaded configurations.
    fn take_reloaded(&mut self, now_ms: u64) {
        for env in std::mem::take(&mut *self.shared.lock_renewed()) {
            self.hooks.renew(env.clone(), now_ms);
            self.unfollowed = Some(env);
        }
        self.aim();
    }

    /// Creates HTTP targets for the webhook endpoints that are new or changed.
    fn aim(&mut self) {
        for end in self.hooks.take_changed() {
            let Some((hook, lanes)) = self.hooks.end(end) else { continue };
            let mut fields = HeaderMap::new();
            for (name, value) in &hook.headers {
                let name = HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value.expose())) {
                    fields.insert(name, value);
                }
            }
            let (url, private) = (hook.url.expose(), hook.allow_private);
            let target = Target::new(url, fields, private, &hook.ca_file, &self.authorities);
            if self.targets.len() <= end {
                self.targets.resize(end + 1, None);
                self.kept.resize(end + 1, Vec::new());
            }
            self.targets[end] = target.map(Rc::new);
            self.kept[end] = (0..lanes).map(|_| Rc::default()).collect();
        }
    }

    /// Follows the Zilliqa nodes of the last configuration that was taken over.
    async fn follow_anew(&mut self, now_ms: u64) {
        let Some(env) = self.unfollowed.take() else { return };
        if let Some(follower) = &mut self.follower {
            return follower.renew(&env.config.zilliqa.node, now_ms);
        }
        match follower(&env, &self.notifier, now_ms).await {
            Ok(follower) => self.follower = follower,
            Err(error) => tracing::error!(%error, "epochs are not fetched from the nodes"),
        }
    }

    /// Runs the thread's loop until [`Control::finish`] was called and everything is delivered or
    /// the deadline has passed.
    async fn run(mut self) {
        let mut finishing = false;
        loop {
            let now_ms = self.clock.now().ms;
            self.counters.beat_ms.set(now_ms);
            self.take_reloaded(now_ms);
            self.follow_anew(now_ms).await;
            let more = self.take_notices(now_ms);
            for (end, lane, outcome) in self.outcomes.take() {
                self.hooks.outcome(end, lane, outcome, now_ms);
            }
            self.fetch(now_ms);
            self.look_up(now_ms);
            self.schemas.turn(now_ms, &self.authorities);
            let until_ms = self.shared.until_ms.load(Ordering::Acquire);
            if until_ms != u64::MAX && !more {
                // Repeated every turn, because the last channel events may arrive after `finish`
                // was called.
                finishing = true;
                self.hooks.finish(now_ms);
            }
            for order in self.hooks.deliveries(now_ms, unix_ms()) {
                self.carry_out(order);
            }
            let next_ms = self.follow(finishing, now_ms);
            let all_reported =
                self.hooks.is_empty() && self.follower.as_ref().is_none_or(Follower::is_idle);
            if finishing && (all_reported || now_ms >= until_ms) {
                break;
            }
            let next_ms = next_ms.min(self.hooks.deadline_ms()).min(self.fetches.deadline_ms());
            let next_ms = next_ms.min(self.lookups.deadline_ms());
            let next_ms = next_ms.min(self.schemas.deadline_ms());
            let wait = if more { 0 } else { next_ms.min(until_ms).saturating_sub(now_ms) };
            let wait = Duration::from_millis(wait.min(IDLE_MS));
            let _ = tokio::time::timeout(wait, self.shared.woken.notified()).await;
        }
        self.counters.hooks_dropped.add(self.hooks.len());
    }

    /// Runs one turn of the follower. Returns when the next one is due, in milliseconds.
    fn follow(&mut self, finishing: bool, now_ms: u64) -> u64 {
        self.lane.hand_over();
        let Some(follower) = &mut self.follower else { return u64::MAX };
        let draining = finishing || self.shared.draining.load(Ordering::Acquire);
        follower.turn(&mut self.lane, draining, now_ms);
        match draining {
            true => u64::MAX,
            false => follower.deadline_ms(&self.lane, now_ms),
        }
    }

    /// Takes channel events from the reactors. Returns whether there may be more.
    fn take_notices(&mut self, now_ms: u64) -> bool {
        let mut more = false;
        for core in 0..self.inlets.len() {
            for _ in 0..TAKEN_PER_TURN {
                let Some(notice) = self.inlets[core].pop() else { break };
                if self.hooks.lacks(&notice) {
                    // The event's configuration was reloaded after this turn took over
                    // configurations. It is in `reloaded`, because the server puts it there before
                    // any core gets it.
                    self.take_reloaded(now_ms);
                }
                self.hooks.notice(notice, now_ms);
            }
            more |= !self.inlets[core].is_empty();
        }
        more
    }

    /// Takes finished fetches of key sets and starts those that are due.
    fn fetch(&mut self, now_ms: u64) {
        for (url, text) in self.fetched.take() {
            self.fetches.outcome(&url, text.as_deref(), now_ms);
        }
        for remote in self.fetches.due(now_ms) {
            let url = remote.url.clone();
            let fields = HeaderMap::new();
            let target =
                Target::new(&url, fields, remote.allow_private, &remote.ca_file, &self.authorities);
            let fetched = self.fetched.clone();
            tokio_uring::spawn(async move {
                let text = match target {
                    Some(target) => target.get(jwks::SET_BYTES, FETCH).await,
                    None => None,
                };
                fetched.put((url, text));
            });
        }
    }

    /// Takes finished DNS lookups and starts those that are due.
    fn look_up(&mut self, now_ms: u64) {
        for (name, found) in self.found.take() {
            self.lookups.outcome(&name, found, now_ms);
        }
        for name in self.lookups.due(now_ms) {
            let found = self.found.clone();
            tokio_uring::spawn(async move {
                let addresses = dns::look_up(&name).await;
                found.put((name, addresses));
            });
        }
    }

    fn carry_out(&self, order: WebhookDelivery) {
        let WebhookDelivery { end, lane, body, fields } = order;
        let kept = self.kept[end][lane].clone();
        let target = self.targets[end].clone();
        let outcomes = self.outcomes.clone();
        tokio_uring::spawn(async move {
            let fields = fields.map(|(name, value)| (HeaderName::from_static(name), value));
            let outcome = match &target {
                Some(target) => {
                    post::post(target, &kept, Bytes::copy_from_slice(&body), &fields).await
                }
                None => PostOutcome::Refused,
            };
            if let (PostOutcome::Refused, Some(target)) = (outcome, &target) {
                let host = target.host();
                tracing::warn!(
                    host,
                    "a webhook has only private addresses, but `allow_private` is not set"
                );
            }
            outcomes.put((end, lane, outcome));
        });
    }
}

/// The follower of the configured Zilliqa nodes; `None` if there are none.
async fn follower(
    env: &Arc<Env>,
    notifier: &Notifier,
    now_ms: u64,
) -> io::Result<Option<Follower>> {
    let config = &env.config.zilliqa.node;
    if config.urls.is_empty() {
        return Ok(None);
    }
    let (shared, counters) = (env.zilliqa.clone(), env.control.clone());
    let follower = Follower::new(config, shared, notifier, counters, now_ms).await?;
    let notifier = notifier.clone();
    env.zilliqa.notifier().attach(move || notifier.notify());
    Ok(Some(follower))
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    since.as_millis() as u64
}
