//! The `proxy` endpoint on the real ring, with upstreams that are sockets of this process.

use crate::certs::{Authority, folder, table};
use crate::net::*;
use polycast::config::{Config, FileFormat};
use polycast::crypto::websocket_accept;
use polycast::server::Server;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const BUFFER: usize = 64 * 1024;

/// A configuration that proxies all requests to these upstreams.
fn proxying(upstreams: &[SocketAddr], more: &str) -> Config {
    let urls: Vec<String> = upstreams.iter().map(|it| format!("'ws://{it}'")).collect();
    let text = format!(
        "threads = 2\npin = false\ndrain_s = 5\n[limits]\nconnections = 256\n\
         [[listeners]]\naddress = '127.0.0.1:0'\n[[routes]]\nendpoint = 'proxy'\n[routes.proxy]\n\
         upstreams = [{}]\nbuffer_bytes = {BUFFER}\nbalance = 'first'\n{more}",
        urls.join(", ")
    );
    Config::parse(&text, FileFormat::Toml, "test").unwrap_or_else(|error| panic!("{error}"))
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The upstream's end of a connection.
struct Peer {
    stream: TcpStream,
    request: String,
    masks: Vec<[u8; 4]>,
}

impl Peer {
    /// Accepts a connection and reads its request.
    fn accept(listener: &TcpListener) -> Peer {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        Peer { stream, request: String::from_utf8(head).unwrap(), masks: Vec::new() }
    }

    /// Accepts a connection and completes the WebSocket handshake.
    fn open(listener: &TcpListener) -> Peer {
        let mut peer = Peer::accept(listener);
        let key = peer.field("Sec-WebSocket-Key").unwrap();
        let accept = String::from_utf8(websocket_accept(key).to_vec()).unwrap();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: {accept}\r\n\r\n"
        );
        peer.stream.write_all(answer.as_bytes()).unwrap();
        peer
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    /// The opcode and the payload of the next frame, which is masked; `None` at the end.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        match self.stream.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
            read => read.unwrap(),
        }
        assert_eq!(head[1] & 0x80, 0x80, "a client masks");
        let mut len = [0; 8];
        let len = match head[1] & 0x7f {
            126 => {
                self.stream.read_exact(&mut len[6..]).unwrap();
                u64::from_be_bytes(len)
            }
            127 => {
                self.stream.read_exact(&mut len).unwrap();
                u64::from_be_bytes(len)
            }
            len => len.into(),
        };
        let mut mask = [0; 4];
        self.stream.read_exact(&mut mask).unwrap();
        self.masks.push(mask);
        let mut payload = vec![0; len as usize];
        self.stream.read_exact(&mut payload).unwrap();
        payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
        Some((head[0] & 0xf, payload))
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.stream.write_all(&plain(opcode, payload)).unwrap();
    }
}

