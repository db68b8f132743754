//! The loop of one core: the only place that holds a ring and a shard together.
//!
//! A turn hands prepared operations over and reaps every completion, then runs them, takes the
//! other cores' mail, and at its end flushes each connection once: one vectored send points
//! straight into the shared frames. Nothing is sent in the middle of a turn.

mod accepts;
mod complete;
mod dial;
mod inbox;
mod mail;
mod outbox;
mod relief;
mod timing;

pub use accepts::{ACCEPTS_FOR_OTHERS, ACCEPTS_PER_LISTENER, Listeners};
pub use inbox::{CommandSender, Inbox, ReactorCommand, orders};
pub use mail::{Mail, PeerLinks, Peers, wire};
pub use outbox::Outbox;

use crate::mem::{self, FreeList, Slot};
use crate::session::Ending;
use crate::shard::Shard;
use crate::stats::Counters;
use crate::time::{Deadline, Now};
use crate::uring::sys::Clock;
use crate::uring::{Completion, Ring};
use crate::work::network;
use accepts::Accepts;
use relief::Relief;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use timing::Timing;

/// Time between sweeps of deadlines: the grain of every time-out.
const SWEEP_MS: u64 = 250;
/// How long an idle core sleeps at most; a lost wake-up costs no more than this.
const IDLE: Duration = Duration::from_secs(1);
/// How soon mail that found a full mailbox is tried again.
const MAIL_RETRY: Duration = Duration::from_millis(1);
/// Connections that are sent to in one turn: a send costs some microseconds.
const SENDS_PER_TURN: usize = 1024;
/// How long accepting waits when there was no file left.
const ACCEPT_RETRY_MS: u64 = 100;
/// Connections that are worth giving memory back for when most of them have left.
const SHRINK_THRESHOLD: usize = 1024;
/// How long the operations of connections that are cut at the end have to come back.
const CUT_GRACE_MS: u64 = 500;

/// What a reactor is made of.
pub struct Parts {
    /// Its ring, made by the thread that runs the reactor.
    pub ring: Ring,
    /// Its shard.
    pub shard: Shard,
    /// The listening sockets of all cores, its own among them.
    pub listeners: Vec<Listeners>,
    /// Connections that it holds at most.
    pub connections: u32,
    /// Mail to and from the other cores.
    pub mail: Mail,
    /// The way to the control thread, if there is one.
    pub outbox: Option<Outbox>,
    /// The way from it.
    pub inbox: Option<Inbox>,
    /// Connections by address, and how many one may have; 0 is any number.
    pub addresses: Arc<Addresses>,
    /// How long a shutdown lets connections finish, in milliseconds.
    pub drain_ms: u64,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// The clock, whose start all reactors share.
    pub clock: Clock,
}

/// Open connections by address, over all cores. Touched when a connection opens or ends, and only
/// where there is a limit.
#[derive(Debug, Default)]
pub struct Addresses {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    /// At most `max` connections of one address; 0 is any number.
    pub fn new(max: usize) -> Addresses {
        Addresses { max, open: Mutex::default() }
    }

    fn enter(&self, address: IpAddr) -> bool {
        if self.max == 0 {
            return true;
        }
        let Ok(mut open) = self.open.lock() else { return true };
        let count = open.entry(network(address)).or_insert(0);
        let admitted = *count < self.max;
        *count += usize::from(admitted);
        admitted
    }

