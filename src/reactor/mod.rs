//! The event loop of one core, which owns the core's driver and its shard.
//!
//! A turn submits the prepared operations and reaps all completions, takes deliveries from other
//! cores, processes the completions, takes mail from other cores, and at its end flushes each
//! connection once, with one vectored send that points directly into shared frames. Nothing is sent
//! in the middle of a turn.

mod accept_slots;
mod accepts;
mod cluster;
mod commands;
mod complete;
mod dial;
mod inbox;
mod mail;
mod outbox;
mod pause;
mod relay;
mod relay_link;
mod relief;
mod requests;
mod timing;

pub use accept_slots::{ACCEPTS_FOR_OTHERS, ACCEPTS_PER_LISTENER, ListenSocket, Listeners};
pub use cluster::{ClusterLink, CoreLink, cluster_link};
pub use commands::{CommandSender, Waker, command_queue};
pub use inbox::{Inbox, ReactorCommand};
pub use mail::{Mail, PeerLinks, Peers, wire};
pub use outbox::Outbox;
pub use pause::Accepting;
pub use relay::{CoreRelay, relay_link};
pub use relay_link::{RelayLink, RelayProgress};

use crate::driver::{Completion, Driver};
use crate::mem::{self, FreeList, Slot};
use crate::session::Ending;
use crate::shard::Shard;
use crate::stats::Counters;
use crate::time::{Deadline, Now};
use crate::uring::sys::Clock;
use accept_slots::Accepts;
use relief::Relief;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use timing::Timing;

/// The time between two sweeps of deadlines, in milliseconds: the granularity of every timeout.
const SWEEP_MS: u64 = 250;
/// The maximum time that an idle core sleeps, and so the maximum delay of a lost wake-up.
const IDLE: Duration = Duration::from_secs(1);
/// The time after which mail for a full mailbox is tried again.
const MAIL_RETRY: Duration = Duration::from_millis(1);
/// The maximum number of connections that are sent to in one turn. A send takes some microseconds.
const SENDS_PER_TURN: usize = 1024;
/// The pause of accepting after an accept failed for lack of files or memory, or with an unknown
/// error, in milliseconds.
const ACCEPT_RETRY_MS: u64 = 100;
/// The minimum peak number of connections for which memory is returned to the system when fewer
/// than an eighth of the peak are left.
const SHRINK_THRESHOLD: usize = 1024;
/// The time that operations of connections torn down at the end of the drain have to complete, in
/// milliseconds.
const CUT_GRACE_MS: u64 = 500;

/// The parts of a [`Reactor`].
pub struct Parts<D> {
    /// The driver, created by the thread that runs the reactor.
    pub driver: D,
    /// The shard of this core.
    pub shard: Shard,
    /// The listening sockets of all cores, including those of this core.
    pub listeners: Vec<Listeners>,
    /// The maximum number of connections.
    pub connections: u32,
    /// The mailboxes to and from the other cores.
    pub mail: Mail,
    /// The queue to the control thread, if there is one.
    pub outbox: Option<Outbox>,
    /// The queue from the control thread, if this core has one.
    pub inbox: Option<Inbox>,
    /// The queues to and from the cluster's log, if there is one.
    pub cluster: Option<ClusterLink>,
    /// How long a shutdown lets connections finish, in milliseconds.
    pub drain_ms: u64,
    /// The counters of this core.
    pub counters: Arc<Counters>,
    /// The clock, whose start all reactors share.
    pub clock: Clock,
}

/// The reactor's state of a connection: which of its operations are in flight.
#[derive(Clone, Copy, Default)]
struct Conn {
    receiving: bool,
    /// Whether the current receive has delivered data since it was started.
    fed: bool,
    cancelling: bool,
    sending: bool,
    shutting: bool,
    shut: bool,
    eof: bool,
    /// Whether the connection is being dialled, so that it cannot receive or send yet.
    dialling: bool,
    /// Whether the connection waits for the completion of its operations, and is closed then.
    tearing: bool,
}

/// The event loop of one core. See the module's documentation.
pub struct Reactor<D> {
    driver: D,
    shard: Shard,
    accepts: Accepts,
    conns: Vec<Conn>,
    free: FreeList,
    /// Connections whose operations have changed in this turn.
    touched: Vec<Slot>,
    /// Connections whose receive found no free buffer. Their receives are started before any
    /// others, and those of light connections first: a receive can take all buffers.
    starved: VecDeque<Slot>,
    mail: Mail,
    outbox: Option<Outbox>,
    inbox: Option<Inbox>,
    cluster: Option<ClusterLink>,
    /// The queues to and from the other process of an upgrade.
    relay: Option<RelayLink>,
    /// The maximum number of connections since memory was last returned to the system.
    connections_peak: usize,
    relief: Relief,
    next_sweep: Deadline,
    stopping: Option<Deadline>,
    drain_ms: u64,
    counters: Arc<Counters>,
    clock: Clock,
    timing: Timing,
}

