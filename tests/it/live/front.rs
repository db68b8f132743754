//! Listeners on Unix sockets and IPv6, and connections behind a proxy, over real sockets.

use super::child::*;
use crate::net::*;
use polycast::config::{Listener, ProxyProtocol};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("polycast-live-{}-{name}", std::process::id()))
}

fn at_unix(path: &std::path::Path) -> Listener {
    listener(&format!("unix:{}", path.display()))
}

/// The status of an HTTP request over a Unix socket, by curl.
fn curl(path: &std::path::Path, url: &str) -> Option<String> {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]).arg(path).arg(url);
    let Ok(output) = curl.output() else {
        skip("curl is missing");
        return None;
    };
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Opens a WebSocket over a stream, sends a message to `/echo` and reads the answer.
fn echoes(mut stream: impl Read + Write, fields: &str) {
    stream.write_all(handshake("/echo", fields).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    stream.write_all(&masked(true, TEXT, b"over a Unix socket")).unwrap();
    let mut answer = [0; 20];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[2..], b"over a Unix socket");
}

#[test]
fn unix_socket_serves_http_and_websockets_on_all_cores() {
    let path = socket("serves");
    let mut config = config();
    config.listeners = vec![at_unix(&path), listener("127.0.0.1:0")];
    config.limits.connections_per_address = 1;
    let Some(server) = start(config) else { return };
    assert_eq!(server.addresses().len(), 1, "of the IP listener");
    // Peers on a Unix socket have no address, so they are not limited by it.
    let streams: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for stream in &streams {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        echoes(stream, "");
    }
    assert_eq!(server.count("connections"), 40);
    drop(streams);
    if let Some(status) = curl(&path, "http://localhost/live") {
        assert_eq!(status, "200");
    }
    wait_count(&server, "connections", 0);
    server.stop();
    assert!(!path.exists(), "removed when the server stops");
}

#[test]
fn unix_socket_of_a_process_that_was_killed_is_replaced() {
    if !has_uring() {
        return;
    }
    let path = socket("killed");
    let base = format!(
        "threads = 2\npin = false\nlisteners = [{{ address = '127.0.0.1:0' }}, \
         {{ address = 'unix:{}', mode = '0600' }}]\n",
        path.display()
    );
    let mut first = Process::start("unix-killed", &base);
    wait("the socket", || UnixStream::connect(&path).is_ok());
    let mut second = command("unix-second", &base).stderr(std::process::Stdio::piped()).spawn();
    let output = second.as_mut().unwrap().wait().unwrap();
    assert_eq!(output.code(), Some(1));
    let mut text = String::new();
    second.unwrap().stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("another process listens on this socket"), "{text}");
    first.signal(libc::SIGKILL);
    first.ended();
    assert!(path.exists());
    let mut third = Process::start("unix-third", &base);
    echoes(UnixStream::connect(&path).unwrap(), "");
    third.signal(libc::SIGTERM);
    assert_eq!(third.ended().code(), Some(0), "{}", third.logged());
    assert!(!path.exists());
}

#[test]
fn unix_socket_file_is_removed_under_landlock_too() {
    if !has_uring() {
        return;
    }
    let folder = socket("landlock");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("s");
    let base = format!(
        "threads = 1\npin = false\nprocess.landlock = true\nlisteners = [\
         {{ address = '127.0.0.1:0' }}, {{ address = 'unix:{}' }}]\n",
        path.display()
    );
    let mut process = Process::start("unix-landlock", &base);
    echoes(UnixStream::connect(&path).unwrap(), "");
    process.signal(libc::SIGTERM);
    assert_eq!(process.ended().code(), Some(0), "{}", process.logged());
    assert!(!path.exists(), "{}", process.logged());
    fs::remove_dir(&folder).unwrap();
}

#[test]
fn unix_socket_peers_are_trusted_by_an_explicit_key_only() {
    let (trusting, plain) = (socket("trusting"), socket("plain"));
    let mut config = config();
    config.limits.connections_per_address = 1;
    let trusted_proxies = vec!["unix".parse().unwrap()];
    let proxy_protocol = ProxyProtocol::Accepted;
    config.listeners = vec![
        Listener { trusted_proxies, proxy_protocol, ..at_unix(&trusting) },
        Listener {
            proxy_protocol,
            trusted_proxies: vec!["::1".parse().unwrap()],
            ..at_unix(&plain)
        },
    ];
    let Some(server) = start(config) else { return };
    let open = |path: &PathBuf| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 40001 80\r\n").unwrap();
        stream
    };
    let first = open(&trusting);
    echoes(&first, "");
    let ended = |mut stream: UnixStream| matches!(stream.read(&mut [0]), Ok(0) | Err(_));
    assert!(ended(open(&trusting)), "the second of one client");
    assert_eq!(server.count("refused_address"), 1);
    assert!(ended(open(&plain)), "nobody is trusted there");
    assert_eq!(server.count("proxy_headers_untrusted"), 1);
}

#[test]
fn ipv6_address_is_dual_stack_unless_v6_only() {
    for v6_only in [false, true] {
        let mut config = config();
        config.is_demo = false; // The demo has loopback addresses only.
        config.listeners = vec![Listener { v6_only, ..listener("[::]:0") }];
        let Some(server) = start(config) else { return };
        let port = server.addresses()[0].port();
        Client::open(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)), "/echo").sync();
        let v4 = TcpStream::connect(("127.0.0.1", port));
        assert_eq!(v4.is_err(), v6_only, "{v4:?}");
        if let Ok(stream) = v4 {
            Client::from(stream).upgrade("/echo").sync();
        }
    }
}

#[test]
fn proxy_header_comes_byte_by_byte_or_with_the_first_payload() {
    let mut config = config();
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    config.listeners[0] = Listener {
        trusted_proxies,
        proxy_protocol: ProxyProtocol::Required,
        ..listener("127.0.0.1:0")
    };
    config.limits.connections_per_address = 1;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let line = |host: u8| format!("PROXY TCP4 192.0.2.{host} 10.0.0.1 40001 80\r\n");
    let mut client = Client::connect(address);
    for byte in line(1).bytes() {
        client.send(&[byte]);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    client = client.upgrade("/echo");
    client.sync();
    let mut other = Client::connect(address);
    other.send(format!("{}{}", line(2), handshake("/echo", "")).as_bytes());
    assert_eq!(other.response().status, 101);
    other.sync();
    let mut refused = Client::connect(address);
    refused.send(line(1).as_bytes());
    refused.end();
    assert_eq!(server.count("refused_address"), 1);
    assert_eq!(server.count("proxy_headers"), 3);
    drop((client, other));
    wait_count(&server, "connections", 0);
    let mut again = Client::connect(address);
    again.send(line(1).as_bytes());
    again.upgrade("/echo").sync();
}
