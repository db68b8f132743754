//! Subscriptions of one client: counted for each topic, started with a picture, and confirmed if
//! the client requests it.
//!
//! While a topic waits for an answer of a back end or of the channel's home, further requests about
//! it are queued, so that they are answered in their order.

use super::client::{Client, Pending, TopicOp, TopicStage, TopicSubscription};
use super::closings;
use super::gate::{Gate, TopicSource};
use super::messages::{Call, ZenithMessage};
use super::peer::ZenithPeer;
use super::peers::to_peer;
use super::wire::{self, APP, WireMessage, codes};
use crate::codec::value::Value;
use crate::dialect::JoinRequest;
use crate::dialect::{DialectContext, Effect, JoinOutcome};
use crate::hub::{Form, JoinReply};
use std::collections::VecDeque;
use std::sync::Arc;

/// The maximum number of requests that wait for one topic's answer.
const MAX_WAITING: usize = 1000;

impl Client {
    /// Handles `Sub`.
    pub(super) fn sub(&mut self, context: &mut DialectContext<'_>, channel: &str, op: TopicOp) {
        let (controller, topic) = wire::split(channel);
        let at = (controller, Some(topic));
        let has_room = self.has_room(context);
        let Some(known) = self.topics.get_mut(channel) else {
            return match self.gate(context, controller, topic) {
                Ok(gate) => self.begin(context, channel, gate, op),
                Err(code) => self.refuse_sub(context, at, &Value::text(&code), op.confirm),
            };
        };
        match known.stage {
            TopicStage::Asking(_) | TopicStage::Joining
                if known.waiting.len() < MAX_WAITING && has_room =>
            {
                known.waiting.push_back(op);
                self.references += 1;
            }
            TopicStage::Active | TopicStage::Own(_) if has_room => {
                known.refs += 1;
                self.references += 1;
                if op.confirm {
                    self.confirm_sub(context, at);
                }
            }
            TopicStage::Suspended => {
                self.refuse_sub(context, at, &Value::text(codes::AUTHORITY), op.confirm);
            }
            _ => self.refuse_sub(context, at, &Value::text(codes::LIMITED), op.confirm),
        }
    }

    /// Handles `Unsub`, which always succeeds.
    pub(super) fn unsub(&mut self, context: &mut DialectContext<'_>, channel: &str, confirm: bool) {
        let (controller, topic) = wire::split(channel);
        if let Some(known) = self.topics.get_mut(channel) {
            match known.stage {
                TopicStage::Asking(_) | TopicStage::Joining
                    if known.waiting.len() < MAX_WAITING =>
                {
                    return known.waiting.push_back(TopicOp::unsub(confirm));
                }
                TopicStage::Asking(_) | TopicStage::Joining => {}
                _ if known.refs > 1 => {
                    known.refs -= 1;
                    self.references -= 1;
                }
                _ => self.drop_topic(context, channel),
            }
        }
        if confirm {
            let topic = (!topic.is_empty()).then_some(topic);
            let action = Some(wire::UNSUB);
            self.send_message(
                context,
                &WireMessage { controller, topic, action, ..WireMessage::default() },
            );
        }
    }

    fn confirm_sub(
        &self,
        context: &mut DialectContext<'_>,
        (controller, topic): (&str, Option<&str>),
    ) {
        let action = Some(wire::SUB);
        self.send_message(
            context,
            &WireMessage { controller, topic, action, confirm: true, ..WireMessage::default() },
        );
    }

    /// Removes a topic with all its references.
    fn take_topic(&mut self, channel: &str) -> Option<TopicSubscription> {
        let topic = self.topics.remove(channel)?;
        self.references -= topic.refs as usize;
        Some(topic)
    }

    fn drop_topic(&mut self, context: &mut DialectContext<'_>, channel: &str) {
        let Some(topic) = self.take_topic(channel) else { return };
        match topic.stage {
            TopicStage::Active | TopicStage::Joining => {
                context.effects.push(Effect::Leave { app: APP, name: channel.to_owned() });
            }
            TopicStage::Asking(call) => self.drop_call(context, call),
            TopicStage::Own(_) | TopicStage::Suspended => {}
        }
    }

