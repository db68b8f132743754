//! Guards on the real ring: fetched keys, tokens that expire, and a changed configuration.

use crate::net::*;
use crate::peer;
use crate::signer::Private;
use polycast::config::{Config, EndpointKind, GuardConfig, GuardKey, Pattern, Route, Secret};
use polycast::jwt::Algorithm;
use polycast::server::Server;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// How an issuer answers a request.
#[derive(Clone)]
enum Behaviour {
    Gives(String),
    /// It closes the connection without a response.
    Down,
    /// It reads the request and does not respond.
    Slow,
}

/// A server of a key set.
struct Issuer {
    address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Issuer {
    fn start(behaviour: Behaviour) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let theirs = behaviour.clone();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let behaviour = theirs.lock().unwrap().clone();
                kept.extend(answer(stream.unwrap(), &behaviour));
            }
        });
        Issuer { address, behaviour }
    }

    fn turns(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }
}

/// Answers one request. Returns the connection if it must stay open.
fn answer(mut stream: TcpStream, behaviour: &Behaviour) -> Option<TcpStream> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return None;
        }
    }
    assert!(head.starts_with("GET /keys?a=b HTTP/1.1\r\n"), "{head}");
    match behaviour {
        Behaviour::Down => None,
        Behaviour::Slow => Some(stream),
        Behaviour::Gives(body) => {
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes());
            None
        }
    }
}

const P256: &str = include_str!("../../keys/p256.pem");
const P384: &str = include_str!("../../keys/p384.pem");

