//! The Zilliqa WebSocket Server protocol: clients subscribe to new blocks, to the events of
//! contracts and to the transactions of accounts, and get one message in each epoch.
//! <https://dev.zilliqa.com/docs/dev/dev-tools-websockets/>

pub mod address;
mod compose;
pub mod epoch;
mod frames;
mod ingest;
mod messages;
mod notifications;
mod query;
mod sets;
mod shared;
mod words;

pub use messages::{ContractReply, ZilliqaMessage};
pub use notifications::NotificationCache;
pub use query::{QueryTopic, SubscriptionQuery, read};
pub use shared::{APP, CHANNEL, EpochRange, EpochRejected, Question, Shared};

use super::{
    Answered, Closing, ConnectionEnd, Dialect, DialectApi, DialectContext, DialectEvent,
    DialectPolicy, Effect, Env, Heartbeat, Opening, Why,
};
use crate::config::{Contracts, SlowConsumer};
use crate::dialect::DialectMessage;
use crate::http;
use crate::hub::Form;
use crate::ws::{self, close};
use compose::NotificationKey;
use epoch::Epoch;
use query::Named;
use sets::{HeldAddresses, Set};
use std::rc::Rc;
use std::sync::Arc;

/// The maximum size in bytes of the replies held back for a client whose subscription to the
/// channel is pending.
const EARLY_BYTES: usize = 256 * 1024;

/// One client connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// The subscribed topics, as a set of [`QueryTopic::bit`].
    topics: u8,
    /// The subset of `topics` that was unsubscribed since the last epoch.
    leaving: u8,
    /// The number of consecutive notifications dropped because the client does not read, and
    /// whether the last one was dropped.
    dropped: u16,
    is_behind: bool,
    /// The addresses of the topics EventLog and TxnLog. Most clients have none.
    watched: Option<Box<[Watched; 2]>>,
    /// The replies held back until the connection is subscribed to the channel; `None` after that.
    early: Option<Box<Early>>,
}

/// Replies that are held back. Boxed, because hardly any connection has them.
#[derive(Debug, Default)]
struct Early(Vec<Box<[u8]>>);

/// The addresses of one topic.
#[derive(Debug, Default)]
struct Watched {
    now: Option<Rc<Set>>,
    /// The addresses that replace `now` after the next epoch, if the topic was unsubscribed and
    /// then subscribed again.
    next: Option<Rc<Set>>,
}

impl Watched {
    /// Whether `named` can be added if at most `free` more addresses may be held. `replaces` is
    /// true if the topic was unsubscribed since the last epoch, so that the addresses go into
    /// `next`, too.
    fn fits(&self, named: &[Named], replaces: bool, free: usize) -> bool {
        if 2 * named.len() <= free {
            return true;
        }
        let mut missing = Set::missing(self.now.as_ref(), named);
        if replaces || self.next.is_some() {
            missing += Set::missing(self.next.as_ref(), named);
        }
        missing <= free
    }

    /// Adds addresses. Returns false, and adds none, if `now` would have more than `max`.
    fn add(&mut self, named: &[Named], replaces: bool, max: usize, held: &HeldAddresses) -> bool {
        let has = |address| self.now.as_ref().is_some_and(|set| set.has(address));
        let len = self.now.as_ref().map_or(0, |set| set.len());
        if len + named.len() > max {
            let more = named.iter().map(|(address, _)| address).filter(|address| !has(address));
            if len + more.collect::<std::collections::HashSet<_>>().len() > max {
                return false;
            }
        }
        if replaces || self.next.is_some() {
            Set::add(&mut self.next, named, held);
        }
        Set::add(&mut self.now, named, held);
        true
    }

    /// Prepares for the next epoch after a notification. `ends` is true if the topic was
    /// unsubscribed.
    fn advance(&mut self, ends: bool) {
        let next = self.next.take();
        if ends || next.is_some() {
            self.now = next.filter(|_| !ends);
        }
    }
}

impl Dialect for Connection {
    fn open(context: &mut DialectContext<'_>, _opening: &Opening<'_>) -> Option<Connection> {
        if context.draining {
            context.close(Connection::closing(Why::Draining));
            return None;
        }
        let (app, name) = (APP, CHANNEL.to_owned());
        context.effects.push(Effect::Join {
            app,
            name,
            max: usize::MAX,
            request: None,
            form: Form::PUBLISHED,
        });
        Some(Connection { early: Some(Box::default()), ..Connection::default() })
    }

