//! The commands of back ends, by HTTP or WebSocket; each message has one command.

use super::directory::ServiceEntry;
use super::messages::{KICKED, ZenithMessage};
use super::nodes::state_feeds;
use super::peer::ZenithPeer;
use super::peers::{to_peer, to_peer_in_order};
use super::rule::retain_of;
use super::wire::{self, APP, MessageEnvelope, codes};
use crate::codec::Value;
use crate::config;
use crate::dialect::{Content, DialectContext, Effect, Env};
use crate::dialect::{DialectMessage, Event, EventPayload};
use crate::hub::{Clears, Encodings, Mode, PictureChange, Retention};
use std::sync::Arc;

/// One command of a back end.
pub(super) enum BackendCommand {
    /// Publishes data to a channel, or removes its picture.
    Data(String, Event),
    /// Ends a topic, with or without an error, for all its subscribers or for some.
    End(String, Option<Value>, EndScope),
    /// Closes all sessions of a user.
    Kick(Box<str>),
    /// Sets the state of a feed: its name and the state.
    Feed(Box<str>, Box<str>),
}

impl BackendCommand {
    /// Whether the command publishes an event that a channel's home orders.
    pub(super) fn is_published(&self, is_clustered: bool) -> bool {
        match self {
            BackendCommand::Data(..) | BackendCommand::End(_, _, EndScope::All) => true,
            BackendCommand::Feed(..) => is_clustered,
            _ => false,
        }
    }
}

