//! The Zilliqa WebSocket Server: clients subscribe to new blocks, to the events of contracts and to
//! the transactions of accounts, and get one message in each epoch.
//! <https://dev.zilliqa.com/docs/dev/dev-tools-websockets/>

pub mod address;
mod desk;
pub mod epoch;
mod frames;
mod ingest;
mod query;
mod sets;
mod shared;
mod words;

pub use desk::Desk;
pub use query::{Query, Topic, read};
pub use shared::{NotTaken, Passage, Question, Shared};

use super::{
    Action, Answered, Closing, Context, Dialect, Env, Heartbeat, JoinOutcome, Opening, Why,
};
use crate::config::{Contracts, SlowConsumer};
use crate::http;
use crate::hub::Told;
use crate::ws::{self, close};
use desk::Key;
use epoch::Epoch;
use query::Named;
use sets::Set;
use shared::Verdict;
use std::rc::Rc;

/// The number of the application under which epochs are published: none that is configured has it.
pub const APP: u32 = u32::MAX - 1;
/// The channel on which epochs are published; every connection of this dialect is subscribed to it.
pub const CHANNEL: &str = "epochs";

/// Bytes of answers to a client that is not subscribed to the channel yet.
const EARLY_BYTES: usize = 256 * 1024;

/// One client.
#[derive(Debug, Default)]
pub struct Connection {
    /// Topics, by their bits.
    topics: u8,
    /// Those of them that it has unsubscribed since the last epoch.
    leaving: u8,
    /// Notifications that were dropped in a row, and whether the last one was.
    dropped: u16,
    is_behind: bool,
    /// Of events and of transactions; most clients have none.
    watched: Option<Box<[Watched; 2]>>,
    /// Answers from before it hears of epochs; `None` from then on.
    early: Option<Box<Early>>,
}

/// Answers that wait. In a box, since hardly any connection has one.
#[derive(Debug, Default)]
struct Early(Vec<Box<[u8]>>);

/// The addresses of one topic.
#[derive(Debug, Default)]
struct Watched {
    now: Option<Rc<Set>>,
    /// What takes the place of those with the next epoch: the topic was unsubscribed and subscribed
    /// again.
    next: Option<Rc<Set>>,
}

impl Watched {
    /// Adds addresses; false if there would be more than `most`.
    fn add(&mut self, named: &[Named], anew: bool, most: usize) -> bool {
        let has = |address| self.now.as_ref().is_some_and(|set| set.has(address));
        let len = self.now.as_ref().map_or(0, |set| set.len());
        if len + named.len() > most {
            let more = named.iter().map(|(address, _)| address).filter(|address| !has(address));
            if len + more.collect::<std::collections::HashSet<_>>().len() > most {
                return false;
            }
        }
        if anew || self.next.is_some() {
            Set::add(&mut self.next, named);
        }
        Set::add(&mut self.now, named);
        true
    }

    /// An epoch was told; `ends` if it was the last one.
    fn advance(&mut self, ends: bool) {
        let next = self.next.take();
        if ends || next.is_some() {
            self.now = next.filter(|_| !ends);
        }
    }
}

impl Dialect for Connection {
    fn open(context: &mut Context<'_>, _opening: &Opening<'_>) -> Option<Connection> {
        if context.draining {
            context.close(Connection::closing(Why::Draining));
            return None;
        }
        let (app, name) = (APP, CHANNEL.to_owned());
        context.actions.push(Action::Join { app, name, most: usize::MAX, wish: None });
        Some(Connection { early: Some(Box::default()), ..Connection::default() })
    }

    fn message(&mut self, context: &mut Context<'_>, _kind: ws::Kind, payload: &mut [u8]) {
        if payload.is_empty() {
            return;
        }
        let section = &context.env.config.zilliqa;
        let query = str::from_utf8(payload).map_err(|_| words::QUERY);
        let done = match query.and_then(|text| read(text, section.wire)) {
            Ok(query) => self.ask(context, payload, query),
            Err(text) => Err(text),
        };
        match done {
            Ok(true) => self.answer(context, payload),
            Ok(false) => {}
            Err(text) => self.error(context, text),
        }
    }

    fn joined(&mut self, context: &mut Context<'_>, _name: &str, _outcome: JoinOutcome) {
        for text in self.early.take().into_iter().flat_map(|early| early.0) {
            context.send_text(&text);
        }
    }

