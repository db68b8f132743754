//! What is said inside messages: the vendors' protocols, each a function of its state, a message
//! and the time.
//!
//! A dialect writes to its own peer through [`DialectContext`] and asks for everything else by an
//! [`Effect`]. It has two doors: WebSocket messages, and HTTP requests below its API path.

mod app;
mod apps;
pub mod broadcastt;
pub mod channels;
pub mod pusher;
pub mod reflect;
pub mod zenith;
pub mod zilliqa;

pub use app::{App, SharedWith, shared_with};
pub use apps::{Apps, Env};
pub use channels::ids::SocketIds;

use crate::codec::Format;
use crate::codec::json::Scratch;
use crate::config::{self, SlowConsumer};
use crate::http;
use crate::hub::{Answer, ConnId, DialectMessage, Event, JoinReply, JoinRequest, Query};
use crate::jwt::Claims;
use crate::mem::{Frozen, Handle};
use crate::time::{Deadline, Now};
use crate::work::Meter;
use crate::ws::output::Output;
use crate::ws::{self, frame};
use std::borrow::Cow;
use std::net::SocketAddr;

/// What a dialect asks of the shard.
#[derive(Debug)]
pub enum Effect {
    /// Subscribe this connection, which may then hold `max` subscriptions. Answered by
    /// [`Connection::joined`], at once or later.
    Join {
        /// The application's number.
        app: u32,
        /// The channel.
        name: String,
        /// Subscriptions that the connection may hold.
        max: usize,
        /// What is asked of the channel's home.
        request: Option<JoinRequest>,
    },
    /// End a subscription of this connection. Not answered.
    Leave {
        /// The application's number.
        app: u32,
        /// The channel.
        name: String,
    },
    /// Publish to all subscribers of a channel. The reply to the HTTP request that asks for it
    /// waits until the event has its place in the channel's order. A WebSocket is told of that by
    /// [`Connection::answered`], if the part is not 0.
    Publish {
        /// The application's number.
        app: u32,
        /// The channel.
        name: String,
        /// What is published.
        event: Event,
        /// Which part of the request, for a reply that needs to know what became of it.
        part: u16,
    },
    /// Publish to the other subscribers of a channel, if this connection is one. If it is not, the
    /// answer is [`Connection::not_subscribed`].
    Say {
        /// The application's number.
        app: u32,
        /// The channel.
        name: String,
        /// What is published.
        event: Event,
    },
    /// Ask the homes of channels. The reply to the HTTP request gets the answers, and of a
    /// WebSocket [`Connection::answered`].
    Ask {
        /// What is asked.
        query: Query,
        /// Which part of the request.
        part: u16,
    },
    /// Tell the dialect of one connection something: [`Dialect::on_message`]. Lost if it is gone.
    Tell {
        /// The connection.
        to: ConnId,
        /// What it is told.
        what: DialectMessage,
    },
    /// The same, behind what this connection has published to a channel before, and before what it
    /// publishes there later.
    TellBehind {
        /// The application's number.
        app: u32,
        /// The channel.
        name: String,
        /// The connection.
        to: ConnId,
        /// What it is told.
        what: DialectMessage,
    },
}

/// The answer to a [`Effect::Join`].
#[derive(Clone, Debug)]
pub enum JoinOutcome {
    /// From now on every publish is heard. With what the home answered to the wish.
    Joined(Option<JoinReply>),
    /// The connection had this subscription before.
    Already,
    /// The connection holds as many subscriptions as it may.
    SubscriptionLimit,
    /// The channel has as many members as it may.
    ChannelFull,
    /// Nobody is in the channel, and the application has as many channels as it may.
    NoRoom,
}

fn no_such_target(path: &str) -> HttpReply {
    let body: &[u8] = if path.contains("/apps/") {
        br#"{"error":"no application has this id","code":404}"#
    } else {
        br#"{"error":"nothing is served at this path","code":404}"#
    };
    HttpReply { status: 404, body: Cow::Borrowed(body), allow: None }
}

