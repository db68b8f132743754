//! Operations on a shard whose routes compress: each peer can decompress all that it receives, and
//! an echo is the message that was sent.

use super::Script;
use crate::machine::{Machine, config};
use crate::peer::{Received, framed, handshake, signed};
use polycast::config::{CompressionMode, EndpointKind};
use polycast::ws::deflate::Deflater;
use polycast::ws::frame::{Header, push_with};
use polycast::ws::{Opcode, extension, utf8};

const OFFERS: [&str; 8] = [
    "",
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
    "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=12",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; unknown",
];
/// The maximum number of operations; more would find nothing new.
const OPERATIONS: usize = 150;
const CHANNELS: [&str; 2] = ["a", "b"];

struct World {
    machine: Machine,
    wires: Vec<Wire>,
}

struct Wire {
    is_echo: bool,
    /// What it compresses with, once the server has agreed.
    deflater: Option<Deflater>,
    /// Messages whose echo is expected, as long as only valid ones were sent.
    due: Vec<Received>,
    is_odd: bool,
}

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let Some(flags) = script.byte() else { return };
    let mut config = config(
        "[apps.limits]\nmessage_bytes = 2000\n[limits]\nmessage_bytes = 20000\n\
         frame_bytes = 20000\n[timeouts]\nclose_ms = 2000\n",
    );
    config.compression.min_bytes = [1, 40][usize::from(flags & 1)];
    config.compression.windows_bytes = [0, 400_000, 1 << 26][usize::from(flags >> 1) % 3];
    for route in &mut config.routes {
        let shared = flags & if route.endpoint == EndpointKind::Echo { 8 } else { 16 };
        route.compression =
            if shared == 0 { CompressionMode::Dedicated } else { CompressionMode::Shared };
    }
    let mut world = World { machine: Machine::new(config), wires: Vec::new() };
    world.open(flags >> 5, true);
    for _ in 0..OPERATIONS {
        let Some(op) = script.byte() else { break };
        world.operate(op, &mut script);
        let now = world.machine.now;
        world.machine.shard.next_turn(now);
        world.machine.settle();
    }
    world.end();
}

