//! A test bench of one shard with proxied connections and no kernel. A test controls when each peer
//! reads, stalls and ends its connection.

use crate::machine::{SWEEP_MS, common, config};
use crate::peer::{Received, handshake};
use polycast::crypto::websocket_accept;
use polycast::mem::Slot;
use polycast::session::Ending;
use polycast::shard::Shard;
use polycast::stats::Counters;
use polycast::time::Now;
use polycast::ws::{FrameEvent, FrameLimits, MessageKind, Opcode, Reader, Role, frame};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The maximum number of bytes that are buffered for one peer.
pub(crate) const BUFFER: usize = 4096;

/// A shard with its connections. The bytes sent to a stalled connection stay in the simulated
/// kernel.
pub(crate) struct Bench {
    pub(crate) shard: Shard,
    pub(crate) counters: Arc<Counters>,
    pub(crate) now: Now,
    pub(crate) wires: Vec<Wire>,
}

#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) slot: Option<Slot>,
    /// The address that the server dialled; `None` for a client's connection.
    pub(crate) dialled: Option<SocketAddr>,
    /// Whether the connect has completed, and whether the WebSocket is open. Both are for the test
    /// that drives the bench.
    pub(crate) made: bool,
    pub(crate) opened: bool,
    pub(crate) stalled: bool,
    /// The length in bytes of a batch whose send is not complete.
    pub(crate) kept: Option<usize>,
    pub(crate) sent: Vec<u8>,
    /// The number of bytes of `sent` that the test has read.
    pub(crate) seen: usize,
    pub(crate) reads: bool,
    /// Whether the peer has ended its side.
    pub(crate) eof: bool,
    /// Whether the server has ended its side.
    pub(crate) shut: bool,
}

impl Bench {
    /// A proxy for these upstreams; `more` is further keys of the route.
    pub(crate) fn new(upstreams: &str, more: &str) -> Bench {
        let counters = Arc::new(Counters::default());
        let text = format!(
            "[[routes]]\nendpoint = 'proxy'\n{more}\n[routes.proxy]\nupstreams = {upstreams}\n\
             buffer_bytes = {BUFFER}\nbalance = 'first'\n"
        );
        let common = common(config(&text), 1, 1, 64);
        let shard = Shard::new(0, &common, counters.clone());
        let now = Now { ms: 1_000_000, unix_s: 1_760_000_000 };
        Bench { shard, counters, now, wires: Vec::new() }
    }

    pub(crate) fn open(&mut self) -> usize {
        let at = self.wires.len();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let slot = self.shard.open(at as u32, peer, self.now);
        self.wires.push(Wire { slot: Some(slot), ..Wire::default() });
        at
    }

    pub(crate) fn receive(&mut self, at: usize, bytes: &[u8]) {
        let Some(slot) = self.wires[at].slot.filter(|_| !self.wires[at].eof) else { return };
        self.shard.receive(slot, &mut bytes.to_vec(), self.now);
        self.settle();
    }

    pub(crate) fn eof(&mut self, at: usize) {
        let Some(slot) = self.wires[at].slot.filter(|_| !self.wires[at].eof) else { return };
        self.wires[at].eof = true;
        self.shard.eof(slot, self.now);
        self.settle();
        self.finish(at);
    }

    /// Closes the connection if both sides have ended it.
    fn finish(&mut self, at: usize) {
        if self.wires[at].shut && self.wires[at].eof {
            self.close(at);
            self.settle();
        }
    }

    pub(crate) fn close(&mut self, at: usize) {
        if let Some(slot) = self.wires[at].slot.take() {
            self.shard.close(slot);
        }
    }

    pub(crate) fn connected(&mut self, at: usize, outcome: Result<(), i32>) {
        let slot = self.wires[at].slot.expect("it is there");
        self.shard.connected(slot, outcome, self.now);
        self.settle();
    }

    /// Does the work of a reactor at the end of its turn.
    pub(crate) fn settle(&mut self) {
        loop {
            self.shard.next_turn(self.now);
            while let Some(dial) = self.shard.next_dial() {
                let (at, address) = (self.wires.len(), dial.address);
                let slot = self.shard.dial_at(at as u32, dial, self.now);
                let dialled = Some(address);
                self.wires.push(Wire { slot: Some(slot), dialled, ..Wire::default() });
            }
            if !self.shard.has_listed() {
                break;
            }
            while let Some(slot) = self.shard.next_listed() {
                self.flush(slot);
            }
        }
    }

