//! The sets of addresses that the connections of one core are subscribed to.
//!
//! Equal sets are shared, since most clients of an application subscribe to the same contracts. An
//! index maps each address to the sets that contain it, so an epoch marks only the sets that
//! contain one of its addresses. A set is registered at the first epoch after a change, so that a
//! client which subscribes to its addresses one by one does not register a set at each step.
//!
//! A set that grows while it is shared becomes a new set: the old one is its base, and it stores
//! only the difference. Only the difference is added to the index, and removed from it when no
//! connection uses the set any longer, so the work depends on what has changed and not on the size
//! of the sets. A base that is not larger than the difference is merged into it, so an address is
//! moved only a few times.

use super::address::Address;
use super::query::Named;
use ahash::RandomState;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Addresses, each with the bit mask of its upper-case digits.
pub(super) type Cases = HashMap<Address, u64, RandomState>;

/// The number of addresses that the sets of one core hold, bases counted once.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldAddresses(Rc<Cell<usize>>);

impl HeldAddresses {
    pub(super) fn get(&self) -> usize {
        self.0.get()
    }

    fn change(&self, before: usize, after: usize) {
        self.0.set(self.0.get() + after - before);
    }
}

/// A set of addresses: its own ones, and those of its base if it has one.
#[derive(Debug)]
pub(super) struct Set {
    own: Cases,
    base: Option<Rc<Set>>,
    /// The number of different addresses, with those of the base.
    len: usize,
    /// Whether no address has an upper-case digit.
    is_plain: bool,
    /// Its place in the registry, counted from 1; 0 before it is registered.
    place: Cell<u32>,
    held: HeldAddresses,
}

impl Drop for Set {
    fn drop(&mut self) {
        self.held.change(self.own.len(), 0);
    }
}

impl Set {
    fn new(base: Option<Rc<Set>>, held: &HeldAddresses) -> Rc<Set> {
        let (len, is_plain) = base.as_ref().map_or((0, true), |base| (base.len, base.is_plain));
        let (own, place, held) = (Cases::default(), Cell::new(0), held.clone());
        Rc::new(Set { own, base, len, is_plain, place, held })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn has(&self, address: &Address) -> bool {
        self.find(address).is_some()
    }

    pub(super) fn case(&self, address: &Address) -> u64 {
        self.find(address).unwrap_or(0)
    }

    fn find(&self, address: &Address) -> Option<u64> {
        self.layers().find_map(|layer| layer.own.get(address).copied())
    }

    /// All addresses, with their case.
    pub(super) fn named(&self) -> Vec<Named> {
        let all = self.layers().flat_map(|layer| layer.own.keys());
        all.map(|address| (*address, self.case(address))).collect()
    }

    /// This set, its base, the base of that base, and so on.
    fn layers(&self) -> impl Iterator<Item = &Set> {
        std::iter::successors(Some(self), |layer| layer.base.as_deref())
    }

    /// The number of different addresses in `named` that a set does not contain with the same case.
    pub(super) fn missing(set: Option<&Rc<Set>>, named: &[Named]) -> usize {
        let is_missing = |named: &&Named| set.is_none_or(|it| it.find(&named.0) != Some(named.1));
        let missing = named.iter().filter(is_missing).map(|(address, _)| address);
        missing.collect::<HashSet<_>>().len()
    }

    /// Adds addresses to a set. A set that is shared with other connections is not changed, but
    /// becomes the base of a new one.
    pub(super) fn add(set: &mut Option<Rc<Set>>, named: &[Named], held: &HeldAddresses) {
        let is_there = |it: &Rc<Set>| named.iter().all(|(at, case)| it.find(at) == Some(*case));
        if set.as_ref().is_some_and(is_there) {
            return;
        }
        let set = set.get_or_insert_with(|| Set::new(None, held));
        if Rc::get_mut(set).is_none() {
            *set = Set::new(Some(set.clone()), held);
        }
        if let Some(set) = Rc::get_mut(set) {
            set.extend(named);
        }
    }

    fn extend(&mut self, named: &[Named]) {
        let before = self.own.len();
        for &(address, case) in named {
            let below = self.base.as_ref().and_then(|base| base.find(&address));
            if below == Some(case) {
                self.own.remove(&address);
                continue;
            }
            let is_new = self.own.insert(address, case).is_none();
            self.len += usize::from(is_new && below.is_none());
            self.is_plain &= case == 0;
        }
        self.held.change(before, self.own.len());
    }

    /// Merges the base into the set, as long as the base's own addresses are not more than the
    /// set's own.
    fn absorb_bases(set: &mut Rc<Set>) {
        let Some(set) = Rc::get_mut(set) else { return };
        while let Some(base) = set.base.take() {
            if base.own.len() > set.own.len() {
                set.base = Some(base);
                return;
            }
            let before = set.own.len();
            for (&address, &case) in &base.own {
                set.own.entry(address).or_insert(case);
            }
            set.held.change(before, set.own.len());
            set.base = base.base.clone();
        }
    }
}

/// The places of the sets whose own addresses contain an address. Most addresses are in one set.
#[derive(Debug)]
enum Places {
    One(u32),
    Many(HashSet<u32, RandomState>),
}

impl Places {
    fn insert(&mut self, place: u32) {
        match self {
            Places::One(first) => *self = Places::Many([*first, place].into_iter().collect()),
            Places::Many(all) => {
                all.insert(place);
            }
        }
    }

