//! Idempotency keys over nodes.

use super::engine::{EngineServer, cluster_of};
use super::{joined, level, nodes};
use crate::live::child::{BASE, Process};
use crate::net::*;
use crate::peer::signed;
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The request that publishes on these channels with a key.
fn keyed(key: &str, channels: &[&str], data: &str, more: &str) -> Vec<u8> {
    let channels = serde_json::json!(channels);
    let body = format!(
        r#"{{"name":"e","channels":{channels},"data":"{data}","idempotency_key":"{key}"{more}}}"#
    );
    DEMO.request("POST", EVENTS, &body)
}

fn answer(client: &mut Client, request: &[u8]) -> (u16, String) {
    client.send(request);
    let response = client.response();
    (response.status, response.body)
}

fn ok() -> (u16, String) {
    (200, "{}".to_owned())
}

/// What a subscriber receives up to the event with this data.
fn heard_until(client: &mut Client, channel: &str, data: &str) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.last() != Some(&event(channel, data)) {
        heard.push(client.text());
    }
    heard
}

#[test]
fn cluster_key_publishes_once_whichever_node_gets_it() {
    let Some(nats) = EngineServer::start("keys") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let mut hearers = [&first, &second].map(|node| {
        let mut client = Client::subscriber(node.addresses()[0], "a");
        client.subscribe("b");
        client
    });
    let mut apis = [&first, &second].map(|node| Client::connect(node.addresses()[0]));
    let both = keyed("one", &["a", "b"], "1", "");
    for _ in 0..2 {
        for api in &mut apis {
            assert_eq!(answer(api, &both), ok());
        }
    }
    let other = keyed("one", &["a", "b"], "2", "");
    let used = r#"{"error":"the idempotency key was used for another request","code":409}"#;
    for api in &mut apis {
        assert_eq!(answer(api, &other), (409, used.to_owned()));
    }
    // A batch.
    let [one, two] = ["3", "4"].map(|data| event_body("a", data));
    let body = format!(r#"{{"batch":[{one},{two}],"idempotency_key":"batch"}}"#);
    for api in &mut apis {
        let request = DEMO.request("POST", "/apps/1/batch_events", &body);
        assert_eq!(answer(api, &request), (200, "{}".to_owned()));
    }
    // A publisher on a WebSocket of the other node.
    let (mut publisher, id) = Client::app(second.addresses()[0]);
    let auth = DEMO.auth(&format!("{id}:polycast:publisher"));
    let data = format!(r#"{{"auth":"{auth}","role":"publisher"}}"#);
    publisher.send_text(&format!(r#"{{"event":"polycast:authenticate","data":{data}}}"#));
    assert!(publisher.text().contains("polycast:authenticated"));
    for (data, expected) in [("1", r#""data":{"id":7}"#), ("2", r#""status":409"#)] {
        let members = format!(r#""name":"e","channels":["a","b"],"data":"{data}""#);
        let data = format!(r#"{{"id":7,{members},"idempotency_key":"one"}}"#);
        publisher.send_text(&format!(r#"{{"event":"polycast:publish","data":{data}}}"#));
        let text = publisher.text();
        assert!(text.contains(expected), "{text}");
    }
    // A node that comes later has the keys from the log.
    let Some([third]) = nodes(&nats) else { return };
    let counts = || ["cluster_key_repeats", "cluster_key_conflicts"].map(|it| third.count(it));
    // The log may have what the second node has sent before it had read the first one's entries.
    let [repeats, conflicts] = counts();
    let mut api = Client::connect(third.addresses()[0]);
    assert_eq!(answer(&mut api, &other), (409, used.to_owned()));
    assert_eq!(answer(&mut api, &both), ok());
    wait_count(&third, "cluster_keys", 2);
    assert_eq!(counts(), [repeats + 2, conflicts + 2], "one for each channel");
    for channel in ["a", "b"] {
        api.publish(channel, "last");
    }
    for client in &mut hearers {
        let mut heard = vec![client.text(), client.text()];
        heard.sort();
        assert_eq!(heard, [event("a", "1"), event("b", "1")]);
        let heard = heard_until(client, "b", "last");
        assert_eq!(heard[..2], [event("a", "3"), event("a", "4")]);
        assert!(heard.len() <= 4, "{heard:?}");
    }
}

/// On another node the answer has the attributes of the moment of the repetition.
#[test]
fn cluster_key_of_a_request_with_info_is_answered_with_attributes() {
    let Some(nats) = EngineServer::start("keys-info") else { return };
    let mut config = cluster_of(&nats);
    config.apps[0].counts_in_reads = true;
    let (Some(first), Some(second)) = (start(config.clone()), start(config)) else { return };
    [&first, &second].into_iter().for_each(joined);
    let request = keyed("info", &["a"], "1", r#","info":"subscription_count""#);
    let of =
        |count: u32| (200, format!(r#"{{"channels":{{"a":{{"subscription_count":{count}}}}}}}"#));
    let [mut one, mut two] = [&first, &second].map(|node| Client::connect(node.addresses()[0]));
    assert_eq!(answer(&mut one, &request), of(0));
    level(&first, &[&second]);
    let mut hears = Client::subscriber(second.addresses()[0], "a");
    // The other node keeps its first answer, too, so it is asked when it knows the count.
    let path = "/apps/1/channels/a?info=subscription_count";
    wait("the count is known", || {
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        two.send(&signed("GET", path, b"", unix_s));
        two.response().body.contains(r#""subscription_count":1"#)
    });
    for _ in 0..2 {
        assert_eq!(answer(&mut two, &request), of(1));
    }
    assert_eq!(answer(&mut one, &request), of(0), "the node of the first request has its answer");
    two.publish("a", "last");
    assert_eq!(hears.text(), event("a", "last"), "and nothing twice");
}

#[test]
fn cluster_key_sent_to_all_nodes_at_once_publishes_once() {
    const ROUNDS: usize = 100;
    let Some(nats) = EngineServer::start("keys-at-once") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let servers = [&first, &second];
    let mut hearers = servers.map(|node| Client::subscriber(node.addresses()[0], "a"));
    let barrier = Barrier::new(servers.len());
    thread::scope(|scope| {
        for server in servers {
            let (barrier, address) = (&barrier, server.addresses()[0]);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for round in 0..ROUNDS {
                    let request = keyed(&format!("{round}"), &["a"], &round.to_string(), "");
                    barrier.wait();
                    assert_eq!(answer(&mut client, &request), ok());
                }
            });
        }
    });
    for client in &mut hearers {
        for round in 0..ROUNDS {
            assert_eq!(client.text(), event("a", &round.to_string()));
        }
        client.sync();
    }
    level(&first, &[&second]);
    for server in servers {
        assert_eq!(server.count("cluster_events"), ROUNDS as u64);
        wait_count(server, "cluster_keys", ROUNDS as u64);
    }
}

/// `kill -9` of a node with requests under way, which are sent again to the other one.
#[test]
fn cluster_key_counts_after_its_node_was_killed() {
    let Some(nats) = EngineServer::start("keys-killed") else { return };
    let Some([other]) = nodes(&nats) else { return };
    let text = format!("{BASE}[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\n", nats.url());
    let mut process = Process::start("cluster-keys", &text);
    wait("the node joins", || super::ready_at(process.address) == 200);
    let mut hears = Client::subscriber(other.addresses()[0], "a");
    let request = |n: usize| keyed(&format!("key-{n}"), &["a"], &n.to_string(), "");
    let mut api = Client::connect(process.address);
    for n in 0..30 {
        assert_eq!(answer(&mut api, &request(n)), ok());
    }
    // Of these it is not known how far they come.
    (30..40).for_each(|n| api.send(&request(n)));
    process.signal(libc::SIGKILL);
    process.ended();
    let mut api = Client::connect(other.addresses()[0]);
    for n in 0..40 {
        assert_eq!(answer(&mut api, &request(n)), ok());
    }
    api.publish("a", "last");
    let heard = heard_until(&mut hears, "a", "last");
    let unique: BTreeSet<&String> = heard.iter().collect();
    assert_eq!((heard.len(), unique.len()), (41, 41), "{heard:?}");
}

/// The engine is killed and comes back, while each request is sent to one node after the other
/// until it succeeds.
#[test]
fn cluster_key_counts_over_an_engine_that_is_killed() {
    let Some(mut nats) = EngineServer::start("keys-engine") else { return };
    let mut config = cluster_of(&nats);
    let cluster = config.cluster.as_mut().unwrap();
    // Shorter than the engine is away.
    (cluster.hold_ms, cluster.append_ms) = (1000, 500);
    let (Some(first), Some(second)) = (start(config.clone()), start(config)) else { return };
    [&first, &second].into_iter().for_each(joined);
    let servers = [&first, &second];
    let mut hearers = servers.map(|node| Client::subscriber(node.addresses()[0], "a"));
    let addresses = servers.map(|server| server.addresses()[0]);
    let over = AtomicBool::new(false);
    let published = thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut clients = addresses.map(Client::connect);
            let (mut n, mut again) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                let request = keyed(&format!("key-{n}"), &["a"], &n.to_string(), "");
                for attempt in n.. {
                    match answer(&mut clients[attempt % 2], &request) {
                        (200, _) => break,
                        (503 | 504, _) => again += 1,
                        other => panic!("{other:?}"),
                    }
                }
                n += 1;
                thread::sleep(Duration::from_millis(2));
            }
            (n, again)
        });
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(500));
            nats.kill();
            thread::sleep(Duration::from_millis(2500));
            nats.again();
            wait("the engine is back", || servers.iter().all(|it| it.count("cluster_up") == 1));
        }
        over.store(true, Ordering::Relaxed);
        publisher.join().expect("no panic")
    });
    println!("{} published, {} sent again", published.0, published.1);
    assert!(published.1 > 0, "nothing was sent again");
    Client::connect(first.addresses()[0]).publish("a", "last");
    let expected: Vec<String> = (0..published.0).map(|n| event("a", &n.to_string())).collect();
    for client in &mut hearers {
        let mut heard = heard_until(client, "a", "last");
        heard.pop();
        assert_eq!(heard, expected);
    }
}
