//! Proxied connections on one shard without a kernel: the bound of buffered bytes, the order of
//! messages, and that no state is left.

use crate::bench::*;
use crate::machine::{SWEEP_MS, common, config};
use crate::peer::{ClientReader, Received, framed, handshake, text};
use polycast::shard::Shard;
use polycast::work::{CONNECTION_BYTES, CONNECTION_MESSAGES};
use polycast::ws::Opcode;

const CLIENT: usize = 0;
const ONE: &str = "['ws://127.0.0.1:1001']";
const TWO: &str = "['ws://127.0.0.1:1001', 'ws://127.0.0.1:1002']";

#[test]
fn proxy_passes_messages_and_control_frames_unchanged() {
    let mut bench = Bench::new(ONE, "");
    let (client, upstream) = bench.pair();
    let mut fragments = vec![0x01, 0x83, 0, 0, 0, 0];
    fragments.extend_from_slice(b"one");
    bench.receive(client, &fragments);
    bench.receive(client, &framed(Opcode::Ping, b"p"));
    bench.receive(client, &[0x80, 0x83, 0, 0, 0, 0, b'T', b'w', b'o']);
    bench.receive(client, &framed(Opcode::Binary, &[0, 255]));
    bench.receive(client, &framed(Opcode::Pong, b"unasked"));
    let replies = bench.replies(upstream);
    let binary = Received::Binary(vec![0, 255]);
    let (ping, pong) = (Received::Ping(b"p".to_vec()), Received::Pong(b"unasked".to_vec()));
    assert_eq!(replies, [ping, Received::Text("oneTwo".into()), binary.clone(), pong.clone()]);
    assert_eq!(bench.received(client), [], "a ping is answered by who it is for");
    for (opcode, payload) in [
        (Opcode::Pong, &b"p"[..]),
        (Opcode::Text, b"hello"),
        (Opcode::Binary, &[0, 255]),
        (Opcode::Ping, b"up"),
    ] {
        bench.receive(upstream, &plain(opcode, payload));
    }
    let received = bench.received(client);
    let (pong, ping) = (Received::Pong(b"p".to_vec()), Received::Ping(b"up".to_vec()));
    assert_eq!(received, [pong, Received::Text("hello".into()), binary, ping]);
    let counters = &bench.counters;
    assert_eq!((counters.proxy_sent.get(), counters.proxy_sent_bytes.get()), (2, 8));
    assert_eq!((counters.proxy_received.get(), counters.proxy_received_bytes.get()), (2, 7));
}

#[test]
fn proxy_masks_differ_from_frame_to_frame() {
    let mut bench = Bench::new(ONE, "");
    let (client, upstream) = bench.pair();
    for _ in 0..8 {
        bench.receive(client, &text("a"));
    }
    let bytes = bench.taken(upstream);
    let mut masks: Vec<&[u8]> = bytes.chunks(7).map(|frame| &frame[2..6]).collect();
    masks.sort();
    masks.dedup();
    assert!(masks.len() >= 7, "{masks:?}");
}

#[test]
fn proxy_early_data_waits_for_the_101() {
    let mut bench = Bench::new(ONE, "");
    let client = bench.open();
    let early = [handshake("/", ""), text("early")].concat();
    bench.receive(client, &early);
    assert!(!bench.wires[client].reads, "nothing more is read");
    bench.connected(1, Ok(()));
    let answer = answer(&bench.text(1), "");
    bench.receive(1, &[answer, plain(Opcode::Text, b"first")].concat());
    let bytes = bench.taken(client);
    let mut reader = ClientReader::default();
    let received = reader.hear(&bytes);
    assert!(
        matches!(received[..], [Received::Answer { status: 101, .. }, Received::Text(_)]),
        "{received:?}"
    );
    assert_eq!(bench.replies(1), [Received::Text("early".into())]);
    assert!(bench.wires[client].reads);
}

