//! The replacement of the running program by another binary, and its failures.

use super::child::*;
use super::leaving::Manager;
use crate::net::*;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_polycast");

/// A program that can be replaced: it is started through a symbolic link.
pub struct Installed {
    pub process: Process,
    /// The link to the program.
    link: PathBuf,
    pub pid_file: PathBuf,
    config: PathBuf,
}

fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live");
    fs::create_dir_all(&folder).unwrap();
    folder
}

impl Installed {
    /// Starts the program with this configuration and a `pid_file`, on the driver of the tests.
    pub fn start(name: &str, config: &str) -> Installed {
        Installed::start_with(name, config, |command| _ = command.args(["--io", io()]))
    }

    pub fn start_with(name: &str, config: &str, change: impl FnOnce(&mut Command)) -> Installed {
        let (link, pid_file) = (folder().join(format!("{name}.bin")), pid_file(name));
        let _ = fs::remove_file(&link);
        symlink(PROGRAM, &link).unwrap();
        let text = format!("pid_file = '{}'\n{config}", pid_file.display());
        let original = command_on_any_driver(name, &text);
        let log = folder().join(format!("{name}.log"));
        let mut command = Command::new(&link);
        command.args(original.get_args()).stdin(Stdio::null());
        command.stderr(fs::File::create(&log).unwrap());
        change(&mut command);
        let process = Process::spawn(command, log);
        wait("pid_file", || pid_in(&pid_file) == Some(process.child.id()));
        Installed { process, link, pid_file, config: folder().join(format!("{name}.toml")) }
    }

    /// Installs another program in place of the running one.
    fn install(&self, program: &Path) {
        let beside = self.link.with_extension("new");
        let _ = fs::remove_file(&beside);
        symlink(program, &beside).unwrap();
        fs::rename(beside, &self.link).unwrap();
    }

    /// Installs a script with this text.
    pub fn install_script(&self, text: &str) -> bool {
        let script = self.link.with_extension("script");
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        self.install(&script);
        let interpreter = text.lines().next().unwrap().trim_start_matches("#!");
        Path::new(interpreter).exists()
    }

    /// Replaces a part of the configuration.
    fn configure(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{text}");
        // The running server would reload it at once.
        fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    /// The number of the process that serves.
    pub fn pid(&self) -> u32 {
        pid_in(&self.pid_file).expect("a number in pid_file")
    }

    pub fn ask(&self) {
        signal_to(self.pid(), libc::SIGUSR2);
    }

    /// Upgrades, and waits until the new process serves. Returns the numbers of both.
    pub fn upgrade(&self) -> (u32, u32) {
        let old = self.pid();
        self.ask();
        let begin = Instant::now();
        while pid_in(&self.pid_file).is_none_or(|pid| pid == old) {
            assert!(begin.elapsed() < 3 * PATIENCE, "no upgrade: {}", self.process.logged());
            std::thread::sleep(Duration::from_millis(2));
        }
        (old, self.pid())
    }

    /// Runs `polycast upgrade`.
    fn command(&self) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(["upgrade", "--config"]).arg(&self.config).output().unwrap()
    }

    fn publish(&self, data: &str) {
        let mut subscriber = Client::subscriber(self.process.address, "c");
        Client::connect(self.process.address).publish("c", data);
        assert_eq!(subscriber.text(), event("c", data));
    }

