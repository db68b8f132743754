//! Webhooks: HTTP endpoints that receive the events of an application's channels.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::{Error, Problem};
use super::outgoing::{check_headers, is_target};
use super::secret::Secret;
use super::size;
use crate::tls;

/// One webhook endpoint of an application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Webhook {
    /// The URL that events are posted to: `http` or `https`. It may contain a secret, so it is
    /// never logged.
    pub url: Secret,
    /// The event types that are sent; empty (default) is all except `subscription_count`.
    #[serde(default)]
    pub event_types: Vec<HookEvent>,
    /// Prefix of the names of the channels whose events are sent; empty (default) is any.
    #[serde(default)]
    pub filter_prefix: String,
    /// Suffix of the names of the channels whose events are sent; empty (default) is any.
    #[serde(default)]
    pub filter_suffix: String,
    /// Additional header fields of the requests.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Whether one request may contain several events. Default: false.
    #[serde(default)]
    pub batch: bool,
    /// Maximum time in milliseconds that an event waits for others to share its request. 1 to
    /// 60000, default 50.
    #[serde(default = "batch_ms")]
    pub batch_ms: u64,
    /// Maximum size in bytes of the events that wait for this endpoint; beyond it the newest events
    /// of the client or channel with the most waiting bytes are dropped. 4 KiB to 1 GiB, default 1
    /// MiB.
    #[serde(default = "queue_bytes", deserialize_with = "size::memory")]
    pub queue_bytes: usize,
    /// Whether the endpoint may be at a private, loopback or link-local address. Default: false.
    #[serde(default)]
    pub allow_private: bool,
    /// File of the certificate authorities, in PEM, that the endpoint is verified with; empty
    /// (default) is those of the system.
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

    /// Whether events of this type are sent to the endpoint.
    pub fn wants(&self, event: HookEvent) -> bool {
        match self.event_types.as_slice() {
            [] => event != HookEvent::SubscriptionCount,
            types => types.contains(&event),
        }
    }

    /// Whether events of this channel are sent to the endpoint.
    pub fn covers(&self, channel: &str) -> bool {
        channel.starts_with(&self.filter_prefix) && channel.ends_with(&self.filter_suffix)
    }
}

/// The event types of webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookEvent {
    /// A channel has got its first subscriber.
    ChannelOccupied,
    /// A channel has lost its last subscriber.
    ChannelVacated,
    /// A user has joined a presence channel.
    MemberAdded,
    /// A user has left a presence channel.
    MemberRemoved,
    /// A client has published an event.
    ClientEvent,
    /// A cache channel had no cached event for a new subscriber.
    CacheMiss,
    /// The number of subscriptions of a channel has changed.
    SubscriptionCount,
}

/// Header fields that the request sets itself.
const TAKEN: [&str; 7] = [
    "host",
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "x-pusher-key",
    "x-pusher-signature",
];

/// Checks what types cannot express; the keys in errors are relative to the webhook.
pub(super) fn check(hook: &Webhook) -> Result<(), Error> {
    if !is_target(hook.url.expose()) {
        let accepted = "an `http://` or `https://` URL with a host, without `user@` and \
                        `#fragment`";
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

/// Resolves the `ca_file` of webhooks relative to `folder` and reads each once, so that a wrong
/// file is reported when the server starts and not with the first event.
pub(super) fn prepare(hooks: &mut [Webhook], folder: &Path) -> Result<(), Error> {
    for (index, hook) in hooks.iter_mut().enumerate() {
        if hook.ca_file.is_empty() {
            continue;
        }
        let file = folder.join(&hook.ca_file);
        let key = format!("webhooks[{index}].ca_file");
        tls::roots(&file).map_err(|error| Error::keyed(key, Problem::File(error)))?;
        hook.ca_file = file.to_string_lossy().into_owned();
    }
    Ok(())
}

fn batch_ms() -> u64 {
    50
}

fn queue_bytes() -> usize {
    1024 * 1024
}
