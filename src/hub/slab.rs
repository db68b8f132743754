//! Values by number, stored in pieces of fixed size. Growing copies no values, and memory that is
//! not needed any more is freed piece by piece, even while some values stay.

use std::ops::{Index, IndexMut};

/// The number of values in one piece.
const PIECE: usize = 256;

/// Values by number. A number is kept until the value is removed, or moved by [`Slab::pack`].
///
/// Invariants: `taken` is the number of values; no value has a number from `end` on.
#[derive(Debug)]
pub(super) struct Slab<T> {
    pieces: Vec<Box<[Option<T>]>>,
    /// All numbers in use are below this one.
    end: usize,
    /// Numbers that were free when they were added to this list. Some of them may be in use again.
    free: Vec<u32>,
    taken: usize,
    packing: bool,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { pieces: Vec::new(), end: 0, free: Vec::new(), taken: 0, packing: false }
    }
}

impl<T> Slab<T> {
    /// The number of values.
    pub(super) fn len(&self) -> usize {
        self.taken
    }

    /// All numbers in use are below this one.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// The number of values for which memory is allocated.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.pieces.len() * PIECE
    }

    pub(super) fn get(&self, at: usize) -> Option<&Option<T>> {
        self.pieces.get(at / PIECE)?.get(at % PIECE)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Option<T>> {
        self.pieces.get_mut(at / PIECE)?.get_mut(at % PIECE)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Option<T>> {
        self.pieces.iter_mut().flatten()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Option<T>> {
        self.pieces.iter().flatten()
    }

    /// Asserts what the type's documentation states. Visits all numbers.
    pub(super) fn invariants(&self) {
        debug_assert!(self.end <= self.pieces.len() * PIECE);
        debug_assert_eq!(self.taken, self.iter().flatten().count());
        debug_assert!(self.iter().skip(self.end).all(Option::is_none));
    }

    /// Takes a free number below `end` from the list, and discards those that are not free any
    /// more.
    fn hole(&mut self, end: usize) -> Option<usize> {
        while let Some(at) = self.free.pop() {
            let at = at as usize;
            if at < end && self[at].is_none() {
                return Some(at);
            }
        }
        None
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let at = self.hole(self.end).unwrap_or_else(|| {
            if self.end == self.pieces.len() * PIECE {
                self.pieces.push(std::iter::repeat_with(|| None).take(PIECE).collect());
            }
            self.end += 1;
            self.end - 1
        });
        self[at] = Some(value);
        self.taken += 1;
        at as u32
    }

    pub(super) fn remove(&mut self, at: u32) -> Option<T> {
        let value = self.get_mut(at as usize)?.take()?;
        self.taken -= 1;
        if self.taken == 0 {
            // The first piece stays for the next insertion: a table that holds one value at a time
            // would otherwise allocate a piece for each.
            self.pieces.truncate(1);
            *self = Slab { pieces: std::mem::take(&mut self.pieces), ..Slab::default() };
            return Some(value);
        }
        self.free.push(at);
        if self.free.len() > self.end {
            // The list has numbers twice, or numbers that are in use. Many removals pass between
            // two rebuilds.
            self.free = (0..self.end as u32).filter(|at| self[*at as usize].is_none()).collect();
        }
        Some(value)
    }

    /// When at most a quarter of the numbers is in use, moves values from the end to free numbers
    /// until half of the numbers are in use, and frees memory. One call does about `work` units of
    /// that. `moved` is called for each moved value with its old and its new number, and returns
    /// its own cost.
    pub(super) fn pack(&mut self, work: usize, mut moved: impl FnMut(&T, u32, u32) -> usize) {
        self.packing |= self.end > 4 * PIECE && self.taken * 4 <= self.end;
        let mut done = 0;
        while self.packing && done < work {
            if self.end <= 2 * PIECE || self.taken * 2 >= self.end {
                self.packing = false;
                let end = self.end as u32;
                self.free.retain(|at| *at < end);
                self.free.shrink_to_fit();
                self.pieces.shrink_to_fit();
                return;
            }
            let last = self.end - 1;
            if self[last].is_some() {
                let Some(hole) = self.hole(last) else {
                    // There is a free number below `last`, but it is not in the list any more:
                    // rebuild the list.
                    self.free =
                        (0..last as u32).filter(|at| self[*at as usize].is_none()).collect();
                    done += last / 64;
                    continue;
                };
                self[hole] = self[last].take();
                if let Some(value) = &self[hole] {
                    done += moved(value, last as u32, hole as u32);
                }
            }
            self.end = last;
            done += 1;
            // Keep one piece more than is needed, for the next insertions.
            self.pieces.truncate(self.end / PIECE + 2);
        }
    }
}

impl<T> Index<usize> for Slab<T> {
    type Output = Option<T>;

    fn index(&self, at: usize) -> &Option<T> {
        &self.pieces[at / PIECE][at % PIECE]
    }
}

impl<T> IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, at: usize) -> &mut Option<T> {
        &mut self.pieces[at / PIECE][at % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Each number still finds its value after any sequence of insert, remove and pack.
    #[test]
    fn slab_equals_a_map_while_it_is_packed() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut slab = Slab::default();
        let mut model: HashMap<u32, u64> = HashMap::new();
        let mut next = 0_u64;
        for round in 0..60 {
            let (adds, removes) = if round % 3 == 0 { (4000, 100) } else { (50, 2500) };
            for _ in 0..adds {
                next += 1;
                assert_eq!(model.insert(slab.insert(next), next), None, "a number is used once");
            }
            for _ in 0..removes {
                let Some(at) = model.keys().nth(random.usize(..8)).copied() else { break };
                assert_eq!(slab.remove(at), model.remove(&at));
            }
            slab.pack(700, |value, from, to| {
                assert_eq!(model.remove(&from), Some(*value));
                assert_eq!(model.insert(to, *value), None);
                0
            });
            slab.invariants();
            assert_eq!(slab.len(), model.len());
            for (at, value) in &model {
                assert_eq!(slab[*at as usize], Some(*value));
            }
        }
    }

    #[test]
    fn slab_gives_memory_back_when_three_quarters_are_free() {
        let full = || {
            let mut slab = Slab::default();
            (0..40_960_u32).for_each(|n| assert_eq!(slab.insert(n), n));
            slab
        };
        let mut slab = full();
        (0..30_719).for_each(|at| assert!(slab.remove(at).is_some()));
        slab.pack(usize::MAX, |_, _, _| 0);
        assert_eq!(slab.capacity(), 40_960, "one too few are free");
        assert!(slab.remove(30_719).is_some());
        // In parts, each of bounded work.
        slab.pack(1000, |_, _, _| 0);
        assert!(slab.capacity() > 39_000);
        for _ in 0..25 {
            slab.pack(1000, |_, _, _| 0);
        }
        assert_eq!(slab.len(), 10_240);
        assert!(slab.capacity() <= 20_480 + 2 * PIECE, "{}", slab.capacity());
        let mut values: Vec<u32> = slab.iter().flatten().copied().collect();
        values.sort_unstable();
        assert!(values.into_iter().eq(30_720..40_960));
        for at in 0..slab.end as u32 {
            slab.remove(at);
        }
        assert_eq!((slab.len(), slab.capacity(), slab.free.capacity()), (0, PIECE, 0));
    }
}
