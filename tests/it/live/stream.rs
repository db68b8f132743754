//! HTTP streams in place of WebSockets, over real TCP: in both directions at once, beside
//! WebSockets, and with members that do not read.

use crate::net::*;
use crate::peer::{ClientReader, Received};
use polycast::config::{Config, EndpointKind, Route, SlowConsumer};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LINES: &str = "text/plain";
const JSON: &str = "application/x-ndjson";
const OCTETS: &str = "application/octet-stream";

/// A configuration with one route that accepts streams, on two reactors.
fn streaming(endpoint: EndpointKind) -> Config {
    let mut config = config();
    config.routes = vec![Route { stream: true, ..Route::to(endpoint) }];
    config
}

/// A client that has sent the head of a request.
struct Streamer {
    tcp: TcpStream,
    reader: ClientReader,
    received: VecDeque<Received>,
}

impl Streamer {
    fn open(client: Client, content_type: &str) -> Streamer {
        let mut streamer = Streamer::begin(client, content_type);
        match streamer.hear() {
            Received::Answer { status: 200, .. } => streamer,
            other => panic!("{other:?}"),
        }
    }

    fn begin(client: Client, content_type: &str) -> Streamer {
        let head = format!(
            "POST /group HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        let mut tcp = client.stream;
        tcp.write_all(head.as_bytes()).unwrap();
        Streamer { tcp, reader: ClientReader::default(), received: VecDeque::new() }
    }

    fn connect(address: SocketAddr, content_type: &str) -> Streamer {
        Streamer::open(Client::connect(address), content_type)
    }

    /// Sends one chunk; an empty one is the last.
    fn chunk(&mut self, data: &[u8]) {
        let size = format!("{:x}\r\n", data.len());
        self.tcp.write_all(&[size.as_bytes(), data, b"\r\n"].concat()).unwrap();
    }

    fn hear(&mut self) -> Received {
        let mut piece = vec![0; 64 * 1024];
        loop {
            if let Some(received) = self.received.pop_front() {
                return received;
            }
            let n = self.tcp.read(&mut piece).unwrap();
            assert_ne!(n, 0, "the end, with {} bytes that are no record", self.reader.left());
            self.received.extend(self.reader.hear(&piece[..n]));
        }
    }

    fn text(&mut self) -> String {
        match self.hear() {
            Received::Text(text) => text,
            Received::Binary(payload) => String::from_utf8(payload).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads the end of the response and of the connection.
    fn end(&mut self) -> String {
        let Received::End(trailer) = self.hear() else { panic!("no end") };
        assert_eq!(self.tcp.read(&mut [0; 100]).unwrap(), 0);
        trailer
    }
}

fn measured(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes(), payload].concat()
}

#[test]
fn stream_echo_answers_while_the_request_goes_on() {
    let Some(server) = start(streaming(EndpointKind::Echo)) else { return };
    let address = server.addresses()[0];
    let mut client = Streamer::connect(address, LINES);
    for round in 0..200 {
        let line = format!("{round:0>len$}", len = 1 + round * 7);
        let whole = format!("{line}\n");
        // Chunks and records are cut anywhere.
        let (one, two) = whole.as_bytes().split_at(round % whole.len());
        [one, two].iter().filter(|piece| !piece.is_empty()).for_each(|piece| client.chunk(piece));
        assert_eq!(client.text(), line);
    }
    client.chunk(b"");
    assert_eq!(client.end(), "");
    let mut client = Streamer::connect(address, OCTETS);
    let payload: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    for piece in measured(&payload).chunks(70_001) {
        client.chunk(piece);
    }
    assert_eq!(client.hear(), Received::Binary(payload));
    wait_count(&server, "connections", 1);
    assert_eq!((server.count("http_streams"), server.count("upgrades")), (2, 0));
}

/// Reading from a client that sends much and reads nothing is paused, and no message is lost.
#[test]
fn stream_client_that_does_not_read_is_paused() {
    const LINES_SENT: usize = 4000;
    let Some(server) = start(streaming(EndpointKind::Echo)) else { return };
    let client = Client::connect_narrow(server.addresses()[0]);
    let mut client = Streamer::open(client, LINES);
    let mut writer = Streamer {
        tcp: client.tcp.try_clone().unwrap(),
        reader: ClientReader::default(),
        received: VecDeque::new(),
    };
    let writing = std::thread::spawn(move || {
        for number in 0..LINES_SENT {
            writer.chunk(format!("{number:0>5000}\n").as_bytes());
        }
        writer.chunk(b"");
    });
    std::thread::sleep(Duration::from_millis(500));
    let max = (LINES_SENT * 5000) as u64;
    assert!(server.count("received_bytes") < max / 2, "it is read from all the same");
    for number in 0..LINES_SENT {
        assert_eq!(client.text().parse(), Ok(number));
    }
    assert_eq!(client.end(), "");
    writing.join().unwrap();
}

#[test]
fn stream_and_websocket_members_see_one_order() {
    const EACH: usize = 60;
    let Some(server) = start(streaming(EndpointKind::Reflect)) else { return };
    let address = server.addresses()[0];
    let mut sockets: Vec<Client> =
        (0..3).map(|_| Client::connect(address).upgrade("/group")).collect();
    let mut streams: Vec<Streamer> =
        [LINES, JSON, OCTETS, OCTETS].map(|it| Streamer::connect(address, it)).into();
    let speakers = sockets.len() + streams.len();
    let line = |speaker: usize, number: usize| format!("[{speaker},{number}]");
    let say = |stream: &mut Streamer, at: usize, text: &str| match at {
        0 | 1 => stream.chunk(format!("{text}\n").as_bytes()),
        _ => stream.chunk(&measured(text.as_bytes())),
    };
    // A client is in the group when it has received its own message, or one of its own type.
    for (at, socket) in sockets.iter_mut().enumerate() {
        socket.send_text(&line(at, 1000));
        while String::from_utf8(socket.frame().payload).unwrap() != line(at, 1000) {}
    }
    for (at, stream) in streams.iter_mut().enumerate() {
        say(stream, at, &line(at + 3, 1000));
        while stream.text() != line(at + 3, 1000) {}
    }
    for number in 0..EACH {
        sockets.iter_mut().enumerate().for_each(|(at, it)| it.send_text(&line(at, number)));
        for (at, stream) in streams.iter_mut().enumerate() {
            say(stream, at, &line(at + 3, number));
        }
    }
    let is_test = |text: &String| {
        let number = text.trim_end_matches(']').split(',').nth(1).and_then(|it| it.parse().ok());
        number.is_some_and(|number: usize| number < 1000)
    };
    // Line streams get no binary messages: those of the last two senders.
    let has_line = |text: &String| !text.starts_with("[5,") && !text.starts_with("[6,");
    let socket_heard: Vec<Vec<String>> = sockets
        .iter_mut()
        .map(|it| {
            let texts = std::iter::repeat_with(|| String::from_utf8(it.frame().payload).unwrap());
            texts.filter(is_test).take(speakers * EACH).collect()
        })
        .collect();
    let all = &socket_heard[0];
    assert!(socket_heard.iter().all(|received| received == all));
    let lines: Vec<String> = all.iter().filter(|it| has_line(it)).cloned().collect();
    for (at, stream) in streams.iter_mut().enumerate() {
        let expected = if at < 2 { &lines } else { all };
        let texts = std::iter::repeat_with(|| stream.text());
        let received: Vec<String> = texts.filter(is_test).take(expected.len()).collect();
        assert_eq!(&received, expected, "stream {at}");
    }
    assert!(server.count("http_streams_unsaid") >= (2 * 2 * EACH) as u64);
}

#[test]
fn stream_stalled_member_costs_the_others_nothing() {
    let mut config = streaming(EndpointKind::Reflect);
    config.limits.write_queue_bytes = 64 * 1024;
    config.slow_consumer = SlowConsumer::Close;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut talker = Client::connect(address).upgrade("/group");
    let mut reader = Streamer::connect(address, LINES);
    let mut sleeper = Streamer::open(Client::connect_narrow(address), JSON);
    // Each client sends its own message; after receiving it, no earlier message can follow.
    for (stream, word) in [(&mut reader, "1"), (&mut sleeper, "2")] {
        stream.chunk(format!("{word}\n").as_bytes());
        while stream.text() != word {}
    }
    talker.send_text("begin");
    while talker.text() != "begin" {}
    while reader.text() != "begin" {}
    let mut rounds = 0;
    while server.count("slow_consumer_closed") == 0 {
        assert!(rounds < 5000, "the slow member is never noticed");
        let text = format!("{rounds:0>10000}");
        talker.send_text(&text);
        assert!(talker.text() == text && reader.text() == text, "round {rounds}");
        rounds += 1;
    }
    let mut last = None;
    let trailer = loop {
        match sleeper.hear() {
            Received::End(trailer) => break trailer,
            Received::Text(text) if text.len() == 10_000 => {
                let number: usize = text.parse().unwrap();
                assert_eq!(number, last.map_or(0, |last: usize| last + 1), "no gap");
                last = Some(number);
            }
            Received::Text(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(trailer, "Polycast-Close: 1008 the client does not read what it is sent");
    drop(sleeper);
    wait_count(&server, "connections", 2);
}

/// Runs curl with a stream of JSON; `more` is further options.
fn curl(address: SocketAddr, more: &[&str]) -> Child {
    Command::new("curl")
        .args(["--silent", "--no-buffer", "--max-time", "20", "-X", "POST"])
        .args(["-H", "Content-Type: application/x-ndjson"])
        .args(more)
        .arg(format!("http://{address}/group"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The examples of the README, with curl as the client.
#[test]
fn stream_curl_sends_and_receives_in_a_group() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skip("there is no curl");
    }
    let Some(server) = start(streaming(EndpointKind::Reflect)) else { return };
    let address = server.addresses()[0];
    let mut member = Client::connect(address).upgrade("/group");
    member.send_text("0");
    assert_eq!(member.text(), "0");
    // Sends one record and receives.
    let mut listener = curl(address, &["-d", r#"{"from":"curl"}"#]);
    assert_eq!(member.text(), r#"{"from":"curl"}"#);
    let mut output = BufReader::new(listener.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(), "{\"from\":\"curl\"}\n");
    member.send_text("{\"from\":\n\"a socket\"}");
    assert_eq!(member.text(), "{\"from\":\n\"a socket\"}");
    assert_eq!(line(), "{\"from\": \"a socket\"}\n");
    // Sends its input as it arrives.
    let mut talker = curl(address, &["-T", "."]);
    let mut input = talker.stdin.take().unwrap();
    for number in 1..4 {
        input.write_all(format!("[{number}]\n").as_bytes()).unwrap();
        assert_eq!(member.text(), format!("[{number}]"));
        assert_eq!(line(), format!("[{number}]\n"));
    }
    for mut it in [talker, listener] {
        it.kill().unwrap();
        it.wait().unwrap();
    }
    wait_count(&server, "connections", 1);
}
