//! The listening sockets of the reactors.

use super::Error;
use super::inherited::{Inherited, InheritedSocket};
use super::socket_file::SocketFile;
use crate::config::{self, FileMode, ListenAddress};
use crate::reactor::{ListenSocket, Listeners};
use crate::uring::sys;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often a Unix socket that is answered is tried again, and after which pauses. The kernel
/// frees the ring of a process that was killed some time after its end, and answers until then.
const RETRIES: u32 = 10;
const RETRY: Duration = Duration::from_millis(100);

/// A listening socket of the server.
#[derive(Debug)]
pub(super) struct BoundSocket {
    /// The position of its listener in the configuration.
    pub(super) listener: usize,
    pub(super) socket: Arc<Socket>,
    /// The file of a Unix socket that the server removes at the end.
    pub(super) file: Option<SocketFile>,
}

/// What the server listens on.
#[derive(Default)]
pub(super) struct Listening {
    /// The addresses, in the order of the configuration, with the ports that the kernel chose.
    pub(super) addresses: Vec<ListenAddress>,
    pub(super) sockets: Vec<BoundSocket>,
    /// Sockets of the server that this one replaces, which no listener has taken.
    pub(super) abandoned: Vec<InheritedSocket>,
}

/// Listens on the addresses of all listeners: with the inherited sockets of that address if there
/// are any, else with new ones.
pub(super) fn listen_all(
    listeners: &[config::Listener],
    reactors: u16,
    mut inherited: Inherited,
) -> Result<Listening, Error> {
    let mut listening = Listening::default();
    for (number, listener) in listeners.iter().enumerate() {
        let address = &listener.address;
        // If an IPv4 listener has the same port, an IPv6 socket must not accept IPv4 too.
        let same = |other: &config::Listener| {
            other.address.ip().is_some_and(|other| other.is_ipv4())
                && other.address.port() == address.port()
        };
        let only_v6 = listener.v6_only || address.ip().is_some() && listeners.iter().any(same);
        let mut add = |socket, file| {
            listening.sockets.push(BoundSocket {
                listener: number,
                socket: Arc::new(socket),
                file,
            });
        };
        let taken = inherited.take(address, only_v6)?;
        if let Some(first) = taken.first() {
            tracing::info!(address = %first.bound, sockets = taken.len(), "inherited");
            listening.addresses.push(first.bound.clone());
            taken.into_iter().for_each(|it| add(it.socket, it.file));
            continue;
        }
        match address {
            ListenAddress::Ip(address) => {
                let (bound, sockets) = listen(*address, only_v6, reactors)?;
                listening.addresses.push(bound.into());
                sockets.into_iter().for_each(|socket| add(socket, None));
            }
            ListenAddress::Unix(path) => {
                let listened = listen_unix(path, listener.mode);
                let (socket, file) =
                    listened.map_err(|error| Error::Listen { address: address.clone(), error })?;
                listening.addresses.push(address.clone());
                add(socket, Some(file));
            }
        }
    }
    listening.abandoned = inherited.rest()?;
    Ok(listening)
}

impl Listening {
    /// The listening sockets of each reactor. Every socket has a reactor that accepts from it, and
    /// every reactor has a socket of each listener. Reactors share sockets if a listener has fewer
    /// of them: Unix sockets cannot share an address, and inherited sockets stay as they are,
    /// because connections could wait in a new one when the process ends before it accepts.
    pub(super) fn shares(&self, reactors: u16) -> Vec<Listeners> {
        let mut shares = vec![Listeners::new(); usize::from(reactors)];
        for listener in 0..self.addresses.len() {
            let own: Vec<_> = self.sockets.iter().filter(|it| it.listener == listener).collect();
            for turn in 0..own.len().max(shares.len()) {
                let (at, socket) = (turn % shares.len(), own[turn % own.len()].socket.clone());
                shares[at].push(ListenSocket { listener, socket });
            }
        }
        shares
    }
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
    let failed = |error| Error::Listen { address: address.into(), error };
    drop(sys::listen(address, only_v6, false).map_err(failed)?);
    let first = sys::listen(address, only_v6, true).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..reactors {
        sockets.push(sys::listen(bound, only_v6, true).map_err(failed)?);
    }
    Ok((bound, sockets))
}

