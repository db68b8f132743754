//! When names of upstreams are looked up: at the start, at an interval, and when a connection to
//! one has failed, but not too often. What was found last serves until something else is found.

use crate::stats::Counters;
use crate::upstream::{Name, Names};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long one look-up may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// The least time between two of one name, in milliseconds.
const FLOOR_MS: u64 = 1000;
/// Addresses of one name that are used.
const ADDRESSES: usize = 16;

/// What is looked up: a host and a port.
pub(super) type Key = (String, u16);

/// See the module's documentation. Time comes in as an argument.
pub(super) struct Lookups {
    names: Arc<Names>,
    counters: Arc<Counters>,
    by_key: HashMap<Key, State>,
}

#[derive(Default)]
struct State {
    busy: bool,
    /// When it was begun last.
    last_ms: Option<u64>,
    /// When it is to begin again by itself.
    next_ms: u64,
    /// Failures in a row.
    failures: u32,
}

impl State {
    fn due_ms(&self, name: &Name) -> u64 {
        let soonest = self.last_ms.map_or(0, |last_ms| last_ms + FLOOR_MS);
        match (self.busy, name.is_wanted()) {
            (true, _) => u64::MAX,
            (false, true) => soonest.min(self.next_ms),
            (false, false) => self.next_ms,
        }
    }
}

fn key(name: &Name) -> Key {
    (name.host.clone(), name.port)
}

impl Lookups {
    pub(super) fn new(names: Arc<Names>, counters: Arc<Counters>) -> Lookups {
        Lookups { names, counters, by_key: HashMap::new() }
    }

    /// What is to be looked up now. Each is answered by [`Lookups::outcome`].
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Key> {
        let list = self.names.list();
        self.by_key.retain(|it, _| list.iter().any(|name| key(name) == *it));
        let mut due = Vec::new();
        for name in list {
            let state = self.by_key.entry(key(&name)).or_default();
            if state.due_ms(&name) <= now_ms {
                state.busy = true;
                state.last_ms = Some(now_ms);
                due.push(key(&name));
            }
            if state.busy {
                name.begin();
            }
        }
        due
    }

    /// Takes what was found, if anything was.
    pub(super) fn outcome(&mut self, it: &Key, found: io::Result<Vec<SocketAddr>>, now_ms: u64) {
        let Some(state) = self.by_key.get_mut(it) else { return };
        let found = found.and_then(|found| match found.is_empty() {
            true => Err(io::Error::other("it has no address")),
            false => Ok(found),
        });
        state.busy = false;
        state.failures = if found.is_ok() { 0 } else { state.failures + 1 };
        for name in self.names.list().iter().filter(|name| key(name) == *it) {
            // Twice as long after each failure, from the floor up to the interval.
            let later_ms = FLOOR_MS << state.failures.min(16);
            let wait_ms = if found.is_ok() { name.refresh_ms } else { later_ms };
            state.next_ms = now_ms + wait_ms.min(name.refresh_ms.max(FLOOR_MS));
            if let Ok(found) = &found {
                name.put(&found[..found.len().min(ADDRESSES)]);
            }
        }
        match found {
            Ok(_) => self.counters.names_found.add(1),
            Err(error) => {
                self.counters.names_failed.add(1);
                let event = "BINDING_TCP_DNS_FAILED";
                tracing::warn!(event, name = it.0, %error, "the name of an upstream is not found");
            }
        }
    }

    /// When to look again.
    pub(super) fn deadline_ms(&self) -> u64 {
        let due =
            |name: &Arc<Name>| self.by_key.get(&key(name)).map_or(0, |state| state.due_ms(name));
        self.names.list().iter().map(due).min().unwrap_or(u64::MAX)
    }
}

/// Asks the system for the addresses of a name.
pub(super) async fn look_up(it: &Key) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((it.0.as_str(), it.1))).await;
    let found = found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(last: u8) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from(([10, 0, 0, last], 80))])
    }

    fn failed() -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn lookups() -> (Lookups, Arc<Names>, Arc<Name>, Key) {
        let names = Arc::new(Names::default());
        let name = names.at("a.example", 80, 30_000);
        names.replace(vec![name.clone()]);
        let key = key(&name);
        (Lookups::new(names.clone(), Arc::default()), names, name, key)
    }

    #[test]
    fn at_the_start_at_the_interval_and_when_it_is_wanted() {
        let (mut it, _, name, key) = lookups();
        assert_eq!((it.deadline_ms(), it.due(100).len()), (0, 1));
        assert_eq!((it.deadline_ms(), it.due(100).len()), (u64::MAX, 0), "one at a time");
        it.outcome(&key, found(1), 200);
        assert_eq!(name.addresses()[..], found(1).unwrap());
        assert_eq!((it.deadline_ms(), it.due(30_199).len()), (30_200, 0));
        assert_eq!(it.due(30_200), std::slice::from_ref(&key));
        it.outcome(&key, found(2), 30_300);
        assert_eq!(name.addresses()[..], found(2).unwrap());
        name.want();
        assert_eq!((it.deadline_ms(), it.due(31_199).len()), (31_200, 0), "not before the floor");
        assert_eq!(it.due(31_200).len(), 1);
        assert!(!name.is_wanted());
    }

    #[test]
    fn what_is_not_found_is_tried_less_and_less_and_old_addresses_stay() {
        let (mut it, _, name, key) = lookups();
        it.due(0);
        it.outcome(&key, found(1), 0);
        let mut now_ms = 30_000;
        for (outcome, wait_ms) in [
            (failed(), 2000),
            (Ok(Vec::new()), 4000),
            (failed(), 8000),
            (failed(), 16_000),
            (failed(), 30_000),
            (failed(), 30_000),
        ] {
            assert_eq!(it.due(now_ms).len(), 1);
            it.outcome(&key, outcome, now_ms);
            now_ms += wait_ms;
            assert_eq!(it.deadline_ms(), now_ms);
        }
        assert_eq!((it.counters.names_failed.get(), it.counters.names_found.get()), (6, 1));
        assert_eq!(name.addresses()[..], found(1).unwrap());
    }

    #[test]
    fn several_routes_share_a_look_up_and_a_name_that_is_gone_is_forgotten() {
        let (mut it, names, name, key) = lookups();
        let twin = names.at("a.example", 80, 60_000);
        names.replace(vec![name.clone(), twin.clone()]);
        twin.want();
        assert_eq!(it.due(0).len(), 1);
        assert!(!twin.is_wanted(), "it is on its way");
        let many = (0..20).map(|last| SocketAddr::from(([10, 0, 0, last], 80))).collect();
        it.outcome(&key, Ok(many), 0);
        assert_eq!((name.addresses().len(), twin.addresses().len()), (ADDRESSES, ADDRESSES));
        let other = names.at("b.example", 80, 60_000);
        names.replace(vec![other]);
        assert_eq!(it.due(1), [("b.example".to_owned(), 80)]);
        assert_eq!(it.by_key.len(), 1);
        it.outcome(&key, found(1), 2);
        assert_eq!(it.counters.names_found.get(), 1, "nobody asks any more");
    }
}
