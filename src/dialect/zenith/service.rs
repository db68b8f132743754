//! A back end on a WebSocket: it registers controllers, topics and feeds, publishes data, and
//! answers calls and subscription requests of clients. `README.md` in this folder describes its
//! messages.

use super::client::send_message;
use super::commands::{self, BackendCommand};
use super::directory::ServiceEntry;
use super::messages::{Call, CallOutcome, ZenithMessage};
use super::pending::{PendingCall, PendingCalls, note_late_answer};
use super::registry::Served;
use super::rule::Rule;
use super::wire::{self, APP, MessageEnvelope, WireMessage, codes};
use crate::codec::{Format, Value};
use crate::dialect::Event;
use crate::dialect::{DialectContext, Effect, Effects, Env};
use crate::hub::ConnId;
use crate::mem::Handle;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// The connection of one back end.
pub(super) struct Service {
    pub(super) format: Format,
    entry: Arc<ServiceEntry>,
    /// The calls that the back end has not answered, by the TransactionID that the server gave
    /// them.
    pending: PendingCalls,
    /// Whether [`Service::on_drop`] has run.
    has_left: bool,
    /// The heads of numbered publishes that their channels' homes have not ordered yet, by part.
    /// Each is confirmed when it is ordered.
    unplaced: BTreeMap<u16, MessageEnvelope>,
    last_part: u16,
    /// The feeds that this back end has registered; they become [`GONE`] when it closes.
    feeds: Vec<Box<str>>,
    /// The channels whose pictures are removed when the back end closes; `None` if it has not
    /// requested that.
    pictures: Option<HashSet<String>>,
}

/// The maximum number of numbered publishes of one back end that are not ordered yet. Reading from
/// the back end is paused long before, because the mailboxes to other cores are full.
const MAX_UNPLACED: usize = u16::MAX as usize;
/// The maximum number of pictures that are removed when one back end closes.
const MAX_PICTURES: usize = 1 << 20;
/// The state of a feed whose back end has closed.
const GONE: &str = "Inactive";

impl Service {
    pub(super) fn new(format: Format, entry: Arc<ServiceEntry>) -> Service {
        Service {
            format,
            entry,
            pending: PendingCalls::default(),
            has_left: false,
            unplaced: BTreeMap::new(),
            last_part: 0,
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
                    Some(pending) => context.effects.push(pending.answer(outcome)),
                    None => note_late_answer(context),
                }
            }
            (Some("Register"), _) => {
                let done = self.register(context, it.data.as_ref());
                self.confirm(context, &it, done);
            }
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
        let part = match head.transaction.is_some() && order.is_published() {
            true => self.free_part(),
            false => Some(0),
        };
        let Some(part) = part.filter(|_| self.notes(&order)) else {
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

    /// Confirms the publish with this part, which its channel's home has ordered.
    pub(super) fn placed(&mut self, context: &mut DialectContext<'_>, part: u16) {
        if let Some(head) = self.unplaced.remove(&part) {
            self.confirm(context, &head, Ok(()));
        }
    }

    /// Records the channel whose picture this command updates, if pictures are removed with the
    /// back end. False if there would be too many.
    fn notes(&mut self, order: &BackendCommand) -> bool {
        if let (Some(pictures), BackendCommand::Data(name, event)) = (&mut self.pictures, order)
            && event.is_kept()
            && !pictures.contains(name)
        {
            if pictures.len() >= MAX_PICTURES {
                return false;
            }
            pictures.insert(name.clone());
        }
        true
    }

    /// Replies to a message of the back end: with an error if `done` is one, and then, if the
    /// message has a TransactionID, with an empty reply.
    fn confirm(
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
        data: Option<&Value>,
    ) -> Result<(), &'static str> {
        let wanted = Registration::read(data.ok_or(codes::DATA)?).ok_or(codes::DESERIALISE)?;
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
            self.pictures = Some(HashSet::new());
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
        Ok(())
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
            | ZenithMessage::Feeds(_) => {}
        }
    }

    /// Sends a call to the back end. If too many calls or bytes wait for it, the call fails at
    /// once.
    fn forward_call(&mut self, context: &mut DialectContext<'_>, call: &Call) {
        let pending = PendingCall::of(call);
        let number = Value::Int(self.pending.next_number());
        let message = WireMessage {
            controller: &call.controller,
            topic: Some(&call.topic),
            action: Some(if call.subscribes { wire::SUB } else { wire::PUBLISH }),
            user: call.user.as_deref(),
            session: Some(&wire::session(call.from)),
            version: Some(&call.version),
            transaction: Some(&number),
            data: call.data.as_ref(),
            confirm: false,
        };
        let Ok(payload) = message.encode(self.format) else {
            return context.effects.push(pending.answer(CallOutcome::failed(codes::FAULT)));
        };
        let frame = Handle::new(wire::freeze(self.format, &payload));
        let (bytes, bound) = (frame.len(), queue_bytes(context.env));
        if !self.pending.has_room(call.from, bytes, context.waiting_bytes, bound) {
            if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core))
            {
                counters.backend_calls_refused.add(1);
            }
            return context.effects.push(pending.answer(CallOutcome::failed(codes::LIMITED)));
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
        out.extend(self.pending.take_all().map(|pending| pending.unavailable()));
        let mut changed = false;
        for feed in &self.feeds {
            changed |= state.set_feed(feed, Some(GONE));
        }
        if changed {
            out.push(commands::announce_feeds(env, 0));
        }
        let mut pictures: Vec<String> = self.pictures.take().into_iter().flatten().collect();
        pictures.sort_unstable();
        for name in pictures {
            out.push(Effect::Publish { app: APP, name, event: Event::clear(), part: 0 });
        }
    }
}

