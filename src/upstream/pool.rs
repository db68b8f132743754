//! Which of several servers is chosen, and which are put aside.
//!
//! Health is learned from the connections that are made anyway. So many failures in a row put a
//! server aside. When its time is over, one connection tries it: success brings it back, failure
//! puts it aside for as long again. While all are aside, the one that was put there first is tried.

use super::names::{Name, Names};
use crate::limits::UPSTREAMS;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Which server is chosen for a WebSocket, of those that are not put aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest connections of this pool.
    LeastConnections,
    /// The first in the list; the others are for when it fails.
    First,
}

/// By what a pool goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolOptions {
    /// Which server is chosen.
    pub balance: Balance,
    /// After so many failures in a row one is put aside.
    pub fail_after: u32,
    /// How long, in milliseconds.
    pub retry_ms: u64,
    /// How often names are looked up, in milliseconds.
    pub refresh_ms: u64,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Whether it speaks TLS.
    pub secure: bool,
    /// Its name, or its address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Servers of which one is chosen for each connection. See the module's documentation.
///
/// Times are those of [`crate::time::Now::ms`]. The clocks of two cores differ by the moment
/// between their starts, which is nothing to what is measured here.
#[derive(Debug, Default)]
pub struct Pool {
    members: Vec<Arc<Member>>,
    options: PoolOptions,
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Member {
    number: usize,
    server: UpstreamServer,
    options: PoolOptions,
    place: Place,
    state: Arc<State>,
}

/// Where a server is.
#[derive(Debug)]
enum Place {
    Address(SocketAddr),
    Name(Arc<Name>),
}

/// What is known of a server; outlives the configuration.
#[derive(Debug, Default)]
struct State {
    /// Connections to it, and those that are being made.
    open: AtomicU32,
    /// Failures in a row.
    failures: AtomicU32,
    /// Until when it is put aside; 0 is not at all.
    aside_ms: AtomicU64,
}

/// Servers that were tried for one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried([u64; UPSTREAMS.div_ceil(64)]);

impl Tried {
    /// Notes that this one was.
    pub fn add(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Whether this one was.
    pub fn has(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// A server that was chosen. Counts as one of its connections until it is dropped.
#[derive(Debug)]
pub struct Chosen {
    member: Arc<Member>,
    tried: usize,
    last: Option<SocketAddr>,
}

impl Pool {
    /// Servers of which nothing is known. At most [`UPSTREAMS`]; further ones are never chosen.
    pub fn new(
        servers: impl IntoIterator<Item = UpstreamServer>,
        options: PoolOptions,
        names: &Names,
    ) -> Pool {
        Pool::after(&Pool::default(), servers, options, names)
    }

    /// Servers of which so much is known as `old` does.
    pub fn after(
        old: &Pool,
        servers: impl IntoIterator<Item = UpstreamServer>,
        options: PoolOptions,
        names: &Names,
    ) -> Pool {
        let mut left = old.members.clone();
        let member = |(number, server): (usize, UpstreamServer)| {
            // One that stands there twice is two.
            let known = left.iter().position(|it| it.server == server).map(|at| left.remove(at));
            let place = match server.host.parse::<IpAddr>() {
                Ok(ip) => Place::Address(SocketAddr::new(ip, server.port)),
                Err(_) => Place::Name(names.at(&server.host, server.port, options.refresh_ms)),
            };
            let state = known.map(|it| it.state.clone()).unwrap_or_default();
            Arc::new(Member { number, server, options, place, state })
        };
        let members = servers.into_iter().take(UPSTREAMS).enumerate().map(member).collect();
        Pool { members, options, turn: AtomicUsize::new(0) }
    }

    /// Whether one of its servers is one of `other`.
    pub fn is_kin(&self, other: &Pool) -> bool {
        self.members.iter().any(|it| other.members.iter().any(|its| its.server == it.server))
    }

    /// Names that are to be looked up for it.
    pub fn names(&self) -> impl Iterator<Item = Arc<Name>> + '_ {
        self.members.iter().filter_map(|it| match &it.place {
            Place::Name(name) => Some(name.clone()),
            Place::Address(_) => None,
        })
    }

    /// Chooses a server that was not tried yet, and notes that it is now. `None` if there is none:
    /// one that is put aside is tried only as the first one.
    pub fn pick(&self, now_ms: u64, tried: &mut Tried) -> Option<Chosen> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // If another core comes first in trying one that was put aside, look once more.
        let mut looks = 0..=self.members.len();
        let found = looks.find_map(|_| match self.best(now_ms, tried, turn) {
            Some(member) if !member.take(now_ms) => None,
            found => Some(found),
        });
        let first_aside = || match tried.is_empty() {
            true => self.members.iter().min_by_key(|it| it.aside_ms()),
            false => None,
        };
        let member = found.flatten().or_else(first_aside)?;
        tried.add(member.number);
        member.state.open.fetch_add(1, Ordering::Relaxed);
        Some(Chosen { member: member.clone(), tried: 0, last: None })
    }

    /// The one whose turn it is, of those that are in service or whose time aside is over.
    fn best(&self, now_ms: u64, tried: &Tried, turn: usize) -> Option<&Arc<Member>> {
        let fit = |it: &&Arc<Member>| !tried.has(it.number) && it.aside_ms() <= now_ms;
        let fit = self.members.iter().filter(fit);
        let nth = |list: Vec<_>| match list.len() {
            0 => None,
            len => list.into_iter().nth(turn % len),
        };
        match self.options.balance {
            Balance::First => fit.into_iter().next(),
            Balance::RoundRobin => nth(fit.collect()),
            Balance::LeastConnections => {
                let fit: Vec<_> =
                    fit.map(|it| (it, it.state.open.load(Ordering::Relaxed))).collect();
                let fewest = fit.iter().map(|(_, open)| *open).min()?;
                nth(fit.into_iter().filter(|it| it.1 == fewest).map(|(it, _)| it).collect())
            }
        }
    }

    /// Connections to each server, those that are being made included.
    pub fn open(&self) -> impl Iterator<Item = (&UpstreamServer, u32)> {
        self.members.iter().map(|it| (&it.server, it.state.open.load(Ordering::Relaxed)))
    }
}

impl Member {
    fn aside_ms(&self) -> u64 {
        self.state.aside_ms.load(Ordering::Relaxed)
    }

