//! The limits of one application.

use serde::Deserialize;

use super::error::Error;
use super::limits::Limits;
use super::range::{DAY_S, GIB, at_most, range};
use super::size;
use crate::limits::WS_CONTROL_BYTES;

/// Limits of one application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct AppLimits {
    /// Maximum number of connections; 0 (default) is unlimited.
    pub connections: usize,
    /// Maximum number of channels that have subscribers. Public channels, whose names clients can
    /// make up, may use only a part of it. 1 to 16777216, default 100000.
    pub channels: usize,
    /// Maximum number of channels that one connection may subscribe to. 1 to 1048576, default 1000.
    pub subscriptions_per_connection: usize,
    /// Maximum rate of subscriptions of one client per second, with bursts of up to
    /// `subscriptions_per_connection`. 0 to 60000, default 100; 0 is unlimited.
    pub subscriptions_per_s: u16,
    /// Maximum length of a channel name in bytes. 1 to 1024, default 200.
    pub channel_name_length: usize,
    /// Maximum length of an event name in bytes. 1 to 1024, default 200.
    pub event_name_length: usize,
    /// Maximum number of channels that one request may publish to. 1 to 10000, default 100.
    pub channels_per_trigger: usize,
    /// Maximum number of channels that one response may list. 1 to 1048576, default 100000.
    pub listed_channels: usize,
    /// Maximum size of the data of one event in bytes. 1 to 1 GiB and at most the server's
    /// `http_body_bytes` and half of its `write_queue_bytes`, default 10240.
    #[serde(deserialize_with = "size::memory")]
    pub event_bytes: usize,
    /// Maximum size of one message from a client in bytes. 125 to 1 GiB and at most the server's
    /// `message_bytes`, default 65536.
    #[serde(deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Maximum number of events in one batch. 1 to 1000, default 10.
    pub batch_events: usize,
    /// Maximum number of users in one presence channel; 0 is unlimited. Default: 100.
    pub presence_members: usize,
    /// Maximum size in bytes of the `channel_data` of one user of a presence channel. 1 to 1 MiB,
    /// default 1024.
    #[serde(deserialize_with = "size::memory")]
    pub presence_member_bytes: usize,
    /// Maximum length of a user id in bytes. 1 to 1024, default 128.
    pub user_id_length: usize,
    /// Maximum number of users in one watchlist; of a longer one the first ones count. 1 to 1000,
    /// default 100.
    pub watchlist_length: usize,
    /// Maximum number of events that one client may publish per second. 0 to 60000, default 10; 0
    /// is unlimited.
    pub client_events_per_s: u16,
    /// How long a cache channel keeps its last event, in seconds. 1 to 86400, default 1800.
    pub cache_ttl_s: u64,
}

impl Default for AppLimits {
    fn default() -> AppLimits {
        AppLimits {
            connections: 0,
            channels: 100_000,
            subscriptions_per_connection: 1000,
            subscriptions_per_s: 100,
            channel_name_length: 200,
            event_name_length: 200,
            channels_per_trigger: 100,
            listed_channels: 100_000,
            event_bytes: 10_240,
            message_bytes: 65_536,
            batch_events: 10,
            presence_members: 100,
            presence_member_bytes: 1024,
            user_id_length: 128,
            watchlist_length: 100,
            client_events_per_s: 10,
            cache_ttl_s: 1800,
        }
    }
}

/// Checks ranges, and that the limits fit those of the whole server.
pub(super) fn check(limits: &AppLimits, server: &Limits) -> Result<(), Error> {
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
    at_most(
        "limits.message_bytes",
        message_bytes,
        "the server's limits.message_bytes",
        server.message_bytes,
    )?;
    let body = server.http_body_bytes as u64;
    at_most("limits.event_bytes", event_bytes, "the server's limits.http_body_bytes", body)?;
    // An event grows when it is escaped into a frame, and must not fill the write queues of its
    // subscribers.
    let half = server.write_queue_bytes as u64 / 2;
    at_most(
        "limits.event_bytes",
        event_bytes,
        "half of the server's limits.write_queue_bytes",
        half,
    )
}
