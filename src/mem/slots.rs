//! Slot tables: small dense indexes with generations, so that a late word about a connection that
//! is gone is recognised and dropped.

/// The name of one occupant of a [`Table`]: an index, and which occupant of that index is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Position in the table; the position in the ring's file table, too.
    pub index: u32,
    /// Counts the occupants of this index, from 1, in 24 bits.
    pub generation: u32,
}

/// Generations wrap here: they share a word of completion data with an operation and an index.
pub const GENERATION_MASK: u32 = (1 << 24) - 1;

/// Values by slot. An empty table entry costs 16 bytes, a value is boxed so that growth moves none.
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
    /// Puts a new occupant at `index`, which must be free, and names it.
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

    /// The occupant that `slot` names, if it is still there.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        match self.entries.get_mut(slot.index as usize) {
            Some(entry) if entry.generation == slot.generation => entry.value.as_deref_mut(),
            _ => None,
        }
    }

    /// Whoever is at `index` now.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.value.as_deref_mut()
    }

    /// The full name of whoever is at `index` now.
    pub fn slot_at(&self, index: u32) -> Option<Slot> {
        let entry = self.entries.get(index as usize)?;
        entry.value.is_some().then_some(Slot { index, generation: entry.generation })
    }

    /// Takes the occupant out and frees its place.
    pub fn remove(&mut self, slot: Slot) -> Option<Box<T>> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        if entry.generation != slot.generation {
            return None;
        }
        let value = entry.value.take()?;
        self.occupied -= 1;
        Some(value)
    }

    /// How many places are taken.
    pub fn len(&self) -> usize {
        self.occupied
    }

    /// Whether no place is taken.
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// One more than the highest index ever used.
    pub fn end(&self) -> u32 {
        self.entries.len() as u32
    }
}

/// Free indexes below a limit; the last returned is the first taken, while its memory is warm.
#[derive(Debug)]
pub struct FreeList {
    returned: Vec<u32>,
    fresh: u32,
    limit: u32,
}

impl FreeList {
    /// All of `0..limit` is free.
    pub fn new(limit: u32) -> FreeList {
        FreeList { returned: Vec::new(), fresh: 0, limit }
    }

    /// Takes a free index, or `None` when all are out.
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

    /// Gives `index` back.
    pub fn give(&mut self, index: u32) {
        debug_assert!(index < self.fresh);
        self.returned.push(index);
    }

    /// How many can still be taken.
    pub fn left(&self) -> usize {
        self.limit as usize - self.taken()
    }

    /// How many are out.
    pub fn taken(&self) -> usize {
        self.fresh as usize - self.returned.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_of_a_former_occupant_finds_nobody() {
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
    fn a_free_list_ends_at_its_limit_and_reuses_the_last_returned() {
        let mut free = FreeList::new(2);
        assert_eq!((free.take(), free.take(), free.take()), (Some(0), Some(1), None));
        free.give(0);
        assert_eq!((free.taken(), free.left()), (1, 1));
        assert_eq!((free.take(), free.take()), (Some(0), None));
    }
}
