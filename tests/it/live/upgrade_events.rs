//! What subscribers and publishers notice of an upgrade: events, positions, cached events, and the
//! end of either process.

use super::child::*;
use super::upgrade::{Installed, is_alive, wait_end};
use crate::net::*;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const HISTORY: &str = "[[apps]]\nid = '2'\nkey = 'key-2'\nsecret = 'secret-2'\n\
                       limits.event_bytes = '512KiB'\nclient_events = true\n\
                       [[apps.history]]\nchannels = ['chat-*', 'cache-chat']\n";
const SIGNER: Keys<'static> = Keys("key-2", "secret-2");

fn config(more: &str) -> String {
    format!("{BASE}{more}{HISTORY}")
}

/// A subscriber of the second application, which resumes at `position`, and what it was told.
fn subscriber(address: SocketAddr, channel: &str, position: &str) -> (Client, String, String) {
    let mut client = Client::open(address, "/app/key-2");
    let id = client.established();
    let resume = r#"{"event":"polycast:resume","data":{"channel_positions":"#;
    client.send_text(&format!("{resume}{{{position}}}}}}}"));
    client.send_text(&subscribe(channel));
    let confirmed = client.text();
    (client, id, confirmed)
}

/// The values of `stream_id` and `serial` in a message.
fn position(message: &str) -> (String, u64) {
    let (_, rest) = message.split_once(r#""stream_id":""#).expect(message);
    let (stream, rest) = rest.split_once(r#"","serial":"#).expect(message);
    let digits = rest.find(|it: char| !it.is_ascii_digit()).unwrap();
    (stream.to_owned(), rest[..digits].parse().unwrap())
}

fn at(channel: &str, (stream, serial): &(String, u64)) -> String {
    format!(r#""{channel}":{{"stream_id":"{stream}","serial":{serial}}}"#)
}

fn request(channel: &str, data: &str, more: &str) -> Vec<u8> {
    let body = format!(r#"{{"name":"e","channel":"{channel}","data":"{data}"{more}}}"#);
    SIGNER.request("POST", "/apps/2/events", &body)
}

fn publish(client: &mut Client, channel: &str, data: &str) -> u16 {
    client.send(&request(channel, data, ""));
    client.response().status
}

/// A connection that has sent a part of its first request keeps the old process from draining for
/// two seconds; its other connections stay meanwhile.
fn hold(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.send(b"GET /ready HTTP/1.1\r\n");
    client
}

#[test]
fn upgrade_lets_both_processes_deliver_every_event_once_and_in_order() {
    if !has_uring() {
        return;
    }
    let installed = Installed::start("upgrade-both", &config("drain_s = 15\n"));
    let address = installed.process.address;
    let (mut early, early_id, confirmed) = subscriber(address, "chat-1", "");
    let (stream, _) = position(&confirmed);
    let mut kept = Client::connect(address);
    assert_eq!(publish(&mut kept, "chat-1", "0"), 200);
    assert_eq!(position(&early.text()), (stream.clone(), 1));
    let _held = hold(address);
    installed.upgrade();
    let (mut late, late_id, confirmed) = subscriber(address, "chat-1", "");
    assert_eq!(position(&confirmed), (stream.clone(), 1), "the history goes on");
    // By turns at both.
    for number in 1..=12 {
        let data = number.to_string();
        let status = match number % 2 {
            0 => publish(&mut Client::connect(address), "chat-1", &data),
            _ => {
                // The old process ends its HTTP connections with their next response.
                let status = if number == 1 { publish(&mut kept, "chat-1", &data) } else { 200 };
                if number > 1 {
                    publish(&mut Client::connect(address), "chat-1", &data);
                }
                status
            }
        };
        assert_eq!(status, 200);
        for client in [&mut early, &mut late] {
            let text = client.text();
            assert!(text.contains(&format!(r#""data":"{data}""#)), "{number}: {text}");
            assert_eq!(position(&text), (stream.clone(), number + 1), "{text}");
        }
    }
    // A publisher leaves out a connection of the other process.
    for (id, other) in [(&early_id, &mut late), (&late_id, &mut early)] {
        let mut publisher = Client::connect(address);
        publisher.send(&request("chat-1", "x", &format!(r#","socket_id":"{id}""#)));
        assert_eq!(publisher.response().status, 200);
        assert!(other.text().contains(r#""data":"x""#));
    }
    publish(&mut Client::connect(address), "chat-1", "last");
    for client in [&mut early, &mut late] {
        assert!(client.text().contains(r#""data":"last""#), "the sender's own was left out");
    }
}

#[test]
fn upgrade_hands_over_histories_and_cached_events() {
    if !has_uring() {
        return;
    }
    let mut installed = Installed::start("upgrade-kept-events", &config("drain_s = 15\n"));
    let address = installed.process.address;
    let (mut early, _, _) = subscriber(address, "chat-1", "");
    for data in ["1", "2", "3"] {
        publish(&mut Client::connect(address), "chat-1", data);
    }
    let seen = position(&early.text());
    publish(&mut Client::connect(address), "cache-plain", "cached");
    publish(&mut Client::connect(address), "cache-chat", "both");
    for round in 0..2 {
        installed.upgrade();
        let (mut late, _, confirmed) = subscriber(address, "chat-1", &at("chat-1", &seen));
        assert!(confirmed.contains(r#""recovered":true"#), "{round}: {confirmed}");
        for serial in [2, 3] {
            assert_eq!(position(&late.text()), (seen.0.clone(), serial));
        }
        for (channel, data) in [("cache-plain", "cached"), ("cache-chat", "both")] {
            let mut client = Client::open(address, "/app/key-2");
            client.established();
            client.send_text(&subscribe(channel));
            assert!(client.text().contains("subscription_succeeded"));
            assert!(client.text().contains(&format!(r#""data":"{data}""#)), "{round} {channel}");
        }
    }
    assert_eq!(installed.process.ended().code(), Some(0));
}

/// Whether a publish on this connection is answered with `status`.
fn answers(client: &mut Client, status: u16) {
    let response = client.response();
    assert_eq!(response.status, status, "{}", response.body);
}

#[test]
fn upgrade_that_fails_after_the_switch_publishes_what_was_proposed() {
    if !has_uring() {
        return;
    }
    // It takes the socket of the events, and what it is sent, and then ends without an answer.
    let program = "#!/usr/bin/python3
import os, socket, time
channel = socket.socket(fileno=0)
socket.recv_fds(channel, 65536, 253)
channel.send(b'{\"kind\":\"ready\",\"relay\":1}')
message, fds, _, _ = socket.recv_fds(channel, 65536, 253)
assert message == b'{\"kind\":\"accept\"}' and len(fds) == 1, message
events = socket.socket(fileno=fds[0])
events.recv(65536)
time.sleep(1)
os._exit(4)
";
    let installed = Installed::start("upgrade-reverts", &config(""));
    let address = installed.process.address;
    if !installed.install_script(program) {
        return println!("SKIPPED: no Python");
    }
    let (mut client, _, _) = subscriber(address, "chat-1", "");
    let mut publishers: Vec<_> = (0..20).map(|_| Client::connect(address)).collect();
    for (number, publisher) in publishers.iter_mut().enumerate() {
        assert_eq!(publish(publisher, "chat-1", &format!("before {number}")), 200);
        assert!(client.text().contains(&format!("before {number}")));
    }
    installed.ask();
    installed.logs("upgrade begun", 1);
    let begin = Instant::now();
    let mut published = 0;
    while !installed.process.logged().contains("upgrade has failed") {
        assert!(begin.elapsed() < 3 * PATIENCE, "{}", installed.process.logged());
        let publisher = &mut publishers[published % 20];
        if published >= 20 {
            answers(publisher, 200);
        }
        publisher.send(&request("chat-1", &format!("n{published}."), ""));
        published += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    for number in published.saturating_sub(20)..published {
        answers(&mut publishers[number % 20], 200);
    }
    assert!(begin.elapsed() >= Duration::from_millis(900), "the events have waited");
    let mut numbers: Vec<u64> = (0..published)
        .map(|_| {
            let text = client.text();
            let (_, rest) = text.split_once(r#""data":"n"#).expect(&text);
            rest.split_once('.').unwrap().0.parse().unwrap()
        })
        .collect();
    // Several publishers have no common order.
    numbers.sort_unstable();
    assert_eq!(numbers, (0..published as u64).collect::<Vec<_>>(), "each once");
}

#[test]
fn upgrade_old_process_publishes_nothing_alone_after_the_new_one_has_ended() {
    if !has_uring() {
        return;
    }
    let mut installed = Installed::start("upgrade-orphan", &config("drain_s = 15\n"));
    let address = installed.process.address;
    let (mut early, _, _) = subscriber(address, "chat-1", "");
    let mut kept: Vec<_> = (0..2).map(|_| Client::connect(address)).collect();
    for publisher in &mut kept {
        assert_eq!(publish(publisher, "chat-1", "1"), 200);
        early.text();
    }
    let _held = hold(address);
    let (_, new) = installed.upgrade();
    installed.logs("the new server accepts connections", 1);
    assert_eq!(publish(&mut kept[0], "chat-1", "2"), 200);
    early.text();
    signal_to(new, libc::SIGKILL);
    wait_end(new);
    std::thread::sleep(Duration::from_millis(300));
    kept[1].send(&request("chat-1", "3", ""));
    answers(&mut kept[1], 503);
    // Its clients may have missed events, and are asked to come again at once.
    assert_eq!(early.close().0, 4200);
    early.send_close(4200);
    installed.process.ended();
}

#[test]
fn upgrade_old_process_that_does_not_read_is_given_up() {
    if !has_uring() {
        return;
    }
    let mut installed = Installed::start("upgrade-slow", &config("drain_s = 60\n"));
    let address = installed.process.address;
    let (mut early, _, _) = subscriber(address, "other", "");
    let _held = hold(address);
    let (old, _) = installed.upgrade();
    signal_to(old, libc::SIGSTOP);
    let data = "x".repeat(400_000);
    let mut publisher = Client::connect(address);
    let lost = |publisher: &mut Client| {
        publisher.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let metrics = publisher.response().body;
        let line = metrics.lines().find(|it| it.starts_with("polycast_upgrade_overflows_total"));
        line.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
    };
    let mut published = 0;
    while lost(&mut publisher) == Some(0) {
        assert_eq!(publish(&mut publisher, "other", &data), 200);
        published += 1;
        assert!(published < 200, "no bound");
    }
    assert!(published > 40, "{published} events");
    println!("given up after {published} events of 400 kB");
    assert_eq!(publish(&mut publisher, "other", "short"), 200, "the new process goes on");
    signal_to(old, libc::SIGCONT);
    while let Some(frame) = early.try_frame() {
        if frame.opcode == CLOSE {
            assert_eq!(frame.payload[..2], 4200_u16.to_be_bytes());
            break;
        }
    }
    early.send_close(4200);
    assert_eq!(installed.process.ended().code(), Some(0));
    assert!(!is_alive(old));
}
