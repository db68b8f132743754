//! Dispatches what happens to a client: its own messages, those of other connections, deadlines,
//! and its close.

use super::client::{Client, TopicOp};
use super::closings;
use super::messages::{CallOutcome, ZenithMessage};
use super::peers::to_peer;
use super::wire::{self, MessageEnvelope, codes};
use crate::codec::value::Value;
use crate::dialect::{DialectContext, Effects, Env};
use crate::hub::ConnId;
use crate::time::Deadline;

impl Client {
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
            ZenithMessage::Call(_) | ZenithMessage::Forget { .. } | ZenithMessage::Tell(..) => {}
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

    /// Handles the close of the connection: ends the session, and cancels the pending calls at
    /// their back ends.
    pub(super) fn on_drop(&mut self, env: &Env, us: ConnId, out: &mut Effects<'_>) {
        if let Some(identity) = self.identity.take() {
            env.zenith.state.leave(&identity.principal.user, us);
        }
        for (call, pending) in std::mem::take(&mut self.calls) {
            let what = ZenithMessage::Forget { from: us.into(), call };
            out.push(to_peer(pending.to, what));
        }
    }
}
