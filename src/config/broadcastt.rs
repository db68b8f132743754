//! The Broadcastt dialect.

use super::app::AppDialect;
use super::error::Error;
use super::schema::AppConfig;
use super::{check, error::Problem};
use serde::Deserialize;

const DAY_S: u64 = 86_400;

/// The Broadcastt dialect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct BroadcasttConfig {
    /// Silence after which clients ask for a sign of life, in seconds; they are told.
    pub activity_timeout_s: u64,
    /// How much longer the server waits, in seconds: before it asks for its part, and for the
    /// answer to that.
    pub pong_timeout_s: u64,
    /// Whether a client's event that names no channel goes to the one private or presence channel
    /// that the client is in.
    pub infer_channel: bool,
    /// Bytes of a channel's name, in place of the application's bound.
    pub channel_name_length: usize,
    /// Events in one batch, in place of the application's bound.
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
    check::range("broadcastt.activity_timeout_s", activity, 1..=DAY_S, " seconds")?;
    check::range("broadcastt.pong_timeout_s", pong, 1..=DAY_S, " seconds")?;
    check::range("broadcastt.channel_name_length", name, 1..=1024, " bytes")?;
    check::range("broadcastt.batch_events", section.batch_events as u64, 1..=1000, "")
}

/// What the protocol does not have is not switched on in vain.
pub(super) fn check_app(app: &AppConfig) -> Result<(), Error> {
    if app.dialect != AppDialect::Broadcastt {
        return Ok(());
    }
    let lacks = [
        ("webhooks", "[...]", !app.webhooks.is_empty()),
        ("subscription_count", "true", app.subscription_count),
    ];
    match lacks.into_iter().find(|(.., given)| *given) {
        Some((key, found, _)) => {
            let accepted = "its default: the dialect `broadcastt` has no such thing";
            Err(Error::keyed(key, Problem::Shape { found: found.to_owned(), accepted }))
        }
        None => Ok(()),
    }
}