/// An unmasked frame, as a server sends it.
fn plain(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..126 => bytes.push(len as u8),
        len => {
            bytes.push(127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

fn check_empty(server: &Server) {
    wait_count(server, "connections", 0);
    assert_eq!(server.count("upstreams"), 0);
}

#[test]
fn proxy_passes_a_conversation() {
    let (listener, address) = listen();
    let Some(server) = start(proxying(&[address], "")) else { return };
    let upstream = thread::spawn(move || {
        let mut peer = Peer::open(&listener);
        while let Some((opcode, payload)) = peer.frame() {
            peer.send(if opcode == PING { PONG } else { opcode }, &payload);
            if opcode == CLOSE {
                break;
            }
        }
        peer
    });
    let mut client = Client::open(server.addresses()[0], "/a?b=c");
    for number in 0..200 {
        client.send_text(&format!("message {number}"));
        assert_eq!(client.text(), format!("message {number}"));
    }
    let large = vec![7; 1_000_000];
    client.send_frame(BINARY, &large);
    let frame = client.frame();
    assert!(frame.opcode == BINARY && frame.payload == large, "a long message");
    client.sync();
    client.send_frame(CLOSE, &[&1000_u16.to_be_bytes(), &b"bye"[..]].concat());
    assert_eq!(client.close(), (1000, "bye".to_owned()));
    client.end();
    let peer = upstream.join().unwrap();
    assert!(peer.request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{}", peer.request);
    let mut masks = peer.masks.clone();
    masks.sort();
    masks.dedup();
    assert!(masks.len() > peer.masks.len() - 4, "masks are not used again");
    drop((peer, client));
    check_empty(&server);
    assert_eq!((server.count("proxy_dials"), server.count("proxy_sent")), (1, 201));
}

#[test]
fn proxy_serves_many_with_an_upstream_each() {
    const PAIRS: usize = 50;
    let (listener, address) = listen();
    let Some(server) = start(proxying(&[address], "")) else { return };
    let upstream = thread::spawn(move || {
        let mut peers: Vec<Peer> = (0..PAIRS).map(|_| Peer::open(&listener)).collect();
        let name = |peer: &Peer| peer.request.split(' ').nth(1).unwrap().as_bytes().to_vec();
        for peer in &mut peers {
            peer.send(TEXT, &name(peer));
        }
        for peer in &mut peers {
            assert_eq!(peer.frame(), Some((TEXT, name(peer))));
        }
    });
    let address = server.addresses()[0];
    let mut clients: Vec<Client> = (0..PAIRS).map(|_| Client::connect(address)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(handshake(&format!("/{number}"), "").as_bytes());
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response().status, 101);
        assert_eq!(client.text(), format!("/{number}"));
        client.send_text(&format!("/{number}"));
    }
    upstream.join().unwrap();
    // The upstreams disconnect without a Close frame.
    for client in &mut clients {
        assert_eq!(client.close(), (1014, "the upstream has gone".to_owned()));
        client.send_close(1000);
        client.end();
    }
    drop(clients);
    check_empty(&server);
}

#[test]
fn proxy_closes_upstreams_of_lost_clients() {
    let (listener, address) = listen();
    let Some(server) = start(proxying(&[address], "")) else { return };
    for reset in [true, false] {
        let upstream = thread::spawn({
            let listener = listener.try_clone().unwrap();
            move || {
                let mut peer = Peer::open(&listener);
                let first = peer.frame();
                peer.send(CLOSE, &1001_u16.to_be_bytes());
                first
            }
        });
        let client = Client::open(server.addresses()[0], "/");
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        let close = [&1001_u16.to_be_bytes(), &b"the client has gone"[..]].concat();
        assert_eq!(upstream.join().unwrap(), Some((CLOSE, close)));
        check_empty(&server);
    }
}

#[test]
fn proxy_answers_upstream_failures_with_their_status() {
    let (listener, address) = listen();
    let (closed, dead) = listen();
    drop(closed);
    let Some(server) = start(proxying(&[dead, address], "handshake_ms = 300")) else { return };
    for (answer, status) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\n\r\n", 502),
        ("SSH-2.0-x\r\n\r\n", 502),
        ("HTTP/1.1 101 x\r\n\r\n", 502),
        ("", 504),
    ] {
        let upstream = thread::spawn({
            let listener = listener.try_clone().unwrap();
            move || {
                let mut peer = Peer::accept(&listener);
                peer.stream.write_all(answer.as_bytes()).unwrap();
                let _ = peer.stream.read(&mut [0]);
            }
        });
        let mut client = Client::connect(server.addresses()[0]);
        client.send(handshake("/", "").as_bytes());
        assert_eq!(client.response().status, status, "{answer}");
        client.end();
        upstream.join().unwrap();
    }
    drop(listener);
    let mut client = Client::connect(server.addresses()[0]);
    client.send(handshake("/", "").as_bytes());
    assert_eq!(client.response().status, 502);
    drop(client);
    check_empty(&server);
    assert!(server.count("proxy_unreachable") >= 2);
    assert_eq!(server.count("proxy_timed_out"), 1);
}

#[test]
fn proxy_gives_up_a_late_connect() {
    // A listener whose backlog is full answers no further connection.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let soon = Duration::from_millis(300);
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, soon) {
        queued.push(stream);
        if queued.len() == 64 {
            return skip("the queue of a listener is never full here");
        }
    }
    let Some(server) = start(proxying(&[address], "connect_ms = 300")) else { return };
    let mut client = Client::connect(server.addresses()[0]);
    client.send(handshake("/", "").as_bytes());
    assert_eq!(client.response().status, 504);
    client.end();
    drop(client);
    check_empty(&server);
    assert_eq!(server.count("proxy_timed_out"), 1);
    // The client has disconnected during the connect, which is noticed when the connect times out.
    let mut client = Client::connect(server.addresses()[0]);
    client.send(handshake("/", "").as_bytes());
    wait_count(&server, "upstreams", 1);
    client.reset();
    check_empty(&server);
}

/// Writes `message` repeatedly until the socket takes no more. Returns the numbers of complete
/// messages and of the remaining bytes written.
fn push_until_stalled(stream: &mut TcpStream, message: &[u8]) -> (usize, usize) {
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut whole, mut rest) = (0, message);
    loop {
        match stream.write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        if rest.is_empty() {
            (whole, rest) = (whole + 1, message);
        }
        assert!(whole * message.len() < 256 << 20, "nothing stops it");
    }
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    (whole, message.len() - rest.len())
}

