//! TLS without a socket: the records of a client are given to a shard, cut at any byte.

mod guard;

use crate::certs::{Authority, table};
use crate::machine::{Machine, SWEEP_MS};
use crate::peer::{APP, ClientReader, Received, framed, handshake, signed, text};
use polycast::config::{Config, FileFormat, Overrides};
use polycast::ws::Opcode;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion, version};
use std::io::{Read, Write};
use std::sync::Arc;

/// A configuration with one TLS listener; `more` is further keys of its `tls` table.
fn config(name: &str, authority: &Authority, more: &str, app: &str) -> Config {
    let (id, key, secret) = APP;
    let tls = table(name, authority, more);
    let text = format!(
        "listeners = [{{ address = '127.0.0.1:0', tls = {tls} }}]\n\
         [[apps]]\nid = '{id}'\nkey = '{key}'\nsecret = '{secret}'\n{app}"
    );
    let config = Config::parse_with(&text, FileFormat::Toml, "test", &|_| None).unwrap();
    config.with(Overrides::default()).unwrap()
}

/// A TLS client that is connected to the shard.
struct Peer {
    at: usize,
    tls: ClientConnection,
    reader: ClientReader,
    received: Vec<Received>,
    /// The number of bytes that the client has sent. They are cut after every `every` bytes, or
    /// once after `once` bytes.
    sent: usize,
    every: usize,
    once: usize,
    ended: bool,
}

impl Peer {
    fn new(machine: &mut Machine, config: &Arc<ClientConfig>) -> Peer {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(config.clone(), name).unwrap();
        let (reader, received) = (ClientReader::default(), Vec::new());
        let at = machine.open_secure();
        Peer {
            at,
            tls,
            reader,
            received,
            sent: 0,
            every: usize::MAX,
            once: usize::MAX,
            ended: false,
        }
    }

    fn say(&mut self, machine: &mut Machine, plain: &[u8]) {
        self.tls.writer().write_all(plain).unwrap();
        self.run(machine);
    }

    /// Exchanges bytes until neither side has any to send.
    fn run(&mut self, machine: &mut Machine) {
        loop {
            let mut bytes = Vec::new();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let to_cut = match self.once.checked_sub(self.sent) {
                    Some(left) if left > 0 => left,
                    _ => usize::MAX,
                };
                let (piece, after) = rest.split_at(self.every.min(to_cut).min(rest.len()));
                self.sent += piece.len();
                machine.receive(self.at, piece);
                rest = after;
            }
            let got = std::mem::take(&mut machine.wire(self.at).raw);
            if got.is_empty() && bytes.is_empty() {
                return;
            }
            self.hear(&got);
        }
    }

    fn hear(&mut self, mut got: &[u8]) {
        while !got.is_empty() {
            self.tls.read_tls(&mut got).unwrap();
            if self.tls.process_new_packets().is_err() {
                self.ended = true;
                return;
            }
            let mut plain = Vec::new();
            match self.tls.reader().read_to_end(&mut plain) {
                Ok(_) => self.ended = true,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            self.received.extend(self.reader.hear(&plain));
        }
    }

    fn texts(&self) -> Vec<&str> {
        let text = |received: &'_ Received| matches!(received, Received::Text(_));
        let texts = self.received.iter().filter(|it| text(it));
        texts.map(|it| if let Received::Text(text) = it { &**text } else { "" }).collect()
    }
}

fn client(authority: &Authority, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    Arc::new(authority.client_of(None, &[version]))
}

