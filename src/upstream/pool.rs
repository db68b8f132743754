//! A pool of upstream servers: which one is chosen, and which are out of service.
//!
//! Health is learned from the connections of clients. `fail_after` failures in a row take a server
//! out of service for `retry_ms`. Then one connection tries it: a success brings it back, a failure
//! takes it out for as long again. While all are out of service, the one that has been out for
//! longest is tried.

use super::names::{Name, Names};
use crate::limits::UPSTREAMS;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Which server is chosen for a WebSocket, of those in service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// One after the other (round robin).
    #[default]
    RoundRobin,
    /// The one with the fewest connections from this pool.
    LeastConnections,
    /// The first in the list that is in service.
    First,
}

/// How a pool chooses.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolOptions {
    /// Which server is chosen.
    pub balance: Balance,
    /// Failures in a row that take a server out of service.
    pub fail_after: u32,
    /// Milliseconds that a server is out of service.
    pub retry_ms: u64,
    /// Milliseconds between two resolutions of a name.
    pub refresh_ms: u64,
}

/// One upstream server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Whether connections to it use TLS.
    pub secure: bool,
    /// Its host name, or its IP address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Servers of which one is chosen for each connection. See the module's documentation.
///
/// Times are those of [`crate::time::Now::ms`]. The clocks of two cores may differ by milliseconds,
/// which is little compared with the times here.
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

/// How the address of a server is found.
#[derive(Debug)]
enum Place {
    Address(SocketAddr),
    Name(Arc<Name>),
}

/// The health of a server, which outlives a reload of the configuration.
#[derive(Debug, Default)]
struct State {
    /// Connections to it, those that are being opened included.
    open: AtomicU32,
    /// Failures in a row.
    failures: AtomicU32,
    /// Until when it is out of service; 0 while it is in service.
    aside_ms: AtomicU64,
}

/// The servers that were tried for one client, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried([u64; UPSTREAMS.div_ceil(64)]);

impl Tried {
    /// Notes that server `number` was tried.
    pub fn add(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Whether server `number` was tried.
    pub fn has(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Whether no server was tried.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// A chosen server. Counts as one of the server's connections until it is dropped.
#[derive(Debug)]
pub struct Chosen {
    member: Arc<Member>,
    tried: usize,
    last: Option<SocketAddr>,
}

impl Pool {
    /// A pool of at most [`UPSTREAMS`] servers, all in service; further servers are never chosen.
    pub fn new(
        servers: impl IntoIterator<Item = UpstreamServer>,
        options: PoolOptions,
        names: &Names,
    ) -> Pool {
        Pool::after(&Pool::default(), servers, options, names)
    }

    /// A pool that takes the state of equal servers over from `old`.
    pub fn after(
        old: &Pool,
        servers: impl IntoIterator<Item = UpstreamServer>,
        options: PoolOptions,
        names: &Names,
    ) -> Pool {
        let mut left = old.members.clone();
        let member = |(number, server): (usize, UpstreamServer)| {
            // A server that is listed twice counts as two.
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

    /// Whether the two pools share the state of a server.
    pub fn is_kin(&self, other: &Pool) -> bool {
        self.members.iter().any(|it| other.members.iter().any(|its| its.server == it.server))
    }

    /// The names of its servers that need resolution.
    pub fn names(&self) -> impl Iterator<Item = Arc<Name>> + '_ {
        self.members.iter().filter_map(|it| match &it.place {
            Place::Name(name) => Some(name.clone()),
            Place::Address(_) => None,
        })
    }

    /// Chooses a server that is not in `tried` and adds it there. `None` if there is none; a server
    /// out of service is chosen only if nothing was tried before.
    pub fn pick(&self, now_ms: u64, tried: &mut Tried) -> Option<Chosen> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // Another core may take a server out of service first; then choose once more.
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

    /// The server to choose, of those that are in service or are due to be tried again.
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

    /// Connections to each server, those that are being opened included.
    pub fn open(&self) -> impl Iterator<Item = (&UpstreamServer, u32)> {
        self.members.iter().map(|it| (&it.server, it.state.open.load(Ordering::Relaxed)))
    }
}

impl Member {
    fn aside_ms(&self) -> u64 {
        self.state.aside_ms.load(Ordering::Relaxed)
    }

    /// Reserves the server for a connection. Only one core can reserve a server out of service.
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
    /// Its number in the list of servers.
    pub fn number(&self) -> usize {
        self.member.number
    }

    /// The next address to connect to: each once, the last successful one first. `None` after the
    /// last, or while the name is not resolved; that requests a resolution.
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

    /// Notes that the server has answered.
    pub fn worked(&self) {
        self.member.state.failures.store(0, Ordering::Relaxed);
        self.member.state.aside_ms.store(0, Ordering::Relaxed);
        if let (Place::Name(name), Some(address)) = (&self.member.place, self.last) {
            name.prefer(address);
        }
    }

    /// Notes that the server could not be reached or did not answer as it should. Returns whether
    /// this takes it out of service.
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
