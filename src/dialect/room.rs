//! The connections of one application on all cores of this process, and the maximum number.
//!
//! Without a cluster the maximum is `limits.connections`. In a cluster that is the maximum of all
//! nodes together, so a node reserves a part of it in the log, and admits connections within that
//! part. A connection that finds nothing reserved waits until the node has reserved more, or knows
//! that all of it is in use. What is reserved holds until a time, after which other nodes may have
//! declared this one dead and use its part.

use crate::mem::Notifier;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The maximum number of connections of one application that wait, on all cores.
const MAX_WAITING: u32 = 1024;

/// Whether a new connection is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is, and counts.
    Admitted,
    /// The application has its maximum number of connections.
    Full,
    /// That is not known yet. The connection counts as one that waits.
    Waits,
    /// That is not known yet, and too many connections wait for it.
    TooManyWait,
}

/// What all applications have in common.
#[derive(Debug, Default)]
pub(super) struct AllRooms {
    /// The number of connections of all applications, on all cores.
    pub(super) open: AtomicUsize,
    /// Whether an application may need more connections than are reserved.
    is_asked: AtomicBool,
    /// Wakes the thread that reserves connections.
    notifier: OnceLock<Notifier>,
}

impl AllRooms {
    /// Wakes the thread of this notifier when more is to be reserved. Later calls change nothing.
    pub(super) fn attach(&self, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
    }

    /// Whether more may have to be reserved, since the last call.
    pub(super) fn take_asked(&self) -> bool {
        self.is_asked.swap(false, Ordering::AcqRel)
    }

