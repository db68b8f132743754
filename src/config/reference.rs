//! The reference of all keys, made from the structs of the sections: the example file and the page
//! `docs/configuration.md`.
//!
//! This file decides the order and the form of the sections. Names, documentation, ranges, kinds
//! and defaults come from the sections.

mod examples;
mod headers;
mod prose;

use std::fmt::Write;

use super::app::AppConfig;
use super::app_history::AppHistory;
use super::guard::GuardKey;
use super::link::{ChannelLink, LinkEnd};
use super::root::Config;
use super::route::{Condition, Route};
use super::tls::Certificate;
use super::webhook::Webhook;
use super::{catalog, model};
use crate::settings::pattern::Pattern;
use crate::settings::range::size_text;
use crate::settings::section::{Key, Section, inline_all};
pub(super) use examples::sample;
use examples::{
    acme_example, cluster_example, example_app, example_guard, example_pair, proxy_example,
    zenith_example,
};
use headers::{HEADER, PAGE_HEADER};
use prose::{comment, commented_out, flow, paragraphs, plain};

/// The size from which the example file writes a number of bytes with a unit.
const UNIT_BYTES: u64 = 16 * 1024;

/// One table of the reference.
struct Table {
    /// The path of the table; empty for the top of the document.
    path: &'static str,
    /// Whether it is an entry of a list of tables.
    is_list: bool,
    /// What the table is for.
    title: Vec<String>,
    keys: Vec<Key>,
    /// Keys with a further line that shows a whole value.
    samples: Vec<(&'static str, String)>,
}

impl Table {
    /// A table with every key of `section` that has no table of its own.
    fn of<S: Section>(path: &'static str, section: &S) -> Table {
        // The certificate of a proxy is written on one line.
        let is_inline = |key: &Key| path == "routes.proxy.tls" && key.name == "certificate";
        let mut keys = section.keys();
        keys.retain(|key| key.kind != "table" || is_inline(key));
        Table { path, is_list: false, title: paragraphs(S::title()), keys, samples: Vec::new() }
    }

    /// As [`Table::of`], for an entry of a list.
    fn entry<S: Section>(path: &'static str, section: &S) -> Table {
        Table { is_list: true, ..Table::of(path, section) }
    }

    fn without(mut self, names: &[&str]) -> Table {
        self.keys.retain(|key| !names.contains(&key.name));
        self
    }

    fn sample(mut self, key: &'static str, value: &str) -> Table {
        self.samples.push((key, format!("{key} = {value}")));
        self
    }

    /// The table as lines of the example file.
    fn toml(&self) -> Vec<String> {
        let mut lines = comment(&self.title);
        match (self.path, self.is_list) {
            ("", _) => lines.clear(),
            (path, true) => lines.push(format!("[[{path}]]")),
            (path, false) => lines.push(format!("[{path}]")),
        }
        for key in &self.keys {
            lines.extend(self.key_lines(key));
        }
        lines
    }

