//! What a route with the endpoint `reflect` says about its groups.

use super::error::{Error, Problem};
use super::schema::{Endpoint, Route};
use serde::Deserialize;

/// Who hears what a member of a group sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Reflect {
    /// Who is in one group.
    pub group: Grouping,
    /// Whether a member does not hear what it sends itself.
    pub exclude_sender: bool,
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

/// Refuses keys that mean nothing at the route's endpoint.
pub(super) fn check(route: &Route) -> Result<(), Error> {
    if route.endpoint == Endpoint::Reflect || route.reflect == Reflect::default() {
        return Ok(());
    }
    let problem = "only the endpoint `reflect` has groups".to_owned();
    Err(Error::keyed("reflect", Problem::Other(problem)))
}
