//! Redis or Valkey with a bare client: what an append and a delivery cost without polycast.

use super::clock::due;
use super::engine::Engine;
use super::table::{Latencies, Row};
use super::{DATA_BYTES, ENTRY_BYTES, Plan};
use redis::Connection;
use std::io;
use std::time::{Duration, Instant};

/// The maximum number of entries that are sent together.
const BATCH: usize = 1024;
/// How long a read waits for an entry, in milliseconds.
const BLOCK_MS: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(20);

type Failure = Box<dyn std::error::Error + Send + Sync>;
/// The entries that a read returns: of each stream, each with its id and its fields.
type Entries = Option<Vec<(String, Vec<(String, Vec<String>)>)>>;

/// Appends at the rate of the plan, and measures.
pub fn run(plan: &Plan, engine: &Engine) -> io::Result<Row> {
    measure(plan, engine).map_err(io::Error::other)
}

fn measure(plan: &Plan, engine: &Engine) -> Result<Row, Failure> {
    let [url] = &engine.urls()[..] else { return Err("one server is needed".into()) };
    let client = redis::Client::open(&**url)?;
    let (mut sender, receiver) = (client.get_connection()?, client.get_connection()?);
    sender.set_read_timeout(Some(PATIENCE))?;
    redis::cmd("DEL").arg("bare").exec(&mut sender)?;
    let before = engine.cpu()?;
    let begin = Instant::now() + Duration::from_millis(100);
    let (acknowledged, delivered) = std::thread::scope(|scope| {
        let delivered = scope.spawn(|| deliveries(plan, begin, receiver));
        let acknowledged = append(plan, begin, &mut sender);
        (acknowledged, delivered.join())
    });
    let delivered = delivered.map_err(|_| "the reader has panicked")??;
    let engine_us = (engine.cpu()? - before).as_secs_f64() * 1e6 / plan.count() as f64;
    redis::cmd("DEL").arg("bare").exec(&mut sender)?;
    Ok(Row { delivered, acknowledged: acknowledged?, engine_us, nodes_us: None, name: "" })
}

/// Sends the entries that are due together, and waits for the answers.
fn append(plan: &Plan, begin: Instant, sender: &mut Connection) -> Result<Latencies, Failure> {
    let filler = "x".repeat(DATA_BYTES + ENTRY_BYTES - 8);
    let (mut latencies, mut next) = (Latencies::default(), 0);
    while next < plan.count() {
        if let Some(wait) = due(plan, begin, next).checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let (first, now, mut batch) = (next, Instant::now(), redis::pipe());
        while next < plan.count() && next - first < BATCH && due(plan, begin, next) <= now {
            batch.cmd("XADD").arg("bare").arg("*").arg("e").arg(format!("{next:08}{filler}"));
            next += 1;
        }
        batch.exec(sender)?;
        (first..next).for_each(|number| latencies.push(due(plan, begin, number).elapsed()));
    }
    Ok(latencies)
}

fn deliveries(plan: &Plan, begin: Instant, mut receiver: Connection) -> Result<Latencies, Failure> {
    receiver.set_read_timeout(Some(PATIENCE))?;
    let (mut latencies, mut count, mut last) = (Latencies::default(), 0, "0-0".to_owned());
    while count < plan.count() {
        if begin.elapsed() > plan.time + PATIENCE {
            return Err("entries are missing".into());
        }
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(BATCH).arg("BLOCK").arg(BLOCK_MS).arg("STREAMS").arg("bare");
        let entries: Entries = read.arg(&last).query(&mut receiver)?;
        for (id, fields) in entries.into_iter().flatten().flat_map(|(_, entries)| entries) {
            let number = fields.get(1).and_then(|body| body.get(..8)?.parse().ok());
            latencies.push(due(plan, begin, number.ok_or("not an entry")?).elapsed());
            (count, last) = (count + 1, id);
        }
    }
    Ok(latencies)
}
