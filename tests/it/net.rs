//! A small blocking client for tests: HTTP requests, signed or not, and WebSocket frames over TCP.
//! It uses none of the server's parsers.

use polycast::config::{Config, IoDriver, Listener, Overrides};
use polycast::crypto::{HmacKey, hex, md5};
use polycast::server::{Error, Server};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The timeout of every wait; a test fails after it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A server's configuration for tests: the demo application, two reactors, and a port that the
/// kernel chooses.
pub fn config() -> Config {
    let mut config = Config::demo();
    config.listeners = vec![listener("127.0.0.1:0")];
    config.threads = 2;
    config.pin = false;
    config.drain_s = 5;
    config.limits.connections = 4096;
    config
}

pub fn listener(address: &str) -> Listener {
    Listener { address: address.parse().unwrap(), ..Listener::default() }
}

/// The driver on which the tests of the whole server run: io_uring, or what the environment
/// variable POLYCAST_TEST_IO names, as the configuration does.
pub fn io() -> &'static str {
    match std::env::var("POLYCAST_TEST_IO").as_deref() {
        Err(_) | Ok("" | "io_uring") => "io_uring",
        Ok("epoll") => "epoll",
        Ok(other) => panic!("POLYCAST_TEST_IO is {other}, not io_uring or epoll"),
    }
}

fn io_driver() -> IoDriver {
    if io() == "epoll" { IoDriver::Epoll } else { IoDriver::IoUring }
}

