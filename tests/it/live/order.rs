//! Several reactors: each channel has one order, and no event is lost or repeated.

use crate::net::*;
use polycast::server::Server;
use std::collections::HashSet;
use std::thread;

/// Opens clients until every core has at least `each`, because the kernel chooses the core.
fn on_all_cores(server: &Server, each: usize) -> Vec<(Client, String)> {
    let address = server.addresses()[0];
    let mut clients: Vec<(Client, String)> = Vec::new();
    while server.count_by_core("upgrades").into_iter().any(|on_core| on_core < each as u64) {
        assert!(clients.len() < 1000, "a core gets no connection");
        clients.push(Client::app(address));
    }
    clients
}

fn server_of(threads: usize) -> Option<Server> {
    let mut config = config();
    config.threads = threads;
    start(config)
}

#[test]
fn order_socket_id_excludes_its_connection_on_any_core() {
    let Some(server) = server_of(2) else { return };
    let address = server.addresses()[0];
    let mut clients = on_all_cores(&server, 1);
    let mut publisher = Client::connect(address);
    // Enough names that each core is the home of some channels.
    let channels: Vec<String> = (0..8).map(|n| format!("channel-{n}")).collect();
    for (client, _) in &mut clients {
        channels.iter().for_each(|channel| client.subscribe(channel));
    }
    let ids: Vec<String> = clients.iter().map(|(_, id)| id.clone()).collect();
    for channel in &channels {
        for id in ids.iter().map(String::as_str).chain(["1.1", "99999999999999999999.1"]) {
            let body =
                format!(r#"{{"name":"e","channel":"{channel}","data":"{id}","socket_id":"{id}"}}"#);
            publisher.send(&DEMO.request("POST", EVENTS, &body));
            assert_eq!(publisher.response().status, 200);
            for (client, own) in &mut clients {
                if own != id {
                    assert_eq!(client.text(), event(channel, id));
                }
            }
        }
    }
    for (client, _) in &mut clients {
        client.sync();
    }
}

#[test]
fn order_is_the_same_for_all_on_two_reactors() {
    check_one_order(2);
}

#[test]
fn order_is_the_same_for_all_on_four_reactors() {
    check_one_order(4);
}

/// Several concurrent publishers on several channels; each publisher numbers its events.
fn check_one_order(threads: usize) {
    const PUBLISHERS: usize = 4;
    const EVENTS_EACH: usize = 150;
    let Some(server) = server_of(threads) else { return };
    let address = server.addresses()[0];
    let channels = ["a", "b", "c"];
    let mut clients = on_all_cores(&server, 2);
    for (client, _) in &mut clients {
        channels.iter().for_each(|channel| client.subscribe(channel));
    }
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            thread::spawn(move || {
                let mut client = Client::connect(address);
                let batch = |numbers: std::ops::Range<usize>| -> Vec<u8> {
                    let one = |n: usize| publish(channels[n % 3], &format!("{publisher}-{n}"));
                    numbers.flat_map(one).collect()
                };
                for start in (0..EVENTS_EACH).step_by(10) {
                    client.send(&batch(start..start + 10));
                    for _ in 0..10 {
                        assert_eq!(client.response().status, 200);
                    }
                }
            })
        })
        .collect();
    let per_channel = |client: &mut Client| {
        let mut seen = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..PUBLISHERS * EVENTS_EACH {
            let text = client.text();
            let mark = |channel| text.contains(&format!(r#""channel":"{channel}""#));
            seen[channels.iter().position(mark).unwrap()].push(text);
        }
        client.sync();
        seen
    };
    let first = per_channel(&mut clients[0].0);
    for (client, id) in &mut clients[1..] {
        assert!(per_channel(client) == first, "{id} sees another order");
    }
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    for (at, seen) in first.iter().enumerate() {
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), PUBLISHERS * EVENTS_EACH / 3);
        for publisher in 0..PUBLISHERS {
            let mark = format!(r#""data":"{publisher}-"#);
            let got: Vec<&String> = seen.iter().filter(|text| text.contains(&mark)).collect();
            let want: Vec<String> = (at..EVENTS_EACH)
                .step_by(3)
                .map(|n| event(channels[at], &format!("{publisher}-{n}")))
                .collect();
            assert!(got.iter().copied().eq(want.iter()), "publisher {publisher}: {got:?}");
        }
    }
}

#[test]
fn order_acknowledged_publish_reaches_earlier_subscribers() {
    let Some(server) = server_of(4) else { return };
    let address = server.addresses()[0];
    let mut publisher = Client::connect(address);
    let mut clients = on_all_cores(&server, 1);
    for round in 0..40 {
        // A new channel each time, so that its home first has to learn of the interest.
        let channel = format!("round-{round}");
        for (client, _) in &mut clients {
            client.subscribe(&channel);
            publisher.publish(&channel, "x");
        }
        // The first subscriber receives all events, the last one only its own.
        let count = clients.len();
        for (at, (client, _)) in clients.iter_mut().enumerate() {
            for _ in at..count {
                assert_eq!(client.text(), event(&channel, "x"));
            }
            client.send_text(&format!(
                r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{channel}"}}}}"#
            ));
            client.sync();
        }
    }
    wait_count(&server, "subscriptions", 0);
}
