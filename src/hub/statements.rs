//! How a node of a cluster states what is true on it: what is examined when, proposed, and proposed
//! again.

use super::join::JoinRefusal;
use super::mail::{OutgoingMail, Unpublished};
use super::name::home_among;
use super::node_states::{CountStep, CountTimes};
use super::own_states::{StateProposal, Statement};
use super::view_counts::SubscriberCount;
use super::{Hub, HubMessage};
use std::sync::Arc;

/// The maximum number of states of one core that are on their way into the log. The others wait
/// here, so that they leave room for events.
const UNDER_WAY: usize = 1024;

/// Channels of applications from this number on, those of dialects without applications, have no
/// numbers of subscribers, unless somebody reads them through the view of a link.
pub(super) const UNCOUNTED: u32 = u32::MAX - 15;

/// The time between two attempts to state what has failed, in milliseconds.
const RETRY_MS: u64 = 1000;

/// The maximum number of timers that end in one sweep, and of states that are tried again. More of
/// them follow in the next ones, so that many channels that clients leave at the same time, or that
/// the log has no room for, occupy no core for long.
pub(super) const TIMERS_PER_SWEEP: usize = 4096;

impl<M: HubMessage> Hub<M> {
    /// The next state to be taken into the log; `None` while a visit lists what is to be stated
    /// again.
    pub fn next_state(&mut self, now_ms: u64) -> Option<StateProposal<M>> {
        if self.is_visiting() {
            return None;
        }
        if let Some(state) = self.own_states.as_mut()?.returned.take() {
            return Some(state);
        }
        if let Some(state) = self.next_of_counting() {
            return Some(state);
        }
        let has_room = self.own_states.as_ref().is_some_and(|it| it.under_way < UNDER_WAY);
        if has_room && let Some(state) = self.next_miss() {
            return Some(state);
        }
        loop {
            let own_states = self.own_states.as_mut()?;
            if own_states.under_way >= UNDER_WAY {
                return None;
            }
            let (name, user) = own_states.listed.pop_front()?;
            let Some(at) = self.find(name.app(), name.text(), name.hash()) else { continue };
            let state = match user {
                Some(user) => self.member_state(at, user),
                None => self.count_state(at, now_ms),
            };
            match (state, &mut self.own_states) {
                (Some(state), Some(own_states)) => {
                    own_states.under_way += 1;
                    return Some(StateProposal { app: name.app(), name: name.shared(), state });
                }
                _ => self.release_if_empty(at),
            }
        }
    }

    /// Takes back a state for which there is no room yet.
    pub fn return_state(&mut self, state: StateProposal<M>) {
        if let Some(own_states) = &mut self.own_states {
            own_states.returned = Some(state);
        }
    }

    /// Whether a state can be handed over, or examined.
    pub fn has_states(&self) -> bool {
        !self.is_visiting()
            && self.own_states.as_ref().is_some_and(|it| {
                let is_ready = it.returned.is_some() || self.counting.has_statements();
                let is_empty = it.listed.is_empty() && it.misses.is_empty();
                is_ready || !is_empty && it.under_way < UNDER_WAY
            })
    }

    /// States no end of anything from now on, because the node leaves its cluster: its members stay
    /// until the others remove the node, so that a user who connects to another node has not left.
    pub fn leave_log(&mut self) {
        if let Some(own_states) = &mut self.own_states {
            own_states.is_leaving = true;
        }
    }

    fn member_state(&mut self, at: u32, user: Arc<str>) -> Option<Statement<M>> {
        let is_leaving = self.own_states.as_ref().is_some_and(|it| it.is_leaving);
        let home = self.channels[at as usize].as_mut()?.home.as_mut()?;
        let is_here = home.has_connection(&user);
        let nodes = home.nodes.as_mut()?;
        let own = nodes.own.get_mut(&user)?;
        own.is_listed = false;
        if own.is_proposed || !own.differs(is_here) || is_leaving && !is_here {
            nodes.forget_own(&user);
            return None;
        }
        (own.is_proposed, own.proposes_presence) = (true, is_here);
        let mut member = own.member.clone().filter(|_| is_here);
        if let Some(member) = &mut member
            && own.is_admitted
        {
            Arc::make_mut(member).max = 0;
        }
        Some(Statement::Member { user, member })
    }

