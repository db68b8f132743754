//! Blocks without a network: a simulated node, a publisher of recorded blocks, and a client.
//!
//! ```text
//! cargo run --example zilliqa -- node
//! polycast --config examples/zilliqa/polycast.toml
//! cargo run --example zilliqa -- watch
//! ```

mod chain;
mod node;

use chain::{CONTRACT, Chain};
use clap::{Args, Parser, Subcommand};
use node::{Faults, Node};
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Outcome = Result<(), Box<dyn Error>>;

#[derive(Parser)]
#[command(about = "A simulated Zilliqa node, a publisher of recorded blocks, and a client")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a simulated node, whose chain grows.
    Node(NodeArguments),
    /// Writes blocks to standard output as JSON, one block a line.
    Record {
        /// The number of the first block.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// The number of blocks.
        #[arg(long, default_value_t = 20)]
        count: u64,
        /// The generation of the node: zq1 or zq2.
        #[arg(long, default_value = "zq2")]
        shape: String,
    },
    /// Posts recorded blocks to a server.
    Feed {
        /// The file that `record` has written: one block a line.
        file: std::path::PathBuf,
        /// The server's address and its `publish_path`.
        #[arg(long, default_value = "127.0.0.1:6001/epochs")]
        to: String,
        /// The server's `publish_token`.
        #[arg(long, default_value = "")]
        token: String,
        /// Time between two blocks, in milliseconds.
        #[arg(long, default_value_t = 1000)]
        every_ms: u64,
    },
    /// Subscribes to new blocks and events of the contract, and prints the received messages.
    Watch {
        /// The URL of the server.
        #[arg(default_value = "ws://127.0.0.1:6001/")]
        url: String,
    },
}

#[derive(Args)]
struct NodeArguments {
    /// The address to listen at. May be repeated, for several nodes with the same chain; only the
    /// first one has faults.
    #[arg(long, default_value = "127.0.0.1:4201")]
    listen: Vec<String>,
    /// The generation of the node, which determines its responses and errors: zq1 or zq2.
    #[arg(long, default_value = "zq2")]
    shape: String,
    /// The number of the newest block at the start.
    #[arg(long, default_value_t = 1)]
    tip: u64,
    /// Time between two blocks, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    block_ms: u64,
    /// Refuses GetTxnBodiesForTxBlock and GetTxnBodiesForTxBlockEx, which older nodes can disable.
    #[arg(long)]
    no_bodies: bool,
    /// Fault: the delay of every response, in milliseconds.
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Fault: responses that are not JSON-RPC.
    #[arg(long)]
    nonsense: bool,
    /// Fault: the node closes every connection without a response.
    #[arg(long)]
    down: bool,
    /// Fault: the number of blocks by which the node is behind the chain.
    #[arg(long, default_value_t = 0)]
    behind: u64,
    /// The period of the faults, in seconds since the start: FROM..TO. The default is always.
    #[arg(long)]
    during: Option<String>,
}

fn main() -> Outcome {
    match Arguments::parse().command {
        Command::Node(arguments) => serve(&arguments),
        Command::Record { from, count, shape } => {
            let chain = Chain::new(node::shape(&shape).ok_or("--shape: expected zq1 or zq2")?);
            let mut out = std::io::stdout().lock();
            for number in from..from.saturating_add(count) {
                writeln!(out, "{}", chain.document(number))?;
            }
            Ok(())
        }
        Command::Feed { file, to, token, every_ms } => feed(&file, &to, &token, every_ms),
        Command::Watch { url } => watch(&url),
    }
}

fn serve(arguments: &NodeArguments) -> Outcome {
    let shape = node::shape(&arguments.shape).ok_or("--shape: expected zq1 or zq2")?;
    let chain = Chain { bodies: !arguments.no_bodies, ..Chain::new(shape) };
    let tip = Arc::new(AtomicU64::new(arguments.tip));
    let mut nodes = Vec::new();
    for address in &arguments.listen {
        let node = Node::start(address, chain, tip.clone(), node::plain)?;
        println!("a node of generation {} listens on http://{}", arguments.shape, node.address);
        nodes.push(node);
    }
    println!("the contract 0x{CONTRACT} emits events");
    let during = match &arguments.during {
        None => 0..u64::MAX,
        Some(text) => {
            let (from, to) = text.split_once("..").ok_or("--during: expected FROM..TO")?;
            from.parse()?..to.parse()?
        }
    };
    let faults = Faults {
        delay: Duration::from_millis(arguments.delay),
        nonsense: arguments.nonsense,
        down: arguments.down,
        behind: arguments.behind,
    };
    let start = Instant::now();
    loop {
        let faulty = during.contains(&start.elapsed().as_secs());
        nodes[0].set(if faulty { faults.clone() } else { Faults::default() });
        std::thread::sleep(Duration::from_millis(arguments.block_ms));
        let number = tip.fetch_add(1, Ordering::AcqRel) + 1;
        let requests: u64 = nodes.iter().map(Node::requests).sum();
        let count = (chain.count)(number);
        println!("block {number}: {count} transactions; {requests} requests so far");
    }
}

fn feed(file: &std::path::Path, to: &str, token: &str, every_ms: u64) -> Outcome {
    let to = to.trim_start_matches("http://");
    let (host, path) = to.split_at(to.find('/').unwrap_or(to.len()));
    let path = if path.is_empty() { "/" } else { path };
    let mut refused = 0;
    for line in BufReader::new(std::fs::File::open(file)?).lines() {
        let line = line?;
        if line.is_empty() {
            continue;
        }
        let mut stream = TcpStream::connect(host)?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Authorization: Bearer {token}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{line}",
            line.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.lines().next().unwrap_or("no response");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
        println!("{status} {body}");
        refused += u64::from(!status.contains(" 200 "));
        std::thread::sleep(Duration::from_millis(every_ms));
    }
    match refused {
        0 => Ok(()),
        some => Err(format!("{some} blocks were not accepted").into()),
    }
}

fn watch(url: &str) -> Outcome {
    let (mut socket, _) = tungstenite::connect(url)?;
    let logs = format!(r#"{{"query":"EventLog","addresses":["0x{CONTRACT}"]}}"#);
    socket.send(r#"{"query":"NewBlock"}"#.into())?;
    socket.send(logs.into())?;
    loop {
        if let tungstenite::Message::Text(text) = socket.read()? {
            println!("{text}");
        }
    }
}
