//! Groups of the `reflect` endpoint across several reactors.

use crate::net::*;
use polycast::config::{CompressionMode, Config, EndpointKind, FileFormat, Route, SlowConsumer};
use std::net::SocketAddr;

/// A configuration with one group on two reactors.
fn reflecting() -> Config {
    let mut config = config();
    config.threads = 2;
    config.routes = vec![Route::to(EndpointKind::Reflect)];
    config
}

/// Opens members and waits until they receive the group's messages. The kernel distributes them to
/// both reactors.
fn members(address: SocketAddr, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..count {
        let mut client = Client::connect(address).upgrade("/group");
        let hello = format!("hello {number}");
        client.send_text(&hello);
        for client in clients.iter_mut().chain([&mut client]) {
            assert_eq!(client.text(), hello);
        }
        clients.push(client);
    }
    clients
}

#[test]
fn reflect_stalled_member_costs_the_others_nothing() {
    const MEMBERS: usize = 12;
    let mut config = reflecting();
    config.limits.write_queue_bytes = 64 * 1024;
    config.slow_consumer = SlowConsumer::Close;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut members = members(address, MEMBERS);
    let mut sleeper = Client::connect_narrow(address).upgrade("/group");
    sleeper.send_text("good night");
    assert_eq!(sleeper.text(), "good night");
    for member in &mut members {
        assert_eq!(member.text(), "good night");
    }
    let mut rounds = 0;
    while server.count("slow_consumer_closed") == 0 || rounds < 2 * MEMBERS {
        assert!(rounds < 5000, "the slow member is never noticed");
        let text = format!("{rounds:0>10000}");
        members[rounds % MEMBERS].send_text(&text);
        for member in &mut members {
            assert!(member.text() == text, "round {rounds}");
        }
        rounds += 1;
    }
    let close = loop {
        let frame = sleeper.frame();
        if frame.opcode == CLOSE {
            break frame.payload;
        }
        assert_eq!(frame.payload.len(), 10_000, "whole messages");
    };
    let reason = "the client does not read what it is sent";
    assert_eq!(close, [&1008u16.to_be_bytes(), reason.as_bytes()].concat());
    wait_count(&server, "connections", MEMBERS as u64);
    assert_eq!(server.count("slow_consumer_closed"), 1);
    assert_eq!(server.count("slow_consumer_dropped"), 0);
}

#[test]
fn reflect_counts_what_a_member_misses_by_policy() {
    let mut config = reflecting();
    // One core has counted what it drops when the other members have the message.
    config.threads = 1;
    config.limits.write_queue_bytes = 64 * 1024;
    config.slow_consumer = SlowConsumer::Drop;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut members = members(address, 2);
    let mut sleeper = Client::connect_narrow(address).upgrade("/group");
    sleeper.send_text("good night");
    assert_eq!(sleeper.text(), "good night");
    members.iter_mut().for_each(|member| assert_eq!(member.text(), "good night"));
    let mut rounds = 0;
    while server.count("slow_consumer_dropped") < 20 {
        assert!(rounds < 5000, "the slow member is never noticed");
        let text = format!("{rounds:0>10000}");
        members[rounds % 2].send_text(&text);
        members.iter_mut().for_each(|member| assert!(member.text() == text, "round {rounds}"));
        rounds += 1;
    }
    let dropped = server.count("slow_consumer_dropped");
    members[0].send_text("good morning");
    let mut received: Vec<usize> = Vec::new();
    let last = loop {
        match sleeper.text() {
            text if text.len() == 10_000 => received.push(text.parse().expect("a number")),
            text => break text,
        }
        // Send again if even this message was dropped.
        if received.len() as u64 + dropped == rounds as u64 {
            members[0].send_text("good morning");
        }
    };
    assert_eq!(last, "good morning");
    assert!(received.is_sorted_by(|a, b| a < b), "in order, none twice");
    assert_eq!(received.len() as u64 + dropped, rounds as u64);
    assert_eq!(server.count("slow_consumer_closed"), 0);
}

