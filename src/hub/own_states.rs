//! What this node states in the log of its cluster: which users are here, and how many subscribers.
//!
//! A state is proposed whenever the truth differs from what the log has, as far as that is known,
//! and nothing of the same subject is on its way. So it does not matter which proposals are lost:
//! in the end the log agrees with what is true here. A joining connection of a user whom the log
//! does not have waits for that.

use super::join::{JoinRefusal, JoinReply, JoinRequest};
use super::mail::{Down, OutgoingMail, Unpublished};
use super::name::{ChannelName, ConnId, home_among};
use super::node_states::{CountStep, CountTimes, WaitingJoin};
use super::roster::{ChannelFull, Member};
use super::{EventMask, Hub, HubMessage};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The maximum number of states of one core that are on their way into the log. The others wait
/// here, so that they leave room for events.
const UNDER_WAY: usize = 1024;

/// The time between two attempts to state what has failed, in milliseconds.
const RETRY_MS: u64 = 1000;

/// A state of this node that waits to be taken into the log, in place of the earlier one of the
/// same subject.
#[derive(Clone, Debug)]
pub struct StateProposal<M> {
    /// The application's number.
    pub app: u32,
    /// The channel.
    pub name: Arc<str>,
    /// The state.
    pub state: Statement<M>,
}

/// What a node states of a channel.
#[derive(Clone, Debug)]
pub enum Statement<M> {
    /// Whether a user has connections here.
    Member {
        /// The user's id.
        user: Arc<str>,
        /// The user; `None` if it has no connection here any more.
        member: Option<Arc<Member<M>>>,
    },
    /// The number of subscribers here.
    Count(u32),
}

/// How a node states its numbers of subscribers.
#[derive(Clone, Copy, Debug)]
pub struct StateTimes {
    /// How long a channel has no subscriber here before that is stated, in milliseconds.
    pub linger_ms: u64,
    /// The time between two statements of numbers above 0, in milliseconds.
    pub count_every_ms: u64,
}

/// The subject of a state: the channel, and the user; without a user the number of subscribers.
type Subject = (ChannelName, Option<Arc<str>>);

/// What waits in the hub of a node of a cluster.
pub(super) struct OwnStates<M> {
    times: StateTimes,
    /// What is to be examined, each subject once.
    listed: VecDeque<Subject>,
    /// What is to be examined from `retry_ms` on, because a proposal has failed.
    failed: Vec<Subject>,
    retry_ms: u64,
    /// Numbers of subscribers that are to be examined at a time in milliseconds.
    timers: BTreeMap<(u64, u64), ChannelName>,
    timers_made: u64,
    under_way: usize,
    returned: Option<StateProposal<M>>,
    /// Answers to connections of this core whose joins have waited.
    replies: VecDeque<Down<M>>,
    /// Whether the node leaves its cluster: what ends here is not stated any more.
    is_leaving: bool,
}

impl<M> OwnStates<M> {
    pub(super) fn new(times: StateTimes) -> OwnStates<M> {
        OwnStates {
            times,
            listed: VecDeque::new(),
            failed: Vec::new(),
            retry_ms: 0,
            timers: BTreeMap::new(),
            timers_made: 0,
            under_way: 0,
            returned: None,
            replies: VecDeque::new(),
            is_leaving: false,
        }
    }

    /// Notes that a state of a subject is not on its way any more.
    pub(super) fn note_settled(&mut self, is_proposed: &mut bool) {
        self.under_way -= usize::from(std::mem::take(is_proposed)).min(self.under_way);
    }
}

