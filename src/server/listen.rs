//! The listening sockets of the reactors.

use super::Error;
use crate::config;
use crate::reactor::Listeners;
use crate::uring::sys;
use socket2::Socket;
use std::net::SocketAddr;
use std::sync::Arc;

/// The addresses that the server listens on, and the listening sockets of each reactor, one for
/// each listener.
pub(super) type Listening = (Vec<SocketAddr>, Vec<Listeners>);

pub(super) fn listen_all(
    listeners: &[config::Listener],
    reactors: u16,
) -> Result<Listening, Error> {
    let mut listening = (Vec::new(), vec![Listeners::new(); usize::from(reactors)]);
    for listener in listeners {
        let address = listener.address;
        // If an IPv4 listener has the same port, an IPv6 socket must not accept IPv4 as well.
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

/// Creates one socket for each reactor on `address`, all sharing its port.
///
/// # Errors
/// The address cannot be bound. That another process uses it is detected by a first socket without
/// port sharing.
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
