//! The exchange of events between a process and the one that replaces it, until the old one has
//! drained: see [`crate::hub::RelayRole`].

mod thread;
mod wire;

pub(crate) use wire::RELAY_VERSION;

use crate::dialect::Env;
use crate::hub::{Hasher, RelayRole};
use crate::mem::Notifier;
use crate::reactor::{Peers, RelayProgress, relay_link};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thread::{RelayOrders, RelayState, RelayThread};

/// The time between two looks at the cores.
const LOOK: Duration = Duration::from_millis(1);

/// The running exchange with the other process.
pub(super) struct EventRelay {
    orders: Arc<RelayOrders>,
    progress: Arc<RelayProgress>,
    woken: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

impl EventRelay {
    /// Begins to exchange events over `socket`. The cores take part within their next turn, so wake
    /// them.
    ///
    /// # Errors
    /// A thread or its descriptor cannot be made.
    pub(super) fn start(
        role: RelayRole,
        socket: UnixStream,
        (env, hasher): (&Arc<Env>, &Hasher),
        (peers, count): (&Arc<Peers>, u16),
    ) -> io::Result<EventRelay> {
        socket.set_nonblocking(true)?;
        let woken = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (orders, progress) = (Arc::<RelayOrders>::default(), Arc::<RelayProgress>::default());
        let wake = woken.clone();
        let notifier = Notifier::new(move || _ = rustix::io::write(&wake, &1_u64.to_ne_bytes()));
        let link = |core| relay_link(role, peers, core, &notifier, &progress);
        let (links, cores): (Vec<_>, Vec<_>) = (0..count).map(link).unzip();
        let relay = RelayThread {
            role,
            socket,
            woken: woken.clone(),
            cores,
            env: env.clone(),
            hasher: hasher.clone(),
            orders: orders.clone(),
            progress: progress.clone(),
            state: RelayState::default(),
        };
        let builder = std::thread::Builder::new().name("relay".to_owned());
        let thread = builder.spawn(move || relay.run())?;
        for (core, link) in (0..count).zip(links) {
            peers.core(core).relay.offer(link);
        }
        Ok(EventRelay { orders, progress, woken, thread })
    }

    /// Waits until the cores of the new process have taken over what the old one keeps. Returns
    /// false if the old one ends or `limit` is over before.
    pub(super) fn await_adoption(&self, cores: usize, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.progress.adopted() < cores {
            if self.thread.is_finished() || Instant::now() >= end {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// Notes that the new process serves: the old one orders no event of its own any more.
    pub(super) fn commit(&self) {
        self.orders.is_committed.store(true, Ordering::SeqCst);
    }

    /// Waits until the cores order their events themselves again, after the new process has ended.
    pub(super) fn revert(self) {
        let _ = self.thread.join();
    }

    /// Sends the rest, and ends. The reactors have ended.
    pub(super) fn finish(self, limit: Duration) {
        self.order(|orders| &orders.is_finishing);
        let end = Instant::now() + limit;
        while !self.thread.is_finished() && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
    }

    /// Gives the other process up.
    pub(super) fn close(self) {
        self.order(|orders| &orders.is_closing);
        let _ = self.thread.join();
    }

    fn order(&self, flag: impl Fn(&RelayOrders) -> &AtomicBool) {
        flag(&self.orders).store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.woken, &1_u64.to_ne_bytes());
    }
}
