//! NATS servers for tests, each on a port and with a folder of its own.

use crate::net::*;
use polycast::config::{Cluster, Config};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running NATS server with JetStream.
pub struct Nats {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    more: Vec<String>,
    child: Option<Child>,
}

impl Nats {
    /// Starts a server; prints SKIPPED if there is no program.
    pub fn start(name: &str) -> Option<Nats> {
        Nats::start_with(name, &[])
    }

    /// Starts a server with further arguments.
    pub fn start_with(name: &str, more: &[&str]) -> Option<Nats> {
        let Some(program) = program() else {
            skip("no NATS server: NATS_SERVER is not set, and `tests/run cluster` has not run");
            return None;
        };
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nats").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let more = more.iter().map(|it| (*it).to_owned()).collect();
        let mut nats = Nats { program, folder, port: free_port(), more, child: None };
        nats.again();
        Some(nats)
    }

    /// Starts the server again, on the same port and folder.
    pub fn again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-js", "-sd"]);
        command.arg(self.folder.join("store")).args(&self.more);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.unwrap());
        wait("the engine listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// Starts three servers as one NATS cluster.
    pub fn start_three(name: &str) -> Option<[Nats; 3]> {
        let program = program();
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let urls: Vec<String> = routes.iter().map(|it| format!("nats://127.0.0.1:{it}")).collect();
        let urls = urls.join(",");
        let mut servers = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            program.as_ref()?;
            let cluster = format!("nats://127.0.0.1:{route}");
            let own = format!("{name}-{number}");
            let more = ["--cluster_name", name, "--name", &own, "--cluster", &cluster];
            let more = [&more[..], &["--routes", &urls]].concat();
            servers.push(Nats::start_with(&own, &more)?);
        }
        servers.try_into().ok()
    }

    /// Kills the server at once.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops the server, and waits until all its threads stand still.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.child.as_ref().expect("it runs").id());
        let stands = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat"));
            // A thread that has ended meanwhile has no state.
            stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|it| it.starts_with('T')))
        };
        wait("the server stands still", || {
            fs::read_dir(&tasks).expect("it runs").flatten().all(stands)
        });
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: i32) {
        crate::live::child::signal_to(self.child.as_ref().expect("it runs").id(), signal);
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// The program, from the environment or from the folder where `tests/run` installs it.
fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        return Some(path.into());
    }
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../nats/bin/nats-server");
    target.exists().then_some(target)
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The configuration of a node; its publishes wait one second for the engine.
pub fn cluster_of(nats: &Nats) -> Config {
    let mut config = config();
    config.cluster = Some(Box::new(Cluster {
        engine: vec![nats.url()],
        hold_ms: 1500,
        append_ms: 500,
        log_bytes: 64 << 20,
        ..Cluster::default()
    }));
    config
}

/// How long clients wait for what must not come.
pub const QUIET: Duration = Duration::from_millis(300);
