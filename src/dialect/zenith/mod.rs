//! Zenith: subscriptions with a picture, calls, and back ends, in JSON, BSON or MessagePack.
//!
//! `README.md` in this folder describes the configuration and the protocol of back ends.

mod attempts;
mod auth;
mod builtin;
mod calls;
mod client;
mod closings;
mod commands;
mod direct;
mod directory;
mod dispatch;
mod gate;
mod ingest;
mod log;
mod logged_service;
mod members;
pub(super) mod messages;
mod negotiate;
mod nodes;
mod peer;
mod peers;
mod pending;
mod registration;
mod registry;
mod rule;
mod service;
mod sign_in;
mod topics;
mod wire;

pub use direct::direct_of;
pub use directory::Directory;
pub use log::{channel_envelope, event_into_log, event_of_log, kept_s};
pub use nodes::{begin_refresh, note_event, note_member, note_piece, owned_picture, remove_node};
pub use registry::State;
pub use wire::{APP, channel as channel_name};

use super::DialectMessage;
use super::links::LinkPlace;
use super::{
    Answered, Closing, ConnectionEnd, Content, ContentData, Dialect, DialectApi, DialectContext,
    DialectEvent, DialectPolicy, Effects, Env, Heartbeat, Opening, Rejection, Why,
};
use crate::codec::Format;
use crate::codec::value::{self, DecodeLimits};
use crate::config::{Config, NameTemplate, SlowConsumer};
use crate::dialect::Event;
use crate::http;
use crate::time::Deadline;
use crate::ws::{self, close};
use client::Client;
use client::ZenithSession;
use directory::TokenOwner;
use messages::ZenithMessage;
use service::Service;
use wire::MessageEnvelope;

/// Where the channels of a link's source or view are, by their names `controller/topic`.
pub(super) fn link_place(config: &Config, names: &str) -> LinkPlace {
    let (controller, topic) = names.split_once('/')?;
    let name = wire::channel(controller, topic);
    let max = config.zenith.as_ref().map_or(0, |zenith| zenith.topic_length + 1);
    Some((APP, NameTemplate::parse(&name).ok()?, max))
}

/// The connection of a client or of a back end.
pub struct Connection(Box<Role>);

enum Role {
    Client(Client),
    Service(Service),
}

impl Dialect for Connection {
    fn format(&self) -> Format {
        match &*self.0 {
            Role::Client(client) => client.format,
            Role::Service(service) => service.format,
        }
    }

    fn open(context: &mut DialectContext<'_>, opening: &Opening<'_>) -> Option<Connection> {
        if context.draining {
            context.close(closings::RESTART);
            return None;
        }
        let format = negotiate::format(opening);
        let version = negotiate::version(opening).unwrap_or_default();
        let mut client = Client::new(format, &version, opening.secure);
        let guarded = opening.route.guarded.iter();
        client.guarded = guarded.map(|(name, roles)| (name.clone(), roles.clone())).collect();
        match negotiate::bearer(context.env, opening).ok().flatten() {
            Some((TokenOwner::Service(entry), _)) => {
                return Some(Connection(Box::new(Role::Service(Service::new(format, entry)))));
            }
            Some((TokenOwner::Principal(principal), given))
                if auth::is_alive(&principal, context.now) =>
            {
                client.sign_in(context, ZenithSession::new(principal, &given, context.now));
            }
            _ => {}
        }
        Some(Connection(Box::new(Role::Client(client))))
    }

    fn message(
        &mut self,
        context: &mut DialectContext<'_>,
        kind: ws::MessageKind,
        payload: &mut [u8],
    ) {
        let format = self.format();
        if kind != wire::message_kind(format) {
            return context.close(closings::invalid("the format has the other kind of message"));
        }
        let limits = DecodeLimits { bytes: payload.len(), ..DecodeLimits::default() };
        let read = value::decode(format, payload, &limits, context.json);
        let container = match read.map(MessageEnvelope::of) {
            Ok(Ok(container)) => container,
            Ok(Err(reason)) => return context.close(closings::invalid(reason)),
            Err(error) => return context.close(closings::invalid(error.to_string())),
        };
        match &mut *self.0 {
            Role::Client(client) => client.message(context, container),
            Role::Service(service) => service.message(context, container),
        }
    }

