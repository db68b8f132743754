//! The texts and messages that the server sends to clients.

use super::address::{self, Address};
use super::epoch::Epoch;
use super::frames::Composer;
use super::notifications::{Lists, NotificationKey};
use super::query::QueryTopic;
use crate::codec::json::push_string;
use crate::config::{Zilliqa, ZilliqaErrors, ZilliqaWire};
use std::collections::HashMap;

pub(super) const QUERY: &str = "invalid query field";
pub(super) const ADDRESSES: &str = "invalid addresses field";
/// The error for a malformed contract address.
pub(super) const EVENT_HEX: &str = "Invalid hex address";
/// The error for a malformed account address.
pub(super) const PAYMENT_HEX: &str = "invalid hex address";
pub(super) const ADDRESS: &str = "invalid address";
pub(super) const NO_CONTRACT: &str = "no contract found in list";
pub(super) const TYPE: &str = "invalid type field";

/// An error message. It must not have a member `query`, because clients would treat it as a
/// success.
pub(super) fn error(format: ZilliqaErrors, text: &str) -> Vec<u8> {
    match format {
        ZilliqaErrors::Text => text.as_bytes().to_vec(),
        ZilliqaErrors::Object => {
            let mut out = br#"{"type":"Error","error":"#.to_vec();
            push_string(&mut out, text);
            out.push(b'}');
            out
        }
    }
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
