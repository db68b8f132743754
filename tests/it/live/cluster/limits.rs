//! The maximum number of connections of an application, over several nodes.

use super::super::child::{BASE, Process};
use super::engine::{EngineServer, cluster_of};
use super::{joined, ready_at};
use crate::net::*;
use polycast::config::Config;
use polycast::server::Server;
use std::net::SocketAddr;

const OVER_QUOTA: &str = "Application is over connection quota";

/// The configuration of nodes that have so many connections together.
fn limited(nats: &EngineServer, limit: usize) -> Config {
    let mut config = cluster_of(nats);
    config.apps[0].limits.connections = limit;
    // A log that begins is trusted soon.
    config.cluster.as_mut().unwrap().rejoin_ms = 1000;
    config
}

fn started(config: &Config) -> Option<Server> {
    let server = start(config.clone())?;
    joined(&server);
    Some(server)
}

/// A client that has asked to connect.
fn connecting(address: SocketAddr) -> Client {
    Client::open(address, APP_PATH)
}

/// The close code of a client that is refused.
fn refusal(mut client: Client) -> (u16, String) {
    let text = client.text();
    assert!(text.contains("pusher:error"), "{text}");
    client.close()
}

/// Waits until a node refuses connections because the limit is reached, which it knows from
/// `dead_ms` on. Until then it asks for another attempt.
fn refuses(address: SocketAddr) {
    wait("the limit is known to be reached", || {
        let (code, reason) = refusal(connecting(address));
        assert!(code == 4100 || code == 4004 && reason == OVER_QUOTA, "{code} {reason}");
        code == 4004
    });
}

#[test]
fn cluster_p13_limit_is_exact_over_all_nodes() {
    let Some(nats) = EngineServer::start("limit") else { return };
    let config = limited(&nats, 10);
    let nodes = [started(&config), started(&config), started(&config)];
    let [Some(first), Some(second), Some(third)] = nodes else { return };
    let addresses = [&first, &second, &third].map(|it| it.addresses()[0]);
    // Ten of fifteen are admitted, on whichever nodes, and the others are refused.
    let asked: Vec<Client> = (0..15).map(|n| connecting(addresses[n % 3])).collect();
    let (mut open, mut refused) = (Vec::new(), 0);
    for (n, mut client) in asked.into_iter().enumerate() {
        let text = client.text();
        match text.contains("connection_established") {
            true => open.push((n % 3, client)),
            false => {
                assert!(text.contains("pusher:error"), "{text}");
                assert!([4004, 4100].contains(&client.close().0));
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (10, 5));
    addresses.into_iter().for_each(refuses);
    let reserved = || [&first, &second, &third].map(|it| it.count("cluster_reserved")).iter().sum();
    assert_eq!((reserved(), first.count("refused_quota") > 0), (10u64, true));
    // A client that leaves makes room on any node.
    let from = open[0].0;
    let (leave, stay): (Vec<_>, Vec<_>) = open.into_iter().partition(|(node, _)| *node == from);
    let (left, to) = (leave.len(), addresses[(from + 2) % 3]);
    drop(leave);
    let mut others = Vec::new();
    while others.len() < left {
        let mut client = connecting(to);
        match client.text().contains("connection_established") {
            true => others.push(client),
            false => assert!([4004, 4100].contains(&client.close().0)),
        }
    }
    refuses(to);
    drop((stay, others));
}

/// What a node has reserved that is killed is free when it is dead; what a node has that is drained
/// is free as soon as its connections are closed.
#[test]
fn cluster_p13_limit_of_nodes_that_end_is_free_again() {
    let Some(nats) = EngineServer::start("limit-ends") else { return };
    let config = limited(&nats, 6);
    let Some(first) = started(&config) else { return };
    let one = first.addresses()[0];
    let section = format!(
        "[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\nrejoin_ms = 1000\nhold_ms = 6000\n",
        nats.url()
    );
    for ends in ["killed", "drained"] {
        let mut other = Process::start_with(
            &format!("cluster-limit-{ends}"),
            &format!("{BASE}{section}"),
            "limits = { connections = 6 }\n",
        );
        wait("the node joins", || ready_at(other.address) == 200);
        let mut there: Vec<Client> = (0..6).map(|_| connecting(other.address)).collect();
        there.iter_mut().for_each(|client| drop(client.established()));
        refuses(one);
        match ends {
            "killed" => {
                other.child.kill().unwrap();
                other.child.wait().unwrap();
            }
            _ => other.signal(libc::SIGTERM),
        }
        // Until there is room, clients wait, or are closed with a code after which they try again.
        let mut here = Vec::new();
        while here.len() < 6 {
            let mut client = connecting(one);
            match client.text().contains("connection_established") {
                true => here.push(client),
                false => assert!([4004, 4100].contains(&client.close().0), "{ends}"),
            }
        }
        refuses(one);
        drop((here, there));
        if ends == "drained" {
            assert!(other.ended().success());
        }
        wait("they have left", || first.count("connections") == 0);
    }
}

/// While the engine is away, a node admits what it has reserved, and says of others that they may
/// try again.
#[test]
fn cluster_p13_limit_while_the_engine_is_away() {
    let Some(mut nats) = EngineServer::start("limit-away") else { return };
    let mut config = limited(&nats, 80);
    let cluster = config.cluster.as_mut().unwrap();
    // What is reserved may be used for three fifths of `dead_ms`.
    (cluster.hold_ms, cluster.dead_ms) = (1500, 10_000);
    let Some(node) = started(&config) else { return };
    let address = node.addresses()[0];
    let mut clients = vec![Client::app(address).0];
    let reserved = node.count("cluster_reserved") as usize;
    assert!(reserved > 1, "{reserved}");
    nats.kill();
    wait("the node knows", || node.count("cluster_up") == 0);
    while clients.len() < reserved {
        clients.push(Client::app(address).0);
    }
    assert_eq!(refusal(connecting(address)).0, 4100);
    assert_eq!(node.count("refused_not_reserved"), 1);
    nats.again();
    wait("the node knows", || node.count("cluster_up") == 1);
    wait("there is room", || connecting(address).text().contains("connection_established"));
}
