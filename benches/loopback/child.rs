//! Servers in child processes, so that their CPU time can be read apart from that of the load.
//!
//! A child is this program, started with [`FLAG`]. It prints its address, answers `stats` on its
//! standard input with its counters, and ends when its standard input ends.

use super::bare;
use super::tls::FIXTURES;
use polycast::config::{Certificate, Config, IoDriver, ListenAddress, Overrides};
use polycast::server::Server;
use polycast::uring::sys;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The argument with which this program runs as a server.
pub const FLAG: &str = "--serve";

/// The kinds of servers that a child can run.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Polycast,
    /// Polycast without transparent huge pages, which would hide how much memory is used.
    SmallPages,
    /// Polycast with the Zilliqa dialect at every path.
    Zilliqa,
    /// Polycast with TLS, with and without huge pages.
    Secure,
    SecureSmallPages,
    Echo,
    /// The lengths of a request and of its response in bytes.
    Canned(usize, usize),
    /// The number of connections, and the length of a frame in bytes.
    SendMessages(usize, usize),
    RingSends(usize, usize),
}

impl Kind {
    fn words(self) -> [String; 3] {
        let (name, a, b) = match self {
            Kind::Polycast => ("polycast", 0, 0),
            Kind::SmallPages => ("small-pages", 0, 0),
            Kind::Zilliqa => ("zilliqa", 0, 0),
            Kind::Secure => ("secure", 0, 0),
            Kind::SecureSmallPages => ("secure-small-pages", 0, 0),
            Kind::Echo => ("echo", 0, 0),
            Kind::Canned(a, b) => ("canned", a, b),
            Kind::SendMessages(a, b) => ("sendmsg", a, b),
            Kind::RingSends(a, b) => ("sends", a, b),
        };
        [name.to_owned(), a.to_string(), b.to_string()]
    }

    fn parse(words: &[String]) -> Option<Kind> {
        let [name, a, b] = words.first_chunk()?;
        let (a, b) = (a.parse().ok()?, b.parse().ok()?);
        Some(match &**name {
            "polycast" => Kind::Polycast,
            "small-pages" => Kind::SmallPages,
            "zilliqa" => Kind::Zilliqa,
            "secure" => Kind::Secure,
            "secure-small-pages" => Kind::SecureSmallPages,
            "echo" => Kind::Echo,
            "canned" => Kind::Canned(a, b),
            "sendmsg" => Kind::SendMessages(a, b),
            "sends" => Kind::RingSends(a, b),
            _ => return None,
        })
    }
}

/// Runs the child; `words` are the arguments: a core, a kind, and the driver of polycast.
pub fn serve(words: &[String]) -> io::Result<()> {
    let bad = || io::Error::other("not the arguments of a child");
    let core = words.first().and_then(|core| core.parse().ok()).ok_or_else(bad)?;
    let kind = Kind::parse(&words[1..]).ok_or_else(bad)?;
    sys::pin(core)?;
    let secure = matches!(kind, Kind::Secure | Kind::SecureSmallPages);
    if let Kind::SmallPages | Kind::SecureSmallPages = kind {
        // SAFETY: the call takes no pointer.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    }
    let zilliqa = matches!(kind, Kind::Zilliqa);
    if secure || zilliqa || matches!(kind, Kind::Polycast | Kind::SmallPages) {
        let mut config = match kind {
            Kind::Zilliqa => super::blocks::config().map_err(io::Error::other)?,
            _ => Config::demo(),
        };
        config.pusher.activity_timeout_s = 86_400;
        let overrides = Overrides {
            listen: vec![ListenAddress::Ip(SocketAddr::from(([127, 0, 0, 1], 0)))],
            threads: Some(1),
            io: Some(match words.last().map(String::as_str) {
                Some("epoll") => IoDriver::Epoll,
                _ => IoDriver::IoUring,
            }),
            ..Overrides::default()
        };
        let mut config = config.with(overrides).map_err(io::Error::other)?;
        if secure {
            config.listeners[0].tls.certificates.push(Certificate {
                cert: format!("{FIXTURES}/localhost.pem"),
                key: format!("{FIXTURES}/localhost.key"),
                ..Certificate::default()
            });
        }
        let server = Server::start(config).map_err(io::Error::other)?;
        obey(server.addresses()[0], || server.counts());
        std::process::exit(0);
    }
    // With the socket options of polycast's listener: without TCP_NODELAY, responses wait for
    // acknowledgements.
    let listener =
        TcpListener::from(sys::listen(SocketAddr::from(([127, 0, 0, 1], 0)), false, true)?);
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let served = match kind {
            Kind::Canned(request, reply) => bare::canned(&listener, request, reply),
            Kind::SendMessages(count, frame) => bare::send_messages(&listener, count, frame),
            Kind::RingSends(count, frame) => bare::ring_sends(&listener, count, frame),
            _ => bare::echo(&listener),
        };
        if let Err(error) = served {
            eprintln!("loopback: the {kind:?} server: {error}");
            std::process::exit(1);
        }
    });
    obey(address, Vec::new);
    std::process::exit(0)
}

fn obey(address: SocketAddr, counts: impl Fn() -> Vec<(&'static str, u64)>) {
    println!("{address}");
    for line in io::stdin().lines() {
        if !line.is_ok_and(|line| line == "stats") {
            return;
        }
        let counts: Vec<String> = counts().iter().map(|(name, n)| format!("{name} {n}")).collect();
        println!("{}", counts.join(","));
    }
}

/// The CPU time of a clock.
pub fn cpu_of(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call to fill.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A running child, as the parent sees it.
pub struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub address: SocketAddr,
    clock: libc::clockid_t,
}

impl Child {
    /// Starts a server; polycast runs on io_uring.
    pub fn start(kind: Kind, core: usize) -> io::Result<Child> {
        Child::start_on("io_uring", kind, core)
    }

    /// Starts a server; polycast runs on this driver.
    pub fn start_on(driver: &str, kind: Kind, core: usize) -> io::Result<Child> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .arg(core.to_string())
            .args(kind.words())
            .arg(driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let closed = || io::Error::other(format!("the {kind:?} server did not start"));
        let input = process.stdin.take();
        let mut output = BufReader::new(process.stdout.take().ok_or_else(closed)?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| closed())?;
        let mut clock = 0;
        // SAFETY: `clock` is valid for the call to fill.
        let got = unsafe { libc::clock_getcpuclockid(process.id() as libc::pid_t, &raw mut clock) };
        if got != 0 {
            return Err(io::Error::from_raw_os_error(got));
        }
        Ok(Child { process, input, output, address, clock })
    }

    /// The CPU time of the process, of all threads, in user and kernel mode.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.clock)
    }

    /// Requests the server's counters.
    pub fn stats(&mut self) -> HashMap<String, u64> {
        let mut line = String::new();
        let asked = self.input.as_mut().map(|input| input.write_all(b"stats\n"));
        if !matches!(asked, Some(Ok(()))) || self.output.read_line(&mut line).is_err() {
            return HashMap::new();
        }
        let count = |item: &str| {
            let (name, count) = item.trim().split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        line.split(',').filter_map(count).collect()
    }

    /// The anonymous resident memory in bytes.
    pub fn memory(&self) -> io::Result<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no RssAnon"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.input.take());
        for _ in 0..100 {
            if let Ok(Some(_)) = self.process.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
