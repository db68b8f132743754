//! What connections request of the shard: one list of effects, each with the slot of the connection
//! that requests it.

use crate::dialect::{DialectMessage, Event, JoinRequest};
use crate::hub::{ConnId, Form, JoinReply, Query};
use crate::mem::Slot;
use crate::runtime::UpstreamFailure;
use crate::ws::{MessageKind, Opcode};
use std::borrow::Cow;
use std::collections::VecDeque;

/// An operation that a connection requests from the shard. Dialects request most of them; the last
/// two are for proxied connections.
#[derive(Debug)]
pub enum Effect {
    /// Subscribe this connection to a channel. The outcome goes to `DialectEvent::Joined`, in the
    /// same turn or later.
    Join {
        /// The application's number.
        app: u32,
        /// The channel.
        name: String,
        /// The maximum number of subscriptions of the connection.
        max: usize,
        /// The request to the channel's home core, if there is one.
        request: Option<JoinRequest>,
        /// The form in which the connection receives events. The shard finds the view.
        form: Form,
    },
    /// End a subscription of this connection. There is no reply.
    Leave {
        /// The application's number.
        app: u32,
        /// The channel.
        name: String,
    },
    /// Publish to all subscribers of a channel. If an HTTP request publishes, its reply is sent
    /// after the channel's home has ordered the event. A WebSocket connection gets that
    /// acknowledgement by `DialectEvent::Answered`, if `part` is not 0.
    Publish {
        /// The application's number.
        app: u32,
        /// The channel.
        name: String,
        /// The event to publish.
        event: Event,
        /// The part of the request, by which the acknowledgement is matched to it.
        part: u16,
    },
    /// Publish to a channel, if this connection is subscribed to it. If it is not, the shard calls
    /// `DialectEvent::NotSubscribed`.
    PublishIfSubscribed {
        /// The application's number.
        app: u32,
        /// The channel.
        name: String,
        /// The event to publish.
        event: Event,
    },
    /// Query the home cores of channels. The answers go to the reply of the HTTP request, or, for a
    /// WebSocket connection, to `DialectEvent::Answered`.
    Query {
        /// The query.
        query: Query,
        /// The part of the request that the query belongs to.
        part: u16,
    },
    /// Deliver a message to the dialect of one connection, on any core
    /// (`DialectEvent::Message`). The message is lost if the connection is closed, except as
    /// [`on_undelivered`](super::on_undelivered) handles it.
    Message {
        /// The receiving connection.
        to: ConnId,
        /// The message.
        what: DialectMessage,
    },
    /// Deliver a message like [`Effect::Message`], but in the order of a channel: after what this
    /// connection has published to the channel before, and before what it publishes there later.
    /// The message goes through the channel's home.
    MessageInOrder {
        /// The application's number.
        app: u32,
        /// The channel.
        name: String,
        /// The receiving connection.
        to: ConnId,
        /// The message.
        what: DialectMessage,
    },
    /// Wait until the application may have room for this connection, which then gets
    /// `DialectEvent::Room`; a few times a second in any case.
    AwaitRoom {
        /// The application's number.
        app: u32,
    },
    /// Dial the upstream for which this connection has prepared a dial.
    Dial,
    /// Send a message from this proxy leg to the other one, which is on the same core. The message
    /// is lost if that connection is closed.
    PeerMessage {
        /// The other leg.
        to: Slot,
        /// The message.
        message: PeerMessage,
    },
}

/// A message from one leg of a proxied connection to the other.
#[derive(Debug)]
pub enum PeerMessage {
    /// The outcome of the dial: the subprotocol that the upstream has chosen, or why there is no
    /// WebSocket.
    Answered(Result<Option<Box<str>>, UpstreamFailure>),
    /// A whole message.
    Message {
        /// Text or binary.
        kind: MessageKind,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A ping or a pong.
    Control {
        /// Ping or pong.
        opcode: Opcode,
        /// The payload.
        payload: Vec<u8>,
    },
    /// The sender's connection was closed or lost. It is the last message of a leg.
    Close {
        /// The close code, if there was one.
        code: Option<u16>,
        /// The close reason.
        reason: Cow<'static, str>,
    },
}

/// The outcome of an [`Effect::Join`].
#[derive(Clone, Debug)]
pub enum JoinOutcome {
    /// The connection is subscribed and gets every publish from now on. Contains the home's answer
    /// to the [`JoinRequest`], if there was one.
    Joined(Option<JoinReply>),
    /// The connection was already subscribed to the channel.
    Already,
    /// The connection has its maximum number of subscriptions.
    SubscriptionLimit,
    /// The channel has its maximum number of members.
    ChannelFull,
    /// The channel has no subscriber, and the application has its maximum number of channels.
    NoRoom,
    /// The log of the cluster has not taken the member in time. The client may try again.
    NotStored,
}

/// The effects that were requested and have not run yet, the oldest first, each with the slot of
/// the connection that has requested it.
pub type EffectList = VecDeque<(Slot, Effect)>;

/// The effects that one connection adds to the list.
#[derive(Debug)]
pub struct Effects<'a> {
    slot: Slot,
    list: &'a mut EffectList,
}

impl<'a> Effects<'a> {
    /// The connection at `slot` adds its effects to the end of `list`.
    pub fn new(slot: Slot, list: &'a mut EffectList) -> Effects<'a> {
        Effects { slot, list }
    }

    /// The same list and slot for a shorter time.
    pub fn reborrow(&mut self) -> Effects<'_> {
        Effects { slot: self.slot, list: self.list }
    }

    /// Adds one effect.
    pub fn push(&mut self, effect: Effect) {
        self.list.push_back((self.slot, effect));
    }

    /// The length of the whole list, for [`Effects::truncate`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.list.len()
    }

    /// Removes the effects that were added after the list had `mark` effects.
    pub fn truncate(&mut self, mark: usize) {
        self.list.truncate(mark);
    }
}

impl Extend<Effect> for Effects<'_> {
    fn extend<I: IntoIterator<Item = Effect>>(&mut self, effects: I) {
        let slot = self.slot;
        self.list.extend(effects.into_iter().map(|effect| (slot, effect)));
    }
}
