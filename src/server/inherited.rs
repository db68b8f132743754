//! Listening sockets that another process has opened: the service manager, or the server that this
//! one replaces.

use super::Error;
use super::socket_file::SocketFile;
use crate::config::ListenAddress;
use crate::uring::sys;
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::OwnedFd;

/// A listening socket that another process has opened.
#[derive(Debug)]
pub(super) struct InheritedSocket {
    pub(super) socket: Socket,
    /// The address that it is bound to.
    pub(super) bound: ListenAddress,
    /// The address in the configuration of the server that has passed it on, if one has. Its port
    /// may be 0.
    configured: Option<ListenAddress>,
    /// Sockets with the same number belong to one listener.
    group: usize,
    /// What it is called in messages.
    name: String,
    /// The file of a Unix socket, if the server removes it at the end.
    pub(super) file: Option<SocketFile>,
}

/// The listening sockets that another process has opened, and that no listener has taken yet.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    sockets: Vec<InheritedSocket>,
    /// Whether they are those of a running server, which accepts from them until the hand-over.
    pub(super) from_server: bool,
}

/// Where a socket comes from, as far as its address does not say it.
#[derive(Debug)]
pub(super) struct SocketOrigin {
    pub(super) configured: ListenAddress,
    pub(super) group: usize,
    pub(super) file: Option<SocketFile>,
}

impl Inherited {
    /// The sockets that the service manager passes with `LISTEN_FDS`, `LISTEN_PID` and
    /// `LISTEN_FDNAMES`. None if the variables are those of another process. Call once.
    ///
    /// # Errors
    /// The variables are malformed, or a descriptor is not a listening stream socket.
    pub(super) fn from_environment() -> Result<Inherited, Error> {
        let passed = sys::take_listen_fds();
        let passed = passed.map_err(|error| refuse("LISTEN_FDS", &error.to_string()))?;
        let mut inherited = Inherited::default();
        for (number, (socket, name)) in passed.into_iter().enumerate() {
            let name = format!("descriptor {} ({name}) of LISTEN_FDS", number + FIRST);
            inherited.add(socket, name, None)?;
        }
        Ok(inherited)
    }

    /// The sockets that a running server passes.
    ///
    /// # Errors
    /// One is not a listening stream socket.
    pub(super) fn from_server(
        passed: impl IntoIterator<Item = (OwnedFd, SocketOrigin)>,
    ) -> Result<Inherited, Error> {
        let mut inherited = Inherited { sockets: Vec::new(), from_server: true };
        for (socket, origin) in passed {
            let name = format!("the socket of {}", origin.configured);
            inherited.add(socket, name, Some(origin))?;
        }
        Ok(inherited)
    }

    fn add(
        &mut self,
        socket: OwnedFd,
        name: String,
        origin: Option<SocketOrigin>,
    ) -> Result<(), Error> {
        let socket = Socket::from(socket);
        let bound = match address_of(&socket) {
            Ok(Ok(bound)) => bound,
            Ok(Err(why)) => return Err(refuse(&name, why)),
            Err(error) => return Err(refuse(&name, &format!("no socket: {error}"))),
        };
        if origin.is_none() {
            let prepared = prepare(&socket, &bound);
            prepared.map_err(|error| refuse(&name, &error.to_string()))?;
        }
        let same = |it: &&InheritedSocket| it.bound == bound;
        let at = self.sockets.iter().find(same).map_or(self.sockets.len(), |it| it.group);
        let (configured, group, file) = match origin {
            Some(origin) => (Some(origin.configured), origin.group, origin.file),
            None => (None, at, None),
        };
        self.sockets.push(InheritedSocket { socket, bound, configured, group, name, file });
        Ok(())
    }

    /// Takes the sockets of a listener at `address`, if there are any.
    ///
    /// # Errors
    /// An IPv6 socket takes IPv4 connections, or does not, unlike `only_v6`, which cannot be
    /// changed.
    pub(super) fn take(
        &mut self,
        address: &ListenAddress,
        only_v6: bool,
    ) -> Result<Vec<InheritedSocket>, Error> {
        let is_its =
            |it: &InheritedSocket| it.configured.as_ref() == Some(address) || it.bound == *address;
        let Some(group) = self.sockets.iter().find(|it| is_its(it)).map(|it| it.group) else {
            return Ok(Vec::new());
        };
        let taken: Vec<_> = self.sockets.extract_if(.., |it| it.group == group).collect();
        let is_any = address.ip().is_some_and(|it| it.is_ipv6() && it.ip().is_unspecified());
        for socket in taken.iter().filter(|_| is_any) {
            if socket.socket.only_v6().is_ok_and(|is_only| is_only != only_v6) {
                let takes = if only_v6 { "takes" } else { "does not take" };
                let why = format!(
                    "it {takes} IPv4 connections, unlike the listener {address}; change \
                     listeners.v6_only, or close the socket by a restart"
                );
                return Err(refuse(&socket.name, &why));
            }
        }
        Ok(taken)
    }

