//! Rolling restarts: nodes are drained and replaced one by one under load.

use super::super::child::{self, Process, command, rewrite};
use super::super::heavy::has_files;
use super::super::upgrade::{Installed, wait_end};
use super::super::upgrade_load::answer;
use super::super::webhooks::Endpoint;
use super::engine::EngineServer;
use super::lives::{alone, is_ready, metric};
use super::swarm::{ROOM, Swarm, room, run};
use crate::net::*;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MEMBERS: usize = 3000;
const NODES: usize = 3;
/// How long the members of an ended node stay: much longer than they take to connect again.
const LINGER_MS: u64 = 20_000;

/// A node's configuration, without the keys that follow its application.
fn config(nats: &EngineServer, linger_ms: u64) -> String {
    // One thread is enough, and several nodes are started.
    let base = child::BASE.replace("threads = 2", "threads = 1");
    format!(
        "{base}drain_s = 15\n[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\n\
         drain_linger_ms = {linger_ms}\n",
        nats.url()
    )
}

/// The keys that follow the application.
fn of_app(endpoint: &Endpoint) -> String {
    let history = "[[apps.history]]\nchannels = ['presence-*']\nevents = 1000\nbytes = '1MB'\n";
    let hook = endpoint.hook();
    let url = hook.url.expose();
    format!(
        "counts_in_reads = true\n{history}[[apps.webhooks]]\nurl = '{url}'\nallow_private = true\n"
    )
}

/// A node that has joined.
fn node(name: &str, config: &str, more: &str) -> Process {
    let mut command = command(name, config);
    rewrite(name, more);
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live").join(format!("{name}.log"));
    command.stderr(std::fs::File::create(&log).unwrap());
    let process = Process::spawn(command, log);
    wait("the node joins", || is_ready(process.address));
    process
}

/// Ends a thread, also if the scene panics.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a node answers to a read.
fn get(address: SocketAddr, path: &str) -> String {
    let mut client = Client::connect(address);
    client.send(&DEMO.request("GET", path, ""));
    client.response().body
}

