//! Arbitrary operations on a shard whose members send by streams and by WebSockets, or only
//! receive, by server-sent events.

use super::Script;
use crate::machine::{Machine, config};
use crate::peer::{Received, auth, framed, handshake, text};
use polycast::ws::Opcode;

const TYPES: [&str; 3] = ["application/x-ndjson", "text/plain", "application/octet-stream"];

const CHANNELS: [&str; 4] = ["a", "private-b", "cache-c", "presence-d"];

/// A request for events of the group or of channels; `how` decides its method and its parameters,
/// of which one may be arbitrary.
fn listen(how: u8, script: &mut Script<'_>) -> Vec<u8> {
    let method = ["GET", "GET", "GET", "OPTIONS", "POST"][usize::from(how) % 5];
    let target = match how >> 3 & 7 {
        0 => "/group".to_owned(),
        1 | 2 => "/app/app-key/events?channels=a,cache-c".to_owned(),
        3 | 4 => {
            let auth = auth("1.2", CHANNELS[1], None);
            format!("/app/app-key/events?channels=private-b&socket_id=1.2&auth={auth}")
        }
        5 => format!("/app/app-key/events?channels={}", CHANNELS[usize::from(how >> 6)]),
        _ => {
            let len = usize::from(script.byte().unwrap_or(0)) % 64;
            let word = String::from_utf8_lossy(script.take(len)).replace(['\r', '\n', ' '], "+");
            format!("/app/app-key/events?{word}")
        }
    };
    let id = ["", "Last-Event-ID: 0000000000000001:2\r\n"][usize::from(how >> 7)];
    format!("{method} {target} HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n{id}\r\n")
        .into_bytes()
}

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let mut machine = Machine::new(config(
        "client_events = true\nlimits = { message_bytes = 300, event_bytes = 300 }\n\
         [limits]\nwrite_queue_bytes = 65536\nmessage_bytes = 300\nframe_bytes = 300\n\
         http_head_bytes = 1024\nhttp_body_bytes = 1024\n\
         [timeouts]\nhead_ms = 3000\nbody_ms = 3000\nclose_ms = 2000\nmessage_ms = 3000\n\
         [pusher]\nactivity_timeout_s = 4\npong_timeout_s = 2\n\
         [[routes]]\nwhen = [{ path = '/echo' }]\nendpoint = 'echo'\nstream = true\n\
         [[routes]]\nwhen = [{ path = '/group' }]\nendpoint = 'reflect'\nstream = true\n\
         reflect = { history = 3, history_bytes = 1024 }\n\
         [[routes]]\nwhen = [{ path = '/app*' }]\nendpoint = 'apps'\n\
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
            1 if op >> 7 == 0 => machine.receive(at, &handshake("/group", "")),
            1 => machine.receive(at, &handshake("/app/app-key", "")),
            2..6 => {
                let how = script.byte().unwrap_or(0);
                let path = ["/echo", "/group"][usize::from(how & 1)];
                let framing = TYPES[usize::from(how >> 1) % 3];
                let length = match how >> 4 {
                    0 => "Content-Length: 20",
                    1 => "Accept: text/event-stream\r\nTransfer-Encoding: chunked",
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
            14 => machine.receive(at, &listen(script.byte().unwrap_or(0), &mut script)),
            15 => {
                let channel = CHANNELS[usize::from(script.byte().unwrap_or(0)) % CHANNELS.len()];
                let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"#;
                machine.receive(at, &text(&format!("{subscribe}\"{channel}\"}}}}")));
            }
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
