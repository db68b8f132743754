//! Certificates by ACME, from a small certificate authority of this test that can misbehave. The
//! step `acme` of `tests/run` uses Pebble, the test server of Let's Encrypt, for what it can do.

mod authority;

use crate::live::child::Process;
use crate::net::*;
use authority::Ca;
use polycast::config::{Config, FileFormat, Overrides};
use polycast::server::Server;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::json;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const APP: &str = "[[apps]]\nid = '1'\nkey = 'app-key'\nsecret = 'app-secret'\n";

/// An ACME section for these domains, as an inline table.
fn section(ca: &Ca, domains: &[&str], more: &str) -> String {
    let domains: Vec<String> = domains.iter().map(|it| format!("'{it}'")).collect();
    let (folder, directory) = (ca.folder.display(), ca.directory());
    format!(
        "{{ accept_terms = true, domains = [{}], store = '{folder}/store', directory = \
         '{directory}', ca_file = '{folder}/ca.pem'{more} }}",
        domains.join(", ")
    )
}

/// A server with a TLS listener for these domains and a listener without TLS.
fn configured(ca: &Ca, domains: &[&str], more: &str) -> Config {
    let section = section(ca, domains, more);
    parsed(&format!(
        "listeners = [{{ address = '127.0.0.1:0', tls = {{ acme = {section} }} }}, \
         {{ address = '127.0.0.1:0' }}]\n"
    ))
}

