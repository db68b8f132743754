//! How a connection of any such vendor answers what happens to it.

use super::super::api::{ChannelHistory, DialectApi};
use super::super::apps::PathError;
use super::super::closing::{Closing, Why};
use super::super::content::Content;
use super::super::context::{DialectContext, Heartbeat, Opening, Rejection, freeze_text};
use super::super::effects::JoinOutcome;
use super::super::env::Env;
use super::super::message::DialectMessage;
use super::super::protocol::{ConnectionEnd, Dialect, DialectEvent, DialectPolicy};
use super::super::reply::{Answered, HttpReply};
use super::connection::{Connection, end};
use super::data::ChannelKind;
use super::vendor::{ProtocolError, SubscribeRefusal, Vendor};
use super::who::Silence;
use super::{api, channel, commands, links, listen, messages, positions, watch};
use crate::dialect::Event;
use crate::http;
use crate::hub::{Answer, JoinReply, ResumeOutcome, ResumeReply, Users};
use crate::mem::Frozen;
use crate::time::Deadline;
use crate::ws;
use crate::ws::event_ids::EventIds;

/// The heartbeat of a client whose protocol version has no ping: the server sends it none.
const NO_HEARTBEAT: Heartbeat = Heartbeat { silence_ms: u64::MAX / 4, answer_ms: u64::MAX / 4 };

impl<V: Vendor> Dialect for Connection<V> {
    fn open(context: &mut DialectContext<'_>, opening: &Opening<'_>) -> Option<Connection<V>> {
        let opened = admit::<V>(context, opening).and_then(|app| {
            let admission = context.env.apps.get(app).admit(context.now.ms);
            let mut conn = Connection::new(app, 0, context.now);
            let inactive_s = V::inactivity_s(context.env, opening);
            if inactive_s > 0 {
                let since_s = context.now.ms.div_ceil(1000) as u32;
                conn.who().silence = Some(Silence { since_s, max_s: inactive_s as u32 });
            }
            conn.begin(context, admission, Vec::new()).map(|()| conn)
        });
        match opened {
            Ok(conn) => Some(conn),
            Err(closing) => {
                end::<V>(context, closing, true);
                None
            }
        }
    }

    fn message(
        &mut self,
        context: &mut DialectContext<'_>,
        kind: ws::MessageKind,
        payload: &mut [u8],
    ) {
        if let Some(silence) = self.silence() {
            silence.since_s = context.now.ms.div_ceil(1000) as u32;
        }
        match kind {
            ws::MessageKind::Text => commands::text(self, context, payload),
            ws::MessageKind::Binary => {
                self.binaries = self.binaries.saturating_add(1);
                if self.binaries > V::DATA.quirks.binary_messages {
                    context.close(Closing::new(1003, "Binary messages are not supported"));
                } else {
                    self.protocol_error(context, ProtocolError::Binary);
                }
            }
        }
    }

    fn on(&mut self, context: &mut DialectContext<'_>, event: DialectEvent<'_>) {
        match event {
            DialectEvent::Joined { name, outcome } => self.joined(context, name, outcome),
            DialectEvent::NotSubscribed(name) => {
                self.protocol_error(context, ProtocolError::NotSubscribed(name));
            }
            DialectEvent::Message(DialectMessage::Channels(status)) => {
                watch::on_message(self, context, status);
            }
            DialectEvent::Message(_) | DialectEvent::NodeGone => {}
            DialectEvent::Answered { part, answer } => self.answered(context, part, answer),
            DialectEvent::Reload => {
                if !context.env.apps.get(self.app).config.enabled {
                    self.end(context, V::DATA.codes.app_disabled.clone());
                } else if self.is_revoked(context) {
                    end::<V>(context, V::DATA.codes.bad_signature.clone(), true);
                }
            }
            DialectEvent::Deadline => self.on_deadline(context),
            DialectEvent::Room => self.on_room(context),
            DialectEvent::AppPing => {
                if let Some(ping) = V::DATA.ping {
                    context.send_text(ping);
                }
            }
            DialectEvent::Closing(closing) => {
                *closing = V::DATA.translate(closing.clone());
                let sends_error = self.sends_error_before_close(context, closing);
                if let Some(text) = V::before_close(closing, sends_error) {
                    context.send_text(&text);
                }
            }
        }
    }

