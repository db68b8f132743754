//! Messages of clients over the WebSocket: parses them into commands and executes those.

use super::super::app::App;
use super::super::context::{DialectContext, freeze_text};
use super::super::effects::Effect;
use super::connection::{Connection, socket_id};
use super::data::ChannelKind;
use super::publish::PublishSource;
use super::publisher::{self, PublishOutcome};
use super::vendor::{BadEvent, ProtocolError, SubscribeRefusal, Vendor};
use super::{authenticate, channel, history, positions, users};
use crate::codec::json::{JsonText, MalformedJson, Scratch};
use crate::codec::raw::RawMembers;
use crate::crypto;
use crate::dialect::{Event as Published, JoinRequest};
use crate::hub::{ClientEvent, EventMask, Form, ResumeFrom, Retention, SharedFrame};
use memchr::memmem;
use std::borrow::Cow;
use std::sync::Arc;

/// A client's message, parsed completely before the command is executed.
enum Command {
    Ping,
    Pong,
    Subscribe(Subscription),
    Unsubscribe(String),
    SignIn {
        auth: String,
        user_data: String,
    },
    ClientEvent,
    /// The positions by channel.
    Resume(Vec<(String, ResumeFrom)>),
    Authenticate {
        auth: String,
        role: String,
    },
    /// A publish by a connection that has not authenticated as a publisher.
    Publish,
    /// An event whose name is no known command.
    Unsupported(String),
    /// A message that is malformed or incomplete.
    Wrong(ProtocolError<'static>),
}

struct Subscription {
    channel: String,
    auth: String,
    channel_data: Option<String>,
}

pub(super) fn text<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    payload: &mut [u8],
) {
    // Parsing modifies the text in place, but a client event is forwarded unchanged, so its text is
    // copied first.
    let kept = memmem::find(payload, b"client-").map(|_| payload.to_vec());
    let is_first = !std::mem::replace(&mut conn.has_sent, true);
    let Ok(message) = parse(conn, context, payload) else {
        return conn.protocol_error(context, ProtocolError::NotJson);
    };
    let command = match message {
        Read::Whole(command) => command,
        Read::Inner(event, data) => read_inner(context.json, event, data),
        Read::Published(outcome) => return answer_publish(context, &outcome),
    };
    match command {
        Command::Ping => context.send_text(V::DATA.pong),
        Command::Pong => {}
        Command::Subscribe(subscription) => subscribe(conn, context, subscription),
        Command::Unsubscribe(name) => unsubscribe(conn, context, name),
        Command::SignIn { auth, user_data } => users::sign_in(conn, context, &auth, &user_data),
        Command::Resume(positions) => history::resume(conn, context, positions, is_first),
        Command::ClientEvent => client_event(conn, context, kept.as_deref().unwrap_or(&[])),
        Command::Authenticate { auth, role } => {
            authenticate::authenticate(conn, context, &auth, &role);
        }
        Command::Publish => authenticate::refuse_stranger(conn, context),
        Command::Unsupported(event) => {
            conn.protocol_error(context, ProtocolError::Unsupported(&event));
        }
        Command::Wrong(protocol_error) => conn.protocol_error(context, protocol_error),
    }
}

enum Read {
    Whole(Command),
    /// A command whose `data` is a string of JSON, which some client libraries send instead of an
    /// object.
    Inner(Event, String),
    /// A publish of a publisher, which is carried out already.
    Published(PublishOutcome),
}

/// Parses a message. A publish of a publisher is carried out while its text is borrowed, so that
/// nothing of it is copied except into the frame.
fn parse<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    payload: &mut [u8],
) -> Result<Read, MalformedJson> {
    let Some(mut publisher) = conn.who.as_mut().and_then(|who| who.publisher.take()) else {
        return context.json.parse(payload, read::<V>);
    };
    let (env, now_ms, is_draining) = (context.env, context.now.ms, context.draining);
    let source =
        PublishSource { env, app: conn.app, now_ms, first_part: 0, key: None, skipped: &[] };
    let effects = &mut context.effects;
    let mut publish =
        |data: Option<JsonText<'_, '_>>| publisher.publish::<V>(source, data, is_draining, effects);
    let mut parsed = context.json.parse(payload, |message| match publisher::is_publish(message) {
        true => Read::Published(publish(message.get("data"))),
        false => read::<V>(message),
    });
    if let Ok(Read::Published(PublishOutcome::Inner(data))) = &mut parsed {
        let mut data = std::mem::take(data).into_bytes();
        let object = |data: JsonText<'_, '_>| publish(data.is_object().then_some(data));
        let inner = context.json.parse(&mut data, object);
        parsed = Ok(Read::Published(inner.unwrap_or_else(|_| publish(None))));
    }
    conn.who().publisher = Some(publisher);
    parsed
}

