//! What only Redis and Valkey do: fail-overs, clusters, users, restarts without their log.

use super::checker::Checker;
use super::engine::{EngineServer, cluster_of, free_port};
use super::lives::{is_ready, metric};
use super::refusals::{doctor, serves_nobody};
use super::{joined, nodes};
use crate::certs::Authority;
use crate::live::child::{BASE, Process};
use crate::net::*;
use polycast::config::{ClusterAcks, Secret};
use polycast::server::Server;
use std::fs;
use std::thread;
use std::time::Duration;

const WITHOUT_LOG: [&str; 2] = ["--appendonly", "no"];
const WITH_LOG: [&str; 2] = ["--appendonly", "yes"];

/// Publishes numbers on a node, and asserts that all receive them in this order.
fn exchange(node: &Server, hearers: &mut [Client], numbers: std::ops::Range<u32>) {
    let mut api = Client::connect(node.addresses()[0]);
    for n in numbers.clone() {
        api.publish("a", &n.to_string());
    }
    for hearer in hearers {
        numbers.clone().for_each(|n| assert_eq!(hearer.text(), event("a", &n.to_string())));
    }
}

fn hearers(nodes: &[&Server]) -> Vec<Client> {
    nodes.iter().map(|node| Client::subscriber(node.addresses()[0], "a")).collect()
}

#[test]
fn cluster_redis_without_its_log_is_used_again() {
    let Some(mut server) = EngineServer::start_redis("redis-empty", &WITHOUT_LOG) else { return };
    let Some([first, second]) = nodes(&server) else { return };
    let mut hearers = hearers(&[&first, &second]);
    exchange(&first, &mut hearers, 0..5);
    server.kill();
    server.again();
    let is_new = |node: &Server| node.count("cluster_epochs") == 1;
    wait("another log", || is_new(&first) && is_new(&second));
    exchange(&second, &mut hearers, 5..10);
    assert_eq!((first.count("cluster_gaps"), second.count("cluster_gaps")), (0, 0));
}

/// The connection stays, so the nodes notice by their next entry, or by looking.
#[test]
fn cluster_redis_that_is_emptied_is_used_again() {
    let Some(server) = EngineServer::start_redis("redis-flushed", &WITHOUT_LOG) else { return };
    let Some([first, second]) = nodes(&server) else { return };
    let mut hearers = hearers(&[&first, &second]);
    exchange(&first, &mut hearers, 0..5);
    assert_eq!(server.ask("FLUSHALL"), "+OK\r\n");
    exchange(&second, &mut hearers, 5..10);
    assert_eq!((first.count("cluster_epochs"), second.count("cluster_epochs")), (1, 1));
}

/// The server comes back with an old dump: its numbers are used again, for other events.
#[test]
fn cluster_redis_with_an_old_dump_begins_a_new_epoch_once() {
    let Some(mut server) = EngineServer::start_redis("redis-dump", &WITHOUT_LOG) else { return };
    let Some([first, second]) = nodes(&server) else { return };
    let mut hearers = hearers(&[&first, &second]);
    exchange(&first, &mut hearers, 0..5);
    assert_eq!(server.ask("SAVE"), "+OK\r\n");
    exchange(&second, &mut hearers, 5..10);
    server.kill();
    server.again();
    let is_new = |node: &Server| node.count("cluster_epochs") == 1;
    wait("another epoch", || is_new(&first) && is_new(&second));
    exchange(&first, &mut hearers, 10..20);
    exchange(&second, &mut hearers, 20..30);
    assert_eq!((first.count("cluster_epochs"), second.count("cluster_epochs")), (1, 1));
}

/// The scene of the specification: no answer for ten seconds, while connections stay.
#[test]
fn cluster_redis_that_is_stopped_for_ten_seconds_loses_nothing() {
    let Some(server) = EngineServer::start_redis("redis-stopped", &WITH_LOG) else { return };
    let mut config = cluster_of(&server);
    config.cluster.as_mut().unwrap().hold_ms = 15_000;
    let (Some(first), Some(second)) = (start(config.clone()), start(config)) else { return };
    [&first, &second].into_iter().for_each(joined);
    let mut hearers = hearers(&[&first, &second]);
    exchange(&first, &mut hearers, 0..5);
    server.stop();
    let mut api = Client::connect(first.addresses()[0]);
    api.send(&publish("a", "5"));
    thread::sleep(Duration::from_secs(10));
    server.signal(libc::SIGCONT);
    assert_eq!(api.response().status, 200, "it waits for less than hold_ms");
    hearers.iter_mut().for_each(|hearer| assert_eq!(hearer.text(), event("a", "5")));
    exchange(&second, &mut hearers, 6..10);
    assert_eq!((first.count("cluster_epochs"), second.count("cluster_epochs")), (0, 0));
    assert_eq!((first.count("cluster_gaps"), second.count("cluster_gaps")), (0, 0));
}

