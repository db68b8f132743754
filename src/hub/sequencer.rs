//! The home's side of a channel: the order of its events, its members, its cached event, its
//! picture and history, and its counts.

use super::encodings::Encodings;
use super::event::{Event, EventPayload, PictureChange, Retention};
use super::join::{JoinRefusal, JoinReply, JoinRequest};
use super::kept::Losses;
use super::log_view::LogPlace;
use super::mail::{Answer, Down, OutgoingMail, Up};
use super::name::{ChannelName, ConnId};
use super::picture::Picture;
use super::rooms::Claim;
use super::roster::ChannelFull;
use super::view_counts::SubscriberCount;
use super::{Hub, HubMessage};
use std::sync::Arc;

impl<M: HubMessage> Hub<M> {
    /// Carries out the request of a joining connection. This core is the channel's home. Returns
    /// `None` if the answer, which repeats the number of the request, comes when the log of the
    /// cluster has the member.
    pub(super) fn grant(
        &mut self,
        (conn, request_id): (ConnId, u32),
        at: u32,
        mut request: JoinRequest<M>,
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) -> Result<Option<JoinReply>, ChannelFull> {
        let has_member = request.member.is_some();
        if has_member && self.own_states.is_some() {
            match self.enter_by_log((conn, request_id), at, request, now_ms)? {
                Some(granted) => request = granted,
                None => return Ok(None),
            }
        }
        let Some(channel) = &mut self.channels[at as usize] else { return Err(ChannelFull) };
        let home = channel.home.get_or_insert_default();
        let mut joined = None;
        if let Some(member) = request.member.take()
            && home.enter(conn, &member, member.max)?
        {
            let event = Event { except: Some(conn.into()), ..member.added.into() };
            joined = Some((member.id, event));
        }
        let reply = self.reply(conn, at, request, has_member, now_ms);
        if let Some((user, event)) = joined {
            self.note_member_added(at, &user);
            self.announce(at, event, mail);
        }
        if matches!(reply.cached, Some(None)) {
            self.note_cache_miss(at);
        }
        Ok(Some(reply))
    }

    /// The answer to the request of a joining connection, which is a member or not.
    pub(super) fn reply(
        &mut self,
        conn: ConnId,
        at: u32,
        request: JoinRequest<M>,
        is_member: bool,
        now_ms: u64,
    ) -> JoinReply {
        let mut reply = JoinReply::default();
        let Some(channel) = &mut self.channels[at as usize] else { return reply };
        let home = channel.home.get_or_insert_default();
        if is_member || home.user_count() > 0 {
            reply.users = Some(Arc::new(home.users()));
        }
        if request.cached {
            reply.cached = Some(home.kept(now_ms).cloned());
        }
        let hides =
            self.pictures.as_ref().is_some_and(|pictures| pictures.hides(home.logged.as_deref()));
        reply.is_picture_unknown = request.picture.is_some() && hides;
        if let Some(format) = request.picture.filter(|_| !hides)
            && let Some(picture) = &mut home.picture
        {
            let before = picture.bytes();
            reply.picture = Some(picture.encodings(format));
            self.kept.bytes = self.kept.bytes + picture.bytes() - before;
        }
        if request.history
            && let Some(history) = &home.history
        {
            reply.history = history.events();
        }
        reply.resumed = request.resume.and_then(|request| self.resume(at, request, now_ms));
        self.note_maker(at, conn);
        self.note_occupied(at);
        reply
    }

    /// Orders an event that the hub itself made, for subscribers on all cores.
    pub(super) fn announce(&mut self, at: u32, event: Event<M>, mail: &mut OutgoingMail<M>) {
        self.fan_out(at, &event, mail);
        if let Some(channel) = &self.channels[at as usize]
            && !channel.subscribers.is_empty()
        {
            self.local.push_back((channel.name.clone(), event));
        }
    }

