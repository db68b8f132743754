//! The memory account of connections, with a simulated clock and simulated turns.

use crate::machine::{Machine, SWEEP_MS, config};
use crate::peer::{self, Received};
use polycast::config::Config;
use polycast::ws::Opcode;

const MIB: usize = 1 << 20;
/// The memory limit of a test's server, in bytes.
const SHARE: usize = 64 * MIB;

fn limited() -> Config {
    let mut config = config("");
    config.limits.memory_bytes = SHARE as u64;
    config
}

fn echo(machine: &mut Machine) -> usize {
    let at = machine.open();
    machine.receive(at, &peer::handshake("/echo", ""));
    let received = std::mem::take(&mut machine.wire(at).received);
    assert!(matches!(&received[..], [Received::Answer { status: 101, .. }]), "{received:?}");
    at
}

/// Opens a connection that does not read its echo of `bytes` bytes.
fn deaf_echo(machine: &mut Machine, bytes: usize) -> usize {
    let at = echo(machine);
    machine.wire(at).stalls = true;
    machine.receive(at, &peer::framed(Opcode::Binary, &vec![1; bytes]));
    at
}

fn is_served(machine: &mut Machine, at: usize) {
    machine.receive(at, &peer::framed(Opcode::Text, b"well"));
    let received = std::mem::take(&mut machine.wire(at).received);
    assert_eq!(received, [Received::Text("well".to_owned())]);
}

fn percent(machine: &Machine) -> usize {
    machine.shard.memory_bytes() as usize * 100 / SHARE
}

#[test]
fn memory_of_unfinished_messages_stops_at_the_account_and_others_are_served() {
    const STRANGERS: usize = 60;
    const PIECE: usize = 64 * 1024;
    let mut machine = Machine::new(limited());
    let healthy = echo(&mut machine);
    let strangers: Vec<usize> = (0..STRANGERS).map(|_| echo(&mut machine)).collect();
    let message = peer::framed(Opcode::Binary, &vec![1; 15 * MIB]);
    let mut sent = [0; STRANGERS];
    // The bytes received in one turn are accounted in the next.
    let in_a_turn = 2 * STRANGERS * PIECE;
    for round in 0..100 {
        for (&at, sent) in strangers.iter().zip(&mut sent) {
            let end = (*sent + PIECE).min(message.len() - 1);
            if machine.wants_read(at) {
                machine.receive_in_turn(at, &message[*sent..end]);
                *sent = end;
            }
        }
        machine.turn();
        let held = machine.shard.memory_bytes() as usize;
        assert!(held <= SHARE / 100 * 80 + in_a_turn, "{held} bytes in round {round}");
        is_served(&mut machine, healthy);
    }
    assert!(percent(&machine) >= 75, "{} %", percent(&machine));
    let counters = machine.counters.clone();
    assert!(counters.memory_read_paused.get() > 0);
    assert_eq!(counters.memory_ended.get(), 0, "who is not read on need not be ended");
    // Connections whose reading stays paused for five seconds are ended, the largest first, until
    // the others can be read again.
    machine.wait(4500);
    assert_eq!(counters.memory_ended.get(), 0, "reading was paused less than five seconds ago");
    machine.wait(1000);
    let ended = counters.memory_ended.get();
    assert!((5..STRANGERS as u64 / 2).contains(&ended), "{ended}");
    assert!((50..=60).contains(&percent(&machine)), "{} %", percent(&machine));
    is_served(&mut machine, healthy);
    // The others have their timeout; after that, all memory is free.
    let message_ms = 60_000;
    for _ in 0..(2 * message_ms / SWEEP_MS) {
        machine.wait(SWEEP_MS);
        if machine.now.ms.is_multiple_of(10_000) {
            is_served(&mut machine, healthy);
        }
    }
    assert_eq!(counters.memory_ended.get(), ended);
    let late = |it: &Received| matches!(it, Received::Close(Some(1008 | 1013), _));
    for &at in &strangers {
        assert!(machine.wire(at).received.iter().any(late), "{:?}", machine.wire(at).received);
    }
    assert!(percent(&machine) < 1);
    assert!(machine.shard.freed_bytes() > 40 * MIB as u64);
    machine.end();
    assert_eq!(machine.shard.memory_bytes(), 0);
}