#[test]
fn proxy_reads_responses_at_every_cut() {
    let whole = |bench: &mut Bench| {
        let client = bench.open();
        let offer = "Sec-WebSocket-Protocol: a, b\r\n";
        bench.receive(client, &handshake("/", offer));
        let upstream = bench.wires.len() - 1;
        bench.connected(upstream, Ok(()));
        let request = bench.text(upstream);
        assert!(request.contains("\r\nSec-WebSocket-Protocol: a, b\r\n"), "{request}");
        let early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".as_bytes();
        let answer = answer(&request, "Sec-WebSocket-Protocol: b\r\n");
        let bytes = [early, &answer, &plain(Opcode::Text, b"hello")].concat();
        (client, upstream, bytes)
    };
    let len = whole(&mut Bench::new(ONE, "")).2.len();
    for cut in 0..=len {
        let mut bench = Bench::new(ONE, "");
        let (client, upstream, bytes) = whole(&mut bench);
        bench.receive(upstream, &bytes[..cut]);
        bench.receive(upstream, &bytes[cut..]);
        let text = bench.taken(client);
        let received = ClientReader::default().hear(&text);
        let [Received::Answer { status: 101, head, .. }, Received::Text(hello)] = &received[..]
        else {
            panic!("{cut}: {received:?}");
        };
        assert!(head.contains("Sec-WebSocket-Protocol: b\r\n") && hello == "hello", "{cut}");
    }
}

#[test]
fn proxy_bounds_the_response_head() {
    for (over, fine) in [(0, true), (1, false)] {
        let mut bench = Bench::new(ONE, "");
        let client = bench.open();
        bench.receive(client, &handshake("/", ""));
        bench.connected(1, Ok(()));
        let request = bench.text(1);
        let max = polycast::limits::HTTP_HEAD_BYTES;
        let pad = max - answer(&request, "X: \r\n").len() + over;
        let answer = answer(&request, &format!("X: {}\r\n", "x".repeat(pad)));
        assert_eq!(answer.len(), max + over);
        bench.receive(1, &answer);
        let status = bench.text(client)[9..12].to_owned();
        assert_eq!(status, if fine { "101" } else { "502" });
        assert_eq!(bench.counters.proxy_bad_answers.get(), over as u64);
    }
}

#[test]
fn proxy_tries_the_next_upstream_and_reports_the_last_failure() {
    let mut bench = Bench::new(TWO, "");
    let client = bench.open();
    bench.receive(client, &handshake("/", ""));
    let port = |bench: &Bench, at: usize| bench.wires[at].dialled.map(|it| it.port());
    assert_eq!(port(&bench, 1), Some(1001));
    bench.connected(1, Err(libc::ECONNREFUSED));
    assert_eq!(port(&bench, 2), Some(1002));
    assert_eq!(bench.text(client), "");
    bench.connected(2, Ok(()));
    bench.receive(2, b"HTTP/1.1 500 No\r\n\r\n");
    assert!(bench.text(client).starts_with("HTTP/1.1 502 "));
    let counters = &bench.counters;
    let counts = [&counters.proxy_dials, &counters.proxy_unreachable, &counters.proxy_refused];
    assert_eq!(counts.map(|it| it.get()), [2, 1, 1]);
    bench.eof(client);
    bench.check_empty();
}

#[test]
fn proxy_passes_client_errors_of_the_upstream_on_at_once() {
    let mut bench = Bench::new(TWO, "");
    let client = bench.open();
    bench.receive(client, &handshake("/", ""));
    bench.connected(1, Ok(()));
    bench.receive(1, b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\r\n");
    let answer = bench.text(client);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("\r\nWWW-Authenticate: Basic realm=\"x\"\r\n"), "{answer}");
    assert_eq!(bench.wires.len(), 2, "no other is tried");
    bench.eof(client);
    bench.check_empty();
}

/// The ports that the server dials for each of the next `clients` clients. The upstreams in
/// `answers` answer; the others refuse the connection.
fn ports(bench: &mut Bench, answers: &[(u16, &str)], clients: usize) -> Vec<Vec<u16>> {
    let one = |_| {
        let client = bench.open();
        bench.receive(client, &handshake("/", ""));
        let mut ports = Vec::new();
        let mut at = client + 1;
        while at < bench.wires.len() {
            let port = bench.wires[at].dialled.expect("an upstream").port();
            ports.push(port);
            match answers.iter().find(|(of, _)| *of == port) {
                None => bench.connected(at, Err(libc::ECONNREFUSED)),
                Some((_, text)) => {
                    bench.connected(at, Ok(()));
                    bench.receive(at, format!("HTTP/1.1 {text}\r\n\r\n").as_bytes());
                }
            }
            at += 1;
        }
        ports
    };
    (0..clients).map(one).collect()
}

