//! Checks what types cannot express: ranges, relations between keys, and unique names.
//!
//! An error names the path of its key; the caller finds the line.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use tracing_subscriber::EnvFilter;

use super::error::{Error, Problem};
use super::schema::{AppConfig, Config, EndpointKind, Limits, Route, Secret};
use super::{
    Listener, broadcastt, certificate, guard, route, tls, webhook, zenith, zilliqa, zilliqa_node,
};
use crate::limits::{HTTP_HEADERS_MAX, MAX_CORES, WS_CONTROL_BYTES};

const HOUR_MS: u64 = 3_600_000;
const DAY_S: u64 = 86_400;
const GIB: u64 = 1 << 30;
/// Minimum length of a token, in characters, so that it cannot be guessed over a network.
const TOKEN_MIN: usize = 16;

/// Checks a whole configuration and returns the first error.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    range("threads", config.threads as u64, 0..=MAX_CORES as u64, "")?;
    range("drain_s", config.drain_s, 0..=DAY_S, " seconds")?;
    check_log_level(&config.log.level)?;
    check_listeners(config)?;
    check_limits(&config.limits)?;
    check_timeouts(config)?;
    let compression = &config.compression;
    range("compression.min_bytes", compression.min_bytes as u64, 1..=GIB, " bytes")?;
    range("compression.windows_bytes", compression.windows_bytes as u64, 0..=64 * GIB, " bytes")?;
    check_pusher(config)?;
    zilliqa_node::check(&config.zilliqa.node).map_err(|error| error.under("zilliqa.node"))?;
    check_token("zilliqa.publish_token", &config.zilliqa.publish_token)?;
    zilliqa::check(&config.zilliqa, &config.routes).map_err(|error| error.under("zilliqa"))?;
    broadcastt::check(&config.broadcastt)?;
    check_token("console.token", &config.console.token)?;
    check_token("metrics.token", &config.metrics.token)?;
    let namespace = config.metrics.namespace.chars().count() as u64;
    range("metrics.namespace", namespace, 1..=128, " characters")?;
    check_guards(config)?;
    route::check(config)?;
    if let Some(it) = &config.zenith {
        let check = zenith::check(it, config.limits.message_bytes);
        check.map_err(|error| error.under("zenith"))?;
    }
    check_apps(config)
}

/// Checks the log level. `EnvFilter` would accept a misspelt level as the name of a target and log
/// nothing for it.
fn check_log_level(level: &str) -> Result<(), Error> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_plain = |part: &str| !part.contains(['=', '[']);
    let is_level = |part: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part));
    let misspelt = level.split(',').map(str::trim).any(|part| is_plain(part) && !is_level(part));
    if misspelt || EnvFilter::try_new(level).is_err() {
        let accepted = "off, error, warn, info, debug, trace, or directives separated by commas \
                        such as `warn,polycast=debug`";
        return Err(shape("log.level", level, accepted));
    }
    Ok(())
}

fn check_listeners(config: &Config) -> Result<(), Error> {
    let (mut seen, mut names) = (Unique::default(), Unique::default());
    if config.listeners.is_empty() {
        return Err(Error::keyed("listeners", Problem::Empty));
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        let key = format!("listeners[{index}].address");
        let address = listener.address;
        if config.is_demo && !address.ip().to_canonical().is_loopback() {
            return Err(Error::keyed(key, Problem::DemoAddress(address)));
        }
        let in_tls = |error: Error| error.under(&format!("listeners[{index}].tls"));
        tls::check(&listener.tls).map_err(in_tls)?;
        if address.port() != 0 {
            seen.add(&address.to_string(), key)?;
        }
        if !listener.name.is_empty() {
            names.add(&listener.name, format!("listeners[{index}].name"))?;
        }
        check_listener(listener).map_err(|error| error.under(&format!("listeners[{index}]")))?;
    }
    Ok(())
}

