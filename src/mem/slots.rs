//! Slot tables: small dense indexes with generations, so that a late completion of a connection
//! that has ended is recognised and dropped.

/// Identifies one occupant of a [`Table`] by its index and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Position in the table, and in the ring's file table.
    pub index: u32,
    /// The number of this occupant among the occupants of the index, from 1. At a million occupants
    /// a second, 64 bits would last for half a million years, so a slot is never used again.
    pub generation: u64,
}

/// The bits of a generation that the user data of a completion holds, which has 64 bits for
/// operation, index and generation. These bits may wrap, because an index is free only when none of
/// its operations is in flight.
pub const GENERATION_MASK: u32 = (1 << 24) - 1;

impl Slot {
    /// The part of the generation that completion data holds.
    pub fn short_generation(self) -> u32 {
        self.generation as u32 & GENERATION_MASK
    }
}

/// Values by slot. An empty table entry costs 16 bytes, a value is boxed so that growth moves none.
///
/// Invariants: `occupied` is the number of entries with a value; such an entry has had a generation
/// from 1 on.
#[derive(Debug)]
pub struct Table<T> {
    entries: Vec<Entry<T>>,
    occupied: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u64,
    value: Option<Box<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { entries: Vec::new(), occupied: 0 }
    }
}

impl<T> Table<T> {
    /// Puts a new occupant at `index`, which must be free, and returns its slot.
    pub fn insert(&mut self, index: u32, value: T) -> Slot {
        let at = index as usize;
        if at >= self.entries.len() {
            self.entries.resize_with(at + 1, || Entry { generation: 0, value: None });
        }
        let entry = &mut self.entries[at];
        debug_assert!(entry.value.is_none(), "slot {index} is taken");
        entry.generation += 1;
        entry.value = Some(Box::new(value));
        self.occupied += 1;
        Slot { index, generation: entry.generation }
    }

    /// The occupant that `slot` names, unless it has been removed.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        match self.entries.get_mut(slot.index as usize) {
            Some(entry) if entry.generation == slot.generation => entry.value.as_deref_mut(),
            _ => None,
        }
    }

    /// The present occupant of `index`.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.value.as_deref_mut()
    }

    /// The slot of the present occupant of `index`.
    pub fn slot_at(&self, index: u32) -> Option<Slot> {
        let entry = self.entries.get(index as usize)?;
        entry.value.is_some().then_some(Slot { index, generation: entry.generation })
    }

    /// The slot of the occupant of `index` whose generation has the bits `short` in completion
    /// data. If the present occupant has another generation, returns a slot that no occupant has.
    pub fn slot_of_completion(&self, index: u32, short: u32) -> Slot {
        let present = self.slot_at(index).filter(|slot| slot.short_generation() == short);
        present.unwrap_or(Slot { index, generation: 0 })
    }

    /// Removes the occupant and frees its index. Returns it, or `None` if it was removed before.
    pub fn remove(&mut self, slot: Slot) -> Option<Box<T>> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        if entry.generation != slot.generation {
            return None;
        }
        let value = entry.value.take()?;
        self.occupied -= 1;
        Some(value)
    }

    /// Asserts what the type's documentation states. Visits all entries, so tests and simulations
    /// call it.
    pub fn invariants(&self) {
        let mut occupied = self.entries.iter().filter(|entry| entry.value.is_some());
        debug_assert!(occupied.clone().all(|entry| entry.generation > 0));
        debug_assert_eq!(occupied.by_ref().count(), self.occupied);
    }

    /// The number of occupants.
    pub fn len(&self) -> usize {
        self.occupied
    }

    /// Whether there is no occupant.
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// One more than the highest index ever used.
    pub fn end(&self) -> u32 {
        self.entries.len() as u32
    }
}

/// Free indexes below a limit. The index that was returned last is taken first, because its memory
/// is likely to be in the cache.
#[derive(Debug)]
pub struct FreeList {
    returned: Vec<u32>,
    fresh: u32,
    limit: u32,
}

impl FreeList {
    /// All indexes of `0..limit` are free.
    pub fn new(limit: u32) -> FreeList {
        FreeList { returned: Vec::new(), fresh: 0, limit }
    }

    /// Takes a free index; `None` when all are taken.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(index) = self.returned.pop() {
            return Some(index);
        }
        if self.fresh == self.limit {
            return None;
        }
        self.fresh += 1;
        Some(self.fresh - 1)
    }

    /// Returns `index`, which was taken before.
    pub fn give(&mut self, index: u32) {
        debug_assert!(index < self.fresh);
        self.returned.push(index);
    }

    /// The number of free indexes.
    pub fn left(&self) -> usize {
        self.limit as usize - self.taken()
    }

    /// The number of taken indexes.
    pub fn taken(&self) -> usize {
        self.fresh as usize - self.returned.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_of_a_former_occupant_finds_nothing() {
        let mut table = Table::default();
        let first = table.insert(3, "first");
        assert_eq!(table.remove(first).as_deref(), Some(&"first"));
        let second = table.insert(3, "second");
        assert_ne!(first, second);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get_mut(second), Some(&mut "second"));
        assert_eq!(table.len(), 1);
        assert_eq!(table.slot_at(3), Some(second));
        assert_eq!(table.slot_at(0), None);
    }

    #[test]
    fn slot_names_never_repeat_over_a_million_occupants_of_32_places() {
        let mut table = Table::default();
        let mut free = FreeList::new(32);
        let mut highest = [0; 32];
        for turn in 0..1_000_000_u32 {
            let index = free.take().expect("a place is free");
            let slot = table.insert(index, ());
            // The generations of an index increase, so no slot was used before.
            assert!(slot.generation > highest[index as usize]);
            highest[index as usize] = slot.generation;
            if turn % 33 < 16 && free.left() > 0 {
                continue;
            }
            for index in 0..32 {
                if let Some(slot) = table.slot_at(index) {
                    table.remove(slot);
                    free.give(index);
                }
            }
        }
        assert_eq!(highest.iter().sum::<u64>(), 1_000_000);
    }

    #[test]
    fn slot_of_completion_is_the_present_occupant_or_none() {
        let mut table = Table::default();
        table.insert(0, "first");
        table.entries[0].generation = u64::from(GENERATION_MASK);
        let last = Slot { index: 0, generation: u64::from(GENERATION_MASK) };
        assert_eq!(table.slot_of_completion(0, GENERATION_MASK), last);
        table.remove(last);
        let wrapped = table.insert(0, "second");
        assert_eq!((wrapped.generation, wrapped.short_generation()), (1 << 24, 0));
        assert_eq!(table.slot_of_completion(0, 0), wrapped);
        let nobody = table.slot_of_completion(0, GENERATION_MASK);
        assert_eq!(table.get_mut(nobody), None);
        assert_eq!(table.get_mut(last), None);
        assert_eq!(table.get_mut(wrapped), Some(&mut "second"));
        let unused = table.slot_of_completion(7, 0);
        assert_eq!(table.get_mut(unused), None);
    }

    #[test]
    fn free_list_ends_at_its_limit_and_takes_the_last_returned_first() {
        let mut free = FreeList::new(2);
        assert_eq!((free.take(), free.take(), free.take()), (Some(0), Some(1), None));
        free.give(0);
        assert_eq!((free.taken(), free.left()), (1, 1));
        assert_eq!((free.take(), free.take()), (Some(0), None));
    }
}
