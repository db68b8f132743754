//! The Zilliqa dialect across two reactors: every client gets every epoch once and in order.

use crate::net::*;
use polycast::config::{Config, FileFormat};
use polycast::server::Server;
use std::net::SocketAddr;

const TOKEN: &str = "0123456789abcdef";
const CLIENTS: usize = 24;
const EPOCHS: u64 = 40;

fn server() -> Option<Server> {
    let text = format!(
        "[zilliqa]\npublish_token = '{TOKEN}'\nfragment_bytes = 65536\n\
         [[routes]]\nendpoint = 'zilliqa'\n"
    );
    let Config { zilliqa, routes, .. } =
        Config::parse(&text, FileFormat::Toml, "test").expect("a configuration");
    start(Config { zilliqa, routes, apps: Vec::new(), is_demo: false, ..config() })
}

fn post(client: &mut Client, document: &str) -> u16 {
    let len = document.len();
    client.send(
        format!(
            "POST /epochs HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: {len}\r\n\r\n{document}"
        )
        .as_bytes(),
    );
    client.response().status
}

fn epoch(number: u64, padding: usize) -> String {
    let pad = "x".repeat(padding);
    format!(r#"{{"TxBlock":{{"header":{{"BlockNum":"{number}"}},"pad":"{pad}"}},"TxHashes":[]}}"#)
}

fn notification(number: u64, padding: usize) -> String {
    let epoch = epoch(number, padding);
    format!(r#"{{"type":"Notification","values":[{{"query":"NewBlock","value":{epoch}}}]}}"#)
}

fn subscribed(address: SocketAddr) -> Client {
    let mut client = Client::open(address, "/");
    client.send_text(r#"{"query":"NewBlock"}"#);
    assert_eq!(client.text(), r#"{"query":"NewBlock"}"#);
    client
}

#[test]
fn zilliqa_every_client_gets_every_epoch_once_and_in_order() {
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| subscribed(address)).collect();
    // Connections on both cores publish in turn, and each is answered when the epoch is ordered.
    let mut publishers: Vec<Client> = (0..6).map(|_| Client::connect(address)).collect();
    for number in 1..=EPOCHS {
        let at = number as usize % publishers.len();
        assert_eq!(post(&mut publishers[at], &epoch(number, 10)), 200);
        assert_eq!(post(&mut publishers[0], &epoch(number, 10)), 409);
    }
    for client in &mut clients {
        for number in 1..=EPOCHS {
            assert_eq!(client.text(), notification(number, 10));
        }
    }
    // A client that connects now receives the next epoch first.
    let mut late = subscribed(address);
    assert_eq!(post(&mut publishers[1], &epoch(EPOCHS + 5, 10)), 200);
    for client in clients.iter_mut().chain([&mut late]) {
        assert_eq!(client.text(), notification(EPOCHS + 5, 10));
    }
    assert_eq!(server.count("deliveries"), (EPOCHS + 1) * CLIENTS as u64 + 1);
}

#[test]
fn zilliqa_long_notification_is_fragmented_as_configured() {
    let Some(server) = server() else { return };
    let address = server.addresses()[0];
    let mut client = subscribed(address);
    let mut publisher = Client::connect(address);
    assert_eq!(post(&mut publisher, &epoch(1, 300_000)), 200);
    let mut whole = Vec::new();
    loop {
        let frame = client.frame();
        assert!(frame.payload.len() <= 65_536);
        assert_eq!(frame.opcode, if whole.is_empty() { TEXT } else { 0 });
        whole.extend(frame.payload);
        if frame.fin {
            break;
        }
    }
    assert!(whole == notification(1, 300_000).into_bytes());
}
