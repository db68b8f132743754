//! Listening sockets that a service manager has opened.

use super::child::*;
use crate::net::*;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The command that starts the program with these descriptors from 3 on, as a service manager does.
/// `variables` is a part of a shell script that sets the variables.
fn activated(name: &str, config: &str, descriptors: &[OwnedFd], variables: &str) -> Command {
    let program = command(name, config);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{variables} exec \"$0\" \"$@\"")]);
    shell.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
    let passed: Vec<OwnedFd> = descriptors.iter().map(|it| it.try_clone().unwrap()).collect();
    let pass = move || {
        for (number, descriptor) in passed.iter().enumerate() {
            // Far away first, so that none is overwritten before it is passed.
            // SAFETY: no memory is involved.
            unsafe { libc::dup2(descriptor.as_raw_fd(), 500 + number as i32) };
        }
        for number in 0..passed.len() as i32 {
            // SAFETY: as above.
            unsafe { libc::dup2(500 + number, 3 + number) };
        }
        Ok(())
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { shell.pre_exec(pass) };
    shell
}

fn variables(count: usize, names: &str) -> String {
    let names = if names.is_empty() { String::new() } else { format!("LISTEN_FDNAMES={names} ") };
    format!("export LISTEN_PID=$$ LISTEN_FDS={count} {names};")
}

fn tcp() -> (TcpListener, String) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

fn on(addresses: &[&str]) -> String {
    let each: Vec<_> = addresses.iter().map(|it| format!("{{ address = '{it}' }}")).collect();
    format!("threads = 2\npin = false\nlisteners = [{}]\n", each.join(", "))
}

fn start(name: &str, mut command: Command) -> Process {
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("live/{name}.log"));
    command.stderr(fs::File::create(&log).unwrap());
    Process::spawn(command, log)
}

fn echoes(mut stream: UnixStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(handshake("/echo", "").as_bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
}

#[test]
fn activation_uses_tcp_and_unix_sockets_and_leaves_them_open() {
    if !has_uring() {
        return;
    }
    let path = std::env::temp_dir().join(format!("polycast-live-{}-active", std::process::id()));
    let (tcp, address) = tcp();
    let unix = UnixListener::bind(&path).unwrap();
    // As systemd may pass it.
    tcp.set_nonblocking(true).unwrap();
    let sockets = [OwnedFd::from(unix), OwnedFd::from(tcp)];
    let config = on(&[&address, &format!("unix:{}", path.display())]);
    let command = || activated("activated", &config, &sockets, &variables(2, "b:a"));
    // These connect before the server runs.
    let mut early: Vec<Client> =
        (0..20).map(|_| TcpStream::connect(&address).unwrap().into()).collect();
    let early_unix = UnixStream::connect(&path).unwrap();
    let mut process = start("activated", command());
    assert_eq!(process.address.to_string(), address);
    for client in &mut early {
        client.send(handshake("/echo", "").as_bytes());
        assert_eq!(client.response().status, 101);
        client.sync();
    }
    echoes(early_unix);
    let mut subscribers: Vec<Client> =
        (0..8).map(|_| Client::subscriber(process.address, "c")).collect();
    Client::connect(process.address).publish("c", "x");
    subscribers.iter_mut().for_each(|client| assert_eq!(client.text(), event("c", "x")));
    process.signal(libc::SIGTERM);
    drop((early, subscribers));
    assert_eq!(process.ended().code(), Some(0));
    // The sockets belong to the service manager: clients wait for the next start.
    assert!(path.exists());
    let late_unix = UnixStream::connect(&path).unwrap();
    let mut late: Client = TcpStream::connect(&address).unwrap().into();
    let _process = start("activated", command());
    late.send(handshake("/echo", "").as_bytes());
    assert_eq!(late.response().status, 101);
    echoes(late_unix);
    fs::remove_file(&path).unwrap();
}

#[test]
fn activation_takes_all_sockets_of_an_address() {
    if !has_uring() {
        return;
    }
    // As with `ReusePort=yes` and the address given three times, for two reactors.
    let address = "127.0.0.1:0".parse().unwrap();
    let first = polycast::uring::sys::listen(address, false, true).unwrap();
    let bound = first.local_addr().unwrap().as_socket().unwrap();
    let mut sockets = vec![OwnedFd::from(first)];
    for _ in 0..2 {
        sockets.push(polycast::uring::sys::listen(bound, false, true).unwrap().into());
    }
    let config = on(&[&bound.to_string()]);
    let command = activated("activated-group", &config, &sockets, &variables(3, ""));
    let process = start("activated-group", command);
    for _ in 0..40 {
        Client::open(process.address, "/echo").sync();
    }
}

#[test]
fn activation_for_another_process_is_ignored() {
    if !has_uring() {
        return;
    }
    let (socket, address) = tcp();
    let sockets = [OwnedFd::from(socket)];
    for set in ["export LISTEN_PID=1 LISTEN_FDS=1;", "export LISTEN_FDS=1;"] {
        let config = on(&["127.0.0.1:0"]);
        let process =
            start("activated-other", activated("activated-other", &config, &sockets, set));
        assert_ne!(process.address.to_string(), address);
        Client::open(process.address, "/echo").sync();
    }
    // The server then binds the address itself, which is in use.
    let mut command = activated("activated-bind", &on(&[&address]), &sockets, "");
    let text = refused(&command.output().unwrap());
    assert!(text.contains("Address already in use"), "{text}");
}

fn refused(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

#[test]
fn activation_with_unusable_descriptors_is_an_error() {
    if !has_uring() {
        return;
    }
    let (socket, address) = tcp();
    let connected = TcpStream::connect(&address).unwrap();
    let (_, elsewhere) = tcp();
    let file = fs::File::open("/dev/null").unwrap();
    let socket = OwnedFd::from(socket);
    for (name, descriptor, address, set, why) in [
        (
            "file",
            file.into(),
            &address,
            variables(1, "web"),
            "descriptor 3 (web) of LISTEN_FDS: no socket",
        ),
        ("connected", connected.into(), &address, variables(1, ""), "it does not listen"),
        (
            "elsewhere",
            socket.try_clone().unwrap(),
            &elsewhere,
            variables(1, ""),
            "no listener does",
        ),
        (
            "closed",
            socket.try_clone().unwrap(),
            &address,
            variables(40, ""),
            "LISTEN_FDS: Bad file",
        ),
        ("names", socket.try_clone().unwrap(), &address, variables(1, "a:b"), "LISTEN_FDNAMES"),
        ("count", socket, &address, "export LISTEN_PID=$$ LISTEN_FDS=many;".into(), "LISTEN_FDS"),
    ] {
        let name = format!("activated-{name}");
        let mut command = activated(&name, &on(&[address]), &[descriptor], &set);
        let text = refused(&command.output().unwrap());
        assert!(text.contains(why), "{name}: {text}");
    }
}
