//! What one core works with while it tells an epoch to its connections: who has what in common.

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

/// Messages above this are refused by the JavaScript client (`websocket` 1.0.35).
const REFUSED_BYTES: usize = 8 * 1024 * 1024;

/// Memory of one core. Between epochs it holds the sets of addresses and nothing else.
#[derive(Debug, Default)]
pub struct NotificationCache {
    current: Option<Arc<Epoch>>,
    /// The number of the last epoch that was told.
    last: Option<u64>,
    pub(super) events: Registry,
    pub(super) payments: Registry,
    /// How many addresses the sets of both hold.
    pub(super) held: HeldAddresses,
    parts: Parts,
    sent: HashMap<NotificationKey, Option<Rc<[Handle]>>, ahash::RandomState>,
}

/// All that a notification depends on: who has the same is sent the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NotificationKey {
    /// Topics, by their bits.
    pub(super) topics: u8,
    /// Those of them that are told for the last time.
    pub(super) leaving: u8,
    /// What there is for it, by the numbers of lists; 0 is nothing.
    pub(super) events: u32,
    pub(super) payments: u32,
}

/// This core's shares of what notifications have in common.
#[derive(Debug, Default)]
struct Parts {
    new_block: Vec<Handle>,
    event_logs: HashMap<u32, Vec<Handle>, ahash::RandomState>,
}

/// What a notification is written from.
pub(super) struct Lists<'d> {
    events: &'d Registry,
    payments: &'d Registry,
    parts: &'d mut Parts,
    fragment_bytes: usize,
}

impl NotificationCache {
    /// Turns to an epoch; false for one that is not above the last.
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
        // Senders' accounts take a while to compute, and mostly nobody asks.
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

    /// Every connection has been told: forgets what was made for it.
    pub fn rest(&mut self) {
        if self.current.take().is_none() {
            return;
        }
        self.parts = Parts::default();
        self.sent = HashMap::default();
        self.events.rest();
        self.payments.rest();
    }

    /// The list of the events that concern a set.
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

    /// The list of the transactions that concern a set, each doubled, and odd where the sender is
    /// in the set and the receiver is not.
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
        // Where both are in it, the receiver counts.
        self.payments.list(set, look, |marks| marks.dedup_by_key(|mark| *mark >> 1))
    }

    /// The notification of the present epoch, unless there is none.
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
