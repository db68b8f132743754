//! The present users of a channel, each with the sources that it is present by: the connections of
//! one process, or the nodes of a cluster.

use super::event::Event;
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

/// The users of a channel in the order in which they joined: id and info.
pub type Users = Vec<(Arc<str>, Option<Arc<str>>)>;

/// The channel has its maximum number of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelFull;

/// The present users, in the order in which they came.
#[derive(Debug)]
pub(super) struct Roster<S, M> {
    users: HashMap<Arc<str>, User<S, M>>,
    joined_before: u64,
}

#[derive(Debug)]
struct User<S, M> {
    /// The number of users that joined before this one.
    order: u64,
    /// The user's sources with their infos, the oldest first. The others see the first info.
    sources: Vec<(S, Option<Arc<str>>)>,
    removed: MemberChange<M>,
}

impl<S, M> Default for Roster<S, M> {
    fn default() -> Roster<S, M> {
        Roster { users: HashMap::new(), joined_before: 0 }
    }
}

impl<S: Copy + PartialEq, M: Clone> Roster<S, M> {
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The number of users.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    pub(super) fn has(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Whether the user is present by this source.
    pub(super) fn has_source(&self, source: S, user: &str) -> bool {
        let user = self.users.get(user);
        user.is_some_and(|user| user.sources.iter().any(|(other, _)| *other == source))
    }

    /// Adds a source, by which the user is not present yet. Returns whether it is the first one of
    /// the user. A user who is present may always add a source.
    ///
    /// # Errors
    /// There are `max` users; 0 is no maximum.
    pub(super) fn enter(
        &mut self,
        source: S,
        member: &Member<M>,
        max: usize,
    ) -> Result<bool, ChannelFull> {
        let source = (source, member.info.clone());
        if let Some(user) = self.users.get_mut(&member.id) {
            user.sources.push(source);
            return Ok(false);
        }
        if max > 0 && self.users.len() >= max {
            return Err(ChannelFull);
        }
        let removed = member.removed.clone();
        let user = User { order: self.joined_before, sources: vec![source], removed };
        self.joined_before += 1;
        self.users.insert(member.id.clone(), user);
        Ok(true)
    }

    /// Removes a source. If it was the last one of the user, returns the change that is reported to
    /// the others.
    pub(super) fn exit(&mut self, source: S, id: &str) -> Option<MemberChange<M>> {
        let user = self.users.get_mut(id)?;
        user.sources.retain(|(other, _)| *other != source);
        if !user.sources.is_empty() {
            return None;
        }
        self.users.remove(id).map(|user| user.removed)
    }

    /// The users who are present by this source, in their order.
    pub(super) fn users_of(&self, source: S) -> Vec<Arc<str>> {
        let has = |user: &User<S, M>| user.sources.iter().any(|(other, _)| *other == source);
        let mut users: Vec<_> = self.users.iter().filter(|(_, user)| has(user)).collect();
        users.sort_unstable_by_key(|(_, user)| user.order);
        users.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// All pairs of a source and a user, the users in their order.
    pub(super) fn pairs(&self) -> Vec<(S, Arc<str>)> {
        let mut users: Vec<_> = self.users.iter().collect();
        users.sort_unstable_by_key(|(_, user)| user.order);
        let pairs = users.into_iter().flat_map(|(id, user)| {
            user.sources.iter().map(move |(source, _)| (*source, id.clone()))
        });
        pairs.collect()
    }

    /// All present users.
    pub(super) fn users(&self) -> Users {
        let mut users: Vec<_> = self.users.iter().collect();
        users.sort_unstable_by_key(|(_, user)| user.order);
        let first_info =
            |user: &User<S, M>| user.sources.first().and_then(|(_, info)| info.clone());
        users.into_iter().map(|(id, user)| (id.clone(), first_info(user))).collect()
    }
}