fn check_listener(listener: &Listener) -> Result<(), Error> {
    if !listener.name.is_empty() {
        check_name("name", &listener.name)?;
    }
    for (index, origin) in listener.allowed_origins.iter().enumerate() {
        if origin.as_str() != "same-origin" {
            check_origin(&format!("allowed_origins[{index}]"), origin.as_str())?;
        }
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), Error> {
    let queue = limits.write_queue_bytes as u64;
    let (head, body) = (limits.http_head_bytes as u64, limits.http_body_bytes as u64);
    let buffer = limits.receive_buffer_bytes as u64;
    let fragments = limits.fragments.into();
    let control = WS_CONTROL_BYTES as u64;
    range("limits.handshakes", limits.handshakes as u64, 1..=1 << 20, "")?;
    range("limits.cached_bytes", limits.cached_bytes as u64, 0..=64 * GIB, " bytes")?;
    range("limits.overload_bytes", limits.overload_bytes, 0..=1024 * GIB, " bytes")?;
    if limits.memory_bytes > 0 {
        range("limits.memory_bytes", limits.memory_bytes, 16 << 20..=64 * 1024 * GIB, " bytes")?;
    }
    range("limits.min_bytes_per_s", limits.min_bytes_per_s, 0..=1 << 20, " bytes")?;
    let control_frames = limits.control_frames_per_s.into();
    range("limits.control_frames_per_s", control_frames, 10..=60_000, "")?;
    power_of_two("limits.receive_buffers", limits.receive_buffers, 16..=32_768)?;
    range("limits.receive_buffer_bytes", buffer, 512..=65_536, " bytes")?;
    range("limits.write_queue_bytes", queue, 65_536..=GIB, " bytes")?;
    power_of_two("limits.mailbox_messages", limits.mailbox_messages, 16..=1 << 20)?;
    range("limits.frame_bytes", limits.frame_bytes, control..=GIB, " bytes")?;
    range("limits.message_bytes", limits.message_bytes, control..=GIB, " bytes")?;
    let modelled = limits.model_message_bytes;
    range("limits.model_message_bytes", modelled, control..=GIB, " bytes")?;
    range("limits.fragments", fragments, 1..=1 << 24, "")?;
    range("limits.http_head_bytes", head, 1024..=65_536, " bytes")?;
    let fields = limits.http_head_fields as u64;
    range("limits.http_head_fields", fields, 16..=HTTP_HEADERS_MAX as u64, "")?;
    range("limits.http_body_bytes", body, 1024..=GIB, " bytes")?;
    let frame = limits.frame_bytes;
    at_most("limits.frame_bytes", frame, "limits.message_bytes", limits.message_bytes)?;
    at_most("limits.http_head_bytes", head, "limits.http_body_bytes", body)
}

fn check_timeouts(config: &Config) -> Result<(), Error> {
    let timeouts = &config.timeouts;
    for (key, milliseconds) in [
        ("timeouts.handshake_ms", timeouts.handshake_ms),
        ("timeouts.head_ms", timeouts.head_ms),
        ("timeouts.body_ms", timeouts.body_ms),
        ("timeouts.keep_alive_ms", timeouts.keep_alive_ms),
        ("timeouts.message_ms", timeouts.message_ms),
        ("timeouts.close_ms", timeouts.close_ms),
        ("timeouts.send_ms", timeouts.send_ms),
    ] {
        range(key, milliseconds, 1..=HOUR_MS, " milliseconds")?;
    }
    Ok(())
}

fn check_pusher(config: &Config) -> Result<(), Error> {
    let pusher = &config.pusher;
    range("pusher.activity_timeout_s", pusher.activity_timeout_s, 1..=DAY_S, " seconds")?;
    range("pusher.pong_timeout_s", pusher.pong_timeout_s, 1..=DAY_S, " seconds")?;
    let inactivity = pusher.inactivity_timeout_s;
    range("pusher.inactivity_timeout_s", inactivity, 1..=7 * DAY_S, " seconds")?;
    let prefix = pusher.path_prefix.as_str();
    let framed = prefix.is_empty() || (prefix.starts_with('/') && !prefix.ends_with('/'));
    if !framed || !is_path(prefix) {
        let accepted = "an empty string, or a path that begins with `/` and does not end with `/`";
        return Err(shape("pusher.path_prefix", prefix, accepted));
    }
    Ok(())
}

fn check_guards(config: &Config) -> Result<(), Error> {
    let mut names = Unique::default();
    for (index, guard) in config.guards.iter().enumerate() {
        let key = format!("guards[{index}]");
        let checked =
            guard::check(guard).and_then(|()| certificate::check_listeners(guard, config));
        checked.map_err(|error| error.under(&key))?;
        names.add(&guard.name, format!("{key}.name"))?;
    }
    Ok(())
}

fn check_apps(config: &Config) -> Result<(), Error> {
    let without =
        |route: &Route| route.endpoint.is_dialect() || route.endpoint == EndpointKind::Proxy;
    let needs_none = config.routes.iter().any(without)
        || config.routes.iter().all(|route| route.endpoint != EndpointKind::Apps);
    if config.apps.is_empty() && !needs_none && config.zenith.is_none() {
        return Err(Error::keyed("apps", Problem::Empty));
    }
    for (index, app) in config.apps.iter().enumerate() {
        check_app(app, config).map_err(|error| error.under(&format!("apps[{index}]")))?;
    }
    check_names(&config.apps)
}

fn check_app(app: &AppConfig, config: &Config) -> Result<(), Error> {
    check_name("id", &app.id)?;
    check_name("key", &app.key)?;
    check_secret("secret", &app.secret)?;
    for (index, pair) in app.keys.iter().enumerate() {
        check_name(&format!("keys[{index}].key"), &pair.key)?;
        check_secret(&format!("keys[{index}].secret"), &pair.secret)?;
    }
    for (index, origin) in app.allowed_origins.iter().enumerate() {
        check_origin(&format!("allowed_origins[{index}]"), origin.as_str())?;
    }
    for (index, origin) in app.cors_origins.iter().enumerate() {
        check_origin(&format!("cors_origins[{index}]"), origin.as_str())?;
    }
    range("activity_timeout_s", app.activity_timeout_s, 0..=DAY_S, " seconds")?;
    range("authorise_within_s", app.authorise_within_s, 0..=DAY_S, " seconds")?;
    range("terminate_close_code", app.terminate_close_code.into(), 4000..=4299, "")?;
    for (index, hook) in app.webhooks.iter().enumerate() {
        webhook::check(hook).map_err(|error| error.under(&format!("webhooks[{index}]")))?;
    }
    broadcastt::check_app(app)?;
    check_app_limits(app, config)
}

fn check_app_limits(app: &AppConfig, config: &Config) -> Result<(), Error> {
    let limits = &app.limits;
    let subscriptions = limits.subscriptions_per_connection as u64;
    let (channel, event) = (limits.channel_name_length as u64, limits.event_name_length as u64);
    let channels = limits.channels_per_trigger as u64;
    let (event_bytes, message_bytes) = (limits.event_bytes as u64, limits.message_bytes);
    let control = WS_CONTROL_BYTES as u64;
    range("limits.channels", limits.channels as u64, 1..=1 << 24, "")?;
    range("limits.subscriptions_per_connection", subscriptions, 1..=1 << 20, "")?;
    range("limits.subscriptions_per_s", limits.subscriptions_per_s.into(), 0..=60_000, "")?;
    range("limits.channel_name_length", channel, 1..=1024, " bytes")?;
    range("limits.event_name_length", event, 1..=1024, " bytes")?;
    range("limits.channels_per_trigger", channels, 1..=10_000, "")?;
    range("limits.listed_channels", limits.listed_channels as u64, 1..=1 << 20, "")?;
    range("limits.batch_events", limits.batch_events as u64, 1..=1000, "")?;
    let member_bytes = limits.presence_member_bytes as u64;
    range("limits.presence_member_bytes", member_bytes, 1..=1 << 20, " bytes")?;
    range("limits.user_id_length", limits.user_id_length as u64, 1..=1024, " bytes")?;
    range("limits.watchlist_length", limits.watchlist_length as u64, 1..=1000, "")?;
    let client_events = limits.client_events_per_s.into();
    range("limits.client_events_per_s", client_events, 0..=60_000, "")?;
    range("limits.cache_ttl_s", limits.cache_ttl_s, 1..=DAY_S, " seconds")?;
    range("limits.event_bytes", event_bytes, 1..=GIB, " bytes")?;
    range("limits.message_bytes", message_bytes, control..=GIB, " bytes")?;
    // The server's own limit refuses a larger message before this limit applies.
    let server = config.limits.message_bytes;
    at_most("limits.message_bytes", message_bytes, "the server's limits.message_bytes", server)?;
    let body = config.limits.http_body_bytes as u64;
    at_most("limits.event_bytes", event_bytes, "the server's limits.http_body_bytes", body)?;
    // An event grows when it is escaped into a frame, and must not fill the write queues of its
    // subscribers.
    let half = config.limits.write_queue_bytes as u64 / 2;
    at_most(
        "limits.event_bytes",
        event_bytes,
        "half of the server's limits.write_queue_bytes",
        half,
    )
}

/// Checks that ids and keys are unique. Both occur at the same place of request paths, so an id
/// must also differ from the keys of other applications.
fn check_names(apps: &[AppConfig]) -> Result<(), Error> {
    let mut ids = Unique::default();
    let mut keys = Unique::default();
    for (index, app) in apps.iter().enumerate() {
        ids.add(&app.id, format!("apps[{index}].id"))?;
        for (place, (key, _)) in app.key_pairs().enumerate() {
            let path = match place {
                0 => format!("apps[{index}].key"),
                further => format!("apps[{index}].keys[{}].key", further - 1),
            };
            keys.add(key, path)?;
        }
    }
    for (index, app) in apps.iter().enumerate() {
        let own = format!("apps[{index}].");
        if let Some(other) = keys.0.get(&app.id).filter(|other| !other.starts_with(&own)) {
            let problem = Problem::Duplicate { value: app.id.clone(), other: other.clone() };
            return Err(Error::keyed(format!("{own}id"), problem));
        }
    }
    Ok(())
}

/// Values that must be unique, each with the path of its key.
#[derive(Default)]
struct Unique(HashMap<String, String>);

impl Unique {
    fn add(&mut self, value: &str, path: String) -> Result<(), Error> {
        match self.0.get(value) {
            Some(other) => {
                let problem = Problem::Duplicate { value: value.to_owned(), other: other.clone() };
                Err(Error::keyed(path, problem))
            }
            None => {
                self.0.insert(value.to_owned(), path);
                Ok(())
            }
        }
    }
}

fn check_name(key: &str, name: &str) -> Result<(), Error> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || !name.bytes().all(known) {
        return Err(shape(key, name, "one or more of A-Z, a-z, 0-9, `_`, `.` and `-`"));
    }
    Ok(())
}