/// The largest upload is the one that makes progress; the others keep memory at the bound.
#[test]
fn memory_of_an_upload_is_left_while_messages_without_progress_are_ended() {
    let mut machine = Machine::new(limited());
    let message = peer::framed(Opcode::Binary, &vec![1; 15 * MIB]);
    let stalled: Vec<usize> = (0..10).map(|_| echo(&mut machine)).collect();
    for &at in &stalled {
        machine.receive(at, &message[..4 * MIB]);
    }
    machine.wait(10_000);
    assert!((60..70).contains(&percent(&machine)), "{} %", percent(&machine));
    let upload = echo(&mut machine);
    let counters = machine.counters.clone();
    let mut rest = message.chunks(256 * 1024);
    while counters.memory_read_paused.get() == 0 {
        machine.receive(upload, rest.next().expect("it is paused before its end"));
        machine.wait(SWEEP_MS);
    }
    assert!(!machine.wants_read(upload), "it is the largest");
    machine.wait(5500);
    let ended = counters.memory_ended.get();
    assert!((1..9).contains(&ended), "{ended}");
    assert!(!machine.wire(upload).closed && machine.wants_read(upload));
    for piece in rest {
        machine.receive(upload, piece);
    }
    let received = &machine.wire(upload).received;
    assert!(matches!(&received[..], [Received::Binary(all)] if all.len() == 15 * MIB));
    assert_eq!(counters.memory_ended.get(), ended);
    machine.end();
}

#[test]
fn memory_acts_at_each_of_its_bounds_and_not_before() {
    let mut machine = Machine::new(limited());
    let healthy = echo(&mut machine);
    let counters = machine.counters.clone();
    let figures = || (counters.memory_read_paused.get(), counters.memory_ended.get());
    let mut held = Vec::new();
    while percent(&machine) < 79 {
        held.push(deaf_echo(&mut machine, MIB));
    }
    machine.wait(1000);
    assert_eq!(figures(), (0, 0), "{} %", percent(&machine));
    assert_eq!(counters.memory_bytes.get(), machine.shard.memory_bytes());
    assert_eq!(counters.memory_limit_bytes.get(), SHARE as u64);
    while percent(&machine) < 81 {
        held.push(deaf_echo(&mut machine, MIB));
    }
    machine.wait(1000);
    let (paused, ended) = figures();
    assert!(paused > 0 && ended == 0 && !machine.shard.refuses_connections());
    while percent(&machine) < 91 {
        held.push(deaf_echo(&mut machine, MIB));
    }
    assert!(machine.shard.refuses_connections());
    machine.wait(1000);
    assert_eq!(figures().1, 0);
    is_served(&mut machine, healthy);
    while figures().1 == 0 {
        held.push(deaf_echo(&mut machine, MIB));
        assert!(percent(&machine) <= 97);
    }
    let ended = figures().1;
    assert!((5..=9).contains(&ended), "down to 85 %: {ended}");
    assert!((80..=86).contains(&percent(&machine)), "{} %", percent(&machine));
    assert!(!machine.shard.refuses_connections());
    let closed = held.iter().filter(|&&at| machine.wire(at).closed).count();
    assert_eq!(closed as u64, ended, "they have not read what came before, and are not told");
    is_served(&mut machine, healthy);
    // Reading continues when there is room again.
    for at in held {
        machine.hang_up(at);
    }
    machine.wait(1000);
    assert!(percent(&machine) < 1);
    is_served(&mut machine, healthy);
    machine.end();
}

#[test]
fn memory_closes_a_connection_whose_queue_is_empty_with_a_reason() {
    let mut config = limited();
    config.limits.http_body_bytes = 16 * MIB;
    let mut machine = Machine::new(config);
    let socket = echo(&mut machine);
    let request = machine.open();
    let unfinished = peer::framed(Opcode::Binary, &vec![1; 15 * MIB]);
    machine.receive(socket, &unfinished[..15 * MIB]);
    let now = machine.now.unix_s;
    let signed = peer::signed("POST", "/apps/1/events", &vec![b'x'; 15 * MIB], now);
    machine.receive(request, &signed[..14 * MIB]);
    let small = echo(&mut machine);
    machine.receive(small, &unfinished[..60_000]);
    while machine.counters.memory_ended.get() == 0 {
        deaf_echo(&mut machine, MIB);
    }
    assert_eq!(machine.counters.memory_ended.get(), 1, "the largest is enough");
    let received = &machine.wire(socket).received;
    let reason = "the server is short of memory".to_owned();
    assert_eq!(received[..], [Received::Close(Some(1013), reason)]);
    while machine.counters.memory_ended.get() == 1 {
        deaf_echo(&mut machine, MIB);
    }
    let received = &machine.wire(request).received;
    assert!(matches!(&received[..], [Received::Answer { status: 503, .. }]), "{received:?}");
    assert!(machine.wire(small).received.is_empty(), "who holds next to nothing stays");
    machine.end();
}

