//! Slot tables: small dense indexes with generations, so that a late completion of a connection
//! that has ended is recognised and dropped.

/// Names one occupant of a [`Table`]: its index, and which of the index's occupants it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Position in the table, and in the ring's file table.
    pub index: u32,
    /// Counts the occupants of this index, from 1; wraps at 24 bits.
    pub generation: u32,
}

/// Generations have 24 bits, because one 64-bit word of completion data holds the operation, the
/// index and the generation.
pub const GENERATION_MASK: u32 = (1 << 24) - 1;

/// Values by slot. An entry costs 16 bytes; each value is boxed, so that growth moves no value.
#[derive(Debug)]
pub struct Table<T> {
    entries: Vec<Entry<T>>,
    occupied: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
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
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
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

    /// Removes the occupant that `slot` names.
    pub fn remove(&mut self, slot: Slot) -> Option<Box<T>> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        if entry.generation != slot.generation {
            return None;
        }
        let value = entry.value.take()?;
        self.occupied -= 1;
        Some(value)
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
    fn free_list_ends_at_its_limit_and_takes_the_last_returned_first() {
        let mut free = FreeList::new(2);
        assert_eq!((free.take(), free.take(), free.take()), (Some(0), Some(1), None));
        free.give(0);
        assert_eq!((free.taken(), free.left()), (1, 1));
        assert_eq!((free.take(), free.take()), (Some(0), None));
    }
}
