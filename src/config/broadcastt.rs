//! The configuration section of the Broadcastt dialect.

use super::error::Error;
use super::range::{DAY_S, range};
use serde::Deserialize;

/// The configuration section of the Broadcastt dialect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct BroadcasttConfig {
    /// Activity timeout: silence in seconds after which clients send a ping. The server tells
    /// clients this value. 1 to 86400, default 120.
    pub activity_timeout_s: u64,
    /// Pong timeout in seconds: how long after the activity timeout the server sends a ping itself,
    /// and how long it then waits for the pong. 1 to 86400, default 30.
    pub pong_timeout_s: u64,
    /// Whether a client event that names no channel is published to the one private or presence
    /// channel that the client is subscribed to. Default: false.
    pub infer_channel: bool,
    /// Maximum length of a channel name in bytes; replaces the application's limit. 1 to 1024,
    /// default 164.
    pub channel_name_length: usize,
    /// Maximum number of events in one batch; replaces the application's limit. 1 to 1000, default
    /// 100.
    pub batch_events: usize,
}

impl Default for BroadcasttConfig {
    fn default() -> BroadcasttConfig {
        BroadcasttConfig {
            activity_timeout_s: 120,
            pong_timeout_s: 30,
            infer_channel: false,
            channel_name_length: 164,
            batch_events: 100,
        }
    }
}

pub(super) fn check(section: &BroadcasttConfig) -> Result<(), Error> {
    let (activity, pong) = (section.activity_timeout_s, section.pong_timeout_s);
    let name = section.channel_name_length as u64;
    range("broadcastt.activity_timeout_s", activity, 1..=DAY_S, " seconds")?;
    range("broadcastt.pong_timeout_s", pong, 1..=DAY_S, " seconds")?;
    range("broadcastt.channel_name_length", name, 1..=1024, " bytes")?;
    range("broadcastt.batch_events", section.batch_events as u64, 1..=1000, "")
}
