//! What only the home core of a channel keeps: the number of subscribers on each other core, the
//! present users, and the cached event.

use super::channel_events::Reported;
use super::event::CacheEntry;
use super::forms::StreamPosition;
use super::history::{History, HistoryUsage};
use super::kept::KeptPlace;
use super::logged_picture::LoggedPicture;
use super::name::ConnId;
use super::node_states::NodeStates;
use super::picture::Picture;
use super::roster::{ChannelFull, Member, MemberChange, Roster, Users};
use super::view_counts::{SubscriberCount, ViewCounts};
use crate::mem::Frozen;
use std::collections::HashMap;
use std::sync::Arc;

/// What the home answers to a query about a channel.
#[derive(Clone, Debug, Default)]
pub struct ChannelInfo {
    /// Subscriptions on all cores.
    pub subscriptions: u64,
    /// Whether numbers were asked for that not all nodes of the cluster have stated.
    pub is_count_unknown: bool,
    /// Of a node of a cluster, if that was asked for: the subscriptions of all nodes through views,
    /// by the key of the view.
    pub views: Vec<(u64, u64)>,
    /// Present users.
    pub users: u64,
    /// The cached event, and the milliseconds until it expires.
    pub kept: Option<(Arc<CacheEntry>, u64)>,
    /// The position of the last event in the channel's history, if it has one with positions.
    pub position: Option<StreamPosition>,
}

/// What one core knows of the use of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelUsage {
    /// The number of subscribers on this core for each view that has some; 0 is the source.
    pub views: Vec<(u16, u64)>,
    /// The history, if this core is the channel's home and there is one with positions.
    pub history: Option<HistoryUsage>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Home<M> {
    /// The number of subscribers on each other core that has some.
    counts: Vec<(u16, u32)>,
    /// Those of them that have subscribed through views, if the process is a node of a cluster.
    views: Vec<(u16, ViewCounts)>,
    /// The users with connections of this process.
    users: Roster<ConnId, M>,
    /// The user of each member connection.
    members: HashMap<ConnId, Arc<str>>,
    /// What the log of the cluster says of the channel, if the process is a node of one. It decides
    /// who is present then.
    pub(super) nodes: Option<Box<NodeStates<M>>>,
    kept: Option<Kept>,
    /// The position of the kept event in the indexes of [`super::kept::Keepers`].
    pub(super) place: Option<KeptPlace>,
    pub(super) picture: Option<Picture>,
    /// What is known of the picture in the log of the cluster, if the process is a node of one.
    pub(super) logged: Option<Box<LoggedPicture>>,
    /// The history. One without a lifetime is dropped when the last subscriber leaves.
    pub(super) history: Option<History>,
    /// Whether a subscriber has asked for positions since the channel was empty.
    pub(super) positioned: bool,
    pub(super) reported: Reported,
}

#[derive(Debug)]
struct Kept {
    frame: Frozen,
    entry: Arc<CacheEntry>,
    until_ms: u64,
    /// Its serial number in the log of a cluster; 0 without one.
    serial: u64,
}

impl<M> Default for Home<M> {
    fn default() -> Home<M> {
        Home {
            counts: Vec::new(),
            views: Vec::new(),
            users: Roster::default(),
            members: HashMap::new(),
            nodes: None,
            kept: None,
            place: None,
            picture: None,
            logged: None,
            history: None,
            positioned: false,
            reported: Reported::default(),
        }
    }
}

impl<M: Clone> Home<M> {
    pub(super) fn is_empty(&self) -> bool {
        let outlives = self.history.as_ref().is_some_and(History::outlives);
        let keeps =
            self.kept.is_some() || self.picture.is_some() || self.logged.is_some() || outlives;
        let states = self.nodes.as_ref().is_some_and(|nodes| !nodes.is_empty());
        self.counts.is_empty() && self.users.is_empty() && !keeps && !states
    }

    /// Sets the number of subscribers of `core`.
    pub(super) fn set_count(&mut self, core: u16, SubscriberCount { all, views }: SubscriberCount) {
        self.counts.retain(|(other, _)| *other != core);
        self.views.retain(|(other, _)| *other != core);
        if all > 0 {
            self.counts.push((core, all));
        }
        if !views.is_empty() {
            self.views.push((core, views));
        }
    }

