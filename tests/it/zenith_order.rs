//! The messages of a back end on one topic, answers and data alike, arrive in the order in which
//! they were sent, on whichever cores the client, the back end and the topic's home are, and
//! however long the mail between cores takes.

use crate::cores::Cores;
use crate::machine::{UNIX_S, config};
use crate::peer::{ClientReader, Received, framed, handshake};
use fastrand::Rng;
use polycast::mem::Slot;
use polycast::time::Now;
use polycast::ws::Opcode;
use std::net::{Ipv4Addr, SocketAddr};

const CORES: usize = 3;
const CONFIG: &str = "[zenith]\nservices = [{ token = 'SERVICE' }]\n";
const NOW: Now = Now { ms: 1_000_000, unix_s: UNIX_S };

/// Several cores whose mail is delivered one message at a time, in random order of the mailboxes.
struct World {
    cores: Cores,
    rng: Rng,
}

struct Wire {
    core: usize,
    slot: Slot,
    reader: ClientReader,
}

impl World {
    fn new(seed: u64) -> World {
        let cores = Cores::new(config(CONFIG), CORES as u16, seed, 64, usize::MAX);
        World { cores, rng: Rng::with_seed(seed) }
    }

    fn open(&mut self, core: usize, index: u32, fields: &str) -> Wire {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let slot = self.cores[core].shard.open(index, peer, NOW);
        let mut wire = Wire { core, slot, reader: ClientReader::default() };
        self.receive(&wire, &handshake("/Zenith", fields));
        assert!(matches!(self.received(&mut wire)[..], [Received::Answer { status: 101, .. }]));
        wire
    }

    fn receive(&mut self, wire: &Wire, bytes: &[u8]) {
        self.cores[wire.core].shard.receive(wire.slot, &mut bytes.to_vec(), NOW);
    }

    fn say(&mut self, wire: &Wire, json: &str) {
        self.receive(wire, &framed(Opcode::Text, json.as_bytes()));
    }

    /// The messages that a connection has received when all mail is delivered.
    fn received(&mut self, wire: &mut Wire) -> Vec<Received> {
        self.cores.deliver_all(&mut self.rng, NOW);
        self.cores[wire.core].read(wire.slot, &mut wire.reader, NOW)
    }
}

fn texts(received: Vec<Received>) -> Vec<String> {
    let text = |received| match received {
        Received::Text(text) => text,
        other => panic!("{other:?}"),
    };
    received.into_iter().map(text).collect()
}

