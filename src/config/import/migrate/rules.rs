//! What becomes of the options of soketi and sockudo, which are mostly the same.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::ForeignServer;
use super::cluster;
use super::draft::Draft;
use super::hooks::{self, Batching};
use super::names::CLUSTER;
use super::options::{Options, Setting};
use crate::settings::error::{Error, Problem};

/// How the value of an option becomes that of a key.
#[derive(Clone, Copy)]
enum Convert {
    Text,
    Texts,
    Flag,
    Count,
    /// A number of which a negative one means that there is no limit.
    Unlimited,
    /// A size in units of this many bytes.
    Bytes(u32),
    /// A time in units of this many milliseconds, as seconds.
    Seconds(u32),
}
use Convert::{Bytes, Count, Flag, Seconds, Text, Texts, Unlimited};

/// Options of an application, and the keys below `apps`.
const APP: [(&str, &str, Convert); 14] = [
    ("max_connections", "limits.connections", Unlimited),
    ("enable_client_messages", "client_events", Flag),
    ("enable_watchlist_events", "watchlist", Flag),
    ("enabled", "enabled", Flag),
    ("allowed_origins", "allowed_origins", Texts),
    ("max_client_events_per_second", "limits.client_events_per_s", Unlimited),
    ("max_presence_members_per_channel", "limits.presence_members", Count),
    ("max_presence_member_size_in_kb", "limits.presence_member_bytes", Bytes(1024)),
    ("max_channel_name_length", "limits.channel_name_length", Count),
    ("max_event_channels_at_once", "limits.channels_per_trigger", Count),
    ("max_event_name_length", "limits.event_name_length", Count),
    ("max_event_payload_in_kb", "limits.event_bytes", Bytes(1024)),
    ("max_event_batch_size", "limits.batch_events", Count),
    ("name", "name", Text),
];

/// Options of the server that are keys of each application which does not set them itself.
const FOR_EACH_APP: [(&str, &str, Convert); 10] = [
    ("channel_limits.max_name_length", "limits.channel_name_length", Count),
    ("channel_limits.cache_ttl", "limits.cache_ttl_s", Count),
    ("event_limits.max_batch_size", "limits.batch_events", Count),
    ("event_limits.max_channels_at_once", "limits.channels_per_trigger", Count),
    ("event_limits.max_name_length", "limits.event_name_length", Count),
    ("event_limits.max_payload_in_kb", "limits.event_bytes", Bytes(1024)),
    ("presence.max_members_per_channel", "limits.presence_members", Count),
    ("presence.max_member_size_in_kb", "limits.presence_member_bytes", Bytes(1024)),
    ("cors.origin", "cors_origins", Texts),
    ("websocket_max_payload_kb", "limits.message_bytes", Bytes(1024)),
];

/// Other spellings of an application's options, which databases have.
const SPELLINGS: [(&str, &str); 6] = [
    ("app_id", "id"),
    ("app_key", "key"),
    ("app_secret", "secret"),
    ("max_backend_events_per_sec", "max_backend_events_per_second"),
    ("max_client_events_per_sec", "max_client_events_per_second"),
    ("max_read_req_per_sec", "max_read_requests_per_second"),
];

/// The parts of sockudo's policy of an application, which are those of the application itself.
const POLICY: [&str; 4] = ["policy.limits.", "policy.features.", "policy.channels.", "policy."];

/// Options without a counterpart, by the beginnings of their paths, and why.
const WITHOUT: [(&str, &str); 13] = [
    ("adapter.", CLUSTER),
    ("cluster", CLUSTER),
    ("instance.", CLUSTER),
    ("app_manager.", "applications are in this server's configuration, not in a database"),
    ("database", "applications are in this server's configuration, not in a database"),
    ("cache.", "cached events are in the memory of the server"),
    ("queue.", "webhooks are sent by the server itself, without a queue"),
    ("rate_limiter.", "the server has no such limit"),
    ("metrics.", "the counters are at /metrics, under this server's names"),
    ("cors.", "the server answers preflight requests by itself"),
    ("history.", "see `apps.history` of this server, which has its own protocol"),
    ("connection_recovery.", "see `apps.history` of this server, which has its own protocol"),
    ("idempotency.", "idempotency keys are always on, and are kept for two minutes"),
];

