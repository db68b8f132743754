//! The section `cluster`: its values on both sides of their bounds, and what it refuses.

use crate::config::{Config, FileFormat};

const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";

/// The error for a configuration, or "".
fn refusal(text: &str) -> String {
    let parsed = Config::parse_with(text, FileFormat::Toml, "f", &|_| None);
    parsed.err().map(|error| error.to_string()).unwrap_or_default()
}

fn of_section(more: &str) -> String {
    refusal(&format!("{APP}[cluster]\nengine = ['nats://a:4222']\n{more}\n"))
}

#[test]
fn cluster_config_ranges() {
    for (key, min, max) in [
        ("keep_s", 10_u64, 86_400),
        ("history_s", 10, 86_400),
        ("hold_ms", 2001, 15_000),
        ("append_ms", 100, 7999),
        ("hold_bytes", 1 << 20, 1 << 30),
        ("log_bytes", 1 << 20, 1 << 44),
        ("in_flight", 1, 65_536),
        ("beat_ms", 100, 1250),
        ("dead_ms", 4000, 10_000),
        ("rejoin_ms", 1000, 3_600_000),
        ("drain_linger_ms", 5000, 3_600_000),
    ] {
        for (value, is_accepted) in [(min - 1, false), (min, true), (max, true), (max + 1, false)] {
            let error = of_section(&format!("{key} = {value}"));
            let others = ["append_ms", "dead_ms", "drain_linger_ms"];
            let is_about_key = error.contains(key) || others.iter().any(|it| error.contains(it));
            assert_eq!(error.is_empty(), is_accepted, "{key} {value}: {error}");
            assert!(is_accepted || is_about_key, "{error}");
        }
    }
    for (replicas, is_accepted) in
        [(0, false), (1, true), (2, false), (3, true), (4, false), (5, true), (6, false)]
    {
        let error = of_section(&format!("replicas = {replicas}"));
        assert_eq!(error.is_empty(), is_accepted, "{replicas}: {error}");
    }
    for (name, is_accepted) in [
        ("a", true),
        ("A-Za_09", true),
        (&*"n".repeat(32), true),
        (&*"n".repeat(33), false),
        ("", false),
        ("a.b", false),
        ("a*", false),
    ] {
        let error = of_section(&format!("name = '{name}'"));
        assert_eq!(error.is_empty(), is_accepted, "{name}: {error}");
    }
}

#[test]
fn cluster_config_servers() {
    for (url, is_accepted) in [
        ("nats://10.0.0.5:4222", true),
        ("tls://nats.example.com:4222", true),
        ("nats://[::1]:4222", true),
        ("nats://a", false),
        ("nats://:4222", false),
        ("nats://a:99999", false),
        ("nats://user:geheim@a:4222", false),
        ("nats://a:4222/path", false),
        ("redis://a:6379", true),
        ("redis://a:6379/0", false),
        ("redis+sentinel://a:26379/main", true),
        ("redis+sentinel://a:26379", false),
        ("a:4222", false),
    ] {
        let error = refusal(&format!("{APP}[cluster]\nengine = ['{url}']\n"));
        assert_eq!(error.is_empty(), is_accepted, "{url}: {error}");
        assert!(!error.contains("geheim"), "a password must not be shown: {error}");
    }
    assert!(refusal(&format!("{APP}[cluster]\n")).contains("cluster.engine: at least one"));
}

#[test]
fn cluster_config_servers_are_of_one_kind() {
    for (urls, is_accepted) in [
        ("'nats://a:1', 'tls://b:1'", true),
        ("'redis://a:1', 'redis://b:1'", true),
        ("'redis+sentinel://a:1/m', 'redis+sentinel://b:1/m'", true),
        ("'redis+sentinel://a:1/m', 'redis+sentinel://b:1/n'", false),
        ("'redis://a:1', 'rediss://b:1'", false),
        ("'redis://a:1', 'redis+cluster://b:1'", false),
        ("'redis://a:1', 'nats://b:1'", false),
        ("'nats://a:1', 'redis://b:1'", false),
    ] {
        let error = refusal(&format!("{APP}[cluster]\nengine = [{urls}]\n"));
        assert_eq!(error.is_empty(), is_accepted, "{urls}: {error}");
        assert!(is_accepted || error.contains("cluster.engine[1]"), "{error}");
    }
}