    /// The subscribers of other cores through views.
    pub(super) fn remote_views(&self) -> impl Iterator<Item = (u64, u32)> {
        self.views.iter().flat_map(|(_, views)| views.iter().copied())
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

    /// The number of present users.
    pub(super) fn user_count(&self) -> usize {
        self.nodes.as_ref().map_or(self.users.len(), |nodes| nodes.present.len())
    }

    /// Adds a connection. Returns whether it is the first connection of its user. A user who is
    /// present may always add a connection.
    ///
    /// # Errors
    /// The channel has `max` users.
    pub(super) fn enter(
        &mut self,
        conn: ConnId,
        member: &Member<M>,
        max: usize,
    ) -> Result<bool, ChannelFull> {
        let is_first = self.users.enter(conn, member, max)?;
        self.members.insert(conn, member.id.clone());
        Ok(is_first)
    }

    /// Removes a connection. If it was the last connection of its user, returns the user and the
    /// change that is reported to the others.
    pub(super) fn exit(&mut self, conn: ConnId) -> Option<(Arc<str>, MemberChange<M>)> {
        let id = self.members.remove(&conn)?;
        self.users.exit(conn, &id).map(|change| (id, change))
    }

    /// The user of a member connection.
    pub(super) fn user_of(&self, conn: ConnId) -> Option<Arc<str>> {
        self.members.get(&conn).cloned()
    }

    /// Whether the user has a connection of this process.
    pub(super) fn has_connection(&self, user: &str) -> bool {
        self.users.has(user)
    }

    /// All present users.
    pub(super) fn users(&self) -> Users {
        self.nodes.as_ref().map_or_else(|| self.users.users(), |nodes| nodes.present.users())
    }

    /// Caches an event's frame and replaces the previous one. Returns the time at which it expires,
    /// in milliseconds.
    pub(super) fn keep(&mut self, frame: Frozen, entry: &Arc<CacheEntry>, now_ms: u64) -> u64 {
        let until_ms = now_ms.saturating_add(entry.ttl_ms);
        self.kept = Some(Kept { frame, entry: entry.clone(), until_ms, serial: 0 });
        until_ms
    }

    /// Notes the serial number of the cached event in the log of a cluster.
    pub(super) fn set_kept_serial(&mut self, serial: u64) {
        if let Some(kept) = &mut self.kept {
            kept.serial = serial;
        }
    }

    /// The serial number of the cached event in the log of a cluster.
    pub(super) fn kept_serial(&self) -> Option<u64> {
        self.kept.as_ref().map(|kept| kept.serial)
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
    use crate::hub::Event;
    use crate::mem::Slot;

    fn conn(index: u32) -> ConnId {
        ConnId { core: 0, slot: Slot { index, generation: 1 } }
    }

    fn member(id: &str, info: &str) -> Member<()> {
        let frame = |text: String| Frozen::new(text.as_bytes());
        Member {
            id: id.into(),
            info: Some(info.into()),
            added: frame(format!("+{id}")).into(),
            removed: frame(format!("-{id}")).into(),
            max: 0,
        }
    }

    fn infos(home: &Home<()>) -> Vec<(String, String)> {
        let text = |info: Option<Arc<str>>| info.map(|info| info.to_string()).unwrap_or_default();
        home.users().into_iter().map(|(id, info)| (id.to_string(), text(info))).collect()
    }

    #[test]
    fn presence_adds_user_with_first_connection_and_removes_it_with_last() {
        let mut home = Home::<()>::default();
        assert_eq!(home.enter(conn(1), &member("ada", "one"), 0), Ok(true));
        assert_eq!(home.enter(conn(2), &member("bob", "b"), 0), Ok(true));
        assert_eq!(home.enter(conn(3), &member("ada", "two"), 0), Ok(false));
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
        assert_eq!(home.enter(conn(1), &member("a", ""), 2), Ok(true));
        assert_eq!(home.enter(conn(2), &member("b", ""), 2), Ok(true));
        assert_eq!(home.enter(conn(3), &member("c", ""), 2), Err(ChannelFull));
        assert_eq!(home.enter(conn(4), &member("a", ""), 2), Ok(false));
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
