//! The Zenith dialect: the same conversation in three formats.

use crate::cores::{Core, Cores};
use crate::machine::{Machine, config};
use crate::peer::{ClientReader, Received, framed, handshake, ingest};
use fastrand::Rng;
use polycast::codec::json::Scratch;
use polycast::codec::value::{DecodeLimits, Value, decode, decode_json, encode};
use polycast::codec::{Format, value};
use polycast::time::Now;
use polycast::ws::Opcode;
use std::net::{Ipv4Addr, SocketAddr};

const CONFIG: &str = r#"
[zenith]
subscriptions_per_connection = 4
wrong_tokens_per_connection = 0
wrong_tokens_per_minute = 0
tokens = [
    { token = "T", user = "u", scopes = ["M"] },
    { token = "LESS", user = "u" },
    { token = "SOON", user = "u", scopes = ["M"], expires = "2025-10-09T08:53:40Z" },
]
services = [{ token = "SERVICE" }]
feeds = [{ name = "ASX", class = "Market" }]
topics = [
    { controller = "Market", kind = "Security", scope = "M" },
    { controller = "Market", kind = "Depth", retain = "log" },
    { controller = "Market", kind = "State", retain = "replace", strict = true },
    { controller = "Market", kind = "Query", reply = '{"a":[1,2.5,null,"x"]}' },
]
"#;

const PROTOCOLS: [&str; 3] = ["ZenithJson", "ZenithBson", "ZenithMsgPack"];

fn parse(json: &str) -> Value {
    let mut bytes = json.as_bytes().to_vec();
    decode_json(&mut bytes, &DecodeLimits::default(), &mut Scratch::default()).expect(json)
}

fn framed_in(format: Format, json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode(format, &parse(json), &mut out).expect("every format can say it");
    framed(if format.is_text() { Opcode::Text } else { Opcode::Binary }, &out)
}

/// A received message as JSON in a normalized form.
fn replies(format: Format, received: &Received) -> String {
    let mut payload = match received {
        Received::Text(text) if format.is_text() => text.clone().into_bytes(),
        Received::Binary(payload) if !format.is_text() => payload.clone(),
        Received::Answer { status, .. } => return status.to_string(),
        other => return format!("{other:?}"),
    };
    let value = decode(format, &mut payload, &DecodeLimits::default(), &mut Scratch::default());
    let mut out = Vec::new();
    value::encode_any(Format::Json, &value.expect("a container"), &mut out).expect("JSON");
    String::from_utf8(out).expect("UTF-8")
}

fn topic(rng: &mut Rng) -> &'static str {
    rng.choice(["Security!A", "Security!B", "Depth!A", "State", "Query", "NoSuch"]).unwrap_or("")
}