impl<D: Driver> Reactor<D> {
    /// Creates a reactor from its parts.
    pub fn new(parts: Parts<D>) -> Reactor<D> {
        Reactor {
            driver: parts.driver,
            shard: parts.shard,
            accepts: Accepts::new(parts.mail.core(), parts.listeners),
            conns: Vec::new(),
            free: FreeList::new(parts.connections),
            touched: Vec::new(),
            starved: VecDeque::new(),
            mail: parts.mail,
            outbox: parts.outbox,
            inbox: parts.inbox,
            cluster: parts.cluster,
            relay: None,
            connections_peak: 0,
            relief: Relief::default(),
            next_sweep: Deadline(0),
            stopping: None,
            drain_ms: parts.drain_ms,
            counters: parts.counters,
            clock: parts.clock,
            timing: Timing::default(),
        }
    }

    /// Runs until the server is stopped and drained.
    ///
    /// # Errors
    /// The driver fails to submit or to wait for completions.
    pub fn run(mut self) -> io::Result<()> {
        let mut done: Vec<Completion> = Vec::new();
        self.accepts.is_paused = self.mail.me().accepting.is_pause_asked();
        self.arm_accepts(self.clock.now());
        loop {
            let wait = self.park();
            self.driver.turn(wait, &mut done)?;
            self.mail.me().parking.retract();
            self.counters.turns.add(1);
            let (now, began_ns) = self.clock.read();
            self.counters.beat_ms.set(now.ms);
            self.take_answers(now);
            self.take_arrivals(now);
            for done in done.drain(..) {
                self.complete(done, now);
            }
            self.take_mail(now);
            if self.next_sweep.due(now) {
                self.sweep(now);
            }
            self.follow_pause(now);
            self.maintain_accepts(now);
            self.hand_over_mail(now);
            self.hand_over_channel_events(now);
            self.hand_over_proposals(now);
            self.hand_over_departures(now);
            self.flush(now);
            if self.shard.is_memory_scarce()
                && self.relief.is_due_while_scarce(self.shard.freed_bytes(), now)
            {
                self.give_memory_back();
            }
            if self.is_over(now) {
                self.drop_channel_events(now);
                return Ok(());
            }
            self.end_turn(began_ns, now);
        }
    }

    /// Records the duration of the turn, and logs a turn that took too long with the connection
    /// that has caused the most work in it.
    fn end_turn(&mut self, began_ns: u64, now: Now) {
        let ns = self.clock.elapsed_ns() - began_ns;
        let work = self.shard.work();
        let costliest = self.shard.take_costliest();
        let Some(long) = self.timing.ended(ns, work, &self.counters, now) else { return };
        let peer = self.shard.slot_at(costliest.index).and_then(|slot| self.shard.peer(slot));
        tracing::warn!(
            core = self.mail.core(),
            ms = ns / 1_000_000,
            peer = peer.map(tracing::field::display),
            operation = ?costliest.kind,
            operation_us = costliest.ns / 1000,
            more = long.suppressed,
            "a turn took too long; this connection caused the most expensive work in the turn"
        );
    }

    /// Determines how long the next turn may wait for completions. Announces that this core is
    /// about to sleep, so that other threads wake it.
    fn park(&mut self) -> Duration {
        if self.shard.has_listed() || self.shard.has_waiting_work() || !self.touched.is_empty() {
            return Duration::ZERO;
        }
        let retry = !self.shard.mail().is_empty()
            || !self.shard.takes_requests()
            || self.shard.has_channel_events()
            || self.shard.has_proposals()
            || self.is_relay_busy();
        self.mail.me().parking.announce();
        let stop_requested = self.stopping.is_none() && self.mail.me().stop.load(Ordering::SeqCst);
        let ordered = self.inbox.as_mut().is_some_and(Inbox::is_waiting);
        let ordered = ordered && self.shard.takes_commands();
        let arrived = self.cluster.as_mut().is_some_and(ClusterLink::is_waiting);
        let arrived = arrived || self.shard.is_visiting();
        let arrived = arrived || self.relay.as_mut().is_some_and(RelayLink::is_waiting);
        let ordered = ordered || arrived && self.shard.takes_requests();
        let is_offered = self.mail.me().relay.is_offered();
        let requested = stop_requested || self.is_pause_changed() || is_offered;
        if requested || ordered || self.mail.is_waiting(self.shard.takes_requests()) {
            self.mail.me().parking.retract();
            return Duration::ZERO;
        }
        if retry {
            return MAIL_RETRY;
        }
        let now = self.clock.now();
        let next = self.next_sweep.min(self.accepts.again).0;
        Duration::from_millis(next.saturating_sub(now.ms)).clamp(MAIL_RETRY, IDLE)
    }

