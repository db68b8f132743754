//! Compressed messages that arrive in any pieces, with a simulated clock and simulated turns.

use crate::machine::{Machine, config};
use crate::peer::{self, Received};
use polycast::config::{CompressionMode, Config};
use polycast::ws::deflate::{Deflater, INFLATER_BYTES};
use polycast::ws::frame::{Header, Opcode, push_with};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

fn compressing(compression: CompressionMode) -> Config {
    let mut config = config("");
    for route in &mut config.routes {
        route.compression = compression;
    }
    config
}

/// Configurations with and without enough memory for the state of unfinished messages.
fn all_ways() -> [Config; 3] {
    let mut scarce = compressing(CompressionMode::Shared);
    scarce.compression.windows_bytes = INFLATER_BYTES - 1;
    [compressing(CompressionMode::Shared), compressing(CompressionMode::Dedicated), scarce]
}

fn echo(machine: &mut Machine) -> usize {
    let at = machine.open();
    machine.receive(at, &peer::handshake("/echo", OFFER));
    let received = std::mem::take(&mut machine.wire(at).received);
    let agreed = |head: &str| head.contains("permessage-deflate");
    assert!(matches!(&received[..], [Received::Answer { status: 101, head, .. }] if agreed(head)));
    at
}

fn deflated(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::new(15, false).deflate(message, &mut out).expect("deflate");
    out
}

/// A frame with the opcode `first`, which has RSV1 if it begins a message; a continuation frame
/// without `first`.
fn frame(fin: bool, first: Option<Opcode>, payload: &[u8]) -> Vec<u8> {
    let opcode = first.unwrap_or(Opcode::Continuation);
    let rsv1 = matches!(first, Some(Opcode::Text | Opcode::Binary));
    let (mask, len) = (Some([0x37, 0xfa, 0x21, 0x3d]), payload.len() as u64);
    let mut out = Vec::new();
    push_with(&mut out, &Header { fin, rsv1, opcode, mask, len }, payload);
    out
}

fn received(machine: &mut Machine, at: usize) -> Vec<Received> {
    std::mem::take(&mut machine.wire(at).received)
}

fn close_code(received: &[Received]) -> Option<u16> {
    match received {
        [Received::Close(code, _)] => *code,
        _ => None,
    }
}

#[test]
fn compress_messages_cut_anywhere_come_back() {
    for config in all_ways() {
        let mut machine = Machine::new(config);
        let mut rng = fastrand::Rng::with_seed(3);
        let at = echo(&mut machine);
        for round in 0..200 {
            let len = [0, 1, 100, 5000, 100_000][round % 5];
            let text: String = (0..len).map(|at| if at % 7 == 0 { 'ä' } else { 'x' }).collect();
            let noise: String = (0..len / 10).map(|_| rng.alphanumeric()).collect();
            let message = text + &noise;
            let wire = deflated(message.as_bytes());
            let mut bytes = Vec::new();
            let (mut from, mut pings) = (0, Vec::new());
            let mut opcode = Some(Opcode::Text);
            loop {
                let to = (from + rng.usize(..=wire.len() / 2 + 1)).min(wire.len());
                let fin = to == wire.len() && rng.bool();
                bytes.extend(frame(fin, opcode.take(), &wire[from..to]));
                from = to;
                if fin {
                    break;
                }
                if rng.bool() {
                    pings.push(Received::Pong(vec![pings.len() as u8; 3]));
                    bytes.extend(frame(true, Some(Opcode::Ping), &[pings.len() as u8 - 1; 3]));
                }
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rng.usize(1..=rest.len().min(len + 9)));
                machine.receive(at, now);
                rest = later;
            }
            let expected: Vec<Received> =
                pings.into_iter().chain([Received::Text(message)]).collect();
            assert!(received(&mut machine, at) == expected, "round {round}");
            machine.wait(1000);
            assert!(received(&mut machine, at).is_empty());
        }
        machine.end();
    }
}

#[test]
fn compress_violation_is_answered_with_its_octet() {
    let mut config = compressing(CompressionMode::Shared);
    config.limits.message_bytes = 10_000;
    for (compression, bytes) in [
        (CompressionMode::Shared, 1 << 20),
        (CompressionMode::Dedicated, 1 << 20),
        (CompressionMode::Shared, 0),
    ] {
        for route in &mut config.routes {
            route.compression = compression;
        }
        config.compression.windows_bytes = bytes;
        let mut machine = Machine::new(config.clone());
        let stored = [&[0x00, 0x08, 0x00, 0xf7, 0xff][..], b"ok\xff"].concat();
        let bomb = deflated(&[b'x'; 10_001]);
        let part = &bomb[..bomb.len() - 1];
        for (part, cut, code) in
            [(&stored[..], stored.len() - 1, 1007), (&[0x07], 0, 1007), (part, 4, 1009)]
        {
            let at = echo(&mut machine);
            machine.receive(at, &frame(false, Some(Opcode::Text), &part[..cut]));
            assert_eq!(received(&mut machine, at), [], "all is well so far");
            machine.receive(at, &frame(false, None, &part[cut..]));
            if bytes > 0 {
                assert_eq!(close_code(&received(&mut machine, at)), Some(code));
                continue;
            }
            // Without memory for the state, the message is inflated after its last frame.
            assert_eq!(received(&mut machine, at), []);
            machine.receive(at, &frame(true, None, &[0]));
            let received = received(&mut machine, at);
            assert_eq!(close_code(&received), Some(code), "{received:?}");
        }
        machine.end();
    }
}