fn check_secret(key: &str, secret: &Secret) -> Result<(), Error> {
    if secret.expose().trim().is_empty() {
        return Err(Error::keyed(key, Problem::Secret { accepted: "a string that is not empty" }));
    }
    Ok(())
}

/// Checks a token, which is sent in a query or a header and is the only protection: at least 16
/// visible ASCII characters, or empty.
fn check_token(key: &str, token: &Secret) -> Result<(), Error> {
    let token = token.expose();
    let is_whole = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !token.is_empty() && (token.len() < TOKEN_MIN || !is_whole) {
        let accepted = "an empty string, or at least 16 visible ASCII characters without spaces";
        return Err(Error::keyed(key, Problem::Secret { accepted }));
    }
    Ok(())
}

/// Checks an origin or origin pattern. A browser sends `scheme://host[:port]` in lower case, or
/// `null`.
fn check_origin(key: &str, origin: &str) -> Result<(), Error> {
    let host = origin.split_once("://").map(|(_, host)| host);
    let whole = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
    let spelt = origin.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
    if !spelt || !(whole || origin == "null" || origin.starts_with('*') && host.is_none()) {
        let accepted = "an origin in lower case without a path, such as `https://example.com`; `*` \
                        matches any run of characters";
        return Err(shape(key, origin, accepted));
    }
    Ok(())
}

fn is_path(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}

pub(super) fn range(
    key: &str,
    found: u64,
    accepted: RangeInclusive<u64>,
    unit: &'static str,
) -> Result<(), Error> {
    let (min, max) = accepted.into_inner();
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(Error::keyed(key, Problem::Range { found, min, max, unit }))
}

fn power_of_two(key: &str, found: usize, accepted: RangeInclusive<u64>) -> Result<(), Error> {
    let (min, max) = accepted.into_inner();
    let found = found as u64;
    if (min..=max).contains(&found) && found.is_power_of_two() {
        return Ok(());
    }
    Err(Error::keyed(key, Problem::PowerOfTwo { found, min, max }))
}

fn at_most(key: &str, found: u64, bound: &'static str, max: u64) -> Result<(), Error> {
    if found <= max {
        return Ok(());
    }
    Err(Error::keyed(key, Problem::Relation { found, bound, max }))
}

fn shape(key: impl Into<String>, found: &str, accepted: &'static str) -> Error {
    Error::keyed(key, Problem::Shape { found: found.to_owned(), accepted })
}