/// A primary with replicas and one Sentinel, which replaces the primary after a second.
fn with_sentinel(name: &str, replicas: usize) -> Option<(Vec<EngineServer>, EngineServer)> {
    let of = |number: usize| format!("{name}-{number}");
    let mut servers = vec![EngineServer::start_redis(&of(0), &WITH_LOG)?];
    let port = servers[0].port.to_string();
    for number in 1..=replicas {
        // A connection to the primary that works is needed before the primary is killed.
        let more = ["--appendonly", "yes", "--replicaof", "127.0.0.1", &port];
        let more = [&more[..], &["--repl-diskless-sync-delay", "0"]].concat();
        let replica = EngineServer::start_redis(&of(number), &more)?;
        wait("the replica follows", || replica.info("master_link_status") == "up");
        servers.push(replica);
    }
    let file = servers[0].folder().join("sentinel.conf");
    let text = format!(
        "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 1000\n\
         sentinel failover-timeout main 5000\nsentinel parallel-syncs main 2\n"
    );
    fs::write(&file, text).unwrap();
    let sentinel = EngineServer::start_redis(
        &format!("{name}-sentinel"),
        &[file.to_str().unwrap(), "--sentinel"],
    )?;
    wait("Sentinel knows the replicas", || {
        sentinel.info("master0").contains(&format!("slaves={replicas}"))
    });
    Some((servers, sentinel))
}

/// Kills the primary while nothing is under way, publishes until that succeeds again, and asserts
/// that nothing acknowledged is lost, repeated or received in another order.
fn fails_over(name: &str, replicas: usize, acks: ClusterAcks) {
    let Some((mut servers, sentinel)) = with_sentinel(name, replicas) else { return };
    let mut config = cluster_of(&servers[0]);
    let cluster = config.cluster.as_mut().unwrap();
    cluster.engine = vec![format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port)];
    cluster.acks = acks;
    let (Some(first), Some(second)) = (start(config.clone()), start(config)) else { return };
    [&first, &second].into_iter().for_each(joined);
    let checker = Checker::default();
    let mut hearers: Vec<_> =
        [&first, &second].map(|node| checker.subscriber(node.addresses()[0], &["a"])).into();
    let mut api = [&first, &second].map(|node| Client::connect(node.addresses()[0]));
    for n in 0..200 {
        assert_eq!(checker.publish(&mut api[n % 2], "a", n % 2, n), 200);
    }
    hearers.iter_mut().for_each(|hearer| hearer.hear(200));
    // No node renews its entry between the last look and the end.
    assert_eq!(servers[0].ask("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
    let offset = servers[0].info("master_repl_offset");
    wait("the replicas have it", || {
        servers[1..].iter().all(|replica| replica.info("slave_repl_offset") >= offset)
    });
    servers[0].kill();
    let mut n = 200;
    wait("publishes succeed again", || {
        n += 1;
        checker.publish(&mut api[n % 2], "a", n % 2, n) == 200
    });
    for n in 1000..1100 {
        checker.publish(&mut api[n % 2], "a", n % 2, n);
    }
    assert_eq!(checker.publish(&mut api[0], "a", 9, 0), 200);
    hearers.iter_mut().for_each(|hearer| hearer.hear_until("9-0"));
    checker.judge(&hearers);
    assert!(checker.count(200) >= 300, "{}", checker.count(200));
    for node in [&first, &second] {
        assert!(node.count("cluster_lost") >= 1);
        // The replica that was chosen has all that was applied.
        assert_eq!((node.count("cluster_epochs"), node.count("cluster_gaps")), (0, 0));
    }
}

#[test]
fn cluster_redis_sentinel_names_the_new_primary() {
    fails_over("redis-failover", 1, ClusterAcks::Engine);
}

#[test]
fn cluster_redis_with_acks_of_a_replica_fails_over() {
    fails_over("redis-acks", 2, ClusterAcks::Replica);
}

/// A Sentinel that names this primary, and that no other Sentinel knows of.
fn sentinel_of(name: &str, port: u16) -> Option<EngineServer> {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sentinels");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{name}-{}.conf", std::process::id()));
    fs::write(&file, format!("sentinel monitor main 127.0.0.1 {port} 2\n")).unwrap();
    EngineServer::start_redis(name, &[file.to_str().unwrap(), "--sentinel"])
}

