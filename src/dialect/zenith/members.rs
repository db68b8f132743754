//! What the nodes of a cluster have stated of back ends and sessions.

use super::peer::ZenithPeer;
use std::collections::{HashMap, HashSet};

/// What the nodes have stated, and is true.
#[derive(Debug, Default)]
pub(super) struct LoggedMembers {
    /// The members, by their channels and ids.
    pub(super) members: HashMap<MemberKey, LoggedMember>,
    /// Those that have not been confirmed since the log is read again.
    pub(super) unconfirmed: HashSet<MemberKey>,
    /// The serial numbers of the last changes of feeds.
    pub(super) feeds: HashMap<Box<str>, u64>,
}

/// A channel and an id.
pub(super) type MemberKey = (Box<str>, Box<str>);

#[derive(Debug)]
pub(super) struct LoggedMember {
    pub(super) node: u64,
    pub(super) peer: ZenithPeer,
    /// The feeds that the back end has registered.
    pub(super) feeds: Vec<Box<str>>,
}
