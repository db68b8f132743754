//! A back end on a WebSocket: it registers controllers, topics and feeds, publishes data, and
//! answers calls and subscription requests of clients. `README.md` in this folder describes its
//! messages.

use super::client::send_message;
use super::commands::{self, BackendCommand};
use super::directory::ServiceEntry;
use super::messages::{Call, CallOutcome, ZenithMessage};
use super::nodes::{GONE, own_picture};
use super::pending::{PendingCall, PendingCalls, note_late_answer};
use super::registration::{LoggedRegistrations, Registering, Registration};
use super::wire::{self, APP, MessageEnvelope, WireMessage, codes};
use crate::codec::{Format, Value};
use crate::dialect::Event;
use crate::dialect::{DialectContext, Effect, Effects, Env};
use crate::hub::{Answer, ConnId, Unpublished};
use crate::mem::Handle;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The connection of one back end.
pub(super) struct Service {
    pub(super) format: Format,
    pub(super) entry: Arc<ServiceEntry>,
    /// The calls that the back end has not answered, by the TransactionID that the server gave
    /// them.
    pending: PendingCalls,
    /// Whether [`Service::on_drop`] has run.
    has_left: bool,
    /// The heads of numbered publishes that their channels' homes have not ordered yet, by part.
    /// Each is confirmed when it is ordered.
    unplaced: BTreeMap<u16, MessageEnvelope>,
    last_part: u16,
    /// What it has registered in a cluster.
    pub(super) registered: LoggedRegistrations,
    /// The feeds that this back end has registered; they become [`GONE`] when it closes.
    feeds: Vec<Box<str>>,
    /// The channels whose pictures are removed when the back end closes; `None` if it has not
    /// requested that. In a cluster each with whether the log has it, or gets it.
    pub(super) pictures: Option<HashMap<String, bool>>,
}

/// The maximum number of numbered publishes of one back end that are not ordered yet. Reading from
/// the back end is paused long before, because the mailboxes to other cores are full.
const MAX_UNPLACED: usize = u16::MAX as usize;
/// The maximum number of pictures that are removed when one back end closes.
const MAX_PICTURES: usize = 1 << 20;
/// The same in a cluster, where each takes an entry of the log.
const MAX_LOGGED_PICTURES: usize = 1 << 14;

impl Service {
    pub(super) fn new(format: Format, entry: Arc<ServiceEntry>) -> Service {
        Service {
            format,
            entry,
            pending: PendingCalls::default(),
            has_left: false,
            unplaced: BTreeMap::new(),
            last_part: 0,
            registered: LoggedRegistrations::default(),
            feeds: Vec::new(),
            pictures: None,
        }
    }

    /// Handles one message of the back end.
    pub(super) fn message(&mut self, context: &mut DialectContext<'_>, it: MessageEnvelope) {
        let action = it.action.as_deref();
        match (action, &it.transaction) {
            (None | Some(wire::SUB | wire::ERROR), Some(number)) => {
                let number = number.as_int();
                let outcome = match (action, it.data) {
                    (Some(wire::ERROR), data) => {
                        CallOutcome::Failed(data.unwrap_or_else(|| Value::text(codes::FAULT)))
                    }
                    (_, data) => CallOutcome::Done(data),
                };
                match number.and_then(|number| self.pending.remove(number)) {
                    Some(pending) => {
                        let is_clustered = context.env.config.cluster.is_some();
                        let outcome = fitting(context.env, outcome);
                        context.effects.push(pending.answer(outcome, is_clustered));
                    }
                    None => note_late_answer(context),
                }
            }
            (Some("Register"), _) => match self.register(context, &it) {
                Ok(Registering::Stated) => {}
                Ok(Registering::Done) => self.confirm(context, &it, Ok(())),
                Err(code) => self.confirm(context, &it, Err(code)),
            },
            _ => {
                let head = MessageEnvelope {
                    controller: it.controller.clone(),
                    topic: it.topic.clone(),
                    transaction: it.transaction.clone(),
                    ..MessageEnvelope::default()
                };
                match commands::read(context.env, &self.entry, it) {
                    Ok(order) => self.order(context, order, head),
                    Err(refusal) => self.confirm(context, &head, Err(refusal.code)),
                }
            }
        }
    }