    /// Removes a place. Returns whether no place is left.
    fn remove(&mut self, place: u32) -> bool {
        match self {
            Places::One(first) => *first == place,
            Places::Many(all) => {
                all.remove(&place);
                if all.len() * 4 < all.capacity() {
                    all.shrink_to(all.len() * 2);
                }
                all.is_empty()
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        let (one, many) = match self {
            Places::One(first) => (Some(*first), None),
            Places::Many(all) => (None, Some(all)),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }
}

/// All registered sets of one topic.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    index: HashMap<Address, Places, RandomState>,
    /// The places of sets, by the place of the base and a hash of the set's own addresses.
    by_content: HashMap<(u32, u64), Vec<u32>, RandomState>,
    hasher: RandomState,
    /// The lists of this epoch, numbered from 1, each with a set that it is for. Equal lists of
    /// sets without upper-case digits are stored once.
    lists: Vec<(Rc<[u32]>, Rc<Set>)>,
    by_list: HashMap<Rc<[u32]>, u32, RandomState>,
    /// The number of addresses that were added to the index or removed from it.
    #[cfg(test)]
    indexed: usize,
}

#[derive(Debug)]
struct Entry {
    set: Rc<Set>,
    content: (u32, u64),
    /// The events or transactions of this epoch at the set's own addresses.
    marks: Vec<u32>,
    /// The number of the set's list in this epoch, if it is known.
    list: Option<u32>,
}

impl Registry {
    /// Begins an epoch: drops the lists of the last one, and the sets that no connection uses any
    /// longer.
    pub(super) fn begin(&mut self) {
        self.rest();
        // A set is newer than its base and mostly has a higher place, so it is dropped before its
        // base.
        for at in (0..self.entries.len()).rev() {
            let unused = |entry: &mut Entry| Rc::strong_count(&entry.set) == 1;
            if let Some(entry) = self.entries[at].take_if(unused) {
                self.forget(at, &entry);
            }
        }
    }

    /// Drops the lists and marks of the epoch.
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
        for address in entry.set.own.keys() {
            if self.index.get_mut(address).is_some_and(|places| places.remove(place)) {
                self.index.remove(address);
            }
        }
        // The sets with this key differ only if their hashes collide, so there is hardly ever a
        // second one.
        let others = self.by_content.get_mut(&entry.content);
        let is_last = others.is_some_and(|others| {
            others.retain(|&other| other != place);
            others.is_empty()
        });
        if is_last {
            self.by_content.remove(&entry.content);
        }
        #[cfg(test)]
        (self.indexed += entry.set.own.len());
    }

    /// Adds `mark` to every set whose own addresses contain `address`.
    pub(super) fn mark(&mut self, address: &Address, mark: u32) {
        let Some(places) = self.index.get(address) else { return };
        for place in places.iter() {
            if let Some(entry) = &mut self.entries[place as usize - 1] {
                entry.marks.push(mark);
            }
        }
    }

    /// The number of the list of marks for a set; 0 is an empty list. A set that is new is
    /// registered, and `look` returns the marks of its own addresses in this epoch. `merge` gets
    /// the marks of the set and its bases in ascending order, and removes redundant ones.
    pub(super) fn list(
        &mut self,
        set: &mut Rc<Set>,
        look: impl FnOnce(&Cases) -> Vec<u32>,
        merge: impl FnOnce(&mut Vec<u32>),
    ) -> u32 {
        if set.place.get() == 0 {
            self.take_in(set, look);
        }
        let at = (set.place.get() as usize).wrapping_sub(1);
        let known = self.entries.get(at).and_then(|entry| entry.as_ref()?.list);
        if let Some(list) = known {
            return list;
        }
        let list = self.marks_of(set, merge);
        let known = self.by_list.get(&list).filter(|_| set.is_plain);
        let number = match (list.is_empty(), known) {
            (true, _) => 0,
            (false, Some(&number)) => number,
            (false, None) => {
                self.lists.push((list.clone(), set.clone()));
                let number = self.lists.len() as u32;
                if set.is_plain {
                    self.by_list.insert(list, number);
                }
                number
            }
        };
        if let Some(Some(entry)) = self.entries.get_mut(at) {
            entry.list = Some(number);
        }
        number
    }

    fn marks_of(&self, set: &Set, merge: impl FnOnce(&mut Vec<u32>)) -> Rc<[u32]> {
        let entry = |layer: &Set| {
            let at = (layer.place.get() as usize).wrapping_sub(1);
            self.entries.get(at)?.as_ref()
        };
        let entries = set.layers().filter_map(entry);
        let mut marks: Vec<u32> = entries.flat_map(|entry| entry.marks.iter().copied()).collect();
        marks.sort_unstable();
        merge(&mut marks);
        marks.into()
    }

    /// The marks of a list, and a set that it is for.
    pub(super) fn of(&self, list: u32) -> Option<&(Rc<[u32]>, Rc<Set>)> {
        self.lists.get((list as usize).checked_sub(1)?)
    }

    fn take_in(&mut self, set: &mut Rc<Set>, look: impl FnOnce(&Cases) -> Vec<u32>) {
        Set::absorb_bases(set);
        let hash = |(address, case): (&Address, &u64)| self.hasher.hash_one((address, case));
        let hashes = set.own.iter().map(hash);
        let base = set.base.as_ref().map_or(0, |base| base.place.get());
        let content = (base, hashes.fold(set.own.len() as u64, u64::wrapping_add));
        for &place in self.by_content.get(&content).into_iter().flatten() {
            if let Some(entry) = &self.entries[place as usize - 1]
                && entry.set.own == set.own
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
        for address in set.own.keys() {
            let places = self.index.entry(*address);
            places.and_modify(|places| places.insert(place)).or_insert(Places::One(place));
        }
        #[cfg(test)]
        (self.indexed += set.own.len());
        self.by_content.entry(content).or_default().push(place);
        let marks = look(&set.own);
        self.entries[at] = Some(Entry { set: set.clone(), content, marks, list: None });
    }

    /// Whether no set has an address.
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
        add(&mut set, named);
        set
    }

    fn add(set: &mut Option<Rc<Set>>, named: &[Named]) {
        let held = set.as_ref().map(|set| set.held.clone()).unwrap_or_default();
        Set::add(set, named, &held);
    }

    fn list(registry: &mut Registry, set: &mut Option<Rc<Set>>, marks: &[u32]) -> u32 {
        let set = set.as_mut().expect("a set");
        registry.list(set, |_| marks.to_vec(), |marks| marks.dedup_by_key(|mark| *mark >> 1))
    }

    fn address(n: u32) -> Address {
        let mut address = [0; 20];
        address[..4].copy_from_slice(&n.to_le_bytes());
        address
    }

    fn named(range: std::ops::Range<u32>) -> Vec<Named> {
        range.map(|n| (address(n), 0)).collect()
    }

    const A: Address = [1; 20];
    const B: Address = [2; 20];

    #[test]
    fn zilliqa_equal_sets_are_one_in_any_order() {
        let mut registry = Registry::default();
        let (mut one, mut two) = (set(&[(A, 0), (B, 0)]), set(&[(B, 0), (A, 0)]));
        let mut other = set(&[(A, 0)]);
        assert_eq!(list(&mut registry, &mut one, &[7]), 1);
        assert_eq!(list(&mut registry, &mut two, &[8]), 1, "it is not looked at again");
        assert_eq!(list(&mut registry, &mut other, &[9]), 2);
        assert_eq!(registry.len(), 2);
        assert!(one.as_ref().zip(two.as_ref()).is_some_and(|(one, two)| Rc::ptr_eq(one, two)));
        // Adding an address creates a new set; the other connection's set is unchanged.
        add(&mut two, &[([3; 20], 0)]);
        assert_eq!((one.map(|it| it.len()), two.map(|it| it.len())), (Some(2), Some(3)));
    }

    #[test]
    fn zilliqa_unused_sets_are_removed_with_the_next_epoch() {
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
        // Free places are used again.
        let mut three = set(&[(A, 0)]);
        assert_eq!(list(&mut registry, &mut three, &[6]), 1);
        assert_eq!(registry.entries.len(), 2);
    }

    #[test]
    fn zilliqa_marks_reach_the_sets_that_have_the_address() {
        let mut registry = Registry::default();
        let mut sets = [set(&[(A, 0)]), set(&[(A, 0), (B, 0)]), set(&[([3; 20], 0)])];
        for set in &mut sets {
            list(&mut registry, set, &[]);
        }
        // A set with a base also gets the marks of the base's addresses.
        sets[2] = sets[0].clone();
        add(&mut sets[2], &[(B, 0)]);
        registry.begin();
        registry.mark(&A, 2);
        registry.mark(&A, 5);
        registry.mark(&B, 4);
        let lists = sets.each_mut().map(|set| {
            let number = list(&mut registry, set, &[4]);
            registry.of(number).map(|(list, _)| list.to_vec())
        });
        // An odd mark is redundant if the even one before it is there.
        assert_eq!(lists, [Some(vec![2, 5]), Some(vec![2, 4]), Some(vec![2, 4])]);
        registry.rest();
        let listed = list(&mut registry, &mut sets[0], &[99]);
        assert_eq!(listed, 0, "an epoch that is through concerns nobody");
    }

    #[test]
    fn zilliqa_equal_lists_are_one_unless_the_addresses_were_written_in_another_way() {
        let mut registry = Registry::default();
        let mut sets =
            [set(&[(A, 0)]), set(&[(A, 0), (B, 0)]), set(&[(A, 2)]), set(&[(A, 2), (B, 0)])];
        let numbers = sets.each_mut().map(|set| list(&mut registry, set, &[4]));
        assert_eq!(numbers, [1, 1, 2, 3]);
        assert_eq!(registry.of(2).map(|(_, set)| set.case(&A)), Some(2));
        assert!(registry.of(0).is_none() && registry.of(4).is_none());
        // An address that is added again in a different case is sent in the new case.
        let mut again = sets[0].clone();
        add(&mut again, &[(A, 8)]);
        let number = list(&mut registry, &mut again, &[4]);
        assert_eq!(registry.of(number).map(|(_, set)| set.case(&A)), Some(8));
        assert_eq!(
            (again.map(|it| it.len()), sets[0].as_ref().map(|it| it.case(&A))),
            (Some(1), Some(0))
        );
    }

    #[test]
    fn zilliqa_work_follows_what_has_changed() {
        const COMMON: u32 = 9000;
        let mut registry = Registry::default();
        let mut clients: Vec<_> = (0..150).map(|_| set(&named(0..COMMON))).collect();
        for client in &mut clients {
            list(&mut registry, client, &[]);
        }
        assert_eq!((registry.len(), registry.indexed), (1, COMMON as usize));
        for epoch in 0..40 {
            registry.indexed = 0;
            for (client, at) in clients.iter_mut().zip(0..) {
                let first = COMMON + epoch * 150 + at;
                add(client, &named(first..first + 1));
                list(&mut registry, client, &[]);
            }
            registry.begin();
            // The addresses of merged bases are indexed again now and then.
            assert!(registry.indexed <= 150 * 2 * 64, "{epoch}: {}", registry.indexed);
            let layers = clients.iter().flatten().map(|client| client.layers().count());
            assert!(layers.max().is_some_and(|layers| layers <= 8));
        }
        let len = clients.iter().flatten().map(|client| client.len());
        assert!(len.into_iter().all(|len| len == COMMON as usize + 40));
        registry.mark(&address(0), 1);
        registry.mark(&address(COMMON + 149), 2);
        let number = list(&mut registry, &mut clients[149], &[]);
        let marks = registry.of(number).map(|(it, _)| it.len());
        assert_eq!(marks, Some(2));
        drop(clients);
        (0..16).for_each(|_| registry.begin());
        assert_eq!((registry.len(), registry.index.len()), (0, 0));
    }

    #[test]
    fn zilliqa_held_addresses_are_counted_while_any_set_has_them() {
        let held = HeldAddresses::default();
        let (mut one, mut two) = (None, None);
        Set::add(&mut one, &named(0..100), &held);
        Set::add(&mut two, &named(0..100), &held);
        assert_eq!(held.get(), 200);
        let mut registry = Registry::default();
        list(&mut registry, &mut one, &[]);
        list(&mut registry, &mut two, &[]);
        assert_eq!(held.get(), 100, "equal sets are one");
        assert_eq!(Set::missing(two.as_ref(), &named(98..102)), 2);
        assert_eq!(Set::missing(None, &named(98..102)), 4);
        Set::add(&mut two, &named(98..102), &held);
        assert_eq!(held.get(), 102);
        Set::add(&mut two, &named(0..102), &held);
        assert_eq!(held.get(), 102, "it has them all");
        drop((one, two));
        (0..2).for_each(|_| registry.begin());
        assert_eq!(held.get(), 0);
    }
}
