//! One shard without a kernel: every send completes at once and in full, unless its peer stalls.

use crate::peer::{APP, ClientReader, Received};
use polycast::cluster::Arrival;
use polycast::config::{Config, FileFormat};
use polycast::dialect::{Env, StateProposal};
use polycast::hub::{Hasher, StateAuthor, Statement};
use polycast::mem::{Segment, Slot};
use polycast::runtime::ClusterPhase;
use polycast::session::Ending;
use polycast::shard::{Common, Shard};
use polycast::stats::Counters;
use polycast::time::Now;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The wall clock at the start of every test.
pub(crate) const UNIX_S: u64 = 1_760_000_000;
/// The interval of sweeps in milliseconds.
pub(crate) const SWEEP_MS: u64 = 250;

/// The smallest configuration; `more` is TOML that continues the application's table.
pub(crate) fn config(more: &str) -> Config {
    let (id, key, secret) = APP;
    let text = format!("[[apps]]\nid = '{id}'\nkey = '{key}'\nsecret = '{secret}'\n{more}");
    let config = Config::parse_with(&text, FileFormat::Toml, "test", &|_| None);
    let mut config = config.unwrap_or_else(|it| panic!("{it}"));
    // Allow echoes of any length.
    config.routes.iter_mut().for_each(|route| route.message_bytes = 0);
    config
}

/// What the shards of one process share.
pub(crate) fn common(config: Config, cores: u16, seed: u64, mail_bound: usize) -> Common {
    let env = Arc::new(Env::new(config, 7).unwrap());
    Common { env, hasher: Hasher::new(seed), cores, mail_bound }
}

/// A shard with its connections and a simulated clock.
pub(crate) struct Machine {
    pub(crate) shard: Shard,
    pub(crate) env: Arc<Env>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) now: Now,
    next_sweep_ms: u64,
    wires: Vec<Wire>,
}

/// One connection of the machine.
#[derive(Default)]
pub(crate) struct Wire {
    slot: Option<Slot>,
    pub(crate) reader: ClientReader,
    pub(crate) received: Vec<Received>,
    /// The bytes that the server sent, which are not parsed here.
    pub(crate) raw: Vec<u8>,
    secure: bool,
    /// Whether the peer does not read. Segments that are sent meanwhile are kept in `stalled`.
    pub(crate) stalls: bool,
    stalled: Vec<Segment>,
    /// Whether the peer has ended its side.
    eof: bool,
    /// Whether the server has ended its side.
    pub(crate) shut: bool,
    /// Whether the connection is closed.
    pub(crate) closed: bool,
}

impl Machine {
    pub(crate) fn new(config: Config) -> Machine {
        let mut common = common(config, 1, 1, 64);
        let counters = Arc::new(Counters::default());
        let env = Arc::get_mut(&mut common.env).expect("nobody else has it yet");
        env.runtime.counters.push(counters.clone());
        if env.config.cluster.is_some() {
            env.runtime.cluster.set(ClusterPhase::Joined);
        }
        let shard = Shard::new(0, &common, counters.clone());
        let now = Now { ms: 1_000_000, unix_s: UNIX_S };
        let env = common.env;
        Machine { shard, env, counters, now, next_sweep_ms: now.ms, wires: Vec::new() }
    }

    /// Opens a connection and returns its index.
    pub(crate) fn open(&mut self) -> usize {
        self.open_from(Ipv4Addr::LOCALHOST)
    }

    /// Opens a connection from another address.
    pub(crate) fn open_from(&mut self, peer: Ipv4Addr) -> usize {
        let at = self.wires.len();
        let peer = SocketAddr::from((peer, 40_000));
        let slot = self.shard.open(at as u32, peer, self.now);
        self.wires.push(Wire { slot: Some(slot), ..Wire::default() });
        if !self.shard.admit(slot, self.now) {
            self.close(at);
        }
        at
    }

    /// Opens a connection whose received bytes are not parsed, but kept.
    pub(crate) fn open_raw(&mut self) -> usize {
        let at = self.open();
        self.wires[at].secure = true;
        at
    }

