//! Servers of engines for tests, each on a port and with a folder of its own.
//!
//! `CLUSTER_ENGINE` says which engine is tested, `nats` or `redis`. Without it the scenes that any
//! engine serves run with NATS, and those of one engine with that.

use crate::net::*;
use polycast::config::{Cluster, Config};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// An engine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// A NATS server with JetStream.
    Nats,
    /// Redis or Valkey.
    Redis,
}

/// A running server.
pub struct EngineServer {
    product: Product,
    program: PathBuf,
    folder: PathBuf,
    pub port: u16,
    more: Vec<String>,
    child: Option<Child>,
}

/// The engine that is tested; `None` for all.
fn tested() -> Option<Product> {
    match std::env::var("CLUSTER_ENGINE").ok()?.as_str() {
        "nats" => Some(Product::Nats),
        "redis" => Some(Product::Redis),
        other => panic!("CLUSTER_ENGINE is {other}"),
    }
}

impl EngineServer {
    /// Starts a server of the engine that is tested; prints SKIPPED if there is no program.
    pub fn start(name: &str) -> Option<EngineServer> {
        match tested() {
            Some(Product::Redis) => EngineServer::start_redis(name, &["--appendonly", "yes"]),
            _ => EngineServer::start_with(name, &[]),
        }
    }

    /// Starts a NATS server with further arguments; `None` if another engine is tested.
    pub fn start_with(name: &str, more: &[&str]) -> Option<EngineServer> {
        EngineServer::of(Product::Nats, name, more)
    }

    /// Starts a Redis server with further arguments; `None` if another engine is tested.
    pub fn start_redis(name: &str, more: &[&str]) -> Option<EngineServer> {
        EngineServer::of(Product::Redis, name, more)
    }

    fn of(product: Product, name: &str, more: &[&str]) -> Option<EngineServer> {
        if tested().is_some_and(|tested| tested != product) {
            return None;
        }
        let Some(program) = program(product) else {
            skip(match product {
                Product::Nats => {
                    "no NATS server: NATS_SERVER is not set, and `tests/run cluster` has not run"
                }
                Product::Redis => {
                    "no Redis server: REDIS_SERVER is not set, and there is no redis-server"
                }
            });
            return None;
        };
        // Two runs of the tests may be under way.
        let name = format!("{name}-{}", std::process::id());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("engines").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let more = more.iter().map(|it| (*it).to_owned()).collect();
        let port = free_port();
        let mut server = EngineServer { product, program, folder, port, more, child: None };
        server.again();
        Some(server)
    }

    /// Starts the server again, on the same port and folder.
    pub fn again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let mut command = Command::new(&self.program);
        let port = self.port.to_string();
        match self.product {
            Product::Nats => {
                command.args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"]);
                command.arg(self.folder.join("store")).stdout(Stdio::null()).stderr(log);
            }
            Product::Redis => {
                // Sentinel writes its configuration file, which is the first argument then.
                let is_file = |it: &&String| it.ends_with(".conf");
                command.args(self.more.first().filter(is_file));
                command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir"]);
                command.arg(&self.folder).stdout(log).stderr(Stdio::null());
                // A killed process keeps what it has written, and a busy disk stops nobody.
                command.args(["--appendfsync", "no"]);
            }
        }
        command.args(self.more.iter().filter(|it| !it.ends_with(".conf")));
        self.child = Some(command.stdin(Stdio::null()).spawn().unwrap());
        wait("the engine listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// Starts three servers as one NATS cluster.
    pub fn start_three(name: &str) -> Option<[EngineServer; 3]> {
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let urls: Vec<String> = routes.iter().map(|it| format!("nats://127.0.0.1:{it}")).collect();
        let urls = urls.join(",");
        let mut servers = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            let cluster = format!("nats://127.0.0.1:{route}");
            let own = format!("{name}-{number}");
            let more = ["--cluster_name", name, "--name", &own, "--cluster", &cluster];
            let more = [&more[..], &["--routes", &urls]].concat();
            servers.push(EngineServer::start_with(&own, &more)?);
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
        let scheme = match self.product {
            Product::Nats => "nats",
            Product::Redis => "redis",
        };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Whether the server's program has loaded this library.
    pub fn uses_library(&self, name: &str) -> bool {
        let maps = format!("/proc/{}/maps", self.child.as_ref().expect("it runs").id());
        fs::read_to_string(maps).unwrap().contains(name)
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a Redis server answers to a command: a line, or a text below the line with its length.
    pub fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        let length = answer.strip_prefix('$').and_then(|rest| rest.trim().parse::<u64>().ok());
        if let Some(length) = length {
            stream.take(length + 2).read_to_string(&mut answer).unwrap();
        }
        answer
    }

    /// A field of its `INFO`.
    pub fn info(&self, key: &str) -> String {
        let info = self.ask("INFO");
        let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default().to_owned()
    }
}

impl Drop for EngineServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        // The files of a test that failed stay for its reader.
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The way of one node to its engine, which can be cut.
pub struct Route {
    pub port: u16,
    /// The connections of the node and of the engine; `None` while the way is cut.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Route {
    pub fn to(server: &EngineServer) -> Route {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, target) = (listener.local_addr().unwrap().port(), server.port);
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let theirs = open.clone();
        thread::spawn(move || {
            for node in listener.incoming() {
                let (Ok(node), Ok(mut open)) = (node, theirs.lock()) else { return };
                let Some(open) = open.as_mut() else { continue };
                let Ok(engine) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                for (from, to) in [(&node, &engine), (&engine, &node)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                open.extend([node, engine]);
            }
        });
        Route { port, open }
    }

    /// Ends all connections, and takes no further one.
    pub fn cut(&self) {
        let streams = self.open.lock().unwrap().take().expect("it is open");
        streams.iter().for_each(|stream| _ = stream.shutdown(Shutdown::Both));
    }

    pub fn mend(&self) {
        *self.open.lock().unwrap() = Some(Vec::new());
    }
}

/// The program, from the environment, from the folder where `tests/run` installs it, or from the
/// system.
fn program(product: Product) -> Option<PathBuf> {
    let (variable, place) = match product {
        Product::Nats => ("NATS_SERVER", "../nats/bin/nats-server"),
        Product::Redis => ("REDIS_SERVER", "/usr/bin/redis-server"),
    };
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(place);
    path.exists().then_some(path)
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The configuration of a node. What is published waits so long for the engine that a machine that
/// is busy with other tests loses nothing.
pub fn cluster_of(server: &EngineServer) -> Config {
    let mut config = config();
    config.cluster = Some(Box::new(Cluster {
        engine: vec![server.url()],
        hold_ms: 6000,
        append_ms: 500,
        log_bytes: 64 << 20,
        ..Cluster::default()
    }));
    config
}

/// The `dead_ms` of a cluster in which a node is stopped and must not be dead while others wait for
/// it. Each read waits for it for 2 seconds.
pub const SILENT_MS: u64 = 10_000;

/// The configuration of a node whose publishes are refused soon when the engine is away.
pub fn impatient(server: &EngineServer) -> Config {
    let mut config = cluster_of(server);
    config.cluster.as_mut().unwrap().hold_ms = 1500;
    config
}

/// How long clients wait for what must not come.
pub const QUIET: Duration = Duration::from_millis(300);
