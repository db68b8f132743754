//! The Zilliqa WebSocket Server protocol: clients subscribe to new blocks, to the events of
//! contracts and to the transactions of accounts, and get one message in each epoch.
//! <https://dev.zilliqa.com/docs/dev/dev-tools-websockets/>

pub mod address;
mod compose;
mod curve;
pub mod epoch;
mod frames;
mod history;
mod ingest;
mod log;
mod messages;
mod notifications;
mod query;
mod resume;
mod sets;
mod shared;
mod words;

pub use log::{LoggedEpoch, epoch_from_log, logged_epoch};
pub use messages::{ContractReply, ZilliqaMessage, epoch_of};
pub use notifications::NotificationCache;
pub use query::{ClientQuery, QueryTopic, SubscriptionQuery, read};
pub use shared::{APP, CHANNEL, EpochRange, EpochRejected, Question, Shared};

use super::{
    Answered, Closing, ConnectionEnd, Dialect, DialectApi, DialectContext, DialectEvent,
    DialectPolicy, Effect, Env, Heartbeat, Opening, Rejection, Why,
};
use crate::config::{Contracts, SlowConsumer};
use crate::dialect::DialectMessage;
use crate::http;
use crate::hub::Form;
use crate::ws::{self, close};
use compose::NotificationKey;
use epoch::Epoch;
use query::Named;
use resume::{ReplayRequest, Replayed};
use sets::{HeldAddresses, Set};
use std::rc::Rc;
use std::sync::Arc;

/// The maximum size in bytes of the replies held back for a client whose subscription to the
/// channel is pending.
const EARLY_BYTES: usize = 256 * 1024;
/// The maximum number of replays that wait with them: two for each topic.
const EARLY_REPLAYS: usize = 6;
const EARLY: &str = "too much was asked before the subscription stood";

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
    /// The epochs that were replayed, until a later one has arrived.
    replayed: Option<Box<Replayed>>,
}

/// Replies that are held back. Boxed, because hardly any connection has them.
#[derive(Debug, Default)]
struct Early(Vec<EarlyReply>);

/// A reply that is held back.
#[derive(Debug)]
enum EarlyReply {
    /// A message.
    Text(Box<[u8]>),
    /// The epochs after one that the client knows.
    Replay(ReplayRequest),
}

