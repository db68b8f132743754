//! The keys of the queue of events: what is ordered together.

use crate::hub::CountedKind;
use std::sync::Arc;

/// A channel: the application's number and the name.
pub type ChannelKey = (u32, Arc<str>);

/// What is ordered together: the events of a channel, or one of its states.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueKey {
    /// The channel.
    pub channel: ChannelKey,
    /// The state; `None` for events.
    pub state: Option<StateSubject>,
}

/// What a state of a node in a channel is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StateSubject {
    /// The user with this id.
    Member(Arc<str>),
    /// The number of subscribers.
    Count,
    /// Which node reports that an event is not cached.
    Miss,
    /// The piece of the channel's picture with this number. It is that of all nodes.
    Picture(u32),
    /// What concerns the statement of numbers of subscribers of the application.
    Counting(CountedKind, CountingSubject),
}

/// What an entry about the statement of numbers of subscribers replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CountingSubject {
    /// The question for them, or its end.
    Question,
    /// That somebody reads them.
    Reads,
    /// That this core of the node has stated its numbers.
    Core(u16),
}

impl From<ChannelKey> for QueueKey {
    fn from(channel: ChannelKey) -> QueueKey {
        QueueKey { channel, state: None }
    }
}

impl StateSubject {
    /// The user's id; `None` for the number of subscribers.
    pub fn user(&self) -> Option<&Arc<str>> {
        match self {
            StateSubject::Member(user) => Some(user),
            _ => None,
        }
    }
}