    fn key_lines(&self, key: &Key) -> Vec<String> {
        let mut lines = comment(&meaning(key));
        for (_, line) in self.samples.iter().filter(|(name, _)| *name == key.name) {
            lines.extend(["# Example:".to_owned(), format!("# {line}")]);
        }
        lines.push(format!("{} = {}", key.name, value(key)));
        lines
    }
}

/// The example file: every key with its default.
pub fn example() -> String {
    let config = Config { apps: vec![example_app()], ..Config::default() };
    let route = &config.routes[0];
    let mut file = Vec::new();
    let top = Table::of("", &config).without(&["listeners", "guards", "routes", "apps"]);
    file.extend(comment(&paragraphs(&HEADER.lines().collect::<Vec<_>>())));
    push(&mut file, top.toml());
    push(&mut file, guards());
    push(&mut file, Table::of("log", &config.log).toml());
    push(&mut file, Table::entry("listeners", &config.listeners[0]).toml());
    push(&mut file, listener_tls(&config).toml());
    push(&mut file, acme());
    for table in plain_tables(&config) {
        push(&mut file, table.toml());
    }
    push(&mut file, catalog::EXAMPLE.lines().skip(1).map(str::to_owned).collect());
    push(&mut file, routes(route));
    push(&mut file, proxy());
    for route in &config.routes[1..] {
        push(&mut file, short_route(route));
    }
    push(&mut file, apps(&config.apps[0]));
    push(&mut file, Table::of("apps.limits", &config.apps[0].limits).toml());
    push(&mut file, zenith());
    push(&mut file, cluster());
    file.join("\n") + "\n"
}

/// The page `docs/configuration.md`: a table of keys for each section.
pub fn reference() -> String {
    let config = Config { apps: vec![example_app()], ..Config::default() };
    let top = Table::of("", &config).without(&[
        "listeners",
        "guards",
        "routes",
        "apps",
        "catalogs",
        "links",
    ]);
    let mut tables = vec![
        top,
        Table::of("log", &config.log),
        Table::entry("listeners", &config.listeners[0]),
        listener_tls(&config).without(&["certificates"]),
        Table::entry("listeners.tls.certificates", &Certificate::default()),
        Table::of("listeners.tls.acme", &acme_example()),
    ];
    tables.extend(plain_tables(&config));
    tables.extend(guard_tables());
    tables.extend(catalog_tables());
    tables.extend(route_tables(&config.routes[0]));
    tables.extend(app_tables(&config.apps[0]));
    tables.extend(zenith_tables());
    tables.push(Table::of("cluster", &cluster_example()));
    let mut page = PAGE_HEADER.to_owned();
    for table in &tables {
        markdown(table, &mut page);
    }
    page
}

fn guard_tables() -> Vec<Table> {
    let guard = example_guard();
    vec![
        Table::entry("guards", &guard),
        Table::entry("guards.keys", &GuardKey::default()),
        Table::of("guards.credentials", &guard.credentials),
        Table::of("guards.certificate", &guard.certificate),
    ]
}

fn catalog_tables() -> Vec<Table> {
    let catalog = catalog::example_catalog();
    vec![
        Table::entry("catalogs", &catalog).without(&["subjects"]),
        Table::entry("catalogs.subjects", &catalog.subjects[0]),
        Table::of("catalogs.credentials.headers", &catalog.credentials.headers),
    ]
}

fn route_tables(route: &Route) -> Vec<Table> {
    let proxy = proxy_example();
    vec![
        Table::entry("routes", route),
        Table::entry("routes.when", &Condition::default()),
        Table::of("routes.reflect", &route.reflect),
        Table::of("routes.proxy", &proxy),
        Table::of("routes.proxy.tls", &proxy.tls),
        Table::of("routes.model", &route.model),
        Table::of("routes.model.received.text", &model::example_model()),
    ]
}

fn app_tables(app: &AppConfig) -> Vec<Table> {
    vec![
        Table::entry("apps", app),
        Table::entry("apps.keys", &example_pair()),
        Table::of("apps.limits", &app.limits),
        Table::entry("apps.webhooks", &Webhook::new("https://example.com/hook")),
        Table::entry("apps.history", &AppHistory::new(&["chat-*"])),
        Table::entry("links", &ChannelLink::default()),
        Table::of("links.source", &LinkEnd::default()),
        Table::entry("links.views", &LinkEnd::default()),
    ]
}

fn zenith_tables() -> Vec<Table> {
    let zenith = zenith_example();
    vec![
        Table::of("zenith", &zenith).without(&["tokens", "services", "feeds", "topics"]),
        Table::entry("zenith.tokens", &zenith.tokens[0]),
        Table::entry("zenith.services", &zenith.services[0]),
        Table::entry("zenith.feeds", &zenith.feeds[0]),
        Table::entry("zenith.topics", &zenith.topics[0]),
    ]
}

/// The tables between the listeners and the catalogs, of which each has one form only.
fn plain_tables(config: &Config) -> Vec<Table> {
    vec![
        Table::of("process", &config.process),
        Table::of("limits", &config.limits),
        Table::of("timeouts", &config.timeouts),
        Table::of("compression", &config.compression),
        Table::of("pusher", &config.pusher),
        Table::of("zilliqa", &config.zilliqa),
        Table::of("zilliqa.node", &config.zilliqa.node),
        Table::of("broadcastt", &config.broadcastt),
        Table::of("console", &config.console),
        Table::of("metrics", &config.metrics),
    ]
}

fn listener_tls(config: &Config) -> Table {
    let (cert, key) = ("server.pem".to_owned(), "server.key".to_owned());
    let pair = Certificate { cert, key, ..Certificate::default() };
    let table = Table::of("listeners.tls", &config.listeners[0].tls);
    table.sample("certificates", &format!("[{}]", inline_all(&pair)))
}

/// The ACME section of a listener as a comment.
fn acme() -> Vec<String> {
    let mut table = Table::of("listeners.tls.acme", &acme_example());
    let mut lines = comment(&table.title);
    table.title.clear();
    lines.push("#".to_owned());
    lines.extend(table.toml().iter().map(|line| commented_out(line)));
    lines
}

/// The guards as a comment, followed by the key without any.
fn guards() -> Vec<String> {
    let guard = example_guard();
    let keys = format!("[{}]", inline_all(&GuardKey::default()));
    let mut block = Table::entry("guards", &guard).sample("keys", &keys);
    let mut lines = comment(&[block.title.join(" ")
        + " To configure guards, remove the last line of this block and write the following after \
           the [log] section, once for each guard:"]);
    block.title.clear();
    let mut commented = vec![String::new()];
    commented.extend(block.toml());
    push(&mut commented, Table::of("guards.credentials", &guard.credentials).toml());
    push(&mut commented, Table::of("guards.certificate", &guard.certificate).toml());
    commented.push(String::new());
    lines.extend(commented.iter().map(|line| commented_out(line)));
    lines.push("guards = []".to_owned());
    lines
}

/// A route with every key. The keys of `reflect` and `model` are written with a dot.
fn routes(route: &Route) -> Vec<String> {
    let condition = Condition {
        path: Pattern::new("/echo"),
        query: Pattern::new("room=*"),
        authority: Pattern::new("*.example.com"),
        scheme: Pattern::new("https"),
        protocol: Pattern::new("echo"),
    };
    let table = Table::entry("routes", route).without(&["model"]);
    let mut lines = table.sample("when", &format!("[{}]", inline_all(&condition))).toml();
    let reflect = Table::of("reflect", &route.reflect);
    for key in &reflect.keys {
        let own = reflect.key_lines(key);
        let (last, before) = own.split_last().expect("a key has a line");
        lines.extend(before.to_vec());
        lines.push(format!("reflect.{last}"));
    }
    lines.extend(model::EXAMPLE.lines().skip(1).map(commented_out));
    let models = Table::of("model", &route.model);
    lines.push("model.received = {}".to_owned());
    lines.extend(["# See model.received.".to_owned(), "model.sent = {}".to_owned()]);
    for key in &models.keys {
        lines.extend([
            "# See model.received.".to_owned(),
            format!("model.{} = {}", key.name, value(key)),
        ]);
    }
    lines
}

/// A route with its conditions and its endpoint only.
fn short_route(route: &Route) -> Vec<String> {
    let keys = route.keys();
    let value = |name: &str| keys.iter().find(|key| key.name == name).map(value);
    let line = |name: &str| format!("{name} = {}", value(name).unwrap_or_default());
    vec!["[[routes]]".to_owned(), line("when"), line("endpoint")]
}

/// A proxy route as a comment.
fn proxy() -> Vec<String> {
    let proxy = proxy_example();
    let mut table = Table::of("routes.proxy", &proxy);
    let mut lines = comment(&table.title);
    lines.extend(["#", "# For such a route, write:", "#"].map(str::to_owned));
    table.title.clear();
    let route = ["[[routes]]", "when = [{ path = \"/chat/*\" }]", "endpoint = \"proxy\""];
    let mut commented = route.map(str::to_owned).to_vec();
    commented.extend(table.toml());
    commented.extend(Table::of("routes.proxy.tls", &proxy.tls).toml());
    lines.extend(commented.iter().map(|line| commented_out(line)));
    lines
}

/// An application, with its webhooks and histories as comments.
fn apps(app: &AppConfig) -> Vec<String> {
    let table = Table::entry("apps", app).without(&["webhooks", "history"]);
    let mut lines = table.sample("keys", &format!("[{}]", inline_all(&example_pair()))).toml();
    let mut hook = Table::entry("apps.webhooks", &Webhook::new("https://example.com/hook"));
    lines.extend(comment(&[hook.title.join(" ")
        + " To configure webhooks, remove the last line of this block and write the following \
           after the [apps.limits] section, once for each endpoint:"]));
    hook.title.clear();
    lines.push("#".to_owned());
    lines.extend(hook.toml().iter().map(|line| commented_out(line)));
    lines.extend(["#".to_owned(), "webhooks = []".to_owned()]);
    let mut history = Table::entry("apps.history", &AppHistory::new(&["chat-*"]));
    lines.extend(comment(&[history.title.join(" ")
        + " To configure histories, remove the last line of this block and write the following \
           after the [apps.limits] section, once for each:"]));
    history.title.clear();
    lines.push("#".to_owned());
    lines.extend(history.toml().iter().map(|line| commented_out(line)));
    lines.extend(["#".to_owned(), "history = []".to_owned()]);
    lines
}

/// The Zenith section as a comment.
fn zenith() -> Vec<String> {
    let zenith = zenith_example();
    let lists = ["tokens", "services", "feeds", "topics"];
    let mut table = Table::of("zenith", &zenith).without(&lists);
    let mut lines = comment(&table.title);
    table.title.clear();
    let mut commented = vec![String::new()];
    commented.extend(table.toml());
    push(&mut commented, Table::entry("zenith.tokens", &zenith.tokens[0]).toml());
    push(&mut commented, Table::entry("zenith.services", &zenith.services[0]).toml());
    push(&mut commented, Table::entry("zenith.feeds", &zenith.feeds[0]).toml());
    push(&mut commented, Table::entry("zenith.topics", &zenith.topics[0]).toml());
    lines.extend(commented.iter().map(|line| commented_out(line)));
    lines
}

/// The cluster section as a comment.
fn cluster() -> Vec<String> {
    let mut table = Table::of("cluster", &cluster_example());
    let mut lines = comment(&table.title);
    table.title.clear();
    let mut commented = vec![String::new()];
    commented.extend(table.toml());
    lines.extend(commented.iter().map(|line| commented_out(line)));
    lines
}

/// Adds a part after an empty line.
fn push(file: &mut Vec<String>, part: Vec<String>) {
    file.push(String::new());
    file.extend(part);
}

/// The documentation of a key with its range.
fn meaning(key: &Key) -> Vec<String> {
    let mut meaning = paragraphs(key.doc);
    let Some(range) = &key.range else { return meaning };
    let text = match range.unit() {
        "" => range.to_string(),
        unit => format!("{unit}, {range}"),
    };
    let mut text = text.chars();
    let first = text.next().map(|letter| letter.to_ascii_uppercase());
    let sentence: String = first.into_iter().chain(text).collect();
    match meaning.iter_mut().rfind(|it| !it.is_empty() && !it.starts_with("- ")) {
        Some(last) => *last += &format!(" {sentence}."),
        None => meaning.push(format!("{sentence}.")),
    }
    meaning
}

/// Whether a key of this name has a number of bytes.
fn has_bytes(name: &str) -> bool {
    name == "bytes" || name.ends_with("_bytes")
}

/// Whether the file accepts units for the value of a key.
pub(super) fn is_size(key: &Key) -> bool {
    let in_bytes = has_bytes(key.name) && key.kind == "integer";
    in_bytes && key.range.is_none_or(|range| range.is_size())
}

/// The value of a key. A large size has its unit.
fn value(key: &Key) -> String {
    let value = key.value.clone().unwrap_or_default();
    match value.parse::<u64>() {
        Ok(bytes) if has_bytes(key.name) && bytes >= UNIT_BYTES && bytes % 1024 == 0 => {
            format!("\"{}\"", size_text(bytes))
        }
        _ => value,
    }
}

fn markdown(table: &Table, page: &mut String) {
    let title = match (table.path, table.is_list) {
        ("", _) => "Top level".to_owned(),
        (path, true) => format!("`[[{path}]]`"),
        (path, false) => format!("`[{path}]`"),
    };
    let _ = write!(page, "\n## {title}\n\n");
    if !table.path.is_empty() {
        let _ = write!(page, "{}\n\n", flow(&table.title));
    }
    page.push_str("| key | type | default | range | unit | meaning |\n");
    page.push_str("| --- | --- | --- | --- | --- | --- |\n");
    let cell = |text: &str| text.replace('|', "\\|");
    for key in &table.keys {
        let default = value(key);
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let range = key.range.map_or(String::new(), |range| range.to_string());
        let unit = key.range.map_or("", |range| range.unit());
        let meaning = plain(&paragraphs(key.doc).join("<br>"));
        let kind = if is_size(key) { "size" } else { &key.kind };
        let row = [&format!("`{}`", key.name), kind, &default, &range, unit, &meaning];
        let row: Vec<String> = row.into_iter().map(cell).collect();
        let _ = writeln!(page, "| {} |", row.join(" | "));
    }
}
