//! Streams of events of several channels, read as a browser reads them: a connection that breaks at
//! any byte loses no event and repeats none.

use crate::machine::{Machine, config};
use crate::peer::{Received, handshake, signed, text};
use std::collections::BTreeMap;

const CHANNELS: [&str; 3] = ["chat-1", "chat-2", "chat-3"];

/// What a browser keeps of one `EventSource`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Source {
    last_id: String,
    /// The numbers of the events of each channel, in their order.
    events: BTreeMap<String, Vec<u64>>,
    /// The channels whose acknowledgements said that they were resumed, and the others.
    recovered: Vec<String>,
    begun: Vec<String>,
    errors: usize,
}

impl Source {
    /// Reads what has arrived of a response (WHATWG HTML, section 9.2.6). An event that is not
    /// complete is discarded, with its id. Whether a stream begins with the id that the browser
    /// has sent, or without any as the standard says, depends on the browser.
    fn read(&mut self, response: &[u8], keeps_id: bool) {
        let body = body(response);
        let mut id = if keeps_id { self.last_id.clone() } else { String::new() };
        let mut data = String::new();
        let end = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in std::str::from_utf8(&body[..end]).expect("UTF-8").split_terminator('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if line.is_empty() => {
                    self.last_id.clone_from(&id);
                    if !data.is_empty() {
                        self.event(&std::mem::take(&mut data));
                    }
                }
                "data" => data.push_str(value),
                "id" => id = value.to_owned(),
                _ => {}
            }
        }
    }

    fn event(&mut self, message: &str) {
        let member = |name: &str| {
            let rest = message.split_once(&format!("\"{name}\":\"")).map(|it| it.1);
            rest.and_then(|rest| rest.split_once('"')).map(|it| it.0.to_owned())
        };
        if message.contains("pusher:error") {
            self.errors += 1;
            return;
        }
        let channel = member("channel").expect("a channel");
        if message.contains("subscription_succeeded") {
            let is_recovered = message.ends_with("\"recovered\":true}");
            return if is_recovered { &mut self.recovered } else { &mut self.begun }.push(channel);
        }
        let number = member("data").expect("data").trim_end_matches('.').parse();
        self.events.entry(channel).or_default().push(number.expect("a number"));
    }
}

/// The data of the chunks of a response, as far as it has arrived.
fn body(response: &[u8]) -> Vec<u8> {
    let Some(head) = response.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Vec::new();
    };
    let (mut rest, mut body) = (&response[head + 4..], Vec::new());
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            break;
        }
        let data = &rest[line + 2..];
        body.extend_from_slice(&data[..size.min(data.len())]);
        if data.len() < size + 2 {
            break;
        }
        rest = &data[size + 2..];
    }
    body
}

fn history(more: &str) -> Machine {
    Machine::new(config(&format!("[[apps.history]]\nchannels = ['chat-*']\nevents = 1000\n{more}")))
}

/// Opens a stream of all channels after the event with this id.
fn listen(machine: &mut Machine, id: &str) -> usize {
    let at = machine.open_raw();
    let field = if id.is_empty() { String::new() } else { format!("Last-Event-ID: {id}\r\n") };
    let target = format!("/app/app-key/events?channels={}", CHANNELS.join(","));
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n");
    machine.receive(at, request.as_bytes());
    at
}