    /// Takes it for a connection. Of one that was put aside there is only one taker.
    fn take(&self, now_ms: u64) -> bool {
        let aside_ms = self.aside_ms();
        let order = Ordering::Relaxed;
        let until_ms = now_ms.saturating_add(self.options.retry_ms);
        aside_ms == 0
            || aside_ms <= now_ms
                && self.state.aside_ms.compare_exchange(aside_ms, until_ms, order, order).is_ok()
    }
}

impl Chosen {
    /// Its place in the list.
    pub fn number(&self) -> usize {
        self.member.number
    }

    /// Where to connect to: each of its addresses once, that which could be reached last first.
    /// `None` at once if its name is not resolved; that asks for it to be looked up.
    pub fn next_address(&mut self) -> Option<SocketAddr> {
        let found = match &self.member.place {
            Place::Address(address) => (self.tried == 0).then_some(*address),
            Place::Name(name) => name.address(self.tried),
        };
        match (&self.member.place, found) {
            (Place::Name(name), None) => name.refresh.want(),
            _ => self.tried += 1,
        }
        self.last = found.or(self.last);
        found
    }

    /// It has answered.
    pub fn worked(&self) {
        self.member.state.failures.store(0, Ordering::Relaxed);
        self.member.state.aside_ms.store(0, Ordering::Relaxed);
        if let (Place::Name(name), Some(address)) = (&self.member.place, self.last) {
            name.prefer(address);
        }
    }

    /// It could not be reached, or has not answered as it should. Whether it is put aside by that
    /// and was not before.
    pub fn failed(&self, now_ms: u64) -> bool {
        let Member { state, options, place, .. } = &*self.member;
        if let Place::Name(name) = place {
            name.refresh.want();
        }
        let order = Ordering::Relaxed;
        let more = |failures: u32| Some(failures.saturating_add(1));
        let before = state.failures.fetch_update(order, order, more).unwrap_or(u32::MAX);
        let failures = before.saturating_add(1);
        let until_ms = now_ms.saturating_add(options.retry_ms).max(1);
        failures >= options.fail_after && state.aside_ms.swap(until_ms, Ordering::Relaxed) == 0
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.member.state.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
