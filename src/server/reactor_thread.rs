//! The thread of one reactor: its processor, its ring, and its end.

use crate::reactor::{Addresses, Inbox, Listeners, Mail, Outbox, Parts, Peers, Reactor};
use crate::shard::{Common, Shard};
use crate::stats::Counters;
use crate::uring::sys::{self, Clock};
use crate::uring::{Ring, Settings, SetupError};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, Barrier};

/// What all reactors share at their start.
pub(super) struct Setup {
    pub(super) settings: Settings,
    pub(super) common: Common,
    pub(super) addresses: Arc<Addresses>,
    pub(super) peers: Arc<Peers>,
    pub(super) barrier: Barrier,
    pub(super) clock: Clock,
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
    pub(super) counters: Arc<Counters>,
}

/// The main function of a reactor's thread.
pub(super) fn run_reactor_thread(
    reactor_thread: ReactorThread,
    setup: &Setup,
    ready: &mpsc::Sender<Result<usize, SetupError>>,
) -> io::Result<()> {
    if let Some(place) = reactor_thread.place
        && let Err(error) = sys::pin(place)
    {
        tracing::warn!(core = reactor_thread.core, %error, "a reactor thread cannot be pinned");
    }
    let ring = Ring::new(setup.settings, reactor_thread.counters.clone());
    let me = setup.peers.core(reactor_thread.core);
    if let Ok(ring) = &ring {
        me.ring.store(ring.descriptor(), Ordering::Release);
    }
    // All rings exist after this barrier, so that no core sends to another without a ring.
    setup.barrier.wait();
    let ring = match ring {
        Ok(ring) => ring,
        Err(error) => {
            let _ = ready.send(Err(error));
            // This core has nothing to drain, and the others must not wait for it.
            setup.peers.note_idle(reactor_thread.core);
            return Ok(());
        }
    };
    let fixed_bytes = ring.fixed_bytes();
    let shard = Shard::new(reactor_thread.core, &setup.common, reactor_thread.counters.clone());
    let reactor = Reactor::new(Parts {
        ring,
        shard,
        listeners: reactor_thread.sockets,
        connections: setup.settings.files,
        mail: reactor_thread.mail,
        outbox: reactor_thread.outbox,
        inbox: reactor_thread.inbox,
        addresses: setup.addresses.clone(),
        drain_ms: setup.common.env.config.drain_s * 1000,
        counters: reactor_thread.counters,
        clock: setup.clock,
    });
    let _ = ready.send(Ok(fixed_bytes));
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
