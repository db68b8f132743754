//! Measures several nodes on one engine:
//! `cargo bench --bench cluster -- [--redis] [--replicas 3] [publishes a second ...]`.
//!
//! Two nodes of polycast and a NATS server with JetStream, or with `--redis` one of Redis or
//! Valkey, are child processes; with `--replicas` there are three servers of NATS, each of which
//! stores every entry. A publisher on the first node sends at a fixed rate, whether or not answers
//! come; a subscriber of the second node notes when each event arrives. A latency counts from the
//! moment at which an event was due to be sent, so a stall counts for every event that it has
//! delayed. The baseline in the same run is the engine with a bare client: a connection that
//! appends the same bytes to a stream at the same rate, and a consumer of that stream.
//!
//! `NATS_SERVER` or `REDIS_SERVER` names the server's program; without it `nats-server` or
//! `redis-server` is searched in `PATH`. The CPU time of each process is given for each publish,
//! that of the engine for all its servers together. All processes share the cores, and all
//! connections are on 127.0.0.1. The program ends by itself.

#[path = "../rig/mod.rs"]
mod rig;

mod bare_nats;
mod bare_redis;
mod clock;
mod engine;
mod node;
mod table;

use engine::{Engine, Product};
use node::Node;
use std::process::ExitCode;
use std::time::Duration;
use table::Row;

/// The publishes a second of the rows.
const RATES: [u32; 4] = [100, 1000, 5000, 10_000];
/// The numbers of servers with which the engine may run, each with a replica of every stream.
const REPLICAS: [usize; 2] = [1, 3];
/// The number of channels that are published on in turn.
pub const CHANNELS: usize = 100;
/// The bytes of each event's data.
pub const DATA_BYTES: usize = 300;
/// The bytes of an entry besides the data of its event: the frame and the names.
pub const ENTRY_BYTES: usize = 100;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The publishes a second.
    pub rate: u32,
    /// How long the rate is kept up.
    pub time: Duration,
}

impl Plan {
    /// The number of all publishes.
    pub fn count(&self) -> usize {
        (f64::from(self.rate) * self.time.as_secs_f64()) as usize
    }
}

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == node::FLAG) {
        return match node::serve(&words[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
    }
    let has = |flag: &str| words.iter().any(|word| word == flag);
    if !has("--bench") || has("--test") || has("--list") {
        println!("cluster: measures under `cargo bench` only");
        return ExitCode::SUCCESS;
    }
    let is_quick = has("--quick");
    let product = if has("--redis") { Product::Redis } else { Product::Nats };
    let Some(program) = product.program() else {
        let [variable, name] = product.names();
        println!("cluster: skipped; {variable} is not set and `{name}` is not in PATH");
        return ExitCode::SUCCESS;
    };
    let mut replicas = Some(1);
    if let Some(at) = words.iter().position(|word| word == "--replicas") {
        replicas = words.drain(at..words.len().min(at + 2)).nth(1).and_then(|it| it.parse().ok());
    }
    let Some(replicas) = replicas.filter(|it| REPLICAS.contains(it)) else {
        return fail(&"the value of --replicas is 1 or 3");
    };
    if product == Product::Redis && replicas > 1 {
        return fail(&"--replicas is of NATS, --redis has one server");
    }
    let numbers = words.iter().filter(|word| !word.starts_with("--"));
    let rates: Result<Vec<u32>, _> = numbers.map(|word| word.parse::<u32>()).collect();
    let rates = match rates {
        Ok(rates) if rates.is_empty() => RATES.to_vec(),
        Ok(rates) if rates.iter().all(|rate| (1..=1_000_000).contains(rate)) => rates,
        _ => return fail(&"the arguments are publishes a second, from 1 to 1000000"),
    };
    let (seconds, rounds) = if is_quick { (1, 1) } else { (5, 3) };
    let engine = Engine::start(product, &program, replicas);
    let engine = match engine {
        Ok(engine) => engine,
        Err(error) => return fail(&error),
    };
    match measure(&engine, &rates, Duration::from_secs(seconds), rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("cluster: {error}");
    ExitCode::FAILURE
}

fn measure(
    engine: &Engine,
    rates: &[u32],
    time: Duration,
    rounds: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let (first, second) = (Node::start(engine)?, Node::start(engine)?);
    println!("{CHANNELS} channels, {DATA_BYTES} bytes of data, {rounds} rounds of {time:?}");
    println!("{:?}, servers: {}", engine.product(), engine.count());
    table::head();
    for rate in rates {
        let plan = Plan { rate: *rate, time };
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(node::run(&plan, engine, [&first, &second])?);
            bare.push(match engine.product() {
                Product::Nats => bare_nats::run(&plan, engine)?,
                Product::Redis => bare_redis::run(&plan, engine)?,
            });
        }
        table::print(*rate, &Row::middle("polycast", ours));
        table::print(*rate, &Row::middle("bare client", bare));
    }
    Ok(())
}
