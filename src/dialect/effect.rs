//! What a dialect requests from the shard, and the outcomes that come back.

use crate::hub::{ConnId, DialectMessage, Event, JoinReply, JoinRequest, Query};

/// An operation that a dialect requests from the shard.
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
    /// Deliver a message to the dialect of one connection, on any core (`DialectEvent::Message`).
    /// The message is lost if the connection is closed, except as `DialectApi::on_undelivered`
    /// handles it.
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
}
