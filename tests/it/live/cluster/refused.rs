//! Engines that can be read and refuse what is to be stored, for a while or because of its size.

use super::engine::{EngineServer, impatient};
use super::{joined, ready};
use crate::net::*;
use std::thread;
use std::time::Duration;

/// A primary without the replicas that it wants refuses all writes, and is read as before.
#[test]
fn cluster_redis_that_refuses_writes_is_read_and_not_ready() {
    let log = ["--appendonly", "yes"];
    let Some(server) = EngineServer::start_redis("redis-refuses", &log) else { return };
    let (Some(node), Some(other)) = (start(impatient(&server)), start(impatient(&server))) else {
        return;
    };
    [&node, &other].into_iter().for_each(joined);
    let mut hears = Client::subscriber(node.addresses()[0], "a");
    let mut api = Client::connect(other.addresses()[0]);
    api.publish("a", "1");
    assert_eq!(hears.text(), event("a", "1"));
    assert_eq!(server.ask("CONFIG SET min-replicas-to-write 1"), "+OK\r\n");
    api.send(&publish("a", "refused"));
    assert_eq!(api.response().status, 503);
    for node in [&node, &other] {
        wait("the node is not ready", || ready(node) == 503);
        assert_eq!(node.count("cluster_up"), 0);
    }
    // The nodes look at the engine every two seconds.
    for _ in 0..5 {
        thread::sleep(Duration::from_secs(1));
        assert_eq!((ready(&node), ready(&other)), (503, 503));
    }
    api.send(&publish("a", "refused, too"));
    assert_eq!(api.response().status, 503);
    hears.sync();
    for node in [&node, &other] {
        assert_eq!((node.count("cluster_lost"), node.count("cluster_fillings")), (0, 0));
        assert_eq!((node.count("cluster_gaps"), node.count("cluster_fenced")), (0, 1));
    }
    assert_eq!(server.ask("CONFIG SET min-replicas-to-write 0"), "+OK\r\n");
    [&node, &other].into_iter().for_each(joined);
    api.publish("a", "2");
    assert_eq!(hears.text(), event("a", "2"));
    assert_eq!((node.count("cluster_up"), node.count("cluster_new_ids")), (1, 0));
    assert_eq!(node.count("cluster_removed_nodes"), 0);
}
