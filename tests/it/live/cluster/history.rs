//! Histories over nodes: clients that resume on another node, after a node or the engine was
//! killed, and what each node answers of its own.

use super::engine::{EngineServer, cluster_of};
use super::joined;
use crate::live::child;
use crate::net::*;
use polycast::config::{AppHistory, ClusterStorage, Config};
use polycast::server::Server;
use std::net::SocketAddr;
use std::path::PathBuf;

const CHANNEL: &str = "chat-1";

fn config_of(nats: &EngineServer) -> Config {
    let mut config = cluster_of(nats);
    config.apps[0].history = vec![AppHistory::new(&["chat-*"])];
    config
}

fn node(nats: &EngineServer) -> Option<Server> {
    let server = start(config_of(nats))?;
    joined(&server);
    Some(server)
}

/// The position of a message: its stream and its serial number.
fn position(message: &str) -> (String, u64) {
    let message: serde_json::Value = serde_json::from_str(message).expect("JSON");
    let stream = message["stream_id"].as_str().unwrap_or_else(|| panic!("{message}"));
    (stream.to_owned(), message["serial"].as_u64().expect("a serial number"))
}

fn data(message: &str) -> String {
    let message: serde_json::Value = serde_json::from_str(message).expect("JSON");
    message["data"].as_str().unwrap_or_default().to_owned()
}