/// Whether anybody may subscribe to a channel of this name, so that strangers can make names up.
pub fn is_public(env: &Env, app: u32, name: &str) -> bool {
    let kind = match env.spoken_by(app) {
        DialectKind::Pusher => channels::channel::kind::<pusher::Pusher>(name),
        DialectKind::Broadcastt => channels::channel::kind::<broadcastt::Broadcastt>(name),
        DialectKind::Zilliqa | DialectKind::Zenith | DialectKind::Reflect => return false,
    };
    kind == channels::vendor::ChannelKind::Public && !name.starts_with('#')
}

/// What a dialect works with during one call.
pub struct DialectContext<'a> {
    /// The address of this peer.
    pub peer: SocketAddr,
    /// Bytes of shared frames that waited to be written to this peer when the call began.
    pub waiting_bytes: usize,
    /// The time.
    pub now: Now,
    /// The connection.
    pub conn: ConnId,
    /// Configuration and applications.
    pub env: &'a Env,
    /// Parser memory.
    pub json: &'a mut Scratch,
    /// Messages to this peer; use [`DialectContext::send_text`].
    pub out: Output<'a>,
    /// What connections of this core have in common.
    pub core_state: &'a mut CoreState,
    /// Frames that this peer shares with others; queued behind what this call writes to `out`.
    pub shared: &'a mut Vec<Handle>,
    /// What is asked of the shard.
    pub effects: &'a mut Vec<Effect>,
    /// Set by [`DialectContext::close`].
    pub closing: &'a mut Option<Closing>,
    /// What this turn has cost so far: an operation that is dear is charged here.
    pub work: &'a Meter,
    /// Whether the server is being shut down.
    pub draining: bool,
}

/// What dialects keep for all their connections of one core.
#[derive(Debug, Default)]
pub struct CoreState {
    /// See [`zilliqa::CoreState`].
    pub zilliqa: zilliqa::NotificationCache,
}

impl CoreState {
    /// All subscribers of a channel have been told what was published.
    pub fn rest(&mut self) {
        self.zilliqa.rest();
    }
}

/// A close that a dialect wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The close code.
    pub code: u16,
    /// Why, in the vendor's words; cut to 123 bytes.
    pub reason: Cow<'static, str>,
}

impl Closing {
    /// A close with a fixed reason.
    pub const fn new(code: u16, reason: &'static str) -> Closing {
        Closing { code, reason: Cow::Borrowed(reason) }
    }
}

impl DialectContext<'_> {
    /// Sends one text message to this peer.
    pub fn send_text(&mut self, text: &[u8]) {
        // Who is told something by a dialect that has words of its own takes text.
        let _ = self.out.message(ws::MessageKind::Text, text);
    }

    /// Closes the connection behind all that was sent to it.
    pub fn close(&mut self, closing: Closing) {
        self.closing.get_or_insert(closing);
    }
}

/// How a client asked for a WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The time.
    pub now: Now,
    /// The connection.
    pub conn: ConnId,
    /// The client's address.
    pub peer: SocketAddr,
    /// The route that has let it in.
    pub route: &'a config::Route,
    /// The request's path, as received.
    pub path: &'a str,
    /// The request's query, as received.
    pub query: &'a str,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// The header fields.
    pub headers: &'a http::Headers<'a>,
    /// What its token says, where a guard has read one.
    pub claims: Option<&'a Claims>,
}

/// Why a WebSocket is refused before its handshake is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status code.
    pub status: u16,
    /// What is wrong, in words for people.
    pub text: Cow<'static, str>,
}

/// How long a peer may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Silence after which it is asked for a sign of life.
    pub silence_ms: u64,
    /// Further silence after which it is given up.
    pub answer_ms: u64,
}

/// A dialect's answer to an HTTP request.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// The body, of JSON.
    pub body: Cow<'static, [u8]>,
    /// The methods that the path knows, with a 405.
    pub allow: Option<&'static str>,
}

/// What becomes of an HTTP request.
pub enum Answered {
    /// The reply. It waits for the acknowledgement of what the request has published.
    Now(HttpReply),
    /// The reply follows from the answers, each with the part of the request that it is for.
    Later(Finish),
    /// The same with answers that may be large: until they are there, nothing more is read from
    /// the connection, so that one connection has one such reply under way.
    Gathered(Finish),
}

/// Makes a reply of answers.
pub type Finish = Box<dyn FnOnce(Vec<(u16, Answer)>) -> HttpReply>;

