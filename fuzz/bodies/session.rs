//! Arbitrary operations on a shard: connections, bytes, time, ends.

use super::Script;
use crate::machine::{Machine, config};
use crate::peer::{Received, framed, handshake, signed, text};
use polycast::ws::Opcode;

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let mut machine = Machine::new(config(
        "[apps.limits]\nsubscriptions_per_connection = 2\nmessage_bytes = 300\n\
         [timeouts]\nhead_ms = 3000\nbody_ms = 3000\nclose_ms = 2000\n\
         [pusher]\nactivity_timeout_s = 4\npong_timeout_s = 2\n",
    ));
    let mut wires = 0;
    while let Some(op) = script.byte() {
        if wires == 0 || op == 0 && wires < 4 {
            machine.open();
            wires += 1;
        }
        let at = usize::from(op >> 4) % wires;
        match op & 15 {
            0 => {}
            1 => machine.receive(at, &handshake("/app/app-key", "")),
            2 => machine.receive(at, &handshake("/echo", "")),
            3 => {
                let len = usize::from(script.byte().unwrap_or(0));
                machine.receive(at, script.take(len));
            }
            4..7 => {
                let opcode = [Opcode::Text, Opcode::Binary, Opcode::Ping][usize::from(op & 15) - 4];
                let len = usize::from(script.byte().unwrap_or(0)) % 126;
                machine.receive(at, &framed(opcode, script.take(len)));
            }
            7..9 => {
                let verb = ["subscribe", "unsubscribe"][usize::from(op & 15) - 7];
                let channel =
                    ["a", "b", "c", "presence-a"][usize::from(script.byte().unwrap_or(0)) % 4];
                let data = format!(r#"{{"channel":"{channel}"}}"#);
                let output = format!(r#"{{"event":"pusher:{verb}","data":{data}}}"#);
                machine.receive(at, &text(&output));
            }
            9..11 => {
                let body = br#"{"name":"e","channels":["a","b"],"data":"x"}"#;
                let now = machine.now.unix_s;
                machine.receive(at, &signed("POST", "/apps/1/events", body, now));
            }
            11 => machine.receive(at, &framed(Opcode::Close, script.take(2))),
            12 => machine.wait(u64::from(script.byte().unwrap_or(0)) * 20),
            13 => machine.eof(at),
            14 if op >> 4 == 15 => machine.shard.drain(),
            _ => machine.wait(250),
        }
    }
    for at in 0..wires {
        let broken = machine.wire(at).received.iter().any(|it| matches!(it, Received::Broken(_)));
        assert!(!broken, "{:?}", machine.wire(at).received);
        assert_eq!(machine.wire(at).reader.left(), 0, "half a message");
    }
    machine.end();
}
