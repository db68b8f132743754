//! What the log of a cluster says of one channel: which users are present on which nodes, and how
//! many subscribers each node has; and how far this node's own part of it is stated there.
//!
//! All nodes read the same log, so that they agree on everything here but the own part.

use super::join::JoinRequest;
use super::miss::LoggedMiss;
use super::name::ConnId;
use super::roster::{ChannelFull, Member, MemberChange, Roster};
use super::view_counts::ViewCounts;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct NodeStates<M> {
    /// The present users with the nodes that they are on.
    pub(super) present: Roster<u64, M>,
    /// The number of subscribers of each node that has some.
    counts: Vec<(u64, u32)>,
    /// Those of them that have subscribed through views, as far as nodes have stated it.
    views: Vec<(u64, ViewCounts)>,
    /// The users of this node, and those that the log wrongly has on it.
    pub(super) own: HashMap<Arc<str>, OwnUser<M>>,
    pub(super) own_count: OwnCount,
    /// Which node reports that there is no cached event.
    pub(super) miss: LoggedMiss,
    /// What was stated before the log is read again, and was not confirmed since.
    unconfirmed: Option<Unconfirmed>,
}

/// A user of this node in a channel.
#[derive(Debug)]
pub(super) struct OwnUser<M> {
    /// The user as its first connection has joined; `None` if no connection here has.
    pub(super) member: Option<Arc<Member<M>>>,
    /// Whether the log has the user on this node, as far as this node knows.
    pub(super) is_logged: bool,
    /// Whether the log may have something else.
    pub(super) is_unsure: bool,
    /// Whether the user was present by this node, so that the maximum does not count for it.
    pub(super) is_admitted: bool,
    /// Whether a state of the user is on its way into the log.
    pub(super) is_proposed: bool,
    /// Whether that state is that the user is here.
    pub(super) proposes_presence: bool,
    /// Whether the user is in the list of what is to be examined.
    pub(super) is_listed: bool,
    /// The connections that wait until the user is present.
    pub(super) waiting: Vec<WaitingJoin<M>>,
    /// When the first of them is examined.
    pub(super) deadline: Option<JoinDeadline>,
}

/// When the joins of a user that wait for the log are examined, in milliseconds, with a number of
/// its own.
pub(super) type JoinDeadline = (u64, u64);

/// A connection that waits until its user is present by this node.
#[derive(Debug)]
pub(super) struct WaitingJoin<M> {
    pub(super) conn: ConnId,
    /// The number of the request, which the answer repeats.
    pub(super) request_id: u32,
    /// When it is refused if the log does not have its user, in milliseconds.
    pub(super) until_ms: u64,
    /// The request without its member.
    pub(super) request: JoinRequest<M>,
}

/// How far the number of this node's subscribers is stated in the log.
#[derive(Debug, Default)]
pub(super) struct OwnCount {
    /// The number that the log has.
    pub(super) logged: u32,
    /// The numbers by view that the log has.
    pub(super) logged_views: ViewCounts,
    /// Whether numbers by view are asked for and are not those.
    views_differ: bool,
    /// Whether it is not known what the log has.
    pub(super) is_unsure: bool,
    pub(super) is_proposed: bool,
    /// Whether the channel is in the list of what is to be examined.
    pub(super) is_listed: bool,
    /// When a number was last proposed, in milliseconds; 0 if the next one is not to wait.
    proposed_ms: u64,
    /// When the last subscriber has left, in milliseconds.
    empty_since_ms: Option<u64>,
    /// The time of the earliest examination that is planned, in milliseconds; 0 for none.
    pub(super) timer_ms: u64,
}

/// What is to be done about the number of this node's subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountStep {
    Nothing,
    Propose(u32),
    /// Examine it again at this time, in milliseconds.
    WaitUntil(u64),
}

/// How numbers of subscribers are stated.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountTimes {
    /// How long a node has no subscriber before it states so, in milliseconds.
    pub(super) linger_ms: u64,
    /// The time between two statements of other numbers, in milliseconds; `None` if only the first
    /// and the last subscriber matter.
    pub(super) every_ms: Option<u64>,
}

#[derive(Debug)]
struct Unconfirmed {
    members: HashSet<(u64, Arc<str>)>,
    counts: HashSet<u64>,
}