fn parsed(listeners: &str) -> Config {
    let text = format!("{listeners}{APP}");
    let listeners = Config::parse(&text, FileFormat::Toml, "test").unwrap().listeners;
    Config { listeners, ..config() }
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A TLS connection of a client that trusts the authority.
fn connect(ca: &Ca, address: SocketAddr, name: &str) -> io::Result<Secure> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let conn = ClientConnection::new(Arc::new(ca.client()), name).unwrap();
    let mut stream = StreamOwned::new(conn, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The certificate that a client gets for this name.
fn leaf(ca: &Ca, address: SocketAddr, name: &str) -> io::Result<Vec<u8>> {
    let stream = connect(ca, address, name)?;
    Ok(stream.conn.peer_certificates().unwrap()[0].to_vec())
}

/// Reads until the bytes end with these.
fn await_bytes(stream: &mut Secure, end: &[u8]) {
    let (mut bytes, mut piece) = (Vec::new(), [0; 1024]);
    while !bytes.ends_with(end) {
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "it ends after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..n]);
    }
}

fn get(address: SocketAddr, path: &str) -> Response {
    let mut client = Client::connect(address);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    client.response()
}

/// The port of a listener that was closed, so that connections to it are refused.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn stored(ca: &Ca, name: &str) -> PathBuf {
    ca.folder.join("store").join(name)
}

#[test]
fn acme_certificate_is_ordered_by_tls_alpn_while_the_server_serves() {
    let ca = Ca::start("alpn");
    let domains = ["a.test", "b.test"];
    let Some(server) = start(configured(&ca, &domains, ", contact = ['ops@a.test']")) else {
        return;
    };
    let [secure, plain] = [server.addresses()[0], server.addresses()[1]];
    // Nothing is validated yet: the other listener serves, and handshakes fail.
    wait("the orders", || ca.orders().len() == 2);
    assert!(leaf(&ca, secure, "a.test").is_err());
    wait_count(&server, "acme_handshakes_refused", 1);
    wait_count(&server, "tls_failed", 1);
    assert_eq!((server.count("acme_domains"), server.count("acme_missing")), (2, 2));
    let ready = get(plain, "/ready");
    let text = "ok\n2 of 2 ACME domains have no certificate yet\n";
    assert_eq!((ready.status, &*ready.body), (200, text));
    let metric = |domain: &str| {
        let text = get(plain, "/metrics").body;
        let name =
            format!("polycast_acme_certificate_expiry_timestamp_seconds{{domain=\"{domain}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_owned();
        line.parse::<u64>().unwrap()
    };
    assert_eq!(metric("a.test"), 0);
    ca.change(|it| it.leads_to = Some(secure));
    wait_count(&server, "acme_certificates", 2);
    for domain in domains {
        leaf(&ca, secure, domain).unwrap();
        assert!(metric(domain) > 0, "{domain}");
    }
    wait_count(&server, "acme_missing", 0);
    assert_eq!(get(plain, "/ready").body, "ok\n");
    let counts = ["acme_orders", "acme_challenges", "acme_handshakes_refused"];
    assert_eq!(counts.map(|name| server.count(name)), [2, 16, 1]);
    assert_eq!(ca.contact(), json!(["mailto:ops@a.test"]));
    for name in ["account.json", "a.test.pem", "b.test.pem"] {
        let mode = fs::metadata(stored(&ca, name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // After a restart the stored certificates are used at once, and none is ordered.
    let before = leaf(&ca, secure, "a.test").unwrap();
    drop(server);
    let Some(server) = start(configured(&ca, &domains, ", contact = ['ops@a.test']")) else {
        return;
    };
    assert_eq!(leaf(&ca, server.addresses()[0], "a.test").unwrap(), before);
    wait_count(&server, "acme_domains", 2);
    assert_eq!((server.count("acme_orders"), server.count("acme_missing")), (0, 0));
    assert_eq!(ca.orders().len(), 2);
}

#[test]
fn acme_certificate_is_ordered_by_http() {
    let ca = Ca::start("http");
    let Some(server) = start(configured(&ca, &["a.test"], ", challenge = 'http-01'")) else {
        return;
    };
    let [secure, plain] = [server.addresses()[0], server.addresses()[1]];
    ca.change(|it| it.leads_to = Some(plain));
    wait_count(&server, "acme_certificates", 1);
    leaf(&ca, secure, "a.test").unwrap();
    wait_count(&server, "acme_challenges", 8);
    let path = format!("/.well-known/acme-challenge/token-0-{}", "x".repeat(22));
    assert_eq!(get(plain, &path).status, 404, "it is over");
}

#[test]
fn acme_nonces_that_are_refused_are_tried_again() {
    let ca = Ca::start("nonce");
    ca.change(|it| it.bad_nonces = 2);
    let Some(server) = start(configured(&ca, &["a.test"], "")) else { return };
    ca.change(|it| it.leads_to = Some(server.addresses()[0]));
    wait_count(&server, "acme_certificates", 1);
    assert_eq!(server.count("acme_refused"), 0);
}

#[test]
fn acme_account_is_bound_to_an_external_one() {
    let ca = Ca::start("binding");
    ca.change(|it| it.binding = Some(("kid-1", b"a secret of some length".to_vec())));
    let more = ", eab_key_id = 'kid-1', eab_key = 'YSBzZWNyZXQgb2Ygc29tZSBsZW5ndGg'";
    let Some(server) = start(configured(&ca, &["a.test"], more)) else { return };
    ca.change(|it| it.leads_to = Some(server.addresses()[0]));
    wait_count(&server, "acme_certificates", 1);
    drop(server);
    let ca = Ca::start("no-binding");
    ca.change(|it| it.binding = Some(("kid-1", b"another secret".to_vec())));
    let Some(server) = start(configured(&ca, &["a.test"], more)) else { return };
    wait_count(&server, "acme_refused", 1);
    assert!(!stored(&ca, "account.json").exists());
}

/// The log of a server process until it has the words, and its text.
fn logged(name: &str, ca: &Ca, more: &str, words: &str) -> Option<String> {
    if !has_uring() {
        return None;
    }
    let section = section(ca, &["a.test"], "");
    let config = format!(
        "threads = 2\npin = false\n{more}listeners = [{{ address = '127.0.0.1:0' }}, \
         {{ address = '127.0.0.1:0', tls = {{ acme = {section} }} }}]\n"
    );
    let process = Process::start(name, &config);
    wait(words, || process.logged().contains(words));
    assert_eq!(get(process.address, "/ready").status, 200, "the other listener serves");
    Some(process.logged())
}

/// The number after `next_s=` in a log.
fn next_s(log: &str) -> u64 {
    let rest = log.split("next_s=").nth(1).unwrap_or_else(|| panic!("{log}"));
    rest.split(|it: char| !it.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn acme_store_is_written_by_a_confined_process() {
    let ca = Ca::start("confined");
    let process = "process = { landlock = true, seccomp = true, drop_capabilities = true }\n";
    let words = "an ACME account was registered";
    let Some(_) = logged("acme-confined", &ca, process, words) else { return };
    let mode = fs::metadata(ca.folder.join("store")).unwrap().permissions().mode();
    assert_eq!((mode & 0o777, stored(&ca, "account.json").exists()), (0o700, true));
}

#[test]
fn acme_rate_limit_is_logged_and_its_retry_after_respected() {
    let ca = Ca::start("limit");
    ca.change(|it| it.refusal = Some((429, "7200", true)));
    let Some(log) = logged("acme-limit", &ca, "", "no certificate was issued") else { return };
    let text = "a rate limit of the certificate authority was reached: too many new orders \
                recently (urn:ietf:params:acme:error:rateLimited)";
    assert!(log.contains("WARN") && log.contains(text), "{log}");
    assert!((7200..=9000).contains(&next_s(&log)), "{log}");
    assert_eq!(ca.orders().len(), 0);
}

#[test]
fn acme_busy_authority_without_a_problem_document_is_unreachable() {
    let ca = Ca::start("busy");
    ca.change(|it| it.refusal = Some((503, "600", false)));
    let Some(log) = logged("acme-busy", &ca, "", "no certificate was issued") else { return };
    assert!(log.contains("the certificate authority cannot be reached: it answers 503"), "{log}");
    assert!((600..=750).contains(&next_s(&log)), "{log}");
}

#[test]
fn acme_failed_challenge_is_logged_with_its_reason() {
    let ca = Ca::start("invalid");
    ca.change(|it| it.leads_to = Some(closed()));
    let Some(log) = logged("acme-invalid", &ca, "", "no certificate was issued") else { return };
    let text = "the challenge has failed: Connection: Connection refused (os error 111) \
                (urn:ietf:params:acme:error:unauthorized)";
    assert!(log.contains(text), "{log}");
    assert!((300..=375).contains(&next_s(&log)), "{log}");
    assert_eq!(ca.orders(), [("a.test".to_owned(), "invalid", json!(null))], "one order only");
}

#[test]
fn acme_authority_that_is_not_there_keeps_nothing_from_serving() {
    let ca = Ca::start("gone");
    let directory = format!(", directory = 'https://{}/'", closed());
    let config = configured(&ca, &["a.test"], "");
    let own = ca.directory();
    let mut listeners = config.listeners.clone();
    let acme = listeners[0].tls.acme.as_mut().unwrap();
    assert_eq!(acme.directory, own);
    acme.directory = directory.split('\'').nth(1).unwrap().to_owned();
    let Some(server) = start(Config { listeners, ..config }) else { return };
    wait_count(&server, "acme_unreachable", 1);
    assert_eq!(get(server.addresses()[1], "/live").status, 200);
    assert!(leaf(&ca, server.addresses()[0], "a.test").is_err());
}

#[test]
fn acme_certificate_for_another_name_is_not_used() {
    let ca = Ca::start("other-name");
    ca.change(|it| it.wrong_name = Some("evil.test"));
    let Some(server) = start(configured(&ca, &["a.test"], "")) else { return };
    ca.change(|it| it.leads_to = Some(server.addresses()[0]));
    wait_count(&server, "acme_certificates_unusable", 1);
    assert!(leaf(&ca, server.addresses()[0], "evil.test").is_err());
    assert!(!stored(&ca, "a.test.pem").exists());
}

#[test]
fn acme_expired_certificate_is_not_used() {
    let ca = Ca::start("expired");
    ca.change(|it| it.lifetime_s = 0);
    let Some(server) = start(configured(&ca, &["a.test"], "")) else { return };
    ca.change(|it| it.leads_to = Some(server.addresses()[0]));
    wait_count(&server, "acme_certificates_unusable", 1);
    assert!(!stored(&ca, "a.test.pem").exists());
}

#[test]
fn acme_nothing_is_ordered_if_it_cannot_be_stored() {
    let ca = Ca::start("read-only");
    let config = configured(&ca, &["a.test"], "");
    let mut listeners = config.listeners.clone();
    // No folder can be made there, not even by root.
    listeners[0].tls.acme.as_mut().unwrap().store = "/proc/polycast-test".to_owned();
    let Some(server) = start(Config { listeners, ..config }) else { return };
    wait_count(&server, "acme_store_failed", 1);
    assert_eq!((ca.orders().len(), ca.contact()), (0, json!(null)), "no account either");
}

#[test]
fn acme_certificate_is_renewed_without_dropping_connections() {
    let ca = Ca::start("renewed");
    ca.change(|it| it.lifetime_s = 20);
    let Some(server) = start(configured(&ca, &["a.test"], "")) else { return };
    let secure = server.addresses()[0];
    ca.change(|it| it.leads_to = Some(secure));
    wait_count(&server, "acme_certificates", 1);
    let mut open = connect(&ca, secure, "a.test").unwrap();
    open.write_all(handshake("/echo", "").as_bytes()).unwrap();
    await_bytes(&mut open, b"\r\n\r\n");
    let first = open.conn.peer_certificates().unwrap()[0].to_vec();
    ca.change(|it| it.lifetime_s = 90 * 86_400);
    wait_count(&server, "acme_certificates", 2);
    assert_ne!(leaf(&ca, secure, "a.test").unwrap(), first);
    open.write_all(&masked(true, TEXT, b"still open")).unwrap();
    await_bytes(&mut open, b"still open");
    let text = fs::read_to_string(stored(&ca, "a.test.pem")).unwrap();
    assert_eq!(text.matches("PRIVATE KEY-----").count(), 2, "one key with its beginning and end");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(server.count("acme_orders"), 2, "the new certificate lasts");
}

#[test]
fn acme_certificate_is_renewed_when_the_authority_asks_for_it() {
    let ca = Ca::start("window");
    // Half of the lifetime is over first; the renewal then says what it replaces.
    ca.change(|it| (it.window_s, it.lifetime_s) = (Some((-200, -100)), 16));
    let Some(server) = start(configured(&ca, &["a.test"], "")) else { return };
    ca.change(|it| it.leads_to = Some(server.addresses()[0]));
    wait("a renewal", || ca.orders().iter().filter(|it| it.1 == "valid").count() >= 2);
    let orders = ca.orders();
    assert!(orders[0].2.is_null());
    // RFC 9773 section 4.1: the identifier of the authority's key, and the serial number.
    let replaces = orders[1].2.as_str().expect("the renewal says what it replaces");
    assert_eq!(replaces.split('.').count(), 2, "{replaces}");
}

#[test]
fn acme_two_listeners_share_the_certificate_of_a_domain() {
    let ca = Ca::start("shared");
    let (one, two) = (section(&ca, &["a.test"], ""), section(&ca, &["b.test", "a.test"], ""));
    let at = |tls: &str| format!("{{ address = '127.0.0.1:0', tls = {{ acme = {tls} }} }}");
    let config = parsed(&format!("listeners = [{}, {}]\n", at(&one), at(&two)));
    let Some(server) = start(config) else { return };
    let addresses = [server.addresses()[0], server.addresses()[1]];
    ca.change(|it| it.leads_to = Some(addresses[1]));
    wait_count(&server, "acme_certificates", 2);
    let [first, second] = addresses.map(|it| leaf(&ca, it, "a.test").unwrap());
    assert_eq!(first, second);
    assert!(leaf(&ca, addresses[0], "b.test").is_err(), "not a domain of this listener");
    leaf(&ca, addresses[1], "b.test").unwrap();
    assert_eq!(ca.orders().len(), 2);
}

#[test]
fn acme_reload_adds_and_removes_domains_and_changes_contacts() {
    let ca = Ca::start("reload");
    let Some(mut server) = start(configured(&ca, &["a.test", "b.test"], "")) else { return };
    let secure = server.addresses()[0];
    ca.change(|it| it.leads_to = Some(secure));
    wait_count(&server, "acme_certificates", 2);
    let kept = leaf(&ca, secure, "a.test").unwrap();
    let renew = |server: &mut Server, domains: &[&str], more: &str| {
        let config = configured(&ca, domains, more);
        // The ports that the kernel chose are those of the running server.
        server.renew(config.with(Overrides::default()).unwrap());
    };
    renew(&mut server, &["a.test", "c.test"], "");
    wait_count(&server, "acme_certificates", 3);
    wait("the new domain", || leaf(&ca, secure, "c.test").is_ok());
    assert_eq!(leaf(&ca, secure, "a.test").unwrap(), kept);
    wait("the end of the old domain", || leaf(&ca, secure, "b.test").is_err());
    assert!(stored(&ca, "b.test.pem").exists(), "its file stays");
    let domains: Vec<_> = ca.orders().into_iter().map(|it| it.0).collect();
    assert_eq!((domains.len(), &*domains[2]), (3, "c.test"));
    // A contact is changed with the next order.
    renew(&mut server, &["a.test", "d.test"], ", contact = ['new@a.test']");
    wait_count(&server, "acme_certificates", 4);
    assert_eq!(ca.contact(), json!(["mailto:new@a.test"]));
    let account = fs::read_to_string(stored(&ca, "account.json")).unwrap();
    assert!(account.contains("new@a.test"));
}
