//! Messages between cores, in two lanes for each pair of cores.
//!
//! Requests go *up* to a channel's home; answers and deliveries go *down* from it. A core takes
//! mail from a down lane even while its own lanes are full, so down lanes always drain. Mail from a
//! down lane causes mail in an up lane only for a connection whose join or leave waited for it,
//! which is bounded for each connection. A home takes no requests while its down lanes are full,
//! and an origin does not read from its connections while its up lanes are full. So no mail is
//! dropped, and full lanes cannot cause a deadlock.

use super::encodings::Encodings;
use super::history::HistoryLimit;
use super::home::{CacheEntry, ChannelInfo, JoinRefusal, JoinReply, JoinRequest, Users};
use super::name::{ChannelName, ConnId};
use super::notice::ClientEvent;
use super::rooms::Claim;
use crate::mem::{Frozen, Slot};
use crate::ws::output::{BITS, Codecs};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// One published event, with the bytes that go to its subscribers.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// The frame; empty if there are `encodings` or a `message`.
    pub frame: Frozen,
    /// In place of the frame: the value for subscribers of several formats, and how it changes the
    /// channel's picture.
    pub encodings: Option<Arc<Encodings>>,
    /// The compressed frames of `frame`, if an endpoint compresses.
    pub compressed: Option<Arc<CompressedFrames>>,
    /// The one connection that does not receive the event.
    pub except: Option<ConnId>,
    /// Makes the home cache the event for later subscribers.
    pub keep: Option<Arc<CacheEntry>>,
    /// Makes the home append the event to the channel's history.
    pub history_limit: Option<HistoryLimit>,
    /// Closes the receiving connections with this code and reason in place of a frame.
    pub close: Option<(u16, &'static str)>,
    /// What webhooks report about the event, if a client has published it and a webhook wants
    /// client events.
    pub client_event: Option<Arc<ClientEvent>>,
    /// In place of a frame: a message to the subscribers' dialects.
    pub message: Option<DialectMessage>,
}

/// A message from a dialect to the dialects of other connections, on any core. Sender and receiver
/// agree on its type.
pub type DialectMessage = Arc<dyn Any + Send + Sync>;

/// The compressed frames of one frame, by window size. The first core that needs one of them makes
/// it; all others share it.
#[derive(Debug, Default)]
pub struct CompressedFrames([OnceLock<Option<Frozen>>; BITS]);

impl CompressedFrames {
    /// The compressed frame of `frame` for peers with a window of `bits` (9 to 15); `frame` itself
    /// if compression does not make it shorter. `self` must belong to `frame`.
    pub fn encoded<'f>(&'f self, frame: &'f Frozen, bits: u8, codecs: &mut Codecs) -> &'f Frozen {
        let encoded = &self.0[usize::from(bits.clamp(9, 15) - 9)];
        let compress = || codecs.compress_frame(frame, bits).map(|frame| Frozen::new(&frame));
        encoded.get_or_init(compress).as_ref().unwrap_or(frame)
    }
}

impl Event {
    /// Whether the home keeps the event or a part of it.
    pub fn is_kept(&self) -> bool {
        self.keep.is_some() || self.encodings.as_ref().is_some_and(|encodings| encodings.is_kept())
    }

    /// Whether the event is delivered to the subscribers.
    pub fn has_recipients(&self) -> bool {
        self.message.is_some()
            || self.encodings.as_ref().is_none_or(|encodings| encodings.has_recipients())
    }
}

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

/// A query about channels, to the core that is their home.
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
    },
    /// One channel.
    Channel {
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
    /// The present users.
    Users(Users),
}

/// A message to the home of a channel.
#[derive(Clone, Debug)]
pub enum Up {
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
        request: JoinRequest,
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
        event: Event,
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
        what: DialectMessage,
    },
}

/// A message from the home of a channel.
#[derive(Clone, Debug)]
pub enum Down {
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
        event: Event,
    },
    /// Pass a message to the dialect of a connection of the receiving core.
    Message {
        /// The connection.
        slot: Slot,
        /// The message.
        what: DialectMessage,
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
pub struct OutgoingMail {
    lanes: Vec<Lanes>,
    /// The length of the longest up lane and of the longest down lane. May be too high until the
    /// next [`OutgoingMail::measure`]. Stored because it is needed for every message, and there are
    /// as many lanes as cores.
    longest_up: usize,
    longest_down: usize,
}

/// The unsent mail to one core, oldest first.
#[derive(Debug, Default)]
pub struct Lanes {
    /// Requests to it as a home.
    pub up: VecDeque<Up>,
    /// Answers and deliveries to it.
    pub down: VecDeque<Down>,
}

impl OutgoingMail {
    /// Creates empty lanes to `cores` cores.
    pub fn new(cores: u16) -> OutgoingMail {
        let lanes = (0..cores).map(|_| Lanes::default()).collect();
        OutgoingMail { lanes, longest_up: 0, longest_down: 0 }
    }

    pub(super) fn up(&mut self, to: u16, message: Up) {
        let lane = &mut self.lanes[to as usize].up;
        lane.push_back(message);
        self.longest_up = self.longest_up.max(lane.len());
    }

    pub(super) fn down(&mut self, to: u16, message: Down) {
        let lane = &mut self.lanes[to as usize].down;
        lane.push_back(message);
        self.longest_down = self.longest_down.max(lane.len());
    }

    /// Sends a message to the dialect of a connection through core `by`, which is the connection's
    /// core or the home of a channel. Does nothing if there is no such core, because back ends may
    /// send core numbers that do not exist.
    pub fn message(&mut self, by: u16, to: ConnId, what: DialectMessage) {
        if usize::from(by) < self.lanes.len() {
            self.up(by, Up::Message { to, what });
        }
    }

    /// Sends a message to the dialect of a connection after everything that this core has ordered
    /// as a home before.
    pub fn forward(&mut self, to: ConnId, what: DialectMessage) {
        if usize::from(to.core) < self.lanes.len() {
            self.down(to.core, Down::Message { slot: to.slot, what });
        }
    }

    /// The mail to core `to`.
    pub fn to(&mut self, to: u16) -> &mut Lanes {
        &mut self.lanes[to as usize]
    }

    /// Measures the lanes again, after mail was taken out of them.
    pub fn measure(&mut self) {
        self.longest_up = self.lanes.iter().map(|lanes| lanes.up.len()).max().unwrap_or(0);
        self.longest_down = self.lanes.iter().map(|lanes| lanes.down.len()).max().unwrap_or(0);
    }

    /// Whether more than `bound` requests wait for one core, so that reading must pause.
    pub fn up_is_full(&self, bound: usize) -> bool {
        self.longest_up > bound
    }

    /// Whether more than `bound` deliveries wait for one core, so that no requests may be taken.
    pub fn down_is_full(&self, bound: usize) -> bool {
        self.longest_down > bound
    }

    /// Whether no mail waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lanes| lanes.up.is_empty() && lanes.down.is_empty())
    }
}
