//! What comes from the log to a core.

use crate::dialect::{Event, Member};
use crate::hub::{Ack, ClientEvent, LogPlace, LogStart, StateAuthor, Unpublished};
use std::sync::Arc;

/// What a core is sent from the log.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// An event of a channel of which this core is the home takes effect.
    Apply {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The event.
        event: Box<Event>,
        /// Its place in the log.
        place: Option<LogPlace>,
    },
    /// How the node goes on with the log.
    Log(LogStart),
    /// An application may have room for connections that wait.
    Room {
        /// The application's number.
        app: u32,
    },
    /// An event that a connection of this core has proposed is in the log, or why it is not.
    Settled {
        /// The request that waits.
        ack: Ack,
        /// The channel, and why the event is not in the log.
        failed: Option<(Arc<str>, Unpublished)>,
    },
    /// Events that subscribers should have got may be missing from the log.
    Gap,
    /// A user is on a node, or no longer there. This core is the home of the channel.
    Member {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The node.
        author: StateAuthor,
        /// The user's id.
        user: Arc<str>,
        /// The user; `None` if it is no longer there.
        member: Option<Box<Member>>,
    },
    /// A node has so many subscribers in a channel. This core is the home of the channel.
    Count {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The node.
        author: StateAuthor,
        /// The number, which may be 0.
        count: u32,
    },
    /// A state of this node was not taken into the log. This core is the home of the channel.
    Unstated {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The user; `None` for the number of subscribers.
        user: Option<Arc<str>>,
        /// Why it is not in the log.
        why: Unpublished,
    },
    /// An event that a client of this process has published is in the log. This core is the home of
    /// the channel.
    Published {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// What webhooks report of it.
        client_event: Arc<ClientEvent>,
    },
    /// A node has ended: all that it has stated is void. `is_ours` means that this node has written
    /// so, and reports what changes.
    NodeGone(StateAuthor),
    /// Everything that is true on this node is to be stated again, because the node has another id,
    /// or the log is another one.
    Restate,
    /// What nodes have stated before counts as not confirmed, because everything is stated or read
    /// again from here on.
    RefreshBegin,
    /// What was not confirmed since [`Arrival::RefreshBegin`] is void.
    RefreshEnd {
        /// Whether this node reports what changes.
        is_ours: bool,
    },
}
