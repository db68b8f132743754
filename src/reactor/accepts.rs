//! Accepting: accepts in flight for each listener, also for cores that have no room.

use super::{Reactor, SWEEP_MS};
use crate::time::{Deadline, Now};
use socket2::Socket;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Accepts in flight for each listener.
pub const ACCEPTS_PER_LISTENER: u32 = 32;
/// Accepts in flight for each listener on the sockets of cores that have no room, if there are
/// other cores.
pub const ACCEPTS_FOR_OTHERS: u32 = 8;
/// Idle connections of HTTP that make room at once at least, when there is none.
const IDLE_CLOSED: usize = 32;

/// The listening sockets of one core, by the listener's number.
pub type Listeners = Vec<Arc<Socket>>;

/// One place for an accept in flight.
#[derive(Clone, Copy)]
pub(super) struct AcceptSlot {
    /// The listener's place in the configuration.
    pub(super) number: usize,
    /// Whether it is for sockets of other cores; and of which the accept in flight is.
    for_others: bool,
    core: u16,
    /// The direct descriptor that the next connection gets, taken from the free ones.
    pub(super) file: Option<u32>,
    pub(super) in_flight: bool,
}

/// What a core knows of its accepts.
pub(super) struct Accepts {
    pub(super) places: Vec<AcceptSlot>,
    /// The sockets of this core, and those of all cores.
    own: Listeners,
    all: Vec<Listeners>,
    /// Accepts of this core's own sockets in flight, by listener; and all that are in flight.
    armed: Vec<usize>,
    in_flight: usize,
    /// When accepts that found no file are tried again.
    pub(super) again: Deadline,
    /// A socket of this core lacks an accept because there are no places, or because too many
    /// connections have not sent a whole request.
    no_slot: bool,
    held: bool,
}

impl Accepts {
    /// Accepts for core `core` of all cores' sockets.
    pub(super) fn new(core: u16, all: Vec<Listeners>) -> Accepts {
        let own = all.get(usize::from(core)).cloned().unwrap_or_default();
        let place = |number, for_others| AcceptSlot {
            number,
            for_others,
            core,
            file: None,
            in_flight: false,
        };
        let numbers = 0..own.len();
        let mut places = Vec::new();
        for _ in 0..ACCEPTS_PER_LISTENER {
            places.extend(numbers.clone().map(|number| place(number, false)));
        }
        for _ in 0..if all.len() > 1 { ACCEPTS_FOR_OTHERS } else { 0 } {
            places.extend(numbers.clone().map(|number| place(number, true)));
        }
        let armed = vec![0; own.len()];
        let again = Deadline::NEVER;
        Accepts { places, own, all, armed, in_flight: 0, again, no_slot: false, held: false }
    }

    /// Whether accepts are in flight.
    pub(super) fn are_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Closes the sockets, as soon as no other core uses them.
    pub(super) fn close(&mut self) {
        self.own.clear();
        self.all.clear();
    }

    pub(super) fn are_closed(&self) -> bool {
        self.own.is_empty()
    }

    /// The accept at this place has come back.
    pub(super) fn came_back(&mut self, at: usize) {
        let place = &mut self.places[at];
        place.in_flight = false;
        self.in_flight -= 1;
        if !place.for_others {
            self.armed[place.number] -= 1;
        }
    }

    /// Descriptors that are taken for connections to come.
    pub(super) fn reserved(&self) -> usize {
        self.places.iter().filter(|place| place.file.is_some()).count()
    }
}

impl Reactor {
    pub(super) fn arm_accepts(&mut self, now: Now) {
        (self.accepts.no_slot, self.accepts.held) = (false, false);
        for at in 0..self.accepts.places.len() {
            if !self.accepts.places[at].for_others {
                self.arm_accept(at, now);
            }
        }
        self.say_full();
    }

    pub(super) fn arm_accept(&mut self, at: usize, now: Now) {
        if self.stopping.is_some() || self.accepts.again != Deadline::NEVER {
            return;
        }
        let AcceptSlot { number, for_others, core, in_flight, .. } = self.accepts.places[at];
        let listener = match for_others {
            false => self.accepts.own.get(number),
            true => self.accepts.all.get(usize::from(core)).and_then(|own| own.get(number)),
        };
        let Some(listener) = listener.map(|socket| socket.as_raw_fd()) else { return };
        if !in_flight && self.has_room(at, now) {
            self.arm(at, listener);
        }
    }