    fn count_state(&mut self, at: u32, now_ms: u64) -> Option<Statement<M>> {
        let views = self.asked_views(at);
        let Hub { channels, channel_events, own_states, counting, .. } = self;
        let (own_states, channel) = (own_states.as_mut()?, channels[at as usize].as_mut()?);
        let is_counted = counting.is_counted(channel_events, &channel.name);
        let times = CountTimes {
            linger_ms: own_states.times.linger_ms,
            every_ms: is_counted.then_some(own_states.times.count_every_ms),
        };
        let is_stated = is_counted || channel.name.app() < UNCOUNTED;
        let local = channel.subscribers.len() as u64;
        let home = channel.home.as_mut()?;
        let count = u32::try_from(local + home.remote_count()).unwrap_or(u32::MAX);
        let count = if is_stated { count } else { 0 };
        let own = &mut home.nodes.as_mut()?.own_count;
        own.note_views(views.as_ref());
        own.is_listed = false;
        if own_states.is_leaving && count == 0 {
            return None;
        }
        match own.examine(count, times, now_ms) {
            CountStep::Nothing => None,
            CountStep::Propose(all) => {
                let views = views.filter(|_| all > 0).unwrap_or_default();
                Some(Statement::Count(SubscriberCount { all, views }))
            }
            CountStep::WaitUntil(due_ms) => {
                if own.timer_ms == 0 || due_ms < own.timer_ms {
                    own.timer_ms = due_ms;
                    own_states.timers_made += 1;
                    let timer = (due_ms, own_states.timers_made);
                    own_states.timers.insert(timer, channel.name.clone());
                }
                None
            }
        }
    }

    /// Lists the number of this node's subscribers of a channel, which may have changed. This core
    /// is the channel's home if it states something.
    pub(super) fn list_count(&mut self, at: u32) {
        let views = self.asked_views(at);
        let Hub { channels, channel_events, own_states, counting, core, cores, .. } = self;
        let (Some(own_states), Some(channel)) = (own_states, &mut channels[at as usize]) else {
            return;
        };
        let name = &channel.name;
        let is_asked = counting.is_asked(name.app());
        let is_stated = name.app() < UNCOUNTED || is_asked;
        // What was stated while it was asked for has to end.
        let nodes = channel.home.as_ref().and_then(|home| home.nodes.as_ref());
        let was_stated = nodes.is_some_and(|nodes| !nodes.own_count.is_idle());
        let is_internal = name.text().starts_with('#') || !is_stated && !was_stated;
        if home_among(name.hash(), *cores) != *core || is_internal {
            return;
        }
        let is_counted = counting.is_counted(channel_events, name);
        let local = channel.subscribers.len() as u64;
        let home = channel.home.get_or_insert_default();
        let count = u32::try_from(local + home.remote_count()).unwrap_or(u32::MAX);
        let count = if is_stated { count } else { 0 };
        let own = &mut home.nodes.get_or_insert_default().own_count;
        own.note_views(views.as_ref());
        if !own.is_listed && own.may_differ(count, is_counted) {
            own.is_listed = true;
            own_states.listed.push_back((name.clone(), None));
        }
    }

    /// Lists a user of this node, if the log is not known to agree.
    pub(super) fn list_member(&mut self, at: u32, user: &Arc<str>) {
        let Hub { channels, own_states, .. } = self;
        let (Some(own_states), Some(channel)) = (own_states, &mut channels[at as usize]) else {
            return;
        };
        let Some(home) = &mut channel.home else { return };
        let is_here = home.has_connection(user);
        let Some(nodes) = &mut home.nodes else { return };
        let Some(own) = nodes.own.get_mut(user) else { return };
        if !is_here {
            own.member = None;
        }
        if own.is_listed || own.is_proposed || !own.differs(is_here) {
            return nodes.forget_own(user);
        }
        own.is_listed = true;
        own_states.listed.push_back((channel.name.clone(), Some(user.clone())));
    }

    /// Notes that a state has failed; `user` is `None` for the number of subscribers. Connections
    /// that have waited for a user are refused; of internal channels they go on waiting. What is
    /// true is stated again later.
    pub fn state_failed(
        &mut self,
        app: u32,
        name: &str,
        user: Option<&Arc<str>>,
        why: Unpublished,
        mail: &mut OutgoingMail<M>,
    ) {
        let Some(at) = self.find(app, name, self.hasher.hash(app, name)) else { return };
        let is_unsure = why == Unpublished::Unknown;
        match user {
            Some(user) => self.member_failed(at, user, is_unsure, mail),
            None => self.count_failed(at, is_unsure),
        }
        self.release_if_empty(at);
    }

