//! The configuration section of the Broadcastt dialect.

use crate::settings::range::DAY_S;
use crate::settings::section::section;

section! {
    /// The Broadcastt dialect. The path_prefix of `[pusher]` applies to its paths, too.
    pub struct BroadcasttConfig {
        /// Activity timeout: silence after which clients send a ping.
        pub activity_timeout_s: u64 = 120, seconds(1..=DAY_S);
        /// Pong timeout: how long after the activity timeout the server sends a ping itself, and
        /// how long it then waits for the pong.
        pub pong_timeout_s: u64 = 30, seconds(1..=DAY_S);
        /// Whether a client event that names no channel, as broadcastt-js 0.2 sends it, is
        /// published to the one private or presence channel that the client is subscribed to. If
        /// the client is in none or in several, the event is dropped.
        pub infer_channel: bool = false;
        /// Maximum length of a channel name, in place of that in `[apps.limits]`.
        pub channel_name_length: usize = 164, plain_bytes(1..=1024);
        /// Maximum number of events in one batch, in place of that in `[apps.limits]`.
        pub batch_events: usize = 100, count(1..=1000);
    }
}
