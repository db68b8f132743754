//! Epochs from nodes over real HTTP, as a client of the Zilliqa dialect receives them: none is lost
//! and none is repeated, whatever the nodes do.

use crate::net::*;
use chain::{CONTRACT, Chain, Shape, WALLET};
use node::{Faults, Node, Stream, Wrap};
use polycast::config::{Config, Contracts, EndpointKind, Pattern, Route, Secret};
use polycast::server::Server;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[path = "../../../examples/zilliqa/chain.rs"]
#[allow(dead_code)]
pub mod chain;
#[path = "../../../examples/zilliqa/node.rs"]
#[allow(dead_code)]
mod node;

/// Several nodes with the same chain.
pub struct Net {
    tip: Arc<AtomicU64>,
    nodes: Vec<Node>,
}

impl Net {
    pub fn start(shapes: &[Shape]) -> Net {
        let tip = Arc::new(AtomicU64::new(100));
        let node = |shape: &Shape| {
            Node::start("127.0.0.1:0", Chain::new(*shape), tip.clone(), node::plain).unwrap()
        };
        Net { nodes: shapes.iter().map(node).collect(), tip }
    }

    fn config(&self) -> Config {
        with_nodes(self.nodes.iter().map(|node| format!("http://{}/", node.address)).collect())
    }

    /// The URL of a node.
    pub fn url(&self, node: usize) -> String {
        format!("http://{}/", self.nodes[node].address)
    }

    /// The number of requests that a node has got.
    pub fn requests(&self, node: usize) -> u64 {
        self.nodes[node].requests()
    }

    pub fn grow(&self, by: u64) -> u64 {
        self.tip.fetch_add(by, Ordering::AcqRel) + by
    }

    fn down(&self, node: usize) {
        self.nodes[node].set(Faults { down: true, ..Faults::default() });
    }

    fn good(&self, node: usize) {
        self.nodes[node].set(Faults::default());
    }
}

/// A configuration with short intervals that polls these nodes.
fn with_nodes(urls: Vec<String>) -> Config {
    polling(config(), urls)
}

/// The same configuration, but one that polls these nodes at short intervals.
pub fn polling(mut config: Config, urls: Vec<String>) -> Config {
    let path = Pattern::new("/");
    let when = vec![polycast::config::Condition { path, ..Default::default() }];
    config.routes.insert(0, Route { when, ..Route::to(EndpointKind::Zilliqa) });
    let node = &mut config.zilliqa.node;
    node.urls = urls.into_iter().map(Secret::new).collect();
    (node.interval_ms, node.timeout_ms) = (20, 500);
    (node.retry_ms, node.retry_max_ms, node.stale_ms) = (20, 100, 200);
    node.replay_wait_ms = 300;
    config
}

/// Waits until the server follows the nodes.
fn followed(server: &Server) {
    wait("a node", || server.count("last_epoch") > 0);
}

/// A client of the dialect that has subscribed to blocks.
pub struct Watcher(pub Client);

impl Watcher {
    pub fn new(address: SocketAddr) -> Watcher {
        let mut client = Client::open(address, "/");
        let query = r#"{"query":"NewBlock"}"#;
        client.send_text(query);
        assert_eq!(client.text(), query);
        Watcher(client)
    }

    /// The values of the next notification, by topic.
    fn next(&mut self) -> Value {
        let text = self.0.text();
        let message: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(message["type"], "Notification", "{text}");
        message["values"].clone()
    }

    /// Checks that the next notifications are these blocks of the chain.
    pub fn expect(&mut self, numbers: std::ops::RangeInclusive<u64>, chain: &Chain) {
        for number in numbers {
            let values = self.next();
            assert_eq!(values[0]["query"], "NewBlock");
            let document = chain.document(number);
            assert_eq!(values[0]["value"]["TxBlock"], document["TxBlock"], "{number}");
            assert_eq!(values[0]["value"]["TxHashes"], document["TxHashes"], "{number}");
        }
    }
}

const ZQ2: Shape = Shape::Zq2;