    #[inline]
    fn policy(&self, env: &Env) -> DialectPolicy {
        let app = &env.apps.get(self.app).config;
        let heartbeat = match self.inactive_by_s() > 0 {
            true => NO_HEARTBEAT,
            false => V::settings(env, app).heartbeat,
        };
        let message_bytes = match self.publisher() {
            Some(_) => {
                let (limits, own) = (&env.config.limits, app.limits.message_bytes);
                limits.message_bytes.min(limits.http_body_bytes as u64).max(own)
            }
            None => app.limits.message_bytes,
        };
        DialectPolicy { heartbeat, ..DialectPolicy::new(env, message_bytes) }
    }

    fn is_full(&self) -> bool {
        self.is_waiting() || self.publisher().is_some_and(|publisher| publisher.is_full())
    }

    fn held_bytes(&self) -> usize {
        self.publisher().map_or(0, |publisher| publisher.held_bytes())
    }

    fn ended(&mut self, env: &Env, end: ConnectionEnd<'_>) {
        if let ConnectionEnd::Dropped = end {
            self.release(env.apps.get(self.app));
        }
    }

    fn deadline(&self) -> Deadline {
        let at = |by_s: u32| match by_s {
            0 => Deadline::NEVER,
            by_s => Deadline(u64::from(by_s) * 1000),
        };
        let first = at(self.authorise_by_s).min(at(self.inactive_by_s()));
        first.min(at(self.positions_until_s()))
    }

    fn closing(why: Why) -> Closing {
        match why {
            Why::Silent => V::DATA.codes.silent.clone(),
            Why::Draining | Why::Gap => V::DATA.codes.draining.clone(),
            Why::Slow => V::DATA.codes.too_slow.clone(),
        }
    }
}

impl<V: Vendor> DialectApi for Connection<V> {
    fn subprotocol<'a>(env: &Env, opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        let nowhere = env.app_of_socket(opening.path) == Err(PathError::NoSuchPath);
        match nowhere && V::DATA.quirks.refuses_paths_early {
            true => Err(Rejection { status: 404, text: "nothing is served at this path".into() }),
            false => Ok(None),
        }
    }

    fn listen(
        context: &mut DialectContext<'_>,
        app: u32,
        opening: &Opening<'_>,
    ) -> Result<(Connection<V>, EventIds), HttpReply> {
        listen::listen(context, app, opening)
    }

    fn is_public(name: &str) -> bool {
        channel::kind(V::DATA, name) == ChannelKind::Public && !name.starts_with('#')
    }

    fn count(env: &Env, app: u32, name: &str, count: u64) -> Option<Frozen> {
        let wanted = env.apps.get(app).config.subscription_count;
        if !wanted || channel::kind(V::DATA, name) == ChannelKind::Presence {
            return None;
        }
        let mut pushed = false;
        let frame = freeze_text(&mut Vec::new(), |out| {
            pushed = messages::push_count(V::DATA, out, name, count)
        });
        pushed.then_some(frame)
    }

    fn content(event: &Event) -> Option<Content<'_>> {
        links::content::<V>(event)
    }

    fn history(env: &Env, app: u32, name: &str) -> Option<ChannelHistory> {
        let history = env.apps.get(app).config.history_of(name)?;
        Some(ChannelHistory { limit: positions::limit_of(history), rewind: history.rewind })
    }

    fn linked_event(env: &Env, app: u32, name: &str, content: &Content<'_>) -> Option<Event> {
        links::event::<V>(env, app, name, content)
    }

    fn needs_body(context: &mut DialectContext<'_>, app: u32, request: &http::Request<'_>) -> bool {
        api::is_signed::<V>(context, app, request)
    }

    fn request(
        context: &mut DialectContext<'_>,
        app: u32,
        path: &str,
        request: &mut http::Request<'_>,
    ) -> Answered {
        api::answer::<V>(context, app, path, request)
    }
}

