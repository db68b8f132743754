//! What comes from the log to a core.

use crate::dialect::{DialectMessage, Event, Member};
use crate::hub::{
    Ack, ClientEvent, ConnId, CountedNumbers, CountingStep, LogPlace, LogStart, PicturePiece,
    StateAuthor, SubscriberCount, Unpublished,
};
use std::sync::Arc;

/// What a node knows of the log about an application that a reload has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedStart {
    /// The sequence number up to which entries may have expired before the node has read what they
    /// have of the application; 0 if none has.
    pub known_after: u64,
    /// Whether everything was read that the log had of it when the reading began.
    pub is_read: bool,
}

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
    /// A change of a channel's picture is made again, because the log is read from its beginning.
    /// This core is the home of the channel.
    Fold {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The event.
        event: Box<Event>,
        /// Its place in the log.
        place: LogPlace,
    },
    /// A piece of a channel's picture. This core is the home of the channel.
    Picture {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The piece.
        piece: Box<PicturePiece>,
        /// Whether this node has stated it.
        is_ours: bool,
    },
    /// A piece of a picture was not taken into the log. This core is the home of the channel.
    PictureUnstated {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
    },
    /// A message to one connection of this process, in the order of a channel of which this core is
    /// the home.
    Tell {
        /// The connection.
        to: ConnId,
        /// The message.
        what: DialectMessage,
    },
    /// How the node goes on with the log.
    Log(LogStart),
    /// What the node knows of the log about an application that a reload has added.
    AddedApp {
        /// The application's number.
        app: u32,
        /// How far it was read.
        start: AddedStart,
    },
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
        count: SubscriberCount,
    },
    /// A node reports that a subscriber has found no cached event, or does not any more. This core
    /// is the home of the channel.
    Miss {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The node.
        author: StateAuthor,
        /// Whether it reports that, and up to which serial number it had received the log.
        missed: (bool, u64),
    },
    /// What this node says of a miss was not taken into the log, as far as is known. This core is
    /// the home of the channel.
    MissUnstated {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// Whether it may be in the log.
        is_unsure: bool,
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
    /// What the log says of the statement of numbers of subscribers.
    Counting {
        /// The numbers.
        numbers: CountedNumbers,
        /// That they are asked for, are still read, or are not stated any more.
        step: CountingStep,
    },
    /// Whether all nodes have stated numbers of subscribers, up to here in the log.
    Counted {
        /// The numbers.
        numbers: CountedNumbers,
        /// Whether they have.
        is_whole: bool,
    },
    /// What this core has said of numbers was not taken into the log.
    Uncounted {
        /// The numbers.
        numbers: CountedNumbers,
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