    fn message(
        &mut self,
        context: &mut DialectContext<'_>,
        _kind: ws::MessageKind,
        payload: &mut [u8],
    ) {
        if payload.is_empty() {
            return;
        }
        let section = &context.env.config.zilliqa;
        let query = str::from_utf8(payload).map_err(|_| words::QUERY);
        let done = match query.and_then(|text| read(text, section.wire)) {
            Ok(query) => self.look_up(context, payload, query),
            Err(text) => Err(text),
        };
        match done {
            Ok(true) => self.answer(context, payload),
            Ok(false) => {}
            Err(text) => self.error(context, text),
        }
    }

    fn on(&mut self, context: &mut DialectContext<'_>, event: DialectEvent<'_>) {
        match event {
            DialectEvent::Joined { .. } => {
                for text in self.early.take().into_iter().flat_map(|early| early.0) {
                    context.send_text(&text);
                }
            }
            DialectEvent::Message(DialectMessage::Zilliqa(what)) => self.on_message(context, what),
            DialectEvent::Message(_) => {}
            _ => {}
        }
    }

    #[inline]
    fn policy(&self, env: &Env) -> DialectPolicy {
        let section = &env.config.zilliqa;
        let silence_ms = section.ping_after_s * 1000;
        let answer_ms = section.idle_timeout_s * 1000 - silence_ms;
        DialectPolicy {
            heartbeat: Heartbeat { silence_ms, answer_ms },
            queue_bytes: section.queue_bytes,
            ..DialectPolicy::new(env, section.message_bytes.min(env.config.limits.message_bytes))
        }
    }

    fn ended(&mut self, env: &Env, end: ConnectionEnd<'_>) {
        if matches!(end, ConnectionEnd::Dropped) && self.wants_logs() {
            env.zilliqa.unwatch();
        }
    }

    fn closing(why: Why) -> Closing {
        // Clients do not reconnect after 1000.
        Closing::new(
            close::GOING_AWAY,
            match why {
                Why::Silent => "no sign of life",
                Why::Draining => "the server is shutting down",
                Why::Slow => "the client does not read what it is sent",
            },
        )
    }

    fn overrun(&mut self, env: &Env) -> SlowConsumer {
        self.is_behind = true;
        self.dropped = self.dropped.saturating_add(1);
        match self.dropped > env.config.zilliqa.dropped_in_a_row {
            true => SlowConsumer::Close,
            false => SlowConsumer::Drop,
        }
    }
}

impl DialectApi for Connection {
    fn needs_body(
        context: &mut DialectContext<'_>,
        _app: u32,
        request: &http::Request<'_>,
    ) -> bool {
        ingest::may_publish(context, request)
    }

    fn request(
        context: &mut DialectContext<'_>,
        _app: u32,
        _path: &str,
        request: &mut http::Request<'_>,
    ) -> Answered {
        ingest::answer(context, request)
    }
}

impl Connection {
    /// Handles a message from a publisher or from the look-up of contracts.
    fn on_message(&mut self, context: &mut DialectContext<'_>, what: &ZilliqaMessage) {
        match what {
            ZilliqaMessage::Epoch(epoch) => self.notify(context, epoch),
            ZilliqaMessage::Contracts(reply) => self.on_contracts(context, reply),
        }
    }

    /// Executes the query whose contracts were looked up.
    fn on_contracts(&mut self, context: &mut DialectContext<'_>, reply: &ContractReply) {
        match self.watch(context, QueryTopic::EventLog, &reply.named) {
            Ok(()) => self.answer(context, &reply.text),
            Err(text) => self.error(context, text),
        }
    }