/// A Sentinel that was cut off from the others names a server that is not reachable any more, or
/// that is a primary without replicas.
#[test]
fn cluster_redis_sentinel_that_is_outdated_misleads_nobody() {
    let Some(server) = EngineServer::start_redis("redis-named", &WITH_LOG) else { return };
    let Some(other) = EngineServer::start_redis("redis-left", &WITHOUT_LOG) else { return };
    let Some(first) = sentinel_of("sentinel-first", server.port) else { return };
    let Some(second) = sentinel_of("sentinel-second", server.port) else { return };
    let Some(away) = sentinel_of("sentinel-away", free_port()) else { return };
    let Some(left) = sentinel_of("sentinel-left", other.port) else { return };
    for (name, sentinels) in [("a", vec![&away, &first]), ("b", vec![&left, &first, &second])] {
        let mut config = cluster_of(&server);
        let cluster = config.cluster.as_mut().unwrap();
        let url = |it: &&EngineServer| format!("redis+sentinel://127.0.0.1:{}/main", it.port);
        cluster.engine = sentinels.iter().map(url).collect();
        cluster.name = name.to_owned();
        let Some(node) = start(config) else { return };
        joined(&node);
        // A node looks every two seconds.
        thread::sleep(Duration::from_millis(5500));
        assert_eq!(node.count("cluster_lost"), 0, "{name}");
        exchange(&node, &mut hearers(&[&node]), 0..5);
        assert_eq!(server.ask(&format!("EXISTS {{{name}}}:meta")), ":1\r\n", "{name}");
    }
    assert_eq!(other.ask("DBSIZE"), ":0\r\n");
}

/// Without a replica nothing is acknowledged that waits for one.
#[test]
fn cluster_redis_with_acks_of_a_replica_needs_one() {
    let Some(server) = EngineServer::start_redis("redis-alone", &WITH_LOG) else { return };
    let mut config = cluster_of(&server);
    config.cluster.as_mut().unwrap().acks = ClusterAcks::Replica;
    let Some(node) = start(config) else { return };
    joined(&node);
    let mut hears = Client::subscriber(node.addresses()[0], "a");
    let mut api = Client::connect(node.addresses()[0]);
    api.send(&publish("a", "1"));
    assert_eq!(api.response().status, 504, "it is stored, but by one server only");
    assert_eq!(hears.text(), event("a", "1"));
    assert!(node.count("cluster_resent") > 0);
    let port = server.port.to_string();
    let follows = ["--replicaof", "127.0.0.1", &port];
    let Some(_replica) = EngineServer::start_redis("redis-alone-replica", &follows) else { return };
    wait("a publish succeeds", || {
        api.send(&publish("a", "2"));
        api.response().status == 200
    });
}

/// Three primaries that share the slots.
fn three_primaries(name: &str) -> Option<Vec<EngineServer>> {
    let mut servers = Vec::new();
    for number in 0..3 {
        let bus = free_port().to_string();
        let more = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        servers.push((EngineServer::start_redis(&format!("{name}-{number}"), &more)?, bus));
    }
    for (number, (server, _)) in servers.iter().enumerate() {
        let (from, to) = [(0, 5460), (5461, 10_922), (10_923, 16_383)][number];
        assert_eq!(server.ask(&format!("CLUSTER ADDSLOTSRANGE {from} {to}")), "+OK\r\n");
        let (other, bus) = &servers[0];
        if number > 0 {
            let meet = format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port);
            assert_eq!(server.ask(&meet), "+OK\r\n");
        }
    }
    for (server, _) in &servers {
        let is_whole = |text: &str| {
            text.contains("cluster_state:ok") && text.contains("cluster_known_nodes:3")
        };
        wait("the cluster is whole", || is_whole(&server.ask("CLUSTER INFO")));
    }
    Some(servers.into_iter().map(|(server, _)| server).collect())
}