#[test]
fn proxy_takes_a_failing_upstream_out_of_service() {
    let mut bench = Bench::new(TWO, "");
    let both = vec![1001, 1002];
    let tried = ports(&mut bench, &[(1002, "404 x")], 5);
    assert_eq!(tried, [both.clone(), both.clone(), both, vec![1002], vec![1002]]);
    assert_eq!(bench.counters.proxy_aside.get(), 1);
    // After `retry_ms` one client tries the upstream again.
    bench.wait(10_000);
    let tried = ports(&mut bench, &[(1002, "404 x")], 2);
    assert_eq!(tried, [vec![1001, 1002], vec![1002]]);
}

#[test]
fn proxy_client_errors_do_not_count_against_an_upstream() {
    for (answer, tried) in [("400 x", vec![1001]), ("500 x", vec![1001, 1002])] {
        let mut bench = Bench::new(TWO, "");
        let answers = [(1001, answer), (1002, "404 x")];
        assert_eq!(ports(&mut bench, &answers, 5), vec![tried; 5]);
        assert_eq!(bench.counters.proxy_aside.get(), 0);
    }
}

#[test]
fn proxy_unresolved_name_is_no_upstream() {
    let mut bench = Bench::new("['ws://a.example', 'ws://127.0.0.1:1001']", "");
    assert_eq!(ports(&mut bench, &[(1001, "404 x")], 1), [[1001]]);
    assert_eq!(bench.counters.proxy_unresolved.get(), 1);
    let mut bench = Bench::new("'ws://a.example'", "");
    let client = bench.open();
    bench.receive(client, &handshake("/", ""));
    assert!(bench.text(client).starts_with("HTTP/1.1 502 "));
}

#[test]
fn proxy_least_connections_counts_until_they_end() {
    let mut bench = Bench::new(TWO, "");
    let config = config(
        "[[routes]]\nendpoint = 'proxy'\n[routes.proxy]\nbalance = 'least-connections'\n\
         upstreams = ['ws://127.0.0.1:1001', 'ws://127.0.0.1:1002']\n",
    );
    bench.shard = Shard::new(0, &common(config, 1, 1, 64), bench.counters.clone());
    let (client, first) = bench.pair();
    let (_, second) = bench.pair();
    let port = |bench: &Bench, at: usize| bench.wires[at].dialled.expect("an address").port();
    assert_ne!(port(&bench, first), port(&bench, second));
    let (freed, busy) = (port(&bench, first), port(&bench, second));
    bench.close(client);
    bench.settle();
    let (_, third) = bench.pair();
    assert_eq!(port(&bench, third), freed, "{busy} has more");
}

#[test]
fn proxy_upstreams_have_connect_and_handshake_timeouts() {
    let mut bench = Bench::new(TWO, "");
    let client = bench.open();
    bench.receive(client, &handshake("/", ""));
    bench.wait(4750);
    assert_eq!(bench.wires.len(), 2, "connect_ms is not over");
    bench.wait(250);
    assert_eq!((bench.wires.len(), bench.wires[1].slot), (3, None));
    bench.connected(2, Ok(()));
    bench.receive(2, b"HTTP/1.1 101 ");
    bench.wait(9750);
    assert_eq!(bench.text(client), "", "handshake_ms is not over");
    bench.wait(250);
    assert!(bench.text(client).starts_with("HTTP/1.1 504 "));
    assert_eq!(bench.counters.proxy_timed_out.get(), 2);
    bench.eof(client);
    bench.check_empty();
}

#[test]
fn proxy_without_a_free_slot_answers_503() {
    let mut bench = Bench::new(TWO, "");
    let client = bench.open();
    let slot = bench.wires[client].slot.expect("it is there");
    bench.shard.receive(slot, &mut handshake("/", ""), bench.now);
    let dial = bench.shard.next_dial().expect("a dial");
    bench.shard.no_slot_for_dial(&dial, bench.now);
    bench.settle();
    assert!(bench.text(client).starts_with("HTTP/1.1 503 "));
    assert_eq!(bench.counters.proxy_no_slot.get(), 1);
    bench.eof(client);
    bench.check_empty();
}