impl<M: HubMessage> Hub<M> {
    /// The next state to be taken into the log.
    pub fn next_state(&mut self, now_ms: u64) -> Option<StateProposal<M>> {
        if let Some(state) = self.own_states.as_mut()?.returned.take() {
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
        self.own_states.as_ref().is_some_and(|it| {
            it.returned.is_some() || !it.listed.is_empty() && it.under_way < UNDER_WAY
        })
    }

    /// The next answer to a connection of this core whose join has waited for the log.
    pub fn next_reply(&mut self) -> Option<Down<M>> {
        self.own_states.as_mut()?.replies.pop_front()
    }

    /// States no end of anything from now on, because the node leaves its cluster: its members stay
    /// until the others remove the node, so that whoever comes back elsewhere has never left.
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
        let Hub { channels, channel_events, own_states, .. } = self;
        let (own_states, channel) = (own_states.as_mut()?, channels[at as usize].as_mut()?);
        let is_counted = channel_events.wanted(&channel.name).has(EventMask::TOTALS);
        let times = CountTimes {
            linger_ms: own_states.times.linger_ms,
            every_ms: is_counted.then_some(own_states.times.count_every_ms),
        };
        let local = channel.subscribers.len() as u64;
        let home = channel.home.as_mut()?;
        let count = u32::try_from(local + home.remote_count()).unwrap_or(u32::MAX);
        let own = &mut home.nodes.as_mut()?.own_count;
        own.is_listed = false;
        if own_states.is_leaving && count == 0 {
            return None;
        }
        match own.examine(count, times, now_ms) {
            CountStep::Nothing => None,
            CountStep::Propose(count) => Some(Statement::Count(count)),
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
        let Hub { channels, channel_events, own_states, core, cores, .. } = self;
        let (Some(own_states), Some(channel)) = (own_states, &mut channels[at as usize]) else {
            return;
        };
        let name = &channel.name;
        if home_among(name.hash(), *cores) != *core || name.text().starts_with('#') {
            return;
        }
        let is_counted = channel_events.wanted(name).has(EventMask::TOTALS);
        let local = channel.subscribers.len() as u64;
        let home = channel.home.get_or_insert_default();
        let count = u32::try_from(local + home.remote_count()).unwrap_or(u32::MAX);
        let own = &mut home.nodes.get_or_insert_default().own_count;
        if !own.is_listed && own.may_differ(count, is_counted) {
            own.is_listed = true;
            own_states.listed.push_back((name.clone(), None));
        }
    }

    /// Lists a user of this node, if the log is not known to agree.
    fn list_member(&mut self, at: u32, user: &Arc<str>) {
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

    /// Lets a connection join as a member. Returns its request if the user is present by this node
    /// already; otherwise the answer comes when the log has the user.
    ///
    /// # Errors
    /// The channel has its maximum number of members.
    pub(super) fn enter_by_log(
        &mut self,
        (conn, request_id): (ConnId, u32),
        at: u32,
        mut request: JoinRequest<M>,
    ) -> Result<Option<JoinRequest<M>>, ChannelFull> {
        let (Some(own_states), Some(channel)) =
            (&mut self.own_states, &mut self.channels[at as usize])
        else {
            return Ok(Some(request));
        };
        let Some(member) = request.member.take() else { return Ok(Some(request)) };
        let home = channel.home.get_or_insert_default();
        let nodes = home.nodes.get_or_insert_default();
        let is_new = !nodes.present.has(&member.id) && !nodes.own.contains_key(&member.id);
        if is_new && member.max > 0 && nodes.present.len() >= member.max {
            return Err(ChannelFull);
        }
        // The channel is occupied before it has a member.
        if !nodes.own_count.is_listed && nodes.own_count.logged == 0 {
            nodes.own_count.is_listed = !channel.name.text().starts_with('#');
            if nodes.own_count.is_listed {
                own_states.listed.push_back((channel.name.clone(), None));
            }
        }
        let user = member.id.clone();
        let is_there = nodes.present.has(&user);
        let own = nodes.own.entry(user.clone()).or_default();
        let is_sure = own.is_logged && !own.is_unsure && !own.is_proposed;
        let is_present = is_there && own.is_admitted && is_sure;
        if !is_present {
            // Something must come back that answers it.
            own.is_unsure |= own.is_logged && !own.is_proposed;
            own.waiting.push(WaitingJoin { conn, request_id, request });
            request = JoinRequest::default();
        }
        home.enter(conn, &member, 0)?;
        if let Some(own) = home.nodes.as_mut().and_then(|nodes| nodes.own.get_mut(&user)) {
            own.member.get_or_insert_with(|| Arc::from(member));
        }
        self.list_member(at, &user);
        Ok(is_present.then_some(request))
    }

    /// Removes a member's connection. The others learn of it when the log has it.
    pub(super) fn exit_by_log(&mut self, conn: ConnId, at: u32) {
        let channel = &mut self.channels[at as usize];
        let Some(home) = channel.as_mut().and_then(|channel| channel.home.as_mut()) else { return };
        let Some(user) = home.user_of(conn) else { return };
        home.exit(conn);
        let Some(nodes) = &mut home.nodes else { return };
        if let Some(own) = nodes.own.get_mut(&user) {
            own.waiting.retain(|it| it.conn != conn);
        }
        self.list_member(at, &user);
    }

    /// Notes what the log has of a user of this node: answers the connections that have waited, and
    /// lists the user if something else is true by now.
    pub(super) fn note_member_logged(
        &mut self,
        at: u32,
        user: &Arc<str>,
        (is_logged, is_full): (bool, bool),
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) {
        let Hub { channels, own_states, .. } = self;
        let (Some(own_states), Some(channel)) = (own_states, &mut channels[at as usize]) else {
            return;
        };
        let nodes = channel.home.get_or_insert_default().nodes.get_or_insert_default();
        let own = nodes.own.entry(user.clone()).or_default();
        own_states.note_settled(&mut own.is_proposed);
        (own.is_logged, own.is_unsure) = (is_logged, false);
        own.is_admitted = is_logged && !is_full;
        let waiting = if is_logged { std::mem::take(&mut own.waiting) } else { Vec::new() };
        for it in waiting {
            let reply = match is_full {
                true => Err(self.refuse_waiting(at, it.conn, JoinRefusal::ChannelFull)),
                false => Ok(self.reply(it.conn, at, it.request, true, now_ms)),
            };
            if matches!(&reply, Ok(JoinReply { cached: Some(None), .. })) {
                self.note_cache_miss(at);
            }
            self.answer_waiting(at, (it.conn, it.request_id), reply, mail);
        }
        self.list_member(at, user);
    }

    fn refuse_waiting(&mut self, at: u32, conn: ConnId, why: JoinRefusal) -> JoinRefusal {
        let channel = self.channels[at as usize].as_mut();
        if let Some(home) = channel.and_then(|channel| channel.home.as_mut()) {
            home.exit(conn);
        }
        why
    }

    fn answer_waiting(
        &mut self,
        at: u32,
        (conn, request_id): (ConnId, u32),
        reply: Result<JoinReply, JoinRefusal>,
        mail: &mut OutgoingMail<M>,
    ) {
        let Some(channel) = &self.channels[at as usize] else { return };
        let (slot, name) = (conn.slot, channel.name.clone());
        let answer = Down::JoinReply { request_id, slot, name, reply };
        match &mut self.own_states {
            Some(own_states) if conn.core == self.core => own_states.replies.push_back(answer),
            _ => mail.down(conn.core, answer),
        }
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

    /// States everything again that is true here, because this node has another id or the log is
    /// another one.
    pub fn restate(&mut self) {
        let Some(own_states) = &mut self.own_states else { return };
        own_states.listed.clear();
        own_states.failed.clear();
        (own_states.returned, own_states.under_way) = (None, 0);
        let mut to_list = Vec::new();
        for (at, channel) in (0..).zip(self.channels.iter_mut()) {
            let Some(channel) = channel else { continue };
            let Some(nodes) = channel.home.as_mut().and_then(|home| home.nodes.as_mut()) else {
                continue;
            };
            nodes.own_count.forget_log();
            nodes.own.values_mut().for_each(|own| own.forget_log());
            to_list.push((at, nodes.own.keys().cloned().collect::<Vec<_>>()));
        }
        for (at, users) in to_list {
            self.list_count(at);
            users.iter().for_each(|user| self.list_member(at, user));
            self.release_if_empty(at);
        }
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
        if own_states.retry_ms <= now_ms && !own_states.failed.is_empty() {
            own_states.retry_ms = now_ms + RETRY_MS;
            own_states.listed.extend(own_states.failed.drain(..));
        }
        let mut due = Vec::new();
        while let Some(timer) = own_states.timers.first_entry()
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
