//! The control plane: one thread on `tokio-uring` for all that waits for the outside world:
//! webhooks, the keys of guards, the schemas of registries, the names of upstreams.
//!
//! The reactors and this thread meet only in mailboxes. A reactor never waits for it: what finds
//! no room is dropped and counted. The other way it is this thread that waits, and nothing is lost.

mod address;
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
use crate::dialect::pusher::hooks;
use crate::hub::ChannelEvent;
use crate::limits::NOTICE_LANE;
use crate::mem::Notifier;
use crate::mem::mailbox::{Receiver, mailbox};
use crate::reactor::{Inbox, Outbox, Peers, orders};
use crate::stats::Counters;
use crate::uring::sys::Clock;
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
use tokio_rustls::TlsConnector;
use webhooks::{HOLD_MS, WebhookDelivery, Webhooks};

/// Notices taken from one core before requests are made of them.
const TAKEN_PER_TURN: usize = 1024;
/// How long the keys of a guard may take to come.
const FETCH: Duration = Duration::from_secs(4);
/// The longest sleep: a bell that was not heard costs no more than this.
const IDLE_MS: u64 = 1000;
/// What the end gives this thread at least, when the reactors have used up the drain.
const CUT_GRACE_MS: u64 = 1000;
/// How much longer than its own deadline the thread is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// The control thread, seen from the server.
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
    /// When the thread has to end; `u64::MAX` while it is not asked to.
    until_ms: AtomicU64,
    /// The reactors are being drained: nothing new is begun for them.
    draining: AtomicBool,
    /// Configurations that were read anew, oldest first, and not taken over yet.
    reloaded: Mutex<Vec<Arc<Env>>>,
}

impl Shared {
    fn lock_renewed(&self) -> MutexGuard<'_, Vec<Arc<Env>>> {
        self.reloaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a start gives: see [`Control::start`].
pub type Started = (Control, Vec<Outbox>, Inbox);

impl Control {
    /// Starts the thread on the clock of the reactors; gives it, the lane of each core to it, and
    /// its lane to the first core. `None` if there is nothing to do.
    pub fn start(
        env: &Arc<Env>,
        cores: u16,
        peers: &Arc<Peers>,
        clock: Clock,
    ) -> io::Result<Option<Started>> {
        let tells = env.config.apps.iter().any(|app| !app.webhooks.is_empty());
        let follows = !env.config.zilliqa.node.urls.is_empty();
        let asks = !env.registries.places().is_empty();
        let fetches = !env.remotes.list().is_empty() || !env.names.list().is_empty();
        if !tells && !follows && !asks && !fetches {
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
            let (sender, receiver) = mailbox(NOTICE_LANE);
            outboxes.push(Outbox::new(sender, notifier.clone()));
            inlets.push(receiver);
        }
        let (orders, inbox) = orders(peers, 0);
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
                match Thread::new(env, inlets, Backlog::new(orders), theirs, clock, &notifier).await
                {
                    Ok(thread) => {
                        let _ = ready.send(Ok(()));
                        thread.run().await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
            // Said before the runtime ends, which waits for look-ups of names.
            drop(end);
        })?;
        Ok(Some((Control { shared, clock, started, ended, thread }, outboxes, inbox)))
    }

    /// Hands over a configuration that was read anew. Call before any core has it: what happens
    /// from then on is told by this one.
    pub fn renew(&self, env: &Arc<Env>) {
        self.shared.lock_renewed().push(env.clone());
        self.shared.woken.notify_one();
    }

    /// The reactors are about to end: they are given nothing new.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.woken.notify_one();
    }

    /// Waits until the thread has its runtime, or has failed to get it. Call once.
    pub fn started(&self) -> io::Result<()> {
        self.started.recv().map_err(io::Error::other)?
    }

    /// Whether the thread has ended, which it does by a panic unless it was asked to.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Now, on the clock of [`Control::finish`].
    pub fn now_ms(&self) -> u64 {
        self.clock.now().ms
    }

    /// Delivers what waits, until `until_ms` or a moment from now, and ends. Call when every
    /// reactor has ended.
    pub fn finish(&self, until_ms: u64) {
        let until_ms = until_ms.max(self.now_ms() + CUT_GRACE_MS);
        self.shared.until_ms.store(until_ms, Ordering::Release);
        self.shared.woken.notify_one();
        let left = Duration::from_millis(until_ms.saturating_sub(self.now_ms()));
        // The end of the channel is the end of the thread's work, or of the patience with it.
        let _ = self.ended.recv_timeout(left + PATIENCE);
    }
}

/// A URL, and what has come from it.
type Fetched = (String, Option<Bytes>);

/// What was looked up, and what was found.
type Found = (dns::HostPort, io::Result<Vec<SocketAddr>>);

