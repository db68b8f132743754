//! Subscriptions of the connections of one core: how they begin, how the answers of the home make
//! them active, and how they end.

use super::channel::HomeLink;
use super::join::{JoinReply, JoinRequest};
use super::mail::{OutgoingMail, Up};
use super::members::{MAX_REQUEST, Start, Subscriber};
use super::name::{ChannelName, ConnId, home_among};
use super::rooms::Claim;
use super::roster::ChannelFull;
use super::{Form, Hub, HubMessage};
use crate::mem::Slot;

/// The result of [`Hub::join`].
#[derive(Clone, Debug)]
pub enum Joined {
    /// Subscribed; with the home's reply, if there was a request.
    Now(Option<JoinReply>),
    /// The connection will be subscribed when the home's answer, which names the channel, arrives.
    Later,
    /// The connection had this subscription before; nothing changed.
    Already,
    /// The connection has its maximum number of subscriptions.
    SubscriptionLimit,
    /// The channel has its maximum number of members.
    ChannelFull,
    /// The channel is not occupied, and the application has its maximum number of channels.
    NoRoom,
}

/// A connection that joins a channel.
#[derive(Clone, Debug)]
pub struct Join<'n, M> {
    /// The connection.
    pub slot: Slot,
    /// The application's number.
    pub app: u32,
    /// The channel.
    pub name: &'n str,
    /// The maximum number of the connection's subscriptions.
    pub max: usize,
    /// Whether a subscription needs no signature, so that any client can make up the channel's
    /// name.
    pub is_public: bool,
    /// The request to the channel's home, if there is one.
    pub request: Option<JoinRequest<M>>,
    /// The form in which the connection receives the channel's events.
    pub form: Form,
}

impl<M: HubMessage> Hub<M> {
    /// Subscribes a connection.
    pub fn join(&mut self, join: Join<'_, M>, now_ms: u64, mail: &mut OutgoingMail<M>) -> Joined {
        let Join { slot, app, name, max, is_public, request, form } = join;
        let hash = self.hasher.hash(app, name);
        let found = self.find(app, name, hash);
        if let Some(at) = found
            && self.members.has(slot.index, at)
        {
            return Joined::Already;
        }
        let count = self.members.count(slot.index);
        if count >= max {
            return Joined::SubscriptionLimit;
        }
        let (claim, home) = (Claim::new(is_public, count), self.home_of(hash));
        if home == self.core && !self.has_room(app, found, claim) {
            return Joined::NoRoom;
        }
        let at = found.unwrap_or_else(|| self.insert(self.hasher.name(app, name)));
        match home == self.core {
            true => self.join_here((slot, form), at, request, now_ms, mail),
            false => self.join_there((slot, form), at, request, claim, mail),
        }
    }

    fn join_here(
        &mut self,
        (slot, form): (Slot, Form),
        at: u32,
        request: Option<JoinRequest<M>>,
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) -> Joined {
        let conn = ConnId { core: self.core, slot };
        let member = request.as_ref().is_some_and(|request| request.member.is_some());
        let mut request_id = if self.own_states.is_some() { self.next_question() } else { 0 };
        let reply = match request {
            Some(request) => match self.grant((conn, request_id), at, request, now_ms, mail) {
                Ok(reply) => Some(reply),
                Err(ChannelFull) => {
                    self.release_if_empty(at);
                    return Joined::ChannelFull;
                }
            },
            None => None,
        };
        let waits = matches!(reply, Some(None));
        if !waits {
            request_id = 0;
        }
        if let Some(channel) = &mut self.channels[at as usize] {
            let log = self.logs.of(self.core);
            let start = Start { request_id, member, log, form };
            self.members.add(slot.index, at, &mut channel.subscribers, start);
            channel.home_link = HomeLink::Known;
        }
        self.note_view(at, form.view, true);
        self.note_maker(at, conn);
        self.look(at);
        self.tally(at);
        if waits { Joined::Later } else { Joined::Now(reply.flatten()) }
    }

