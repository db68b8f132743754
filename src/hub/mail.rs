//! Messages between cores, in two queues for each pair of cores.
//!
//! Requests go *up* to a channel's home; answers and deliveries go *down* from it. A core takes
//! mail from a down queue even while its own queues are full, so down queues always drain. Mail
//! from a down queue causes mail in an up queue only for a connection whose join or leave waited
//! for it, which is bounded for each connection. A home takes no requests while its down queues are
//! full, and an origin does not read from its connections while its up queues are full. So no mail
//! is dropped, and full queues cannot cause a deadlock.

use super::event::Event;
use super::forms::StreamPosition;
use super::home::{ChannelInfo, ChannelUsage};
use super::join::{JoinRefusal, JoinReply, JoinRequest};
use super::name::{ChannelName, ConnId};
use super::replay::HistoryPage;
use super::rooms::Claim;
use super::roster::Users;
use super::view_counts::ViewCounts;
use crate::mem::Slot;
use std::collections::VecDeque;
use std::sync::Arc;

/// The request on the origin core that waits until the home has ordered an event, or until a query
/// is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The connection with the request.
    pub slot: Slot,
    /// The number of the request.
    pub ticket: u32,
    /// The part of that request.
    pub part: u16,
}

/// A query about channels, to the core that is their home, or to all cores.
#[derive(Clone, Debug)]
pub enum Query {
    /// All occupied channels of an application whose names have a prefix.
    Channels {
        /// The application's number.
        app: u32,
        /// The prefix of their names.
        prefix: Box<str>,
        /// The limit of the list. A core with more channels returns `max + 1` of them.
        max: usize,
        /// Whether their numbers of subscriptions are asked for.
        counts: bool,
    },
    /// One channel.
    Channel {
        /// The application's number.
        app: u32,
        /// The channel.
        name: Box<str>,
        /// Whether its number of subscriptions is asked for.
        counts: bool,
        /// Whether the numbers by the views of a link are asked for, in a cluster.
        by_view: bool,
    },
    /// The history of one channel.
    History {
        /// The application's number.
        app: u32,
        /// The channel.
        name: Box<str>,
        /// The position after which the events begin; `None` is the beginning.
        after: Option<StreamPosition>,
        /// The maximum number of events.
        max: usize,
        /// The number of the link's view in whose form the events are wanted, or 0.
        view: u16,
    },
    /// The use of one channel, to all cores.
    Usage {
        /// The application's number.
        app: u32,
        /// The channel.
        name: Box<str>,
    },
    /// The users who are present in one channel.
    Users {
        /// The application's number.
        app: u32,
        /// The channel.
        name: Box<str>,
    },
}

/// The answer to a [`Query`], or to a publish.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Channels with their names.
    Channels(Vec<(ChannelName, ChannelInfo)>),
    /// One channel.
    Channel(ChannelInfo),
    /// A part of the channel's history; `None` if it has none with positions.
    History(Option<Box<HistoryPage>>),
    /// The use of one channel on one core.
    Usage(ChannelUsage),
    /// The present users.
    Users(Users),
    /// Not all nodes of the cluster have said how many subscriptions they have, in time.
    CountsUnknown,
    /// An event was not published on this channel, or it is not known whether it was.
    Unpublished(Arc<str>, Unpublished),
}

/// Why the answer to a publish is not that the event is published. Of several events of a request
/// the highest reason is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unpublished {
    /// The event was not taken into the log and never will be.
    Refused,
    /// It is not known whether the event was taken into the log.
    Unknown,
    /// The log has the idempotency key with another request.
    KeyUsed,
}

/// A message to the home of a channel.
#[derive(Clone, Debug)]
pub enum Up<M> {
    /// The sending core has a subscriber: the home answers, and sends every publish to that core.
    Interest {
        /// The number of the request, which the answer repeats.
        request_id: u32,
        /// The connection that has caused the request.
        slot: Slot,
        /// The channel.
        name: ChannelName,
        /// The subscriber's claim, which counts if the channel is not occupied.
        claim: Claim,
    },
    /// A connection of the sending core joins with a request.
    Join {
        /// The number of the request, which the answer repeats.
        request_id: u32,
        /// The connection.
        slot: Slot,
        /// The channel.
        name: ChannelName,
        /// The request.
        request: JoinRequest<M>,
        /// The subscriber's claim, which counts if the channel is not occupied.
        claim: Claim,
    },
    /// A member's connection has left.
    Leave {
        /// The connection.
        slot: Slot,
        /// The channel.
        name: ChannelName,
    },
    /// The number of subscribers of the sending core has changed.
    Count {
        /// The channel.
        name: ChannelName,
        /// The present number.
        count: u32,
        /// Those through views, if the process is a node of a cluster.
        views: ViewCounts,
    },
    /// Answer a query.
    Query {
        /// The query.
        query: Query,
        /// The request that waits for the answer.
        ack: Ack,
    },
    /// The sending core has no subscriber any more.
    Forget {
        /// The channel.
        name: ChannelName,
    },
    /// Order this event and deliver it.
    Publish {
        /// The channel.
        name: ChannelName,
        /// The event.
        event: Event<M>,
        /// The request that waits until the event is ordered.
        ack: Option<Ack>,
    },
    /// Pass a message to the dialect of a connection on the receiving core. If the receiving core
    /// is the home of a channel, the connection may be on any core, and the message is delivered
    /// after everything that the home has ordered before.
    Message {
        /// The connection.
        to: ConnId,
        /// The message.
        what: M,
    },
}