/// The payload length of a message, in bytes.
const LEN: usize = 100_000;

#[test]
fn proxy_slow_upstream_pauses_its_client() {
    let (listener, address) = listen();
    let Some(server) = start(proxying(&[address], "")) else { return };
    let upstream = thread::spawn(move || Peer::open(&listener));
    let mut client = Client::open(server.addresses()[0], "/");
    let mut peer = upstream.join().unwrap();
    let message = masked(true, BINARY, &[7; LEN]);
    let (whole, begun) = push_until_stalled(&mut client.stream, &message);
    // The bytes that the server has received and not sent are bounded; the rest is in the kernel.
    let taken = server.count("received_bytes");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.count("received_bytes"), taken, "nothing more is read");
    let held = taken - server.count("sent_bytes");
    let max = BUFFER + 2 * LEN + 1024 * 4096;
    assert!(held as usize <= max, "{held} bytes are held");
    println!("{whole} messages were pushed, {held} bytes are held");
    let rest = message[begun..].to_vec();
    let sender = thread::spawn(move || {
        client.send(&rest);
        client.send_text("last");
        client
    });
    for number in 0..=whole {
        let (opcode, payload) = peer.frame().unwrap();
        assert!(opcode == BINARY && payload == [7; LEN], "message {number}");
    }
    assert_eq!(peer.frame(), Some((TEXT, b"last".to_vec())));
    drop((sender.join().unwrap(), peer));
    check_empty(&server);
}

#[test]
fn proxy_slow_client_pauses_its_upstream() {
    let (listener, address) = listen();
    let Some(server) = start(proxying(&[address], "")) else { return };
    let upstream = thread::spawn(move || Peer::open(&listener));
    let mut client = Client::open(server.addresses()[0], "/");
    let mut peer = upstream.join().unwrap();
    let message = plain(BINARY, &[7; LEN]);
    let (whole, begun) = push_until_stalled(&mut peer.stream, &message);
    let taken = server.count("received_bytes");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.count("received_bytes"), taken, "nothing more is read");
    let held = taken - server.count("sent_bytes");
    let max = BUFFER + 2 * LEN + 1024 * 4096;
    assert!(held as usize <= max, "{held} bytes are held");
    println!("{whole} messages were pushed, {held} bytes are held");
    let rest = message[begun..].to_vec();
    let sender = thread::spawn(move || {
        peer.stream.write_all(&rest).unwrap();
        peer.send(TEXT, b"last");
        peer
    });
    for number in 0..=whole {
        let frame = client.frame();
        assert!(frame.opcode == BINARY && frame.payload == [7; LEN], "message {number}");
    }
    assert_eq!(client.text(), "last");
    drop((sender.join().unwrap(), client));
    check_empty(&server);
}

