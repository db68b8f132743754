//! Accept operations in flight, each with its own memory for the peer's address. Multishot accepts
//! are not used, because they have one memory for the addresses of all connections, so the
//! addresses could not be distinguished, and the peer of a direct descriptor cannot be queried
//! later.

use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

pub(super) struct PendingAccept {
    address: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl PendingAccept {
    pub(super) fn new() -> PendingAccept {
        // SAFETY: all-zero is a valid sockaddr_storage.
        let address = unsafe { std::mem::zeroed() };
        PendingAccept { address, len: 0 }
    }

    /// The operation that accepts from `listener` into the direct descriptor `file`.
    pub(super) fn entry(&mut self, listener: RawFd, file: u32) -> Option<Entry> {
        self.len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let target = types::DestinationSlot::try_from_slot_target(file).ok()?;
        let address = (&raw mut self.address).cast();
        let accept = opcode::Accept::new(types::Fd(listener), address, &raw mut self.len);
        Some(accept.file_index(Some(target)).build())
    }

    /// The address that the completed accept has written; unspecified, with port 0, for a peer on a
    /// Unix socket.
    pub(super) fn peer(&self) -> SocketAddr {
        let start = &raw const self.address;
        match i32::from(self.address.ss_family) {
            libc::AF_INET if self.len as usize >= size_of::<libc::sockaddr_in>() => {
                // SAFETY: the family says which type the kernel wrote, and storage is large
                // enough and aligned for each.
                let v4 = unsafe { &*start.cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port))
            }
            libc::AF_INET6 if self.len as usize >= size_of::<libc::sockaddr_in6>() => {
                // SAFETY: as above.
                let v6 = unsafe { &*start.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr).to_canonical();
                SocketAddr::new(ip, u16::from_be(v6.sin6_port))
            }
            _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        }
    }
}
