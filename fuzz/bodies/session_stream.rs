//! Arbitrary operations on a shard whose members speak by streams and by WebSockets.

use super::Script;
use crate::machine::{Machine, config};
use crate::peer::{Received, framed, handshake};
use polycast::ws::Opcode;

const TYPES: [&str; 3] = ["application/x-ndjson", "text/plain", "application/octet-stream"];

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let mut machine = Machine::new(config(
        "limits = { message_bytes = 300, event_bytes = 300 }\n\
         [limits]\nwrite_queue_bytes = 65536\nmessage_bytes = 300\nframe_bytes = 300\n\
         http_head_bytes = 1024\nhttp_body_bytes = 1024\n\
         [timeouts]\nhead_ms = 3000\nbody_ms = 3000\nclose_ms = 2000\nmessage_ms = 3000\n\
         [pusher]\nactivity_timeout_s = 4\npong_timeout_s = 2\n\
         [[routes]]\nwhen = [{ path = '/echo' }]\nendpoint = 'echo'\nstream = true\n\
         [[routes]]\nwhen = [{ path = '/group' }]\nendpoint = 'reflect'\nstream = true\n\
         reflect = { history = 3, history_bytes = 1024 }\n\
         [[routes]]\nendpoint = 'reject'\n",
    ));
    let mut wires = 0;
    while let Some(op) = script.byte() {
        if wires == 0 || op == 0 && wires < 5 {
            machine.open();
            wires += 1;
        }
        let at = usize::from(op >> 4) % wires;
        match op & 15 {
            0 => {}
            1 => machine.receive(at, &handshake("/group", "")),
            2..6 => {
                let how = script.byte().unwrap_or(0);
                let path = ["/echo", "/group"][usize::from(how & 1)];
                let framing = TYPES[usize::from(how >> 1) % 3];
                let length = match how >> 4 {
                    0 => "Content-Length: 20",
                    _ => "Transfer-Encoding: chunked",
                };
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {framing}\r\n{length}\r\n\r\n"
                );
                machine.receive(at, head.as_bytes());
            }
            6..9 => {
                let len = usize::from(script.byte().unwrap_or(0));
                let data = script.take(len);
                let chunk = [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
                machine.receive(at, &chunk);
            }
            9 => {
                let len = usize::from(script.byte().unwrap_or(0));
                machine.receive(at, script.take(len));
            }
            10 => {
                let len = usize::from(script.byte().unwrap_or(0)) % 126;
                machine.receive(at, &framed(Opcode::Text, script.take(len)));
            }
            11 => machine.receive(at, b"0\r\n\r\n"),
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
