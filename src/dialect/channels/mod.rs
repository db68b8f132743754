//! The shared engine of all dialects with Pusher-like channels: connections, subscriptions,
//! presence, cache channels, client events, signatures, and the HTTP API that publishes and
//! queries.
//!
//! The engine is independent of the vendor: everything specific to one is in its [`Vendor`]
//! implementation, which has a folder of its own.

mod api;
mod batch;
pub(super) mod channel;
mod commands;
pub mod ids;
mod reads;
pub mod signature;
mod users;
pub mod vendor;
mod watch;

use super::apps::PathError;
use super::{
    Answered, Closing, Dialect, DialectContext, Env, Heartbeat, HttpReply, JoinOutcome, Opening,
    Rejection, Why, freeze_text,
};
use crate::codec::json::push_content;
use crate::config::{AppLimits, BadSignature};
use crate::http;
use crate::hub::{Answer, ConnId, DialectMessage, JoinReply};
use crate::mem::Frozen;
use crate::time::{Deadline, Now, RateLimit};
use crate::ws;
use std::borrow::Cow;
use std::marker::PhantomData;
use users::{Silence, Who};
use vendor::{ChannelKind, ProtocolError, SubscribeRefusal, Vendor, VendorResponse};

/// The maximum number of protocol errors of one connection in a second. The connection is closed at
/// the next error.
const ERRORS_PER_SECOND: u8 = 10;

/// The heartbeat of a client whose protocol version has no ping: the server sends it none.
const NO_HEARTBEAT: Heartbeat = Heartbeat { silence_ms: u64::MAX / 4, answer_ms: u64::MAX / 4 };

/// One client connection.
#[derive(Debug)]
pub struct Connection<V> {
    app: u32,
    /// The second in which errors were last counted (its low 16 bits), and the number of errors in
    /// it.
    error_second: u16,
    errors: u8,
    binaries: u8,
    /// The client events of the client.
    client_events: RateLimit,
    /// The fill level of the token bucket that limits the rate of subscriptions, and the second in
    /// which it was last updated.
    begun: u32,
    begun_second: u32,
    /// The second by which the client must have signed in or joined a channel that is not public; 0
    /// if it has, or if the application has no such limit.
    authorise_by_s: u32,
    /// State that most clients do not have: a signed-in user, presence channels, an inactivity
    /// timeout.
    who: Option<Box<Who>>,
    vendor: PhantomData<V>,
}