    /// Carries out a command of the back end. A publish with a TransactionID is confirmed when its
    /// channel's home has ordered it, any other command at once; the confirmation repeats `head`.
    fn order(
        &mut self,
        context: &mut DialectContext<'_>,
        order: BackendCommand,
        head: MessageEnvelope,
    ) {
        let is_clustered = context.env.config.cluster.is_some();
        let part = match head.transaction.is_some() && order.is_published(is_clustered) {
            true => self.free_part(),
            false => Some(0),
        };
        let Some(part) = part.filter(|_| self.notes(context, &order)) else {
            return self.confirm(context, &head, Err(codes::LIMITED));
        };
        commands::carry_out(context, order, part);
        match part {
            0 => self.confirm(context, &head, Ok(())),
            part => {
                self.unplaced.insert(part, head);
            }
        }
    }

    /// A part number for a publish that is neither 0 nor in use; `None` if too many are in use.
    fn free_part(&mut self) -> Option<u16> {
        if self.unplaced.len() >= MAX_UNPLACED {
            return None;
        }
        loop {
            self.last_part = self.last_part.wrapping_add(1);
            if self.last_part > 0 && !self.unplaced.contains_key(&self.last_part) {
                return Some(self.last_part);
            }
        }
    }

    /// Confirms the publish with this part, which its channel's home has ordered, or the log of the
    /// cluster has not taken.
    pub(super) fn placed(&mut self, context: &mut DialectContext<'_>, part: u16, answer: &Answer) {
        if let Some(head) = self.unplaced.remove(&part) {
            let done = match answer {
                Answer::Unpublished(_, Unpublished::Refused) => Err(codes::RETRY),
                Answer::Unpublished(_, Unpublished::Unknown) => Err(codes::TIMEOUT),
                _ => Ok(()),
            };
            self.confirm(context, &head, done);
        }
    }

    /// Records the channel whose picture this command updates, if pictures are removed with the
    /// back end. False if there would be too many.
    fn notes(&mut self, context: &mut DialectContext<'_>, order: &BackendCommand) -> bool {
        let (Some(pictures), BackendCommand::Data(name, event)) = (&mut self.pictures, order)
        else {
            return true;
        };
        if !event.is_kept() || pictures.get(name) == Some(&true) {
            return true;
        }
        let is_clustered = context.env.config.cluster.is_some();
        let max = if is_clustered { MAX_LOGGED_PICTURES } else { MAX_PICTURES };
        if pictures.len() >= max && !pictures.contains_key(name) {
            return false;
        }
        pictures.insert(name.clone(), true);
        // Other nodes remove the picture if this one ends. A view has that of its source.
        let source = context.env.links.resolve(APP, name);
        if is_clustered && source.is_none_or(|source| source.app == APP) {
            let effect = own_picture(context, name);
            context.effects.push(effect);
        }
        true
    }

    /// Replies to a message of the back end: with an error if `done` is one, and then, if the
    /// message has a TransactionID, with an empty reply.
    pub(super) fn confirm(
        &self,
        context: &mut DialectContext<'_>,
        it: &MessageEnvelope,
        done: Result<(), &'static str>,
    ) {
        let (controller, topic) = (&*it.controller, it.topic.as_deref());
        let transaction = it.transaction.as_ref();
        let reply = WireMessage { controller, topic, transaction, ..WireMessage::default() };
        if let Err(code) = done {
            let (action, error) = (Some(wire::ERROR), Value::text(code));
            send_message(
                context,
                self.format,
                &WireMessage { action, data: Some(&error), ..reply },
            );
        }
        if transaction.is_some() {
            send_message(context, self.format, &reply);
        }
    }