/// Starts a server in this process; prints SKIPPED where io_uring cannot be used. The kernel frees
/// the rings of earlier servers some time after their end, so a refusal for lack of memory may not
/// last.
pub fn start(config: Config) -> Option<Server> {
    let config = config.with(Overrides { io: Some(io_driver()), ..Overrides::default() }).unwrap();
    let begun = Instant::now();
    loop {
        match Server::start(config.clone()) {
            Ok(server) => return Some(server),
            Err(error @ Error::NoIoUring { .. }) => {
                let text = error.to_string();
                if text.contains("Cannot allocate memory") && begun.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
                skip(&text);
                return None;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whether the driver of the tests can be used; prints SKIPPED if not.
pub fn has_uring() -> bool {
    let (report, usable) = polycast::server::doctor(io_driver());
    if !usable {
        skip(&report);
    }
    usable
}

/// Prints that a test is skipped. It is a failure in CI, which must have everything that tests
/// need.
pub fn skip(why: &str) {
    println!("SKIPPED: {why}");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "SKIPPED: {why}");
}

/// Polls until `holds` returns true; panics after a timeout.
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a counter of `server` has this value; panics after a timeout.
pub fn wait_count(server: &Server, name: &str, value: u64) {
    let start = Instant::now();
    while server.count(name) != value {
        let got = server.count(name);
        assert!(start.elapsed() < PATIENCE, "{name} is {got}, not {value}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One received WebSocket frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    /// RSV1, which says that the payload is compressed.
    pub compressed: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// One received HTTP response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    /// The received bytes, of which `bytes[at..]` are not yet parsed.
    bytes: Vec<u8>,
    at: usize,
    /// Whether the server has reset the connection.
    was_reset: bool,
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, bytes: Vec::new(), at: 0, was_reset: false }
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        TcpStream::connect_timeout(&address, PATIENCE).unwrap().into()
    }

    /// Connects with a small receive buffer, so that the kernel holds few unread bytes.
    pub fn connect_narrow(address: SocketAddr) -> Client {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        TcpStream::from(socket).into()
    }

    /// Opens a WebSocket at `path`.
    pub fn open(address: SocketAddr, path: &str) -> Client {
        Client::connect(address).upgrade(path)
    }

    /// Upgrades this connection to a WebSocket at `path`.
    pub fn upgrade(mut self, path: &str) -> Client {
        self.send(handshake(path, "").as_bytes());
        let response = self.response();
        assert_eq!(response.status, 101, "{response:?}");
        assert_eq!(response.field("Sec-WebSocket-Accept"), Some(ACCEPT));
        self
    }

    /// Opens a WebSocket of the demo application. Returns it with its socket id.
    pub fn app(address: SocketAddr) -> (Client, String) {
        let mut client = Client::open(address, APP_PATH);
        let id = client.established();
        (client, id)
    }

    /// Reads `connection_established` and returns the socket id in it.
    pub fn established(&mut self) -> String {
        let text = self.text();
        let start = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\""#;
        let rest = text.strip_prefix(start).unwrap_or_else(|| panic!("{text}"));
        rest.split('\\').next().unwrap().to_owned()
    }

    /// Opens a WebSocket of the demo application and subscribes to `channel`.
    pub fn subscriber(address: SocketAddr, channel: &str) -> Client {
        let (mut client, _) = Client::app(address);
        client.subscribe(channel);
        client
    }

    /// Subscribes and reads the acknowledgement.
    pub fn subscribe(&mut self, channel: &str) {
        self.send_text(&subscribe(channel));
        assert_eq!(self.text(), subscribed(channel));
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn send_text(&mut self, text: &str) {
        self.send(&masked(true, TEXT, text.as_bytes()));
    }

    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.send(&masked(true, opcode, payload));
    }

    pub fn send_close(&mut self, code: u16) {
        self.send_frame(CLOSE, &code.to_be_bytes());
    }

    /// Reads once and returns the number of bytes; 0 at the end and after a reset.
    fn fill(&mut self) -> usize {
        if self.at > 1 << 16 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Ok(n) => {
                self.bytes.extend_from_slice(&piece[..n]);
                n
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.was_reset = true;
                0
            }
            // The process was stopped and continued.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.fill(),
            Err(error) => panic!("reading: {error}; unread: {:?}", self.rest()),
        }
    }

    fn rest(&self) -> String {
        let rest = &self.bytes[self.at..];
        String::from_utf8_lossy(&rest[..rest.len().min(200)]).into_owned()
    }

    /// The next `n` bytes, or `None` at the end.
    fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.bytes.len() - self.at < n {
            if self.fill() == 0 {
                return None;
            }
        }
        self.at += n;
        Some(self.bytes[self.at - n..self.at].to_vec())
    }

    /// The next frame, or `None` at the end.
    pub fn try_frame(&mut self) -> Option<Frame> {
        let head = self.take(2)?;
        assert_eq!(head[0] & 0x30, 0, "reserved bits");
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let len = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.take(2)?.try_into().unwrap())),
            127 => u64::from_be_bytes(self.take(8)?.try_into().unwrap()),
            len => u64::from(len),
        };
        let payload = self.take(len as usize)?;
        let compressed = head[0] & 0x40 != 0;
        Some(Frame { fin: head[0] & 0x80 != 0, compressed, opcode: head[0] & 0xf, payload })
    }

    pub fn frame(&mut self) -> Frame {
        self.try_frame().expect("a frame")
    }

    /// The text of the next frame, which must be a text frame.
    pub fn text(&mut self) -> String {
        let frame = self.frame();
        let text = String::from_utf8_lossy(&frame.payload).into_owned();
        assert_eq!((frame.fin, frame.compressed, frame.opcode), (true, false, TEXT), "{text}");
        text
    }

    /// The code and reason of the next frame, which must be a Close frame.
    pub fn close(&mut self) -> (u16, String) {
        let frame = self.frame();
        assert_eq!((frame.fin, frame.opcode), (true, CLOSE), "{frame:?}");
        match frame.payload.split_first_chunk() {
            Some((code, reason)) => {
                (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap())
            }
            None => (0, String::new()),
        }
    }

    /// Reads and discards all bytes up to the end of the connection.
    pub fn drained(&mut self) {
        while self.fill() > 0 {
            self.at = self.bytes.len();
        }
    }

    /// Asserts that the server ends its side here without sending more, and without a reset.
    pub fn end(&mut self) {
        assert_eq!(self.rest(), "");
        let got = self.fill();
        assert_eq!(got, 0, "{}", self.rest());
        assert!(!self.was_reset, "a reset");
    }

    /// Sends a ping and waits for its pong: the server has then processed everything sent before.
    pub fn sync(&mut self) {
        self.send_frame(PING, b"sync");
        let frame = self.frame();
        assert_eq!((frame.opcode, &*frame.payload), (PONG, &b"sync"[..]), "{frame:?}");
    }

    /// The next HTTP response.
    pub fn response(&mut self) -> Response {
        self.response_to("")
    }

    /// The next HTTP response, to a request with `method`.
    pub fn response_to(&mut self, method: &str) -> Response {
        let end = loop {
            let unread = &self.bytes[self.at..];
            if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert_ne!(self.fill(), 0, "the end, after {:?}", self.rest());
        };
        let head = String::from_utf8(self.take(end).unwrap()).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap();
        let mut response = Response { status: status.parse().unwrap(), head, body: String::new() };
        let len = response.field("Content-Length").map_or(0, |len| len.parse().unwrap());
        if method != "HEAD" {
            response.body = String::from_utf8(self.take(len).unwrap()).unwrap();
        }
        response
    }

    /// Publishes an event and waits for the acknowledgement.
    pub fn publish(&mut self, channel: &str, data: &str) {
        self.send(&publish(channel, data));
        let response = self.response();
        assert_eq!((response.status, response.body.as_str()), (200, "{}"), "{response:?}");
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// The path at which clients of the demo application connect.
pub const APP_PATH: &str = "/app/app-key?protocol=7&client=js&version=8.6.0&flash=false";
/// The path at which events of the demo application are published.
pub const EVENTS: &str = "/apps/1/events";
/// The `Sec-WebSocket-Accept` for the key of [`handshake`]; both are from RFC 6455 section 1.3.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The request of a WebSocket handshake, with further header lines.
pub fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// The header of a client's frame whose mask is `KEY`.
pub fn masked_header(fin: bool, opcode: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![u8::from(fin) << 7 | opcode];
    match len {
        0..126 => bytes.push(0x80 | len as u8),
        126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&len.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&KEY);
    bytes
}

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A complete frame of a client.
pub fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = masked_header(fin, opcode, payload.len() as u64);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

pub fn subscribe(channel: &str) -> String {
    format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":""}}}}"#)
}

pub fn subscribed(channel: &str) -> String {
    let event = "pusher_internal:subscription_succeeded";
    format!(r#"{{"event":"{event}","channel":"{channel}","data":"{{}}"}}"#)
}

/// The message in which a subscriber receives an event `e`; `data` needs no escapes.
pub fn event(channel: &str, data: &str) -> String {
    format!(r#"{{"event":"e","channel":"{channel}","data":"{data}"}}"#)
}

/// The body that publishes an event `e`; `data` needs no escapes.
pub fn event_body(channel: &str, data: &str) -> String {
    format!(r#"{{"name":"e","channel":"{channel}","data":"{data}"}}"#)
}

/// An application's key and its secret.
#[derive(Clone, Copy)]
pub struct Keys<'a>(pub &'a str, pub &'a str);

pub const DEMO: Keys<'static> = Keys("app-key", "app-secret");

impl Keys<'_> {
    /// The query of a request for `path` that was signed `age_s` seconds ago.
    pub fn sign(&self, method: &str, path: &str, body: &str, age_s: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - age_s;
        let mut query = format!("auth_key={}&auth_timestamp={now}&auth_version=1.0", self.0);
        if !body.is_empty() {
            query += "&body_md5=";
            query += &text(&hex::<16, 32>(&md5(body.as_bytes())));
        }
        let parts = [method, "\n", path, "\n", &query].map(str::as_bytes);
        let mac = HmacKey::new(self.1.as_bytes()).sign(&parts);
        format!("{query}&auth_signature={}", text(&hex::<32, 64>(&mac)))
    }

    /// A complete signed request.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let query = self.sign(method, path, body, 0);
        let len = body.len();
        format!(
            "{method} {path}?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n\
             {body}"
        )
        .into_bytes()
    }

    /// The `auth` value of a subscription.
    pub fn auth(&self, signed: &str) -> String {
        let mac = HmacKey::new(self.1.as_bytes()).sign(&[signed.as_bytes()]);
        format!("{}:{}", self.0, text(&hex::<32, 64>(&mac)))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A signed request that publishes an event `e` of the demo application.
pub fn publish(channel: &str, data: &str) -> Vec<u8> {
    DEMO.request("POST", EVENTS, &event_body(channel, data))
}