/// Waits until all rooms have their members, by what this node says of users and subscribers.
fn await_counts(address: SocketAddr, swarm: &Swarm) {
    let wrong = || {
        let body = get(address, "/apps/1/channels");
        let read: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        (0..swarm.rooms()).map(room).find_map(|name| {
            let room = &read["channels"][&name];
            let is_right = room["user_count"] == ROOM && room["subscription_count"] == ROOM;
            (!is_right).then(|| format!("{name}: {room}"))
        })
    };
    let begun = Instant::now();
    while let Some(wrong) = wrong() {
        assert!(begun.elapsed() < PATIENCE, "{wrong}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Webhooks about rooms and their members.
fn changes(endpoint: &Endpoint) -> [usize; 4] {
    let all = endpoint.distinct();
    ["member_added", "member_removed", "channel_occupied", "channel_vacated"]
        .map(|name| all.matches(&format!(r#"{{"name":"{name}""#)).count())
}

fn await_changes(endpoint: &Endpoint, expected: [usize; 4]) {
    let begun = Instant::now();
    while changes(endpoint) != expected {
        let sent = changes(endpoint);
        assert!(begun.elapsed() < PATIENCE, "{sent:?} of {expected:?} were sent");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Each of three nodes is drained and replaced, while 3000 users are in rooms and events are
/// published: no member is reported as having left or come, and no member misses an event.
#[test]
fn cluster_p7_rolling_restart_reports_no_change_of_members() {
    let Some(nats) = EngineServer::start("rolling") else { return };
    if !has_uring() || !has_files(MEMBERS as u64 + 1000) {
        return;
    }
    let _alone = alone();
    let endpoint = Endpoint::start(&[]);
    let (config, more) = (config(&nats, LINGER_MS), of_app(&endpoint));
    let name = |at: usize| format!("cluster-rolling-{at}");
    let mut nodes: Vec<Process> = (0..NODES).map(|at| node(&name(at), &config, &more)).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let swarm = Swarm::new(MEMBERS, &addresses);
    let all_there = [MEMBERS, 0, swarm.rooms(), 0];
    let begun = Instant::now();
    run(&swarm, (2, 4, 50), || {
        println!("{MEMBERS} members after {} ms", begun.elapsed().as_millis());
        await_changes(&endpoint, all_there);
        for (at, place) in nodes.iter_mut().enumerate() {
            let since = Instant::now();
            place.signal(libc::SIGTERM);
            assert!(place.ended().success(), "{}", place.logged());
            let ended = since.elapsed();
            *place = node(&format!("{}-new", name(at)), &config, &more);
            swarm.replace(at, place.address);
            swarm.await_all();
            println!(
                "ended after {} ms, replaced and all back after {} ms",
                ended.as_millis(),
                since.elapsed().as_millis()
            );
        }
        // Members who have not come back are removed with the old nodes.
        for node in &nodes {
            let is_known = || metric(node.address, "nodes") == NODES as u64;
            wait("the old nodes are removed", is_known);
        }
        nodes.iter().for_each(|node| await_counts(node.address, &swarm));
        swarm.end(nodes[0].address);
    });
    let statuses = [200, 503, 504, 0].map(|status| swarm.count(status));
    println!(
        "{} returns; publishes with 200, 503, 504, without an answer: {statuses:?}; {} ms",
        swarm.returns(),
        begun.elapsed().as_millis()
    );
    assert!(swarm.returns() >= MEMBERS && statuses[0] > 100, "{statuses:?}");
    assert_eq!(changes(&endpoint), all_there);
    for node in &nodes {
        let counts = ["gaps", "new_ids", "epochs", "lost"].map(|it| metric(node.address, it));
        assert_eq!(counts, [0; 4], "{}", node.logged());
    }
}

/// A node that replaces itself twice, by upgrades: with a cluster the new process is another node,
/// which takes over when it has joined.
#[test]
fn cluster_p7_upgrade_of_a_node_refuses_nothing_and_reports_no_change() {
    const MEMBERS: usize = 600;
    let Some(nats) = EngineServer::start("upgrade-node") else { return };
    if !has_uring() {
        return;
    }
    let _alone = alone();
    let endpoint = Endpoint::start(&[]);
    let installed = Installed::start_with("cluster-upgrade", &config(&nats, 10_000), |command| {
        command.args(["--io", io()]);
        rewrite("cluster-upgrade", &of_app(&endpoint));
    });
    let address = installed.process.address;
    wait("the node joins", || is_ready(address));
    let swarm = Swarm::new(MEMBERS, &[address]);
    let all_there = [MEMBERS, 0, swarm.rooms(), 0];
    let refused = AtomicUsize::new(0);
    run(&swarm, (2, 2, 100), || {
        await_changes(&endpoint, all_there);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let opened = answer(address, handshake("/echo", "").as_bytes());
                    let is_open = opened.is_ok_and(|text| text.starts_with("HTTP/1.1 101"));
                    refused.fetch_add(usize::from(!is_open), Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let over = Over(&is_over);
            for _ in 0..2 {
                let since = Instant::now();
                let (old, _) = installed.upgrade();
                assert!(is_ready(address), "the new process takes over when it has joined");
                wait_end(old);
                swarm.await_all();
                println!("replaced, and all back after {} ms", since.elapsed().as_millis());
            }
            drop(over);
        });
        wait("the old nodes are removed", || metric(address, "nodes") == 1);
        await_counts(address, &swarm);
        swarm.end(address);
    });
    let statuses = [200, 503, 504, 0].map(|status| swarm.count(status));
    println!("{} returns; publishes with 200, 503, 504, none: {statuses:?}", swarm.returns());
    assert!(swarm.returns() >= 2 * MEMBERS && statuses[0] > 100, "{statuses:?}");
    // A kept connection may be closed before it is used again.
    assert!(statuses[1..3] == [0, 0] && statuses[3] <= 4, "{statuses:?}");
    assert_eq!(refused.into_inner(), 0, "{}", installed.process.logged());
    assert_eq!(changes(&endpoint), all_there);
}

/// Without the engine the new process cannot join, so the old one goes on.
#[test]
fn cluster_upgrade_fails_if_the_new_process_does_not_join() {
    let Some(mut nats) = EngineServer::start("upgrade-away") else { return };
    if !has_uring() {
        return;
    }
    let text = format!("upgrade_timeout_s = 2\n{}", config(&nats, 10_000));
    let installed = Installed::start("cluster-upgrade-away", &text);
    let address = installed.process.address;
    wait("the node joins", || is_ready(address));
    let mut hears = Client::subscriber(address, "a");
    let before = installed.pid();
    nats.kill();
    installed.ask();
    installed.logs("the new server is not ready in time", 1);
    assert_eq!(installed.pid(), before);
    nats.again();
    let mut client = Client::connect(address);
    wait("a publish succeeds", || {
        client.send(&publish("a", "1"));
        client.response().status == 200
    });
    assert_eq!(hears.text(), event("a", "1"));
    installed.upgrade();
    wait_end(before);
    Client::subscriber(address, "a").sync();
}
