//! The section `apps.history`: channels whose last events are kept for clients that were away.

use super::size;
use crate::limits::REPLAY_BYTES;
use crate::settings::error::{Error, Problem};
use crate::settings::pattern::Pattern;
use crate::settings::range::DAY_S;
use crate::settings::section::{Section, section};

section! {
    required
    /// Channels whose last events are kept for clients that were away for a moment. A client that
    /// reconnects, and sends the position of the last event that it has got, is sent the missed
    /// ones; see docs/history.md. Of several entries the first one counts whose pattern matches.
    pub struct AppHistory {
        /// Names of the channels; `*` matches any run of characters. At least one. Channels of
        /// users (#server-to-user-) have no history.
        pub channels: Vec<Pattern>;
        /// Number of events that are kept of one channel; beyond it the oldest are removed.
        #[serde(default = "events")]
        pub events: u32, count(1..=10_000);
        /// Size of the events that are kept of one channel, including frame headers; beyond it the
        /// oldest are removed. A longer event is not kept, and it removes all earlier ones. All
        /// histories of a core also share limits.cached_bytes.
        #[serde(default = "bytes", deserialize_with = "size::memory")]
        pub bytes: usize, bytes(1024..=REPLAY_BYTES as u64 / 2);
        /// How long an event is kept, also while the channel has no subscriber.
        #[serde(default = "ttl_s")]
        pub ttl_s: u32, seconds(1..=DAY_S);
        /// Whether events that clients publish are kept, too.
        #[serde(default)]
        pub client_events: bool;
        /// Maximum number of events that a client may ask for without a position, by
        /// `{"rewind":N}`. 0 is none.
        #[serde(default)]
        pub rewind: u32, count(0..=10_000);
    }
}

impl AppHistory {
    /// A history of these channels, with every other key at its default.
    pub fn new(channels: &[&str]) -> AppHistory {
        AppHistory {
            channels: channels.iter().map(|pattern| Pattern::new(*pattern)).collect(),
            events: events(),
            bytes: bytes(),
            ttl_s: ttl_s(),
            client_events: false,
            rewind: 0,
        }
    }

    /// Whether the channel has this history.
    pub fn covers(&self, channel: &str) -> bool {
        !channel.starts_with('#') && self.channels.iter().any(|pattern| pattern.matches(channel))
    }
}

/// Checks one entry; the keys in errors are relative to it.
pub(super) fn check(history: &AppHistory) -> Result<(), Error> {
    if history.channels.is_empty() {
        return Err(Error::keyed("channels", Problem::Empty));
    }
    if let Some(index) = history.channels.iter().position(Pattern::is_empty) {
        return Err(Error::keyed(format!("channels[{index}]"), Problem::Empty));
    }
    history.check_ranges()
}

fn events() -> u32 {
    100
}

fn bytes() -> usize {
    256 * 1024
}

fn ttl_s() -> u32 {
    120
}
