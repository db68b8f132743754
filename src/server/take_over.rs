//! The start of a server that replaces a running one.

use super::channel::{SocketEntry, UpgradeChannel, UpgradeMessage};
use super::inherited::{Inherited, SocketOrigin};
use super::relay::RELAY_VERSION;
use super::socket_file::SocketFile;
use super::{Error, Server};
use crate::config::ListenAddress;
use crate::hub::RelayRole;
use crate::runtime::ClusterPhase;
use rustix::net::sockopt::socket_acceptconn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The variable with which a server starts the one that replaces it. The value is the number of its
/// process. The name is none that sets a key of the configuration.
pub(super) const VARIABLE: &str = "UPGRADE_POLYCAST_PID";
/// The time between two looks at the phase of the cluster.
const LOOK: Duration = Duration::from_millis(5);
/// How long the running server has for each step that does not depend on the new one.
const STEP: Duration = Duration::from_secs(10);
/// How long the cached events and histories of the running server may take, which gives up a part
/// of them before.
const ADOPTION: Duration = Duration::from_secs(8);
/// How long a new server waits for the message that it may accept. The running one ends it earlier
/// if it does not want it any more.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The server that this one replaces.
pub(super) struct Predecessor {
    channel: UpgradeChannel,
    /// The number of its process, in text.
    pid: String,
}

impl Predecessor {
    /// The running server, if it has started this process.
    ///
    /// # Errors
    /// Standard input is not the channel to it.
    pub(super) fn from_environment() -> Result<Option<Predecessor>, Error> {
        let Ok(pid) = std::env::var(VARIABLE) else { return Ok(None) };
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(Error::NotHandedOver)?;
        if let Err(error) = socket_acceptconn(&input) {
            let text = format!("{VARIABLE} is set, and standard input is no socket: {error}");
            return Err(Error::NotHandedOver(io::Error::other(text)));
        }
        Ok(Some(Predecessor { channel: UpgradeChannel::new(input), pid }))
    }

    /// The listening sockets of the running server.
    ///
    /// # Errors
    /// The running server does not send them in time, or they cannot be used.
    pub(super) fn sockets(&self) -> Result<Inherited, Error> {
        let received = self.channel.receive_sockets(Instant::now() + STEP);
        let received = received.map_err(Error::NotHandedOver)?;
        let origins = received.into_iter().map(|(entry, socket)| Ok((socket, origin(entry)?)));
        let origins: Result<Vec<(OwnedFd, SocketOrigin)>, Error> = origins.collect();
        Inherited::from_server(origins?)
    }

    /// Reports that `server` is set up, waits until the running server does not accept any more,
    /// and begins to accept. Returns when the running server has notified the service manager.
    ///
    /// # Errors
    /// The running server has ended, or does not want to be replaced any more.
    pub(super) fn replace(self, server: &mut Server) -> Result<(), Error> {
        self.await_cluster(server)?;
        let begin = Instant::now();
        let report = |message: &UpgradeMessage| self.channel.send(message, &[], STEP);
        let wait = |message, limit| self.channel.expect(message, Instant::now() + limit);
        // Nodes of a cluster get each other's events from its log.
        let relay = if server.env.config.cluster.is_some() { 0 } else { RELAY_VERSION };
        let accepted = report(&UpgradeMessage::Ready { relay })
            .and_then(|()| self.channel.receive(Instant::now() + LONGEST));
        let (message, descriptors) = accepted.map_err(Error::NotHandedOver)?;
        if message != UpgradeMessage::Accept {
            let text = format!("unexpected message: {message:?}");
            return Err(Error::NotHandedOver(io::Error::other(text)));
        }
        if let Some(socket) = descriptors.into_iter().next() {
            let relay = server.begin_relay(RelayRole::Replacement, socket.into());
            let relay = relay.map_err(Error::NotHandedOver)?;
            if !relay.await_adoption(server.threads.len(), ADOPTION) {
                tracing::warn!("not everything that the replaced server keeps was handed over");
            }
            server.relay = Some(relay);
        } else if relay != 0 {
            tracing::warn!("no events are exchanged with the replaced server");
        }
        server.own_files();
        server.accept_connections();
        tracing::info!(from = self.pid, waited_ms = begin.elapsed().as_millis(), "has taken over");
        // From now on this server serves whether the earlier one answers or not.
        let released =
            report(&UpgradeMessage::Serving).and_then(|()| wait(&UpgradeMessage::Released, STEP));
        if let Err(error) = released {
            tracing::warn!(%error, "the replaced server does not confirm that it drains");
        }
        Ok(())
    }
}

impl Predecessor {
    /// Waits until this process is a node of its cluster, if it has one: until then it would refuse
    /// what the running server serves. The running server ends a wait that is too long.
    fn await_cluster(&self, server: &Server) -> Result<(), Error> {
        while server.env.runtime.cluster.phase() == ClusterPhase::Joining {
            if std::os::unix::process::parent_id().to_string() != self.pid {
                return Err(Error::NotHandedOver(io::ErrorKind::UnexpectedEof.into()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

fn origin(entry: SocketEntry) -> Result<SocketOrigin, Error> {
    let configured: ListenAddress = entry.address.parse().map_err(|_| {
        Error::Inherited(format!("{} is not the address of a listener", entry.address))
    })?;
    let path = configured.path().map(ToOwned::to_owned);
    let file = path.zip(entry.file).map(|(path, identity)| SocketFile::of_other(path, identity));
    Ok(SocketOrigin { configured, group: entry.listener, file })
}
