//! What only the home core of a channel keeps: the number of subscribers on each other core, the
//! present users, and the cached event.

use super::channel_events::Reported;
use super::encodings::Encodings;
use super::event::{CacheEntry, Event};
use super::forms::StreamPosition;
use super::frames::SharedFrame;
use super::history::History;
use super::kept::KeptPlace;
use super::name::ConnId;
use super::picture::Picture;
use super::replay::{ResumeReply, ResumeRequest};
use crate::codec::Format;
use crate::mem::Frozen;
use std::collections::HashMap;
use std::sync::Arc;

/// How the other members learn that a member was added or removed.
#[derive(Clone, Debug)]
pub enum MemberChange<M> {
    /// By a frame for their peers.
    Frame(Frozen),
    /// By a message to their dialects.
    Message(M),
}

impl<M> From<Frozen> for MemberChange<M> {
    fn from(frame: Frozen) -> MemberChange<M> {
        MemberChange::Frame(frame)
    }
}

impl<M> From<MemberChange<M>> for Event<M> {
    fn from(change: MemberChange<M>) -> Event<M> {
        match change {
            MemberChange::Frame(frame) => frame.into(),
            MemberChange::Message(message) => Event::message(message),
        }
    }
}

/// A user who joins a channel with members, and how the others learn of it.
#[derive(Clone, Debug)]
pub struct Member<M> {
    /// The user's id in this application.
    pub id: Arc<str>,
    /// What the others see of the user, in the dialect's format.
    pub info: Option<Arc<str>>,
    /// The change that is reported to the others when the user is added.
    pub added: MemberChange<M>,
    /// The change that is reported to the others when the user is removed.
    pub removed: MemberChange<M>,
    /// The maximum number of users of the channel; 0 is no maximum.
    pub max: usize,
}

/// What a joining connection requests from the home.
#[derive(Clone, Debug)]
pub struct JoinRequest<M> {
    /// Make the connection a member.
    pub member: Option<Box<Member<M>>>,
    /// Return the cached event.
    pub cached: bool,
    /// Return the channel's picture in this format.
    pub picture: Option<Format>,
    /// Return the channel's history.
    pub history: bool,
    /// Resume the channel's history at a position.
    pub resume: Option<ResumeRequest>,
}

impl<M> Default for JoinRequest<M> {
    /// A request for nothing.
    fn default() -> JoinRequest<M> {
        JoinRequest { member: None, cached: false, picture: None, history: false, resume: None }
    }
}

impl<M> JoinRequest<M> {
    /// What a subscriber through this view of a link may request: to resume. The channel's members,
    /// its cached event and its picture are for those of the channel itself.
    pub fn through(self, view: u16) -> Option<JoinRequest<M>> {
        let resume = self.resume.map(|resume| ResumeRequest { view, ..resume })?;
        Some(JoinRequest { resume: Some(resume), ..JoinRequest::default() })
    }
}

/// The users of a channel in the order in which they joined: id and info.
pub type Users = Vec<(Arc<str>, Option<Arc<str>>)>;

/// The home's answer to a [`JoinRequest`].
#[derive(Clone, Debug, Default)]
pub struct JoinReply {
    /// All members, including a new one. For a request without a member, `None` if there are no
    /// members.
    pub users: Option<Arc<Users>>,
    /// The cached event if it was requested; `Some(None)` if there is none.
    pub cached: Option<Option<Frozen>>,
    /// The picture if it was requested and there is one, encoded in the requested format. The
    /// session queues it before it calls the dialect's `joined`.
    pub picture: Option<Arc<Encodings>>,
    /// The history, the oldest event first, if it was requested. The session queues it before it
    /// calls the dialect's `joined`.
    pub history: Vec<SharedFrame>,
    /// What the request to resume has found. The session queues its events after it has called the
    /// dialect's `joined`.
    pub resumed: Option<Box<ResumeReply>>,
}

/// The channel has its maximum number of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelFull;

/// Why a connection may not join a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefusal {
    /// The channel has its maximum number of members.
    ChannelFull,
    /// The channel has no subscriber, and the application has its maximum number of channels.
    NoRoom,
}

