//! The addresses that connections have named, on one core.
//!
//! Equal sets are one: most clients of an application name the same contracts. An index leads from
//! an address to the sets that hold it, so an epoch costs as much as it has news, whatever is not
//! in it. A set is taken in when the first epoch after a change comes, so that a client that names
//! its addresses one by one does not make a set of each step.

use super::address::Address;
use super::query::Named;
use ahash::RandomState;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

/// Addresses, each with the case of its digits.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    addresses: HashMap<Address, u64, RandomState>,
    /// Its place in the registry, from 1.
    place: Cell<u32>,
}

impl Set {
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn has(&self, address: &Address) -> bool {
        self.addresses.contains_key(address)
    }

    pub(super) fn case(&self, address: &Address) -> u64 {
        self.addresses.get(address).copied().unwrap_or(0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Address> {
        self.addresses.keys()
    }

    /// Whether it says nothing of the case of any digit.
    fn is_plain(&self) -> bool {
        self.addresses.values().all(|&case| case == 0)
    }

    /// Adds addresses to a set that may be shared with other connections.
    pub(super) fn add(set: &mut Option<Rc<Set>>, named: &[Named]) {
        let set = set.get_or_insert_default();
        if Rc::get_mut(set).is_none() {
            *set = Rc::new(Set { addresses: set.addresses.clone(), place: Cell::new(0) });
        }
        if let Some(set) = Rc::get_mut(set) {
            set.addresses.extend(named.iter().copied());
        }
    }
}

/// All sets of one kind of subscription.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    index: HashMap<Address, Vec<u32>, RandomState>,
    by_content: HashMap<u64, Vec<u32>, RandomState>,
    hasher: RandomState,
    /// The lists of this epoch, from 1, each with a set that has it; equal ones are one.
    lists: Vec<(Rc<[u32]>, Rc<Set>)>,
    by_list: HashMap<Rc<[u32]>, u32, RandomState>,
}

#[derive(Debug)]
struct Entry {
    set: Rc<Set>,
    content: u64,
    is_plain: bool,
    /// What of this epoch concerns it, in order.
    marks: Vec<u32>,
    /// The number of its list, when that is known.
    list: Option<u32>,
}

impl Registry {
    /// Begins an epoch: forgets the last one, and the sets that nobody has any more.
    pub(super) fn begin(&mut self) {
        self.rest();
        for at in 0..self.entries.len() {
            let unused = |entry: &mut Entry| Rc::strong_count(&entry.set) == 1;
            if let Some(entry) = self.entries[at].take_if(unused) {
                self.forget(at, &entry);
            }
        }
    }

    /// Forgets the epoch.
    pub(super) fn rest(&mut self) {
        self.lists.clear();
        self.by_list.clear();
        for entry in self.entries.iter_mut().flatten() {
            entry.marks = Vec::new();
            entry.list = None;
        }
    }

    fn forget(&mut self, at: usize, entry: &Entry) {
        self.free.push(at);
        let place = at as u32 + 1;
        let drop_from = |map: &mut Vec<u32>| {
            map.retain(|&other| other != place);
            map.is_empty()
        };
        for address in entry.set.iter() {
            if self.index.get_mut(address).is_some_and(drop_from) {
                self.index.remove(address);
            }
        }
        if self.by_content.get_mut(&entry.content).is_some_and(drop_from) {
            self.by_content.remove(&entry.content);
        }
    }

    /// Marks every set that has `address`, but for those that have `unless`.
    pub(super) fn mark(&mut self, address: &Address, unless: Option<&Address>, mark: u32) {
        let Some(places) = self.index.get(address) else { return };
        for &place in places {
            if let Some(entry) = &mut self.entries[place as usize - 1]
                && unless.is_none_or(|unless| !entry.set.has(unless))
            {
                entry.marks.push(mark);
            }
        }
    }

    /// The number of the list of what concerns a set; 0 is nothing. A set that is new is taken in,
    /// and `look` says what of this epoch concerns it.
    pub(super) fn list(&mut self, set: &mut Rc<Set>, look: impl FnOnce(&Set) -> Vec<u32>) -> u32 {
        if set.place.get() == 0 {
            self.take_in(set, look);
        }
        let Some(Some(entry)) = self.entries.get_mut(set.place.get() as usize - 1) else {
            return 0;
        };
        if let Some(list) = entry.list {
            return list;
        }
        let list: Rc<[u32]> = entry.marks.as_slice().into();
        let known = self.by_list.get(&list).filter(|_| entry.is_plain);
        let number = match (list.is_empty(), known) {
            (true, _) => 0,
            (false, Some(&number)) => number,
            (false, None) => {
                self.lists.push((list.clone(), entry.set.clone()));
                let number = self.lists.len() as u32;
                if entry.is_plain {
                    self.by_list.insert(list, number);
                }
                number
            }
        };
        entry.list = Some(number);
        number
    }