/// What has become of a query.
enum QueryStep {
    /// It was executed. The epochs follow that it requests.
    Done(Option<ReplayRequest>),
    /// Its addresses are being looked up.
    Asked,
}

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
            Ok(QueryStep::Done(replay)) => self.answer(context, payload, replay),
            Ok(QueryStep::Asked) => {}
            Err(text) => self.error(context, text),
        }
    }

    fn on(&mut self, context: &mut DialectContext<'_>, event: DialectEvent<'_>) {
        match event {
            DialectEvent::Joined { .. } => {
                for reply in self.early.take().into_iter().flat_map(|early| early.0) {
                    match reply {
                        EarlyReply::Text(text) => context.send_text(&text),
                        EarlyReply::Replay(_) if context.closing.is_some() => {}
                        EarlyReply::Replay(request) => self.replay(context, request),
                    }
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
                Why::Gap => words::MISSING,
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
    fn subprotocol<'a>(env: &Env, _opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        env.check_joined().map(|()| None)
    }

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
            ZilliqaMessage::Begin(_) => {}
            ZilliqaMessage::Contracts(reply) => self.on_contracts(context, reply),
        }
    }

    /// Executes the query whose contracts were looked up.
    fn on_contracts(&mut self, context: &mut DialectContext<'_>, reply: &ContractReply) {
        let named = reply.named.clone();
        match self.watch(context, QueryTopic::EventLog, named, reply.after) {
            Ok(replay) => self.answer(context, &reply.text, replay),
            Err(text) => self.error(context, text),
        }
    }

    /// Executes a query.
    fn look_up(
        &mut self,
        context: &DialectContext<'_>,
        text: &[u8],
        ClientQuery { subscription, after }: ClientQuery,
    ) -> Result<QueryStep, &'static str> {
        let replay = match subscription {
            SubscriptionQuery::NewBlock => {
                let (topic, named) = (QueryTopic::NewBlock, Vec::new());
                self.topics |= topic.bit();
                self.leaving &= !topic.bit();
                // Without addresses, nothing is added to a subscription that exists.
                after.map(|after| ReplayRequest { topic, named, after, is_added: false })
            }
            SubscriptionQuery::Unsubscribe(topic) => {
                self.leaving |= self.topics & topic.bit();
                if let Some(watched) = self.watched(topic) {
                    watched.next = None;
                }
                None
            }
            SubscriptionQuery::Addresses(QueryTopic::EventLog, mut named) => {
                match &context.env.config.zilliqa.contracts {
                    Contracts::Any => {}
                    Contracts::List(list) => {
                        named.retain(|(address, _)| list.binary_search(address).is_ok());
                    }
                    Contracts::Node => {
                        let question = Question::new(context.conn, text, named, after);
                        let asked = context.env.zilliqa.enqueue(question);
                        return if asked { Ok(QueryStep::Asked) } else { Err(words::NO_CONTRACT) };
                    }
                }
                self.watch(context, QueryTopic::EventLog, named, after)?
            }
            SubscriptionQuery::Addresses(topic, named) => {
                self.watch(context, topic, named, after)?
            }
        };
        Ok(QueryStep::Done(replay))
    }

    /// Subscribes to a topic at these addresses. Returns the request for the epochs after the one
    /// that the client knows.
    fn watch(
        &mut self,
        context: &DialectContext<'_>,
        topic: QueryTopic,
        named: Vec<Named>,
        after: Option<u64>,
    ) -> Result<Option<ReplayRequest>, &'static str> {
        if named.is_empty() {
            return Err(words::NO_CONTRACT);
        }
        let section = &context.env.config.zilliqa;
        let (max, held) = (section.addresses_per_connection, &context.core_state.zilliqa.held);
        let free = section.addresses_per_core.saturating_sub(held.get());
        let replaces = self.leaving & topic.bit() != 0;
        self.watched.get_or_insert_default();
        let Some(watched) = self.watched(topic) else { return Err(words::ADDRESSES) };
        if !watched.fits(&named, replaces, free) {
            if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core))
            {
                counters.addresses_refused.add(1);
            }
            return Err(words::ADDRESSES);
        }
        let added = watched.add(&named, replaces, max, held);
        if !added {
            return Err(words::ADDRESSES);
        }
        if !self.wants_logs() {
            context.env.zilliqa.watch();
        }
        let is_added = self.topics & topic.bit() != 0;
        self.topics |= topic.bit();
        self.leaving &= !topic.bit();
        Ok(after.map(|after| ReplayRequest { topic, named, after, is_added }))
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

    /// Sends the reply to a successful query, which is the query's own text, and then the epochs
    /// that the client requests.
    fn answer(
        &mut self,
        context: &mut DialectContext<'_>,
        text: &[u8],
        replay: Option<ReplayRequest>,
    ) {
        self.send(context, text);
        if let Some(request) = replay {
            self.replay(context, request);
        }
    }

    /// Sends the epochs that a query requests, or holds that back as the replies.
    fn replay(&mut self, context: &mut DialectContext<'_>, request: ReplayRequest) {
        if let Some(early) = &mut self.early {
            let replays = early.0.iter().filter(|it| matches!(it, EarlyReply::Replay(_)));
            if replays.count() >= EARLY_REPLAYS {
                return context.close(Closing::new(close::POLICY, EARLY));
            }
            return early.0.push(EarlyReply::Replay(request));
        }
        let mut replayed = self.replayed.take();
        let watched = self.watched(request.topic).and_then(|watched| watched.now.as_ref());
        let all = || watched.map_or(Vec::new(), |set| set.named());
        resume::replay(context, &request, &mut replayed, &all);
        self.replayed = replayed;
    }

    /// Sends a reply, or holds it back until the connection is subscribed to the channel.
    fn send(&mut self, context: &mut DialectContext<'_>, text: &[u8]) {
        let Some(early) = &mut self.early else { return context.send_text(text) };
        let waiting = early.0.iter().map(|it| match it {
            EarlyReply::Text(text) => text.len(),
            EarlyReply::Replay(_) => 0,
        });
        if waiting.sum::<usize>() + text.len() > EARLY_BYTES {
            return context.close(Closing::new(close::POLICY, EARLY));
        }
        early.0.push(EarlyReply::Text(text.into()));
    }

    fn error(&mut self, context: &mut DialectContext<'_>, text: &str) {
        let text = words::error(context.env.config.zilliqa.error_format, text);
        self.send(context, &text);
    }

    /// Sends the client's notification of an epoch.
    fn notify(&mut self, context: &mut DialectContext<'_>, epoch: &Arc<Epoch>) {
        let core_state = &mut context.core_state.zilliqa;
        if self.topics == 0 || !core_state.turn_to(epoch) {
            return;
        }
        // Topics for which this epoch was replayed wait for the next one.
        let done = self.replayed.as_ref().map_or(0, |it| it.topics_of(epoch.number()));
        if done == 0 {
            self.replayed = None;
        }
        let (topics, leaving) = (self.topics & !done, self.leaving & !done);
        if topics == 0 {
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
            topics,
            leaving,
            events: events.map_or(0, |set| core_state.events_of(set)),
            payments: payments.map_or(0, |set| core_state.payments_of(set)),
        };
        if let Some(frames) = core_state.notification(key, &context.env.config.zilliqa) {
            context.shared.extend(frames.iter().cloned());
        }
        let wanted_logs = self.wants_logs();
        for topic in [QueryTopic::EventLog, QueryTopic::TxnLog] {
            let ends = leaving & topic.bit() != 0;
            if let Some(watched) = self.watched(topic).filter(|_| topics & topic.bit() != 0) {
                watched.advance(ends);
            }
        }
        self.topics &= !leaving;
        self.leaving &= done;
        if wanted_logs && !self.wants_logs() {
            context.env.zilliqa.unwatch();
        }
    }
}
