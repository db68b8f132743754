//! HTTP streams of clients that a proxy connects to an upstream's WebSocket, on one shard without a
//! kernel.

use crate::bench::*;
use crate::machine::SWEEP_MS;
use crate::peer::{ClientReader, Received};
use polycast::ws::Opcode;

const CLIENT: usize = 0;
const UPSTREAM: usize = 1;
const LINES: &str = "text/plain";
const OCTETS: &str = "application/octet-stream";

/// The head of a request with a streamed body.
fn head(content_type: &str, fields: &str) -> Vec<u8> {
    format!(
        "POST /group?a=b HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n\
         Transfer-Encoding: chunked\r\n{fields}\r\n"
    )
    .into_bytes()
}

fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

fn bench() -> Bench {
    Bench::new("['ws://127.0.0.1:1001']", "stream = true")
}

/// Opens a stream and the WebSocket to its upstream. Returns the parser of the bytes sent to the
/// client.
fn linked(bench: &mut Bench, content_type: &str) -> ClientReader {
    let client = bench.open();
    bench.receive(client, &head(content_type, ""));
    bench.connected(UPSTREAM, Ok(()));
    let answer = answer(&bench.text(UPSTREAM), "");
    assert_eq!(bench.text(client), "", "the answer waits");
    bench.receive(UPSTREAM, &answer);
    let mut reader = ClientReader::default();
    let received = reader.hear(&bench.taken(client));
    assert!(matches!(received[..], [Received::Answer { status: 200, .. }]), "{received:?}");
    reader
}

fn received(bench: &mut Bench, reader: &mut ClientReader) -> Vec<Received> {
    let bytes = bench.taken(CLIENT);
    reader.hear(&bytes)
}

#[test]
fn proxy_stream_is_a_websocket_to_the_upstream() {
    let mut bench = bench();
    let client = bench.open();
    let fields = "Expect: 100-continue\r\nSec-WebSocket-Protocol: a, b\r\nCookie: c=d\r\n";
    let early = [head(LINES, fields), chunk(b"early\n")].concat();
    bench.receive(client, &early);
    bench.connected(UPSTREAM, Ok(()));
    let request = bench.text(UPSTREAM);
    assert!(request.starts_with("GET /group?a=b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nUpgrade: websocket\r\n"), "{request}");
    assert!(request.contains("\r\nSec-WebSocket-Protocol: a, b\r\n"), "{request}");
    assert!(request.contains("\r\nCookie: c=d\r\n"), "{request}");
    for none in ["Content-Type", "Transfer-Encoding", "Expect"] {
        assert!(!request.contains(none), "{none}: {request}");
    }
    assert_eq!(bench.text(client), "");
    let open = answer(&request, "Sec-WebSocket-Protocol: b\r\n");
    bench.receive(UPSTREAM, &[open, plain(Opcode::Text, b"first")].concat());
    let answered = bench.text(client);
    let (begun, answered) = answered.split_once("\r\n\r\n").expect("two heads");
    assert_eq!(begun, "HTTP/1.1 100 Continue");
    let (head, records) = answered.split_once("\r\n\r\n").expect("two heads");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.ends_with("\r\nConnection: close\r\nSec-WebSocket-Protocol: b"), "{head}");
    assert_eq!(records, "6\r\nfirst\n\r\n");
    assert_eq!(bench.replies(UPSTREAM), [Received::Text("early".into())]);
    let counters = &bench.counters;
    assert_eq!((counters.http_streams.get(), counters.http_requests.get()), (1, 1));
    assert_eq!(counters.upgrades.get(), 0);
}

