//! The effects that sessions request of the shard: joining, leaving, publishing, querying, and
//! messages to other connections.

use super::Shard;
use crate::dialect::{self, Effect, Effects, JoinOutcome, JoinRequest, LinkedPublish, is_public};
use crate::dialect::{DialectMessage, Event, EventPayload, Join};
use crate::hub::{Ack, Answer, ConnId, Form, Joined, Published, Query};
use crate::mem::Slot;
use crate::session::{Context, Ending, Session, SessionEvent};
use crate::time::Now;
use crate::work::{self, WorkKind};
use std::borrow::Cow;

impl Shard {
    /// Calls the session at `slot`, if there is one, and then runs everything that it requests.
    pub(super) fn serve(
        &mut self,
        slot: Slot,
        now: Now,
        call: impl FnOnce(&mut Session, &mut Context<'_>),
    ) {
        let mark = self.effects.len();
        let Some((session, mut cx)) = self.session(slot, now) else { return };
        call(session, &mut cx);
        self.after(slot, mark, now);
        self.list(slot);
    }

    /// Gives an event to the session at `slot`, if there is one, and then runs everything that it
    /// requests.
    pub(super) fn on_event(&mut self, slot: Slot, event: SessionEvent<'_>, now: Now) {
        self.serve(slot, now, |session, cx| session.on(event, cx));
    }

    /// Runs the effects that were requested after the list had `mark` effects, and those that they
    /// cause, in the order in which they were requested. Earlier effects are those of sessions
    /// whose turn continues later.
    pub(super) fn run_effects(&mut self, mark: usize, now: Now) {
        while let Some((slot, effect)) = self.effects.remove(mark) {
            self.act(slot, effect, now);
        }
    }

    /// Runs the effects that a session has requested since the list had `mark` effects, and then
    /// whatever its new state requires.
    pub(super) fn after(&mut self, slot: Slot, mark: usize, now: Now) {
        self.run_effects(mark, now);
        if self.sessions.get_mut(slot).is_some_and(|session| !session.is_settled())
            && let Some((session, mut cx)) = self.session(slot, now)
        {
            session.settle(&mut cx);
        }
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let waits = session.is_fresh() && session.link.ending() == Ending::Open;
        let answered = session.link.counted_fresh && !waits;
        session.link.counted_fresh &= !answered;
        let open = session.is_open_socket();
        self.fresh -= usize::from(answered);
        if !open {
            self.note_close(slot);
        }
        if !open && self.hub.subscription_count(slot) > 0 {
            self.leave_all(slot);
        }
        // Settling reports the end of a proxy leg to the other one.
        self.run_effects(mark, now);
    }

    /// Runs the effects that closed connections have left.
    /// [`Shard::next_turn`] calls this too.
    pub fn run_closing_effects(&mut self, now: Now) {
        let mark = self.effects.len();
        self.effects.append(&mut self.closing_effects);
        self.run_effects(mark, now);
    }

    /// Runs the dialect's `on_close` for a connection that can send nothing more. The effects for
    /// connections that wait for it run in the next turn.
    pub(super) fn note_close(&mut self, slot: Slot) {
        let us = ConnId { core: self.core, slot };
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.on_close(&self.env, us, &mut Effects::new(slot, &mut self.closing_effects));
    }

    pub(super) fn leave_all(&mut self, slot: Slot) {
        let left = self.hub.leave_all(slot, &mut self.mail);
        self.counters.subscriptions.sub(left as u64);
        // The caller delivers the events that result for other subscribers.
    }

    /// Runs the effects of a message that cannot be delivered, because its connection has closed.
    pub(super) fn undelivered(&mut self, slot: Slot, what: &DialectMessage, now: Now) {
        let mark = self.effects.len();
        dialect::on_undelivered(what, &mut Effects::new(slot, &mut self.effects));
        self.run_effects(mark, now);
    }

    fn act(&mut self, slot: Slot, effect: Effect, now: Now) {
        if !matches!(effect, Effect::Dial | Effect::PeerMessage { .. }) {
            // Other work of proxied connections is charged by the bytes that were received.
            self.work.charge(WorkKind::Effect, work::EFFECT);
        }
        match effect {
            Effect::Join { app, name, max, request, form } => {
                self.join(slot, (app, &name), max, request, form, now);
            }
            Effect::Leave { app, name } => {
                if self.leave(slot, app, &name) {
                    self.counters.subscriptions.sub(1);
                    self.deliver_local(now);
                }
            }
            Effect::Publish { app, name, event, part } => {
                self.publish_linked(slot, (app, &name), event, part, now);
            }
            Effect::PublishIfSubscribed { app, name, event } => {
                let (source_app, source, _) = self.source_of(app, &name);
                if self.hub.is_subscribed(slot, source_app, &source) {
                    self.publish_linked(slot, (app, &name), event, 0, now);
                } else if let Some((session, mut cx)) = self.session(slot, now) {
                    session.on(SessionEvent::NotSubscribed(&name), &mut cx);
                }
            }
            Effect::Query { query, part } => {
                let query = self.query_of_source(query);
                self.query(slot, &query, part, now);
            }
            Effect::Message { to, what } => self.deliver_anywhere(to, what, now),
            Effect::MessageInOrder { app, name, to, what } => {
                let (app, name, _) = self.source_of(app, &name);
                match self.hub.home(app, &name) {
                    home if home == self.core => self.forward(to, what, now),
                    home => self.mail.message(home, to, what),
                }
            }
            Effect::AwaitRoom { app } => self.await_room(app, slot),
            Effect::Dial => self.dials.push_back(slot),
            Effect::PeerMessage { to, message } => self.send_to_leg(slot, to, message, now),
        }
    }

    /// Subscribes a connection to a channel, and reports the outcome to it unless the channel's
    /// home has to answer first.
    fn join(
        &mut self,
        slot: Slot,
        (app, name): (u32, &str),
        max: usize,
        request: Option<JoinRequest>,
        form: Form,
        now: Now,
    ) {
        let mut is_free = is_public(&self.env, app, name);
        let (app, source, view) = self.source_of(app, name);
        // Through a view, too, a client can make up names of channels.
        is_free |= view != 0;
        let form = Form { view, ..form };
        if self.env.apps.find(app).is_some_and(|app| !app.is_read()) {
            // The source is of an application that a reload has added.
            let outcome = JoinOutcome::NotStored;
            if let Some((session, mut cx)) = self.session(slot, now) {
                session.on(SessionEvent::Joined { name, source: &source, form, outcome }, &mut cx);
            }
            return;
        }
        let request = match view {
            0 => request,
            _ => request.and_then(|request| request.through(view)),
        };
        let join = Join { slot, app, name: &source, max, is_public: is_free, request, form };
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
            session.on(SessionEvent::Joined { name, source: &source, form, outcome }, &mut cx);
        }
    }