#[test]
fn proxy_dials_nothing_for_a_client_that_no_longer_waits() {
    let mut bench = Bench::new(TWO, "");
    let clients = [(); 3].map(|()| bench.open());
    let slots = clients.map(|client| bench.wires[client].slot.expect("it is there"));
    for slot in slots {
        bench.shard.receive(slot, &mut handshake("/", ""), bench.now);
    }
    // One client has lost its connection, and that of another was removed.
    bench.shard.lost(slots[0]);
    bench.shard.close(slots[1]);
    bench.wires[clients[1]].slot = None;
    let dial = bench.shard.next_dial().expect("a dial");
    assert_eq!(dial.client, slots[2]);
    assert!(bench.shard.next_dial().is_none());
    bench.shard.no_slot_for_dial(&dial, bench.now);
    bench.settle();
    assert!(bench.text(clients[2]).starts_with("HTTP/1.1 503 "));
    bench.eof(clients[2]);
    bench.check_empty();
}

#[test]
fn proxy_passes_close_code_and_its_answer() {
    let codes: [(&[u8], Option<u16>, &str); 4] = [
        (&close(1000, "bye"), Some(1000), "bye"),
        (&close(4321, ""), Some(4321), ""),
        (&close(3000, "gr\u{fc}\u{df}e"), Some(3000), "gr\u{fc}\u{df}e"),
        (&[], None, ""),
    ];
    for (payload, code, reason) in codes {
        // The client starts the closing handshake.
        let mut bench = Bench::new(ONE, "");
        let (client, upstream) = bench.pair();
        bench.receive(client, &framed(Opcode::Close, payload));
        assert_eq!(bench.replies(upstream), [Received::Close(code, reason.to_owned())]);
        assert_eq!(bench.received(client), [], "the upstream's answer is awaited");
        bench.receive(upstream, &plain(Opcode::Text, b"last"));
        bench.receive(upstream, &plain(Opcode::Close, payload));
        let last = Received::Text("last".into());
        assert_eq!(bench.received(client), [last, Received::Close(code, reason.to_owned())]);
        assert!(bench.wires[client].shut && !bench.wires[upstream].shut, "servers end first");
        bench.eof(client);
        bench.eof(upstream);
        bench.check_empty();
        // The upstream starts the closing handshake.
        let mut bench = Bench::new(ONE, "");
        let (client, upstream) = bench.pair();
        bench.receive(upstream, &plain(Opcode::Close, payload));
        assert_eq!(bench.received(client), [Received::Close(code, reason.to_owned())]);
        bench.receive(client, &text("last"));
        bench.receive(client, &framed(Opcode::Close, payload));
        let last = Received::Text("last".into());
        assert_eq!(bench.replies(upstream), [last, Received::Close(code, reason.to_owned())]);
        bench.eof(upstream);
        bench.eof(client);
        bench.check_empty();
    }
}

#[test]
fn proxy_cuts_a_side_that_does_not_answer_a_close() {
    let mut bench = Bench::new(ONE, "");
    let (client, upstream) = bench.pair();
    bench.receive(client, &framed(Opcode::Close, &close(1000, "")));
    let _ = bench.replies(upstream);
    bench.wait(5000);
    assert_eq!(bench.wires[upstream].slot, None);
    let ending = Received::Close(Some(1014), "the upstream has gone".into());
    assert_eq!(bench.received(client), [ending]);
    bench.eof(client);
    bench.check_empty();
}

#[test]
fn proxy_end_without_close_is_1014_for_clients_and_1001_for_upstreams() {
    for reset in [false, true] {
        let mut bench = Bench::new(ONE, "");
        let (client, upstream) = bench.pair();
        match reset {
            true => bench.shard.lost(bench.wires[upstream].slot.expect("it is there")),
            false => bench.eof(upstream),
        }
        bench.settle();
        let ending = Received::Close(Some(1014), "the upstream has gone".into());
        assert_eq!(bench.received(client), [ending]);
        bench.receive(client, &framed(Opcode::Close, &close(1014, "")));
        bench.eof(client);
        bench.check_empty();
        let mut bench = Bench::new(ONE, "");
        let (client, upstream) = bench.pair();
        match reset {
            true => bench.shard.lost(bench.wires[client].slot.expect("it is there")),
            false => bench.eof(client),
        }
        bench.settle();
        let ending = Received::Close(Some(1001), "the client has gone".into());
        assert_eq!(bench.replies(upstream), [ending]);
        bench.receive(upstream, &plain(Opcode::Close, &close(1001, "")));
        bench.eof(upstream);
        bench.check_empty();
    }
}

