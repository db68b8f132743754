//! How the built program leaves, and what it tells the service manager that started it.

use super::child::*;
use crate::net::*;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const READY: &str = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The status of the readiness page, on a connection of its own.
fn readiness(address: SocketAddr) -> u16 {
    let mut client = Client::connect(address);
    client.send(READY.as_bytes());
    client.response().status
}

#[test]
fn leaving_is_not_ready_but_accepts_for_the_lame_duck_time() {
    if !has_uring() {
        return;
    }
    let mut process = Process::start("lame", &format!("{BASE}lame_duck_s = 3\ndrain_s = 15\n"));
    let mut early = Client::subscriber(process.address, "c");
    assert_eq!(readiness(process.address), 200);
    let start = Instant::now();
    process.signal(libc::SIGTERM);
    wait("503", || readiness(process.address) == 503);
    // New clients are served as before.
    let mut late = Client::subscriber(process.address, "c");
    Client::connect(process.address).publish("c", "x");
    for client in [&mut early, &mut late] {
        assert_eq!(client.text(), event("c", "x"));
    }
    assert!(start.elapsed() < Duration::from_secs(3), "too slow to tell");
    for client in [&mut early, &mut late] {
        assert_eq!(client.close().0, 4200);
        assert!(start.elapsed() >= Duration::from_secs(3), "closed in the lame duck time");
        client.send_close(4200);
        client.end();
    }
    drop((early, late));
    assert_eq!(process.ended().code(), Some(0));
    let log = process.logged();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text}: {log}"));
    assert!(at("not ready any more") < at("draining") && at("draining") < at("stopped"), "{log}");
}

#[test]
fn leaving_second_signal_ends_the_lame_duck_time_at_once() {
    if !has_uring() {
        return;
    }
    let mut process = Process::start("lame-second", &format!("{BASE}lame_duck_s = 600\n"));
    process.signal(libc::SIGTERM);
    wait("503", || readiness(process.address) == 503);
    assert!(process.child.try_wait().unwrap().is_none(), "it serves on");
    process.signal(libc::SIGTERM);
    assert_eq!(process.ended().code(), Some(130));
}

/// The socket of a service manager.
pub struct Manager {
    socket: UnixDatagram,
    pub path: PathBuf,
}

impl Manager {
    pub fn new(name: &str) -> Manager {
        let path = std::env::temp_dir().join(format!("polycast-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, path }
    }

    /// Starts the program below this service manager.
    pub fn start(&self, name: &str, variables: &[(&str, &str)]) -> Process {
        let log =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live").join(format!("{name}.log"));
        let mut command = command(name, BASE);
        command.env("NOTIFY_SOCKET", &self.path).envs(variables.iter().copied());
        command.stderr(fs::File::create(&log).unwrap());
        Process::spawn(command, log)
    }

    pub fn message(&self) -> String {
        self.receive().expect("a message from the server")
    }

    /// The next message. A signal to the process of the tests does not end the wait.
    fn receive(&self) -> io::Result<String> {
        let mut bytes = [0; 512];
        loop {
            match self.socket.recv(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                length => return Ok(String::from_utf8(bytes[..length?].to_vec()).unwrap()),
            }
        }
    }

    /// The next message within this time.
    pub fn message_within(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        self.receive().ok()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn monotonic_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for the call to write.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) }, 0);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

#[test]
fn notify_reports_ready_reloading_and_stopping_in_this_order() {
    if !has_uring() {
        return;
    }
    let manager = Manager::new("states");
    let mut process = manager.start("notify", &[]);
    assert_eq!(manager.message(), "READY=1\n");
    Client::open(process.address, "/echo").sync();
    let before = monotonic_us();
    process.signal(libc::SIGHUP);
    let reloading = manager.message();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let time: u64 = time.unwrap_or_else(|| panic!("{reloading}")).trim().parse().unwrap();
    assert!((before..=monotonic_us()).contains(&time), "{reloading}");
    assert_eq!(manager.message(), "READY=1\n");
    wait("the reload", || process.logged().contains("configuration reloaded"));
    process.signal(libc::SIGTERM);
    assert_eq!(manager.message(), "STOPPING=1\n");
    assert_eq!(process.ended().code(), Some(0));
    // Without WATCHDOG_USEC nothing else was sent.
    assert_eq!(manager.message_within(Duration::from_millis(1)), None);
}

#[test]
fn notify_feeds_the_watchdog_of_this_process_only() {
    if !has_uring() {
        return;
    }
    let manager = Manager::new("watchdog");
    // A watchdog's time below the interval of the other checks.
    let process = manager.start("watchdog", &[("WATCHDOG_USEC", "300000")]);
    assert_eq!(manager.message(), "READY=1\n");
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(manager.message(), "WATCHDOG=1\n");
    }
    let each = start.elapsed() / 10;
    assert!((Duration::from_millis(80)..Duration::from_secs(3)).contains(&each), "{each:?}");
    drop(process);
    let other = Manager::new("no-watchdog");
    let variables = [("WATCHDOG_USEC", "300000"), ("WATCHDOG_PID", "1")];
    let _process = other.start("no-watchdog", &variables);
    assert_eq!(other.message(), "READY=1\n");
    assert_eq!(other.message_within(Duration::from_secs(2)), None);
}

#[test]
fn notify_socket_that_does_not_exist_is_logged_and_the_server_serves() {
    if !has_uring() {
        return;
    }
    let manager = Manager::new("gone");
    fs::remove_file(&manager.path).unwrap();
    let mut process = manager.start("gone", &[("WATCHDOG_USEC", "200000")]);
    Client::open(process.address, "/echo").sync();
    std::thread::sleep(Duration::from_millis(500));
    process.signal(libc::SIGTERM);
    assert_eq!(process.ended().code(), Some(0));
    let log = process.logged();
    assert_eq!(log.matches("(NOTIFY_SOCKET) cannot be notified").count(), 1, "{log}");
}
