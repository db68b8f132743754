//! Servers of an engine in child processes: of NATS with JetStream, or one of Redis or Valkey.

use super::clock::cpu_of;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest time that a server may take to start.
const START: Duration = Duration::from_secs(20);

/// What the engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Nats,
    /// Redis or Valkey.
    Redis,
}

/// The running servers of one engine; they end when it is dropped, and their files are removed.
pub struct Engine {
    product: Product,
    servers: Vec<Child>,
    ports: Vec<u16>,
    folder: PathBuf,
}

impl Engine {
    /// Starts this number of servers, which store on disk: several of NATS, which are one cluster,
    /// so that each has a replica of each stream, or one of Redis.
    pub fn start(product: Product, program: &Path, count: usize) -> io::Result<Engine> {
        let folder = std::env::temp_dir().join(format!("polycast-bench-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let ports = free_ports(count)?;
        let mut engine = Engine { product, servers: Vec::new(), ports, folder };
        let routes = free_ports(count)?;
        let peers: Vec<String> = routes.iter().map(|it| format!("nats://127.0.0.1:{it}")).collect();
        for number in 0..count {
            let (port, folder) = (engine.ports[number].to_string(), number.to_string());
            let folder = engine.folder.join(folder);
            std::fs::create_dir(&folder)?;
            let mut command = Command::new(program);
            match product {
                Product::Nats => {
                    command.args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"]).arg(folder);
                }
                Product::Redis => {
                    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", ""]);
                    command.args(["--appendonly", "yes", "--dir"]).arg(folder);
                }
            }
            if count > 1 {
                command.args(["--cluster_name", "bench", "--name", &format!("bench-{number}")]);
                command.args(["--cluster", &peers[number], "--routes", &peers.join(",")]);
            }
            let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            engine.servers.push(command.spawn()?);
        }
        let begin = Instant::now();
        for port in &engine.ports {
            while TcpStream::connect(("127.0.0.1", *port)).is_err() {
                if begin.elapsed() > START {
                    return Err(io::Error::other("a server of the engine did not start"));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(engine)
    }

    /// The number of servers, and of replicas.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    pub fn product(&self) -> Product {
        self.product
    }

    /// The URL of each server.
    pub fn urls(&self) -> Vec<String> {
        let scheme = match self.product {
            Product::Nats => "nats",
            Product::Redis => "redis",
        };
        self.ports.iter().map(|port| format!("{scheme}://127.0.0.1:{port}")).collect()
    }

    /// The CPU time of all servers together.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.servers.iter().map(|server| cpu_of(server.id())).sum()
    }
}

impl Drop for Engine {
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

impl Product {
    /// The variable of the environment that names the server's program, and its usual name.
    pub fn names(self) -> [&'static str; 2] {
        match self {
            Product::Nats => ["NATS_SERVER", "nats-server"],
            Product::Redis => ["REDIS_SERVER", "redis-server"],
        }
    }

    /// The server's program.
    pub fn program(self) -> Option<PathBuf> {
        let [variable, name] = self.names();
        if let Some(path) = std::env::var_os(variable) {
            return Some(path.into());
        }
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|it| it.join(name)).find(|it| it.is_file())
    }
}