    fn join_there(
        &mut self,
        (slot, form): (Slot, Form),
        at: u32,
        request: Option<JoinRequest<M>>,
        claim: Claim,
        mail: &mut OutgoingMail<M>,
    ) -> Joined {
        let question = self.next_question();
        let Some(channel) = &mut self.channels[at as usize] else {
            return Joined::SubscriptionLimit;
        };
        let name = channel.name.clone();
        let home = home_among(name.hash(), self.cores);
        let mut start = Start { form, log: self.logs.of(home), ..Start::default() };
        // If the first subscriber's join request is not answered, the home may not know of this
        // core yet.
        let is_known = channel.subscribers.first().is_some_and(Subscriber::is_active);
        let asks = channel.home_link == HomeLink::Known && !is_known;
        if let Some(request) = request.or_else(|| asks.then(JoinRequest::default)) {
            start = Start { request_id: question, member: request.member.is_some(), ..start };
            mail.up(home, Up::Join { request_id: question, slot, name, request, claim });
            // The home sends publishes from that join on. Subscribers without a join reply are not
            // active and get none.
            // A request for interest that is under way is answered before this one.
            if channel.home_link == HomeLink::Unknown {
                channel.home_link = HomeLink::Known;
            }
        } else if channel.home_link == HomeLink::Unknown {
            channel.home_link = HomeLink::Requested(question);
            mail.up(home, Up::Interest { request_id: question, slot, name, claim });
        }
        self.members.add(slot.index, at, &mut channel.subscribers, start);
        let active = start.request_id == 0 && channel.home_link == HomeLink::Known;
        self.note_view(at, form.view, true);
        self.counts_changed(at);
        if active { Joined::Now(None) } else { Joined::Later }
    }

    fn next_question(&mut self) -> u32 {
        // 0 stands for no request.
        self.request_id = self.request_id % MAX_REQUEST + 1;
        self.request_id
    }

    /// Takes the home's answer to a join request. Returns whether the connection is subscribed now.
    /// An answer to an older request changes nothing.
    pub fn on_join_reply(
        &mut self,
        request_id: u32,
        slot: Slot,
        name: &ChannelName,
        granted: bool,
        mail: &mut OutgoingMail<M>,
    ) -> bool {
        let Some(at) = self.find(name.app(), name.text(), name.hash()) else { return false };
        let Some(position) = self.members.position(slot.index, at) else { return false };
        let Some(channel) = &mut self.channels[at as usize] else { return false };
        let subscribers = &mut channel.subscribers;
        let answered = (request_id, self.logs.of(home_among(name.hash(), self.cores)));
        if !self.members.activate(slot.index, position, answered, subscribers) {
            return false;
        }
        if !granted {
            self.remove_member(slot, position, mail);
        }
        true
    }

