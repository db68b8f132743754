//! Finds out which accounts are contracts, for the questions of clients.
//!
//! A contract stays a contract; any other account may become one in the next epoch.

use std::collections::{HashMap, HashSet, VecDeque};

/// The address of an account.
pub(super) type ContractAddress = [u8; 20];

/// The maximum number of accounts in one request.
const BATCH: usize = 50;
/// How long after a failed request the next one is made, in milliseconds.
const RETRY_MS: u64 = 1000;
/// The maximum number of pending questions.
const QUESTIONS: usize = 1024;

/// Pending questions of type `Q`, and what is known about the accounts in them. One request is in
/// flight at a time.
pub(super) struct ContractLookup<Q> {
    known: Contracts,
    waiting: VecDeque<PendingRequest<Q>>,
    /// The accounts of the request in flight.
    in_flight: Option<Vec<ContractAddress>>,
    /// The maximum number of accounts in the next request: 1 after a failure.
    batch: usize,
    /// No request is made before this time, in milliseconds.
    again_ms: u64,
    patience_ms: u64,
}

struct PendingRequest<Q> {
    question: Q,
    open: Vec<ContractAddress>,
    contracts: HashSet<ContractAddress>,
    unknown: u64,
    until_ms: u64,
}

/// A question with its answer.
pub(super) struct ContractAnswer<Q> {
    pub(super) question: Q,
    /// The contracts among the question's accounts.
    pub(super) contracts: HashSet<ContractAddress>,
    /// The number of accounts for which no node gave an answer; they count as no contracts.
    pub(super) unknown: u64,
}

impl<Q> ContractLookup<Q> {
    /// An empty lookup that remembers up to `max` accounts. A question waits for at most
    /// `patience_ms`.
    pub(super) fn new(max: usize, patience_ms: u64) -> ContractLookup<Q> {
        let (known, waiting) = (Contracts::new(max), VecDeque::new());
        ContractLookup { known, waiting, in_flight: None, batch: BATCH, again_ms: 0, patience_ms }
    }

    /// Sets new limits; `patience_ms` applies to new questions. The request in flight is abandoned
    /// and made again.
    pub(super) fn renew(&mut self, max: usize, patience_ms: u64) {
        self.in_flight = None;
        self.known.max = max;
        self.patience_ms = patience_ms;
    }

    /// Whether there is room for another question.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < QUESTIONS
    }

    /// Adds a question about the accounts in `about`; `epoch` is the current epoch.
    pub(super) fn take(&mut self, question: Q, about: &[ContractAddress], epoch: u64, now_ms: u64) {
        let (mut open, mut contracts) = (Vec::new(), HashSet::new());
        for address in about {
            match self.known.get(address, epoch) {
                Some(true) => drop(contracts.insert(*address)),
                Some(false) => {}
                None => open.push(*address),
            }
        }
        let until_ms = now_ms + self.patience_ms;
        self.waiting.push_back(PendingRequest { question, open, contracts, unknown: 0, until_ms });
    }

    /// Starts the next request: returns its accounts, or `None` if no request is needed or allowed
    /// now.
    pub(super) fn next_batch(&mut self, now_ms: u64) -> Option<&[ContractAddress]> {
        if self.in_flight.is_some() || now_ms < self.again_ms {
            return None;
        }
        let mut batch = Vec::new();
        let mut seen = HashSet::new();
        for address in self.waiting.iter().flat_map(|waiting| &waiting.open) {
            if batch.len() == self.batch {
                break;
            }
            if seen.insert(address) {
                batch.push(*address);
            }
        }
        if batch.is_empty() {
            return None;
        }
        self.in_flight = Some(batch);
        self.in_flight.as_deref()
    }

    /// The number of accounts in the request in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.as_ref().map_or(0, Vec::len)
    }

    /// Takes the response to the request in flight: for each of its accounts, whether it is a
    /// contract.
    pub(super) fn received(&mut self, answers: &[bool], epoch: u64) {
        let Some(in_flight) = self.in_flight.take() else { return };
        self.batch = BATCH;
        let answers: HashMap<ContractAddress, bool> =
            in_flight.into_iter().zip(answers.iter().copied()).collect();
        for (address, is_contract) in &answers {
            self.known.note(*address, *is_contract, epoch);
        }
        for waiting in &mut self.waiting {
            let contracts = &mut waiting.contracts;
            waiting.open.retain(|address| match answers.get(address) {
                Some(is_contract) => {
                    if *is_contract {
                        contracts.insert(*address);
                    }
                    false
                }
                None => true,
            });
        }
    }

    /// Notes that the request in flight failed. The next requests have one account each, and an
    /// account that fails alone is given up.
    pub(super) fn unheard(&mut self, now_ms: u64) {
        let Some(in_flight) = self.in_flight.take() else { return };
        self.again_ms = now_ms + RETRY_MS;
        if let [address] = in_flight[..] {
            for PendingRequest { open, unknown, .. } in &mut self.waiting {
                let before = open.len();
                open.retain(|other| *other != address);
                *unknown += (before - open.len()) as u64;
            }
        }
        self.batch = 1;
    }

    /// The next question that is fully answered or has timed out.
    pub(super) fn answer(&mut self, now_ms: u64) -> Option<ContractAnswer<Q>> {
        let is_done = |it: &PendingRequest<Q>| it.open.is_empty() || now_ms >= it.until_ms;
        let at = self.waiting.iter().position(is_done)?;
        let PendingRequest { question, open, contracts, unknown, .. } = self.waiting.remove(at)?;
        Some(ContractAnswer { question, contracts, unknown: unknown + open.len() as u64 })
    }

    /// When to call the lookup again if nothing else happens, in milliseconds; `u64::MAX` if no
    /// question waits.
    pub(super) fn deadline_ms(&self, now_ms: u64) -> u64 {
        let until = self.waiting.iter().map(|waiting| waiting.until_ms).min();
        let again = (now_ms < self.again_ms && until.is_some()).then_some(self.again_ms);
        until.unwrap_or(u64::MAX).min(again.unwrap_or(u64::MAX))
    }
}