#[test]
fn proxy_stream_records_are_messages_at_every_cut() {
    let body = [chunk(b"on"), chunk(b"e\ntwo\n\nthr"), chunk(b"ee"), chunk(b"")].concat();
    for cut in 0..=body.len() {
        let mut bench = bench();
        let mut reader = linked(&mut bench, LINES);
        bench.receive(CLIENT, &body[..cut]);
        bench.receive(CLIENT, &body[cut..]);
        let mut replies = bench.replies(UPSTREAM);
        // An empty line is a keep-alive in both directions.
        replies.retain(|received| *received != Received::Pong(Vec::new()));
        let text = |text: &str| Received::Text(text.to_owned());
        assert_eq!(replies, [text("one"), text("two"), text("three")], "{cut}");
        // A client that has ended its body still receives.
        bench.receive(UPSTREAM, &plain(Opcode::Text, b"still"));
        assert_eq!(received(&mut bench, &mut reader), [text("still")]);
    }
}

/// A client that accepts server-sent events gets the messages of the upstream's WebSocket, and
/// sends nothing.
#[test]
fn proxy_stream_events_are_messages_of_the_upstream() {
    let mut bench = bench();
    let client = bench.open();
    let accept = "Accept: text/event-stream\r\nLast-Event-ID: 1\r\n";
    let request = format!("GET /group?a=b HTTP/1.1\r\nHost: localhost\r\n{accept}\r\n");
    bench.receive(client, request.as_bytes());
    bench.connected(UPSTREAM, Ok(()));
    let request = bench.text(UPSTREAM);
    assert!(request.starts_with("GET /group?a=b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nUpgrade: websocket\r\n"), "{request}");
    assert_eq!(bench.text(client), "", "the answer waits");
    let open = answer(&request, "");
    bench.receive(UPSTREAM, &[open, plain(Opcode::Text, b"one\r\ntwo")].concat());
    let mut reader = ClientReader::default();
    let mut begun = reader.hear(&bench.taken(client)).into_iter();
    assert!(matches!(begun.next(), Some(Received::Answer { status: 200, .. })));
    assert_eq!(begun.next(), Some(Received::Start("1000".to_owned())));
    assert_eq!(begun.next(), Some(Received::Text("one\ntwo".to_owned())));
    assert_eq!((begun.next(), bench.counters.event_streams.get()), (None, 1));
    bench.receive(client, b"POST / HTTP/1.1\r\n\r\n");
    bench.receive(UPSTREAM, &plain(Opcode::Binary, b"x"));
    assert_eq!(bench.replies(UPSTREAM), []);
    assert_eq!(bench.counters.http_streams_unsaid.get(), 1);
    bench.receive(UPSTREAM, &plain(Opcode::Close, b"\x0f\xa0enough"));
    let end = Received::End("Polycast-Close: 4000 enough".to_owned());
    assert_eq!(received(&mut bench, &mut reader), [end]);
}

#[test]
fn proxy_stream_writes_records_of_both_message_kinds() {
    let mut bench = bench();
    let mut reader = linked(&mut bench, OCTETS);
    bench.receive(CLIENT, &chunk(b"\0\0\0\x02\0\xff\0\0\0\0"));
    let binary = |bytes: &[u8]| Received::Binary(bytes.to_vec());
    assert_eq!(bench.replies(UPSTREAM), [binary(&[0, 255]), binary(&[])]);
    bench.receive(UPSTREAM, &plain(Opcode::Binary, &[0, 255]));
    bench.receive(UPSTREAM, &plain(Opcode::Text, b"text"));
    assert_eq!(received(&mut bench, &mut reader), [binary(&[0, 255]), binary(b"text")]);
    assert_eq!(bench.counters.http_streams_unsaid.get(), 0);
    let mut bench = self::bench();
    let mut reader = linked(&mut bench, LINES);
    bench.receive(UPSTREAM, &plain(Opcode::Binary, &[0, 255]));
    bench.receive(UPSTREAM, &plain(Opcode::Text, b"two\nlines"));
    assert_eq!(received(&mut bench, &mut reader), []);
    assert_eq!(bench.counters.http_streams_unsaid.get(), 2);
}

