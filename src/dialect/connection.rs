//! The connection of any dialect: calls the dialect that the table names.

use super::api::{ChannelHistory, DialectApi};
use super::closing::{Closing, Why};
use super::content::Content;
use super::context::{DialectContext, Opening, Rejection};
use super::effects::Effects;
use super::entry::DialectKind;
use super::env::Env;
use super::protocol::{ConnectionEnd, Dialect, DialectEvent, DialectPolicy};
use super::reply::{Answered, HttpReply, no_such_target};
use crate::codec::Format;
use crate::config::{self, SlowConsumer};
use crate::dialect::DialectMessage;
use crate::dialect::Event;
use crate::http;
use crate::mem::Frozen;
use crate::time::Deadline;
use crate::ws;
use crate::ws::event_ids::EventIds;

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
            /// As in [`DialectApi::subprotocol`].
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

            /// As in [`DialectApi::listen`].
            ///
            /// # Errors
            /// The reply that refuses the request.
            pub fn listen(
                context: &mut DialectContext<'_>,
                app: u32,
                opening: &Opening<'_>,
            ) -> Result<(Connection, EventIds), HttpReply> {
                match context.env.dialect_of(app) {
                    $($(#[$cfg])* DialectKind::$name => {
                        super::$module::Connection::listen(context, app, opening)
                            .map(|(connection, ids)| (Connection::$name(connection), ids))
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

            /// See [`Dialect::on`].
            pub fn on(&mut self, cx: &mut DialectContext<'_>, event: DialectEvent<'_>) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.on(cx, event),)*
                }
            }

            /// See [`Dialect::policy`].
            #[inline]
            pub fn policy(&self, env: &Env) -> DialectPolicy {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.policy(env),)*
                }
            }

            /// See [`Dialect::is_full`].
            #[inline]
            pub fn is_full(&self) -> bool {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.is_full(),)*
                }
            }

            /// See [`Dialect::held_bytes`].
            pub fn held_bytes(&self) -> usize {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.held_bytes(),)*
                }
            }

            /// See [`Dialect::deadline`].
            pub fn deadline(&self) -> Deadline {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.deadline(),)*
                }
            }

            /// See [`Dialect::ended`].
            pub fn ended(&mut self, env: &Env, end: ConnectionEnd<'_>) {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.ended(env, end),)*
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

            /// See [`Dialect::overrun`].
            pub fn overrun(&mut self, env: &Env) -> SlowConsumer {
                match self {
                    $($(#[$cfg])* Connection::$name(it) => it.overrun(env),)*
                }
            }

        }

        /// See [`DialectApi::count`].
        pub fn count(env: &Env, app: u32, name: &str, count: u64) -> Option<Frozen> {
            match env.dialect_of(app) {
                $(
                    $(#[$cfg])*
                    DialectKind::$name => super::$module::Connection::count(env, app, name, count),
                )*
            }
        }

        /// See [`DialectApi::content`].
        pub(super) fn content<'e>(env: &Env, app: u32, event: &'e Event) -> Option<Content<'e>> {
            match env.dialect_of(app) {
                $(
                    $(#[$cfg])*
                    DialectKind::$name => super::$module::Connection::content(event),
                )*
            }
        }

        /// See [`DialectApi::history`].
        pub(super) fn history(env: &Env, app: u32, name: &str) -> Option<ChannelHistory> {
            match env.dialect_of(app) {
                $(
                    $(#[$cfg])*
                    DialectKind::$name => super::$module::Connection::history(env, app, name),
                )*
            }
        }

        /// See [`DialectApi::linked_event`].
        pub(super) fn linked_event(
            env: &Env,
            app: u32,
            name: &str,
            content: &Content<'_>,
        ) -> Option<Event> {
            match env.dialect_of(app) {
                $($(#[$cfg])* DialectKind::$name => {
                    super::$module::Connection::linked_event(env, app, name, content)
                })*
            }
        }

        /// See [`DialectApi::needs_body`]; false for a path that names no application.
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
        pub fn on_undelivered(what: &DialectMessage, out: &mut Effects<'_>) {
            $($(#[$cfg])* super::$module::Connection::on_undelivered(what, out);)*
        }
    };
}

dialects!(connections);
