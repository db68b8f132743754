//! Mail between this core and the others: requests to the homes of channels, and their deliveries
//! and answers.

use super::Shard;
use crate::dialect::JoinOutcome;
use crate::dialect::{Down, OutgoingMail, Up};
use crate::hub::{Ack, Answer, ChannelName, Form, JoinRefusal};
use crate::mem::Slot;
use crate::session::SessionEvent;
use crate::time::Now;
use crate::work;

impl Shard {
    /// Outgoing mail to the other cores.
    pub fn mail(&mut self) -> &mut OutgoingMail {
        &mut self.mail
    }

    /// Whether requests of other cores can be taken now.
    pub fn takes_requests(&self) -> bool {
        !self.mail.down_is_full(self.mail_bound)
    }

    /// Whether commands from outside the cores, such as those of the control thread, can be taken
    /// now.
    pub fn takes_commands(&self) -> bool {
        self.takes_requests() && !self.mail.up_is_full(self.mail_bound)
    }

    /// Handles a request from core `from`.
    pub fn request(&mut self, from: u16, request: Up, now: Now) {
        self.work.add(work::EFFECT);
        match request {
            Up::Message { to, what } => return self.forward(to, what, now),
            Up::Query { ref query, .. } => self.charge_query(query),
            _ => {}
        }
        let published = self.hub.request(from, request, now.ms, &mut self.mail);
        if let Some((name, event)) = published {
            self.deliver(&name, &event, now);
        }
        self.deliver_local(now);
    }

    /// Handles a delivery or an answer from the home of a channel.
    pub fn answer(&mut self, answer: Down, now: Now) {
        self.work.add(work::STEP);
        match answer {
            Down::Deliver { name, event } => self.deliver(&name, &event, now),
            Down::Interested { request_id, name, granted: false } => {
                self.join_refused(request_id, &name, now);
            }
            Down::Interested { request_id, name, granted: true } => {
                for subscriber in self.hub.interested(request_id, &name) {
                    if let Some(slot) = self.sessions.slot_at(subscriber.slot) {
                        let joined = JoinOutcome::Joined(None);
                        self.on_joined(slot, (&name, subscriber.form), joined, now);
                    }
                }
            }
            Down::Message { slot, what } => self.deliver_message(slot, &what, now),
            Down::LogBegan { home, log } => self.hub.log_began(home, log),
            Down::Answer { ack, answer } => self.answered(ack, answer, now),
            Down::JoinReply { request_id, slot, name, reply } => {
                let granted = reply.is_ok();
                let form = self.hub.form_of(slot, &name).unwrap_or_default();
                if self.hub.on_join_reply(request_id, slot, &name, granted, &mut self.mail) {
                    let outcome = match reply {
                        Ok(reply) => JoinOutcome::Joined(Some(reply)),
                        Err(why) => self.join_refusal(why),
                    };
                    self.on_joined(slot, (&name, form), outcome, now);
                }
            }
        }
    }

    /// Reports the outcome of a join, under the name by which the connection knows the channel.
    fn on_joined(
        &mut self,
        slot: Slot,
        (name, form): (&ChannelName, Form),
        outcome: JoinOutcome,
        now: Now,
    ) {
        let in_view = (form.view != 0).then(|| self.env.links.name_in(form.view, name.text()));
        let in_view = in_view.flatten();
        let (name, source) = (in_view.as_deref().unwrap_or(name.text()), name.text());
        self.on_event(slot, SessionEvent::Joined { name, source, form, outcome }, now);
    }

    /// Handles the refusal of a new channel by its home: every subscriber that waited here gets the
    /// outcome of its join.
    fn join_refused(&mut self, request_id: u32, name: &ChannelName, now: Now) {
        for index in self.hub.join_refused(request_id, name) {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            let form = self.hub.form_of(slot, name).unwrap_or_default();
            self.hub.leave(slot, name.app(), name.text(), &mut self.mail);
            let outcome = self.join_refusal(JoinRefusal::NoRoom);
            self.on_joined(slot, (name, form), outcome, now);
        }
    }

    /// The outcome of a subscription that was refused by the channel's home. It was counted while
    /// it waited.
    fn join_refusal(&mut self, why: JoinRefusal) -> JoinOutcome {
        self.counters.subscriptions.sub(1);
        match why {
            JoinRefusal::ChannelFull => JoinOutcome::ChannelFull,
            JoinRefusal::NotStored => JoinOutcome::NotStored,
            JoinRefusal::NoRoom => {
                self.counters.refused_channels.add(1);
                JoinOutcome::NoRoom
            }
        }
    }

    pub(super) fn answered(&mut self, ack: Ack, answer: Answer, now: Now) {
        let answer = self.in_view(answer);
        let mark = self.effects.len();
        let Some((session, mut cx)) = self.session(ack.slot, now) else { return };
        let Ack { ticket, part, .. } = ack;
        session.on(SessionEvent::Answered { ticket, part, answer }, &mut cx);
        session.on(SessionEvent::Acked(ticket), &mut cx);
        session.settle(&mut cx);
        self.run_effects(mark, now);
        self.try_resume(ack.slot, now);
        self.list(ack.slot);
    }
}