#[test]
fn proxy_cancels_the_connect_of_a_lost_client() {
    let mut bench = Bench::new(TWO, "");
    let client = bench.open();
    bench.receive(client, &handshake("/", ""));
    bench.close(client);
    bench.settle();
    bench.check_empty();
    let client = bench.open();
    bench.receive(client, &handshake("/", ""));
    let upstream = bench.wires.len() - 1;
    bench.connected(upstream, Ok(()));
    bench.close(client);
    bench.settle();
    bench.check_empty();
    assert_eq!(bench.counters.proxy_dials.get(), 2);
}

#[test]
fn s5_1_proxy_masked_frame_of_an_upstream_is_1002() {
    let mut bench = Bench::new(ONE, "");
    let (client, upstream) = bench.pair();
    bench.receive(upstream, &text("masked"));
    let violation = Received::Close(Some(1002), "masked frame from a server".into());
    assert_eq!(bench.replies(upstream), [violation]);
    let ending = Received::Close(Some(1014), "the upstream has gone".into());
    assert_eq!(bench.received(client), [ending]);
}

#[test]
fn proxy_violation_of_the_client_is_not_the_upstreams() {
    let mut bench = Bench::new(ONE, "");
    let (client, upstream) = bench.pair();
    bench.receive(client, &plain(Opcode::Text, b"plain"));
    let violation = Received::Close(Some(1002), "frame without a mask".into());
    assert_eq!(bench.received(client), [violation]);
    let ending = Received::Close(Some(1001), "the client has gone".into());
    assert_eq!(bench.replies(upstream), [ending]);
}

#[test]
fn proxy_heartbeat_pings_each_side() {
    let mut bench = Bench::new(ONE, "");
    let (client, upstream) = bench.pair();
    bench.wait(120_000);
    let (asked, also) = (bench.received(client), bench.replies(upstream));
    let ([Received::Ping(liveness)], [Received::Ping(other)]) = (&asked[..], &also[..]) else {
        panic!("{asked:?} {also:?}");
    };
    bench.receive(client, &framed(Opcode::Pong, liveness));
    assert_eq!(bench.replies(upstream), [], "the answer is for the server");
    bench.receive(client, &framed(Opcode::Pong, liveness));
    assert_eq!(bench.replies(upstream), [Received::Pong(liveness.clone())], "this one is not");
    bench.receive(upstream, &plain(Opcode::Pong, other));
    assert_eq!(bench.received(client), []);
    bench.receive(upstream, &plain(Opcode::Text, b"alive"));
    let _ = bench.received(client);
    // From here on the client sends nothing.
    for _ in 0..16 {
        bench.wait(10_000);
        bench.receive(upstream, &plain(Opcode::Text, b"alive"));
    }
    let last = bench.received(client);
    let silent = Received::Close(Some(1001), "no sign of life".into());
    assert!(last.contains(&silent), "{last:?}");
    let ending = Received::Close(Some(1001), "the client has gone".into());
    assert_eq!(bench.replies(upstream).last(), Some(&ending));
}

#[test]
fn models_hold_in_both_directions() {
    let model = "model.received.text = { model = 'int32' }\nmodel.sent.text = { model = 'int32' }\n\
        model.on_invalid = 'close'";
    let mut bench = Bench::new(ONE, model);
    let (client, upstream) = bench.pair();
    bench.receive(client, &text("1"));
    bench.receive(upstream, &plain(Opcode::Text, b"2"));
    assert_eq!(bench.replies(upstream), [Received::Text("1".into())]);
    assert_eq!(bench.received(client), [Received::Text("2".into())]);
    bench.receive(upstream, &plain(Opcode::Text, b"two"));
    let received = bench.received(client);
    assert!(matches!(received[..], [Received::Close(Some(1007 | 1008), _)]), "{received:?}");
    let ending = Received::Close(Some(1001), "the client has gone".into());
    assert_eq!(bench.replies(upstream), [ending]);
    let mut bench = Bench::new(ONE, model);
    let (client, upstream) = bench.pair();
    bench.receive(client, &text("one"));
    let received = bench.received(client);
    assert!(matches!(received[..], [Received::Close(Some(1007 | 1008), _)]), "{received:?}");
    assert!(matches!(bench.replies(upstream)[..], [Received::Close(Some(1001), _)]));
}

