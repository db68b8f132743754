//! Hostile and broken peers: a healthy client is served throughout and afterwards.

use crate::net::*;
use polycast::config::Config;
use polycast::server::Server;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A client that is served throughout.
struct Healthy {
    subscriber: Client,
    publisher: Client,
    count: usize,
}

impl Healthy {
    fn new(address: SocketAddr) -> Healthy {
        let subscriber = Client::subscriber(address, "healthy");
        let mut healthy = Healthy { subscriber, publisher: Client::connect(address), count: 0 };
        // A connection must send something within the timeout of a request's head.
        healthy.check();
        healthy
    }

    fn check(&mut self) {
        let data = self.count.to_string();
        self.publisher.publish("healthy", &data);
        assert_eq!(self.subscriber.text(), event("healthy", &data));
        self.count += 1;
    }
}

/// The connections of a [`Healthy`] client.
const HEALTHY: u64 = 2;

fn quick() -> Config {
    let mut config = config();
    config.timeouts.head_ms = 300;
    config.timeouts.body_ms = 300;
    config.timeouts.close_ms = 300;
    config
}

/// Random bytes, the same in each run.
fn garbage(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn survival_garbage_ends_its_own_connection_only() {
    let Some(server) = start(quick()) else { return };
    let address = server.addresses()[0];
    let mut healthy = Healthy::new(address);
    for seed in 0..40 {
        let mut client = Client::connect(address);
        client.send(&garbage(seed, 1 + seed as usize * 50));
        client.stream.shutdown(Shutdown::Write).unwrap();
        client.drained();
        let mut client = Client::open(address, if seed % 2 == 0 { "/echo" } else { APP_PATH });
        client.send(&garbage(seed, 2000));
        client.stream.shutdown(Shutdown::Write).unwrap();
        client.drained();
        healthy.check();
    }
    wait_count(&server, "connections", HEALTHY);
}

#[test]
fn survival_late_request_is_408() {
    let Some(server) = start(quick()) else { return };
    let address = server.addresses()[0];
    let mut healthy = Healthy::new(address);
    let whole = handshake("/echo", "");
    let publish = String::from_utf8(publish("c", "data")).unwrap();
    let body = &publish[..publish.len() - 4];
    for half in [&whole[..1], &whole[..whole.len() / 2], &whole[..whole.len() - 1], body] {
        let start = Instant::now();
        let mut client = Client::connect(address);
        client.send(half.as_bytes());
        let response = client.response();
        assert_eq!(response.status, 408, "{half}");
        assert_eq!(response.field("Connection"), Some("close"));
        client.end();
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(250), "{took:?}");
        healthy.check();
    }
    // A connection that sends nothing gets no response.
    let mut client = Client::connect(address);
    client.end();
    drop(client);
    wait_count(&server, "connections", HEALTHY);
    assert_eq!(server.count("timed_out"), 5);
}

#[test]
fn survival_slow_request_has_its_time_from_the_first_byte() {
    let Some(server) = start(quick()) else { return };
    let mut client = Client::connect(server.addresses()[0]);
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let start = Instant::now();
    let mut answered = [0; 12];
    loop {
        use std::io::{Read, Write};
        assert!(start.elapsed() < PATIENCE, "the server waits for ever");
        if client.stream.write_all(b"G").is_err() || client.stream.read(&mut answered).is_ok() {
            break;
        }
    }
    assert_eq!(answered, *b"HTTP/1.1 408");
}

#[test]
fn survival_declared_gibibyte_is_refused_at_once() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let mut healthy = Healthy::new(address);
    for path in ["/echo", APP_PATH] {
        for len in [1 << 30, 1 << 40, (1 << 63) - 1] {
            let mut client = Client::open(address, path);
            if path == APP_PATH {
                client.established();
            }
            client.send(&masked_header(true, BINARY, len));
            assert_eq!(client.close().0, 1009, "{path} {len}");
            client.end();
        }
    }
    let mut client = Client::open(address, "/echo");
    client.send(&masked_header(true, BINARY, 1 << 63));
    assert_eq!(client.close().0, 1002, "a length with its highest bit");
    healthy.check();
}