/// What an entry of the log has changed in the roster.
#[derive(Debug)]
pub(super) enum RosterChange<M> {
    Nothing,
    Added(MemberChange<M>),
    Removed(MemberChange<M>),
    /// The channel has its maximum number of members, so the user is not added.
    Full,
}

/// What the end of a node, or of a refresh, has removed.
#[derive(Debug)]
pub(super) struct RemovedStates<M> {
    pub(super) members: Vec<(Arc<str>, MemberChange<M>)>,
    /// The number of subscribers of all nodes before.
    pub(super) before: u64,
}

/// The node that has stated something, or that has made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateAuthor {
    /// The node's id.
    pub node: u64,
    /// Whether it is this node.
    pub is_ours: bool,
}

/// What a visit of all channels of a core does to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateVisit {
    /// Removes all states of a node, which has ended. The author says whether this node reports
    /// what changes.
    NodeGone(StateAuthor),
    /// States everything again that is true here, because this node has another id or the log is
    /// another one.
    Restate,
    /// States all pictures again, because the log is another one.
    NewLog,
    /// Ends the first reading of the log.
    FirstReadEnd,
    /// Marks all states as not confirmed, because everything is stated again from now on.
    RefreshBegin,
    /// Removes the states that were not confirmed since [`StateVisit::RefreshBegin`].
    RefreshEnd {
        /// Whether this node reports what changes.
        is_ours: bool,
    },
}

/// A visit of all channels that has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnfinishedVisit {
    pub(super) visit: StateVisit,
    /// The place of the next channel.
    pub(super) next: usize,
}

/// What one slice of a visit has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VisitedSlice {
    /// The number of places for channels.
    pub places: usize,
    /// The number of states that were removed, or are to be stated.
    pub changes: usize,
}

impl<M> Default for NodeStates<M> {
    fn default() -> NodeStates<M> {
        NodeStates {
            present: Roster::default(),
            counts: Vec::new(),
            views: Vec::new(),
            own: HashMap::new(),
            own_count: OwnCount::default(),
            miss: LoggedMiss::default(),
            unconfirmed: None,
        }
    }
}

impl<M> Default for OwnUser<M> {
    fn default() -> OwnUser<M> {
        OwnUser {
            member: None,
            is_logged: false,
            is_unsure: false,
            is_admitted: false,
            is_proposed: false,
            proposes_presence: false,
            is_listed: false,
            waiting: Vec::new(),
            deadline: None,
        }
    }
}

impl<M: Clone> NodeStates<M> {
    pub(super) fn is_empty(&self) -> bool {
        self.present.is_empty()
            && self.counts.is_empty()
            && self.own.is_empty()
            && self.own_count.is_idle()
            && self.miss.is_idle()
    }

    /// The number of subscribers of all nodes.
    pub(super) fn subscriptions(&self) -> u64 {
        self.counts.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The subscribers of all nodes through views.
    pub(super) fn views(&self) -> impl Iterator<Item = (u64, u32)> {
        self.views.iter().flat_map(|(_, views)| views.iter().copied())
    }

    /// Lets take effect that a user is on a node.
    pub(super) fn add(&mut self, node: u64, member: &Member<M>) -> RosterChange<M> {
        self.confirm(node, &member.id);
        if self.present.has_source(node, &member.id) {
            return RosterChange::Nothing;
        }
        match self.present.enter(node, member, member.max) {
            Ok(true) => RosterChange::Added(member.added.clone()),
            Ok(false) => RosterChange::Nothing,
            Err(ChannelFull) => RosterChange::Full,
        }
    }

    /// Lets take effect that a user is no longer on a node.
    pub(super) fn remove(&mut self, node: u64, user: &Arc<str>) -> RosterChange<M> {
        self.confirm(node, user);
        self.present.exit(node, user).map_or(RosterChange::Nothing, RosterChange::Removed)
    }

    fn confirm(&mut self, node: u64, user: &Arc<str>) {
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.members.remove(&(node, user.clone()));
        }
    }