    /// Waits for the text in the log, this many times.
    pub fn logs(&self, text: &str, count: usize) {
        let begin = Instant::now();
        while self.process.logged().matches(text).count() < count {
            assert!(begin.elapsed() < 3 * PATIENCE, "no {text}: {}", self.process.logged());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asserts that the first process goes on after an upgrade for this reason.
    fn goes_on(&mut self, why: &str) {
        let count = self.process.logged().matches("upgrade has failed").count();
        self.ask();
        self.logs("upgrade has failed", count + 1);
        let log = self.process.logged();
        let line = log.lines().rfind(|line| line.contains("upgrade has failed")).unwrap();
        assert!(line.contains(why), "{line}");
        assert!(self.process.child.try_wait().unwrap().is_none());
        assert_eq!(self.pid(), self.process.child.id());
        self.publish("x");
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // The last process is no child of this one.
        if let Some(pid) = pid_in(&self.pid_file)
            && pid != self.process.child.id()
            && is_alive(pid)
        {
            signal_to(pid, libc::SIGKILL);
        }
        let _ = fs::remove_file(&self.pid_file);
    }
}

fn pid_file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("polycast-{}-{name}.pid", std::process::id()))
}

pub fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Whether the process runs; one that has ended may wait for its parent.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// Waits until a process has ended that may be no child of this one.
pub fn wait_end(pid: u32) {
    wait("the end of a process", || !is_alive(pid));
}

#[test]
fn upgrade_leaves_clients_to_the_new_process_and_ends_the_old_one() {
    if !has_uring() {
        return;
    }
    let mut installed = Installed::start("upgrade", &format!("{BASE}drain_s = 15\n"));
    let address = installed.process.address;
    let mut early = Client::subscriber(address, "c");
    let mut kept = Client::connect(address);
    kept.publish("c", "1");
    assert_eq!(early.text(), event("c", "1"));
    // A request whose second part is sent after the hand-over.
    let request = publish("c", "2");
    let mut torn = Client::connect(address);
    torn.send(&request[..request.len() / 2]);
    kept.publish("c", "3");
    assert_eq!(early.text(), event("c", "3"));
    let (old, new) = installed.upgrade();
    assert_eq!(old, installed.process.child.id());
    assert!(is_alive(new));
    torn.send(&request[request.len() / 2..]);
    let response = torn.response();
    assert_eq!((response.status, response.field("Connection")), (200, Some("close")));
    // Clients of the old process are asked to come again, and find the new one.
    let frame = early.frame();
    let closed = match frame.opcode {
        CLOSE => true,
        // The event of the torn request, if it came before the drain.
        _ => {
            assert_eq!(frame.payload, event("c", "2").into_bytes());
            early.close().0 == 4200
        }
    };
    assert!(closed);
    early.send_close(4200);
    early.end();
    drop((early, kept, torn));
    assert_eq!(installed.process.ended().code(), Some(0));
    installed.publish("4");
    let log = installed.process.logged();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text}: {log}"));
    assert!(at("upgrade begun") < at("has taken over"), "{log}");
    assert!(at("the new server accepts connections") < at("reason=Replaced"), "{log}");
    // The new process ends as any other, and removes the file.
    signal_to(new, libc::SIGTERM);
    wait_end(new);
    assert!(!installed.pid_file.exists());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn upgrade_answers_requests_of_the_old_process_with_a_close() {
    if !has_uring() {
        return;
    }
    let installed = Installed::start("upgrade-kept", &format!("{BASE}drain_s = 15\n"));
    let address = installed.process.address;
    // A connection without a request keeps the old process from draining for two seconds.
    let _silent = Client::connect(address);
    let mut kept = Client::connect(address);
    kept.publish("c", "1");
    installed.upgrade();
    installed.logs("the new server accepts connections", 1);
    std::thread::sleep(Duration::from_millis(100));
    kept.send(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = kept.response();
    assert_eq!((response.status, response.field("Connection")), (200, Some("close")), "ready");
    kept.end();
}

#[test]
fn upgrade_by_the_command_reports_the_outcome() {
    if !has_uring() {
        return;
    }
    let installed = Installed::start("upgrade-command", BASE);
    let old = installed.pid();
    let output = installed.command();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?} {}", installed.process.logged());
    let expected = format!("process {} has taken over from process {old}\n", installed.pid());
    assert_eq!(text, expected);
    wait_end(old);
    if installed.install_script("#!/bin/sh\nexit 3\n") {
        let new = installed.pid();
        let output = installed.command();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(text, format!("polycast: process {new} goes on; its log says why\n"));
        assert_eq!(installed.pid(), new);
    }
    installed.configure("threads = 2", "threads = 'two'");
    let output = installed.command();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let without = folder().join("upgrade-without.toml");
    fs::write(&without, format!("{BASE}[[apps]]\nid='1'\nkey='k'\nsecret='s'\n")).unwrap();
    let mut command = Command::new(PROGRAM);
    let output = command.args(["upgrade", "-c"]).arg(&without).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("has no pid_file"), "{text}");
}

