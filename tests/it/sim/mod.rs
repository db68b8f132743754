//! A simulation of a whole process in one thread: several shards, the mail between them, their
//! clients and a clock, all driven by one seed.
//!
//! The simulator takes the place of the kernel. It cuts sent and received bytes anywhere, stalls
//! and resets connections, and delays mail between cores, but keeps its order within a mailbox.
//! [`client`] chooses what a client does and checks what the client receives. This file moves bytes
//! and mail, and checks the state at the end.
//!
//! A failure prints its seed: `SIM_SEED=n cargo test --test it sim` repeats that run. For a long
//! run: `SIM_SEEDS=100000 cargo test --release --test it sim`. `SIM_FROM` is the first seed, so
//! that several processes can share the seeds, and `SIM_STEPS` the number of steps of each.

mod client;
mod history;
mod hostile;
mod links;
mod nodes;
mod positions;

use crate::cores::Cores;
use crate::machine::{SWEEP_MS, UNIX_S, config};
use client::{Client, Life};
use fastrand::Rng;
use history::History;
use links::View;
use polycast::config::SlowConsumer;
use polycast::mem::{FreeList, Segment, Slot};
use polycast::session::Ending;
use polycast::time::Now;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::RefUnwindSafe;

/// The number of seeds of a normal run, and the number of steps for each seed.
const SEEDS: u64 = 200;
const STEPS: u64 = 400;
/// The maximum number of concurrent clients.
const CLIENTS: usize = 14;
/// The maximum number of turns until all work is done once nothing is disturbed.
const REST_TURNS: usize = 20_000;
/// The time in milliseconds after which no client is left that has ended its side.
const REST_MS: u64 = 100_000;

#[test]
fn simulation_delivers_every_event_exactly_once() {
    let mut totals = Totals::default();
    let is_one = run_seeds(|seed, steps| World::new(seed).run(steps), |run| totals.add(&run));
    println!("{totals:?}");
    // In a single run it may happen that no client subscribes before an event is published.
    if !is_one {
        assert!(totals.received.iter().all(|it| *it > 0), "a view has no event: {totals:?}");
        // All views but the last, a plain WebSocket, have positions.
        let recovered = &totals.recovered[..View::KINDS - 1];
        assert!(recovered.iter().all(|it| *it > 0), "a view has recovered nothing: {totals:?}");
        assert!(totals.skipped > 0, "no event was too long for a view");
        assert!(totals.recovered_of_view > 0, "no missed event was published through a view");
        assert!(totals.refused > 0, "no publish through a view was refused");
    }
}

/// Runs the seeds that the environment asks for, and lets `note` take what has happened in each. A
/// seed that fails is named. Returns whether it was a single one.
fn run_seeds<R>(run: impl Fn(u64, u64) -> R + RefUnwindSafe, mut note: impl FnMut(R)) -> bool {
    let steps = number("SIM_STEPS").unwrap_or(STEPS);
    let one = number("SIM_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("SIM_FROM").unwrap_or(0);
            first..first + number("SIM_SEEDS").unwrap_or(SEEDS)
        }
    };
    for seed in seeds {
        match std::panic::catch_unwind(|| run(seed, steps)) {
            Ok(outcome) => note(outcome),
            Err(_) => panic!("SIM_SEED={seed} SIM_STEPS={steps} fails, see above"),
        }
    }
    one.is_some()
}

/// The number in a variable of the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What has happened in all runs.
#[derive(Debug, Default)]
struct Totals {
    /// The numbers of received events, by the kind of the subscriber's view.
    received: [u64; View::KINDS],
    /// The numbers of positions that were recovered with missed events, by the kind of the view,
    /// and of those whose first missed event was published through a view.
    recovered: [u64; View::KINDS],
    recovered_of_view: u64,
    /// The number of events with a position that a view did not get because they are too long.
    skipped: u64,
    /// The number of messages that were refused because their view may not publish.
    refused: u64,
}

impl Totals {
    fn add(&mut self, run: &Totals) {
        self.received.iter_mut().zip(run.received).for_each(|(sum, count)| *sum += count);
        self.recovered.iter_mut().zip(run.recovered).for_each(|(sum, count)| *sum += count);
        self.skipped += run.skipped;
        self.recovered_of_view += run.recovered_of_view;
        self.refused += run.refused;
    }
}