    /// Whether one more accept may be in flight at that place.
    fn has_room(&mut self, at: usize, now: Now) -> bool {
        let place = self.accepts.places[at];
        let armed = match place.for_others {
            false => self.accepts.armed[place.number],
            true => 1,
        };
        if !self.may_take_newcomers(now) {
            self.accepts.held = true;
            return false;
        }
        // An accept in flight holds a descriptor: of the last ones, each listener gets its share.
        if armed > 0 && armed >= self.free.left() / self.accepts.own.len().max(1) {
            return false;
        }
        if !self.leaves_room_for_dials() || self.free.left() == 0 && place.file.is_none() {
            if armed == 0 {
                self.accepts.no_slot = true;
                self.counters.accept_no_slot.add(1);
            }
            return false;
        }
        true
    }

    /// Whether one more newcomer may come, beside those for which accepts are in flight.
    fn may_take_newcomers(&mut self, now: Now) -> bool {
        match self.shard.handshakes_left() {
            0 => self.shard.takes_newcomers(now),
            left => self.accepts.in_flight < left,
        }
    }

    fn arm(&mut self, at: usize, listener: RawFd) {
        let place = &mut self.accepts.places[at];
        place.file = place.file.or_else(|| self.free.take());
        let Some(file) = place.file else { return };
        place.in_flight = true;
        self.accepts.in_flight += 1;
        if !place.for_others {
            self.accepts.armed[place.number] += 1;
        }
        self.ring.accept(at as u32, listener, file);
    }

    /// Whether, after one more accept, whoever is let in or has not asked yet can be dialled for,
    /// where there are proxies.
    fn leaves_room_for_dials(&self) -> bool {
        let armed = self.accepts.in_flight;
        !self.shard.dials() || self.free.left() >= armed + self.shard.fresh() + 2
    }

    /// Arms one more accept for each listener that lacks one, now that a descriptor is free.
    pub(super) fn arm_missing_accepts(&mut self, now: Now) {
        for number in 0..self.accepts.own.len() {
            let is_idle = |it: &AcceptSlot| !it.in_flight && !it.for_others && it.number == number;
            if let Some(at) = self.accepts.places.iter().position(is_idle) {
                self.arm_accept(at, now);
            }
        }
        let lacks = self.accepts.armed.contains(&0);
        self.accepts.no_slot &= lacks;
        self.say_full();
    }

    /// Call once a turn: accepts that waited are armed when what they waited for has come.
    pub(super) fn tend_accepts(&mut self, now: Now) {
        if self.accepts.again.due(now) {
            self.accepts.again = Deadline::NEVER;
            self.arm_accepts(now);
        } else if self.accepts.held && self.may_take_newcomers(now) {
            self.arm_accepts(now);
        }
    }

    /// Call a few times a second: makes room where there is none, and helps others that have none.
    pub(super) fn sweep_accepts(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        if self.accepts.no_slot && self.accepts.armed.contains(&0) {
            self.shard.close_idle(IDLE_CLOSED.max(self.shard.len() / 32));
        }
        if self.accepts.held {
            // Somebody may have had the time that everybody has.
            self.next_sweep = self.next_sweep.min(now.plus_ms(SWEEP_MS));
        }
        self.say_full();
        if self.is_full() {
            return;
        }
        let me = self.mail.core();
        let mut full = self.mail.full_cores(me).peekable();
        if full.peek().is_none() {
            return;
        }
        let full: Vec<u16> = full.collect();
        let mut next = full.iter().cycle();
        for at in 0..self.accepts.places.len() {
            let place = &mut self.accepts.places[at];
            if place.for_others && !place.in_flight {
                place.core = *next.next().unwrap_or(&me);
                self.arm_accept(at, now);
            }
        }
    }

    /// An accept for another core has come back: whether that core still has no room.
    pub(super) fn still_helps(&self, at: usize) -> bool {
        let place = self.accepts.places[at];
        !place.for_others || self.mail.peer(place.core).full.load(Ordering::Relaxed)
    }

    /// Counts a connection that was accepted for another core.
    pub(super) fn count_help(&self, at: usize) {
        let place = self.accepts.places[at];
        self.counters.accepted_for_others.add(place.for_others.into());
    }

    /// Whether a listener of this core has no accept in flight because there is no room.
    fn is_full(&self) -> bool {
        (self.accepts.no_slot || self.accepts.held) && self.accepts.armed.contains(&0)
    }

    /// Others accept from the sockets of a core that has no room.
    fn say_full(&self) {
        let full = self.is_full() && self.stopping.is_none();
        let mine = &self.mail.me().full;
        if mine.load(Ordering::Relaxed) != full {
            mine.store(full, Ordering::Relaxed);
            self.counters.accept_handshakes.add((full && self.accepts.held).into());
        }
    }
}
