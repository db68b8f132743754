//! The Zilliqa dialect beyond the transcripts: the exact bytes, the bounds, and the frames that
//! connections share.

use crate::cores::Core;
use crate::machine::{Machine, common, config};
use crate::peer::{ClientReader, Received, handshake, text};
use polycast::config::Config;
use polycast::dialect::Env;
use polycast::dialect::Up;
use polycast::mem::Slot;
use polycast::time::Now;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

const TOKEN: &str = "0123456789abcdef";
const ID: &str = "1beb32a5435e993aa3025a70d8a5e71df43c10e2fe3f6ef832d1a5c371a63852";

fn zilliqa(more: &str) -> Config {
    config(&format!(
        "[zilliqa]\npublish_token = '{TOKEN}'\n{more}\n[[routes]]\nendpoint = 'zilliqa'\n"
    ))
}

fn post(document: &str) -> Vec<u8> {
    let len = document.len();
    format!(
        "POST /epochs HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {len}\r\n\r\n{document}"
    )
    .into_bytes()
}

fn epoch(number: u64, padding: usize, transactions: &str) -> String {
    let pad = "x".repeat(padding);
    format!(
        r#"{{"TxBlock":{{"header":{{"BlockNum":"{number}"}},"pad":"{pad}"}},"TxHashes":[],"Transactions":[{transactions}]}}"#
    )
}

fn address(n: usize) -> String {
    format!("{n:040x}")
}

