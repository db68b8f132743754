//! What cores say to each other, in two lanes for each pair.
//!
//! Requests go *up* to a channel's home, answers and deliveries go *down* from it. Mail from the
//! down lane is taken whatever lanes are full, so that lane always drains: it causes mail up only
//! where a connection has waited for it, to join or to leave, which is bounded for each one. The
//! home stops taking requests while its down lanes are full, an origin stops reading from its
//! connections while its up lanes are full. Nothing is dropped, and no circle of full lanes can
//! form.

use super::encodings::Encodings;
use super::history::HistoryLimit;
use super::home::{CacheEntry, ChannelInfo, JoinReply, JoinRequest, TurnedDown, Users};
use super::name::{ChannelName, ConnId};
use super::notice::ClientEvent;
use super::rooms::Claim;
use crate::mem::{Frozen, Slot};
use crate::ws::output::{BITS, Codecs};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// One published event, in the bytes that go to its subscribers.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// The frame; none where there are `encodings`, or the dialects are `message`.
    pub frame: Frozen,
    /// What is published to subscribers of several formats, in place of the frame, and what it
    /// does to the picture of the channel.
    pub encodings: Option<Arc<Encodings>>,
    /// Its compressed forms, where some endpoint compresses.
    pub compressed: Option<Arc<CompressedFrames>>,
    /// The one connection that is not to receive it.
    pub except: Option<ConnId>,
    /// Whether the home is to keep it for who subscribes later.
    pub keep: Option<Arc<CacheEntry>>,
    /// Whether the home is to keep it among the last ones for who subscribes later.
    pub history_limit: Option<HistoryLimit>,
    /// Closes the receiving connections with this code and reason in place of a frame.
    pub close: Option<(u16, &'static str)>,
    /// What it is to those outside, if a client has published it and they want to know.
    pub client_event: Option<Arc<ClientEvent>>,
    /// Given to the subscribers' dialects in place of a frame.
    pub message: Option<DialectMessage>,
}

/// What a dialect says to the dialects of other connections, on any core; they know its type.
pub type DialectMessage = Arc<dyn Any + Send + Sync>;

/// The compressed forms of one frame, by the size of the window: each is made by the core that
/// first needs it, and then shared by all.
#[derive(Debug, Default)]
pub struct CompressedFrames([OnceLock<Option<Frozen>>; BITS]);

impl CompressedFrames {
    /// The form of `frame`, of which these are the forms, for peers with a window of `bits`, 9 to
    /// 15; `frame` itself where that is shorter.
    pub fn encoded<'f>(&'f self, frame: &'f Frozen, bits: u8, codecs: &mut Codecs) -> &'f Frozen {
        let encoded = &self.0[usize::from(bits.clamp(9, 15) - 9)];
        let compress = || codecs.compress_frame(frame, bits).map(|frame| Frozen::new(&frame));
        encoded.get_or_init(compress).as_ref().unwrap_or(frame)
    }
}

impl Event {
    /// Whether the home is to hold on to it, or to a part of it.
    pub fn is_kept(&self) -> bool {
        self.keep.is_some() || self.encodings.as_ref().is_some_and(|encodings| encodings.is_kept())
    }

    /// Whether the subscribers are to hear of it.
    pub fn is_heard(&self) -> bool {
        self.message.is_some()
            || self.encodings.as_ref().is_none_or(|encodings| encodings.is_heard())
    }
}

/// Whom to tell, on the origin core, that an event has its place in the channel's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The connection that asked.
    pub slot: Slot,
    /// Which of its requests.
    pub ticket: u32,
    /// Which part of that request.
    pub part: u16,
}