    /// Executes a query. Returns false if its reply comes later.
    fn look_up(
        &mut self,
        context: &DialectContext<'_>,
        text: &[u8],
        query: SubscriptionQuery,
    ) -> Result<bool, &'static str> {
        match query {
            SubscriptionQuery::NewBlock => {
                self.topics |= QueryTopic::NewBlock.bit();
                self.leaving &= !QueryTopic::NewBlock.bit();
            }
            SubscriptionQuery::Unsubscribe(topic) => {
                self.leaving |= self.topics & topic.bit();
                if let Some(watched) = self.watched(topic) {
                    watched.next = None;
                }
            }
            SubscriptionQuery::Addresses(QueryTopic::EventLog, mut named) => {
                match &context.env.config.zilliqa.contracts {
                    Contracts::Any => {}
                    Contracts::List(list) => {
                        named.retain(|(address, _)| list.binary_search(address).is_ok());
                    }
                    Contracts::Node => {
                        let question = Question::new(context.conn, text, named);
                        let asked = context.env.zilliqa.enqueue(question);
                        return if asked { Ok(false) } else { Err(words::NO_CONTRACT) };
                    }
                }
                self.watch(context, QueryTopic::EventLog, &named)?;
            }
            SubscriptionQuery::Addresses(topic, named) => self.watch(context, topic, &named)?,
        }
        Ok(true)
    }

    /// Subscribes to a topic at these addresses.
    fn watch(
        &mut self,
        context: &DialectContext<'_>,
        topic: QueryTopic,
        named: &[Named],
    ) -> Result<(), &'static str> {
        if named.is_empty() {
            return Err(words::NO_CONTRACT);
        }
        let section = &context.env.config.zilliqa;
        let (max, held) = (section.addresses_per_connection, &context.core_state.zilliqa.held);
        let free = section.addresses_per_core.saturating_sub(held.get());
        let replaces = self.leaving & topic.bit() != 0;
        self.watched.get_or_insert_default();
        let Some(watched) = self.watched(topic) else { return Err(words::ADDRESSES) };
        if !watched.fits(named, replaces, free) {
            if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core))
            {
                counters.addresses_refused.add(1);
            }
            return Err(words::ADDRESSES);
        }
        let added = watched.add(named, replaces, max, held);
        if !added {
            return Err(words::ADDRESSES);
        }
        if !self.wants_logs() {
            context.env.zilliqa.watch();
        }
        self.topics |= topic.bit();
        self.leaving &= !topic.bit();
        Ok(())
    }

    fn watched(&mut self, topic: QueryTopic) -> Option<&mut Watched> {
        let [events, payments] = self.watched.as_deref_mut()?;
        match topic {
            QueryTopic::NewBlock => None,
            QueryTopic::EventLog => Some(events),
            QueryTopic::TxnLog => Some(payments),
        }
    }

    fn wants_logs(&self) -> bool {
        self.topics & !QueryTopic::NewBlock.bit() != 0
    }

    /// Sends a reply, or holds it back until the connection is subscribed to the channel. The reply
    /// to a successful query is the query's own text.
    fn answer(&mut self, context: &mut DialectContext<'_>, text: &[u8]) {
        let Some(early) = &mut self.early else { return context.send_text(text) };
        if early.0.iter().map(|it| it.len()).sum::<usize>() + text.len() > EARLY_BYTES {
            let reason = "too much was asked before the subscription stood";
            return context.close(Closing::new(close::POLICY, reason));
        }
        early.0.push(text.into());
    }

    fn error(&mut self, context: &mut DialectContext<'_>, text: &str) {
        let text = words::error(context.env.config.zilliqa.error_format, text);
        self.answer(context, &text);
    }

    /// Sends the client's notification of an epoch.
    fn notify(&mut self, context: &mut DialectContext<'_>, epoch: &Arc<Epoch>) {
        let core_state = &mut context.core_state.zilliqa;
        if self.topics == 0 || !core_state.turn_to(epoch) {
            return;
        }
        if !std::mem::take(&mut self.is_behind) {
            self.dropped = 0;
        }
        let (events, payments) = match self.watched.as_deref_mut() {
            Some([events, payments]) => (events.now.as_mut(), payments.now.as_mut()),
            None => (None, None),
        };
        let key = NotificationKey {
            topics: self.topics,
            leaving: self.leaving,
            events: events.map_or(0, |set| core_state.events_of(set)),
            payments: payments.map_or(0, |set| core_state.payments_of(set)),
        };
        if let Some(frames) = core_state.notification(key, &context.env.config.zilliqa) {
            context.shared.extend(frames.iter().cloned());
        }
        let wanted_logs = self.wants_logs();
        for topic in [QueryTopic::EventLog, QueryTopic::TxnLog] {
            let ends = self.leaving & topic.bit() != 0;
            if let Some(watched) = self.watched(topic) {
                watched.advance(ends);
            }
        }
        self.topics &= !self.leaving;
        self.leaving = 0;
        if wanted_logs && !self.wants_logs() {
            context.env.zilliqa.unwatch();
        }
    }
}