    /// The channel that a name leads to: the source's and the number of the view if the name is
    /// that of a linked channel, else the channel of that name and 0.
    fn source_of<'n>(&self, app: u32, name: &'n str) -> (u32, Cow<'n, str>, u16) {
        match self.env.links.resolve(app, name) {
            Some(resolved) => (resolved.app, Cow::Owned(resolved.name), resolved.view),
            None => (app, Cow::Borrowed(name), 0),
        }
    }

    /// Ends the subscription that a connection knows by this name. Returns false if there is none.
    /// A reload may have added or removed a link since the connection has subscribed, so the name
    /// is looked for among the views of all links, and then as that of a channel of its own.
    fn leave(&mut self, slot: Slot, app: u32, name: &str) -> bool {
        let sources = self.env.links.resolve_past(app, name);
        let mut sources = sources.iter().map(|it| (it.app, it.name.as_str(), it.view));
        let found = sources.find(|it| self.has_joined(slot, *it));
        let (app, name, view) = found.unwrap_or((app, name, 0));
        self.has_joined(slot, (app, name, view)) && self.hub.leave(slot, app, name, &mut self.mail)
    }

    /// Whether a connection has joined a channel through this view.
    fn has_joined(&self, slot: Slot, (app, name, view): (u32, &str, u16)) -> bool {
        let form = self.hub.form_of(slot, &self.hub.name(app, name));
        form.is_some_and(|form| form.view == view)
    }

    fn query_of_source(&self, query: Query) -> Query {
        let owned = |app, name: &str| {
            let (app, name, view) = self.source_of(app, name);
            (app, name.into_owned().into_boxed_str(), view)
        };
        match query {
            Query::Channel { app, name, counts, by_view } => {
                let (app, name, _) = owned(app, &name);
                Query::Channel { app, name, counts, by_view }
            }
            Query::Users { app, name } => {
                let (app, name, _) = owned(app, &name);
                Query::Users { app, name }
            }
            Query::Usage { app, name } => {
                let (app, name, _) = owned(app, &name);
                Query::Usage { app, name }
            }
            Query::History { app, name, after, max, .. } => {
                let (app, name, view) = owned(app, &name);
                Query::History { app, name, after, max, view }
            }
            Query::Channels { .. } => query,
        }
    }

    /// Publishes an event under a name that may be that of a linked channel.
    fn publish_linked(
        &mut self,
        slot: Slot,
        (app, name): (u32, &str),
        mut event: Event,
        part: u16,
        now: Now,
    ) {
        if self.env.links.is_empty() {
            return self.publish(slot, app, name, &mut event, part, now);
        }
        match dialect::linked_publish(&self.env, app, name, &mut event) {
            LinkedPublish::AsItIs => self.publish(slot, app, name, &mut event, part, now),
            LinkedPublish::Source { app, name, mut event } => {
                self.publish(slot, app, &name, &mut event, part, now);
            }
            LinkedPublish::Refused => {
                self.counters.link_refused.add(1);
                // An event that nobody receives, so that the publisher gets its answer.
                let mut nothing = Event { payload: EventPayload::Nothing, ..Event::default() };
                let (app, name, _) = self.source_of(app, name);
                self.publish(slot, app, &name, &mut nothing, part, now);
            }
        }
    }

    fn publish(
        &mut self,
        slot: Slot,
        app: u32,
        name: &str,
        event: &mut Event,
        part: u16,
        now: Now,
    ) {
        self.counters.published.add(1);
        let ticket = self.sessions.get_mut(slot).and_then(|it| it.ticket_of_publish(part));
        let ack = ticket.map(|ticket| Ack { slot, ticket, part });
        match self.hub.publish(app, name, event, ack, now.ms, &mut self.mail) {
            Published::Ordered(at) => self.deliver_at(at, event, now),
            Published::NotSubscribed => {}
            Published::Sent => {
                if let (Some(ticket), Some((session, mut cx))) = (ticket, self.session(slot, now)) {
                    session.on(SessionEvent::AcksAwaited { ticket, count: 1 }, &mut cx);
                }
                return;
            }
        }
        let Some(ticket) = ticket else { return };
        let collects = self.sessions.get_mut(slot).is_some_and(|it| it.collects_answers(ticket));
        if collects {
            let channel_info = self.hub.channel_info(&self.hub.name(app, name), now.ms);
            if let Some((session, mut cx)) = self.session(slot, now) {
                let answer = Answer::Channel(channel_info);
                session.on(SessionEvent::Answered { ticket, part, answer }, &mut cx);
            }
        }
    }

    fn query(&mut self, slot: Slot, query: &Query, part: u16, now: Now) {
        self.charge_query(query);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        // A WebSocket has no tickets; it matches answers by their part.
        let ticket = session.ticket().unwrap_or_default();
        let ack = Ack { slot, ticket, part };
        let (ours, others) = self.hub.put(query, ack, now.ms, &mut self.mail);
        let Some((session, mut cx)) = self.session(slot, now) else { return };
        session.on(SessionEvent::AcksAwaited { ticket, count: others }, &mut cx);
        if let Some(answer) = ours.map(|answer| self.in_view(answer))
            && let Some((session, mut cx)) = self.session(slot, now)
        {
            let listed = match &answer {
                Answer::Users(users) => users.len(),
                Answer::History(Some(page)) => page.events.len(),
                _ => 0,
            };
            cx.work.charge(WorkKind::Listing, work::LISTED * listed as u64);
            session.on(SessionEvent::Answered { ticket, part, answer }, &mut cx);
        }
    }

    /// The answer to a query in the form of the view through which it was made.
    pub(super) fn in_view(&self, mut answer: Answer) -> Answer {
        if let Answer::History(Some(page)) = &mut answer
            && page.view.is_some()
        {
            let each = work::DELIVERY + work::MESSAGE;
            self.work.charge(WorkKind::Delivery, each * page.events.len() as u64);
            dialect::page_in_view(&self.env, page);
        }
        answer
    }

    /// Counts the work of a query that visits every channel of this core, or every subscriber of a
    /// channel. The work for lists of members is counted when they are answered.
    pub(super) fn charge_query(&self, query: &Query) {
        let visited = match query {
            Query::Channels { .. } => self.hub.channel_count(),
            Query::Usage { app, name } => {
                self.hub.subscribers(&self.hub.name(*app, name)).len().div_ceil(VISITED_AT_ONCE)
            }
            _ => return,
        };
        self.work.charge(WorkKind::Listing, work::LISTED * visited as u64);
    }
}

/// The number of subscribers that are counted in the time that listing a channel takes.
const VISITED_AT_ONCE: usize = 32;
