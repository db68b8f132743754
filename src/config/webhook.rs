//! Webhooks: endpoints that are told, by HTTP, what happens to an application's channels.

use std::collections::BTreeMap;
use std::path::Path;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::error::{Error, Problem};
use super::schema::{AppConfig, Secret};
use super::size;
use crate::tls;

/// One endpoint that is told of an application's events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Webhook {
    /// Where events are sent: `http` or `https`. May hold a secret, so it is never logged.
    pub url: Secret,
    /// What it is told; empty is all but `subscription_count`.
    #[serde(default)]
    pub event_types: Vec<HookEvent>,
    /// How the names of the channels begin of which it is told.
    #[serde(default)]
    pub filter_prefix: String,
    /// How they end.
    #[serde(default)]
    pub filter_suffix: String,
    /// Further header fields of its requests.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Whether one request may hold several events.
    #[serde(default)]
    pub batch: bool,
    /// How long an event waits for others at most, in milliseconds.
    #[serde(default = "batch_ms")]
    pub batch_ms: u64,
    /// Bytes of events that may wait for this endpoint; beyond it the newest of whoever has caused
    /// the most are dropped.
    #[serde(default = "queue_bytes", deserialize_with = "size::memory")]
    pub queue_bytes: usize,
    /// Whether it may be at a private, loopback or link-local address.
    #[serde(default)]
    pub allow_private: bool,
    /// File of the authorities, in PEM, that may have signed its certificate; empty is those of the
    /// system.
    #[serde(default)]
    pub ca_file: String,
}

impl Webhook {
    /// An endpoint at `url`, with every other key at its default.
    pub fn new(url: impl Into<String>) -> Webhook {
        Webhook {
            url: Secret::new(url),
            event_types: Vec::new(),
            filter_prefix: String::new(),
            filter_suffix: String::new(),
            headers: BTreeMap::new(),
            batch: false,
            batch_ms: batch_ms(),
            queue_bytes: queue_bytes(),
            allow_private: false,
            ca_file: String::new(),
        }
    }

    /// Whether it is told of such events at all.
    pub fn wants(&self, event: HookEvent) -> bool {
        match self.event_types.as_slice() {
            [] => event != HookEvent::SubscriptionCount,
            types => types.contains(&event),
        }
    }

    /// Whether it is told of this channel.
    pub fn covers(&self, channel: &str) -> bool {
        channel.starts_with(&self.filter_prefix) && channel.ends_with(&self.filter_suffix)
    }
}

/// What an endpoint can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookEvent {
    /// A channel has its first subscriber.
    ChannelOccupied,
    /// A channel has lost its last subscriber.
    ChannelVacated,
    /// A user has come to a presence channel.
    MemberAdded,
    /// A user has left a presence channel.
    MemberRemoved,
    /// A client has published an event.
    ClientEvent,
    /// A cache channel had nothing to give to a subscriber.
    CacheMiss,
    /// A channel has another number of subscriptions.
    SubscriptionCount,
}

/// Header fields that a request has anyway.
const TAKEN: [&str; 7] = [
    "host",
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "x-pusher-key",
    "x-pusher-signature",
];

/// Checks what types cannot say; the keys in errors begin below the webhook.
pub(super) fn check(hook: &Webhook) -> Result<(), Error> {
    if !is_target(hook.url.expose()) {
        let accepted = "`http://` or `https://`, a host, and nothing like `user@` or `#part`";
        return Err(Error::keyed("url", Problem::Secret { accepted }));
    }
    for (key, found, max, unit) in [
        ("batch_ms", hook.batch_ms, 60_000, " milliseconds"),
        ("queue_bytes", hook.queue_bytes as u64, 1 << 30, " bytes"),
    ] {
        let min = if key == "batch_ms" { 1 } else { 4096 };
        if !(min..=max).contains(&found) {
            return Err(Error::keyed(key, Problem::Range { found, min, max, unit }));
        }
    }
    check_headers(&hook.headers, &TAKEN)
}

/// Checks further header fields of a request that has those in `taken` by itself.
pub(super) fn check_headers(
    headers: &BTreeMap<String, Secret>,
    taken: &[&str],
) -> Result<(), Error> {
    for (name, value) in headers {
        let key = format!("headers.{name}");
        if !is_free(name, taken) {
            let accepted = "a header field's name that the request does not have anyway";
            return Err(Error::keyed(key, Problem::Shape { found: name.clone(), accepted }));
        }
        if HeaderValue::from_str(value.expose()).is_err() {
            let accepted = "printable ASCII characters";
            return Err(Error::keyed(key, Problem::Secret { accepted }));
        }
    }
    Ok(())
}

/// Whether a header field may have this name, which is none of those in `taken`.
pub(super) fn is_free(name: &str, taken: &[&str]) -> bool {
    let taken = taken.iter().any(|taken| taken.eq_ignore_ascii_case(name));
    !taken && HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// Looks for the files that webhooks name below `folder`, and reads them once: a missing one is
/// told when the server starts, not when the first event is sent.
pub(super) fn prepare(apps: &mut [AppConfig], folder: &Path) -> Result<(), Error> {
    for (place, app) in apps.iter_mut().enumerate() {
        for (index, hook) in app.webhooks.iter_mut().enumerate() {
            if hook.ca_file.is_empty() {
                continue;
            }
            let file = folder.join(&hook.ca_file);
            let key = format!("apps[{place}].webhooks[{index}].ca_file");
            tls::roots(&file).map_err(|error| Error::keyed(key, Problem::File(error)))?;
            hook.ca_file = file.to_string_lossy().into_owned();
        }
    }
    Ok(())
}

pub(super) fn is_target(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.host().is_some_and(|host| !host.is_empty());
    known && host && !url.contains(['@', '#'])
}

fn batch_ms() -> u64 {
    50
}

fn queue_bytes() -> usize {
    1024 * 1024
}