/// The maximum bytes of calls in a back end's write queue. A call is about as large as a client's
/// message, and two of the maximum size always fit.
pub(super) fn queue_bytes(env: &Env) -> usize {
    let max = env.config.limits.write_queue_bytes;
    max.saturating_add(2 * env.zenith.config.message_bytes as usize)
}

/// The content of a `Register` message.
struct Registration {
    controllers: Vec<Box<str>>,
    /// The controller, the kind, and the rule of topics without a configured one.
    topics: Vec<(Box<str>, Box<str>, Rule)>,
    feeds: Vec<Box<str>>,
    /// Whether the back end is asked to grant each first subscription of a client.
    authorises: bool,
    /// Whether the back end's pictures are removed when it closes.
    drops: bool,
}

impl Registration {
    fn read(data: &Value) -> Option<Registration> {
        let flag = |key: &str| match data.get(key) {
            None => Some(false),
            Some(value) => value.as_bool(),
        };
        let texts = |key: &str| match data.get(key) {
            None => Some(Vec::new()),
            Some(value) => {
                value.elements()?.iter().map(|it| it.as_text().map(Into::into)).collect()
            }
        };
        let topics = match data.get("Topics") {
            None => Vec::new(),
            Some(value) => {
                value.elements()?.iter().map(Registration::topic).collect::<Option<_>>()?
            }
        };
        let drops = match data.get("Pictures") {
            None => false,
            Some(value) => match value.as_text()? {
                "Keep" => false,
                "Drop" => true,
                _ => return None,
            },
        };
        data.members()?;
        Some(Registration {
            controllers: texts("Controllers")?,
            topics,
            feeds: texts("Feeds")?,
            authorises: flag("Authorises")?,
            drops,
        })
    }

    fn topic(value: &Value) -> Option<(Box<str>, Box<str>, Rule)> {
        let text = |key: &str| match value.get(key) {
            None => Some(""),
            Some(value) => value.as_text(),
        };
        let retain = match text("Retain")? {
            "" => crate::config::RetainConfig::default(),
            word => commands::retain_of(word)?,
        };
        let rule = Rule { retain, scope: text("Scope")?.into(), ..Rule::default() };
        let (controller, kind) = (text("Controller")?, text("Kind")?);
        let named = !controller.is_empty() && !kind.is_empty();
        named.then(|| (controller.into(), kind.into(), rule))
    }

    fn served(&self, conn: ConnId) -> Vec<(Box<str>, Served)> {
        let served = |kind: Option<&str>, rule: Rule| Served {
            kind: kind.map(Into::into),
            conn: Some(conn),
            authorises: self.authorises,
            rule: Arc::new(rule),
        };
        let whole = self.controllers.iter();
        let whole = whole.map(|name| (name.clone(), served(None, Rule::default())));
        let mask = self.topics.iter().map(|(controller, kind, rule)| {
            let rule = Rule { retain: rule.retain, scope: rule.scope.clone(), ..Rule::default() };
            (controller.clone(), served(Some(kind), rule))
        });
        whole.chain(mask).collect()
    }
}
