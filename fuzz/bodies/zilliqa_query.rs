//! Any query: an echo of the same bytes or an error in JSON, and the next epoch is sent to a client
//! that got an echo. A query for the epochs after a block that is not known ends the connection.

use crate::machine::{Machine, config};
use crate::peer::{Received, handshake, text};

const CONFIG: &str = "[zilliqa]\npublish_token = '0123456789abcdef'\n\
    [[routes]]\nendpoint = 'zilliqa'\n";
const EPOCH: &str = r#"{"TxBlock":{"header":{"BlockNum":"1"}},"TxHashes":[]}"#;

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    let Ok(given) = str::from_utf8(rest) else { return };
    let query = match shape % 4 {
        0 => format!(r#"{{"query":"EventLog","addresses":{given}}}"#),
        1 => format!(r#"{{"query":"TxnLog","addresses":[{given}]}}"#),
        2 => format!(r#"{{"query":"Unsubscribe","type":{given}}}"#),
        _ => given.to_owned(),
    };
    let wire = if shape & 4 == 0 { "" } else { "[zilliqa]\nwire = 'documented'\n" };
    let config = match wire {
        "" => config(CONFIG),
        wire => config(&CONFIG.replace("[zilliqa]\n", wire)),
    };
    let mut machine = Machine::new(config);
    let (client, publisher) = (machine.open(), machine.open());
    machine.receive(client, &handshake("/", ""));
    machine.receive(client, &text(&query));
    if query.len() > 65_536 {
        return;
    }
    let answers = &machine.wire(client).received[1..];
    if let Some(Received::Close(code, _)) = answers.last() {
        // The epochs after a block are asked for, and there are none yet.
        assert!(*code == Some(1001) && asks_for_epochs(&query), "{answers:?}");
        return machine.end();
    }
    let echoed = match answers {
        [] => false,
        [Received::Text(answer)] if *answer == query => true,
        [Received::Text(answer)] => {
            assert!(answer.starts_with(r#"{"type":"Error","error":""#), "{answer}");
            assert!(is_json(answer), "{answer}");
            false
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(answers.is_empty(), query.is_empty());
    let post = format!(
        "POST /epochs HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer 0123456789abcdef\r\n\
         Content-Length: {}\r\n\r\n{EPOCH}",
        EPOCH.len()
    );
    machine.receive(publisher, post.as_bytes());
    let message = &machine.wire(client).received[1 + usize::from(!query.is_empty())..];
    assert!(message.len() <= usize::from(echoed), "{message:?}");
    for message in message {
        assert!(matches!(message, Received::Text(text) if is_json(text)), "{message:?}");
    }
    machine.end();
}

/// Whether a query has the member `after`.
fn asks_for_epochs(query: &str) -> bool {
    use simd_json::prelude::ValueObjectAccess;
    let mut bytes = query.as_bytes().to_vec();
    simd_json::to_borrowed_value(&mut bytes).is_ok_and(|it| it.get("after").is_some())
}

fn is_json(text: &str) -> bool {
    simd_json::to_borrowed_value(&mut text.as_bytes().to_vec()).is_ok()
}