    /// Sets the number of subscribers of a node.
    pub(super) fn set_count(&mut self, node: u64, count: u32) {
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.counts.remove(&node);
        }
        self.counts.retain(|(other, _)| *other != node);
        self.views.retain(|(other, _)| *other != node);
        if count > 0 {
            self.counts.push((node, count));
        }
    }

    /// Sets the numbers of subscribers of a node by view, after the number of all.
    pub(super) fn set_views(&mut self, node: u64, views: ViewCounts) {
        if !views.is_empty() {
            self.views.push((node, views));
        }
    }

    /// Whether there is a state of this node.
    pub(super) fn has_node(&self, node: u64) -> bool {
        self.counts.iter().any(|(other, _)| *other == node)
            || self.miss.has_node(node)
            || !self.present.users_of(node).is_empty()
    }

    /// Removes all states of a node.
    pub(super) fn remove_node(&mut self, node: u64) -> RemovedStates<M> {
        let before = self.subscriptions();
        let users = self.present.users_of(node);
        let pairs = users.into_iter().map(|user| (node, user)).collect();
        self.set_count(node, 0);
        self.miss.remove_node(node);
        RemovedStates { members: self.remove_pairs(pairs), before }
    }

    fn remove_pairs(&mut self, pairs: Vec<(u64, Arc<str>)>) -> Vec<(Arc<str>, MemberChange<M>)> {
        let mut removed = Vec::new();
        for (node, user) in pairs {
            if let RosterChange::Removed(change) = self.remove(node, &user) {
                removed.push((user, change));
            }
        }
        removed
    }

    /// Marks everything as not confirmed.
    pub(super) fn begin_refresh(&mut self) {
        let members = self.present.pairs().into_iter().collect();
        let counts = self.counts.iter().map(|(node, _)| *node).collect();
        self.unconfirmed = Some(Unconfirmed { members, counts });
        self.miss.begin_refresh();
    }

    /// Removes what was not confirmed since [`NodeStates::begin_refresh`].
    pub(super) fn end_refresh(&mut self) -> Option<RemovedStates<M>> {
        let Unconfirmed { members, counts } = self.unconfirmed.take()?;
        let before = self.subscriptions();
        counts.into_iter().for_each(|node| self.set_count(node, 0));
        self.miss.end_refresh();
        // In the order of the roster, which is the same on all nodes.
        let mut pairs = self.present.pairs();
        pairs.retain(|pair| members.contains(pair));
        Some(RemovedStates { members: self.remove_pairs(pairs), before })
    }

    /// Forgets a user of this node if nothing of it is to be stated.
    pub(super) fn forget_own(&mut self, user: &str) {
        if self.own.get(user).is_some_and(|own| own.is_idle()) {
            self.own.remove(user);
        }
    }
}

impl<M> OwnUser<M> {
    fn is_idle(&self) -> bool {
        let is_stated = !self.is_logged && !self.is_unsure;
        is_stated && !self.is_proposed && !self.is_listed && self.waiting.is_empty()
    }

    /// Whether the log does not say, or may not say, whether the user is here.
    pub(super) fn differs(&self, is_here: bool) -> bool {
        self.is_unsure || self.is_logged != is_here
    }

    /// Trusts nothing that was stated, because the log is another one or this node has another id.
    /// The log may nevertheless have it, if it is not quite new and the id is the same.
    pub(super) fn forget_log(&mut self) {
        self.is_unsure |= self.is_logged || self.is_proposed;
        (self.is_logged, self.is_proposed, self.is_listed) = (false, false, false);
    }
}

impl OwnCount {
    pub(super) fn is_idle(&self) -> bool {
        self.logged == 0 && !self.is_unsure && !self.is_proposed && !self.is_listed
    }

    /// Trusts nothing that was stated, because the log is another one or this node has another id.
    /// The log may nevertheless have it, if it is not quite new and the id is the same.
    pub(super) fn forget_log(&mut self) {
        let is_unsure = self.is_unsure || self.logged > 0 || self.is_proposed;
        *self = OwnCount { timer_ms: self.timer_ms, is_unsure, ..OwnCount::default() };
    }

    /// Notes the numbers by view, if they are asked for.
    pub(super) fn note_views(&mut self, views: Option<&ViewCounts>) {
        self.views_differ = views.is_some_and(|views| *views != self.logged_views);
    }

    /// Lets the next number be stated at once.
    pub(super) fn hasten(&mut self) {
        self.proposed_ms = 0;
    }