    fn on(&mut self, context: &mut DialectContext<'_>, event: DialectEvent<'_>) {
        match (&mut *self.0, event) {
            (Role::Client(client), DialectEvent::Message(DialectMessage::Zenith(what))) => {
                client.on_message(context, what);
            }
            (Role::Service(service), DialectEvent::Message(DialectMessage::Zenith(what))) => {
                service.on_message(context, what);
            }
            (Role::Client(client), DialectEvent::Joined { name, outcome }) => {
                client.joined(context, name, outcome);
            }
            (Role::Client(client), DialectEvent::Reload) => client.on_reload(context),
            (Role::Client(client), DialectEvent::NodeGone) => client.on_node_gone(context),
            (Role::Service(service), DialectEvent::Joined { name, outcome }) => {
                service.joined(context, name, &outcome);
            }
            (Role::Client(client), DialectEvent::Deadline) => client.on_deadline(context),
            (Role::Service(service), DialectEvent::Answered { part, answer }) => {
                service.placed(context, part, &answer);
            }
            _ => {}
        }
    }

    /// The server answers every close code of the peer with 1000, as the vendor's documentation
    /// says.
    #[inline]
    fn policy(&self, env: &Env) -> DialectPolicy {
        let config = &env.zenith.config;
        let (silence_ms, answer_ms) = (config.ping_s * 1000, config.pong_s * 1000);
        DialectPolicy {
            heartbeat: Heartbeat { silence_ms, answer_ms },
            queue_bytes: match &*self.0 {
                Role::Client(_) => env.config.limits.write_queue_bytes,
                Role::Service(_) => service::queue_bytes(env),
            },
            close_code: Some(close::NORMAL),
            ..DialectPolicy::new(env, config.message_bytes)
        }
    }

    fn ended(&mut self, env: &Env, end: ConnectionEnd<'_>) {
        let ConnectionEnd::Closed { us, mut effects } = end else { return };
        match &mut *self.0 {
            Role::Client(client) => client.on_drop(env, us, &mut effects),
            Role::Service(service) => service.on_drop(env, us, &mut effects),
        }
    }

    fn deadline(&self) -> Deadline {
        match &*self.0 {
            Role::Client(client) => client.due,
            Role::Service(_) => Deadline::NEVER,
        }
    }

    fn closing(why: Why) -> Closing {
        match why {
            Why::Silent => closings::SILENT,
            Why::Draining | Why::Gap => closings::RESTART,
            Why::Slow => closings::SLOW,
        }
    }

    fn overrun(&mut self, env: &Env) -> SlowConsumer {
        match &*self.0 {
            Role::Client(_) => env.config.slow_consumer,
            // Calls that exceed the queue are refused before this, and `send_ms` closes a back end
            // that does not read.
            Role::Service(_) => SlowConsumer::Drop,
        }
    }
}

impl DialectApi for Connection {
    fn subprotocol<'a>(env: &Env, opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        env.check_joined()?;
        negotiate::version(opening)?;
        negotiate::check_bearer(env, opening)?;
        negotiate::protocol(opening)
    }

    fn content(event: &Event) -> Option<Content<'_>> {
        let value = event.encodings()?.value()?;
        Some(Content { event: None, data: ContentData::Value(value) })
    }

    fn linked_event(env: &Env, _app: u32, name: &str, content: &Content<'_>) -> Option<Event> {
        commands::linked_event(env, name, content)
    }

    /// A call to a back end that has just closed fails with `<Controller>.Unavailable`.
    fn on_undelivered(what: &DialectMessage, out: &mut Effects<'_>) {
        if let DialectMessage::Zenith(what) = what
            && let ZenithMessage::Call(call) = &**what
        {
            out.push(pending::PendingCall::of(call).unavailable(false));
        }
    }

    fn needs_body(
        context: &mut DialectContext<'_>,
        _app: u32,
        request: &http::Request<'_>,
    ) -> bool {
        ingest::may_publish(context, request)
    }

    fn request(
        context: &mut DialectContext<'_>,
        _app: u32,
        _path: &str,
        request: &mut http::Request<'_>,
    ) -> Answered {
        ingest::answer(context, request)
    }
}

#[cfg(test)]
mod tests;