    fn member_failed(
        &mut self,
        at: u32,
        user: &Arc<str>,
        is_unsure: bool,
        mail: &mut OutgoingMail<M>,
    ) {
        let Hub { channels, own_states, .. } = self;
        let (Some(own_states), Some(channel)) = (own_states, &mut channels[at as usize]) else {
            return;
        };
        let is_internal = channel.name.text().starts_with('#');
        let nodes = channel.home.as_mut().and_then(|home| home.nodes.as_mut());
        let Some(own) = nodes.and_then(|nodes| nodes.own.get_mut(user)) else { return };
        own_states.note_settled(&mut own.is_proposed);
        let waiting = match own.proposes_presence && !is_internal {
            true => std::mem::take(&mut own.waiting),
            false => Vec::new(),
        };
        own_states.note_waiting(own, (&channel.name, user));
        for it in waiting {
            let why = self.refuse_waiting(at, it.conn, JoinRefusal::NotStored);
            self.answer_waiting(at, (it.conn, it.request_id), Err(why), mail);
        }
        let Hub { channels, own_states, .. } = self;
        let (Some(own_states), Some(channel)) = (own_states, &mut channels[at as usize]) else {
            return;
        };
        let Some(home) = &mut channel.home else { return };
        let is_here = home.has_connection(user);
        let Some(nodes) = &mut home.nodes else { return };
        let Some(own) = nodes.own.get_mut(user) else { return };
        // Whoever waits is answered when the presence of the user is back.
        own.is_unsure |= is_unsure || !own.waiting.is_empty();
        if own.differs(is_here) && !own.is_listed {
            own.is_listed = true;
            own_states.failed.push((channel.name.clone(), Some(user.clone())));
        }
        nodes.forget_own(user);
    }

    fn count_failed(&mut self, at: u32, is_unsure: bool) {
        let Hub { channels, own_states, .. } = self;
        let (Some(own_states), Some(channel)) = (own_states, &mut channels[at as usize]) else {
            return;
        };
        let nodes = channel.home.as_mut().and_then(|home| home.nodes.as_mut());
        let Some(own) = nodes.map(|nodes| &mut nodes.own_count) else { return };
        own_states.note_settled(&mut own.is_proposed);
        own.is_unsure |= is_unsure;
        if !own.is_listed {
            own.is_listed = true;
            own_states.failed.push((channel.name.clone(), None));
        }
    }

    /// Forgets what is on its way into the log, because everything is stated again.
    pub(super) fn forget_states(&mut self) {
        self.clear_listed_pictures();
        let Some(own_states) = &mut self.own_states else { return };
        own_states.listed.clear();
        own_states.failed.clear();
        own_states.misses.clear();
        (own_states.returned, own_states.under_way) = (None, 0);
        self.counting.forget_log();
    }

    /// States everything of a channel again that is true here. Returns the number of states.
    pub(super) fn restate_channel(&mut self, at: u32) -> usize {
        let channel = self.channels.get_mut(at as usize).and_then(Option::as_mut);
        let home = channel.and_then(|channel| channel.home.as_mut());
        let Some(nodes) = home.and_then(|home| home.nodes.as_mut()) else { return 0 };
        nodes.own_count.forget_log();
        nodes.miss.forget_log();
        nodes.own.values_mut().for_each(|own| own.forget_log());
        let users: Vec<_> = nodes.own.keys().cloned().collect();
        self.list_count(at);
        self.list_miss(at);
        users.iter().for_each(|user| self.list_member(at, user));
        self.release_if_empty(at);
        users.len() + 1
    }

    /// Lists the numbers of subscribers of all channels that may differ from what the log has.
    pub(super) fn list_counts(&mut self) {
        let channels = (0..).zip(self.channels.iter());
        let all: Vec<u32> = channels.filter_map(|(at, it)| it.as_ref().map(|_| at)).collect();
        all.into_iter().for_each(|at| self.list_count(at));
    }

    /// Lists what is due, and what has failed before.
    pub(super) fn sweep_states(&mut self, now_ms: u64) {
        let Some(own_states) = &mut self.own_states else { return };
        let has_failed = !own_states.failed.is_empty() || own_states.misses.has_failed();
        if own_states.retry_ms <= now_ms && has_failed {
            own_states.misses.retry();
            own_states.retry_ms = now_ms + RETRY_MS;
            let again = own_states.failed.len().min(TIMERS_PER_SWEEP);
            own_states.listed.extend(own_states.failed.drain(..again));
        }
        self.sweep_counting(now_ms);
        let Some(own_states) = &mut self.own_states else { return };
        let mut due = Vec::new();
        while due.len() < TIMERS_PER_SWEEP
            && let Some(timer) = own_states.timers.first_entry()
            && timer.key().0 <= now_ms
        {
            due.push(timer.remove());
        }
        for name in due {
            let Some(at) = self.find(name.app(), name.text(), name.hash()) else { continue };
            let channel = self.channels[at as usize].as_mut();
            let home = channel.and_then(|channel| channel.home.as_mut());
            if let Some(nodes) = home.and_then(|home| home.nodes.as_mut()) {
                nodes.own_count.timer_ms = 0;
            }
            self.list_count(at);
            self.release_if_empty(at);
        }
    }
}
