//! The notifications of one core for the current epoch: each distinct notification is composed once
//! and sent to all connections that need the same.

use super::compose::{self, Lists, NotificationKey, SharedParts};
use super::epoch::Epoch;
use super::frames::Composer;
use super::query::QueryTopic;
use super::sets::{Cases, HeldAddresses, Registry, Set};
use crate::config::Zilliqa;
use crate::mem::Handle;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// The largest message in bytes that the JavaScript client accepts (`websocket` 1.0.35).
const REFUSED_BYTES: usize = 8 * 1024 * 1024;

/// The state of one core. Between epochs it holds only the sets of addresses.
#[derive(Debug, Default)]
pub struct NotificationCache {
    current: Option<Arc<Epoch>>,
    /// The number of the last epoch that was sent to connections.
    last: Option<u64>,
    pub(super) events: Registry,
    pub(super) payments: Registry,
    /// The number of addresses that the sets of both registries hold.
    pub(super) held: HeldAddresses,
    parts: SharedParts,
    sent: HashMap<NotificationKey, Option<Rc<[Handle]>>, ahash::RandomState>,
}

impl NotificationCache {
    /// Makes `epoch` the current epoch. Returns false if its number is not above that of the last
    /// one.
    pub(super) fn turn_to(&mut self, epoch: &Arc<Epoch>) -> bool {
        if self.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, epoch)) {
            return true;
        }
        if self.last.is_some_and(|last| last >= epoch.number()) {
            return false;
        }
        self.rest();
        self.last = Some(epoch.number());
        self.events.begin();
        for (at, emitter) in epoch.emitters().iter().enumerate() {
            self.events.mark(&emitter.address, at as u32);
        }
        self.payments.begin();
        // Computing the senders' accounts takes a while, so it is skipped if no client subscribes
        // to transactions.
        if !self.payments.is_empty() {
            for (at, transaction) in epoch.transactions().iter().enumerate() {
                let mark = (at as u32) << 1;
                self.payments.mark(&transaction.to, mark);
                self.payments.mark(transaction.from(), mark | 1);
            }
        }
        self.current = Some(epoch.clone());
        true
    }

    /// The number of the last epoch that was sent to connections of this core.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }

    /// The key of a notification of one topic at the addresses of `set`.
    pub(super) fn key_of(
        &mut self,
        topic: QueryTopic,
        set: Option<&mut Rc<Set>>,
    ) -> NotificationKey {
        let (events, payments) = match (topic, set) {
            (QueryTopic::EventLog, Some(set)) => (self.events_of(set), 0),
            (QueryTopic::TxnLog, Some(set)) => (0, self.payments_of(set)),
            _ => (0, 0),
        };
        NotificationKey { topics: topic.bit(), leaving: 0, events, payments }
    }

    /// Drops the current epoch with its notifications, after every connection has been notified.
    pub fn rest(&mut self) {
        if self.current.take().is_none() {
            return;
        }
        self.parts = SharedParts::default();
        self.sent = HashMap::default();
        self.events.rest();
        self.payments.rest();
    }

    /// The number of the list of the events at the addresses of a set.
    pub(super) fn events_of(&mut self, set: &mut Rc<Set>) -> u32 {
        let Some(epoch) = &self.current else { return 0 };
        let look = |own: &Cases| -> Vec<u32> {
            if own.len() < epoch.emitters().len() {
                return own.keys().filter_map(|address| epoch.emitter(address)).collect();
            }
            let emitters = epoch.emitters().iter().enumerate();
            let known = emitters.filter(|(_, emitter)| own.contains_key(&emitter.address));
            known.map(|(at, _)| at as u32).collect()
        };
        self.events.list(set, look, Vec::dedup)
    }

    /// The number of the list of the transactions at the addresses of a set. A mark in this list is
    /// twice the transaction's index, plus 1 if only the sender is in the set and not the receiver.
    pub(super) fn payments_of(&mut self, set: &mut Rc<Set>) -> u32 {
        let Some(epoch) = &self.current else { return 0 };
        let look = |own: &Cases| {
            let mut marks: Vec<u32> = Vec::new();
            if own.len() < epoch.transactions().len() {
                for address in own.keys() {
                    let (received, sent) = epoch.transactions_of(address);
                    marks.extend(received.iter().map(|at| at << 1));
                    marks.extend(sent.iter().map(|at| at << 1 | 1));
                }
                return marks;
            }
            for (at, transaction) in (0..).zip(epoch.transactions()) {
                marks.extend(own.contains_key(&transaction.to).then_some(at << 1));
                marks.extend(own.contains_key(transaction.from()).then_some(at << 1 | 1));
            }
            marks
        };
        // If both the receiver and the sender are in the set, only the receiver's mark is kept.
        self.payments.list(set, look, |marks| marks.dedup_by_key(|mark| *mark >> 1))
    }

    /// The notification of the current epoch for `key`; `None` if such connections get none.
    pub(super) fn notification(
        &mut self,
        key: NotificationKey,
        config: &Zilliqa,
    ) -> Option<Rc<[Handle]>> {
        let epoch = self.current.as_ref()?;
        if let Some(known) = self.sent.get(&key) {
            return known.clone();
        }
        let made = compose::is_notified(config, key).then(|| {
            let mut lists = Lists {
                events: &self.events,
                payments: &self.payments,
                parts: &mut self.parts,
                fragment_bytes: config.fragment_bytes,
            };
            let mut out = Composer::new(config.fragment_bytes);
            compose::notify(&mut out, epoch, key, &mut lists, config);
            if out.len() > REFUSED_BYTES {
                let (block, bytes) = (epoch.number(), out.len());
                tracing::warn!(block, bytes, "a notification is longer than clients accept");
            }
            out.finish().into()
        });
        self.sent.insert(key, made.clone());
        made
    }
}