    fn flush(&mut self, slot: Slot) {
        let at = slot.index as usize;
        let Some(wants) = self.shard.wants(slot) else { return };
        self.wires[at].reads = wants.read;
        if wants.ending == Ending::Cut {
            self.close(at);
        } else if self.wires[at].kept.is_none() {
            self.send(at, slot, wants.ending);
        }
    }

    pub(crate) fn send(&mut self, at: usize, slot: Slot, ending: Ending) {
        let Some(batch) = self.shard.take_batch(slot) else {
            self.wires[at].shut |= ending == Ending::Flush;
            if self.wires[at].shut && self.wires[at].eof {
                self.close(at);
            }
            return;
        };
        let wire = &mut self.wires[at];
        let before = wire.sent.len();
        batch.iter().for_each(|segment| wire.sent.extend_from_slice(segment));
        let bytes = wire.sent.len() - before;
        match wire.stalled {
            true => wire.kept = Some(bytes),
            false => self.shard.sent(slot, bytes, Some(Vec::new()), self.now),
        }
    }

    /// The peer reads again after a stall.
    pub(crate) fn flow(&mut self, at: usize) {
        let wire = &mut self.wires[at];
        wire.stalled = false;
        if let (Some(bytes), Some(slot)) = (wire.kept.take(), wire.slot) {
            self.shard.sent(slot, bytes, Some(Vec::new()), self.now);
        }
        self.settle();
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(SWEEP_MS) {
            self.now.ms += SWEEP_MS;
            self.shard.sweep(self.now);
            self.settle();
        }
    }

    /// Takes the sent bytes that the test has not read yet.
    pub(crate) fn taken(&mut self, at: usize) -> Vec<u8> {
        let wire = &mut self.wires[at];
        let bytes = wire.sent[wire.seen..].to_vec();
        wire.seen = wire.sent.len();
        bytes
    }

    pub(crate) fn text(&mut self, at: usize) -> String {
        String::from_utf8(self.taken(at)).expect("text")
    }

    /// Takes the WebSocket messages that were sent to an upstream.
    pub(crate) fn replies(&mut self, at: usize) -> Vec<Received> {
        frames(Role::Server, &self.taken(at))
    }

    /// Takes the WebSocket messages that were sent to a client.
    pub(crate) fn received(&mut self, at: usize) -> Vec<Received> {
        frames(Role::Client, &self.taken(at))
    }

    /// Opens a client's connection and its upstream connection.
    pub(crate) fn pair(&mut self) -> (usize, usize) {
        let client = self.open();
        self.receive(client, &handshake("/chat?a=b", ""));
        let upstream = self.wires.len() - 1;
        self.connected(upstream, Ok(()));
        let answer = answer(&self.text(upstream), "");
        assert_eq!(self.text(client), "", "the 101 waits");
        self.receive(upstream, &answer);
        assert!(self.text(client).starts_with("HTTP/1.1 101 "));
        (client, upstream)
    }

    /// Checks that no connection and no state is left.
    pub(crate) fn check_empty(&mut self) {
        self.settle();
        assert!(self.shard.is_empty(), "{} are left", self.shard.len());
        assert!(self.shard.next_dial().is_none());
        let counters = &self.counters;
        assert_eq!((counters.connections.get(), counters.upstreams.get()), (0, 0));
    }
}

/// The response 101 to a request, with further header fields.
pub(crate) fn answer(request: &str, fields: &str) -> Vec<u8> {
    let key = request.lines().find_map(|it| it.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
    let accept = String::from_utf8(websocket_accept(key).to_vec()).expect("text");
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
    )
    .into_bytes()
}

pub(crate) fn frames(role: Role, bytes: &[u8]) -> Vec<Received> {
    let (mut reader, mut bytes) = (Reader::new(), bytes.to_vec());
    let (mut at, mut received) = (0, Vec::new());
    loop {
        let (taken, event) = reader.next(role, &FrameLimits::default(), &mut bytes[at..]);
        at += taken;
        received.push(match event {
            FrameEvent::Need => return received,
            FrameEvent::Message { kind: MessageKind::Text, payload, .. } => {
                Received::Text(String::from_utf8(payload.to_vec()).expect("UTF-8"))
            }
            FrameEvent::Message { payload, .. } => Received::Binary(payload.to_vec()),
            FrameEvent::Ping(payload) => Received::Ping(payload.to_vec()),
            FrameEvent::Pong(payload) => Received::Pong(payload.to_vec()),
            FrameEvent::Close { code, reason } => Received::Close(code, reason.to_owned()),
            FrameEvent::Violation(violation) => panic!("{violation} for {role:?}"),
        });
    }
}

/// An unmasked frame, as an upstream sends it.
pub(crate) fn plain(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::push(&mut out, opcode, payload, None);
    out
}

pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}
