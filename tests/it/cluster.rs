//! A shard of a node in a cluster: what it proposes, when it answers, and what comes from the log.

use crate::machine::{Machine, config};
use crate::peer::{Received, SECOND, handshake, signed, text};
use polycast::cluster::{AddedStart, Arrival};
use polycast::config::{AppHistory, ChannelLink, Cluster, Config, LinkEnd, Secret};
use polycast::dialect::{Event, Proposal};
use polycast::hub::{CountedKind, CountedNumbers, StateAuthor, Statement, Unpublished};
use polycast::mem::Frozen;
use std::sync::Arc;

const EVENTS: &str = "/apps/1/events";
/// The number of proposals that may wait before a shard of a [`Machine`] reads no more.
const BOUND: usize = 64;

fn in_cluster() -> Config {
    let cluster = Cluster { engine: vec!["nats://a:1".to_owned()], ..Cluster::default() };
    Config { cluster: Some(Box::new(cluster)), ..config("client_events = true\n") }
}

fn publish(machine: &mut Machine, at: usize, channels: &str, data: &str) {
    let body = format!(r#"{{"name":"e","channels":[{channels}],"data":"{data}"}}"#);
    let request = signed("POST", EVENTS, body.as_bytes(), machine.now.unix_s);
    machine.receive(at, &request);
}

fn proposals(machine: &mut Machine) -> Vec<Proposal> {
    std::iter::from_fn(|| machine.shard.next_proposal()).collect()
}

/// The node's thread answers a proposal.
fn settle(machine: &mut Machine, proposal: &Proposal, failed: Option<Unpublished>) {
    let (core, ack) = proposal.origin.expect("a publisher waits");
    assert_eq!(core, 0);
    let failed = failed.map(|why| (proposal.name.clone(), why));
    machine.shard.settle(ack, failed, machine.now);
    machine.settle();
}

/// The statuses and bodies of the responses that a connection has got.
fn responses(machine: &mut Machine, at: usize) -> Vec<(u16, String)> {
    let received = std::mem::take(&mut machine.wire(at).received);
    let response = |received| match received {
        Received::Answer { status, body, .. } => (status, body),
        other => panic!("{other:?}"),
    };
    received.into_iter().map(response).collect()
}

fn subscriber(machine: &mut Machine, channel: &str) -> usize {
    let at = machine.open();
    machine.receive(at, &handshake("/app/app-key", ""));
    let message = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
    machine.receive(at, &text(&message));
    assert_eq!(std::mem::take(&mut machine.wire(at).received).len(), 3);
    at
}

#[test]
fn cluster_shard_answers_when_the_event_is_in_the_log() {
    let mut machine = Machine::new(in_cluster());
    let (hears, api) = (subscriber(&mut machine, "a"), machine.open());
    publish(&mut machine, api, r#""a""#, "1");
    let [proposal] = &proposals(&mut machine)[..] else { panic!("one proposal") };
    assert_eq!((&*proposal.name, proposal.app), ("a", 0));
    assert!(responses(&mut machine, api).is_empty() && machine.wire(hears).received.is_empty());
    settle(&mut machine, proposal, None);
    assert_eq!(responses(&mut machine, api), [(200, "{}".to_owned())]);
    assert!(machine.wire(hears).received.is_empty(), "it is delivered when the log has it");
    let mut event = proposal.event.clone();
    machine.shard.apply((0, "a"), &mut event, None, machine.now);
    machine.settle();
    let heard = r#"{"event":"e","channel":"a","data":"1"}"#.to_owned();
    assert_eq!(machine.wire(hears).received, [Received::Text(heard)]);
    machine.end();
}

#[test]
fn cluster_shard_names_the_channels_that_were_not_published() {
    let mut machine = Machine::new(in_cluster());
    let api = machine.open();
    let (refused, unknown) = (Some(Unpublished::Refused), Some(Unpublished::Unknown));
    for (outcomes, status, names) in [
        ([None, None], 200, ""),
        ([None, refused], 503, r#""channels":["b"]"#),
        ([refused, refused], 503, r#""channels":["a","b"]"#),
        ([unknown, None], 504, r#""channels":["a"]"#),
        ([refused, unknown], 504, r#""channels":["a","b"]"#),
    ] {
        publish(&mut machine, api, r#""a","b""#, "1");
        let proposals = proposals(&mut machine);
        assert_eq!(proposals.len(), 2);
        for (proposal, failed) in proposals.iter().zip(outcomes) {
            assert!(responses(&mut machine, api).is_empty(), "one of two is missing");
            settle(&mut machine, proposal, failed);
        }
        let [(answered, body)] = &responses(&mut machine, api)[..] else { panic!("{outcomes:?}") };
        assert_eq!(*answered, status, "{outcomes:?}");
        assert!(body.contains(names), "{body}");
    }
    machine.end();
}

fn publish_keyed(machine: &mut Machine, at: usize, data: &str) {
    let body =
        format!(r#"{{"name":"e","channels":["a","b"],"data":"{data}","idempotency_key":"k"}}"#);
    let request = signed("POST", EVENTS, body.as_bytes(), machine.now.unix_s);
    machine.receive(at, &request);
}

/// Whatever is not known to be published is proposed again when its request is repeated, with the
/// same keys, and only then has an answer that is kept.
#[test]
fn cluster_shard_proposes_a_request_with_a_key_until_all_of_it_is_published() {
    let mut machine = Machine::new(in_cluster());
    let api = machine.open();
    let (refused, unknown) = (Some(Unpublished::Refused), Some(Unpublished::Unknown));
    let mut keys = Vec::new();
    for (outcomes, status) in
        [([refused, None], 503), ([None, unknown], 504), ([refused, refused], 503)]
    {
        publish_keyed(&mut machine, api, "1");
        let [first, second] = &proposals(&mut machine)[..] else { panic!("two proposals") };
        // While nothing is answered, another request with the key is refused.
        let other = machine.open();
        publish_keyed(&mut machine, other, "1");
        assert_eq!(responses(&mut machine, other)[0].0, 409);
        keys.push([first, second].map(|it| it.event.key.as_deref().copied().expect("a key")));
        settle(&mut machine, first, outcomes[0]);
        settle(&mut machine, second, outcomes[1]);
        assert_eq!(responses(&mut machine, api)[0].0, status);
    }
    let [[first, second], ..] = keys[..] else { panic!("{keys:?}") };
    assert!(keys.iter().all(|it| *it == [first, second]), "{keys:?}");
    assert_eq!((first.index, second.index), (0, 1));
    assert_eq!((first.key, first.request), (second.key, second.request));
    // The connection is lost before the answer.
    let lost = machine.open();
    publish_keyed(&mut machine, lost, "1");
    assert_eq!(proposals(&mut machine).len(), 2);
    machine.hang_up(lost);
    publish_keyed(&mut machine, api, "1");
    let all = proposals(&mut machine);
    all.iter().for_each(|proposal| settle(&mut machine, proposal, None));
    assert_eq!((all.len(), responses(&mut machine, api)), (2, vec![(200, "{}".to_owned())]));
    publish_keyed(&mut machine, api, "1");
    assert_eq!(responses(&mut machine, api), [(200, "{}".to_owned())]);
    assert_eq!(proposals(&mut machine).len(), 0, "the answer is kept");
    machine.end();
}

/// The log has the key with another request, which another node has got.
#[test]
fn cluster_shard_says_that_a_key_was_used() {
    let mut machine = Machine::new(in_cluster());
    let api = machine.open();
    for outcomes in [[None, Some(Unpublished::KeyUsed)], [Some(Unpublished::KeyUsed); 2]] {
        publish_keyed(&mut machine, api, "1");
        let all = proposals(&mut machine);
        all.iter().zip(outcomes).for_each(|(it, outcome)| settle(&mut machine, it, outcome));
        let text = r#"{"error":"the idempotency key was used for another request","code":409}"#;
        assert_eq!(responses(&mut machine, api), [(409, text.to_owned())]);
    }
    machine.end();
}

#[test]
fn cluster_shard_reads_no_more_while_many_proposals_wait() {
    let mut machine = Machine::new(in_cluster());
    let apis = [(); 3].map(|()| machine.open());
    for _ in 0..BOUND {
        publish(&mut machine, apis[0], r#""a""#, "1");
    }
    assert_eq!(responses(&mut machine, apis[0]).len(), 0);
    // One more is read; what comes after it waits.
    for _ in 0..5 {
        publish(&mut machine, apis[1], r#""a""#, "1");
    }
    let waiting = proposals(&mut machine);
    assert_eq!(waiting.len(), BOUND + 1);
    machine.settle();
    waiting.iter().for_each(|it| settle(&mut machine, it, None));
    let rest = proposals(&mut machine);
    assert_eq!(rest.len(), 4);
    rest.iter().for_each(|it| settle(&mut machine, it, None));
    assert_eq!(responses(&mut machine, apis[0]).len(), BOUND);
    assert_eq!(responses(&mut machine, apis[1]).len(), 5);
    machine.end();
}

#[test]
fn cluster_shard_keeps_cached_events_of_the_log() {
    let mut machine = Machine::new(in_cluster());
    let api = machine.open();
    publish(&mut machine, api, r#""cache-a""#, "1");
    let [proposal] = &proposals(&mut machine)[..] else { panic!("one proposal") };
    settle(&mut machine, proposal, None);
    let mut event = proposal.event.clone();
    machine.shard.apply((0, "cache-a"), &mut event, None, machine.now);
    let at = machine.open();
    machine.receive(at, &handshake("/app/app-key", ""));
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"cache-a"}}"#;
    machine.receive(at, &text(subscribe));
    let last = machine.wire(at).received.last().cloned();
    let heard = r#"{"event":"e","channel":"cache-a","data":"1"}"#.to_owned();
    assert_eq!(last, Some(Received::Text(heard)));
    machine.end();
}

/// After a gap the connections that have subscriptions are closed, and no others.
#[test]
fn cluster_shard_closes_subscribers_after_a_gap() {
    let mut machine = Machine::new(in_cluster());
    let hears = subscriber(&mut machine, "a");
    let idle = machine.open();
    machine.receive(idle, &handshake("/app/app-key", ""));
    machine.wire(idle).received.clear();
    machine.shard.close_subscribers();
    machine.wait(500);
    let closed = machine.wire(hears).received.clone();
    assert!(matches!(closed[..], [Received::Close(Some(4200), _)]), "{closed:?}");
    assert!(machine.wire(idle).received.is_empty());
    // Once: who comes later stays.
    let later = subscriber(&mut machine, "a");
    machine.wait(500);
    assert!(machine.wire(later).received.is_empty());
    let mut event: Event = Frozen::new(b"\x81\x02{}").into();
    machine.shard.apply((0, "a"), &mut event, None, machine.now);
    machine.settle();
    assert_eq!(machine.wire(later).received, [Received::Text("{}".to_owned())]);
    machine.end();
}

/// A drain may close connections of other cores before this core takes the command to drain.
#[test]
fn cluster_shard_states_no_end_once_the_process_drains() {
    for drains in [false, true] {
        let mut machine = Machine::new(in_cluster());
        let at = subscriber(&mut machine, "a");
        let state = machine.shard.next_state(machine.now).expect("the channel is occupied");
        assert!(matches!(&state.state, Statement::Count(it) if it.all == 1), "{state:?}");
        let author = StateAuthor { node: 1, is_ours: true };
        let (app, channel) = (0, "a".into());
        machine.shard.arrive(Arrival::Count { app, channel, author, count: 1.into() }, machine.now);
        if drains {
            machine.env.runtime.departure.drain();
        }
        machine.hang_up(at);
        assert!(machine.shard.next_state(machine.now).is_none(), "it lingers");
        machine.wait(4000);
        let state = machine.shard.next_state(machine.now).map(|it| it.state);
        match drains {
            false => {
                assert!(matches!(&state, Some(Statement::Count(it)) if it.all == 0), "{state:?}")
            }
            true => assert!(state.is_none(), "{state:?}"),
        }
    }
}

/// Until all cores have taken what the log has of an application that a reload has added, its
/// clients are refused in a way after which they try again. The others are served.
#[test]
fn cluster_shard_serves_an_added_application_when_the_log_was_read() {
    let (id, key, secret) = SECOND;
    let mut added = in_cluster();
    let mut second = added.apps[0].clone();
    (second.id, second.key) = (id.to_owned(), key.to_owned());
    second.secret = Secret::new(secret);
    second.history = vec![AppHistory::new(&["*"])];
    added.apps.push(second);
    let end = |app: &str, channel: &str| LinkEnd {
        app: app.to_owned(),
        channel: channel.to_owned(),
        ..LinkEnd::default()
    };
    let view = LinkEnd { publish: true, ..end("1", "view-{x}") };
    let (source, views) = (end(id, "source-{x}"), vec![view]);
    added.links.push(ChannelLink { source, views });
    let mut machine = Machine::new(in_cluster());
    let client = subscriber(&mut machine, "a");
    machine.env = Arc::new(machine.env.reloaded(added).expect("it is valid"));
    machine.shard.renew(machine.env.clone(), machine.now);
    let env = machine.env.clone();
    assert!(env.runtime.cluster.have_version(1, env.runtime.version));
    let unix_s = machine.now.unix_s;
    let status = |machine: &mut Machine, (method, path, body): (&str, &str, &[u8])| {
        let api = machine.open();
        machine.receive(api, &signed(method, path, body, unix_s));
        responses(machine, api).first().map(|(status, _)| *status)
    };
    let publish = |info: &str| format!(r#"{{"name":"e","data":"","channel":"view-b"{info}}}"#);
    let (plain, with_info) = (publish(""), publish(r#","info":"subscription_count""#));
    let paths = ["/apps/2/channels", "/apps/2/channels/b/events", "/apps/1/channels/view-b"];
    for is_read in [false, true] {
        for path in paths {
            let expected = if is_read { 200 } else { 503 };
            assert_eq!(status(&mut machine, ("GET", path, b"")), Some(expected), "{path}");
        }
        assert_eq!(status(&mut machine, ("GET", "/apps/1/channels", b"")), Some(200));
        // It waits for the log, unless it is refused.
        let events = |body| ("POST", "/apps/1/events", body);
        assert_eq!(status(&mut machine, events(plain.as_bytes())), None);
        let refused = (!is_read).then_some(503);
        assert_eq!(status(&mut machine, events(with_info.as_bytes())), refused);
        let at = machine.open();
        machine.receive(at, &handshake(&format!("/app/{key}"), ""));
        let received = std::mem::take(&mut machine.wire(at).received);
        let has_code = |it: &Received| matches!(it, Received::Close(Some(4100), _));
        assert_eq!(received.iter().any(has_code), !is_read, "{received:?}");
        // A view of the application's channel has the same state.
        let message = r#"{"event":"pusher:subscribe","data":{"channel":"view-b"}}"#;
        machine.receive(client, &text(message));
        let received = std::mem::take(&mut machine.wire(client).received);
        let words = if is_read { "subscription_succeeded" } else { "\"status\":4100" };
        let [Received::Text(text)] = &received[..] else { panic!("{received:?}") };
        assert!(text.contains(words), "{text}");
        let start = AddedStart { known_after: 0, is_read: true };
        let arrival = Arrival::AddedApp { app: 1, start };
        machine.shard.arrive(arrival.clone(), machine.now);
        assert_eq!(env.apps.get(1).is_read(), is_read, "nobody has read it yet");
        env.apps.get(1).await_cores(1);
        machine.shard.arrive(arrival, machine.now);
        assert!(env.apps.get(1).is_read());
    }
}

/// Reads that wait for numbers of all nodes are bounded on each core, and are counted.
#[test]
fn cluster_p12_counts_reads_that_wait_on_a_core_are_bounded_and_counted() {
    const BOUND: usize = 1024;
    let mut machine = Machine::new(in_cluster());
    let read = |machine: &mut Machine| {
        let at = machine.open();
        let path = "/apps/1/channels/a?info=subscription_count";
        machine.receive(at, &signed("GET", path, b"", machine.now.unix_s));
        at
    };
    let waiting: Vec<usize> = (0..BOUND).map(|_| read(&mut machine)).collect();
    machine.wait(250);
    let counts = |machine: &Machine| {
        let counters = &machine.counters;
        (counters.count_reads_waiting.get(), counters.count_reads_refused.get())
    };
    assert_eq!(counts(&machine), (BOUND as u64, 0));
    let beyond = read(&mut machine);
    machine.wait(250);
    assert_eq!(counts(&machine), (BOUND as u64, 1));
    let [(503, refused)] = &responses(&mut machine, beyond)[..] else { panic!("an answer") };
    assert!(refused.contains("subscription_count"), "{refused}");
    assert!(waiting.iter().all(|at| responses(&mut machine, *at).is_empty()));
    let app = 0;
    let numbers = CountedNumbers { app, kind: CountedKind::Totals };
    machine.shard.arrive(Arrival::Counted { numbers, is_whole: true }, machine.now);
    machine.wait(250);
    assert_eq!(counts(&machine), (0, 1));
    for at in waiting {
        let whole = r#"{"occupied":false,"subscription_count":0}"#.to_owned();
        assert_eq!(responses(&mut machine, at), [(200, whole)]);
    }
}
