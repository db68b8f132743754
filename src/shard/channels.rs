//! The effects of sessions on the hub: joining, publishing, querying, delivering.

use super::Shard;
use crate::config::SlowConsumer;
use crate::dialect::{self, Closing, Effect, JoinOutcome, Why, is_public};
use crate::hub::{
    Ack, Answer, ChannelName, ConnId, DialectMessage, Event, EventPayload, Join, JoinRefusal,
    Joined, Published, Query,
};
use crate::mem::Slot;
use crate::session::Broadcast;
use crate::time::Now;
use crate::work::{self, WorkKind};

impl Shard {
    pub(super) fn act(&mut self, slot: Slot, effect: Effect, now: Now) {
        self.work.charge(WorkKind::Effect, work::EFFECT);
        match effect {
            Effect::Join { app, name, max, request } => {
                let is_public = is_public(&self.env, app, &name);
                let join = Join { slot, app, name: &name, max, is_public, request };
                let outcome = match self.hub.join(join, now.ms, &mut self.mail) {
                    Joined::Later => return self.counters.subscriptions.add(1),
                    Joined::Now(reply) => {
                        self.counters.subscriptions.add(1);
                        // The present members are informed before the new one.
                        self.deliver_local(now);
                        JoinOutcome::Joined(reply)
                    }
                    Joined::Already => JoinOutcome::Already,
                    Joined::SubscriptionLimit => JoinOutcome::SubscriptionLimit,
                    Joined::ChannelFull => JoinOutcome::ChannelFull,
                    Joined::NoRoom => {
                        self.counters.refused_channels.add(1);
                        JoinOutcome::NoRoom
                    }
                };
                if let Some((session, mut cx)) = self.session(slot, now) {
                    Shard::deliver_outcome(session, &name, outcome, &mut cx);
                }
            }
            Effect::Leave { app, name } => {
                if self.hub.leave(slot, app, &name, &mut self.mail) {
                    self.counters.subscriptions.sub(1);
                    self.deliver_local(now);
                }
            }
            Effect::Publish { app, name, event, part } => {
                self.publish(slot, app, &name, &event, part, now);
            }
            Effect::PublishIfSubscribed { app, name, event } => {
                if self.hub.is_subscribed(slot, app, &name) {
                    self.publish(slot, app, &name, &event, 0, now);
                } else if let Some((session, mut cx)) = self.session(slot, now) {
                    session.not_subscribed(&name, &mut cx);
                }
            }
            Effect::Query { query, part } => self.query(slot, &query, part, now),
            Effect::Message { to, what } => self.deliver_anywhere(to, what, now),
            Effect::MessageInOrder { app, name, to, what } => match self.hub.home(app, &name) {
                home if home == self.core => self.forward(to, what, now),
                home => self.mail.message(home, to, what),
            },
        }
    }

    /// Handles the refusal of a new channel by its home: every subscriber that waited here gets the
    /// outcome of its join.
    pub(super) fn join_refused(&mut self, request_id: u32, name: &ChannelName, now: Now) {
        for index in self.hub.join_refused(request_id, name) {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            self.hub.leave(slot, name.app(), name.text(), &mut self.mail);
            let outcome = self.join_refusal(JoinRefusal::NoRoom);
            self.on_joined(slot, name.text(), outcome, now);
        }
    }

    /// The outcome of a subscription that was refused by the channel's home. It was counted while
    /// it waited.
    pub(super) fn join_refusal(&mut self, why: JoinRefusal) -> JoinOutcome {
        self.counters.subscriptions.sub(1);
        match why {
            JoinRefusal::ChannelFull => JoinOutcome::ChannelFull,
            JoinRefusal::NoRoom => {
                self.counters.refused_channels.add(1);
                JoinOutcome::NoRoom
            }
        }
    }

    /// Delivers a message to the dialect of a connection, on any core.
    pub fn deliver_anywhere(&mut self, to: ConnId, what: DialectMessage, now: Now) {
        match to.core == self.core {
            true => self.deliver_message(to.slot, &what, now),
            false => self.mail.message(to.core, to, what),
        }
    }

