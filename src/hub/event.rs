//! A published event: what its subscribers receive, what the channel's home keeps of it, and what
//! webhooks report about it.

use super::encodings::Encodings;
use super::forms::EventForms;
use super::frames::SharedFrame;
use super::name::ConnId;
use crate::mem::{Frozen, Slot};
use std::fmt::Debug;
use std::sync::Arc;

/// What one dialect sends to the dialects of other connections, on any core. The hub carries it and
/// does not look into it. The dialects define the type, because they are in a higher layer.
pub trait HubMessage: Clone + Debug + Send + Sync + 'static {}

impl<T: Clone + Debug + Send + Sync + 'static> HubMessage for T {}

/// One published event; `M` is a message between dialects.
///
/// A topic is ended by one event whose payload is a message to the dialects and which removes the
/// picture, so that both take effect at the same point in the channel's order.
#[derive(Clone, Debug)]
pub struct Event<M> {
    /// What the subscribers receive.
    pub payload: EventPayload<M>,
    /// The one connection that does not receive the event.
    pub except: Option<Excluded>,
    /// What the channel's home keeps for later subscribers.
    pub retain: Retention,
    /// What webhooks report about the event, if a client has published it and a webhook wants
    /// client events.
    pub notify: Option<Arc<ClientEvent>>,
    /// The other forms of the event. `None` if no subscriber can need one: such an event reaches
    /// only the subscribers that receive it as it was published.
    pub forms: Option<Arc<EventForms>>,
    /// Only subscriptions that have begun under this log of the cluster receive the event, because
    /// the others have received it out of an earlier one; `None` for all subscriptions.
    pub since_log: Option<u16>,
    /// The idempotency key with which the event was published, if the log of a cluster is to
    /// decide whether the event was published before.
    pub key: Option<Box<EventKey>>,
}

/// What distinguishes an event of a request with an idempotency key from all other events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKey {
    /// The digest of the key and its application.
    pub key: u128,
    /// The digest of what the request publishes.
    pub request: u128,
    /// The number of the event in its request, from 0.
    pub index: u16,
}

/// The one connection that does not receive an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excluded {
    /// A connection of this process. These are the fields of its [`ConnId`], which as a type of its
    /// own would make an event larger.
    Connection {
        /// The core that holds it.
        core: u16,
        /// Its slot on that core.
        index: u32,
        /// The generation of its slot.
        generation: u64,
    },
    /// The connection with this socket id, which is not of this process: the two numbers of the
    /// id.
    Elsewhere([u64; 2]),
}

impl Excluded {
    /// The excluded connection.
    ///
    /// # Errors
    /// It is not one of this process; the two numbers of its socket id are returned.
    pub fn connection(self) -> Result<ConnId, [u64; 2]> {
        match self {
            Excluded::Connection { core, index, generation } => {
                Ok(ConnId { core, slot: Slot { index, generation } })
            }
            Excluded::Elsewhere(numbers) => Err(numbers),
        }
    }

    /// The excluded connection, if `core` of this process holds it.
    pub fn on(self, core: u16) -> Option<Slot> {
        self.connection().ok().filter(|conn| conn.core == core).map(|conn| conn.slot)
    }
}

impl From<ConnId> for Excluded {
    fn from(conn: ConnId) -> Excluded {
        let Slot { index, generation } = conn.slot;
        Excluded::Connection { core: conn.core, index, generation }
    }
}

/// What the subscribers of a channel receive.
#[derive(Clone, Debug)]
pub enum EventPayload<M> {
    /// Nothing: the event only changes what the home keeps.
    Nothing,
    /// One frame, the same for all.
    Frame(SharedFrame),
    /// A value, in the format of each subscriber.
    Value(Arc<Encodings>),
    /// A message to the subscribers' dialects.
    Message(M),
    /// The end of their connections, with this code and reason.
    Close(u16, &'static str),
}

impl<M> Default for EventPayload<M> {
    /// An empty frame.
    fn default() -> EventPayload<M> {
        EventPayload::Frame(SharedFrame::default())
    }
}

/// What the home of a channel keeps of an event.
#[derive(Clone, Debug, Default)]
pub enum Retention {
    /// Nothing.
    #[default]
    Nothing,
    /// The frame, in place of the cached one.
    Cache(Arc<CacheEntry>),
    /// The frame, as the last one of the history.
    History(HistoryLimit),
    /// The frame, in place of the cached one and as the last one of the history.
    CacheAndHistory(Arc<CacheEntry>, HistoryLimit),
    /// The picture, changed by the event.
    Picture(PictureChange),
}

impl Retention {
    /// The picture that results from merging the event's value into it; nothing without a mode.
    pub fn update(mode: Option<Mode>) -> Retention {
        mode.map_or(Retention::Nothing, |mode| Retention::Picture(PictureChange::Update(mode)))
    }
}

impl<M> Default for Event<M> {
    /// An empty frame, of which nothing is kept.
    fn default() -> Event<M> {
        Event {
            payload: EventPayload::default(),
            except: None,
            retain: Retention::default(),
            notify: None,
            forms: None,
            since_log: None,
            key: None,
        }
    }
}

impl<M> Event<M> {
    /// An event that delivers a message to the subscribers' dialects.
    pub fn message(message: M) -> Event<M> {
        Event { payload: EventPayload::Message(message), ..Event::default() }
    }

