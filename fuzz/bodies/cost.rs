//! What the bytes of a peer cost: the estimated work, and the bytes that the shard holds, for each
//! byte received. Both are bounded. Each doubling of either ratio is a new edge for the fuzzer, so
//! that its corpus grows towards expensive inputs.

use super::Script;
use crate::machine::{Machine, config};
use crate::peer::{framed, handshake, signed, text};
use polycast::ws::Opcode;
use std::hint::black_box;

/// The maximum work for each byte, in the units of [`polycast::work`] (nanoseconds). A message of
/// one byte for a model costs about 290 for each of its 7 bytes.
const WORK_PER_BYTE: u64 = 500;
/// The work beyond that: of the first tokens of each connection, and of its end.
const WORK: u64 = 8_000_000;
/// The maximum number of bytes held for each byte received. A frame in a write queue is charged 64
/// bytes beside its 2 to 4 bytes of header, and a subscription about 850.
const HELD_PER_BYTE: u64 = 64;
/// The bytes held beyond that: of connections, and of buffers that are not full.
const HELD: u64 = 1024 * 1024;
const CONNECTIONS: usize = 6;

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let pem = include_str!("../../tests/keys/p256.pub");
    let mut machine = Machine::new(config(&format!(
        "[apps.limits]\nsubscriptions_per_connection = 1000\n\
         [limits]\nwrite_queue_bytes = 65536\n\
         [[guards]]\nname = 'g'\nkeys = [{{ kid = 'k', pem = '''{pem}''' }}]\n\
         [[routes]]\nwhen = [{{ path = '/model' }}]\nendpoint = 'echo'\n\
         [routes.model]\nreceived.text = {{ model = 'json' }}\n\
         [[routes]]\nwhen = [{{ path = '/guarded' }}]\nendpoint = 'echo'\n\
         guarded = {{ g = [] }}\n\
         [[routes]]\nwhen = [{{ path = '/echo' }}]\nendpoint = 'echo'\n\
         [[routes]]\nwhen = []\nendpoint = 'apps'\n"
    )));
    let (mut wires, mut received) = (0, 0);
    let begun = machine.shard.work();
    while let Some(op) = script.byte() {
        if wires == 0 || op & 15 == 0 && wires < CONNECTIONS {
            machine.open();
            wires += 1;
        }
        let at = usize::from(op >> 4) % wires;
        let Some(bytes) = input(op & 15, &mut script, &mut machine, at) else { continue };
        received += bytes.len() as u64;
        machine.receive(at, &bytes);
        machine.wire(at).received.clear();
        let work = machine.shard.work() - begun;
        let held = machine.shard.memory_bytes();
        assert!(work <= WORK + WORK_PER_BYTE * received, "{work} units for {received} bytes");
        assert!(held <= HELD + HELD_PER_BYTE * received, "{held} held for {received} bytes");
        reward(0, work / received.max(1));
        reward(64, held / received.max(1));
    }
}

/// The bytes of one operation; `None` if it sends none.
fn input(op: u8, script: &mut Script<'_>, machine: &mut Machine, at: usize) -> Option<Vec<u8>> {
    let mut byte = || script.byte().unwrap_or(0);
    Some(match op {
        0 => return None,
        1..5 => {
            let target = ["/app/app-key", "/echo", "/model", "/guarded"][usize::from(op) - 1];
            handshake(target, "")
        }
        5 => {
            let len = usize::from(byte());
            script.take(len).to_vec()
        }
        6..9 => {
            let opcode = [Opcode::Text, Opcode::Binary, Opcode::Ping][usize::from(op) - 6];
            let (count, len) = (usize::from(byte()), usize::from(byte()) % 126);
            framed(opcode, script.take(len)).repeat(count)
        }
        9..11 => {
            let verb = ["subscribe", "unsubscribe"][usize::from(op) - 9];
            let (first, count) = (u32::from(byte()), u32::from(byte()));
            let one = |n| {
                let data = format!(r#"{{"channel":"c{n}"}}"#);
                text(&format!(r#"{{"event":"pusher:{verb}","data":{data}}}"#))
            };
            (first..first + count).flat_map(one).collect()
        }
        11 => {
            let body = br#"{"name":"e","channels":["c1","c2"],"data":"x"}"#;
            signed("POST", "/apps/1/events", body, machine.now.unix_s)
        }
        12 => signed("GET", "/apps/1/channels", b"", machine.now.unix_s),
        13 => {
            let fields = "Host: h\r\nAuthorization: Bearer";
            let token = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.e30";
            format!("GET /guarded HTTP/1.1\r\n{fields} {token}.{:086}\r\n\r\n", byte()).into_bytes()
        }
        14 => {
            machine.wait(u64::from(byte()) * 20);
            return None;
        }
        _ => {
            let wire = machine.wire(at);
            wire.stalls = !wire.stalls;
            return None;
        }
    })
}

/// Executes a different edge for each doubling of `ratio`, so that the fuzzer keeps the input.
fn reward(kind: u32, ratio: u64) {
    macro_rules! edges {
        ($($n:literal)*) => {
            match kind + ratio.checked_ilog2().unwrap_or(0) {
                $($n => _ = black_box($n),)*
                _ => {}
            }
        };
    }
    edges!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80);
}
