//! Presence channels, counts, webhooks and reads over several nodes.

use super::super::child::{BASE, Process};
use super::super::webhooks::Endpoint;
use super::engine::{EngineServer, SILENT_MS, cluster_of};
use super::{joined, level, nodes, nodes_of, ready_at};
use crate::net::*;
use crate::peer::signed;
use polycast::config::{Config, DuplicateSubscribe};
use polycast::server::Server;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ROOM: &str = "presence-room";

/// A new connection that has asked to join a channel as this user.
fn joining(address: SocketAddr, user: &str) -> (Client, String) {
    let (mut client, id) = Client::app(address);
    client.send_text(&subscription(&id, user));
    (client, id)
}

/// The message by which the connection with this socket id asks to join as this user.
fn subscription(id: &str, user: &str) -> String {
    let data = format!(r#"{{"user_id":"{user}"}}"#);
    let auth = DEMO.auth(&format!("{id}:{ROOM}:{data}"));
    let data = data.replace('"', r#"\""#);
    let text = format!(r#"{{"channel":"{ROOM}","auth":"{auth}","channel_data":"{data}"}}"#);
    format!(r#"{{"event":"pusher:subscribe","data":{text}}}"#)
}

/// A member, whose acknowledgement has this number of users.
fn member(address: SocketAddr, user: &str, count: usize) -> Client {
    let (mut client, _) = joining(address, user);
    let text = client.text();
    assert!(text.contains("subscription_succeeded"), "{text}");
    assert!(text.contains(&format!(r#"\"count\":{count}"#)), "{text}");
    client
}

fn hears(client: &mut Client, event: &str, user: &str) {
    let text = client.text();
    assert!(text.contains(&format!("pusher_internal:{event}")), "{text}");
    assert!(text.contains(&format!(r#"\"user_id\":\"{user}\""#)), "{text}");
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let response = read(address, path);
    (response.status, response.body)
}

/// The response to a signed request, whose path may have parameters.
fn read(address: SocketAddr, path: &str) -> Response {
    let mut client = Client::connect(address);
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    client.send(&signed("GET", path, b"", unix_s));
    client.response()
}

#[test]
fn cluster_p5_joins_cost_an_entry_for_each_user_of_a_node() {
    let Some(nats) = EngineServer::start("presence") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let [one, two] = [&first, &second].map(|it| it.addresses()[0]);
    let ada = member(one, "ada", 1);
    level(&first, &[&second]);
    let mut bob = member(two, "bob", 2);
    level(&second, &[&first]);
    let before = first.count("cluster_appends");
    assert_eq!(before, 2, "the channel is occupied, and has a member");
    let others: Vec<Client> = (0..10).map(|_| member(one, "ada", 2)).collect();
    assert_eq!(first.count("cluster_appends"), before, "further connections cost nothing");
    let elsewhere = member(two, "ada", 2);
    drop((ada, others));
    let mut cyd = member(one, "cyd", 3);
    hears(&mut bob, "member_added", "cyd");
    drop(elsewhere);
    for client in [&mut bob, &mut cyd] {
        hears(client, "member_removed", "ada");
        client.sync();
    }
}

/// A node whose application states numbers of subscribers.
fn counting(nats: &EngineServer) -> Option<Server> {
    let mut config = cluster_of(nats);
    config.apps[0].counts_in_reads = true;
    let server = start(config)?;
    joined(&server);
    Some(server)
}

#[test]
fn cluster_p12_reads_are_equal_on_all_nodes() {
    let Some(nats) = EngineServer::start("reads") else { return };
    let (Some(first), Some(second)) = (counting(&nats), counting(&nats)) else { return };
    let addresses = [first.addresses()[0], second.addresses()[0]];
    let [one, two] = addresses;
    let _members = [member(one, "ada", 1), member(two, "bob", 2), member(two, "ada", 2)];
    let mut plain = Client::app(two).0;
    plain.send_text(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#);
    assert_eq!(plain.text(), subscribed("news"));
    let channel = format!("/apps/1/channels/{ROOM}");
    let all = "/apps/1/channels";
    let whole = r#"{"occupied":true,"user_count":2,"subscription_count":3}"#;
    wait("the numbers are stated", || {
        let is_listed = |it: &SocketAddr| get(*it, all).1.contains("news");
        addresses.iter().all(|it| get(*it, &channel).1 == whole && is_listed(it))
    });
    let users = r#"{"users":[{"id":"ada"},{"id":"bob"}]}"#;
    for address in addresses {
        assert_eq!(get(address, &format!("{channel}/users")), (200, users.to_owned()));
        let (status, list) = get(address, all);
        assert_eq!(status, 200);
        assert!(
            list.contains(r#""presence-room":{"user_count":2,"subscription_count":3,"#),
            "{list}"
        );
        assert!(list.contains(r#""news":{"subscription_count":1,"#), "{list}");
        // The attributes of a publish.
        let info = "user_count,subscription_count";
        let channels = format!(r#"["{ROOM}","news"]"#);
        let body = format!(r#"{{"name":"e","channels":{channels},"data":"1","info":"{info}"}}"#);
        let mut api = Client::connect(address);
        api.send(&DEMO.request("POST", EVENTS, &body));
        let room = r#""presence-room":{"user_count":2,"subscription_count":3}"#;
        let answer = format!(r#"{{"channels":{{{room},"news":{{"subscription_count":1}}}}}}"#);
        assert_eq!(api.response().body, answer);
        let of_one = format!(r#"{{"name":"e","channel":"{ROOM}","data":"1","info":"user_count"}}"#);
        let batch = format!(r#"{{"batch":[{of_one},{of_one}]}}"#);
        api.send(&DEMO.request("POST", "/apps/1/batch_events", &batch));
        assert_eq!(api.response().body, r#"{"batch":[{"user_count":2},{"user_count":2}]}"#);
    }
    // A node that starts now knows the same.
    let Some(third) = counting(&nats) else { return };
    wait("its cores have read it", || get(third.addresses()[0], &channel).1 == whole);
    drop(plain);
    wait("a channel without subscribers is not listed", || {
        addresses.iter().all(|it| !get(*it, all).1.contains("news"))
    });
}

fn subscriber(address: SocketAddr, channel: &str) -> Client {
    let mut client = Client::app(address).0;
    client
        .send_text(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#));
    assert_eq!(client.text(), subscribed(channel));
    client
}

/// Nodes state numbers of subscribers from the first read on that asks for them, which waits for
/// all nodes.
#[test]
fn cluster_p12_counts_are_stated_from_the_first_read_on() {
    let Some(nats) = EngineServer::start("counted-reads") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let addresses = [first.addresses()[0], second.addresses()[0]];
    let [one, two] = addresses;
    let news = |address: SocketAddr| subscriber(address, "news");
    let clients: Vec<Client> = [one, one, two, two, two].into_iter().map(news).collect();
    let _other = subscriber(two, "other");
    wait("the channels are occupied", || first.count("cluster_states") >= 3);
    let before = first.count("cluster_appends") + second.count("cluster_appends");
    assert_eq!(before, 3, "further joins cost nothing");
    let channel = "/apps/1/channels/news?info=subscription_count";
    let five = r#"{"occupied":true,"subscription_count":5}"#;
    assert_eq!(get(one, channel), (200, five.to_owned()), "the first read");
    let list = r#"{"channels":{"news":{"subscription_count":5},"other":{"subscription_count":1}}}"#;
    for address in addresses {
        assert_eq!(get(address, channel), (200, five.to_owned()));
        let (status, body) = get(address, "/apps/1/channels?info=subscription_count");
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, read), (200, serde_json::from_str(list).unwrap()));
        let body = r#"{"name":"e","channel":"other","data":"1","info":"subscription_count"}"#;
        let mut api = Client::connect(address);
        api.send(&DEMO.request("POST", EVENTS, body));
        assert_eq!(api.response().body, r#"{"channels":{"other":{"subscription_count":1}}}"#);
    }
    // From now on numbers follow, on a node that starts later, too.
    let Some([third]) = nodes(&nats) else { return };
    let addresses = [one, two, third.addresses()[0]];
    assert_eq!(get(addresses[2], channel), (200, five.to_owned()));
    let _sixth = news(addresses[2]);
    let is = |count: usize| {
        let body = format!(r#"{{"occupied":true,"subscription_count":{count}}}"#);
        addresses.iter().all(|it| get(*it, channel).1 == body)
    };
    let start = Instant::now();
    wait("the new subscriber is counted", || is(6));
    drop(clients);
    wait("those who have left are not counted", || is(1));
    // The end of the last one on a node is stated 3 s later.
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
}

/// While a node has not stated its numbers, they are not known, and nobody is told a part of them.
#[test]
fn cluster_p12_counts_are_unknown_while_a_node_is_silent() {
    let Some(nats) = EngineServer::start("silent") else { return };
    let section = format!(
        "[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\ndead_ms = {SILENT_MS}\n",
        nats.url()
    );
    let other = Process::start("cluster-silent", &format!("{BASE}{section}"));
    wait("the node joins", || ready_at(other.address) == 200);
    let mut config = cluster_of(&nats);
    config.cluster.as_mut().unwrap().dead_ms = SILENT_MS;
    let Some([node]) = nodes_of(&config) else { return };
    let address = node.addresses()[0];
    let _client = subscriber(address, "news");
    let _elsewhere = subscriber(other.address, "news");
    other.signal(libc::SIGSTOP);
    let mut api = Client::connect(address);
    let body = r#"{"name":"e","channel":"a","data":"1","info":"subscription_count"}"#;
    api.send(&DEMO.request("POST", EVENTS, body));
    let published = api.response();
    let unknown = r#"{"channels":{"a":{"subscription_count":null}}}"#;
    assert_eq!((published.status, &*published.body), (200, unknown));
    let channel = "/apps/1/channels/news?info=subscription_count";
    let start = Instant::now();
    let refused = read(address, channel);
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(get(address, "/apps/1/channels/news"), (200, r#"{"occupied":true}"#.to_owned()));
    other.signal(libc::SIGCONT);
    let whole = (200, r#"{"occupied":true,"subscription_count":2}"#.to_owned());
    wait("the numbers are known", || get(address, channel) == whole);
    assert_eq!(get(other.address, channel), whole);
}

#[test]
fn cluster_p15_webhooks_are_sent_by_one_node() {
    let Some(nats) = EngineServer::start("webhooks") else { return };
    let endpoint = Endpoint::start(&[]);
    let hooked = |linger_ms: u64| -> Config {
        let mut config = cluster_of(&nats);
        config.apps[0].webhooks = vec![endpoint.hook()];
        config.cluster.as_mut().unwrap().linger_ms = linger_ms;
        config
    };
    let (Some(first), Some(second)) = (start(hooked(100)), start(hooked(100))) else { return };
    [&first, &second].into_iter().for_each(joined);
    let [one, two] = [&first, &second].map(|it| it.addresses()[0]);
    let mut ada = member(one, "ada", 1);
    let bob = member(two, "bob", 2);
    hears(&mut ada, "member_added", "bob");
    ada.send_text(&format!(r#"{{"event":"client-x","channel":"{ROOM}","data":1}}"#));
    // Ada changes the node, so she has not left.
    drop(ada);
    thread::sleep(Duration::from_millis(300));
    let ada = member(two, "ada", 2);
    let occupied = format!(r#"{{"name":"channel_occupied","channel":"{ROOM}"}}"#);
    let vacated = format!(r#"{{"name":"channel_vacated","channel":"{ROOM}"}}"#);
    let of = |kind: &str, user: &str| {
        format!(r#"{{"name":"{kind}","channel":"{ROOM}","user_id":"{user}"}}"#)
    };
    drop(bob);
    wait("bob's leave is reported", || endpoint.all().contains(&of("member_removed", "bob")));
    assert!(!endpoint.all().contains(&of("member_removed", "ada")), "{}", endpoint.all());
    drop(ada);
    wait("the end is reported", || endpoint.all().contains(&vacated));
    wait("ada's leave is reported", || endpoint.all().contains(&of("member_removed", "ada")));
    thread::sleep(Duration::from_secs(1));
    let all = endpoint.all();
    for (event, times) in [
        (occupied, 1),
        (of("member_added", "ada"), 1),
        (of("member_added", "bob"), 1),
        (r#""name":"client_event""#.to_owned(), 1),
        (of("member_removed", "ada"), 1),
        (of("member_removed", "bob"), 1),
        (vacated, 1),
    ] {
        assert_eq!(all.matches(&event).count(), times, "{event} in {all}");
    }
}

/// A miss is sent once for all nodes, until an event has been cached.
#[test]
fn cluster_p15_cache_miss_is_sent_by_one_node() {
    let Some(nats) = EngineServer::start("cache-miss") else { return };
    let endpoint = Endpoint::start(&[]);
    let mut config = cluster_of(&nats);
    config.apps[0].webhooks = vec![endpoint.hook()];
    config.apps[0].limits.cache_ttl_s = 1;
    let Some([first, second]) = nodes_of(&config) else { return };
    let addresses = [first.addresses()[0], second.addresses()[0]];
    let missed = |address: SocketAddr| {
        let mut client = subscriber(address, "cache-a");
        assert!(client.text().contains("pusher:cache_miss"));
        client
    };
    let sent = || endpoint.all().matches(r#"{"name":"cache_miss","channel":"cache-a"}"#).count();
    let mut clients: Vec<Client> = addresses.map(missed).into();
    wait("the miss is sent", || sent() > 0);
    let Some([third]) = nodes_of(&config) else { return };
    clients.push(missed(third.addresses()[0]));
    Client::connect(addresses[0]).publish("cache-a", "1");
    for client in &mut clients {
        assert_eq!(client.text(), event("cache-a", "1"));
    }
    assert_eq!(sent(), 1, "{}", endpoint.all());
    thread::sleep(Duration::from_millis(1200));
    clients.extend(addresses.map(missed));
    wait("the next miss is sent", || sent() > 1);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(sent(), 2, "{}", endpoint.all());
}

#[test]
fn cluster_p6_killed_node_leaves_no_members() {
    let Some(nats) = EngineServer::start("kill") else { return };
    let Some([first]) = nodes(&nats) else { return };
    let one = first.addresses()[0];
    let section = format!("[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\n", nats.url());
    let mut other = Process::start("cluster-kill", &format!("{BASE}{section}"));
    wait("the node joins", || ready_at(other.address) == 200);
    let mut ada = member(one, "ada", 1);
    let _there: Vec<Client> =
        ["bob", "cyd", "ada"].map(|user| joining(other.address, user).0).into_iter().collect();
    for _ in 0..2 {
        assert!(ada.text().contains("pusher_internal:member_added"));
    }
    let users = format!("/apps/1/channels/{ROOM}/users");
    wait("all are there", || get(one, &users).1.matches("id").count() == 3);
    other.child.kill().unwrap();
    other.child.wait().unwrap();
    let killed = Instant::now();
    let mut removals: Vec<String> = (0..2).map(|_| ada.text()).collect();
    assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
    removals.sort();
    for (text, user) in removals.iter().zip(["bob", "cyd"]) {
        assert!(text.contains("pusher_internal:member_removed") && text.contains(user), "{text}");
    }
    ada.sync();
    assert_eq!(get(one, &users).1, r#"{"users":[{"id":"ada"}]}"#);
    wait("its subscribers are not counted", || {
        get(one, "/apps/1/channels").1 == format!(r#"{{"channels":{{"{ROOM}":{{}}}}}}"#)
    });
}

#[test]
fn cluster_p7_members_stay_while_the_engine_is_away() {
    let Some(mut nats) = EngineServer::start("presence-away") else { return };
    let Some([first, second]) = nodes(&nats) else { return };
    let [one, two] = [&first, &second].map(|it| it.addresses()[0]);
    let mut ada = member(one, "ada", 1);
    let bob = member(two, "bob", 2);
    hears(&mut ada, "member_added", "bob");
    nats.kill();
    // Who is new is refused after a while; who is there already may connect again.
    let (mut cyd, _) = joining(one, "cyd");
    let text = cyd.text();
    assert!(text.contains("subscription_error") && text.contains("4100"), "{text}");
    let _again = member(one, "ada", 2);
    let mut api = Client::connect(two);
    api.send(&DEMO.request("GET", &format!("/apps/1/channels/{ROOM}/users"), ""));
    let read = api.response();
    assert_eq!((read.status, read.body.matches("id").count()), (200, 2));
    let stale: u64 = read.field("x-polycast-stale").expect("a header").parse().expect("seconds");
    assert!((1..60).contains(&stale), "{stale}");
    drop(bob);
    nats.again();
    // The leave is stated as soon as it can be, and nobody else has left. The join that was refused
    // may be in the log nevertheless, and is taken back.
    loop {
        let text = ada.text();
        match text.contains("bob") {
            true => break assert!(text.contains("pusher_internal:member_removed"), "{text}"),
            false => assert!(text.contains("cyd"), "{text}"),
        }
    }
    wait("a join works again", || {
        let (mut cyd, _) = joining(two, "cyd");
        let text = cyd.text();
        text.contains("subscription_succeeded")
    });
    api.send(&DEMO.request("GET", &format!("/apps/1/channels/{ROOM}/users"), ""));
    assert_eq!(api.response().field("x-polycast-stale"), None);
}

/// Users who sign in on different nodes watch each other.
#[test]
fn cluster_p14_watchlists_see_users_of_all_nodes() {
    let Some(nats) = EngineServer::start("watchlist") else { return };
    let mut config = cluster_of(&nats);
    config.apps[0].watchlist = true;
    let (Some(first), Some(second)) = (start(config.clone()), start(config)) else { return };
    [&first, &second].into_iter().for_each(joined);
    let sign_in = |server: &Server, user: &str, other: &str| {
        let (mut client, id) = Client::app(server.addresses()[0]);
        let data = format!(r#"{{"id":"{user}","watchlist":["{other}"]}}"#);
        let auth = DEMO.auth(&format!("{id}::user::{data}"));
        let data = data.replace('"', r#"\""#);
        let text = format!(r#"{{"auth":"{auth}","user_data":"{data}"}}"#);
        client.send_text(&format!(r#"{{"event":"pusher:signin","data":{text}}}"#));
        assert!(client.text().contains("pusher:signin_success"));
        client
    };
    let says = |client: &mut Client, name: &str, user: &str| {
        let text = client.text();
        assert!(text.contains("pusher_internal:watchlist_events"), "{text}");
        assert!(text.contains(name) && text.contains(user), "{text}");
    };
    let mut ada = sign_in(&first, "ada", "bob");
    says(&mut ada, "offline", "bob");
    // Signing in does not wait for the log.
    wait("the log has ada", || first.count("cluster_states") > 0);
    let mut bob = sign_in(&second, "bob", "ada");
    // His node may read of her a moment later.
    let mut text = bob.text();
    if text.contains("offline") {
        text = bob.text();
    }
    assert!(text.contains("online") && text.contains("ada"), "{text}");
    says(&mut ada, "online", "bob");
    drop(bob);
    says(&mut ada, "offline", "bob");
}

/// A client that subscribes again before the log has its user is answered twice, both times with
/// itself among the members.
#[test]
fn cluster_repeated_join_is_answered_when_the_first_one_is() {
    let Some(nats) = EngineServer::start("repeated-join") else { return };
    let mut config = cluster_of(&nats);
    config.apps[0].duplicate_subscribe = DuplicateSubscribe::Ack;
    let Some([node]) = nodes_of(&config) else { return };
    let (mut client, id) = Client::app(node.addresses()[0]);
    let subscribe = subscription(&id, "ada");
    for _ in 0..3 {
        client.send_text(&subscribe);
    }
    for _ in 0..3 {
        let text = client.text();
        assert!(text.contains(r#"\"ids\":[\"ada\"]"#), "{text}");
    }
    client.send_text(&subscribe);
    assert!(client.text().contains(r#"\"count\":1"#), "the query of the members");
}
