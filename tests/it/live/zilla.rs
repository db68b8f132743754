//! Configuration files in Zilla's format, served from end to end.

use super::child::Process;
use super::tls::Secure;
use crate::certs::{Authority, Leaf, folder, table};
use crate::net::*;
use crate::peer::Received;
use crate::tls_client::store;
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, LocalKeyId, PrivateKey, PrivateKeyChain};
use polycast::config::{Config, FileFormat};
use polycast::server::Server;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// The configuration of an echo server with TLS for `localhost`.
fn echo(authority: &Authority) -> Config {
    let tls = table("zilla-echo", authority, "");
    let text = format!(
        "listeners = [{{ address = '127.0.0.1:0', tls = {tls} }}]\n[[routes]]\nendpoint = 'echo'\n"
    );
    let parsed = Config::parse(&text, FileFormat::Toml, "test").unwrap();
    Config { listeners: parsed.listeners, routes: parsed.routes, ..config() }
}

/// The proxy's file with its stores, and with these ports in place of its own.
fn proxy(authority: &Authority, upstream: SocketAddr) -> Config {
    let folder = folder("zilla-proxy");
    store(&folder, &authority.leaf(&["localhost"]), &[("localhost", authority)]);
    let mut text = include_str!("../../../examples/zilla/proxy.yaml").to_owned();
    let port = upstream.port().to_string();
    for (from, to) in [
        ("${{env.STORE_PASSWORD}}", "generated"),
        // A host name, which has to be resolved.
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

/// Reads the text of the metrics exporter.
fn scrape(address: SocketAddr) -> String {
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
        wait(&line, || scrape(exporter).contains(&line));
    };
    // The response is 502 until the name is resolved.
    wait_count(&server, "names_found", 1);
    let mut socket = Secure::open(front, &client, "/any?x=y");
    socket.send(&masked(true, TEXT, b"through"));
    assert_eq!(socket.text(), "through");
    sample("stream_opens_received_total", "1");
    sample("stream_active_sent", "1");
    let close = 1000_u16.to_be_bytes();
    socket.send(&masked(true, CLOSE, &close));
    let received = socket.next();
    assert!(matches!(received, Some(Received::Close(Some(1000), _))), "{received:?}");
    drop(socket);
    sample("stream_active_received", "0");
    sample("stream_closes_received_total", "1");
    sample("stream_closes_sent_total", "1");
    sample("stream_errors_received_total", "0");
    assert!(scrape(exporter).contains("stream_data_received_total{"));
    // A client from another origin is refused, as by Zilla.
    let text = handshake("/", "Origin: https://evil.example\r\n");
    let mut stranger = Secure::connect(front, &client, "localhost").unwrap();
    stranger.send(text.as_bytes());
    let received = stranger.next();
    assert!(matches!(received, Some(Received::Answer { status: 403, .. })), "{received:?}");
}

/// The program with a file in Zilla's format on its own port, and its output.
struct Served {
    process: Process,
    written: Arc<Mutex<String>>,
}

impl Served {
    /// Starts the program with the unchanged file, except for the address.
    fn start(file: &str) -> Served {
        let folder = folder("zilla-served");
        let name = PathBuf::from(file).file_stem().unwrap().to_owned();
        let log = folder.join(name).with_extension("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
        command.args(["--config", file, "--listen", "127.0.0.1:0", "--threads", "1", "--no-pin"]);
        command.args(["--io", io()]);
        command.env("KEYSTORE_PASSWORD", "generated").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.rsplit("://").next().and_then(|text| text.trim().parse().ok());
        let address = address.unwrap_or_else(|| panic!("{line}{:?}", fs::read_to_string(&log)));
        let written = Arc::new(Mutex::new(line));
        let lines = written.clone();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| {
                let mut written = lines.lock().unwrap();
                written.push_str(&line);
                written.push('\n');
            });
        });
        Served { process: Process { child, address, log }, written }
    }

    fn written(&self) -> String {
        self.written.lock().unwrap().clone()
    }

    /// Waits for an event in the format of Zilla's exporter.
    fn event(&self, component: &str, name: &str) {
        let is_it = |line: &str| {
            let parts =
                line.strip_prefix(&format!("{component} [")).and_then(|it| it.split_once(']'));
            parts.is_some_and(|(time, rest)| {
                time.ends_with(" +0000")
                    && rest.starts_with(&format!(" [0000000000000000] {name} "))
            })
        };
        wait(name, || self.written().lines().any(is_it));
    }
}

