//! Delivery: events to the subscribers of a channel, and messages to the dialect of one connection.

use super::Shard;
use crate::config::SlowConsumer;
use crate::dialect::{Closing, Why};
use crate::dialect::{DialectMessage, Event, EventPayload};
use crate::hub::{ChannelName, ConnId, Excluded, Published};
use crate::mem::Slot;
use crate::session::{Broadcast, DeliveryOutcome, SessionEvent};
use crate::time::Now;
use crate::work::{self, WorkKind};

impl Shard {
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

    /// Publishes an event by a command from outside the cores.
    pub fn publish_command(&mut self, app: u32, name: &str, event: &mut Event, now: Now) {
        self.counters.published.add(1);
        self.announce(app, name, event, now);
    }

    /// Publishes an event of the server itself to a channel.
    pub(super) fn announce(&mut self, app: u32, name: &str, event: &mut Event, now: Now) {
        let published = self.hub.publish(app, name, event, None, now.ms, &mut self.mail);
        if let Published::Ordered(at) = published {
            self.deliver_at(at, event, now);
        }
    }

    /// Delivers an event that this core has ordered to its subscribers of the channel at `at`.
    pub(super) fn deliver_at(&mut self, at: u32, event: &Event, now: Now) {
        // Only the forms of an event depend on the channel's name.
        let name = event.forms.as_ref().and_then(|_| self.hub.name_at(at));
        let subscribers = self.hub.subscribers_at(at).iter();
        let received = subscribers.filter(|it| it.receives(event.since_log));
        self.subscribers.extend(received.map(|it| (it.slot, it.form)));
        self.deliver_to_listed(event, name.as_deref().unwrap_or(""), now);
    }

    /// Delivers the hub's own events to the subscribers on this core.
    pub(super) fn deliver_local(&mut self, now: Now) {
        while let Some((name, event)) = self.hub.next_local() {
            self.deliver(&name, &event, now);
        }
    }

    pub(super) fn deliver(&mut self, name: &ChannelName, event: &Event, now: Now) {
        let subscribers = self.hub.subscribers(name).iter();
        let received = subscribers.filter(|it| it.receives(event.since_log));
        self.subscribers.extend(received.map(|it| (it.slot, it.form)));
        self.deliver_to_listed(event, name.text(), now);
    }

    /// Delivers the event of channel `name` to all connections in `self.subscribers`, and empties
    /// that list.
    fn deliver_to_listed(&mut self, event: &Event, name: &str, now: Now) {
        if self.subscribers.is_empty() {
            return;
        }
        match &event.payload {
            EventPayload::Nothing => self.subscribers.clear(),
            EventPayload::Frame(_) | EventPayload::Value(_) => {
                self.broadcast_to_listed(event, name, now);
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
    fn broadcast_to_listed(&mut self, event: &Event, name: &str, now: Now) {
        let Some(mut broadcast) = Broadcast::new(event, name, &self.env) else { return };
        self.work.charge(WorkKind::Delivery, work::DELIVERY * self.subscribers.len() as u64);
        let limits = &self.env.config.limits;
        let except = event.except.and_then(|it| it.on(self.core));
        let mut delivered = 0;
        let mut slow = Vec::new();
        for (index, form) in self.subscribers.drain(..) {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            if except == Some(slot) {
                continue;
            }
            let Some(session) = self.sessions.at_mut(index) else { continue };
            let bound = limits.write_queue_bytes;
            match session.deliver(&mut broadcast, form, &mut self.codecs, bound, now.ms) {
                Ok(DeliveryOutcome::Queued) => delivered += 1,
                Ok(DeliveryOutcome::NotInFraming) => self.counters.http_streams_unsaid.add(1),
                Ok(DeliveryOutcome::NotInView) => self.counters.link_unexpressed.add(1),
                Ok(DeliveryOutcome::NotMeant) => {}
                Err(_) => slow.push((slot, form.positioned)),
            }
            if !session.link.listed {
                session.link.listed = true;
                self.listed.push_back(slot);
            }
        }
        self.counters.deliveries.add(delivered);
        for (slot, positioned) in slow {
            // A client that resumes after a later position would never learn of a dropped event.
            let policy =
                if positioned { SlowConsumer::Close } else { self.env.config.slow_consumer };
            self.too_slow(slot, policy, now);
        }
    }

    fn too_slow(&mut self, slot: Slot, policy: SlowConsumer, now: Now) {
        match policy {
            SlowConsumer::Drop => self.counters.slow_consumer_dropped.add(1),
            SlowConsumer::Close => {
                self.counters.slow_consumer_closed.add(1);
                self.on_event(slot, SessionEvent::CloseFor(Why::Slow), now);
            }
        }
    }

    /// Delivers a message to the dialect of one connection on this core.
    pub(super) fn deliver_message(&mut self, slot: Slot, what: &DialectMessage, now: Now) {
        if !self.sessions.get_mut(slot).is_some_and(|it| it.is_open_socket()) {
            return self.undelivered(slot, what, now);
        }
        let mut queued = Ok(());
        self.serve(slot, now, |session, cx| queued = session.deliver_message(what, cx));
        match queued {
            Ok(()) => self.counters.deliveries.add(1),
            Err(policy) => self.too_slow(slot, policy, now),
        }
    }

    /// Delivers a message to the dialects of all connections in `self.subscribers`, and empties
    /// that list.
    fn deliver_message_to_listed(
        &mut self,
        what: &DialectMessage,
        except: Option<Excluded>,
        now: Now,
    ) {
        let except = except.and_then(|it| it.on(self.core));
        self.work.charge(WorkKind::Delivery, work::MESSAGE * self.subscribers.len() as u64);
        let mut listed = std::mem::take(&mut self.subscribers);
        for (index, _) in listed.drain(..) {
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
        for (index, _) in std::mem::take(&mut self.subscribers) {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            self.on_event(slot, SessionEvent::Close(closing), now);
        }
    }
}