#[test]
fn proxy_unread_refusals_pause_the_client() {
    let mut bench = Bench::new(ONE, "");
    let config = config(
        "[limits]\nmessage_bytes = 65536\nframe_bytes = 65536\nwrite_queue_bytes = '64KiB'\n\
         [[routes]]\nendpoint = 'proxy'\nmodel.received.text = { model = 'int32' }\n\
         model.on_invalid = 'reply'\n[routes.proxy]\nupstreams = ['ws://127.0.0.1:1001']\n\
         buffer_bytes = '4KiB'\n",
    );
    let max = (4 << 10) + 65_536 + (64 << 10) / 4;
    bench.shard = Shard::new(0, &common(config, 1, 1, 64), bench.counters.clone());
    let (client, upstream) = bench.pair();
    bench.wires[client].stalled = true;
    let mut refused = 0;
    while bench.wires[client].reads {
        bench.receive(client, &text("one"));
        refused += 1;
        assert!(refused < 10_000, "it goes on for ever");
    }
    bench.flow(client);
    let replies = bench.received(client);
    let bytes = replies.iter().map(|it| matches!(it, Received::Text(text) if !text.is_empty()));
    assert!(bytes.clone().all(|it| it));
    assert_eq!(replies.len(), refused);
    let len = match &replies[0] {
        Received::Text(text) => text.len() + 2,
        other => panic!("{other:?}"),
    };
    assert!((max..max + 2 * len).contains(&(refused * len)), "{refused} of {len}");
    bench.receive(client, &text("1"));
    assert_eq!(bench.replies(upstream), [Received::Text("1".into())], "it is read again");
}

#[test]
fn proxy_all_attempts_have_the_time_of_two() {
    let many = "['ws://127.0.0.1:1001', 'ws://127.0.0.1:1002', 'ws://127.0.0.1:1003', \
        'ws://127.0.0.1:1004', 'ws://127.0.0.1:1005', 'ws://127.0.0.1:1006', \
        'ws://127.0.0.1:1007', 'ws://127.0.0.1:1008']";
    let mut bench = Bench::new(many, "");
    let client = bench.open();
    bench.receive(client, &handshake("/", ""));
    bench.wait(29_750);
    assert_eq!(bench.text(client), "");
    bench.wait(250);
    assert!(bench.text(client).starts_with("HTTP/1.1 504 "));
    bench.eof(client);
    bench.wait(60_000);
    assert_eq!(bench.wires.len(), 1 + 6, "those that there was time for");
    assert_eq!((bench.counters.proxy_timed_out.get(), bench.counters.proxy_dials.get()), (5, 6));
    bench.check_empty();
}

#[test]
fn proxy_connect_during_drain_does_not_count_against_the_upstream() {
    let mut bench = Bench::new(ONE, "");
    // The upstream's slot is before the client's, so its slice of the drain comes first.
    let early = bench.open();
    let client = bench.open();
    bench.close(early);
    bench.receive(client, &handshake("/", ""));
    bench.shard.drain();
    bench.wait(2000);
    assert!(bench.text(client).starts_with("HTTP/1.1 503 "));
    assert_eq!(bench.counters.proxy_unreachable.get(), 0);
}

#[test]
fn proxy_drain_closes_both_sides_and_connects_no_more() {
    let mut bench = Bench::new(TWO, "");
    let (client, upstream) = bench.pair();
    let waiting = bench.open();
    bench.receive(waiting, &handshake("/", ""));
    bench.shard.drain();
    bench.wait(SWEEP_MS);
    let down = Received::Close(Some(1001), "the server is shutting down".into());
    assert_eq!(bench.received(client), std::slice::from_ref(&down));
    assert_eq!(bench.replies(upstream), [down]);
    assert!(bench.text(waiting).starts_with("HTTP/1.1 503 "));
    let late = bench.open();
    bench.receive(late, &handshake("/", ""));
    assert!(bench.text(late).starts_with("HTTP/1.1 503 "));
    bench.receive(client, &framed(Opcode::Close, &close(1001, "")));
    bench.receive(upstream, &plain(Opcode::Close, &close(1001, "")));
    for at in [client, upstream, waiting, late] {
        bench.eof(at);
    }
    bench.check_empty();
    assert_eq!(bench.counters.proxy_dials.get(), 2);
}