    /// Opens a connection to the first listener, which has TLS.
    pub(crate) fn open_secure(&mut self) -> usize {
        let at = self.wires.len();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let slot = self.shard.open_at(at as u32, peer, 0, self.now);
        self.wires.push(Wire { slot: Some(slot), secure: true, ..Wire::default() });
        at
    }

    /// The address of the client of a connection; `None` if the connection is closed.
    pub(crate) fn client(&mut self, at: usize) -> Option<SocketAddr> {
        self.shard.peer(self.wires[at].slot?)
    }

    pub(crate) fn wire(&mut self, at: usize) -> &mut Wire {
        &mut self.wires[at]
    }

    /// The bytes that the server sent on a TLS connection.
    pub(crate) fn wires_raw(&self, at: usize) -> &[u8] {
        &self.wires[at].raw
    }

    pub(crate) fn receive(&mut self, at: usize, bytes: &[u8]) {
        if let Some(slot) = self.wires[at].slot {
            self.shard.receive(slot, &mut bytes.to_vec(), self.now);
            self.settle();
        }
    }

    pub(crate) fn eof(&mut self, at: usize) {
        self.last_messages(at, &[]);
    }

    /// Receives bytes and the end of the client's side in one turn.
    pub(crate) fn last_messages(&mut self, at: usize, bytes: &[u8]) {
        let wire = &mut self.wires[at];
        let first = !std::mem::replace(&mut wire.eof, true);
        if let (Some(slot), true) = (wire.slot, first) {
            self.shard.receive(slot, &mut bytes.to_vec(), self.now);
            self.shard.eof(slot, self.now);
            self.settle();
            self.finish(at);
        }
    }

    /// Advances the clock by `ms` milliseconds, in steps of the sweep interval.
    pub(crate) fn wait(&mut self, ms: u64) {
        let end = self.now.ms + ms;
        while self.now.ms < end {
            let step = SWEEP_MS.min(end - self.now.ms);
            self.now.ms += step;
            self.now.unix_s = UNIX_S + (self.now.ms - 1_000_000) / 1000;
            if self.now.ms >= self.next_sweep_ms {
                self.next_sweep_ms = self.now.ms + SWEEP_MS;
                self.shard.sweep(self.now);
                self.settle();
                self.shard.invariants();
            }
        }
    }

    /// Closes every connection and checks that no state is left.
    pub(crate) fn end(&mut self) {
        for at in 0..self.wires.len() {
            self.wires[at].stalled.clear();
            if let Some(slot) = self.wires[at].slot.take() {
                self.shard.close(slot);
            }
        }
        self.shard.run_closing_effects(self.now);
        self.shard.invariants();
        // Cache channels keep their last event for at most a day.
        self.now.ms += 86_400_000;
        self.shard.sweep(self.now);
        self.settle();
        self.store_states();
        // Pictures stay until others replace them.
        let left = self.shard.channel_count() - self.shard.picture_count();
        assert!(self.shard.is_empty() && left == 0, "something is left");
        let counters = &self.counters;
        assert_eq!((counters.connections.get(), counters.subscriptions.get()), (0, 0));
    }

    /// The log of the cluster takes what the shard states, until nothing is left to be stated.
    pub(crate) fn store_states(&mut self) {
        for _ in 0..3 {
            while let Some(StateProposal { app, name: channel, state }) =
                self.shard.next_state(self.now)
            {
                let author = StateAuthor { node: 1, is_ours: true };
                let arrival = match state {
                    Statement::Count(count) => Arrival::Count { app, channel, author, count },
                    Statement::Member { user, member } => {
                        let member = member.map(|member| Box::new((*member).clone()));
                        Arrival::Member { app, channel, author, user, member }
                    }
                    Statement::Picture(piece) => {
                        let piece = Box::new(piece);
                        Arrival::Picture { app, channel, piece, is_ours: true }
                    }
                    Statement::Miss { is_missed, after } => {
                        Arrival::Miss { app, channel, author, missed: (is_missed, after) }
                    }
                    Statement::Counting(..) => continue,
                };
                self.shard.arrive(arrival, self.now);
            }
            self.now.ms += 3000;
            self.shard.sweep(self.now);
        }
    }

