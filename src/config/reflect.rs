//! The group settings of a route with the endpoint `reflect`.

use super::size;
use crate::limits::PICTURE_BYTES;
use crate::settings::error::{Error, Problem};
use crate::settings::section::{Section, section, words};
use serde::Deserialize;

words!(Grouping);

section! {
    /// The members of a group and the delivery of their messages.
    #[derive(Copy)]
    pub struct Reflect {
        /// Which connections form one group of "reflect": all of the "route", or those of the route
        /// with the same "path". Each message, of at most a quarter of write_queue_bytes, is sent
        /// to all members of the group in one order; slow_consumer determines what happens to a
        /// member that does not read.
        pub group: Grouping = Grouping::default();
        /// Whether a message is not sent back to its sender.
        pub exclude_sender: bool = false;
        /// Number of the last messages of a group that a new member is sent first. 0 is none. They
        /// are removed when the last member leaves, and when limits.cached_bytes is used up. In a
        /// cluster they are removed after cluster.history_s instead.
        pub history: u32 = 0, count(0..=10_000);
        /// Maximum size of this history, including frame headers; beyond it the oldest messages are
        /// removed. A longer message is not kept, and it removes all earlier ones.
        #[serde(deserialize_with = "size::memory")]
        pub history_bytes: usize = 1024 * 1024, bytes(1024..=PICTURE_BYTES as u64);
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

/// Refuses group settings on a route with another endpoint, and values out of range.
pub(super) fn check(section: &Reflect, is_reflect: bool) -> Result<(), Error> {
    if !is_reflect && *section != Reflect::default() {
        let problem = "only the endpoint `reflect` accepts this section".to_owned();
        return Err(Error::keyed("reflect", Problem::Other(problem)));
    }
    section.check_ranges().map_err(|error| error.under("reflect"))
}
