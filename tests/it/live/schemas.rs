//! Schemas of registries on the real ring, from an HTTP server that simulates both types of
//! registry.

use crate::certs::{self, Authority};
use crate::net::*;
use polycast::config::{Config, FileFormat};
use polycast::server::Server;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How the registry answers a request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// With this status and body.
    Is(u16, String),
    /// With a redirect to this URL.
    Redirect(String),
    /// It closes the connection.
    Nothing,
    /// It does not respond.
    Silence,
}

/// A 404 with the fields of all vendors: Confluent's and Karapace's, Apicurio's of version 2
/// (`message`, `error_code`) and of version 3 (`title`, `status`).
pub(super) const NOT_FOUND: &str = r#"{"error_code":40401,"message":"Subject 'x' not found.",
    "name":"ArtifactNotFoundException","detail":"d","title":"No artifact","status":404}"#;

/// The answers by path; every other path is answered with 404.
type Book = HashMap<String, Answer>;

/// An HTTP server that simulates a registry.
pub(super) struct Player {
    pub(super) address: SocketAddr,
    book: Arc<Mutex<Book>>,
    /// The answer to every request, if it is set.
    behaviour: Arc<Mutex<Option<Answer>>>,
    received: Arc<Mutex<Vec<String>>>,
}

impl Player {
    pub(super) fn start(tls: Option<Arc<ServerConfig>>) -> Player {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let player = Player {
            address,
            book: Arc::default(),
            behaviour: Arc::default(),
            received: Arc::default(),
        };
        let (book, behaviour, received) =
            (player.book.clone(), player.behaviour.clone(), player.received.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (book, behaviour, received) =
                    (book.clone(), behaviour.clone(), received.clone());
                let (tls, stream) = (tls.clone(), stream.unwrap());
                let answer = move |head: String| {
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    received.lock().unwrap().push(head);
                    let all = behaviour.lock().unwrap().clone();
                    all.or_else(|| book.lock().unwrap().get(&path).cloned())
                };
                std::thread::spawn(move || match tls {
                    None => play(stream, answer),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).unwrap();
                        play(StreamOwned::new(tls, stream), answer);
                    }
                });
            }
        });
        player
    }

    pub(super) fn knows(&self, path: &str, body: &str) {
        self.book.lock().unwrap().insert(path.to_owned(), Answer::Is(200, body.to_owned()));
    }

    pub(super) fn turns(&self, behaviour: Option<Answer>) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    /// Registers a schema in the form of Confluent's API; `more` is further fields.
    fn registers(&self, subject: &str, id: u64, schema: &str, more: &str) {
        let schema = serde_json::to_string(schema).unwrap();
        let body =
            format!(r#"{{"subject":"{subject}","id":{id},"version":1{more},"schema":{schema}}}"#);
        for version in ["latest", "1"] {
            self.knows(&format!("/subjects/{subject}/versions/{version}"), &body);
        }
        // The response by id has neither the id nor the subject.
        self.knows(&format!("/schemas/ids/{id}"), &format!(r#"{{"schema":{schema}{more}}}"#));
    }

    pub(super) fn paths(&self) -> Vec<String> {
        let received = self.received.lock().unwrap();
        received.iter().map(|head| head.split(' ').nth(1).unwrap_or_default().to_owned()).collect()
    }
}

fn play(stream: impl Read + Write, answer: impl Fn(String) -> Option<Answer>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let (status, more, body) = match answer(head) {
        None => (404, String::new(), NOT_FOUND.to_owned()),
        Some(Answer::Is(status, body)) => (status, String::new(), body),
        Some(Answer::Redirect(to)) => (302, format!("Location: {to}\r\n"), String::new()),
        Some(Answer::Nothing) => return,
        Some(Answer::Silence) => {
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\n{more}Content-Length: {length}\r\n\r\n");
    let _ = reader.get_mut().write_all(format!("{head}{body}").as_bytes());
    let _ = reader.get_mut().flush();
}

/// A configuration with a catalog `reg` of this type, with further keys, and `models` of the route
/// `/echo`.
fn config_at(url: &str, kind: &str, more: &str, models: &str) -> Config {
    let text = format!(
        "threads = 2\npin = false\ndrain_s = 5\nlimits.connections = 4096\n\
         listeners = [{{ address = '127.0.0.1:0' }}]\n\
         [[catalogs]]\nname = 'reg'\ntype = '{kind}'\nurl = '{url}'\n{more}\n\
         [[routes]]\nwhen = [{{ path = '/echo' }}]\nendpoint = 'echo'\n[routes.model]\n{models}\n\
         [[routes]]\nwhen = [{{ path = '/free' }}]\nendpoint = 'echo'\n\
         [[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n"
    );
    Config::parse(&text, FileFormat::Toml, "test").unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn config_of(player: &Player, kind: &str, more: &str, models: &str) -> Config {
    config_at(&format!("http://{}", player.address), kind, more, models)
}

pub(super) fn echo(server: &Server) -> Client {
    Client::open(server.addresses()[0], "/echo")
}

/// Sends one message on a new connection. Returns its echo, or the code and the reason of the
/// close.
fn try_text(server: &Server, text: &str) -> Result<String, (u16, String)> {
    try_frame(server, TEXT, text.as_bytes()).map(|payload| String::from_utf8(payload).unwrap())
}

pub(super) fn try_frame(
    server: &Server,
    opcode: u8,
    payload: &[u8],
) -> Result<Vec<u8>, (u16, String)> {
    let mut client = echo(server);
    client.send_frame(opcode, payload);
    let frame = client.frame();
    match frame.opcode {
        CLOSE => {
            let (code, reason) = frame.payload.split_first_chunk().unwrap();
            Err((u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap()))
        }
        _ => Ok(frame.payload),
    }
}

const MISSING: &str = "the schema is not there yet";
const CHAT: &str = "received.text = { model = 'json', catalog = 'reg', subject = 'chat' }";
const OBJECT: &str = r#"{"type":"object"}"#;
const JSON: &str = r#","schemaType":"JSON""#;

#[test]
fn schemas_subject_of_a_context_with_references() {
    let player = Player::start(None);
    let schema = serde_json::to_string(r#"{"properties":{"a":{"$ref":"a.json"}}}"#).unwrap();
    let reference = |name: &str, subject: &str| {
        format!(r#""references":[{{"name":"{name}","subject":"{subject}","version":3}}]"#)
    };
    let at = "/api/subjects/%3A.ctx%3Achat%2F1/versions/latest";
    let answer = format!(
        r#"{{"subject":":.ctx:chat/1","version":4,"id":7,"schemaType":"JSON","schema":{schema}}}"#
    );
    player.knows(at, &answer);
    let (to_a, to_b) = (reference("a.json", "a"), reference("b.json", ":.other:b"));
    let chat = format!(r#"{{"schema":{schema},"schemaType":"JSON",{to_a}}}"#);
    player.knows("/api/schemas/ids/7?subject=%3A.ctx%3A", &chat);
    let a = format!(
        r#"{{"subject":":.ctx:a","version":3,"id":5,"schema":"{{\"$ref\":\"b.json\"}}","schemaType":"JSON",{to_b}}}"#
    );
    player.knows("/api/subjects/%3A.ctx%3Aa/versions/3", &a);
    let b = r#"{"subject":":.other:b","version":3,"id":2,"schema":"{\"type\":\"integer\"}","schemaType":"JSON"}"#;
    player.knows("/api/subjects/%3A.other%3Ab/versions/3", b);
    let models = CHAT.replace("'chat'", "'chat/1'");
    let more = "context = 'ctx'\ncredentials.headers.authorization = 'Basic YTpi'";
    let url = format!("http://{}/api/", player.address);
    let Some(server) = start(config_at(&url, "confluent-schema-registry", more, &models)) else {
        return;
    };
    wait_count(&server, "schemas_retrieved", 1);
    assert_eq!(try_text(&server, r#"{"a":1}"#).unwrap(), r#"{"a":1}"#);
    let refused = try_text(&server, r#"{"a":"x"}"#).unwrap_err();
    assert_eq!(refused, (1008, "/a breaks the schema's rule `type`".to_owned()));
    assert_eq!(player.paths().len(), 4, "{:?}", player.paths());
    for head in player.received.lock().unwrap().iter() {
        assert!(head.to_ascii_lowercase().contains("\r\nauthorization: basic ytpi\r\n"), "{head}");
    }
    assert_eq!(server.count("schemas_missed"), 0);
}

#[test]
fn schemas_are_chosen_by_the_id_in_the_message() {
    let player = Player::start(None);
    player.registers("chat", 7, OBJECT, JSON);
    player.registers("avro", 8, "\"int\"", "");
    let models = "received.binary = { model = 'json', catalog = 'reg', strategy = 'encoded', \
                  on_miss = 'reject' }\n\
                  on_invalid = 'reply'";
    let Some(server) = start(config_of(&player, "schema-registry", "", models)) else { return };
    let mut client = echo(&server);
    let mut say = |id: u8, body: &str| {
        client.send_frame(BINARY, &[&[0, 0, 0, 0, id], body.as_bytes()].concat());
        String::from_utf8(client.frame().payload).unwrap()
    };
    let not_yet = |id: u8| format!(r#"{{"code":1013,"error":"schema {id} is not there yet"}}"#);
    let none = |id: u8| format!(r#"{{"code":1008,"error":"unknown schema {id}"}}"#);
    assert_eq!(say(7, "{}"), not_yet(7));
    wait_count(&server, "schemas_retrieved", 1);
    assert_eq!(say(7, "{}"), "{}");
    assert_eq!(say(7, "[]"), r#"{"code":1008,"error":"/ breaks the schema's rule `type`"}"#);
    // An id that is not registered, and one whose text is no JSON Schema.
    for (id, counter) in [(9, "schemas_unretrievable"), (8, "schemas_bad")] {
        assert_eq!(say(id, "{}"), not_yet(id));
        wait_count(&server, counter, 1);
        for _ in 0..10 {
            assert_eq!(say(id, "{}"), none(id));
        }
        let asked = player.paths().iter().filter(|it| it.ends_with(&format!("/{id}"))).count();
        assert_eq!(asked, 1, "what is in vain is remembered");
    }
    assert_eq!((server.count("schemas_missed"), server.count("messages_invalid")), (3, 24));
}

#[test]
fn schemas_silent_registry_delays_no_other_connection() {
    let player = Player::start(None);
    player.turns(Some(Answer::Silence));
    let models = format!(
        "{CHAT}\nreceived.binary = {{ model = 'json', catalog = 'reg', strategy = 'encoded', \
         on_miss = 'reject' }}\n\
         on_invalid = 'drop'"
    );
    let Some(mut server) = start(config_of(&player, "karapace", "", &models)) else { return };
    let (mut governed, mut free) = (echo(&server), Client::open(server.addresses()[0], "/free"));
    let begun = Instant::now();
    let mut worst = Duration::ZERO;
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(6) {
        for id in 0..20 {
            governed.send_frame(BINARY, &[0, 0, 0, sent as u8, id, b'1']);
            governed.send_text("{}");
            sent += 1;
        }
        let asked = Instant::now();
        governed.sync();
        free.send_text("still here");
        assert_eq!(free.text(), "still here");
        worst = worst.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(worst < Duration::from_secs(2), "{worst:?}");
    assert_eq!(server.count("schemas_missed"), 2 * sent);
    assert!(server.count("schemas_unretrievable") > 0, "an answer has its time");
    // Four concurrent fetches, each with a timeout of 4 s.
    assert!(player.paths().len() <= 8, "{:?}", player.paths());
    drop((governed, free));
    let begun = Instant::now();
    server.stop();
    server.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn schemas_message_waits_for_its_schema_in_order() {
    let player = Player::start(None);
    player.registers("chat", 7, OBJECT, JSON);
    player.turns(Some(Answer::Silence));
    let models = "received.binary = { model = 'json', catalog = 'reg', strategy = 'encoded' }\n\
                  on_invalid = 'reply'";
    let Some(server) = start(config_of(&player, "karapace", "", models)) else { return };
    let (mut client, mut free) = (echo(&server), Client::open(server.addresses()[0], "/free"));
    let message = |id: u8, body: &str| [&[0, 0, 0, 0, id], body.as_bytes()].concat();
    let reply = |client: &mut Client| String::from_utf8(client.frame().payload).unwrap();
    // The message waits no longer than that; later messages come after it.
    let begun = Instant::now();
    client.send_frame(BINARY, &message(9, "{}"));
    client.send_text("behind");
    free.send_text("still here");
    assert_eq!(free.text(), "still here");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let late = r#"{"code":1013,"error":"schema 9 is not there yet"}"#;
    assert_eq!((&*reply(&mut client), &*reply(&mut client)), (late, "behind"));
    let (min, max) = (Duration::from_millis(4900), Duration::from_secs(9));
    assert!((min..max).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!((server.count("schemas_awaited"), server.count("schemas_missed")), (1, 1));
    // A schema that is fetched meanwhile is used; the next message does not wait.
    player.turns(None);
    client.send_frame(BINARY, &message(7, "{}"));
    client.send_frame(BINARY, &message(7, "[]"));
    client.send_text("behind");
    let broken = r#"{"code":1008,"error":"/ breaks the schema's rule `type`"}"#;
    for want in ["{}", broken, "behind"] {
        assert_eq!(reply(&mut client), want);
    }
    // A message with an unknown id is refused as soon as the registry has answered. On a machine
    // that stands still for seconds a fetch may time out, so one of three has to be in time.
    let mut awaited = 2;
    let refused = [8, 18, 28].into_iter().any(|id| {
        let begun = Instant::now();
        client.send_frame(BINARY, &message(id, "{}"));
        awaited += 1;
        let unknown = format!(r#"{{"code":1008,"error":"unknown schema {id}"}}"#);
        reply(&mut client) == unknown && begun.elapsed() < min
    });
    assert!(refused);
    assert_eq!(server.count("schemas_missed"), awaited - 2);
    // After a fetch that timed out the next message is refused without a wait.
    let counted = server.count("schemas_awaited");
    assert!((3..=awaited).contains(&counted), "{counted} of {awaited}");
    // A client may disconnect while its message is parked.
    player.turns(Some(Answer::Silence));
    client.send_frame(BINARY, &message(6, "{}"));
    wait_count(&server, "schemas_awaited", counted + 1);
    drop(client);
    wait_count(&server, "connections", 1);
}

#[test]
fn schemas_old_schema_stays_after_failures() {
    let player = Player::start(None);
    let other = Player::start(None);
    player.registers("chat", 7, OBJECT, JSON);
    other.registers("chat", 7, OBJECT, JSON);
    player.turns(Some(Answer::Nothing));
    let config = config_of(&player, "schema-registry", "max_age_s = 1", CHAT);
    let Some(server) = start(config) else { return };
    let elsewhere = format!("http://{}/subjects/chat/versions/latest", other.address);
    let failures = [
        ("schemas_unretrievable", Answer::Nothing),
        ("schemas_unretrievable", Answer::Is(200, "<html>".to_owned())),
        ("schemas_unretrievable", Answer::Is(200, "{}".to_owned())),
        ("schemas_unretrievable", Answer::Is(404, "{}".to_owned())),
        ("schemas_unretrievable", Answer::Is(404, NOT_FOUND.to_owned())),
        ("schemas_unretrievable", Answer::Is(500, "{}".to_owned())),
        ("schemas_unretrievable", Answer::Redirect(elsewhere)),
        ("schemas_unretrievable", Answer::Is(200, " ".repeat(512 * 1024) + r#"{"id":1}"#)),
        ("schemas_unretrievable", Answer::Is(200, r#"{"id":"x","schema":"{}"}"#.into())),
        ("schemas_bad", Answer::Is(200, r#"{"id":8,"schema":"{","schemaType":"JSON"}"#.into())),
        ("schemas_bad", Answer::Is(200, r#"{"id":8,"schema":"\"int\""}"#.into())),
    ];
    let fail = |(counter, answer): &(&str, Answer)| {
        player.turns(Some(answer.clone()));
        let before = server.count(counter);
        // The first fetch may have begun before.
        wait_count(&server, counter, before + 2);
    };
    fail(&failures[0]);
    assert_eq!(try_text(&server, "{}"), Err((1013, MISSING.to_owned())));
    assert_eq!((server.count("schemas_missed"), server.count("schemas_stale")), (1, 0));
    player.turns(None);
    wait_count(&server, "schemas_retrieved", 1);
    assert_eq!(try_text(&server, "{}").unwrap(), "{}");
    for failure in &failures {
        fail(failure);
        assert_eq!(try_text(&server, "{}").unwrap(), "{}", "{failure:?}");
        assert_eq!(try_text(&server, "[]").unwrap_err().0, 1008, "{failure:?}");
    }
    assert!(server.count("schemas_stale") >= 2 * failures.len() as u64);
    assert_eq!(other.paths().len(), 0, "a redirect is not followed");
    // A new version replaces the old one.
    player.registers("chat", 9, r#"{"type":"array"}"#, JSON);
    player.turns(None);
    wait("the new version", || {
        std::thread::sleep(Duration::from_millis(50));
        try_text(&server, "[]").is_ok()
    });
    assert_eq!(try_text(&server, "{}").unwrap_err().0, 1008);
    assert_eq!(server.count("schemas_missed"), 1);
}

#[test]
fn schemas_references_are_bounded() {
    let player = Player::start(None);
    let to = |names: &[String]| {
        let one = |name: &String| format!(r#"{{"name":"{name}","subject":"{name}","version":1}}"#);
        let list: Vec<String> = names.iter().map(one).collect();
        format!(r#"{JSON},"references":[{}]"#, list.join(","))
    };
    let chain = |n: usize| format!("chain-{n}");
    for n in 1..=9 {
        let next = if n == 9 { Vec::new() } else { vec![chain(n + 1)] };
        player.registers(&chain(n), 100 + n as u64, "{}", &to(&next));
    }
    let leaves: Vec<String> = (0..33).map(|n| format!("leaf-{n}")).collect();
    for leaf in &leaves {
        player.registers(leaf, 200, "{}", JSON);
    }
    let large = |bytes: usize| format!("{{}}{}", " ".repeat(bytes - 2));
    player.registers("half", 300, &large(256 * 1024), JSON);
    let half = to(&["half".to_owned()]);
    let cases = [
        ("deep", "{}".to_owned(), to(&[chain(2)]), true),
        ("deeper", "{}".to_owned(), to(&[chain(1)]), false),
        ("wide", "{}".to_owned(), to(&leaves[..32]), true),
        ("wider", "{}".to_owned(), to(&leaves), false),
        ("large", large(256 * 1024), half.clone(), true),
        ("larger", large(256 * 1024 + 1), half, false),
        ("itself", "{}".to_owned(), to(&["itself".to_owned()]), false),
        ("twice", "{}".to_owned(), to(&[chain(8), chain(9), chain(8)]), true),
    ];
    for (at, (subject, schema, references, _)) in cases.iter().enumerate() {
        player.registers(subject, at as u64, schema, references);
    }
    for (subject, more) in [("long", 0), ("longer", 1)] {
        let body = r#"{"id":900,"schema":"{}","schemaType":"JSON"}"#;
        let padded = format!("{body}{}", " ".repeat(512 * 1024 + more - body.len()));
        player.knows(&format!("/subjects/{subject}/versions/latest"), &padded);
        player.knows("/schemas/ids/900", body);
        let models = CHAT.replace("chat", subject);
        let Some(server) = start(config_of(&player, "karapace", "", &models)) else { return };
        let counter = if more == 0 { "schemas_retrieved" } else { "schemas_unretrievable" };
        wait("an outcome", || server.count(counter) > 0);
    }
    for (subject, .., good) in cases {
        let models = CHAT.replace("chat", subject);
        let Some(server) = start(config_of(&player, "karapace", "", &models)) else { return };
        wait_count(&server, if good { "schemas_retrieved" } else { "schemas_bad" }, 1);
        let (retrieved, bad) = (server.count("schemas_retrieved"), server.count("schemas_bad"));
        assert_eq!(retrieved + bad, 1, "{subject}");
    }
}

#[test]
fn schemas_reload_and_connections_keep_theirs() {
    let player = Player::start(None);
    player.registers("chat", 7, OBJECT, JSON);
    player.registers("list", 8, r#"{"type":"array"}"#, JSON);
    let reply = format!("{CHAT}\non_invalid = 'reply'");
    let config = config_of(&player, "schema-registry", "max_age_s = 1", &reply);
    let Some(mut server) = start(config) else { return };
    wait_count(&server, "schemas_retrieved", 1);
    let mut old = echo(&server);
    old.send_text("{}");
    assert_eq!(old.text(), "{}");
    // With another maximum age, the fetched schema stays in use, also while the registry is down.
    player.turns(Some(Answer::Nothing));
    server.renew(config_of(&player, "schema-registry", "max_age_s = 2", &reply));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(try_text(&server, "{}").unwrap(), "{}");
    // With another subject, its schema must be fetched first.
    let list = reply.replace("chat", "list");
    server.renew(config_of(&player, "schema-registry", "max_age_s = 1", &list));
    wait("the new rules", || try_text(&server, "[]").unwrap().contains(MISSING));
    player.turns(None);
    wait("the new schema", || {
        std::thread::sleep(Duration::from_millis(50));
        try_text(&server, "[]").unwrap() == "[]"
    });
    // Earlier connections keep their rules, whose schemas are still refreshed.
    old.send_text("{}");
    assert_eq!(old.text(), "{}");
    player.registers("chat", 9, r#"{"type":"null"}"#, JSON);
    wait("the old connection's fresh schema", || {
        std::thread::sleep(Duration::from_millis(100));
        old.send_text("null");
        old.text() == "null"
    });
    // After it disconnects, its schema is no longer fetched.
    drop(old);
    let chats = || player.paths().iter().filter(|path| path.contains("chat")).count();
    wait("the end of what nobody wants", || {
        let before = chats();
        std::thread::sleep(Duration::from_millis(2500));
        chats() == before
    });
}

#[test]
fn schemas_first_registry_may_come_with_a_reload() {
    let player = Player::start(None);
    player.registers("chat", 7, OBJECT, JSON);
    player.knows("/keys", &keys());
    let Some(mut server) = start(config_of(&player, "karapace", "", "")) else { return };
    assert_eq!(try_text(&server, "[]").unwrap(), "[]");
    let guard = format!(
        "[[guards]]\nname = 'g'\nissuer = 'https://a.example'\nallow_private = true\n\
         keys_url = 'http://{}/keys'",
        player.address
    );
    assert_eq!(player.paths().len(), 0);
    server.renew(config_of(&player, "karapace", &guard, CHAT));
    wait_count(&server, "schemas_retrieved", 1);
    wait_count(&server, "keys_fetched", 1);
    wait("the new rules", || try_text(&server, "[]").is_err());
    assert_eq!(try_text(&server, "{}").unwrap(), "{}");
}

/// A key set with one key (RFC 8037 appendix A.2).
fn keys() -> String {
    let key = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{key}","kid":"a"}}]}}"#)
}

#[test]
fn schemas_registry_over_tls_needs_a_known_ca() {
    let (own, other) = (Authority::new(), Authority::new());
    let folder = certs::folder("schemas");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let leaf = own.leaf(&["127.0.0.1"]);
    let served = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.cert.der().clone()], leaf.key_der())
        .unwrap();
    let player = Player::start(Some(Arc::new(served)));
    player.registers("chat", 7, OBJECT, JSON);
    player.knows("/keys", &keys());
    for (authority, reached) in [(Some(&own), true), (Some(&other), false), (None, false)] {
        let file = folder.join("authority.pem");
        let mut ca_file = String::new();
        if let Some(authority) = authority {
            std::fs::write(&file, authority.pem()).unwrap();
            ca_file = format!("ca_file = '{}'", file.display());
        }
        let guard = format!(
            "{ca_file}\n[[guards]]\nname = 'g'\nissuer = 'https://a.example'\n\
             allow_private = true\nkeys_url = 'https://{}/keys'\n{ca_file}",
            player.address
        );
        let url = format!("https://{}", player.address);
        let config = config_at(&url, "schema-registry", &guard, CHAT);
        let Some(server) = start(config) else { return };
        let (schemas, keys) = match reached {
            true => ("schemas_retrieved", "keys_fetched"),
            false => ("schemas_unretrievable", "keys_failed"),
        };
        wait("an outcome", || server.count(schemas) > 0 && server.count(keys) > 0);
        let retrieved = server.count("schemas_retrieved") + server.count("keys_fetched");
        assert_eq!(retrieved, if reached { 2 } else { 0 });
    }
    // A missing file is an error at the start.
    let path = folder.join("missing.toml");
    let app = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";
    let catalog = "[[catalogs]]\nname = 'r'\ntype = 'karapace'\nurl = 'https://a'";
    let guard = "[[guards]]\nname = 'g'\nissuer = 'https://a.example'\nallow_private = false";
    for (section, place) in [(catalog, "catalogs[0].ca_file"), (guard, "guards[0].ca_file")] {
        std::fs::write(&path, format!("{app}{section}\nca_file = 'none.pem'\n")).unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("missing.toml:9:1: {place}: ")), "{error}");
        assert!(error.contains("none.pem"), "{error}");
    }
}

/// The authorities' file is a pipe that nobody writes to, as a file on a dead network share would
/// be.
#[test]
fn schemas_unreadable_authorities_delay_no_other_request() {
    let folder = certs::folder("authorities");
    let pipe = folder.join("pipe.pem");
    let _ = std::fs::remove_file(&pipe);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let player = Player::start(None);
    player.knows("/keys", &keys());
    let more = format!(
        "ca_file = '{}'\n[[guards]]\nname = 'g'\nissuer = 'https://a.example'\n\
         allow_private = true\nkeys_url = 'http://{}/keys'",
        pipe.display(),
        player.address
    );
    let url = format!("https://{}", player.address);
    let Some(server) = start(config_at(&url, "schema-registry", &more, CHAT)) else { return };
    wait_count(&server, "keys_fetched", 1);
    assert_eq!((server.count("schemas_retrieved"), server.count("schemas_unretrievable")), (0, 0));
    // The reader gets a file without a certificate.
    std::fs::write(&pipe, "empty").unwrap();
    wait("the fetch fails", || server.count("schemas_unretrievable") > 0);
}