    /// Runs turns until no work is left, and returns their number.
    pub(crate) fn settle(&mut self) -> usize {
        for turns in 1..100_000 {
            self.turn();
            if !self.shard.has_waiting_work() {
                return turns;
            }
        }
        panic!("it does not come to rest");
    }

    /// A peer that does not read takes this many bytes nevertheless.
    pub(crate) fn trickle(&mut self, at: usize, bytes: usize) {
        if let Some(slot) = self.wires[at].slot {
            self.shard.sent(slot, bytes, None, self.now);
            self.settle();
        }
    }

    /// Closes the connection in the middle of a turn.
    pub(crate) fn hang_up(&mut self, at: usize) {
        self.close(at);
    }

    /// Whether the shard wants to read from the peer; false while reading is paused.
    pub(crate) fn wants_read(&mut self, at: usize) -> bool {
        self.wires[at].slot.and_then(|slot| self.shard.wants(slot)).is_some_and(|it| it.read)
    }

    /// The number of bytes that the server holds for a connection.
    pub(crate) fn waiting_bytes(&mut self, at: usize) -> usize {
        self.wires[at].slot.map_or(0, |slot| self.shard.waiting_bytes(slot))
    }

    /// Receives bytes from a peer without ending the turn.
    pub(crate) fn receive_in_turn(&mut self, at: usize, bytes: &[u8]) {
        if let Some(slot) = self.wires[at].slot {
            self.shard.receive(slot, &mut bytes.to_vec(), self.now);
        }
    }

    /// Does the work of a reactor at the end of its turn.
    pub(crate) fn turn(&mut self) {
        self.shard.next_turn(self.now);
        while self.shard.next_channel_event(self.now).is_some() {}
        while let Some(slot) = self.shard.next_listed() {
            let at = slot.index as usize;
            let Some(wants) = self.shard.wants(slot) else { continue };
            if wants.ending == Ending::Cut {
                self.close(at);
                continue;
            }
            if !self.wires[at].stalled.is_empty() {
                continue;
            }
            if let Some(batch) = self.shard.take_batch(slot) {
                if self.wires[at].stalls {
                    self.wires[at].stalled = batch;
                    continue;
                }
                self.deliver(slot, batch);
            } else if wants.ending == Ending::Flush {
                self.wires[at].shut = true;
                self.finish(at);
            } else {
                let starved = self.shard.is_starved(slot);
                let waits =
                    wants.read || starved || self.wires[at].eof || self.shard.has_waiting_work();
                let waits = waits || self.shard.has_proposals();
                let waits = waits || self.env.apps.iter().any(|(_, app)| app.waiting() > 0);
                assert!(waits, "nothing waits and nothing is read");
            }
        }
    }

    fn deliver(&mut self, slot: Slot, mut batch: Vec<Segment>) {
        let bytes = batch.iter().flat_map(|segment| segment.to_vec()).collect::<Vec<u8>>();
        batch.clear();
        let wire = &mut self.wires[slot.index as usize];
        assert!(!wire.shut, "bytes after the end");
        match wire.secure {
            true => wire.raw.extend_from_slice(&bytes),
            false => wire.received.extend(wire.reader.hear(&bytes)),
        }
        self.shard.sent(slot, bytes.len(), Some(batch), self.now);
    }

    /// A stalled peer reads again, first the segments that were kept.
    pub(crate) fn read_again(&mut self, at: usize) {
        let wire = &mut self.wires[at];
        wire.stalls = false;
        let batch = std::mem::take(&mut wire.stalled);
        if let Some(slot) = wire.slot
            && !batch.is_empty()
        {
            self.deliver(slot, batch);
        }
        self.settle();
    }

    fn finish(&mut self, at: usize) {
        if self.wires[at].shut && self.wires[at].eof {
            self.close(at);
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(slot) = self.wires[at].slot.take() {
            self.shard.close(slot);
            self.shard.run_closing_effects(self.now);
            self.wires[at].stalled.clear();
            self.wires[at].closed = true;
        }
    }
}