fn texts(received: &[Received]) -> Vec<String> {
    let text = |received: &Received| match received {
        Received::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    received.iter().map(text).collect()
}

#[test]
fn zilliqa_echo_has_the_bytes_of_the_query() {
    let mut machine = Machine::new(zilliqa(""));
    let at = machine.open();
    machine.receive(at, &handshake("/", ""));
    let list = format!(r#"["0x{}" , "0x{}"]"#, address(1).to_uppercase(), address(1));
    for query in [
        "\t{ \"query\" :\n\"NewBlock\",  \"query\":\"New\\u0042lock\", \"x\": 1.50e3 } ".to_owned(),
        format!(r#"{{"id":"é\ud83d\ude00",  "addresses": {list},"query":"EventLog"}}"#),
        r#"{ "type":"NewBlock","query":"Unsubscribe" , "type" : "EventLog" }"#.to_owned(),
    ] {
        machine.receive(at, &text(&query));
        assert_eq!(machine.wire(at).received.pop(), Some(Received::Text(query)));
    }
}

/// Publishes random epochs. One client is connected from the start, and others connect before each
/// epoch.
#[test]
fn zilliqa_new_client_gets_what_older_clients_get() {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut machine = Machine::new(zilliqa(""));
    let publisher = machine.open();
    let sets: Vec<Vec<usize>> = [1, 3, 8, 40, 0]
        .map(|len| (0..len).map(|_| rng.usize(0..24)).collect())
        .into_iter()
        .filter(|set: &Vec<usize>| !set.is_empty())
        .collect();
    let join = |machine: &mut Machine, set: &[usize]| {
        let at = machine.open();
        machine.receive(at, &handshake("/", ""));
        let list: Vec<String> = set.iter().map(|&n| format!("\"0x{}\"", address(n))).collect();
        for topic in ["EventLog", "TxnLog"] {
            let list = list.join(",");
            let query = format!(r#"{{"query":"{topic}","addresses":[{list}]}}"#);
            machine.receive(at, &text(&query));
        }
        machine.wire(at).received.clear();
        at
    };
    let old: Vec<usize> = sets.iter().map(|set| join(&mut machine, set)).collect();
    let mut received = 0;
    for number in 0..40 {
        let mut transactions = String::new();
        for n in 0..rng.usize(0..30) {
            let (to, from) = (address(rng.usize(0..24)), address(rng.usize(0..24)));
            let emitter = address(rng.usize(0..24));
            let comma = if n > 0 { "," } else { "" };
            let _ = write!(
                transactions,
                r#"{comma}{{"ID":"{ID}","toAddr":"{to}","senderAddr":"{from}","amount":"{n}","receipt":{{"success":{},"event_logs":[{{"_eventname":"e{n}","address":"0x{emitter}","params":[]}}]}}}}"#,
                rng.bool(),
            );
        }
        let fresh: Vec<usize> = sets.iter().map(|set| join(&mut machine, set)).collect();
        machine.receive(publisher, &post(&epoch(number, 0, &transactions)));
        for (old, fresh) in old.iter().zip(fresh) {
            let fresh = texts(&std::mem::take(&mut machine.wire(fresh).received));
            let old = texts(&std::mem::take(&mut machine.wire(*old).received));
            assert_eq!((&old, old.len()), (&fresh, 1));
            received += usize::from(old[0].contains(r#""fromAddr""#));
        }
    }
    assert!(received > 50, "{received} notifications had transactions");
}

#[test]
fn zilliqa_long_notification_arrives_whole() {
    let mut machine = Machine::new(zilliqa("fragment_bytes = 1024"));
    let (at, publisher) = (machine.open(), machine.open());
    machine.receive(at, &handshake("/", ""));
    machine.receive(at, &text(r#"{"query":"NewBlock"}"#));
    machine.receive(publisher, &post(&epoch(1, 300_000, "")));
    let received = texts(&machine.wire(at).received[2..]);
    assert_eq!(received.len(), 1);
    let block = format!(r#"{{"header":{{"BlockNum":"1"}},"pad":"{}"}}"#, "x".repeat(300_000));
    let value = format!(r#"{{"TxBlock":{block},"TxHashes":[]}}"#);
    let values = format!(r#"[{{"query":"NewBlock","value":{value}}}]"#);
    assert!(received[0] == format!(r#"{{"type":"Notification","values":{values}}}"#));
}

/// A core whose peers read only when the test says so.
struct Stage {
    core: Core,
    env: Arc<Env>,
    now: Now,
}

impl Stage {
    fn new(config: Config) -> Stage {
        let common = common(config, 1, 1, 64);
        let now = Now { ms: 1_000_000, unix_s: 1_760_000_000 };
        Stage { core: Core::new(0, &common), env: common.env, now }
    }

    fn open(&mut self, index: u32) -> Slot {
        self.core.shard.open(index, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), self.now)
    }

    fn receive(&mut self, slot: Slot, bytes: &[u8]) {
        self.core.shard.next_turn(self.now);
        self.core.shard.receive(slot, &mut bytes.to_vec(), self.now);
    }

    /// Reads all bytes that wait for a peer.
    fn read(&mut self, slot: Slot, reader: &mut ClientReader) -> Vec<Received> {
        self.core.read(slot, reader, self.now)
    }
}

#[test]
fn zilliqa_slow_client_loses_whole_notifications_then_the_connection() {
    let mut stage = Stage::new(zilliqa("queue_bytes = 65536\ndropped_in_a_row = 2"));
    let (slow, publisher) = (stage.open(0), stage.open(1));
    let (mut reader, mut other) = (ClientReader::default(), ClientReader::default());
    stage.receive(slow, &handshake("/", ""));
    stage.receive(slow, &text(r#"{"query":"NewBlock"}"#));
    assert_eq!(stage.read(slow, &mut reader).len(), 2);
    let mut number = 0;
    let mut publish = |stage: &mut Stage, count: usize| {
        for _ in 0..count {
            number += 1;
            stage.receive(publisher, &post(&epoch(number, 20_000, "")));
            assert_eq!(stage.read(publisher, &mut other).len(), 1);
        }
    };
    let numbers = |received: &[Received]| -> Vec<String> {
        let number = |text: String| {
            let digits = text.split_once("BlockNum\":\"").expect("a block").1;
            digits.split_once('"').expect("digits").0.to_owned()
        };
        texts(received).into_iter().map(number).collect()
    };
    // Three epochs fit; the fourth and the fifth are dropped.
    publish(&mut stage, 5);
    let dropped = || stage.core.counters.slow_consumer_dropped.get();
    assert_eq!(dropped(), 2);
    let received = stage.read(slow, &mut reader);
    assert_eq!(numbers(&received), ["1", "2", "3"]);
    // A client that catches up may miss as many again; one more in a row closes it.
    publish(&mut stage, 5);
    assert_eq!(stage.core.counters.slow_consumer_closed.get(), 0);
    publish(&mut stage, 1);
    let counters = &stage.core.counters;
    let counted = (counters.slow_consumer_dropped.get(), counters.slow_consumer_closed.get());
    assert_eq!(counted, (4, 1));
    let received = stage.read(slow, &mut reader);
    assert!(matches!(&received[..], [Received::Close(Some(1001), _)]), "{received:?}");
}

#[test]
fn zilliqa_node_decides_which_accounts_are_contracts() {
    let mut stage =
        Stage::new(zilliqa("contracts = 'node'\nnode = { urls = ['http://127.0.0.1:1/'] }"));
    stage.env.zilliqa.notifier().attach(|| {});
    let (client, publisher) = (stage.open(0), stage.open(1));
    let mut reader = ClientReader::default();
    stage.receive(client, &handshake("/", ""));
    assert_eq!(stage.read(client, &mut reader).len(), 1);
    let query = |list: &[usize]| {
        let list: Vec<String> = list.iter().map(|&n| format!("\"0x{}\"", address(n))).collect();
        format!(r#"{{ "query":"EventLog","addresses":[{}]}}"#, list.join(","))
    };
    for (list, answer) in [
        (&[1, 2][..], query(&[1, 2])),
        (&[3][..], r#"{"type":"Error","error":"no contract found in list"}"#.to_owned()),
    ] {
        stage.receive(client, &text(&query(list)));
        assert!(stage.read(client, &mut reader).is_empty(), "the node has not answered");
        let mut questions = stage.env.zilliqa.questions();
        let question = questions.pop_front().expect("a question");
        assert_eq!((question.addresses().count(), questions.len()), (list.len(), 0));
        let to = question.conn;
        let what = question.answer(|address| address[19] == 2);
        stage.core.shard.request(0, Up::Message { to, what }, stage.now);
        assert_eq!(stage.read(client, &mut reader), [Received::Text(answer)]);
    }
    let logs = |n| format!(r#"{{"_eventname":"e","address":"0x{}","params":[]}}"#, address(n));
    let transaction = format!(
        r#"{{"ID":"{ID}","toAddr":"{0}","senderAddr":"{0}","amount":"1","receipt":{{"success":true,"event_logs":[{1},{2}]}}}}"#,
        address(9),
        logs(1),
        logs(2)
    );
    stage.receive(publisher, &post(&epoch(1, 0, &transaction)));
    let received = texts(&stage.read(client, &mut reader)).concat();
    assert!(received.contains(&address(2)) && !received.contains(&address(1)), "{received}");
    assert!(stage.env.zilliqa.wants_logs());
    stage.core.shard.close(client);
    assert!(!stage.env.zilliqa.wants_logs());
}