impl<V: Vendor> Dialect for Connection<V> {
    fn subprotocol<'a>(env: &Env, opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        let nowhere = env.app_of_socket(opening.path) == Err(PathError::NoSuchPath);
        match nowhere && V::QUIRKS.refuses_paths_early {
            true => Err(Rejection { status: 404, text: "nothing is served at this path".into() }),
            false => Ok(None),
        }
    }

    fn open(context: &mut DialectContext<'_>, opening: &Opening<'_>) -> Option<Connection<V>> {
        match admit::<V>(context, opening) {
            Ok(app) => {
                let config = &context.env.apps.get(app).config;
                let id = socket_id(context.env, context.conn);
                let text = V::established(context.env, config, &id);
                context.send_text(text.as_bytes());
                let within_s = config.authorise_within_s;
                let inactive_s = V::inactivity_s(context.env, opening);
                let mut conn = Connection::new(app, within_s, context.now);
                if inactive_s > 0 {
                    let since_s = context.now.ms.div_ceil(1000) as u32;
                    conn.who().silence = Some(Silence { since_s, max_s: inactive_s as u32 });
                }
                Some(conn)
            }
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
                if self.binaries > V::QUIRKS.binary_messages {
                    context.close(Closing::new(1003, "Binary messages are not supported"));
                } else {
                    self.protocol_error(context, ProtocolError::Binary);
                }
            }
        }
    }

    fn joined(&mut self, context: &mut DialectContext<'_>, name: &str, outcome: JoinOutcome) {
        if let Some(user) = name.strip_prefix(watch::WATCHED) {
            return watch::joined(self, context, user, &outcome);
        }
        let kind = channel::kind::<V>(name);
        if kind == ChannelKind::User {
            if self.user_channel_joined() {
                context.send_text(&V::subscribed(name, b"{}"));
            }
            return;
        }
        let app = &context.env.apps.get(self.app).config;
        if kind != ChannelKind::Public && matches!(outcome, JoinOutcome::Joined(_)) {
            self.authorise_by_s = 0;
        }
        match outcome {
            JoinOutcome::Already if !V::again(app) => {
                self.protocol_error(context, ProtocolError::Subscribed(name));
            }
            JoinOutcome::Already if kind == ChannelKind::Presence => self.ask_roster(context, name),
            JoinOutcome::Already => context.send_text(&V::subscribed(name, b"{}")),
            JoinOutcome::Joined(reply) => {
                if kind != ChannelKind::Public && V::infers_channel(context.env) {
                    self.who().closed.push(name.to_owned());
                }
                push_join_reply::<V>(context, name, reply.unwrap_or_default());
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
        }
    }

    fn not_subscribed(&mut self, context: &mut DialectContext<'_>, name: &str) {
        self.protocol_error(context, ProtocolError::NotSubscribed(name));
    }

    fn on_message(&mut self, context: &mut DialectContext<'_>, what: &DialectMessage) {
        watch::on_message(self, context, what);
    }

    fn answered(&mut self, context: &mut DialectContext<'_>, part: u16, answer: Answer) {
        let name = self.who.as_mut().and_then(|who| who.asked.remove(&part));
        let (Some(name), Answer::Users(users)) = (name, answer) else { return };
        if self.who().present.contains_key(&name) {
            context.send_text(&V::subscribed(&name, &V::roster(&users)));
        }
    }

    fn before_close(&mut self, context: &mut DialectContext<'_>, closing: Closing) -> Closing {
        let closing = V::translate(closing);
        if let Some(text) =
            V::before_close(&closing, self.sends_error_before_close(context, &closing))
        {
            context.send_text(&text);
        }
        closing
    }

    fn app_ping(&mut self, context: &mut DialectContext<'_>) {
        if let Some(ping) = V::PING {
            context.send_text(ping);
        }
    }

    fn deadline(&self) -> Deadline {
        let at = |by_s: u32| match by_s {
            0 => Deadline::NEVER,
            by_s => Deadline(u64::from(by_s) * 1000),
        };
        at(self.authorise_by_s).min(at(self.inactive_by_s()))
    }

    fn on_deadline(&mut self, context: &mut DialectContext<'_>) {
        let is_due = |by_s: u32| by_s > 0 && u64::from(by_s) * 1000 <= context.now.ms;
        if is_due(self.inactive_by_s()) {
            return self.end(context, V::INACTIVE);
        }
        if is_due(self.authorise_by_s) {
            self.authorise_by_s = 0;
            self.end(context, V::CODES.unauthorised);
        }
    }

    fn on_reload(&mut self, context: &mut DialectContext<'_>) {
        if !context.env.apps.get(self.app).config.enabled {
            self.end(context, V::CODES.app_disabled);
        }
    }

    fn closing(why: Why) -> Closing {
        match why {
            Why::Silent => V::CODES.silent,
            Why::Draining => V::CODES.draining,
            Why::Slow => V::CODES.too_slow,
        }
    }

    fn on_drop(&mut self, env: &Env) {
        env.apps.get(self.app).release();
    }

    fn limits(&self, env: &Env) -> ws::FrameLimits {
        let max = env.apps.get(self.app).config.limits.message_bytes;
        ws::FrameLimits {
            frame_bytes: max.min(env.config.limits.frame_bytes),
            message_bytes: max,
            fragments: env.config.limits.fragments,
            allow_rsv1: false,
        }
    }

    fn heartbeat(&self, env: &Env) -> Heartbeat {
        if self.inactive_by_s() > 0 {
            return NO_HEARTBEAT;
        }
        V::heartbeat(env, &env.apps.get(self.app).config)
    }

    fn count(env: &Env, app: u32, name: &str, count: u64) -> Option<Frozen> {
        let wanted = env.apps.get(app).config.subscription_count;
        if !wanted || channel::kind::<V>(name) == ChannelKind::Presence {
            return None;
        }
        let mut pushed = false;
        let frame = freeze_text(&mut Vec::new(), |out| pushed = V::push_count(out, name, count));
        pushed.then_some(frame)
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

/// Sends the acknowledgement of a subscription, and on a cache channel the cached event or a cache
/// miss.
fn push_join_reply<V: Vendor>(context: &mut DialectContext<'_>, name: &str, reply: JoinReply) {
    let data = reply.users.map_or(b"{}".to_vec(), |users| V::roster(&users));
    context.send_text(&V::subscribed(name, &data));
    match reply.cached {
        Some(Some(frame)) => {
            if let Some((_, text)) = ws::frame::split(&frame) {
                context.send_text(text);
            }
        }
        Some(None) => context.send_text(&V::cache_miss(name)),
        None => {}
    }
}

/// Closes the connection, after the vendor's error event if it sends one before this close.
/// `refused` is passed to [`Vendor::before_close`].
fn end<V: Vendor>(context: &mut DialectContext<'_>, closing: Closing, refused: bool) {
    if context.closing.is_none()
        && let Some(text) = V::before_close(&closing, refused)
    {
        context.send_text(&text);
    }
    context.close(closing);
}

impl<V: Vendor> Connection<V> {
    fn new(app: u32, within_s: u64, now: Now) -> Connection<V> {
        let by_s = if within_s == 0 { 0 } else { now.ms.div_ceil(1000) + within_s };
        Connection {
            app,
            error_second: 0,
            errors: 0,
            binaries: 0,
            client_events: RateLimit::default(),
            begun: 0,
            begun_second: 0,
            authorise_by_s: by_s as u32,
            who: None,
            vendor: PhantomData,
        }
    }

    /// The second by which a client without pings must have sent a message; 0 if the client
    /// supports pings.
    fn inactive_by_s(&self) -> u32 {
        let silence = self.who.as_ref().and_then(|who| who.silence.as_ref());
        silence.map_or(0, |silence| silence.since_s.saturating_add(silence.max_s))
    }

    /// Closes a connection that was admitted.
    fn end(&self, context: &mut DialectContext<'_>, closing: Closing) {
        let sends_error = self.sends_error_before_close(context, &closing);
        end::<V>(context, closing, sends_error);
    }

    /// Whether the application's `error_before_close` requests an error event before this close.
    fn sends_error_before_close(&self, context: &DialectContext<'_>, closing: &Closing) -> bool {
        let is_own = (4000..4300).contains(&closing.code);
        is_own && context.env.apps.get(self.app).config.error_before_close
    }

    /// Counts a client event. Returns false if there are now more than `max` in this second; `max`
    /// 0 is no limit.
    fn may_publish_client_event(&mut self, now: Now, max: u16) -> bool {
        let events = self.client_events.add(1, now.ms);
        max == 0 || events <= max.into()
    }

    /// Counts a requested subscription. Returns false if it exceeds the rate limit, a token bucket:
    /// a burst of `subscriptions_per_connection` (or `subscriptions_per_s`, if that is greater),
    /// refilled at `subscriptions_per_s`. A rate of 0 is no limit.
    fn may_subscribe(&mut self, now: Now, limits: &AppLimits) -> bool {
        let rate = u32::from(limits.subscriptions_per_s);
        let second = (now.ms / 1000) as u32;
        let passed = second.wrapping_sub(self.begun_second);
        self.begun = self.begun.saturating_sub(rate.saturating_mul(passed));
        self.begun_second = second;
        if rate == 0 {
            return true;
        }
        let may = (self.begun as usize) < limits.subscriptions_per_connection.max(rate as usize);
        self.begun += u32::from(may);
        may
    }

    /// Reports a protocol error that does not close the connection, as the vendor responds to it.
    /// More than [`ERRORS_PER_SECOND`] in a second close the connection.
    fn protocol_error(
        &mut self,
        context: &mut DialectContext<'_>,
        protocol_error: ProtocolError<'_>,
    ) {
        match V::protocol_error(&protocol_error) {
            VendorResponse::Send(text) => self.report(context, Some(&text)),
            VendorResponse::Count => {
                ignored(context);
                self.report(context, None);
            }
            VendorResponse::Ignore => ignored(context),
        }
    }

    /// Refuses a subscription. A missing or wrong signature also closes the connection if the
    /// application has `bad_signature = "close"`.
    fn refuse(
        &mut self,
        context: &mut DialectContext<'_>,
        name: &str,
        refusal: SubscribeRefusal<'_>,
    ) {
        let text = V::refused(name, &refusal);
        match V::QUIRKS.refusals_count {
            true => self.report(context, Some(&text)),
            false => context.send_text(&text),
        }
        let unsigned = matches!(refusal, SubscribeRefusal::Signature | SubscribeRefusal::User);
        let policy = context.env.apps.get(self.app).config.bad_signature;
        if unsigned && policy == BadSignature::Close {
            end::<V>(context, V::CODES.bad_signature, true);
        }
    }

    fn report(&mut self, context: &mut DialectContext<'_>, text: Option<&[u8]>) {
        let second = (context.now.ms / 1000) as u16;
        if second != self.error_second {
            self.error_second = second;
            self.errors = 0;
        }
        self.errors += 1;
        if self.errors > ERRORS_PER_SECOND {
            self.end(context, V::CODES.too_many_errors);
        } else if let Some(text) = text {
            context.send_text(text);
        }
    }
}

/// Counts a message that was ignored.
fn ignored(context: &DialectContext<'_>) {
    if let Some(counters) = context.env.counters.get(usize::from(context.conn.core)) {
        counters.messages_ignored.add(1);
    }
}

/// Decides whether a new connection is admitted, and returns its application. The checks are
/// ordered so that the cheapest, and those that reveal the least, come first.
fn admit<V: Vendor>(context: &DialectContext<'_>, opening: &Opening<'_>) -> Result<u32, Closing> {
    let env = context.env;
    let number = env.app_of_socket(opening.path);
    if number == Err(PathError::NoSuchPath) {
        return Err(V::CODES.no_such_path);
    }
    if context.draining {
        return Err(V::CODES.draining);
    }
    if env.is_overloaded() {
        if let Some(counters) = env.counters.get(usize::from(context.conn.core)) {
            counters.refused_overload.add(1);
        }
        return Err(V::OVERLOADED);
    }
    let Ok(number) = number else { return Err(V::CODES.unknown_app) };
    let app = env.apps.get(number);
    if !app.config.enabled {
        return Err(V::CODES.app_disabled);
    }
    if app.config.require_tls && !opening.secure {
        return Err(V::CODES.tls_required);
    }
    let origins = &app.config.allowed_origins;
    let origin = opening.origin.unwrap_or("");
    if !origins.is_empty() && !origins.iter().any(|allowed| allowed.matches(origin)) {
        return Err(V::CODES.origin);
    }
    V::check_opening(env, opening)?;
    match app.admit() {
        true => Ok(number),
        false => Err(V::CODES.over_quota),
    }
}

/// The socket id of a connection, by which clients and the HTTP API know it. See
/// [`ids::SocketIds`].
pub fn socket_id(env: &Env, conn: ConnId) -> String {
    env.socket_ids.write(conn)
}

/// Appends an event. `data` is written as the content of a JSON string.
pub(super) fn push_event(out: &mut Vec<u8>, event: &str, channel: &str, data: &str) {
    out.extend_from_slice(br#"{"event":""#);
    push_content(out, event);
    out.extend_from_slice(br#"","channel":""#);
    push_content(out, channel);
    out.extend_from_slice(br#"","data":""#);
    push_content(out, data);
    out.extend_from_slice(br#""}"#);
}

fn json_error<V: Vendor>(status: u16, message: &str) -> HttpReply {
    HttpReply { status, body: Cow::Owned(V::api_error(status, message)), allow: None }
}

#[cfg(test)]
mod tests {
    use super::super::broadcastt::Broadcastt;
    use super::super::{CoreState, EffectList, Effects};
    use super::*;
    use crate::codec::json::Scratch;
    use crate::config::Config;
    use crate::mem::Slot;
    use crate::stats::Counters;
    use crate::ws::output::Output;
    use std::sync::Arc;

    /// The number of roster queries that a client may have pending is limited.
    #[test]
    fn channels_presence_queries_are_bounded() {
        let counters = Arc::new(Counters::default());
        let mut env = Env::new(Config::demo(), 0);
        env.counters.push(counters.clone());
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
