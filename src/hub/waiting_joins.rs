//! Joins of members on a node of a cluster, which wait until the log has their user.

use super::join::{JoinRefusal, JoinReply, JoinRequest};
use super::mail::{Down, OutgoingMail};
use super::name::ConnId;
use super::node_states::WaitingJoin;
use super::own_states::JoinAnswer;
use super::roster::ChannelFull;
use super::{Hub, HubMessage};
use std::sync::Arc;

/// The maximum number of joins that one call of [`Hub::refuse_overdue`] examines.
const OVERDUE: usize = 4096;

impl<M: HubMessage> Hub<M> {
    /// The next answer to a connection of this core whose join has waited for the log.
    pub fn next_reply(&mut self) -> Option<Down<M>> {
        let JoinAnswer { request_id, slot, name, reply } =
            self.own_states.as_mut()?.replies.pop_front()?;
        Some(Down::JoinReply { request_id, slot, name, reply })
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
        now_ms: u64,
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
            let until_ms = now_ms.saturating_add(own_states.times.hold_ms);
            own.waiting.push(WaitingJoin { conn, request_id, until_ms, request });
            own_states.note_waiting(own, (&channel.name, &user));
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
        let Hub { channels, own_states, .. } = self;
        let (Some(own_states), Some(channel)) = (own_states, &mut channels[at as usize]) else {
            return;
        };
        let Some(home) = &mut channel.home else { return };
        let Some(user) = home.user_of(conn) else { return };
        home.exit(conn);
        let Some(nodes) = &mut home.nodes else { return };
        if let Some(own) = nodes.own.get_mut(&user) {
            own.waiting.retain(|it| it.conn != conn);
            own_states.note_waiting(own, (&channel.name, &user));
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
        own_states.note_waiting(own, (&channel.name, user));
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

    /// Refuses joins that have waited for the log as long as they may. What a node states waits for
    /// its turn, so a join may have waited that long before its user was proposed.
    pub fn refuse_overdue(&mut self, now_ms: u64, mail: &mut OutgoingMail<M>) {
        for _ in 0..OVERDUE {
            let Some(own_states) = &mut self.own_states else { return };
            let Some(first) = own_states.deadlines.first_entry().filter(|it| it.key().0 <= now_ms)
            else {
                return;
            };
            let (name, user) = first.remove();
            let Some(at) = self.find(name.app(), name.text(), name.hash()) else { continue };
            let Hub { channels, own_states, .. } = self;
            let home = channels[at as usize].as_mut().and_then(|it| it.home.as_mut());
            let nodes = home.and_then(|home| home.nodes.as_mut());
            let Some(own) = nodes.and_then(|nodes| nodes.own.get_mut(&user)) else { continue };
            let overdue: Vec<_> = own.waiting.extract_if(.., |it| it.until_ms <= now_ms).collect();
            if let Some(own_states) = own_states {
                own_states.note_waiting(own, (&name, &user));
            }
            for it in overdue {
                let why = self.refuse_waiting(at, it.conn, JoinRefusal::NotStored);
                self.answer_waiting(at, (it.conn, it.request_id), Err(why), mail);
            }
            self.list_member(at, &user);
            self.release_if_empty(at);
        }
    }

    /// The number of users of channels with joins that wait for the log, and of joins that were
    /// refused since the last call because the log did not have their user in time.
    pub fn waiting_joins(&mut self) -> (usize, u64) {
        let Some(own_states) = &mut self.own_states else { return (0, 0) };
        (own_states.deadlines.len(), std::mem::take(&mut own_states.joins_refused))
    }

    pub(super) fn refuse_waiting(
        &mut self,
        at: u32,
        conn: ConnId,
        why: JoinRefusal,
    ) -> JoinRefusal {
        if let (JoinRefusal::NotStored, Some(own_states)) = (why, &mut self.own_states) {
            own_states.joins_refused += 1;
        }
        let channel = self.channels[at as usize].as_mut();
        if let Some(home) = channel.and_then(|channel| channel.home.as_mut()) {
            home.exit(conn);
        }
        why
    }

    pub(super) fn answer_waiting(
        &mut self,
        at: u32,
        (conn, request_id): (ConnId, u32),
        reply: Result<JoinReply, JoinRefusal>,
        mail: &mut OutgoingMail<M>,
    ) {
        let Some(channel) = &self.channels[at as usize] else { return };
        let (slot, name) = (conn.slot, channel.name.clone());
        match &mut self.own_states {
            Some(own_states) if conn.core == self.core => {
                own_states.replies.push_back(JoinAnswer { request_id, slot, name, reply });
            }
            _ => mail.down(conn.core, Down::JoinReply { request_id, slot, name, reply }),
        }
    }
}
