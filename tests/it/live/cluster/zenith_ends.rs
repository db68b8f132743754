//! Back ends of Zenith whose pictures are dropped when they end, over several nodes.

use super::engine::EngineServer;
use super::zenith::{
    ZENITH, api, backend, picture_is, published, started, subscribed, topic, zenith_of,
};
use crate::live::child::{BASE, Process};
use crate::live::zenith::{parse, received, say};
use crate::net::*;
use polycast::codec::Format;
use polycast::config::Config;
use polycast::server::Server;

const DROPS: &str = r#"{"Pictures":"Drop"}"#;
const KEEPS: &str = r#"{"Pictures":"Keep"}"#;

/// Lets a back end publish, and waits until the log has it.
fn publishes(backend: &mut Client, name: &str, data: &str) {
    let data = format!(r#""TransactionID":7,"Action":"Publish","Data":{data}"#);
    let message = topic(name, &data);
    say(backend, Format::MsgPack, &message);
    let done = received(backend, Format::MsgPack);
    assert_eq!(done, parse(&topic(name, r#""TransactionID":7"#)));
}

fn is_gone(servers: &[&Server], name: &str) {
    for server in servers {
        wait("the picture is gone", || subscribed(server, 0, name).1.is_none());
    }
}

fn is(servers: &[&Server], name: &str, expected: &str) {
    servers.iter().for_each(|server| picture_is(server, name, expected));
}

fn config_of(engine: &EngineServer) -> Config {
    let mut config = zenith_of(engine);
    let cluster = config.cluster.as_mut().unwrap();
    (cluster.keep_s, cluster.beat_ms, cluster.dead_ms) = (10, 200, 1000);
    config
}

/// A node that can be killed.
fn process_of(engine: &EngineServer, name: &str, more: &str) -> Process {
    let url = engine.url();
    let process = Process::start(
        name,
        &format!(
            "{BASE}[cluster]\nengine = ['{url}']\nlog_bytes = '64MiB'\nhold_ms = 1500\n\
             append_ms = 500\nbeat_ms = 200\ndead_ms = 1000\nkeep_s = 10\n{more}{ZENITH}\
             [[routes]]\nwhen = [{{ path = '/ready' }}]\nendpoint = 'health'\n\
             [[routes]]\nwhen = [{{ path = '/Zenith*' }}]\nendpoint = 'zenith'\n\
             [[routes]]\nendpoint = 'apps'\n"
        ),
    );
    wait("the node joins", || super::ready_at(process.address) == 200);
    process
}

#[test]
fn cluster_p16_zenith_pictures_of_an_ended_back_end_are_dropped_on_all_nodes() {
    let Some(engine) = EngineServer::start("zenith-drop") else { return };
    let config = config_of(&engine);
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    let two = [&first, &second];
    let mut drops = backend(second.addresses()[0], DROPS);
    let mut keeps = backend(first.addresses()[0], KEEPS);
    wait("the registrations are read", || second.count("cluster_states") >= 2);
    let states = second.count("cluster_states");
    publishes(&mut drops, "S!drop", r#"{"a":1}"#);
    publishes(&mut drops, "S!both", r#"{"a":1}"#);
    publishes(&mut keeps, "S!both", r#"{"b":2}"#);
    publishes(&mut keeps, "S!keep", r#"{"a":1}"#);
    is(&two, "S!drop", r#"{"a":1}"#);
    is(&two, "S!both", r#"{"a":1,"b":2}"#);
    // A node that starts when they are stated knows whose they are.
    wait("the pictures are stated", || second.count("cluster_states") >= states + 3);
    let Some(third) = started(&config) else { return };
    let three = [&first, &second, &third];
    is(&three, "S!both", r#"{"a":1,"b":2}"#);
    drop(drops);
    is_gone(&three, "S!drop");
    is_gone(&three, "S!both");
    is(&three, "S!keep", r#"{"a":1}"#);
    // What is published after that stays, of whomever it is.
    publishes(&mut keeps, "S!both", r#"{"c":3}"#);
    let mut again = backend(first.addresses()[0], DROPS);
    publishes(&mut again, "S!drop", r#"{"c":3}"#);
    published(&mut api(&third), &topic("S!drop", r#""Data":{"d":4}"#));
    let Some(fourth) = started(&config) else { return };
    let all = [&first, &second, &third, &fourth];
    is(&all, "S!both", r#"{"c":3}"#);
    is(&all, "S!drop", r#"{"c":3,"d":4}"#);
    drop(again);
    is_gone(&all, "S!drop");
    is(&all, "S!both", r#"{"c":3}"#);
}

/// The removal is not stored in time. It is published again when the log has that the back end has
/// ended.
#[test]
fn cluster_p16_zenith_pictures_are_dropped_though_the_engine_was_away_when_the_back_end_closed() {
    let Some(mut engine) = EngineServer::start("zenith-drop-away") else { return };
    let mut config = config_of(&engine);
    config.cluster.as_mut().unwrap().hold_ms = 1000;
    let (Some(first), Some(second)) = (started(&config), started(&config)) else { return };
    let two = [&first, &second];
    let mut drops = backend(second.addresses()[0], DROPS);
    publishes(&mut drops, "S!drop", r#"{"a":1}"#);
    is(&two, "S!drop", r#"{"a":1}"#);
    let refused = |node: &Server| node.count("cluster_refused") + node.count("cluster_unknown");
    let before = refused(&second);
    engine.kill();
    drop(drops);
    wait("the removal is given up", || refused(&second) > before);
    engine.again();
    is_gone(&two, "S!drop");
    published(&mut api(&first), &topic("S!drop", r#""Data":{"b":2}"#));
    is(&two, "S!drop", r#"{"b":2}"#);
}

#[test]
fn cluster_p16_zenith_pictures_of_a_killed_or_fenced_node_are_dropped_on_all_nodes() {
    let Some(engine) = EngineServer::start("zenith-drop-killed") else { return };
    if !has_uring() {
        return;
    }
    let config = config_of(&engine);
    let Some(first) = started(&config) else { return };
    let mut process = process_of(&engine, "cluster-zenith-drop", "");
    let mut drops = backend(process.address, DROPS);
    let mut keeps = backend(process.address, KEEPS);
    publishes(&mut drops, "S!drop", r#"{"a":1}"#);
    publishes(&mut keeps, "S!keep", r#"{"a":1}"#);
    is(&[&first], "S!drop", r#"{"a":1}"#);
    // The node stands still, and is declared dead; then it goes on under another id.
    process.signal(libc::SIGSTOP);
    is_gone(&[&first], "S!drop");
    published(&mut api(&first), &topic("S!drop", r#""Data":{"b":2}"#));
    process.signal(libc::SIGCONT);
    wait("the node is back", || super::ready_at(process.address) == 200);
    let mut late = backend(process.address, KEEPS);
    publishes(&mut late, "S!keep", r#"{"b":2}"#);
    is(&[&first], "S!drop", r#"{"b":2}"#);
    // Its back end is still there, and publishes again.
    publishes(&mut drops, "S!drop", r#"{"c":3}"#);
    let Some(second) = started(&config) else { return };
    is(&[&first, &second], "S!drop", r#"{"b":2,"c":3}"#);
    process.signal(libc::SIGKILL);
    process.ended();
    is_gone(&[&first, &second], "S!drop");
    is(&[&first, &second], "S!keep", r#"{"a":1,"b":2}"#);
    published(&mut api(&second), &topic("S!drop", r#""Data":{"d":4}"#));
    let Some(third) = started(&config) else { return };
    is(&[&first, &second, &third], "S!drop", r#"{"d":4}"#);
}

/// The node itself is removed much later.
#[test]
fn cluster_p16_zenith_pictures_of_a_node_that_is_drained_are_dropped_at_once() {
    let Some(engine) = EngineServer::start("zenith-drop-drained") else { return };
    if !has_uring() {
        return;
    }
    let Some(first) = started(&config_of(&engine)) else { return };
    let process = process_of(&engine, "cluster-zenith-drained", "drain_linger_ms = 5000\n");
    let mut drops = backend(process.address, DROPS);
    publishes(&mut drops, "S!drop", r#"{"a":1}"#);
    is(&[&first], "S!drop", r#"{"a":1}"#);
    process.signal(libc::SIGTERM);
    is_gone(&[&first], "S!drop");
    // Its process ends with its last connection.
    drop(drops);
    let mut again = backend(first.addresses()[0], DROPS);
    publishes(&mut again, "S!drop", r#"{"b":2}"#);
    is(&[&first], "S!drop", r#"{"b":2}"#);
    assert_eq!(first.count("cluster_removed_nodes"), 0);
    wait_count(&first, "cluster_removed_nodes", 1);
    publishes(&mut again, "S!drop", r#"{"c":3}"#);
    is(&[&first], "S!drop", r#"{"b":2,"c":3}"#);
}