#[test]
fn survival_reset_in_every_state() {
    let Some(server) = start(quick()) else { return };
    let address = server.addresses()[0];
    let mut healthy = Healthy::new(address);
    let head = handshake("/echo", "");
    for round in 0..10 {
        let before_a_byte = Client::connect(address);
        let mut in_head = Client::connect(address);
        in_head.send(&head.as_bytes()[..30 + round]);
        let upgraded = Client::open(address, "/echo");
        let mut unread = Client::connect(address);
        unread.send(head.as_bytes());
        let subscribed = Client::subscriber(address, "healthy");
        let mut in_frame = Client::subscriber(address, "other");
        in_frame.send(&masked(true, TEXT, &[b'x'; 100])[..20]);
        let mut closing = Client::subscriber(address, "healthy");
        closing.send_close(1000);
        let mut closed = Client::open(address, "/echo");
        closed.send_close(1000);
        closed.close();
        let mut echoing = Client::open(address, "/echo");
        echoing.send(&masked(true, BINARY, &[0; 100_000]).repeat(3));
        let all = [
            before_a_byte,
            in_head,
            upgraded,
            unread,
            subscribed,
            in_frame,
            closing,
            closed,
            echoing,
        ];
        healthy.check();
        all.into_iter().for_each(Client::reset);
        healthy.check();
    }
    wait_count(&server, "connections", HEALTHY);
    wait_count(&server, "subscriptions", 1);
}

#[test]
fn survival_reset_during_a_send() {
    let Some(server) = start(quick()) else { return };
    let address = server.addresses()[0];
    let mut healthy = Healthy::new(address);
    let mut publisher = Client::connect(address);
    for _ in 0..5 {
        let mut client = Client::connect_narrow(address).upgrade(APP_PATH);
        client.established();
        client.subscribe("big");
        // More bytes than the client's kernel takes, so that a send is in flight.
        for _ in 0..60 {
            publisher.publish("big", &"x".repeat(10_000));
        }
        client.reset();
        publisher.publish("big", "x");
        healthy.check();
    }
    wait_count(&server, "connections", HEALTHY + 1);
    wait_count(&server, "subscriptions", 1);
}

#[test]
fn survival_connections_over_the_limit_wait() {
    const LIMIT: usize = 8;
    let mut config = config();
    config.threads = 1;
    config.limits.connections = LIMIT;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut served: Vec<Client> = (0..LIMIT).map(|_| Client::open(address, "/echo")).collect();
    let mut waiting: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = Client::connect(address);
            client.send(handshake("/echo", "").as_bytes());
            client
        })
        .collect();
    for client in &mut served {
        client.send_text("served");
        assert_eq!(client.text(), "served");
    }
    assert_eq!(server.count("connections"), LIMIT as u64);
    assert_eq!(server.count("accepted"), LIMIT as u64);
    for client in &mut waiting {
        drop(served.pop());
        assert_eq!(client.response().status, 101);
        client.send_text("late");
        assert_eq!(client.text(), "late");
    }
    assert_eq!(server.count("connections"), LIMIT as u64);
    drop((served, waiting));
    wait_count(&server, "connections", 0);
    Client::open(address, "/echo").sync();
}

#[test]
fn survival_every_listener_accepts_near_the_limit() {
    let mut config = config();
    config.threads = 1;
    config.limits.connections = 4;
    config.listeners = vec![listener("127.0.0.1:0"), listener("[::1]:0")];
    let Some(server) = start(config) else { return };
    for round in 0..10 {
        let [v4, v6] = [0, 1].map(|at| Client::open(server.addresses()[at], "/echo"));
        let more = Client::open(server.addresses()[round % 2], "/echo");
        for mut client in [v4, v6, more] {
            client.sync();
        }
        wait_count(&server, "connections", 0);
    }
}

#[test]
fn survival_connections_per_address_are_bounded() {
    let mut config = config();
    config.limits.connections_per_address = 3;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut served: Vec<Client> = (0..3).map(|_| Client::open(address, "/echo")).collect();
    for _ in 0..3 {
        let mut refused = Client::connect(address);
        refused.end();
    }
    assert_eq!(server.count("refused_address"), 3);
    served.iter_mut().for_each(Client::sync);
    drop(served.pop());
    wait_count(&server, "connections", 2);
    Client::open(address, "/echo").sync();
}

#[test]
fn survival_half_closed_connection_gets_its_answers() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let mut subscriber = Client::subscriber(address, "c");
    for count in [1, 5, 64] {
        let mut client = Client::connect(address);
        // These channels have their homes on both cores.
        let one = |n: usize| publish(["c", "d", "e", "f"][n % 4], &n.to_string());
        client.send(&(0..count).flat_map(one).collect::<Vec<u8>>());
        client.stream.shutdown(Shutdown::Write).unwrap();
        for _ in 0..count {
            assert_eq!(client.response().status, 200);
        }
        client.end();
        for n in (0..count).step_by(4) {
            assert_eq!(subscriber.text(), event("c", &n.to_string()));
        }
    }
    wait_count(&server, "connections", 1);
}

