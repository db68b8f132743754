//! Names of servers and their addresses of the moment. Another thread looks them up.

use crate::mem::{RefreshList, RefreshRequest};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A name, and the addresses that were found last.
pub struct Name {
    /// What is looked up.
    pub host: String,
    /// The port of its addresses.
    pub port: u16,
    /// How often it is looked up, in milliseconds.
    pub refresh_ms: u64,
    found: Mutex<Arc<[SocketAddr]>>,
    /// The place of the address that could be reached last.
    preferred: AtomicUsize,
    /// Whether it is to be looked up soon.
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

    /// The addresses that were found last; none if none ever were.
    pub fn addresses(&self) -> Arc<[SocketAddr]> {
        self.lock().clone()
    }

    /// Puts these in the place of the old ones. None are no news: the old ones stay.
    pub fn put(&self, addresses: &[SocketAddr]) {
        if !addresses.is_empty() && **self.lock() != *addresses {
            *self.lock() = addresses.into();
        }
    }

    /// The address to be tried when so many have been tried before.
    pub(super) fn address(&self, tried: usize) -> Option<SocketAddr> {
        let addresses = self.addresses();
        let first = self.preferred.load(Ordering::Relaxed);
        match tried < addresses.len() {
            true => Some(addresses[(first % addresses.len() + tried) % addresses.len()]),
            false => None,
        }
    }

    /// Begins with this one next time.
    pub(super) fn prefer(&self, address: SocketAddr) {
        if let Some(place) = self.addresses().iter().position(|it| *it == address) {
            self.preferred.store(place, Ordering::Relaxed);
        }
    }
}

/// All names that are to be looked up.
pub type Names = RefreshList<Name>;

impl Names {
    /// A name, with the addresses that are known of it.
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
    fn each_address_is_tried_once_and_the_one_that_answers_first_next_time() {
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
        assert_eq!(order(), [4, 5], "one that is gone since");
    }

    #[test]
    fn addresses_outlive_a_reload() {
        let names = Names::default();
        let name = names.at("a", 1, 1000);
        names.replace(vec![name.clone()]);
        name.put(&addresses(&[1]));
        assert_eq!(names.at("a", 1, 5).addresses()[..], addresses(&[1]));
        assert!(names.at("a", 2, 5).addresses().is_empty(), "another port is another name");
    }
}