impl<V: Vendor> Connection<V> {
    fn joined(&mut self, context: &mut DialectContext<'_>, name: &str, outcome: JoinOutcome) {
        if let Some(user) = name.strip_prefix(watch::WATCHED) {
            return watch::joined(self, context, user, &outcome);
        }
        let kind = channel::kind(V::DATA, name);
        if kind == ChannelKind::User {
            if self.user_channel_joined() {
                context.send_text(&messages::subscribed(V::DATA, name, b"{}"));
            }
            return;
        }
        let app = &context.env.apps.get(self.app).config;
        if kind != ChannelKind::Public && matches!(outcome, JoinOutcome::Joined(_)) {
            self.authorise_by_s = 0;
        }
        match outcome {
            JoinOutcome::Already if !V::settings(context.env, app).acknowledges_again => {
                self.protocol_error(context, ProtocolError::Subscribed(name));
            }
            JoinOutcome::Already if kind == ChannelKind::Presence => self.ask_roster(context, name),
            JoinOutcome::Already => context.send_text(&messages::subscribed(V::DATA, name, b"{}")),
            JoinOutcome::Joined(reply) => {
                if kind != ChannelKind::Public && V::settings(context.env, app).infers_channel {
                    self.who().closed.push(name.to_owned());
                }
                let (again, reply) = (self.entered(name), reply.unwrap_or_default());
                let users = reply.users.clone();
                push_join_reply::<V>(context, name, reply);
                for _ in 0..again {
                    push_again::<V>(context, name, users.as_deref());
                }
            }
            JoinOutcome::SubscriptionLimit => {
                let max = app.limits.subscriptions_per_connection;
                self.absent(name);
                self.refuse(context, name, SubscribeRefusal::SubscriptionLimit(max));
            }
            JoinOutcome::NoRoom => {
                let max = app.limits.channels;
                self.absent(name);
                self.refuse(context, name, SubscribeRefusal::NoRoom(max));
            }
            JoinOutcome::ChannelFull => {
                let max = app.limits.presence_members;
                self.absent(name);
                self.refuse(context, name, SubscribeRefusal::ChannelFull(max));
            }
            JoinOutcome::NotStored => {
                self.absent(name);
                self.refuse(context, name, SubscribeRefusal::NotStored);
            }
        }
    }

    fn answered(&mut self, context: &mut DialectContext<'_>, part: u16, answer: Answer) {
        if let Answer::Channel(_) | Answer::Unpublished(..) = answer {
            return self.acknowledged(context, part, answer);
        }
        let name = self.who.as_mut().and_then(|who| who.asked.remove(&part));
        let (Some(name), Answer::Users(users)) = (name, answer) else { return };
        if self.who().present.contains_key(&name) {
            push_again::<V>(context, &name, Some(&users));
        }
    }

    fn on_deadline(&mut self, context: &mut DialectContext<'_>) {
        let is_due = |by_s: u32| by_s > 0 && u64::from(by_s) * 1000 <= context.now.ms;
        if is_due(self.inactive_by_s()) {
            return self.end(context, V::DATA.codes.inactive.clone());
        }
        if is_due(self.positions_until_s()) {
            self.drop_positions();
        }
        if is_due(self.authorise_by_s) {
            self.authorise_by_s = 0;
            self.end(context, V::DATA.codes.unauthorised.clone());
        }
    }
}

/// Acknowledges a repeated subscription to a presence channel.
fn push_again<V: Vendor>(context: &mut DialectContext<'_>, name: &str, users: Option<&Users>) {
    let roster = users.map_or(b"{}".to_vec(), V::roster);
    context.send_text(&messages::subscribed(V::DATA, name, &roster));
}

/// Sends the acknowledgement of a subscription, and on a cache channel the cached event or a cache
/// miss.
fn push_join_reply<V: Vendor>(context: &mut DialectContext<'_>, name: &str, reply: JoinReply) {
    let data = reply.users.map_or(b"{}".to_vec(), |users| V::roster(&users));
    let mut message = messages::subscribed(V::DATA, name, &data);
    if let Some(resumed) = &reply.resumed {
        positions::push_resumed(&mut message, resumed);
        context.out.text_with_id(resumed.position.into(), &message);
    } else {
        context.send_text(&message);
    }
    let has_recovered = |it: &ResumeReply| it.outcome == ResumeOutcome::Recovered;
    if reply.resumed.as_deref().is_some_and(has_recovered) {
        // The client has got the cached event, or gets it as one of the missed events. It has and
        // gets none if it has asked for the last events and none is kept any more.
        return;
    }
    match reply.cached {
        Some(Some(frame)) => {
            if let Some((_, text)) = ws::frame::split(&frame) {
                context.send_text(text);
            }
        }
        Some(None) => context.send_text(&messages::cache_miss(V::DATA, name)),
        None => {}
    }
}