/// A message from the home of a channel.
#[derive(Clone, Debug)]
pub enum Down<M> {
    /// The interest is noted and publishes follow, or there is no room for another channel.
    Interested {
        /// The number of the request.
        request_id: u32,
        /// The channel.
        name: ChannelName,
        /// Whether the interest is noted.
        granted: bool,
    },
    /// The answer to a join request.
    JoinReply {
        /// The number of the request.
        request_id: u32,
        /// The connection.
        slot: Slot,
        /// The channel.
        name: ChannelName,
        /// The reply to the request, or why the connection may not join.
        reply: Result<JoinReply, JoinRefusal>,
    },
    /// Deliver an event to the receiving core's subscribers.
    Deliver {
        /// The channel.
        name: ChannelName,
        /// The event.
        event: Event<M>,
    },
    /// Pass a message to the dialect of a connection of the receiving core.
    Message {
        /// The connection.
        slot: Slot,
        /// The message.
        what: M,
    },
    /// What follows from this home is of another log of the cluster.
    LogBegan {
        /// The core that sends it.
        home: u16,
        /// The number of the log.
        log: u16,
    },
    /// A published event is ordered, or a query is answered.
    Answer {
        /// The request that waits for it.
        ack: Ack,
        /// The channel after the publish, or the answer to the query.
        answer: Answer,
    },
}

/// Mail of one core to the others that is not in their mailboxes yet.
#[derive(Debug)]
pub struct OutgoingMail<M> {
    queues: Vec<OutgoingQueues<M>>,
    /// The length of the longest up queue and of the longest down queue. May be too high until the
    /// next [`OutgoingMail::measure`]. Stored because it is needed for every message, and there are
    /// as many queues as cores.
    longest_up: usize,
    longest_down: usize,
}

/// The last request to a core at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestMark {
    core: u16,
    /// The number of requests to that core until then.
    count: u64,
}

/// The unsent mail to one core, oldest first.
#[derive(Debug)]
pub struct OutgoingQueues<M> {
    /// The number of requests to it so far, sent or not.
    requests: u64,
    /// Requests to it as a home.
    pub up: VecDeque<Up<M>>,
    /// Answers and deliveries to it.
    pub down: VecDeque<Down<M>>,
}

impl<M> Default for OutgoingQueues<M> {
    fn default() -> OutgoingQueues<M> {
        OutgoingQueues { requests: 0, up: VecDeque::new(), down: VecDeque::new() }
    }
}

impl<M> OutgoingMail<M> {
    /// Creates empty queues to `cores` cores.
    pub fn new(cores: u16) -> OutgoingMail<M> {
        let queues = (0..cores).map(|_| OutgoingQueues::default()).collect();
        OutgoingMail { queues, longest_up: 0, longest_down: 0 }
    }

    pub(super) fn up(&mut self, to: u16, message: Up<M>) {
        let OutgoingQueues { requests, up: queue, .. } = &mut self.queues[to as usize];
        *requests += 1;
        queue.push_back(message);
        self.longest_up = self.longest_up.max(queue.len());
    }

    pub(super) fn down(&mut self, to: u16, message: Down<M>) {
        let queue = &mut self.queues[to as usize].down;
        queue.push_back(message);
        self.longest_down = self.longest_down.max(queue.len());
    }

    /// Sends a message to the dialect of a connection through core `by`, which is the connection's
    /// core or the home of a channel. Does nothing if there is no such core, because back ends may
    /// send core numbers that do not exist.
    pub fn message(&mut self, by: u16, to: ConnId, what: M) {
        if usize::from(by) < self.queues.len() {
            self.up(by, Up::Message { to, what });
        }
    }

    /// Sends a message to the dialect of a connection after everything that this core has ordered
    /// as a home before.
    pub fn forward(&mut self, to: ConnId, what: M) {
        if usize::from(to.core) < self.queues.len() {
            self.down(to.core, Down::Message { slot: to.slot, what });
        }
    }

    /// Answers a request of core `to`.
    pub fn answer(&mut self, to: u16, ack: Ack, answer: Answer) {
        self.down(to, Down::Answer { ack, answer });
    }

    /// The mail to core `to`.
    pub fn to(&mut self, to: u16) -> &mut OutgoingQueues<M> {
        &mut self.queues[to as usize]
    }

    /// Measures the queues again, after mail was taken out of them.
    pub fn measure(&mut self) {
        self.longest_up = self.queues.iter().map(|queues| queues.up.len()).max().unwrap_or(0);
        self.longest_down = self.queues.iter().map(|queues| queues.down.len()).max().unwrap_or(0);
    }

    /// Whether more than `bound` requests wait for one core, so that reading must pause.
    pub fn up_is_full(&self, bound: usize) -> bool {
        self.longest_up > bound
    }

    /// Whether more than `bound` deliveries wait for one core, so that no requests may be taken.
    pub fn down_is_full(&self, bound: usize) -> bool {
        self.longest_down > bound
    }

    /// The last request to core `to` so far.
    pub(super) fn last_request(&self, to: u16) -> RequestMark {
        RequestMark { core: to, count: self.queues[to as usize].requests }
    }

    /// Whether that request, and all before it to the same core, are in its mailbox.
    pub fn is_sent(&self, mark: RequestMark) -> bool {
        let queues = &self.queues[mark.core as usize];
        queues.requests - queues.up.len() as u64 >= mark.count
    }

    /// Whether no mail waits.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(|queues| queues.up.is_empty() && queues.down.is_empty())
    }
}