/// A member that joins while others send gets the last messages first, and then each further one
/// once.
#[test]
fn reflect_history_continues_without_a_gap() {
    const MESSAGES: usize = 300;
    const HISTORY: usize = 25;
    let mut config = reflecting();
    config.routes[0].reflect.history = HISTORY as u32;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut talker = Client::connect(address).upgrade("/group");
    let mut joiners = Vec::new();
    for number in 0..MESSAGES {
        talker.send_text(&number.to_string());
        if number % 10 == 5 {
            joiners.push((number, Client::connect(address).upgrade("/group")));
        }
        // Send the next message only after this echo, so that the content of the history is known.
        assert_eq!(talker.text(), number.to_string());
    }
    for (joined, mut client) in joiners {
        let first: usize = client.text().parse().expect("a number");
        assert!(joined.saturating_sub(HISTORY) <= first, "{first} {joined}");
        for number in first + 1..MESSAGES {
            assert_eq!(client.text(), number.to_string());
        }
    }
    let mut late = Client::connect(address).upgrade("/group");
    for number in MESSAGES - HISTORY..MESSAGES {
        assert_eq!(late.text(), number.to_string());
    }
}

#[test]
fn reflect_order_is_the_same_for_all_members() {
    const EACH: usize = 100;
    let Some(server) = start(reflecting()) else { return };
    let mut members = members(server.addresses()[0], 6);
    for number in 0..EACH {
        for (member, client) in members.iter_mut().enumerate() {
            client.send_text(&format!("{member} {number}"));
        }
    }
    let total = members.len() * EACH;
    let received =
        members.iter_mut().map(|client| (0..total).map(|_| client.text()).collect::<Vec<_>>());
    let received: Vec<_> = received.collect();
    assert!(received.iter().all(|it| *it == received[0]));
    for member in 0..members.len() {
        let own = received[0].iter().filter(|it| it.starts_with(&format!("{member} ")));
        let want: Vec<_> = (0..EACH).map(|number| format!("{member} {number}")).collect();
        assert_eq!(own.cloned().collect::<Vec<_>>(), want);
    }
}

#[test]
fn reflect_compresses_for_members_that_agreed() {
    let mut config = reflecting();
    config.routes[0].compression = CompressionMode::Shared;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut compressed = Client::connect(address);
    compressed.send(handshake("/group", offer).as_bytes());
    assert_eq!(compressed.response().status, 101);
    let mut plain = Client::connect(address).upgrade("/group");
    let text = "x".repeat(5000);
    compressed.send_text("in");
    assert_eq!(compressed.text(), "in");
    plain.send_text(&text);
    while plain.text() != text {}
    let frame = compressed.frame();
    assert!(frame.compressed && frame.payload.len() < 100, "{}", frame.payload.len());
}

/// Zilla's example configurations, at a port that the kernel chooses.
#[test]
fn zilla_files_serve_their_chains() {
    for (text, is_group) in [
        (include_str!("../../../examples/zilla/echo.yaml"), false),
        (include_str!("../../../examples/zilla/reflect.yaml"), true),
    ] {
        let text = text.replace("0.0.0.0", "127.0.0.1").replace("port: 7114", "port: 0");
        let read = Config::parse(&text, FileFormat::Yaml, "zilla.yaml").expect("sound");
        let Some(server) =
            start(Config { listeners: read.listeners, routes: read.routes, ..config() })
        else {
            return;
        };
        let address = server.addresses()[0];
        let mut clients = [(); 2].map(|()| {
            let mut client = Client::connect(address);
            client.send(handshake("/", "Sec-WebSocket-Protocol: echo\r\n").as_bytes());
            let response = client.response();
            assert_eq!(response.status, 101);
            assert_eq!(response.field("Sec-WebSocket-Protocol"), Some("echo"));
            client.send_text("in");
            assert_eq!(client.text(), "in");
            client
        });
        if is_group {
            assert_eq!(clients[0].text(), "in");
        }
        clients[1].send_text("hello");
        assert_eq!(clients[1].text(), "hello");
        if is_group {
            assert_eq!(clients[0].text(), "hello");
        }
        clients[0].send_text("own");
        assert_eq!(clients[0].text(), "own");
        let mut other = Client::connect(address);
        other.send(handshake("/", "Sec-WebSocket-Protocol: other\r\n").as_bytes());
        assert_eq!(other.response().status, 404);
    }
}