fn answer_publish(context: &mut DialectContext<'_>, outcome: &PublishOutcome) {
    match outcome {
        PublishOutcome::Pending | PublishOutcome::Inner(_) => {}
        PublishOutcome::Answered(text) => context.send_text(text),
        PublishOutcome::Refused(text) => {
            context.send_text(text);
            if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core))
            {
                counters.publishes_refused.add(1);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Event {
    Subscribe,
    Unsubscribe,
    SignIn,
    Resume,
    Authenticate,
}

fn read<V: Vendor>(message: JsonText<'_, '_>) -> Read {
    let Some(name) = message.get("event").and_then(|event| event.text()) else {
        return Read::Whole(Command::Wrong(ProtocolError::NotAnObject));
    };
    let event = match name {
        name if name == V::DATA.commands.ping => return Read::Whole(Command::Ping),
        name if name == V::DATA.commands.pong => return Read::Whole(Command::Pong),
        name if name == V::DATA.commands.subscribe => Event::Subscribe,
        name if name == V::DATA.commands.unsubscribe => Event::Unsubscribe,
        name if name == V::DATA.commands.sign_in && !name.is_empty() => Event::SignIn,
        history::RESUME => Event::Resume,
        authenticate::AUTHENTICATE => Event::Authenticate,
        publisher::PUBLISH => return Read::Whole(Command::Publish),
        name if name.starts_with("client-") => return Read::Whole(Command::ClientEvent),
        name => return Read::Whole(Command::Unsupported(shorten(name))),
    };
    match message.get("data") {
        Some(data) => match data.text() {
            Some(text) => Read::Inner(event, text.to_owned()),
            None => Read::Whole(fit(event, data)),
        },
        None => Read::Whole(Command::Wrong(ProtocolError::NoData)),
    }
}

fn read_inner(json: &mut Scratch, event: Event, data: String) -> Command {
    let mut text = data.into_bytes();
    match json.parse(&mut text, |data| fit(event, data)) {
        Ok(command) => command,
        Err(_) => Command::Wrong(ProtocolError::DataNotAnObject),
    }
}

fn fit(event: Event, data: JsonText<'_, '_>) -> Command {
    if !data.is_object() {
        return Command::Wrong(ProtocolError::DataNotAnObject);
    }
    let text = |key| data.get(key).and_then(|value| value.text()).map(str::to_owned);
    if let Event::SignIn = event {
        let (auth, user_data) = (text("auth"), text("user_data"));
        return match (auth, user_data) {
            (Some(auth), Some(user_data)) => Command::SignIn { auth, user_data },
            _ => Command::Wrong(ProtocolError::NoSignIn),
        };
    }
    if let Event::Resume = event {
        return match positions::read_positions(data) {
            Some(positions) => Command::Resume(positions),
            None => Command::Wrong(ProtocolError::DataNotAnObject),
        };
    }
    if let Event::Authenticate = event {
        let (auth, role) = (text("auth").unwrap_or_default(), text("role").unwrap_or_default());
        return Command::Authenticate { auth, role };
    }
    let Some(channel) = data.get("channel").and_then(|channel| channel.text()) else {
        return Command::Wrong(ProtocolError::NoChannel);
    };
    let channel = channel.to_owned();
    match event {
        Event::Subscribe => Command::Subscribe(Subscription {
            channel,
            auth: text("auth").unwrap_or_default(),
            channel_data: text("channel_data"),
        }),
        Event::Unsubscribe | Event::SignIn | Event::Resume | Event::Authenticate => {
            Command::Unsubscribe(channel)
        }
    }
}

/// Counts a subscription that exceeds the rate of its connection.
fn count_refused(context: &DialectContext<'_>) {
    if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core)) {
        counters.subscriptions_refused.add(1);
    }
}

