//! The numbers of subscribers of linked channels by name, over nodes.

use super::engine::{EngineServer, SILENT_MS, cluster_of};
use super::{joined, level, ready_at};
use crate::live::child::{BASE, Process, command, rewrite};
use crate::live::zenith::{client as zenith_client, parse, received, say};
use crate::net::*;
use crate::peer::signed;
use polycast::codec::Format;
use polycast::config::{Config, FileFormat};
use polycast::server::Server;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What follows the keys of the first application.
const LINKED: &str = r#"
[[apps]]
id = "2"
key = "second-key"
secret = "second-secret"
[[routes]]
when = [{ path = "/rooms/*" }]
endpoint = "reflect"
[routes.reflect]
group = "path"
[[routes]]
when = [{ path = "/groups/*" }]
endpoint = "reflect"
[routes.reflect]
group = "path"
[[routes]]
when = [{ path = "/raw/*" }]
endpoint = "channel"
[[routes]]
when = [{ path = "/ready" }]
endpoint = "health"
[[routes]]
when = [{ path = "/Zenith*" }]
endpoint = "zenith"
[[routes]]
endpoint = "apps"
[zenith]
tokens = [{ token = "ADA", user = "ada" }]
topics = [{ controller = "Prices", kind = "*" }]
"#;
const LINKS: &str = r#"
[[links]]
source = { app = "1", channel = "quotes-{symbol}" }
views = [
    { app = "2", channel = "q-{symbol}" },
    { zenith = "Prices/Quote/{symbol}" },
    { reflect = "/rooms/{symbol}" },
    { path = "/raw/{symbol}" },
]
[[links]]
source = { reflect = "/groups/{name}" }
views = [{ app = "2", channel = "g-{name}" }]
[[links]]
source = { zenith = "Prices/Rate/{symbol}" }
views = [{ app = "2", channel = "rates-{symbol}" }]
"#;
/// The same links of a node whose operator has written them in another order, with other words, and
/// has a further view.
const OTHER_LINKS: &str = r#"
[[links]]
source = { zenith = "Prices/Rate/{s}" }
views = [{ app = "2", channel = "rates-{s}" }]
[[links]]
source = { app = "1", channel = "quotes-{s}" }
views = [
    { path = "/raw/{s}" },
    { app = "2", channel = "other-{s}" },
    { zenith = "Prices/Quote/{s}" },
    { reflect = "/rooms/{s}" },
]
"#;
const APP: &str = "[[apps]]\nid = '1'\nkey = 'app-key'\nsecret = 'app-secret'\n";

fn config_of(nats: &EngineServer, links: &str) -> Config {
    let text = format!("{BASE}{APP}{LINKED}{links}");
    let mut config = Config::parse(&text, FileFormat::Toml, "links.toml").unwrap();
    config.cluster = cluster_of(nats).cluster;
    config
}

fn node(nats: &EngineServer, links: &str) -> Option<Server> {
    node_of(config_of(nats, links))
}

fn node_of(config: Config) -> Option<Server> {
    let server = start(config)?;
    joined(&server);
    Some(server)
}

/// The response to a read of the first or the second application.
fn read(address: SocketAddr, app: u32, channel: &str) -> Response {
    let mut client = Client::connect(address);
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let path = format!("/apps/{app}/channels/{channel}?info=link");
    client.send(&signed("GET", &path, b"", unix_s));
    client.response()
}

/// The numbers of subscribers of the source and of the views, in the order of the configuration,
/// and of those through views that the node does not know.
fn numbers(address: SocketAddr, app: u32, channel: &str) -> (Vec<u64>, u64) {
    let response = read(address, app, channel);
    assert_eq!(response.status, 200, "{response:?}");
    let answer: serde_json::Value = serde_json::from_str(&response.body).unwrap();
    let link = &answer["link"];
    let number = |end: &serde_json::Value| end["subscribers"].as_u64().unwrap();
    let views = link["views"].as_array().unwrap().iter().map(number);
    let all = std::iter::once(number(&link["source"])).chain(views).collect();
    (all, link["unlisted_subscribers"].as_u64().unwrap_or_default())
}

/// Waits until these are the numbers: a core learns of subscribers on others a moment later.
fn becomes(address: SocketAddr, (app, channel): (u32, &str), expected: (&[u64], u64)) {
    wait("all are counted", || {
        let (all, unlisted) = numbers(address, app, channel);
        (&all[..], unlisted) == expected
    });
}

