//! Tests of the poller against simulated nodes with every kind of fault, without a socket or a
//! clock.

use super::*;
use crate::dialect::zilliqa::{self, ZilliqaMessage};
use crate::mem::Frozen;
use chain::{Chain, Shape};
use serde_json::Value;

#[path = "../../../examples/zilliqa/chain.rs"]
#[allow(dead_code, unreachable_pub)]
mod chain;
mod follow;
mod renewal;

/// How a simulated node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Good,
    Down,
    /// Never responds, so the request times out.
    Mute,
    Garbage,
    Large,
    /// Supports every call but this one, to which it responds with an error.
    Lacks(&'static str),
    /// Changes or truncates about every second response, by this seed.
    Mad(u64),
    /// Responds to `GetTxBlock` with another block than the requested one.
    Lies,
}

struct Mock {
    chain: Chain,
    tip: u64,
    behaviour: Behaviour,
}

/// The poller, the simulated nodes, a clock, and a record of all actions.
struct World {
    poller: Poller,
    nodes: Vec<Mock>,
    now_ms: u64,
    /// Responses in flight: when they arrive in milliseconds, their ticket, and the response.
    late: Vec<(u64, u64, Result<Bytes, NodeFailure>)>,
    requests: Vec<(usize, String)>,
    /// The published documents with their epoch numbers.
    published: Vec<(u64, Value)>,
    kept: Option<u64>,
    /// The contracts in the answer to each question.
    received: Vec<Vec<String>>,
    wants_logs: bool,
    room: bool,
    answer_ms: u64,
    max_at_once: usize,
}

const TIMEOUT_MS: u64 = 10_000;

impl World {
    fn new(shapes: &[Shape], saved: Option<u64>) -> World {
        let mut config = ZilliqaNode::default();
        config.urls = shapes.iter().map(|_| crate::config::Secret::new("http://n")).collect();
        World::with(config, shapes, saved)
    }

    fn with(config: ZilliqaNode, shapes: &[Shape], saved: Option<u64>) -> World {
        let make: Make = |text| {
            let event = Event::from(Frozen::new(text.as_bytes()));
            if text.contains("poison") { Err("poison".to_owned()) } else { Ok(event) }
        };
        let mock = |shape: &Shape| Mock {
            chain: Chain::new(*shape),
            tip: 100,
            behaviour: Behaviour::Good,
        };
        World {
            poller: Poller::new(config, make, saved, Arc::default(), 0),
            nodes: shapes.iter().map(mock).collect(),
            now_ms: 0,
            late: Vec::new(),
            requests: Vec::new(),
            published: Vec::new(),
            kept: None,
            received: Vec::new(),
            wants_logs: true,
            room: true,
            answer_ms: 0,
            max_at_once: 0,
        }
    }

