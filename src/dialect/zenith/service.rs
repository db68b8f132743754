//! A back end on a WebSocket: it registers what it serves, publishes, and answers what clients
//! ask. `README.md` beside this file has its messages.

use super::APP;
use super::asked::{AskedCall, AskedCalls};
use super::client::say;
use super::commands::{self, BackendCommand};
use super::directory::{Rule, ServiceEntry};
use super::messages::{Call, CallOutcome, ZenithMessage};
use super::registry::Served;
use super::wire::{self, MessageEnvelope, WireMessage, codes};
use crate::codec::{Format, Value};
use crate::dialect::{DialectContext, Effect, Env};
use crate::hub::{ConnId, Encodings, Event};
use crate::mem::Handle;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// One back end.
pub(super) struct Service {
    pub(super) format: Format,
    entry: Arc<ServiceEntry>,
    /// What it is asked and has not answered, by the number that it knows.
    asked: AskedCalls,
    /// Whether it has closed, and all that follows from that is done.
    has_left: bool,
    /// What it has published and numbered and has no place yet, by the part; it is told then.
    unplaced: BTreeMap<u16, MessageEnvelope>,
    last_part: u16,
    /// The feeds that stand and fall with it.
    feeds: Vec<Box<str>>,
    /// The channels whose pictures go with it, if they do.
    pictures: Option<HashSet<String>>,
}

/// Numbered publishes of one back end that may wait for their place. Long before that, reading from
/// it stops, because the lanes to other cores are full.
const UNPLACED_MOST: usize = u16::MAX as usize;
/// Pictures that may go with one back end.
const PICTURES_MOST: usize = 1 << 20;
/// The state of a feed whose back end is gone.
const GONE: &str = "Inactive";

impl Service {
    pub(super) fn new(format: Format, entry: Arc<ServiceEntry>) -> Service {
        Service {
            format,
            entry,
            asked: AskedCalls::default(),
            has_left: false,
            unplaced: BTreeMap::new(),
            last_part: 0,
            feeds: Vec::new(),
            pictures: None,
        }
    }

    /// Takes one container.
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
                match number.and_then(|number| self.asked.remove(number)) {
                    Some(asked) => context.effects.push(asked.answer(outcome)),
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

    /// Does what the back end has asked for with this head. A publish is confirmed when its
    /// channel's home has ordered it.
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

    /// A number for a publish, none but 0 and those that are in use.
    fn free_part(&mut self) -> Option<u16> {
        if self.unplaced.len() >= UNPLACED_MOST {
            return None;
        }
        loop {
            self.last_part = self.last_part.wrapping_add(1);
            if self.last_part > 0 && !self.unplaced.contains_key(&self.last_part) {
                return Some(self.last_part);
            }
        }
    }

    /// A publish has its place.
    pub(super) fn placed(&mut self, context: &mut DialectContext<'_>, part: u16) {
        if let Some(head) = self.unplaced.remove(&part) {
            self.confirm(context, &head, Ok(()));
        }
    }

    /// Notes which picture an order makes; false if there are too many to go with the back end.
    fn notes(&mut self, order: &BackendCommand) -> bool {
        if let (Some(pictures), BackendCommand::Data(name, encodings)) = (&mut self.pictures, order)
            && encodings.is_kept()
            && !pictures.contains(name)
        {
            if pictures.len() >= PICTURES_MOST {
                return false;
            }
            pictures.insert(name.clone());
        }
        true
    }

    /// Tells the back end what came of what it asked for; nothing where it went well and it did
    /// not number it.
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
            say(context, self.format, &WireMessage { action, data: Some(&error), ..reply });
        }
        if transaction.is_some() {
            say(context, self.format, &reply);
        }
    }

    /// `Register`: controllers or kinds of topics, and feeds.
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

    /// Takes what a client's connection has to say.
    pub(super) fn on_message(&mut self, context: &mut DialectContext<'_>, what: &ZenithMessage) {
        match what {
            ZenithMessage::Call(call) => self.ask(context, call),
            ZenithMessage::Forget { from, call } => {
                let Some((number, asked)) = self.asked.forget(*from, *call) else { return };
                let number = Value::Int(number);
                let message = WireMessage {
                    controller: &asked.controller,
                    action: Some(wire::CANCEL),
                    transaction: Some(&number),
                    ..WireMessage::default()
                };
                say(context, self.format, &message);
            }
            ZenithMessage::Kick(_)
            | ZenithMessage::Answer { .. }
            | ZenithMessage::End { .. }
            | ZenithMessage::Feeds(_) => {}
        }
    }

    /// Asks the back end, unless too much waits for it: then whoever asks is told so at once.
    fn ask(&mut self, context: &mut DialectContext<'_>, call: &Call) {
        let asked = AskedCall::of(call);
        let number = Value::Int(self.asked.next_number());
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
            return context.effects.push(asked.answer(CallOutcome::failed(codes::FAULT)));
        };
        let frame = Handle::new(wire::freeze(self.format, &payload));
        let (bytes, bound) = (frame.len(), queue_bytes(context.env));
        if !self.asked.has_room(call.from, bytes, context.waiting_bytes, bound) {
            if let Some(counters) = context.env.counters.get(usize::from(context.conn.core)) {
                counters.backend_calls_refused.add(1);
            }
            return context.effects.push(asked.answer(CallOutcome::failed(codes::LIMITED)));
        }
        self.asked.insert(asked, bytes);
        context.shared.push(frame);
    }

    /// The connection has closed: nobody asks it any more, who waits for it is told, its feeds are
    /// marked, and its pictures go if it said so.
    pub(super) fn on_drop(&mut self, env: &Env, us: ConnId, out: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        let state = &env.zenith.state;
        state.unregister(us);
        out.extend(self.asked.take_all().map(|asked| asked.unavailable()));
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
            let event = Event { encodings: Some(Arc::new(Encodings::clear())), ..Event::default() };
            out.push(Effect::Publish { app: APP, name, event, part: 0 });
        }
    }
}

/// Bytes of questions that may wait for a back end: one is as large as a client's message, and two
/// always fit.
pub(super) fn queue_bytes(env: &Env) -> usize {
    let max = env.config.limits.write_queue_bytes;
    max.saturating_add(2 * env.zenith.config.message_bytes as usize)
}

/// Counts an answer that nobody waits for.
pub(super) fn note_late_answer(context: &DialectContext<'_>) {
    if let Some(counters) = context.env.counters.get(usize::from(context.conn.core)) {
        counters.backend_answers_late.add(1);
    }
}

/// What a back end wants to serve.
struct Registration {
    controllers: Vec<Box<str>>,
    /// Controller, kind and what holds for it.
    topics: Vec<(Box<str>, Box<str>, Rule)>,
    feeds: Vec<Box<str>>,
    authorises: bool,
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
