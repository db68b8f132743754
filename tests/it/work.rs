//! The work limits of a turn, and fairness between connections.

use crate::machine::{Machine, UNIX_S, config};
use crate::peer::{self, Received};
use crate::signer::Private;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use polycast::cluster::Arrival;
use polycast::hub::{PicturePiece, StateAuthor};
use polycast::jwt::Algorithm;
use polycast::work;
use polycast::ws::Opcode;
use std::net::Ipv4Addr;

/// The work of verifying one of the tokens here, in nanoseconds.
const SIGNATURE: u64 = Algorithm::ES384.cost_us() * 1000;
/// The size of a receive buffer in bytes.
const PIECE: usize = 4096;

fn guarded() -> Machine {
    let pem = include_str!("../keys/p384.pub");
    Machine::new(config(&format!(
        "[[guards]]\nname = 'g'\nkeys = [{{ kid = 'k', pem = '''{pem}''' }}]\n\
         [[routes]]\nwhen = [{{ path = '/free' }}]\nendpoint = 'echo'\n\
         [[routes]]\nwhen = [{{ path = '/live' }}]\nendpoint = 'health'\n\
         guarded = {{ g = [] }}\n\
         [[routes]]\nwhen = [{{ path = '/app/*' }}, {{ path = '/apps/*' }}]\nendpoint = 'apps'\n"
    )))
}

fn echo(machine: &mut Machine) -> usize {
    let at = machine.open();
    machine.receive(at, &peer::handshake("/free", ""));
    assert_eq!(status(&machine.wire(at).received), [101]);
    machine.wire(at).received.clear();
    at
}

fn status(received: &[Received]) -> Vec<u16> {
    let of =
        |it: &Received| if let Received::Answer { status, .. } = it { Some(*status) } else { None };
    received.iter().filter_map(of).collect()
}

