//! Any body from a back end: the answer is JSON, and a subscriber gets messages that can be read.

use crate::machine::{Machine, config};
use crate::peer::{Received, framed, handshake, ingest};
use polycast::ws::Opcode;

const CONFIG: &str = "[zenith]\nservices = [{ token = 'S' }]\n\
    tokens = [{ token = 'T', user = 'u' }]\nfeeds = [{ name = 'F', class = 'News' }]\n\
    topics = [{ controller = 'M', kind = 'A' }, { controller = 'M', kind = 'L', retain = 'log' }]\n";

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    let body = match (shape % 4, str::from_utf8(rest)) {
        (0, Ok(given)) => {
            format!(r#"{{"Controller":"M","Topic":"A","Data":{given}}}"#).into_bytes()
        }
        (1, Ok(given)) => {
            format!(r#"{{"Controller":"M","Topic":"L","Data":{given}}}"#).into_bytes()
        }
        (2, Ok(given)) => {
            format!(r#"[{{"Controller":"M","Topic":"A","Action":{given},"Data":[]}}]"#).into_bytes()
        }
        _ => rest.to_vec(),
    };
    let mut machine = Machine::new(config(CONFIG));
    let (subscriber, backend) = (machine.open(), machine.open());
    machine.receive(subscriber, &handshake("/Zenith", "Authorization: Bearer T\r\n"));
    for topic in ["A", "L"] {
        let sub = format!(r#"{{"Controller":"M","Topic":"{topic}","Action":"Sub"}}"#);
        machine.receive(subscriber, &framed(Opcode::Text, sub.as_bytes()));
    }
    machine.receive(backend, &ingest("S", &body));
    let [Received::Answer { status, body: answer, .. }] = &machine.wire(backend).received[..]
    else {
        panic!("{:?}", machine.wire(backend).received);
    };
    assert!([200, 400, 413].contains(status), "{status} {answer}");
    assert!(is_json(answer), "{answer}");
    let status = *status;
    let received = &machine.wire(subscriber).received[1..];
    assert!(status == 200 || received.is_empty(), "{received:?}");
    for received in received {
        let is_sound = match received {
            Received::Text(text) => is_json(text),
            Received::Close(code, _) => *code == Some(4000),
            _ => false,
        };
        assert!(is_sound, "{received:?}");
    }
    machine.end();
}

/// Also with numbers that no double holds, which go on as they were written.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}
