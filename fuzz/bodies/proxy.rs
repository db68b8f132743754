//! Operations on a proxied WebSocket, or a stream in its place, and its two ends: the messages of
//! one side reach the other, in order and once; no side receives a violation, and no state is left.

use super::Script;
use crate::bench::{Bench, answer, close, frames, plain};
use crate::peer::{ClientReader, Received, framed, handshake};
use polycast::ws::{Opcode, Role};

const UPSTREAMS: &str = "['ws://127.0.0.1:1001', 'ws://127.0.0.1:1002']";
/// The maximum number of operations; more would find nothing new.
const OPERATIONS: usize = 200;

/// The client of a stream.
const STREAM: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

/// What one side has sent.
#[derive(Default)]
struct ClientEvent {
    texts: Vec<String>,
    /// Something beside whole messages.
    is_odd: bool,
}

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let mut bench = Bench::new(UPSTREAMS, "stream = true");
    let client = bench.open();
    // As an operation, this is nothing but time.
    let streams = data.first() == Some(&0xff);
    match streams {
        true => bench.receive(client, STREAM),
        false => bench.receive(client, &handshake("/", "")),
    }
    let frame = |side, opcode, payload: &[u8]| match (streams, side) {
        (true, 0) => record(opcode, payload),
        (_, 0) => framed(opcode, payload),
        _ => plain(opcode, payload),
    };
    let mut output = [ClientEvent::default(), ClientEvent::default()];
    for _ in 0..OPERATIONS {
        let Some(op) = script.byte() else { break };
        // The upstream that was dialled last is the one that may be open.
        let upstream = bench.wires.len() - 1;
        let side = usize::from(op >> 7);
        let at = [client, upstream][side];
        if upstream == client {
            break;
        }
        match op & 15 {
            0..4 if is_open(&bench, at) => {
                let len = usize::from(script.byte().unwrap_or(0)) * 16;
                let text = format!("{:0>len$}", output[side].texts.len());
                bench.receive(at, &frame(side, Opcode::Text, text.as_bytes()));
                output[side].texts.push(text);
            }
            0..4 => {}
            4 => {
                let bytes = script.take(usize::from(op >> 4 & 7) + 1);
                output[side].is_odd = true;
                bench.receive(at, bytes);
            }
            5 => bench.wires[at].stalled = true,
            6 => bench.flow(at),
            7 => bench.wait(u64::from(script.byte().unwrap_or(0)) * 50),
            8 => open(&mut bench, upstream, side, &mut script),
            9 => {
                let payload = close(1000, "bye");
                bench.receive(at, &frame(side, Opcode::Close, &payload));
            }
            10 => bench.receive(at, &frame(side, Opcode::Ping, b"p")),
            11 => bench.eof(at),
            12 => {
                if let Some(slot) = bench.wires[at].slot {
                    bench.shard.lost(slot);
                    bench.settle();
                }
            }
            13 if op == 0xdd => bench.shard.drain(),
            _ => bench.wait(250),
        }
    }
    for at in 0..bench.wires.len() {
        bench.flow(at);
    }
    let upstream = bench.wires.len() - 1;
    match streams {
        true => check(ClientReader::default().hear(&bench.wires[client].sent), &output[1]),
        false => check(received(&bench, client, Role::Client), &output[1]),
    }
    check(received(&bench, upstream, Role::Server), &output[0]);
    for at in 0..bench.wires.len() {
        bench.close(at);
        bench.settle();
    }
    // Those that the last one has had dialled.
    bench.wait(30_000);
    bench.check_empty();
}

/// What the client of a stream has in place of a frame: a line, a keep-alive record, the end.
fn record(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let data = match opcode {
        Opcode::Close => Vec::new(),
        Opcode::Text => [payload, b"\n"].concat(),
        _ => b"\n".to_vec(),
    };
    [format!("{:x}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat()
}

/// Whether a WebSocket is open at this wire, by what it was sent or has sent.
fn is_open(bench: &Bench, at: usize) -> bool {
    bench.wires[at].dialled.is_none() || bench.wires[at].opened
}

/// Makes the connection, or answers what it has asked.
fn open(bench: &mut Bench, upstream: usize, side: usize, script: &mut Script<'_>) {
    if bench.wires[upstream].slot.is_none() || bench.wires[upstream].opened {
        return;
    }
    let refuses = side == 1;
    let asked = String::from_utf8_lossy(&bench.wires[upstream].sent).into_owned();
    match (asked.is_empty(), refuses) {
        (true, true) => bench.connected(upstream, Err(111)),
        (true, false) if !bench.wires[upstream].made => {
            bench.wires[upstream].made = true;
            bench.connected(upstream, Ok(()));
        }
        (true, false) => {}
        (false, true) => bench.receive(upstream, b"HTTP/1.1 500 No\r\n\r\n"),
        (false, false) => {
            let answer = answer(&asked, "");
            let cut = usize::from(script.byte().unwrap_or(0)).min(answer.len());
            bench.wires[upstream].opened = true;
            bench.receive(upstream, &answer[..cut]);
            bench.receive(upstream, &answer[cut..]);
        }
    }
}

/// The frames after the head that a side was sent.
fn received(bench: &Bench, at: usize, role: Role) -> Vec<Received> {
    let sent = &bench.wires[at].sent;
    let head = sent.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(head) = head.filter(|_| role == Role::Server || sent.starts_with(b"HTTP/1.1 101"))
    else {
        return Vec::new();
    };
    frames(role, &sent[head + 4..])
}

/// What was received has no violation, and is the beginning of what was sent.
fn check(received: Vec<Received>, output: &ClientEvent) {
    let texts = received.into_iter().filter_map(|it| match it {
        Received::Text(text) => Some(text),
        Received::Broken(what) => panic!("{what}"),
        _ => None,
    });
    let texts: Vec<String> = texts.collect();
    assert!(output.is_odd || output.texts.starts_with(&texts), "{texts:?} of {:?}", output.texts);
}