    fn not_subscribed(&mut self, _context: &mut Context<'_>, _name: &str) {}

    fn told(&mut self, context: &mut Context<'_>, what: &Told) {
        if let Some(epoch) = what.downcast_ref::<Epoch>() {
            self.notify(context, what, epoch);
        } else if let Some(verdict) = what.downcast_ref::<Verdict>() {
            let watched = self.watch(context, Topic::EventLog, &verdict.named);
            match watched {
                Ok(()) => self.answer(context, &verdict.text),
                Err(text) => self.error(context, text),
            }
        }
    }

    fn nudge(&mut self, _context: &mut Context<'_>) {}

    fn renewed(&mut self, _context: &mut Context<'_>) {}

    fn closing(why: Why) -> Closing {
        // 1000 would make clients stay away.
        Closing::new(
            close::GOING_AWAY,
            match why {
                Why::Silent => "no sign of life",
                Why::Draining => "the server is shutting down",
                Why::Slow => "the client does not read what it is sent",
            },
        )
    }

    fn gone(&mut self, env: &Env) {
        if self.wants_logs() {
            env.zilliqa.unwatch();
        }
    }

    fn limits(&self, env: &Env) -> ws::Limits {
        let limits = &env.config.limits;
        let most = env.config.zilliqa.message_bytes.min(limits.message_bytes);
        ws::Limits {
            frame_bytes: most.min(limits.frame_bytes),
            message_bytes: most,
            fragments: limits.fragments,
            allow_rsv1: false,
        }
    }

    fn heartbeat(&self, env: &Env) -> Heartbeat {
        let section = &env.config.zilliqa;
        let silence_ms = section.ping_after_s * 1000;
        Heartbeat { silence_ms, answer_ms: section.idle_timeout_s * 1000 - silence_ms }
    }

    fn queue_bytes(&self, env: &Env) -> usize {
        env.config.zilliqa.queue_bytes
    }

    fn overrun(&mut self, env: &Env) -> SlowConsumer {
        self.is_behind = true;
        self.dropped = self.dropped.saturating_add(1);
        match self.dropped > env.config.zilliqa.dropped_in_a_row {
            true => SlowConsumer::Close,
            false => SlowConsumer::Drop,
        }
    }

    fn request(
        context: &mut Context<'_>,
        _app: u32,
        _path: &str,
        request: &mut http::Request<'_>,
    ) -> Answered {
        ingest::answer(context, request)
    }
}

impl Connection {
    /// Does what was asked for; false if the answer comes later.
    fn ask(
        &mut self,
        context: &Context<'_>,
        text: &[u8],
        query: Query,
    ) -> Result<bool, &'static str> {
        match query {
            Query::NewBlock => {
                self.topics |= Topic::NewBlock.bit();
                self.leaving &= !Topic::NewBlock.bit();
            }
            Query::Unsubscribe(topic) => {
                self.leaving |= self.topics & topic.bit();
                if let Some(watched) = self.watched(topic) {
                    watched.next = None;
                }
            }
            Query::Addresses(Topic::EventLog, mut named) => {
                match &context.env.config.zilliqa.contracts {
                    Contracts::Any => {}
                    Contracts::List(list) => {
                        named.retain(|(address, _)| list.binary_search(address).is_ok());
                    }
                    Contracts::Node => {
                        let question = Question::new(context.conn, text, named);
                        let asked = context.env.zilliqa.ask(question);
                        return if asked { Ok(false) } else { Err(words::NO_CONTRACT) };
                    }
                }
                self.watch(context, Topic::EventLog, &named)?;
            }
            Query::Addresses(topic, named) => self.watch(context, topic, &named)?,
        }
        Ok(true)
    }

    /// Subscribes to a topic at addresses.
    fn watch(
        &mut self,
        context: &Context<'_>,
        topic: Topic,
        named: &[Named],
    ) -> Result<(), &'static str> {
        if named.is_empty() {
            return Err(words::NO_CONTRACT);
        }
        let most = context.env.config.zilliqa.addresses_per_connection;
        let anew = self.leaving & topic.bit() != 0;
        self.watched.get_or_insert_default();
        let added = self.watched(topic).is_some_and(|it| it.add(named, anew, most));
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

    fn watched(&mut self, topic: Topic) -> Option<&mut Watched> {
        let [events, payments] = self.watched.as_deref_mut()?;
        match topic {
            Topic::NewBlock => None,
            Topic::EventLog => Some(events),
            Topic::TxnLog => Some(payments),
        }
    }

    fn wants_logs(&self) -> bool {
        self.topics & !Topic::NewBlock.bit() != 0
    }

    /// Sends an answer, which is the client's own words where it is no error.
    fn answer(&mut self, context: &mut Context<'_>, text: &[u8]) {
        let Some(early) = &mut self.early else { return context.send_text(text) };
        if early.0.iter().map(|it| it.len()).sum::<usize>() + text.len() > EARLY_BYTES {
            let reason = "too much was asked before the subscription stood";
            return context.close(Closing::new(close::POLICY, reason));
        }
        early.0.push(text.into());
    }

    fn error(&mut self, context: &mut Context<'_>, text: &str) {
        let text = words::error(context.env.config.zilliqa.error_format, text);
        self.answer(context, &text);
    }

    /// Tells the client of an epoch.
    fn notify(&mut self, context: &mut Context<'_>, told: &Told, epoch: &Epoch) {
        let desk = &mut context.desk.zilliqa;
        if self.topics == 0 || !desk.turn_to(told, epoch) {
            return;
        }
        if !std::mem::take(&mut self.is_behind) {
            self.dropped = 0;
        }
        let (events, payments) = match self.watched.as_deref_mut() {
            Some([events, payments]) => (events.now.as_mut(), payments.now.as_mut()),
            None => (None, None),
        };
        let key = Key {
            topics: self.topics,
            leaving: self.leaving,
            events: events.map_or(0, |set| desk.events_of(set)),
            payments: payments.map_or(0, |set| desk.payments_of(set)),
        };
        if let Some(frames) = desk.notification(key, &context.env.config.zilliqa) {
            context.shared.extend(frames.iter().cloned());
        }
        let wanted_logs = self.wants_logs();
        for topic in [Topic::EventLog, Topic::TxnLog] {
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