#[test]
fn upgrade_changes_reactors_listeners_and_driver() {
    if !has_uring() {
        return;
    }
    let path = |name: &str| {
        let name = format!("polycast-live-{}-upgrade-{name}", std::process::id());
        std::env::temp_dir().join(name)
    };
    let (kept, removed, added) = (path("kept"), path("removed"), path("added"));
    let unix = |path: &Path| format!("{{ address = 'unix:{}' }}", path.display());
    let first = format!(
        "threads = 3\npin = false\nio = 'epoll'\ndrain_s = 15\nlisteners = [\
         {{ address = '127.0.0.1:0' }}, {}, {}, {{ address = '127.0.0.1:0' }}]\n",
        unix(&kept),
        unix(&removed)
    );
    let mut installed = Installed::start_with("upgrade-config", &first, |_| ());
    let address = installed.process.address;
    let logged = |installed: &Installed| {
        let log = installed.process.logged();
        let found = log.lines().filter_map(|line| line.split("listening address=").nth(1));
        let mut found: Vec<String> = found.map(|it| it.trim().to_owned()).collect();
        found.retain(|it| it.starts_with("127.") && *it != address.to_string());
        found.last().and_then(|it| it.parse::<std::net::SocketAddr>().ok())
    };
    let other = |installed: &Installed| {
        // A thread writes the log.
        wait("the other address is logged", || logged(installed).is_some());
        logged(installed).expect("an address")
    };
    let second = other(&installed);
    // More connections than queues, so that every queue has some.
    let serves = |installed: &Installed| {
        for at in [address, other(installed)] {
            let clients = (0..24).map(|_| Client::open(at, "/echo")).collect::<Vec<_>>();
            clients.into_iter().for_each(|mut client| client.sync());
        }
        assert_eq!(other(installed), second, "the port that the kernel has chosen stays");
        installed.publish("x");
    };
    serves(&installed);
    let uring = polycast::server::doctor(polycast::config::IoDriver::IoUring).1;
    let driver = if uring { "io_uring" } else { "epoll" };
    installed.configure("threads = 3", "threads = 1");
    installed.configure("io = 'epoll'", &format!("io = '{driver}'"));
    installed.configure(&unix(&removed), &unix(&added));
    assert!(UnixStream::connect(&added).is_err());
    let (_, new) = installed.upgrade();
    serves(&installed);
    UnixStream::connect(&kept).unwrap();
    UnixStream::connect(&added).unwrap();
    assert_eq!(installed.process.ended().code(), Some(0));
    assert!(!removed.exists() && kept.exists() && added.exists());
    installed.configure("threads = 1", "threads = 4");
    installed.configure(&format!("io = '{driver}'"), "io = 'epoll'");
    let (old, last) = installed.upgrade();
    assert_eq!(old, new);
    serves(&installed);
    wait_end(new);
    serves(&installed);
    UnixStream::connect(&kept).unwrap();
    signal_to(last, libc::SIGTERM);
    wait_end(last);
    assert!(!kept.exists() && !added.exists());
}