/// The text of a member's value in JSON.
fn member<'a>(json: &'a str, name: &str) -> &'a str {
    let rest = json.split(&format!(r#""{name}":"#)).nth(1).expect(json);
    rest.split([',', '}']).next().expect(json)
}

#[test]
fn zenith_answer_keeps_its_place_among_the_data_of_its_topic() {
    let mut world = World::new(7);
    let mut backend = world.open(0, 0, "Authorization: Bearer SERVICE\r\n");
    world.say(
        &backend,
        r#"{"Action":"Register","Data":{"Topics":[{"Controller":"News","Kind":"Q","Retain":"None"}]}}"#,
    );
    let mut clients: Vec<Wire> = (0..CORES).map(|core| world.open(core, 1, "")).collect();
    for round in 0..300 {
        let client = &mut clients[round % CORES];
        let head = format!(r#""Controller":"News","Topic":"Q!{round}""#);
        world.say(client, &format!(r#"{{{head},"Action":"Sub","Confirm":true}}"#));
        assert_eq!(texts(world.received(client)).len(), 1, "confirmed");
        world.say(client, &format!(r#"{{{head},"TransactionID":{round},"Data":1}}"#));
        let call = texts(world.received(&mut backend)).pop().expect("a call");
        let number = member(&call, "TransactionID");
        // A failure that the back end reports, which is not an error of the server.
        let failed = r#"{"Result":"Rejected","Errors":["no such order"]}"#;
        let data = |n: u32| format!(r#"{{{head},"Data":{{"n":{n}}}}}"#);
        world.say(&backend, &data(1));
        world.say(&backend, &format!(r#"{{{head},"TransactionID":{number},"Data":{failed}}}"#));
        world.say(&backend, &data(2));
        let answer = format!(r#"{{{head},"TransactionID":{round},"Data":{failed}}}"#);
        assert_eq!(texts(world.received(client)), [data(1), answer, data(2)], "{round}");
        // A call without a transaction id is answered on the topic, so that the end comes last.
        world.say(client, &format!(r#"{{{head},"Action":"Publish"}}"#));
        let call = texts(world.received(&mut backend)).pop().expect("a call");
        let (number, session) = (member(&call, "TransactionID"), member(&call, "Session"));
        world.say(&backend, &data(3));
        world.say(&backend, &format!(r#"{{{head},"TransactionID":{number},"Data":{{"n":4}}}}"#));
        world.say(&backend, &format!(r#"{{{head},"Action":"End","Session":{session}}}"#));
        let end = format!(r#"{{{head},"Action":"Unsub","Confirm":true}}"#);
        assert_eq!(texts(world.received(client)), [data(3), data(4), end], "{round}");
    }
    // A client whose call waits for a closed back end gets an error, on any core.
    let head = r#""Controller":"News","Topic":"Q!last""#;
    for client in &clients {
        world.say(client, &format!(r#"{{{head},"TransactionID":1}}"#));
    }
    assert_eq!(texts(world.received(&mut backend)).len(), CORES);
    world.cores[0].shard.close(backend.slot);
    world.cores[0].shard.next_turn(NOW);
    for client in &mut clients {
        let received = texts(world.received(client));
        assert!(
            received[0].contains(r#""Action":"Error""#) && received[0].contains(".Unavailable")
        );
        assert_eq!(received[1..], [format!(r#"{{{head},"TransactionID":1}}"#)]);
    }
    let publishes: Vec<usize> = world.cores.iter().map(|core| core.publishes).collect();
    assert!(publishes[1..].iter().all(|count| *count > 100), "{publishes:?}");
}

#[test]
fn zenith_call_under_way_to_a_backend_that_closes_fails_at_once() {
    let mut world = World::new(11);
    let mut backend = world.open(0, 0, "Authorization: Bearer SERVICE\r\n");
    let mut other = world.open(2, 0, "Authorization: Bearer SERVICE\r\n");
    for backend in [&backend, &other] {
        world.say(backend, r#"{"Action":"Register","Data":{"Controllers":["News"]}}"#);
    }
    let mut client = world.open(1, 0, "");
    let call = |at| format!(r#"{{"Controller":"News","Topic":"Q","TransactionID":{at}}}"#);
    let unavailable = |at| {
        let head = r#""Controller":"News","Topic":"Q""#;
        let error = r#""Action":"Error","TransactionID""#;
        [format!(r#"{{{head},{error}:{at},"Data":"News.Unavailable"}}"#), call(at)]
    };
    // The back end has sent a Close frame and is still connected; the call is on its way between
    // the cores.
    world.say(&client, &call(1));
    world.receive(&backend, &framed(Opcode::Close, &1000u16.to_be_bytes()));
    assert_eq!(texts(world.received(&mut client)), unavailable(1));
    assert_eq!(world.received(&mut backend), [Received::Close(Some(1000), String::new())]);
    // The next call goes to the other back end, which is closed before the call after that arrives.
    world.say(&client, &call(2));
    assert_eq!(texts(world.received(&mut other)).len(), 1);
    world.say(&client, &call(3));
    world.cores[2].shard.close(other.slot);
    assert_eq!(texts(world.received(&mut client)), unavailable(3));
    world.cores[2].shard.next_turn(NOW);
    assert_eq!(texts(world.received(&mut client)), unavailable(2));
}
