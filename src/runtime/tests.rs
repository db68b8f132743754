//! What a reload keeps, and what it replaces.

use super::*;
use crate::config::{FileFormat, GuardConfig, Overrides, Pattern, Proxy, Upstream};
use crate::model::PayloadKind;
use crate::model::spec::{CatalogKind, OnInvalid};
use crate::upstream::Tried;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

const TEXT: &str = "
[[apps]]
id = '1'
key = 'k'
secret = 's'
[[listeners]]
address = '127.0.0.1:1'
tls.certificates = [{ cert = 'FOLDER/ec.pem', key = 'FOLDER/ec.key' }]
[[listeners]]
address = '127.0.0.1:2'
tls.certificates = [{ cert = 'FOLDER/rsa.pem', key = 'FOLDER/rsa.key' }]
[[listeners]]
address = '127.0.0.1:3'
[[guards]]
name = 'own'
keys = [{ secret = '0123456789abcdef0123456789abcdef' }]
[[guards]]
name = 'fetched'
issuer = 'https://keys.example'
[[catalogs]]
name = 'local'
type = 'inline'
[[catalogs.subjects]]
name = 'a'
schema = '{ \"type\": \"array\" }'
[[catalogs]]
name = 'far'
type = 'karapace'
url = 'http://registry.example'
[[routes]]
when = [{ path = '/a' }]
endpoint = 'echo'
model.received.text = { model = 'json', catalog = 'local', subject = 'a' }
[[routes]]
when = [{ path = '/b' }]
endpoint = 'echo'
model.received.text = { model = 'json', catalog = 'far', subject = 'b' }
[[routes]]
when = [{ path = '/c' }]
endpoint = 'proxy'
proxy.upstreams = ['ws://one.example', 'wss://10.0.0.1']
proxy.tls.ca_file = 'FOLDER/ca.pem'
[[routes]]
when = [{ path = '/d' }]
endpoint = 'proxy'
proxy.upstreams = 'ws://two.example'
";

fn config() -> Config {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let text = TEXT.replace("FOLDER", folder);
    let config = Config::parse_with(&text, FileFormat::Toml, "test", &|_| None).unwrap();
    // Reads the files.
    config.with(Overrides::default()).unwrap()
}

/// The names of the parts that are the same objects in both.
fn kept(one: &Runtime, other: &Runtime) -> Vec<&'static str> {
    let tls = |at: u16| one.acceptor(at).unwrap().is_same(other.acceptor(at).unwrap());
    let rules = |at: usize| {
        let both = [one, other].map(|it| it.routes[at].rules.as_ref().unwrap());
        Arc::ptr_eq(both[0], both[1])
    };
    let upstreams = |at: usize| {
        let both = [one, other].map(|it| it.routes[at].upstreams.as_ref().unwrap());
        Arc::ptr_eq(both[0], both[1])
    };
    let parts = [
        ("tls 0", tls(0)),
        ("tls 1", tls(1)),
        ("guards", Arc::ptr_eq(&one.guards, &other.guards)),
        ("rules 0", rules(0)),
        ("rules 1", rules(1)),
        ("upstreams 2", upstreams(2)),
        ("upstreams 3", upstreams(3)),
    ];
    parts.into_iter().filter_map(|(name, is_same)| is_same.then_some(name)).collect()
}

const ALL: [&str; 7] =
    ["tls 0", "tls 1", "guards", "rules 0", "rules 1", "upstreams 2", "upstreams 3"];