/// A random message of a client.
fn message(rng: &mut Rng) -> String {
    let topic = topic(rng);
    let confirm = if rng.bool() { r#","Confirm":true"# } else { "" };
    let number = match rng.u8(0..4) {
        0 => String::new(),
        1 => r#","TransactionID":1.5"#.to_owned(),
        _ => format!(r#","TransactionID":{}"#, rng.i32(-3..1000)),
    };
    let controller = rng.choice(["Market", "Market", "Market", "Nowhere"]).unwrap_or("");
    match rng.u8(0..12) {
        0..=3 => format!(
            r#"{{"Controller":"{controller}","Topic":"{topic}","Action":"Sub"{confirm}{number}}}"#
        ),
        4..=5 => format!(
            r#"{{"Controller":"{controller}","Topic":"{topic}","Action":"Unsub"{confirm}}}"#
        ),
        6 => format!(r#"{{"Controller":"{controller}","Topic":"{topic}"{number}}}"#),
        7 => {
            let token = rng.choice(["T", "LESS", "SOON", "wrong"]).unwrap_or("");
            let data = format!(r#"{{"Provider":"Bearer","AccessToken":"{token}"}}"#);
            format!(r#"{{"Controller":"Auth","Topic":"AuthToken","Data":{data}{number}}}"#)
        }
        8 => {
            let topic = rng.choice(["ServerInfo", "Feeds", "QueryConfigure"]).unwrap_or("");
            let action = if rng.bool() { r#","Action":"Sub""# } else { "" };
            format!(r#"{{"Topic":"{topic}"{action}{confirm}{number}}}"#)
        }
        9 => format!(
            r#"{{"Controller":"Auth","Topic":"Identify","Action":"{}"{confirm}}}"#,
            if rng.bool() { "Sub" } else { "Unsub" }
        ),
        10 => format!(r#"{{"Controller":"Market","Action":"Cancel"{number}}}"#),
        _ => format!(r#"{{"Controller":"Market","Topic":"Configure","Data":{{}}{number}}}"#),
    }
}

/// A random message that a back end publishes.
fn published(rng: &mut Rng) -> String {
    let (number, half) = (rng.i64(-5..1 << 40), f64::from(rng.i16(..)) / 2.0 + 0.25);
    let action = rng.choice(["Publish", "Publish", "Snapshot", "Clear", "End"]).unwrap_or("");
    let (topic, data) = match rng.u8(0..3) {
        0 => ("Security!A", format!(r#"{{"f{}":{number},"g":{half},"h":null}}"#, rng.u8(0..5))),
        1 => (
            "Depth!A",
            format!(r#"[{{"O":"{}","n":{number}}}]"#, rng.choice(["A", "C", "U"]).unwrap_or("A")),
        ),
        _ => ("State", format!(r#"[{number},{half},"é\u0000",{{"":[]}}]"#)),
    };
    format!(r#"{{"Controller":"Market","Topic":"{topic}","Action":"{action}","Data":{data}}}"#)
}

#[test]
fn zenith_conversation_is_the_same_in_each_format() {
    let mut received = 0;
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        let mut machine = Machine::new(config(CONFIG));
        let wires: Vec<usize> = (0..3).map(|_| machine.open()).collect();
        let backend = machine.open();
        for (wire, protocol) in wires.iter().zip(PROTOCOLS) {
            let fields = format!("Sec-WebSocket-Protocol: {protocol}\r\n");
            machine.receive(*wire, &handshake("/Zenith", &fields));
        }
        for _ in 0..120 {
            match rng.u8(0..10) {
                0..=2 => {
                    let body = published(&mut rng);
                    machine.receive(backend, &ingest("SERVICE", body.as_bytes()));
                }
                3 => machine.wait(500),
                _ => {
                    let json = message(&mut rng);
                    for (wire, format) in wires.iter().zip(Format::ALL) {
                        machine.receive(*wire, &framed_in(format, &json));
                    }
                }
            }
            let replies: Vec<Vec<String>> = wires
                .iter()
                .zip(Format::ALL)
                .map(|(wire, format)| {
                    let received = std::mem::take(&mut machine.wire(*wire).received);
                    received.iter().map(|received| replies(format, received)).collect()
                })
                .collect();
            received += replies[0].len();
            assert_eq!(replies[0], replies[1], "seed {seed}: BSON");
            assert_eq!(replies[0], replies[2], "seed {seed}: MessagePack");
        }
        machine.end();
    }
    assert!(received > 2000, "only {received} messages");
}

#[test]
fn zenith_binary_calls_are_answered_in_binary() {
    // JavaScript encoders write numbers as int32, int64 or double; all mean the same number.
    let bson = [
        "2500000002546f70696300020000005400105472616e73616374696f6e4944000100000000",
        "2900000002546f70696300020000005400125472616e73616374696f6e494400010000000000000000",
        "2900000002546f70696300020000005400015472616e73616374696f6e494400000000000000f03f00",
    ];
    let mut answers = Vec::new();
    for (at, hex) in bson.iter().enumerate() {
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
            .collect();
        let mut machine = Machine::new(config(CONFIG));
        let wire = machine.open();
        let fields = "Sec-WebSocket-Protocol: ZenithBson\r\n";
        machine.receive(wire, &handshake("/Zenith", fields));
        machine.receive(wire, &framed(Opcode::Binary, &bytes));
        let received = std::mem::take(&mut machine.wire(wire).received);
        answers.push(received.iter().map(|it| replies(Format::Bson, it)).collect::<Vec<_>>());
        assert_eq!(answers[at], answers[0], "{hex}");
    }
    assert_eq!(
        answers[0][1],
        concat!(
            r#"{"Controller":"Zenith","Topic":"T","Action":"Error","TransactionID":1,"#,
            r#""Data":"Operation.Unknown"}"#
        )
    );
}

#[test]
fn zenith_numbered_publish_is_confirmed_once_ordered() {
    let mut cores = Cores::new(config(CONFIG), 2, 1, 64, usize::MAX);
    let mut rng = fastrand::Rng::with_seed(1);
    let now = Now { ms: 1_000_000, unix_s: crate::machine::UNIX_S };
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
    let slot = cores[0].shard.open(0, peer, now);
    let mut reader = ClientReader::default();
    let mut hear = |core: &mut Core| core.read(slot, &mut reader, now);
    let open = handshake("/Zenith", "Authorization: Bearer SERVICE\r\n");
    cores[0].shard.receive(slot, &mut open.clone(), now);
    hear(&mut cores[0]);
    let (mut here, mut there) = (0, 0);
    for at in 0..64 {
        let head = format!(r#""Controller":"Market","Topic":"Security!{at}""#);
        let action = ["Publish", "Snapshot", "Clear", "End"][at % 4];
        let publish =
            format!(r#"{{{head},"Action":"{action}","TransactionID":{at},"Data":{{"a":1}}}}"#);
        let confirmation = [Received::Text(format!(r#"{{{head},"TransactionID":{at}}}"#))];
        cores[0].shard.receive(slot, &mut framed(Opcode::Text, publish.as_bytes()), now);
        let received = hear(&mut cores[0]);
        if cores[0].shard.mail().is_empty() {
            here += 1;
            assert_eq!(received, confirmation, "this core is the home");
            continue;
        }
        there += 1;
        assert_eq!(received, [], "{at}: its home has not heard of it");
        cores.deliver_all(&mut rng, now);
        assert_eq!(hear(&mut cores[0]), confirmation);
    }
    assert!(here > 8 && there > 8, "{here} here, {there} there");
}

#[test]
fn zenith_counts_answers_without_a_call() {
    let mut machine = Machine::new(config(CONFIG));
    let [backend, client] = [machine.open(), machine.open()];
    let fields = "Authorization: Bearer SERVICE\r\n";
    machine.receive(backend, &handshake("/Zenith", fields));
    machine.receive(client, &handshake("/Zenith", ""));
    let mut say = |wire, json: &str, late: u64| {
        machine.receive(wire, &framed_in(Format::Json, json));
        assert_eq!(machine.counters.backend_answers_late.get(), late, "{json}");
    };
    say(backend, r#"{"Action":"Register","Data":{"Controllers":["News"]}}"#, 0);
    let (call, answer) =
        (r#"{"Controller":"News","Topic":"Q","TransactionID":7}"#, |number: u32| {
            format!(r#"{{"Controller":"News","Topic":"Q","TransactionID":{number}}}"#)
        });
    say(client, call, 0);
    say(backend, &answer(1), 0);
    say(backend, &answer(1), 1); // A repeated answer.
    say(backend, &answer(2), 2); // An answer without a call.
    say(client, call, 2);
    say(client, r#"{"Controller":"News","Action":"Cancel","TransactionID":7}"#, 2);
    say(backend, r#"{"Controller":"News","Action":"Error","TransactionID":2,"Data":"x"}"#, 3);
}

/// The close code that answers a message, or `None` if the connection stays open.
fn closed_with(config_text: &str, format: Format, payload: &[u8]) -> Option<u16> {
    let mut machine = Machine::new(config(config_text));
    let wire = machine.open();
    let fields = format!("Sec-WebSocket-Protocol: {}\r\n", PROTOCOLS[format.index()]);
    machine.receive(wire, &handshake("/Zenith", &fields));
    machine.wire(wire).received.clear();
    let opcode = if format.is_text() { Opcode::Text } else { Opcode::Binary };
    machine.receive(wire, &framed(opcode, payload));
    match machine.wire(wire).received.remove(0) {
        Received::Close(code, _) => code,
        other => {
            assert!(replies(format, &other).contains("Operation.Unknown"), "{other:?}");
            None
        }
    }
}

fn encoded(format: Format, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value::encode_any(format, value, &mut out).expect("it can be written");
    out
}

/// An envelope without a topic, with this data.
fn with_data(data: Value) -> Value {
    Value::map([("Controller", Value::text("Zenith")), ("Data", data)])
}

/// Nested maps and lists of the given depth, which counts the envelope.
fn nested(depth: usize) -> Value {
    let inside = (2..depth).fold(Value::Array(Vec::new()), |inside, at| match at % 2 {
        0 => Value::Array(vec![inside]),
        _ => Value::map([("a", inside)]),
    });
    with_data(inside)
}

#[test]
fn zenith_bounds_messages_on_both_sides_in_each_format() {
    for format in Format::ALL {
        let close = |value: &Value| closed_with("[zenith]", format, &encoded(format, value));
        assert_eq!(close(&nested(64)), None, "{format:?}");
        assert_eq!(close(&nested(65)), Some(1007), "{format:?}");
        assert_eq!(close(&nested(1000)), Some(1007), "{format:?}");
        // The envelope, the controller and the list count, too.
        let list = |values: usize| with_data(Value::Array(vec![Value::Null; values - 3]));
        assert_eq!(close(&list(128 * 1024)), None, "{format:?}");
        assert_eq!(close(&list(128 * 1024 + 1)), Some(1007), "{format:?}");
        let text = |len: usize| encoded(format, &with_data(Value::text(&"x".repeat(len))));
        let long = |len: usize| (0..len).map(text).find(|it| it.len() == len).expect("one");
        let short = "[zenith]\nmessage_bytes = 1024";
        assert_eq!(closed_with(short, format, &long(1024)), None, "{format:?}");
        assert_eq!(closed_with(short, format, &long(1025)), Some(1009), "{format:?}");
    }
}

#[test]
fn zenith_refuses_cut_messages_and_repeated_keys_in_each_format() {
    let text = Value::text;
    for format in Format::ALL {
        let close = |payload: &[u8]| closed_with("[zenith]", format, payload);
        let whole = encoded(format, &with_data(Value::Array(vec![text("x"), Value::Int(300)])));
        assert_eq!(close(&whole), None, "{format:?}");
        for at in 0..whole.len() {
            assert_eq!(close(&whole[..at]), Some(1007), "{format:?}, {at} of {}", whole.len());
        }
        assert_eq!(close(&[&whole[..], b"}"].concat()), Some(1007), "{format:?}");
        let twice = |len: usize, last: usize| {
            let keys = (0..len).chain([last]).map(|at| (format!("k{at}").into(), text("")));
            Value::Map(keys.collect())
        };
        // Few keys are compared with each other; many are looked up in a set.
        for len in [1, 15, 16, 17, 40] {
            assert_eq!(close(&encoded(format, &twice(len, len))), None, "{format:?}, {len}");
            for map in [twice(len, 0), with_data(Value::Array(vec![twice(len, len - 1)]))] {
                assert_eq!(close(&encoded(format, &map)), Some(1007), "{format:?}, {len}");
            }
        }
        let known = Value::Map(vec![
            ("Topic".into(), text("a")),
            ("More".into(), text("")),
            ("Topic".into(), text("a")),
        ]);
        assert_eq!(close(&encoded(format, &known)), Some(1007), "{format:?}");
        // Messages whose value is not a map, and a null value.
        for value in [Value::Array(Vec::new()), text("x"), Value::Int(1), Value::Null] {
            if format != Format::Bson {
                assert_eq!(close(&encoded(format, &value)), Some(1007), "{format:?} {value:?}");
            }
        }
    }
}

#[test]
fn zenith_refuses_types_that_not_all_formats_have() {
    // A document with the single member `a` of this type and with these bytes.
    let bson = |kind: u8, value: &[u8]| {
        let len = (4 + 3 + value.len() + 1) as u32;
        [&len.to_le_bytes()[..], &[kind, b'a', 0], value, &[0]].concat()
    };
    let close = |payload: &[u8]| closed_with("[zenith]", Format::Bson, payload);
    for (kind, value) in [(0x0a, &[][..]), (0x08, &[1]), (0x09, &[0; 8]), (0x12, &[7; 8])] {
        assert_eq!(close(&bson(kind, value)), None, "{kind:#x}");
    }
    for (kind, value) in [
        (0x00, &[][..]),
        (0x06, &[]),
        (0x07, &[1; 12]),
        (0x0b, b"x\0i\0"),
        (0x0d, b"\x02\0\0\0x\0"),
        (0x11, &[0; 8]),
        (0x20, &[]),
        (0x7f, &[]),
        (0xff, &[]),
        (0x08, &[2]),
        (0x01, &f64::NAN.to_le_bytes()),
        (0x01, &f64::INFINITY.to_le_bytes()),
        (0x02, b"\x02\0\0\0\xff\0"),
    ] {
        assert_eq!(close(&bson(kind, value)), Some(1007), "{kind:#x} {value:?}");
    }
    let close =
        |value: &[u8]| closed_with("[zenith]", Format::MsgPack, &[b"\x81\xa1a", value].concat());
    for value in [&b"\xc0"[..], b"\xcc\xff", b"\xd6\xff\0\0\0\0", b"\xc4\x01x"] {
        assert_eq!(close(value), None, "{value:x?}");
    }
    for value in [
        &b"\xc1"[..],
        b"\xd4\x05x",
        b"\xc7\x01\x05x",
        b"\x81\x01\x01",
        b"\x81\xc0\x01",
        b"\xa1\xff",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
    ] {
        assert_eq!(close(value), Some(1007), "{value:x?}");
    }
    let close = |text: &str| closed_with("[zenith]", Format::Json, text.as_bytes());
    assert_eq!(close(r#"{"a":[1.5,-0,1e308,"\ud83d\ude00",true,null]}"#), None);
    for text in [
        "",
        " ",
        "{",
        "{'a':1}",
        r#"{"a":NaN}"#,
        r#"{"a":1e309}"#,
        r#"{"a":01}"#,
        r#"{"a":1,}"#,
        r#"{"a":"\ud83d"}"#,
        r#"{"a\u0000":1}"#,
        "{\"a\":\"\u{1}\"}",
    ] {
        assert_eq!(close(text), Some(1007), "{text}");
    }
}