/// What the other engine has is refused, rather than ignored.
#[test]
fn cluster_config_refuses_keys_of_the_other_engine() {
    let with =
        |url: &str, more: &str| refusal(&format!("{APP}[cluster]\nengine = ['{url}']\n{more}\n"));
    for (more, key, only) in [
        ("storage = 'memory'", "storage", "nats://a:1"),
        ("replicas = 3", "replicas", "nats://a:1"),
        ("token = 't'", "token", "nats://a:1"),
        ("acks = 'replica'", "acks", "redis://a:1"),
    ] {
        for url in ["nats://a:1", "redis://a:1", "redis+sentinel://a:1/m", "redis+cluster://a:1"] {
            let error = with(url, more);
            let is_accepted = url.starts_with(&only[..5]);
            assert_eq!(error.is_empty(), is_accepted, "{url} {more}: {error}");
            let names_key = error.contains(&format!("cluster.{key}: expected no value"));
            assert!(is_accepted || names_key, "{error}");
        }
    }
    assert_eq!(with("redis://a:1", "acks = 'engine'"), "");
    assert!(with("redis://a:1", "acks = 'all'").contains("acks"));
}

#[test]
fn cluster_config_log_in() {
    for (more, key) in [
        ("user = 'a'\npassword = 'b'", ""),
        ("token = 'a'", ""),
        ("user = 'a'", "cluster.password"),
        ("password = 'a'", "cluster.password"),
        ("user = 'a'\npassword = 'b'\ntoken = 'c'", "cluster.token"),
        ("ca_file = 'a.pem'", "cluster.ca_file"),
    ] {
        let error = of_section(more);
        assert_eq!(error.is_empty(), key.is_empty(), "{more}: {error}");
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn cluster_config_times_of_nodes_fit_each_other() {
    let times = |beat_ms: u64, dead_ms: u64, linger_ms: u64| {
        let keys = format!("beat_ms = {beat_ms}\ndead_ms = {dead_ms}");
        of_section(&format!("{keys}\ndrain_linger_ms = {linger_ms}"))
    };
    assert_eq!(times(1000, 4000, 4000), "");
    assert!(times(1001, 4000, 4000).contains("cluster.dead_ms"), "four times beat_ms");
    assert!(times(1000, 4000, 3999).contains("cluster.drain_linger_ms"), "dead_ms");
    assert_eq!(times(100, 1000, 1000), "");
    assert!(times(100, 999, 1000).contains("cluster.dead_ms"), "its range");
    assert_eq!(times(15_000, 3_600_000, 3_600_000), "");
    assert!(times(15_001, 3_600_000, 3_600_000).contains("cluster.beat_ms"), "its range");
}

/// Whatever would be one node's own view is refused with its key.
#[test]
fn cluster_config_refuses_what_is_not_carried() {
    let engine = "[cluster]\nengine = ['nats://a:4222']\n";
    let app = |more: &str| format!("{APP}{more}\n{engine}");
    let mut cases = Vec::new();
    if cfg!(feature = "zenith") {
        let topics = "[zenith]\ntopics = [{ controller = 'M', kind = '*' }, \
                      { controller = '#', kind = '*' }]";
        cases.push((app(topics), "zenith.topics[1].controller"));
    }
    if cfg!(feature = "zilliqa") {
        let file = "[zilliqa.node]\nurls = ['http://a']\nstate_file = 'f'";
        cases.push((app(file), "zilliqa.node.state_file"));
    }
    let apps = "[[apps]]\nid = '2'\nkey = 'l'\nsecret = 's'\n";
    let link = |source: &str, view: &str| {
        app(&format!("{apps}[[links]]\nsource = {{ {source} }}\nviews = [{{ {view} }}]"))
    };
    let carried = link("app = '1', channel = 'a'", "app = '2', channel = 'b'");
    assert_eq!(refusal(&carried), "");
    for (text, key) in cases {
        let error = refusal(&text);
        let wanted = format!("{key}: expected no value, because a cluster");
        assert!(error.contains(&wanted), "{key}: {error}\n{text}");
        let alone = text.replace(engine, "");
        assert_eq!(refusal(&alone), "", "without a cluster: {alone}");
    }
    for carried in [
        "limits = { connections = 10 }",
        "client_events = true",
        "subscription_count = true",
        "counts_in_reads = true",
        "watchlist = true",
        "history = [{ channels = ['a'] }]",
        "webhooks = [{ url = 'http://a' }]",
    ] {
        assert_eq!(refusal(&app(carried)), "", "{carried}");
    }
    assert_eq!(refusal(&app("[[routes]]\nendpoint = 'reflect'\nreflect.history = 5")), "");
    for text in
        ["[[routes]]\nendpoint = 'zenith'", "[zenith]\nfeeds = [{ name = 'F', class = 'News' }]"]
    {
        assert_eq!(refusal(&app(text)).is_empty(), cfg!(feature = "zenith"), "{text}");
    }
    for poll in ["leader", "each"] {
        let text = format!("[[routes]]\nendpoint = 'zilliqa'\n[zilliqa]\npoll = '{poll}'");
        assert_eq!(refusal(&app(&text)).is_empty(), cfg!(feature = "zilliqa"), "{poll}");
    }
    assert!(refusal(&app("[zilliqa]\npoll = 'all'")).contains("zilliqa.poll"));
}

/// A link with Zenith is carried, unless its topics are the channels in which the dialect keeps
/// what nodes have stated.
#[cfg(feature = "zenith")]
#[test]
fn cluster_config_refuses_links_with_hidden_topics_of_zenith() {
    let linked = |source: &str, view: &str| {
        let text = format!(
            "{APP}[[links]]\nsource = {{ {source} }}\nviews = [{{ {view} }}]\n\
             [zenith]\ntopics = [{{ controller = 'P', kind = '*' }}]\n"
        );
        assert_eq!(refusal(&text), "", "without a cluster");
        refusal(&format!("{text}[cluster]\nengine = ['nats://a:4222']\n"))
    };
    let channel = "app = '1', channel = 'a'";
    assert_eq!(linked(channel, "zenith = 'P/a'"), "");
    assert_eq!(linked("zenith = 'P/#'", channel), "");
    let refused = linked(channel, "zenith = '#/feeds'");
    assert!(refused.contains("links[0].views[0].zenith: expected no value"), "{refused}");
    let refused = linked("zenith = '#served/a'", channel);
    assert!(refused.contains("links[0].source.zenith: expected no value"), "{refused}");
}

#[test]
fn cluster_config_bounds_of_other_sections() {
    let with = |app: &str, more: &str| {
        refusal(&format!("{APP}{app}\n[cluster]\nengine = ['nats://a:4222']\n{more}"))
    };
    let timeouts = |ms: u64| with("", &format!("[timeouts]\nkeep_alive_ms = {ms}"));
    assert_eq!(timeouts(10_000), "");
    assert!(timeouts(9999).contains("timeouts.keep_alive_ms"), "{}", timeouts(9999));
    let max = (8 << 20) / 8 - 4096;
    let large = "[limits]\nwrite_queue_bytes = '4MiB'\nhttp_body_bytes = '4MiB'";
    let event = |bytes: u64| with(&format!("limits = {{ event_bytes = {bytes} }}"), large);
    assert_eq!(event(max), "");
    assert!(event(max + 1).contains("event_bytes"), "{}", event(max + 1));
}

#[test]
fn cluster_config_stays_over_a_reload() {
    let parse = |text: &str| Config::parse_with(text, FileFormat::Toml, "f", &|_| None);
    let old = parse(&format!("{APP}[cluster]\nengine = ['nats://a:4222']\n")).expect("valid");
    let mut new = parse(APP).expect("valid");
    new.keep_cluster(&old).expect("nothing that is not carried");
    assert_eq!(new.cluster, old.cluster);
    if cfg!(feature = "zilliqa") {
        let node = "[zilliqa.node]\nurls = ['http://a']\nstate_file = 'f'\n";
        let mut fetching = parse(&format!("{APP}{node}")).expect("valid");
        assert!(fetching.keep_cluster(&old).is_err());
    }
}
