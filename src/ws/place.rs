//! One large compressed message of a core at a time.
//!
//! A message of some kilobytes can be decompressed to the longest message that is admitted. Were
//! all that are waiting decompressed in turns, all of their outputs would be in memory at once; so
//! one of them has the place until it is whole, and the others wait in line, compressed.

use crate::mem::Slot;
use std::collections::VecDeque;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct LargePlace {
    taken: bool,
    line: VecDeque<Slot>,
    /// The place is for the first in line, who has just been called.
    called: bool,
}

impl LargePlace {
    /// Whether a message may take it: nobody has it, and nobody who came before waits for it.
    pub fn is_free(&self) -> bool {
        !self.taken && (self.called || self.line.is_empty())
    }

    /// Takes it, if it is free.
    pub(super) fn take(&mut self) -> bool {
        let free = self.is_free();
        self.taken |= free;
        free
    }

    /// It is through. Whoever was called for it stands in line again.
    pub(super) fn leave(&mut self) {
        self.taken = false;
        self.called = false;
    }

    /// A connection whose message waits goes to the end of the line.
    pub fn wait(&mut self, slot: Slot) {
        self.line.push_back(slot);
    }

    /// Whether the first in line can be called.
    pub fn has_next(&self) -> bool {
        !self.taken && !self.line.is_empty()
    }

    /// Calls the first in line, if nobody has the place: it is free for this one until
    /// [`LargePlace::end_call`].
    pub fn call(&mut self) -> Option<Slot> {
        let next = if self.taken { None } else { self.line.pop_front() };
        self.called = next.is_some();
        next
    }

    /// Whoever was called has taken it or not.
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
