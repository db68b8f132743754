//! Calls of one client, which the server, the configuration or a back end answers.

use super::client::{Client, Pending, TransactionKey};
use super::messages::{Call, CallOutcome, ZenithMessage};
use super::peer::ZenithPeer;
use super::peers::to_peer;
use super::pending::note_late_answer;
use super::rule::Backend;
use super::wire::{self, MessageEnvelope, WireMessage, codes};
use crate::codec::value::Value;
use crate::dialect::DialectContext;
use crate::work::{self, WorkKind};
use std::collections::HashMap;

impl Client {
    /// Handles `Publish`, which is a call.
    pub(super) fn call(&mut self, context: &mut DialectContext<'_>, it: MessageEnvelope) {
        let (controller, topic) = (&*it.controller, it.topic());
        let tid = it.transaction.as_ref();
        let at = (controller, Some(topic));
        let directory = &context.env.zenith;
        if controller.len() + topic.len() > directory.config.topic_length {
            return self.fail(context, at, tid, &Value::text(codes::LIMITED));
        }
        if !directory.knows(controller) {
            return self.fail(context, at, tid, &Value::text(&format!("Controller {controller}")));
        }
        match (controller, topic) {
            (_, "Configure") => return self.configure(context, &it),
            (_, "QueryConfigure") => return self.query_configure(context, &it),
            ("Auth", _) => return self.auth(context, &it),
            ("Zenith", _) => return self.fail(context, at, tid, &Value::text(codes::UNKNOWN)),
            _ => {}
        }
        let lookup = directory.look(controller, topic);
        let scope = lookup.rule.as_ref().map_or("", |rule| &*rule.scope);
        if !self.may(scope) {
            return self.fail(context, at, tid, &Value::text(codes::AUTHORITY));
        }
        let reply = lookup.rule.as_ref().and_then(|rule| rule.reply.as_deref());
        if let Some(reply) = reply {
            return self.reply(context, (controller, topic), tid, Some(reply));
        }
        match lookup.backend {
            Backend::At(backend, _) => self.forward(context, it, backend),
            Backend::Away => {
                self.fail(context, at, tid, &Value::text(&wire::unavailable(controller)))
            }
            Backend::None if lookup.rule.is_some_and(|rule| rule.served) => {
                self.fail(context, at, tid, &Value::text(&wire::unavailable(controller)));
            }
            Backend::None => self.fail(context, at, tid, &Value::text(codes::UNKNOWN)),
        }
    }

    fn forward(
        &mut self,
        context: &mut DialectContext<'_>,
        it: MessageEnvelope,
        backend: ZenithPeer,
    ) {
        let times = self.times(context, &it.controller);
        let topic: Box<str> = it.topic().into();
        let is_large = |data: &Value| backend.process != 0 && wire::is_too_large(context.env, data);
        if it.data.as_ref().is_some_and(is_large) {
            let at = (&*it.controller, Some(&*topic));
            return self.fail(context, at, it.transaction.as_ref(), &Value::text(codes::LIMITED));
        }
        let pending = Pending {
            controller: it.controller.clone(),
            topic: topic.clone(),
            transaction: it.transaction.clone(),
            subscribes: false,
            to: backend,
            by: context.now.plus_ms(times.action_ms),
        };
        let Some(call) = self.add_call(context, pending) else {
            let at = (&*it.controller, Some(&*topic));
            return self.fail(context, at, it.transaction.as_ref(), &Value::text(codes::LIMITED));
        };
        let what = ZenithMessage::Call(Call {
            from: context.conn.into(),
            call,
            controller: it.controller,
            topic,
            subscribes: false,
            data: it.data,
            user: self.identity.as_ref().map(|it| it.principal.user.clone()),
            version: self.version.clone(),
        });
        context.effects.push(to_peer(backend, what));
    }

    /// Adds a pending call and returns its number; `None` if the client has its maximum of pending
    /// calls.
    pub(super) fn add_call(
        &mut self,
        context: &DialectContext<'_>,
        pending: Pending,
    ) -> Option<u32> {
        if self.calls.len() >= context.env.zenith.config.pending_per_connection {
            return None;
        }
        self.last_call = self.last_call.wrapping_add(1);
        while self.calls.contains_key(&self.last_call) {
            self.last_call = self.last_call.wrapping_add(1);
        }
        self.look_at(pending.by);
        if let Some(number) = &pending.transaction {
            self.by_transaction.insert((TransactionKey::of(number), self.last_call));
        }
        self.calls.insert(self.last_call, pending);
        Some(self.last_call)
    }