fn subscriber(address: SocketAddr, key: &str, channel: &str) -> Client {
    let mut client = Client::open(address, &format!("/app/{key}"));
    assert!(client.text().contains("connection_established"));
    client
        .send_text(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#));
    assert_eq!(client.text(), subscribed(channel));
    client
}

fn zenith(address: SocketAddr, topic: &str) -> Client {
    let mut client = zenith_client(address, "ZenithJson", "");
    let sub =
        format!(r#"{{"Controller":"Prices","Topic":"{topic}","Action":"Sub","Confirm":true}}"#);
    say(&mut client, Format::Json, &sub);
    assert_eq!(received(&mut client, Format::Json), parse(&sub));
    client
}

/// Plain clients get no acknowledgement.
fn plain(server: &Server, path: &str, count: usize) -> Vec<Client> {
    let before = server.count("subscriptions");
    let open = |_| Client::open(server.addresses()[0], path);
    let clients = (0..count).map(open).collect();
    wait("they are subscribed", || server.count("subscriptions") == before + count as u64);
    clients
}

#[test]
fn cluster_p12_link_numbers_are_those_of_all_nodes() {
    let Some(nats) = EngineServer::start("link-counts") else { return };
    let (Some(first), Some(second)) = (node(&nats, LINKS), node(&nats, LINKS)) else { return };
    let [one, two] = [&first, &second].map(|it| it.addresses()[0]);
    let _source = [one, two, two].map(|it| subscriber(it, "app-key", "quotes-A"));
    let viewers = [one, one, two].map(|it| subscriber(it, "second-key", "q-A"));
    let _zenith = [one, two].map(|it| zenith(it, "Quote/A"));
    let _room = [plain(&first, "/rooms/A", 1), plain(&second, "/rooms/A", 3)];
    let raw = plain(&second, "/raw/A", 2);
    becomes(one, (1, "quotes-A"), (&[3, 3, 2, 4, 2], 0));
    level(&first, &[&second]);
    assert_eq!(numbers(two, 1, "quotes-A"), (vec![3, 3, 2, 4, 2], 0));
    assert_eq!(numbers(two, 2, "q-A"), (vec![3, 3], 0), "a view learns of itself and the source");
    let not_linked = read(one, 1, "news");
    assert_eq!(not_linked.body, r#"{"occupied":false,"link":null}"#, "{not_linked:?}");
    // From now on the numbers follow, on a node that starts later, too.
    let Some(third) = node(&nats, LINKS) else { return };
    let three = third.addresses()[0];
    let follows = |expected: &[u64]| {
        [one, two, three].iter().all(|it| numbers(*it, 1, "quotes-A").0 == expected)
    };
    assert_eq!(numbers(three, 1, "quotes-A").0, [3, 3, 2, 4, 2]);
    let _late = plain(&third, "/raw/A", 1);
    wait("the new one is counted", || follows(&[3, 3, 2, 4, 3]));
    drop((viewers, raw));
    wait("those who have left are not", || follows(&[3, 0, 2, 4, 1]));
}

/// The source may be a group or a topic of Zenith; an application reads its numbers by a view.
#[test]
fn cluster_p12_link_numbers_of_groups_and_topics_are_those_of_all_nodes() {
    let Some(nats) = EngineServer::start("link-groups") else { return };
    let (Some(first), Some(second)) = (node(&nats, LINKS), node(&nats, LINKS)) else { return };
    let [one, two] = [&first, &second].map(|it| it.addresses()[0]);
    let _group = [plain(&first, "/groups/a", 2), plain(&second, "/groups/a", 1)];
    let _topic = [one, two, two].map(|it| zenith(it, "Rate/A"));
    let _views = ["g-a", "rates-A"].map(|it| subscriber(two, "second-key", it));
    for address in [two, one] {
        becomes(address, (2, "g-a"), (&[3, 1], 0));
        becomes(address, (2, "rates-A"), (&[3, 1], 0));
    }
}

/// Views are compared by their names, and subscribers of a view that a node does not have are not
/// counted as those of another one.
#[test]
fn cluster_p12_link_numbers_are_compared_by_the_names_of_views() {
    let Some(nats) = EngineServer::start("link-names") else { return };
    let (Some(first), Some(second)) = (node(&nats, LINKS), node(&nats, OTHER_LINKS)) else {
        return;
    };
    let [one, two] = [&first, &second].map(|it| it.addresses()[0]);
    let _source = subscriber(two, "app-key", "quotes-A");
    let _known = subscriber(one, "second-key", "q-A");
    let _unknown = [0; 2].map(|_| subscriber(two, "second-key", "other-A"));
    let _zenith = [one, two, two].map(|it| zenith(it, "Quote/A"));
    let _raw = plain(&second, "/raw/A", 4);
    becomes(one, (1, "quotes-A"), (&[1, 1, 3, 0, 4], 2));
    becomes(two, (1, "quotes-A"), (&[1, 4, 2, 3, 0], 1));
    let _topic = [one, two].map(|it| zenith(it, "Rate/A"));
    let _rates = subscriber(two, "second-key", "rates-A");
    becomes(one, (2, "rates-A"), (&[2, 1], 0));
}

/// While a node has not stated its numbers, they are not known, and nobody learns a part of them.
#[test]
fn cluster_p12_link_numbers_are_unknown_while_a_node_is_silent() {
    let Some(nats) = EngineServer::start("link-silent") else { return };
    let name = "cluster-link-silent";
    let engine = format!(
        "[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\ndead_ms = {SILENT_MS}\n",
        nats.url()
    );
    let mut command = command(name, &format!("{BASE}{engine}"));
    rewrite(name, &format!("{LINKED}{LINKS}"));
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("live/{name}.log"));
    command.stderr(fs::File::create(&log).unwrap());
    let other = Process::spawn(command, log);
    wait("the node joins", || ready_at(other.address) == 200);
    let mut config = config_of(&nats, LINKS);
    config.cluster.as_mut().unwrap().dead_ms = SILENT_MS;
    let Some(server) = node_of(config) else { return };
    let address = server.addresses()[0];
    let _here = subscriber(address, "second-key", "q-A");
    let _there = subscriber(other.address, "second-key", "q-A");
    other.signal(libc::SIGSTOP);
    let begun = Instant::now();
    let refused = read(address, 1, "quotes-A");
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.body.contains("by the names of links"), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let not_linked = read(address, 1, "news");
    assert_eq!(not_linked.status, 200, "nobody is waited for: {not_linked:?}");
    other.signal(libc::SIGCONT);
    let whole = |address| {
        let is_known = read(address, 1, "quotes-A").status == 200;
        is_known && numbers(address, 1, "quotes-A") == (vec![0, 2, 0, 0, 0], 0)
    };
    wait("the numbers are known", || whole(address));
    assert!(whole(other.address));
}