#[test]
fn upgrade_to_a_program_that_fails_changes_nothing() {
    if !has_uring() {
        return;
    }
    let mut installed = Installed::start("upgrade-fails", BASE);
    let mut early = Client::subscriber(installed.process.address, "early");
    if installed.install_script("#!/bin/sh\nexit 3\n") {
        installed.goes_on("the new server has ended (exit status: 3)");
    }
    installed.install(Path::new("/no/such/program"));
    installed.goes_on("cannot be started");
    installed.install(Path::new(PROGRAM));
    let config = fs::read_to_string(&installed.config).unwrap();
    installed.configure("threads = 2", "threads = 'two'");
    installed.goes_on("the new server has ended (exit status: 2)");
    // An address that is in use.
    let used = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("listeners = [{{ address = '{}' }}, ", used.local_addr().unwrap());
    fs::write(&installed.config, config.replace("listeners = [", &more)).unwrap();
    installed.goes_on("the new server has ended (exit status: 1)");
    let pid_file = installed.pid_file.display().to_string();
    fs::write(&installed.config, config.replace(&pid_file, "/no/such/folder/pid")).unwrap();
    installed.goes_on("the new server has ended (exit status: 1)");
    let mut client = Client::connect(installed.process.address);
    client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let metrics = client.response().body;
    let failed = metrics.lines().find(|line| line.starts_with("polycast_upgrades_failed_total"));
    let count = failed.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
    assert!(count.is_some_and(|count| (4..=5).contains(&count)), "{failed:?}");
    // It has never stopped to serve this client.
    Client::connect(installed.process.address).publish("early", "x");
    assert_eq!(early.text(), event("early", "x"));
    fs::write(&installed.config, config).unwrap();
    installed.upgrade();
    installed.publish("x");
}

#[test]
fn upgrade_to_a_program_that_hangs_is_given_up_and_a_second_one_is_refused() {
    if !has_uring() {
        return;
    }
    let mut installed =
        Installed::start("upgrade-hangs", &format!("{BASE}upgrade_timeout_s = 3\n"));
    if !installed.install_script("#!/bin/sh\nexec sleep 600\n") {
        return println!("SKIPPED: no shell");
    }
    installed.ask();
    installed.logs("upgrade begun", 1);
    installed.ask();
    installed.logs("no upgrade: one is in progress already", 1);
    installed.publish("meanwhile");
    let new = installed.process.logged_number("new") as u32;
    assert!(is_alive(new));
    installed.logs("the new server is not ready in time", 1);
    wait_end(new);
    installed.publish("x");
    // A signal that ends the server gives the upgrade up.
    installed.ask();
    installed.logs("upgrade begun", 2);
    let log = installed.process.logged();
    let line = log.lines().rfind(|line| line.contains("upgrade begun")).unwrap();
    let new: u32 = line.split("new=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    installed.process.signal(libc::SIGTERM);
    assert_eq!(installed.process.ended().code(), Some(0));
    wait_end(new);
}

/// A program that is ready, and then does not accept: `AFTER` follows the message that it may.
const NEVER_ACCEPTS: &str = "#!/usr/bin/python3
import os, socket, time
channel = socket.socket(fileno=0)
socket.recv_fds(channel, 65536, 253)
channel.send(b'{\"kind\":\"ready\"}')
assert channel.recv(65536) == b'{\"kind\":\"accept\"}'
AFTER
";

#[test]
fn upgrade_to_a_program_that_does_not_accept_loses_no_connect() {
    if !has_uring() {
        return;
    }
    let mut installed = Installed::start("upgrade-no-accept", BASE);
    let address = installed.process.address;
    for (count, (after, why)) in
        [("os._exit(4)", "(exit status: 4)"), ("time.sleep(600)", "not ready in time")]
            .into_iter()
            .enumerate()
    {
        if !installed.install_script(&NEVER_ACCEPTS.replace("AFTER", after)) {
            return println!("SKIPPED: no Python");
        }
        installed.ask();
        // Connections that are made meanwhile wait in the queue.
        let begin = Instant::now();
        let mut clients = Vec::new();
        while installed.process.logged().matches("upgrade has failed").count() == count {
            assert!(begin.elapsed() < 3 * PATIENCE, "{}", installed.process.logged());
            let mut client = Client::connect(address);
            client.send(handshake("/echo", "").as_bytes());
            clients.push(client);
            std::thread::sleep(Duration::from_millis(20));
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 101);
            client.sync();
        }
        println!("{} connects while nobody accepted, all served", clients.len());
        let log = installed.process.logged();
        let line = log.lines().rfind(|line| line.contains("upgrade has failed")).unwrap();
        assert!(line.contains(why), "{line}");
        installed.publish("x");
    }
    installed.install(Path::new(PROGRAM));
    installed.upgrade();
    installed.publish("x");
    assert_eq!(installed.process.ended().code(), Some(0));
}

