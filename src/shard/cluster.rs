//! The two ends of a shard that lead to the log of a cluster: what it proposes, and what has come
//! back from the log.

use super::Shard;
use crate::cluster::Arrival;
use crate::dialect::{Event, Proposal, StateProposal, Why, event_from_log};
use crate::hub::{Ack, Answer, ChannelInfo, LogMark, LogPlace, Unpublished};
use crate::session::SessionEvent;
use crate::time::Now;
use crate::work;
use std::sync::Arc;

impl Shard {
    /// Whether nothing more may be read, because too much waits for other cores or for the log.
    pub(super) fn is_congested(&self) -> bool {
        self.mail.up_is_full(self.mail_bound) || self.hub.proposal_count() > self.mail_bound
    }

    /// The oldest event that waits to be taken into the log.
    pub fn next_proposal(&mut self) -> Option<Proposal> {
        self.hub.next_proposal()
    }

    /// Takes back a proposal for which there was no room.
    pub fn return_proposal(&mut self, proposal: Proposal) {
        self.hub.return_proposal(proposal);
    }

    /// The next state of this core that waits to be taken into the log.
    pub fn next_state(&mut self, now: Now) -> Option<StateProposal> {
        self.hub.next_state(now.ms)
    }

    /// Takes back a state for which there was no room.
    pub fn return_state(&mut self, state: StateProposal) {
        self.hub.return_state(state);
    }

    /// Whether proposals or states wait.
    pub fn has_proposals(&self) -> bool {
        self.hub.proposal_count() > 0 || self.hub.has_states()
    }

    /// Lets something that has come from the log take effect.
    pub fn arrive(&mut self, arrival: Arrival, now: Now) {
        self.work.add(work::STEP);
        let Shard { hub, mail, .. } = self;
        match arrival {
            Arrival::Apply { app, channel, mut event, place } => {
                return self.apply((app, &channel), &mut event, place, now);
            }
            Arrival::Room { app } => return self.offer_room(app, now),
            Arrival::Log(start) => return hub.begin_log(start, mail),
            Arrival::Settled { ack, failed } => return self.settle(ack, failed, now),
            Arrival::Gap => return self.close_subscribers(),
            Arrival::Member { app, channel, author, user, member } => {
                let change = (&user, member.as_deref());
                hub.apply_member((app, &channel), author, change, now.ms, mail);
            }
            Arrival::Count { app, channel, author, count } => {
                hub.apply_count((app, &channel), author, count);
            }
            Arrival::Unstated { app, channel, user, why } => {
                hub.state_failed(app, &channel, user.as_ref(), why, mail);
            }
            Arrival::Published { app, channel, client_event } => {
                hub.report_client_event(app, &channel, &client_event);
            }
            Arrival::NodeGone(author) => hub.remove_node(author, mail),
            Arrival::Restate => hub.restate(),
            Arrival::RefreshBegin => hub.begin_refresh(),
            Arrival::RefreshEnd { is_ours } => hub.end_refresh(is_ours, mail),
        }
        // Those who were there before learn of a new member before it learns of them.
        self.deliver_local(now);
        while let Some(reply) = self.hub.next_reply() {
            self.answer(reply, now);
        }
    }

    /// Lets an event of the log take effect, with its place there. This core is the home of the
    /// channel.
    pub fn apply(
        &mut self,
        (app, channel): (u32, &str),
        event: &mut Event,
        place: Option<LogPlace>,
        now: Now,
    ) {
        event_from_log(&self.env, (app, channel), event, place);
        if let Some(at) = self.hub.apply(app, channel, (event, place), now.ms, &mut self.mail) {
            self.deliver_at(at, event, now);
        }
    }

    /// Notes that everything of the log up to a mark has taken effect that is for this core.
    pub fn reach(&mut self, mark: LogMark) {
        self.hub.reach(mark);
    }

    /// Answers a proposal of this core: its event is in the log, or why it is not.
    pub fn settle(&mut self, ack: Ack, failed: Option<(Arc<str>, Unpublished)>, now: Now) {
        let answer = match failed {
            Some((channel, why)) => Answer::Unpublished(channel, why),
            None => Answer::Channel(ChannelInfo::default()),
        };
        self.answered(ack, answer, now);
    }

    /// Closes the connections with subscriptions, because events for them may be missing from the
    /// log. They get nothing more, so that no client takes a later position for its own, and are
    /// closed in slices by the next sweeps, so that their clients do not all reconnect at the same
    /// time.
    pub fn close_subscribers(&mut self) {
        self.hub.mute();
        self.gap = Some(super::drain::Drain::new(self.sessions.end()));
    }

    /// Closes the next slice of these connections.
    pub(super) fn close_slice(&mut self, now: Now) {
        let end = self.sessions.end();
        let Some(gap) = &mut self.gap else { return };
        let slice = gap.next_slice(end);
        if gap.is_done() {
            self.gap = None;
        }
        for index in slice {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            if self.hub.subscription_count(slot) > 0 {
                self.on_event(slot, SessionEvent::CloseFor(Why::Gap), now);
            }
        }
    }
}