/// One vendor's protocol.
pub trait Dialect: Sized {
    /// Chooses one of the offered subprotocols (RFC 6455 section 4.2.2), before the handshake is
    /// answered.
    ///
    /// # Errors
    /// Nothing that is offered will do.
    fn subprotocol<'a>(_env: &Env, _opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        Ok(None)
    }

    /// The format of the messages to this peer, where events have several forms
    /// ([`crate::hub::Encodings`]). It does not change while the connection is subscribed to
    /// anything.
    fn format(&self) -> Format {
        Format::Json
    }

    /// Takes a connection that has just been upgraded. `None` after it was refused by a close.
    fn open(context: &mut DialectContext<'_>, opening: &Opening<'_>) -> Option<Self>;

    /// Takes one whole message; `payload` is the dialect's to change.
    fn message(
        &mut self,
        context: &mut DialectContext<'_>,
        kind: ws::MessageKind,
        payload: &mut [u8],
    );

    /// Takes the answer to a [`Effect::Join`]. A picture that was asked for
    /// ([`JoinRequest::picture`]) is
    /// queued already, in the format of this connection: what this call sends is behind it, and
    /// every update that is not in the picture is behind that.
    fn joined(&mut self, context: &mut DialectContext<'_>, name: &str, outcome: JoinOutcome);

    /// Takes the refusal of an [`Effect::Say`] on a channel to which it is not subscribed.
    fn not_subscribed(&mut self, context: &mut DialectContext<'_>, name: &str);

    /// Takes what a connection, or a publisher to a channel of this one's, has to say to it. What
    /// it adds to [`DialectContext::shared`] is subject to the bound on what waits for a peer: all
    /// of it
    /// is sent, or none.
    fn on_message(&mut self, _context: &mut DialectContext<'_>, _what: &DialectMessage) {}

    /// Takes an answer to an [`Effect::Ask`] or [`Effect::Publish`], with its part.
    fn answered(&mut self, _context: &mut DialectContext<'_>, _part: u16, _answer: Answer) {}

    /// The session is about to close for a reason of its own: the dialect may say something before
    /// that, and close in another way.
    fn before_close(&mut self, _context: &mut DialectContext<'_>, closing: Closing) -> Closing {
        closing
    }

    /// Asks, in the dialect's words, a peer that has not answered a ping for a sign of life.
    fn app_ping(&mut self, context: &mut DialectContext<'_>);

    /// The configuration was read anew.
    fn on_reload(&mut self, context: &mut DialectContext<'_>);

    /// When [`Dialect::on_deadline`] is to be called.
    fn deadline(&self) -> Deadline {
        Deadline::NEVER
    }

    /// The deadline has come.
    fn on_deadline(&mut self, _context: &mut DialectContext<'_>) {}

    /// Why the server closes, in the dialect's codes.
    fn closing(why: Why) -> Closing;

    /// The code that answers the peer's close frame, which had `code`, or none. RFC 6455 section
    /// 5.5.1 suggests the same one.
    fn close_reply(&self, code: Option<u16>) -> Option<u16> {
        code
    }

    /// Forgets a connection that is gone.
    fn on_drop(&mut self, env: &Env);

    /// What is to be done for others when a connection ends. It is called as soon as either side
    /// has closed, since nothing reaches the peer from then on, and may be called again until the
    /// connection is forgotten.
    fn on_close(&mut self, _env: &Env, _us: ConnId, _out: &mut Vec<Effect>) {}

    /// The bounds on what the peer sends.
    fn limits(&self, env: &Env) -> ws::FrameLimits;

    /// How long the peer may be silent.
    fn heartbeat(&self, env: &Env) -> Heartbeat {
        let pusher = &env.config.pusher;
        Heartbeat {
            silence_ms: pusher.activity_timeout_s * 1000,
            answer_ms: pusher.pong_timeout_s * 1000,
        }
    }

    /// Bytes of shared frames that may wait to be written to the peer.
    fn queue_bytes(&self, env: &Env) -> usize {
        env.config.limits.write_queue_bytes
    }

    /// What it was told did not fit that bound.
    fn overrun(&mut self, env: &Env) -> SlowConsumer {
        env.config.slow_consumer
    }

    /// What the subscribers of a channel are told when there are `count` of them, if anything.
    fn count(_env: &Env, _app: u32, _name: &str, _count: u64) -> Option<Frozen> {
        None
    }

    /// Whether an HTTP request, of which only the head is there, is one whose body will be looked
    /// at. If not, it is answered without it: a stranger cannot have a body read.
    fn needs_body(cx: &mut DialectContext<'_>, app: u32, request: &http::Request<'_>) -> bool {
        let _ = (cx, app, request);
        false
    }

    /// Answers an HTTP request for application `app`; `path` is what follows `/apps/{id}`.
    fn request(
        context: &mut DialectContext<'_>,
        app: u32,
        path: &str,
        request: &mut http::Request<'_>,
    ) -> Answered;
}

/// Reasons of the server for closing a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The peer gives no sign of life.
    Silent,
    /// The server is being shut down.
    Draining,
    /// The peer does not read what it is sent.
    Slow,
}

/// Which dialect of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialectKind {
    /// See [`pusher`].
    Pusher,
    /// See [`broadcastt`].
    Broadcastt,
    /// See [`zilliqa`].
    Zilliqa,
    /// See [`zenith`].
    Zenith,
    /// See [`reflect`].
    Reflect,
}

impl From<config::AppDialect> for DialectKind {
    fn from(dialect: config::AppDialect) -> DialectKind {
        match dialect {
            config::AppDialect::Pusher => DialectKind::Pusher,
            config::AppDialect::Broadcastt => DialectKind::Broadcastt,
        }
    }
}

/// The dialect table: a new dialect is one folder and one word here.
macro_rules! table {
    ($($name:ident in $module:ident),* $(,)?) => {
        /// A connection's state, in whatever dialect it speaks.
        pub enum Connection {
            $(
                #[doc = concat!("See [`", stringify!($module), "`].")]
                $name($module::Connection),
            )*
        }

        impl Connection {
            /// See [`Dialect::subprotocol`].
            ///
            /// # Errors
            /// As the dialect has it.
            pub fn subprotocol<'a>(
                env: &Env,
                opening: &Opening<'a>,
            ) -> Result<Option<&'a str>, Rejection> {
                match env.dialect_kind(opening.route.endpoint, opening.path) {
                    $(DialectKind::$name => $module::Connection::subprotocol(env, opening),)*
                }
            }

            /// Opens a connection in the dialect of the endpoint.
            pub fn open(
                context: &mut DialectContext<'_>,
                opening: &Opening<'_>,
            ) -> Option<Connection> {
                match context.env.dialect_kind(opening.route.endpoint, opening.path) {
                    $(DialectKind::$name => {
                        $module::Connection::open(context, opening).map(Connection::$name)
                    })*
                }
            }

            /// See [`Dialect::format`].
            pub fn format(&self) -> Format {
                match self { $(Connection::$name(it) => it.format(),)* }
            }

            /// See [`Dialect::message`].
            pub fn message(
                &mut self,
                cx: &mut DialectContext<'_>,
                kind: ws::MessageKind,
                payload: &mut [u8],
            ) {
                match self { $(Connection::$name(it) => it.message(cx, kind, payload),)* }
            }

            /// See [`Dialect::joined`].
            pub fn joined(
                &mut self,
                cx: &mut DialectContext<'_>,
                name: &str,
                outcome: JoinOutcome,
            ) {
                match self { $(Connection::$name(it) => it.joined(cx, name, outcome),)* }
            }

            /// See [`Dialect::not_subscribed`].
            pub fn not_subscribed(&mut self, cx: &mut DialectContext<'_>, name: &str) {
                match self { $(Connection::$name(it) => it.not_subscribed(cx, name),)* }
            }

            /// See [`Dialect::on_message`].
            pub fn on_message(&mut self, cx: &mut DialectContext<'_>, what: &DialectMessage) {
                match self { $(Connection::$name(it) => it.on_message(cx, what),)* }
            }

            /// See [`Dialect::answered`].
            pub fn answered(&mut self, cx: &mut DialectContext<'_>, part: u16, answer: Answer) {
                match self { $(Connection::$name(it) => it.answered(cx, part, answer),)* }
            }

            /// See [`Dialect::before_close`].
            pub fn before_close(
                &mut self,
                cx: &mut DialectContext<'_>,
                closing: Closing,
            ) -> Closing {
                match self { $(Connection::$name(it) => it.before_close(cx, closing),)* }
            }

            /// See [`Dialect::app_ping`].
            pub fn app_ping(&mut self, cx: &mut DialectContext<'_>) {
                match self { $(Connection::$name(it) => it.app_ping(cx),)* }
            }

            /// See [`Dialect::on_reload`].
            pub fn on_reload(&mut self, cx: &mut DialectContext<'_>) {
                match self { $(Connection::$name(it) => it.on_reload(cx),)* }
            }

            /// See [`Dialect::deadline`].
            pub fn deadline(&self) -> Deadline {
                match self { $(Connection::$name(it) => it.deadline(),)* }
            }

            /// See [`Dialect::on_deadline`].
            pub fn on_deadline(&mut self, cx: &mut DialectContext<'_>) {
                match self { $(Connection::$name(it) => it.on_deadline(cx),)* }
            }

            /// See [`Dialect::closing`].
            pub fn closing(&self, why: Why) -> Closing {
                match self { $(Connection::$name(_) => $module::Connection::closing(why),)* }
            }

            /// See [`Dialect::gone`].
            pub fn on_drop(&mut self, env: &Env) {
                match self { $(Connection::$name(it) => it.on_drop(env),)* }
            }

            /// See [`Dialect::close_reply`].
            pub fn close_reply(&self, code: Option<u16>) -> Option<u16> {
                match self { $(Connection::$name(it) => it.close_reply(code),)* }
            }

            /// See [`Dialect::on_close`].
            pub fn on_close(&mut self, env: &Env, us: ConnId, out: &mut Vec<Effect>) {
                match self { $(Connection::$name(it) => it.on_close(env, us, out),)* }
            }

            /// See [`Dialect::limits`].
            pub fn limits(&self, env: &Env) -> ws::FrameLimits {
                match self { $(Connection::$name(it) => it.limits(env),)* }
            }

            /// See [`Dialect::queue_bytes`].
            pub fn queue_bytes(&self, env: &Env) -> usize {
                match self { $(Connection::$name(it) => it.queue_bytes(env),)* }
            }

            /// See [`Dialect::overrun`].
            pub fn overrun(&mut self, env: &Env) -> SlowConsumer {
                match self { $(Connection::$name(it) => it.overrun(env),)* }
            }

            /// See [`Dialect::heartbeat`].
            pub fn heartbeat(&self, env: &Env) -> Heartbeat {
                match self { $(Connection::$name(it) => it.heartbeat(env),)* }
            }
        }

        /// See [`Dialect::count`].
        pub fn count(env: &Env, app: u32, name: &str, count: u64) -> Option<Frozen> {
            match env.spoken_by(app) {
                $(DialectKind::$name => $module::Connection::count(env, app, name, count),)*
            }
        }

        /// See [`Dialect::needs_body`]; false for a path below which there is nothing.
        pub fn needs_body(
            cx: &mut DialectContext<'_>,
            endpoint: config::EndpointKind,
            request: &http::Request<'_>,
        ) -> bool {
            let target = cx.env.target(endpoint, request.path(), request.query());
            let Some((app, _)) = target else { return false };
            match cx.env.spoken_by(app) {
                $(DialectKind::$name => $module::Connection::needs_body(cx, app, request),)*
            }
        }

        /// Answers an HTTP request: at the endpoint of the applications one below `/apps/`, in the
        /// dialect of the application it names.
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
            match context.env.spoken_by(app) {
                $(DialectKind::$name => {
                    $module::Connection::request(context, app, rest, request)
                })*
            }
        }
    };
}

table! {
    Pusher in pusher,
    Broadcastt in broadcastt,
    Zenith in zenith,
    Zilliqa in zilliqa,
    Reflect in reflect,
}

/// What is to be done about a message for a connection that has closed or is gone.
pub fn on_undelivered(what: &DialectMessage, out: &mut Vec<Effect>) {
    zenith::on_undelivered(what, out);
}

/// A text frame that is written by `write`, frozen; `scratch` is memory to use again.
pub fn freeze_text(scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Frozen {
    Frozen::new(frame::build(ws::Opcode::Text, scratch, write))
}