#[test]
fn memory_of_a_message_is_free_before_its_echo_waits() {
    let mut machine = Machine::new(limited());
    let at = echo(&mut machine);
    machine.wire(at).stalls = true;
    let message = peer::framed(Opcode::Binary, &vec![1; 15 * MIB]);
    for piece in message.chunks(MIB) {
        machine.receive(at, piece);
    }
    let held = machine.shard.memory_bytes() as usize;
    assert!((15 * MIB..16 * MIB).contains(&held), "{held} bytes");
    machine.end();
}

#[test]
fn memory_of_a_frame_for_many_connections_is_counted_once() {
    let mut machine = Machine::new(limited());
    let subscribers: Vec<usize> = (0..100)
        .map(|_| {
            let at = machine.open();
            machine.receive(at, &peer::handshake("/app/app-key?protocol=7", ""));
            let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#;
            machine.receive(at, &peer::framed(Opcode::Text, subscribe.as_bytes()));
            machine.wire(at).stalls = true;
            at
        })
        .collect();
    let before = machine.shard.memory_bytes() as usize;
    let data = "x".repeat(10_000);
    let publisher = machine.open();
    for _ in 0..20 {
        let body = format!(r#"{{"name":"e","channels":["c"],"data":"{data}"}}"#);
        let now = machine.now.unix_s;
        machine.receive(publisher, &peer::signed("POST", "/apps/1/events", body.as_bytes(), now));
    }
    let took = machine.shard.memory_bytes() as usize - before;
    let each = subscribers.len() * 32 * 24;
    assert!((200_000..220_000 + each).contains(&took), "{took} bytes");
    machine.end();
    assert_eq!(machine.shard.memory_bytes(), 0);
}

#[test]
fn memory_of_a_kept_event_is_counted_once() {
    let mut machine = Machine::new(limited());
    let publisher = machine.open();
    let publish = |machine: &mut Machine, channels: std::ops::Range<usize>| {
        let before = (machine.shard.memory_bytes(), machine.shard.kept_bytes());
        let names: Vec<String> = channels.map(|n| format!(r#""cache-{n:03}""#)).collect();
        let body = format!(r#"{{"name":"e","channels":[{}],"data":"x"}}"#, names.join(","));
        let now = machine.now.unix_s;
        machine.receive(publisher, &peer::signed("POST", "/apps/1/events", body.as_bytes(), now));
        let (memory, kept) = (machine.shard.memory_bytes(), machine.shard.kept_bytes());
        (memory - before.0, (kept - before.1) as u64)
    };
    // The publisher's own memory does not change after its first request.
    publish(&mut machine, 200..201);
    let (memory, kept) = publish(&mut machine, 0..100);
    assert!(kept > 100 * 600, "{kept}");
    assert_eq!(memory, kept, "the event and the tables of its channel");
    // A channel with a subscriber has its tables already, which then count with the event.
    let (empty, each) = (machine.shard.memory_bytes(), kept / 100);
    let at = machine.open();
    machine.receive(at, &peer::handshake("/app/app-key?protocol=7", ""));
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"cache-100"}}"#;
    machine.receive(at, &peer::framed(Opcode::Text, subscribe.as_bytes()));
    machine.settle();
    let tables = machine.shard.memory_bytes() - empty;
    assert!((512..2048).contains(&tables), "a channel and a subscription: {tables}");
    let (memory, kept) = publish(&mut machine, 100..101);
    assert_eq!((memory, kept), (each - 512, each));
    machine.end();
    assert_eq!(machine.shard.memory_bytes(), 0);
}

/// Slow progress is not sufficient: a mebibyte at 1 KiB in 20 s takes hours.
#[test]
fn memory_is_not_held_for_a_peer_that_reads_almost_nothing() {
    for (bytes, stays) in [(260, true), (250, false)] {
        let mut machine = Machine::new(limited());
        let at = deaf_echo(&mut machine, MIB);
        for _ in 0..(95_000 / SWEEP_MS) {
            machine.trickle(at, bytes);
            machine.wait(SWEEP_MS);
        }
        assert_eq!(machine.wire(at).closed, !stays, "{bytes} bytes in {SWEEP_MS} ms");
        assert_eq!(machine.counters.send_too_slow.get(), u64::from(!stays));
        machine.end();
    }
}

#[test]
fn memory_of_an_echo_is_as_its_route_says() {
    for (bytes, fits, too_long) in [(64 * 1024, 64 * 1024, 64 * 1024 + 1), (0, 1000, 2001)] {
        let mut config = limited();
        config.limits.message_bytes = if bytes == 0 { 2000 } else { MIB as u64 };
        config.limits.frame_bytes = config.limits.message_bytes;
        config.routes[0].message_bytes = bytes;
        let mut machine = Machine::new(config);
        let at = echo(&mut machine);
        let message = vec![1; too_long];
        machine.receive(at, &peer::framed(Opcode::Binary, &message[..fits]));
        machine.receive(at, &peer::framed(Opcode::Binary, &message));
        let received = std::mem::take(&mut machine.wire(at).received);
        let [Received::Binary(back), Received::Close(Some(1009), _)] = &received[..] else {
            panic!("{received:?}")
        };
        assert_eq!(back.len(), fits);
        machine.end();
    }
}

/// Sends a head and one octet of a body, and returns the status of the response, if there is one.
fn status_on_head(machine: &mut Machine, head: &str, body_bytes: usize) -> Option<u16> {
    let at = machine.open();
    let request = format!("{head}Host: a\r\nContent-Length: {body_bytes}\r\n\r\nx");
    machine.receive(at, request.as_bytes());
    let wire = machine.wire(at);
    match &wire.received[..] {
        [] => None,
        [Received::Answer { status, .. }] => {
            assert!(wire.shut, "the connection ends behind it");
            Some(*status)
        }
        received => panic!("{received:?}"),
    }
}

#[test]
fn memory_is_not_spent_on_bodies_that_no_endpoint_reads() {
    let mut config = limited();
    config.metrics.open = true;
    let mut machine = Machine::new(config);
    let now = machine.now.unix_s;
    let body = vec![b' '; MIB];
    let whole = |path: &str| peer::signed("POST", path, &body, now);
    let line = |path: &str| {
        let text = String::from_utf8(whole(path)).expect("ASCII");
        format!("{}\r\n", text.split("\r\n").next().expect("a line"))
    };
    let forged = line("/apps/1/events").replace("auth_signature=", "auth_signature=0");
    let foreign = line("/apps/1/events").replace("auth_key=app-key", "auth_key=other");
    for (head, status) in [
        ("POST /nowhere HTTP/1.1\r\n", Some(404)),
        ("POST /apps/2/events HTTP/1.1\r\n", Some(404)),
        ("POST /apps/1/events HTTP/1.1\r\n", Some(401)),
        (&*forged, Some(401)),
        (&*foreign, Some(401)),
        ("PUT /live HTTP/1.1\r\n", Some(405)),
        ("GET /live HTTP/1.1\r\n", Some(200)),
        ("GET /metrics HTTP/1.1\r\n", Some(200)),
        ("POST /echo HTTP/1.1\r\n", Some(426)),
        // `100 Continue` is not sent, either.
        ("POST /nowhere HTTP/1.1\r\nExpect: 100-continue\r\n", Some(404)),
        (&*line("/apps/1/events"), None),
    ] {
        let unread = machine.counters.http_bodies_unread.get();
        assert_eq!(status_on_head(&mut machine, head, MIB), status, "{head}");
        let unread = machine.counters.http_bodies_unread.get() - unread;
        assert_eq!(unread, u64::from(status.is_some()), "{head}");
    }
    // A short body is awaited, and the connection continues after it.
    let nowhere = "POST /nowhere HTTP/1.1\r\n";
    assert_eq!(status_on_head(&mut machine, nowhere, 16 * 1024), None);
    assert_eq!(status_on_head(&mut machine, nowhere, 16 * 1024 + 1), Some(404));
    // A complete request is answered as usual, and the connection continues.
    let at = machine.open();
    let live = "GET /live HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    machine.receive(at, live.repeat(2).as_bytes());
    // A signed body is read completely in pieces, also after another request.
    let request = whole("/apps/1/events");
    for piece in [live.as_bytes(), &request].concat().chunks(4096) {
        machine.receive(at, piece);
    }
    let statuses: Vec<u16> = machine.wire(at).received.iter().map(status).collect();
    assert_eq!(statuses, [200, 200, 200, 400], "a body of blanks is no JSON");
    machine.end();
}

fn status(received: &Received) -> u16 {
    match received {
        Received::Answer { status, .. } => *status,
        other => panic!("{other:?}"),
    }
}
