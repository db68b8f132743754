//! The two ends of a shard that lead to the log of a cluster: what it proposes, and what has come
//! back from the log.

use super::Shard;
use crate::cluster::{AddedStart, Arrival};
use crate::dialect::{Event, Proposal, StateProposal, Why, event_from_log, picture_envelope};
use crate::hub::{
    Ack, Answer, ChannelInfo, CountedNumbers, LogMark, LogPlace, PicturePiece, StateVisit,
    Unpublished,
};
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
        // The drain may close connections of other cores before this core begins to drain.
        if self.env.runtime.departure.is_draining() {
            self.hub.leave_log();
        }
        self.hub.next_state(now.ms).or_else(|| self.hub.next_picture())
    }

    /// Takes back a state for which there was no room.
    pub fn return_state(&mut self, state: StateProposal) {
        self.hub.return_state(state);
    }

    /// Whether proposals or states wait.
    pub fn has_proposals(&self) -> bool {
        self.hub.proposal_count() > 0 || self.hub.has_states()
    }

    /// Lets something that has come from the log take effect. What changes all channels takes
    /// effect in the slices of [`Shard::continue_visit`], the first of them at once.
    pub fn arrive(&mut self, arrival: Arrival, now: Now) {
        while self.is_visiting() {
            self.visit_slice(now);
        }
        self.work.add(work::STEP);
        let Shard { hub, mail, .. } = self;
        match arrival {
            Arrival::Tell { to, what } => return self.forward(to, what, now),
            Arrival::Apply { app, channel, mut event, place } => {
                return self.apply((app, &channel), &mut event, place, now);
            }
            Arrival::Room { app } => return self.offer_room(app, now),
            Arrival::Fold { app, channel, event, place } => {
                return hub.fold_picture((app, &channel), &event, place, now.ms);
            }
            Arrival::Picture { app, channel, piece, is_ours } => {
                return self.take_picture((app, &channel), &piece, is_ours, now);
            }
            Arrival::PictureUnstated { app, channel } => {
                return hub.picture_failed(app, &channel, now.ms);
            }
            Arrival::Log(start) => hub.begin_log(start, mail),
            Arrival::AddedApp { app, start } => return self.note_added(app, start),
            Arrival::Settled { ack, failed } => return self.settle(ack, failed, now),
            Arrival::Gap => return self.close_subscribers(),
            Arrival::Member { app, channel, author, user, member } => {
                let change = (&user, member.as_deref());
                hub.apply_member((app, &channel), author, change, now.ms, mail);
            }
            Arrival::Count { app, channel, author, count } => {
                hub.apply_count((app, &channel), author, count);
            }
            Arrival::Miss { app, channel, author, missed } => {
                hub.apply_miss((app, &channel), author, missed);
            }
            Arrival::MissUnstated { app, channel, is_unsure } => {
                hub.miss_failed((app, &channel), is_unsure);
            }
            Arrival::Counting { numbers, step } => hub.on_counting(numbers, step, now.ms),
            Arrival::Counted { numbers, is_whole } => self.note_counted(numbers, is_whole, now),
            Arrival::Uncounted { numbers } => hub.counting_failed(numbers),
            Arrival::Unstated { app, channel, user, why } => {
                hub.state_failed(app, &channel, user.as_ref(), why, mail);
            }
            Arrival::Published { app, channel, client_event } => {
                hub.report_client_event(app, &channel, &client_event);
            }
            Arrival::NodeGone(author) => return self.visit(StateVisit::NodeGone(author), now),
            Arrival::Restate => return self.visit(StateVisit::Restate, now),
            Arrival::RefreshBegin => return self.visit(StateVisit::RefreshBegin, now),
            Arrival::RefreshEnd { is_ours } => {
                return self.visit(StateVisit::RefreshEnd { is_ours }, now);
            }
        }
        // Those who were there before learn of a new member before it learns of them.
        self.deliver_local(now);
        // Another log begins a visit.
        self.continue_visit(now);
        while let Some(reply) = self.hub.next_reply() {
            self.answer(reply, now);
        }
    }

    /// Notes what this node knows of the log about an application that a reload has added.
    fn note_added(&mut self, app: u32, start: AddedStart) {
        self.hub.begin_added(app, start.known_after);
        if let Some(app) = self.env.apps.find(app).filter(|_| start.is_read) {
            app.note_core();
        }
    }

    fn note_counted(&mut self, numbers: CountedNumbers, is_whole: bool, now: Now) {
        self.hub.note_counted(numbers, is_whole, now.ms);
        self.answer_counted(now);
    }

    /// Answers the reads that have waited for the numbers of subscribers of all nodes.
    pub(super) fn answer_counted(&mut self, now: Now) {
        while let Some((core, ack, answer)) = self.hub.next_counted() {
            match core == self.core {
                true => self.answered(ack, answer, now),
                false => self.mail.answer(core, ack, answer),
            }
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

    /// Takes a piece of the picture of a channel. This core is the home of the channel.
    fn take_picture(
        &mut self,
        (app, channel): (u32, &str),
        piece: &PicturePiece,
        is_ours: bool,
        now: Now,
    ) {
        let whole = self.hub.note_picture_piece((app, channel), piece, is_ours);
        let Some(bytes) = whole else { return };
        let whole = (piece.serial, &*bytes);
        let is_read = picture_envelope((app, channel)).is_some_and(|envelope| {
            let with = (envelope, self.env.compresses);
            self.hub.adopt_picture((app, channel), whole, with, now.ms)
        });
        if !is_read {
            self.counters.kept_dropped.add(1);
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