    /// Delivers such a message after everything that this core has ordered before as the home of a
    /// channel.
    pub(super) fn forward(&mut self, to: ConnId, what: DialectMessage, now: Now) {
        match to.core == self.core {
            true => self.deliver_message(to.slot, &what, now),
            false => self.mail.forward(to, what),
        }
    }

    fn publish(&mut self, slot: Slot, app: u32, name: &str, event: &Event, part: u16, now: Now) {
        self.counters.published.add(1);
        let ticket = self.sessions.get_mut(slot).and_then(|it| it.ticket_of_publish(part));
        let ack = ticket.map(|ticket| Ack { slot, ticket, part });
        match self.hub.publish(app, name, event, ack, now.ms, &mut self.mail) {
            Published::Ordered(at) => self.deliver_at(at, event, now),
            Published::NotSubscribed => {}
            Published::Sent => {
                if let (Some(ticket), Some(session)) = (ticket, self.sessions.get_mut(slot)) {
                    session.await_ack(ticket);
                }
                return;
            }
        }
        let Some(ticket) = ticket else { return };
        let collects = self.sessions.get_mut(slot).is_some_and(|it| it.collects_answers(ticket));
        if collects {
            let channel_info = self.hub.channel_info(&self.hub.name(app, name), now.ms);
            if let Some((session, mut cx)) = self.session(slot, now) {
                session.answered(ticket, part, Answer::Channel(channel_info), &mut cx);
            }
        }
    }

    /// Publishes an event by a command from outside the cores.
    pub fn publish_command(&mut self, app: u32, name: &str, event: &Event, now: Now) {
        self.counters.published.add(1);
        self.announce(app, name, event, now);
    }

    /// Publishes an event of the server itself to a channel.
    pub(super) fn announce(&mut self, app: u32, name: &str, event: &Event, now: Now) {
        let published = self.hub.publish(app, name, event, None, now.ms, &mut self.mail);
        if let Published::Ordered(at) = published {
            self.deliver_at(at, event, now);
        }
    }

    /// Delivers an event that this core has ordered to its subscribers of the channel at `at`.
    fn deliver_at(&mut self, at: u32, event: &Event, now: Now) {
        let received = self.hub.subscribers_at(at).iter().filter(|it| it.is_active());
        self.subscribers.extend(received.map(|it| it.slot));
        self.deliver_to_listed(event, now);
    }

    /// Counts the work of a query that visits every channel of this core. The work for lists of
    /// members is counted when they are answered.
    pub(super) fn charge_query(&self, query: &Query) {
        if let Query::Channels { .. } = query {
            let channels = self.hub.channel_count() as u64;
            self.work.charge(WorkKind::Listing, work::LISTED * channels);
        }
    }

    fn query(&mut self, slot: Slot, query: &Query, part: u16, now: Now) {
        self.charge_query(query);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        // A WebSocket has no tickets; it matches answers by their part.
        let ticket = session.ticket().unwrap_or_default();
        let ack = Ack { slot, ticket, part };
        let (ours, others) = self.hub.put(query, ack, now.ms, &mut self.mail);
        for _ in 0..others {
            session.await_ack(ticket);
        }
        if let Some(answer) = ours
            && let Some((session, mut cx)) = self.session(slot, now)
        {
            if let Answer::Users(users) = &answer {
                cx.work.charge(WorkKind::Listing, work::LISTED * users.len() as u64);
            }
            session.answered(ticket, part, answer, &mut cx);
        }
    }

    /// Delivers the hub's own events to the subscribers on this core.
    pub(super) fn deliver_local(&mut self, now: Now) {
        while let Some((name, event)) = self.hub.next_local() {
            self.deliver(&name, &event, now);
        }
    }

    pub(super) fn deliver(&mut self, name: &ChannelName, event: &Event, now: Now) {
        let received = self.hub.subscribers(name).iter().filter(|it| it.is_active());
        self.subscribers.extend(received.map(|it| it.slot));
        self.deliver_to_listed(event, now);
    }

    /// Delivers the event to all connections in `self.subscribers`, and empties that list.
    fn deliver_to_listed(&mut self, event: &Event, now: Now) {
        if self.subscribers.is_empty() {
            return;
        }
        match &event.payload {
            EventPayload::Nothing => self.subscribers.clear(),
            EventPayload::Frame(shared) => {
                self.broadcast_to_listed(Broadcast::of_frame(shared), event.except, now);
            }
            EventPayload::Value(encodings) => {
                self.broadcast_to_listed(Broadcast::of_value(encodings), event.except, now);
            }
            EventPayload::Message(message) => {
                self.deliver_message_to_listed(message, event.except, now);
            }
            EventPayload::Close(code, reason) => {
                self.close_listed(&Closing::new(*code, reason), now);
            }
        }
    }