    fn answer(&self, node: usize, body: &str) -> (u64, Result<Bytes, NodeFailure>) {
        let Mock { chain, tip, behaviour } = &self.nodes[node];
        let good = || chain.answer(body, *tip);
        let silent = |why: &str| Err(NodeFailure::Silent(why.to_owned()));
        let at_ms = self.now_ms + self.answer_ms;
        match behaviour {
            Behaviour::Down => (at_ms, silent("down")),
            Behaviour::Mute => (self.now_ms + TIMEOUT_MS, silent("late")),
            Behaviour::Large => (at_ms, Err(NodeFailure::TooLarge)),
            Behaviour::Garbage => (at_ms, Ok("<html>502</html>".into())),
            Behaviour::Lacks(method) if body.contains(&format!("\"{method}\"")) => {
                let error = r#"{"id":0,"jsonrpc":"2.0","error":{"code":-1,"message":"m"}}"#;
                (at_ms, Ok(error.into()))
            }
            Behaviour::Lies if body.contains("\"GetTxBlock\"") => {
                let other = chain.block(tip - 1);
                let text = format!(r#"{{"id":0,"jsonrpc":"2.0","result":{other}}}"#);
                (at_ms, Ok(text.into()))
            }
            Behaviour::Mad(seed) => {
                let mut random = fastrand::Rng::with_seed(seed ^ self.requests.len() as u64);
                let mut bytes = good().into_bytes();
                if random.bool() {
                    let at = random.usize(..bytes.len());
                    match random.bool() {
                        true => bytes.truncate(at),
                        false => bytes[at] = random.u8(..),
                    }
                }
                (at_ms, Ok(bytes.into()))
            }
            Behaviour::Good | Behaviour::Lacks(_) | Behaviour::Lies => (at_ms, Ok(good().into())),
        }
    }

    /// Runs for `ms` milliseconds, in steps of 10 milliseconds.
    fn run(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        loop {
            self.turn();
            if self.now_ms >= until_ms {
                return;
            }
            self.now_ms += 10;
        }
    }

    fn turn(&mut self) {
        loop {
            let now_ms = self.now_ms;
            let due = |it: &&(u64, u64, Result<Bytes, NodeFailure>)| it.0 <= now_ms;
            let there: Vec<_> = self.late.iter().filter(due).cloned().collect();
            self.late.retain(|it| it.0 > now_ms);
            for (_, ticket, answer) in there {
                self.poller.received(ticket, answer, now_ms);
            }
            let actions = self.poller.actions(self.room, self.wants_logs, now_ms);
            if actions.is_empty() {
                return;
            }
            for order in actions {
                self.carry_out(order);
            }
        }
    }

    fn carry_out(&mut self, order: PollerAction) {
        match order {
            PollerAction::Request { ticket, node, body, .. } => {
                let body = String::from_utf8(body.to_vec()).expect("UTF-8");
                let (at_ms, answer) = self.answer(node, &body);
                let method = body.split('"').nth(9).unwrap_or_default().to_owned();
                self.requests.push((node, method));
                self.late.push((at_ms, ticket, answer));
                self.max_at_once = self.max_at_once.max(self.late.len());
            }
            PollerAction::Publish { number, event } => {
                let bytes: &[u8] = event.frame().expect("a frame");
                let document: Value = serde_json::from_slice(bytes).expect("JSON");
                self.published.push((number, document));
            }
            PollerAction::SaveState(number) => self.kept = Some(number),
            PollerAction::Message { what, .. } => {
                let DialectMessage::Zilliqa(ZilliqaMessage::Contracts(reply)) = what else {
                    panic!("{what:?}");
                };
                let text = |address: &ContractAddress| -> String {
                    let digits: [u8; 40] = hex(address);
                    String::from_utf8_lossy(&digits).into_owned()
                };
                self.received.push(reply.named.iter().map(|(address, _)| text(address)).collect());
            }
        }
    }

    fn ask(&mut self, about: &[ContractAddress]) {
        let from = ConnId { core: 0, slot: crate::mem::Slot { index: 0, generation: 0 } };
        let named = about.iter().map(|address| (*address, 0)).collect();
        let reply = zilliqa::Question::new(from, b"", named, None);
        let answer = move |contracts: &HashSet<ContractAddress>| {
            reply.answer(|address| contracts.contains(address))
        };
        let question = Question { from, answer: Box::new(answer) };
        self.poller.question(question, about, self.now_ms);
    }

    fn tips(&mut self, tip: u64) {
        self.nodes.iter_mut().for_each(|node| node.tip = tip);
    }

    fn numbers(&self) -> Vec<u64> {
        self.published.iter().map(|(number, _)| *number).collect()
    }

    fn calls(&self, method: &str) -> usize {
        self.requests.iter().filter(|(_, other)| other == method).count()
    }

    /// Checks that exactly the epochs `from..=to` were published, in order and unchanged.
    fn check(&self, from: u64, to: u64) {
        assert_eq!(self.numbers(), (from..=to).collect::<Vec<_>>());
        for (number, document) in &self.published {
            let chains = self.nodes.iter().map(|node| node.chain.document(*number));
            assert!(chains.into_iter().any(|it| it == *document), "{number}: {document}");
        }
    }
}

#[test]
fn poller_publishes_each_new_block_once() {
    for shape in [Shape::Zq1, Shape::Zq2] {
        let mut world = World::new(&[shape], None);
        world.run(3000);
        assert_eq!((world.numbers(), world.kept), (vec![], Some(100)));
        assert_eq!(world.calls("GetTxBlock"), 0);
        for tip in 101..=108 {
            world.tips(tip);
            world.run(1000);
            world.check(101, tip);
        }
        assert_eq!(world.kept, Some(108));
        assert_eq!(world.poller.counters.node_failures.get(), 0);
        assert_eq!(world.poller.counters.node_nonsense.get(), 0);
        // For the two empty blocks, only the block itself was requested.
        assert_eq!((world.calls("GetTxBlock"), world.calls("GetTransactionsForTxBlock")), (8, 6));
        let each = world.calls("GetTransaction");
        let all = world.calls("GetTxnBodiesForTxBlock");
        let expected = if shape == Shape::Zq1 { (0, 6) } else { (6, 0) };
        assert_eq!((each, all), expected, "{shape:?}");
    }
}

#[test]
fn poller_requests_transactions_one_by_one_if_necessary() {
    let mut world = World::new(&[Shape::Zq1], None);
    world.nodes[0].chain.bodies = false;
    world.nodes[0].chain.count = |_| 120;
    world.run(1000);
    world.tips(102);
    world.run(2000);
    world.check(101, 102);
    // Once for each of two blocks at the same time, then three batches for each of them.
    assert_eq!((world.calls("GetTxnBodiesForTxBlock"), world.calls("GetTransaction")), (2, 6));
    world.tips(103);
    world.run(2000);
    world.check(101, 103);
    assert_eq!((world.calls("GetTxnBodiesForTxBlock"), world.calls("GetTransaction")), (2, 9));
}

#[test]
fn poller_reads_large_blocks_in_pages() {
    let mut world = World::new(&[Shape::Zq1], None);
    world.nodes[0].chain.count = |number| [2500, 2501, 5000][number as usize % 3];
    world.run(1000);
    world.tips(103);
    world.run(1000);
    world.check(101, 103);
    assert_eq!(world.calls("GetTransactionsForTxBlock"), 1);
    assert_eq!(world.calls("GetTransactionsForTxBlockEx"), 4);
    assert_eq!(world.calls("GetTxnBodiesForTxBlockEx"), 4);
    // A newer node is not asked for the transactions of a whole block, as it omits the event logs
    // there.
    let mut world = World::new(&[Shape::Zq2], None);
    world.nodes[0].chain.count = |_| 2501;
    world.run(1000);
    world.tips(101);
    world.run(1000);
    world.check(101, 101);
    assert_eq!(world.calls("GetTransactionsForTxBlockEx"), 2);
    assert_eq!(world.calls("GetTransaction"), 51);
}

#[test]
fn poller_skips_transactions_without_subscribers() {
    let mut world = World::new(&[Shape::Zq1], None);
    world.wants_logs = false;
    world.run(1000);
    world.tips(103);
    world.run(1000);
    assert_eq!(world.numbers(), [101, 102, 103]);
    assert_eq!(world.calls("GetTxnBodiesForTxBlock"), 0);
    let document = &world.published[0].1;
    assert_eq!(document["Transactions"], serde_json::json!([]));
    assert_eq!(document["TxHashes"], world.nodes[0].chain.document(101)["TxHashes"]);
    // A client that subscribes while an epoch waits for room gets its logs.
    world.room = false;
    world.tips(105);
    world.run(1000);
    world.wants_logs = true;
    world.room = true;
    world.run(1000);
    assert_eq!(world.published[4].1, world.nodes[0].chain.document(105));
}

#[test]
fn poller_publishes_nothing_without_room() {
    let mut world = World::new(&[Shape::Zq1], None);
    world.run(1000);
    world.room = false;
    world.tips(150);
    world.run(5000);
    assert!(world.numbers().is_empty());
    assert!(world.calls("GetTxBlock") <= 4, "no more than `ahead` are gathered");
    world.room = true;
    world.run(0);
    world.check(101, 150);
}

#[test]
fn poller_publishes_missed_blocks_in_order() {
    for behaviour in [
        Behaviour::Down,
        Behaviour::Mute,
        Behaviour::Garbage,
        Behaviour::Large,
        Behaviour::Lacks("GetTxBlock"),
    ] {
        let mut world = World::new(&[Shape::Zq2], None);
        world.run(1000);
        world.nodes[0].behaviour = behaviour;
        world.tips(150);
        world.run(120_000);
        world.check(101, 100);
        let rests = world.calls("GetLatestTxBlock");
        assert!(rests < 20, "it is left alone, longer and longer: {rests} {behaviour:?}");
        world.nodes[0].behaviour = Behaviour::Good;
        world.run(41_000);
        world.check(101, 150);
        let counters = &world.poller.counters;
        let counted = counters.node_failures.get() + counters.node_nonsense.get();
        assert!(counted > 2, "{behaviour:?}");
        let invalid_reply = matches!(behaviour, Behaviour::Garbage | Behaviour::Large);
        assert_eq!(counters.node_nonsense.get() > 0, invalid_reply, "{behaviour:?}");
    }
}

#[test]
fn poller_waits_for_a_node_that_is_down_at_the_start() {
    let mut world = World::new(&[Shape::Zq1], None);
    world.nodes[0].behaviour = Behaviour::Down;
    world.run(10_000);
    assert_eq!((world.kept, world.numbers()), (None, vec![]));
    world.nodes[0].behaviour = Behaviour::Good;
    world.run(31_000);
    assert_eq!((world.kept, world.numbers()), (Some(100), vec![]));
    world.tips(101);
    world.run(1000);
    world.check(101, 101);
}

#[test]
fn poller_fails_over_at_once_and_returns() {
    for behaviour in [
        Behaviour::Down,
        Behaviour::Garbage,
        Behaviour::Lies,
        Behaviour::Lacks("GetTransactionsForTxBlock"),
    ] {
        let mut world = World::new(&[Shape::Zq1, Shape::Zq2], None);
        world.run(1000);
        world.nodes[0].behaviour = behaviour;
        for tip in 101..=110 {
            world.tips(tip);
            world.run(1000);
            world.check(101, tip);
        }
        world.nodes[0].behaviour = Behaviour::Good;
        world.run(31_000);
        world.requests.clear();
        world.tips(112);
        world.run(2000);
        world.check(101, 112);
        let poll = |it: &&(usize, String)| it.1 != "GetLatestTxBlock";
        let mut parts = world.requests.iter().filter(poll);
        assert!(parts.all(|(node, _)| *node == 0), "{behaviour:?} {:?}", world.requests);
    }
}

#[test]
fn poller_ignores_a_node_that_lags() {
    // The preferred node lags, but less and less.
    let mut world = World::new(&[Shape::Zq2, Shape::Zq1], None);
    world.nodes[0].tip = 97;
    world.run(3000);
    assert_eq!(world.kept, Some(100));
    for tip in 101..=140 {
        world.nodes[1].tip = tip;
        world.nodes[0].tip = (tip - 3) + (tip - 100) / 13;
        world.run(1000);
        world.check(101, tip);
    }
    // The only available node lags.
    world.nodes[1].behaviour = Behaviour::Down;
    world.nodes[0].tip = 130;
    world.run(40_000);
    world.check(101, 140);
    world.nodes[0].tip = 142;
    world.run(2000);
    world.check(101, 142);
    assert_eq!(world.kept, Some(142));
}

#[test]
fn poller_notices_a_preferred_node_that_stands_still() {
    let mut world = World::new(&[Shape::Zq1, Shape::Zq1], None);
    world.run(1000);
    world.requests.clear();
    world.run(8000);
    assert!(world.requests.iter().all(|(node, _)| *node == 0), "the other one is left alone");
    world.nodes[1].tip = 105;
    world.run(3000);
    world.check(101, 105);
    // From then on both nodes are polled.
    world.nodes[1].tip = 106;
    world.run(1000);
    world.check(101, 106);
}

#[test]
fn poller_keeps_order_with_slow_answers() {
    let mut world = World::new(&[Shape::Zq1], None);
    world.answer_ms = 700;
    world.run(2000);
    for tip in 101..=130 {
        world.tips(tip);
        world.run(1000);
    }
    world.run(10_000);
    world.check(101, 130);
    assert!(world.max_at_once <= 5, "{}", world.max_at_once);
}

#[test]
fn nodes_restart_continues_after_the_last_epoch() {
    let mut world = World::new(&[Shape::Zq1], Some(60));
    world.run(9000);
    assert!(world.numbers().is_empty(), "clients are waited for");
    world.run(2000);
    world.check(61, 100);
    assert_eq!((world.kept, world.poller.counters.epochs_skipped.get()), (Some(100), 0));
    // More epochs were missed than are replayed.
    let mut world = World::new(&[Shape::Zq1], Some(60));
    world.tips(161);
    world.run(11_000);
    world.check(62, 161);
    assert_eq!(world.poller.counters.epochs_skipped.get(), 1);
    // No epoch was missed, or the nodes have restarted from an older one: nothing is published
    // again.
    for tip in [60, 10] {
        let mut world = World::new(&[Shape::Zq1], Some(60));
        world.tips(tip);
        world.run(5000);
        assert!(world.numbers().is_empty());
        world.tips(61);
        world.run(1000);
        world.check(61, 61);
    }
}

#[test]
fn poller_without_replay_does_not_wait() {
    let mut config = ZilliqaNode { replay: 0, ..ZilliqaNode::default() };
    config.urls = vec![crate::config::Secret::new("http://n")];
    let mut world = World::with(config, &[Shape::Zq1], Some(60));
    world.run(1000);
    world.tips(101);
    world.run(1000);
    world.check(101, 101);
    assert_eq!(world.poller.counters.epochs_skipped.get(), 40);
}

#[test]
fn poller_gives_up_transactions_that_no_node_has() {
    let mut world = World::new(&[Shape::Zq2], None);
    world.run(1000);
    world.tips(101);
    world.nodes[0].behaviour = Behaviour::Lacks("none");
    world.nodes[0].chain.count = |number| if number == 101 { 3 } else { 0 };
    world.run(0);
    // The hashes are of another chain.
    let hashes = vec![Some(vec!["f".repeat(64), format!("{:032x}{:032x}", 101, 0)])];
    world.poller.fetches.clear();
    let mut fetch = EpochFetch::new(101, 1 << 20);
    assert!(fetch.next_request(0, true).contains("GetTxBlock"));
    let block = world.nodes[0].chain.block(101);
    let answer = |result: &Value| format!(r#"{{"id":0,"result":{result}}}"#);
    let further = Ok(FetchProgress::Further { missing: 0 });
    assert_eq!(fetch.answered(answer(&block).as_bytes()), further);
    fetch.next_request(0, true);
    let list = serde_json::json!(hashes);
    assert_eq!(fetch.answered(answer(&list).as_bytes()), further);
    for attempt in 0..6 {
        let request = fetch.next_request(0, true);
        let answer = world.nodes[0].chain.answer(&request, 101);
        let progress = fetch.answered(answer.as_bytes());
        let expected = match attempt {
            5 => FetchProgress::Further { missing: 1 },
            _ => FetchProgress::Error(-20, "Txn Hash not Present".to_owned()),
        };
        assert_eq!(progress, Ok(expected));
    }
    let document: Value = serde_json::from_str(&fetch.document()).expect("JSON");
    assert_eq!(document["Transactions"].as_array().map(Vec::len), Some(1));
}

#[test]
fn poller_bounds_an_epoch_as_a_whole() {
    let mut config = ZilliqaNode { answer_bytes: 65_536, ..ZilliqaNode::default() };
    config.urls = vec![crate::config::Secret::new("http://n")];
    let mut world = World::with(config, &[Shape::Zq1], None);
    world.run(1000);
    world.nodes[0].chain.count = |number| if number == 101 { 50 } else { 120 };
    world.tips(102);
    world.run(5000);
    assert_eq!(world.numbers(), [101]);
    assert!(world.poller.counters.node_nonsense.get() > 1);
}

#[test]
fn poller_requests_a_refused_epoch_again() {
    let mut world = World::new(&[Shape::Zq1, Shape::Zq1], None);
    world.run(1000);
    world.poller.make = |_| Err("poison".to_owned());
    world.tips(101);
    world.run(1500);
    assert!(world.numbers().is_empty());
    assert!(world.poller.counters.node_nonsense.get() >= 2, "both nodes are tried");
    world.poller.make = |text| Ok(Frozen::new(text.as_bytes()).into());
    world.run(10_000);
    world.check(101, 101);
}

#[test]
fn poller_asks_once_which_accounts_are_contracts() {
    let (contract, wallet, nobody) = ([0x11; 20], [0x22; 20], [0x33; 20]);
    for shape in [Shape::Zq1, Shape::Zq2] {
        let mut world = World::new(&[shape], None);
        world.run(1000);
        world.ask(&[nobody, contract, wallet]);
        world.run(0);
        assert_eq!(world.received, [[chain::CONTRACT]]);
        world.ask(&[contract, wallet]);
        world.ask(&[wallet]);
        world.run(0);
        assert_eq!((world.received.len(), world.calls("GetSmartContractCode")), (3, 1));
        assert_eq!((world.received[1].len(), world.received[2].len()), (1, 0));
        // In another epoch the account may have become a contract.
        world.tips(101);
        world.run(1000);
        world.ask(&[contract, wallet]);
        world.run(0);
        assert_eq!((world.received[3].len(), world.calls("GetSmartContractCode")), (1, 2));
    }
}

#[test]
fn poller_unanswered_lookup_does_not_count_against_a_node() {
    let mut world = World::new(&[Shape::Zq1], None);
    world.run(1000);
    for behaviour in [Behaviour::Garbage, Behaviour::Large, Behaviour::Down] {
        world.nodes[0].behaviour = behaviour;
        world.ask(&[[0x11; 20], [0x22; 20]]);
        // Before the next poll.
        world.run(0);
        world.nodes[0].behaviour = Behaviour::Good;
        world.run(1000);
    }
    assert_eq!(world.received.len(), 3);
    assert_eq!(world.received[2], [chain::CONTRACT]);
    let tip = world.nodes[0].tip + 1;
    world.tips(tip);
    world.run(1000);
    world.check(101, 101);
    // No node responds.
    world.nodes[0].behaviour = Behaviour::Mute;
    world.ask(&[[0x44; 20]]);
    world.run(30_000);
    assert_eq!(world.received.last(), Some(&vec![]));
    assert_eq!(world.poller.counters.contracts_unknown.get(), 1);
}

#[test]
fn poller_survives_changed_and_cut_answers() {
    for seed in 0..60 {
        let shape = if seed % 2 == 0 { Shape::Zq1 } else { Shape::Zq2 };
        let mut world = World::new(&[shape, shape], Some(100));
        world.run(1000);
        world.nodes[0].behaviour = Behaviour::Mad(seed);
        world.nodes[1].behaviour = Behaviour::Mad(seed + 1000);
        for tip in 101..=110 {
            world.tips(tip);
            world.ask(&[[0x11; 20], [seed as u8; 20]]);
            world.run(1000);
        }
        world.nodes.iter_mut().for_each(|node| node.behaviour = Behaviour::Good);
        world.tips(120);
        world.run(70_000);
        assert_eq!(world.numbers(), (101..=120).collect::<Vec<_>>(), "{seed}");
        assert_eq!(world.received.len(), 10, "{seed}");
    }
}
