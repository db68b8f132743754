//! One channel as a core stores it: its own subscribers, and what the channel's home needs.

use super::home::Home;
use super::members::Subscriber;
use super::name::{ChannelName, CoreSet};
use super::view_counts::ViewTally;

/// A channel on one core. The fields from `interest` on are only used by the channel's home.
pub(super) struct ChannelState<M> {
    pub(super) name: ChannelName,
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) home_link: HomeLink,
    /// The number of subscribers last reported to the home, and whether a report is due.
    pub(super) reported: u32,
    pub(super) recounting: bool,
    /// The subscribers through views, if this is a node of a cluster and there were some.
    pub(super) views: Option<Box<ViewTally>>,
    /// The other cores with subscribers.
    pub(super) interest: CoreSet,
    /// The other state of the home core, if there is any.
    pub(super) home: Option<Box<Home<M>>>,
    /// Whether any core has a subscriber, as far as the home knows.
    pub(super) occupied: bool,
    /// The channel's position in the list of its application's channels.
    pub(super) listed: u32,
}

/// What the home of a channel knows of this core's interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HomeLink {
    /// The home does not know of the interest.
    Unknown,
    /// The request with this number is not answered; subscribers wait.
    Requested(u32),
    /// The home sends every publish. Always so if this core is the home.
    Known,
}