/// Decides whether the application admits a new connection, but for the number of connections, and
/// returns it. The checks are ordered so that the cheapest, and those that reveal the least, come
/// first.
fn admit<V: Vendor>(context: &DialectContext<'_>, opening: &Opening<'_>) -> Result<u32, Closing> {
    let env = context.env;
    let number = env.app_of_socket(opening.path);
    if number == Err(PathError::NoSuchPath) {
        return Err(V::DATA.codes.no_such_path.clone());
    }
    if context.draining {
        return Err(V::DATA.codes.draining.clone());
    }
    if env.is_overloaded() || number.is_ok_and(|number| !env.serves(number)) {
        if let Some(counters) = env.runtime.counters.get(usize::from(context.conn.core)) {
            counters.refused_overload.add(1);
        }
        return Err(V::DATA.codes.overloaded.clone());
    }
    let Ok(number) = number else { return Err(V::DATA.codes.unknown_app.clone()) };
    let app = env.apps.get(number);
    if !app.config.enabled {
        return Err(V::DATA.codes.app_disabled.clone());
    }
    if app.config.require_tls && !opening.secure {
        return Err(V::DATA.codes.tls_required.clone());
    }
    let origins = &app.config.allowed_origins;
    let origin = opening.origin.unwrap_or("");
    if !origins.is_empty() && !origins.iter().any(|allowed| allowed.matches(origin)) {
        return Err(V::DATA.codes.origin.clone());
    }
    V::check_opening(env, opening)?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::super::super::broadcastt::Broadcastt;
    use super::super::super::context::CoreState;
    use super::*;
    use crate::codec::json::Scratch;
    use crate::config::Config;
    use crate::dialect::{EffectList, Effects};
    use crate::hub::ConnId;
    use crate::mem::Slot;
    use crate::stats::Counters;
    use crate::time::Now;
    use crate::ws::output::Output;
    use std::sync::Arc;

    /// The number of roster queries that a client may have pending is limited.
    #[test]
    fn channels_presence_queries_are_bounded() {
        let counters = Arc::new(Counters::default());
        let mut env = Env::new(Config::demo(), 0).unwrap();
        env.runtime.counters.push(counters.clone());
        let now = Now { ms: 1_000_000, unix_s: 1_760_000_000 };
        let conn = ConnId { core: 0, slot: Slot { index: 1, generation: 1 } };
        let (mut json, mut bytes) = (Scratch::default(), Vec::new());
        let (mut shared, mut effects, mut closing) = (Vec::new(), EffectList::new(), None);
        let mut core_state = CoreState::default();
        let work = crate::work::Meter::default();
        let mut context = DialectContext {
            peer: std::net::SocketAddr::from(([127, 0, 0, 1], 40_000)),
            waiting_bytes: 0,
            now,
            conn,
            env: &env,
            json: &mut json,
            out: Output::plain(&mut bytes),
            core_state: &mut core_state,
            shared: &mut shared,
            effects: Effects::new(conn.slot, &mut effects),
            closing: &mut closing,
            work: &work,
            draining: false,
        };
        let mut client = Connection::<Broadcastt>::new(0, 0, now);
        for _ in 0..64 {
            client.joined(&mut context, "presence-a", JoinOutcome::Already);
        }
        assert_eq!((context.effects.mark(), counters.messages_ignored.get()), (64, 0));
        client.joined(&mut context, "presence-a", JoinOutcome::Already);
        assert_eq!((context.effects.mark(), counters.messages_ignored.get()), (64, 1));
        client.answered(&mut context, 1, Answer::Users(Vec::new()));
        client.joined(&mut context, "presence-a", JoinOutcome::Already);
        assert_eq!((context.effects.mark(), counters.messages_ignored.get()), (65, 1));
    }
}