    /// Whether an examination may find something to do, if this node has `count` subscribers.
    pub(super) fn may_differ(&self, count: u32, is_counted: bool) -> bool {
        match (self.logged, count) {
            (0, 0) => self.is_unsure,
            (0, _) | (_, 0) => true,
            (logged, count) => {
                let differs = logged != count || self.views_differ;
                is_counted && differs || self.is_unsure || self.empty_since_ms.is_some()
            }
        }
    }

    /// What is to be done if this node has `count` subscribers.
    pub(super) fn examine(&mut self, count: u32, times: CountTimes, now_ms: u64) -> CountStep {
        if count > 0 {
            self.empty_since_ms = None;
        }
        if self.is_proposed {
            return CountStep::Nothing;
        }
        let due_ms = match (self.logged, count) {
            _ if self.is_unsure => now_ms,
            (logged, count) if logged == count && !self.views_differ => return CountStep::Nothing,
            (0, _) => now_ms,
            (_, 0) => *self.empty_since_ms.get_or_insert(now_ms) + times.linger_ms,
            (..) => match times.every_ms {
                Some(_) if self.proposed_ms == 0 => now_ms,
                Some(every_ms) => self.proposed_ms + every_ms,
                None => return CountStep::Nothing,
            },
        };
        if due_ms > now_ms {
            return CountStep::WaitUntil(due_ms);
        }
        (self.is_proposed, self.proposed_ms) = (true, now_ms);
        CountStep::Propose(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Event;
    use crate::mem::Frozen;

    type States = NodeStates<()>;

    fn member(id: &str, max: usize) -> Member<()> {
        let frame = |text: String| Frozen::new(text.as_bytes()).into();
        let (added, removed) = (frame(format!("+{id}")), frame(format!("-{id}")));
        Member { id: id.into(), info: None, added, removed, max }
    }

    /// `+` or `-` with the user, `full`, or nothing.
    fn text(change: RosterChange<()>) -> String {
        match change {
            RosterChange::Nothing => String::new(),
            RosterChange::Full => "full".to_owned(),
            RosterChange::Added(change) | RosterChange::Removed(change) => change_text(change),
        }
    }

    fn change_text(change: MemberChange<()>) -> String {
        let event = Event::from(change);
        String::from_utf8(event.frame().expect("a frame").to_vec()).expect("text")
    }

    fn ids(states: &States) -> Vec<String> {
        states.present.users().into_iter().map(|(id, _)| id.to_string()).collect()
    }

    #[test]
    fn nodes_user_is_added_by_the_first_node_and_removed_by_the_last() {
        let mut states = States::default();
        assert_eq!(text(states.add(1, &member("ada", 0))), "+ada");
        assert_eq!(text(states.add(2, &member("ada", 0))), "");
        assert_eq!(text(states.add(2, &member("ada", 0))), "", "stated again");
        assert_eq!(text(states.remove(3, &"ada".into())), "", "she was not there");
        assert_eq!(text(states.remove(1, &"ada".into())), "");
        assert_eq!(text(states.remove(1, &"ada".into())), "");
        assert_eq!(text(states.remove(2, &"ada".into())), "-ada");
        assert!(states.is_empty());
    }

    #[test]
    fn nodes_user_beyond_the_maximum_is_not_added() {
        let mut states = States::default();
        assert_eq!(text(states.add(1, &member("ada", 2))), "+ada");
        assert_eq!(text(states.add(2, &member("bob", 2))), "+bob");
        assert_eq!(text(states.add(1, &member("cyd", 2))), "full");
        assert_eq!(text(states.add(1, &member("bob", 2))), "", "who is present may be anywhere");
        assert_eq!(text(states.remove(1, &"cyd".into())), "");
        assert_eq!(ids(&states), ["ada", "bob"]);
        assert_eq!(text(states.remove(1, &"ada".into())), "-ada");
        assert_eq!(text(states.add(2, &member("cyd", 2))), "+cyd");
    }

    #[test]
    fn nodes_death_removes_who_is_nowhere_else() {
        let mut states = States::default();
        for (node, user) in [(1, "cyd"), (1, "ada"), (2, "ada"), (2, "bob"), (1, "dan")] {
            text(states.add(node, &member(user, 0)));
        }
        states.set_count(1, 3);
        states.set_count(2, 4);
        assert!(states.has_node(1) && !states.has_node(3));
        let removed = states.remove_node(1);
        let texts: Vec<String> = removed.members.into_iter().map(|it| change_text(it.1)).collect();
        assert_eq!(texts, ["-cyd", "-dan"], "in the order in which they came");
        assert_eq!((removed.before, states.subscriptions()), (7, 4));
        assert_eq!(ids(&states), ["ada", "bob"]);
        assert!(!states.has_node(1) && states.remove_node(1).members.is_empty());
    }

    #[test]
    fn nodes_refresh_removes_what_was_not_confirmed() {
        let mut states = States::default();
        for (node, user) in [(1, "ada"), (2, "bob"), (2, "cyd"), (3, "cyd")] {
            text(states.add(node, &member(user, 0)));
        }
        (1..=3).for_each(|node| states.set_count(node, 1));
        assert!(states.end_refresh().is_none(), "it has not begun");
        states.begin_refresh();
        assert_eq!(text(states.add(1, &member("ada", 0))), "");
        assert_eq!(text(states.add(4, &member("eve", 0))), "+eve");
        assert_eq!(text(states.add(3, &member("cyd", 0))), "");
        states.set_count(3, 2);
        states.set_count(4, 1);
        let removed = states.end_refresh().expect("a refresh");
        let texts: Vec<String> = removed.members.into_iter().map(|it| change_text(it.1)).collect();
        assert_eq!(texts, ["-bob"]);
        assert_eq!((removed.before, states.subscriptions()), (5, 3));
        assert_eq!(ids(&states), ["ada", "cyd", "eve"]);
    }

    const TIMES: CountTimes = CountTimes { linger_ms: 3000, every_ms: Some(1000) };

    #[test]
    fn nodes_count_is_stated_at_once_then_in_steps_and_lingers_before_zero() {
        let mut count = OwnCount::default();
        assert_eq!(count.examine(0, TIMES, 10), CountStep::Nothing);
        assert_eq!(count.examine(2, TIMES, 10), CountStep::Propose(2));
        assert_eq!(count.examine(3, TIMES, 11), CountStep::Nothing, "one is on its way");
        (count.is_proposed, count.logged) = (false, 2);
        assert_eq!(count.examine(3, TIMES, 1009), CountStep::WaitUntil(1010));
        assert_eq!(count.examine(3, TIMES, 1010), CountStep::Propose(3));
        (count.is_proposed, count.logged) = (false, 3);
        let rare = CountTimes { every_ms: None, ..TIMES };
        assert_eq!(count.examine(9, rare, 9000), CountStep::Nothing);
        assert_eq!(count.examine(0, TIMES, 10_000), CountStep::WaitUntil(13_000));
        assert_eq!(count.examine(0, TIMES, 12_999), CountStep::WaitUntil(13_000));
        assert_eq!(count.examine(3, TIMES, 12_999), CountStep::Nothing, "somebody is back");
        assert_eq!(count.examine(0, TIMES, 13_000), CountStep::WaitUntil(16_000));
        assert_eq!(count.examine(0, TIMES, 16_000), CountStep::Propose(0));
        (count.is_proposed, count.logged) = (false, 0);
        assert!(count.is_idle());
        count.is_unsure = true;
        assert_eq!(count.examine(0, TIMES, 16_001), CountStep::Propose(0), "the log may differ");
    }

    #[test]
    fn nodes_count_that_is_hastened_is_stated_at_once() {
        let mut count = OwnCount { logged: 1, proposed_ms: 10, ..OwnCount::default() };
        assert_eq!(count.examine(3, TIMES, 500), CountStep::WaitUntil(1010));
        count.hasten();
        assert_eq!(count.examine(3, TIMES, 500), CountStep::Propose(3));
        (count.is_proposed, count.logged) = (false, 3);
        assert_eq!(count.examine(4, TIMES, 501), CountStep::WaitUntil(1500));
    }

    #[test]
    fn nodes_count_is_examined_only_where_it_may_differ() {
        let count = |logged| OwnCount { logged, ..OwnCount::default() };
        assert!(!count(0).may_differ(0, true));
        assert!(count(0).may_differ(1, false) && count(1).may_differ(0, false));
        assert!(!count(1).may_differ(2, false) && count(1).may_differ(2, true));
        assert!(!count(2).may_differ(2, true));
        assert!(OwnCount { is_unsure: true, ..count(0) }.may_differ(0, false));
        assert!(OwnCount { empty_since_ms: Some(1), ..count(2) }.may_differ(2, false));
    }
}