#[test]
fn proxy_stream_answers_pings_and_drops_pongs_of_the_upstream() {
    let mut bench = bench();
    let mut reader = linked(&mut bench, LINES);
    bench.receive(UPSTREAM, &plain(Opcode::Ping, b"there?"));
    bench.receive(UPSTREAM, &plain(Opcode::Pong, b"unasked"));
    assert_eq!(bench.replies(UPSTREAM), [Received::Pong(b"there?".to_vec())]);
    assert_eq!(received(&mut bench, &mut reader), []);
}

#[test]
fn proxy_stream_sends_heartbeats_to_both_sides() {
    let mut bench = bench();
    let mut reader = linked(&mut bench, LINES);
    bench.wait(120_000);
    bench.receive(UPSTREAM, &plain(Opcode::Pong, b"\0polycast"));
    let alive = received(&mut bench, &mut reader);
    assert!(!alive.is_empty() && alive.iter().all(|it| *it == Received::Alive), "{alive:?}");
    assert_eq!(bench.replies(UPSTREAM), [Received::Ping(b"\0polycast".to_vec())]);
    assert!(bench.wires[CLIENT].slot.is_some());
}

#[test]
fn proxy_stream_ends_with_the_upstreams_close() {
    for (payload, code, reason, trailer) in [
        (close(4321, "bye"), Some(4321), "", "Polycast-Close: 4321 bye"),
        (close(1000, ""), Some(1000), "", "Polycast-Close: 1000"),
        (Vec::new(), None, "", ""),
    ] {
        let mut bench = bench();
        let mut reader = linked(&mut bench, LINES);
        bench.receive(UPSTREAM, &plain(Opcode::Text, b"last"));
        bench.receive(UPSTREAM, &plain(Opcode::Close, &payload));
        let last = Received::Text("last".into());
        assert_eq!(received(&mut bench, &mut reader), [last, Received::End(trailer.to_owned())]);
        assert_eq!(bench.replies(UPSTREAM), [Received::Close(code, reason.to_owned())]);
        assert!(bench.wires[CLIENT].shut && !bench.wires[UPSTREAM].shut, "servers end first");
        // Later records of the client are discarded.
        bench.receive(CLIENT, &chunk(b"late\n"));
        assert_eq!(bench.replies(UPSTREAM), []);
        bench.eof(CLIENT);
        bench.eof(UPSTREAM);
        bench.check_empty();
    }
}

#[test]
fn proxy_stream_client_that_leaves_closes_upstream_with_1001() {
    for whole in [true, false] {
        let mut bench = bench();
        let mut reader = linked(&mut bench, LINES);
        bench.receive(CLIENT, &chunk(b"a\n"));
        if whole {
            bench.receive(CLIENT, &chunk(b""));
        }
        bench.eof(CLIENT);
        let ending = Received::Close(Some(1001), "the client has gone".into());
        assert_eq!(bench.replies(UPSTREAM), [Received::Text("a".into()), ending]);
        let end = if whole { vec![Received::End(String::new())] } else { vec![] };
        assert_eq!(received(&mut bench, &mut reader), end);
        bench.receive(UPSTREAM, &plain(Opcode::Close, &close(1001, "")));
        bench.eof(UPSTREAM);
        bench.check_empty();
    }
}

#[test]
fn proxy_stream_upstream_that_leaves_is_1014() {
    let mut bench = bench();
    let mut reader = linked(&mut bench, LINES);
    bench.eof(UPSTREAM);
    let end = Received::End("Polycast-Close: 1014 the upstream has gone".into());
    assert_eq!(received(&mut bench, &mut reader), [end]);
    bench.eof(CLIENT);
    bench.check_empty();
}

