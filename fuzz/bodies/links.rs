//! Linked channels. Either two templates and a name: a name that matches is reproduced from its
//! parts, and the pattern of the template matches it. Or messages that a plain WebSocket publishes
//! on a linked channel: every view gets each of them, in the same order, or none does.

use crate::machine::{Machine, config};
use crate::peer::{Received, framed, handshake, text};
use polycast::config::NameTemplate;
use polycast::ws::Opcode;

const LINKS: &str = r#"
[[routes]]
when = [{ path = "/in/*" }, { path = "/out/*" }]
endpoint = "channel"
[[routes]]
endpoint = "apps"
[[links]]
source = { app = "1", channel = "quotes-{symbol}" }
views = [{ path = "/in/{symbol}", publish = true }, { path = "/out/{symbol}" }]
"#;

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    match shape % 2 {
        0 => templates(rest),
        _ => messages(rest),
    }
}

fn templates(data: &[u8]) {
    let Ok(given) = str::from_utf8(data) else { return };
    let mut lines = given.splitn(3, '\n');
    let (Some(one), Some(other), Some(name)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let Ok(one) = NameTemplate::parse(one) else { return };
    let Some(captures) = one.capture(name) else { return };
    assert_eq!(one.fill(&captures), name);
    assert!(one.pattern().matches(name));
    assert!(captures.iter().all(|(_, text)| !text.is_empty()));
    let Ok(other) = NameTemplate::parse(other) else { return };
    if other.placeholders() == one.placeholders() {
        let mapped = other.fill(&captures);
        assert!(other.pattern().matches(&mapped) && other.capture(&mapped).is_some());
    }
}

fn messages(data: &[u8]) {
    let mut machine = Machine::new(config(LINKS));
    let sender = open(&mut machine, "/in/ACME");
    let plain = open(&mut machine, "/out/ACME");
    let pusher = open(&mut machine, "/app/app-key");
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"quotes-ACME"}}"#;
    machine.receive(pusher, &text(subscribe));
    let before = [plain, pusher].map(|at| machine.wire(at).received.len());
    let mut sent = Vec::new();
    for message in data.split(|byte| *byte == 0).take(20) {
        let opcode = match str::from_utf8(message) {
            Ok(text) => {
                sent.push(text.to_owned());
                Opcode::Text
            }
            // The source cannot express it, so that no view receives it.
            Err(_) => Opcode::Binary,
        };
        machine.receive(sender, &framed(opcode, message));
    }
    machine.settle();
    let received = |machine: &mut Machine, at: usize, from: usize| -> Vec<String> {
        let texts = machine.wire(at).received[from..].iter();
        let text = |it: &Received| match it {
            Received::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        texts.map(text).collect()
    };
    assert_eq!(received(&mut machine, plain, before[0]), sent);
    let events = received(&mut machine, pusher, before[1]);
    assert_eq!(events.len(), sent.len());
    for (event, text) in events.iter().zip(&sent) {
        let event: serde_json::Value = serde_json::from_str(event).expect("JSON");
        assert_eq!(event["channel"], "quotes-ACME");
        assert_eq!(event["data"], text.as_str());
    }
}

fn open(machine: &mut Machine, path: &str) -> usize {
    let at = machine.open();
    machine.receive(at, &handshake(path, ""));
    at
}
