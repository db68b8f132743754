//! Compressed messages, as a client sees them.

use super::child::*;
use crate::net::*;
use polycast::config::{CompressionMode, Config};
use polycast::ws::deflate::{Deflater, Inflater};
use polycast::ws::frame::{Header, Opcode, push_with};
use std::io::Write;
use std::net::SocketAddr;

/// A configuration in which every route has this compression mode.
fn compressing(compression: CompressionMode) -> Config {
    let mut config = config();
    for route in &mut config.routes {
        route.compression = compression;
    }
    config
}

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// Opens a WebSocket that offers compression. Returns it with the server's answer to the offer.
fn open(address: SocketAddr, path: &str, offer: &str) -> (Client, Option<String>) {
    let mut client = Client::connect(address);
    client.send(handshake(path, offer).as_bytes());
    let response = client.response();
    assert_eq!(response.status, 101, "{response:?}");
    let answer = response.field("Sec-WebSocket-Extensions").map(str::to_owned);
    (client, answer)
}

fn compressed(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::new(15, false).deflate(payload, &mut out).unwrap();
    out
}

/// A client's frame with RSV1, masked with a key of zeros.
fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u64;
    let mut out = Vec::new();
    push_with(
        &mut out,
        &Header { fin: true, rsv1: true, opcode, mask: Some([0; 4]), len },
        payload,
    );
    out
}