#[test]
fn nodes_blocks_arrive_as_they_are_made() {
    for shape in [Shape::Zq1, Shape::Zq2] {
        let net = Net::start(&[shape]);
        let Some(server) = start(net.config()) else { return };
        followed(&server);
        let address = server.addresses()[0];
        let (mut first, mut second) = (Watcher::new(address), Watcher::new(address));
        let logs = format!(r#"{{"query":"EventLog","addresses":["0x{CONTRACT}"]}}"#);
        second.0.send_text(&logs);
        assert_eq!(second.0.text(), logs);
        for _ in 0..8 {
            let tip = net.grow(1);
            first.expect(tip..=tip, &Chain::new(shape));
            let values = second.next();
            assert_eq!(values[0]["value"]["TxBlock"]["header"]["BlockNum"], tip.to_string());
            assert_eq!(values[1]["query"], "EventLog");
            let received = values[1]["value"][0]["event_logs"].as_array().map_or(0, Vec::len);
            assert_eq!(received as u64, (tip % 4).div_ceil(2), "{values}");
        }
        wait_count(&server, "epochs", 8);
        wait_count(&server, "last_epoch", 108);
        assert_eq!((server.count("node_failures"), server.count("node_nonsense")), (0, 0));
        let mut asking = Client::connect(address);
        asking.send(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        let metrics = asking.response();
        for line in ["polycast_epochs_total 8\n", "polycast_last_epoch 108\n"] {
            assert!(metrics.body.contains(line), "{}", metrics.body);
        }
    }
}

#[test]
fn nodes_waits_for_a_node_that_is_down_at_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let Some(server) = start(with_nodes(vec![format!("http://{address}")])) else { return };
    wait("failures", || server.count("node_failures") > 3);
    let mut watcher = Watcher::new(server.addresses()[0]);
    let tip = Arc::new(AtomicU64::new(7));
    let chain = Chain::new(ZQ2);
    let _node = Node::start(&address.to_string(), chain, tip.clone(), node::plain).unwrap();
    followed(&server);
    tip.store(9, Ordering::Release);
    watcher.expect(8..=9, &chain);
}

#[test]
fn nodes_fifty_missed_blocks_arrive_in_order() {
    let net = Net::start(&[Shape::Zq1]);
    let Some(server) = start(net.config()) else { return };
    followed(&server);
    let mut watcher = Watcher::new(server.addresses()[0]);
    watcher.expect(101..=net.grow(1), &Chain::new(Shape::Zq1));
    net.down(0);
    wait("a failure", || server.count("node_failures") > 0);
    for _ in 0..50 {
        net.grow(1);
        std::thread::sleep(Duration::from_millis(5));
    }
    net.good(0);
    watcher.expect(102..=151, &Chain::new(Shape::Zq1));
    watcher.expect(152..=net.grow(1), &Chain::new(Shape::Zq1));
    wait_count(&server, "epochs", 52);
}

#[test]
fn nodes_slow_answers_lose_nothing() {
    let net = Net::start(&[ZQ2]);
    let Some(server) = start(net.config()) else { return };
    followed(&server);
    let mut watcher = Watcher::new(server.addresses()[0]);
    let slow = |ms| Faults { delay: Duration::from_millis(ms), ..Faults::default() };
    net.nodes[0].set(slow(100));
    watcher.expect(101..=net.grow(5), &Chain::new(ZQ2));
    assert_eq!(server.count("node_failures"), 0);
    net.nodes[0].set(slow(700));
    net.grow(5);
    wait("failures", || server.count("node_failures") > 1);
    net.good(0);
    watcher.expect(106..=110, &Chain::new(ZQ2));
}

#[test]
fn nodes_invalid_replies_are_counted_and_lose_nothing() {
    let net = Net::start(&[ZQ2]);
    let Some(server) = start(net.config()) else { return };
    followed(&server);
    let mut watcher = Watcher::new(server.addresses()[0]);
    net.nodes[0].set(Faults { nonsense: true, ..Faults::default() });
    net.grow(5);
    wait("nonsense", || server.count("node_nonsense") > 2);
    net.good(0);
    watcher.expect(101..=105, &Chain::new(ZQ2));
    assert_eq!(server.count("node_failures"), 0);
}

#[test]
fn nodes_of_two_one_may_lag_or_fail() {
    let net = Net::start(&[ZQ2, ZQ2]);
    net.nodes[0].set(Faults { behind: 3, ..Faults::default() });
    let Some(server) = start(net.config()) else { return };
    followed(&server);
    let mut watcher = Watcher::new(server.addresses()[0]);
    let chain = Chain::new(ZQ2);
    let mut received = 100;
    for round in 0..6u64 {
        match round {
            1 => net.nodes[0].set(Faults { behind: 1, ..Faults::default() }),
            2 => net.down(1),
            3 => net.good(1),
            4 => net.down(0),
            _ => {}
        }
        let tip = net.grow(10);
        // In the third round, all nodes that answer are one epoch behind.
        let there = if round == 2 { tip - 1 } else { tip };
        watcher.expect(received + 1..=there, &chain);
        received = there;
    }
    wait_count(&server, "epochs", 60);
}

#[test]
fn nodes_restart_continues_after_the_last_epoch() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("last-epoch");
    let _ = fs::remove_file(&path);
    let net = Net::start(&[ZQ2]);
    let mut config = net.config();
    config.zilliqa.node.state_file = path.to_str().unwrap().to_owned();
    let Some(mut server) = start(config.clone()) else { return };
    followed(&server);
    wait("a file", || fs::read_to_string(&path).is_ok_and(|text| text == "100\n"));
    let mut watcher = Watcher::new(server.addresses()[0]);
    watcher.expect(101..=net.grow(3), &Chain::new(ZQ2));
    server.stop();
    server.join().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "103\n");
    net.grow(20);
    let Some(server) = start(config.clone()) else { return };
    let mut watcher = Watcher::new(server.addresses()[0]);
    watcher.expect(104..=123, &Chain::new(ZQ2));
    watcher.expect(124..=net.grow(1), &Chain::new(ZQ2));
    drop(server);
    // A state file with other content is an error, not a new beginning.
    fs::write(&path, "12x\n").unwrap();
    let error = Server::start(config).err().unwrap().to_string();
    assert!(error.contains("does not contain the number"), "{error}");
}