#[test]
fn reload_of_an_equal_configuration_keeps_every_object() {
    let config = config();
    let first = build(&config).unwrap();
    assert_eq!(first.version, 0);
    assert!(first.acceptor(2).is_none() && first.acceptor(9).is_none());
    // A file is read again, and its content is what counts.
    let again = self::config();
    assert_eq!(again, config);
    let second = first.reload(&config, &again).unwrap();
    assert_eq!((kept(&first, &second), second.version), (ALL.to_vec(), 1));
    for (one, other) in [(&first, &second), (&second, &first)] {
        assert!(Arc::ptr_eq(&one.remotes, &other.remotes));
        assert!(Arc::ptr_eq(&one.names, &other.names));
        assert!(Arc::ptr_eq(&one.registries, &other.registries));
        assert!(Arc::ptr_eq(&one.control, &other.control));
    }
    let names: Vec<String> = second.names.list().iter().map(|it| it.host.clone()).collect();
    assert_eq!(names, ["one.example", "two.example"]);
    assert_eq!((second.remotes.list().len(), second.registries.places().len()), (1, 1));
    let nothing = build(&Config::demo()).unwrap();
    let wrapped = Runtime { version: u32::MAX, ..nothing };
    assert_eq!(wrapped.reload(&Config::demo(), &Config::demo()).unwrap().version, 0);
}

#[test]
fn reload_replaces_only_what_has_changed() {
    let without = |changed: &[&str]| {
        ALL.into_iter().filter(|name| !changed.contains(name)).collect::<Vec<_>>()
    };
    type Change = fn(&mut Config);
    let changes: [(Change, &[&str]); 12] = [
        (|it| it.limits.message_bytes -= 1, &[]),
        (|it| it.listeners[0].allowed_origins.push(Pattern::new("https://a.example")), &[]),
        (|it| it.listeners[0].tls.alpn.clear(), &["tls 0"]),
        (|it| it.listeners[0].tls = it.listeners[1].tls.clone(), &["tls 0"]),
        (|it| it.guards.push(GuardConfig::new("more")), &["guards"]),
        (|it| it.guards[0].leeway_s += 1, &["guards"]),
        (|it| it.catalogs[0].subjects[0].schema = Some("{}".to_owned()), &["rules 0"]),
        (|it| in_file(it, "{}"), &["rules 0"]),
        (|it| it.catalogs[1].max_age_s = Some(5), &["rules 1"]),
        (|it| it.routes[1].model.on_invalid = OnInvalid::Drop, &["rules 1"]),
        (|it| proxy(it, 2).retry_ms += 1, &["upstreams 2"]),
        (|it| proxy(it, 3).upstreams.extend(Upstream::new("ws://three")), &["upstreams 3"]),
    ];
    let config = config();
    for (number, (change, replaced)) in changes.into_iter().enumerate() {
        let first = build(&config).unwrap();
        let mut changed = config.clone();
        change(&mut changed);
        assert_ne!(changed, config, "change {number}");
        let second = first.reload(&config, &changed).unwrap();
        assert_eq!(kept(&first, &second), without(replaced), "change {number}");
    }
}

/// Makes the schema of the first catalog that of a file with this content.
fn in_file(config: &mut Config, content: &str) {
    let catalog = &mut config.catalogs[0];
    catalog.kind = CatalogKind::Filesystem;
    let subject = &mut catalog.subjects[0];
    (subject.schema, subject.path) = (None, Some("a.json".to_owned()));
    subject.content = Some(Ok(content.to_owned()));
}

#[test]
fn reload_compares_the_content_of_files() {
    let mut one = config();
    in_file(&mut one, "{}");
    let mut other = one.clone();
    let first = build(&one).unwrap();
    assert_eq!(kept(&first, &first.reload(&one, &other).unwrap()), ALL);
    in_file(&mut other, "true");
    let second = first.reload(&one, &other).unwrap();
    assert!(!kept(&first, &second).contains(&"rules 0"));
    // Without its content, a file cannot be used.
    other.catalogs[0].subjects[0].content = None;
    let error = second.reload(&one, &other).unwrap_err().to_string();
    assert!(error.contains("a.json: the file has not been read"), "{error}");
}

fn proxy(config: &mut Config, route: usize) -> &mut Proxy {
    Arc::make_mut(config.routes[route].proxy.as_mut().unwrap())
}