/// A complete conversation: handshake, upgrade, a message, a publish, the closing handshake, and
/// the close_notify alerts.
fn converse(machine: &mut Machine, client: &Arc<ClientConfig>, every: usize, once: usize) -> usize {
    let mut peer = Peer::new(machine, client);
    (peer.every, peer.once) = (every, once);
    peer.run(machine);
    assert!(!peer.tls.is_handshaking());
    peer.say(machine, &handshake("/app/app-key?protocol=7", ""));
    peer.say(machine, &text(r#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#));
    let mut publisher = Peer::new(machine, client);
    let body = br#"{"name":"e","channel":"c","data":"x"}"#;
    let request = signed("POST", "/apps/1/events", body, machine.now.unix_s);
    publisher.say(machine, &request);
    assert!(matches!(&publisher.received[..], [Received::Answer { status: 200, .. }]));
    publisher.tls.send_close_notify();
    publisher.run(machine);
    assert!(publisher.ended, "it is told that the server ends, too");
    machine.eof(publisher.at);
    peer.run(machine);
    let texts = peer.texts();
    assert_eq!(texts.len(), 3, "{:?}", peer.received);
    assert!(texts[2].contains(r#""event":"e""#), "{texts:?}");
    peer.say(machine, &framed(Opcode::Close, &1000_u16.to_be_bytes()));
    assert!(matches!(peer.received.last(), Some(Received::Close(Some(1000), _))));
    assert!(peer.ended, "close_notify behind the close frame");
    assert!(machine.wire(peer.at).shut);
    peer.tls.send_close_notify();
    peer.run(machine);
    machine.eof(peer.at);
    assert!(machine.wire(peer.at).closed);
    peer.sent
}

#[test]
fn tls_conversation_is_the_same_at_every_cut() {
    let authority = Authority::new();
    for version in [&version::TLS12, &version::TLS13] {
        let client = client(&authority, version);
        let mut machine = Machine::new(config("cuts", &authority, "", ""));
        let whole = converse(&mut machine, &client, usize::MAX, usize::MAX);
        for every in [1, 2, 5, 6, 21, 100] {
            converse(&mut machine, &client, every, usize::MAX);
        }
        assert!(whole > 400);
        for once in 1..whole {
            converse(&mut machine, &client, usize::MAX, once);
        }
        let rounds = whole as u64 + 6;
        assert_eq!(machine.counters.tls_handshakes.get(), rounds * 2);
        assert_eq!(machine.counters.tls_failed.get(), 0);
        assert_eq!(machine.counters.tls_truncated.get(), 0);
        assert!(machine.counters.tls_resumed.get() >= rounds);
        machine.end();
    }
}

#[test]
fn tls_required_by_an_application() {
    let authority = Authority::new();
    let mut machine = Machine::new(config("require", &authority, "", "require_tls = true\n"));
    let client = client(&authority, &version::TLS13);
    let mut peer = Peer::new(&mut machine, &client);
    peer.say(&mut machine, &handshake("/app/app-key?protocol=7", ""));
    assert!(peer.texts()[0].contains("connection_established"), "{:?}", peer.received);
    let plain = machine.open();
    machine.receive(plain, &handshake("/app/app-key?protocol=7", ""));
    let received = &machine.wire(plain).received;
    assert!(received.iter().any(|it| matches!(it, Received::Close(Some(4000), _))), "{received:?}");
}

#[test]
fn tls_handshake_and_request_have_a_timeout_each() {
    let authority = Authority::new();
    let times = "[timeouts]\nhandshake_ms = 2000\nhead_ms = 5000\n";
    let mut machine = Machine::new(config("deadline", &authority, "", times));
    let config = client(&authority, &version::TLS13);
    let silent = machine.open_secure();
    let mut peer = Peer::new(&mut machine, &config);
    machine.wait(2000 - SWEEP_MS);
    assert!(!machine.wire(silent).closed);
    peer.run(&mut machine);
    assert!(!peer.tls.is_handshaking(), "in time");
    machine.wait(SWEEP_MS);
    assert!(machine.wire(silent).closed, "out of time");
    assert_eq!(machine.counters.tls_failed.get(), 1);
    machine.wait(5000 - 2 * SWEEP_MS);
    assert!(!machine.wire(peer.at).closed && !machine.wire(peer.at).shut);
    machine.wait(2 * SWEEP_MS);
    assert!(machine.wire(peer.at).shut, "no request in time");
    peer.run(&mut machine);
    assert!(peer.ended, "with the last word");
    assert_eq!(machine.counters.timed_out.get(), 2);
}

#[test]
fn handshakes_of_one_turn_are_bounded_and_the_others_come_after_them() {
    let authority = Authority::new();
    let mut machine = Machine::new(config("rush", &authority, "", ""));
    let client = client(&authority, &version::TLS13);
    let mut peers: Vec<Peer> = (0..20).map(|_| Peer::new(&mut machine, &client)).collect();
    for peer in &mut peers {
        let mut hello = Vec::new();
        peer.tls.write_tls(&mut hello).unwrap();
        machine.receive_in_turn(peer.at, &hello);
    }
    let mut answered = Vec::new();
    while machine.shard.has_waiting_work() || answered.is_empty() {
        machine.turn();
        let has_answer = |peer: &&Peer| !machine.wires_raw(peer.at).is_empty();
        answered.push(peers.iter().filter(has_answer).count());
    }
    // Eight in the turn in which they arrive, and four of the waiting ones at the end of each.
    assert_eq!(answered, [12, 16, 20]);
    for peer in &mut peers {
        peer.say(&mut machine, b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(matches!(&peer.received[..], [Received::Answer { status: 200, .. }]));
    }
    machine.end();
}

#[test]
fn tls_plain_http_gets_an_answer() {
    let authority = Authority::new();
    let mut machine = Machine::new(config("plain", &authority, "", ""));
    for request in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "P"] {
        let at = machine.open_secure();
        machine.receive(at, request.as_bytes());
        let replies = String::from_utf8(std::mem::take(&mut machine.wire(at).raw)).unwrap();
        assert!(replies.starts_with("HTTP/1.1 400 ") && replies.contains("https://"), "{replies}");
        assert!(machine.wire(at).shut);
    }
    assert_eq!((machine.counters.tls_plain.get(), machine.counters.tls_failed.get()), (2, 0));
}

#[test]
fn tls_garbage_is_answered_by_an_alert() {
    let authority = Authority::new();
    let mut machine = Machine::new(config("garbage", &authority, "", ""));
    let record = |kind: u8, bytes: &[u8]| {
        [&[kind, 3, 1][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat()
    };
    let cases = [
        vec![0; 64],
        vec![0x80, 46, 1, 0, 2],
        record(22, &[1, 0, 0, 4, 9, 9, 9, 9]),
        record(23, b"hello"),
        record(22, &[2, 0, 0, 0]),
        [&[22, 3, 1, 0xff, 0xff][..], &[0; 100]].concat(),
    ];
    for (number, bytes) in cases.iter().enumerate() {
        let at = machine.open_secure();
        machine.receive(at, bytes);
        let replies = std::mem::take(&mut machine.wire(at).raw);
        assert_eq!(replies.first(), Some(&21), "{number}: an alert");
        assert!(machine.wire(at).shut, "{number}");
        assert_eq!(machine.counters.tls_failed.get(), number as u64 + 1);
    }
}

#[test]
fn tls_unfinished_handshake_is_bounded() {
    let authority = Authority::new();
    let mut machine = Machine::new(config("endless", &authority, "", ""));
    let at = machine.open_secure();
    // A ClientHello of 65 535 bytes, which never becomes complete.
    let mut hello = vec![1, 0, 0xff, 0xff];
    hello.resize(16 * 1024, 0);
    let record = [&[22, 3, 1, 0x40, 0][..], &hello].concat();
    for _ in 0..3 {
        machine.receive(at, &record);
        assert!(!machine.wire(at).shut);
    }
    for _ in 0..3 {
        machine.receive(at, &record);
    }
    assert!(machine.wire(at).shut);
    assert_eq!(machine.counters.tls_failed.get(), 1);
}

#[test]
fn tls_end_without_close_notify_is_counted() {
    let authority = Authority::new();
    let mut machine = Machine::new(config("truncated", &authority, "", ""));
    let config = client(&authority, &version::TLS13);
    let mut peer = Peer::new(&mut machine, &config);
    peer.say(&mut machine, &handshake("/echo", ""));
    machine.eof(peer.at);
    assert!(machine.wire(peer.at).closed);
    assert_eq!(machine.counters.tls_truncated.get(), 1);
}

#[test]
fn tls_long_and_many_short_messages() {
    let authority = Authority::new();
    let mut rules = config("long", &authority, "", "");
    rules.routes.iter_mut().for_each(|route| route.message_bytes = 0);
    let mut machine = Machine::new(rules);
    let config = client(&authority, &version::TLS12);
    let mut peer = Peer::new(&mut machine, &config);
    peer.tls.set_buffer_limit(None);
    peer.say(&mut machine, &handshake("/echo", ""));
    let long: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[at as usize % 3]).collect();
    peer.say(&mut machine, &framed(Opcode::Binary, &long));
    assert!(matches!(peer.received.last(), Some(Received::Binary(got)) if *got == long));
    let many: Vec<u8> = (0..300).flat_map(|number| text(&number.to_string())).collect();
    peer.say(&mut machine, &many);
    let want: Vec<String> = (0..300).map(|number: u32| number.to_string()).collect();
    assert_eq!(peer.texts(), want);
    assert_ne!(machine.counters.tls_handshakes.get(), 0);
}

#[test]
fn tls_begins_after_the_proxy_header() {
    let authority = Authority::new();
    let (id, key, secret) = APP;
    let tls = table("tls-proxy-header", &authority, "");
    let text = format!(
        "[[listeners]]\naddress = '127.0.0.1:0'\ntls = {tls}\nproxy_protocol = 'accepted'\n\
         trusted_proxies = ['127.0.0.1']\n\
         [[apps]]\nid = '{id}'\nkey = '{key}'\nsecret = '{secret}'\nrequire_tls = true\n"
    );
    let config = Config::parse_with(&text, FileFormat::Toml, "test", &|_| None).unwrap();
    let mut machine = Machine::new(config.with(Overrides::default()).unwrap());
    let client = client(&authority, &version::TLS13);
    let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 40001 80\r\n";
    for cut in 0..=line.len() {
        let mut peer = Peer::new(&mut machine, &client);
        machine.receive(peer.at, &line[..cut]);
        machine.receive(peer.at, &line[cut..]);
        peer.say(&mut machine, &handshake("/app/app-key?protocol=7", ""));
        assert!(format!("{:?}", peer.received).contains("connection_established"), "{cut}");
        assert_eq!(machine.client(peer.at).unwrap().to_string(), "192.0.2.7:40001");
    }
    // Without a header, and with both in the same bytes.
    let mut peer = Peer::new(&mut machine, &client);
    peer.say(&mut machine, &handshake("/app/app-key?protocol=7", ""));
    assert!(format!("{:?}", peer.received).contains("connection_established"));
    let mut peer = Peer::new(&mut machine, &client);
    let mut first = line.to_vec();
    peer.tls.write_tls(&mut first).unwrap();
    machine.receive(peer.at, &first);
    peer.say(&mut machine, &handshake("/app/app-key?protocol=7", ""));
    assert!(format!("{:?}", peer.received).contains("connection_established"));
    // The time for the handshake runs from the start of the connection.
    let late = Peer::new(&mut machine, &client);
    machine.wait(10_000 - 2 * SWEEP_MS);
    machine.receive(late.at, line);
    machine.wait(4 * SWEEP_MS);
    assert!(machine.wire(late.at).closed);
}
