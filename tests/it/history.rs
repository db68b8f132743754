//! Channels with a history: what a client gets after a reconnect, in which order, and how much of
//! it may wait.

use crate::machine::{Machine, UNIX_S, config};
use crate::peer::{Received, auth, handshake, signed, text};
use polycast::config::SlowConsumer;
use polycast::dialect::Env;
use std::sync::Arc;

const HISTORY: &str = "[[apps.history]]\nchannels = ['chat-*']\n";

/// A position as a client keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    stream: String,
    serial: u64,
}

/// The position and the `recovered` of a message.
fn read(message: &str) -> Option<(Position, bool)> {
    let (stream, rest) = message.split_once(r#","stream_id":""#)?.1.split_once('"')?;
    let serial = rest.strip_prefix(r#","serial":"#)?;
    let end = serial.find(|it: char| !it.is_ascii_digit())?;
    let position = Position { stream: stream.to_owned(), serial: serial[..end].parse().ok()? };
    Some((position, message.ends_with(r#","recovered":true}"#)))
}

fn texts(machine: &mut Machine, at: usize) -> Vec<String> {
    let received = std::mem::take(&mut machine.wire(at).received);
    let text = |received| match received {
        Received::Text(text) => text,
        other => panic!("{other:?}"),
    };
    received.into_iter().map(text).collect()
}

/// A client that has sent `polycast:resume` with these positions, as JSON.
fn connect(machine: &mut Machine, positions: &str) -> usize {
    connect_with(machine, positions, "")
}

fn connect_with(machine: &mut Machine, positions: &str, fields: &str) -> usize {
    let at = machine.open();
    machine.receive(at, &handshake("/app/app-key", fields));
    let resume = r#"{"event":"polycast:resume","data":{"channel_positions":"#.to_owned();
    machine.receive(at, &text(&format!("{resume}{positions}}}}}")));
    assert_eq!(std::mem::take(&mut machine.wire(at).received).len(), 2, "upgrade, established");
    at
}

fn at_position(channel: &str, position: &Position) -> String {
    let Position { stream, serial } = position;
    format!(r#"{{"{channel}":{{"stream_id":"{stream}","serial":{serial}}}}}"#)
}

fn subscribe(machine: &mut Machine, at: usize, channel: &str) {
    let message = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
    machine.receive(at, &text(&message));
}

/// Sends a request of the HTTP API and returns the status and the body of the response.
fn ask(machine: &mut Machine, method: &str, path: &str, body: &str) -> (u16, String) {
    let at = machine.open();
    machine.receive(at, &signed(method, path, body.as_bytes(), machine.now.unix_s));
    match &std::mem::take(&mut machine.wire(at).received)[..] {
        [Received::Answer { status, body, .. }] => {
            let answer = (*status, body.clone());
            machine.hang_up(at);
            answer
        }
        other => panic!("{other:?}"),
    }
}

fn publish(machine: &mut Machine, channel: &str, data: &str) {
    let body = format!(r#"{{"name":"e","channel":"{channel}","data":"{data}"}}"#);
    assert_eq!(ask(machine, "POST", "/apps/1/events", &body).0, 200);
}

/// The serial numbers of events, which all have the data `d` and their number.
fn serials(messages: &[String], stream: &str) -> Vec<u64> {
    let serial = |message: &String| {
        let (position, _) = read(message).unwrap_or_else(|| panic!("no position: {message}"));
        assert_eq!(position.stream, stream);
        assert!(message.contains(&format!(r#""data":"d{}""#, position.serial)), "{message}");
        position.serial
    };
    messages.iter().map(serial).collect()
}

#[test]
fn history_client_that_reconnects_gets_what_it_has_missed_in_order() {
    let mut machine = Machine::new(config(HISTORY));
    let first = connect(&mut machine, "{}");
    subscribe(&mut machine, first, "chat-1");
    let success = texts(&mut machine, first).remove(0);
    let (start, recovered) = read(&success).expect("a position");
    assert_eq!((start.serial, recovered), (0, false));
    assert_eq!(start.stream.len(), 16);
    (1..=3).for_each(|n| publish(&mut machine, "chat-1", &format!("d{n}")));
    assert_eq!(serials(&texts(&mut machine, first), &start.stream), [1, 2, 3]);
    machine.hang_up(first);
    (4..=6).for_each(|n| publish(&mut machine, "chat-1", &format!("d{n}")));
    let last = Position { serial: 3, ..start.clone() };
    let again = connect(&mut machine, &at_position("chat-1", &last));
    subscribe(&mut machine, again, "chat-1");
    publish(&mut machine, "chat-1", "d7");
    let mut messages = texts(&mut machine, again);
    assert_eq!(read(&messages.remove(0)), Some((last.clone(), true)));
    assert_eq!(serials(&messages, &start.stream), [4, 5, 6, 7]);
    assert_eq!(machine.counters.history_recovered.get(), 1);
    // Each way of not recovering has a counter.
    let stored = &machine.counters;
    assert_eq!((stored.history_expired.get(), stored.history_future.get()), (0, 0));
    let future = Position { serial: 8, ..start.clone() };
    let other = Position { stream: "0".repeat(16), serial: 7 };
    for position in [&future, &other] {
        let at = connect(&mut machine, &at_position("chat-1", position));
        subscribe(&mut machine, at, "chat-1");
        let messages = texts(&mut machine, at);
        let present = Position { serial: 7, ..start.clone() };
        assert_eq!((read(&messages[0]), messages.len()), (Some((present, false)), 1));
    }
    let at = connect(&mut machine, r#"{"chat-1":[]}"#);
    subscribe(&mut machine, at, "chat-1");
    let counters = &machine.counters;
    assert_eq!(counters.history_future.get(), 1);
    assert_eq!(counters.history_other_stream.get(), 1);
    assert_eq!(counters.history_malformed.get(), 1);
    machine.wait(250);
    assert_eq!(machine.counters.history_events.get(), 7);
    assert!((500..8000).contains(&machine.counters.history_bytes.get()));
    machine.end();
}

#[test]
fn history_keeps_the_configured_number_of_events() {
    let mut machine = Machine::new(config(&format!("{HISTORY}events = 3\n")));
    let first = connect(&mut machine, "{}");
    subscribe(&mut machine, first, "chat-1");
    let (start, _) = read(&texts(&mut machine, first)[0]).expect("a position");
    (1..=5).for_each(|n| publish(&mut machine, "chat-1", &format!("d{n}")));
    for (serial, recovered, missed) in [(3, true, vec![4, 5]), (2, false, vec![])] {
        let position = Position { serial, ..start.clone() };
        let at = connect(&mut machine, &at_position("chat-1", &position));
        subscribe(&mut machine, at, "chat-1");
        let mut messages = texts(&mut machine, at);
        assert_eq!(read(&messages.remove(0)).map(|it| it.1), Some(recovered));
        assert_eq!(serials(&messages, &start.stream), missed);
    }
    assert_eq!(machine.counters.history_expired.get(), 1);
    machine.end();
}

#[test]
fn history_position_waits_30_seconds_for_its_subscription() {
    for (wait_ms, recovered) in [(29_750, true), (30_000, false)] {
        let mut machine = Machine::new(config(HISTORY));
        let first = connect(&mut machine, "{}");
        subscribe(&mut machine, first, "chat-1");
        let (start, _) = read(&texts(&mut machine, first)[0]).expect("a position");
        publish(&mut machine, "chat-1", "d1");
        let again = connect(&mut machine, &at_position("chat-1", &start));
        machine.wait(wait_ms);
        subscribe(&mut machine, again, "chat-1");
        let messages = texts(&mut machine, again);
        assert_eq!(read(&messages[0]).map(|it| it.1), Some(recovered), "{wait_ms}");
        assert_eq!(messages.len(), 1 + usize::from(recovered));
        machine.end();
    }
}

#[test]
fn history_outlives_the_last_subscriber_until_its_events_expire() {
    for (wait_ms, recovered) in [(59_000, true), (60_500, false)] {
        let mut machine = Machine::new(config(&format!("{HISTORY}ttl_s = 60\n")));
        let first = connect(&mut machine, "{}");
        subscribe(&mut machine, first, "chat-1");
        let (start, _) = read(&texts(&mut machine, first)[0]).expect("a position");
        machine.hang_up(first);
        publish(&mut machine, "chat-1", "d1");
        machine.wait(wait_ms);
        let again = connect(&mut machine, &at_position("chat-1", &start));
        subscribe(&mut machine, again, "chat-1");
        let messages = texts(&mut machine, again);
        assert_eq!(read(&messages[0]).map(|it| it.1), Some(recovered), "{wait_ms}");
        assert_eq!(messages.len(), 1 + usize::from(recovered));
        machine.end();
    }
}

/// Missed events of much more than a write queue are replies: they do not close a client that does
/// not read for a moment, which is not read meanwhile either.
#[test]
fn history_replay_larger_than_the_write_queue_arrives_whole() {
    let more = format!(
        "{HISTORY}events = 1000\nbytes = '8MiB'\n\
         [limits]\nwrite_queue_bytes = 65536\n[timeouts]\nsend_ms = 20000\n"
    );
    let mut machine = Machine::new(config(&more));
    let first = connect(&mut machine, "{}");
    subscribe(&mut machine, first, "chat-1");
    let (start, _) = read(&texts(&mut machine, first)[0]).expect("a position");
    machine.hang_up(first);
    let padding = "x".repeat(8000);
    for n in 1..=1000 {
        let body = format!(r#"{{"name":"e","channel":"chat-1","data":"d{n}\",\"{padding}"}}"#);
        assert_eq!(ask(&mut machine, "POST", "/apps/1/events", &body).0, 200);
    }
    let again = connect(&mut machine, &at_position("chat-1", &start));
    machine.wire(again).stalls = true;
    subscribe(&mut machine, again, "chat-1");
    machine.wait(1000);
    assert!(machine.waiting_bytes(again) > 8_000_000);
    machine.receive(again, &text(r#"{"event":"pusher:ping"}"#));
    assert!(!machine.wants_read(again), "nothing is read while so much waits");
    machine.read_again(again);
    let mut messages = texts(&mut machine, again);
    assert_eq!(read(&messages.remove(0)), Some((start.clone(), true)));
    assert_eq!(messages.pop().as_deref(), Some(r#"{"event":"pusher:pong","data":{}}"#));
    let serial = |it: &String| read(it).expect("a position").0.serial;
    assert!(messages.iter().map(serial).eq(1..=1000));
    publish(&mut machine, "chat-1", "d1001");
    assert_eq!(serials(&texts(&mut machine, again), &start.stream), [1001]);
    assert!(machine.wants_read(again));
    machine.end();
}

/// A client that resumes after a later position would never learn of a dropped event.
#[test]
fn history_slow_client_with_positions_is_closed_where_others_lose_events() {
    let mut config = config(HISTORY);
    config.slow_consumer = SlowConsumer::Drop;
    config.limits.write_queue_bytes = 8192;
    let mut machine = Machine::new(config);
    let (with_positions, without) = (connect(&mut machine, "{}"), machine.open());
    machine.receive(without, &handshake("/app/app-key", ""));
    for at in [with_positions, without] {
        subscribe(&mut machine, at, "chat-1");
        machine.wire(at).stalls = true;
    }
    for _ in 0..20 {
        publish(&mut machine, "chat-1", &"x".repeat(1000));
    }
    let counters = &machine.counters;
    assert_eq!(counters.slow_consumer_closed.get(), 1);
    assert!(counters.slow_consumer_dropped.get() > 0);
}

#[test]
fn history_replay_is_compressed_as_live_events_are() {
    let mut machine =
        Machine::new(config(&format!("{HISTORY}rewind = 10\n[compression]\nmin_bytes = 1\n")));
    (1..=3).for_each(|n| publish(&mut machine, "chat-1", &format!("d{n}")));
    let rewind = r#"{"chat-1":{"rewind":10}}"#;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let plain = connect(&mut machine, rewind);
    let compressed = connect_with(&mut machine, rewind, offer);
    for at in [plain, compressed] {
        subscribe(&mut machine, at, "chat-1");
    }
    publish(&mut machine, "chat-1", "d4");
    let both = [plain, compressed].map(|at| texts(&mut machine, at));
    assert_eq!(both[0], both[1]);
    let (start, _) = read(&both[0][0]).expect("a position");
    assert_eq!(serials(&both[0][1..], &start.stream), [1, 2, 3, 4]);
    machine.end();
}

#[test]
fn history_endpoint_continues_after_a_position() {
    let mut machine = Machine::new(config(&format!("{HISTORY}events = 5\n")));
    (1..=4).for_each(|n| publish(&mut machine, "chat-1", &format!("d{n}")));
    let path = "/apps/1/channels/chat-1/events";
    let (status, body) = ask(&mut machine, "GET", &format!("{path}?limit=3"), "");
    assert_eq!(status, 200);
    let (position, _) = read(&body).expect("a position");
    assert_eq!(position.serial, 3);
    let after = format!("{path}?after={}:3", position.stream);
    let (_, body) = ask(&mut machine, "GET", &after, "");
    assert!(body.starts_with(r#"{"events":[{"serial":4,"event":"e","data":"d4"}],"#), "{body}");
    assert!(body.ends_with(r#""serial":4,"complete":true}"#), "{body}");
    let (_, body) = ask(&mut machine, "GET", &format!("{path}?after={}:4", position.stream), "");
    assert!(body.starts_with(r#"{"events":[],"#) && body.ends_with(r#":4,"complete":true}"#));
    let (_, body) = ask(&mut machine, "GET", &format!("{path}?after={}:1", "0".repeat(16)), "");
    assert!(body.ends_with(r#"complete":false}"#), "another stream: {body}");
    (5..=8).for_each(|n| publish(&mut machine, "chat-1", &format!("d{n}")));
    let (_, body) = ask(&mut machine, "GET", &after, "");
    assert!(body.ends_with(r#""serial":8,"complete":false}"#), "3 is not kept: {body}");
    for bad in ["x", ":1", "0123456789abcdef", "0123456789abcdef:x", "0123456789abcdef:-1"] {
        assert_eq!(ask(&mut machine, "GET", &format!("{path}?after={bad}"), "").0, 400, "{bad}");
    }
    // Without a signature nothing is told.
    let at = machine.open();
    machine.receive(at, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    let received = &machine.wire(at).received[0];
    assert!(matches!(received, Received::Answer { status: 401, .. }), "{received:?}");
    machine.end();
}

/// Events that were published while the configuration had no history for their channel are lost,
/// and a client is not told otherwise.
#[test]
fn history_ends_when_its_configuration_changes() {
    let mut machine = Machine::new(config(HISTORY));
    let first = connect(&mut machine, "{}");
    subscribe(&mut machine, first, "chat-1");
    let (start, _) = read(&texts(&mut machine, first)[0]).expect("a position");
    publish(&mut machine, "chat-1", "d1");
    let mut env = Arc::new(Env::new(config(HISTORY), 7).unwrap());
    for (more, is_kept) in [("", true), ("events = 99\n", false), ("events = 99\n", false)] {
        let next = config(&format!("{HISTORY}{more}"));
        env = Arc::new(env.reloaded(next).unwrap());
        machine.shard.renew(env.clone(), machine.now);
        machine.settle();
        let again = connect(&mut machine, &at_position("chat-1", &start));
        subscribe(&mut machine, again, "chat-1");
        let messages = texts(&mut machine, again);
        assert_eq!(read(&messages[0]).map(|it| it.1), Some(is_kept), "{more}");
        machine.hang_up(again);
    }
    machine.end();
}

#[test]
fn history_of_private_channels_needs_their_signature() {
    let mut machine =
        Machine::new(config("[[apps.history]]\nchannels = ['private-*']\nrewind = 10\n"));
    publish(&mut machine, "private-a", "d1");
    let at = machine.open();
    machine.receive(at, &handshake("/app/app-key", ""));
    let received = std::mem::take(&mut machine.wire(at).received);
    let Received::Text(established) = &received[1] else { panic!("{received:?}") };
    let id = established.split(r#"socket_id\":\""#).nth(1).and_then(|it| it.split('\\').next());
    let id = id.expect("a socket id").to_owned();
    let resume =
        r#"{"event":"polycast:resume","data":{"channel_positions":{"private-a":{"rewind":9}}}}"#;
    machine.receive(at, &text(resume));
    let subscribe = |auth: &str| {
        let data = format!(r#"{{"channel":"private-a","auth":"{auth}"}}"#);
        text(&format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#))
    };
    machine.receive(at, &subscribe("app-key:00"));
    let refused = texts(&mut machine, at);
    assert!(refused.len() == 1 && refused[0].contains("subscription_error"), "{refused:?}");
    machine.receive(at, &subscribe(&auth(&id, "private-a", None)));
    let messages = texts(&mut machine, at);
    assert!(read(&messages[0]).expect("a position").1 && messages.len() == 2, "{messages:?}");
    assert_eq!(machine.now.unix_s, UNIX_S);
    machine.end();
}

/// A rewind whose events have expired has nothing to replay, so a cache channel sends its cached
/// event, which lives longer. Otherwise the cached event is in the replay, or the client has it.
#[test]
fn history_rewind_on_a_cache_channel_sends_the_cached_event_once() {
    const CACHE: &str = "[[apps.history]]\nchannels = ['cache-*']\nttl_s = 1\nrewind = 5\n";
    let mut machine = Machine::new(config(CACHE));
    publish(&mut machine, "cache-a", "d1");
    let ask = |machine: &mut Machine, positions: &str| {
        let at = connect(machine, positions);
        subscribe(machine, at, "cache-a");
        let mut messages = texts(machine, at);
        machine.hang_up(at);
        let answer = read(&messages.remove(0)).expect("a position");
        let datas = messages.iter().map(|it| it.contains(r#""data":"d1""#)).collect::<Vec<_>>();
        (answer, datas)
    };
    let rewind = r#"{"cache-a":{"rewind":5}}"#;
    let ((start, recovered), datas) = ask(&mut machine, rewind);
    assert_eq!((start.serial, recovered, datas), (0, true, vec![true]), "in the replay");
    let last = Position { serial: 1, ..start };
    let (answer, datas) = ask(&mut machine, &at_position("cache-a", &last));
    assert_eq!((answer, datas), ((last, true), vec![]), "the client has it");
    machine.wait(2_000);
    let ((_, recovered), datas) = ask(&mut machine, rewind);
    assert_eq!((recovered, datas), (true, vec![true]), "expired in the history");
    let (answer, datas) = ask(&mut machine, "{}");
    assert_eq!((answer.1, datas), (false, vec![true]), "no position");
    machine.end();
}

/// A member that was connected before a reload publishes into the history that the reload began.
#[test]
fn history_of_a_group_begins_with_the_reload_that_configures_it() {
    let group = |history: u32| {
        config(&format!(
            "[[routes]]\nwhen = [{{ path = '/group' }}]\nendpoint = 'reflect'\n\
             reflect.history = {history}\n[[routes]]\nendpoint = 'apps'\n"
        ))
    };
    let mut machine = Machine::new(group(0));
    let mut env = Arc::new(Env::new(group(0), 7).unwrap());
    let member = machine.open();
    machine.receive(member, &handshake("/group", ""));
    for (history, kept) in [(0, 0), (5, 1), (0, 0)] {
        env = Arc::new(env.reloaded(group(history)).unwrap());
        machine.shard.renew(env.clone(), machine.now);
        machine.settle();
        machine.receive(member, &text("message"));
        let newcomer = machine.open();
        machine.receive(newcomer, &handshake("/group", ""));
        machine.settle();
        let received = &machine.wire(newcomer).received[1..];
        assert_eq!(received.len(), kept, "{history}: {received:?}");
        machine.hang_up(newcomer);
    }
    machine.end();
}