/// The clients for which a topic ends.
pub(super) enum EndScope {
    /// All subscribers.
    All,
    /// All sessions of a user.
    User(Box<str>),
    /// One session.
    Session(ZenithPeer),
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandRefusal {
    /// The protocol's error code.
    pub(super) code: &'static str,
    /// The error text, for people.
    pub(super) text: &'static str,
}

/// The members that mark a log element as one that clears all elements before it.
pub(super) const CLEARS: Clears = &[("O", "C"), ("O", "I"), ("Operation", "Clear")];

/// Parses one message of a back end into a command.
///
/// # Errors
/// The message is incomplete or invalid, or the back end may not do this.
pub(super) fn read(
    env: &Env,
    service: &ServiceEntry,
    it: MessageEnvelope,
) -> Result<BackendCommand, CommandRefusal> {
    let refuse = |code, text| Err(CommandRefusal { code, text });
    match it.action.as_deref().unwrap_or(wire::PUBLISH) {
        "Kick" => match it.user {
            Some(Value::Text(user)) => Ok(BackendCommand::Kick(user)),
            _ => refuse(codes::DATA, "Kick needs UserID, a string"),
        },
        "Feed" => {
            let status = it.data.as_ref().and_then(Value::as_text).unwrap_or("");
            if !env.zenith.has_feed(it.topic()) {
                return refuse(codes::UNKNOWN, "no feed of this name is configured");
            }
            if !config::FEED_STATES.contains(&status) {
                return refuse(codes::DESERIALISE, "Data is no state of a feed");
            }
            Ok(BackendCommand::Feed(it.topic().into(), status.into()))
        }
        "Publish" | "Snapshot" | "Clear" | "End" => topic_order(env, service, it),
        _ => refuse(codes::UNKNOWN, "Action is unknown"),
    }
}

fn topic_order(
    env: &Env,
    service: &ServiceEntry,
    it: MessageEnvelope,
) -> Result<BackendCommand, CommandRefusal> {
    let refuse = |code, text| Err(CommandRefusal { code, text });
    let directory = &env.zenith;
    let Some(topic) = &it.topic else { return refuse(codes::UNKNOWN, "Topic is missing") };
    if it.controller.len() + topic.len() > directory.config.topic_length {
        return refuse(codes::LIMITED, "the topic is too long");
    }
    if !service.may_serve(&it.controller) {
        return refuse(codes::AUTHORITY, "the service may not serve this controller");
    }
    let Some(rule) = directory.look(&it.controller, topic).rule else {
        return refuse(codes::UNKNOWN, "no such topic is configured or registered");
    };
    if rule.data.is_some() {
        return refuse(codes::UNKNOWN, "the topic's data stands in the configuration");
    }
    let name = wire::channel(&it.controller, topic);
    if !env.links.may_publish(APP, &name) {
        return refuse(codes::AUTHORITY, "the topic is linked and accepts no data");
    }
    let retain = match &it.retain {
        None => rule.retain,
        Some(word) => match word.as_text().and_then(retain_of) {
            Some(retain) => retain,
            None => return refuse(codes::DESERIALISE, "Retain is unknown"),
        },
    };
    let mode = mode(env, retain, rule.null_deletes);
    let retain = match it.action.as_deref() {
        Some("End") => return end_order(env, name, it),
        Some("Clear") => return Ok(BackendCommand::Data(name, Event::clear())),
        Some("Snapshot") => {
            let mode = mode.unwrap_or(Mode::Replace);
            Retention::Picture(PictureChange::Install { mode, received: false })
        }
        _ => Retention::update(mode),
    };
    let Some(data) = it.data.filter(|data| !data.is_null()) else {
        return refuse(codes::DATA, "Data is missing or null");
    };
    if wire::is_too_large(env, &data) {
        return refuse(codes::LIMITED, "Data is too large for the log of the cluster");
    }
    let envelope = Arc::new(wire::envelope(&it.controller, topic));
    match Encodings::new(envelope, data, env.compresses) {
        Ok(encodings) => {
            let payload = EventPayload::Value(Arc::new(encodings));
            Ok(BackendCommand::Data(name, Event { payload, retain, ..Event::default() }))
        }
        Err(_) => refuse(codes::DESERIALISE, "Data cannot be written in every format"),
    }
}

/// The end of a topic, for all its subscribers or for some.
fn end_order(
    env: &Env,
    name: String,
    it: MessageEnvelope,
) -> Result<BackendCommand, CommandRefusal> {
    let refuse = |code, text| Err(CommandRefusal { code, text });
    if it.error.as_ref().is_some_and(|error| wire::is_too_large(env, error)) {
        return refuse(codes::LIMITED, "Error is too large for the log of the cluster");
    }
    match EndScope::of(env, it.session.as_ref(), it.user.as_ref()) {
        Some(scope) => Ok(BackendCommand::End(name, it.error, scope)),
        None => refuse(codes::DESERIALISE, "End is for a Session or a UserID, or for all"),
    }
}

/// How the picture of a topic is changed by published data.
fn mode(env: &Env, retain: config::RetainConfig, null_deletes: bool) -> Option<Mode> {
    match retain {
        config::RetainConfig::Merge => Some(Mode::Merge { null_deletes }),
        config::RetainConfig::Log => {
            Some(Mode::Log { max: env.zenith.config.log_elements as u32, clears: CLEARS })
        }
        config::RetainConfig::Replace => Some(Mode::Replace),
        config::RetainConfig::None => None,
    }
}

/// The event that publishes the content of a linked channel's event on a topic, as a back end would
/// publish it. `None` for binary data and for null.
pub(super) fn linked_event(env: &Env, channel: &str, content: &Content<'_>) -> Option<Event> {
    let (controller, topic) = wire::split(channel);
    let data = content.data.value().filter(|data| !data.is_null())?;
    let envelope = Arc::new(wire::envelope(controller, topic));
    let encodings = Encodings::new(envelope, data, env.compresses).ok()?;
    let rule = env.zenith.look(controller, topic).rule;
    let mode = rule.and_then(|rule| mode(env, rule.retain, rule.null_deletes));
    let retain = Retention::update(mode);
    Some(Event { payload: EventPayload::Value(Arc::new(encodings)), retain, ..Event::default() })
}

impl EndScope {
    fn of(env: &Env, session: Option<&Value>, user: Option<&Value>) -> Option<EndScope> {
        match (session, user) {
            (None, None) => Some(EndScope::All),
            (Some(Value::Text(session)), None) => {
                wire::parse_session(env, session).map(EndScope::Session)
            }
            (None, Some(Value::Text(user))) => Some(EndScope::User(user.clone())),
            _ => None,
        }
    }
}

/// Carries out a command; returns the number of sessions that it closes. `part` identifies its
/// publish for the acknowledgement.
pub(super) fn carry_out(
    context: &mut DialectContext<'_>,
    order: BackendCommand,
    part: u16,
) -> usize {
    match order {
        BackendCommand::Data(name, event) => {
            context.effects.push(Effect::Publish { app: APP, name, event, part });
            0
        }
        BackendCommand::End(name, error, scope) => {
            let what = Arc::new(ZenithMessage::End { channel: name.as_str().into(), error });
            let sessions = match scope {
                EndScope::All => return end_for_all(context, name, what.into(), part),
                EndScope::User(user) => context.env.zenith.state.sessions(&user),
                EndScope::Session(session) => vec![session],
            };
            // Each session gets it after what was published to the topic before.
            let is_clustered = context.env.config.cluster.is_some();
            let notify_one = |to| to_peer_in_order(name.clone(), to, what.clone(), is_clustered);
            context.effects.extend(sessions.into_iter().map(notify_one));
            0
        }
        BackendCommand::Kick(user) => {
            let sessions = context.env.zenith.state.sessions(&user);
            for &to in &sessions {
                context.effects.push(to_peer(to, ZenithMessage::Kick(KICKED)));
            }
            sessions.len()
        }
        BackendCommand::Feed(name, status) if context.env.config.cluster.is_some() => {
            let effect = state_feeds(context.env, &[(name, Some(&status))], part);
            context.effects.push(effect);
            0
        }
        BackendCommand::Feed(name, status) => {
            if context.env.zenith.state.set_feed(&name, Some(&status)) {
                context.effects.push(announce_feeds(context.env, part));
            }
            0
        }
    }
}

/// Ends a topic for all subscribers, and removes its picture.
fn end_for_all(
    context: &mut DialectContext<'_>,
    name: String,
    what: DialectMessage,
    part: u16,
) -> usize {
    let event = Event { payload: EventPayload::Message(what), ..Event::clear() };
    context.effects.push(Effect::Publish { app: APP, name, event, part });
    0
}

/// The effect that publishes the states of all feeds to the subscribers of `Zenith/Feeds`.
pub(super) fn announce_feeds(env: &Env, part: u16) -> Effect {
    let what = ZenithMessage::Feeds(env.zenith.feeds());
    let event = Event::message(what.into());
    Effect::Publish { app: APP, name: wire::channel("Zenith", "Feeds"), event, part }
}
