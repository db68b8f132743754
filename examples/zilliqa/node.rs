//! A simulated node: JSON-RPC over HTTP, with configurable faults.

use super::chain::{Chain, Shape};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The faults of a node.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The delay of every response.
    pub delay: Duration,
    /// The node answers with something other than JSON-RPC.
    pub nonsense: bool,
    /// The node closes every connection without a response.
    pub down: bool,
    /// The number of blocks by which the node is behind the chain.
    pub behind: u64,
}

/// A connection with or without TLS.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Makes the stream that requests are read from, of a TCP connection.
pub type Wrap = fn(TcpStream) -> io::Result<Box<dyn Stream>>;

/// A simulated node; see the module's documentation. Its threads end with the process.
pub struct Node {
    /// The address that the node listens at.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    chain: Chain,
    tip: Arc<AtomicU64>,
    faults: Mutex<Faults>,
    requests: AtomicU64,
}

impl Node {
    /// Listens at `address` for requests about `chain`; `tip` is the number of the newest block.
    pub fn start(address: &str, chain: Chain, tip: Arc<AtomicU64>, wrap: Wrap) -> io::Result<Node> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let (faults, requests) = (Mutex::default(), AtomicU64::new(0));
        let shared = Arc::new(Shared { chain, tip, faults, requests });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = theirs.clone();
                std::thread::spawn(move || {
                    // An error of one connection is ignored.
                    let _ = wrap(stream).and_then(|stream| serve(stream, &shared));
                });
            }
        });
        Ok(Node { address, shared })
    }

    /// Sets the faults from now on.
    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().expect("no panic") = faults;
    }

    /// The number of requests so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Acquire)
    }
}

/// Makes a stream without TLS.
pub fn plain(stream: TcpStream) -> io::Result<Box<dyn Stream>> {
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

fn serve(stream: Box<dyn Stream>, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            if line.trim_end().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let body = String::from_utf8(body).map_err(io::Error::other)?;
        let Some(answer) = shared.answer(&body) else { return Ok(()) };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        let stream = stream.get_mut();
        stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat())?;
        stream.flush()?;
    }
}

impl Shared {
    fn answer(&self, body: &str) -> Option<String> {
        self.requests.fetch_add(1, Ordering::AcqRel);
        let faults = self.faults.lock().ok()?.clone();
        std::thread::sleep(faults.delay);
        if faults.down {
            return None;
        }
        if faults.nonsense {
            return Some("<html><body>502 Bad Gateway</body></html>".to_owned());
        }
        let tip = self.tip.load(Ordering::Acquire).saturating_sub(faults.behind);
        Some(self.chain.answer(body, tip))
    }
}

/// Parses the name of a node's generation: `zq1` or `zq2`.
pub fn shape(name: &str) -> Option<Shape> {
    match name {
        "zq1" => Some(Shape::Zq1),
        "zq2" => Some(Shape::Zq2),
        _ => None,
    }
}