    /// Tells the back end that the answer to a call is no longer needed.
    pub(super) fn forget(&self, context: &mut DialectContext<'_>, call: u32) {
        if let Some(pending) = self.calls.get(&call) {
            let what = ZenithMessage::Forget { from: context.conn.into(), call };
            context.effects.push(to_peer(pending.to, what));
        }
    }

    /// Cancels a pending call.
    pub(super) fn drop_call(&mut self, context: &mut DialectContext<'_>, call: u32) {
        self.forget(context, call);
        self.take_call(call);
    }

    fn take_call(&mut self, call: u32) -> Option<Pending> {
        let pending = self.calls.remove(&call)?;
        if let Some(number) = &pending.transaction {
            self.by_transaction.remove(&(TransactionKey::of(number), call));
        }
        Some(pending)
    }

    /// Handles the outcome of a call. An answer to a call that is no longer pending is only
    /// counted.
    pub(super) fn answered(
        &mut self,
        context: &mut DialectContext<'_>,
        call: u32,
        outcome: &CallOutcome,
    ) {
        let Some(pending) = self.take_call(call) else { return note_late_answer(context) };
        let (controller, topic) = (&*pending.controller, &*pending.topic);
        if pending.subscribes {
            let refusal = match outcome {
                CallOutcome::Done(_) => None,
                CallOutcome::Failed(error) => Some(error),
            };
            return self.authorised(context, &wire::channel(controller, topic), refusal);
        }
        let tid = pending.transaction.as_ref();
        match outcome {
            CallOutcome::Done(data) => self.reply(context, (controller, topic), tid, data.as_ref()),
            CallOutcome::Failed(error) => self.fail(context, (controller, Some(topic)), tid, error),
        }
    }

    /// Fails the calls of back ends that have ended with their node.
    pub(super) fn on_node_gone(&mut self, context: &mut DialectContext<'_>) {
        let state = &context.env.zenith.state;
        let mut is_known = HashMap::new();
        let mut is_lost = |to: ZenithPeer| {
            to.process != 0 && !*is_known.entry(to).or_insert_with(|| state.has_peer(to))
        };
        let lost = self.calls.iter().filter(|(_, pending)| is_lost(pending.to));
        let lost: Vec<u32> = lost.map(|(call, _)| *call).collect();
        let cost = work::LISTED * self.calls.len() as u64 + work::MESSAGE * lost.len() as u64;
        context.work.charge(WorkKind::Effect, cost);
        for call in lost {
            let Some(pending) = self.calls.get(&call) else { continue };
            let error = wire::unavailable(&pending.controller);
            self.answered(context, call, &CallOutcome::failed(&error));
        }
    }

    /// Sends the reply to a call. Without a TransactionID, the result is sent as data of the
    /// client's subscription to that topic, or fails with `Operation.NoResult`.
    pub(super) fn reply(
        &self,
        context: &mut DialectContext<'_>,
        (controller, topic): (&str, &str),
        transaction: Option<&Value>,
        data: Option<&Value>,
    ) {
        let data = data.filter(|data| !data.is_null());
        match (transaction, data) {
            (Some(_), _) => {
                let topic = Some(topic);
                let message =
                    WireMessage { controller, topic, transaction, data, ..WireMessage::default() };
                self.send_message(context, &message);
            }
            (None, Some(data)) if self.is_subscribed(&wire::channel(controller, topic)) => {
                self.data(context, (controller, topic), data);
            }
            (None, Some(_)) => {
                let error = Value::text(codes::NO_RESULT);
                self.fail(context, (controller, Some(topic)), None, &error);
            }
            (None, None) => {}
        }
    }

    /// Handles `Cancel`: ends the pending calls with this TransactionID.
    pub(super) fn cancel(&mut self, context: &mut DialectContext<'_>, it: &MessageEnvelope) {
        let Some(tid) = &it.transaction else { return };
        let key = TransactionKey::of(tid);
        let is_meant = |pending: &Pending| {
            !pending.subscribes
                && pending.controller == it.controller
                && it.topic.as_ref().is_none_or(|topic| *topic == pending.topic)
        };
        let same = self.by_transaction.range((key.clone(), 0)..=(key, u32::MAX));
        let meant: Vec<u32> = same
            .map(|(_, call)| *call)
            .filter(|call| self.calls.get(call).is_some_and(is_meant))
            .collect();
        for call in meant {
            self.forget(context, call);
            self.answered(context, call, &CallOutcome::failed(codes::ABORT));
        }
    }
}