    fn leave(&self, address: IpAddr) {
        if self.max == 0 {
            return;
        }
        let Ok(mut open) = self.open.lock() else { return };
        let address = network(address);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

/// The loop's own view of a connection: what is in flight for it.
#[derive(Clone, Copy, Default)]
struct Conn {
    receiving: bool,
    /// Has got something since its receive was armed.
    fed: bool,
    cancelling: bool,
    sending: bool,
    shutting: bool,
    shut: bool,
    eof: bool,
    /// Is dialled: there is nothing to receive from or to send to yet.
    dialling: bool,
    /// Waits for its operations to come back, then is closed.
    tearing: bool,
    /// Counted in `Addresses`.
    admitted: bool,
}

/// See the module's documentation.
pub struct Reactor {
    ring: Ring,
    shard: Shard,
    accepts: Accepts,
    conns: Vec<Conn>,
    free: FreeList,
    /// Connections whose operations have changed in this turn.
    touched: Vec<Slot>,
    /// Connections whose receive found no buffer at all: armed before any other.
    starved: Vec<Slot>,
    mail: Mail,
    outbox: Option<Outbox>,
    inbox: Option<Inbox>,
    addresses: Arc<Addresses>,
    /// Most connections since memory was given back to the system.
    connections_peak: usize,
    relief: Relief,
    next_sweep: Deadline,
    stopping: Option<Deadline>,
    drain_ms: u64,
    counters: Arc<Counters>,
    clock: Clock,
    timing: Timing,
}

impl Reactor {
    /// Puts a reactor together.
    pub fn new(parts: Parts) -> Reactor {
        Reactor {
            ring: parts.ring,
            shard: parts.shard,
            accepts: Accepts::new(parts.mail.core(), parts.listeners),
            conns: Vec::new(),
            free: FreeList::new(parts.connections),
            touched: Vec::new(),
            starved: Vec::new(),
            mail: parts.mail,
            outbox: parts.outbox,
            inbox: parts.inbox,
            addresses: parts.addresses,
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
    pub fn run(mut self) -> io::Result<()> {
        let mut done: Vec<Completion> = Vec::new();
        self.arm_accepts(self.clock.now());
        loop {
            let wait = self.park();
            self.ring.turn(wait, &mut done)?;
            self.mail.me().parking.retract();
            self.counters.turns.add(1);
            let (now, began_ns) = self.clock.read();
            self.counters.beat_ms.set(now.ms);
            for done in done.drain(..) {
                self.complete(done, now);
            }
            self.take_mail(now);
            if self.next_sweep.due(now) {
                self.sweep(now);
            }
            self.tend_accepts(now);
            self.hand_over_mail(now);
            self.hand_over_notices(now);
            self.flush(now);
            if self.is_over(now) {
                self.drop_notices(now);
                return Ok(());
            }
            self.end_turn(began_ns, now);
        }
    }

    /// Notes how long the turn has taken, and names whoever has asked for most if it was too long.
    fn end_turn(&mut self, began_ns: u64, now: Now) {
        let ns = self.clock.elapsed_ns() - began_ns;
        let work = self.shard.work();
        let dearest = self.shard.take_dearest();
        let Some(long) = self.timing.ended(ns, work, &self.counters, now) else { return };
        let peer = self.shard.slot_at(dearest.index).and_then(|slot| self.shard.peer(slot));
        tracing::warn!(
            core = self.mail.core(),
            ms = ns / 1_000_000,
            peer = peer.map(tracing::field::display),
            operation = ?dearest.kind,
            operation_us = dearest.ns / 1000,
            more = long.unsaid,
            "a turn took long; what this connection asked for was the dearest in it"
        );
    }

    /// How long the next turn may wait. Once this core has said that it sleeps, others wake it.
    fn park(&mut self) -> Duration {
        if self.shard.has_listed() || self.shard.is_restless() || !self.touched.is_empty() {
            return Duration::ZERO;
        }
        let retry = !self.shard.mail().is_empty()
            || !self.shard.takes_requests()
            || self.shard.has_notices();
        self.mail.me().parking.announce();
        let stop_requested = self.stopping.is_none() && self.mail.me().stop.load(Ordering::SeqCst);
        let ordered = self.inbox.as_mut().is_some_and(Inbox::is_waiting);
        let ordered = ordered && self.shard.takes_orders();
        if stop_requested || ordered || self.mail.is_waiting(self.shard.takes_requests()) {
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
        if let Some(env) = self.mail.me().take_renewed() {
            // Behind the configuration, so that none is in force whose ways are not there.
            if let Some((outbox, inbox)) = self.mail.me().take_peer_links() {
                (self.outbox, self.inbox) = (Some(outbox), inbox);
            }
            self.shard.renew(env, now);
            self.counters.renewals.add(1);
        }
        self.shard.sweep(now);
        if self.shard.dials() {
            // Who has turned out not to be dialled for leaves room for others.
            self.arm_missing_accepts(now);
        }
        self.connections_peak = self.connections_peak.max(self.shard.len());
        let emptied = self.connections_peak >= SHRINK_THRESHOLD
            && self.shard.len() < self.connections_peak / 8;
        if emptied {
            self.connections_peak = self.shard.len();
            self.ring.drop_spares();
        }
        if self.relief.is_due(self.shard.freed_bytes(), now) || emptied {
            mem::give_back();
            self.counters.memory_given_back.add(1);
        }
        let busy = !self.shard.is_empty() || self.stopping.is_some();
        self.next_sweep = now.plus_ms(if busy { SWEEP_MS } else { IDLE.as_millis() as u64 });
        self.sweep_accepts(now);
        self.counters.channels.set(self.shard.channel_count() as u64);
    }

    // --- stopping ---

    fn stop(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now.plus_ms(self.drain_ms));
        self.ring.cancel_accepts(self.accepts.places.len() as u32);
        self.next_sweep = Deadline(now.ms);
        self.shard.drain();
    }

    /// Whether a stopped reactor has nothing left to do: all connections everywhere are through,
    /// or time is up and what had to be cut is closed.
    fn is_over(&mut self, now: Now) -> bool {
        let Some(deadline) = self.stopping else { return false };
        if !self.accepts.are_in_flight() {
            // Closed only now: an accept in flight holds the descriptor's number.
            self.accepts.close();
        }
        let notices_sent = !self.shard.has_notices();
        let is_gone = self.shard.is_empty() && self.open_conns() == 0;
        let idle = is_gone && notices_sent && self.accepts.are_closed();
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
        // A broadcast to very many connections leaves in several turns, between which others are
        // read from and accepted.
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

    /// Prepares whatever the connection needs next; says whether that has a send in it.
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
            self.ring.send(slot, batch);
        }
        if wants.ending == Ending::Flush && !conn.sending {
            if conn.eof {
                self.tear_down(slot);
                return sends;
            }
            if !conn.shut {
                conn.shut = true;
                conn.shutting = true;
                self.ring.shutdown(slot);
            }
        }
        if wants.read && !conn.receiving && !conn.eof {
            conn.receiving = true;
            conn.fed = false;
            self.ring.receive(slot);
        } else if !wants.read && conn.receiving && !conn.cancelling {
            conn.cancelling = true;
            self.ring.cancel_receive(slot);
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
            self.ring.cancel_connect(slot);
        }
        let conn = &self.conns[slot.index as usize];
        if conn.receiving && !conn.cancelling {
            self.ring.cancel_receive(slot);
        }
        if conn.sending {
            self.ring.cancel_send(slot);
        }
        if conn.admitted
            && let Some(peer) = self.shard.peer(slot)
        {
            self.addresses.leave(peer.ip());
        }
        self.shard.close(slot);
        self.close_when_quiet(slot);
    }

    fn close_when_quiet(&mut self, slot: Slot) {
        let conn = self.conns[slot.index as usize];
        let quiet = !conn.receiving && !conn.sending && !conn.shutting && !conn.dialling;
        if conn.tearing && quiet {
            self.ring.close(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_an_ipv6_network_as_one() {
        let addresses = Addresses::new(2);
        let enter = |text: &str| addresses.enter(text.parse().expect(text));
        assert!(enter("2001:db8:0:1::1") && enter("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert!(!enter("2001:db8:0:1::2"), "a third one of the same 64 bits");
        assert!(enter("2001:db8:0:2::1"), "the next network");
        assert!(enter("10.0.0.1") && enter("10.0.0.1") && !enter("10.0.0.1"));
        assert!(enter("10.0.0.2"), "each address of IPv4 is one");
        addresses.leave("2001:db8:0:1::9".parse().expect("an address"));
        assert!(enter("2001:db8:0:1::2") && !enter("2001:db8:0:1::2"));
    }
}