/// One side sends as fast as it may while the other does not read: the buffered bytes are bounded,
/// and arrive in order when the other side reads again.
fn check_stall(from: usize, to: usize) {
    const LEN: usize = 1000;
    const PIECE: usize = 700;
    let mut bench = Bench::new(ONE, "");
    let _ = bench.pair();
    bench.wires[to].stalled = true;
    let message = |number: usize| format!("{number:0>LEN$}").into_bytes();
    let opcode = Opcode::Text;
    let mut wire = Vec::new();
    for number in 0..64 {
        wire.extend(match from {
            CLIENT => framed(opcode, &message(number)),
            _ => plain(opcode, &message(number)),
        });
    }
    let mut at = 0;
    let mut pushed = Vec::new();
    for _ in 0..100 {
        let mut stopped = false;
        while at < wire.len() && !stopped {
            let end = (at + PIECE).min(wire.len());
            bench.receive(from, &wire[at..end]);
            at = end;
            stopped = !bench.wires[from].reads;
        }
        pushed.push(at);
        if stopped {
            // The unread bytes are at most the bound, one message and what arrived with that
            // message.
            let unread = bench.wires[to].kept.unwrap_or(0);
            assert!(unread > 0);
            let sent = bench.wires[to].sent.len() - unread;
            let held = at - sent.min(at);
            assert!(held <= BUFFER + LEN + PIECE + 16 * 8, "{held} bytes are held");
            assert!(held > BUFFER / 2, "{held} bytes are held already");
            bench.wait(1000);
            assert!(!bench.wires[from].reads, "the pause lasts as long as the stall");
        }
        if at == wire.len() && !stopped {
            break;
        }
        bench.flow(to);
        bench.wires[to].stalled = true;
    }
    assert!(pushed.len() > 64 * LEN / (2 * BUFFER), "it was paused again and again: {pushed:?}");
    bench.flow(to);
    let got = match to {
        CLIENT => bench.received(to),
        _ => bench.replies(to),
    };
    let want = (0..64).map(|n| Received::Text(String::from_utf8(message(n)).expect("text")));
    assert!(got == want.collect::<Vec<_>>(), "{} messages", got.len());
    assert!(bench.wires[from].reads && bench.wires[to].reads);
}

#[test]
fn proxy_stalled_upstream_pauses_the_client_and_loses_nothing() {
    check_stall(CLIENT, 1);
}

#[test]
fn proxy_stalled_client_pauses_the_upstream_and_loses_nothing() {
    check_stall(1, CLIENT);
}

/// The message that fills the client's queue also uses up its connection's share of a turn, so for
/// a moment the connection waits for both.
#[test]
fn proxy_stalled_client_pauses_the_upstream_that_waits_for_its_turn() {
    let mut bench = Bench::new(ONE, "");
    let (client, upstream) = bench.pair();
    bench.wires[client].stalled = true;
    let mut bytes = plain(Opcode::Text, b"a").repeat(CONNECTION_MESSAGES as usize);
    bytes.extend(plain(Opcode::Binary, &[7; CONNECTION_BYTES + BUFFER]));
    bytes.extend(plain(Opcode::Text, b"rest"));
    bench.receive(upstream, &bytes);
    assert!(!bench.wires[upstream].reads, "the client's queue is full");
    bench.flow(client);
    assert!(bench.wires[upstream].reads);
    let received = bench.received(client);
    assert_eq!(received.len(), CONNECTION_MESSAGES as usize + 2);
    assert_eq!(received.last(), Some(&Received::Text("rest".into())));
}

#[test]
fn proxy_stalled_side_can_still_send() {
    let mut bench = Bench::new(ONE, "");
    let (client, upstream) = bench.pair();
    bench.wires[upstream].stalled = true;
    while bench.wires[client].reads {
        bench.receive(client, &text(&"x".repeat(1000)));
    }
    bench.receive(upstream, &plain(Opcode::Text, b"heard"));
    assert_eq!(bench.received(client), [Received::Text("heard".into())]);
    assert!(bench.wires[upstream].reads);
    // An upstream that does not read at all is closed, and the client is notified.
    bench.wait(30_000);
    assert_eq!(bench.wires[upstream].slot, None);
    let ending = Received::Close(Some(1014), "the upstream has gone".into());
    assert_eq!(bench.received(client), [ending]);
    assert!(bench.wires[client].reads, "its close is awaited");
    bench.wait(5000);
    bench.check_empty();
}
