//! Dialects: the vendors' protocols inside WebSocket messages, and their HTTP APIs.
//!
//! A dialect computes its output from its state, a message and the time. It writes to its own peer
//! through [`DialectContext`] and requests everything else by an [`Effect`]. Its two inputs are
//! WebSocket messages, and HTTP requests below its API path.

mod app;
mod apps;
pub mod broadcastt;
pub mod channels;
mod effects;
pub mod pusher;
pub mod reflect;
pub mod zenith;
pub mod zilliqa;

pub use app::{App, SharedWith, shared_with};
pub use apps::{Apps, Env};
pub use channels::ids::SocketIds;
pub use effects::{Effect, EffectList, Effects};

use crate::codec::Format;
use crate::codec::json::Scratch;
use crate::config::{self, SlowConsumer};
use crate::http;
use crate::hub::{Answer, ConnId, DialectMessage, JoinReply};
use crate::jwt::Claims;
use crate::mem::{Frozen, Handle};
use crate::time::{Deadline, Now};
use crate::work::Meter;
use crate::ws::output::Output;
use crate::ws::{self, frame};
use std::borrow::Cow;
use std::net::SocketAddr;

/// The outcome of an [`Effect::Join`].
#[derive(Clone, Debug)]
pub enum JoinOutcome {
    /// The connection is subscribed and gets every publish from now on. Contains the home's answer
    /// to the [`JoinRequest`], if there was one.
    Joined(Option<JoinReply>),
    /// The connection was already subscribed to the channel.
    Already,
    /// The connection has its maximum number of subscriptions.
    SubscriptionLimit,
    /// The channel has its maximum number of members.
    ChannelFull,
    /// The channel has no subscriber, and the application has its maximum number of channels.
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

/// Whether a client may subscribe to a channel of this name without authorisation, so that
/// unauthenticated clients can create channels with names of their choice.
pub fn is_public(env: &Env, app: u32, name: &str) -> bool {
    let kind = match env.spoken_by(app) {
        DialectKind::Pusher => channels::channel::kind::<pusher::Pusher>(name),
        DialectKind::Broadcastt => channels::channel::kind::<broadcastt::Broadcastt>(name),
        DialectKind::Zilliqa | DialectKind::Zenith | DialectKind::Reflect => return false,
    };
    kind == channels::vendor::ChannelKind::Public && !name.starts_with('#')
}

/// What a dialect can read and write during one call.
pub struct DialectContext<'a> {
    /// The address of the peer.
    pub peer: SocketAddr,
    /// Bytes of shared frames in the write queue of this peer when the call began.
    pub waiting_bytes: usize,
    /// The current time.
    pub now: Now,
    /// The connection.
    pub conn: ConnId,
    /// The configuration and the applications.
    pub env: &'a Env,
    /// Scratch memory of the JSON parser.
    pub json: &'a mut Scratch,
    /// The output to this peer; text messages are written by [`DialectContext::send_text`].
    pub out: Output<'a>,
    /// State that all connections of this core share.
    pub core_state: &'a mut CoreState,
    /// Frames for this peer that other peers may get too; they are queued after what this call
    /// writes to `out`.
    pub shared: &'a mut Vec<Handle>,
    /// Operations that this call requests from the shard.
    pub effects: Effects<'a>,
    /// The close that this call requests, set by [`DialectContext::close`].
    pub closing: &'a mut Option<Closing>,
    /// The work of this event loop turn so far; a dialect charges each expensive operation to it.
    pub work: &'a Meter,
    /// Whether the server is being shut down.
    pub draining: bool,
}

/// State that dialects keep for all their connections on one core.
#[derive(Debug, Default)]
pub struct CoreState {
    /// The state of the Zilliqa dialect.
    pub zilliqa: zilliqa::NotificationCache,
}

impl CoreState {
    /// Drops what was cached for the delivery of one event. The shard calls it after it has
    /// delivered a dialect message to all subscribers of a channel on this core.
    pub fn rest(&mut self) {
        self.zilliqa.rest();
    }
}

/// A close code with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The close code.
    pub code: u16,
    /// The reason, as the vendor words it; truncated to 123 bytes.
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
        // The dialects that use `send_text` have text messages only.
        let _ = self.out.message(ws::MessageKind::Text, text);
    }

    /// Closes the connection after everything that was sent to it. Only the first close of a call
    /// counts.
    pub fn close(&mut self, closing: Closing) {
        self.closing.get_or_insert(closing);
    }
}

