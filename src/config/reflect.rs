//! The group settings of a route with the endpoint `reflect`.

use super::error::{Error, Problem};
use super::size;
use crate::limits::PICTURE_BYTES;
use serde::Deserialize;

/// The members of a group and the delivery of their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Reflect {
    /// Which connections form one group. Default: all connections of the route.
    pub group: Grouping,
    /// Whether a message is not sent back to its sender. Default: false.
    pub exclude_sender: bool,
    /// Number of the last messages of a group that a new member is sent first. 0 to 10000; 0
    /// (default) is none.
    pub history: u32,
    /// Maximum size of this history in bytes, including frame headers; beyond it the oldest
    /// messages are removed. 1 KiB to 64 MiB, default 1 MiB.
    #[serde(deserialize_with = "size::memory")]
    pub history_bytes: usize,
}

impl Default for Reflect {
    fn default() -> Reflect {
        Reflect {
            group: Grouping::default(),
            exclude_sender: false,
            history: 0,
            history_bytes: 1024 * 1024,
        }
    }
}

/// Which connections form one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grouping {
    /// All connections of the route.
    #[default]
    Route,
    /// All connections of the route with the same request path.
    Path,
}

/// Maximum number of messages in one history.
const MAX_HISTORY: u64 = 10_000;

/// Refuses group settings on a route with another endpoint, and values out of range.
pub(super) fn check(section: &Reflect, is_reflect: bool) -> Result<(), Error> {
    let Reflect { history, history_bytes, .. } = *section;
    if !is_reflect && *section != Reflect::default() {
        let problem = "only the endpoint `reflect` accepts this section".to_owned();
        return Err(Error::keyed("reflect", Problem::Other(problem)));
    }
    for (key, found, min, max, unit) in [
        ("reflect.history", u64::from(history), 0, MAX_HISTORY, ""),
        ("reflect.history_bytes", history_bytes as u64, 1024, PICTURE_BYTES as u64, " bytes"),
    ] {
        if !(min..=max).contains(&found) {
            return Err(Error::keyed(key, Problem::Range { found, min, max, unit }));
        }
    }
    Ok(())
}