    /// The sockets that no listener has taken. Those of a running server are closed later by the
    /// caller.
    ///
    /// # Errors
    /// The sockets come from the service manager. Clients could connect to them, and nobody would
    /// answer.
    pub(super) fn rest(self) -> Result<Vec<InheritedSocket>, Error> {
        match self.sockets.first() {
            Some(socket) if !self.from_server => {
                let why = format!("it listens on {}, and no listener does", socket.bound);
                Err(refuse(&socket.name, &why))
            }
            _ => Ok(self.sockets),
        }
    }
}

/// The number of the first descriptor of `LISTEN_FDS`.
const FIRST: usize = sys::LISTEN_FDS_START as usize;

fn refuse(name: &str, why: &str) -> Error {
    Error::Inherited(format!("{name}: {why}"))
}

/// The address of a listening stream socket, or why it cannot be used.
fn address_of(socket: &Socket) -> io::Result<Result<ListenAddress, &'static str>> {
    if socket.r#type()? != Type::STREAM {
        return Ok(Err("it is no stream socket"));
    }
    let domain = socket.domain()?;
    if ![Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&domain) {
        return Ok(Err("it is neither a TCP nor a Unix socket"));
    }
    if !socket.is_listener()? {
        return Ok(Err("it does not listen"));
    }
    let address = socket.local_addr()?;
    let path = || address.as_pathname().map(|path| ListenAddress::Unix(path.to_owned()));
    let address = address.as_socket().map(ListenAddress::Ip).or_else(path);
    Ok(address.ok_or("it is a Unix socket without a path"))
}

/// Sets the options that the server's own sockets have.
fn prepare(socket: &Socket, bound: &ListenAddress) -> io::Result<()> {
    // The driver on epoll changes this itself.
    socket.set_nonblocking(false)?;
    if bound.ip().is_some() {
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn origin(configured: &str, group: usize) -> SocketOrigin {
        SocketOrigin { configured: configured.parse().unwrap(), group, file: None }
    }

    fn listener() -> (OwnedFd, ListenAddress) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().into();
        (socket.into(), address)
    }

    fn activated(socket: OwnedFd) -> Result<Inherited, Error> {
        let mut inherited = Inherited::default();
        inherited.add(socket, "s".to_owned(), None).map(|()| inherited)
    }

    #[test]
    fn inherited_socket_is_taken_by_the_listener_of_its_address() {
        let (socket, address) = listener();
        let mut inherited = activated(socket).unwrap();
        let (_, other) = listener();
        assert!(inherited.take(&other, false).unwrap().is_empty());
        let taken = inherited.take(&address, false).unwrap();
        assert_eq!(taken.len(), 1);
        assert!(taken[0].socket.tcp_nodelay().unwrap() && taken[0].socket.keepalive().unwrap());
        assert!(inherited.take(&address, false).unwrap().is_empty(), "taken once");
        assert!(inherited.rest().unwrap().is_empty());
    }

    #[test]
    fn inherited_socket_that_no_listener_takes_is_an_error_unless_it_is_a_servers() {
        let (socket, address) = listener();
        let error = activated(socket).unwrap().rest().unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("no listener"), "{error}");
        let (socket, _) = listener();
        let inherited = Inherited::from_server([(socket, origin("127.0.0.1:0", 0))]).unwrap();
        assert_eq!(inherited.rest().unwrap().len(), 1);
    }

    #[test]
    fn inherited_sockets_of_listeners_with_port_0_stay_apart() {
        let sockets: Vec<_> = (0..4).map(|_| listener()).collect();
        let addresses: Vec<_> = sockets.iter().map(|(_, address)| address.clone()).collect();
        let passed = sockets.into_iter().enumerate();
        let passed = passed.map(|(at, (socket, _))| (socket, origin("127.0.0.1:0", at / 2)));
        let mut inherited = Inherited::from_server(passed).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let mut take = || -> Vec<_> {
            inherited.take(&any, false).unwrap().into_iter().map(|it| it.bound).collect()
        };
        assert_eq!(take(), addresses[..2]);
        assert_eq!(take(), addresses[2..]);
        assert!(take().is_empty());
    }

    #[test]
    fn inherited_descriptor_that_is_no_listening_socket_is_refused() {
        let (socket, address) = listener();
        let client = TcpStream::connect(address.ip().unwrap()).unwrap();
        drop(socket);
        let unnamed = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let _ = unnamed.listen(1);
        for (socket, why) in [
            (OwnedFd::from(std::fs::File::open("/dev/null").unwrap()), "no socket"),
            (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "no stream socket"),
            (client.into(), "does not listen"),
            (unnamed.into(), "does not listen"),
        ] {
            let error = activated(socket).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn inherited_ipv6_socket_takes_ipv4_connections_as_its_listener_says() {
        let any: ListenAddress = "[::]:0".parse().unwrap();
        for (is_only, wanted) in [(true, true), (true, false), (false, true), (false, false)] {
            let Ok(socket) = sys::listen(any.ip().unwrap(), is_only, false) else {
                return println!("SKIPPED: no IPv6");
            };
            let passed = [(socket.into(), origin("[::]:0", 0))];
            let taken = Inherited::from_server(passed).unwrap().take(&any, wanted);
            assert_eq!(taken.is_ok(), is_only == wanted, "{taken:?}");
        }
    }
}