/// What the home answers to a query about a channel.
#[derive(Clone, Debug, Default)]
pub struct ChannelInfo {
    /// Subscriptions on all cores.
    pub subscriptions: u64,
    /// Present users.
    pub users: u64,
    /// The cached event, and the milliseconds until it expires.
    pub kept: Option<(Arc<CacheEntry>, u64)>,
    /// The position of the last event in the channel's history, if it has one with positions.
    pub position: Option<StreamPosition>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Home<M> {
    /// The number of subscribers on each other core that has some.
    counts: Vec<(u16, u32)>,
    users: HashMap<Arc<str>, User<M>>,
    /// The user of each member connection.
    members: HashMap<ConnId, Arc<str>>,
    joined_before: u64,
    kept: Option<Kept>,
    /// The position of the kept event in the indexes of [`super::kept::Keepers`].
    pub(super) place: Option<KeptPlace>,
    pub(super) picture: Option<Picture>,
    /// The history. One without a lifetime is dropped when the last subscriber leaves.
    pub(super) history: Option<History>,
    /// Whether a subscriber has asked for positions since the channel was empty.
    pub(super) positioned: bool,
    pub(super) reported: Reported,
}

#[derive(Debug)]
struct User<M> {
    /// The number of users that joined before this one.
    order: u64,
    /// The user's connections with their infos, the oldest first. The others see the first info.
    connections: Vec<(ConnId, Option<Arc<str>>)>,
    removed: MemberChange<M>,
}

#[derive(Debug)]
struct Kept {
    frame: Frozen,
    entry: Arc<CacheEntry>,
    until_ms: u64,
}

impl<M> Default for Home<M> {
    fn default() -> Home<M> {
        Home {
            counts: Vec::new(),
            users: HashMap::new(),
            members: HashMap::new(),
            joined_before: 0,
            kept: None,
            place: None,
            picture: None,
            history: None,
            positioned: false,
            reported: Reported::default(),
        }
    }
}

impl<M: Clone> Home<M> {
    pub(super) fn is_empty(&self) -> bool {
        let outlives = self.history.as_ref().is_some_and(History::outlives);
        let keeps = self.kept.is_some() || self.picture.is_some() || outlives;
        self.counts.is_empty() && self.users.is_empty() && !keeps
    }

    /// Sets the number of subscribers of `core`.
    pub(super) fn set_count(&mut self, core: u16, count: u32) {
        self.counts.retain(|(other, _)| *other != core);
        if count > 0 {
            self.counts.push((core, count));
        }
    }

    /// Notes that `core` has at least one subscriber.
    pub(super) fn expect_count(&mut self, core: u16) {
        if self.counts.iter().all(|(other, _)| *other != core) {
            self.counts.push((core, 1));
        }
    }

    pub(super) fn remote_count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    pub(super) fn user_count(&self) -> usize {
        self.users.len()
    }

    /// Adds a connection. Returns whether it is the first connection of its user. A user who is
    /// present may always add a connection.
    ///
    /// # Errors
    /// The channel has its maximum number of users.
    pub(super) fn enter(&mut self, conn: ConnId, member: &Member<M>) -> Result<bool, ChannelFull> {
        let connection = (conn, member.info.clone());
        if let Some(user) = self.users.get_mut(&member.id) {
            user.connections.push(connection);
            self.members.insert(conn, member.id.clone());
            return Ok(false);
        }
        if member.max > 0 && self.users.len() >= member.max {
            return Err(ChannelFull);
        }
        let user = User {
            order: self.joined_before,
            connections: vec![connection],
            removed: member.removed.clone(),
        };
        self.joined_before += 1;
        self.users.insert(member.id.clone(), user);
        self.members.insert(conn, member.id.clone());
        Ok(true)
    }

    /// Removes a connection. If it was the last connection of its user, returns the user and the
    /// change that is reported to the others.
    pub(super) fn exit(&mut self, conn: ConnId) -> Option<(Arc<str>, MemberChange<M>)> {
        let id = self.members.remove(&conn)?;
        let user = self.users.get_mut(&id)?;
        user.connections.retain(|(other, _)| *other != conn);
        if !user.connections.is_empty() {
            return None;
        }
        self.users.remove(&id).map(|user| (id, user.removed))
    }

    /// All present users.
    pub(super) fn users(&self) -> Users {
        let mut users: Vec<_> = self.users.iter().collect();
        users.sort_unstable_by_key(|(_, user)| user.order);
        let first_info =
            |user: &User<M>| user.connections.first().and_then(|(_, info)| info.clone());
        users.into_iter().map(|(id, user)| (id.clone(), first_info(user))).collect()
    }

    /// Caches an event's frame and replaces the previous one. Returns the time at which it expires,
    /// in milliseconds.
    pub(super) fn keep(&mut self, frame: Frozen, entry: &Arc<CacheEntry>, now_ms: u64) -> u64 {
        let until_ms = now_ms.saturating_add(entry.ttl_ms);
        self.kept = Some(Kept { frame, entry: entry.clone(), until_ms });
        until_ms
    }

