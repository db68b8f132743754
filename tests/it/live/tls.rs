//! TLS over real TCP with the client of rustls: handshakes, renewals and ends of connections.

use super::child::*;
use crate::certs::{Authority, Leaf, folder, table};
use crate::net::*;
use crate::peer::{ClientReader, Received};
use polycast::config::{Config, EndpointKind, FileFormat, Route};
use polycast::server::Server;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned, version,
};
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The configuration of other tests, with TLS on its listener.
fn secure(name: &str, authority: &Authority, more: &str) -> Config {
    let tls = table(name, authority, more);
    let text = format!(
        "listeners = [{{ address = '127.0.0.1:0', tls = {tls} }}]\n\
         [[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n"
    );
    let listeners = Config::parse(&text, FileFormat::Toml, "test").unwrap().listeners;
    Config { listeners, ..config() }
}

/// A TLS client.
pub(super) struct Secure {
    stream: StreamOwned<ClientConnection, TcpStream>,
    reader: ClientReader,
    received: VecDeque<Received>,
}

impl Secure {
    pub(super) fn connect(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<Secure> {
        let stream = Client::connect(address).stream;
        Secure::over(stream, config, name)
    }

    /// Performs the TLS handshake over an open connection.
    fn over(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> io::Result<Secure> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tls = ClientConnection::new(config.clone(), name).unwrap();
        let mut stream = StreamOwned::new(tls, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Secure { stream, reader: ClientReader::default(), received: VecDeque::new() })
    }

    pub(super) fn open(address: SocketAddr, config: &Arc<ClientConfig>, path: &str) -> Secure {
        let mut client = Secure::connect(address, config, "localhost").unwrap();
        client.upgrade(path);
        client
    }

    fn upgrade(&mut self, path: &str) {
        self.send(handshake(path, "").as_bytes());
        let received = self.next().unwrap();
        assert!(matches!(received, Received::Answer { status: 101, .. }), "{received:?}");
    }

    fn subscriber(address: SocketAddr, config: &Arc<ClientConfig>, channel: &str) -> Secure {
        let mut client = Secure::open(address, config, APP_PATH);
        assert!(client.text().contains("connection_established"));
        client.send(&masked(true, TEXT, subscribe(channel).as_bytes()));
        assert_eq!(client.text(), subscribed(channel));
        client
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// The next received message; `None` after the end of the connection.
    pub(super) fn next(&mut self) -> Option<Received> {
        let mut piece = [0; 16 * 1024];
        while self.received.is_empty() {
            match self.stream.read(&mut piece).unwrap() {
                0 => return None,
                n => self.received.extend(self.reader.hear(&piece[..n])),
            }
        }
        self.received.pop_front()
    }

    pub(super) fn text(&mut self) -> String {
        match self.next() {
            Some(Received::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    fn publish(&mut self, channel: &str, data: &str) {
        self.send(&publish(channel, data));
        let received = self.next();
        assert!(matches!(received, Some(Received::Answer { status: 200, .. })), "{received:?}");
    }

    fn leaf(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

/// The alert with which the server ends a handshake.
fn refusal(outcome: io::Result<Secure>) -> String {
    let mut client = match outcome {
        Err(error) => return error.to_string(),
        Ok(client) => client,
    };
    // In TLS 1.3 a client completes its handshake before the server has checked its certificate.
    client.stream.read(&mut [0; 16]).expect_err("refused").to_string()
}

#[test]
fn tls_both_versions_at_any_length() {
    let authority = Authority::new();
    let Some(server) = start(secure("versions", &authority, "")) else { return };
    let address = server.addresses()[0];
    for (version, number) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut config = authority.client_of(None, &[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut client = Secure::open(address, &Arc::new(config), "/echo");
        assert_eq!(client.stream.conn.protocol_version(), Some(number));
        assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        for len in [0, 1, 125, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 1 << 20] {
            let message = pattern(len);
            client.send(&masked(true, BINARY, &message));
            assert_eq!(client.next(), Some(Received::Binary(message)), "{len}");
        }
        client.send(&masked(true, CLOSE, &1000_u16.to_be_bytes()));
        assert_eq!(client.next(), Some(Received::Close(Some(1000), String::new())));
        assert_eq!(client.next(), None, "ended by close_notify");
    }
    wait_count(&server, "connections", 0);
    assert_eq!((server.count("tls_handshakes"), server.count("tls_failed")), (2, 0));
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn tls_without_common_parameters_fails() {
    let authority = Authority::new();
    let config = secure("nothing", &authority, ", min_version = '1.3'");
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let old = Arc::new(authority.client_of(None, &[&version::TLS12]));
    let replies = refusal(Secure::connect(address, &old, "localhost"));
    assert!(replies.contains("ProtocolVersion"), "{replies}");
    let mut h2 = authority.client(None);
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let replies = refusal(Secure::connect(address, &Arc::new(h2), "localhost"));
    assert!(replies.contains("NoApplicationProtocol"), "{replies}");
    wait_count(&server, "tls_failed", 2);
    let stranger = Arc::new(Authority::new().client(None));
    let replies = refusal(Secure::connect(address, &stranger, "localhost"));
    assert!(replies.contains("UnknownIssuer") || replies.contains("BadSignature"), "{replies}");
    wait_count(&server, "tls_failed", 3);
    wait_count(&server, "connections", 0);
}

#[test]
fn tls_certificate_is_chosen_by_server_name() {
    let authority = Authority::new();
    let folder = folder("names");
    let leaves = [&["localhost"][..], &["a.example", "b.example"], &["*.c.example"]];
    let leaves: Vec<Leaf> = leaves.iter().map(|names| authority.leaf(names)).collect();
    let mut pairs = Vec::new();
    for (number, leaf) in leaves.iter().enumerate() {
        leaf.write(&folder, &number.to_string());
        let file = folder.join(number.to_string()).display().to_string();
        pairs.push(format!("{{ cert = '{file}.pem', key = '{file}.key' }}"));
    }
    let text = format!(
        "listeners = [{{ address = '127.0.0.1:0', tls = {{ certificates = [{}] }} }}]\n\
         [[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n",
        pairs.join(", ")
    );
    let listeners = Config::parse(&text, FileFormat::Toml, "test").unwrap().listeners;
    let Some(server) = start(Config { listeners, ..config() }) else { return };
    let config = Arc::new(authority.client(None));
    for (name, number) in [("localhost", 0), ("a.example", 1), ("b.example", 1), ("x.c.example", 2)]
    {
        let client = Secure::connect(server.addresses()[0], &config, name).unwrap();
        assert_eq!(client.leaf(), leaves[number].cert.der().to_vec(), "{name}");
    }
    for name in ["x.y.c.example", "other.example", "127.0.0.1"] {
        let replies = refusal(Secure::connect(server.addresses()[0], &config, name));
        assert!(
            replies.contains("only valid for DnsName(\"localhost\")"),
            "{name}: it got the first: {replies}"
        );
    }
}

#[test]
fn tls_client_certificates() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let (mine, theirs) = (authority.leaf(&["me"]), stranger.leaf(&["me"]));
    for mutual in ["required", "requested"] {
        let more = format!(", mutual = '{mutual}', client_ca = 'FOLDER/ca.pem'");
        let Some(server) = start(secure(mutual, &authority, &more)) else { return };
        let address = server.addresses()[0];
        for version in [&version::TLS12, &version::TLS13] {
            let client = |leaf| Arc::new(authority.client_of(leaf, &[version]));
            Secure::open(address, &client(Some(&mine)), "/echo");
            let replies = refusal(Secure::connect(address, &client(Some(&theirs)), "localhost"));
            let alert = replies.contains("UnknownCA") || replies.contains("DecryptError");
            assert!(alert, "{mutual}: {replies}");
            if mutual == "required" {
                let replies = refusal(Secure::connect(address, &client(None), "localhost"));
                assert!(
                    replies.contains("CertificateRequired") || replies.contains("Alert"),
                    "{replies}"
                );
            } else {
                Secure::open(address, &client(None), "/echo");
            }
        }
        let failed = if mutual == "required" { 4 } else { 2 };
        wait_count(&server, "tls_failed", failed);
    }
}

#[test]
fn tls_session_is_resumed_by_ticket() {
    let authority = Authority::new();
    let more = ", mutual = 'requested', client_ca = 'FOLDER/ca.pem'";
    let Some(server) = start(secure("tickets", &authority, more)) else { return };
    let leaf = authority.leaf(&["me"]);
    for version in [&version::TLS12, &version::TLS13] {
        for leaf in [None, Some(&leaf)] {
            let config = Arc::new(authority.client_of(leaf, &[version]));
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let mut client = Secure::open(server.addresses()[0], &config, "/echo");
                client.send(&masked(true, TEXT, b"hello"));
                assert_eq!(client.text(), "hello");
                assert_eq!(client.stream.conn.handshake_kind(), Some(kind), "{version:?}");
            }
        }
    }
    assert_eq!((server.count("tls_handshakes"), server.count("tls_resumed")), (8, 4));
}

#[test]
fn tls_publish_over_https_reaches_every_subscriber() {
    let authority = Authority::new();
    let mut config = secure("events", &authority, "");
    config.listeners.push(listener("127.0.0.1:0"));
    config.apps[0].require_tls = false;
    let Some(server) = start(config) else { return };
    let (address, plain) = (server.addresses()[0], server.addresses()[1]);
    let config = Arc::new(authority.client(None));
    let mut subscribers: Vec<Secure> =
        (0..8).map(|_| Secure::subscriber(address, &config, "c")).collect();
    let mut bare = Client::subscriber(plain, "c");
    let mut publisher = Secure::connect(address, &config, "localhost").unwrap();
    for number in 0..50 {
        publisher.publish("c", &number.to_string());
    }
    for number in 0..50 {
        let event = event("c", &number.to_string());
        subscribers.iter_mut().for_each(|it| assert_eq!(it.text(), event));
        assert_eq!(bare.text(), event);
    }
}

#[test]
fn tls_slow_handshakes_are_served_and_stalled_ones_end() {
    let authority = Authority::new();
    let mut config = secure("slow", &authority, "");
    config.timeouts.handshake_ms = 1500;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let config = Arc::new(authority.client(None));
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(config.clone(), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();

    let mut stream = Client::connect(address).stream;
    for byte in &hello {
        stream.write_all(&[*byte]).unwrap();
    }
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).unwrap();
    }

    let begun = Instant::now();
    let mut silent = Client::connect(address);
    let mut half = Client::connect(address);
    half.send(&hello[..hello.len() / 2]);
    silent.end();
    half.end();
    let took = begun.elapsed();
    let (min, max) = (Duration::from_millis(1400), Duration::from_millis(6000));
    assert!(min < took && took < max, "{took:?}");
    assert_eq!(server.count("tls_failed"), 2);
}

#[test]
fn tls_plain_client_gets_an_answer() {
    let authority = Authority::new();
    let Some(server) = start(secure("other", &authority, "")) else { return };
    let address = server.addresses()[0];
    let mut client = Client::connect(address);
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 400);
    assert!(response.body.contains("https://"), "{response:?}");
    client.end();
    let mut client = Client::connect(address);
    client.send(&[0; 200]);
    client.drained();
    // Garbage after a handshake.
    let config = Arc::new(authority.client(None));
    let mut client = Secure::open(address, &config, "/echo");
    client.stream.sock.write_all(&[23, 3, 3, 0, 32]).unwrap();
    client.stream.sock.write_all(&[7; 32]).unwrap();
    let error = client.stream.read(&mut [0; 16]).expect_err("an alert");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    // A record that is longer than the maximum.
    let mut client = Secure::open(address, &config, "/echo");
    client.stream.sock.write_all(&[23, 3, 3, 0xff, 0xff]).unwrap();
    let error = client.stream.read(&mut [0; 16]).expect_err("an alert");
    assert!(error.to_string().contains("fatal alert"), "{error}");
    wait_count(&server, "connections", 0);
    assert_eq!((server.count("tls_plain"), server.count("tls_failed")), (1, 3));
}

#[test]
fn tls_peer_may_end_without_close_notify() {
    let authority = Authority::new();
    let Some(server) = start(secure("ends", &authority, "")) else { return };
    let config = Arc::new(authority.client(None));
    let mut client = Secure::open(server.addresses()[0], &config, "/echo");
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert_eq!(client.next(), None, "it answers with its own");
    client.stream.sock.shutdown(Shutdown::Write).unwrap();
    wait_count(&server, "connections", 0);
    assert_eq!(server.count("tls_truncated"), 0);
    let client = Secure::open(server.addresses()[0], &config, "/echo");
    client.stream.sock.shutdown(Shutdown::Write).unwrap();
    wait_count(&server, "connections", 0);
    assert_eq!(server.count("tls_truncated"), 1);
    // Requests that arrived before the end are answered.
    let mut client = Secure::connect(server.addresses()[0], &config, "localhost").unwrap();
    client.stream.write_all(b"GET /live HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert!(matches!(client.next(), Some(Received::Answer { status: 200, .. })));
    assert_eq!(client.next(), None);
    drop(client);
    wait_count(&server, "connections", 0);
}

#[test]
fn tls_slow_consumer_is_closed_and_others_continue() {
    let authority = Authority::new();
    let mut config = secure("consumer", &authority, "");
    config.limits.write_queue_bytes = 64 * 1024;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let config = Arc::new(authority.client(None));
    let mut reader = Secure::subscriber(address, &config, "c");
    let narrow = Client::connect_narrow(address).stream;
    let mut sleeper = Secure::over(narrow, &config, "localhost").unwrap();
    sleeper.upgrade(APP_PATH);
    assert!(sleeper.text().contains("connection_established"));
    sleeper.send(&masked(true, TEXT, subscribe("c").as_bytes()));
    assert_eq!(sleeper.text(), subscribed("c"));
    let mut publisher = Secure::connect(address, &config, "localhost").unwrap();
    let data = "x".repeat(10_000);
    for round in 0.. {
        assert!(round < 5000, "it is never noticed");
        if server.count("slow_consumer_closed") > 0 {
            break;
        }
        publisher.publish("c", &data);
        assert!(reader.text() == event("c", &data));
    }
    publisher.publish("c", "after");
    assert_eq!(reader.text(), event("c", "after"));
    // It reads again: complete events, then its Close frame.
    let last = loop {
        match sleeper.next() {
            Some(Received::Text(text)) => assert!(text == event("c", &data)),
            other => break other,
        }
    };
    assert!(matches!(last, Some(Received::Close(Some(_), _))), "{last:?}");
}

#[test]
fn tls_drain_closes_every_client() {
    let authority = Authority::new();
    let Some(mut server) = start(secure("drain", &authority, "")) else { return };
    let config = Arc::new(authority.client(None));
    let address = server.addresses()[0];
    let mut client = Secure::subscriber(address, &config, "c");
    let mut idle = Secure::connect(address, &config, "localhost").unwrap();
    let half = Client::connect(address);
    wait_count(&server, "connections", 3);
    Server::stop(&server);
    assert!(matches!(client.next(), Some(Received::Close(Some(4200), _))));
    client.send(&masked(true, CLOSE, &4200_u16.to_be_bytes()));
    assert_eq!(client.next(), None);
    assert_eq!(idle.next(), None, "close_notify");
    drop((client, idle, half));
    server.join().unwrap();
}

#[test]
fn tls_certificates_are_replaced_without_dropping_a_connection() {
    if !has_uring() {
        return;
    }
    let authority = Authority::new();
    let tls = table("renewed", &authority, "");
    let base =
        BASE.replace("address = '127.0.0.1:0'", &format!("address = '127.0.0.1:0', tls = {tls}"));
    // Each reactor takes over the new certificate when it wakes. With one reactor, this can be
    // observed.
    let base = base.replace("threads = 2", "threads = 1");
    let process = Process::start("renewed", &base);
    let config = Arc::new(authority.client(None));
    let mut client = Secure::open(process.address, &config, "/echo");
    let before = client.leaf();
    let folder = folder("renewed");
    let served = || Secure::connect(process.address, &config, "localhost").map(|it| it.leaf());

    // The key does not belong to the certificate, so the old pair stays in use.
    let new_leaf = authority.leaf(&["localhost"]);
    fs::write(folder.join("server.key"), new_leaf.key.serialize_pem()).unwrap();
    wait("the log names the file", || {
        let log = process.logged();
        log.contains("configuration not reloaded") && log.contains("server.key contains a priv")
    });
    assert_eq!(served().unwrap(), before);
    fs::write(folder.join("server.pem"), new_leaf.cert.pem()).unwrap();
    wait("the new certificate is served", || served().unwrap() == new_leaf.cert.der().to_vec());
    client.send(&masked(true, TEXT, b"still here"));
    assert_eq!(client.text(), "still here");

    // Another change of the configuration changes nothing here, and session tickets stay valid.
    let config = Arc::new(authority.client(None));
    Secure::open(process.address, &config, "/echo");
    let route =
        |path: &str| format!("[[routes]]\nwhen = [{{ path = '{path}' }}]\nendpoint = 'echo'\n");
    command("renewed", &format!("{base}{}{}", route("/echo"), route("/new")));
    process.signal(libc::SIGHUP);
    let other = Arc::new(authority.client(None));
    wait("the new route", || {
        let mut client = Secure::connect(process.address, &other, "localhost").unwrap();
        client.send(handshake("/new", "").as_bytes());
        matches!(client.next(), Some(Received::Answer { status: 101, .. }))
    });
    let client = Secure::open(process.address, &config, "/echo");
    assert_eq!(client.stream.conn.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn tls_stream_goes_both_ways() {
    let authority = Authority::new();
    let mut config = secure("stream", &authority, "");
    config.routes = vec![Route { stream: true, ..Route::to(EndpointKind::Echo) }];
    let Some(server) = start(config) else { return };
    let client = Arc::new(authority.client(None));
    let mut client = Secure::connect(server.addresses()[0], &client, "localhost").unwrap();
    client.send(
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
          Transfer-Encoding: chunked\r\n\r\n",
    );
    assert!(matches!(client.next(), Some(Received::Answer { status: 200, .. })));
    for len in [1, 16 * 1024, 100_000] {
        let line = "x".repeat(len);
        client.send(format!("{:x}\r\n{line}\n\r\n", len + 1).as_bytes());
        assert!(client.text() == line, "{len}");
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.next(), Some(Received::End(String::new())));
    assert_eq!(client.next(), None, "ended by close_notify");
    wait_count(&server, "connections", 0);
}
