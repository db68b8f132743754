//! The place for large compressed messages: a core decompresses only one of them at a time.
//!
//! A compressed message of some kilobytes can have the maximum length when it is decompressed. If
//! all waiting messages were decompressed in turns, all of their outputs would be in memory at
//! once. So one message has the place until it is complete, and the other messages wait compressed
//! in a queue.

use crate::mem::Slot;
use std::collections::VecDeque;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct LargePlace {
    taken: bool,
    queue: VecDeque<Slot>,
    /// Whether the place is reserved for the connection that [`LargePlace::call`] returned last.
    called: bool,
}

impl LargePlace {
    /// Whether a message may take the place: no message has it, and it is reserved for a connection
    /// that was called or no connection waits.
    pub fn is_free(&self) -> bool {
        !self.taken && (self.called || self.queue.is_empty())
    }

    /// Takes the place if it is free. Returns whether it was free.
    pub(super) fn take(&mut self) -> bool {
        let free = self.is_free();
        self.taken |= free;
        free
    }

    /// Releases the place. A connection that was called for the place must queue again.
    pub(super) fn leave(&mut self) {
        self.taken = false;
        self.called = false;
    }

    /// Adds a connection whose message waits to the end of the queue.
    pub fn wait(&mut self, slot: Slot) {
        self.queue.push_back(slot);
    }

    /// Whether a connection can be called: no message has the place, and a connection waits.
    pub fn has_next(&self) -> bool {
        !self.taken && !self.queue.is_empty()
    }

    /// If no message has the place, removes the first connection from the queue and returns it. The
    /// place is reserved for this connection until [`LargePlace::end_call`].
    pub fn call(&mut self) -> Option<Slot> {
        let next = if self.taken { None } else { self.queue.pop_front() };
        self.called = next.is_some();
        next
    }

    /// Ends the reservation, whether or not the connection has taken the place.
    pub fn end_call(&mut self) {
        self.called = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inflate_place_is_given_to_one_and_then_in_order() {
        let mut place = LargePlace::default();
        let slots: Vec<Slot> = (0..2).map(|index| Slot { index, generation: 1 }).collect();
        assert!(place.take() && !place.take() && !place.has_next());
        place.wait(slots[0]);
        place.wait(slots[1]);
        assert_eq!(place.call(), None, "it is taken");
        place.leave();
        assert!(!place.is_free() && !place.take(), "not for who comes later than those in line");
        assert_eq!(place.call(), Some(slots[0]));
        assert!(place.take());
        place.leave();
        assert!(!place.is_free(), "it does not get it twice in a row");
        place.end_call();
        assert_eq!(place.call(), Some(slots[1]));
        place.end_call();
        assert!(place.is_free(), "who was called had no use for it");
    }
}