/// What the thread has.
struct Thread {
    hooks: Webhooks,
    fetches: Fetches,
    lookups: Lookups,
    schemas: Schemas,
    inlets: Vec<Receiver<ChannelEvent>>,
    lane: Backlog,
    /// Who asks nodes for epochs, if any are configured.
    follower: Option<Follower>,
    /// A configuration whose nodes are not followed yet.
    unfollowed: Option<Arc<Env>>,
    /// Wakes this thread.
    notifier: Notifier,
    shared: Arc<Shared>,
    clock: Clock,
    counters: Arc<Counters>,
    targets: Vec<Option<Rc<Target>>>,
    /// Connections that wait for another request, by endpoint and lane.
    kept: Vec<Vec<Rc<Kept>>>,
    outcomes: Results<(usize, usize, PostOutcome)>,
    /// What has come from the URLs of keys.
    fetched: Results<Fetched>,
    /// What was found of names.
    found: Results<Found>,
    tls: Option<TlsConnector>,
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
            tls: None,
        };
        thread.aim();
        Ok(thread)
    }

    /// Takes over configurations that were read anew.
    fn take_renewed(&mut self, now_ms: u64) {
        for env in std::mem::take(&mut *self.shared.lock_renewed()) {
            self.hooks.renew(env.clone(), now_ms);
            self.unfollowed = Some(env);
        }
        self.aim();
    }

    /// Makes ready to reach the endpoints that are new or changed.
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
            let target = Target::new(url, fields, private, &hook.ca_file, &mut self.tls);
            if self.targets.len() <= end {
                self.targets.resize(end + 1, None);
                self.kept.resize(end + 1, Vec::new());
            }
            self.targets[end] = target.map(Rc::new);
            self.kept[end] = (0..lanes).map(|_| Rc::default()).collect();
        }
    }

    /// Follows the nodes of the configuration that was taken over last.
    async fn follow_anew(&mut self, now_ms: u64) {
        let Some(env) = self.unfollowed.take() else { return };
        if let Some(follower) = &mut self.follower {
            return follower.renew(&env.config.zilliqa.node, now_ms);
        }
        match follower(&env, &self.notifier, now_ms).await {
            Ok(follower) => self.follower = follower,
            Err(error) => tracing::error!(%error, "the nodes are not followed"),
        }
    }

    /// Runs until it is asked to finish, and has.
    async fn run(mut self) {
        let mut finishing = false;
        loop {
            let now_ms = self.clock.now().ms;
            self.counters.beat_ms.set(now_ms);
            self.take_renewed(now_ms);
            self.follow_anew(now_ms).await;
            let more = self.take_notices(now_ms);
            for (end, lane, outcome) in self.outcomes.take() {
                self.hooks.outcome(end, lane, outcome, now_ms);
            }
            self.fetch(now_ms);
            self.look_up(now_ms);
            self.schemas.turn(now_ms, &mut self.tls);
            let until_ms = self.shared.until_ms.load(Ordering::Acquire);
            if until_ms != u64::MAX && !more {
                // Over and over: the last notices may have come after the word to finish.
                finishing = true;
                self.hooks.finish(now_ms);
            }
            for order in self.hooks.orders(now_ms, unix_ms()) {
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

    /// Does what is to be done for the nodes; says when to do so again.
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

    /// Takes what the reactors have noticed; says whether there may be more.
    fn take_notices(&mut self, now_ms: u64) -> bool {
        let mut more = false;
        for core in 0..self.inlets.len() {
            for _ in 0..TAKEN_PER_TURN {
                let Some(notice) = self.inlets[core].pop() else { break };
                if self.hooks.lacks(&notice) {
                    // It has come since the last look, and before any core had it.
                    self.take_renewed(now_ms);
                }
                self.hooks.notice(notice, now_ms);
            }
            more |= !self.inlets[core].is_empty();
        }
        more
    }

    /// Fetches the keys that are due.
    fn fetch(&mut self, now_ms: u64) {
        for (url, text) in self.fetched.take() {
            self.fetches.outcome(&url, text.as_deref(), now_ms);
        }
        for remote in self.fetches.due(now_ms) {
            let url = remote.url.clone();
            let fields = HeaderMap::new();
            let target =
                Target::new(&url, fields, remote.allow_private, &remote.ca_file, &mut self.tls);
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

    /// Looks up the names that are due.
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
        let WebhookDelivery { end, lane, body, key, signature } = order;
        let kept = self.kept[end][lane].clone();
        let target = self.targets[end].clone();
        let outcomes = self.outcomes.clone();
        tokio_uring::spawn(async move {
            let fields = [(hooks::KEY_FIELD, key), (hooks::SIGNATURE_FIELD, signature)];
            let fields = fields.map(|(name, value)| (HeaderName::from_static(name), value));
            let outcome = match &target {
                Some(target) => {
                    post::post(target, &kept, Bytes::copy_from_slice(&body), &fields).await
                }
                None => PostOutcome::Refused,
            };
            if let (PostOutcome::Refused, Some(target)) = (outcome, &target) {
                let host = target.host();
                tracing::warn!(host, "a webhook is at a private address, and not allowed to be");
            }
            outcomes.put((end, lane, outcome));
        });
    }
}

/// Who asks the configured nodes.
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
