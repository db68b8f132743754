//! Whether a node that stands still or is slow makes the others slow.

use super::engine::EngineServer;
use super::lives::{alone, metric, processes};
use crate::live::child::Process;
use crate::net::*;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time between two events, and their number in each period.
const EVERY: Duration = Duration::from_millis(10);
const EVENTS: usize = 400;
/// The numbers of rounds: at least, and at most if another load has disturbed some.
const ROUNDS: (usize, usize) = (3, 9);
/// What the others' delays may grow by.
const MAX_RATIO: f64 = 1.5;
/// Shorter delays are taken for these, the median and the 99th percentile: the test shares a few
/// cores with others.
const FLOORS: [Duration; 2] = [Duration::from_millis(3), Duration::from_millis(8)];
/// Of 100 ms the slow node runs for 10 ms.
const SLOW_MS: [u64; 2] = [90, 10];
/// Makes an event as large as many are.
const PADDING: usize = 1000;

/// What the third node does in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Third {
    Runs,
    Stands,
    IsSlow,
}

/// A subscriber that notes how long each event took from the moment when it was due.
struct Hearer {
    delays: Arc<Mutex<Vec<Duration>>>,
    thread: JoinHandle<()>,
}

impl Hearer {
    /// Hears events until the last one. They must come once, all, and in order.
    fn start(address: SocketAddr, begun: Instant) -> Hearer {
        let delays = Arc::new(Mutex::new(Vec::new()));
        let noted = delays.clone();
        let mut client = Client::subscriber(address, "a");
        let thread = thread::spawn(move || {
            loop {
                let frame = client.frame();
                if frame.opcode == PING {
                    client.send_frame(PONG, &frame.payload);
                    continue;
                }
                assert_eq!(frame.opcode, TEXT, "{frame:?}");
                let text = String::from_utf8(frame.payload).unwrap();
                let data = text.strip_prefix(r#"{"event":"e","channel":"a","data":""#);
                let mut words = data.unwrap_or_else(|| panic!("{text}")).split('-');
                let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
                let (Some(n), Some(due_us)) = (number(), number()) else { return };
                let mut noted = noted.lock().unwrap();
                assert_eq!(n as usize, noted.len(), "one was missed, or came twice");
                noted.push(begun.elapsed().saturating_sub(Duration::from_micros(due_us)));
            }
        });
        Hearer { delays, thread }
    }

    fn heard(&self) -> usize {
        self.delays.lock().unwrap().len()
    }
}

/// Publishes events from number `from` on, each when it is due or as soon as the one before was
/// acknowledged.
fn publish_from(api: &mut Client, begun: Instant, from: usize) {
    let first = begun.elapsed();
    for n in 0..EVENTS {
        let due = first + EVERY * n as u32;
        thread::sleep(due.saturating_sub(begun.elapsed()));
        let padding = "x".repeat(PADDING);
        api.publish("a", &format!("{}-{}-{padding}", from + n, due.as_micros()));
    }
}

/// Lets the third node be slow until `is_over`.
fn slow_down(process: &Process, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        process.signal(libc::SIGSTOP);
        thread::sleep(Duration::from_millis(SLOW_MS[0]));
        process.signal(libc::SIGCONT);
        thread::sleep(Duration::from_millis(SLOW_MS[1]));
    }
}

/// Publishes for a period in which the third node does this.
fn period(third: &Process, mode: Third, publish: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        match mode {
            Third::Runs => {}
            Third::Stands => third.signal(libc::SIGSTOP),
            Third::IsSlow => drop(scope.spawn(|| slow_down(third, &is_over))),
        }
        publish();
        is_over.store(true, Ordering::Relaxed);
    });
    third.signal(libc::SIGCONT);
}

/// The median and the 99th percentile.
fn percentiles(mut delays: Vec<Duration>) -> [Duration; 2] {
    delays.sort();
    [50, 99].map(|percent| delays[(delays.len() * percent).div_ceil(100) - 1])
}

/// The median and the 99th percentile in each round.
#[derive(Default)]
struct Rounds(Vec<[Duration; 2]>);

impl Rounds {
    /// Those of the rounds at this place in their order.
    fn at_rank(&self, rank: usize) -> [Duration; 2] {
        [0, 1].map(|at| {
            let mut all: Vec<Duration> = self.0.iter().map(|round| round[at]).collect();
            all.sort();
            all[rank]
        })
    }

    /// How many times as long as `before` the best round took. Another load only makes rounds
    /// longer, and what the third node does is the same in each.
    fn ratios(&self, before: &Rounds) -> [f64; 2] {
        let (ours, theirs) = (self.at_rank(0), before.at_rank(0));
        [0, 1].map(|at| {
            let [ours, theirs] = [ours, theirs].map(|it| it[at].max(FLOORS[at]).as_secs_f64());
            ours / theirs
        })
    }
}

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (best, median) = (self.at_rank(0), self.at_rank((self.0.len() - 1) / 2));
        let count = self.0.len();
        write!(f, "p50, p99: {best:.1?} at best, {median:.1?} in the median of {count} rounds")
    }
}

/// Events that are published on one node are heard on another one as fast while the third one
/// stands still, until after the others have declared it dead, or is slow. The third one's
/// subscriber hears everything that it has missed.
#[test]
fn cluster_p9_stopped_or_slow_node_slows_nobody() {
    let Some(nats) = EngineServer::start("slow-node") else { return };
    if !has_uring() {
        return;
    }
    let _alone = alone();
    let more = "beat_ms = 500\ndead_ms = 2500\nrejoin_ms = 2500\n";
    let [first, second, third] = processes(&nats, "slow", more);
    let begun = Instant::now();
    let hearers = [&second, &third].map(|node| Hearer::start(node.address, begun));
    let mut api = Client::connect(first.address);
    let modes = [Third::Runs, Third::Stands, Third::IsSlow];
    let mut rounds = modes.map(|_| Rounds::default());
    let mut published = 0;
    let ratios = loop {
        for (mode, rounds) in modes.into_iter().zip(&mut rounds) {
            period(&third, mode, || publish_from(&mut api, begun, published));
            wait("the other node's subscriber has heard all", || {
                hearers[0].heard() == published + EVENTS
            });
            let delays = hearers[0].delays.lock().unwrap()[published..].to_vec();
            rounds.0.push(percentiles(delays));
            published += EVENTS;
            wait("the third one's subscriber has heard all", || hearers[1].heard() == published);
            wait("it is a node again", || metric(first.address, "nodes") == 3);
        }
        let ratios = [1, 2].map(|at| rounds[at].ratios(&rounds[0]));
        let holds = ratios.as_flattened().iter().all(|ratio| *ratio <= MAX_RATIO);
        let count = rounds[0].0.len();
        if count >= ROUNDS.1 || (count >= ROUNDS.0 && holds) {
            break ratios;
        }
    };
    for (mode, rounds) in modes.iter().zip(&rounds) {
        println!("the third node {mode:?}: {rounds}");
    }
    println!("{ratios:.2?} times as long while it stands still, and while it is slow");
    let is_within = |ratio: &f64| *ratio <= MAX_RATIO;
    assert!(ratios.as_flattened().iter().all(is_within), "{ratios:?}");
    let deaths = metric(first.address, "removed_nodes");
    assert!(deaths >= rounds[0].0.len() as u64, "each period was long enough: {deaths}");
    assert_eq!(metric(third.address, "gaps"), 0, "{}", third.logged());
    api.publish("a", "end");
    for hearer in hearers {
        hearer.thread.join().unwrap();
    }
}
