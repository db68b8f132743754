//! The notifications of one core for the current epoch: each distinct notification is composed once
//! and sent to all connections that need the same.

use super::address::Address;
use super::epoch::Epoch;
use super::frames::Composer;
use super::sets::{Cases, HeldAddresses, Registry, Set};
use super::words;
use crate::config::Zilliqa;
use crate::hub::DialectMessage;
use crate::mem::{Frozen, Handle};
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
    parts: Parts,
    sent: HashMap<NotificationKey, Option<Rc<[Handle]>>, ahash::RandomState>,
}

/// Everything that a notification of an epoch depends on. Connections with equal keys get the same
/// notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NotificationKey {
    /// The subscribed topics, as a set of bits.
    pub(super) topics: u8,
    /// The topics among them that were unsubscribed, and are therefore sent for the last time.
    pub(super) leaving: u8,
    /// The numbers of the lists of events and of transactions; 0 is an empty list.
    pub(super) events: u32,
    pub(super) payments: u32,
}

/// This core's handles to the bytes that notifications have in common.
#[derive(Debug, Default)]
struct Parts {
    new_block: Vec<Handle>,
    event_logs: HashMap<u32, Vec<Handle>, ahash::RandomState>,
}

/// What a notification is composed from.
pub(super) struct Lists<'d> {
    events: &'d Registry,
    payments: &'d Registry,
    parts: &'d mut Parts,
    fragment_bytes: usize,
}

impl NotificationCache {
    /// Makes `epoch` the current epoch. Returns false if its number is not above that of the last
    /// one.
    pub(super) fn turn_to(&mut self, message: &DialectMessage, epoch: &Epoch) -> bool {
        if self.current.as_ref().is_some_and(|current| std::ptr::eq(&raw const **current, epoch)) {
            return true;
        }
        if self.last.is_some_and(|last| last >= epoch.number()) {
            return false;
        }
        self.rest();
        let Ok(epoch) = message.clone().downcast::<Epoch>() else { return false };
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
        self.current = Some(epoch);
        true
    }

    /// Drops the current epoch with its notifications, after every connection has been notified.
    pub fn rest(&mut self) {
        if self.current.take().is_none() {
            return;
        }
        self.parts = Parts::default();
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
        let made = words::is_notified(config, key).then(|| {
            let mut lists = Lists {
                events: &self.events,
                payments: &self.payments,
                parts: &mut self.parts,
                fragment_bytes: config.fragment_bytes,
            };
            let mut out = Composer::new(config.fragment_bytes);
            words::notify(&mut out, epoch, key, &mut lists, config);
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

impl Lists<'_> {
    pub(super) fn new_block(&mut self, epoch: &Epoch) -> &[Handle] {
        if self.parts.new_block.is_empty() {
            self.parts.new_block = handles(epoch.new_block(self.fragment_bytes));
        }
        &self.parts.new_block
    }

    pub(super) fn event_logs(&mut self, epoch: &Epoch, emitter: u32) -> &[Handle] {
        self.parts.event_logs.entry(emitter).or_insert_with(|| {
            let contract = epoch.emitters().get(emitter as usize);
            contract.map_or(Vec::new(), |it| handles(epoch.event_logs(it, self.fragment_bytes)))
        })
    }

    pub(super) fn events(&self, list: u32) -> Rc<[u32]> {
        self.events.of(list).map_or_else(Rc::default, |(list, _)| list.clone())
    }

    pub(super) fn payments(&self, list: u32) -> Rc<[u32]> {
        self.payments.of(list).map_or_else(Rc::default, |(list, _)| list.clone())
    }

    pub(super) fn event_case(&self, list: u32, address: &Address) -> u64 {
        self.events.of(list).map_or(0, |(_, set)| set.case(address))
    }

    pub(super) fn payment_case(&self, list: u32, address: &Address) -> u64 {
        self.payments.of(list).map_or(0, |(_, set)| set.case(address))
    }
}

fn handles(part: &[Frozen]) -> Vec<Handle> {
    part.iter().cloned().map(Handle::new).collect()
}
