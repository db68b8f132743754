//! The state of a Zenith client, and the messages to it.

use super::closings;
use super::directory::Principal;
use super::peer::ZenithPeer;
use super::wire::{self, WireMessage};
use crate::codec::value::{Format, Value};
use crate::dialect::DialectContext;
use crate::mem::Handle;
use crate::time::{Deadline, Now, RateLimit};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// The state of one client connection.
pub(super) struct Client {
    pub(super) format: Format,
    pub(super) version: Box<str>,
    pub(super) secure: bool,
    /// The guards of the route, each with the roles that it requires.
    pub(super) guarded: Box<[(String, Vec<String>)]>,
    /// The scopes that are granted over TLS only.
    pub(super) secure_scopes: Vec<String>,
    /// The client's session, if it has signed in and its token has not expired.
    pub(super) identity: Option<ZenithSession>,
    /// The active, pending and suspended subscriptions, by channel.
    pub(super) topics: HashMap<Box<str>, TopicSubscription>,
    /// The number of subscriptions: the references of all topics, and the `Sub` requests that wait.
    pub(super) references: usize,
    /// The calls that wait for a back end, by their number.
    pub(super) calls: BTreeMap<u32, Pending>,
    /// The numbers of the calls that have a TransactionID, ordered by it.
    pub(super) by_transaction: BTreeSet<(TransactionKey, u32)>,
    pub(super) last_call: u32,
    /// The number of wrong tokens, passwords and grants from this client.
    pub(super) wrong_tokens: u32,
    /// The timeouts that the client has set with `Configure`, by controller.
    pub(super) times: Vec<(Box<str>, Times)>,
    /// A time that is not later than the earliest deadline of the calls and the session.
    pub(super) due: Deadline,
    /// The messages of the client.
    pub(super) messages: RateLimit,
}

/// The timeouts for answers of back ends, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) action_ms: u64,
    pub(super) subscription_ms: u64,
}

/// The session of a client that has signed in.
pub(super) struct ZenithSession {
    pub(super) principal: Arc<Principal>,
    /// The token as the client has sent it; empty if it has sent none, such as with a password.
    pub(super) given: Box<str>,
    /// When the token expires.
    pub(super) until: Deadline,
}

/// A call or a subscription request that waits for a back end.
pub(super) struct Pending {
    pub(super) controller: Box<str>,
    pub(super) topic: Box<str>,
    /// The client's TransactionID, as the client has written it.
    pub(super) transaction: Option<Value>,
    /// Whether this is a subscription request.
    pub(super) subscribes: bool,
    /// The connection of the back end.
    pub(super) to: ZenithPeer,
    /// The deadline of the answer.
    pub(super) by: Deadline,
}

/// A TransactionID in a form in which equal integers are equal however they are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TransactionKey {
    /// An integer.
    Int(i64),
    /// The bits of a double that is not an integer of 64 bits.
    Float(u64),
    /// The text of any other number.
    Number(Box<str>),
}

impl TransactionKey {
    pub(super) fn of(number: &Value) -> TransactionKey {
        match (number.as_int(), number) {
            (Some(number), _) => TransactionKey::Int(number),
            (None, Value::Float(number)) => TransactionKey::Float(number.to_bits()),
            (None, Value::Number(text)) => TransactionKey::Number(text.clone()),
            (None, _) => TransactionKey::Number(Box::default()),
        }
    }
}

/// A client's subscription to one topic.
pub(super) struct TopicSubscription {
    /// The number of references, one for each `Sub`. Each needs its own `Unsub` and counts as a
    /// subscription.
    pub(super) refs: u32,
    pub(super) stage: TopicStage,
    /// The scope that the subscription requires; empty if none.
    pub(super) scope: Box<str>,
    /// Whether the subscription is refused if the channel's home has no picture.
    pub(super) strict: bool,
    /// Whether the subscription is being resumed after it was suspended.
    pub(super) resumes: bool,
    /// Whether the client requests a confirmation of the first `Sub`.
    pub(super) confirm: bool,
    /// The data of the first `Sub`, for the back end.
    pub(super) data: Option<Value>,
    /// The requests about this topic that came while an answer is pending.
    pub(super) waiting: VecDeque<TopicOp>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TopicStage {
    /// A back end is asked to grant the subscription; contains the number of the call.
    Asking(u32),
    /// The join of the channel is pending at its home.
    Joining,
    /// The client is subscribed and receives data.
    Active,
    /// A topic whose data comes from the server or the configuration; contains the data that was
    /// sent last.
    Own(Arc<Value>),
    /// The client lacks the required scope for now, so the subscription is kept without data.
    Suspended,
}

/// A `Sub` or an `Unsub` of a topic.
#[derive(Debug)]
pub(super) struct TopicOp {
    pub(super) sub: bool,
    pub(super) confirm: bool,
    pub(super) data: Option<Value>,
}

impl TopicOp {
    pub(super) fn sub(confirm: bool, data: Option<Value>) -> TopicOp {
        TopicOp { sub: true, confirm, data }
    }