fn inflated(frame: &Frame) -> String {
    assert!(frame.compressed);
    let mut out = Vec::new();
    Inflater::new(false).inflate(&frame.payload, 1 << 20, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn compress_broadcast_once_for_each_window() {
    let mut config = compressing(CompressionMode::Shared);
    // The greeting has a random socket id, so that it may or may not get shorter: it is not
    // compressed.
    config.compression.min_bytes = 256;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let offers = [
        OFFER,
        OFFER,
        "",
        "Sec-WebSocket-Extensions: permessage-deflate; \
        server_max_window_bits=9\r\n",
        OFFER,
        "",
    ];
    let mut clients: Vec<Client> = Vec::new();
    for offer in offers {
        let (mut client, answer) = open(address, APP_PATH, offer);
        assert_eq!(answer.is_some(), !offer.is_empty());
        client.established();
        client.subscribe("news");
        clients.push(client);
    }
    let data = "polycast ".repeat(100);
    let mut publisher = Client::connect(address);
    publisher.publish("news", &data);
    publisher.publish("news", "short");
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for (client, offer) in clients.iter_mut().zip(offers) {
        if offer.is_empty() {
            assert_eq!(client.text(), event("news", &data));
        } else {
            let frame = client.frame();
            assert_eq!(inflated(&frame), event("news", &data));
            assert!(frame.payload.len() < 200);
            if offer == OFFER {
                seen.push(frame.payload);
            }
        }
        // The event is shorter than `compression.min_bytes`.
        assert_eq!(client.text(), event("news", "short"));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "the same bytes for all");
}

#[test]
fn compress_keeps_dedicated_windows_within_their_memory() {
    let mut config = compressing(CompressionMode::Dedicated);
    config.threads = 1;
    config.compression.windows_bytes = 500 * 1024;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let (mut first, answer) = open(address, "/echo", OFFER);
    assert_eq!(answer.as_deref(), Some("permessage-deflate"));
    let shared = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let (_second, answer) = open(address, "/echo", OFFER);
    assert_eq!(answer.as_deref(), Some(shared));
    assert_eq!(server.count("windows_refused"), 1);
    // The second of two equal messages is compressed to a reference into the window.
    let noise: String = (0..400_u32)
        .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
        .collect();
    let mut lengths = Vec::new();
    let (mut deflater, mut inflater) = (Deflater::new(15, true), Inflater::new(true));
    for _ in 0..2 {
        let mut payload = Vec::new();
        deflater.deflate(noise.as_bytes(), &mut payload).unwrap();
        first.send(&frame(Opcode::Text, &payload));
        let echoed = first.frame();
        let mut back = Vec::new();
        inflater.inflate(&echoed.payload, 1000, &mut back).unwrap();
        assert_eq!(back, noise.as_bytes());
        lengths.push(echoed.payload.len());
    }
    assert!(lengths[1] < lengths[0] / 4, "{lengths:?}");
    drop(first);
    wait_count(&server, "connections", 1);
    let (_third, answer) = open(address, "/echo", OFFER);
    assert_eq!(answer.as_deref(), Some("permessage-deflate"), "the memory is free again");
}

#[test]
fn compress_invalid_data_closes_its_own_connection() {
    let mut config = compressing(CompressionMode::Shared);
    config.limits.message_bytes = 100_000;
    config.limits.frame_bytes = 100_000;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let fits = vec![b'x'; 100_000];
    let bomb = vec![b'x'; 64 * 1024 * 1024];
    for (payload, opcode, expected) in [
        (compressed(&fits), Opcode::Text, None),
        (compressed(&vec![b'x'; 100_001]), Opcode::Text, Some(1009)),
        (compressed(&bomb)[..90_000].to_vec(), Opcode::Text, Some(1009)),
        (vec![0xff; 10], Opcode::Text, Some(1007)),
        (compressed(&[0xff; 300]), Opcode::Text, Some(1007)),
        (compressed(&[0xff; 300]), Opcode::Binary, None),
        (vec![0], Opcode::Text, None),
        (vec![], Opcode::Text, None),
    ] {
        let (mut client, _) = open(address, "/echo", OFFER);
        client.send(&frame(opcode, &payload));
        match expected {
            Some(code) => assert_eq!(client.close().0, code, "{} bytes", payload.len()),
            None => {
                client.frame();
                client.sync();
            }
        }
    }
    let (mut plain, answer) = open(address, "/echo", "");
    assert_eq!(answer, None);
    plain.send(&frame(Opcode::Text, &compressed(b"x")));
    assert_eq!(plain.close().0, 1002, "RSV1 without an agreement");
}

#[test]
fn compress_malformed_offer_fails_and_unsupported_offer_is_declined() {
    let Some(server) = start(compressing(CompressionMode::Shared)) else { return };
    let address = server.addresses()[0];
    let mut client = Client::connect(address);
    client.send(handshake("/echo", "Sec-WebSocket-Extensions: permessage-deflate;\r\n").as_bytes());
    assert_eq!(client.response().status, 400);
    let unmet = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n";
    let (mut client, answer) = open(address, "/echo", unmet);
    assert_eq!(answer, None);
    client.sync();
}

#[test]
fn compress_others_are_served_while_one_client_inflates() {
    let mut config = compressing(CompressionMode::Shared);
    config.threads = 1;
    config.limits.write_queue_bytes = 64 * 1024 * 1024;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let (mut heavy, _) = open(address, "/echo", OFFER);
    let megabyte = compressed(&vec![b'x'; 1 << 20]);
    let mut burst = Vec::new();
    for _ in 0..24 {
        burst.extend(frame(Opcode::Binary, &megabyte));
    }
    heavy.send(&burst);
    let mut other = Client::open(address, "/echo");
    other.sync();
    for _ in 0..24 {
        let echoed = heavy.frame();
        assert_eq!(inflated(&echoed).len(), 1 << 20);
    }
    heavy.sync();
}

#[test]
fn compress_dropped_messages_do_not_damage_a_kept_window() {
    use polycast::config::SlowConsumer;
    let mut config = compressing(CompressionMode::Dedicated);
    config.threads = 1;
    config.slow_consumer = SlowConsumer::Drop;
    config.limits.write_queue_bytes = 64 * 1024;
    // The first message is shorter than this, so it is not compressed.
    config.compression.min_bytes = 1024;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut slow = Client::connect_narrow(address);
    slow.send(handshake(APP_PATH, OFFER).as_bytes());
    assert_eq!(slow.response().status, 101);
    slow.established();
    slow.subscribe("news");
    let mut publisher = Client::connect(address);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut sent = Vec::new();
    while server.count("slow_consumer_dropped") < 20 {
        // The data is hard to compress, but each message is like the one before.
        let noise: String = (0..3000).map(|_| rng.alphanumeric()).collect();
        for number in 0..5 {
            let data = format!("{number} {noise}");
            publisher.publish("news", &data);
            sent.push(event("news", &data));
        }
        assert!(sent.len() < 50_000);
    }
    let dropped = server.count("slow_consumer_dropped") as usize;
    let mut inflater = Inflater::new(true);
    let mut expected = sent.iter();
    for _ in 0..sent.len() - dropped {
        let frame = slow.frame();
        let mut out = Vec::new();
        inflater.inflate(&frame.payload, 1 << 20, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(expected.any(|sent| *sent == text), "a message that was never sent: {text:.60}");
    }
}

/// The inflated data of a message of a few kilobytes is in memory for one client at a time.
#[test]
fn inflate_bombs_of_many_clients_at_once_take_the_memory_of_one() {
    // More bytes than are inflated in a turn.
    const BOMB: usize = 6 << 20;
    const SHRINK_THRESHOLD: usize = 50;
    if !has_uring() {
        return;
    }
    let config = format!(
        "threads = 1\n{}[[routes]]\nendpoint = 'echo'\ncompression = 'shared'\n",
        BASE.replace("threads = 2\n", "")
    );
    let process = Process::start("bombs", &config);
    let address = process.address;
    let mut best = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    best.write_all(&vec![0; BOMB]).and_then(|()| best.flush()).unwrap();
    let flushed = best.get_ref();
    let bomb = frame(Opcode::Binary, &flushed[..flushed.len() - 4]);
    assert!(bomb.len() < 8_000, "{} bytes", bomb.len());
    let before = process.resident();
    let mut clients: Vec<Client> =
        (0..SHRINK_THRESHOLD).map(|_| open(address, "/echo", OFFER).0).collect();
    for client in &mut clients {
        client.send(&bomb);
    }
    // Clients with small messages are served meanwhile.
    let mut other = Client::open(address, "/echo");
    let (mut small, _) = open(address, "/echo", OFFER);
    for _ in 0..5 {
        other.sync();
        small.send(&frame(Opcode::Binary, &compressed(&[7; 1000])));
        assert_eq!(inflated(&small.frame()).len(), 1000);
    }
    for client in &mut clients {
        let echoed = client.frame();
        assert!(echoed.compressed && echoed.payload.len() < 80_000);
    }
    // One growing output and the allocator's overhead; all outputs at once would take 300 MiB.
    let took = process.peak() - before;
    assert!(took < 8 * BOMB as u64, "{took} bytes");
    // Memory of less than 16 MiB need not be given back, so some may be left.
    wait("memory is given back", || process.resident() < before + 4 * BOMB as u64);
    other.sync();
}
