//! DNS lookups of upstream names: at the start, at an interval, and when a connection to an
//! upstream has failed. The last addresses found stay in use until a lookup finds others.

use super::job::{Job, JobKind, JobSetup, Turn};
use super::results::Results;
use super::schedule::{Refreshable, Schedule};
use crate::dialect::Env;
use crate::mem::RefreshRequest;
use crate::stats::Counters;
use crate::upstream::{Name, Names};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Timeout of one lookup.
const LOOKUP: Duration = Duration::from_secs(5);
/// The minimum time between two lookups of one name, in milliseconds.
const FLOOR_MS: u64 = 1000;
/// The maximum number of addresses that are used for one name.
const ADDRESSES: usize = 16;

pub(super) const JOB: JobKind = JobKind { is_needed, start };

fn is_needed(env: &Env) -> bool {
    !env.runtime.names.list().is_empty()
}

fn start(setup: &mut JobSetup) -> io::Result<Box<dyn Job>> {
    let (names, notifier) = (setup.env.runtime.names.clone(), setup.notifier.clone());
    let found = Results::new(&notifier);
    names.notifier().attach(move || notifier.notify());
    Ok(Box::new(DnsJob { lookups: Lookups::new(names, setup.counters.clone()), found }))
}

/// A host name and a port.
type HostPort = (String, u16);

/// A name and port, and the addresses that the lookup found.
type Resolved = (HostPort, io::Result<Vec<SocketAddr>>);

/// The lookups of names, with their requests to the system's resolver.
struct DnsJob {
    lookups: Lookups,
    found: Results<Resolved>,
}

impl Job for DnsJob {
    fn turn(&mut self, turn: &mut Turn<'_>) {
        for (name, found) in self.found.take() {
            self.lookups.outcome(&name, found, turn.now_ms);
        }
        for name in self.lookups.due(turn.now_ms) {
            let found = self.found.clone();
            tokio::task::spawn_local(async move {
                let addresses = look_up(&name).await;
                found.put((name, addresses));
            });
        }
    }

    fn deadline_ms(&self, _turn: &Turn<'_>) -> u64 {
        self.lookups.deadline_ms()
    }
}

impl Refreshable for Name {
    type Key = HostPort;

    fn key(&self) -> HostPort {
        (self.host.clone(), self.port)
    }

    fn refresh(&self) -> &RefreshRequest {
        &self.refresh
    }

    fn refresh_ms(&self) -> u64 {
        self.refresh_ms
    }

    fn floor_ms(&self) -> u64 {
        FLOOR_MS
    }
}

/// The scheduled lookups of all upstream names; see the module's documentation.
struct Lookups {
    schedule: Schedule<Name>,
    counters: Arc<Counters>,
}

impl Lookups {
    fn new(names: Arc<Names>, counters: Arc<Counters>) -> Lookups {
        Lookups { schedule: Schedule::new(names), counters }
    }

    /// The names to look up now. The caller reports each result with [`Lookups::outcome`].
    fn due(&mut self, now_ms: u64) -> Vec<HostPort> {
        self.schedule.due(now_ms).iter().map(|name| name.key()).collect()
    }

    /// Takes the result of a lookup. After a failure the old addresses stay in use.
    fn outcome(&mut self, it: &HostPort, found: io::Result<Vec<SocketAddr>>, now_ms: u64) {
        let found = found.and_then(|found| match found.is_empty() {
            true => Err(io::Error::other("the name has no address")),
            false => Ok(found),
        });
        let names = self.schedule.outcome(it, found.is_ok(), now_ms);
        if names.is_empty() {
            return;
        }
        match found {
            Ok(found) => {
                let some = &found[..found.len().min(ADDRESSES)];
                names.iter().for_each(|name| name.put(some));
                self.counters.names_found.add(1);
            }
            Err(error) => {
                self.counters.names_failed.add(1);
                let event = "BINDING_TCP_DNS_FAILED";
                tracing::warn!(event, name = it.0, %error, "an upstream name cannot be resolved");
            }
        }
    }

    /// When the next lookup is due, in milliseconds; `u64::MAX` if none is.
    fn deadline_ms(&self) -> u64 {
        self.schedule.deadline_ms()
    }
}

/// Resolves a name with the system's resolver. Returns each address once.
///
/// # Errors
/// The name is not found, or the lookup takes longer than 5 seconds.
async fn look_up(it: &HostPort) -> io::Result<Vec<SocketAddr>> {
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

    #[test]
    fn dns_addresses_serve_until_replaced() {
        let names = Arc::new(Names::default());
        let name = names.at("a.example", 80, 30_000);
        let twin = names.at("a.example", 80, 60_000);
        names.replace(vec![name.clone(), twin.clone()]);
        let mut it = Lookups::new(names.clone(), Arc::default());
        let due = it.due(0);
        assert_eq!(due, [("a.example".to_owned(), 80)]);
        let key = &due[0];
        it.outcome(key, found(1), 0);
        assert_eq!((it.deadline_ms(), &name.addresses()[..]), (30_000, &found(1).unwrap()[..]));
        it.outcome(key, Err(io::ErrorKind::NotFound.into()), 30_000);
        it.outcome(key, Ok(Vec::new()), 30_000);
        assert_eq!(it.deadline_ms(), 30_000 + 4 * FLOOR_MS);
        assert_eq!((it.counters.names_failed.get(), it.counters.names_found.get()), (2, 1));
        assert_eq!(name.addresses()[..], found(1).unwrap());
        let many =
            |count| (0..count).map(|last| SocketAddr::from(([10, 0, 0, last], 80))).collect();
        it.outcome(key, Ok(many(ADDRESSES as u8)), 0);
        assert_eq!((name.addresses().len(), twin.addresses().len()), (ADDRESSES, ADDRESSES));
        it.outcome(key, Ok(many(ADDRESSES as u8 + 1)), 0);
        assert_eq!(name.addresses().len(), ADDRESSES);
        names.replace(Vec::new());
        it.due(1);
        it.outcome(key, found(1), 2);
        assert_eq!(it.counters.names_found.get(), 3, "no entry requests it any more");
    }
}
