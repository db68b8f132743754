//! What a core does for its Zenith clients when a node of the cluster has ended.

use crate::machine::{Machine, config};
use crate::peer::{Received, handshake, text};
use polycast::cluster::Arrival;
use polycast::dialect;
use polycast::hub::StateAuthor;
use polycast::work;
use std::net::Ipv4Addr;

/// The process of the node that ends.
const NODE: u64 = 2;
/// Clients that wait for a back end of that node, and the calls of each.
const CLIENTS: usize = 40;
const CALLS: usize = 250;
/// Further connections.
const OTHERS: usize = 30_000;

fn clustered(zenith: &str) -> Machine {
    let machine = Machine::new(config(&format!("{zenith}[cluster]\nengine = ['nats://a:1']\n")));
    machine.env.runtime.cluster.set_process(1);
    machine
}

/// A back end on the other node serves the topic `Q`.
fn register(machine: &Machine) {
    let app = machine.env.app_of_log_id("@zenith").expect("its number");
    let info = r#"{"authorises":false,"served":[["Market","Q","Merge",""]],"feeds":[]}"#;
    let member = ("0.1.1.0000000000000002", Some(info));
    let direct = dialect::note_member(&machine.env, (app, "#\0served\u{0}1"), NODE, member);
    assert!(direct.is_empty());
}

fn calling(machine: &mut Machine) -> usize {
    let at = machine.open();
    machine.receive(at, &handshake("/Zenith", "Sec-WebSocket-Protocol: ZenithJson\r\n"));
    for n in 0..CALLS {
        let call = format!(r#"{{"Controller":"Market","Topic":"Q","TransactionID":{n}}}"#);
        machine.receive(at, &text(&call));
        assert!(machine.shard.next_proposal().is_some(), "the call goes into the log");
    }
    machine.wire(at).received.clear();
    at
}

/// The back end's calls fail, in as many turns as that needs, each of which stays within its share.
#[test]
fn zenith_end_of_a_node_is_spread_over_turns() {
    let mut machine = clustered("[zenith]\nmessages_per_s = 0\n");
    register(&machine);
    let first: Vec<usize> = (0..CLIENTS / 2).map(|_| calling(&mut machine)).collect();
    for n in 0..OTHERS {
        machine.open_from(Ipv4Addr::from_bits(0x0a00_0000 + n as u32));
    }
    let last: Vec<usize> = (0..CLIENTS / 2).map(|_| calling(&mut machine)).collect();
    dialect::remove_node(&machine.env, Some(NODE), false);
    machine.shard.next_turn(machine.now);
    let begun = machine.shard.work();
    let author = StateAuthor { node: NODE, is_ours: false };
    machine.shard.arrive(Arrival::NodeGone(author), machine.now);
    let mut works = vec![machine.shard.work() - begun];
    while machine.shard.is_visiting() {
        machine.turn();
        machine.shard.next_turn(machine.now);
        let before = machine.shard.work();
        machine.shard.continue_visit(machine.now);
        works.push(machine.shard.work() - before);
    }
    let calls = CALLS as u64 * (work::LISTED + work::MESSAGE);
    let each = 2 * calls;
    assert!(works.iter().all(|spent| *spent < work::TURN + each), "{works:?}");
    assert!(works[..works.len() - 1].iter().all(|spent| *spent >= work::TURN), "{works:?}");
    let visited = OTHERS as u64 * work::STEP + CLIENTS as u64 * calls;
    let total: u64 = works.iter().sum();
    assert!(total >= visited && works.len() as u64 >= visited / (work::TURN + each), "{works:?}");
    machine.settle();
    for at in first.into_iter().chain(last) {
        let received = std::mem::take(&mut machine.wire(at).received);
        let error = "Market.Unavailable";
        let failed = |it: &&Received| matches!(it, Received::Text(text) if text.contains(error));
        assert_eq!((received.iter().filter(failed).count(), received.len()), (CALLS, 2 * CALLS));
    }
    machine.end();
}

/// Nothing further of the log takes effect before all connections know of the end.
#[test]
fn zenith_end_of_a_node_comes_before_what_follows_in_the_log() {
    let mut machine = clustered("[zenith]\nmessages_per_s = 0\n");
    register(&machine);
    for n in 0..OTHERS {
        machine.open_from(Ipv4Addr::from_bits(0x0a00_0000 + n as u32));
    }
    let at = calling(&mut machine);
    dialect::remove_node(&machine.env, Some(NODE), false);
    let author = StateAuthor { node: NODE, is_ours: false };
    machine.shard.arrive(Arrival::NodeGone(author), machine.now);
    machine.turn();
    assert!(machine.shard.is_visiting() && machine.wire(at).received.is_empty());
    machine.shard.arrive(Arrival::Gap, machine.now);
    assert!(!machine.shard.is_visiting());
    machine.settle();
    assert_eq!(machine.wire(at).received.len(), 2 * CALLS);
    machine.end();
}

/// Without the dialect no connection has anything to do with other nodes' connections.
#[test]
fn zenith_end_of_a_node_costs_nothing_without_the_dialect() {
    let mut machine = clustered("");
    machine.open();
    let before = machine.shard.work();
    let author = StateAuthor { node: NODE, is_ours: false };
    machine.shard.arrive(Arrival::NodeGone(author), machine.now);
    assert!(!machine.shard.is_visiting());
    assert!(machine.shard.work() - before <= work::STEP, "{}", machine.shard.work() - before);
    machine.end();
}

/// Each picture that ends with a back end takes an entry of the log, so there is a maximum.
#[test]
fn zenith_pictures_that_end_with_a_back_end_have_a_maximum() {
    const MAX: usize = 1 << 14;
    let services = "[zenith]\nservices = [{ token = 'S' }]\nmessages_per_s = 0\n";
    let topics = "topics = [{ controller = 'Market', kind = '*' }]\n";
    let mut machine = clustered(&format!("{services}{topics}"));
    let at = machine.open();
    let fields = "Sec-WebSocket-Protocol: ZenithJson\r\nAuthorization: Bearer S\r\n";
    machine.receive(at, &handshake("/Zenith", fields));
    machine.receive(at, &text(r#"{"Action":"Register","Data":{"Pictures":"Drop"}}"#));
    let mut publish = |n: usize| {
        let data = r#""Action":"Publish","Data":{"a":1}"#;
        machine.wire(at).received.clear();
        machine.receive(at, &text(&format!(r#"{{"Controller":"Market","Topic":"S!{n}",{data}}}"#)));
        let states = std::iter::from_fn(|| machine.shard.next_state(machine.now)).count();
        let proposals = std::iter::from_fn(|| machine.shard.next_proposal()).count();
        let is_limited =
            |it: &Received| matches!(it, Received::Text(text) if text.contains("Limited"));
        (states, proposals, machine.wire(at).received.iter().any(is_limited))
    };
    assert_eq!(publish(0), (2, 1, false), "the registration and the picture");
    for n in 1..MAX {
        let (_, proposals, is_limited) = publish(n);
        assert_eq!((proposals, is_limited), (1, false), "{n}");
    }
    assert_eq!(publish(MAX), (0, 0, true));
    assert_eq!(publish(0), (0, 1, false), "it has it already");
}