/// Converts the options of soketi or sockudo.
pub(super) fn convert(mut options: Options, draft: &mut Draft) -> Result<(), Error> {
    for (name, text) in options.take_notes() {
        draft.note(&name, &text);
    }
    let server = options.server;
    listen(&mut options, draft)?;
    top(&mut options, draft)?;
    let apps = take_apps(&mut options);
    let batching = batching(&mut options)?;
    let sign_in = options.take("user_authentication_timeout");
    let count = apps.len();
    for (place, (_, app)) in apps.into_iter().enumerate() {
        convert_app(app, server, &format!("apps.{place}"), sign_in.as_ref(), batching, draft)?;
    }
    for (path, ours, convert) in FOR_EACH_APP {
        let Some(setting) = options.take(path) else { continue };
        for place in 0..count {
            let ours = format!("apps.{place}.{ours}");
            if draft.number(&ours).is_none() {
                apply(&setting, &ours, convert, draft)?;
            }
        }
    }
    make_room(count, draft);
    drivers(&mut options, draft)?;
    for (path, setting) in options.take_rest() {
        let why = WITHOUT.iter().find(|(start, _)| path.starts_with(start));
        draft.note(&setting.name, why.map_or("has no counterpart", |(_, why)| why));
    }
    Ok(())
}

/// The listener, and its certificate.
fn listen(options: &mut Options, draft: &mut Draft) -> Result<(), Error> {
    let port = options.take("port").map_or(Ok(6001.0), |it| it.number())?;
    let host = options.take("host").map_or(Ok("0.0.0.0".to_owned()), |it| it.text())?;
    draft.set("listeners.0.address", address(&host, port)?);
    let is_on = options.take("ssl.enabled").map(|it| it.flag()).transpose()?;
    let cert = options.take("ssl.cert_path").map(|it| it.text()).transpose()?;
    let key = options.take("ssl.key_path").map(|it| it.text()).transpose()?;
    let is_given = |it: &Option<String>| it.as_ref().is_some_and(|path| !path.is_empty());
    if (is_given(&cert) || is_given(&key)) && is_on != Some(false) {
        let mut pair = toml::Table::new();
        pair.insert("cert".to_owned(), cert.unwrap_or_default().into());
        pair.insert("key".to_owned(), key.unwrap_or_default().into());
        draft.set("listeners.0.tls.certificates.0", pair);
    }
    if let Some(phrase) = options.take("ssl.passphrase").filter(|it| it.value != "") {
        draft.note(&phrase.name, "a key with a passphrase cannot be read; remove it from the key");
    }
    if let Some(file) = options.take("ssl.ca_path").filter(|it| it.value != "") {
        draft.note(&file.name, "add the certificates of that file to the file of ssl.certPath");
    }
    let socket = options.take("unix_socket.path");
    match options.take("unix_socket.enabled").map(|it| it.flag()).transpose()? {
        Some(true) => {
            let path =
                socket.map_or(Ok("/var/run/sockudo/sockudo.sock".to_owned()), |it| it.text());
            draft.set("listeners.0.address", format!("unix:{}", path?));
        }
        _ => drop(socket),
    }
    Ok(())
}

/// The address of a listener.
pub(super) fn address(host: &str, port: f64) -> Result<String, Error> {
    let refuse = |key: &str, problem: String| Error::keyed(key, Problem::Other(problem));
    if port.fract() != 0.0 || !(0.0..=65_535.0).contains(&port) {
        return Err(refuse("port", format!("{port} is not a port")));
    }
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    let host: IpAddr = host.trim_matches(['[', ']']).parse().map_err(|_| {
        refuse("host", format!("`{host}` is not an IP address; give the one to listen on"))
    })?;
    Ok(std::net::SocketAddr::new(host, port as u16).to_string())
}