fn subscribe<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    subscription: Subscription,
) {
    let app = &context.env.apps.get(conn.app).config;
    let limits = &app.limits;
    let max = limits.subscriptions_per_connection + conn.hidden();
    let name = subscription.channel;
    if let Err(problem) = channel::check(V::DATA, &name, V::settings(context.env, app).name_length)
    {
        return conn.refuse(context, &shorten(&name), SubscribeRefusal::Name(&problem));
    }
    if !conn.may_subscribe(context.now, limits) {
        count_refused(context);
        return conn.refuse(context, &name, SubscribeRefusal::TooMany(limits.subscriptions_per_s));
    }
    let cached = channel::is_cached(V::DATA, &name);
    let kind = channel::kind(V::DATA, &name);
    let data = subscription.channel_data.as_deref();
    let request = match kind {
        ChannelKind::Public => cached.then_some(JoinRequest { cached, ..JoinRequest::default() }),
        ChannelKind::User if !conn.ask_for_user_channel(&name) => {
            return conn.refuse(context, &name, SubscribeRefusal::User);
        }
        ChannelKind::User => None,
        _ if !authorised(conn, context, &name, &subscription.auth, data) => {
            return conn.refuse(context, &name, SubscribeRefusal::Signature);
        }
        ChannelKind::Private | ChannelKind::Encrypted => {
            cached.then_some(JoinRequest { cached, ..JoinRequest::default() })
        }
        ChannelKind::Presence => {
            let who = match (data, conn.signed_in_identity()) {
                (Some(data), _) => users::identity::<V>(data, limits),
                (None, Some(identity)) => Ok(identity),
                (None, None) => {
                    Err(SubscribeRefusal::Member("Presence channels need channel_data"))
                }
            };
            match who {
                Ok(who) => {
                    let request = users::join_request::<V>(&name, &who, limits, cached);
                    conn.enter(&name, who.id);
                    Some(request)
                }
                Err(refusal) => return conn.refuse(context, &name, refusal),
            }
        }
    };
    let resume = conn.resume_request(context, &name);
    let form = if resume.is_some() { Form::POSITIONED } else { Form::PUBLISHED };
    let request = match resume {
        Some(_) => Some(JoinRequest { resume, ..request.unwrap_or_default() }),
        None => request,
    };
    context.effects.push(Effect::Join { app: conn.app, name, max, request, form });
}

fn unsubscribe<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    name: String,
) {
    if channel::kind(V::DATA, &name) == ChannelKind::User {
        return; // The subscription to the user's own channel lasts until the connection closes.
    }
    conn.absent(&name);
    context.effects.push(Effect::Leave { app: conn.app, name });
}

/// Whether `auth` is `key:signature` over `socket_id:channel[:channel_data]`. `channel_data` is
/// covered on channels of every kind, because clients forward whatever `channel_data` their
/// authorisation endpoint returned.
fn authorised<V: Vendor>(
    conn: &Connection<V>,
    context: &DialectContext<'_>,
    name: &str,
    auth: &str,
    channel_data: Option<&str>,
) -> bool {
    let mut parts: Vec<&[u8]> = vec![b":", name.as_bytes()];
    if let Some(data) = channel_data {
        parts.extend([b":".as_slice(), data.as_bytes()]);
    }
    conn.is_signed(context, auth, &parts)
}

impl<V: Vendor> Connection<V> {
    /// Whether `auth` is `key:signature`, where the key is one of the application's and the
    /// signature is the HMAC-SHA256 of this connection's socket id followed by `parts`.
    pub(super) fn is_signed(
        &self,
        context: &DialectContext<'_>,
        auth: &str,
        parts: &[&[u8]],
    ) -> bool {
        let socket = socket_id(context.env, context.conn);
        is_signed_for(context.env.apps.get(self.app), &socket, auth, parts)
    }
}

