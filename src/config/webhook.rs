//! Webhooks: HTTP endpoints that receive the events of an application's channels.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::outgoing::{check_headers, is_target};
use super::size;
use crate::settings::error::{Error, Problem};
use crate::settings::range::GIB;
use crate::settings::secret::Secret;
use crate::settings::section::{Section, section, words};
use crate::tls;

words!(HookEvent);

section! {
    required
    /// Webhooks: HTTP endpoints that receive the events of the application's channels.
    pub struct Webhook {
        /// The URL that events are posted to: http or https. Required. Redirects are not followed.
        /// When the configuration is reloaded, earlier events still go to the earlier endpoints,
        /// and an endpoint that has been removed still gets its waiting events. An endpoint with
        /// the same URL and the same `batch` keeps its waiting events. Requests are signed with the
        /// application's first pair of keys at the time.
        pub url: Secret;
        /// Event types that are sent: "channel_occupied", "channel_vacated", "member_added",
        /// "member_removed", "client_event", "cache_miss", "subscription_count". Empty is all
        /// except "subscription_count". A cache miss is sent once until an event has been cached or
        /// the channel has no subscribers.
        #[serde(default)]
        pub event_types: Vec<HookEvent>;
        /// Prefix of the names of the channels whose events are sent. Empty is any.
        #[serde(default)]
        pub filter_prefix: String;
        /// Suffix of the names of the channels whose events are sent. Empty is any.
        #[serde(default)]
        pub filter_suffix: String;
        /// Additional header fields of the requests: { X-Token = "${TOKEN}" }.
        #[serde(default)]
        pub headers: BTreeMap<String, Secret>;
        /// Whether one request may contain several events.
        #[serde(default)]
        pub batch: bool;
        /// How long an event waits for others to share its request, with `batch`.
        #[serde(default = "batch_ms")]
        pub batch_ms: u64, milliseconds(1..=60_000);
        /// Maximum size of the events that wait for this endpoint; beyond it the newest events of
        /// the client or channel with the most waiting bytes are dropped.
        #[serde(default = "queue_bytes", deserialize_with = "size::memory")]
        pub queue_bytes: usize, bytes(4096..=GIB);
        /// Whether the endpoint may be at a private, loopback or link-local address.
        #[serde(default)]
        pub allow_private: bool;
        /// PEM file of the certificate authorities that the endpoint is verified with. Empty is
        /// those of the system.
        #[serde(default)]
        pub ca_file: String;
    }
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
    hook.check_ranges()?;
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
        tls::roots(&file).map_err(|error| Error::keyed(key, Problem::Other(error.to_string())))?;
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