#[test]
fn survival_two_thousand_connections_leave_nothing() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    for round in 0..20 {
        let clients: Vec<Client> = (0..100)
            .map(|n| match n % 4 {
                0 => Client::connect(address),
                1 => Client::open(address, "/echo"),
                _ => Client::subscriber(address, &format!("channel-{}", (n + round) % 10)),
            })
            .collect();
        for (n, client) in clients.into_iter().enumerate() {
            match n % 3 {
                0 => client.reset(),
                _ => drop(client),
            }
        }
    }
    wait_count(&server, "accepted", 2000);
    wait_count(&server, "connections", 0);
    wait_count(&server, "subscriptions", 0);
    wait_count(&server, "channels", 0);
    Healthy::new(address).check();
}

#[test]
fn survival_full_mailboxes_pause_publishers_and_lose_nothing() {
    const PUBLISHERS: usize = 4;
    const COUNT: usize = 600;
    let mut config = config();
    config.limits.mailbox_messages = 16;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let channels = ["a", "b", "c", "d", "e", "f"];
    let mut subscribers: Vec<Client> = (0..6)
        .map(|_| {
            let (mut client, _) = Client::app(address);
            channels.iter().for_each(|channel| client.subscribe(channel));
            client
        })
        .collect();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let one = |n: usize| publish(channels[n % 6], &format!("{publisher}-{n}"));
                let all: Vec<u8> = (0..COUNT).flat_map(one).collect();
                let mut writer = client.stream.try_clone().unwrap();
                let sender = std::thread::spawn(move || {
                    std::io::Write::write_all(&mut writer, &all).unwrap();
                });
                for _ in 0..COUNT {
                    assert_eq!(client.response().status, 200);
                }
                sender.join().unwrap();
            })
        })
        .collect();
    for subscriber in &mut subscribers {
        let mut next = [[0; 6]; PUBLISHERS];
        for (publisher, next) in next.iter_mut().enumerate() {
            next.iter_mut().enumerate().for_each(|(at, next)| *next = at);
            let _ = publisher;
        }
        for _ in 0..PUBLISHERS * COUNT {
            let text = subscriber.text();
            let data = text.split(r#""data":""#).nth(1).unwrap().trim_end_matches(r#""}"#);
            let (publisher, number) = data.split_once('-').unwrap();
            let number: usize = number.parse().unwrap();
            let next = &mut next[publisher.parse::<usize>().unwrap()][number % 6];
            assert_eq!(number, *next, "{text}");
            *next += 6;
        }
        subscriber.sync();
    }
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    println!("mail waited {} times", server.count("mail_waited"));
}

#[test]
fn survival_paused_publishers_continue() {
    const PUBLISHERS: usize = 16;
    const COUNT: usize = 300;
    let mut config = config();
    config.limits.mailbox_messages = 16;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    // Many messages to the other core in one step, and many responses that wait for it.
    let names: Vec<String> = (0..100).map(|n| format!(r#""c{n}""#)).collect();
    let many = format!(r#"{{"name":"e","channels":[{}],"data":"x"}}"#, names.join(","));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let many = many.clone();
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let one = |n: usize| match (n + publisher) % 8 {
                    0 => DEMO.request("POST", EVENTS, &many),
                    at => publish(&format!("c{at}"), "x"),
                };
                let all: Vec<u8> = (0..COUNT).flat_map(one).collect();
                let mut writer = client.stream.try_clone().unwrap();
                let sender = std::thread::spawn(move || {
                    std::io::Write::write_all(&mut writer, &all).unwrap();
                });
                for _ in 0..COUNT {
                    assert_eq!(client.response().status, 200);
                }
                sender.join().unwrap();
            })
        })
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    assert!(server.count("mail_waited") > 0);
}