/// The names have slots on each of the three primaries; the nodes ask another one first.
#[test]
fn cluster_redis_cluster_has_the_log_on_one_of_its_servers() {
    let Some(servers) = three_primaries("redis-cluster") else { return };
    let mut used = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let mut config = cluster_of(&servers[0]);
        let cluster = config.cluster.as_mut().unwrap();
        cluster.engine = vec![servers[0].url().replace("redis://", "redis+cluster://")];
        cluster.name = name.to_owned();
        let (Some(first), Some(second)) = (start(config.clone()), start(config)) else { return };
        [&first, &second].into_iter().for_each(joined);
        let mut hearers = hearers(&[&first, &second]);
        exchange(&first, &mut hearers, 0..5);
        exchange(&second, &mut hearers, 5..10);
        let has_log = |it: &&EngineServer| it.ask(&format!("EXISTS {{{name}}}:meta")) == ":1\r\n";
        let on: Vec<u16> = servers.iter().filter(has_log).map(|it| it.port).collect();
        assert_eq!(on.len(), 1, "{name}");
        used.extend(on);
    }
    used.sort_unstable();
    used.dedup();
    assert!(used.len() > 1, "the names have slots on several servers");
    let mut config = cluster_of(&servers[0]);
    config.cluster.as_mut().unwrap().name = "a".to_owned();
    let Some(node) = start(config) else { return };
    serves_nobody(&node);
}

/// The text of the documentation is all that the user may do.
#[test]
fn cluster_redis_user_needs_what_the_documentation_says() {
    let page = fs::read_to_string("docs/cluster.md").unwrap();
    let rules = page.lines().find(|line| line.starts_with("ACL SETUSER ")).expect("the rules");
    let rules = rules.replace("PASSWORD", "right").replace("NAME", "polycast");
    let rules: Vec<&str> = rules.split(' ').skip(2).collect();
    let more = [&["--user"], &rules[..], &["--user", "default", "off"]].concat();
    let Some(server) = EngineServer::start_redis("redis-user", &more) else { return };
    for password in ["", "wrong", "right"] {
        let mut config = cluster_of(&server);
        let cluster = config.cluster.as_mut().unwrap();
        if !password.is_empty() {
            (cluster.user, cluster.password) = (rules[0].to_owned(), Secret::new(password));
        }
        let Some(node) = start(config) else { return };
        match password {
            "right" => {
                joined(&node);
                let mut hearers = hearers(&[&node]);
                exchange(&node, &mut hearers, 0..5);
                // A look at the primary was not refused.
                thread::sleep(Duration::from_millis(5500));
                assert_eq!(node.count("cluster_lost"), 0);
                exchange(&node, &mut hearers, 5..10);
            }
            _ => serves_nobody(&node),
        }
    }
}

#[test]
fn cluster_redis_tls_verifies_the_engine() {
    let Some(server) = EngineServer::start_redis("redis-without-tls", &[]) else { return };
    if !server.uses_library("libssl") {
        return println!("this server was built without TLS");
    }
    let authority = Authority::new();
    let leaf = authority.leaf(&["127.0.0.1"]);
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("redis-tls");
    fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) =
        (file("cert.pem", leaf.cert.pem()), file("key.pem", leaf.key.serialize_pem()));
    let ca = file("ca.pem", authority.pem());
    let port = free_port();
    let more = ["--tls-port", &port.to_string(), "--tls-auth-clients", "no"];
    let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let Some(server) = EngineServer::start_redis("redis-with-tls", &[&more[..], &files].concat())
    else {
        return;
    };
    for ca_file in ["", &ca] {
        let mut config = cluster_of(&server);
        let cluster = config.cluster.as_mut().unwrap();
        cluster.engine = vec![format!("rediss://127.0.0.1:{port}")];
        cluster.ca_file = ca_file.to_owned();
        let Some(node) = start(config) else { return };
        match ca_file {
            "" => serves_nobody(&node),
            _ => {
                joined(&node);
                exchange(&node, &mut hearers(&[&node]), 0..5);
            }
        }
    }
}

