//! Slow consumers: they do not affect others, and the configured policy applies to them.

use crate::net::*;
use polycast::config::{Config, SlowConsumer};
use polycast::server::Server;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

/// A configuration with small write queues, so that little traffic fills them.
fn narrow() -> Config {
    let mut config = config();
    config.limits.write_queue_bytes = 64 * 1024;
    config
}

/// A subscriber that does not read, with the smallest receive buffer.
fn sleeper(address: SocketAddr, channel: &str) -> Client {
    let mut client = Client::connect_narrow(address).upgrade(APP_PATH);
    client.established();
    client.subscribe(channel);
    client
}

/// The data of event `number`.
fn data(number: usize, len: usize) -> String {
    format!("{number:0>len$}")
}

/// In each round, publishes to `target` and a small event to `news`, until `enough` returns true.
/// Every reader reads each round before the next one. Returns the number of rounds.
fn publish_until(
    address: SocketAddr,
    target: &str,
    readers: &mut [Client],
    mut enough: impl FnMut() -> bool,
) -> usize {
    let mut publisher = Client::connect(address);
    for round in 0.. {
        assert!(round < 5000, "the slow consumer is never noticed");
        if enough() {
            return round;
        }
        publisher.publish(target, &data(round, 10_000));
        publisher.publish("news", &round.to_string());
        for reader in &mut *readers {
            if target == "all" {
                assert!(reader.text() == event("all", &data(round, 10_000)), "round {round}");
            }
            assert_eq!(reader.text(), event("news", &round.to_string()));
        }
    }
    unreachable!()
}

fn readers(address: SocketAddr, count: usize, channels: &[&str]) -> Vec<Client> {
    let reader = |_| {
        let (mut client, _) = Client::app(address);
        channels.iter().for_each(|channel| client.subscribe(channel));
        client
    };
    (0..count).map(reader).collect()
}