#[test]
fn proxy_last_descriptors_serve_clients_and_upstreams() {
    let (listener, address) = listen();
    let mut config = proxying(&[address], "");
    (config.threads, config.limits.connections) = (1, 4);
    let Some(server) = start(config) else { return };
    let upstream = thread::spawn(move || {
        let mut peers = vec![Peer::open(&listener), Peer::open(&listener)];
        let last = Peer::open(&listener);
        assert_eq!(peers[0].frame().map(|frame| frame.0), Some(CLOSE));
        peers.push(last);
        peers
    });
    let address = server.addresses()[0];
    let first = Client::open(address, "/");
    let second = Client::open(address, "/");
    wait_count(&server, "connections", 4);
    // There is room for this connection when the first one is closed.
    let mut third = Client::connect(address);
    third.send(handshake("/", "").as_bytes());
    thread::sleep(Duration::from_millis(100));
    assert_eq!(server.count("connections"), 4);
    drop(first);
    drop(second);
    assert_eq!(third.response().status, 101);
    drop(third);
    drop(upstream.join().unwrap());
    check_empty(&server);
}

/// A polycast server is the upstream of another, over TLS and by name; and one with an invalid
/// certificate.
#[test]
fn proxy_upstreams_over_tls() {
    let authority = Authority::new();
    let name = "proxy_upstream";
    let text = format!(
        "pin = false\n[[listeners]]\naddress = '127.0.0.1:0'\ntls = {}\n\
         [[routes]]\nendpoint = 'echo'\n",
        table(name, &authority, "")
    );
    let text = format!("threads = 1\n{text}[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n");
    let back = Config::parse(&text, FileFormat::Toml, "test").unwrap();
    let Some(back) = start(back) else { return };
    let ca = folder(name).join("trusted.pem");
    fs::write(&ca, authority.pem()).unwrap();
    for (server_name, status) in [("localhost", 101), ("elsewhere", 502)] {
        let more = format!("tls.ca_file = '{}'\ntls.server_name = '{server_name}'", ca.display());
        let mut config = proxying(&[back.addresses()[0]], "");
        let text = format!("upstreams = 'wss://{}'\n{more}", back.addresses()[0]);
        let text = format!("[[routes]]\nendpoint = 'proxy'\n[routes.proxy]\n{text}");
        config.routes = Config::parse(&text, FileFormat::Toml, "test").unwrap().routes;
        let server = start(config).unwrap();
        let mut client = Client::connect(server.addresses()[0]);
        client.send(handshake("/echo", "").as_bytes());
        assert_eq!(client.response().status, status);
        if status == 101 {
            let large = vec![7; 300_000];
            client.send_frame(BINARY, &large);
            assert!(client.frame().payload == large);
            client.send_close(1000);
            assert_eq!(client.close().0, 1000);
            client.end();
        }
        drop(client);
        check_empty(&server);
        assert_eq!(server.count("tls_handshakes"), u64::from(status == 101));
    }
}

#[test]
fn proxy_drain_closes_both_sides() {
    let (listener, address) = listen();
    let Some(mut server) = start(proxying(&[address], "")) else { return };
    let upstream = thread::spawn(move || {
        let mut peer = Peer::open(&listener);
        let close = peer.frame();
        peer.send(CLOSE, &1001_u16.to_be_bytes());
        close
    });
    let mut client = Client::open(server.addresses()[0], "/");
    server.stop();
    assert_eq!(client.close(), (1001, "the server is shutting down".to_owned()));
    client.send_close(1001);
    let down = [&1001_u16.to_be_bytes(), &b"the server is shutting down"[..]].concat();
    assert_eq!(upstream.join().unwrap(), Some((CLOSE, down)));
    client.end();
    drop(client);
    assert!(server.join().is_ok());
    assert_eq!(server.count("connections"), 0);
}
