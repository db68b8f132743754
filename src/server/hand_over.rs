//! The hand-over of the listening sockets, as a server sees it: accepting is paused, continues, or
//! is left to another process. No socket is closed meanwhile: connections wait in its queue.

use super::Server;
use super::channel::SocketEntry;
use super::listen::BoundSocket;
use super::relay::EventRelay;
use crate::driver::Driver;
use crate::epoll::Epoll;
use crate::hub::RelayRole;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The time between two looks at the reactors.
const LOOK: Duration = Duration::from_millis(1);

impl Server {
    /// Pauses accepting on all cores. Connections that were accepted are served. Returns whether no
    /// core accepts any more, which takes at most `limit`.
    pub(super) fn pause_accepting(&self, limit: Duration) -> bool {
        self.ask_pause(true);
        let end = Instant::now() + limit;
        while self.fresh().is_none() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// The number of connections without a whole request; `None` while a core accepts.
    pub(super) fn fresh(&self) -> Option<usize> {
        let cores = 0..self.threads.len() as u16;
        cores.map(|core| self.peers.core(core).accepting.fresh()).sum()
    }

    /// Continues to accept, or begins with it. No other process may accept from the sockets.
    pub(super) fn accept_connections(&mut self) {
        // The other process may have used another driver.
        let is_epoll = self.driver.name == Epoll::NAME;
        for bound in self.sockets.get_mut().into_iter().flatten() {
            if let Err(error) = bound.socket.set_nonblocking(is_epoll) {
                tracing::warn!(%error, "a listening socket cannot be prepared");
            }
        }
        self.ask_pause(false);
    }

    fn ask_pause(&self, pause: bool) {
        for core in 0..self.threads.len() as u16 {
            self.peers.core(core).accepting.ask_pause(pause);
        }
        self.wake_all();
    }

    /// Begins to exchange events with another process over `socket`.
    ///
    /// # Errors
    /// As for [`EventRelay::start`].
    pub(super) fn begin_relay(
        &self,
        role: RelayRole,
        socket: UnixStream,
    ) -> io::Result<EventRelay> {
        let cores = (&self.peers, self.threads.len() as u16);
        let relay = EventRelay::start(role, socket, (&self.env, &self.hasher), cores)?;
        self.wake_all();
        Ok(relay)
    }

    /// The listening sockets, for another process.
    pub(super) fn sockets_to_pass(&self) -> io::Result<Vec<(SocketEntry, OwnedFd)>> {
        let Ok(sockets) = self.sockets.lock() else { return Ok(Vec::new()) };
        let entry = |bound: &BoundSocket| {
            let config = &self.env.config.listeners[bound.listener];
            let entry = SocketEntry {
                listener: bound.listener,
                address: config.address.to_string(),
                file: bound.file.as_ref().map(|file| file.identity()),
            };
            Ok((entry, bound.socket.try_clone()?.into()))
        };
        sockets.iter().map(entry).collect()
    }

    /// Takes over the files of the Unix sockets from the process that this one replaces, and closes
    /// the sockets that no listener has taken.
    pub(super) fn own_files(&mut self) {
        for bound in self.sockets.get_mut().into_iter().flatten() {
            bound.file.iter_mut().for_each(|file| file.own());
        }
        for mut socket in self.abandoned.drain(..) {
            tracing::info!(address = %socket.bound, "no listener any more");
            socket.file.iter_mut().for_each(|file| file.own());
        }
    }

    /// Leaves the files of the Unix sockets to another process.
    pub(super) fn disown_files(&mut self) {
        for bound in self.sockets.get_mut().into_iter().flatten() {
            bound.file.iter_mut().for_each(|file| file.disown());
        }
    }

    /// Gives up the listening sockets. Each is closed when its last reactor does not accept any
    /// more, unless another process has it.
    pub(super) fn close_sockets(&self) {
        if let Ok(mut sockets) = self.sockets.lock() {
            sockets.clear();
        }
    }
}