    /// Removes a member's connection. This core is the channel's home.
    pub(super) fn exit(&mut self, conn: ConnId, at: u32, mail: &mut OutgoingMail<M>) {
        if self.own_states.is_some() {
            return self.exit_by_log(conn, at);
        }
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let removed = channel.home.as_mut().and_then(|home| home.exit(conn));
        if let Some((user, change)) = removed {
            self.note_member_removed(at, &user);
            self.announce(at, change.into(), mail);
        }
    }

    /// Orders `event` in its channel: keeps what later subscribers need, and sends the event to the
    /// interested cores.
    fn order(
        &mut self,
        at: u32,
        (event, place): (&mut Event<M>, Option<LogPlace>),
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) {
        if let (
            Retention::Cache(entry) | Retention::CacheAndHistory(entry, _),
            EventPayload::Frame(shared),
        ) = (&event.retain, &event.payload)
        {
            self.keep(at, shared.frame.clone(), entry, now_ms);
            self.note_logged_filling(at, place);
        }
        if let Retention::History(limit) | Retention::CacheAndHistory(_, limit) = event.retain {
            self.append_history(at, event, limit, now_ms, place);
        }
        if let Some(client_event) = &event.notify {
            self.note_client_event(at, client_event);
        }
        if self.is_delivered(event, place) {
            self.fan_out(at, event, mail);
        }
        // Last, because a channel that keeps nothing any more may be released.
        if let Retention::Picture(change) = event.retain {
            self.note_change_of_picture(at, change, event.encodings(), place, now_ms);
            self.picture(at, change, event.encodings());
        }
    }

    /// Publishes an event on a channel of this home. A channel without an entry gets one only if
    /// the event is kept; its name is made by `name` then. Returns the channel's index if the event
    /// is to be delivered to this core's subscribers.
    pub(super) fn publish_at_home(
        &mut self,
        found: Option<u32>,
        name: impl FnOnce(&Hub<M>) -> ChannelName,
        (event, place): (&mut Event<M>, Option<LogPlace>),
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) -> Option<u32> {
        if self.is_replacement() {
            let name = name(self);
            let at = found.or_else(|| event.is_kept().then(|| self.insert(name.clone())));
            if let Some(at) = at {
                self.order(at, (event, None), now_ms, mail);
            }
            self.relay_ordered(name, at, event);
            return at.filter(|_| event.has_recipients());
        }
        let at = match found {
            Some(at) => at,
            None if event.is_kept() || self.notes_end_of_picture(event) => self.insert(name(self)),
            None => return None,
        };
        self.order(at, (event, place), now_ms, mail);
        self.is_delivered(event, place).then_some(at)
    }

    /// Whether the event is delivered to the subscribers.
    fn is_delivered(&self, event: &Event<M>, place: Option<LogPlace>) -> bool {
        event.has_recipients() && self.log.is_none_or(|log| log.delivers(place))
    }

    /// Changes the picture of a channel by the value of an event.
    pub(super) fn picture(
        &mut self,
        at: u32,
        change: PictureChange,
        encodings: Option<&Arc<Encodings>>,
    ) {
        self.change_picture(at, |picture| Picture::apply(picture, change, encodings));
    }

