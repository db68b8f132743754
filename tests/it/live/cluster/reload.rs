//! Reloads that add an application to one node after another, while its clients come.

use super::engine::{EngineServer, cluster_of};
use super::{joined, level, ready_at};
use crate::net::*;
use crate::peer::{SECOND, signed};
use polycast::config::{AppHistory, Config, Secret};
use polycast::server::Server;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const KEYS: Keys<'static> = Keys(SECOND.1, SECOND.2);
const PATH: &str = "/app/second-key?protocol=7&client=js&version=8.6.0&flash=false";
const ROOM: &str = "presence-room";
const CHANNEL: &str = "chat-1";
/// The maximum number of connections of the application.
const LIMIT: usize = 8;
/// How long clients may be refused after a reload: a core takes it within a second.
const SOON: Duration = Duration::from_millis(2500);

/// The configuration without the application, and with it.
fn configs(engine: &EngineServer) -> [Config; 2] {
    let mut before = cluster_of(engine);
    // A log that begins is trusted soon.
    before.cluster.as_mut().unwrap().rejoin_ms = 1000;
    let mut app = before.apps[0].clone();
    (app.id, app.key) = ("2".to_owned(), KEYS.0.to_owned());
    app.secret = Secret::new(KEYS.1);
    app.limits.connections = LIMIT;
    app.history = vec![AppHistory::new(&["chat-*"])];
    let mut after = before.clone();
    after.apps.push(app);
    [before, after]
}

/// A connection to the application, or the code of the close that refuses it.
fn connect(address: SocketAddr) -> Result<(Client, String), u16> {
    let mut client = Client::open(address, PATH);
    let text = client.text();
    match text.split_once(r#"{\"socket_id\":\""#) {
        Some((_, rest)) => Ok((client, rest.split('\\').next().unwrap().to_owned())),
        None => Err(client.close().0),
    }
}

