//! Outgoing connections: a socket as a direct descriptor, its options, and the connect. The kernel
//! reads the address from memory that belongs to the ring until the completion.

use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use std::net::SocketAddr;

/// The value of each option.
static ON: libc::c_int = 1;

/// The options of every outgoing connection: no delay for small segments, and keep-alive probes.
/// A kernel before 6.7 cannot set them on a direct descriptor; it answers with an error, and the
/// connection goes on without them.
const OPTIONS: [(libc::c_int, libc::c_int); 2] =
    [(libc::IPPROTO_TCP, libc::TCP_NODELAY), (libc::SOL_SOCKET, libc::SO_KEEPALIVE)];

/// The operation that creates a socket for `address`, as the direct descriptor `file`.
pub(super) fn socket_entry(file: u32, address: SocketAddr) -> Option<Entry> {
    let target = types::DestinationSlot::try_from_slot_target(file).ok()?;
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = opcode::Socket::new(domain, libc::SOCK_STREAM, libc::IPPROTO_TCP);
    Some(socket.file_index(Some(target)).build())
}

/// The operations that set the options of `file`.
pub(super) fn option_entries(file: u32) -> [Entry; OPTIONS.len()] {
    OPTIONS.map(|(level, name)| {
        let (value, len) = ((&raw const ON).cast(), size_of_val(&ON) as u32);
        let file = types::Fixed(file);
        opcode::SetSockOpt::new(file, level as u32, name as u32, value, len).build()
    })
}

/// An address in the form that the kernel reads.
pub(super) struct ConnectPlace {
    address: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl ConnectPlace {
    pub(super) fn new(address: SocketAddr) -> Box<ConnectPlace> {
        let address = socket2::SockAddr::from(address);
        let len = address.len();
        // SAFETY: all-zero is a valid sockaddr_storage.
        let mut place = Box::new(ConnectPlace { address: unsafe { std::mem::zeroed() }, len });
        let to = (&raw mut place.address).cast::<u8>();
        // SAFETY: `len` bytes of `address` are initialised, and fit a sockaddr_storage.
        unsafe { std::ptr::copy_nonoverlapping(address.as_ptr().cast::<u8>(), to, len as usize) };
        place
    }

    /// The operation that connects `file`.
    pub(super) fn entry(&self, file: u32) -> Entry {
        let address = (&raw const self.address).cast();
        opcode::Connect::new(types::Fixed(file), address, self.len).build()
    }
}

#[cfg(test)]
mod tests {
    use crate::driver::{Completion, Driver, Op, Settings};
    use crate::mem::Slot;
    use crate::stats::Counters;
    use crate::uring::{Ring, probe};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::Arc;
    use std::time::Duration;

    fn ring() -> Option<Ring> {
        let settings =
            Settings { files: 8, buffers: 16, buffer_bytes: 512, accepts: 1, restricted: true };
        match Ring::new(settings, Arc::new(Counters::default())) {
            Ok(ring) => Some(ring),
            Err(error) => {
                println!("SKIPPED: {error}: {}", probe::cause(&error, 1).advice());
                None
            }
        }
    }

    /// The completion of `op`; other completions are appended to `seen`.
    fn wait_for(ring: &mut Ring, op: Op, seen: &mut Vec<Completion>) -> Completion {
        for _ in 0..100 {
            let mut done = Vec::new();
            ring.turn(Duration::from_millis(100), &mut done).expect("a turn");
            let found = done.iter().find(|done| done.op == op).copied();
            seen.append(&mut done);
            if let Some(found) = found {
                return found;
            }
        }
        panic!("no completion of {op:?}")
    }

    fn dial(
        ring: &mut Ring,
        slot: Slot,
        address: SocketAddr,
    ) -> (Result<usize, i32>, Vec<Completion>) {
        let mut seen = Vec::new();
        ring.socket(slot, address);
        assert_eq!(wait_for(ring, Op::Socket, &mut seen).outcome(), Ok(0));
        ring.connect(slot, address);
        let done = wait_for(ring, Op::Connect, &mut seen);
        ring.connected(&done);
        assert_eq!((done.index, done.generation), (slot.index, slot.short_generation()));
        (done.outcome(), seen)
    }

    #[test]
    fn ring_that_is_restricted_refuses_other_operations() {
        let Some(mut restricted) = ring() else { return };
        let refused = restricted.refuses_others().expect("both can be tried");
        assert_eq!(refused, (Some(libc::EACCES), Some(libc::EACCES)));
        let settings =
            Settings { files: 8, buffers: 16, buffer_bytes: 512, accepts: 1, restricted: false };
        let mut free = Ring::new(settings, Arc::new(Counters::default())).expect("a ring");
        assert_eq!(free.refuses_others().expect("both can be tried"), (None, None));
    }

    #[test]
    fn connect_sets_options_and_works_for_both_address_families() {
        let Some(mut ring) = ring() else { return };
        for (index, any) in ["127.0.0.1:0", "[::1]:0"].into_iter().enumerate() {
            let Ok(listener) = TcpListener::bind(any) else {
                println!("SKIPPED: no address {any}");
                continue;
            };
            let slot = Slot { index: index as u32, generation: 3 };
            let address = listener.local_addr().expect("an address");
            let (outcome, seen) = dial(&mut ring, slot, address);
            assert_eq!(outcome, Ok(0), "{any}");
            assert!(listener.accept().is_ok());
            let options: Vec<_> = seen.iter().filter(|done| done.op == Op::Option).collect();
            let refused = |done: &&Completion| done.outcome() == Err(libc::EOPNOTSUPP);
            if options.iter().any(refused) {
                println!("SKIPPED: this kernel does not set options of direct descriptors");
            } else {
                assert!(options.iter().all(|done| done.outcome() == Ok(0)), "{options:?}");
            }
        }
    }

    #[test]
    fn connect_to_a_port_without_a_listener_is_refused() {
        let Some(mut ring) = ring() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let (outcome, _) = dial(&mut ring, Slot { index: 0, generation: 1 }, address);
        assert_eq!(outcome, Err(libc::ECONNREFUSED));
    }
}