/// Keys of the whole server.
fn top(options: &mut Options, draft: &mut Draft) -> Result<(), Error> {
    let is_soketi = options.server == ForeignServer::Soketi;
    if let Some(prefix) = options.take("path_prefix") {
        let path = prefix.text()?;
        let path = path.trim_matches('/');
        if !path.is_empty() {
            draft.set("pusher.path_prefix", format!("/{path}"));
        }
    }
    if let Some(debug) = options.take("debug")
        && debug.flag()?
    {
        draft.set("log.level", "debug");
    }
    // Without a value of their own, both servers stop in less time than this one.
    if let Some(grace) = options.take("shutdown_grace_period") {
        let unit = if is_soketi { 1 } else { 1000 };
        apply(&grace, "drain_s", Seconds(unit), draft)?;
    }
    if let Some(limit) = options.take("http_api.request_limit_in_mb") {
        apply(&limit, "limits.http_body_bytes", Bytes(1024 * 1024), draft)?;
    }
    if let Some(limit) = options.take("max_connections") {
        apply(&limit, "limits.connections", Unlimited, draft)?;
    }
    if let Some(timeout) = options.take("activity_timeout") {
        apply(&timeout, "pusher.activity_timeout_s", Seconds(1000), draft)?;
    }
    if let Some(mode) = options.take("mode")
        && is_soketi
        && mode.value != "full"
    {
        draft.note(&mode.name, "each server serves clients and the HTTP API");
    }
    Ok(())
}

/// Notes drivers that keep state elsewhere.
fn drivers(options: &mut Options, draft: &mut Draft) -> Result<(), Error> {
    cluster::convert(options, draft)?;
    if let Some(driver) = options.take("app_manager.driver")
        && !["array", "memory"].contains(&driver.text()?.as_str())
    {
        draft.note(&driver.name, "applications in a database are not read: add each to [[apps]]");
    }
    if let Some(metrics) = options.take("metrics.enabled")
        && metrics.flag()?
    {
        draft.note(
            &metrics.name,
            "the counters are at /metrics of each listener, under this server's names, for clients \
             on this machine; set metrics.token for others",
        );
    }
    Ok(())
}

/// The options of each application, by the application's place.
fn take_apps(options: &mut Options) -> BTreeMap<usize, BTreeMap<String, Setting>> {
    let mut apps: BTreeMap<usize, BTreeMap<String, Setting>> = BTreeMap::new();
    for (path, setting) in options.take_below("app_manager.array.apps.") {
        let (index, key) = path.split_once('.').unwrap_or((&path, ""));
        let key = POLICY.iter().find_map(|policy| key.strip_prefix(policy)).unwrap_or(key);
        let spelt = SPELLINGS.iter().find(|(other, _)| *other == key);
        let key = spelt.map_or(key, |(_, key)| key).to_owned();
        apps.entry(index.parse().unwrap_or(0)).or_default().insert(key, setting);
    }
    options.take("app_manager.array.apps");
    if apps.is_empty() {
        apps.insert(0, BTreeMap::new());
    }
    apps
}

fn batching(options: &mut Options) -> Result<Batching, Error> {
    let by_default = options.server == ForeignServer::Sockudo;
    let is_on = options.take("webhooks.batching.enabled").map_or(Ok(by_default), |it| it.flag())?;
    let wait = options.take("webhooks.batching.duration").map_or(Ok(50.0), |it| it.number())?;
    Ok(Batching { is_on, wait_ms: wait.max(0.0) as u64 })
}

