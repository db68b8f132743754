//! Zenith: subscriptions with a picture, calls, and back ends, in JSON, BSON or MessagePack.
//!
//! `README.md` beside this file says what is configured and how a back end is written.

mod auth;
mod calls;
mod client;
mod ingest;
mod native;
mod negotiate;
mod realm;
mod service;
mod state;
#[cfg(test)]
mod tests;
mod told;
mod topics;
mod verbs;
mod words;

pub use realm::Realm;
pub use state::State;

use super::{
    Action, Answered, Closing, Context, Dialect, Env, Heartbeat, JoinOutcome, Opening, Refused, Why,
};
use crate::codec::Format;
use crate::codec::value::{self, Limits};
use crate::config::SlowConsumer;
use crate::http;
use crate::hub::{self, Answer, ConnId};
use crate::time::Deadline;
use crate::ws;
use auth::Identity;
use client::Client;
use realm::Found;
use service::Service;
use std::borrow::Cow;
use told::Told;
use words::Container;

/// The application number of all channels of this dialect; no application has it.
pub const APP: u32 = u32::MAX;

/// Close codes, with the text that goes with each. What is 4000 or above ends the client for good,
/// below it comes back.
mod closings {
    use super::{Closing, Cow};
    use crate::ws::close;

    pub(super) const SLOW: Closing =
        Closing::new(close::GOING_AWAY, "the client does not read what it is sent");
    pub(super) const SILENT: Closing =
        Closing::new(close::POLICY, "nothing was heard from the client");
    pub(super) const INTERNAL: Closing =
        Closing::new(close::INTERNAL, "something has gone wrong in the server");
    pub(super) const RESTART: Closing = Closing::new(close::RESTART, "the server restarts");

    pub(super) fn invalid(reason: impl Into<Cow<'static, str>>) -> Closing {
        Closing { code: close::INVALID_DATA, reason: reason.into() }
    }

    pub(super) fn kicked(reason: &'static str) -> Closing {
        Closing::new(4000, reason)
    }
}

/// One client, or one back end.
pub struct Connection(Box<Role>);

enum Role {
    Client(Client),
    Service(Service),
}

impl Dialect for Connection {
    fn subprotocol<'a>(env: &Env, opening: &Opening<'a>) -> Result<Option<&'a str>, Refused> {
        negotiate::version(opening)?;
        negotiate::bearer(env, opening)?;
        negotiate::protocol(opening)
    }

    fn format(&self) -> Format {
        match &*self.0 {
            Role::Client(client) => client.format,
            Role::Service(service) => service.format,
        }
    }

    fn open(context: &mut Context<'_>, opening: &Opening<'_>) -> Option<Connection> {
        if context.draining {
            context.close(closings::RESTART);
            return None;
        }
        let format = negotiate::format(opening);
        let version = negotiate::version(opening).unwrap_or_default();
        let mut client = Client::new(format, version, opening.secure);
        let guarded = opening.route.guarded.iter();
        client.guarded = guarded.map(|(name, roles)| (name.clone(), roles.clone())).collect();
        match negotiate::bearer(context.env, opening).ok().flatten() {
            Some((Found::Service(entry), _)) => {
                return Some(Connection(Box::new(Role::Service(Service::new(format, entry)))));
            }
            Some((Found::Person(person), given)) if auth::is_alive(&person, context.now) => {
                client.sign_in(context, Identity::new(person, &given, context.now));
            }
            _ => {}
        }
        Some(Connection(Box::new(Role::Client(client))))
    }

    fn message(&mut self, context: &mut Context<'_>, kind: ws::Kind, payload: &mut [u8]) {
        let format = self.format();
        if kind != words::message_kind(format) {
            return context.close(closings::invalid("the format has the other kind of message"));
        }
        let limits = Limits { bytes: payload.len(), ..Limits::default() };
        let read = value::decode(format, payload, &limits, context.json);
        let container = match read.map(Container::of) {
            Ok(Ok(container)) => container,
            Ok(Err(reason)) => return context.close(closings::invalid(reason)),
            Err(error) => return context.close(closings::invalid(error.to_string())),
        };
        match &mut *self.0 {
            Role::Client(client) => client.message(context, container),
            Role::Service(service) => service.message(context, container),
        }
    }

    fn joined(&mut self, context: &mut Context<'_>, name: &str, outcome: JoinOutcome) {
        if let Role::Client(client) = &mut *self.0 {
            client.joined(context, name, outcome);
        }
    }

    fn not_subscribed(&mut self, _context: &mut Context<'_>, _name: &str) {}

    fn told(&mut self, context: &mut Context<'_>, what: &hub::Told) {
        let Some(what) = what.downcast_ref::<Told>() else { return };
        match &mut *self.0 {
            Role::Client(client) => client.told(context, what),
            Role::Service(service) => service.told(context, what),
        }
    }

    fn answered(&mut self, context: &mut Context<'_>, part: u16, _answer: Answer) {
        if let Role::Service(service) = &mut *self.0 {
            service.placed(context, part);
        }
    }

    fn nudge(&mut self, _context: &mut Context<'_>) {}

    fn renewed(&mut self, context: &mut Context<'_>) {
        if let Role::Client(client) = &mut *self.0 {
            client.renewed(context);
        }
    }

    fn deadline(&self) -> Deadline {
        match &*self.0 {
            Role::Client(client) => client.due,
            Role::Service(_) => Deadline::NEVER,
        }
    }

    fn late(&mut self, context: &mut Context<'_>) {
        if let Role::Client(client) = &mut *self.0 {
            client.late(context);
        }
    }

    fn closing(why: Why) -> Closing {
        match why {
            Why::Silent => closings::SILENT,
            Why::Draining => closings::RESTART,
            Why::Slow => closings::SLOW,
        }
    }

    fn gone(&mut self, _env: &Env) {}

    fn farewell(&mut self, env: &Env, us: ConnId, out: &mut Vec<Action>) {
        match &mut *self.0 {
            Role::Client(client) => client.gone(env, us, out),
            Role::Service(service) => service.gone(env, us, out),
        }
    }

    fn limits(&self, env: &Env) -> ws::Limits {
        let most = env.zenith.config.message_bytes;
        ws::Limits {
            frame_bytes: most.min(env.config.limits.frame_bytes),
            message_bytes: most,
            fragments: env.config.limits.fragments,
            allow_rsv1: false,
        }
    }

    fn queue_bytes(&self, env: &Env) -> usize {
        let most = env.config.limits.write_queue_bytes;
        match &*self.0 {
            Role::Client(_) => most,
            // A call is as large as a client's message, and one always fits.
            Role::Service(_) => most.saturating_add(2 * env.zenith.config.message_bytes as usize),
        }
    }

    fn overrun(&mut self, env: &Env) -> SlowConsumer {
        match &*self.0 {
            Role::Client(_) => env.config.slow_consumer,
            // Who has missed a question does not know of it.
            Role::Service(_) => SlowConsumer::Close,
        }
    }

    fn heartbeat(&self, env: &Env) -> Heartbeat {
        let config = &env.zenith.config;
        Heartbeat { silence_ms: config.ping_s * 1000, answer_ms: config.pong_s * 1000 }
    }

    fn request(
        context: &mut Context<'_>,
        _app: u32,
        _path: &str,
        request: &mut http::Request<'_>,
    ) -> Answered {
        ingest::answer(context, request)
    }
}