    fn sweep(&mut self, now: Now) {
        if let Some(env) = self.mail.me().take_reloaded() {
            // The links are replaced with the configuration, so that no configuration is in force
            // whose links are missing.
            if let Some((outbox, inbox)) = self.mail.me().take_peer_links() {
                (self.outbox, self.inbox) = (Some(outbox), inbox);
            }
            self.shard.renew(env, now);
            self.counters.renewals.add(1);
        }
        self.shard.sweep(now);
        if self.shard.dials() {
            // Connections whose request needs no upstream have released the slot that was reserved
            // for one.
            self.arm_missing_accepts(now);
        }
        self.connections_peak = self.connections_peak.max(self.shard.len());
        let emptied = self.connections_peak >= SHRINK_THRESHOLD
            && self.shard.len() < self.connections_peak / 8;
        if emptied {
            self.connections_peak = self.shard.len();
            self.driver.drop_spares();
        }
        if self.relief.is_due(self.shard.freed_bytes(), now) || emptied {
            self.give_memory_back();
        }
        let busy = !self.shard.is_empty() || self.stopping.is_some();
        self.next_sweep = now.plus_ms(if busy { SWEEP_MS } else { IDLE.as_millis() as u64 });
        self.sweep_accepts(now);
        self.counters.channels.set(self.shard.channel_count() as u64);
    }

    fn give_memory_back(&mut self) {
        mem::give_back();
        self.counters.memory_given_back.add(1);
    }

    // --- stopping ---

    fn stop(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now.plus_ms(self.drain_ms));
        self.driver.cancel_accepts(self.accepts.places.len() as u32);
        self.next_sweep = Deadline(now.ms);
        self.shard.drain();
    }

    /// Whether a stopped reactor has finished: all cores are drained, or the deadline is over and
    /// the torn down connections are closed.
    fn is_over(&mut self, now: Now) -> bool {
        let Some(deadline) = self.stopping else { return false };
        if !self.accepts.are_in_flight() {
            // The sockets are closed only now: an accept in flight refers to the descriptor's
            // number.
            self.accepts.close();
        }
        let channel_events_sent = !self.shard.has_channel_events() && !self.shard.has_proposals();
        let is_gone = self.shard.is_empty() && self.open_conns() == 0;
        let idle = is_gone && channel_events_sent && self.accepts.are_closed();
        if self.mail.all_idle(idle) {
            return true;
        }
        if deadline.due(now) {
            for index in 0..self.conns.len() as u32 {
                if let Some(slot) = self.shard.slot_at(index) {
                    self.tear_down(slot);
                }
            }
            return idle || Deadline(deadline.0 + CUT_GRACE_MS).due(now);
        }
        false
    }

    fn open_conns(&self) -> usize {
        self.free.taken() - self.accepts.reserved()
    }

    // --- flushing ---

    fn flush(&mut self, now: Now) {
        self.dial(now);
        for slot in std::mem::take(&mut self.starved) {
            self.settle(slot, now);
        }
        // A broadcast to very many connections is sent in several turns, so that other connections
        // are read and accepted in between.
        let mut sends = 0;
        while sends < SENDS_PER_TURN
            && let Some(slot) = self.shard.next_listed()
        {
            sends += usize::from(self.settle(slot, now));
        }
        for slot in std::mem::take(&mut self.touched) {
            self.settle(slot, now);
        }
    }

    /// Prepares the next operations of a connection. Returns whether they include a send.
    fn settle(&mut self, slot: Slot, _now: Now) -> bool {
        let Some(wants) = self.shard.wants(slot) else { return false };
        let conn = &mut self.conns[slot.index as usize];
        if conn.tearing {
            return false;
        }
        if wants.ending == Ending::Cut {
            self.tear_down(slot);
            return false;
        }
        if conn.dialling {
            return false;
        }
        let mut sends = false;
        if !conn.sending
            && let Some(batch) = self.shard.take_batch(slot)
        {
            conn.sending = true;
            sends = true;
            self.driver.send(slot, batch);
        }
        if wants.ending == Ending::Flush && !conn.sending {
            if conn.eof {
                self.tear_down(slot);
                return sends;
            }
            if !conn.shut {
                conn.shut = true;
                conn.shutting = true;
                self.driver.shutdown(slot);
            }
        }
        if wants.read && !conn.receiving && !conn.eof {
            conn.receiving = true;
            conn.fed = false;
            self.driver.receive(slot);
        } else if !wants.read && conn.receiving && !conn.cancelling {
            conn.cancelling = true;
            self.driver.cancel_receive(slot);
        }
        sends
    }

    fn tear_down(&mut self, slot: Slot) {
        let conn = &mut self.conns[slot.index as usize];
        if conn.tearing {
            return;
        }
        conn.tearing = true;
        if conn.dialling {
            self.driver.cancel_connect(slot);
        }
        let conn = &self.conns[slot.index as usize];
        if conn.receiving && !conn.cancelling {
            self.driver.cancel_receive(slot);
        }
        if conn.sending {
            self.driver.cancel_send(slot);
        }
        self.shard.close(slot);
        self.close_when_quiet(slot);
    }

    fn close_when_quiet(&mut self, slot: Slot) {
        let conn = self.conns[slot.index as usize];
        let quiet = !conn.receiving && !conn.sending && !conn.shutting && !conn.dialling;
        if conn.tearing && quiet {
            self.driver.close(slot);
        }
    }
}
