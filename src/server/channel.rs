//! The messages between a running server and the one that replaces it, and the sockets in them.
//!
//! The channel is a pair of Unix sockets with message boundaries; the new process has its end as
//! standard input. A message is JSON, with descriptors as ancillary data (`SCM_RIGHTS`). The order:
//!
//! | sender | message | meaning |
//! | --- | --- | --- |
//! | old | `sockets`, one or more | the listening sockets |
//! | new | `ready` | everything is set up; it does not accept yet |
//! | old | `accept` | the old one has stopped to accept; with a socket, if they exchange events |
//! | new | `serving` | the new one accepts |
//! | old | `released` | the service manager knows the new one; the old one drains |
//!
//! If the channel ends before `serving`, the old server goes on.

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The version of the messages. A server refuses another one.
pub(super) const VERSION: u32 = 1;
/// The maximum number of descriptors in a message; the kernel allows 253.
pub(super) const MAX_SOCKETS: usize = 128;
/// The maximum length of a message: each socket has one address, which may be a path.
const MAX_BYTES: usize = 64 * 1024;

/// A message of either server.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum UpgradeMessage {
    /// Listening sockets, whose descriptors are in the same order.
    Sockets {
        /// [`VERSION`].
        version: u32,
        sockets: Vec<SocketEntry>,
        /// Whether another message with sockets follows.
        more: bool,
    },
    /// The new server is set up, and accepts as soon as it may.
    Ready {
        /// The version of the records in which it can exchange events; 0 if it cannot.
        #[serde(default)]
        relay: u32,
    },
    /// The old server does not accept any more.
    Accept,
    /// The new server accepts.
    Serving,
    /// The old server is about to drain.
    Released,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SocketEntry {
    /// The number of its listener in the old server.
    pub(super) listener: usize,
    /// The address in the old server's configuration.
    pub(super) address: String,
    /// The device and the number of the file of a Unix socket that the old server has made.
    pub(super) file: Option<(u64, u64)>,
}

/// One end of the channel.
#[derive(Debug)]
pub(super) struct UpgradeChannel(OwnedFd);

impl UpgradeChannel {
    /// Creates a channel. Returns the old server's end, and the socket for the new one.
    pub(super) fn pair() -> io::Result<(UpgradeChannel, OwnedFd)> {
        let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
        let (ours, theirs) = net::socketpair(family, SocketType::SEQPACKET, flags, None)?;
        Ok((UpgradeChannel(ours), theirs))
    }

    /// The new server's end.
    pub(super) fn new(socket: OwnedFd) -> UpgradeChannel {
        UpgradeChannel(socket)
    }

    pub(super) fn try_clone(&self) -> io::Result<UpgradeChannel> {
        Ok(UpgradeChannel(self.0.try_clone()?))
    }

    /// Sends a message with at most [`MAX_SOCKETS`] descriptors, within `limit`.
    ///
    /// # Errors
    /// The other end is closed, or does not receive in time.
    pub(super) fn send(
        &self,
        message: &UpgradeMessage,
        descriptors: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        sockopt::set_socket_timeout(&self.0, Timeout::Send, Some(limit.max(MIN_WAIT)))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        loop {
            let bytes = [IoSlice::new(&bytes)];
            match net::sendmsg(&self.0, &bytes, &mut ancillary, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop).map_err(io::Error::from),
            }
        }
    }

    /// Waits for the next message until `end`.
    ///
    /// # Errors
    /// The other end is closed or silent, or sends something else.
    pub(super) fn receive(&self, end: Instant) -> io::Result<(UpgradeMessage, Vec<OwnedFd>)> {
        let mut bytes = vec![0; MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let left = end.saturating_duration_since(Instant::now()).max(MIN_WAIT);
            sockopt::set_socket_timeout(&self.0, Timeout::Recv, Some(left))?;
            let mut room = [IoSliceMut::new(&mut bytes)];
            match net::recvmsg(&self.0, &mut room, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                received => break received?,
            }
        };
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            let text =
                "a message is too long, or the limit of open files is too low for its sockets";
            return Err(io::Error::other(text));
        }
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        Ok((serde_json::from_slice(&bytes[..received.bytes])?, descriptors))
    }

    /// Waits for this message until `end`.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive), or another message arrives.
    pub(super) fn expect(&self, expected: &UpgradeMessage, end: Instant) -> io::Result<()> {
        match self.receive(end)? {
            (message, _) if message == *expected => Ok(()),
            (message, _) => Err(io::Error::other(format!("unexpected message: {message:?}"))),
        }
    }

    /// Sends all listening sockets, within `limit` for each message.
    pub(super) fn send_sockets(
        &self,
        sockets: &[(SocketEntry, impl AsFd)],
        limit: Duration,
    ) -> io::Result<()> {
        let mut pieces = sockets.chunks(MAX_SOCKETS).peekable();
        while let Some(piece) = pieces.next() {
            let descriptors: Vec<_> = piece.iter().map(|(_, socket)| socket.as_fd()).collect();
            let sockets = piece.iter().map(|(entry, _)| entry.clone()).collect();
            let more = pieces.peek().is_some();
            let message = UpgradeMessage::Sockets { version: VERSION, sockets, more };
            self.send(&message, &descriptors, limit)?;
        }
        Ok(())
    }

    /// Receives all listening sockets until `end`.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive), or the messages are not those of this version.
    pub(super) fn receive_sockets(&self, end: Instant) -> io::Result<Vec<(SocketEntry, OwnedFd)>> {
        let mut all = Vec::new();
        loop {
            let (message, descriptors) = self.receive(end)?;
            let UpgradeMessage::Sockets { version, sockets, more } = message else {
                return Err(io::Error::other("the first message has no sockets"));
            };
            if version != VERSION || sockets.len() != descriptors.len() {
                let text = format!(
                    "the running server's messages have version {version} and {} sockets, not \
                     version {VERSION} and {} sockets; restart it",
                    descriptors.len(),
                    sockets.len()
                );
                return Err(io::Error::other(text));
            }
            all.extend(sockets.into_iter().zip(descriptors));
            if !more {
                return Ok(all);
            }
        }
    }
}