    fn begin(&mut self, context: &mut DialectContext<'_>, channel: &str, gate: Gate, op: TopicOp) {
        let topic = TopicSubscription {
            refs: 1,
            stage: TopicStage::Joining,
            scope: gate.scope,
            strict: gate.strict,
            resumes: false,
            confirm: op.confirm,
            data: op.data,
            waiting: VecDeque::new(),
        };
        self.topics.insert(channel.into(), topic);
        self.references += 1;
        self.go(context, channel, gate.source);
    }

    /// Starts the subscription to a topic that is in `self.topics`.
    fn go(&mut self, context: &mut DialectContext<'_>, channel: &str, source: TopicSource) {
        let Some(topic) = self.topics.get_mut(channel) else { return };
        match source {
            TopicSource::Own(value) => {
                topic.stage = TopicStage::Own(Arc::new(value.clone()));
                self.data(context, wire::split(channel), &value);
                self.settled(context, channel);
            }
            TopicSource::Join => self.join(context, channel),
            TopicSource::Ask(backend) => {
                let data = topic.data.take();
                self.ask_to_sub(context, channel, backend, data);
            }
        }
    }

    fn join(&mut self, context: &mut DialectContext<'_>, channel: &str) {
        let Some(topic) = self.topics.get_mut(channel) else { return };
        topic.stage = TopicStage::Joining;
        let request = Some(JoinRequest { picture: Some(self.format), ..JoinRequest::default() });
        let name = channel.to_owned();
        context.effects.push(Effect::Join {
            app: APP,
            name,
            max: usize::MAX,
            request,
            form: Form::PUBLISHED,
        });
    }

    fn ask_to_sub(
        &mut self,
        context: &mut DialectContext<'_>,
        channel: &str,
        backend: ZenithPeer,
        data: Option<Value>,
    ) {
        let (controller, topic) = wire::split(channel);
        let is_large = |data: &Value| backend.process != 0 && wire::is_too_large(context.env, data);
        if data.as_ref().is_some_and(is_large) {
            return self.refused(context, channel, &Value::text(codes::LIMITED));
        }
        let times = self.times(context, controller);
        let pending = Pending {
            controller: controller.into(),
            topic: topic.into(),
            transaction: None,
            subscribes: true,
            to: backend,
            by: context.now.plus_ms(times.subscription_ms),
        };
        let Some(call) = self.add_call(context, pending) else {
            return self.refused(context, channel, &Value::text(codes::LIMITED));
        };
        if let Some(known) = self.topics.get_mut(channel) {
            known.stage = TopicStage::Asking(call);
        }
        let what = ZenithMessage::Call(Call {
            from: context.conn.into(),
            call,
            controller: controller.into(),
            topic: topic.into(),
            subscribes: true,
            data,
            user: self.identity.as_ref().map(|it| it.principal.user.clone()),
            version: self.version.clone(),
        });
        context.effects.push(to_peer(backend, what));
    }

    /// Handles a back end's answer to a subscription request: joins the channel, or refuses the
    /// subscription with the error.
    pub(super) fn authorised(
        &mut self,
        context: &mut DialectContext<'_>,
        channel: &str,
        refusal: Option<&Value>,
    ) {
        match refusal {
            None => self.join(context, channel),
            Some(error) => self.refused(context, channel, error),
        }
    }

