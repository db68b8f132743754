//! The control plane: one thread on `tokio-uring` for all that waits for the outside world.
//!
//! The reactors and this thread meet only in mailboxes. A reactor never waits for it: what finds
//! no room is dropped and counted.

mod address;
mod hold;
mod post;
mod queue;
mod webhooks;

use crate::dialect::Env;
use crate::dialect::pusher::hooks;
use crate::hub::Notice;
use crate::limits::NOTICE_LANE;
use crate::mem::mailbox::{Receiver, mailbox};
use crate::reactor::{Bell, Outbox};
use crate::stats::Counters;
use crate::uring::sys::Clock;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use post::{Kept, Outcome, Target};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use webhooks::{HOLD_MS, Order, Webhooks};

/// Notices taken from one core before requests are made of them.
const TAKEN_PER_TURN: usize = 1024;
/// The longest sleep: a bell that was not heard costs no more than this.
const IDLE_MS: u64 = 1000;
/// What the end gives this thread at least, when the reactors have used up the drain.
const LAST_WORDS_MS: u64 = 1000;
/// How much longer than its own deadline the thread is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// The control thread, seen from the server.
pub struct Control {
    shared: Arc<Shared>,
    clock: Clock,
    started: mpsc::Receiver<io::Result<()>>,
    ended: mpsc::Receiver<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shared.until_ms.store(0, Ordering::Release);
        self.shared.bell.notify_one();
    }
}

struct Shared {
    bell: Arc<Notify>,
    /// When the thread has to end; `u64::MAX` while it is not asked to.
    until_ms: AtomicU64,
}

impl Control {
    /// Starts the thread; gives it and the lane of each core. `None` if there is nothing to do.
    pub fn start(
        env: &Arc<Env>,
        cores: u16,
        counters: Arc<Counters>,
    ) -> io::Result<Option<(Control, Vec<Outbox>)>> {
        if env.config.apps.iter().all(|app| app.webhooks.is_empty()) {
            return Ok(None);
        }
        let bell = Arc::new(Notify::new());
        let shared = Arc::new(Shared { bell: bell.clone(), until_ms: AtomicU64::new(u64::MAX) });
        let ring: Bell = Arc::new(move || bell.notify_one());
        let (mut outboxes, mut inlets) = (Vec::new(), Vec::new());
        for _ in 0..cores {
            let (sender, receiver) = mailbox(NOTICE_LANE);
            outboxes.push(Outbox::new(sender, ring.clone()));
            inlets.push(receiver);
        }
        let clock = Clock::new();
        let (end, ended) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let (env, theirs) = (env.clone(), shared.clone());
        std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            let runtime = match tokio_uring::Runtime::new(&tokio_uring::builder()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            let hooks = Webhooks::new(env, HOLD_MS, counters.clone());
            let thread = Thread::new(hooks, inlets, theirs, clock, counters);
            runtime.block_on(thread.run());
            // Said before the runtime ends, which waits for look-ups of names.
            drop(end);
        })?;
        Ok(Some((Control { shared, clock, started, ended }, outboxes)))
    }

    /// Waits until the thread has its runtime, or has failed to get it. Call once.
    pub fn started(&self) -> io::Result<()> {
        self.started.recv().map_err(io::Error::other)?
    }

    /// Now, on the clock of [`Control::finish`].
    pub fn now_ms(&self) -> u64 {
        self.clock.now().ms
    }

    /// Delivers what waits, until `until_ms` or a moment from now, and ends. Call when every
    /// reactor has ended.
    pub fn finish(&self, until_ms: u64) {
        let until_ms = until_ms.max(self.now_ms() + LAST_WORDS_MS);
        self.shared.until_ms.store(until_ms, Ordering::Release);
        self.shared.bell.notify_one();
        let left = Duration::from_millis(until_ms.saturating_sub(self.now_ms()));
        // The end of the channel is the end of the thread's work, or of the patience with it.
        let _ = self.ended.recv_timeout(left + PATIENCE);
    }
}

