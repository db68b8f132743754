//! Example values of sections without defaults, and a configuration that has every section.

use crate::config::acme::Acme;
use crate::config::app::{AppConfig, KeyPair};
use crate::config::app_history::AppHistory;
use crate::config::cluster::Cluster;
use crate::config::guard::{GuardConfig, GuardKey};
use crate::config::link::{ChannelLink, LinkEnd};
use crate::config::listener::Listener;
use crate::config::proxy::{Proxy, Upstream};
use crate::config::root::Config;
use crate::config::route::{EndpointKind, Route};
use crate::config::tls::Certificate;
use crate::config::webhook::Webhook;
use crate::config::zenith::Zenith;
use crate::config::{catalog, model};
use crate::settings::secret::Secret;
use std::sync::Arc;

/// The tokens, back ends, feeds and topics of the example of the Zenith section.
const ZENITH: &str = r#"
tokens = [{ token = "change-this-token", user = "ada" }]
services = [{ token = "change-this-token-too" }]
feeds = [{ name = "XYZ", class = "Market" }]
topics = [{ controller = "Market", kind = "Security" }]
"#;

pub(super) fn example_app() -> AppConfig {
    AppConfig::new("1", "change-this-key", "change-this-secret")
}

pub(super) fn example_pair() -> KeyPair {
    KeyPair { key: "old-key".to_owned(), secret: Secret::new("old-secret") }
}

pub(super) fn example_guard() -> GuardConfig {
    let url = "https://auth.example.com/.well-known/jwks.json".to_owned();
    GuardConfig { keys_url: url, ..GuardConfig::new("my_jwt") }
}

pub(super) fn proxy_example() -> Proxy {
    let urls = ["wss://a.example.com", "ws://10.0.0.2:8080/chat"];
    let upstreams = urls.into_iter().filter_map(Upstream::new).collect();
    Proxy { upstreams, ..Proxy::default() }
}

pub(super) fn zenith_example() -> Zenith {
    toml::from_str(ZENITH).expect("the example of the Zenith section is valid")
}

pub(super) fn cluster_example() -> Cluster {
    Cluster { engine: vec!["nats://10.0.0.5:4222".to_owned()], ..Cluster::default() }
}

pub(super) fn acme_example() -> Acme {
    let (domains, store) = (vec!["chat.example.com".to_owned()], "/var/lib/polycast/acme");
    Acme { accept_terms: true, domains, store: store.to_owned(), ..Acme::default() }
}

/// A configuration in which each list of tables has an entry and each optional table exists, with
/// every key at its default, for the JSON Schema. It does not pass the check.
pub(in crate::config) fn sample() -> Config {
    let app = AppConfig {
        keys: vec![example_pair()],
        webhooks: vec![Webhook::new("")],
        history: vec![AppHistory::new(&[])],
        ..AppConfig::new("", "", "")
    };
    let guard = GuardConfig { keys: vec![GuardKey::default()], ..GuardConfig::new("") };
    let mut route = Route::of(&[""], EndpointKind::Echo);
    route.proxy = Some(Arc::default());
    for direction in [&mut route.model.received, &mut route.model.sent] {
        direction.text = Some(model::example_model());
        direction.binary = Some(model::example_model());
    }
    let link = ChannelLink { views: vec![LinkEnd::default()], ..ChannelLink::default() };
    let mut listener = Listener::default();
    listener.tls.certificates = vec![Certificate::default()];
    listener.tls.acme = Some(Box::default());
    Config {
        listeners: vec![listener],
        guards: vec![guard],
        catalogs: vec![catalog::example_catalog()],
        routes: vec![route],
        apps: vec![app],
        links: vec![link],
        zenith: Some(Box::new(zenith_example())),
        cluster: Some(Box::default()),
        ..Config::default()
    }
}
