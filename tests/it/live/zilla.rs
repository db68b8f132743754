//! The file of a proxy in Zilla's words, served from end to end.

use super::tls::Secure;
use crate::certs::{Authority, folder, table};
use crate::net::*;
use crate::peer::Heard;
use crate::tls_client::store;
use polycast::config::{Config, FileFormat};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

/// An echo that speaks TLS, for `localhost`.
fn echo(authority: &Authority) -> Config {
    let tls = table("zilla-echo", authority, "");
    let text = format!(
        "listeners = [{{ address = '127.0.0.1:0', tls = {tls} }}]\n[[routes]]\nendpoint = 'echo'\n"
    );
    let parsed = Config::parse(&text, FileFormat::Toml, "test").unwrap();
    Config { listeners: parsed.listeners, routes: parsed.routes, ..config() }
}

/// The file with its stores, and these ports in place of its own.
fn proxy(authority: &Authority, upstream: SocketAddr) -> Config {
    let folder = folder("zilla-proxy");
    store(&folder, &authority.leaf(&["localhost"]), &[("localhost", authority)]);
    let mut text = include_str!("../../../examples/zilla/proxy.yaml").to_owned();
    let port = upstream.port().to_string();
    for (from, to) in [
        ("${{env.STORE_PASSWORD}}", "generated"),
        // A name, which has to be resolved.
        ("${{env.UPSTREAM}}", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("port: 7143", "port: 0"),
        ("port: 7190", "port: 0"),
        ("port: 8443", &format!("port: {port}")),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let path = folder.join("zilla.yaml");
    fs::write(&path, text).unwrap();
    let read = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    let Config { listeners, routes, metrics, .. } = read;
    Config { listeners, routes, metrics, apps: Vec::new(), is_demo: false, ..config() }
}

/// What the exporter tells.
fn received(address: SocketAddr) -> String {
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], address.port())));
    client.send(b"GET /metrics HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status, 200, "also for those who are not on this machine");
    answer.body
}

#[test]
fn zilla_proxy_uses_tls_on_both_sides() {
    let authority = Authority::new();
    let Some(upstream) = start(echo(&authority)) else { return };
    let Some(server) = start(proxy(&authority, upstream.addresses()[0])) else { return };
    let (front, exporter) = (server.addresses()[0], server.addresses()[1]);
    let client = Arc::new(authority.client(None));
    let sample = |name: &str, value: &str| {
        let line = format!("\n{name}{{namespace=\"proxy\",binding=\"ws_server\"}} {value}\n");
        wait(&line, || received(exporter).contains(&line));
    };
    // Until the name is resolved, the answer is 502.
    wait_count(&server, "names_found", 1);
    let mut socket = Secure::open(front, &client, "/any?x=y");
    socket.send(&masked(true, TEXT, b"through"));
    assert_eq!(socket.text(), "through");
    sample("stream_opens_received_total", "1");
    sample("stream_active_sent", "1");
    let close = 1000_u16.to_be_bytes();
    socket.send(&masked(true, CLOSE, &close));
    let heard = socket.next();
    assert!(matches!(heard, Some(Heard::Close(Some(1000), _))), "{heard:?}");
    drop(socket);
    sample("stream_active_received", "0");
    sample("stream_closes_received_total", "1");
    sample("stream_closes_sent_total", "1");
    sample("stream_errors_received_total", "0");
    assert!(received(exporter).contains("stream_data_received_total{"));
    // Who comes from elsewhere is kept out, as by Zilla.
    let text = handshake("/", "Origin: https://evil.example\r\n");
    let mut stranger = Secure::connect(front, &client, "localhost").unwrap();
    stranger.send(text.as_bytes());
    let heard = stranger.next();
    assert!(matches!(heard, Some(Heard::Answer { status: 403, .. })), "{heard:?}");
}