/// What the thread has.
struct Thread {
    hooks: Webhooks,
    inlets: Vec<Receiver<Notice>>,
    shared: Arc<Shared>,
    clock: Clock,
    counters: Arc<Counters>,
    targets: Vec<Option<Rc<Target>>>,
    /// Connections that wait for another request, by endpoint and lane.
    kept: Vec<Vec<Rc<Kept>>>,
    outcomes: Rc<RefCell<Vec<(usize, usize, Outcome)>>>,
}

impl Thread {
    fn new(
        hooks: Webhooks,
        inlets: Vec<Receiver<Notice>>,
        shared: Arc<Shared>,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Thread {
        let mut tls = None;
        let (mut targets, mut kept) = (Vec::new(), Vec::new());
        for (hook, lanes) in hooks.ends() {
            let mut fields = HeaderMap::new();
            for (name, value) in &hook.headers {
                let name = HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value.expose())) {
                    fields.insert(name, value);
                }
            }
            let target = Target::new(hook, fields, &mut tls);
            targets.push(target.map(Rc::new));
            kept.push((0..lanes).map(|_| Rc::default()).collect());
        }
        let outcomes = Rc::default();
        Thread { hooks, inlets, shared, clock, counters, targets, kept, outcomes }
    }

    /// Runs until it is asked to finish, and has.
    async fn run(mut self) {
        let mut finishing = false;
        loop {
            let now_ms = self.clock.now().ms;
            let more = self.take_notices(now_ms);
            for (end, lane, outcome) in self.outcomes.take() {
                self.hooks.outcome(end, lane, outcome, now_ms);
            }
            let until_ms = self.shared.until_ms.load(Ordering::Acquire);
            if until_ms != u64::MAX && !more {
                // Over and over: the last notices may have come after the word to finish.
                finishing = true;
                self.hooks.finish(now_ms);
            }
            for order in self.hooks.orders(now_ms, unix_ms()) {
                self.carry_out(order);
            }
            if finishing && (self.hooks.is_empty() || now_ms >= until_ms) {
                break;
            }
            let wait = match more {
                true => 0,
                false => self.hooks.deadline_ms().min(until_ms).saturating_sub(now_ms),
            };
            let wait = Duration::from_millis(wait.min(IDLE_MS));
            let _ = tokio::time::timeout(wait, self.shared.bell.notified()).await;
        }
        self.counters.hooks_dropped.add(self.hooks.len());
    }

    /// Takes what the reactors have noticed; says whether there may be more.
    fn take_notices(&mut self, now_ms: u64) -> bool {
        let mut more = false;
        for inlet in &mut self.inlets {
            for _ in 0..TAKEN_PER_TURN {
                let Some(notice) = inlet.pop() else { break };
                self.hooks.notice(notice, now_ms);
            }
            more |= !inlet.is_empty();
        }
        more
    }

    fn carry_out(&self, order: Order) {
        let Order { end, lane, body, key, signature } = order;
        let kept = self.kept[end][lane].clone();
        let target = self.targets[end].clone();
        let (outcomes, shared) = (self.outcomes.clone(), self.shared.clone());
        tokio_uring::spawn(async move {
            let fields = [(hooks::KEY_FIELD, key), (hooks::SIGNATURE_FIELD, signature)];
            let fields = fields.map(|(name, value)| (HeaderName::from_static(name), value));
            let outcome = match &target {
                Some(target) => target.post(&kept, Bytes::copy_from_slice(&body), fields).await,
                None => Outcome::Refused,
            };
            if let (Outcome::Refused, Some(target)) = (outcome, &target) {
                let host = target.host();
                tracing::warn!(host, "a webhook is at a private address, and not allowed to be");
            }
            outcomes.borrow_mut().push((end, lane, outcome));
            shared.bell.notify_one();
        });
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    since.as_millis() as u64
}