#[test]
fn nodes_decide_which_accounts_are_contracts() {
    let net = Net::start(&[ZQ2]);
    let mut config = net.config();
    config.zilliqa.contracts = Contracts::Node;
    let Some(server) = start(config) else { return };
    followed(&server);
    for _ in 0..4 {
        // Connections are opened until each core has one.
        let mut client = Client::open(server.addresses()[0], "/");
        let query = |list: &str| format!(r#"{{"query":"EventLog","addresses":[{list}]}}"#);
        let both = query(&format!(r#""0x{WALLET}","0x{CONTRACT}""#));
        client.send_text(&both);
        assert_eq!(client.text(), both);
        client.send_text(&query(&format!(r#""0x{WALLET}""#)));
        assert_eq!(client.text(), r#"{"type":"Error","error":"no contract found in list"}"#);
    }
    assert_eq!(server.count("contracts_unknown"), 0);
}

#[test]
fn nodes_over_tls_need_a_known_ca() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&own, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let secret = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], secret)
        .unwrap();
    assert!(TLS.set(Arc::new(config)).is_ok());
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("authority.pem");
    fs::write(&path, authority.pem()).unwrap();
    let tip = Arc::new(AtomicU64::new(100));
    let secured: Wrap = |stream| {
        let connection = TLS.get().and_then(|config| ServerConnection::new(config.clone()).ok());
        let connection = connection.ok_or_else(|| io::Error::other("no TLS"))?;
        let stream: Box<dyn Stream> =
            Box::new(StreamOwned::<_, TcpStream>::new(connection, stream));
        Ok(stream)
    };
    let chain = Chain::new(ZQ2);
    let node = Node::start("127.0.0.1:0", chain, tip.clone(), secured).unwrap();
    let mut config = with_nodes(vec![format!("https://localhost:{}/", node.address.port())]);
    let Some(server) = start(config.clone()) else { return };
    wait("failures", || server.count("node_failures") > 1);
    assert_eq!(node.requests(), 0, "who is not known is not asked");
    drop(server);
    config.zilliqa.node.ca_file = path.to_str().unwrap().to_owned();
    let Some(server) = start(config.clone()) else { return };
    followed(&server);
    let mut watcher = Watcher::new(server.addresses()[0]);
    tip.store(104, Ordering::Release);
    watcher.expect(101..=104, &chain);
    assert_eq!(server.count("node_failures"), 0);
    drop(server);
    // A file that cannot be read is an error at the start.
    let text = "zilliqa.node.ca_file = 'none.pem'\n[[routes]]\nendpoint = 'zilliqa'\n";
    let file = folder.join("authority.toml");
    fs::write(&file, text).unwrap();
    let refused = Config::load(&file).unwrap_err().to_string();
    assert!(refused.contains("authority.toml:1:14: zilliqa.node.ca_file: "), "{refused}");
}

static TLS: OnceLock<Arc<ServerConfig>> = OnceLock::new();

#[test]
fn nodes_can_be_changed_by_reload() {
    let (first, second) = (Net::start(&[ZQ2]), Net::start(&[ZQ2]));
    let Some(mut server) = start(with_nodes(Vec::new())) else { return };
    let mut watcher = Watcher::new(server.addresses()[0]);
    server.renew(first.config());
    followed(&server);
    first.grow(2);
    watcher.expect(101..=102, &Chain::new(ZQ2));
    // The next epochs continue after the last one.
    second.grow(4);
    first.down(0);
    server.renew(second.config());
    watcher.expect(103..=104, &Chain::new(ZQ2));
    second.grow(1);
    watcher.expect(105..=105, &Chain::new(ZQ2));
    server.renew(with_nodes(Vec::new()));
    assert_eq!(server.count("epochs"), 5);
}

#[test]
fn nodes_epochs_up_to_a_posted_one_are_skipped() {
    let net = Net::start(&[ZQ2]);
    let mut config = net.config();
    config.routes[0].when.clear();
    config.zilliqa.publish_token = Secret::new("0123456789abcdef");
    let Some(server) = start(config) else { return };
    followed(&server);
    let address = server.addresses()[0];
    let mut watcher = Watcher::new(address);
    let document = Chain::new(ZQ2).document(103).to_string();
    let length = document.len();
    let head = format!(
        "POST /epochs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer 0123456789abcdef\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    let mut publisher = Client::connect(address);
    publisher.send(format!("{head}{document}").as_bytes());
    watcher.expect(103..=103, &Chain::new(ZQ2));
    net.grow(3);
    wait_count(&server, "epochs_passed_over", 3);
    net.grow(1);
    watcher.expect(104..=104, &Chain::new(ZQ2));
    assert_eq!(server.count("epochs_passed_over"), 3);
}