fn given(name: &str) -> String {
    format!("{}/tests/zilla/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

/// Opens a WebSocket with the subprotocol of the files.
fn open_echo(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.send(handshake("/", "Sec-WebSocket-Protocol: echo\r\n").as_bytes());
    let answer = client.response();
    assert_eq!((answer.status, answer.field("Sec-WebSocket-Protocol")), (101, Some("echo")));
    client
}

#[test]
fn zilla_files_of_echo_and_reflect_are_served_unchanged() {
    if !has_uring() {
        return;
    }
    let echo = Served::start(&given("echo"));
    let mut client = open_echo(echo.process.address);
    client.send_text("hello");
    assert_eq!(client.text(), "hello");
    echo.event("example.polycast", "ENGINE_STARTED");
    let mut other = Client::connect(echo.process.address);
    other.send(handshake("/", "Sec-WebSocket-Protocol: other\r\n").as_bytes());
    assert_eq!(other.response().status, 404);

    let reflect = Served::start(&given("reflect"));
    let mut one = open_echo(reflect.process.address);
    one.send_text("first");
    assert_eq!(one.text(), "first");
    let mut two = open_echo(reflect.process.address);
    two.send_text("second");
    assert_eq!((two.text(), one.text()), ("second".to_owned(), "second".to_owned()));
    reflect.event("example.polycast", "ENGINE_STARTED");
}

/// A self-signed authority with the name only in its common name, as Zilla's are.
fn keytool(name: &str) -> Leaf {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    Leaf { cert: params.self_signed(&key).unwrap(), key }
}

/// Writes a store with an entry of this name, which has its key or is trusted.
fn write_store(file: PathBuf, name: &str, leaf: &Leaf, has_key: bool) {
    let certificate = Certificate::from_der(leaf.cert.der()).unwrap();
    let mut store = KeyStore::new();
    let entry = match has_key {
        true => {
            let key = PrivateKey::from_der(&leaf.key.serialize_der()).unwrap();
            let chain = PrivateKeyChain::new(LocalKeyId::from(&b"1"[..]), key, [certificate]);
            KeyStoreEntry::PrivateKeyChain(chain)
        }
        false => KeyStoreEntry::Certificate(certificate),
    };
    store.add_entry(name, entry);
    fs::write(file, store.writer("generated").write().unwrap()).unwrap();
}

/// Creates the folder of the proxy's file, and an echo server as its backend that presents
/// `backend_leaf`.
fn proxied(name: &str, trusted: &Leaf, backend_leaf: &Leaf) -> Option<(Server, String, Leaf)> {
    let folder = folder(name);
    fs::create_dir_all(folder.join("tls")).unwrap();
    let own = keytool("localhost");
    write_store(folder.join("tls/localhost.p12"), "localhost", &own, true);
    write_store(folder.join("tls/truststore.p12"), "backend", trusted, false);
    backend_leaf.write(&folder, "backend");
    let at = folder.display();
    let text = format!(
        "[[listeners]]\naddress = '127.0.0.1:0'\ntls.certificates = \
         [{{ cert = '{at}/backend.pem', key = '{at}/backend.key' }}]\n\
         [[routes]]\nendpoint = 'echo'\n[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n"
    );
    let file = folder.join("backend.toml");
    fs::write(&file, text).unwrap();
    let parsed = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    let backend = Config { listeners: parsed.listeners, routes: parsed.routes, ..config() };
    let backend = start(backend)?;
    // The host name does not exist on this machine.
    let port = backend.addresses()[0].port();
    let text = fs::read_to_string(given("proxy")).unwrap();
    let text = text.replace("host: backend", "host: 127.0.0.1");
    let text = text.replace("port: 8443", &format!("port: {port}"));
    let file = folder.join(format!("{name}.yaml"));
    fs::write(&file, text).unwrap();
    Some((backend, file.display().to_string(), own))
}

fn trusting(leaf: &Leaf) -> Arc<rustls::ClientConfig> {
    let roots = polycast::tls::roots(&{
        let file = folder("zilla-served").join("client-trust.pem");
        fs::write(&file, leaf.cert.pem()).unwrap();
        file
    });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().dangerous();
    let verifier = roots.unwrap().verifier().unwrap();
    Arc::new(builder.with_custom_certificate_verifier(verifier).with_no_client_auth())
}

#[test]
fn zilla_file_of_a_proxy_is_served_with_certificates_as_its_own_are() {
    let backend_leaf = keytool("backend");
    let Some((backend, file, own)) = proxied("zilla-given", &backend_leaf, &backend_leaf) else {
        return;
    };
    let served = Served::start(&file);
    let client = trusting(&own);
    let mut socket = Secure::open(served.process.address, &client, "/any?x=y");
    socket.send(&masked(true, TEXT, b"through"));
    assert_eq!(socket.text(), "through");
    served.event("example.polycast", "ENGINE_STARTED");
    // Bytes that are not TLS are reported at every log level.
    let mut plain = Client::connect(served.process.address);
    plain.send(&[22, 3, 1, 0, 4, 99, 0, 0, 0]);
    served.event("example.polycast", "BINDING_TLS_HANDSHAKE_FAILED");
    assert!(!served.process.logged().contains("BINDING_TLS_HANDSHAKE_FAILED"));
    drop(backend);

    // Another certificate with the same name is not trusted.
    let twin = keytool("backend");
    let Some((_backend, file, own)) = proxied("zilla-stranger", &backend_leaf, &twin) else {
        return;
    };
    let served = Served::start(&file);
    let mut socket = Secure::connect(served.process.address, &trusting(&own), "localhost").unwrap();
    socket.send(handshake("/", "").as_bytes());
    let received = socket.next();
    assert!(matches!(received, Some(Received::Answer { status: 502, .. })), "{received:?}");
}