impl World {
    fn operate(&mut self, op: u8, script: &mut Script<'_>) {
        let at = usize::from(op >> 4) % self.wires.len();
        match op & 15 {
            0 | 1 if self.wires.len() < 5 => self.open(script.byte().unwrap_or(0), op & 1 == 1),
            2..6 => {
                let payload = payload(script);
                let kind = if op & 1 == 0 { Opcode::Text } else { Opcode::Binary };
                self.say(at, kind, &payload, op & 4 == 0);
            }
            6 => {
                // A compressed message of whatever octets; without any, it is an empty one.
                let len = usize::from(script.byte().unwrap_or(0));
                let payload = script.take(len);
                let wire = &mut self.wires[at];
                wire.is_odd |= !payload.is_empty() || wire.deflater.is_none();
                wire.due.extend(wire.is_echo.then(|| Received::Binary(Vec::new())));
                self.send(at, Opcode::Binary, payload, true);
            }
            7 => {
                self.wires[at].is_odd = true;
                let len = usize::from(script.byte().unwrap_or(0));
                self.machine.receive(at, script.take(len));
            }
            8..10 => {
                let verb = ["subscribe", "unsubscribe"][usize::from(op & 15) - 8];
                let channel = CHANNELS[usize::from(script.byte().unwrap_or(0)) % 2];
                let data = format!(r#"{{"channel":"{channel}"}}"#);
                let output = format!(r#"{{"event":"pusher:{verb}","data":{data}}}"#);
                self.say(at, Opcode::Text, output.as_bytes(), op & 16 == 0);
            }
            10..13 => self.publish(script),
            13 => {
                self.wires[at].is_odd = true;
                self.machine.receive(at, &framed(Opcode::Close, &[3, 0xe8]));
            }
            14 => self.machine.wait(u64::from(script.byte().unwrap_or(0)) * 20),
            _ => self.machine.receive(at, &framed(Opcode::Ping, b"?")),
        }
    }

    fn open(&mut self, offer: u8, is_echo: bool) {
        let at = self.machine.open();
        let offer = OFFERS[usize::from(offer) % OFFERS.len()];
        let field = match offer {
            "" => String::new(),
            offer => format!("Sec-WebSocket-Extensions: {offer}\r\n"),
        };
        let target = if is_echo { "/echo" } else { "/app/app-key" };
        self.machine.receive(at, &handshake(target, &field));
        let Some(Received::Answer { status: 101, head, .. }) =
            self.machine.wire(at).received.first()
        else {
            panic!("{:?}", self.machine.wire(at).received);
        };
        let answer = head.lines().find_map(|it| it.strip_prefix("Sec-WebSocket-Extensions: "));
        let agreed = extension::read_answer(answer.into_iter()).expect("what was offered");
        assert_eq!(agreed.is_some(), offer.contains("deflate") && !offer.contains("unknown"));
        let deflater = agreed.map(|it| Deflater::new(it.our_bits, it.we_keep));
        self.wires.push(Wire { is_echo, deflater, due: Vec::new(), is_odd: false });
    }

    /// A valid message, compressed if that was negotiated and `compress` is true.
    fn say(&mut self, at: usize, kind: Opcode, payload: &[u8], compress: bool) {
        let wire = &mut self.wires[at];
        if kind == Opcode::Text && !utf8::valid(payload) {
            wire.is_odd = true;
        }
        if wire.is_echo {
            wire.due.push(match kind {
                Opcode::Text => Received::Text(String::from_utf8_lossy(payload).into_owned()),
                _ => Received::Binary(payload.to_vec()),
            });
        }
        match &mut wire.deflater {
            Some(deflater) if compress => {
                let mut wire = Vec::new();
                assert_eq!(deflater.deflate(payload, &mut wire), Some(()));
                self.send(at, kind, &wire, true);
            }
            _ => self.send(at, kind, payload, false),
        }
    }

    /// In two frames, cut in the middle, if there is something to cut.
    fn send(&mut self, at: usize, opcode: Opcode, payload: &[u8], rsv1: bool) {
        let (first, second) = payload.split_at(payload.len() / 2);
        let mask = Some([1, 2, 3, at as u8]);
        let mut out = Vec::new();
        let head = Header { fin: false, rsv1, opcode, mask, len: first.len() as u64 };
        push_with(&mut out, &head, first);
        let (opcode, len) = (Opcode::Continuation, second.len() as u64);
        push_with(&mut out, &Header { fin: true, rsv1: false, opcode, mask, len }, second);
        self.machine.receive(at, &out);
    }

    /// An event that every subscriber receives in its own form.
    fn publish(&mut self, script: &mut Script<'_>) {
        let (letter, count) = (script.byte().unwrap_or(0), script.byte().unwrap_or(0));
        let data: String = (0..usize::from(count) * 4)
            .map(|at| char::from(b'a' + (usize::from(letter) * at % 26) as u8))
            .collect();
        let body = format!(r#"{{"name":"e","channels":["a","b"],"data":"{data}"}}"#);
        let now = self.machine.now.unix_s;
        let publisher = self.machine.open();
        let request = signed("POST", "/apps/1/events", body.as_bytes(), now);
        self.machine.receive(publisher, &request);
        let received = &self.machine.wire(publisher).received;
        assert!(matches!(received[..], [Received::Answer { status: 200, .. }]), "{received:?}");
        self.machine.eof(publisher);
        // Its place is taken by a peer of which nothing is expected.
        let is_odd = true;
        self.wires.push(Wire { is_echo: false, deflater: None, due: Vec::new(), is_odd });
    }

    fn end(mut self) {
        for (at, wire) in self.wires.iter().enumerate() {
            let seen = self.machine.wire(at);
            let broken = seen.received.iter().any(|it| matches!(it, Received::Broken(_)));
            assert!(!broken && seen.reader.left() == 0, "{:?}", seen.received);
            if wire.is_odd || !wire.is_echo {
                continue;
            }
            let output = |it: &&Received| matches!(it, Received::Text(_) | Received::Binary(_));
            let received: Vec<&Received> = seen.received.iter().filter(output).collect();
            if seen.received.iter().any(|it| matches!(it, Received::Close(..))) {
                // A message was too long, or there were too many: up to there it is an echo.
                assert!(wire.due.iter().zip(&received).all(|(due, received)| due == *received));
            } else {
                assert!(
                    wire.due.iter().eq(received.iter().copied()),
                    "{:?} {received:?}",
                    wire.due
                );
            }
        }
        self.machine.end();
    }
}

fn payload(script: &mut Script<'_>) -> Vec<u8> {
    let (times, len) = (script.byte().unwrap_or(0), script.byte().unwrap_or(0));
    script.take(len.into()).repeat(usize::from(times >> 2))
}
