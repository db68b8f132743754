//! Messages between connections of this dialect, on any core.

use super::peer::ZenithPeer;
use crate::codec::value::Value;
use std::sync::Arc;

/// The reasons of [`ZenithMessage::Kick`].
pub(super) const KICKED: &str = "the session was ended by the back end";
pub(super) const TOO_MANY: &str = "the account has too many sessions";

/// A message to one connection, or to all subscribers of a topic.
#[derive(Debug)]
pub enum ZenithMessage {
    /// Closes the session, because the account has too many or a back end requests it; contains the
    /// reason.
    Kick(&'static str),
    /// To a back end: a call or a subscription request of a client.
    Call(Call),
    /// To a back end: the answer to a call is no longer needed.
    Forget {
        /// The client.
        from: ZenithPeer,
        /// The number of its call.
        call: u32,
    },
    /// To a client: the answer to its call.
    Answer {
        /// The number of the call.
        call: u32,
        /// The outcome of the call.
        outcome: CallOutcome,
    },
    /// To subscribers: the topic ends, after an error if there is one.
    End {
        /// The channel.
        channel: Box<str>,
        /// The error's data.
        error: Option<Value>,
    },
    /// To subscribers of `Zenith/Feeds`: the states of the feeds.
    Feeds(Value),
    /// A message to one connection, by the log of the cluster.
    Tell(ZenithPeer, Arc<ZenithMessage>),
}

/// A call or a subscription request to a back end.
#[derive(Debug)]
pub struct Call {
    /// The client.
    pub from: ZenithPeer,
    /// The number of the call, unique within the client's connection.
    pub call: u32,
    pub controller: Box<str>,
    pub topic: Box<str>,
    /// Whether this is a request to grant a subscription.
    pub subscribes: bool,
    pub data: Option<Value>,
    /// The `UserID` of the client, if it has signed in.
    pub user: Option<Box<str>>,
    /// The protocol version of the client.
    pub version: Box<str>,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq)]
pub enum CallOutcome {
    /// The result, if there is one.
    Done(Option<Value>),
    /// An error's data.
    Failed(Value),
}

impl CallOutcome {
    pub fn failed(code: &str) -> CallOutcome {
        CallOutcome::Failed(Value::text(code))
    }
}