/// Checks what a slow consumer with policy `close` reads: complete frames, then the Close frame.
fn check_closed_as_slow(mut sleeper: Client) {
    let mut frames = 0;
    let close = loop {
        let frame = sleeper.frame();
        if frame.opcode == CLOSE {
            break frame.payload;
        }
        assert!(frame.payload.starts_with(br#"{"event":"e","channel":"#));
        frames += 1;
    };
    assert!(frames > 0);
    let reason = "Over capacity: the client does not read what it is sent";
    assert_eq!(close, [&4100u16.to_be_bytes(), reason.as_bytes()].concat());
}

#[test]
fn slow_consumer_is_closed_and_99_others_get_everything() {
    let Some(server) = start(narrow()) else { return };
    let address = server.addresses()[0];
    let mut readers = readers(address, 99, &["all", "news"]);
    let sleeper = sleeper(address, "all");
    let closed = || server.count("slow_consumer_closed") > 0;
    let rounds = publish_until(address, "all", &mut readers, closed);
    println!("closed after {rounds} events of 10 kB");
    check_closed_as_slow(sleeper);
    check_only_one_closed(&server, readers.len());
}

#[test]
fn slow_consumer_is_closed_and_999_others_get_everything() {
    let Some(server) = start(narrow()) else { return };
    let address = server.addresses()[0];
    let mut readers = readers(address, 999, &["news"]);
    let sleeper = sleeper(address, "flood");
    let closed = || server.count("slow_consumer_closed") > 0;
    publish_until(address, "flood", &mut readers, closed);
    check_closed_as_slow(sleeper);
    check_only_one_closed(&server, readers.len());
}

fn check_only_one_closed(server: &Server, readers: usize) {
    wait_count(server, "connections", readers as u64);
    assert_eq!(server.count("slow_consumer_closed"), 1);
    assert_eq!(server.count("slow_consumer_dropped"), 0);
}

#[test]
fn slow_consumer_is_cut_after_the_close_timeout() {
    let mut config = narrow();
    config.timeouts.close_ms = 300;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut readers = readers(address, 3, &["all", "news"]);
    let sleeper = sleeper(address, "all");
    let closed = || server.count("slow_consumer_closed") > 0;
    publish_until(address, "all", &mut readers, closed);
    check_only_one_closed(&server, readers.len());
    assert_eq!(server.count("timed_out"), 1);
    drop(sleeper);
}

#[test]
fn slow_consumer_policy_drop_counts_what_is_missing() {
    let mut config = narrow();
    // One core has counted what it drops when it answers the publisher.
    config.threads = 1;
    config.slow_consumer = SlowConsumer::Drop;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut readers = readers(address, 20, &["all", "news"]);
    let mut sleeper = sleeper(address, "all");
    let dropped = || server.count("slow_consumer_dropped") > 50;
    let rounds = publish_until(address, "all", &mut readers, dropped);
    let missing = server.count("slow_consumer_dropped") as usize;
    let mut next = 0;
    for _ in 0..rounds - missing {
        let text = sleeper.text();
        let number = (next..rounds)
            .find(|number| text == event("all", &data(*number, 10_000)))
            .expect("an event in order");
        next = number + 1;
    }
    sleeper.sync();
    Client::connect(address).publish("all", "after");
    assert_eq!(sleeper.text(), event("all", "after"));
    assert_eq!(server.count("slow_consumer_dropped") as usize, missing);
    assert_eq!(server.count("slow_consumer_closed"), 0);
    println!("{missing} of {rounds} events dropped for one of 21 subscribers");
}

#[test]
fn slow_requester_is_paused_and_gets_everything() {
    const COUNT: usize = 3000;
    const LEN: usize = 10_000;
    let Some(server) = start(narrow()) else { return };
    let address = server.addresses()[0];
    let mut requester = Client::connect_narrow(address).upgrade("/echo");
    let mut writer = requester.stream.try_clone().unwrap();
    let sender = thread::spawn(move || {
        use std::io::Write;
        for number in 0..COUNT {
            writer.write_all(&masked(true, TEXT, data(number, LEN).as_bytes())).unwrap();
        }
    });
    // Reading is paused: bytes wait in the kernel, and the server reads no more of them.
    let mut before = 0;
    let mut healthy = Client::open(address, "/echo");
    wait("the server stops reading", || {
        healthy.sync();
        thread::sleep(Duration::from_millis(100));
        let now = server.count("messages_received");
        std::mem::replace(&mut before, now) == now && now > 0
    });
    assert!(before < COUNT as u64, "everything was read at once");
    assert_eq!(server.count("connections"), 2);
    for number in 0..COUNT {
        assert!(requester.text() == data(number, LEN), "message {number}");
    }
    sender.join().unwrap();
    requester.sync();
    assert_eq!(server.count("slow_consumer_closed"), 0);
    assert_eq!(server.count("messages_received"), COUNT as u64);
}

#[test]
fn slow_queue_without_progress_is_cut_after_its_time() {
    let mut config = narrow();
    config.timeouts.send_ms = 300;
    let Some(server) = start(config) else { return };
    let mut requester = Client::connect_narrow(server.addresses()[0]).upgrade("/echo");
    let message = masked(true, BINARY, &[7; 10_000]);
    requester.stream.set_nonblocking(true).unwrap();
    let error = (0..10_000).find_map(|_| {
        use std::io::Write;
        requester.stream.write_all(&message).err()
    });
    let kind = error.map(|error| error.kind());
    let cut = [ErrorKind::WouldBlock, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(kind.is_some_and(|kind| cut.contains(&kind)), "{kind:?}");
    wait_count(&server, "connections", 0);
    assert_eq!(server.count("timed_out"), 1);
}

#[test]
fn overload_by_queued_bytes_ends_when_they_are_sent() {
    let mut config = config();
    config.limits.overload_bytes = 512 * 1024;
    config.limits.write_queue_bytes = 64 * 1024 * 1024;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut reader = readers(address, 1, &["news"]).remove(0);
    let sleeper = sleeper(address, "bulk");
    let full = || server.count("queued_bytes") >= 512 * 1024;
    publish_until(address, "bulk", std::slice::from_mut(&mut reader), full);
    let mut refused = Client::connect(address).upgrade(APP_PATH);
    assert!(refused.text().contains(r#""code":4100"#));
    assert_eq!(refused.close().0, 4100);
    assert_eq!(server.count("refused_overload"), 1);
    // Earlier connections stay and are served.
    Client::connect(address).publish("news", "still");
    assert_eq!(reader.text(), event("news", "still"));
    drop(sleeper);
    wait_count(&server, "queued_bytes", 0);
    Client::app(address);
    assert_eq!(server.count("refused_overload"), 1);
}
