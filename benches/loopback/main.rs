//! Measures the server against its targets over loopback: `cargo bench --bench loopback -- [row
//! ...]`.
//!
//! The server is a child process on the first core, the load is this process on the last core. The
//! result is the server's CPU time for each operation, kernel included, which varies less than
//! throughput. Each row has a baseline in the same run: a server that makes only the necessary
//! system calls and knows its input. Rounds of the two alternate, and the median of the rounds'
//! ratios is the result; the spread of the ratios is printed after it.
//!
//! `--io both` compares the two drivers instead: polycast on epoll, with polycast on io_uring as
//! the baseline.
//!
//! `--quick` takes half a minute and is only a smoke test. Without `--bench`, which cargo passes,
//! nothing is measured. All connections are on 127.0.0.1, and the program ends by itself.

#[path = "../rig/mod.rs"]
mod rig;

mod bare;
mod blocks;
mod child;
mod drivers;
mod load;
mod publisher;
mod ring;
mod rows;
mod table;
mod tls;

use polycast::uring::sys;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The duration of the measurement and the cores that it uses.
pub struct Plan {
    pub rounds: usize,
    pub time: Duration,
    /// The number of idle connections.
    pub idle: usize,
    pub server: usize,
    pub load: usize,
}

/// The maximum duration of the program, after which it ends in any case.
const MAX_TIME: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == child::FLAG) {
        return match child::serve(&words[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.to_string()),
        };
    }
    let has = |flag: &str| words.iter().any(|word| word == flag);
    if !has("--bench") || has("--test") || has("--list") {
        println!("loopback: measures under `cargo bench` only");
        return ExitCode::SUCCESS;
    }
    let quick = has("--quick");
    let mut words = words.clone();
    let both = match words.iter().position(|word| word == "--io") {
        Some(at) if words.get(at + 1).is_some_and(|word| word == "both") => {
            words.drain(at..at + 2);
            true
        }
        Some(_) => return fail("the value of --io can only be `both`"),
        None => false,
    };
    let table = if both { drivers::ROWS } else { rows::ROWS };
    let wanted: Vec<&str> =
        words.iter().filter(|word| !word.starts_with("--")).map(String::as_str).collect();
    if let Some(unknown) = wanted.iter().find(|word| table.iter().all(|row| row.name != **word)) {
        let names: Vec<&str> = table.iter().map(|row| row.name).collect();
        return fail(&format!("there is no row `{unknown}`, but {}", names.join(", ")));
    }
    let (report, usable) = polycast::server::doctor(polycast::config::IoDriver::IoUring);
    if !usable {
        println!("loopback: SKIPPED, because io_uring cannot be used here\n{report}");
        return ExitCode::SUCCESS;
    }
    std::thread::spawn(|| {
        std::thread::sleep(MAX_TIME);
        eprintln!("loopback: given up after {MAX_TIME:?}");
        std::process::exit(1);
    });
    let (ours, base) = if both { ("epoll", "io_uring") } else { ("polycast", "baseline") };
    println!("{}", table::head(ours, base));
    measure(&plan(quick), table, &wanted)
}

fn plan(quick: bool) -> Plan {
    let cores = sys::cores();
    let (server, load) = (cores[0], cores[cores.len() - 1]);
    if server == load {
        println!("one core only: server and load share it, and the numbers say little");
    }
    if let Err(error) = sys::pin(load) {
        println!("the load cannot be pinned: {error}");
    }
    let time = Duration::from_millis(if quick { 150 } else { 400 });
    let (rounds, idle) = if quick { (3, 4000) } else { (21, 10_000) };
    Plan { rounds, time, idle, server, load }
}

fn measure(plan: &Plan, table: &[table::Row], wanted: &[&str]) -> ExitCode {
    let begun = Instant::now();
    let mut notes = Vec::new();
    let mut failed = false;
    for row in table {
        if !wanted.is_empty() && !wanted.contains(&row.name) {
            continue;
        }
        match (row.run)(plan) {
            Ok(outcome) => {
                println!("{}", outcome.line(row));
                notes.extend(outcome.notes.iter().map(|note| format!("{}: {note}", row.name)));
            }
            Err(error) => {
                failed = true;
                println!("{:<8} FAILED: {error}", row.name);
            }
        }
    }
    println!();
    notes.iter().for_each(|note| println!("{note}"));
    println!("{} rounds of {:?}, {:.0?} in all", plan.rounds, plan.time, begun.elapsed());
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("loopback: {why}");
    ExitCode::FAILURE
}