fn publish(machine: &mut Machine, channel: &str, data: &str) {
    let at = machine.open();
    let body = format!(r#"{{"name":"e","channel":"{channel}","data":"{data}"}}"#);
    machine.receive(at, &signed("POST", "/apps/1/events", body.as_bytes(), machine.now.unix_s));
    machine.hang_up(at);
}

#[test]
fn event_ids_resume_a_stream_that_breaks_at_any_byte() {
    for keeps_id in [true, false] {
        let mut machine = history("");
        let first = listen(&mut machine, "");
        for number in 0..9 {
            publish(&mut machine, CHANNELS[number * number % 3], &number.to_string());
        }
        let response = machine.wires_raw(first).to_vec();
        let mut whole = Source::default();
        whole.read(&response, keeps_id);
        assert_eq!((whole.events.values().flatten().count(), whole.begun.len()), (9, 3));
        // Before all channels are acknowledged, nothing was promised.
        let begun = (0..response.len()).find(|&at| {
            let mut source = Source::default();
            source.read(&response[..at], keeps_id);
            source.begun.len() == CHANNELS.len()
        });
        for broken in begun.expect("acknowledgements")..=response.len() {
            let mut source = Source::default();
            source.read(&response[..broken], keeps_id);
            let second = listen(&mut machine, &source.last_id);
            let again = machine.wires_raw(second).to_vec();
            // The second connection breaks, too.
            let at = broken * 7 % (again.len() + 1);
            source.read(&again[..at], keeps_id);
            let third = listen(&mut machine, &source.last_id);
            source.read(machine.wires_raw(third), keeps_id);
            assert_eq!(source.events, whole.events, "broken at {broken} and {at}");
            assert_eq!((source.begun.len(), source.last_id), (3, whole.last_id.clone()));
            machine.hang_up(second);
            machine.hang_up(third);
        }
        machine.end();
    }
}

/// The events that a slow client has not got are discarded with their ids.
#[test]
fn event_ids_of_events_that_a_slow_client_loses_are_not_sent() {
    let mut machine = history("bytes = '4MiB'\n[limits]\nwrite_queue_bytes = 65536\n");
    let mut whole = Source::default();
    let (slow, quick) = (listen(&mut machine, ""), listen(&mut machine, ""));
    machine.wire(slow).stalls = true;
    let padding = ".".repeat(9000);
    for number in 0..30 {
        publish(&mut machine, CHANNELS[number % 3], &format!("{number}{padding}"));
    }
    whole.read(machine.wires_raw(quick), true);
    assert_eq!(machine.counters.slow_consumer_closed.get(), 1);
    machine.read_again(slow);
    let mut source = Source::default();
    source.read(machine.wires_raw(slow), true);
    assert_eq!((source.errors, source.begun.len()), (1, 3), "closed, and told so");
    assert!(source.events.values().flatten().count() < 30);
    let again = listen(&mut machine, &source.last_id);
    source.read(machine.wires_raw(again), true);
    assert_eq!((&source.events, &source.last_id), (&whole.events, &whole.last_id));
    assert_eq!(source.recovered, CHANNELS);
    machine.end();
}

#[test]
fn event_ids_have_positions_of_up_to_32_channels() {
    for (count, has_ids) in [(2, true), (32, true), (33, false)] {
        let mut machine = history("");
        let names: Vec<_> = (0..count).map(|n| format!("chat-{n}")).collect();
        let at = machine.open_raw();
        let target = format!("/app/app-key/events?channels={}", names.join(","));
        let id = format!("Last-Event-ID: {}\r\n", ",".repeat(count - 1));
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{id}\r\n");
        machine.receive(at, request.as_bytes());
        assert_eq!(machine.counters.history_malformed.get(), u64::from(!has_ids));
        publish(&mut machine, "chat-1", "7");
        let mut source = Source::default();
        source.read(machine.wires_raw(at), true);
        assert_eq!(source.events["chat-1"], [7]);
        assert!(!has_ids || source.last_id.split(',').count() == count);
        assert_eq!(source.last_id.contains(':'), has_ids);
        machine.end();
    }
}

const GROUP: &str = "[[routes]]\nwhen = [{ path = '/group' }]\nendpoint = 'reflect'\n\
                     stream = true\nreflect = { history = 100, history_bytes = '64MiB' }\n";

/// A member that continues is told of a gap by the end of its stream, and continues after it.
#[test]
fn event_ids_of_a_group_say_when_what_follows_is_too_much() {
    let more = format!("[limits]\nwrite_queue_bytes = '16MiB'\n{GROUP}");
    let mut machine = Machine::new(config(&more));
    let sender = machine.open();
    machine.receive(sender, &handshake("/group", ""));
    let open = |machine: &mut Machine, id: &str| {
        let at = machine.open();
        let field = if id.is_empty() { String::new() } else { format!("Last-Event-ID: {id}\r\n") };
        let fields = format!("Host: localhost\r\nAccept: text/event-stream\r\n{field}");
        let request = format!("GET /group HTTP/1.1\r\n{fields}\r\n");
        machine.receive(at, request.as_bytes());
        std::mem::take(&mut machine.wire(at).received)
    };
    machine.receive(sender, &text("first"));
    let first = open(&mut machine, "");
    let Some(Received::Event(id, _)) = first.last() else { panic!("{first:?}") };
    let long = "x".repeat(1 << 20);
    (0..15).for_each(|_| machine.receive(sender, &text(&long)));
    assert_eq!(open(&mut machine, id).len(), 2 + 15);
    machine.receive(sender, &text(&long));
    let last = open(&mut machine, id);
    let [.., Received::Id(present), Received::End(trailer)] = &last[..] else {
        panic!("{} messages", last.len())
    };
    assert_eq!(trailer, "Polycast-Close: 1012 missed messages are not kept any more");
    assert_eq!(machine.counters.history_too_large.get(), 1);
    // From there on nothing is missing, and an id that cannot be read is counted.
    machine.receive(sender, &text("last"));
    let next = open(&mut machine, present);
    assert!(matches!(&next[2..], [Received::Event(_, data)] if data == "last"), "{next:?}");
    assert_eq!(machine.counters.history_malformed.get(), 0);
    open(&mut machine, "no id");
    assert_eq!(machine.counters.history_malformed.get(), 1);
}
