//! Messages between the dialects of connections, on any core, and the hub's types with them.

use super::zenith::messages::ZenithMessage;
use super::zilliqa::ZilliqaMessage;
use crate::hub;
use std::sync::Arc;

/// A message from a dialect to the same dialect of other connections. Copies share their content,
/// because an event is copied into the mail of every core.
#[derive(Clone, Debug)]
pub enum DialectMessage {
    /// Of Pusher and Broadcastt.
    Channels(Arc<UserStatus>),
    /// Of Zenith.
    Zenith(Arc<ZenithMessage>),
    /// Of Zilliqa.
    Zilliqa(ZilliqaMessage),
}

/// The new status of a user, for the connections that watch it.
#[derive(Debug)]
pub struct UserStatus {
    /// The user's id.
    pub id: String,
    /// Whether the user has a connection.
    pub online: bool,
}

impl From<ZenithMessage> for DialectMessage {
    fn from(message: ZenithMessage) -> DialectMessage {
        DialectMessage::Zenith(Arc::new(message))
    }
}

impl From<Arc<ZenithMessage>> for DialectMessage {
    fn from(message: Arc<ZenithMessage>) -> DialectMessage {
        DialectMessage::Zenith(message)
    }
}

impl From<ZilliqaMessage> for DialectMessage {
    fn from(message: ZilliqaMessage) -> DialectMessage {
        DialectMessage::Zilliqa(message)
    }
}

/// The channels of one core.
pub type Hub = hub::Hub<DialectMessage>;
/// A published event.
pub type Event = hub::Event<DialectMessage>;
/// What the subscribers of a channel receive.
pub type EventPayload = hub::EventPayload<DialectMessage>;
/// An event that waits to be taken into the log of the cluster.
pub type Proposal = hub::Proposal<DialectMessage>;
/// What a core sends to the other process of an upgrade.
pub type RelayDeparture = hub::RelayDeparture<DialectMessage>;
/// A state that waits to be taken into the log of the cluster.
pub type StateProposal = hub::StateProposal<DialectMessage>;
/// A connection that joins a channel.
pub type Join<'n> = hub::Join<'n, DialectMessage>;
/// What a joining connection requests from the home.
pub type JoinRequest = hub::JoinRequest<DialectMessage>;
/// A user who joins a channel with members.
pub type Member = hub::Member<DialectMessage>;
/// How the other members learn that a member was added or removed.
pub type MemberChange = hub::MemberChange<DialectMessage>;
/// Mail of one core to the others that is not in their mailboxes yet.
pub type OutgoingMail = hub::OutgoingMail<DialectMessage>;
/// A message to the home of a channel.
pub type Up = hub::Up<DialectMessage>;
/// A message from the home of a channel.
pub type Down = hub::Down<DialectMessage>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialect_message_is_two_words_because_it_is_in_every_event() {
        assert_eq!(size_of::<DialectMessage>(), 2 * size_of::<usize>());
    }
}
