//! The sockets that the reactors accept from.

use super::Error;
use crate::config;
use crate::reactor::Listeners;
use crate::uring::sys;
use socket2::Socket;
use std::net::SocketAddr;
use std::sync::Arc;

/// Where it listens, and for each reactor one socket an address.
pub(super) type Listening = (Vec<SocketAddr>, Vec<Listeners>);

pub(super) fn listen_all(
    listeners: &[config::Listener],
    reactors: u16,
) -> Result<Listening, Error> {
    let mut listening = (Vec::new(), vec![Listeners::new(); usize::from(reactors)]);
    for listener in listeners {
        let address = listener.address;
        // Beside an IPv4 listener, an IPv6 one keeps to its own family.
        let same = |other: &config::Listener| {
            other.address.is_ipv4() && other.address.port() == address.port()
        };
        let (bound, sockets) = listen(address, listeners.iter().any(same), reactors)?;
        listening.0.push(bound);
        for (own, socket) in listening.1.iter_mut().zip(sockets) {
            own.push(Arc::new(socket));
        }
    }
    Ok(listening)
}

/// One socket a reactor on `address`. Another process on the same address is an error, although
/// sockets that share a port would let it be.
fn listen(
    address: SocketAddr,
    only_v6: bool,
    reactors: u16,
) -> Result<(SocketAddr, Vec<Socket>), Error> {
    let failed = |error| Error::Listen { address, error };
    drop(sys::listen(address, only_v6, false).map_err(failed)?);
    let first = sys::listen(address, only_v6, true).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..reactors {
        sockets.push(sys::listen(bound, only_v6, true).map_err(failed)?);
    }
    Ok((bound, sockets))
}
