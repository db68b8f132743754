//! A published event: what its subscribers receive, and what the channel's home does with it.

use super::encodings::Encodings;
use super::frames::CompressedFrames;
use super::name::ConnId;
use crate::mem::Frozen;
use std::any::Any;
use std::sync::Arc;

/// One published event, with the bytes that go to its subscribers.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// The frame; empty if there are `encodings` or a `message`.
    pub frame: Frozen,
    /// In place of the frame: the value for subscribers of several formats, and how it changes the
    /// channel's picture.
    pub encodings: Option<Arc<Encodings>>,
    /// The compressed frames of `frame`, if an endpoint compresses.
    pub compressed: Option<Arc<CompressedFrames>>,
    /// The one connection that does not receive the event.
    pub except: Option<ConnId>,
    /// Makes the home cache the event for later subscribers.
    pub keep: Option<Arc<CacheEntry>>,
    /// Makes the home append the event to the channel's history.
    pub history_limit: Option<HistoryLimit>,
    /// Closes the receiving connections with this code and reason in place of a frame.
    pub close: Option<(u16, &'static str)>,
    /// What webhooks report about the event, if a client has published it and a webhook wants
    /// client events.
    pub client_event: Option<Arc<ClientEvent>>,
    /// In place of a frame: a message to the subscribers' dialects.
    pub message: Option<DialectMessage>,
}

/// A message from a dialect to the dialects of other connections, on any core. Sender and receiver
/// agree on its type.
pub type DialectMessage = Arc<dyn Any + Send + Sync>;

impl Event {
    /// Whether the home keeps the event or a part of it.
    pub fn is_kept(&self) -> bool {
        self.keep.is_some() || self.encodings.as_ref().is_some_and(|encodings| encodings.is_kept())
    }

    /// Whether the event is delivered to the subscribers.
    pub fn has_recipients(&self) -> bool {
        self.message.is_some()
            || self.encodings.as_ref().is_none_or(|encodings| encodings.has_recipients())
    }
}

/// How much of a channel's history is kept, the present event included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimit {
    /// Number of events.
    pub max: u32,
    /// Bytes of their frames.
    pub bytes: usize,
}

/// What an event needs in order to be cached.
#[derive(Debug)]
pub struct CacheEntry {
    /// How long it is cached, in milliseconds.
    pub ttl_ms: u64,
    /// The event's name, for queries.
    pub event: Box<str>,
    /// The event's data, for queries.
    pub data: Box<str>,
}

/// An event that a client has published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEvent {
    /// The event's name.
    pub event: Box<str>,
    /// Its data as text, if it has data.
    pub data: Option<Box<str>>,
    /// The socket id of the connection, in the form of its dialect.
    pub from: Box<str>,
    /// The user that the connection is in this channel, if it is a member.
    pub user: Option<Box<str>>,
}