/// What a core is asked about the channels that it is the home of.
#[derive(Clone, Debug)]
pub enum Query {
    /// All occupied channels of an application whose names begin so.
    Channels {
        /// The application's number.
        app: u32,
        /// How their names begin.
        prefix: Box<str>,
        /// A core with more of them stops at one more.
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
    /// Names and what is known of them.
    Channels(Vec<(ChannelName, ChannelInfo)>),
    /// What is known of one channel.
    Channel(ChannelInfo),
    /// Who is present.
    Users(Users),
}

/// To the home of a channel.
#[derive(Clone, Debug)]
pub enum Up {
    /// We have a subscriber: answer under this number, and send us every publish.
    Interest {
        /// Returned in the answer.
        asked: u32,
        /// The channel.
        name: ChannelName,
        /// Who asks, if nobody is in it.
        claim: Claim,
    },
    /// A connection of ours joins with a wish.
    Join {
        /// Returned in the answer.
        asked: u32,
        /// The connection.
        slot: Slot,
        /// The channel.
        name: ChannelName,
        /// What it asks for.
        request: JoinRequest,
        /// Who asks, if nobody is in the channel.
        claim: Claim,
    },
    /// A member's connection has left.
    Leave {
        /// The connection.
        slot: Slot,
        /// The channel.
        name: ChannelName,
    },
    /// We have so many subscribers now.
    Count {
        /// The channel.
        name: ChannelName,
        /// How many.
        count: u32,
    },
    /// Say what you know.
    Ask {
        /// About what.
        query: Query,
        /// Whom to tell.
        ack: Ack,
    },
    /// We have no subscriber any more.
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
        /// Whom to tell.
        ack: Option<Ack>,
    },
    /// Give this to the dialect of a connection: of yours; or of another core's, as the home of a
    /// channel, behind what you have ordered before.
    Tell {
        /// The connection.
        to: ConnId,
        /// What it is told.
        what: DialectMessage,
    },
}

/// From the home of a channel.
#[derive(Clone, Debug)]
pub enum Down {
    /// The interest is noted: publishes follow. Or it is not, for want of room.
    Interested {
        /// The number of the question.
        asked: u32,
        /// The channel.
        name: ChannelName,
        /// Whether it is noted.
        granted: bool,
    },
    /// The connection's wish is granted, or it is not let in.
    JoinReply {
        /// The number of the question.
        asked: u32,
        /// The connection.
        slot: Slot,
        /// The channel.
        name: ChannelName,
        /// What it asked for.
        reply: Result<JoinReply, TurnedDown>,
    },
    /// Deliver this event to your subscribers.
    Deliver {
        /// The channel.
        name: ChannelName,
        /// The event.
        event: Event,
    },
    /// Give this to the dialect of a connection of yours.
    Tell {
        /// The connection.
        slot: Slot,
        /// What it is told.
        what: DialectMessage,
    },
    /// The event that you sent has its place, or what you asked.
    Answer {
        /// Whom to tell.
        ack: Ack,
        /// What is known of the channel, or of what was asked.
        answer: Answer,
    },
}

/// What one core has to say to the others and has not handed over.
#[derive(Debug)]
pub struct OutgoingMail {
    lanes: Vec<Lanes>,
    /// The longest lane each way, since [`OutgoingMail::measure`] or longer: asked for every
    /// message, and
    /// there are as many lanes as cores.
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
    /// No mail, for `cores` receivers.
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

    /// Has core `by` tell the dialect of a connection something: the connection's core, or the home
    /// of a channel. A core that is none has no connections: what somebody outside has made up is
    /// lost.
    pub fn tell(&mut self, by: u16, to: ConnId, what: DialectMessage) {
        if usize::from(by) < self.lanes.len() {
            self.up(by, Up::Tell { to, what });
        }
    }

    /// The same by the home itself.
    pub fn pass_on(&mut self, to: ConnId, what: DialectMessage) {
        if usize::from(to.core) < self.lanes.len() {
            self.down(to.core, Down::Tell { slot: to.slot, what });
        }
    }

    /// The mail to core `to`.
    pub fn to(&mut self, to: u16) -> &mut Lanes {
        &mut self.lanes[to as usize]
    }

    /// Looks at the lanes anew, after mail was taken out of them.
    pub fn measure(&mut self) {
        self.longest_up = self.lanes.iter().map(|lanes| lanes.up.len()).max().unwrap_or(0);
        self.longest_down = self.lanes.iter().map(|lanes| lanes.down.len()).max().unwrap_or(0);
    }

    /// Whether more than `bound` requests wait for one core: stop reading from connections.
    pub fn up_is_full(&self, bound: usize) -> bool {
        self.longest_up > bound
    }

    /// Whether more than `bound` deliveries wait for one core: stop taking requests.
    pub fn down_is_full(&self, bound: usize) -> bool {
        self.longest_down > bound
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lanes| lanes.up.is_empty() && lanes.down.is_empty())
    }
}