#[test]
fn proxy_stream_malformed_body_is_the_clients_fault() {
    for (content_type, body, trailer) in [
        (LINES, b"zz\r\n".to_vec(), "Polycast-Close: 1002 "),
        (LINES, chunk(b"\xff\n"), "Polycast-Close: 1007 "),
        (OCTETS, chunk(b"\xff\xff\xff\xfe"), "Polycast-Close: 1009 "),
    ] {
        let mut bench = bench();
        let mut reader = linked(&mut bench, content_type);
        bench.receive(CLIENT, &body);
        let received = received(&mut bench, &mut reader);
        let [Received::End(end)] = &received[..] else { panic!("{received:?}") };
        assert!(end.starts_with(trailer), "{end}");
        let ending = Received::Close(Some(1001), "the client has gone".into());
        assert_eq!(bench.replies(UPSTREAM), [ending]);
        bench.eof(CLIENT);
        bench.eof(UPSTREAM);
        bench.check_empty();
    }
}

#[test]
fn proxy_stream_without_upstream_answers_the_reason() {
    for (upstreams_answer, want) in
        [("HTTP/1.1 403 No\r\n\r\n", "HTTP/1.1 403 "), ("HTTP/1.1 500 No\r\n\r\n", "HTTP/1.1 502 ")]
    {
        let mut bench = bench();
        let client = bench.open();
        bench.receive(client, &[head(LINES, ""), chunk(b"unheard\n")].concat());
        bench.connected(UPSTREAM, Ok(()));
        bench.receive(UPSTREAM, upstreams_answer.as_bytes());
        let received = bench.text(client);
        assert!(
            received.starts_with(want) && received.contains("\r\nConnection: close\r\n"),
            "{received}"
        );
        let counters = &bench.counters;
        assert_eq!((counters.http_requests.get(), counters.http_errors.get()), (1, 1));
        assert_eq!(counters.http_streams.get(), 0);
        bench.eof(client);
        bench.check_empty();
    }
    // The server dials no upstream for a request that no upstream could take.
    let mut bench = bench();
    let client = bench.open();
    bench.receive(client, &head("application/json", ""));
    assert!(bench.text(client).starts_with("HTTP/1.1 415 "));
    bench.shard.drain();
    let late = bench.open();
    bench.receive(late, &head(LINES, ""));
    assert!(bench.text(late).starts_with("HTTP/1.1 503 "));
    let counters = &bench.counters;
    assert_eq!((counters.http_requests.get(), counters.http_errors.get()), (2, 2));
    assert_eq!(counters.proxy_dials.get(), 0);
}

#[test]
fn proxy_stream_drain_ends_the_stream_and_closes_the_upstream() {
    let mut bench = bench();
    let mut reader = linked(&mut bench, LINES);
    bench.shard.drain();
    bench.wait(SWEEP_MS);
    let end = Received::End("Polycast-Close: 1001 the server is shutting down".into());
    assert_eq!(received(&mut bench, &mut reader), [end]);
    let down = Received::Close(Some(1001), "the server is shutting down".into());
    assert_eq!(bench.replies(UPSTREAM), [down]);
    bench.receive(UPSTREAM, &plain(Opcode::Close, &close(1001, "")));
    bench.eof(UPSTREAM);
    bench.eof(CLIENT);
    bench.check_empty();
}

/// One side sends as fast as it may while the other does not read: the buffered bytes are bounded,
/// and arrive in order when the other side reads again.
#[test]
fn proxy_stream_each_side_pauses_the_other() {
    for (from, to) in [(CLIENT, UPSTREAM), (UPSTREAM, CLIENT)] {
        const LEN: usize = 1000;
        let mut bench = bench();
        let mut reader = linked(&mut bench, LINES);
        let message = |number: usize| format!("{number:0>LEN$}");
        let mut number = 0;
        for _ in 0..10 {
            bench.wires[to].stalled = true;
            let before = number;
            while bench.wires[from].reads {
                let bytes = match from {
                    CLIENT => chunk(format!("{}\n", message(number)).as_bytes()),
                    _ => plain(Opcode::Text, message(number).as_bytes()),
                };
                bench.receive(from, &bytes);
                number += 1;
                assert!((number - before) * LEN <= 2 * BUFFER + 2 * LEN, "{number} are held");
            }
            assert!((number - before) * LEN > BUFFER / 2);
            bench.flow(to);
            assert!(bench.wires[from].reads);
        }
        let received = match to {
            CLIENT => received(&mut bench, &mut reader),
            _ => bench.replies(to),
        };
        let want: Vec<_> = (0..number).map(|number| Received::Text(message(number))).collect();
        assert!(received == want, "{} of {number}", received.len());
    }
}