    /// Handles `Register`, which lists controllers, kinds of topics, and feeds.
    fn register(
        &mut self,
        context: &mut DialectContext<'_>,
        it: &MessageEnvelope,
    ) -> Result<Registering, &'static str> {
        let data = it.data.as_ref().ok_or(codes::DATA)?;
        let wanted = Registration::read(data).ok_or(codes::DESERIALISE)?;
        if context.env.config.cluster.is_some() {
            return self.state(context, wanted, it);
        }
        let directory = &context.env.zenith;
        for (controller, served) in wanted.served(context.conn) {
            if crate::config::OWN_CONTROLLERS.contains(&&*controller) || controller.contains('\0') {
                return Err(codes::UNKNOWN);
            }
            if !self.entry.may_serve(&controller) {
                return Err(codes::AUTHORITY);
            }
            if !directory.state.register(&controller, served) {
                return Err(codes::LIMITED);
            }
        }
        if wanted.drops && self.pictures.is_none() {
            self.pictures = Some(HashMap::new());
        }
        let mut changed = false;
        for feed in wanted.feeds {
            if !directory.has_feed(&feed) {
                return Err(codes::UNKNOWN);
            }
            changed |= directory.state.set_feed(&feed, None);
            if !self.feeds.contains(&feed) {
                self.feeds.push(feed);
            }
        }
        if changed {
            context.effects.push(commands::announce_feeds(context.env, 0));
        }
        tracing::debug!(service = &*self.entry.name, "a back end has registered");
        Ok(Registering::Done)
    }

    /// Handles a message from a client's connection.
    pub(super) fn on_message(&mut self, context: &mut DialectContext<'_>, what: &ZenithMessage) {
        match what {
            ZenithMessage::Call(call) => self.forward_call(context, call),
            ZenithMessage::Forget { from, call } => {
                let Some((number, pending)) = self.pending.forget(*from, *call) else { return };
                let number = Value::Int(number);
                let message = WireMessage {
                    controller: &pending.controller,
                    action: Some(wire::CANCEL),
                    transaction: Some(&number),
                    ..WireMessage::default()
                };
                send_message(context, self.format, &message);
            }
            ZenithMessage::Kick(_)
            | ZenithMessage::Answer { .. }
            | ZenithMessage::End { .. }
            | ZenithMessage::Feeds(_)
            | ZenithMessage::Tell(..) => {}
        }
    }

    /// Sends a call to the back end. If too many calls or bytes wait for it, the call fails at
    /// once.
    fn forward_call(&mut self, context: &mut DialectContext<'_>, call: &Call) {
        let pending = PendingCall::of(call);
        let is_clustered = context.env.config.cluster.is_some();
        let number = Value::Int(self.pending.next_number());
        let message = WireMessage {
            controller: &call.controller,
            topic: Some(&call.topic),
            action: Some(if call.subscribes { wire::SUB } else { wire::PUBLISH }),
            user: call.user.as_deref(),
            session: Some(&wire::session(context.env, call.from)),
            version: Some(&call.version),
            transaction: Some(&number),
            data: call.data.as_ref(),
            confirm: false,
        };
        let Ok(payload) = message.encode(self.format) else {
            return context
                .effects
                .push(pending.answer(CallOutcome::failed(codes::FAULT), is_clustered));
        };
        let frame = Handle::new(wire::freeze(self.format, &payload));
        let (bytes, bound) = (frame.len(), queue_bytes(context.env));
        if !self.pending.has_room(call.from, bytes, context.waiting_bytes, bound) {
            if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core))
            {
                counters.backend_calls_refused.add(1);
            }
            return context
                .effects
                .push(pending.answer(CallOutcome::failed(codes::LIMITED), is_clustered));
        }
        self.pending.insert(pending, bytes);
        context.shared.push(frame);
    }

    /// Handles the close of the connection: unregisters the back end, fails its unanswered calls,
    /// sets its feeds to [`GONE`], and removes its pictures if it requested that.
    pub(super) fn on_drop(&mut self, env: &Env, us: ConnId, out: &mut Effects<'_>) {
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        let state = &env.zenith.state;
        state.unregister(us);
        let is_clustered = env.config.cluster.is_some();
        let pending = self.pending.take_all();
        out.extend(pending.map(|pending| pending.unavailable(is_clustered)));
        if is_clustered {
            self.registered.on_drop(env, out);
        }
        let mut changed = false;
        for feed in &self.feeds {
            changed |= state.set_feed(feed, Some(GONE));
        }
        if changed {
            out.push(commands::announce_feeds(env, 0));
        }
        let pictures = self.pictures.take().into_iter().flatten();
        let mut pictures: Vec<String> = pictures.map(|(name, _)| name).collect();
        pictures.sort_unstable();
        for name in pictures {
            out.push(Effect::Publish { app: APP, name, event: Event::clear(), part: 0 });
        }
    }
}

/// The same outcome, or a failure if it is larger than what the log of a cluster takes.
fn fitting(env: &Env, outcome: CallOutcome) -> CallOutcome {
    match &outcome {
        CallOutcome::Done(Some(data)) | CallOutcome::Failed(data)
            if wire::is_too_large(env, data) =>
        {
            CallOutcome::failed(codes::LIMITED)
        }
        _ => outcome,
    }
}

/// The maximum bytes of calls in a back end's write queue. A call is about as large as a client's
/// message, and two of the maximum size always fit.
pub(super) fn queue_bytes(env: &Env) -> usize {
    let max = env.config.limits.write_queue_bytes;
    max.saturating_add(2 * env.zenith.config.message_bytes as usize)
}
