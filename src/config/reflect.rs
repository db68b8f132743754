//! What a route with the endpoint `reflect` says about its groups.

use super::error::{Error, Problem};
use super::schema::{EndpointKind, Route};
use super::size;
use crate::limits::PICTURE_BYTES;
use serde::Deserialize;

/// Who hears what a member of a group sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Reflect {
    /// Who is in one group.
    pub group: Grouping,
    /// Whether a member does not hear what it sends itself.
    pub exclude_sender: bool,
    /// The last messages of a group that a new member is sent first; 0 is none.
    pub history: u32,
    /// Bytes of them, frame headers included; of more, the oldest go.
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

/// Who is in one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grouping {
    /// All connections of the route.
    #[default]
    Route,
    /// Those of the route that came by the same path.
    Path,
}

/// Messages of one history.
const MOST: u64 = 10_000;

/// Refuses keys that mean nothing at the route's endpoint, and values out of range.
pub(super) fn check(route: &Route) -> Result<(), Error> {
    let Reflect { history, history_bytes, .. } = route.reflect;
    if route.endpoint != EndpointKind::Reflect && route.reflect != Reflect::default() {
        let problem = "only the endpoint `reflect` has groups".to_owned();
        return Err(Error::keyed("reflect", Problem::Other(problem)));
    }
    for (key, found, min, max, unit) in [
        ("reflect.history", u64::from(history), 0, MOST, ""),
        ("reflect.history_bytes", history_bytes as u64, 1024, PICTURE_BYTES as u64, " bytes"),
    ] {
        if !(min..=max).contains(&found) {
            return Err(Error::keyed(key, Problem::Range { found, min, max, unit }));
        }
    }
    Ok(())
}
