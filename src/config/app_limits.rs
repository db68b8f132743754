//! The limits of one application.

use super::limits::Limits;
use super::size;
use crate::limits::WS_CONTROL_BYTES;
use crate::settings::error::Error;
use crate::settings::range::{DAY_S, GIB, at_most};
use crate::settings::section::{Section, section};

section! {
    /// Limits of the application above.
    pub struct AppLimits {
        /// Maximum number of connections, in a cluster on all nodes together. 0 is unlimited.
        pub connections: usize = 0;
        /// Maximum number of channels that have subscribers; each core counts the channels that it
        /// is home to, against an equal part of this (with several cores, an eighth and eight
        /// more). A subscription to a new channel beyond it is refused; one to a channel with
        /// subscribers never is. Anyone can make up names of public channels, so these may use nine
        /// tenths of it, and three quarters through connections with 16 or more subscriptions; the
        /// rest is for channels that require a signature.
        pub channels: usize = 100_000, count(1..=1 << 24);
        /// Maximum number of channels that one connection may subscribe to.
        pub subscriptions_per_connection: usize = 1000, count(1..=1 << 20);
        /// Maximum rate of subscriptions of one client per second, with bursts of up to
        /// subscriptions_per_connection, since a reconnecting client subscribes to all its channels
        /// at once. Used burst capacity is restored at this rate. Subscriptions beyond it are
        /// refused. 0 is unlimited.
        pub subscriptions_per_s: u16 = 100, count(0..=60_000);
        /// Maximum length of a channel name.
        pub channel_name_length: usize = 200, plain_bytes(1..=1024);
        /// Maximum length of an event name.
        pub event_name_length: usize = 200, plain_bytes(1..=1024);
        /// Maximum number of channels that one request may publish to.
        pub channels_per_trigger: usize = 100, count(1..=10_000);
        /// Maximum number of channels that one response may list; a request for more is refused and
        /// must use a longer prefix.
        pub listed_channels: usize = 100_000, count(1..=1 << 20);
        /// Maximum size of the data of one event. At most the server's http_body_bytes and half of
        /// its write_queue_bytes.
        #[serde(deserialize_with = "size::memory")]
        pub event_bytes: usize = 10_240, bytes(1..=GIB);
        /// Maximum size of one message from a client. At most the server's message_bytes.
        #[serde(deserialize_with = "size::wide")]
        pub message_bytes: u64 = 65_536, bytes(WS_CONTROL_BYTES as u64..=GIB);
        /// Maximum number of events in one batch.
        pub batch_events: usize = 10, count(1..=1000);
        /// Maximum number of users in one presence channel. 0 is unlimited.
        pub presence_members: usize = 100;
        /// Maximum size of the channel_data of one user of a presence channel.
        #[serde(deserialize_with = "size::memory")]
        pub presence_member_bytes: usize = 1024, bytes(1..=1 << 20);
        /// Maximum length of a user id.
        pub user_id_length: usize = 128, plain_bytes(1..=1024);
        /// Maximum number of users in one watchlist; of a longer one the first ones count.
        pub watchlist_length: usize = 100, count(1..=1000);
        /// Maximum number of events that one client may publish per second. 0 is unlimited.
        pub client_events_per_s: u16 = 10, count(0..=60_000);
        /// Maximum number of idempotency keys that are kept; a key is kept for two minutes after
        /// its first publish. Beyond it the oldest are removed, and a publish that is repeated with
        /// such a key is published again. In a cluster it is also the number of keys of the log
        /// that each node remembers, and must be the same on all nodes.
        pub idempotency_keys: usize = 100_000, count(1..=1 << 24);
        /// Maximum size of all answers that are kept for idempotency keys; beyond it the oldest
        /// keys are removed. An answer takes room only if the publish asked for info. In a cluster
        /// it also bounds what is remembered of publishes of more than 64 events.
        #[serde(deserialize_with = "size::memory")]
        pub idempotency_bytes: usize = 16 * 1024 * 1024, bytes(1024..=GIB);
        /// How long a cache channel keeps its last event.
        pub cache_ttl_s: u64 = 1800, seconds(1..=DAY_S);
    }
}

/// Checks ranges, and that the limits fit those of the whole server.
pub(super) fn check(limits: &AppLimits, server: &Limits) -> Result<(), Error> {
    limits.check_ranges()?;
    let (event_bytes, message_bytes) = (limits.event_bytes as u64, limits.message_bytes);
    // The server's own limit refuses a larger message before this limit applies.
    at_most(
        "message_bytes",
        message_bytes,
        "the server's limits.message_bytes",
        server.message_bytes,
    )?;
    let body = server.http_body_bytes as u64;
    at_most("event_bytes", event_bytes, "the server's limits.http_body_bytes", body)?;
    // An event grows when it is escaped into a frame, and must not fill the write queues of its
    // subscribers.
    let half = server.write_queue_bytes as u64 / 2;
    at_most("event_bytes", event_bytes, "half of the server's limits.write_queue_bytes", half)
}