/// Base64url without padding.
fn b64(bytes: &[u8]) -> String {
    let text = polycast::crypto::encode_base64(bytes);
    text.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

/// The private key of this name: `a` is a key of P-256, `b` one of P-384.
fn private(kid: &str) -> (Algorithm, Private) {
    let (algorithm, pem) =
        if kid == "a" { (Algorithm::ES256, P256) } else { (Algorithm::ES384, P384) };
    (algorithm, Private::from_pem(pem, algorithm))
}

/// A key set with this key.
fn set(kid: &str) -> Behaviour {
    let (algorithm, key) = private(kid);
    let crv = if algorithm == Algorithm::ES256 { "P-256" } else { "P-384" };
    let point = &key.public()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let (x, y) = (b64(x), b64(y));
    Behaviour::Gives(format!(
        r#"{{"keys":[{{"kty":"EC","crv":"{crv}","kid":"{kid}","x":"{x}","y":"{y}"}}]}}"#
    ))
}

/// A token that is signed with the key of this name.
fn signed(kid: &str) -> String {
    let (algorithm, key) = private(kid);
    let header = format!(r#"{{"alg":"{algorithm:?}","typ":"JWT","kid":"{kid}"}}"#);
    let message = format!("{}.{}", b64(header.as_bytes()), b64(br#"{"sub":"ada"}"#));
    let signature = key.sign(&message, algorithm);
    format!("{message}.{signature}")
}

/// The status of the response to a handshake with a token, and the connection.
fn login(server: &Server, token: &str) -> (u16, Client) {
    let mut client = Client::connect(server.addresses()[0]);
    let field = format!("Authorization: Bearer {token}\r\n");
    client.send(handshake("/guarded", &field).as_bytes());
    (client.response().status, client)
}

fn status(server: &Server, token: &str) -> u16 {
    login(server, token).0
}

fn guarded(guard: GuardConfig) -> Config {
    let mut config = config();
    let mut route = Route::to(EndpointKind::Echo);
    route.guarded.insert(guard.name.clone(), Vec::new());
    config.guards.push(guard);
    config.routes.truncate(4);
    config.routes.push(route);
    config
}

fn fetching(issuer: &Issuer) -> Config {
    let mut guard = GuardConfig::new("g");
    guard.keys_url = format!("http://{}/keys?a=b", issuer.address);
    guard.allow_private = true;
    guard.keys_floor_s = 1;
    guarded(guard)
}

/// Repeats the handshake until the status is `want`.
fn becomes(server: &Server, token: &str, want: u16) {
    wait(&format!("an answer of {want}"), || {
        std::thread::sleep(Duration::from_millis(50));
        status(server, token) == want
    });
}

#[test]
fn guard_keys_are_fetched_and_rotate() {
    let issuer = Issuer::start(set("a"));
    let Some(server) = start(fetching(&issuer)) else { return };
    wait_count(&server, "keys_fetched", 1);
    assert_eq!((status(&server, &signed("a")), status(&server, &signed("b"))), (101, 403));
    issuer.turns(set("b"));
    // The unknown key causes a fetch of the key set, after the minimum interval and not the regular
    // one.
    becomes(&server, &signed("b"), 101);
    assert_eq!(status(&server, &signed("a")), 403);
    assert!(server.count("keys_fetched") >= 2 && server.count("keys_failed") == 0);
}

#[test]
fn guard_old_keys_serve_until_new_ones_arrive() {
    let issuer = Issuer::start(Behaviour::Down);
    let Some(server) = start(fetching(&issuer)) else { return };
    wait_count(&server, "keys_failed", 1);
    assert_eq!(status(&server, &signed("a")), 503);
    issuer.turns(set("a"));
    becomes(&server, &signed("a"), 101);
    let huge = format!("{{\"keys\":[{}1]}}", "1,".repeat(200_000));
    for behaviour in
        [Behaviour::Down, Behaviour::Gives("<html>".to_owned()), Behaviour::Gives(huge)]
    {
        let failed = server.count("keys_failed");
        issuer.turns(behaviour);
        wait("a failure", || {
            assert_eq!(status(&server, &signed("b")), 403);
            assert_eq!(status(&server, &signed("a")), 101);
            std::thread::sleep(Duration::from_millis(50));
            server.count("keys_failed") > failed
        });
    }
    // Handshakes do not wait for an issuer that does not respond.
    issuer.turns(Behaviour::Slow);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let begun = Instant::now();
        assert_eq!(status(&server, &signed("b")), 403);
        assert!(begun.elapsed() < Duration::from_secs(2), "it was waited for");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn with_secret(secret: &str) -> Config {
    let mut guard = GuardConfig::new("g");
    guard.keys.push(GuardKey { secret: Secret::new(secret), ..GuardKey::default() });
    guarded(guard)
}

#[test]
fn guard_renewal_reaches_every_connection_of_its_identity() {
    let Some(server) = start(with_secret(peer::TOKEN_SECRET)) else { return };
    let end_s = unix_s() + 4;
    let token = |sub: &str, exp: u64| peer::token(&format!(r#"{{"sub":"{sub}","exp":{exp}}}"#));
    let open = |sub: &str| {
        let (status, client) = login(&server, &token(sub, end_s));
        assert_eq!(status, 101);
        client
    };
    // Enough connections for the kernel to give some to each reactor.
    let mut ada: Vec<Client> = (0..16).map(|_| open("ada")).collect();
    let mut eve: Vec<Client> = (0..4).map(|_| open("eve")).collect();
    let mut post = Client::connect(server.addresses()[0]);
    let fresh = token("ada", end_s + 3600);
    post.send(
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nAuthorization: Bearer {fresh}\r\n\
             Content-Type: application/x-challenge-response\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(post.response().status, 204);
    for client in &mut eve {
        assert_eq!(client.close(), (1008, "the token has expired".to_owned()));
    }
    assert!(unix_s() >= end_s, "not before its time");
    std::thread::sleep(Duration::from_millis(1500));
    for client in &mut ada {
        client.send_text("still here");
        assert_eq!(client.text(), "still here");
    }
    assert_eq!((server.count("guard_expired"), server.count("guard_renewals")), (4, 1));
}

#[test]
fn guard_reload_applies_at_once_and_keeps_connections() {
    let Some(mut server) = start(with_secret(peer::TOKEN_SECRET)) else { return };
    let token = peer::token(r#"{"sub":"ada"}"#);
    let (before, mut client) = login(&server, &token);
    assert_eq!(before, 101);
    server.renew(with_secret("another secret of no less than 32 bytes"));
    becomes(&server, &token, 403);
    client.send_text("still here");
    assert_eq!(client.text(), "still here");
    server.renew(with_secret(peer::TOKEN_SECRET));
    becomes(&server, &token, 101);
}

#[test]
fn guard_first_remote_keys_can_come_later() {
    let issuer = Issuer::start(set("a"));
    let Some(mut server) = start(with_secret(peer::TOKEN_SECRET)) else { return };
    assert_eq!(status(&server, &signed("a")), 403);
    server.renew(fetching(&issuer));
    becomes(&server, &signed("a"), 101);
    assert_eq!(server.count("keys_fetched"), 1);
    // The thread that fetches the keys ends with the server, as one from the start does.
    server.stop();
    server.join().unwrap();
}

#[test]
fn guard_routes_and_origins_are_those_of_the_listener() {
    let mut config = config();
    let named = |name: &str| {
        let mut listener = listener("127.0.0.1:0");
        listener.name = name.to_owned();
        listener
    };
    config.listeners = vec![named("open"), named("closed")];
    config.listeners[1].allowed_origins.push(Pattern::new("same-origin"));
    let mut route = Route::to(EndpointKind::Echo);
    route.listeners.push("closed".to_owned());
    config.routes = vec![route];
    let Some(mut server) = start(config.clone()) else { return };
    let [open, closed] = server.addresses() else { panic!("two listeners") };
    let (open, closed) = (*open, *closed);
    let ask = |address: SocketAddr, field: &str| {
        let mut client = Client::connect(address);
        client.send(handshake("/", field).as_bytes());
        client.response().status
    };
    // Several connections, so that both reactors get some.
    for _ in 0..8 {
        assert_eq!((ask(open, ""), ask(closed, "")), (404, 101));
        assert_eq!(ask(closed, "Origin: https://evil.example\r\n"), 403);
    }
    // A reload changes the allowed origins of a listener, but not its address.
    config.listeners[1].allowed_origins.push(Pattern::new("https://*.example"));
    server.renew(config);
    wait("the new origins", || ask(closed, "Origin: https://evil.example\r\n") == 101);
    assert_eq!(ask(open, ""), 404);
}