#[test]
fn compress_unfinished_message_holds_little_more_than_was_sent() {
    let mut machine = Machine::new(compressing(CompressionMode::Shared));
    let at = echo(&mut machine);
    let message = vec![b'x'; 8 << 20];
    let wire = deflated(&message);
    // All but the end could be inflated, to a thousand times its size. The rest waits.
    machine.receive(at, &frame(false, Some(Opcode::Binary), &wire[..wire.len() - 9]));
    assert_eq!(machine.settle(), 1);
    machine.receive_in_turn(at, &frame(true, None, &wire[wire.len() - 9..]));
    assert!(machine.settle() > 1, "most of the work was still to be done");
    assert!(received(&mut machine, at) == [Received::Binary(message)]);
    machine.end();
}

#[test]
fn compress_expensive_message_is_spread_over_turns() {
    for config in all_ways() {
        let mut machine = Machine::new(config);
        let (heavy, twin, other) = (echo(&mut machine), echo(&mut machine), echo(&mut machine));
        let message = vec![b'x'; 15 << 20];
        let frame = frame(true, Some(Opcode::Binary), &deflated(&message));
        machine.receive_in_turn(heavy, &frame);
        machine.receive_in_turn(twin, &frame);
        machine.receive_in_turn(other, &peer::framed(Opcode::Ping, b"p"));
        machine.turn();
        assert_eq!(received(&mut machine, heavy), []);
        // A compressed message waits for the next turn; a control frame of the same connection
        // waits too, but not longer.
        for _ in 0..2 {
            machine.turn();
        }
        assert_eq!(received(&mut machine, other), [Received::Pong(b"p".to_vec())]);
        let turns = machine.settle();
        assert!(turns > 2, "{turns} turns for two messages of four");
        for at in [heavy, twin] {
            assert!(received(&mut machine, at) == [Received::Binary(message.clone())]);
        }
        // A connection that is closed while it inflates leaves no state.
        machine.receive_in_turn(heavy, &frame);
        machine.turn();
        machine.end();
    }
}

#[test]
fn rate_limit_bounds_control_and_empty_frames_a_second() {
    let ping = frame(true, Some(Opcode::Ping), b"p");
    let pong = frame(true, Some(Opcode::Pong), b"");
    let empty = peer::framed(Opcode::Text, b"");
    let compressed = frame(true, Some(Opcode::Text), &[0]);
    let fragment = frame(false, None, b"");
    let begun = frame(false, Some(Opcode::Text), &[0x00, 0x01]);
    for (first, each) in
        [(&[][..], &ping), (&[], &pong), (&[], &empty), (&[], &compressed), (&begun, &fragment)]
    {
        let mut config = compressing(CompressionMode::Shared);
        config.limits.control_frames_per_s = 50;
        let mut machine = Machine::new(config);
        let at = echo(&mut machine);
        machine.receive(at, first);
        machine.receive(at, &each.repeat(50));
        machine.wait(1000);
        machine.receive(at, &each.repeat(50));
        // Empty fragments are not answered; a byte of the next frame shows whether the limit was
        // exceeded.
        machine.receive(at, &each[..1]);
        let closes = |it: &Received| matches!(it, Received::Close(..));
        let so_far = received(&mut machine, at);
        assert!(!so_far.iter().any(closes), "{:?} {each:?}", so_far.last());
        machine.wait(1000);
        machine.receive(at, &each[1..]);
        machine.receive(at, &each.repeat(50));
        machine.receive(at, &each[..1]);
        let close = received(&mut machine, at).into_iter().find(closes);
        assert_eq!(close, Some(Received::Close(Some(1008), "too many control frames".to_owned())));
        assert_eq!(machine.counters.control_floods.get(), 1);
        machine.end();
    }
}

/// Runs turns until `at` has received a binary message, and checks the bound of inflated memory
/// after each turn. Returns the number of turns.
fn bounded_turns(machine: &mut Machine, at: usize, bound: usize) -> usize {
    for turns in 1..1000 {
        machine.turn();
        let held = machine.shard.inflated_bytes();
        assert!(held <= bound, "{held} bytes of {bound} in turn {turns}");
        if !received(machine, at).is_empty() {
            return turns;
        }
    }
    panic!("it is never answered")
}