fn convert_app(
    mut app: BTreeMap<String, Setting>,
    server: ForeignServer,
    at: &str,
    sign_in: Option<&Setting>,
    batching: Batching,
    draft: &mut Draft,
) -> Result<(), Error> {
    for (key, default) in [("id", "app-id"), ("key", "app-key"), ("secret", "app-secret")] {
        let value = match app.remove(key) {
            Some(setting) => setting.text()?,
            None => {
                let text = format!("is not set, so it is `{default}`, as before; this is public");
                draft.note(&format!("{at}.{key}"), &text);
                default.to_owned()
            }
        };
        draft.set(&format!("{at}.{key}"), value);
    }
    draft.set(&format!("{at}.profile"), "soketi");
    if server == ForeignServer::Sockudo {
        let activity_s = draft.number("pusher.activity_timeout_s").unwrap_or(120);
        draft.set_number(&format!("{at}.activity_timeout_s"), "activity_timeout", activity_s);
    }
    for (path, ours, convert) in APP {
        let Some(setting) = app.remove(path) else { continue };
        match (path, setting.texts()) {
            // Any origin is the default.
            ("allowed_origins", Ok(origins)) if origins == ["*"] => {}
            _ => apply(&setting, &format!("{at}.{ours}"), convert, draft)?,
        }
    }
    let signs_in = app.remove("enable_user_authentication").map(|it| it.flag()).transpose()?;
    if signs_in == Some(true) {
        let ours = format!("{at}.authorise_within_s");
        let unit = if server == ForeignServer::Soketi { 1 } else { 1000 };
        match sign_in {
            Some(setting) => apply(setting, &ours, Seconds(unit), draft)?,
            None if server == ForeignServer::Soketi => draft.set(&ours, 30),
            None => draft.set(&ours, 3600),
        }
    }
    if let Some(hooks) = app.remove("webhooks") {
        hooks::convert(&hooks, at, batching, draft)?;
    }
    for rate in ["max_backend_events_per_second", "max_read_requests_per_second"] {
        if let Some(setting) = app.remove(rate)
            && setting.number()? > 0.0
        {
            draft.note(&setting.name, "the server has no limit for requests of the HTTP API");
        }
    }
    for setting in app.into_values() {
        draft.note(&setting.name, "has no counterpart");
    }
    Ok(())
}

/// Sets the key `ours` to the converted value.
fn apply(setting: &Setting, ours: &str, convert: Convert, draft: &mut Draft) -> Result<(), Error> {
    let number = |factor: f64| Ok::<f64, Error>((setting.number()? * factor).ceil());
    let number = match convert {
        Text => {
            draft.set(ours, setting.text()?);
            return Ok(());
        }
        Flag => {
            draft.set(ours, setting.flag()?);
            return Ok(());
        }
        Texts => {
            let texts = setting.texts()?.into_iter().map(toml::Value::from);
            draft.set(ours, texts.collect::<Vec<_>>());
            return Ok(());
        }
        Count | Unlimited => number(1.0)?,
        Bytes(unit) => number(f64::from(unit))?,
        Seconds(unit) => number(f64::from(unit) / 1000.0)?,
    };
    let number = match convert {
        Unlimited => number.max(0.0),
        _ if number < 0.0 => {
            let problem = Problem::Other("expected a number of 0 or more".to_owned());
            return Err(Error::keyed(setting.name.clone(), problem));
        }
        _ => number,
    };
    draft.set_number(ours, &setting.name, number as u64);
    Ok(())
}

/// Raises limits of the whole server that are below those of an application.
pub(super) fn make_room(apps: usize, draft: &mut Draft) {
    // The defaults of this server's limits.
    let limits = crate::config::limits::Limits::default();
    let largest = |key: &str| {
        let of_app = |place| draft.number(&format!("apps.{place}.limits.{key}"));
        (0..apps).filter_map(of_app).max().unwrap_or(0)
    };
    let (event, message) = (largest("event_bytes"), largest("message_bytes"));
    // The profile's sizes count, too, where an application has none of its own.
    let event = event.max(100 * 1024);
    for (key, needed, has) in [
        ("http_body_bytes", event, limits.http_body_bytes as u64),
        ("write_queue_bytes", 2 * event, limits.write_queue_bytes as u64),
        ("message_bytes", message, limits.message_bytes),
    ] {
        let path = format!("limits.{key}");
        if needed > draft.number(&path).unwrap_or(has) {
            draft.set_number(&path, &path, needed);
        }
    }
}