    /// Queues frames for all connections in `self.subscribers`, and empties that list.
    fn broadcast_to_listed(
        &mut self,
        mut broadcast: Broadcast<'_>,
        except: Option<ConnId>,
        now: Now,
    ) {
        self.work.charge(WorkKind::Delivery, work::DELIVERY * self.subscribers.len() as u64);
        let limits = &self.env.config.limits;
        let except = except.filter(|conn| conn.core == self.core).map(|conn| conn.slot);
        let mut delivered = 0;
        let mut slow = Vec::new();
        for index in self.subscribers.drain(..) {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            if except == Some(slot) {
                continue;
            }
            let Some(session) = self.sessions.at_mut(index) else { continue };
            let bound = limits.write_queue_bytes;
            match session.deliver(&mut broadcast, &mut self.codecs, bound, now.ms) {
                Ok(true) => delivered += 1,
                Ok(false) => self.counters.http_streams_unsaid.add(1),
                Err(_) => slow.push(slot),
            }
            if !session.listed {
                session.listed = true;
                self.listed.push_back(slot);
            }
        }
        self.counters.deliveries.add(delivered);
        for slot in slow {
            self.too_slow(slot, self.env.config.slow_consumer, now);
        }
    }

    fn too_slow(&mut self, slot: Slot, policy: SlowConsumer, now: Now) {
        match policy {
            SlowConsumer::Drop => self.counters.slow_consumer_dropped.add(1),
            SlowConsumer::Close => {
                self.counters.slow_consumer_closed.add(1);
                self.close_for(slot, Why::Slow, now);
            }
        }
    }

    /// Delivers a message to the dialect of one connection on this core.
    pub(super) fn deliver_message(&mut self, slot: Slot, what: &DialectMessage, now: Now) {
        if !self.sessions.get_mut(slot).is_some_and(|it| it.is_open_socket()) {
            let mut effects = Vec::new();
            dialect::on_undelivered(what, &mut effects);
            return effects.into_iter().for_each(|effect| self.act(slot, effect, now));
        }
        // Effects of another session that is being served must not run for this one.
        let others = std::mem::take(&mut self.effects);
        if let Some((session, mut cx)) = self.session(slot, now) {
            let bound = session.queue_bytes(cx.env);
            let queued = session.on_message(what, bound, &mut cx);
            let policy = queued.map_err(|_| session.overrun(cx.env));
            self.after(slot, now);
            self.list(slot);
            match policy {
                Ok(()) => self.counters.deliveries.add(1),
                Err(policy) => self.too_slow(slot, policy, now),
            }
        }
        self.effects = others;
    }

    /// Delivers a message to the dialects of all connections in `self.subscribers`, and empties
    /// that list.
    fn deliver_message_to_listed(
        &mut self,
        what: &DialectMessage,
        except: Option<ConnId>,
        now: Now,
    ) {
        let except = except.filter(|conn| conn.core == self.core).map(|conn| conn.slot);
        self.work.charge(WorkKind::Delivery, work::MESSAGE * self.subscribers.len() as u64);
        let mut listed = std::mem::take(&mut self.subscribers);
        for index in listed.drain(..) {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            if except != Some(slot) {
                self.deliver_message(slot, what, now);
            }
        }
        // Effects of the dialects may have used `self.subscribers` for deliveries of their own,
        // which are complete. Only its allocation is restored.
        self.subscribers = listed;
        self.core_state.rest();
    }

    /// Closes all connections in `self.subscribers`, and empties that list.
    fn close_listed(&mut self, closing: &Closing, now: Now) {
        let others = std::mem::take(&mut self.effects);
        for index in std::mem::take(&mut self.subscribers) {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            if let Some((session, mut cx)) = self.session(slot, now) {
                session.close_with(closing, &mut cx);
                self.after(slot, now);
                self.list(slot);
            }
        }
        self.effects = others;
    }
}
