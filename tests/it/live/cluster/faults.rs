//! Faults of the engine and of nodes.

use super::checker::Checker;
use super::engine::{EngineServer, QUIET, Route, cluster_of, impatient};
use super::{joined, nodes, nodes_of, ready};
use crate::live::child::Process;
use crate::net::*;
use polycast::config::ClusterStorage;
use std::thread;
use std::time::{Duration, Instant};

/// The engine is killed and comes back while four publishers publish on two nodes.
#[test]
fn cluster_p3_p8_acknowledged_events_survive_an_engine_that_is_killed() {
    let Some(mut nats) = EngineServer::start("killed") else { return };
    let Some([first, second]) = nodes_of(&impatient(&nats)) else { return };
    let checker = Checker::default();
    let mut hearers: Vec<_> = [&first, &second, &first, &second]
        .map(|server| checker.subscriber(server.addresses()[0], &["a", "b"]))
        .into();
    let publishers = [&first, &second, &first, &second].map(|it| it.addresses()[0]);
    checker.publish_while(&publishers, &["a", "b"], Duration::from_millis(2), || {
        for away_ms in [50, 3000] {
            thread::sleep(Duration::from_millis(400));
            nats.kill();
            thread::sleep(Duration::from_millis(away_ms));
            nats.again();
            let before = (checker.count(200), Instant::now());
            wait("publishes succeed again", || checker.count(200) > before.0 + 20);
            println!("again {} ms after the engine's start", before.1.elapsed().as_millis());
        }
    });
    let mut client = Client::connect(first.addresses()[0]);
    for channel in ["a", "b"] {
        assert_eq!(checker.publish(&mut client, channel, 9, 0), 200);
    }
    for hearer in &mut hearers {
        hearer.hear_until("9-0");
        let other = if hearer.heard.last().unwrap().0 == "a" { "b" } else { "a" };
        if !hearer.heard.contains(&(other.to_owned(), "9-0".to_owned())) {
            hearer.heard.push((String::new(), String::new()));
            hearer.hear_until("9-0");
            hearer.heard.retain(|(channel, _)| !channel.is_empty());
        }
    }
    checker.judge(&hearers);
    let [stored, refused, unknown] = [200, 503, 504].map(|status| checker.count(status));
    println!("{stored} acknowledged, {refused} refused, {unknown} not known");
    assert!(stored > 40 && refused + unknown > 0, "{stored} {refused} {unknown}");
    for server in [&first, &second] {
        assert!(server.count("cluster_lost") >= 2 && server.count("cluster_fillings") >= 2);
        assert_eq!((server.count("cluster_gaps"), server.count("cluster_epochs")), (0, 0));
    }
}