/// Listens on a Unix socket. The permissions are set before the socket listens, so that nobody else
/// can connect meanwhile.
fn listen_unix(path: &Path, mode: FileMode) -> io::Result<(Socket, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of_own(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode.0))?;
    sys::begin_to_listen(&socket)?;
    Ok((socket, file))
}

/// Removes a socket file that no server answers any more.
///
/// # Errors
/// The file is no socket, or a server listens on it, or neither can be found out.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let in_use = |text: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    if !found.file_type().is_socket() {
        return in_use("the file exists and is no socket, so it is not replaced");
    }
    let mut tries = 0;
    loop {
        match connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return fs::remove_file(path);
            }
            Ok(()) if tries == RETRIES => return in_use("another process listens on this socket"),
            Ok(()) => {
                tries += 1;
                std::thread::sleep(RETRY);
            }
            Err(error) => {
                let text = format!("the socket exists, and cannot be tried: {error}");
                return Err(io::Error::new(error.kind(), text));
            }
        }
    }
}

/// Connects to a Unix socket and closes the connection. A full backlog is a server's, too.
fn connect(path: &Path) -> io::Result<()> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const MODE: FileMode = FileMode(0o660);
    use std::os::unix::net::{UnixListener, UnixStream};

    /// A folder of its own for a test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("polycast-{}-{name}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn unix_socket_file_is_made_with_its_mode_and_removed_at_the_end() {
        let folder = Folder::new("mode");
        let path = folder.0.join("s");
        let (socket, file) = listen_unix(&path, FileMode(0o602)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o602);
        UnixStream::connect(&path).unwrap();
        drop((socket, file));
        assert!(!path.exists());
    }

    #[test]
    fn unix_socket_file_of_another_server_is_removed_by_its_owner_only() {
        let folder = Folder::new("owner");
        let path = folder.0.join("s");
        let (_socket, mut file) = listen_unix(&path, MODE).unwrap();
        let mut other = SocketFile::of_other(path.clone(), file.identity());
        file.disown();
        drop(file);
        assert!(path.exists());
        other.own();
        drop(other);
        assert!(!path.exists());
    }

    #[test]
    fn listen_shares_give_every_reactor_and_every_socket_a_partner() {
        for (count, reactors) in [(1, 1), (1, 3), (2, 3), (3, 3), (4, 3), (7, 2)] {
            let mut listening = Listening::default();
            for listener in 0..2 {
                listening.addresses.push("127.0.0.1:0".parse().unwrap());
                for _ in 0..count {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    let socket = Arc::new(socket);
                    listening.sockets.push(BoundSocket { listener, socket, file: None });
                }
            }
            let shares = listening.shares(reactors);
            assert_eq!(shares.len(), usize::from(reactors));
            for listener in 0..2 {
                let has = |share: &Listeners| share.iter().any(|it| it.listener == listener);
                assert!(shares.iter().all(has), "{count} {reactors}");
            }
            for bound in &listening.sockets {
                let is_same = |it: &ListenSocket| Arc::ptr_eq(&it.socket, &bound.socket);
                let taken = shares.iter().filter(|share| share.iter().any(is_same)).count();
                assert!(taken >= 1 && (count < reactors.into() || taken == 1));
            }
        }
    }

    #[test]
    fn unix_socket_replaces_only_a_socket_that_nobody_answers() {
        let folder = Folder::new("stale");
        let path = folder.0.join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file");
        let (socket, file) = listen_unix(&path, MODE).unwrap();
        let refused = listen_unix(&path, MODE).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "{refused}");
        UnixStream::connect(&path).unwrap();
        // Another server's file in its place is left alone.
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop((socket, file));
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn unix_socket_does_not_replace_other_files() {
        let folder = Folder::new("file");
        let (file, link) = (folder.0.join("f"), folder.0.join("l"));
        fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(folder.0.join("s"), &link).unwrap();
        let _socket = UnixListener::bind(folder.0.join("s")).unwrap();
        for path in [&file, &link, &folder.0] {
            let error = listen_unix(path, MODE).unwrap_err();
            assert!(error.to_string().contains("is no socket"), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        let missing = folder.0.join("no/such/folder");
        assert_eq!(listen_unix(&missing, MODE).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
