//! What connections of this dialect tell each other, on any core.

use crate::codec::value::Value;
use crate::hub::{self, ConnId};
use std::sync::Arc;

/// Something for one connection, or for all subscribers of a topic.
#[derive(Debug)]
pub(super) enum ZenithMessage {
    /// The session ends: the account has too many, or a back end wants it.
    Kick(&'static str),
    /// For a back end: a client calls, or wants to subscribe.
    Call(Call),
    /// For a back end: nobody waits for this answer any more.
    Forget {
        /// The client.
        from: ConnId,
        /// The number of its call.
        call: u32,
    },
    /// For a client: the answer to its call.
    Answer {
        /// The number of the call.
        call: u32,
        /// What has come of it.
        outcome: CallOutcome,
    },
    /// For subscribers: the topic ends, with an error before that if there is one.
    End {
        /// The channel.
        channel: Box<str>,
        /// The error's data.
        error: Option<Value>,
    },
    /// For subscribers of `Zenith/Feeds`: their states.
    Feeds(Value),
}

/// What a back end is asked.
#[derive(Debug)]
pub(super) struct Call {
    /// The client.
    pub(super) from: ConnId,
    /// The number of the call, the client connection's.
    pub(super) call: u32,
    pub(super) controller: Box<str>,
    pub(super) topic: Box<str>,
    /// Whether a subscription is to be authorised.
    pub(super) subscribes: bool,
    pub(super) data: Option<Value>,
    /// `UserID` of the client, if it has signed in.
    pub(super) user: Option<Box<str>>,
    /// The version that the client speaks.
    pub(super) version: Box<str>,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CallOutcome {
    /// The result, if there is one.
    Done(Option<Value>),
    /// An error's data.
    Failed(Value),
}

impl CallOutcome {
    pub(super) fn failed(code: &str) -> CallOutcome {
        CallOutcome::Failed(Value::text(code))
    }
}

/// Wraps it for the way.
pub(super) fn to_message(what: ZenithMessage) -> hub::DialectMessage {
    Arc::new(what)
}
