//! Text of any kind into an established connection; fields of every type.

use crate::machine::{Machine, config};
use crate::peer::{Heard, handshake, text};

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    let Ok(given) = str::from_utf8(rest) else { return };
    let given = given.replace('\u{0}', " ");
    let quoted = given.replace('\\', "\\\\").replace('"', "\\\"");
    let message = match shape % 8 {
        0 => format!(r#"{{"event":"pusher:subscribe","data":{given}}}"#),
        1 => format!(r#"{{"event":"pusher:subscribe","data":"{quoted}"}}"#),
        2 => format!(r#"{{"event":"pusher:subscribe","data":{{"channel":{given}}}}}"#),
        3 => {
            let data =
                format!(r#"{{"channel":"private-a","auth":{given},"channel_data":{given}}}"#);
            format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#)
        }
        4 if shape & 8 != 0 => {
            let data = format!(r#"{{"auth":{given},"user_data":{given}}}"#);
            format!(r#"{{"event":"pusher:signin","data":{data}}}"#)
        }
        4 => format!(r#"{{"event":"pusher:unsubscribe","data":{given}}}"#),
        5 => format!(r#"{{"event":{given},"data":{{}}}}"#),
        6 => format!(r#"{{"event":"client-e","channel":"a","data":{given}}}"#),
        _ => given,
    };
    let mut machine = Machine::new(config(""));
    let at = machine.open();
    machine.receive(at, &handshake("/app/app-key", ""));
    for _ in 0..2 {
        machine.receive(at, &text(&message));
    }
    machine.receive(at, &text(r#"{"event":"pusher:ping"}"#));
    let heard = &machine.wire(at).heard;
    // However odd the message was, the connection goes on, and all that is said is JSON; but for a
    // sign-in that is not signed, which closes.
    match heard.last() {
        Some(Heard::Text(text)) => assert!(text.contains("pusher:pong"), "{text}"),
        Some(Heard::Close(Some(4009), _)) => assert!(message.contains("pusher:"), "{message}"),
        other => panic!("{other:?}"),
    }
    for heard in &heard[1..] {
        let text = match heard {
            Heard::Text(text) => text,
            Heard::Close(Some(4009), _) => continue,
            other => panic!("{other:?}"),
        };
        let mut text = text.clone().into_bytes();
        assert!(simd_json::to_borrowed_value(&mut text).is_ok(), "{heard:?}");
    }
    machine.end();
}
