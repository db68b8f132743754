//! Any document that is posted as an epoch: the answer is JSON, and a client that has subscribed to
//! everything gets a notification in JSON of what was accepted.

use crate::machine::{Machine, config};
use crate::peer::{Received, handshake, text};

const CONFIG: &str = "[zilliqa]\npublish_token = '0123456789abcdef'\nfragment_bytes = 1024\n\
    [[routes]]\nendpoint = 'zilliqa'\n";
const ADDRESS: &str = "2ce491a0fd9e318b39172258101b7c836da7449b";

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    let Ok(given) = str::from_utf8(rest) else { return };
    let block = r#"{"header":{"BlockNum":"1"}}"#;
    let document = match shape % 4 {
        0 => format!(r#"{{"TxBlock":{block},"TxHashes":[],"Transactions":[{given}]}}"#),
        1 => {
            let logs = format!(r#"[{{"address":"0x{ADDRESS}",{given}}}]"#);
            let receipt = format!(r#"{{"success":true,"event_logs":{logs}}}"#);
            let id = "1b".repeat(32);
            let tx = format!(r#""ID":"{id}","toAddr":"{ADDRESS}","senderAddr":"{ADDRESS}""#);
            let tx = format!(r#"{{{tx},"amount":"1","receipt":{receipt}}}"#);
            format!(r#"{{"TxBlock":{block},"TxHashes":[],"Transactions":[{tx}]}}"#)
        }
        2 => format!(r#"{{"TxBlock":{block},"TxHashes":{given}}}"#),
        _ => given.to_owned(),
    };
    let mut machine = Machine::new(config(CONFIG));
    let (client, publisher) = (machine.open(), machine.open());
    machine.receive(client, &handshake("/", ""));
    for query in [
        r#"{"query":"NewBlock"}"#.to_owned(),
        format!(r#"{{"query":"EventLog","addresses":["0x{ADDRESS}"]}}"#),
        format!(r#"{{"query":"TxnLog","addresses":["0x{ADDRESS}"]}}"#),
    ] {
        machine.receive(client, &text(&query));
    }
    let before = machine.wire(client).received.len();
    let post = format!(
        "POST /epochs HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer 0123456789abcdef\r\n\
         Content-Length: {}\r\n\r\n{document}",
        document.len()
    );
    machine.receive(publisher, post.as_bytes());
    let [Received::Answer { status, body, .. }] = &machine.wire(publisher).received[..] else {
        panic!("{:?}", machine.wire(publisher).received);
    };
    assert!([200, 400, 413].contains(status) && is_json(body), "{status} {body}");
    let taken = usize::from(*status == 200);
    let message = &machine.wire(client).received[before..];
    assert_eq!(message.len(), taken, "{message:?}");
    for message in message {
        assert!(matches!(message, Received::Text(text) if is_json(text)), "{message:?}");
    }
    machine.end();
}

/// By the parser that reads what is posted; others are stricter about halves of surrogate pairs,
/// which are passed on as they were written.
fn is_json(text: &str) -> bool {
    polycast::codec::raw::RawMembers::read(text).is_some()
}
