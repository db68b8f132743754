//! What is promised of single events: once, after the confirmation, and in one order only.

use super::checker::{Checker, Hearer};
use super::engine::{EngineServer, QUIET, Route, cluster_of, impatient};
use super::{joined, nodes, ready};
use crate::net::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A node that loses its connection reads again what it has missed. Nodes send again what a server
/// that stands still does not answer, and it gets both.
#[test]
fn cluster_p2_no_event_comes_twice_whatever_is_sent_again() {
    let Some(engine) = EngineServer::start("twice") else { return };
    let route = Route::to(&engine);
    let mut config = cluster_of(&engine);
    let own = engine.url().replace(&engine.port.to_string(), &route.port.to_string());
    config.cluster.as_mut().unwrap().engine = vec![own];
    let Some([other]) = nodes(&engine) else { return };
    let Some(node) = start(config) else { return };
    joined(&node);
    let checker = Checker::default();
    let mut hearers = [&node, &other].map(|it| checker.subscriber(it.addresses()[0], &["a"]));
    let publishers = [&node, &other, &node, &other].map(|it| it.addresses()[0]);
    checker.publish_while(&publishers, &["a"], Duration::ZERO, || {
        for round in 1..=5 {
            let before = checker.count(200);
            wait("publishes succeed", || checker.count(200) > before + 100);
            route.cut();
            wait_count(&node, "cluster_lost", round);
            route.mend();
            wait_count(&node, "cluster_fillings", round);
        }
        // Longer than a node waits for an answer before it sends again.
        engine.stop();
        thread::sleep(Duration::from_millis(1200));
        engine.signal(libc::SIGCONT);
        let before = checker.count(200);
        wait("publishes succeed", || checker.count(200) > before + 100);
    });
    assert_eq!(checker.publish(&mut Client::connect(node.addresses()[0]), "a", 9, 0), 200);
    hearers.iter_mut().for_each(|hearer| hearer.hear_until("9-0"));
    checker.judge(&hearers);
}

/// Clients subscribe while events are published on another node.
#[test]
fn cluster_p4_client_gets_all_that_is_published_after_its_confirmation() {
    let Some(engine) = EngineServer::start("confirmed") else { return };
    let Some([first, second]) = nodes(&engine) else { return };
    let addresses = [&first, &second].map(|it| it.addresses()[0]);
    let (begun, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let clients: Vec<(usize, Client)> = thread::scope(|scope| {
        scope.spawn(|| {
            let mut api = Client::connect(addresses[0]);
            while !over.load(Ordering::Relaxed) {
                let n = begun.fetch_add(1, Ordering::SeqCst);
                api.publish("a", &n.to_string());
            }
            api.publish("a", "end");
        });
        let clients = (0..40).map(|number| {
            let (mut client, _) = Client::app(addresses[number % 2]);
            client.subscribe("a");
            let confirmed = begun.load(Ordering::SeqCst);
            thread::sleep(Duration::from_millis(5));
            (confirmed, client)
        });
        let clients = clients.collect();
        over.store(true, Ordering::Relaxed);
        clients
    });
    let last = begun.load(Ordering::SeqCst);
    for (confirmed, mut client) in clients {
        let texts =
            std::iter::from_fn(|| Some(client.text()).filter(|it| *it != event("a", "end")));
        let texts: Vec<String> = texts.collect();
        assert!(texts.len() >= last - confirmed, "{} of {}", texts.len(), last - confirmed);
        let all = last - texts.len()..last;
        assert_eq!(texts, all.map(|n| event("a", &n.to_string())).collect::<Vec<_>>());
    }
}

/// Two of three servers of the engine are killed. What a node is asked to publish meanwhile reaches
/// nobody, also on that node, unless it is stored when the servers are back.
#[test]
fn cluster_p11_node_without_a_majority_of_the_engine_publishes_nothing() {
    let Some(mut servers) = EngineServer::start_three("majority") else { return };
    let mut config = impatient(&servers[0]);
    let cluster = config.cluster.as_mut().unwrap();
    cluster.engine = servers.iter().map(EngineServer::url).collect();
    cluster.replicas = 3;
    let (Some(first), Some(second)) = (start(config.clone()), start(config)) else { return };
    let both = [&first, &second];
    both.into_iter().for_each(joined);
    let checker = Checker::default();
    let mut hearers = both.map(|it| checker.subscriber(it.addresses()[0], &["a"]));
    let mut clients = both.map(|it| Client::connect(it.addresses()[0]));
    assert_eq!(checker.publish(&mut clients[0], "a", 0, 0), 200);
    hearers.iter_mut().for_each(|hearer| hearer.hear_until("0-0"));
    servers[1..].iter_mut().for_each(EngineServer::kill);
    for n in 1..=3 {
        for (number, client) in clients.iter_mut().enumerate() {
            let status = checker.publish(client, "a", number, n);
            assert!([503, 504].contains(&status), "{status}");
        }
    }
    thread::sleep(QUIET);
    hearers.iter_mut().for_each(Hearer::hear_nothing);
    wait("the nodes are not ready", || both.iter().all(|node| ready(node) == 503));
    servers[1..].iter_mut().for_each(EngineServer::again);
    // Each node reconnects in its own time.
    for (number, client) in (8..).zip(&mut clients) {
        let mut n = 0;
        wait("publishes succeed again", || {
            n += 1;
            checker.publish(client, "a", number, n) == 200
        });
        hearers.iter_mut().for_each(|hearer| hearer.hear_until(&format!("{number}-{n}")));
    }
    checker.judge(&hearers);
}