#[test]
fn reload_finds_a_route_that_has_moved() {
    let config = config();
    let first = build(&config).unwrap();
    let mut moved = config.clone();
    moved.routes.reverse();
    let second = first.reload(&config, &moved).unwrap();
    for (old, new) in [(0, 3), (1, 2), (2, 1), (3, 0)] {
        let [old, new] = [first.route(old), second.route(new)];
        let rules = [old, new].map(|it| it.rules.as_ref().map(Arc::as_ptr));
        let upstreams = [old, new].map(|it| it.upstreams.as_ref().map(Arc::as_ptr));
        assert_eq!((rules[0], upstreams[0]), (rules[1], upstreams[1]));
    }
}

#[test]
fn reload_takes_over_the_state_that_fits() {
    let config = config();
    let first = build(&config).unwrap();
    let old = first.route(2).upstreams.clone().unwrap();
    let pick = |it: &Upstreams| it.pool.pick(1, &mut Tried::default()).unwrap().number();
    for _ in 0..old.proxy.fail_after {
        let mut tried = Tried::default();
        tried.add(1);
        old.pool.pick(1, &mut tried).unwrap().failed(1);
    }
    let mut changed = config.clone();
    proxy(&mut changed, 2).connect_ms += 1;
    changed.guards[0].audience = "a".to_owned();
    let second = first.reload(&config, &changed).unwrap();
    let new = second.route(2).upstreams.as_ref().unwrap();
    assert_eq!([pick(new), pick(new)], [1, 1], "server 0 is still out of service");
    assert!(new.share_sessions(&old), "the TLS settings have not changed");
    for (old, new) in first.guards.iter().zip(&*second.guards) {
        assert!(Arc::ptr_eq(&old.holders, &new.holders), "{}", old.name);
    }
    // Other TLS settings have sessions of their own.
    proxy(&mut changed, 2).tls.server_name = "other.example".to_owned();
    let third = second.reload(&config, &changed).unwrap();
    assert!(!third.route(2).upstreams.as_ref().unwrap().share_sessions(&old));
}

#[test]
fn reload_that_fails_changes_nothing() {
    let config = config();
    let first = build(&config).unwrap();
    let mut bad = config.clone();
    bad.guards.clear();
    proxy(&mut bad, 3).upstreams = vec![Upstream::new("ws://other.example").unwrap()];
    bad.catalogs[0].subjects.clear();
    let error = first.reload(&config, &bad).unwrap_err();
    assert_eq!(error.key, "routes[0].model.received.text.subject");
    assert_eq!((first.names.list().len(), first.remotes.list().len()), (2, 1));
    let rules = first.route(0).rules.as_ref().unwrap();
    assert!(rules.receive(PayloadKind::Text, b"[]").is_ok());
    assert_eq!(kept(&first, &first.reload(&config, &config).unwrap()), ALL);
}

#[test]
fn reload_fetches_the_schemas_of_present_rules_only() {
    let config = config();
    let first = build(&config).unwrap();
    let due = |runtime: &Runtime| {
        let places = runtime.registries.places();
        places.iter().map(|place| place.due(0).len()).sum::<usize>()
    };
    // Kept rules are used as often as before, and rules that are gone are not used.
    let second = first.reload(&config, &config).unwrap();
    let mut without = config.clone();
    without.routes.remove(1);
    let third = second.reload(&config, &without).unwrap();
    assert_eq!(due(&third), 0);
    let back = third.reload(&without, &config).unwrap();
    assert_eq!(due(&back), 1);
}

#[test]
fn config_debug_output_has_no_private_key() {
    let config = config();
    let key = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ec.key")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
    let bytes = key.secret_der();
    let text = format!("{config:?}");
    let part = format!("{:?}", &bytes[bytes.len() - 8..]);
    assert!(!text.contains(part.trim_matches(['[', ']'])), "as numbers");
    assert!(!text.contains("0123456789abcdef") && text.contains("ec.key"), "{text}");
}