/// Whether `auth` is `key:signature`, where the key is one of the application's and the signature
/// is the HMAC-SHA256 of a socket id followed by `parts`.
pub(super) fn is_signed_for(app: &App, socket: &str, auth: &str, parts: &[&[u8]]) -> bool {
    let Some((key, given)) = auth.split_once(':') else { return false };
    let key = app.keys.iter().find(|candidate| *candidate.text == *key);
    let Some(key) = key else { return false };
    let mut signed: Vec<&[u8]> = vec![socket.as_bytes()];
    signed.extend_from_slice(parts);
    let expected: [u8; 64] = crypto::hex(&key.secret.sign(&signed));
    crypto::constant_time_eq(&expected, given.as_bytes())
}

/// Publishes a client event (`client-*`) to the other subscribers of its channel, with its `data`
/// unchanged.
fn client_event<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    text: &[u8],
) {
    let app = &context.env.apps.get(conn.app).config;
    let Some(message) = str::from_utf8(text).ok().and_then(RawMembers::read) else {
        return conn.protocol_error(context, ProtocolError::NotAnObject);
    };
    let only = || match V::settings(context.env, app).infers_channel {
        true => conn.only_channel().map(|name| Cow::Owned(name.to_owned())),
        false => None,
    };
    let name = message.text("channel").or_else(only);
    let named = name.as_deref().map(shorten);
    let refuse = |conn: &mut Connection<V>, context: &mut DialectContext<'_>, why| {
        conn.protocol_error(context, ProtocolError::Event(why, named.as_deref()));
    };
    if !app.client_events {
        return refuse(conn, context, BadEvent::Off);
    }
    let (Some(event), Some(name)) = (message.text("event"), name) else {
        return refuse(conn, context, BadEvent::NoChannel);
    };
    let data = message.raw("data");
    if let Some(why) = refusal_of(conn, context, (&event, &name), data.map_or(0, str::len)) {
        return refuse(conn, context, why);
    }
    let user_id = conn.who.as_ref().and_then(|who| who.present.get(&*name)).map(String::as_str);
    let mut scratch = Vec::with_capacity(64 + text.len());
    let frame = freeze_text(&mut scratch, |out| {
        V::push_client_event(out, &event, &name, data, user_id);
    });
    let compressed = context.env.compresses.then(Default::default);
    let notify = context.env.watches(conn.app, EventMask::CLIENT_EVENTS).then(|| {
        Arc::new(ClientEvent {
            event: (*event).into(),
            data: data.map(|raw| message.text("data").map_or(raw.into(), |text| (*text).into())),
            from: socket_id(context.env, context.conn).into(),
            user: user_id.map(Into::into),
        })
    });
    let except = Some(context.conn.into());
    let shared = SharedFrame { frame, compressed };
    let history = app.history_of(&name).filter(|history| history.client_events);
    let retain =
        history.map_or(Retention::Nothing, |it| Retention::History(positions::limit_of(it)));
    let event = Published { except, notify, retain, ..shared.into() };
    let name = name.into_owned();
    context.effects.push(Effect::PublishIfSubscribed { app: conn.app, name, event });
}

/// Why a client event is refused, if it is: its channel, its length, or the client's rate.
fn refusal_of<V: Vendor>(
    conn: &mut Connection<V>,
    context: &DialectContext<'_>,
    (event, name): (&str, &str),
    data_bytes: usize,
) -> Option<BadEvent> {
    let limits = &context.env.apps.get(conn.app).config.limits;
    if event.len() > limits.event_name_length {
        return Some(BadEvent::LongName);
    }
    if !matches!(channel::kind(V::DATA, name), ChannelKind::Private | ChannelKind::Presence) {
        return Some(BadEvent::Public);
    }
    if !context.env.links.may_publish(conn.app, name) {
        return Some(BadEvent::View);
    }
    if data_bytes > limits.event_bytes {
        return Some(BadEvent::LongData);
    }
    let may_publish = conn.may_publish_client_event(context.now, limits.client_events_per_s);
    (!may_publish).then_some(BadEvent::TooMany)
}

/// The first 200 bytes of a name sent by a client, cut at a character boundary, for use in an error
/// message.
fn shorten(name: &str) -> String {
    let mut end = name.len().min(200);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}
