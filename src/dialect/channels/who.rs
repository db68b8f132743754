//! The part of a connection's state that most clients do not have: who the client is.

use super::super::effects::Effect;
use super::positions::Resuming;
use super::publisher::Publisher;
use std::collections::HashMap;

/// The part of a connection's state that most clients do not have.
#[derive(Debug, Default)]
pub(super) struct Who {
    pub(super) user: Option<User>,
    /// The client's user id in each presence channel.
    pub(super) present: HashMap<String, String>,
    /// The presence channels whose first join is not answered yet, and how often the client has
    /// subscribed again meanwhile.
    pub(super) joining: HashMap<String, u16>,
    /// The private and presence channels that the client has joined; kept only if the vendor infers
    /// the channel of client events.
    pub(super) closed: Vec<String>,
    /// The presence channels whose roster queries are pending, by the query's number.
    pub(super) asked: HashMap<u16, String>,
    pub(super) questions: u16,
    pub(super) silence: Option<Silence>,
    /// The positions of the client, if it receives positions.
    pub(super) resuming: Option<Box<Resuming>>,
    /// Whether the client only receives, by server-sent events.
    pub(super) listens: bool,
    /// The state of a publisher, if the connection has authenticated as one.
    pub(super) publisher: Option<Box<Publisher>>,
    /// Set if the connection is not admitted yet.
    pub(super) waiting: Option<Box<WaitingForRoom>>,
}

/// A connection that is open and does not count yet.
#[derive(Debug)]
pub(super) struct WaitingForRoom {
    /// When it has begun to wait, in milliseconds.
    pub(super) since_ms: u64,
    /// Whether it was refused, so that it waits no more.
    pub(super) is_refused: bool,
    /// What it requests when it is admitted.
    pub(super) joins: Vec<Effect>,
}

/// The inactivity timeout of a client without pings: the second of its last message, and the
/// longest allowed silence in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub(super) since_s: u32,
    pub(super) max_s: u32,
}

/// A user who has signed in on this connection.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: String,
    /// The `user_info` of the sign-in, as unchanged JSON.
    pub(super) info: Option<String>,
    /// Whether the client has requested a subscription to the user's channel, and whether that was
    /// acknowledged.
    pub(super) asked: bool,
    pub(super) status_reported: bool,
    /// The number of internal subscriptions, which the client has not requested itself.
    pub(super) hidden: usize,
    /// The watchlist's first statuses, while some of them are missing.
    pub(super) gathering: Option<Box<Gathering>>,
}

/// The first statuses of a watchlist, which are collected so that the watcher gets them in one
/// message.
#[derive(Debug)]
pub(super) struct Gathering {
    /// The users in the order of the list, and whether each is online; `None` if not known yet.
    pub(super) users: Vec<(String, Option<bool>)>,
}

impl Gathering {
    /// Notes the status of a user of the list.
    pub(super) fn note(&mut self, user: &str, online: bool) {
        if let Some((_, known)) = self.users.iter_mut().find(|(other, _)| other == user) {
            *known = Some(online);
        }
    }
}

/// A user as described by `channel_data` or by a sign-in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UserIdentity {
    pub(super) id: String,
    pub(super) info: Option<String>,
}
