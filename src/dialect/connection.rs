//! The connection of any dialect: calls the dialect that the table names.

use super::closing::{Closing, Why};
use super::context::{DialectContext, Heartbeat, Opening, Rejection};
use super::effect::{Effect, JoinOutcome};
use super::entry::DialectKind;
use super::env::Env;
use super::protocol::Dialect;
use super::reply::{Answered, no_such_target};
use crate::codec::Format;
use crate::config::{self, SlowConsumer};
use crate::http;
use crate::hub::{Answer, ConnId, DialectMessage};
use crate::mem::Frozen;
use crate::time::Deadline;
use crate::ws;

/// Defines the connection of any dialect by the dialect table.
macro_rules! connections {
    (
        applications { $($(#[$app_cfg:meta])* $App:ident in $app_folder:ident { $($app:tt)* })* }
        routes { $($(#[$route_cfg:meta])* $Route:ident in $route_folder:ident { $($route:tt)* })* }
    ) => {
        connections! {
            $($(#[$app_cfg])* $App in $app_folder,)*
            $($(#[$route_cfg])* $Route in $route_folder,)*
        }
    };
    ($($(#[$cfg:meta])* $name:ident in $module:ident,)*) => {
        /// The state of a connection, in its dialect.
        pub enum Connection {
            $(
                #[doc = concat!("A connection of `", stringify!($module), "`.")]
                $(#[$cfg])*
                $name(super::$module::Connection),
            )*
        }

        impl Connection {
            /// As in [`Dialect::subprotocol`].
            pub fn subprotocol<'a>(
                env: &Env,
                opening: &Opening<'a>,
            ) -> Result<Option<&'a str>, Rejection> {
                match env.dialect_kind(opening.route.endpoint, opening.path) {
                    $(
                        $(#[$cfg])*
                        DialectKind::$name => super::$module::Connection::subprotocol(env, opening),
                    )*
                }
            }

            /// Creates the state of a connection, in the dialect of the endpoint and the path.
            pub fn open(
                context: &mut DialectContext<'_>,
                opening: &Opening<'_>,
            ) -> Option<Connection> {
                match context.env.dialect_kind(opening.route.endpoint, opening.path) {
                    $($(#[$cfg])* DialectKind::$name => {
                        super::$module::Connection::open(context, opening).map(Connection::$name)
                    })*
                }
            }

            /// See [`Dialect::format`].
            pub fn format(&self) -> Format {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.format(),)*
                }
            }

            /// See [`Dialect::message`].
            pub fn message(
                &mut self,
                cx: &mut DialectContext<'_>,
                kind: ws::MessageKind,
                payload: &mut [u8],
            ) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.message(cx, kind, payload),)*
                }
            }

            /// See [`Dialect::joined`].
            pub fn joined(
                &mut self,
                cx: &mut DialectContext<'_>,
                name: &str,
                outcome: JoinOutcome,
            ) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.joined(cx, name, outcome),)*
                }
            }

            /// See [`Dialect::not_subscribed`].
            pub fn not_subscribed(&mut self, cx: &mut DialectContext<'_>, name: &str) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.not_subscribed(cx, name),)*
                }
            }

            /// See [`Dialect::on_message`].
            pub fn on_message(&mut self, cx: &mut DialectContext<'_>, what: &DialectMessage) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.on_message(cx, what),)*
                }
            }

            /// See [`Dialect::answered`].
            pub fn answered(&mut self, cx: &mut DialectContext<'_>, part: u16, answer: Answer) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.answered(cx, part, answer),)*
                }
            }

            /// See [`Dialect::before_close`].
            pub fn before_close(
                &mut self,
                cx: &mut DialectContext<'_>,
                closing: Closing,
            ) -> Closing {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.before_close(cx, closing),)*
                }
            }

            /// See [`Dialect::app_ping`].
            pub fn app_ping(&mut self, cx: &mut DialectContext<'_>) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.app_ping(cx),)*
                }
            }

            /// See [`Dialect::on_reload`].
            pub fn on_reload(&mut self, cx: &mut DialectContext<'_>) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.on_reload(cx),)*
                }
            }

            /// See [`Dialect::deadline`].
            pub fn deadline(&self) -> Deadline {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.deadline(),)*
                }
            }

            /// See [`Dialect::on_deadline`].
            pub fn on_deadline(&mut self, cx: &mut DialectContext<'_>) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.on_deadline(cx),)*
                }
            }

            /// See [`Dialect::closing`].
            pub fn closing(&self, why: Why) -> Closing {
                match self {
                    $(
                        $(#[$cfg])*
                        Connection::$name(_) => super::$module::Connection::closing(why),
                    )*
                }
            }

            /// See [`Dialect::on_drop`].
            pub fn on_drop(&mut self, env: &Env) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.on_drop(env),)*
                }
            }

            /// See [`Dialect::close_reply`].
            pub fn close_reply(&self, code: Option<u16>) -> Option<u16> {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.close_reply(code),)*
                }
            }

            /// See [`Dialect::on_close`].
            pub fn on_close(&mut self, env: &Env, us: ConnId, out: &mut Vec<Effect>) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.on_close(env, us, out),)*
                }
            }

            /// See [`Dialect::limits`].
            pub fn limits(&self, env: &Env) -> ws::FrameLimits {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.limits(env),)*
                }
            }

            /// See [`Dialect::queue_bytes`].
            pub fn queue_bytes(&self, env: &Env) -> usize {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.queue_bytes(env),)*
                }
            }

            /// See [`Dialect::overrun`].
            pub fn overrun(&mut self, env: &Env) -> SlowConsumer {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.overrun(env),)*
                }
            }

            /// See [`Dialect::heartbeat`].
            pub fn heartbeat(&self, env: &Env) -> Heartbeat {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.heartbeat(env),)*
                }
            }
        }

        /// See [`Dialect::count`].
        pub fn count(env: &Env, app: u32, name: &str, count: u64) -> Option<Frozen> {
            match env.dialect_of(app) {
                $(
                    $(#[$cfg])*
                    DialectKind::$name => super::$module::Connection::count(env, app, name, count),
                )*
            }
        }

        /// See [`Dialect::needs_body`]; false for a path that names no application.
        pub fn needs_body(
            cx: &mut DialectContext<'_>,
            endpoint: config::EndpointKind,
            request: &http::Request<'_>,
        ) -> bool {
            let target = cx.env.target(endpoint, request.path(), request.query());
            let Some((app, _)) = target else { return false };
            match cx.env.dialect_of(app) {
                $(
                    $(#[$cfg])*
                    DialectKind::$name => super::$module::Connection::needs_body(cx, app, request),
                )*
            }
        }

        /// Answers an HTTP request. At the endpoint of the applications, the application that the
        /// path names determines the dialect; a path that names none gets 404.
        pub fn request(
            context: &mut DialectContext<'_>,
            endpoint: config::EndpointKind,
            request: &mut http::Request<'_>,
        ) -> Answered {
            let path = request.path();
            let target = context.env.target(endpoint, path, request.query());
            let Some((app, rest)) = target else {
                return Answered::Now(no_such_target(path));
            };
            match context.env.dialect_of(app) {
                $($(#[$cfg])* DialectKind::$name => {
                    super::$module::Connection::request(context, app, rest, request)
                })*
            }
        }

        /// Whether a client may subscribe to a channel of this name without authorisation, so that
        /// unauthenticated clients can create channels with names of their choice.
        pub fn is_public(env: &Env, app: u32, name: &str) -> bool {
            match env.dialect_of(app) {
                $($(#[$cfg])* DialectKind::$name => {
                    super::$module::Connection::is_public(name)
                })*
            }
        }

        /// Adds the effects of a message that cannot be delivered, because its connection has
        /// closed.
        pub fn on_undelivered(what: &DialectMessage, out: &mut Vec<Effect>) {
            $($(#[$cfg])* super::$module::Connection::on_undelivered(what, out);)*
        }
    };
}

dialects!(connections);