/// The first connection to the application after a reload. Until all cores have the application and
/// what the log has of it, clients are refused in a way after which they try again.
fn first_after_reload(address: SocketAddr) -> (Client, String) {
    let begun = Instant::now();
    loop {
        match connect(address) {
            Ok(client) => return client,
            // 4001: this core does not know the application yet.
            Err(code) => assert!([4001, 4100].contains(&code), "{code}"),
        }
        assert!(begun.elapsed() < SOON, "refused for {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn subscribe_to(client: &mut Client, channel: &str) -> String {
    client.send_text(&subscribe(channel));
    client.text()
}

/// Joins the room as this user. Returns the acknowledgement.
fn join((client, id): &mut (Client, String), user: &str) -> String {
    let data = format!(r#"{{"user_id":"{user}"}}"#);
    let auth = KEYS.auth(&format!("{id}:{ROOM}:{data}"));
    let data = data.replace('"', r#"\""#);
    let text = format!(r#"{{"channel":"{ROOM}","auth":"{auth}","channel_data":"{data}"}}"#);
    client.send_text(&format!(r#"{{"event":"pusher:subscribe","data":{text}}}"#));
    client.text()
}

fn publish_in(address: SocketAddr, channel: &str, data: &str) {
    let mut api = Client::connect(address);
    api.send(&KEYS.request("POST", "/apps/2/events", &event_body(channel, data)));
    assert_eq!(api.response().status, 200);
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut api = Client::connect(address);
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    api.send(&signed("GET", path, b"", unix_s));
    let response = api.response();
    (response.status, response.body)
}

/// Resumes the history after this position. Returns the acknowledgement.
fn resume(client: &mut Client, from: &serde_json::Value) -> String {
    let (stream, serial) = (&from["stream_id"], &from["serial"]);
    let positions = format!(r#""{CHANNEL}":{{"stream_id":{stream},"serial":{serial}}}"#);
    let data = format!(r#"{{"channel_positions":{{{positions}}}}}"#);
    client.send_text(&format!(r#"{{"event":"polycast:resume","data":{data}}}"#));
    subscribe_to(client, CHANNEL)
}

/// Fills the application's limit, on the nodes in turns. Returns the connections.
fn fill(addresses: [SocketAddr; 2]) -> Vec<Client> {
    let (mut open, mut full) = (Vec::new(), [false; 2]);
    let begun = Instant::now();
    while full != [true; 2] {
        for (at, address) in addresses.into_iter().enumerate() {
            if full[at] {
                continue;
            }
            match connect(address) {
                Ok((client, _)) => open.push(client),
                Err(4004) => full[at] = true,
                // Whether the limit is reached is not known to this node yet.
                Err(code) => assert_eq!(code, 4100),
            }
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    open
}

#[test]
fn cluster_reload_adds_an_application_node_after_node() {
    let Some(engine) = EngineServer::start("reload") else { return };
    let [before, after] = configs(&engine);
    let mut list: Vec<Server> = Vec::new();
    for _ in 0..2 {
        let Some(node) = start(before.clone()) else { return };
        joined(&node);
        list.push(node);
    }
    let Ok([mut first, mut second]) = <[Server; 2]>::try_from(list) else { return };
    let [one, two] = [&first, &second].map(|it| it.addresses()[0]);
    // Those of another application stay.
    let mut stays = Client::subscriber(two, "a");
    let mut api = Client::connect(one);
    api.publish("a", "before");

    // The first node has clients of the application for some time.
    first.renew(after.clone());
    let mut ada = first_after_reload(one);
    assert_eq!(first.count("cluster_added_readings"), 0, "nobody has used it before");
    assert!(join(&mut ada, "ada").contains(r#"\"count\":1"#));
    let mut hears = connect(one).expect("there is room").0;
    assert!(resume(&mut hears, &serde_json::json!({})).contains("subscription_succeeded"));
    let mut positions = Vec::new();
    for n in 0..5 {
        publish_in(one, CHANNEL, &n.to_string());
        positions.push(serde_json::from_str(&hears.text()).expect("JSON"));
    }
    publish_in(one, "cache-a", "cached");
    level(&first, &[&second]);
    assert!(second.count("cluster_skipped") > 0);
    api.publish("a", "between");

    // The second node reads what it has skipped before it serves anybody.
    let reloaded = Instant::now();
    second.renew(after);
    let mut bob = first_after_reload(two);
    let (refused, took) = (second.count("refused_overload"), reloaded.elapsed());
    println!("refused for {took:?}, {refused} connections");
    assert_eq!(second.count("cluster_added_readings"), 1);
    let ack = join(&mut bob, "bob");
    assert!(ack.contains(r#"\"count\":2"#) && ack.contains(r#"\"ada\""#), "{ack}");
    let text = ada.0.text();
    assert!(text.contains("member_added") && text.contains("bob"), "{text}");
    assert!(subscribe_to(&mut bob.0, "cache-a").contains("subscription_succeeded"));
    assert_eq!(bob.0.text(), event("cache-a", "cached"));
    let mut resumes = connect(two).expect("there is room").0;
    let ack = resume(&mut resumes, &positions[1]);
    assert!(ack.ends_with(r#""recovered":true}"#), "{ack}");
    for n in 2..5 {
        let text = resumes.text();
        assert!(text.contains(&format!(r#""data":"{n}""#)), "{text}");
    }
    let users = r#"{"users":[{"id":"ada"},{"id":"bob"}]}"#.to_owned();
    for address in [one, two] {
        let path = format!("/apps/2/channels/{ROOM}");
        assert_eq!(get(address, &format!("{path}/users")), (200, users.clone()));
        let (status, body) = get(address, &format!("{path}?info=user_count,subscription_count"));
        let counts = r#"{"occupied":true,"user_count":2,"subscription_count":2}"#;
        assert_eq!((status, &*body), (200, counts));
    }

    // The limit is that of both.
    let others = fill([one, two]);
    let open = [&first, &second].map(|it| it.count("cluster_reserved"));
    assert_eq!((others.len() + 4, open.iter().sum::<u64>()), (LIMIT, LIMIT as u64));
    for server in [&first, &second] {
        assert_eq!(server.count("cluster_gaps"), 0);
    }
    assert_eq!(second.count("refused_overload"), refused, "nobody was refused after that");
    assert_eq!(ready_at(two), 200);
    // Clients of the other application have missed nothing, and get nothing twice.
    api.publish("a", "after");
    for data in ["before", "between", "after"] {
        assert_eq!(stays.text(), event("a", data));
    }
    drop((hears, resumes, others));
}