/// One simulated process.
struct World {
    rng: Rng,
    now: Now,
    next_sweep_ms: u64,
    cores: Cores,
    /// The free indexes and the connections of each core.
    free: Vec<FreeList>,
    wires: Vec<Vec<Wire>>,
    clients: Vec<Client>,
    history: History,
    /// Whether the simulator stalls, cuts and delays.
    rough: bool,
    opened: u64,
}

/// One connection on its core.
#[derive(Default)]
struct Wire {
    slot: Option<Slot>,
    client: usize,
    batch: Option<Batch>,
    /// The bytes from the client that are not yet received.
    input: VecDeque<u8>,
    /// Whether the client has ended its side after the input, and whether the shard was notified.
    eof: bool,
    eof_told: bool,
    /// Whether the server has ended its side.
    shut: bool,
    reset: bool,
    /// The number of connections that had timed out when this one was opened.
    timed_out: u64,
}

/// A batch of segments in the simulated kernel, some of whose bytes have been sent.
struct Batch {
    segments: Vec<Segment>,
    bytes: VecDeque<u8>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::with_seed(seed);
        let cores = rng.u16(1..=4);
        let drops = rng.u32(0..4) == 0;
        // The write queue is small, so that slow consumers occur within one run. The limit of
        // control frames is high, because virtual seconds are long and clients often send pings.
        let mut config = config(
            &("[apps.limits]\nsubscriptions_per_connection = 3\n\
             [limits]\nwrite_queue_bytes = 65536\ncontrol_frames_per_s = 60000\n\
             [timeouts]\nsend_ms = 20000\nmessage_ms = 3600000\n\
             [[apps.history]]\nchannels = ['one', 'four']\nevents = 30\nbytes = 20000\n\
             ttl_s = 20\n"
                .to_owned()
                + links::LINKS),
        );
        if drops {
            config.slow_consumer = SlowConsumer::Drop;
        }
        let capacity = rng.usize(1..40);
        let (seed, mail_bound) = (rng.u64(..), rng.usize(1..20));
        World {
            cores: Cores::new(config, cores, seed, mail_bound, capacity),
            free: (0..cores).map(|_| FreeList::new(CLIENTS as u32)).collect(),
            wires: (0..cores).map(|_| (0..CLIENTS).map(|_| Wire::default()).collect()).collect(),
            now: Now { ms: 5000, unix_s: UNIX_S },
            next_sweep_ms: 5000,
            clients: Vec::new(),
            history: History::new(drops),
            rough: true,
            opened: 0,
            rng,
        }
    }

    /// Runs the simulation.
    fn run(mut self, steps: u64) -> Totals {
        for _ in 0..steps {
            self.step();
        }
        self.rest();
        for client in &self.clients {
            self.history.check(client);
        }
        self.history.check_order();
        let skipped = self.history.check_skipped();
        self.end();
        let History { received, recovered_of_view, refused, log, .. } = self.history;
        let recovered = log.recovered;
        Totals { received, recovered, recovered_of_view, skipped, refused }
    }

    fn step(&mut self) {
        let at = self.rng.usize(0..CLIENTS);
        match self.rng.u32(0..100) {
            0..50 if at < self.clients.len() => self.act(at),
            0..50 => self.open(),
            50..90 => {}
            _ => {
                let ms = match self.rng.u32(0..30) {
                    0 => 30_000,
                    1..5 => 1000,
                    _ => 20,
                };
                self.pass(ms);
            }
        }
        self.turn();
    }

    /// Runs one turn of one or more cores, each with a random part of its mail and bytes.
    fn turn(&mut self) {
        for at in 0..self.cores.len() {
            if self.rough && self.rng.bool() {
                continue;
            }
            self.receive(at);
            self.send(at);
            self.take_mail(at);
            if self.now.ms >= self.next_sweep_ms {
                self.cores[at].shard.sweep(self.now);
                self.history.log.check_bounds(&self.cores[at].counters);
            }
            self.hand_over_mail(at);
            self.flush(at);
        }
        if self.now.ms >= self.next_sweep_ms {
            self.next_sweep_ms = self.now.ms + SWEEP_MS;
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.unix_s = UNIX_S + self.now.ms / 1000;
    }

    // --- clients ---

    fn open(&mut self) {
        // A new client takes the place of a closed one.
        let core = self.rng.usize(0..self.cores.len());
        let Some(index) = self.free[core].take() else { return };
        let client = Client::new(self.opened, &mut self.rng, &mut self.history);
        self.opened += 1;
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let slot = self.cores[core].shard.open(index, peer, self.now);
        let number = self.clients.len();
        let timed_out = self.cores[core].counters.timed_out.get();
        self.wires[core][index as usize] =
            Wire { slot: Some(slot), client: number, timed_out, ..Wire::default() };
        self.clients.push(client);
        self.clients[number].place = (core, index as usize);
        let replies = self.clients[number].begins(&mut self.rng);
        self.say(number, &replies);
    }

    fn act(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.life != Life::Open {
            if client.life == Life::Closed {
                self.history.check(client);
                self.replace(number);
            }
            return;
        }
        let replies = client.acts(&mut self.rng, &mut self.history, self.now.unix_s);
        self.say(number, &replies);
        let (core, index) = self.clients[number].place;
        let wire = &mut self.wires[core][index];
        if self.clients[number].life == Life::Ended {
            wire.eof = true;
        } else if self.clients[number].life == Life::Reset {
            wire.reset = true;
        }
    }

    /// Removes a closed client from the list.
    fn replace(&mut self, number: usize) {
        self.history.log.forget_client(self.clients[number].positions.take());
        let last = self.clients.len() - 1;
        self.clients.swap_remove(number);
        if number != last {
            let (core, index) = self.clients[number].place;
            let wire = &mut self.wires[core][index];
            if wire.slot.is_some() && wire.client == last {
                wire.client = number;
            }
        }
    }

    fn say(&mut self, number: usize, bytes: &[u8]) {
        let (core, index) = self.clients[number].place;
        let wire = &mut self.wires[core][index];
        if wire.slot.is_some() && !wire.eof && !wire.reset {
            wire.input.extend(bytes);
        }
    }

    // --- bytes ---

    fn receive(&mut self, at: usize) {
        for index in 0..self.wires[at].len() {
            let core = &mut self.cores[at];
            let wire = &mut self.wires[at][index];
            let Some(slot) = wire.slot else { continue };
            let Some(wants) = core.shard.wants(slot) else { continue };
            if wire.reset {
                core.shard.lost(slot);
                continue;
            }
            if !wants.read || self.rough && self.rng.u32(0..4) == 0 {
                continue;
            }
            let max = wire.input.len().min(if self.rough { self.rng.usize(1..4096) } else { 4096 });
            if max > 0 {
                let mut piece: Vec<u8> = wire.input.drain(..max).collect();
                core.shard.receive(slot, &mut piece, self.now);
            } else if wire.eof && !wire.eof_told {
                wire.eof_told = true;
                core.shard.eof(slot, self.now);
            }
        }
    }

    /// Sends bytes of the batches.
    fn send(&mut self, at: usize) {
        for index in 0..self.wires[at].len() {
            let core = &mut self.cores[at];
            let wire = &mut self.wires[at][index];
            let (Some(slot), Some(batch)) = (wire.slot, &mut wire.batch) else { continue };
            let client = &mut self.clients[wire.client];
            if self.rough && (client.stalls(&mut self.rng) || self.rng.u32(0..3) == 0) {
                continue;
            }
            if wire.reset {
                continue;
            }
            let all = batch.bytes.len();
            let n = if self.rough && self.rng.bool() { self.rng.usize(1..=all) } else { all };
            let bytes: Vec<u8> = batch.bytes.drain(..n).collect();
            let whole = if batch.bytes.is_empty() {
                let mut segments = std::mem::take(&mut batch.segments);
                segments.clear();
                wire.batch = None;
                Some(segments)
            } else {
                None
            };
            core.shard.sent(slot, n, whole, self.now);
            let reply = client.receive(&bytes, &mut self.history);
            let number = wire.client;
            self.say(number, &reply);
        }
    }

    /// Does the work of a reactor for each connection at the end of its turn.
    fn flush(&mut self, at: usize) {
        while let Some(slot) = self.cores[at].shard.next_listed() {
            self.settle(at, slot);
        }
        for index in 0..self.wires[at].len() {
            if let Some(slot) = self.wires[at][index].slot {
                self.settle(at, slot);
            }
        }
    }

    fn settle(&mut self, at: usize, slot: Slot) {
        let core = &mut self.cores[at];
        let Some(wants) = core.shard.wants(slot) else { return };
        let wire = &mut self.wires[at][slot.index as usize];
        if wants.ending == Ending::Cut {
            return self.close(at, slot);
        }
        if wire.batch.is_none()
            && let Some(segments) = core.shard.take_batch(slot)
        {
            assert!(!wire.shut, "bytes behind the end");
            let bytes: VecDeque<u8> = segments.iter().flat_map(|it| it.to_vec()).collect();
            assert!(!bytes.is_empty(), "a batch has bytes");
            wire.batch = Some(Batch { segments, bytes });
        }
        if wants.ending == Ending::Flush && wire.batch.is_none() {
            if !std::mem::replace(&mut wire.shut, true) {
                let excused = core.counters.timed_out.get() != wire.timed_out;
                self.clients[wire.client].on_end_of_stream(excused);
                // A client that reads the end ends its side, too.
                wire.eof = true;
            }
            if wire.eof_told {
                self.close(at, slot);
            }
        }
    }

    fn close(&mut self, at: usize, slot: Slot) {
        let core = &mut self.cores[at];
        core.shard.close(slot);
        self.free[at].give(slot.index);
        let wire = std::mem::take(&mut self.wires[at][slot.index as usize]);
        self.clients[wire.client].life = Life::Closed;
    }

    // --- mail ---

    fn take_mail(&mut self, at: usize) {
        let cores = self.cores.len();
        for from in 0..cores {
            for _ in 0..self.luck() {
                if !self.cores[at].receive_answer(from, self.now) {
                    break;
                }
            }
            for _ in 0..self.luck() {
                let core = &mut self.cores[at];
                if !core.shard.takes_requests() || !core.receive_request(from, self.now) {
                    break;
                }
            }
        }
    }

    /// The number of messages of a mailbox that arrive in this turn.
    fn luck(&mut self) -> usize {
        match self.rough {
            true if self.rng.bool() => 0,
            true => self.rng.usize(0..8),
            false => usize::MAX,
        }
    }

    fn hand_over_mail(&mut self, at: usize) {
        self.cores.send_mail(at);
        self.cores[at].shard.next_turn(self.now);
    }

    // --- the end ---

    /// Delivers all bytes and mail on their way, without disturbance and without advancing the
    /// clock.
    fn rest(&mut self) {
        self.rough = false;
        for _ in 0..REST_TURNS {
            if self.is_quiet() {
                return self.clients.iter().for_each(Client::assert_idle);
            }
            self.turn();
        }
        panic!("no rest: {}", self.busy());
    }

    /// A description of the work that is left.
    fn busy(&mut self) -> String {
        let mut out = String::new();
        let cores = self.cores.len();
        for (at, core) in self.cores.iter_mut().enumerate() {
            out += &format!("\ncore {at}: takes requests {}", core.shard.takes_requests());
            for from in 0..cores {
                let (up, down) = core.coming_from(from);
                out += &format!(", {up} up and {down} down from {from}");
            }
            for wire in &self.wires[at] {
                let Some(slot) = wire.slot else { continue };
                let (input, eof, batch) = (wire.input.len(), wire.eof, wire.batch.is_some());
                let wants = core.shard.wants(slot);
                out += &format!("\n  {slot:?} {input} bytes, eof {eof}, batch {batch}, {wants:?}");
            }
        }
        out
    }

    fn is_quiet(&mut self) -> bool {
        let busy = |wire: &Wire| {
            wire.batch.is_some()
                || !wire.input.is_empty()
                || wire.reset
                || wire.eof && !wire.eof_told
        };
        let is_idle = !self.wires.iter().flatten().any(|wire| wire.slot.is_some() && busy(wire));
        let mut cores = self.cores.iter_mut();
        is_idle && cores.all(|core| core.has_no_mail() && core.shard.mail().is_empty())
    }

    /// Ends all clients and checks that no state is left.
    fn end(&mut self) {
        for number in 0..self.clients.len() {
            let (core, index) = self.clients[number].place;
            if self.clients[number].life != Life::Closed {
                self.wires[core][index].eof = true;
            }
        }
        let end = self.now.ms + REST_MS;
        while self.now.ms < end {
            self.pass(SWEEP_MS * 10);
            self.turn();
        }
        for (at, core) in self.cores.iter_mut().enumerate() {
            assert!(core.shard.is_empty(), "core {at} has {} sessions", core.shard.len());
            assert_eq!(core.shard.channel_count(), 0, "channels of core {at}");
            assert_eq!(core.counters.connections.get(), 0, "connections of core {at}");
            assert_eq!(core.counters.subscriptions.get(), 0, "subscriptions of core {at}");
            assert!(core.shard.mail().is_empty(), "core {at} has mail");
            assert!(!core.shard.has_listed(), "core {at} has work");
            assert!(core.has_no_mail(), "mail to core {at}");
        }
    }
}