/// The minimum timeout of a system call, because zero would be no timeout.
const MIN_WAIT: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    const LIMIT: Duration = Duration::from_secs(10);
    const READY: UpgradeMessage = UpgradeMessage::Ready { relay: 1 };

    fn soon() -> Instant {
        Instant::now() + LIMIT
    }

    fn pair() -> (UpgradeChannel, UpgradeChannel) {
        let (old, new) = UpgradeChannel::pair().unwrap();
        (old, UpgradeChannel::new(new))
    }

    fn sockets(count: usize) -> Vec<(SocketEntry, OwnedFd)> {
        let socket = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let entry = |listener| {
            let address = format!("unix:/{}", "p".repeat(106));
            SocketEntry { listener, address, file: Some((u64::MAX, u64::MAX)) }
        };
        (0..count).map(|at| (entry(at), socket.try_clone().unwrap())).collect()
    }

    #[test]
    fn upgrade_channel_passes_any_number_of_sockets_in_order() {
        for count in [1, MAX_SOCKETS, MAX_SOCKETS + 1, 2 * MAX_SOCKETS + 3] {
            let (old, new) = pair();
            let sent = sockets(count);
            old.send_sockets(&sent, LIMIT).unwrap();
            let received = new.receive_sockets(soon()).unwrap();
            let entries = |of: &[(SocketEntry, OwnedFd)]| -> Vec<_> {
                of.iter().map(|(entry, _)| entry.clone()).collect()
            };
            assert_eq!(entries(&received), entries(&sent), "{count}");
            for (_, socket) in received {
                let flags = rustix::io::fcntl_getfd(&socket).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "{}", socket.as_raw_fd());
            }
        }
    }

    #[test]
    fn upgrade_channel_refuses_another_version_and_missing_sockets() {
        for (version, passed) in [(VERSION + 1, 1), (VERSION, 0)] {
            let (old, new) = pair();
            let sent = sockets(1);
            let sockets = vec![sent[0].0.clone()];
            let message = UpgradeMessage::Sockets { version, sockets, more: false };
            let descriptors: Vec<_> = sent.iter().take(passed).map(|(_, it)| it.as_fd()).collect();
            old.send(&message, &descriptors, LIMIT).unwrap();
            let error = new.receive_sockets(soon()).unwrap_err().to_string();
            assert!(error.contains("restart it"), "{error}");
        }
    }

    #[test]
    fn upgrade_channel_knows_that_an_earlier_release_exchanges_no_events() {
        let read = |text: &str| serde_json::from_str::<UpgradeMessage>(text).unwrap();
        assert_eq!(read(r#"{"kind":"ready"}"#), UpgradeMessage::Ready { relay: 0 });
        assert_eq!(read(r#"{"kind":"ready","relay":1}"#), READY);
        // As an earlier release reads it.
        assert_eq!(read(r#"{"kind":"accept","relay":1}"#), UpgradeMessage::Accept);
    }

    #[test]
    fn upgrade_channel_reports_an_end_a_silence_and_other_messages() {
        let (old, new) = pair();
        old.send(&READY, &[], LIMIT).unwrap();
        assert!(new.expect(&READY, soon()).is_ok());
        let end = Instant::now() + Duration::from_millis(50);
        let error = new.expect(&READY, end).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        old.send(&UpgradeMessage::Accept, &[], LIMIT).unwrap();
        assert!(new.expect(&READY, soon()).is_err());
        net::send(&old.0, b"{}", SendFlags::NOSIGNAL).unwrap();
        assert!(new.receive(soon()).is_err());
        drop(old);
        let error = new.expect(&READY, soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(new.send(&READY, &[], LIMIT).is_err());
    }
}