fn token(good: bool) -> String {
    let b64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = format!(r#"{{"sub":"ada","exp":{}}}"#, UNIX_S + 600);
    let message = format!("{}.{}", b64(r#"{"alg":"ES384","kid":"k"}"#), b64(&claims));
    let key = Private::from_pem(include_str!("../keys/p384.pem"), Algorithm::ES384);
    let signed = if good { message.clone() } else { format!("{message} ") };
    let signature = key.sign(&signed, Algorithm::ES384);
    format!("{message}.{signature}")
}

fn request(token: &str) -> Vec<u8> {
    format!("GET /live HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
}

fn receive_all(machine: &mut Machine, at: usize, bytes: &[u8]) {
    for piece in bytes.chunks(PIECE) {
        machine.receive_in_turn(at, piece);
    }
}

/// Ends a turn and returns its work, in nanoseconds.
fn turn(machine: &mut Machine, before: u64) -> u64 {
    machine.turn();
    machine.shard.work() - before
}

#[test]
fn work_of_pipelined_tokens_is_shared_out_and_others_are_served_meanwhile() {
    let mut machine = guarded();
    let (healthy, costly) = (echo(&mut machine), machine.open());
    let one = request(&token(true));
    let requests = 200_000 / one.len();
    let before = machine.shard.work();
    receive_all(&mut machine, costly, &one.repeat(requests));
    let spent = machine.shard.work() - before;
    assert!(spent < work::CONNECTION_WORK + 2 * SIGNATURE, "{spent}");
    assert!(spent >= work::CONNECTION_WORK, "it has its share: {spent}");
    machine.receive_in_turn(healthy, &peer::text("hello"));
    let spent = turn(&mut machine, before);
    assert!(spent < 2 * (work::CONNECTION_WORK + 2 * SIGNATURE), "{spent}");
    assert_eq!(machine.wire(healthy).received, [Received::Text("hello".to_owned())]);
    let mut turns = 1;
    while machine.shard.has_waiting_work() {
        let before = machine.shard.work();
        let spent = turn(&mut machine, before);
        assert!(spent < work::CONNECTION_WORK + 2 * SIGNATURE, "{spent} in turn {turns}");
        turns += 1;
    }
    // All requests are answered in the end.
    assert_eq!(status(&machine.wire(costly).received), vec![200; requests]);
    let expected = requests as u64 * SIGNATURE / (work::CONNECTION_WORK + SIGNATURE);
    assert!(turns >= expected, "{turns} turns");
    machine.end();
}

#[test]
fn work_of_many_connections_ends_with_the_turns_share() {
    let mut machine = guarded();
    let healthy = echo(&mut machine);
    let one = request(&token(true));
    let costly: Vec<usize> = (0..20).map(|_| machine.open()).collect();
    let before = machine.shard.work();
    for &at in &costly {
        machine.receive_in_turn(at, &one.repeat(8));
    }
    let spent = machine.shard.work() - before;
    let share = work::CONNECTION_WORK..work::CONNECTION_WORK + 2 * SIGNATURE;
    assert!(share.contains(&spent), "the others wait for a later turn: {spent}");
    machine.receive_in_turn(healthy, &peer::text("hello"));
    assert!(machine.shard.work() - before < spent + SIGNATURE, "it is light, and served at once");
    let before = machine.shard.work();
    let spent = turn(&mut machine, before);
    assert!((work::TURN / 2..work::TURN / 2 + 2 * SIGNATURE).contains(&spent), "{spent}");
    assert_eq!(machine.wire(healthy).received, [Received::Text("hello".to_owned())]);
    while machine.shard.has_waiting_work() {
        let before = machine.shard.work();
        let spent = turn(&mut machine, before);
        assert!(spent < work::TURN + 2 * SIGNATURE, "{spent}");
    }
    for at in costly {
        assert_eq!(status(&machine.wire(at).received), [200; 8]);
    }
    machine.end();
}

#[test]
fn work_refused_tokens_close_the_connection_after_the_third_answer() {
    let mut machine = guarded();
    let at = machine.open();
    let bad = request(&token(false));
    machine.receive(at, &bad.repeat(2));
    assert_eq!(status(&machine.wire(at).received), [403, 403]);
    machine.receive(at, &request(&token(true)));
    assert_eq!(status(&machine.wire(at).received), [403, 403, 200], "it may still be used");
    machine.receive(at, &bad.repeat(400));
    let received = std::mem::take(&mut machine.wire(at).received);
    assert_eq!(status(&received), [403, 403, 200, 403]);
    let Some(Received::Answer { head, .. }) = received.last() else { panic!("{received:?}") };
    assert!(head.contains("Connection: close"), "{head}");
    assert!(machine.wire(at).shut);
    assert_eq!(machine.counters.guard_failures_closed.get(), 1);
    assert_eq!(machine.counters.guard_bad_token.get(), 3);
    // A token that several guards check, or a token on a path without guards, counts as at most one
    // failure.
    let at = machine.open();
    let renewal = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-challenge-response\r\n\
         Authorization: Bearer {}\r\nContent-Length: 0\r\n\r\n",
        token(false)
    );
    machine.receive(at, renewal.repeat(3).as_bytes());
    assert_eq!(status(&machine.wire(at).received), [403; 3]);
    assert!(machine.wire(at).shut);
    machine.end();
}

#[test]
fn work_tokens_of_an_address_are_not_verified_after_its_failures_in_a_second() {
    let mut machine = guarded();
    let (bad, good) = (request(&token(false)), request(&token(true)));
    let [hostile, other] = [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last));
    for _ in 0..work::ADDRESS_FAILURES {
        let at = machine.open_from(hostile);
        machine.receive(at, &bad);
        assert_eq!(status(&machine.wire(at).received), [403]);
    }
    let before = machine.shard.work();
    let at = machine.open_from(hostile);
    machine.receive(at, &good);
    assert_eq!(status(&machine.wire(at).received), [429]);
    let spent = machine.shard.work() - before;
    assert!(spent < SIGNATURE, "nothing was verified: {spent}");
    assert_eq!(machine.counters.guard_throttled.get(), 1);
    let there = machine.open_from(other);
    machine.receive(there, &good);
    assert_eq!(status(&machine.wire(there).received), [200]);
    machine.wait(1000);
    let at = machine.open_from(hostile);
    machine.receive(at, &good);
    assert_eq!(status(&machine.wire(at).received), [200], "the next second");
    machine.end();
}

#[test]
fn work_messages_of_one_connection_in_a_turn_are_bounded() {
    let mut machine = guarded();
    let at = echo(&mut machine);
    let one = peer::text("x");
    machine.receive_in_turn(at, &one.repeat(work::CONNECTION_MESSAGES as usize));
    assert!(!machine.shard.has_waiting_work());
    machine.turn();
    let received = std::mem::take(&mut machine.wire(at).received);
    assert_eq!(received.len(), work::CONNECTION_MESSAGES as usize);
    assert_eq!(machine.counters.work_held.get(), 0);
    // One more message waits, also if it arrives in a piece of its own.
    machine.receive_in_turn(at, &one.repeat(work::CONNECTION_MESSAGES as usize));
    machine.receive_in_turn(at, &one);
    assert!(machine.shard.has_waiting_work());
    assert_eq!(machine.counters.work_held.get(), 1);
    assert!(machine.wants_read(at), "little waits: it is read from");
    machine.turn();
    assert_eq!(machine.wire(at).received.len(), work::CONNECTION_MESSAGES as usize + 1);
    machine.end();
}

#[test]
fn work_bytes_of_one_connection_in_a_turn_are_bounded() {
    let mut machine = guarded();
    let at = echo(&mut machine);
    let message = peer::framed(Opcode::Binary, &[b'x'; PIECE - 8]);
    // Each frame also counts as a message.
    let fits = work::CONNECTION_BYTES / message.len() * 7 / 8;
    receive_all(&mut machine, at, &message.repeat(fits));
    assert_eq!(machine.counters.work_held.get(), 0);
    machine.turn();
    machine.wire(at).received.clear();
    let all = message.repeat(4 * fits);
    receive_all(&mut machine, at, &all);
    assert_eq!(machine.counters.work_held.get(), 1);
    assert!(!machine.wants_read(at), "much waits: it is not read from");
    let mut turns = 0;
    while machine.shard.has_waiting_work() {
        machine.turn();
        turns += 1;
    }
    assert!((3..=5).contains(&turns), "{turns} turns");
    assert_eq!(machine.wire(at).received.len(), 4 * fits);
    assert!(machine.wants_read(at));
    machine.end();
}

#[test]
fn work_many_small_messages_do_not_delay_others() {
    let mut machine = guarded();
    let healthy = echo(&mut machine);
    let floods: Vec<usize> = (0..8).map(|_| echo(&mut machine)).collect();
    let messages = peer::text("x").repeat(10_000);
    for &at in &floods {
        receive_all(&mut machine, at, &messages);
    }
    let taken = machine.counters.messages_received.get();
    assert!(taken <= 8 * u64::from(work::CONNECTION_MESSAGES), "{taken} messages");
    machine.receive_in_turn(healthy, &peer::text("hello"));
    machine.turn();
    assert_eq!(machine.wire(healthy).received, [Received::Text("hello".to_owned())]);
    for _ in 0..10 {
        machine.wire(healthy).received.clear();
        let before = machine.counters.messages_received.get();
        machine.receive_in_turn(healthy, &peer::framed(Opcode::Ping, b"p"));
        assert_eq!(machine.counters.messages_received.get(), before, "at once");
        machine.turn();
        assert_eq!(machine.wire(healthy).received, [Received::Pong(b"p".to_vec())]);
        let taken = machine.counters.messages_received.get() - before;
        assert_eq!(taken, 8 * u64::from(work::CONNECTION_MESSAGES), "fair shares");
    }
    machine.settle();
    for at in floods {
        assert_eq!(machine.wire(at).received.len(), 10_000);
    }
    machine.end();
}

/// Each of `floods` connections sends `each` messages as often as it is read from. Returns the
/// smallest and the largest number of their messages that were answered in 20 turns.
fn quiet_beside(floods: usize, each: usize) -> (usize, usize) {
    let mut machine = guarded();
    let quiet = echo(&mut machine);
    let floods: Vec<usize> = (0..floods).map(|_| echo(&mut machine)).collect();
    let messages = peer::text("x").repeat(each);
    machine.wait(work::LIGHT_MS);
    for round in 0..20 {
        let before = machine.shard.work();
        for &at in &floods {
            if machine.wants_read(at) {
                machine.receive_in_turn(at, &messages);
            }
        }
        machine.receive_in_turn(quiet, &peer::text("hello"));
        let spent = turn(&mut machine, before);
        // What is left of the share before, and one share; each is exceeded by one step at most.
        assert!(spent < 2 * (work::TURN + work::CONNECTION_WORK), "{spent}");
        let received = std::mem::take(&mut machine.wire(quiet).received);
        assert_eq!(received, [Received::Text("hello".to_owned())], "{} in {round}", floods.len());
        machine.now.ms += 5;
    }
    let answered: Vec<usize> = floods.iter().map(|&at| machine.wire(at).received.len()).collect();
    machine.settle();
    machine.end();
    answered.iter().min().copied().zip(answered.iter().max().copied()).expect("there are some")
}

#[test]
fn work_of_any_number_of_floods_keeps_a_quiet_client_waiting_for_one_turn() {
    let share = work::CONNECTION_MESSAGES as usize;
    for floods in [4, 256] {
        // Input that is never used up, and input that is always within a turn's share.
        for each in [4 * share, share - 1] {
            let (min, max) = quiet_beside(floods, each);
            assert!(min >= share - 1, "{floods} floods are served in their turn: {min}");
            assert!(max <= min + 2 * share, "{floods} floods get equal shares: {min}-{max}");
        }
    }
}

#[test]
fn work_of_a_light_connection_has_a_bound_and_the_rest_waits_with_the_others() {
    let mut machine = guarded();
    let bursts: Vec<usize> = (0..2).map(|_| echo(&mut machine)).collect();
    let floods: Vec<usize> = (0..256).map(|_| echo(&mut machine)).collect();
    machine.wait(work::LIGHT_MS);
    let share = work::CONNECTION_MESSAGES as usize;
    for &at in &floods {
        machine.receive_in_turn(at, &peer::text("x").repeat(4 * share));
    }
    assert!(!machine.shard.has_work_left());
    let light = share / work::LIGHT as usize;
    for (&at, sent) in bursts.iter().zip([light, light + 1]) {
        machine.receive_in_turn(at, &peer::text("x").repeat(sent));
    }
    machine.turn();
    assert_eq!(machine.wire(bursts[0]).received.len(), light);
    assert_eq!(machine.wire(bursts[1]).received.len(), light, "the last one waits");
    machine.settle();
    assert_eq!(machine.wire(bursts[1]).received.len(), light + 1);
    machine.end();
}

#[test]
fn work_of_publishing_counts_its_deliveries() {
    let mut machine = guarded();
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#;
    let mut last = 0;
    for _ in 0..200 {
        last = machine.open();
        machine.receive(last, &peer::handshake("/app/app-key?protocol=7", ""));
        machine.receive(last, &peer::text(subscribe));
    }
    assert_eq!(machine.wire(last).received.len(), 3, "{:?}", machine.wire(last).received);
    let body = br#"{"name":"e","channel":"c","data":"x"}"#;
    let publisher = machine.open();
    let publish = peer::signed("POST", "/apps/1/events", body, UNIX_S);
    let before = machine.shard.work();
    machine.receive_in_turn(publisher, &publish);
    let spent = machine.shard.work() - before;
    assert!(spent >= 200 * work::DELIVERY + work::EFFECT, "{spent}");
    assert!(spent < 200 * work::DELIVERY + 20 * work::EFFECT, "{spent}");
    machine.settle();
    machine.end();
}

/// The end of a node changes all channels of a core. That takes as many turns as it needs, each of
/// which stays within its share, and nothing of the log overtakes it.
#[test]
fn work_of_the_end_of_a_node_is_spread_over_turns() {
    const CHANNELS: u64 = 20_000;
    /// The work of one slice: 256 channels, each with a change.
    const SLICE: u64 = 256 * (work::LISTED + work::EFFECT);
    let mut machine = Machine::new(config("[cluster]\nengine = ['nats://a:1']\n"));
    let author = |node| StateAuthor { node, is_ours: false };
    let count = |n: u64, node| {
        let channel = format!("channel-{n}").into();
        Arrival::Count { app: 0, channel, author: author(node), count: 1.into() }
    };
    for n in 0..CHANNELS {
        [7, 8].into_iter().for_each(|node| machine.shard.arrive(count(n, node), machine.now));
    }
    machine.shard.next_turn(machine.now);
    let begun = machine.shard.work();
    machine.shard.arrive(Arrival::NodeGone(author(7)), machine.now);
    assert!(machine.shard.is_visiting());
    let mut works = vec![machine.shard.work() - begun];
    while machine.shard.is_visiting() {
        machine.shard.next_turn(machine.now);
        let before = machine.shard.work();
        machine.shard.continue_visit(machine.now);
        works.push(machine.shard.work() - before);
    }
    assert!(works.iter().all(|spent| *spent < work::TURN + SLICE), "{works:?}");
    assert!(works[..works.len() - 1].iter().all(|spent| *spent >= work::TURN), "{works:?}");
    assert!(works.iter().sum::<u64>() >= CHANNELS * (work::LISTED + work::EFFECT), "{works:?}");
    machine.shard.next_turn(machine.now);
    machine.shard.arrive(Arrival::NodeGone(author(8)), machine.now);
    assert!(machine.shard.is_visiting());
    machine.shard.arrive(count(0, 9), machine.now);
    assert!(!machine.shard.is_visiting());
    assert_eq!(machine.shard.channel_count(), 1);
}

/// So are all pictures of a core, when the log is read again.
#[test]
fn work_of_pictures_whose_log_is_read_again_is_spread_over_turns() {
    const CHANNELS: u64 = 5_000;
    /// The work of one slice: 256 channels, with at most 1024 changes and those of one.
    const SLICE: u64 = 256 * work::LISTED + 1026 * work::EFFECT;
    let mut machine = Machine::new(config("[cluster]\nengine = ['nats://a:1']\n"));
    for n in 0..CHANNELS {
        // The other piece has not come.
        let piece = PicturePiece { serial: 64, index: 1, count: 2, bytes: [1].into() };
        let channel = format!("channel-{n}").into();
        let (app, piece, is_ours) = (0, Box::new(piece), false);
        machine.shard.arrive(Arrival::Picture { app, channel, piece, is_ours }, machine.now);
    }
    machine.shard.next_turn(machine.now);
    let begun = machine.shard.work();
    machine.shard.arrive(Arrival::RefreshBegin, machine.now);
    let mut works = vec![machine.shard.work() - begun];
    while machine.shard.is_visiting() {
        machine.shard.next_turn(machine.now);
        let before = machine.shard.work();
        machine.shard.continue_visit(machine.now);
        works.push(machine.shard.work() - before);
    }
    assert!(works.len() > 2 && works.iter().all(|spent| *spent < work::TURN + SLICE), "{works:?}");
    assert!(works[..works.len() - 1].iter().all(|spent| *spent >= work::TURN), "{works:?}");
    let all = CHANNELS * (work::LISTED + 2 * work::EFFECT);
    assert!(works.iter().sum::<u64>() >= all, "{works:?}");
    assert_eq!(machine.shard.channel_count(), 0);
}