/// A request to open a WebSocket, as a dialect sees it.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The current time.
    pub now: Now,
    /// The connection.
    pub conn: ConnId,
    /// The client's address.
    pub peer: SocketAddr,
    /// The route that admitted the request.
    pub route: &'a config::Route,
    /// The request's path, as received.
    pub path: &'a str,
    /// The request's query, as received.
    pub query: &'a str,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// Whether the connection uses TLS.
    pub secure: bool,
    /// The header fields.
    pub headers: &'a http::Headers<'a>,
    /// The claims of the client's token or certificate, if a guard has read one.
    pub claims: Option<&'a Claims>,
}

/// The HTTP error that refuses a WebSocket before its handshake is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status code.
    pub status: u16,
    /// The error text, for people.
    pub text: Cow<'static, str>,
}

/// The timeouts after which a silent peer is pinged and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Milliseconds without input after which the peer is sent a ping.
    pub silence_ms: u64,
    /// Further milliseconds without input after which the connection is closed.
    pub answer_ms: u64,
}

/// A dialect's reply to an HTTP request.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// The body, in JSON.
    pub body: Cow<'static, [u8]>,
    /// The value of `Allow`, for status 405.
    pub allow: Option<&'static str>,
}

/// How a dialect answers an HTTP request.
pub enum Answered {
    /// The reply. It is sent after the homes have acknowledged everything that the request has
    /// published.
    Now(HttpReply),
    /// The reply is made from the answers of channel homes, each with its part of the request.
    Later(Finish),
    /// The same, with answers that may be large. Reading from the connection is paused until all of
    /// them have arrived, so that one connection has only one such reply pending.
    Gathered(Finish),
}

/// Makes a reply from the answers, each with its part of the request.
pub type Finish = Box<dyn FnOnce(Vec<(u16, Answer)>) -> HttpReply>;

