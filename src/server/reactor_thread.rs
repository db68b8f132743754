//! The thread of one reactor: its processor, its driver, and its end.

use super::io_driver::{self, RunningDriver};
use super::sizing::ConnectionBounds;
use crate::config::IoDriver;
use crate::driver::{Driver, Settings, SetupError};
use crate::epoll::Epoll;
use crate::reactor::{ClusterLink, Inbox, Listeners, Mail, Outbox, Parts, Peers, Reactor};
use crate::shard::{Common, Shard};
use crate::stats::Counters;
use crate::uring::Ring;
use crate::uring::sys::{self, Clock};
use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Barrier, OnceLock};

/// What all reactors share at their start.
pub(super) struct ReactorSetup {
    pub(super) io: IoDriver,
    pub(super) settings: Settings,
    pub(super) bounds: ConnectionBounds,
    /// Why a ring was refused, if one was and epoll is used instead.
    pub(super) refused: OnceLock<String>,
    pub(super) common: Common,
    pub(super) peers: Arc<Peers>,
    pub(super) barrier: Barrier,
    pub(super) clock: Clock,
}

impl ReactorSetup {
    /// The maximum number of connections of a reactor on this driver.
    fn connections<D: Driver>(&self) -> u32 {
        if D::NAME == Epoll::NAME { self.bounds.epoll } else { self.bounds.ring }
    }

    /// Sets up the driver of one reactor, on its thread.
    fn driver<D: Driver>(&self, reactor_thread: &ReactorThread) -> Result<D, SetupError> {
        let settings = Settings { files: self.connections::<D>(), ..self.settings };
        D::new(settings, reactor_thread.counters.clone())
    }
}

/// The parts of one reactor that are moved into its thread.
pub(super) struct ReactorThread {
    pub(super) core: u16,
    pub(super) place: Option<usize>,
    /// The listening sockets of all cores.
    pub(super) sockets: Vec<Listeners>,
    pub(super) mail: Mail,
    pub(super) outbox: Option<Outbox>,
    pub(super) inbox: Option<Inbox>,
    pub(super) cluster: Option<ClusterLink>,
    pub(super) counters: Arc<Counters>,
}

/// Where a reactor's thread reports that it runs, or why not.
type Ready = mpsc::Sender<Result<RunningDriver, SetupError>>;

/// The main function of a reactor's thread.
pub(super) fn run_reactor_thread(
    reactor_thread: ReactorThread,
    setup: &ReactorSetup,
    ready: &Ready,
) -> io::Result<()> {
    if let Some(place) = reactor_thread.place
        && let Err(error) = sys::pin(place)
    {
        tracing::warn!(core = reactor_thread.core, %error, "a reactor thread cannot be pinned");
    }
    if setup.io == IoDriver::Epoll {
        return run_on::<Epoll>(None, reactor_thread, setup, ready);
    }
    let ring = setup.driver::<Ring>(&reactor_thread);
    if setup.io == IoDriver::Auto {
        if let Err(error) = &ring {
            let reactors = usize::from(setup.common.cores);
            setup.refused.get_or_init(|| io_driver::refusal(error, reactors));
        }
        // All rings have been tried after this barrier. If one was refused, no core uses a ring.
        setup.barrier.wait();
        if setup.refused.get().is_some() {
            drop(ring);
            return run_on::<Epoll>(None, reactor_thread, setup, ready);
        }
    }
    run_on(Some(ring), reactor_thread, setup, ready)
}

/// Runs a reactor on `driver`, which is set up here if it is `None`.
fn run_on<D: Driver>(
    driver: Option<Result<D, SetupError>>,
    reactor_thread: ReactorThread,
    setup: &ReactorSetup,
    ready: &Ready,
) -> io::Result<()> {
    let driver = driver.unwrap_or_else(|| setup.driver(&reactor_thread));
    if let Ok(driver) = &driver {
        let _ = setup.peers.core(reactor_thread.core).wake.set(driver.wake_handle());
    }
    // All drivers exist after this barrier, so that no core sends to another without one.
    setup.barrier.wait();
    let driver = match driver {
        Ok(driver) => driver,
        Err(error) => {
            let _ = ready.send(Err(error));
            // This core has nothing to drain, and the others must not wait for it.
            setup.peers.note_idle(reactor_thread.core);
            return Ok(());
        }
    };
    let connections = setup.connections::<D>();
    let refused = setup.refused.get().cloned();
    let running = RunningDriver { refused, ..RunningDriver::of(&driver, connections) };
    let shard = Shard::new(reactor_thread.core, &setup.common, reactor_thread.counters.clone());
    let reactor = Reactor::new(Parts {
        driver,
        shard,
        listeners: reactor_thread.sockets,
        connections,
        mail: reactor_thread.mail,
        outbox: reactor_thread.outbox,
        inbox: reactor_thread.inbox,
        cluster: reactor_thread.cluster,
        drain_ms: setup.common.env.config.drain_s * 1000,
        counters: reactor_thread.counters,
        clock: setup.clock,
    });
    let _ = ready.send(Ok(running));
    let _idle = IdleAtEnd { peers: &setup.peers, core: reactor_thread.core };
    reactor.run()
}

/// Marks a core as idle when its reactor ends for any reason, so that the other cores do not wait
/// for it in a drain.
struct IdleAtEnd<'s> {
    peers: &'s Peers,
    core: u16,
}

impl Drop for IdleAtEnd<'_> {
    fn drop(&mut self) {
        self.peers.note_idle(self.core);
    }
}
