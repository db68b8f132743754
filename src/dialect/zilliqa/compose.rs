//! Composes one notification from an epoch, and what it depends on.

use super::address::{self, Address};
use super::epoch::Epoch;
use super::frames::Composer;
use super::query::QueryTopic;
use super::sets::Registry;
use crate::config::{Zilliqa, ZilliqaWire};
use crate::mem::{Frozen, Handle};
use std::collections::HashMap;
use std::rc::Rc;

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
pub(super) struct SharedParts {
    new_block: Vec<Handle>,
    event_logs: HashMap<u32, Vec<Handle>, ahash::RandomState>,
}

/// What a notification is composed from.
pub(super) struct Lists<'d> {
    pub(super) events: &'d Registry,
    pub(super) payments: &'d Registry,
    pub(super) parts: &'d mut SharedParts,
    pub(super) fragment_bytes: usize,
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

/// Whether a connection with this key gets a notification. With `suppress_empty`, or with the
/// documented wire format, the connection gets only notifications that have content.
pub(super) fn is_notified(config: &Zilliqa, key: NotificationKey) -> bool {
    let silent = config.suppress_empty || config.wire == ZilliqaWire::Documented;
    let has_news = key.topics & QueryTopic::NewBlock.bit() != 0
        || key.leaving != 0
        || (key.events, key.payments) != (0, 0);
    has_news || !silent
}

/// Composes the notification of `epoch` for connections with this key.
pub(super) fn notify(
    out: &mut Composer,
    epoch: &Epoch,
    key: NotificationKey,
    lists: &mut Lists<'_>,
    config: &Zilliqa,
) {
    let documented = config.wire == ZilliqaWire::Documented;
    out.push(match documented {
        false => br#"{"type":"Notification","values":["#,
        true => br#"{"type":"notification","values":["#,
    });
    let mut comma = Comma::default();
    if key.topics & QueryTopic::NewBlock.bit() != 0 {
        comma.push(out);
        out.share(lists.new_block(epoch));
    }
    for (topic, list) in [(QueryTopic::EventLog, key.events), (QueryTopic::TxnLog, key.payments)] {
        if key.topics & topic.bit() == 0 || documented && list == 0 {
            continue;
        }
        comma.push(out);
        out.push(br#"{"query":""#);
        out.push(topic.name().as_bytes());
        out.push(b"\"");
        if list != 0 {
            out.push(br#","value":["#);
            match topic {
                QueryTopic::EventLog => events(out, epoch, list, lists, documented),
                _ => payments(out, epoch, list, lists, documented),
            }
            out.push(b"]");
        }
        out.push(b"}");
    }
    if key.leaving != 0 {
        comma.push(out);
        out.push(br#"{"query":"Unsubscribe","value":["#);
        let mut comma = Comma::default();
        for topic in QueryTopic::ALL.iter().filter(|topic| key.leaving & topic.bit() != 0) {
            comma.push(out);
            out.push(format!("\"{}\"", topic.name()).as_bytes());
        }
        out.push(b"]}");
    }
    out.push(b"]}");
}

fn events(out: &mut Composer, epoch: &Epoch, list: u32, lists: &mut Lists<'_>, prefix: bool) {
    let mut comma = Comma::default();
    for emitter in lists.events(list).iter() {
        let Some(contract) = epoch.emitters().get(*emitter as usize) else { continue };
        comma.push(out);
        let case = lists.event_case(list, &contract.address);
        push_address(out, &contract.address, case, prefix);
        out.push(br#""event_logs":"#);
        out.share(lists.event_logs(epoch, *emitter));
        out.push(b"}");
    }
}

/// Appends the transactions of a list in block order, grouped by the subscribed address: the
/// receiver if the client is subscribed to it, else the sender.
fn payments(out: &mut Composer, epoch: &Epoch, list: u32, lists: &mut Lists<'_>, prefix: bool) {
    let mut order: Vec<(Address, Vec<u32>)> = Vec::new();
    let mut at: HashMap<Address, usize> = HashMap::new();
    for mark in lists.payments(list).iter() {
        let Some(transaction) = epoch.transactions().get((mark >> 1) as usize) else { continue };
        let side = if mark & 1 == 1 { *transaction.from() } else { transaction.to };
        let at = *at.entry(side).or_insert_with(|| {
            order.push((side, Vec::new()));
            order.len() - 1
        });
        order[at].1.push(mark >> 1);
    }
    let mut comma = Comma::default();
    for (address, records) in order {
        comma.push(out);
        push_address(out, &address, lists.payment_case(list, &address), prefix);
        out.push(br#""log":["#);
        let mut comma = Comma::default();
        for transaction in records {
            comma.push(out);
            out.push(epoch.record(&epoch.transactions()[transaction as usize]));
        }
        out.push(b"]}");
    }
}

fn push_address(out: &mut Composer, address: &Address, case: u64, prefix: bool) {
    out.push(if prefix { br#"{"address":"0x"# } else { br#"{"address":""# });
    out.push(&address::spelt(address, case));
    out.push(br#"","#);
}

/// Writes the commas between the elements of a list.
#[derive(Default)]
struct Comma(bool);

impl Comma {
    fn push(&mut self, out: &mut Composer) {
        if std::mem::replace(&mut self.0, true) {
            out.push(b",");
        }
    }
}
