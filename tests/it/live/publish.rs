//! Publishing by back ends: idempotency keys over several reactors, and publishers on WebSockets.

use crate::net::*;
use polycast::config::{KeyPair, Secret};
use polycast::server::Server;
use std::collections::HashSet;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

/// Opens connections until every core has at least one, because the kernel chooses the core.
fn on_all_cores(server: &Server) -> Vec<Client> {
    let mut clients = Vec::new();
    while server.count_by_core("accepted").contains(&0) {
        assert!(clients.len() < 1000, "a core gets no connection");
        clients.push(Client::connect(server.addresses()[0]));
        thread::sleep(Duration::from_millis(2));
    }
    clients
}

/// Authenticates as a publisher.
fn publisher(mut client: Client) -> Client {
    let id = client.established();
    let auth = DEMO.auth(&format!("{id}:polycast:publisher"));
    let data = format!(r#"{{"auth":"{auth}","role":"publisher"}}"#);
    client.send_text(&format!(r#"{{"event":"polycast:authenticate","data":{data}}}"#));
    assert_eq!(client.text(), r#"{"event":"polycast:authenticated","data":{"role":"publisher"}}"#);
    client
}

fn message(id: usize, channel: &str, data: &str) -> Vec<u8> {
    let data = format!(r#"{{"id":{id},"name":"e","channel":"{channel}","data":"{data}"}}"#);
    let text = format!(r#"{{"event":"polycast:publish","data":{data}}}"#);
    masked(true, TEXT, text.as_bytes())
}

/// The id of an acknowledgement.
fn acknowledged(text: &str) -> usize {
    let id = text.strip_prefix(r#"{"event":"polycast:published","data":{"id":"#);
    let id = id.and_then(|rest| rest.strip_suffix("}}"));
    id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

fn keyed(key: &str, path: &str, body: &str) -> Vec<u8> {
    let query = DEMO.sign("POST", path, body, 0);
    let len = body.len();
    format!(
        "POST {path}?{query} HTTP/1.1\r\nHost: localhost\r\nX-Idempotency-Key: {key}\r\n\
         Content-Length: {len}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[test]
fn idempotency_key_counts_on_every_core() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let mut hears = Client::subscriber(address, "c");
    let mut clients = on_all_cores(&server);
    // One after the other, on channels whose homes are on both cores.
    for round in 0..20 {
        let channel = format!("channel-{round}");
        hears.subscribe(&channel);
        let request = keyed(&format!("key-{round}"), EVENTS, &event_body(&channel, "1"));
        for client in &mut clients {
            client.send(&request);
            let response = client.response();
            assert_eq!((response.status, &*response.body), (200, "{}"));
        }
        assert_eq!(hears.text(), event(&channel, "1"));
    }
    let one = event_body("c", "x");
    let batch = format!(r#"{{"batch":[{one},{one}]}}"#);
    for client in &mut clients {
        client.send(&keyed("batch", "/apps/1/batch_events", &batch));
        assert_eq!(client.response().status, 200);
    }
    assert_eq!((hears.text(), hears.text()), (event("c", "x"), event("c", "x")));
    hears.sync();
    let replays = (clients.len() as u64 - 1) * 21;
    wait_count(&server, "idempotent_replays", replays);
    wait_count(&server, "idempotency_keys", 21);
    let published = server.count("published");
    clients[0].send(&keyed("key-1", EVENTS, &event_body("c", "other")));
    assert_eq!(clients[0].response().status, 409);
    wait_count(&server, "idempotency_refused", 1);
    assert_eq!(server.count("published"), published);
}

#[test]
fn idempotency_key_sent_to_both_cores_at_once_publishes_once() {
    const ROUNDS: usize = 100;
    let Some(server) = start(config()) else { return };
    let mut hears = Client::subscriber(server.addresses()[0], "c");
    let clients = on_all_cores(&server);
    let count = clients.len();
    let barrier = Arc::new(Barrier::new(count));
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let barrier = barrier.clone();
            thread::spawn(move || {
                let mut answered = 0;
                for round in 0..ROUNDS {
                    let request =
                        keyed(&format!("{round}"), EVENTS, &event_body("c", &round.to_string()));
                    barrier.wait();
                    client.send(&request);
                    let response = client.response();
                    // While the first one is in progress, the others are refused.
                    assert!(matches!(response.status, 200 | 409), "{response:?}");
                    answered += usize::from(response.status == 200);
                }
                answered
            })
        })
        .collect();
    let answered: usize = threads.into_iter().map(|it| it.join().expect("no panic")).sum();
    assert!((ROUNDS..=ROUNDS * count).contains(&answered), "{answered}");
    for round in 0..ROUNDS {
        assert_eq!(hears.text(), event("c", &round.to_string()));
    }
    hears.sync();
    assert_eq!(server.count("published"), ROUNDS as u64);
}

/// New keys without end: their number is bounded, and those that had to go are counted.
#[test]
fn idempotency_keys_are_bounded_on_the_wire() {
    let mut config = config();
    config.apps[0].limits.idempotency_keys = 100;
    let Some(server) = start(config) else { return };
    let mut client = Client::connect(server.addresses()[0]);
    let body = event_body("c", "1");
    for round in 0..30 {
        let keys = round * 50..(round + 1) * 50;
        let requests: Vec<u8> =
            keys.flat_map(|key| keyed(&key.to_string(), EVENTS, &body)).collect();
        client.send(&requests);
        (0..50).for_each(|_| assert_eq!(client.response().status, 200));
    }
    wait_count(&server, "idempotency_dropped", 1400);
    assert_eq!(server.count("idempotency_keys"), 100);
    // The newest are known, the oldest are not.
    for (key, replays) in [("1499", 1), ("1400", 2), ("0", 2)] {
        client.send(&keyed(key, EVENTS, &body));
        assert_eq!(client.response().status, 200);
        wait_count(&server, "idempotent_replays", replays);
    }
}

#[test]
fn publisher_pipelines_10_000_publishes_over_two_cores() {
    const EACH: usize = 5000;
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let channels: Vec<String> = (0..8).map(|n| format!("channel-{n}")).collect();
    let mut hears = Vec::new();
    while server.count_by_core("upgrades").contains(&0) || hears.len() < 2 {
        let (mut client, _) = Client::app(address);
        channels.iter().for_each(|channel| client.subscribe(channel));
        hears.push(client);
    }
    let publishers = (0..2).map(|number| {
        let channels = channels.clone();
        thread::spawn(move || {
            let mut client = publisher(Client::open(address, APP_PATH));
            let mut writer = client.stream.try_clone().expect("a second handle");
            let writes = thread::spawn(move || {
                for start in (0..EACH).step_by(100) {
                    let part = (start..start + 100)
                        .flat_map(|id| message(id, &channels[id % 8], &format!("{number}-{id}")));
                    std::io::Write::write_all(&mut writer, &part.collect::<Vec<u8>>()).unwrap();
                }
            });
            let ids: HashSet<usize> = (0..EACH).map(|_| acknowledged(&client.text())).collect();
            assert_eq!((ids.len(), ids.iter().max()), (EACH, Some(&(EACH - 1))));
            client.sync();
            writes.join().unwrap();
        })
    });
    let publishers: Vec<_> = publishers.collect();
    for client in &mut hears {
        // The next number of each publisher on each channel.
        let mut next = [[0, 1, 2, 3, 4, 5, 6, 7]; 2];
        for _ in 0..2 * EACH {
            let text = client.text();
            let data = text.split(r#""data":""#).nth(1).unwrap().trim_end_matches("\"}");
            let (number, id) = data.split_once('-').unwrap();
            let (number, id): (usize, usize) = (number.parse().unwrap(), id.parse().unwrap());
            assert_eq!(text, event(&channels[id % 8], data));
            assert_eq!(std::mem::replace(&mut next[number][id % 8], id + 8), id);
        }
        client.sync();
    }
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
}

#[test]
fn publisher_that_does_not_read_is_paused() {
    const COUNT: usize = 1500;
    let mut config = config();
    config.limits.write_queue_bytes = 65_536;
    // One completion brings at most all receive buffers of a core, 256 KiB.
    config.limits.receive_buffers = 64;
    config.limits.min_bytes_per_s = 0;
    config.timeouts.send_ms = 60_000;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut client = publisher(Client::connect_narrow(address).upgrade(APP_PATH));
    let mut writer = client.stream.try_clone().expect("a second handle");
    // Each answer has 13 KB, so that few of them fill the buffers of the kernel.
    let names: Vec<String> = (0..100).map(|n| format!("\"{n:0>100}\"")).collect();
    let names = names.join(",");
    let writes = thread::spawn(move || {
        for id in 0..COUNT {
            let info = r#""info":"subscription_count""#;
            let data = format!(r#"{{"id":{id},"name":"e","channels":[{names}],"data":"",{info}}}"#);
            let text = format!(r#"{{"event":"polycast:publish","data":{data}}}"#);
            std::io::Write::write_all(&mut writer, &masked(true, TEXT, text.as_bytes())).unwrap();
        }
    });
    // The server stops reading before it has taken all publishes.
    let mut before = u64::MAX;
    wait("the server reads no more", || {
        thread::sleep(Duration::from_millis(700));
        let now = server.count("published");
        std::mem::replace(&mut before, now) == now && now > 0
    });
    assert!(before < 100 * COUNT as u64, "{before}");
    let (queued, input) = (server.count("queued_bytes"), server.count("memory_input_bytes"));
    assert!(queued < 1 << 20 && input < 2 << 20, "{queued} {input}");
    // Others are served meanwhile.
    Client::connect(address).publish("c", "1");
    let mut missing: HashSet<usize> = (0..COUNT).collect();
    for _ in 0..COUNT {
        let text = client.text();
        let id = text.strip_prefix(r#"{"event":"polycast:published","data":{"id":"#).unwrap();
        let id = id.split(',').next().and_then(|id| id.parse().ok()).unwrap();
        assert!(missing.remove(&id), "{id} again");
    }
    writes.join().unwrap();
    client.sync();
}

#[test]
fn publisher_that_is_lost_leaves_nothing() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    for round in 0..30 {
        let mut client = publisher(Client::open(address, APP_PATH));
        let messages = (0..300).flat_map(|id| {
            let channel = format!("c-{}", id % 9);
            let info = r#""info":"subscription_count""#;
            let data = format!(
                concat!(
                    r#"{{"id":{},"name":"e","channel":"{}","data":"","#,
                    r#""idempotency_key":"{}-{}",{}}}"#
                ),
                id, channel, round, id, info
            );
            let text = format!(r#"{{"event":"polycast:publish","data":{data}}}"#);
            masked(true, TEXT, text.as_bytes())
        });
        client.send(&messages.collect::<Vec<u8>>());
        client.reset();
    }
    wait_count(&server, "connections", 0);
    // What was published has left its key with an answer, so that a retry publishes nothing.
    wait("all keys have answers", || {
        let keys = server.count("idempotency_keys");
        keys == server.count("published")
    });
    let published = server.count("published");
    let mut client = publisher(Client::open(address, APP_PATH));
    let key = "0-0";
    let data = format!(
        concat!(
            r#"{{"id":0,"name":"e","channel":"c-0","data":"","idempotency_key":"{}","#,
            r#""info":"subscription_count"}}"#
        ),
        key
    );
    client.send_text(&format!(r#"{{"event":"polycast:publish","data":{data}}}"#));
    let text = client.text();
    assert!(text.starts_with(r#"{"event":"polycast:published","data":{"id":0"#), "{text}");
    let is_new = server.count("published") - published;
    assert!(is_new == 0 || published < 30 * 300, "{is_new} {published}");
    wait("no memory is held", || server.count("memory_input_bytes") == 0);
}

#[test]
fn publisher_whose_key_was_removed_is_closed() {
    let mut config = config();
    let more = KeyPair { key: "second".to_owned(), secret: Secret::new("0123456789abcdef") };
    config.apps[0].keys = vec![more];
    let Some(mut server) = start(config.clone()) else { return };
    let address = server.addresses()[0];
    let mut stays = publisher(Client::open(address, APP_PATH));
    let mut goes = Client::open(address, APP_PATH);
    let id = goes.established();
    let auth = Keys("second", "0123456789abcdef").auth(&format!("{id}:polycast:publisher"));
    let data = format!(r#"{{"auth":"{auth}","role":"publisher"}}"#);
    goes.send_text(&format!(r#"{{"event":"polycast:authenticate","data":{data}}}"#));
    goes.text();
    config.apps[0].keys.clear();
    config.listeners[0].address = address.into();
    server.renew(config);
    let text = goes.text();
    assert!(text.contains("4009"), "{text}");
    assert_eq!(goes.close().0, 4009);
    stays.send(&message(1, "c", "1"));
    assert_eq!(acknowledged(&stays.text()), 1);
}