#[test]
fn inflate_large_messages_one_after_another_and_small_ones_meanwhile() {
    const LARGE: usize = 5 << 20;
    const SHRINK_THRESHOLD: usize = 8;
    for config in all_ways() {
        let dedicated = config.routes[0].compression == CompressionMode::Dedicated;
        let mut machine = Machine::new(config);
        let others: Vec<usize> = (0..SHRINK_THRESHOLD).map(|_| echo(&mut machine)).collect();
        let (small, plain) = (echo(&mut machine), machine.open());
        machine.receive(plain, &peer::handshake("/echo", ""));
        received(&mut machine, plain);
        let windows = machine.shard.inflated_bytes();
        assert_eq!(windows > 0, dedicated);
        // The memory of one output, which grows by half, and of the begun outputs of the other
        // connections.
        let begun = if dedicated { (64 + 16) * 1024 } else { 0 };
        let bound = windows + LARGE + LARGE / 2 + 16 * 1024 + SHRINK_THRESHOLD * begun;
        let bomb = frame(true, Some(Opcode::Binary), &deflated(&vec![b'x'; LARGE]));
        for &at in &others {
            machine.receive_in_turn(at, &bomb);
            assert!(machine.shard.inflated_bytes() <= bound);
        }
        machine.receive_in_turn(small, &frame(true, Some(Opcode::Binary), &deflated(&[7; 60_000])));
        machine.receive_in_turn(plain, &peer::framed(Opcode::Binary, b"p"));
        let turns = bounded_turns(&mut machine, small, bound);
        assert!(turns <= 3, "a small message waited for {turns} turns");
        assert!(!received(&mut machine, plain).is_empty());
        assert!(machine.counters.inflate_waits.get() > 0);
        // Connections are served in the order of arrival, also one that has sent a further message
        // meanwhile.
        machine.receive_in_turn(others[0], &bomb);
        for &at in &others[1..] {
            bounded_turns(&mut machine, at, bound);
        }
        machine.settle();
        assert_eq!(received(&mut machine, others[0]).len(), 2);
        assert_eq!(machine.shard.inflated_bytes(), windows, "all is given back");
        machine.end();
    }
}

#[test]
fn inflate_nothing_at_all_is_an_empty_message() {
    for config in all_ways() {
        let mut machine = Machine::new(config);
        let (at, large) = (echo(&mut machine), echo(&mut machine));
        let empty = || Received::Text(String::new());
        let message = b"with a window or without";
        let compressed = frame(true, Some(Opcode::Binary), &deflated(message));
        machine.receive(at, &frame(true, Some(Opcode::Text), b""));
        machine.receive(at, &compressed);
        let parts = [frame(false, Some(Opcode::Text), b""), frame(true, None, b"")];
        machine.receive(at, &parts.concat());
        // Parts that arrive separately, between parts that are not empty, and after another
        // message.
        machine.receive(at, &parts[0]);
        machine.receive(at, &parts[1]);
        let (front, back) = squeezed_halves(message);
        machine.receive(at, &[front, frame(false, None, b""), back].concat());
        let bomb = deflated(&vec![b'x'; 5 << 20]);
        machine.receive_in_turn(large, &frame(true, Some(Opcode::Binary), &bomb));
        machine.receive_in_turn(at, &frame(true, Some(Opcode::Text), b""));
        machine.settle();
        let message = || Received::Binary(message.to_vec());
        let expected = [empty(), message(), empty(), empty(), message(), empty()];
        assert_eq!(received(&mut machine, at), expected);
        machine.end();
    }
}

/// A compressed message in two parts, neither of which is empty.
fn squeezed_halves(message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let wire = deflated(message);
    let (front, back) = wire.split_at(wire.len() / 2);
    (frame(false, Some(Opcode::Binary), front), frame(true, None, back))
}

#[test]
fn inflate_place_is_free_again_when_its_owner_leaves_or_is_closed() {
    for config in all_ways() {
        let mut machine = Machine::new(config);
        let (first, second, third) = (echo(&mut machine), echo(&mut machine), echo(&mut machine));
        let windows = machine.shard.inflated_bytes();
        let message = vec![b'x'; 9 << 20];
        let bomb = frame(true, Some(Opcode::Binary), &deflated(&message));
        for at in [first, second, third] {
            machine.receive_in_turn(at, &bomb);
        }
        machine.turn();
        assert!(machine.shard.inflated_bytes() > windows + (4 << 20));
        machine.hang_up(first);
        machine.turn();
        machine.turn();
        machine.hang_up(second);
        machine.settle();
        assert!(received(&mut machine, third) == [Received::Binary(message)]);
        machine.end();
        assert_eq!(machine.shard.inflated_bytes(), 0);
    }
}
