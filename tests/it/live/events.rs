//! Server-sent events over real TCP: beside WebSockets, on two cores, with a client that does not
//! read, with many clients, and with curl.

use crate::net::*;
use crate::peer::{self, ClientReader, Received};
use polycast::config::SlowConsumer;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// A client that has asked for events.
struct Listener {
    tcp: TcpStream,
    reader: ClientReader,
    received: VecDeque<Received>,
}

impl Listener {
    /// Asks for the events of channels, without reading the response.
    fn begin(client: Client, channels: &str) -> Listener {
        let mut tcp = client.stream;
        let head = format!(
            "GET /app/app-key/events?channels={channels} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        );
        tcp.write_all(head.as_bytes()).unwrap();
        Listener { tcp, reader: ClientReader::default(), received: VecDeque::new() }
    }

    /// Subscribes to one channel.
    fn open(client: Client, channel: &str) -> Listener {
        let mut listener = Listener::begin(client, channel);
        let head = listener.hear();
        assert!(matches!(head, Received::Answer { status: 200, .. }), "{head:?}");
        assert_eq!(listener.hear(), Received::Start("1000".to_owned()));
        assert_eq!(listener.hear(), Received::Text(subscribed(channel)));
        listener
    }

    fn hear(&mut self) -> Received {
        let mut piece = vec![0; 64 * 1024];
        loop {
            if let Some(received) = self.received.pop_front() {
                return received;
            }
            let n = self.tcp.read(&mut piece).unwrap();
            assert_ne!(n, 0, "the end, with {} bytes that are no event", self.reader.left());
            self.received.extend(self.reader.hear(&piece[..n]));
        }
    }
}

fn subscribed(channel: &str) -> String {
    let event = "pusher_internal:subscription_succeeded";
    format!(r#"{{"event":"{event}","channel":"{channel}","data":"{{}}"}}"#)
}

fn event(channel: &str, data: &str) -> String {
    format!(r#"{{"event":"e","channel":"{channel}","data":"{data}"}}"#)
}

#[test]
fn events_reach_a_thousand_clients_on_two_cores_in_one_order() {
    const CLIENTS: usize = 1000;
    const EVENTS: usize = 20;
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let mut publisher = Client::connect(address);
    let mut listeners: Vec<Listener> =
        (0..CLIENTS).map(|_| Listener::open(Client::connect(address), "news")).collect();
    assert_eq!(server.count("event_streams"), CLIENTS as u64);
    for number in 0..EVENTS {
        publisher.publish("news", &number.to_string());
    }
    for listener in &mut listeners {
        for number in 0..EVENTS {
            assert_eq!(listener.hear(), Received::Text(event("news", &number.to_string())));
        }
    }
    assert_eq!(server.count("http_streams_unsaid"), 0);
    drop(listeners);
    wait_count(&server, "event_streams", 0);
    wait_count(&server, "subscriptions", 0);
    assert_eq!(server.count("http_streams"), CLIENTS as u64);
}

#[test]
fn events_client_that_does_not_read_costs_the_others_nothing() {
    let mut config = config();
    config.limits.write_queue_bytes = 64 * 1024;
    config.slow_consumer = SlowConsumer::Close;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut publisher = Client::connect(address);
    let mut reader = Listener::open(Client::connect(address), "news");
    let mut sleeper = Listener::open(Client::connect_narrow(address), "news");
    let mut rounds = 0;
    while server.count("slow_consumer_closed") == 0 {
        assert!(rounds < 5000, "the slow client is never noticed");
        let data = format!("{rounds:0>8000}");
        publisher.publish("news", &data);
        assert_eq!(reader.hear(), Received::Text(event("news", &data)));
        rounds += 1;
    }
    let mut next = 0;
    let trailer = loop {
        match sleeper.hear() {
            Received::End(trailer) => break trailer,
            Received::Text(text) if text.contains("pusher:error") => {
                assert!(text.contains("4100"), "{text}");
            }
            Received::Text(text) => {
                assert_eq!(text, event("news", &format!("{next:0>8000}")), "no gap");
                next += 1;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(trailer.starts_with("Polycast-Close: 4100 Over capacity"), "{trailer}");
    drop(sleeper);
    wait_count(&server, "event_streams", 1);
}

/// The policy `drop` leaves events out, as for a WebSocket, and the stream goes on.
#[test]
fn events_are_dropped_by_the_policy_of_slow_consumers() {
    let mut config = config();
    // One core has counted what it drops when it answers the publisher.
    config.threads = 1;
    config.limits.write_queue_bytes = 64 * 1024;
    config.slow_consumer = SlowConsumer::Drop;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut publisher = Client::connect(address);
    let mut sleeper = Listener::open(Client::connect_narrow(address), "news");
    let mut rounds = 0;
    while server.count("slow_consumer_dropped") == 0 {
        assert!(rounds < 5000, "no event is dropped");
        publisher.publish("news", &format!("{rounds:0>8000}"));
        rounds += 1;
    }
    for number in 0..rounds - 1 {
        let data = format!("{number:0>8000}");
        assert_eq!(sleeper.hear(), Received::Text(event("news", &data)));
    }
    publisher.publish("news", "last");
    assert_eq!(sleeper.hear(), Received::Text(event("news", "last")));
}

/// The example of the documentation: a private channel with curl.
#[test]
fn events_are_received_by_curl() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skip("there is no curl");
    }
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let mut publisher = Client::connect(address);
    let auth = peer::auth("1.1", "private-news", None);
    let query = format!("channels=private-news&socket_id=1.1&auth={auth}");
    let mut curl = Command::new("curl")
        .args(["--silent", "--no-buffer", "--max-time", "20"])
        .arg(format!("http://{address}/app/app-key/events?{query}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(curl.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    let data = |text: &str| format!("data: {text}\n");
    assert_eq!([line(), line(), line()], [": events\n", "retry: 1000\n", "\n"]);
    assert_eq!([line(), line()], [data(&subscribed("private-news")), "\n".to_owned()]);
    publisher.publish("private-news", "hello");
    assert_eq!([line(), line()], [data(&event("private-news", "hello")), "\n".to_owned()]);
    curl.kill().unwrap();
    curl.wait().unwrap();
    wait_count(&server, "event_streams", 0);
}