#[test]
fn survival_few_receive_buffers_serve_many_clients() {
    let mut config = config();
    config.threads = 1;
    config.limits.receive_buffers = 16;
    config.limits.receive_buffer_bytes = 512;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut clients: Vec<Client> = (0..200).map(|_| Client::open(address, "/echo")).collect();
    for round in 0..20 {
        let payload = |at: usize| garbage((round * 200 + at) as u64, 3000);
        for (at, client) in clients.iter_mut().enumerate() {
            client.send_frame(BINARY, &payload(at));
        }
        for (at, client) in clients.iter_mut().enumerate() {
            let frame =
                Frame { fin: true, compressed: false, opcode: BINARY, payload: payload(at) };
            assert!(client.frame() == frame, "client {at} in round {round}");
        }
    }
    let waits = server.count("receive_no_buffer");
    println!("{waits} receives found no buffer");
    assert!(waits > 0);
    assert_eq!(server.count("messages_received"), 200 * 20);
}

/// Flooding clients that always have more input than there are buffers must not starve others.
#[test]
fn survival_starved_connection_gets_the_next_buffer() {
    let mut config = config();
    config.threads = 1;
    config.limits.receive_buffers = 16;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut healthy = Healthy::new(address);
    let stop = AtomicBool::new(false);
    let mut worst = Duration::ZERO;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::subscriber(address, "flood");
                let pongs = masked(true, TEXT, br#"{"event":"pusher:pong"}"#).repeat(4096);
                let began = Instant::now();
                // The time limit ends the thread if a check fails.
                while !stop.load(Ordering::Relaxed) && began.elapsed().as_secs() < 30 {
                    client.send(&pongs);
                }
            });
        }
        wait("receives without a buffer", || server.count("receive_no_buffer") > 100);
        for _ in 0..20 {
            let began = Instant::now();
            healthy.check();
            worst = worst.max(began.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("a publish and its event took at most {worst:?}");
    assert!(worst < Duration::from_secs(10), "{worst:?}");
}

/// A server with clients in all states.
fn busy_server(drain_s: u64) -> Option<(Server, Vec<Client>)> {
    let mut config = config();
    config.drain_s = drain_s;
    config.limits.write_queue_bytes = 1 << 20;
    let server = start(config)?;
    let address = server.addresses()[0];
    let mut in_head = Client::connect(address);
    in_head.send(b"GET / HT");
    let mut in_body = Client::connect(address);
    in_body.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf");
    let mut in_frame = Client::open(address, "/echo");
    in_frame.send(&masked(true, TEXT, b"half a frame")[..9]);
    let mut in_message = Client::open(address, "/echo");
    in_message.send(&masked(false, TEXT, b"half a message"));
    let mut closing = Client::open(address, "/echo");
    closing.send(&masked_header(true, BINARY, 1 << 40));
    let mut slow = Client::connect_narrow(address).upgrade(APP_PATH);
    slow.established();
    slow.subscribe("c");
    let mut publisher = Client::connect(address);
    for _ in 0..100 {
        publisher.publish("c", &"x".repeat(10_000));
    }
    let mut clients = vec![in_head, in_body, in_frame, in_message, closing, slow, publisher];
    clients.push(Client::connect(address));
    clients.push(Client::subscriber(address, "d"));
    wait_count(&server, "connections", clients.len() as u64);
    Some((server, clients))
}

#[test]
fn survival_stopped_server_ends_within_its_time() {
    let Some((mut server, clients)) = busy_server(1) else { return };
    let start = Instant::now();
    server.stop();
    server.join().unwrap();
    let took = start.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    for mut client in clients {
        client.drained();
    }
}

#[test]
fn survival_dropped_server_ends_at_once() {
    let Some((server, clients)) = busy_server(0) else { return };
    let start = Instant::now();
    drop(server);
    let took = start.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
    for mut client in clients {
        client.drained();
    }
}

#[test]
fn survival_control_frames_a_second_are_bounded() {
    let mut config = quick();
    config.limits.control_frames_per_s = 50;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut healthy = Healthy::new(address);
    let mut client = Client::open(address, "/echo");
    let pings: Vec<u8> = (0..50).flat_map(|_| masked(true, PING, b"p")).collect();
    client.send(&pings);
    for _ in 0..50 {
        assert_eq!(client.frame().opcode, PONG);
    }
    for (opcode, payload) in [(PING, &b"p"[..]), (PONG, b""), (TEXT, b"")] {
        let mut client = Client::open(address, "/echo");
        // More frames than two seconds allow, wherever they begin. The test in `compress` is exact.
        let burst: Vec<u8> = (0..101).flat_map(|_| masked(true, opcode, payload)).collect();
        client.send(&burst);
        let close = std::iter::from_fn(|| client.try_frame()).find(|frame| frame.opcode == CLOSE);
        let close = close.expect("a close");
        assert_eq!(close.payload[..2], 1008_u16.to_be_bytes());
        healthy.check();
    }
    assert_eq!(server.count("control_floods"), 3);
}

#[test]
fn survival_close_is_not_a_reset_while_data_arrives() {
    let Some(server) = start(config()) else { return };
    let mut client = Client::open(server.addresses()[0], "/echo");
    let text = "x".repeat(50_000);
    for _ in 0..4 {
        client.send_text(&text);
    }
    // An unmasked frame, and many bytes after it that are discarded.
    client.send(&[0x81, 0x01, b'x']);
    for _ in 0..64 {
        client.send(&[0x55; 64 * 1024]);
    }
    for _ in 0..4 {
        assert!(client.text() == text);
    }
    assert_eq!(client.close().0, 1002);
    client.end();
    client.send(&[0x55; 64 * 1024]);
    client.end();
}

#[test]
fn survival_handshakes_in_flight_are_bounded() {
    let mut config = config();
    config.threads = 1;
    config.limits.handshakes = 2;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut oldest = Client::connect(address);
    // `100 Continue` is not yet a final response.
    let publish = String::from_utf8(publish("c", "data")).unwrap();
    let (head, _) = publish.split_once("\r\n\r\n").unwrap();
    oldest.send(format!("{head}\r\nExpect: 100-continue\r\n\r\n").as_bytes());
    assert_eq!(oldest.response().status, 100);
    let second = Client::connect(address);
    wait_count(&server, "accepted", 2);
    assert_eq!(server.count("refused_handshake"), 0);
    // One connection above the limit is served, and the one that has been silent for longest is
    // closed.
    let third = Client::connect(address);
    oldest.drained();
    assert_eq!(server.count("refused_handshake"), 1);
    // A completed handshake makes room.
    let _sockets = [second, third].map(|client| client.upgrade("/echo"));
    let fourth = Client::connect(address);
    Client::open(address, "/echo").sync();
    wait_count(&server, "accepted", 5);
    drop(fourth);
    wait_count(&server, "connections", 2);
    Client::open(address, "/echo").sync();
    assert_eq!(server.count("refused_handshake"), 1);
}

#[test]
fn survival_unfinished_message_is_closed_in_its_time() {
    let mut config = quick();
    config.timeouts.message_ms = 600;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut healthy = Healthy::new(address);
    let mut slow = Client::open(address, "/echo");
    let frame = masked(true, TEXT, b"a message");
    let start = Instant::now();
    // Occasional bytes keep it from being idle.
    for byte in &frame[..frame.len() - 1] {
        slow.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let _ = std::io::Write::write(&mut slow.stream, &[*byte]);
        let mut one = [0];
        if matches!(slow.stream.peek(&mut one), Ok(1..)) {
            break;
        }
    }
    slow.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (code, reason) = slow.close();
    assert_eq!((code, &*reason), (1008, "the message took too long to arrive"));
    assert!(start.elapsed() >= Duration::from_millis(550), "{:?}", start.elapsed());
    healthy.check();
}

#[test]
fn survival_blank_lines_do_not_extend_the_deadline() {
    let Some(server) = start(quick()) else { return };
    let address = server.addresses()[0];
    let mut client = Client::connect(address);
    let start = Instant::now();
    client.send(b"\r\n");
    client.drained();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn survival_pipelining_client_gets_every_answer_after_its_end() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    for round in 0..20 {
        let mut client = Client::connect(address);
        let requests: Vec<u8> =
            (0..100).flat_map(|at| publish(&format!("channel-{at}"), "x")).collect();
        client.send(&requests);
        client.stream.shutdown(Shutdown::Write).unwrap();
        for at in 0..100 {
            assert_eq!(client.response().status, 200, "round {round}, answer {at}");
        }
        client.end();
    }
    assert_eq!(server.count("published"), 2000);
}

#[test]
fn survival_both_address_families_share_a_port() {
    let mut config = config();
    config.listeners = vec![listener("127.0.0.1:0")];
    let Some(first) = start(config.clone()) else { return };
    let port = first.addresses()[0].port();
    drop(first);
    config.listeners =
        vec![listener(&format!("0.0.0.0:{port}")), listener(&format!("[::]:{port}"))];
    config.is_demo = false;
    let Some(_server) = start(config) else { return };
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        Client::open(address.parse().unwrap(), "/echo").sync();
    }
}