/// While the engine is away clients stay connected and can subscribe, publishes fail after
/// `hold_ms`, and the node is not ready.
#[test]
fn cluster_p8_engine_away_is_reported_and_ends_by_itself() {
    let Some(mut nats) = EngineServer::start("away") else { return };
    let Some([node]) = nodes_of(&impatient(&nats)) else { return };
    let address = node.addresses()[0];
    let mut hears = Client::subscriber(address, "a");
    nats.kill();
    wait("the loss is seen", || node.count("cluster_lost") == 1);
    let begun = Instant::now();
    let mut api = Client::connect(address);
    api.send(&publish("a", "1"));
    let refused = api.response();
    let waited = begun.elapsed();
    assert_eq!((refused.status, refused.field("Retry-After")), (503, Some("1")), "{refused:?}");
    assert!(refused.body.contains(r#""channels":["a"]"#), "{refused:?}");
    assert!((1400..10_000).contains(&waited.as_millis()), "{waited:?}");
    wait("it is not ready", || ready(&node) == 503);
    hears.subscribe("b");
    hears.sync();
    nats.again();
    joined(&node);
    api.publish("b", "2");
    assert_eq!(hears.text(), event("b", "2"), "and nothing before");
    assert_eq!(node.count("cluster_refused"), 1);
}

/// The engine is stopped, so that connections stay and nothing answers, and goes on.
#[test]
fn cluster_p8_engine_that_is_stopped_loses_nothing() {
    let Some(nats) = EngineServer::start("stopped") else { return };
    let Some([first, second]) = nodes_of(&impatient(&nats)) else { return };
    let mut hears = Client::subscriber(second.addresses()[0], "a");
    nats.stop();
    let mut api = Client::connect(first.addresses()[0]);
    api.send(&publish("a", "1"));
    let answer = api.response();
    // 503 if the node had noticed the silence before it sent the event: then no subscriber gets it.
    let is_unknown = answer.status == 504;
    let expected = if is_unknown { (504, None) } else { (503, Some("1")) };
    assert_eq!((answer.status, answer.field("Retry-After")), expected, "{answer:?}");
    nats.signal(libc::SIGCONT);
    wait("a publish succeeds", || {
        api.send(&publish("a", "2"));
        api.response().status == 200
    });
    // It may have been stored, and it is before the later one then.
    let mut heard = vec![hears.text()];
    while heard.last() != Some(&event("a", "2")) {
        heard.push(hears.text());
    }
    let first_heard = heard.iter().filter(|it| **it == event("a", "1")).count();
    assert!(first_heard <= usize::from(is_unknown), "{heard:?}");
    assert!(heard.len() <= 1 + first_heard + 20, "{heard:?}");
    assert_eq!(first.count("cluster_unknown") > 0, is_unknown);
}

/// With storage in memory a restart of the engine begins another log.
#[test]
fn cluster_engine_that_has_lost_its_log_is_used_again() {
    let Some(mut nats) = EngineServer::start_with("memory", &[]) else { return };
    let mut config = cluster_of(&nats);
    config.cluster.as_mut().unwrap().storage = ClusterStorage::Memory;
    let Some(node) = start(config) else { return };
    joined(&node);
    let mut hears = Client::subscriber(node.addresses()[0], "a");
    let mut api = Client::connect(node.addresses()[0]);
    for n in 0..5 {
        api.publish("a", &n.to_string());
        assert_eq!(hears.text(), event("a", &n.to_string()));
    }
    nats.kill();
    nats.again();
    wait("another log", || node.count("cluster_epochs") == 1);
    api.publish("a", "new");
    assert_eq!(hears.text(), event("a", "new"));
    assert_eq!(node.count("cluster_gaps"), 0);
}

/// `kill -9` of a node that publishes: the other one goes on, and has every event that was
/// acknowledged.
#[test]
fn cluster_node_that_is_killed_leaves_what_it_has_published() {
    let Some(nats) = EngineServer::start("node") else { return };
    let Some([other]) = nodes(&nats) else { return };
    let more = format!(
        "{}[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\n",
        crate::live::child::BASE,
        nats.url()
    );
    let mut process = Process::start("cluster-node", &more);
    wait("the node joins", || {
        let mut client = Client::connect(process.address);
        client.send(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.response().status == 200
    });
    let mut hears = Client::subscriber(other.addresses()[0], "a");
    let mut api = Client::connect(process.address);
    for n in 0..50 {
        api.publish("a", &n.to_string());
    }
    process.signal(libc::SIGKILL);
    process.ended();
    let mut api = Client::connect(other.addresses()[0]);
    api.publish("a", "after");
    for n in 0..50 {
        assert_eq!(hears.text(), event("a", &n.to_string()));
    }
    assert_eq!(hears.text(), event("a", "after"));
}

/// A node that has lost its connection to the engine delivers what was stored meanwhile.
#[test]
fn cluster_p10_node_that_was_cut_off_delivers_what_it_has_missed() {
    let Some(nats) = EngineServer::start("cut") else { return };
    let Some([other]) = nodes(&nats) else { return };
    let route = Route::to(&nats);
    let mut config = cluster_of(&nats);
    let url = nats.url().replace(&nats.port.to_string(), &route.port.to_string());
    config.cluster.as_mut().unwrap().engine = vec![url];
    let Some(node) = start(config) else { return };
    joined(&node);
    let mut hears = Client::subscriber(node.addresses()[0], "a");
    let mut api = Client::connect(other.addresses()[0]);
    for round in 1..=2 {
        route.cut();
        wait_count(&node, "cluster_lost", round);
        (0..100).for_each(|n| api.publish("a", &n.to_string()));
        route.mend();
        (0..100).for_each(|n| assert_eq!(hears.text(), event("a", &n.to_string())));
    }
    assert_eq!((node.count("cluster_gaps"), node.count("cluster_fillings")), (0, 2));
    Client::connect(node.addresses()[0]).publish("a", "after");
    assert_eq!(hears.text(), event("a", "after"));
}

/// The engine is away from all nodes for longer than it keeps events, and from one of them a little
/// longer still. Nothing was stored meanwhile, so nobody has missed anything.
#[test]
fn cluster_p8_engine_that_was_away_for_long_closes_nobody() {
    let Some(mut engine) = EngineServer::start("long") else { return };
    let route = Route::to(&engine);
    let mut config = cluster_of(&engine);
    config.cluster.as_mut().unwrap().keep_s = 10;
    let Some(first) = start(config.clone()) else { return };
    let url = engine.url().replace(&engine.port.to_string(), &route.port.to_string());
    config.cluster.as_mut().unwrap().engine = vec![url];
    let Some(second) = start(config) else { return };
    [&first, &second].into_iter().for_each(joined);
    let [mut here, mut there] =
        [&first, &second].map(|it| Client::subscriber(it.addresses()[0], "a"));
    let mut api = Client::connect(first.addresses()[0]);
    api.publish("a", "before");
    for client in [&mut here, &mut there] {
        assert_eq!(client.text(), event("a", "before"));
    }
    thread::sleep(Duration::from_secs(2));
    engine.kill();
    thread::sleep(Duration::from_millis(12_500));
    route.cut();
    engine.again();
    let publishes = |api: &mut Client| {
        api.send(&publish("a", "after"));
        api.response().status == 200
    };
    wait("the first one publishes", || publishes(&mut api));
    assert_eq!(here.text(), event("a", "after"));
    // Meanwhile its renewals replace each other.
    thread::sleep(Duration::from_millis(3500));
    route.mend();
    assert_eq!(there.text(), event("a", "after"));
    for node in [&first, &second] {
        assert_eq!(node.count("cluster_gaps"), 0);
        Client::connect(node.addresses()[0]).publish("a", "again");
        for client in [&mut here, &mut there] {
            assert_eq!(client.text(), event("a", "again"));
        }
    }
}

/// A node that is stopped for longer than the log keeps events closes its subscribers, because
/// they may miss some; one that is stopped for less fills what is missing.
#[test]
fn cluster_p10_gap_is_filled_or_the_client_is_closed() {
    let Some(nats) = EngineServer::start("gap") else { return };
    let mut config = cluster_of(&nats);
    config.cluster.as_mut().unwrap().keep_s = 10;
    let Some(other) = start(config) else { return };
    joined(&other);
    let text =
        format!("[cluster]\nengine = ['{}']\nkeep_s = 10\nlog_bytes = '64MiB'\n", nats.url());
    let process = Process::start("cluster-gap", &format!("{}{text}", crate::live::child::BASE));
    wait("the node joins", || {
        let mut client = Client::connect(process.address);
        client.send(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.response().status == 200
    });
    let mut hears = Client::subscriber(process.address, "a");
    let mut api = Client::connect(other.addresses()[0]);
    process.signal(libc::SIGSTOP);
    thread::sleep(Duration::from_secs(1));
    (0..100).for_each(|n| api.publish("a", &n.to_string()));
    process.signal(libc::SIGCONT);
    (0..100).for_each(|n| assert_eq!(hears.text(), event("a", &n.to_string())));
    process.signal(libc::SIGSTOP);
    (0..300).for_each(|n| api.publish("a", &n.to_string()));
    thread::sleep(Duration::from_millis(13_500));
    api.publish("a", "late");
    process.signal(libc::SIGCONT);
    // What is still stored is delivered, or was in the socket; then the connection is closed.
    let close = loop {
        let frame = hears.frame();
        if frame.opcode == CLOSE {
            break u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
        }
    };
    assert_eq!(close, 4200);
    // Until the node has caught up, it closes a client that is back once more.
    thread::sleep(Duration::from_secs(3));
    let mut again = Client::subscriber(process.address, "a");
    api.publish("a", "again");
    // The node may have been reading what it had missed.
    while again.text() != event("a", "again") {}
}

/// A log that is full refuses events at once, and takes them again when older ones have expired.
#[test]
fn cluster_p9_full_log_refuses_events() {
    let Some(nats) = EngineServer::start("full") else { return };
    let mut config = cluster_of(&nats);
    let cluster = config.cluster.as_mut().unwrap();
    (cluster.log_bytes, cluster.keep_s) = (1 << 20, 10);
    let Some(node) = start(config) else { return };
    joined(&node);
    let mut hears = Client::subscriber(node.addresses()[0], "a");
    let mut api = Client::connect(node.addresses()[0]);
    let data = "x".repeat(10_000);
    let mut stored = 0;
    let refused = loop {
        api.send(&publish("a", &data));
        let response = api.response();
        match response.status {
            200 => stored += 1,
            _ => break response,
        }
        assert!(stored < 200, "1 MiB has room for about a hundred");
    };
    assert_eq!(refused.status, 503, "{refused:?}");
    // Less than 80 % are for events, as soon as the node knows the size.
    wait("the size is known", || node.count("cluster_log_bytes") > 838_860);
    let appends = node.count("cluster_appends");
    api.send(&publish("a", "small"));
    assert_eq!((api.response().status, node.count("cluster_appends")), (503, appends));
    (0..stored).for_each(|_| assert_eq!(hears.text(), event("a", &data)));
    wait("there is room again", || {
        thread::sleep(QUIET);
        api.send(&publish("a", "room"));
        api.response().status == 200
    });
    assert_eq!(hears.text(), event("a", "room"));
}

/// One of three engine servers is killed after the other under load, so also the leader.
#[test]
fn cluster_p8_three_servers_lose_nothing_when_one_is_killed() {
    three_servers("three", EngineServer::kill, EngineServer::again);
}

/// One of them after the other stands still, and goes on when the others have another leader.
#[test]
fn cluster_p8_three_servers_lose_nothing_when_one_stands_still() {
    let goes_on = |server: &mut EngineServer| server.signal(libc::SIGCONT);
    three_servers("still", |server| server.stop(), goes_on);
}

fn three_servers(name: &str, fail: impl Fn(&mut EngineServer), mend: impl Fn(&mut EngineServer)) {
    let Some(mut servers) = EngineServer::start_three(name) else { return };
    let mut config = cluster_of(&servers[0]);
    let cluster = config.cluster.as_mut().unwrap();
    cluster.engine = servers.iter().map(EngineServer::url).collect();
    (cluster.replicas, cluster.hold_ms) = (3, 8000);
    let (Some(first), Some(second)) = (start(config.clone()), start(config)) else { return };
    [&first, &second].into_iter().for_each(joined);
    let checker = Checker::default();
    let mut hearers: Vec<_> =
        [&first, &second].map(|server| checker.subscriber(server.addresses()[0], &["a"])).into();
    let publishers = [&first, &second].map(|it| it.addresses()[0]);
    checker.publish_while(&publishers, &["a"], Duration::from_millis(5), || {
        for server in &mut servers {
            let before = (checker.count(200), Instant::now());
            fail(server);
            wait("publishes succeed again", || checker.count(200) > before.0 + 20);
            println!("again after {} ms", before.1.elapsed().as_millis());
            mend(server);
            // The server must have caught up before the next one fails.
            thread::sleep(Duration::from_secs(3));
        }
    });
    let mut client = Client::connect(first.addresses()[0]);
    assert_eq!(checker.publish(&mut client, "a", 9, 0), 200);
    hearers.iter_mut().for_each(|hearer| hearer.hear_until("9-0"));
    checker.judge(&hearers);
    let [stored, refused, unknown] = [200, 503, 504].map(|status| checker.count(status));
    println!("{stored} acknowledged, {refused} refused, {unknown} not known");
    assert_eq!(first.count("cluster_gaps") + second.count("cluster_gaps"), 0);
}
