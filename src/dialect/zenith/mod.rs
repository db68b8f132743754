//! Zenith: subscriptions with a picture, calls, and back ends, in JSON, BSON or MessagePack.
//!
//! `README.md` in this folder describes the configuration and the protocol of back ends.

mod attempts;
mod auth;
mod builtin;
mod calls;
mod client;
mod commands;
mod directory;
mod ingest;
mod messages;
mod negotiate;
mod pending;
mod registry;
mod service;
#[cfg(test)]
mod tests;
mod topics;
mod wire;

pub use directory::Directory;
pub use registry::State;

use super::{
    Answered, Closing, Dialect, DialectContext, Effects, Env, Heartbeat, JoinOutcome, Opening,
    Rejection, Why,
};
use crate::codec::Format;
use crate::codec::value::{self, DecodeLimits};
use crate::config::SlowConsumer;
use crate::http;
use crate::hub::{self, Answer, ConnId};
use crate::time::Deadline;
use crate::ws::{self, close};
use auth::ZenithSession;
use client::Client;
use directory::TokenOwner;
use messages::ZenithMessage;
use service::Service;
use std::borrow::Cow;
use wire::MessageEnvelope;

/// The application number of all channels of this dialect; no configured application has it.
pub const APP: u32 = u32::MAX;

/// Close codes and their reasons. After a code of 4000 or above, the vendor's client does not
/// connect again; after a lower one it does.
mod closings {
    use super::close;
    use super::{Closing, Cow};

    pub(super) const SLOW: Closing =
        Closing::new(close::GOING_AWAY, "the client does not read what it is sent");
    pub(super) const SILENT: Closing =
        Closing::new(close::POLICY, "the client has not answered in time");
    pub(super) const INTERNAL: Closing =
        Closing::new(close::INTERNAL, "internal error of the server");
    pub(super) const RESTART: Closing = Closing::new(close::RESTART, "the server is restarting");

    pub(super) const GUESSES: Closing =
        Closing::new(close::POLICY, "too many wrong tokens or passwords");

    pub(super) fn invalid(reason: impl Into<Cow<'static, str>>) -> Closing {
        Closing { code: close::INVALID_DATA, reason: reason.into() }
    }

    pub(super) fn kicked(reason: &'static str) -> Closing {
        Closing::new(4000, reason)
    }
}

/// Adds the effects of a message that cannot be delivered, because its connection has closed. A
/// call to a back end that has just closed fails with `<Controller>.Unavailable`.
pub(super) fn on_undelivered(what: &hub::DialectMessage, out: &mut Effects<'_>) {
    if let Some(ZenithMessage::Call(call)) = what.downcast_ref::<ZenithMessage>() {
        out.push(pending::PendingCall::of(call).unavailable());
    }
}

/// The connection of a client or of a back end.
pub struct Connection(Box<Role>);

enum Role {
    Client(Client),
    Service(Service),
}

impl Dialect for Connection {
    fn subprotocol<'a>(env: &Env, opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        negotiate::version(opening)?;
        negotiate::check_bearer(env, opening)?;
        negotiate::protocol(opening)
    }

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
            return context.close(closings::invalid(
                "the kind of message (text or binary) is not that of the format",
            ));
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

    fn joined(&mut self, context: &mut DialectContext<'_>, name: &str, outcome: JoinOutcome) {
        if let Role::Client(client) = &mut *self.0 {
            client.joined(context, name, outcome);
        }
    }

    fn not_subscribed(&mut self, _context: &mut DialectContext<'_>, _name: &str) {}

    fn on_message(&mut self, context: &mut DialectContext<'_>, what: &hub::DialectMessage) {
        let Some(what) = what.downcast_ref::<ZenithMessage>() else { return };
        match &mut *self.0 {
            Role::Client(client) => client.on_message(context, what),
            Role::Service(service) => service.on_message(context, what),
        }
    }

    fn answered(&mut self, context: &mut DialectContext<'_>, part: u16, _answer: Answer) {
        if let Role::Service(service) = &mut *self.0 {
            service.placed(context, part);
        }
    }

    fn app_ping(&mut self, _context: &mut DialectContext<'_>) {}

    fn on_reload(&mut self, context: &mut DialectContext<'_>) {
        if let Role::Client(client) = &mut *self.0 {
            client.on_reload(context);
        }
    }

    fn deadline(&self) -> Deadline {
        match &*self.0 {
            Role::Client(client) => client.due,
            Role::Service(_) => Deadline::NEVER,
        }
    }

    fn on_deadline(&mut self, context: &mut DialectContext<'_>) {
        if let Role::Client(client) = &mut *self.0 {
            client.on_deadline(context);
        }
    }

    fn closing(why: Why) -> Closing {
        match why {
            Why::Silent => closings::SILENT,
            Why::Draining => closings::RESTART,
            Why::Slow => closings::SLOW,
        }
    }

    /// The server answers every close code of the peer with 1000, as the vendor's documentation
    /// says.
    fn close_reply(&self, _code: Option<u16>) -> Option<u16> {
        Some(close::NORMAL)
    }

    fn on_drop(&mut self, _env: &Env) {}

    fn on_close(&mut self, env: &Env, us: ConnId, out: &mut Effects<'_>) {
        match &mut *self.0 {
            Role::Client(client) => client.on_drop(env, us, out),
            Role::Service(service) => service.on_drop(env, us, out),
        }
    }

    fn limits(&self, env: &Env) -> ws::FrameLimits {
        let max = env.zenith.config.message_bytes;
        ws::FrameLimits {
            frame_bytes: max.min(env.config.limits.frame_bytes),
            message_bytes: max,
            fragments: env.config.limits.fragments,
            allow_rsv1: false,
        }
    }

    fn queue_bytes(&self, env: &Env) -> usize {
        let max = env.config.limits.write_queue_bytes;
        match &*self.0 {
            Role::Client(_) => max,
            Role::Service(_) => service::queue_bytes(env),
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

    fn heartbeat(&self, env: &Env) -> Heartbeat {
        let config = &env.zenith.config;
        Heartbeat { silence_ms: config.ping_s * 1000, answer_ms: config.pong_s * 1000 }
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