    /// An event that removes the picture of its channel. Subscribers receive nothing.
    pub fn clear() -> Event<M> {
        let retain = Retention::Picture(PictureChange::Clear);
        Event { payload: EventPayload::Nothing, retain, ..Event::default() }
    }

    /// Whether the event removes the picture of its channel.
    pub fn removes_picture(&self) -> bool {
        matches!(self.retain, Retention::Picture(PictureChange::Clear))
    }

    /// Whether the home keeps the event or a part of it even if the channel has no subscriber.
    pub fn is_kept(&self) -> bool {
        match &self.retain {
            Retention::Cache(_) | Retention::CacheAndHistory(..) => true,
            Retention::History(limit) => limit.ttl_s > 0,
            Retention::Picture(change) => *change != PictureChange::Clear,
            Retention::Nothing => false,
        }
    }

    /// Whether the event is delivered to the subscribers.
    pub fn has_recipients(&self) -> bool {
        match (&self.payload, &self.retain) {
            (EventPayload::Nothing, _) => false,
            (_, Retention::Picture(PictureChange::Install { received, .. })) => *received,
            _ => true,
        }
    }

    /// The frame that the subscribers receive, if it is the same for all.
    pub fn frame(&self) -> Option<&Frozen> {
        match &self.payload {
            EventPayload::Frame(shared) => Some(&shared.frame),
            _ => None,
        }
    }

    /// The value that the subscribers receive, if each receives it in its own format.
    pub fn encodings(&self) -> Option<&Arc<Encodings>> {
        match &self.payload {
            EventPayload::Value(encodings) => Some(encodings),
            _ => None,
        }
    }
}

impl<M> From<Frozen> for Event<M> {
    fn from(frame: Frozen) -> Event<M> {
        SharedFrame { frame, compressed: None }.into()
    }
}

impl<M> From<SharedFrame> for Event<M> {
    fn from(shared: SharedFrame) -> Event<M> {
        Event { payload: EventPayload::Frame(shared), ..Event::default() }
    }
}

/// How events are merged into the picture of their channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The last value replaces the picture.
    Replace,
    /// The members of a map replace members with the same key; other members stay. A value that is
    /// not a map replaces the picture.
    Merge {
        /// Whether null removes the member from the picture; otherwise null is its value.
        null_deletes: bool,
    },
    /// The elements of an array are appended; everything before the last clearing element is
    /// removed. A value that is not an array replaces the picture.
    Log {
        /// The maximum number of elements of the picture. Beyond it, the oldest elements are
        /// removed and counted, except for a clearing element at the front.
        max: u32,
        /// Which elements are clearing ones.
        clears: Clears,
    },
}

/// Pairs of key and text: a map with one of these members makes all elements before it void.
pub type Clears = &'static [(&'static str, &'static str)];

/// What an event does to the picture of its channel, which later subscribers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureChange {
    /// Merge the event's value into the picture.
    Update(Mode),
    /// Replace the picture by the event's value.
    Install {
        /// How later events are merged.
        mode: Mode,
        /// Whether the event is delivered to the subscribers; false if they have its content
        /// already.
        received: bool,
    },
    /// Remove the picture.
    Clear,
}

/// How much of a channel's history is kept, the present event included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimit {
    /// Number of events.
    pub max: u32,
    /// How long an event is kept, in seconds, also while the channel has no subscriber. 0 keeps
    /// events until the last subscriber leaves.
    pub ttl_s: u32,
    /// Bytes of their frames.
    pub bytes: usize,
}

impl HistoryLimit {
    /// How long an event is kept, in milliseconds.
    pub(super) fn ttl_ms(self) -> u64 {
        u64::from(self.ttl_s) * 1000
    }
}

/// What an event needs in order to be cached.
#[derive(Debug, PartialEq, Eq)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_reaches_subscribers_depending_on_what_is_kept() {
        let mode = Mode::Replace;
        let entry = Arc::new(CacheEntry { ttl_ms: 1, event: "".into(), data: "".into() });
        let picture = Retention::Picture;
        let limit = |ttl_s| HistoryLimit { max: 1, ttl_s, bytes: 1 };
        for (retain, received, kept) in [
            (Retention::Nothing, true, false),
            (Retention::Cache(entry.clone()), true, true),
            (Retention::History(limit(0)), true, false),
            (Retention::History(limit(1)), true, true),
            (Retention::CacheAndHistory(entry, limit(1)), true, true),
            (picture(PictureChange::Update(mode)), true, true),
            (picture(PictureChange::Install { mode, received: true }), true, true),
            (picture(PictureChange::Install { mode, received: false }), false, true),
            (picture(PictureChange::Clear), true, false),
        ] {
            let event = Event::<()> { retain, ..Event::default() };
            assert_eq!((event.has_recipients(), event.is_kept()), (received, kept), "{event:?}");
            let nothing = Event { payload: EventPayload::Nothing, ..event };
            assert_eq!((nothing.has_recipients(), nothing.is_kept()), (false, kept));
        }
        assert!(!Event::<()>::clear().has_recipients() && !Event::<()>::clear().is_kept());
    }

    #[test]
    fn event_is_small_enough_to_be_copied_into_the_mail_of_every_core() {
        // A message between dialects is an enum of reference-counted pointers.
        let bytes = size_of::<Event<Option<Result<Arc<u8>, Arc<u8>>>>>();
        assert!(bytes <= 120, "{bytes} bytes");
    }
}