/// A client that resumes, with the acknowledgement of its subscription and whether it says
/// `recovered`.
fn resume(address: SocketAddr, from: Option<&(String, u64)>) -> (Client, String, bool) {
    let (mut client, _) = Client::app(address);
    let positions = from.map_or(String::new(), |(stream, serial)| {
        format!(r#""{CHANNEL}":{{"stream_id":"{stream}","serial":{serial}}}"#)
    });
    let data = format!(r#"{{"channel_positions":{{{positions}}}}}"#);
    client.send_text(&format!(r#"{{"event":"polycast:resume","data":{data}}}"#));
    client
        .send_text(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{CHANNEL}"}}}}"#));
    let text = client.text();
    let is_recovered = text.ends_with(r#""recovered":true}"#);
    assert!(is_recovered || text.ends_with(r#""recovered":false}"#), "{text}");
    (client, text, is_recovered)
}

/// Publishes the numbers of a range, and hears them.
fn publish_to(api: &mut Client, hears: &mut Client, numbers: std::ops::Range<u32>) -> Vec<String> {
    let publish = |n: u32| {
        api.publish(CHANNEL, &n.to_string());
        let text = hears.text();
        assert_eq!(data(&text), n.to_string());
        text
    };
    numbers.map(publish).collect()
}

#[test]
fn cluster_p17_client_resumes_on_another_node() {
    let Some(nats) = EngineServer::start("resume") else { return };
    let (Some(first), Some(second)) = (node(&nats), node(&nats)) else { return };
    let mut api = Client::connect(first.addresses()[0]);
    let (mut ada, _, _) = resume(first.addresses()[0], None);
    let (mut bob, _, _) = resume(second.addresses()[0], None);
    let heard = publish_to(&mut api, &mut ada, 0..10);
    // All nodes give an event the same position.
    for text in &heard {
        assert_eq!(bob.text(), *text);
    }
    let serials: Vec<u64> = heard.iter().map(|it| position(it).1).collect();
    assert!(serials.is_sorted_by(|one, other| one < other), "{serials:?}");
    assert!(serials[0].is_multiple_of(64), "{serials:?}");
    // Ada has heard the first five, and continues on the other node.
    drop(ada);
    let (mut ada, ack, is_recovered) = resume(second.addresses()[0], Some(&position(&heard[4])));
    assert!(is_recovered && position(&ack) == position(&heard[4]), "{ack}");
    heard[5..].iter().for_each(|text| assert_eq!(ada.text(), *text));
    publish_to(&mut api, &mut ada, 10..11);
    // At the end nothing is missing, and a node that starts now has read the log.
    let third = node(&nats).expect("as the others");
    let (mut eve, _, is_recovered) = resume(third.addresses()[0], Some(&position(&heard[9])));
    assert!(is_recovered);
    assert_eq!(data(&eve.text()), "10");
    publish_to(&mut api, &mut eve, 11..12);
    // Each node lists the events of its own.
    let page = |server: &Server| {
        let mut api = Client::connect(server.addresses()[0]);
        api.send(&DEMO.request("GET", &format!("/apps/1/channels/{CHANNEL}/events"), ""));
        let response = api.response();
        assert_eq!(response.status, 200, "{response:?}");
        // Only a node that has read the log from its beginning knows that nothing was before.
        response.body.rsplit_once(r#","complete""#).expect("a page").0.to_owned()
    };
    for server in [&first, &second, &third] {
        wait("the node has read them", || server.count("cluster_events") == 12);
    }
    let expected = page(&first);
    assert!(expected.contains(r#""data":"11""#), "{expected}");
    assert!(expected.contains(&format!(r#""serial":{},"event":"e","data":"4""#, serials[4])));
    assert_eq!((page(&second), page(&third)), (expected.clone(), expected));
    // A position that the log has not reached is none.
    let (stream, _) = position(&heard[0]);
    let (_, _, is_recovered) = resume(first.addresses()[0], Some(&(stream, 1 << 40)));
    assert!(!is_recovered);
    assert_eq!(first.count("history_future"), 1);
}

#[test]
fn cluster_p17_client_resumes_after_its_node_was_killed() {
    let Some(nats) = EngineServer::start("resume-kill") else { return };
    let Some(other) = node(&nats) else { return };
    let engine = format!("[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\n", nats.url());
    let command = child::command("cluster-resume", &format!("{}{engine}", child::BASE));
    child::rewrite("cluster-resume", "[[apps.history]]\nchannels = ['chat-*']\n");
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live/cluster-resume.log");
    let mut process = child::Process::spawn(command, log);
    wait("the node joins", || {
        let mut client = Client::connect(process.address);
        client.send(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.response().status == 200
    });
    let mut api = Client::connect(other.addresses()[0]);
    let (mut ada, _, _) = resume(process.address, None);
    let heard = publish_to(&mut api, &mut ada, 0..5);
    process.signal(libc::SIGKILL);
    process.ended();
    (5..20).for_each(|n| api.publish(CHANNEL, &n.to_string()));
    wait("the node has read them", || other.count("cluster_events") == 20);
    let (mut ada, ack, is_recovered) = resume(other.addresses()[0], Some(&position(&heard[4])));
    assert!(is_recovered, "{ack}");
    (5..20).for_each(|n| assert_eq!(data(&ada.text()), n.to_string()));
    publish_to(&mut api, &mut ada, 20..21);
}

/// With storage in files nothing is lost; with storage in memory all positions are void.
#[test]
fn cluster_p17_resume_over_a_restart_of_the_engine() {
    for storage in [ClusterStorage::File, ClusterStorage::Memory] {
        let nats = match storage {
            ClusterStorage::File => EngineServer::start("resume-engine"),
            ClusterStorage::Memory => EngineServer::start_with("resume-engine", &[]),
        };
        let Some(mut nats) = nats else { return };
        let mut config = config_of(&nats);
        config.cluster.as_mut().unwrap().storage = storage;
        let Some(node) = start(config) else { return };
        joined(&node);
        let mut api = Client::connect(node.addresses()[0]);
        let (mut ada, _, _) = resume(node.addresses()[0], None);
        let heard = publish_to(&mut api, &mut ada, 0..5);
        nats.kill();
        wait("the loss is seen", || node.count("cluster_lost") == 1);
        nats.again();
        wait("a publish succeeds", || {
            api.send(&publish(CHANNEL, "again"));
            api.response().status == 200
        });
        let text = ada.text();
        assert_eq!(data(&text), "again");
        let same = position(&text).0 == position(&heard[0]).0;
        let (mut bob, ack, is_recovered) = resume(node.addresses()[0], Some(&position(&heard[2])));
        let is_file = storage == ClusterStorage::File;
        assert_eq!((same, is_recovered), (is_file, is_file), "{ack}");
        if is_file {
            assert_eq!(["3", "4", "again"].map(|_| data(&bob.text())), ["3", "4", "again"]);
        } else {
            assert_eq!(node.count("history_other_stream"), 1);
        }
        api.publish(CHANNEL, "last");
        assert_eq!((data(&ada.text()), data(&bob.text())), ("last".to_owned(), "last".to_owned()));
    }
}