    /// Changes the picture of a channel by a function that returns how many elements it has lost.
    pub(super) fn change_picture(
        &mut self,
        at: u32,
        change: impl FnOnce(&mut Option<Picture>) -> u64,
    ) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let home = channel.home.get_or_insert_default();
        let before = home.picture.as_ref().map(|picture| (picture.since, picture.bytes()));
        self.kept.losses.elements += change(&mut home.picture);
        if home.picture.as_ref().is_some_and(|picture| picture.is_too_large()) {
            self.kept.losses.kept += 1;
            home.picture = None;
        }
        let bytes = home.picture.as_ref().map_or(0, |picture| picture.bytes());
        self.kept.bytes = self.kept.bytes + bytes - before.map_or(0, |(_, bytes)| bytes);
        match (before, &mut home.picture) {
            (None, Some(picture)) => {
                self.kept.began += 1;
                picture.since = self.kept.began;
                self.kept.pictures.insert(self.kept.began, channel.name.clone());
            }
            (Some((since, _)), None) => {
                self.kept.pictures.remove(&since);
                self.release_if_empty(at);
            }
            (None, None) => self.release_if_empty(at),
            (Some(_), Some(_)) => {}
        }
        self.make_room();
    }

    /// Drops cached events, pictures and histories, the oldest first, until the rest has room.
    pub(super) fn make_room(&mut self) {
        while self.kept.bytes > self.kept.max_bytes {
            if let Some(began) = self.kept.empty.pop_first() {
                if let Some(name) = self.kept.pictures.remove(&began) {
                    self.forget_picture(&name);
                    self.kept.losses.kept += 1;
                }
                continue;
            }
            let event = self.kept.keepers.oldest();
            let picture = self.kept.pictures.first_key_value().map(|(began, _)| *began);
            match (event, picture) {
                (Some(event), picture) if picture.is_none_or(|picture| event < picture) => {
                    self.forget_oldest();
                }
                (_, Some(_)) => {
                    if let Some((_, name)) = self.kept.pictures.pop_first() {
                        self.forget_picture(&name);
                    }
                }
                _ => return,
            }
            self.kept.losses.kept += 1;
        }
    }

    fn forget_picture(&mut self, name: &ChannelName) {
        let Some(at) = self.find(name.app(), name.text(), name.hash()) else { return };
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let Some(home) = &mut channel.home else { return };
        self.kept.bytes -= home.picture.take().map_or(0, |picture| picture.bytes());
        if let Some(logged) = &mut home.logged {
            logged.is_dropped = true;
        }
        if let Some(history) = home.history.take() {
            self.kept.bytes -= self.note_history_dropped(&history);
        }
        self.release_if_empty(at);
    }

    /// Bytes that cached events, pictures and histories hold.
    pub fn kept_bytes(&self) -> usize {
        self.kept.bytes
    }

    /// The number of channels with a cached event. [`Hub::kept_bytes`] includes the tables of these
    /// channels, but not those of channels that only have a picture or a history.
    pub fn kept_events(&self) -> usize {
        self.kept.keepers.by_age.len()
    }

    /// What was dropped before its time since the last call.
    pub fn losses(&mut self) -> Losses {
        std::mem::take(&mut self.kept.losses)
    }

    /// Drops cached events that have expired, and frees memory of tables that are mostly empty.
    pub fn sweep(&mut self, now_ms: u64) {
        self.sweep_kept(now_ms);
        self.sweep_histories(now_ms);
        // Encoded pictures have been added for subscribers since the last call.
        self.make_room();
        self.sweep_counts(now_ms);
        self.sweep_states(now_ms);
        self.sweep_pictures();
        self.pack();
    }

    fn fan_out(&self, at: u32, event: &Event<M>, mail: &mut OutgoingMail<M>) {
        let Some(Some(channel)) = self.channels.get(at as usize) else { return };
        for core in channel.interest.iter() {
            mail.down(core, Down::Deliver { name: channel.name.clone(), event: event.clone() });
        }
    }

    /// Takes a request from core `from`. This core is the home. A published event is returned for
    /// delivery to this core's subscribers; further events may be in [`Hub::next_local`].
    pub fn request(
        &mut self,
        from: u16,
        request: Up<M>,
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) -> Option<(ChannelName, Event<M>)> {
        match request {
            Up::Interest { request_id, slot, name, claim } => {
                let granted = self.admit_interest(ConnId { core: from, slot }, &name, claim);
                mail.down(from, Down::Interested { request_id, name, granted });
            }
            Up::Join { request_id, slot, name, request, claim } => {
                let conn = ConnId { core: from, slot };
                let claimed = (request, claim);
                let reply = self.admit((conn, request_id), &name, claimed, now_ms, mail);
                if let Some(reply) = reply.transpose() {
                    mail.down(from, Down::JoinReply { request_id, slot, name, reply });
                }
            }
            Up::Leave { slot, name } => {
                let at = self.find(name.app(), name.text(), name.hash())?;
                self.exit(ConnId { core: from, slot }, at, mail);
                self.release_if_empty(at);
            }
            Up::Count { name, count, views } => {
                self.note_count(from, &name, SubscriberCount { all: count, views });
                let at = self.find(name.app(), name.text(), name.hash())?;
                self.look(at);
                self.tally(at);
            }
            Up::Forget { name } => {
                let at = self.find(name.app(), name.text(), name.hash())?;
                self.note_count(from, &name, 0.into());
                self.remove_interest(from, at);
            }
            Up::Query { query, ack } => {
                if self.awaits_counts((from, ack), &query, now_ms) {
                    return None;
                }
                let answer = self.answer_query(&query, now_ms);
                mail.down(from, Down::Answer { ack, answer });
            }
            Up::Publish { name, mut event, ack } => {
                let found = self.find(name.app(), name.text(), name.hash());
                let ordered = (&mut event, None);
                let at = self.publish_at_home(found, |_| name.clone(), ordered, now_ms, mail);
                if let Some(ack) = ack {
                    let answer = Answer::Channel(self.channel_info(&name, now_ms));
                    mail.down(from, Down::Answer { ack, answer });
                }
                return at.map(|_| (name, event));
            }
            // The shard delivers messages between connections.
            Up::Message { .. } => {}
        }
        None
    }

    /// Records the interest of another core, for whose connection `conn` it is the first. Returns
    /// false if the application has no room for the channel.
    fn admit_interest(&mut self, conn: ConnId, name: &ChannelName, claim: Claim) -> bool {
        let found = self.find(name.app(), name.text(), name.hash());
        if !self.has_room(name.app(), found, claim) {
            return false;
        }
        let at = self.find_or_insert(name);
        self.note_maker(at, conn);
        self.note_interest(conn.core, name);
        true
    }

    /// Ends the interest of another core, which has no subscriber any more.
    fn remove_interest(&mut self, from: u16, at: u32) {
        if let Some(channel) = &mut self.channels[at as usize] {
            channel.interest.remove(from);
            if channel.interest.is_empty() && channel.subscribers.is_empty() {
                self.note_idle(at);
            }
        }
        self.look(at);
        self.tally(at);
        self.release_if_empty(at);
    }

    /// Handles the join request of a connection of another core. This core is the channel's home.
    /// Returns `None` if the answer comes later.
    fn admit(
        &mut self,
        (conn, request_id): (ConnId, u32),
        name: &ChannelName,
        (request, claim): (JoinRequest<M>, Claim),
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) -> Result<Option<JoinReply>, JoinRefusal> {
        let found = self.find(name.app(), name.text(), name.hash());
        if !self.has_room(name.app(), found, claim) {
            return Err(JoinRefusal::NoRoom);
        }
        let at = self.find_or_insert(name);
        match self.grant((conn, request_id), at, request, now_ms, mail) {
            Ok(reply) => {
                self.note_interest(conn.core, name);
                Ok(reply)
            }
            Err(ChannelFull) => {
                self.release_if_empty(at);
                Err(JoinRefusal::ChannelFull)
            }
        }
    }

    pub(super) fn find_or_insert(&mut self, name: &ChannelName) -> u32 {
        let found = self.find(name.app(), name.text(), name.hash());
        found.unwrap_or_else(|| self.insert(name.clone()))
    }

    fn note_interest(&mut self, from: u16, name: &ChannelName) {
        let at = self.find_or_insert(name);
        if let Some(channel) = &mut self.channels[at as usize] {
            channel.interest.insert(from);
            channel.home.get_or_insert_default().expect_count(from);
        }
        self.look(at);
        self.tally(at);
    }

    fn note_count(&mut self, from: u16, name: &ChannelName, count: SubscriberCount) {
        let Some(at) = self.find(name.app(), name.text(), name.hash()) else { return };
        let Some(channel) = &mut self.channels[at as usize] else { return };
        if count.all > 0 || channel.home.is_some() {
            channel.home.get_or_insert_default().set_count(from, count);
        }
    }
}
