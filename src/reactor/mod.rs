//! The loop of one core: the only place that holds a ring and a shard together.
//!
//! A turn hands prepared operations over and reaps every completion, then runs them, takes the
//! other cores' mail, and at its end flushes each connection once: one vectored send points
//! straight into the shared frames. Nothing is sent in the middle of a turn.

mod complete;
mod dial;
mod inbox;
mod mail;
mod outbox;
mod relief;

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
use relief::Relief;
use socket2::Socket;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Accepts in flight for each listener.
pub const ACCEPTS_PER_LISTENER: u32 = 32;
/// Time between sweeps of deadlines: the grain of every time-out.
const SWEEP_MS: u64 = 250;
/// How long an idle core sleeps at most; a lost wake-up costs no more than this.
const IDLE: Duration = Duration::from_secs(1);
/// How soon mail that found a full mailbox is tried again.
const MAIL_RETRY: Duration = Duration::from_millis(1);
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
    /// Its listening sockets.
    pub listeners: Vec<Socket>,
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

/// An IPv4 address, or the 64-bit network of an IPv6 one: whoever has one address of such a
/// network has them all.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
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

/// One place for an accept in flight.
#[derive(Clone, Copy)]
struct Place {
    listener: RawFd,
    /// Its place in the configuration.
    number: usize,
    /// The direct descriptor that the next connection gets, taken from the free ones.
    file: Option<u32>,
    in_flight: bool,
}

/// See the module's documentation.
pub struct Reactor {
    ring: Ring,
    shard: Shard,
    listeners: Vec<Socket>,
    places: Vec<Place>,
    /// When accepts that found no file are tried again.
    accept_again: Deadline,
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
}

impl Reactor {
    /// Puts a reactor together.
    pub fn new(parts: Parts) -> Reactor {
        let mut places = Vec::new();
        for _ in 0..ACCEPTS_PER_LISTENER {
            let place = |(number, listener): (usize, &Socket)| Place {
                listener: listener.as_raw_fd(),
                number,
                file: None,
                in_flight: false,
            };
            places.extend(parts.listeners.iter().enumerate().map(place));
        }
        Reactor {
            ring: parts.ring,
            shard: parts.shard,
            listeners: parts.listeners,
            places,
            accept_again: Deadline::NEVER,
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
        }
    }

    /// Runs until the server is stopped and drained.
    pub fn run(mut self) -> io::Result<()> {
        let mut done: Vec<Completion> = Vec::new();
        self.arm_accepts();
        loop {
            let wait = self.park();
            self.ring.turn(wait, &mut done)?;
            self.mail.me().parking.retract();
            self.counters.turns.add(1);
            let now = self.clock.now();
            for done in done.drain(..) {
                self.complete(done, now);
            }
            self.take_mail(now);
            if self.next_sweep.due(now) {
                self.sweep(now);
            }
            if self.accept_again.due(now) {
                self.accept_again = Deadline::NEVER;
                self.arm_accepts();
            }
            self.hand_over_mail(now);
            self.hand_over_notices(now);
            self.flush(now);
            if self.is_over(now) {
                self.drop_notices(now);
                return Ok(());
            }
        }
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
        let next = self.next_sweep.min(self.accept_again).0;
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
            self.arm_missing_accepts();
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
        self.counters.channels.set(self.shard.channel_count() as u64);
    }

    // --- accepting ---

    fn arm_accepts(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        for at in 0..self.places.len() {
            self.arm_accept(at);
        }
    }

    fn arm_accept(&mut self, at: usize) {
        let place = &mut self.places[at];
        if place.in_flight || self.stopping.is_some() || self.accept_again != Deadline::NEVER {
            return;
        }
        let listener = place.listener;
        let is_armed = |place: &&Place| place.in_flight && place.listener == listener;
        let armed = self.places.iter().filter(is_armed).count();
        if !self.leaves_room_for_dials() {
            self.counters.accept_no_slot.add(u64::from(armed == 0));
            return;
        }
        // An accept in flight holds a descriptor: of the last ones, each listener gets its share.
        if armed > 0 && armed >= self.free.left() / self.listeners.len().max(1) {
            return;
        }
        let place = &mut self.places[at];
        place.file = place.file.or_else(|| self.free.take());
        let Some(file) = place.file else {
            self.counters.accept_no_slot.add(1);
            return;
        };
        place.in_flight = true;
        self.ring.accept(at as u32, place.listener, file);
    }

    /// Whether, after one more accept, whoever is let in or has not asked yet can be dialled for,
    /// where there are proxies.
    fn leaves_room_for_dials(&self) -> bool {
        let armed = || self.places.iter().filter(|place| place.in_flight).count();
        !self.shard.dials() || self.free.left() >= armed() + self.shard.fresh() + 2
    }

    /// Arms one more accept for each listener that lacks one, now that a descriptor is free.
    fn arm_missing_accepts(&mut self) {
        for at in 0..self.listeners.len() {
            let listener = self.listeners[at].as_raw_fd();
            let is_idle = |place: &Place| !place.in_flight && place.listener == listener;
            if let Some(at) = self.places.iter().position(is_idle) {
                self.arm_accept(at);
            }
        }
    }

    // --- stopping ---

    fn stop(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now.plus_ms(self.drain_ms));
        self.ring.cancel_accepts(self.places.len() as u32);
        self.next_sweep = Deadline(now.ms);
        self.shard.drain();
    }

    /// Whether a stopped reactor has nothing left to do: all connections everywhere are through,
    /// or time is up and what had to be cut is closed.
    fn is_over(&mut self, now: Now) -> bool {
        let Some(deadline) = self.stopping else { return false };
        if self.places.iter().all(|place| !place.in_flight) {
            // Closed only now: an accept in flight holds the descriptor's number.
            self.listeners.clear();
        }
        let notices_sent = !self.shard.has_notices();
        let is_gone = self.shard.is_empty() && self.open_conns() == 0;
        let idle = is_gone && notices_sent && self.listeners.is_empty();
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
        let reserved = self.places.iter().filter(|place| place.file.is_some()).count();
        self.free.taken() - reserved
    }

    // --- flushing ---

    fn flush(&mut self, now: Now) {
        self.dial(now);
        for slot in std::mem::take(&mut self.starved) {
            self.settle(slot, now);
        }
        while let Some(slot) = self.shard.next_listed() {
            self.settle(slot, now);
        }
        for slot in std::mem::take(&mut self.touched) {
            self.settle(slot, now);
        }
    }

    /// Prepares whatever the connection needs next.
    fn settle(&mut self, slot: Slot, _now: Now) {
        let Some(wants) = self.shard.wants(slot) else { return };
        let conn = &mut self.conns[slot.index as usize];
        if conn.tearing {
            return;
        }
        if wants.ending == Ending::Cut {
            return self.tear_down(slot);
        }
        if conn.dialling {
            return;
        }
        if !conn.sending
            && let Some(batch) = self.shard.take_batch(slot)
        {
            conn.sending = true;
            self.ring.send(slot, batch);
        }
        if wants.ending == Ending::Flush && !conn.sending {
            if conn.eof {
                return self.tear_down(slot);
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
