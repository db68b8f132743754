//! Any body of a signed publish: an answer in JSON, and at the subscriber what was published.

use crate::machine::{Machine, UNIX_S, config};
use crate::peer::{Heard, handshake, signed, text};

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    let body = match (shape % 4, str::from_utf8(rest)) {
        (0, Ok(given)) => format!(r#"{{"name":"e","channel":"a","data":{given}}}"#).into_bytes(),
        (1, Ok(given)) => format!(r#"{{"name":{given},"channels":["a"],"data":1}}"#).into_bytes(),
        (2, Ok(given)) => format!(r#"{{"name":"e","channels":{given},"data":""}}"#).into_bytes(),
        _ => rest.to_vec(),
    };
    let mut machine = Machine::new(config(""));
    let (subscriber, publisher) = (machine.open(), machine.open());
    machine.receive(subscriber, &handshake("/app/app-key", ""));
    machine.receive(subscriber, &text(r#"{"event":"pusher:subscribe","data":{"channel":"a"}}"#));
    let before = machine.wire(subscriber).heard.len();
    machine.receive(publisher, &signed("POST", "/apps/1/events", &body, UNIX_S));
    let [Heard::Answer { status, body: answer, .. }] = &machine.wire(publisher).heard[..] else {
        panic!("{:?}", machine.wire(publisher).heard);
    };
    assert!([200, 400, 413].contains(status), "{status} {answer}");
    assert!(is_json(answer), "{answer}");
    let status = *status;
    let heard = &machine.wire(subscriber).heard[before..];
    assert!(heard.len() <= usize::from(status == 200), "{heard:?}");
    for heard in heard {
        assert!(matches!(heard, Heard::Text(text) if is_json(text)), "{heard:?}");
    }
    machine.end();
}

fn is_json(text: &str) -> bool {
    simd_json::to_borrowed_value(&mut text.as_bytes().to_vec()).is_ok()
}