/// One vendor's protocol.
pub trait Dialect: Sized {
    /// Selects one of the offered subprotocols (RFC 6455 section 4.2.2), before the handshake is
    /// answered. `None` selects no subprotocol.
    ///
    /// # Errors
    /// The request is refused with an HTTP status, such as when no offered subprotocol is
    /// supported.
    fn subprotocol<'a>(_env: &Env, _opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        Ok(None)
    }

    /// The format of the messages to this peer, for events that are encoded in several formats
    /// ([`crate::hub::Encodings`]). It does not change while the connection has a subscription.
    fn format(&self) -> Format {
        Format::Json
    }

    /// Creates the state of a connection whose handshake is complete. `None` if the dialect refuses
    /// the connection, which it does by a close.
    fn open(context: &mut DialectContext<'_>, opening: &Opening<'_>) -> Option<Self>;

    /// Handles one complete message of the peer. The dialect may modify `payload`.
    fn message(
        &mut self,
        context: &mut DialectContext<'_>,
        kind: ws::MessageKind,
        payload: &mut [u8],
    );

    /// Handles the outcome of an [`Effect::Join`]. A picture that was requested
    /// ([`JoinRequest::picture`]) is already queued, in the format of this connection. What this
    /// call sends is queued after the picture, and every update that is not in the picture comes
    /// after that.
    fn joined(&mut self, context: &mut DialectContext<'_>, name: &str, outcome: JoinOutcome);

    /// Handles the refusal of an [`Effect::PublishIfSubscribed`], because this connection is not
    /// subscribed to the channel.
    fn not_subscribed(&mut self, context: &mut DialectContext<'_>, name: &str);

    /// Handles a message from another connection, or from a publisher to a channel of this
    /// connection. What this call adds to [`DialectContext::shared`] counts against
    /// [`Dialect::queue_bytes`]: either all of it is queued, or nothing.
    fn on_message(&mut self, _context: &mut DialectContext<'_>, _what: &DialectMessage) {}

    /// Handles an answer to an [`Effect::Query`] or an [`Effect::Publish`], which had this `part`.
    fn answered(&mut self, _context: &mut DialectContext<'_>, _part: u16, _answer: Answer) {}

    /// Returns the close to use when the session is about to close with `closing`. The dialect may
    /// send messages before the close, and may replace its code and reason.
    fn before_close(&mut self, _context: &mut DialectContext<'_>, closing: Closing) -> Closing {
        closing
    }

    /// Sends the dialect's own ping message to a peer that has not answered a WebSocket ping.
    fn app_ping(&mut self, context: &mut DialectContext<'_>);

    /// Handles a reload of the configuration.
    fn on_reload(&mut self, context: &mut DialectContext<'_>);

    /// The time at which [`Dialect::on_deadline`] is to be called.
    fn deadline(&self) -> Deadline {
        Deadline::NEVER
    }

    /// Handles the deadline of [`Dialect::deadline`].
    fn on_deadline(&mut self, _context: &mut DialectContext<'_>) {}

    /// The dialect's close code and reason for a close by the server.
    fn closing(why: Why) -> Closing;

    /// The close code that answers the peer's close frame, whose code is `code` if it had one. RFC
    /// 6455 section 5.5.1 suggests the same code.
    fn close_reply(&self, code: Option<u16>) -> Option<u16> {
        code
    }

    /// Releases what the connection holds in `env`, when the session ends.
    fn on_drop(&mut self, env: &Env);

    /// Adds the effects of this connection's end on other connections. It is called as soon as
    /// either side has closed, because nothing reaches the peer after that, and may be called again
    /// until the session is dropped.
    fn on_close(&mut self, _env: &Env, _us: ConnId, _out: &mut Effects<'_>) {}

    /// The limits on frames and messages from the peer.
    fn limits(&self, env: &Env) -> ws::FrameLimits;

    /// The timeouts after which a silent peer is pinged and closed.
    fn heartbeat(&self, env: &Env) -> Heartbeat {
        let pusher = &env.config.pusher;
        Heartbeat {
            silence_ms: pusher.activity_timeout_s * 1000,
            answer_ms: pusher.pong_timeout_s * 1000,
        }
    }

    /// The maximum bytes of shared frames in the write queue of this peer.
    fn queue_bytes(&self, env: &Env) -> usize {
        env.config.limits.write_queue_bytes
    }

    /// The slow-consumer policy to apply when the frames of [`Dialect::on_message`] exceed
    /// [`Dialect::queue_bytes`].
    fn overrun(&mut self, env: &Env) -> SlowConsumer {
        env.config.slow_consumer
    }

    /// The frame that reports `count` subscriptions to the subscribers of a channel, if the dialect
    /// reports them.
    fn count(_env: &Env, _app: u32, _name: &str, _count: u64) -> Option<Frozen> {
        None
    }

    /// Whether the body of an HTTP request is needed, decided by its head alone. If not, the
    /// request is answered without its body, so that an unauthenticated client cannot make the
    /// server read one.
    fn needs_body(cx: &mut DialectContext<'_>, app: u32, request: &http::Request<'_>) -> bool {
        let _ = (cx, app, request);
        false
    }

    /// Answers an HTTP request for application `app`. `path` is the rest of the path after
    /// `/apps/{id}`.
    fn request(
        context: &mut DialectContext<'_>,
        app: u32,
        path: &str,
        request: &mut http::Request<'_>,
    ) -> Answered;
}

/// The server's reasons for closing a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The peer has sent nothing within its timeouts ([`Heartbeat`]).
    Silent,
    /// The server is being shut down.
    Draining,
    /// The peer is a slow consumer: its write queue is full.
    Slow,
}

/// Names one dialect of the table below.
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

/// The dialect table: a new dialect is one folder and one entry here.
macro_rules! table {
    ($($name:ident in $module:ident),* $(,)?) => {
        /// The state of a connection, in its dialect.
        pub enum Connection {
            $(
                #[doc = concat!("See [`", stringify!($module), "`].")]
                $name($module::Connection),
            )*
        }

        impl Connection {
            /// As in [`Dialect::subprotocol`].
            pub fn subprotocol<'a>(
                env: &Env,
                opening: &Opening<'a>,
            ) -> Result<Option<&'a str>, Rejection> {
                match env.dialect_kind(opening.route.endpoint, opening.path) {
                    $(DialectKind::$name => $module::Connection::subprotocol(env, opening),)*
                }
            }

            /// Creates the state of a connection, in the dialect of the endpoint and the path.
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

            /// See [`Dialect::on_drop`].
            pub fn on_drop(&mut self, env: &Env) {
                match self { $(Connection::$name(it) => it.on_drop(env),)* }
            }

            /// See [`Dialect::close_reply`].
            pub fn close_reply(&self, code: Option<u16>) -> Option<u16> {
                match self { $(Connection::$name(it) => it.close_reply(code),)* }
            }

            /// See [`Dialect::on_close`].
            pub fn on_close(&mut self, env: &Env, us: ConnId, out: &mut Effects<'_>) {
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

        /// See [`Dialect::needs_body`]; false for a path that names no application.
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

/// Adds the effects of a message that cannot be delivered, because its connection has closed.
pub fn on_undelivered(what: &DialectMessage, out: &mut Effects<'_>) {
    zenith::on_undelivered(what, out);
}

/// Builds a frozen text frame whose payload is written by `write`; `scratch` is a buffer to reuse.
pub fn freeze_text(scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Frozen {
    Frozen::new(frame::build(ws::Opcode::Text, scratch, write))
}