#[test]
fn proxy_stream_body_of_known_length_ends_while_the_client_still_receives() {
    let mut bench = bench();
    let client = bench.open();
    let head =
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\n";
    bench.receive(client, format!("{head}one\ntwo").as_bytes());
    bench.connected(UPSTREAM, Ok(()));
    let answer = answer(&bench.text(UPSTREAM), "");
    bench.receive(UPSTREAM, &answer);
    let text = |text: &str| Received::Text(text.to_owned());
    assert_eq!(bench.replies(UPSTREAM), [text("one"), text("two")]);
    bench.receive(UPSTREAM, &plain(Opcode::Text, b"three"));
    let mut reader = ClientReader::default();
    let received = received(&mut bench, &mut reader);
    assert!(
        matches!(&received[..], [Received::Answer { .. }, Received::Text(it)] if it == "three")
    );
}

#[test]
fn proxy_stream_early_data_reaches_the_upstream_once() {
    let upstreams = "['ws://127.0.0.1:1001', 'ws://127.0.0.1:1002']";
    let mut bench = Bench::new(upstreams, "stream = true");
    let client = bench.open();
    bench.receive(client, &[head(LINES, ""), chunk(b"one\ntw")].concat());
    bench.connected(1, Ok(()));
    bench.receive(1, b"HTTP/1.1 500 No\r\n\r\n");
    bench.connected(2, Ok(()));
    let answer = answer(&bench.text(2), "");
    bench.receive(2, &answer);
    bench.receive(client, &chunk(b"o\n"));
    assert_eq!(bench.replies(2), [Received::Text("one".into()), Received::Text("two".into())]);
    assert_eq!(bench.counters.http_streams.get(), 1);
}

#[test]
fn models_hold_in_both_directions() {
    let models = |on_invalid: &str| {
        format!(
            "stream = true\nmodel.received.text = {{ model = 'int32' }}\n\
             model.sent.text = {{ model = 'int32' }}\nmodel.on_invalid = '{on_invalid}'"
        )
    };
    let new = |on_invalid| Bench::new("['ws://127.0.0.1:1001']", &models(on_invalid));
    for from in [CLIENT, UPSTREAM] {
        let mut bench = new("close");
        let mut reader = linked(&mut bench, LINES);
        bench.receive(CLIENT, &chunk(b"1\n"));
        bench.receive(UPSTREAM, &plain(Opcode::Text, b"2"));
        match from {
            CLIENT => bench.receive(CLIENT, &chunk(b"one\n")),
            _ => bench.receive(UPSTREAM, &plain(Opcode::Text, b"two")),
        }
        let received = received(&mut bench, &mut reader);
        let [Received::Text(two), Received::End(end)] = &received[..] else {
            panic!("{received:?}")
        };
        assert!(two == "2" && end.starts_with("Polycast-Close: 100"), "{end}");
        let ending = Received::Close(Some(1001), "the client has gone".into());
        assert_eq!(bench.replies(UPSTREAM), [Received::Text("1".into()), ending]);
        bench.receive(UPSTREAM, &plain(Opcode::Close, &close(1001, "")));
        bench.eof(UPSTREAM);
        bench.eof(CLIENT);
        bench.check_empty();
    }
    let mut bench = new("reply");
    let mut reader = linked(&mut bench, LINES);
    bench.receive(CLIENT, &chunk(b"one\n1\n"));
    let received = received(&mut bench, &mut reader);
    assert!(
        matches!(&received[..], [Received::Text(it)] if it.contains("\"error\"")),
        "{received:?}"
    );
    assert_eq!(bench.replies(UPSTREAM), [Received::Text("1".into())]);
}