/// What is known about up to `max` accounts; above that, the oldest entries are removed.
struct Contracts {
    max: usize,
    known: HashMap<ContractAddress, Known, ahash::RandomState>,
    /// The accounts and note numbers, oldest first. An account that was noted again has another,
    /// later entry.
    order: VecDeque<(ContractAddress, u64)>,
    notes: u64,
}

#[derive(Clone, Copy)]
struct Known {
    /// The epoch at which the account was not a contract; `None` if it is one.
    not_at: Option<u64>,
    note: u64,
}

impl Contracts {
    fn new(max: usize) -> Contracts {
        Contracts { max, known: HashMap::default(), order: VecDeque::new(), notes: 0 }
    }

    /// Whether the account is a contract; `None` if that is unknown at this epoch.
    fn get(&self, address: &ContractAddress, epoch: u64) -> Option<bool> {
        match self.known.get(address)?.not_at {
            None => Some(true),
            Some(at) if at == epoch => Some(false),
            Some(_) => None,
        }
    }

    /// Records a node's answer about an account.
    fn note(&mut self, address: ContractAddress, is_contract: bool, epoch: u64) {
        self.notes += 1;
        let known = Known { not_at: (!is_contract).then_some(epoch), note: self.notes };
        self.known.insert(address, known);
        self.order.push_back((address, self.notes));
        while self.known.len() > self.max || self.order.len() > 2 * self.max {
            let Some((address, note)) = self.order.pop_front() else { return };
            if self.known.get(&address).is_some_and(|known| known.note == note) {
                self.known.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> ContractAddress {
        [n; 20]
    }

    fn answers(lookup: &mut ContractLookup<u8>, now_ms: u64) -> Vec<(u8, Vec<u8>, u64)> {
        let mut answers = Vec::new();
        while let Some(ContractAnswer { question, contracts, unknown }) = lookup.answer(now_ms) {
            let mut contracts: Vec<u8> = contracts.iter().map(|it| it[0]).collect();
            contracts.sort_unstable();
            answers.push((question, contracts, unknown));
        }
        answers
    }

    #[test]
    fn contract_lookup_answers_when_all_is_known() {
        let mut lookup = ContractLookup::new(100, 1000);
        let list: Vec<ContractAddress> = (0..60).map(address).collect();
        lookup.take(1, &list, 5, 0);
        lookup.take(2, &[address(0), address(70), address(70)], 5, 0);
        assert_eq!(lookup.next_batch(0).map(<[ContractAddress]>::len), Some(BATCH));
        assert!(lookup.next_batch(0).is_none(), "one request at a time");
        assert_eq!(answers(&mut lookup, 0), []);
        lookup.received(&[true; BATCH], 5);
        assert_eq!(answers(&mut lookup, 0), []);
        assert_eq!(lookup.next_batch(0).map(<[ContractAddress]>::len), Some(11));
        lookup.received(&[false; 11], 5);
        let first = (1, (0..50).collect::<Vec<u8>>(), 0);
        assert_eq!(answers(&mut lookup, 0), [first, (2, vec![0], 0)]);
        assert!(lookup.next_batch(0).is_none());
        // Known accounts are not requested again; those that are no contracts, not in the same
        // epoch.
        lookup.take(3, &[address(1), address(55)], 5, 0);
        assert!(lookup.next_batch(0).is_none());
        assert_eq!(answers(&mut lookup, 0), [(3, vec![1], 0)]);
        lookup.take(4, &[address(1), address(55)], 6, 0);
        assert_eq!(lookup.next_batch(0), Some(&[address(55)][..]));
    }

    #[test]
    fn contract_lookup_retries_one_by_one_then_gives_up() {
        let mut lookup = ContractLookup::new(100, 60_000);
        lookup.take(1, &[address(1), address(2), address(3)], 0, 0);
        assert_eq!(lookup.next_batch(0).map(<[ContractAddress]>::len), Some(3));
        lookup.unheard(0);
        assert_eq!(lookup.next_batch(999), None);
        assert_eq!(lookup.deadline_ms(999), RETRY_MS);
        assert_eq!(lookup.next_batch(1000), Some(&[address(1)][..]));
        lookup.unheard(1000);
        assert_eq!(lookup.next_batch(2000), Some(&[address(2)][..]));
        lookup.received(&[true], 0);
        assert_eq!(lookup.next_batch(2000), Some(&[address(3)][..]), "and the rest at once");
        lookup.received(&[false], 0);
        assert_eq!(answers(&mut lookup, 2000), [(1, vec![2], 1)]);
    }

    #[test]
    fn contract_lookup_bounds_time_and_number() {
        let mut lookup = ContractLookup::new(100, 1000);
        lookup.take(1, &[address(1), address(2)], 0, 500);
        lookup.take(2, &[address(1)], 0, 700);
        assert_eq!(lookup.deadline_ms(0), 1500);
        assert_eq!(answers(&mut lookup, 1499), []);
        assert_eq!(answers(&mut lookup, 1500), [(1, vec![], 2)]);
        assert_eq!(lookup.deadline_ms(0), 1700);
        (1..QUESTIONS).for_each(|_| lookup.take(3, &[address(1)], 0, 0));
        assert!(!lookup.has_room());
        assert_eq!(answers(&mut lookup, 5000).len(), QUESTIONS);
        assert!(lookup.has_room());
        assert_eq!(lookup.deadline_ms(0), u64::MAX);
    }

    #[test]
    fn contract_lookup_remembers_contracts_for_ever() {
        let mut contracts = Contracts::new(16);
        assert_eq!(contracts.get(&address(1), 5), None);
        contracts.note(address(1), true, 5);
        contracts.note(address(2), false, 5);
        assert_eq!(contracts.get(&address(1), 500), Some(true));
        assert_eq!(contracts.get(&address(2), 5), Some(false));
        assert_eq!(contracts.get(&address(2), 6), None);
        contracts.note(address(2), true, 6);
        assert_eq!(contracts.get(&address(2), 7), Some(true));
    }

    #[test]
    fn contract_lookup_forgets_the_oldest() {
        let mut contracts = Contracts::new(3);
        for n in 1..=3 {
            contracts.note(address(n), true, 0);
        }
        contracts.note(address(1), true, 0);
        contracts.note(address(4), true, 0);
        let known = |n| contracts.get(&address(n), 0).is_some();
        assert_eq!([1, 2, 3, 4].map(known), [true, false, true, true]);
        for _ in 0..100 {
            contracts.note(address(9), false, 0);
        }
        assert!(contracts.order.len() <= 6);
        assert_eq!(contracts.get(&address(9), 0), Some(false));
    }
}