#[test]
fn upgrade_is_refused_where_programs_cannot_be_started() {
    if !has_uring() {
        return;
    }
    let config = format!("{BASE}process.seccomp = true\n");
    Installed::start("upgrade-seccomp", &config).goes_on("process.seccomp forbids");
}

#[test]
fn upgrade_of_a_confined_process_keeps_its_restrictions() {
    if !has_uring() {
        return;
    }
    // The program must be in a folder that is readable under Landlock.
    let readable = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let process = format!(
        "process = {{ drop_capabilities = true, landlock = true, readable = ['{readable}'] }}\n"
    );
    let mut installed = Installed::start("upgrade-confined", &format!("{BASE}{process}"));
    let (_, new) = installed.upgrade();
    installed.publish("x");
    let status = fs::read_to_string(format!("/proc/{new}/status")).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert_eq!(installed.process.ended().code(), Some(0));
}

#[test]
fn upgrade_reports_the_new_process_to_the_service_manager() {
    if !has_uring() {
        return;
    }
    let manager = Manager::new("upgrade");
    let mut installed =
        Installed::start_with("upgrade-notify", &format!("{BASE}drain_s = 15\n"), |command| {
            command.args(["--io", io()]).env("NOTIFY_SOCKET", &manager.path);
            command.env("WATCHDOG_USEC", "3000000");
        });
    let next = || loop {
        let message = manager.message();
        if message != "WATCHDOG=1\n" {
            return message;
        }
    };
    assert_eq!(next(), "READY=1\n");
    let (_, new) = installed.upgrade();
    assert_eq!(next(), format!("MAINPID={new}\n"));
    assert_eq!(next(), "READY=1\n");
    // The old process neither stops the service nor feeds its watchdog any more.
    assert_eq!(installed.process.ended().code(), Some(0));
    assert_eq!(manager.message(), "WATCHDOG=1\n", "by the new process");
    signal_to(new, libc::SIGHUP);
    assert!(next().starts_with("RELOADING=1\n"));
    assert_eq!(next(), "READY=1\n");
    signal_to(new, libc::SIGTERM);
    assert_eq!(next(), "STOPPING=1\n");
    wait_end(new);
}

#[test]
fn upgrade_drain_is_ended_by_the_second_signal() {
    if !has_uring() {
        return;
    }
    let config = format!("{BASE}drain_s = 600\ntimeouts.close_ms = 600000\n");
    let mut installed = Installed::start("upgrade-signals", &config);
    let mut client = Client::subscriber(installed.process.address, "c");
    installed.upgrade();
    assert_eq!(client.close().0, 4200);
    installed.process.signal(libc::SIGTERM);
    installed.logs("already draining", 1);
    assert!(installed.process.child.try_wait().unwrap().is_none(), "it waits for the client");
    installed.process.signal(libc::SIGTERM);
    assert_eq!(installed.process.ended().code(), Some(130));
}

#[test]
fn upgrade_variable_without_a_channel_is_an_error() {
    let mut command = command("upgrade-variable", BASE);
    let mut child =
        command.env("UPGRADE_POLYCAST_PID", "1").stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("standard input is no socket"), "{text}");
}