#[test]
fn cluster_redis_doctor_examines_the_engine() {
    if !has_uring() {
        return;
    }
    let Some(server) = EngineServer::start_redis("redis-doctor", &WITHOUT_LOG) else { return };
    let section = |more: &str| format!("[cluster]\nengine = ['{}']\n{more}", server.url());
    let (report, code) = doctor("redis.toml", &section(""));
    let product = if report.contains("engine: Valkey ") { "Valkey " } else { "Redis 7." };
    for part in [product, "warning: appendonly is off", "the log has 0 of 1073741824 bytes"] {
        assert!(report.contains(part) && code == Some(0), "{part}: {report}");
    }
    assert!(report.contains("engine: stored 100 entries: p50 "), "{report}");
    let login = "user = 'ada'\npassword = 'wrong'\n";
    let (report, code) = doctor("redis-refused.toml", &section(login));
    assert!(report.contains("refuses us") && code == Some(1), "{report}");
    assert_eq!(server.ask("CONFIG SET maxmemory-policy allkeys-lru"), "+OK\r\n");
    let (report, code) = doctor("redis-evicts.toml", &section(""));
    assert!(report.contains("maxmemory-policy is allkeys-lru") && code == Some(1), "{report}");
    assert_eq!(server.ask("CONFIG SET maxmemory-policy noeviction"), "+OK\r\n");
    let cluster = section("").replace("redis:", "redis+cluster:");
    let (report, code) = doctor("redis-cluster.toml", &cluster);
    assert!(report.contains("is no Redis Cluster") && code == Some(1), "{report}");
    assert_eq!(server.ask("CONFIG SET appendonly yes"), "+OK\r\n");
    let (report, code) = doctor("redis-good.toml", &section(""));
    assert!(!report.contains("warning") && code == Some(0), "{report}");
}

/// The log of 64 MiB may need 80 MiB.
#[test]
fn cluster_redis_with_too_little_memory_is_warned_of_once() {
    if !has_uring() {
        return;
    }
    let Some(server) = EngineServer::start_redis("redis-memory", &WITH_LOG) else { return };
    let section = format!("[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\n", server.url());
    for (max, is_enough) in [(80 << 20, true), ((80 << 20) - 1, false)] {
        assert_eq!(server.ask(&format!("CONFIG SET maxmemory {max}")), "+OK\r\n");
        let (report, code) = doctor("redis-memory.toml", &section);
        let warning = format!("engine: warning: maxmemory is {max}, but cluster.log_bytes =");
        assert_eq!((report.contains(&warning), code), (!is_enough, Some(0)), "{report}");
    }
    let node = Process::start("redis-memory", &format!("{BASE}{section}"));
    wait("the node joins", || is_ready(node.address));
    let warnings = || node.logged().matches("however, maxmemory is 83886079, ").count();
    assert_eq!(warnings(), 1, "{}", node.logged());
    // After another connection it is the same.
    assert_eq!(server.ask("CLIENT KILL TYPE normal SKIPME yes").get(..1), Some(":"));
    wait("the connection is lost", || metric(node.address, "lost") > 0);
    wait("the node is back", || is_ready(node.address) && metric(node.address, "up") == 1);
    assert_eq!(warnings(), 1, "{}", node.logged());
}

/// The user of the documentation may do everything; of one who may not all is named at once, also
/// if it may not even ask for the server's state.
#[test]
fn cluster_redis_doctor_names_all_permissions_that_are_missing() {
    if !has_uring() {
        return;
    }
    let Some(server) = EngineServer::start_redis("redis-rights", &WITH_LOG) else { return };
    let page = fs::read_to_string("docs/cluster.md").unwrap();
    let rules = page.lines().find(|line| line.starts_with("ACL SETUSER ")).expect("the rules");
    let rules = rules.replace("PASSWORD", "right").replace("NAME", "polycast");
    assert_eq!(server.ask(&rules), "+OK\r\n");
    let section = format!(
        "[cluster]\nengine = ['{}']\nuser = 'polycast'\npassword = 'right'\n",
        server.url()
    );
    let (report, code) = doctor("redis-rights.toml", &section);
    assert!(report.contains("engine: stored 100 entries") && code == Some(0), "{report}");
    for (taken, missing) in [
        ("-xdel -rpush -wait", "+rpush +xdel"),
        ("-info", "+info +rpush +xdel"),
        ("resetkeys", "+info +rpush +xdel ~{polycast}:*"),
    ] {
        assert_eq!(server.ask(&format!("ACL SETUSER polycast {taken}")), "+OK\r\n");
        let (report, code) = doctor("redis-rights.toml", &section);
        let line = format!("a node does; ACL SETUSER polycast {missing} permits it");
        assert!(report.contains(&line) && code == Some(1), "{line}: {report}");
    }
    let (report, _) = doctor("redis-replica.toml", &format!("{section}acks = 'replica'\n"));
    assert!(report.contains("+rpush +wait +xdel ~{polycast}:* permits it"), "{report}");
}