    /// Handles the answer of the channel's home. The picture is already queued.
    pub(super) fn joined(
        &mut self,
        context: &mut DialectContext<'_>,
        channel: &str,
        outcome: JoinOutcome,
    ) {
        let Some(topic) = self.topics.get_mut(channel) else { return };
        let reply = match outcome {
            JoinOutcome::Joined(reply) => reply.unwrap_or_default(),
            JoinOutcome::Already => JoinReply::default(),
            JoinOutcome::SubscriptionLimit | JoinOutcome::NoRoom => {
                return self.refused(context, channel, &Value::text(codes::LIMITED));
            }
            // The topic is the view of a channel whose application this node has not read yet.
            JoinOutcome::NotStored => {
                let (controller, _) = wire::split(channel);
                let unavailable = Value::text(&wire::unavailable(controller));
                return self.refused(context, channel, &unavailable);
            }
            // The join request has no member, so the home cannot answer this.
            JoinOutcome::ChannelFull => return context.close(closings::INTERNAL),
        };
        if reply.is_picture_unknown {
            context.effects.push(Effect::Leave { app: APP, name: channel.to_owned() });
            let (controller, _) = wire::split(channel);
            let unavailable = Value::text(&wire::unavailable(controller));
            return self.refused(context, channel, &unavailable);
        }
        if topic.strict && reply.picture.is_none() {
            context.effects.push(Effect::Leave { app: APP, name: channel.to_owned() });
            return self.refused(context, channel, &Value::text(codes::UNKNOWN));
        }
        topic.stage = TopicStage::Active;
        let at = wire::split(channel);
        if at == ("Zenith", "Feeds") {
            self.data(context, at, &context.env.zenith.feeds());
        }
        self.settled(context, channel);
    }

    /// Completes a subscription: confirms it if requested, and handles the requests that waited for
    /// it.
    fn settled(&mut self, context: &mut DialectContext<'_>, channel: &str) {
        let Some(topic) = self.topics.get_mut(channel) else { return };
        let waiting = std::mem::take(&mut topic.waiting);
        let confirm = std::mem::take(&mut topic.confirm);
        topic.resumes = false;
        if confirm {
            let (controller, topic) = wire::split(channel);
            self.confirm_sub(context, (controller, Some(topic)));
        }
        self.take_up(context, channel, waiting);
    }

    /// Refuses a subscription with an error, and handles the requests that waited for it.
    fn refused(&mut self, context: &mut DialectContext<'_>, channel: &str, error: &Value) {
        let Some(topic) = self.take_topic(channel) else { return };
        let (controller, name) = wire::split(channel);
        let at = (controller, Some(name));
        if topic.resumes {
            self.fail(context, at, None, error);
            self.end_refs(context, at, topic.refs);
        } else {
            self.refuse_sub(context, at, error, topic.confirm);
        }
        self.take_up(context, channel, topic.waiting);
    }

    fn take_up(
        &mut self,
        context: &mut DialectContext<'_>,
        channel: &str,
        waiting: VecDeque<TopicOp>,
    ) {
        for op in waiting {
            // A waiting `Sub` was counted; `sub` counts it again if it succeeds.
            self.references -= usize::from(op.sub);
            match op.sub {
                true => self.sub(context, channel, op),
                false => self.unsub(context, channel, op.confirm),
            }
        }
    }

    fn end_refs(&self, context: &mut DialectContext<'_>, at: (&str, Option<&str>), refs: u32) {
        let (controller, topic) = at;
        let action = Some(wire::UNSUB);
        let end =
            WireMessage { controller, topic, action, confirm: true, ..WireMessage::default() };
        for _ in 0..refs {
            self.send_message(context, &end);
        }
    }

    /// Ends a topic with an optional error. If the subscription is still pending, it is refused.
    pub(super) fn end(
        &mut self,
        context: &mut DialectContext<'_>,
        channel: &str,
        error: Option<&Value>,
    ) {
        let Some(topic) = self.topics.get_mut(channel) else { return };
        if let TopicStage::Asking(_) | TopicStage::Joining = topic.stage
            && !topic.resumes
        {
            match std::mem::replace(&mut topic.stage, TopicStage::Suspended) {
                TopicStage::Asking(call) => self.drop_call(context, call),
                _ => {
                    let name = channel.to_owned();
                    context.effects.push(Effect::Leave { app: APP, name });
                }
            }
            let unknown = Value::text(codes::UNKNOWN);
            return self.refused(context, channel, error.unwrap_or(&unknown));
        }
        let (refs, waiting) = (topic.refs, std::mem::take(&mut topic.waiting));
        self.drop_topic(context, channel);
        let (controller, topic) = wire::split(channel);
        if let Some(error) = error {
            self.fail(context, (controller, Some(topic)), None, error);
        }
        self.end_refs(context, (controller, Some(topic)), refs);
        self.take_up(context, channel, waiting);
    }

