//! Webhooks, as an endpoint on a real socket receives them.

use super::child::*;
use crate::net::*;
use polycast::config::{Config, HookEvent, Overrides, Secret, Webhook};
use polycast::crypto::{HmacKey, hex};
use polycast::server::Server;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The debounce time of removals, in which an addition cancels them.
const HOLD: Duration = Duration::from_secs(3);

/// One received request.
#[derive(Clone, Debug)]
struct Hooked {
    line: String,
    head: String,
    body: String,
    at: Instant,
    /// The client port of the connection on which it arrived.
    port: u16,
}

impl Hooked {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The JSON of the events, after checks of the signature and the other parts that all requests
    /// have.
    fn events(&self) -> &str {
        assert_eq!(self.line, "POST /hook?a=b HTTP/1.1");
        assert_eq!(self.field("content-type"), Some("application/json"));
        assert_eq!(self.field("x-pusher-key"), Some("app-key"));
        let signature: [u8; 64] = hex(&HmacKey::new(b"app-secret").sign(&[self.body.as_bytes()]));
        assert_eq!(self.field("x-pusher-signature").map(str::as_bytes), Some(&signature[..]));
        let (time, events) = self.body.split_once(r#","events":["#).expect("events");
        let time = time.strip_prefix(r#"{"time_ms":"#).expect("a time");
        assert!(time.parse::<u64>().expect("a number") > 1_760_000_000_000);
        events.strip_suffix("]}").expect("the end")
    }
}

/// An HTTP server that records the requests.
pub(super) struct Endpoint {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Hooked>>>,
}

impl Endpoint {
    /// Answers the nth request with the nth status, and later requests with 200; 0 means no
    /// response.
    pub(super) fn start(statuses: &'static [u16]) -> Endpoint {
        Endpoint::start_with(statuses, None)
    }

    fn start_with(statuses: &'static [u16], tls: Option<Arc<ServerConfig>>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let theirs = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (received, tls, stream) = (theirs.clone(), tls.clone(), stream.unwrap());
                let port = stream.peer_addr().unwrap().port();
                std::thread::spawn(move || match tls {
                    None => serve(stream, port, &received, statuses),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(tls, stream), port, &received, statuses);
                    }
                });
            }
        });
        Endpoint { address, received }
    }

    /// The bodies of all requests so far.
    pub(super) fn all(&self) -> String {
        self.received.lock().unwrap().iter().map(|it| it.body.as_str()).collect()
    }

    /// The bodies without those that were sent again, because the answer came too late.
    pub(super) fn distinct(&self) -> String {
        let received = self.received.lock().unwrap();
        received.iter().map(|it| it.body.as_str()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(super) fn hook(&self) -> Webhook {
        let mut hook = Webhook::new(format!("http://{}/hook?a=b", self.address));
        hook.allow_private = true;
        hook
    }

    fn len(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// Waits for `count` requests and returns them.
    fn received(&self, count: usize) -> Vec<Hooked> {
        wait("a webhook's request", || self.len() >= count);
        let received = self.received.lock().unwrap().clone();
        assert_eq!(received.len(), count, "{received:?}");
        received
    }

    /// The events of the first `count` requests, sorted, because channels are not ordered among
    /// each other.
    fn events(&self, count: usize) -> Vec<String> {
        let received = self.received(count);
        let mut events: Vec<String> = received.iter().map(|it| it.events().to_owned()).collect();
        events.sort();
        events
    }
}

fn serve(stream: impl Read + Write, port: u16, received: &Mutex<Vec<Hooked>>, statuses: &[u16]) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let line = head.lines().next().unwrap().to_owned();
        let mut request = Hooked { line, head, body: String::new(), at: Instant::now(), port };
        let length = request.field("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        request.body = String::from_utf8(body).unwrap();
        let number = {
            let mut received = received.lock().unwrap();
            received.push(request);
            received.len() - 1
        };
        let status = statuses.get(number).copied().unwrap_or(200);
        if status == 0 {
            continue;
        }
        let answer =
            format!("HTTP/1.1 {status} X\r\nLocation: /elsewhere\r\nContent-Length: 2\r\n\r\nok");
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn with_hooks(hooks: Vec<Webhook>) -> Config {
    let mut config = config();
    config.apps[0].webhooks = hooks;
    config
}

fn start_with(hook: Webhook) -> Option<Server> {
    start(with_hooks(vec![hook]))
}

fn occupied(channel: &str) -> String {
    format!(r#"{{"name":"channel_occupied","channel":"{channel}"}}"#)
}

fn vacated(channel: &str) -> String {
    format!(r#"{{"name":"channel_vacated","channel":"{channel}"}}"#)
}

fn join_presence(client: &mut Client, id: &str, channel: &str, user: &str) {
    let data = format!(r#"{{"user_id":"{user}"}}"#);
    let auth = DEMO.auth(&format!("{id}:{channel}:{data}"));
    let data = data.replace('"', r#"\""#);
    let text = format!(r#"{{"channel":"{channel}","auth":"{auth}","channel_data":"{data}"}}"#);
    client.send_text(&format!(r#"{{"event":"pusher:subscribe","data":{text}}}"#));
    assert!(client.text().contains("subscription_succeeded"));
}

#[test]
fn webhooks_send_a_signed_request_for_each_event() {
    let endpoint = Endpoint::start(&[]);
    let mut hook = endpoint.hook();
    hook.headers.insert("X-Token".to_owned(), Secret::new("t"));
    let Some(server) = start_with(hook) else { return };
    let (mut client, id) = Client::app(server.addresses()[0]);
    join_presence(&mut client, &id, "presence-a", "ada");
    let added = r#"{"name":"member_added","channel":"presence-a","user_id":"ada"}"#;
    let received = endpoint.received(2);
    let events: Vec<_> = received.iter().map(Hooked::events).collect();
    assert_eq!(events, [&occupied("presence-a"), added], "in order");
    assert_eq!(received[0].port, received[1].port, "the connection is kept");
    assert_eq!(received[0].field("x-token"), Some("t"));
    assert_eq!(received[0].field("host"), Some(endpoint.address.to_string().as_str()));
    let say = r#"{"event":"client-x","channel":"presence-a","data":{"on":true}}"#;
    client.send_text(say);
    let replies = format!(
        r#"{{"name":"client_event","channel":"presence-a","event":"client-x","data":"{{\"on\":true}}","socket_id":"{id}","user_id":"ada"}}"#
    );
    assert_eq!(endpoint.received(3)[2].events(), replies);
    client.send_text(&subscribe("cache-a"));
    assert_eq!(client.text(), subscribed("cache-a"));
    assert!(client.text().contains("pusher:cache_miss"));
    let missed = r#"{"name":"cache_miss","channel":"cache-a"}"#.to_owned();
    assert!(endpoint.events(5).contains(&missed));
    assert_eq!(endpoint.received(5)[3].events(), occupied("cache-a"));
    // A second cache miss is not reported.
    let mut second = Client::app(server.addresses()[0]).0;
    second.send_text(&subscribe("cache-a"));
    assert_eq!(second.text(), subscribed("cache-a"));
    assert!(second.text().contains("pusher:cache_miss"));
    second.subscribe("last");
    assert_eq!(endpoint.received(6)[5].events(), occupied("last"));
    assert_eq!(server.count("hooks_dropped"), 0);
}

#[test]
fn webhooks_batch_and_filter_events() {
    let (batch, filtered) = (Endpoint::start(&[]), Endpoint::start(&[]));
    let mut hooks = vec![batch.hook(), filtered.hook()];
    (hooks[0].batch, hooks[0].batch_ms) = (true, 500);
    hooks[0].event_types = vec![HookEvent::ChannelOccupied];
    hooks[1].filter_prefix = "a-".to_owned();
    hooks[1].filter_suffix = "-z".to_owned();
    hooks[1].event_types = vec![HookEvent::SubscriptionCount];
    let Some(server) = start(with_hooks(hooks)) else { return };
    let mut client = Client::app(server.addresses()[0]).0;
    for channel in ["a-1-z", "a-2", "3-z"] {
        client.subscribe(channel);
    }
    let received = batch.received(1);
    let mut expected = ["a-1-z", "a-2", "3-z"].map(occupied);
    expected.sort();
    let mut events: Vec<_> = received[0].events().split_inclusive('}').collect();
    events.iter_mut().for_each(|event| *event = event.trim_start_matches(','));
    events.sort_unstable();
    assert_eq!(events, expected);
    let count = r#"{"name":"subscription_count","channel":"a-1-z","subscription_count":1}"#;
    assert_eq!(filtered.events(1), [count]);
}

#[test]
fn webhooks_retry_with_the_same_body_in_order() {
    // A redirect, an error, and no response.
    let endpoint = Endpoint::start(&[302, 500, 0]);
    let Some(server) = start_with(endpoint.hook()) else { return };
    let _client = Client::subscriber(server.addresses()[0], "a");
    let received = endpoint.received(4);
    for request in &received {
        assert_eq!(request.events(), occupied("a"));
        assert_eq!(request.body, received[0].body);
    }
    let rests: Vec<_> = received.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(rests[0] >= Duration::from_millis(450), "{rests:?}");
    assert!(rests[2] >= Duration::from_secs(4), "{rests:?}");
    wait_count(&server, "hooks_sent", 1);
    assert_eq!((server.count("hooks_failed"), server.count("hooks_dropped")), (3, 0));
}

#[test]
fn webhooks_report_a_leave_after_the_hold_unless_reversed() {
    let endpoint = Endpoint::start(&[]);
    let Some(server) = start_with(endpoint.hook()) else { return };
    let mut client = Client::subscriber(server.addresses()[0], "a");
    assert_eq!(endpoint.events(1), [occupied("a")]);
    let leave = r#"{"event":"pusher:unsubscribe","data":{"channel":"a"}}"#;
    client.send_text(leave);
    client.sync();
    client.subscribe("a");
    client.send_text(leave);
    client.sync();
    let left = Instant::now();
    let received = endpoint.received(2);
    assert_eq!(received[1].events(), vacated("a"));
    assert!(received[1].at - left >= HOLD - Duration::from_millis(100));
}

#[test]
fn webhooks_refuse_private_addresses_unless_allowed() {
    let endpoint = Endpoint::start(&[]);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let hook = Webhook::new(format!("http://{host}:{}/", endpoint.address.port()));
        let Some(server) = start_with(hook) else { return };
        let _client = Client::subscriber(server.addresses()[0], "a");
        wait_count(&server, "hooks_refused", 1);
        assert_eq!((server.count("hooks_failed"), server.count("hooks_dropped")), (0, 1));
    }
    assert_eq!(endpoint.len(), 0);
}

#[test]
fn webhooks_fail_without_the_tls_of_the_url() {
    let endpoint = Endpoint::start(&[]);
    let mut hook = Webhook::new(format!("https://{}/", endpoint.address));
    hook.allow_private = true;
    let Some(server) = start_with(hook) else { return };
    let _client = Client::subscriber(server.addresses()[0], "a");
    wait("a failure", || server.count("hooks_failed") > 0);
    assert_eq!(endpoint.len(), 0);
}

/// A new certificate authority in a file, and the TLS configuration of an endpoint with a
/// certificate that it has signed.
struct Authority {
    file: PathBuf,
    served: Arc<ServerConfig>,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join(name);
        std::fs::write(&file, authority.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let chain = vec![names.signed_by(&key, &authority).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let served = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Authority { file, served: Arc::new(served) }
    }
}

#[test]
fn webhooks_over_tls_need_a_known_ca() {
    let folder = std::env::temp_dir().join(format!("polycast-hooks-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [own, other] = ["own.pem", "other.pem"].map(|name| Authority::new(&folder, name));
    for (authority, reached) in [(Some(&own), true), (Some(&other), false), (None, false)] {
        let endpoint = Endpoint::start_with(&[], Some(own.served.clone()));
        let mut hook = endpoint.hook();
        hook.url = Secret::new(format!("https://{}/hook?a=b", endpoint.address));
        let file = authority.map(|it| it.file.to_str().unwrap().to_owned());
        hook.ca_file = file.unwrap_or_default();
        let Some(server) = start_with(hook) else { return };
        let _client = Client::subscriber(server.addresses()[0], "a");
        if reached {
            assert_eq!(endpoint.events(1), [occupied("a")]);
            wait_count(&server, "hooks_sent", 1);
            assert_eq!(server.count("hooks_failed"), 0);
        } else {
            wait("a failure", || server.count("hooks_failed") > 0);
            assert_eq!(endpoint.len(), 0);
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn webhooks_are_delivered_before_the_server_ends() {
    let endpoint = Endpoint::start(&[]);
    // At the same endpoint, a waiting occupied event and a vacated event would cancel each other.
    let hook = |event| {
        let mut hook = endpoint.hook();
        (hook.batch, hook.batch_ms, hook.event_types) = (true, 60_000, vec![event]);
        hook
    };
    let hooks = vec![hook(HookEvent::ChannelOccupied), hook(HookEvent::ChannelVacated)];
    let Some(mut server) = start(with_hooks(hooks)) else { return };
    let mut client = Client::subscriber(server.addresses()[0], "a");
    client.subscribe("b");
    client.sync();
    let began = Instant::now();
    server.stop();
    drop(client);
    server.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let received = endpoint.received.lock().unwrap().clone();
    let events: String = received.iter().map(Hooked::events).collect();
    for event in [occupied("a"), occupied("b"), vacated("a"), vacated("b")] {
        assert_eq!(events.matches(&event).count(), 1, "{event} in {events}");
    }
    assert_eq!(server.count("hooks_dropped"), 0);
}

#[test]
fn webhooks_silent_endpoint_loses_only_its_own_events() {
    let endpoint = Endpoint::start(&[0; 64]);
    let mut hook = endpoint.hook();
    hook.queue_bytes = 4096;
    let mut config = with_hooks(vec![hook]);
    config.drain_s = 1;
    let Some(mut server) = start(config) else { return };
    let mut client = Client::app(server.addresses()[0]).0;
    for n in 0..100 {
        client.subscribe(&format!("channel-{n}"));
    }
    wait("dropped events", || server.count("hooks_dropped") > 0);
    client.sync();
    drop(client);
    let began = Instant::now();
    server.stop();
    server.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let sent = server.count("hooks_sent");
    // A waiting event that is cancelled does not count as dropped.
    let (dropped, cancelled) = (server.count("hooks_dropped"), server.count("hooks_cancelled"));
    assert_eq!((sent, dropped + cancelled), (0, 200));
    assert!(dropped > 0 && cancelled > 0, "{dropped} {cancelled}");
}

/// Reloads the server with another configuration, and waits until all cores have it.
fn renew(server: &mut Server, config: Config) {
    let before = server.count("renewals");
    let config = config.with(Overrides::default()).unwrap();
    server.renew(config);
    wait_count(server, "renewals", before + 2);
}

#[test]
fn webhooks_use_the_endpoints_at_the_time_of_the_event() {
    let (old, new, stays) = (Endpoint::start(&[]), Endpoint::start(&[]), Endpoint::start(&[]));
    let Some(mut server) = start(with_hooks(vec![old.hook(), stays.hook()])) else { return };
    let mut client = Client::subscriber(server.addresses()[0], "a");
    assert_eq!(old.events(1), [occupied("a")]);
    let mut filtered = stays.hook();
    filtered.filter_prefix = "b".to_owned();
    filtered.headers.insert("X-Token".to_owned(), Secret::new("t"));
    renew(&mut server, with_hooks(vec![new.hook(), filtered]));
    client.subscribe("b");
    client.subscribe("c");
    assert_eq!(new.events(2), [occupied("b"), occupied("c")]);
    let received = stays.received(2);
    assert_eq!((received[0].events(), received[1].events()), (&*occupied("a"), &*occupied("b")));
    assert_eq!((received[0].field("x-token"), received[1].field("x-token")), (None, Some("t")));
    // The state from before the reload is not reported, but its end is.
    drop(client);
    let vacated = ["a", "b", "c"].map(vacated);
    assert_eq!(new.events(5)[2..], vacated);
    renew(&mut server, with_hooks(Vec::new()));
    Client::subscriber(server.addresses()[0], "d").sync();
    assert_eq!((old.len(), new.len(), stays.len()), (1, 5, 3));
    assert_eq!(server.count("hooks_dropped"), 0);
}

#[test]
fn webhooks_reload_under_traffic_loses_and_repeats_nothing() {
    let (old, new) = (Endpoint::start(&[]), Endpoint::start(&[]));
    let Some(mut server) = start(with_hooks(vec![old.hook()])) else { return };
    let mut client = Client::app(server.addresses()[0]).0;
    let config = with_hooks(vec![new.hook()]).with(Overrides::default()).unwrap();
    let mut count = 0;
    // Events come from both cores, before, during and after the reload of each core.
    while count < 20 || server.count("renewals") < 2 || new.len() < 20 {
        if count == 20 {
            server.renew(config.clone());
        }
        client.subscribe(&format!("c-{count}"));
        count += 1;
        // A connection has at most 10 000 subscriptions, and a webhook takes time.
        std::thread::sleep(Duration::from_millis(2));
    }
    wait("all events", || old.len() + new.len() == count);
    let mut received = [old.events(old.len()), new.events(new.len())].concat();
    received.sort();
    let mut expected: Vec<_> = (0..count).map(|n| occupied(&format!("c-{n}"))).collect();
    expected.sort();
    assert_eq!(received, expected);
    assert!(old.len() >= 20);
    assert_eq!((server.count("hooks_failed"), server.count("hooks_dropped")), (0, 0));
}

#[test]
fn webhooks_can_be_added_by_reload() {
    let endpoint = Endpoint::start(&[]);
    let Some(mut server) = start(config()) else { return };
    let mut client = Client::subscriber(server.addresses()[0], "a");
    renew(&mut server, with_hooks(vec![endpoint.hook()]));
    client.subscribe("b");
    assert_eq!(endpoint.events(1), [occupied("b")]);
    drop(client);
    assert_eq!(endpoint.events(3)[1..], [vacated("a"), vacated("b")]);
    wait_count(&server, "hooks_sent", 3);
}

#[test]
fn webhooks_of_a_removed_endpoint_are_still_sent() {
    let endpoint = Endpoint::start(&[500, 500]);
    let Some(mut server) = start_with(endpoint.hook()) else { return };
    let _client = Client::subscriber(server.addresses()[0], "a");
    wait("a failure", || server.count("hooks_failed") > 0);
    renew(&mut server, config());
    let received = endpoint.received(3);
    assert!(received.iter().all(|it| it.events() == occupied("a")));
    wait_count(&server, "hooks_sent", 1);
    assert_eq!(server.count("hooks_dropped"), 0);
}

#[test]
fn webhooks_are_read_from_the_file() {
    if !has_uring() {
        return;
    }
    let (first, second) = (Endpoint::start(&[]), Endpoint::start(&[]));
    let hook = |endpoint: &Endpoint| {
        let url = format!("http://{}/hook?a=b", endpoint.address);
        format!("[[apps.webhooks]]\nurl = '{url}'\nallow_private = true\n")
    };
    let process = Process::start("hooks", BASE);
    let reloads = || process.logged().matches("configuration reloaded").count();
    let mut client = Client::subscriber(process.address, "a");
    for (number, endpoint) in [&first, &second].into_iter().enumerate() {
        rewrite("hooks", &hook(endpoint));
        process.signal(libc::SIGHUP);
        wait("a reload", || reloads() > number);
        std::thread::sleep(Duration::from_millis(1200));
        client.subscribe(&format!("b-{number}"));
        assert_eq!(endpoint.events(1), [occupied(&format!("b-{number}"))]);
    }
    assert_eq!(first.len(), 1);
    assert!(!process.logged().contains("only after a restart"), "{}", process.logged());
}
