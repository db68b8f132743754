//! Clients that continue after an epoch that they know, by `"after":"BLOCKNUM"` in a query: they
//! get the later epochs that are kept, and then live ones, each once and in ascending order.
//!
//! An epoch is kept as soon as it is accepted, so one that is replayed may still be on its way to
//! this core. When it arrives, a connection leaves out the topics that it has been sent already.

use super::epoch::Epoch;
use super::notifications::NotificationCache;
use super::query::{Named, QueryTopic};
use super::sets::{HeldAddresses, Set};
use super::words;
use crate::config::Zilliqa;
use crate::dialect::{Closing, DialectContext};
use crate::hub::ResumeOutcome;
use crate::limits::REPLAY_BYTES;
use crate::mem::Handle;
use crate::work::{self, WorkKind};
use crate::ws::close;
use std::rc::Rc;
use std::sync::Arc;

/// A request for the epochs after one that the client knows.
#[derive(Debug)]
pub(super) struct ReplayRequest {
    pub(super) topic: QueryTopic,
    /// The addresses of the query.
    pub(super) named: Vec<Named>,
    /// The number of the epoch that the client knows.
    pub(super) after: u64,
    /// Whether the topic was subscribed before, at these or other addresses.
    pub(super) is_added: bool,
}

/// The number of the last epoch that was replayed for each topic.
#[derive(Debug, Default)]
pub(super) struct Replayed([Option<u64>; QueryTopic::ALL.len()]);

impl Replayed {
    /// The topics for which epoch `number` was replayed, as a set of [`QueryTopic::bit`].
    pub(super) fn topics_of(&self, number: u64) -> u8 {
        let has = |topic: &QueryTopic| self.last(*topic).is_some_and(|last| last >= number);
        QueryTopic::ALL.into_iter().filter(has).fold(0, |topics, topic| topics | topic.bit())
    }

    fn last(&self, topic: QueryTopic) -> Option<u64> {
        self.0[topic as usize]
    }
}

/// Composes the notifications of one topic for a client that is the only one to get them.
struct Composition {
    cache: NotificationCache,
    topic: QueryTopic,
    set: Option<Rc<Set>>,
}

impl Composition {
    fn new(topic: QueryTopic, named: &[Named]) -> Composition {
        let mut set = None;
        if !named.is_empty() {
            Set::add(&mut set, named, &HeldAddresses::default());
        }
        Composition { cache: NotificationCache::default(), topic, set }
    }

    /// The frames of the notification of an epoch; `None` if the client gets none.
    fn notification(&mut self, epoch: &Arc<Epoch>, config: &Zilliqa) -> Option<Rc<[Handle]>> {
        self.cache.turn_to(epoch);
        let key = self.cache.key_of(self.topic, self.set.as_mut());
        self.cache.notification(key, config)
    }
}

/// Sends the epochs after the one that the client knows, or closes the connection if the client
/// would miss one. `all` returns the addresses of the topic, those of this query included.
pub(super) fn replay(
    context: &mut DialectContext<'_>,
    request: &ReplayRequest,
    replayed: &mut Option<Box<Replayed>>,
    all: &dyn Fn() -> Vec<Named>,
) {
    let wants_logs = request.topic != QueryTopic::NewBlock;
    let outcome = match context.env.zilliqa.epochs_after(request.after, wants_logs) {
        Ok(epochs) => send_epochs(context, request, &epochs, replayed, all),
        Err(outcome) => outcome,
    };
    if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core)) {
        match outcome {
            ResumeOutcome::Future => counters.history_future.add(1),
            ResumeOutcome::Expired => counters.history_expired.add(1),
            ResumeOutcome::TooLarge => counters.history_too_large.add(1),
            _ => counters.history_recovered.add(1),
        }
    }
    if outcome.is_gap() {
        context.close(Closing::new(close::GOING_AWAY, words::MISSING));
    }
}

fn send_epochs(
    context: &mut DialectContext<'_>,
    request: &ReplayRequest,
    epochs: &[Arc<Epoch>],
    replayed: &mut Option<Box<Replayed>>,
    all: &dyn Fn() -> Vec<Named>,
) -> ResumeOutcome {
    let config = &context.env.config.zilliqa;
    let topic = request.topic;
    let delivered = context.core_state.zilliqa.last();
    let delivered = delivered.max(replayed.as_ref().and_then(|it| it.last(topic)));
    let mut of_query = Composition::new(topic, &request.named);
    let mut of_topic = None;
    for epoch in epochs {
        let number = epoch.number();
        // The topic's other addresses have not got an epoch that is on its way. They get it now,
        // because the topic is left out when that epoch arrives.
        let is_under_way = delivered.is_none_or(|last| number > last);
        let composition = match request.is_added && is_under_way {
            true => of_topic.get_or_insert_with(|| Composition::new(topic, &all())),
            false => &mut of_query,
        };
        let parts = epoch.emitters().len() + epoch.transactions().len();
        let cost = work::EFFECT + work::LISTED * parts as u64;
        context.work.charge(WorkKind::Delivery, cost);
        let Some(frames) = composition.notification(epoch, config) else { continue };
        let bytes: usize = frames.iter().map(|frame| frame.len()).sum();
        if context.out.bytes.len() + bytes > REPLAY_BYTES {
            return ResumeOutcome::TooLarge;
        }
        frames.iter().for_each(|frame| context.out.bytes.extend_from_slice(frame));
    }
    if let Some(last) = epochs.last() {
        replayed.get_or_insert_default().0[topic as usize] = Some(last.number());
    }
    ResumeOutcome::Recovered
}
