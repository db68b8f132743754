//! Host names of upstream servers and their present addresses. The control thread resolves them.

use crate::mem::{RefreshList, RefreshRequest};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A host name and the addresses of its last successful resolution.
pub struct Name {
    /// The name that is resolved.
    pub host: String,
    /// The port of the addresses.
    pub port: u16,
    /// Milliseconds between two resolutions.
    pub refresh_ms: u64,
    found: Mutex<Arc<[SocketAddr]>>,
    /// The position of the address that was last connected to with success.
    preferred: AtomicUsize,
    /// Asks for a resolution before the next regular one.
    pub refresh: RefreshRequest,
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} at {:?}", self.host, self.port, self.addresses())
    }
}

impl Name {
    fn lock(&self) -> MutexGuard<'_, Arc<[SocketAddr]>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of the last successful resolution; empty before the first.
    pub fn addresses(&self) -> Arc<[SocketAddr]> {
        self.lock().clone()
    }

    /// Replaces the addresses. An empty list changes nothing.
    pub fn put(&self, addresses: &[SocketAddr]) {
        if !addresses.is_empty() && **self.lock() != *addresses {
            *self.lock() = addresses.into();
        }
    }

    /// The address to try after `tried` others.
    pub(super) fn address(&self, tried: usize) -> Option<SocketAddr> {
        let addresses = self.addresses();
        let first = self.preferred.load(Ordering::Relaxed);
        match tried < addresses.len() {
            true => Some(addresses[(first % addresses.len() + tried) % addresses.len()]),
            false => None,
        }
    }

    /// Makes `address` the first to try from now on.
    pub(super) fn prefer(&self, address: SocketAddr) {
        if let Some(place) = self.addresses().iter().position(|it| *it == address) {
            self.preferred.store(place, Ordering::Relaxed);
        }
    }
}

/// All names that are resolved again and again.
pub type Names = RefreshList<Name>;

impl Names {
    /// The entry of a name, with the addresses that are known already.
    pub fn at(&self, host: &str, port: u16, refresh_ms: u64) -> Arc<Name> {
        let known = self.find(|it| it.host == host && it.port == port).map(|it| it.addresses());
        Arc::new(Name {
            host: host.to_owned(),
            port,
            refresh_ms,
            found: Mutex::new(known.unwrap_or_else(|| Arc::new([]))),
            preferred: AtomicUsize::new(0),
            refresh: RefreshRequest::new(self.notifier()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    #[test]
    fn names_try_each_address_once_and_the_last_successful_one_first() {
        let name = Names::default().at("a", 1, 1000);
        let order = || {
            let tried = (0..).map_while(|tried| name.address(tried));
            tried.map(|it| it.port()).collect::<Vec<_>>()
        };
        assert!(order().is_empty(), "nothing is found yet");
        name.put(&addresses(&[1, 2, 3]));
        assert_eq!(order(), [1, 2, 3]);
        name.prefer(addresses(&[3])[0]);
        assert_eq!(order(), [3, 1, 2]);
        name.put(&[]);
        assert_eq!(order(), [3, 1, 2], "nothing found is no news");
        name.put(&addresses(&[4, 5]));
        assert_eq!(order(), [4, 5]);
        name.prefer(addresses(&[9])[0]);
        assert_eq!(order(), [4, 5], "the preferred address is no longer there");
    }

    #[test]
    fn names_keep_their_addresses_over_a_reload() {
        let names = Names::default();
        let name = names.at("a", 1, 1000);
        names.replace(vec![name.clone()]);
        name.put(&addresses(&[1]));
        assert_eq!(names.at("a", 1, 5).addresses()[..], addresses(&[1]));
        assert!(names.at("a", 2, 5).addresses().is_empty(), "another port is another name");
    }
}