    /// Drops the cached event. Returns the bytes of its frame and texts.
    pub(super) fn forget(&mut self) -> usize {
        let bytes = self.kept_bytes();
        self.kept = None;
        bytes
    }

    /// The time at which the kept event expires, in milliseconds.
    pub(super) fn kept_until(&self) -> Option<u64> {
        self.kept.as_ref().map(|kept| kept.until_ms)
    }

    pub(super) fn kept_bytes(&self) -> usize {
        let bytes = |kept: &Kept| kept.frame.len() + kept.entry.event.len() + kept.entry.data.len();
        self.kept.as_ref().map_or(0, bytes)
    }

    /// The frame of the cached event.
    pub(super) fn kept(&self, now_ms: u64) -> Option<&Frozen> {
        self.kept.as_ref().filter(|kept| kept.until_ms > now_ms).map(|kept| &kept.frame)
    }

    pub(super) fn cache_info(&self, now_ms: u64) -> Option<(Arc<CacheEntry>, u64)> {
        let kept = self.kept.as_ref().filter(|kept| kept.until_ms > now_ms)?;
        Some((kept.entry.clone(), kept.until_ms - now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Slot;

    fn conn(index: u32) -> ConnId {
        ConnId { core: 0, slot: Slot { index, generation: 1 } }
    }

    fn member(id: &str, info: &str, max: usize) -> Member<()> {
        let frame = |text: String| Frozen::new(text.as_bytes());
        Member {
            id: id.into(),
            info: Some(info.into()),
            added: frame(format!("+{id}")).into(),
            removed: frame(format!("-{id}")).into(),
            max,
        }
    }

    fn infos(home: &Home<()>) -> Vec<(String, String)> {
        let text = |info: Option<Arc<str>>| info.map(|info| info.to_string()).unwrap_or_default();
        home.users().into_iter().map(|(id, info)| (id.to_string(), text(info))).collect()
    }

    #[test]
    fn presence_adds_user_with_first_connection_and_removes_it_with_last() {
        let mut home = Home::<()>::default();
        assert_eq!(home.enter(conn(1), &member("ada", "one", 0)), Ok(true));
        assert_eq!(home.enter(conn(2), &member("bob", "b", 0)), Ok(true));
        assert_eq!(home.enter(conn(3), &member("ada", "two", 0)), Ok(false));
        let pair = |id: &str, info: &str| (id.to_owned(), info.to_owned());
        assert_eq!(infos(&home), [pair("ada", "one"), pair("bob", "b")]);
        assert!(home.exit(conn(1)).is_none());
        assert_eq!(infos(&home), [pair("ada", "two"), pair("bob", "b")]);
        let (id, change) = home.exit(conn(3)).expect("the last one leaves");
        let event = Event::from(change);
        assert_eq!((&*id, event.frame().map(|it| &**it)), ("ada", Some(&b"-ada"[..])));
        assert!(home.exit(conn(3)).is_none());
        assert!(home.exit(conn(2)).is_some());
        assert!(home.is_empty());
    }

    #[test]
    fn presence_maximum_counts_users_and_admits_present_ones() {
        let mut home = Home::<()>::default();
        assert_eq!(home.enter(conn(1), &member("a", "", 2)), Ok(true));
        assert_eq!(home.enter(conn(2), &member("b", "", 2)), Ok(true));
        assert_eq!(home.enter(conn(3), &member("c", "", 2)), Err(ChannelFull));
        assert_eq!(home.enter(conn(4), &member("a", "", 2)), Ok(false));
        assert_eq!(home.user_count(), 2);
    }

    #[test]
    fn cache_keeps_event_until_it_expires() {
        let mut home = Home::<()>::default();
        let keep = CacheEntry { ttl_ms: 100, event: "e".into(), data: "data".into() };
        let frame = Frozen::new(b"frame");
        let keep = Arc::new(keep);
        assert_eq!(home.keep(frame.clone(), &keep, 900), 1000);
        assert_eq!(home.keep(frame, &keep, 1000), 1100);
        assert_eq!((home.kept_bytes(), home.kept_until()), (10, Some(1100)));
        assert!(home.kept(1099).is_some());
        assert!(home.kept(1100).is_none());
        assert_eq!(home.cache_info(1040).map(|(_, left)| left), Some(60));
        assert_eq!((home.forget(), home.forget()), (10, 0));
        assert!(home.is_empty());
    }
}