    /// Whether the client receives data on a channel.
    pub(super) fn is_subscribed(&self, channel: &str) -> bool {
        let stage = self.topics.get(channel).map(|topic| &topic.stage);
        matches!(stage, Some(TopicStage::Active | TopicStage::Own(_)))
    }

    /// Suspends the subscriptions whose scope the client has lost: it keeps them, but receives no
    /// data. Pending ones are refused.
    pub(super) fn suspend(&mut self, context: &mut DialectContext<'_>) {
        let lost: Vec<Box<str>> = self.without_rights();
        for channel in lost {
            let Some(topic) = self.topics.get_mut(&channel) else { continue };
            let stage = std::mem::replace(&mut topic.stage, TopicStage::Suspended);
            if let TopicStage::Active | TopicStage::Joining = stage {
                context.effects.push(Effect::Leave { app: APP, name: channel.to_string() });
            }
            let unsettled = matches!(stage, TopicStage::Asking(_) | TopicStage::Joining);
            let resumes = topic.resumes;
            let waiting = std::mem::take(&mut topic.waiting);
            if let TopicStage::Asking(call) = stage {
                self.drop_call(context, call);
            }
            if unsettled && !resumes {
                self.refused(context, &channel, &Value::text(codes::AUTHORITY));
            }
            self.take_up(context, &channel, waiting);
        }
    }

    /// Resumes suspended subscriptions after the client's scopes have changed. Those whose scope is
    /// still missing end with an error.
    pub(super) fn resume(&mut self, context: &mut DialectContext<'_>) {
        for channel in self.without_rights() {
            self.end(context, &channel, Some(&Value::text(codes::AUTHORITY)));
        }
        let is_suspended = |topic: &TopicSubscription| topic.stage == TopicStage::Suspended;
        let suspended = self.topics.iter().filter(|(_, topic)| is_suspended(topic));
        let mut suspended: Vec<Box<str>> = suspended.map(|(name, _)| name.clone()).collect();
        suspended.sort_unstable();
        for channel in suspended {
            let Some(topic) = self.topics.get_mut(&channel) else { continue };
            topic.resumes = true;
            let (controller, name) = wire::split(&channel);
            match self.source(context, controller, name) {
                Ok(gate) => self.go(context, &channel, gate.source),
                Err(code) => self.refused(context, &channel, &Value::text(&code)),
            }
        }
    }

    fn without_rights(&self) -> Vec<Box<str>> {
        let lost = self.topics.iter().filter(|(_, topic)| !self.may(&topic.scope));
        let mut lost: Vec<Box<str>> = lost.map(|(channel, _)| channel.clone()).collect();
        lost.sort_unstable();
        lost
    }

    /// Sends the data of the server's own topics again where it has changed.
    pub(super) fn refresh(&mut self, context: &mut DialectContext<'_>) {
        let is_own = |topic: &TopicSubscription| matches!(topic.stage, TopicStage::Own(_));
        let own = self.topics.iter().filter(|(_, topic)| is_own(topic));
        let mut own: Vec<Box<str>> = own.map(|(channel, _)| channel.clone()).collect();
        own.sort_unstable();
        for channel in own {
            let (controller, name) = wire::split(&channel);
            let Ok(Gate { source: TopicSource::Own(value), .. }) =
                self.source(context, controller, name)
            else {
                continue;
            };
            let Some(topic) = self.topics.get_mut(&channel) else { continue };
            if topic.stage != TopicStage::Own(Arc::new(value.clone())) {
                self.data(context, (controller, name), &value);
                if let Some(topic) = self.topics.get_mut(&channel) {
                    topic.stage = TopicStage::Own(Arc::new(value));
                }
            }
        }
    }
}
