//! Resume messages of any kind, before a subscription to a channel with a history. The connection
//! stays open, and gets at most the events that are kept, in order and after the acknowledgement.

use super::vendors::{VENDORS, Vendor};
use crate::machine::UNIX_S;
use crate::peer::{Received, handshake, signed, text};

const HISTORY: &str = "[[apps.history]]\nchannels = ['chat-*']\nevents = 3\nrewind = 2\n";
const PUBLISHED: usize = 5;

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    let Ok(given) = str::from_utf8(rest) else { return };
    VENDORS.iter().for_each(|vendor| resume(vendor, shape, &given.replace('\u{0}', " ")));
}

fn message(shape: u8, given: &str) -> String {
    let quoted = given.replace('\\', "\\\\").replace('"', "\\\"");
    let data = match shape % 7 {
        0 => given.to_owned(),
        1 => format!("\"{quoted}\""),
        2 => format!(r#"{{"channel_positions":{given}}}"#),
        3 => format!(r#"{{"channel_positions":{{"chat-1":{given}}}}}"#),
        4 => format!(r#"{{"channel_positions":{{"chat-1":{{"rewind":{given}}}}}}}"#),
        5 => {
            let position = format!(r#"{{"stream_id":"{quoted}","serial":{given}}}"#);
            format!(r#"{{"channel_positions":{{"chat-1":{position}}}}}"#)
        }
        _ => format!(r#"{{"channel_positions":{{"{quoted}":{{"rewind":1}}}}}}"#),
    };
    format!(r#"{{"event":"polycast:resume","data":{data}}}"#)
}

fn resume(vendor: &Vendor, shape: u8, given: &str) {
    let mut machine = vendor.machine_with(HISTORY);
    for _ in 0..PUBLISHED {
        let at = machine.open();
        let body = br#"{"name":"e","channel":"chat-1","data":"{}"}"#;
        machine.receive(at, &signed("POST", vendor.event, body, UNIX_S));
        machine.hang_up(at);
    }
    let at = machine.open();
    machine.receive(at, &handshake("/app/app-key", ""));
    machine.receive(at, &text(&message(shape, given)));
    machine.receive(at, &text(&vendor.says("subscribe", r#"{"channel":"chat-1"}"#)));
    machine.receive(at, &text(&vendor.says("ping", "{}")));
    let received = &machine.wire(at).received;
    vendor.check(&received[1..]);
    let texts = received.iter().filter_map(|it| match it {
        Received::Text(text) => Some(text.as_str()),
        _ => None,
    });
    let texts: Vec<&str> = texts.collect();
    assert!(texts.last().is_some_and(|last| last.contains(":pong")), "{texts:?}");
    let success = texts.iter().position(|it| it.contains("subscription_succeeded"));
    let success = success.expect("the subscription is acknowledged");
    let is_event = |it: &&str| it.contains(r#""event":"e""#);
    let first = texts.iter().position(is_event).unwrap_or(success + 1);
    let events = texts.iter().copied().filter(is_event).count();
    assert_eq!(first, success + 1, "{texts:?}");
    // No position that a message makes up is one of the stream, so only `rewind` recovers.
    assert!(events <= 2, "{texts:?}");
    assert_eq!(events > 0, texts[success].contains(r#""recovered":true"#) && events > 0);
    for (serial, event) in (PUBLISHED - events + 1..).zip(&texts[first..first + events]) {
        assert!(event.ends_with(&format!(r#""serial":{serial}}}"#)), "{event}");
    }
    machine.end();
}
