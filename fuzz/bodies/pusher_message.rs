//! Text of any kind into an established connection of each vendor of channels; fields of every
//! type. The events of one client reach the others in the right form.

use super::vendors::{VENDORS, Vendor, is_json};
use crate::peer::{Received, handshake, text};
use polycast::codec::json::Scratch;

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    let Ok(given) = str::from_utf8(rest) else { return };
    let given = given.replace('\u{0}', " ");
    for vendor in &VENDORS {
        match shape % 16 {
            14 => relay(vendor, &given),
            15 => publish(vendor, &given),
            shape => say(vendor, shape, &given),
        }
    }
}

fn say(vendor: &Vendor, shape: u8, given: &str) {
    let quoted = given.replace('\\', "\\\\").replace('"', "\\\"");
    let message = match shape % 8 {
        0 => vendor.says("subscribe", given),
        1 => vendor.says("subscribe", &format!("\"{quoted}\"")),
        2 => vendor.says("subscribe", &format!(r#"{{"channel":{given}}}"#)),
        3 => {
            let data =
                format!(r#"{{"channel":"private-a","auth":{given},"channel_data":{given}}}"#);
            vendor.says("subscribe", &data)
        }
        4 if shape & 8 != 0 => {
            vendor.says("signin", &format!(r#"{{"auth":{given},"user_data":{given}}}"#))
        }
        4 => vendor.says("unsubscribe", given),
        5 => format!(r#"{{"event":{given},"data":{{}}}}"#),
        6 => format!(r#"{{"event":"client-e","channel":"a","data":{given}}}"#),
        _ => given.to_owned(),
    };
    let mut machine = vendor.machine();
    let at = machine.open();
    machine.receive(at, &handshake("/app/app-key", ""));
    for _ in 0..2 {
        machine.receive(at, &text(&message));
    }
    machine.receive(at, &text(&vendor.says("ping", "{}")));
    let received = &machine.wire(at).received;
    // Whatever the message was, the connection stays open; only a sign-in with a wrong signature
    // closes it.
    match received.last() {
        Some(Received::Text(text)) => assert!(text.contains(":pong"), "{text}"),
        Some(Received::Close(Some(4009), _)) => assert!(message.contains("pusher:"), "{message}"),
        other => panic!("{other:?}"),
    }
    let closed = usize::from(matches!(received.last(), Some(Received::Close(..))));
    vendor.check(&received[1..received.len() - closed]);
    machine.end();
}

/// Data of any kind from one client to another.
fn relay(vendor: &Vendor, given: &str) {
    let mut machine = vendor.machine();
    let says = vendor.subscriber(&mut machine, "private-a");
    let hears = vendor.subscriber(&mut machine, "private-a");
    let before = machine.wire(hears).received.len();
    let message = format!(r#"{{"event":"client-e","channel":"private-a","data":{given}}}"#);
    machine.receive(says, &text(&message));
    let received = &machine.wire(hears).received[before..];
    assert!(received.len() <= 1, "{received:?}");
    let plain = given.starts_with('"') && is_json(given) && !given.contains('\\');
    assert!(!plain || given.len() > 10_240 || received.len() == 1, "{given}");
    vendor.check(received);
    machine.end();
}

/// Data of any kind in a publish of an authenticated publisher, which is answered once.
fn publish(vendor: &Vendor, given: &str) {
    let mut machine = vendor.machine();
    let hears = vendor.subscriber(&mut machine, "private-a");
    let at = vendor.publisher(&mut machine);
    let message = format!(r#"{{"event":"polycast:publish","data":{given}}}"#);
    let before = machine.wire(at).received.len();
    machine.receive(at, &text(&message));
    let received = &machine.wire(at).received[before..];
    let is_answer = |text: &str| is_json(text) && text.starts_with(r#"{"event":"polycast:publish"#);
    let answered = |it: &Received| matches!(it, Received::Text(text) if is_answer(text));
    // Otherwise `given` ends the data early, and makes another message of it.
    if Scratch::default().parse(&mut given.as_bytes().to_vec(), |_| ()).is_ok() {
        assert!(received.len() == 1 && received.iter().all(answered), "{given}: {received:?}");
    }
    let published = &machine.wire(hears).received;
    vendor.check(&published[1..]);
    machine.end();
}
