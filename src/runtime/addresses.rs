//! The limit of connections from one address.

use crate::work::network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

/// Open connections by the client's address, over all cores. Locked only when a connection opens or
/// closes, and only if there is a limit.
#[derive(Debug, Default)]
pub struct Addresses {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    /// Allows at most `max` connections per address (IPv4) or 64-bit network (IPv6); 0 is
    /// unlimited.
    pub fn new(max: usize) -> Addresses {
        Addresses { max, open: Mutex::default() }
    }

    /// Counts a connection from `address`. Returns false, and does not count it, if the address has
    /// its maximum.
    pub fn enter(&self, address: IpAddr) -> bool {
        if self.max == 0 {
            return true;
        }
        let Ok(mut open) = self.open.lock() else { return true };
        let count = open.entry(network(address)).or_insert(0);
        let admitted = *count < self.max;
        *count += usize::from(admitted);
        admitted
    }

    /// Removes a connection that [`Addresses::enter`] has counted.
    pub fn leave(&self, address: IpAddr) {
        if self.max == 0 {
            return;
        }
        let Ok(mut open) = self.open.lock() else { return };
        let address = network(address);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_an_ipv6_network_as_one() {
        let addresses = Addresses::new(2);
        let enter = |text: &str| addresses.enter(text.parse().expect(text));
        assert!(enter("2001:db8:0:1::1") && enter("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert!(!enter("2001:db8:0:1::2"), "a third connection from the same 64-bit network");
        assert!(enter("2001:db8:0:2::1"), "another 64-bit network has its own count");
        assert!(enter("10.0.0.1") && enter("10.0.0.1") && !enter("10.0.0.1"));
        assert!(enter("10.0.0.2"), "IPv4 addresses are counted one by one, not by network");
        addresses.leave("2001:db8:0:1::9".parse().expect("an address"));
        assert!(enter("2001:db8:0:1::2") && !enter("2001:db8:0:1::2"));
    }
}
