//! Messages to the connections of this dialect, on any core.

use super::epoch::Epoch;
use super::query::Named;
use crate::dialect::{DialectMessage, Event, EventPayload};
use std::sync::Arc;

/// A message to one connection, or to all subscribers of the epochs' channel.
#[derive(Clone, Debug)]
pub enum ZilliqaMessage {
    /// To all: a new epoch.
    Epoch(Arc<Epoch>),
    /// To none, but to the log of a cluster: the number of the epoch after which epochs are
    /// fetched from nodes.
    Begin(u64),
    /// To one: the reply to a lookup of contracts.
    Contracts(Arc<ContractReply>),
}

/// The epoch that an event publishes.
pub fn epoch_of(event: &Event) -> Option<&Arc<Epoch>> {
    match &event.payload {
        EventPayload::Message(DialectMessage::Zilliqa(ZilliqaMessage::Epoch(epoch))) => Some(epoch),
        _ => None,
    }
}

/// The reply to a [`Question`](super::Question): the client's query, and those of its addresses
/// that are contracts.
#[derive(Debug)]
pub struct ContractReply {
    /// The client's query.
    pub text: Box<[u8]>,
    /// The addresses of contracts.
    pub named: Vec<Named>,
    /// The number of the epoch after which the client requests the later ones.
    pub after: Option<u64>,
}
