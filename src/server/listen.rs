//! The listening sockets of the reactors.

use super::Error;
use crate::config::{self, FileMode, ListenAddress};
use crate::reactor::Listeners;
use crate::uring::sys;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often a Unix socket that is answered is tried again, and after which pauses. The kernel
/// frees the ring of a process that was killed some time after its end, and answers until then.
const RETRIES: u32 = 10;
const RETRY: Duration = Duration::from_millis(100);

/// What the server listens on.
#[derive(Default)]
pub(super) struct Listening {
    /// The addresses, in the order of the configuration, with the ports that the kernel chose.
    pub(super) addresses: Vec<ListenAddress>,
    /// The listening sockets of each reactor, one for each listener.
    pub(super) sockets: Vec<Listeners>,
    /// The files of the Unix sockets.
    pub(super) files: Vec<SocketFile>,
}

pub(super) fn listen_all(
    listeners: &[config::Listener],
    reactors: u16,
) -> Result<Listening, Error> {
    let sockets = vec![Listeners::new(); usize::from(reactors)];
    let mut listening = Listening { sockets, ..Listening::default() };
    for listener in listeners {
        match &listener.address {
            ListenAddress::Ip(address) => {
                // If an IPv4 listener has the same port, an IPv6 socket must not accept IPv4 too.
                let same = |other: &config::Listener| {
                    other.address.ip().is_some_and(|other| other.is_ipv4())
                        && other.address.port() == address.port()
                };
                let only_v6 = listener.v6_only || listeners.iter().any(same);
                let (bound, sockets) = listen(*address, only_v6, reactors)?;
                listening.addresses.push(bound.into());
                for (own, socket) in listening.sockets.iter_mut().zip(sockets) {
                    own.push(Arc::new(socket));
                }
            }
            ListenAddress::Unix(path) => {
                let address = listener.address.clone();
                let listened = listen_unix(path, listener.mode);
                let (socket, file) =
                    listened.map_err(|error| Error::Listen { address: address.clone(), error })?;
                listening.addresses.push(address);
                listening.files.push(file);
                // Unix sockets cannot share an address, so all reactors accept from one socket.
                let socket = Arc::new(socket);
                listening.sockets.iter_mut().for_each(|own| own.push(socket.clone()));
            }
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

/// The file of a Unix socket, which is removed when this is dropped, unless another file has taken
/// its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// The device and the number of the file.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|it| identity(&it) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the socket file cannot be removed");
        }
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Listens on a Unix socket. The permissions are set before the socket listens, so that nobody else
/// can connect meanwhile.
fn listen_unix(path: &Path, mode: FileMode) -> io::Result<(Socket, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let identity = identity(&fs::symlink_metadata(path)?);
    let file = SocketFile { path: path.to_owned(), identity };
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
