//! A Zenith client: dispatches its messages, and writes the messages to it.

use super::auth::ZenithSession;
use super::calls::{Pending, TransactionKey};
use super::closings;
use super::messages::{CallOutcome, ZenithMessage};
use super::topics::{TopicOp, TopicSubscription};
use super::wire::{self, MessageEnvelope, WireMessage, codes};
use crate::codec::value::{Format, Value};
use crate::dialect::{DialectContext, Effect, Effects};
use crate::hub::ConnId;
use crate::mem::Handle;
use crate::time::{Deadline, Now, RateLimit};
use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    messages: RateLimit,
}

/// The timeouts for answers of back ends, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) action_ms: u64,
    pub(super) subscription_ms: u64,
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

    /// Handles one message of the client.
    pub(super) fn message(&mut self, context: &mut DialectContext<'_>, it: MessageEnvelope) {
        let topic = it.topic.as_deref();
        let limited = self.is_over_rate(context);
        match it.action.as_deref() {
            Some(wire::ERROR) => {}
            Some(wire::CANCEL) => self.cancel(context, &it),
            Some(wire::UNSUB) => {
                let channel = wire::channel(&it.controller, it.topic());
                self.unsub(context, &channel, it.confirm);
            }
            Some(wire::SUB) => match topic {
                _ if limited => self.refuse(context, &it.controller, topic, codes::LIMITED, &it),
                None => self.refuse(context, &it.controller, topic, codes::UNKNOWN, &it),
                Some(topic) => {
                    let channel = wire::channel(&it.controller, topic);
                    self.sub(context, &channel, TopicOp::sub(it.confirm, it.data));
                }
            },
            None | Some(wire::PUBLISH) if !limited && topic.is_some() => self.call(context, it),
            _ => {
                let code = if limited { codes::LIMITED } else { codes::UNKNOWN };
                let tid = it.transaction.as_ref();
                self.fail(context, (&it.controller, topic), tid, &Value::text(code));
            }
        }
    }

    fn refuse(
        &self,
        context: &mut DialectContext<'_>,
        controller: &str,
        topic: Option<&str>,
        code: &str,
        it: &MessageEnvelope,
    ) {
        self.refuse_sub(context, (controller, topic), &Value::text(code), it.confirm);
    }

    fn is_over_rate(&mut self, context: &DialectContext<'_>) -> bool {
        let max = context.env.zenith.config.messages_per_s;
        let messages = self.messages.add(1, context.now.ms);
        max > 0 && messages > max
    }

    /// Handles a message from another connection.
    pub(super) fn on_message(&mut self, context: &mut DialectContext<'_>, what: &ZenithMessage) {
        match what {
            ZenithMessage::Kick(reason) => context.close(closings::kicked(reason)),
            ZenithMessage::Answer { call, outcome } => self.answered(context, *call, outcome),
            ZenithMessage::End { channel, error } => self.end(context, channel, error.as_ref()),
            ZenithMessage::Feeds(feeds) => {
                self.data(context, (wire::DEFAULT_CONTROLLER, "Feeds"), feeds);
            }
            ZenithMessage::Call(_) | ZenithMessage::Forget { .. } => {}
        }
    }

    /// Fails the calls whose deadline has passed, and ends the session if its token has expired.
    pub(super) fn on_deadline(&mut self, context: &mut DialectContext<'_>) {
        let now = context.now;
        let on_deadline: Vec<u32> = self
            .calls
            .iter()
            .filter(|(_, pending)| pending.by.due(now))
            .map(|(call, _)| *call)
            .collect();
        for call in on_deadline {
            self.forget(context, call);
            self.answered(context, call, &CallOutcome::failed(codes::TIMEOUT));
        }
        if self.identity.as_ref().is_some_and(|it| it.until.due(now)) {
            self.expire(context);
        }
        let calls = self.calls.values().map(|pending| pending.by);
        let until = self.identity.as_ref().map_or(Deadline::NEVER, |it| it.until);
        self.due = calls.min().unwrap_or(Deadline::NEVER).min(until);
    }

    /// Moves the next deadline to `when`, if that is earlier.
    pub(super) fn look_at(&mut self, when: Deadline) {
        self.due = self.due.min(when);
    }

    /// Handles the close of the connection: ends the session, and cancels the pending calls at
    /// their back ends.
    pub(super) fn on_drop(&mut self, env: &crate::dialect::Env, us: ConnId, out: &mut Effects<'_>) {
        if let Some(identity) = self.identity.take() {
            env.zenith.state.leave(&identity.principal.user, us);
        }
        for (call, pending) in std::mem::take(&mut self.calls) {
            let what = super::messages::to_message(ZenithMessage::Forget { from: us, call });
            out.push(Effect::Message { to: pending.to, what });
        }
    }

    // --- messages to the client ---

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