    pub(super) fn unsub(confirm: bool) -> TopicOp {
        TopicOp { sub: false, confirm, data: None }
    }
}

impl Client {
    pub(super) fn new(format: Format, version: &str, secure: bool) -> Client {
        Client {
            format,
            version: version.into(),
            secure,
            guarded: Box::default(),
            secure_scopes: Vec::new(),
            identity: None,
            topics: HashMap::new(),
            references: 0,
            calls: BTreeMap::new(),
            by_transaction: BTreeSet::new(),
            wrong_tokens: 0,
            last_call: 0,
            times: Vec::new(),
            due: Deadline::NEVER,
            messages: RateLimit::default(),
        }
    }

    /// Moves the next deadline to `when`, if that is earlier.
    pub(super) fn look_at(&mut self, when: Deadline) {
        self.due = self.due.min(when);
    }

    pub(super) fn send_message(&self, context: &mut DialectContext<'_>, message: &WireMessage<'_>) {
        send_message(context, self.format, message);
    }

    /// Sends data on a topic.
    pub(super) fn data(&self, context: &mut DialectContext<'_>, at: (&str, &str), data: &Value) {
        let (controller, topic) = (at.0, Some(at.1));
        self.send_message(
            context,
            &WireMessage { controller, topic, data: Some(data), ..WireMessage::default() },
        );
    }

    /// Sends an error and, for a call with a TransactionID, the empty reply that ends the call.
    pub(super) fn fail(
        &self,
        context: &mut DialectContext<'_>,
        (controller, topic): (&str, Option<&str>),
        transaction: Option<&Value>,
        error: &Value,
    ) {
        let reply = WireMessage { controller, topic, transaction, ..WireMessage::default() };
        let action = Some(wire::ERROR);
        self.send_message(context, &WireMessage { action, data: Some(error), ..reply });
        if transaction.is_some() {
            self.send_message(context, &reply);
        }
    }

    /// Sends an error and, if a confirmation was requested, a `Sub` without `Confirm`.
    pub(super) fn refuse_sub(
        &self,
        context: &mut DialectContext<'_>,
        (controller, topic): (&str, Option<&str>),
        error: &Value,
        confirm: bool,
    ) {
        self.fail(context, (controller, topic), None, error);
        if confirm {
            let action = Some(wire::SUB);
            self.send_message(
                context,
                &WireMessage { controller, topic, action, ..WireMessage::default() },
            );
        }
    }

    /// The timeouts for answers of a controller's back end.
    pub(super) fn times(&self, context: &DialectContext<'_>, controller: &str) -> Times {
        let set = self.times.iter().find(|(name, _)| **name == *controller);
        let ms = context.env.zenith.config.answer_timeout_s * 1000;
        set.map_or(Times { action_ms: ms, subscription_ms: ms }, |(_, times)| *times)
    }
}

/// Encodes one message and sends it after everything that was sent before.
pub(super) fn send_message(
    context: &mut DialectContext<'_>,
    format: Format,
    message: &WireMessage<'_>,
) {
    match message.encode(format) {
        Ok(payload) => send(context, format, &payload),
        Err(_) => context.close(closings::INTERNAL),
    }
}

/// Sends one encoded message after everything that was sent before.
pub(super) fn send(context: &mut DialectContext<'_>, format: Format, payload: &[u8]) {
    if context.shared.is_empty() {
        context.out.message(wire::message_kind(format), payload);
    } else {
        // Shared frames are queued after `out`, so this message must be one of them to keep the
        // order.
        context.shared.push(Handle::new(wire::freeze(format, payload)));
    }
}

/// The deadline on this process's clock at a Unix time in seconds.
pub(super) fn at_unix(now: Now, unix_s: u64) -> Deadline {
    now.plus_ms(unix_s.saturating_sub(now.unix_s) * 1000)
}
