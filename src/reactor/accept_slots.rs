//! The accepts of one core, each with the listener and the core that it accepts for.

use crate::time::Deadline;
use socket2::Socket;
use std::sync::Arc;

/// The maximum number of accepts in flight for each listener.
pub const ACCEPTS_PER_LISTENER: u32 = 32;
/// The maximum number of accepts in flight for each listener on sockets of cores that have no room,
/// if there are other cores.
pub const ACCEPTS_FOR_OTHERS: u32 = 8;
/// A listening socket, which several cores may accept from.
#[derive(Clone, Debug)]
pub struct ListenSocket {
    /// The listener's position in the configuration.
    pub listener: usize,
    /// The socket.
    pub socket: Arc<Socket>,
}

/// The listening sockets of one core: one or more for each listener.
pub type Listeners = Vec<ListenSocket>;

/// A place for one accept in flight.
#[derive(Clone, Copy)]
pub(super) struct AcceptSlot {
    /// The position of the listening socket in the list of its core.
    pub(super) number: usize,
    /// Whether the place is for sockets of other cores.
    pub(super) for_others: bool,
    /// The core on whose socket the accept in flight is.
    pub(super) core: u16,
    /// The direct descriptor for the next connection, taken from the free list.
    pub(super) file: Option<u32>,
    pub(super) in_flight: bool,
}

/// The accepts of one core.
pub(super) struct Accepts {
    pub(super) places: Vec<AcceptSlot>,
    /// The listening sockets of this core.
    pub(super) own: Listeners,
    /// The listening sockets of all cores.
    pub(super) all: Vec<Listeners>,
    /// The number of accepts in flight on this core's own sockets, by socket.
    pub(super) armed: Vec<usize>,
    /// The number of all accepts in flight.
    pub(super) in_flight: usize,
    /// When accepting continues after an accept failed for lack of files or memory.
    pub(super) again: Deadline,
    /// Whether accepting is postponed for lack of files or memory. It continues at once when a
    /// connection of this core is closed.
    pub(super) lacks_file: bool,
    /// The earliest time of the next log line about that.
    pub(super) next_log: Deadline,
    /// Whether a listener of this core lacks an accept because all connection slots are taken.
    pub(super) no_slot: bool,
    /// Whether accepting is paused: another process is about to accept from the sockets.
    pub(super) is_paused: bool,
    /// Whether accepting is held back because too many connections have not sent a whole request.
    pub(super) held: bool,
}

impl Accepts {
    /// Creates the places for accepts of the core `core`; `all` are the listening sockets of all
    /// cores.
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
        let max = all.iter().map(Vec::len).max().unwrap_or(0);
        for _ in 0..if all.len() > 1 { ACCEPTS_FOR_OTHERS } else { 0 } {
            places.extend((0..max).map(|number| place(number, true)));
        }
        let armed = vec![0; own.len()];
        Accepts {
            places,
            own,
            all,
            armed,
            in_flight: 0,
            again: Deadline::NEVER,
            lacks_file: false,
            next_log: Deadline(0),
            no_slot: false,
            is_paused: false,
            held: false,
        }
    }

    /// The socket from which the place accepts, if there is one.
    pub(super) fn socket_of(&self, at: usize) -> Option<&ListenSocket> {
        let place = &self.places[at];
        match place.for_others {
            false => self.own.get(place.number),
            true => self.all.get(usize::from(place.core)).and_then(|own| own.get(place.number)),
        }
    }

    /// Whether accepts are in flight.
    pub(super) fn are_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Drops this core's references to the sockets. A socket is closed when no other core uses it.
    pub(super) fn close(&mut self) {
        self.own.clear();
        self.all.clear();
    }

    pub(super) fn are_closed(&self) -> bool {
        self.own.is_empty()
    }

    /// Notes that the accept at this place has completed.
    pub(super) fn accept_ended(&mut self, at: usize) {
        let place = &mut self.places[at];
        place.in_flight = false;
        self.in_flight -= 1;
        if !place.for_others {
            self.armed[place.number] -= 1;
        }
    }

    /// The number of descriptors reserved for connections that are not accepted yet.
    pub(super) fn reserved(&self) -> usize {
        self.places.iter().filter(|place| place.file.is_some()).count()
    }
}
