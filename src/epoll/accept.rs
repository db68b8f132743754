//! Listening sockets of one core's epoll set, and the accepts that wait for their connections.

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, SocketFlags};
use socket2::Socket;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::driver::{Op, Tag};

/// An accept that waits at a place.
#[derive(Clone, Copy)]
pub(super) struct Armed {
    pub(super) place: u32,
    /// The descriptor for the connection.
    pub(super) file: u32,
}

struct Listening {
    socket: Arc<Socket>,
    armed: VecDeque<Armed>,
}

/// The listening sockets from which this core accepts, by descriptor. All of them are in the epoll
/// set.
#[derive(Default)]
pub(super) struct ListenerSet {
    sockets: HashMap<RawFd, Listening>,
}

/// The outcome of one accept: the connection with its peer's address, or the errno.
pub(super) type AcceptOutcome = Result<(OwnedFd, SocketAddr), Errno>;

impl ListenerSet {
    /// Adds an accept from `socket`.
    ///
    /// # Errors
    /// The socket cannot be added to the epoll set.
    pub(super) fn arm(
        &mut self,
        set: &OwnedFd,
        socket: &Arc<Socket>,
        armed: Armed,
    ) -> Result<(), Errno> {
        let descriptor = socket.as_raw_fd();
        if let Some(listening) = self.sockets.get_mut(&descriptor) {
            listening.armed.push_back(armed);
            return Ok(());
        }
        // Several cores may accept from this socket, so another one may have been faster.
        rustix::io::ioctl_fionbio(socket, true)?;
        let tag = Tag { op: Op::Accept, generation: 0, index: descriptor as u32 };
        epoll::add(set, socket, EventData::new_u64(tag.pack()), EventFlags::IN)?;
        let listening = Listening { socket: socket.clone(), armed: VecDeque::from([armed]) };
        self.sockets.insert(descriptor, listening);
        Ok(())
    }

    /// Accepts connections from a socket that has some, until it has none, or no accept waits.
    /// If there is no descriptor or memory for a connection, the socket leaves the epoll set, and
    /// its other accepts are cancelled: the caller arms them again when it expects success.
    pub(super) fn accept(
        &mut self,
        set: &OwnedFd,
        descriptor: RawFd,
        mut done: impl FnMut(Armed, AcceptOutcome),
    ) {
        let Some(listening) = self.sockets.get_mut(&descriptor) else { return };
        if listening.armed.is_empty() {
            return self.remove(set, descriptor);
        }
        while let Some(armed) = listening.armed.pop_front() {
            match accept_one(&listening.socket) {
                Err(Errno::AGAIN) => {
                    listening.armed.push_front(armed);
                    return;
                }
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    done(armed, Err(error));
                    for armed in std::mem::take(&mut listening.armed) {
                        done(armed, Err(Errno::CANCELED));
                    }
                    return self.remove(set, descriptor);
                }
                outcome => done(armed, outcome),
            }
        }
    }

    /// Removes all sockets. Returns the accepts that waited.
    pub(super) fn clear(&mut self, set: &OwnedFd) -> Vec<Armed> {
        let descriptors: Vec<RawFd> = self.sockets.keys().copied().collect();
        let mut all = Vec::new();
        for descriptor in descriptors {
            if let Some(listening) = self.sockets.get_mut(&descriptor) {
                all.extend(listening.armed.drain(..));
            }
            self.remove(set, descriptor);
        }
        all
    }

    fn remove(&mut self, set: &OwnedFd, descriptor: RawFd) {
        if let Some(listening) = self.sockets.remove(&descriptor) {
            // The socket may stay open for other cores, so its close does not remove it.
            let _ = epoll::delete(set, &listening.socket);
        }
    }
}

fn accept_one(socket: &Socket) -> AcceptOutcome {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (connection, address) = net::acceptfrom_with(socket, flags)?;
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    let address = address.map(|it| SocketAddr::new(it.ip().to_canonical(), it.port()));
    Ok((connection, address.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))))
}
