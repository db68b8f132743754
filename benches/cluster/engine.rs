//! NATS servers with JetStream in child processes.

use super::clock::cpu_of;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest time that a server may take to start.
const START: Duration = Duration::from_secs(20);

/// The running servers of one engine; they end when it is dropped, and their files are removed.
pub struct Nats {
    servers: Vec<Child>,
    ports: Vec<u16>,
    folder: PathBuf,
}

impl Nats {
    /// Starts this number of servers, which store on disk. Several are one NATS cluster, and each
    /// has a replica of each stream.
    pub fn start(program: &Path, count: usize) -> io::Result<Nats> {
        let folder = std::env::temp_dir().join(format!("polycast-bench-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let mut nats = Nats { servers: Vec::new(), ports: free_ports(count)?, folder };
        let routes = free_ports(count)?;
        let peers: Vec<String> = routes.iter().map(|it| format!("nats://127.0.0.1:{it}")).collect();
        for number in 0..count {
            let mut command = Command::new(program);
            command.args(["-a", "127.0.0.1", "-p", &nats.ports[number].to_string(), "-js", "-sd"]);
            command.arg(nats.folder.join(number.to_string()));
            if count > 1 {
                command.args(["--cluster_name", "bench", "--name", &format!("bench-{number}")]);
                command.args(["--cluster", &peers[number], "--routes", &peers.join(",")]);
            }
            let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            nats.servers.push(command.spawn()?);
        }
        let begin = Instant::now();
        for port in &nats.ports {
            while TcpStream::connect(("127.0.0.1", *port)).is_err() {
                if begin.elapsed() > START {
                    return Err(io::Error::other("a NATS server did not start"));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(nats)
    }

    /// The number of servers, and of replicas.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// The URL of each server.
    pub fn urls(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect()
    }

    /// The CPU time of all servers together.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.servers.iter().map(|server| cpu_of(server.id())).sum()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Ports that are free now.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners: io::Result<Vec<_>> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect();
    listeners?.iter().map(|it| Ok(it.local_addr()?.port())).collect()
}

/// The server's program.
pub fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|it| it.join("nats-server")).find(|it| it.is_file())
}