    /// What a list holds, and a set that has it.
    pub(super) fn of(&self, list: u32) -> Option<&(Rc<[u32]>, Rc<Set>)> {
        self.lists.get((list as usize).checked_sub(1)?)
    }

    fn take_in(&mut self, set: &mut Rc<Set>, look: impl FnOnce(&Set) -> Vec<u32>) {
        let of = |address, case| self.hasher.hash_one((address, case));
        let each = set.addresses.iter().map(|(address, &case)| of(address, case));
        let content = each.fold(set.len() as u64, u64::wrapping_add);
        for &place in self.by_content.get(&content).into_iter().flatten() {
            if let Some(entry) = &self.entries[place as usize - 1]
                && entry.set.addresses == set.addresses
            {
                *set = entry.set.clone();
                return;
            }
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        let place = at as u32 + 1;
        set.place.set(place);
        for address in set.iter() {
            self.index.entry(*address).or_default().push(place);
        }
        self.by_content.entry(content).or_default().push(place);
        let (is_plain, marks) = (set.is_plain(), look(set));
        self.entries[at] = Some(Entry { set: set.clone(), content, is_plain, marks, list: None });
    }

    /// Whether nobody has named an address.
    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(named: &[Named]) -> Option<Rc<Set>> {
        let mut set = None;
        Set::add(&mut set, named);
        set
    }

    fn list(registry: &mut Registry, set: &mut Option<Rc<Set>>, marks: &[u32]) -> u32 {
        registry.list(set.as_mut().expect("a set"), |_| marks.to_vec())
    }

    const A: Address = [1; 20];
    const B: Address = [2; 20];

    #[test]
    fn zilliqa_equal_sets_are_one_in_any_order() {
        let mut registry = Registry::default();
        let (mut one, mut two) = (set(&[(A, 0), (B, 0)]), set(&[(B, 0), (A, 0)]));
        let mut other = set(&[(A, 0)]);
        assert_eq!(list(&mut registry, &mut one, &[7]), 1);
        assert_eq!(list(&mut registry, &mut two, &[8]), 1, "it is not looked at anew");
        assert_eq!(list(&mut registry, &mut other, &[9]), 2);
        assert_eq!(registry.len(), 2);
        assert!(one.as_ref().zip(two.as_ref()).is_some_and(|(one, two)| Rc::ptr_eq(one, two)));
        // A change makes it another one; what the other connection has stays.
        Set::add(&mut two, &[([3; 20], 0)]);
        assert_eq!((one.map(|it| it.len()), two.map(|it| it.len())), (Some(2), Some(3)));
    }

    #[test]
    fn zilliqa_unused_sets_are_dropped_with_the_next_epoch() {
        let mut registry = Registry::default();
        let (mut one, mut two) = (set(&[(A, 0), (B, 0)]), set(&[(B, 0)]));
        list(&mut registry, &mut one, &[]);
        list(&mut registry, &mut two, &[]);
        drop(one);
        registry.begin();
        assert_eq!((registry.len(), registry.index.len()), (1, 1));
        drop(two);
        registry.begin();
        assert_eq!((registry.len(), registry.index.len()), (0, 0));
        assert!(registry.by_content.is_empty());
        // The places are used again.
        let mut three = set(&[(A, 0)]);
        assert_eq!(list(&mut registry, &mut three, &[5]), 1);
        assert_eq!(registry.entries.len(), 2);
    }

    #[test]
    fn zilliqa_marks_reach_the_sets_of_an_address() {
        let mut registry = Registry::default();
        let mut sets = [set(&[(A, 0)]), set(&[(A, 0), (B, 0)]), set(&[([3; 20], 0)])];
        for set in &mut sets {
            list(&mut registry, set, &[]);
        }
        registry.begin();
        registry.mark(&A, None, 1);
        registry.mark(&A, Some(&B), 2);
        registry.mark(&B, None, 3);
        let lists = sets.each_mut().map(|set| {
            let number = list(&mut registry, set, &[99]);
            registry.of(number).map(|(list, _)| list.to_vec())
        });
        assert_eq!(lists, [Some(vec![1, 2]), Some(vec![1, 3]), None]);
        registry.rest();
        let gone = list(&mut registry, &mut sets[0], &[99]);
        assert_eq!(gone, 0, "an epoch that is through concerns nobody");
    }

    #[test]
    fn zilliqa_lists_are_equal_by_their_text() {
        let mut registry = Registry::default();
        let mut sets =
            [set(&[(A, 0)]), set(&[(A, 0), (B, 0)]), set(&[(A, 2)]), set(&[(A, 2), (B, 0)])];
        let numbers = sets.each_mut().map(|set| list(&mut registry, set, &[4]));
        assert_eq!(numbers, [1, 1, 2, 3]);
        assert_eq!(registry.of(2).map(|(_, set)| set.case(&A)), Some(2));
        assert!(registry.of(0).is_none() && registry.of(4).is_none());
    }
}
