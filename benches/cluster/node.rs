//! Nodes in child processes, a publisher of the first and a subscriber of the second.

use super::clock::{at_rate, cpu_of, due};
use super::engine::Engine;
use super::table::{Latencies, Row};
use super::{CHANNELS, DATA_BYTES, Plan, rig};
use polycast::config::{Cluster, Config, ListenAddress, Overrides};
use polycast::server::Server;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The argument with which this program runs as a node.
pub const FLAG: &str = "--node";

/// How long a node may take to join, and an event to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a node until its standard input ends; `words` has the URLs of the engine.
pub fn serve(words: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::demo();
    config.pusher.activity_timeout_s = 86_400;
    let (engine, replicas) = (words.to_vec(), words.len() as u16);
    config.cluster = Some(Box::new(Cluster { engine, replicas, ..Cluster::default() }));
    let overrides = Overrides {
        listen: vec![ListenAddress::Ip(SocketAddr::from(([127, 0, 0, 1], 0)))],
        threads: Some(1),
        ..Overrides::default()
    };
    let server = Server::start(config.with(overrides)?)?;
    println!("{}", server.addresses()[0]);
    let _ = io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0)
}

/// A running node; it ends when it is dropped.
pub struct Node {
    child: Child,
    address: SocketAddr,
}

impl Node {
    /// Starts a node, and waits until it has joined.
    pub fn start(engine: &Engine) -> io::Result<Node> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .args(engine.urls())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let failed = || io::Error::other("a node did not start");
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or_else(failed)?).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| failed())?;
        let node = Node { child, address };
        let begin = Instant::now();
        while !node.has_joined()? {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other("a node did not join"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(node)
    }

    fn has_joined(&self) -> io::Result<bool> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200"))
    }

    fn cpu(&self) -> io::Result<Duration> {
        cpu_of(self.child.id())
    }

    /// A WebSocket connection, and the greeting.
    fn connect(&self) -> io::Result<(Frames, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&rig::upgrade(rig::APP_PATH))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let mut frames = Frames { stream: BufReader::with_capacity(1 << 16, stream) };
        let hello = frames.next()?;
        Ok((frames, hello))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The messages of a server, which have no mask and are not fragmented.
struct Frames {
    stream: BufReader<TcpStream>,
}

impl Frames {
    fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let mut len = usize::from(head[1]);
        if len == 126 {
            let mut more = [0; 2];
            self.stream.read_exact(&mut more)?;
            len = usize::from(u16::from_be_bytes(more));
        }
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload)?;
        Ok(payload)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn own(&self) -> io::Result<Frames> {
        let stream = self.stream.get_ref().try_clone()?;
        Ok(Frames { stream: BufReader::with_capacity(1 << 16, stream) })
    }
}

/// The event's number, which begins its data.
fn number(message: &[u8]) -> io::Result<usize> {
    let text = String::from_utf8_lossy(message);
    let digits = text.split(r#""data":""#).nth(1).and_then(|data| data.get(..8));
    let number = digits.and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("not an event: {text}")))
}

/// Publishes at the rate of the plan, and measures.
pub fn run(plan: &Plan, nats: &Engine, [first, second]: [&Node; 2]) -> io::Result<Row> {
    let (mut subscriber, _) = second.connect()?;
    for channel in 0..CHANNELS {
        subscriber.send(&rig::subscribe(&format!("bench-{channel}")))?;
        subscriber.next()?;
    }
    let (mut publisher, hello) = first.connect()?;
    publisher.send(&rig::authenticate(&hello))?;
    publisher.next()?;
    let mut answers = publisher.own()?;
    let cpu = || Ok::<_, io::Error>([nats.cpu()?, first.cpu()?, second.cpu()?]);
    let before = cpu()?;
    let (begin, count) = (Instant::now() + Duration::from_millis(100), plan.count());
    let filler = "x".repeat(DATA_BYTES - 8);
    let (delivered, acknowledged) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            at_rate(plan, begin, |number| {
                let channel = format!("bench-{}", number % CHANNELS);
                publisher.send(&rig::publish_frame(&channel, &format!("{number:08}{filler}")))
            })
        });
        // Answers come in the order of the publishes of a channel only, so each counts for the
        // oldest publish without one.
        let answered = scope.spawn(|| {
            let mut latencies = Latencies::default();
            for number in 0..count {
                let answer = answers.next()?;
                if !answer.windows(9).any(|it| it == b"published") {
                    return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
                }
                latencies.push(due(plan, begin, number).elapsed());
            }
            Ok(latencies)
        });
        let mut latencies = Latencies::default();
        for _ in 0..count {
            let number = number(&subscriber.next()?)?;
            latencies.push(due(plan, begin, number).elapsed());
        }
        let ended = || io::Error::other("a thread ended");
        sender.join().map_err(|_| ended())??;
        Ok::<_, io::Error>((latencies, answered.join().map_err(|_| ended())??))
    })?;
    let after = cpu()?;
    let each = |at: usize| (after[at] - before[at]).as_secs_f64() * 1e6 / count as f64;
    let nodes = Some([each(1), each(2)]);
    Ok(Row { delivered, acknowledged, engine_us: each(0), nodes_us: nodes, name: "" })
}