    fn ask(&self) {
        if !self.is_asked.swap(true, Ordering::AcqRel)
            && let Some(notifier) = self.notifier.get()
        {
            notifier.notify();
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ConnectionRoom {
    /// The number of open connections and, in the high 32 bits, the number of those that are
    /// reserved: in one word, so that no connection is admitted while the reserved number falls.
    counts: AtomicU64,
    /// Until when connections are admitted within the reserved number, in milliseconds.
    until_ms: AtomicU64,
    waiting: AtomicU32,
    /// The number of open connections from which on more is to be reserved.
    ask_from: AtomicU32,
    /// Whether the whole maximum is known to be in use.
    is_full: AtomicBool,
}

impl Default for ConnectionRoom {
    fn default() -> ConnectionRoom {
        ConnectionRoom {
            counts: AtomicU64::new(0),
            until_ms: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            ask_from: AtomicU32::new(u32::MAX),
            is_full: AtomicBool::new(false),
        }
    }
}

fn open_of(counts: u64) -> u32 {
    counts as u32
}

fn reserved_of(counts: u64) -> u32 {
    (counts >> 32) as u32
}

impl ConnectionRoom {
    /// Counts one more connection, of at most `max`; false if there are so many.
    pub(super) fn admit(&self, max: usize) -> bool {
        let step = |counts: u64| ((open_of(counts) as usize) < max).then(|| counts.wrapping_add(1));
        self.counts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
    }

    /// Counts one more connection if one is reserved for it and no other waits; else it waits.
    pub(super) fn admit_reserved(&self, all: &AllRooms, now_ms: u64) -> Admission {
        if self.waiting.load(Ordering::Relaxed) == 0 && self.take(all, now_ms) {
            return Admission::Admitted;
        }
        let step = |waiting: u32| (waiting < MAX_WAITING).then_some(waiting + 1);
        let waits = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Relaxed, step).is_ok();
        all.ask();
        if waits { Admission::Waits } else { Admission::TooManyWait }
    }

    /// Counts a connection that has waited, if one is reserved for it.
    pub(super) fn admit_waiting(&self, all: &AllRooms, now_ms: u64) -> bool {
        let is_admitted = self.take(all, now_ms);
        if is_admitted {
            self.stop_waiting();
        }
        is_admitted
    }

    /// Counts one connection less that waits.
    pub(super) fn stop_waiting(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    fn take(&self, all: &AllRooms, now_ms: u64) -> bool {
        if now_ms > self.until_ms.load(Ordering::Acquire) {
            return false;
        }
        let step = |counts: u64| (open_of(counts) < reserved_of(counts)).then(|| counts + 1);
        let Ok(before) = self.counts.fetch_update(Ordering::AcqRel, Ordering::Relaxed, step) else {
            return false;
        };
        if open_of(before) + 1 >= self.ask_from.load(Ordering::Relaxed) {
            all.ask();
        }
        true
    }

    /// Counts one connection less.
    pub(super) fn release(&self, all: &AllRooms) {
        self.counts.fetch_sub(1, Ordering::AcqRel);
        if self.waiting.load(Ordering::Acquire) > 0 {
            all.ask();
        }
    }

    /// The number of open connections.
    pub(super) fn open(&self) -> u32 {
        open_of(self.counts.load(Ordering::Acquire))
    }

    /// The number of connections that wait.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Acquire)
    }

    /// The number of connections that are reserved.
    pub(super) fn reserved(&self) -> u32 {
        reserved_of(self.counts.load(Ordering::Acquire))
    }

    /// Whether the whole maximum is known to be in use.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Reserves this number of connections, of which more may be open already, until a time in
    /// milliseconds. From `ask_from` open ones on, the thread that reserves is woken. Returns the
    /// number of open ones.
    pub(super) fn reserve(
        &self,
        (reserved, until_ms): (u32, u64),
        ask_from: u32,
        is_full: bool,
    ) -> u32 {
        self.until_ms.store(until_ms, Ordering::Release);
        self.ask_from.store(ask_from, Ordering::Relaxed);
        self.is_full.store(is_full, Ordering::Release);
        let high = u64::from(reserved) << 32;
        let step = |counts: u64| Some(high | u64::from(open_of(counts)));
        let before = self.counts.fetch_update(Ordering::AcqRel, Ordering::Relaxed, step);
        open_of(before.unwrap_or_else(|counts| counts))
    }

    /// Reserves no more than `target` and what is open now. Returns the greater of the two.
    pub(super) fn give_back(&self, target: u32) -> u32 {
        let kept = |counts: u64| target.max(open_of(counts));
        let step = |counts: u64| {
            let reserved = reserved_of(counts).min(kept(counts));
            Some(u64::from(reserved) << 32 | u64::from(open_of(counts)))
        };
        let before = self.counts.fetch_update(Ordering::AcqRel, Ordering::Relaxed, step);
        kept(before.unwrap_or_else(|counts| counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    fn rooms() -> (ConnectionRoom, AllRooms, Arc<AtomicUsize>) {
        let (all, calls) = (AllRooms::default(), Arc::<AtomicUsize>::default());
        let counted = calls.clone();
        all.attach(Notifier::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        (ConnectionRoom::default(), all, calls)
    }

    #[test]
    fn room_admits_what_is_reserved_and_lets_the_next_wait() {
        let (room, all, calls) = rooms();
        assert_eq!(room.admit_reserved(&all, 0), Admission::Waits, "nothing is reserved");
        assert_eq!((calls.load(Ordering::Relaxed), all.take_asked()), (1, true));
        assert!(!room.admit_waiting(&all, 0));
        room.reserve((2, 0), u32::MAX, false);
        assert_eq!(room.admit_reserved(&all, 0), Admission::Waits, "it does not overtake");
        assert!(room.admit_waiting(&all, 0) && room.admit_waiting(&all, 0));
        assert_eq!((room.open(), room.waiting(), room.reserved()), (2, 0, 2));
        assert_eq!(room.admit_reserved(&all, 0), Admission::Waits);
        room.stop_waiting();
        all.take_asked();
        room.release(&all);
        assert!(!all.take_asked(), "no connection waits");
        assert_eq!(room.admit_reserved(&all, 0), Admission::Admitted);
        assert_eq!((room.open(), room.waiting()), (2, 0));
        assert_eq!(room.admit_reserved(&all, 0), Admission::Waits);
        all.take_asked();
        room.release(&all);
        assert!(all.take_asked(), "there is room for who waits");
    }

    #[test]
    fn room_admits_nobody_when_the_time_is_over() {
        let (room, all, _) = rooms();
        room.reserve((3, 100), u32::MAX, false);
        assert_eq!(room.admit_reserved(&all, 100), Admission::Admitted);
        assert_eq!(room.admit_reserved(&all, 101), Admission::Waits);
        assert!(!room.admit_waiting(&all, 101));
        room.reserve((3, 101), u32::MAX, false);
        assert!(room.admit_waiting(&all, 101));
        assert_eq!((room.open(), room.waiting()), (2, 0));
    }

    #[test]
    fn room_bounds_how_many_wait() {
        let (room, all, _) = rooms();
        for _ in 0..MAX_WAITING {
            assert_eq!(room.admit_reserved(&all, 0), Admission::Waits);
        }
        assert_eq!(room.admit_reserved(&all, 0), Admission::TooManyWait);
        room.stop_waiting();
        assert_eq!(room.admit_reserved(&all, 0), Admission::Waits);
    }

    #[test]
    fn room_asks_for_more_before_all_is_in_use() {
        let (room, all, calls) = rooms();
        room.reserve((10, 0), 3, false);
        for (open, is_asked) in [(1, false), (2, false), (3, true), (4, true)] {
            assert_eq!(room.admit_reserved(&all, 0), Admission::Admitted);
            assert_eq!((room.open(), all.take_asked()), (open, is_asked));
        }
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        room.admit_reserved(&all, 0);
        room.admit_reserved(&all, 0);
        assert_eq!(calls.load(Ordering::Relaxed), 3, "it is woken once");
    }

    #[test]
    fn room_gives_back_what_is_not_open() {
        let (room, all, _) = rooms();
        room.reserve((10, 0), u32::MAX, true);
        assert!(room.is_full());
        for _ in 0..4 {
            room.admit_reserved(&all, 0);
        }
        assert_eq!((room.give_back(7), room.reserved()), (7, 7));
        assert_eq!((room.give_back(3), room.reserved()), (4, 4));
        assert_eq!((room.give_back(9), room.reserved()), (9, 4), "it reserves nothing");
        // More may be open than are reserved.
        assert_eq!(room.reserve((1, 0), u32::MAX, false), 4);
        assert_eq!((room.give_back(0), room.reserved()), (4, 1));
        room.release(&all);
        assert_eq!(room.admit_reserved(&all, 0), Admission::Waits);
    }

    /// While one thread gives back, others admit: never more are open than are kept.
    #[test]
    fn room_that_is_given_back_is_not_used() {
        let (room, all, _) = rooms();
        for _ in 0..200 {
            room.reserve((100, 0), u32::MAX, false);
            let kept = thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..60 {
                            if room.admit_reserved(&all, 0) == Admission::Waits {
                                room.stop_waiting();
                            }
                        }
                    });
                }
                room.give_back(20)
            });
            assert!(room.open() <= kept && kept <= 100, "{} {kept}", room.open());
            while room.open() > 0 {
                room.release(&all);
            }
        }
    }
}