    /// Takes the home's answer to this core's interest in `name`. Returns the subscribers on this
    /// core that have waited for it, which are active from now on; none if the answer is to an
    /// older request.
    pub fn interested(&mut self, request_id: u32, name: &ChannelName) -> Vec<Subscriber> {
        let found = self.find(name.app(), name.text(), name.hash());
        match found.and_then(|at| self.channels[at as usize].as_mut()) {
            Some(channel) if channel.home_link == HomeLink::Requested(request_id) => {
                channel.home_link = HomeLink::Known;
                let log = self.logs.of(home_among(name.hash(), self.cores));
                channel.subscribers.iter_mut().for_each(|it| it.begin_under(log));
                channel.subscribers.iter().filter(|it| it.is_active()).copied().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes the home's answer that there is no room for `name`. Returns the slot indexes of the
    /// subscribers that have waited, whose subscriptions the caller must end.
    pub fn join_refused(&mut self, request_id: u32, name: &ChannelName) -> Vec<u32> {
        let found = self.find(name.app(), name.text(), name.hash());
        match found.and_then(|at| self.channels[at as usize].as_mut()) {
            Some(channel) if channel.home_link == HomeLink::Requested(request_id) => {
                // Subscribers with join requests of their own get their own answers.
                let (waited, others): (Vec<&Subscriber>, Vec<&Subscriber>) =
                    channel.subscribers.iter().partition(|it| it.is_active());
                channel.home_link =
                    if others.is_empty() { HomeLink::Unknown } else { HomeLink::Known };
                waited.into_iter().map(|it| it.slot).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Ends one subscription. Returns false if there was none.
    pub fn leave(&mut self, slot: Slot, app: u32, name: &str, mail: &mut OutgoingMail<M>) -> bool {
        let hash = self.hasher.hash(app, name);
        let Some(at) = self.find(app, name, hash) else { return false };
        let Some(position) = self.members.position(slot.index, at) else { return false };
        self.remove_member(slot, position, mail);
        true
    }

    /// Ends all subscriptions of a connection that has ended. Returns their number.
    pub fn leave_all(&mut self, slot: Slot, mail: &mut OutgoingMail<M>) -> usize {
        let mut left = 0;
        while self.members.count(slot.index) > 0 {
            self.remove_member(slot, self.members.count(slot.index) - 1, mail);
            left += 1;
        }
        self.members.forget(slot.index);
        left
    }

    fn remove_member(&mut self, slot: Slot, position: usize, mail: &mut OutgoingMail<M>) {
        let removed = self
            .members
            .remove(slot.index, position, &mut self.channels, |channel| &mut channel.subscribers);
        let Some((at, member, form)) = removed else { return };
        self.note_view(at, form.view, false);
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let name = channel.name.clone();
        let home = self.home_of(name.hash());
        if member && home == self.core {
            self.exit(ConnId { core: self.core, slot }, at, mail);
        } else if member {
            mail.up(home, Up::Leave { slot, name: name.clone() });
        }
        self.look(at);
        self.tally(at);
        let Some(channel) = &mut self.channels[at as usize] else { return };
        if !channel.subscribers.is_empty() {
            return self.counts_changed(at);
        }
        if channel.interest.is_empty() {
            self.note_idle(at);
        }
        let Some(channel) = &mut self.channels[at as usize] else { return };
        if channel.home_link != HomeLink::Unknown {
            channel.home_link = HomeLink::Unknown;
            channel.reported = 0;
            if home != self.core {
                mail.up(home, Up::Forget { name });
            }
        }
        self.release_if_empty(at);
    }

    /// Delivers nothing more to the subscribers of this core, because they have missed events: what
    /// comes later would seem to them to follow what they have got. Later subscribers get it.
    pub fn mute(&mut self) {
        for channel in self.channels.iter_mut().flatten() {
            channel.subscribers.iter_mut().for_each(Subscriber::mute);
        }
    }

    fn counts_changed(&mut self, at: u32) {
        if let Some(channel) = &mut self.channels[at as usize]
            && !channel.recounting
            && self.cores > 1
        {
            channel.recounting = true;
            self.recount.push(at);
        }
    }

    /// Reports changed numbers of subscribers to the homes. Call once a turn.
    pub fn report_counts(&mut self, mail: &mut OutgoingMail<M>) {
        for at in std::mem::take(&mut self.recount) {
            let Some(channel) = self.channels.get_mut(at as usize).and_then(Option::as_mut) else {
                continue;
            };
            channel.recounting = false;
            let count = channel.subscribers.len() as u32;
            let views = channel.views.as_mut();
            let has_changed = views.is_some_and(|views| std::mem::take(&mut views.is_changed));
            if count == channel.reported && !has_changed || count == 0 {
                continue;
            }
            channel.reported = count;
            let name = channel.name.clone();
            let (home, views) = (self.home_of(name.hash()), self.views_here(at));
            if home != self.core {
                mail.up(home, Up::Count { name, count, views });
            }
        }
    }
}
