//! The differences between vendors with Pusher-like channels: message texts, close codes, paths and
//! quirks.
//!
//! All of it is known at compile time, since the engine is generic over [`Vendor`], so nothing is
//! looked up when a message arrives.

use super::super::{Closing, Env, Heartbeat, Opening};
use super::signature;
use crate::codec::json::push_string;
use crate::config;
use crate::http::query::{self, PlusSign};
use crate::hub::Users;
use std::borrow::Cow;
use std::fmt::Debug;

/// A vendor whose channels work as Pusher's do.
pub trait Vendor: Debug + 'static {
    /// The event names of client commands.
    const EVENT_NAMES: EventNames;
    /// Channel name prefixes: the prefix, the channel kind, and whether it is a cache channel. The
    /// longest come first. The dash is part of the prefix, so that `privateer` is a public channel.
    const PREFIXES: &'static [(&'static str, ChannelKind, bool)];
    /// Event name prefixes that are reserved for the server.
    const OWN_EVENTS: [&'static str; 2];
    /// The close codes with their reasons.
    const CODES: Codes;
    /// The close of a new connection when the process is overloaded.
    const OVERLOADED: Closing = Closing::new(4100, "Over capacity: the server is overloaded");
    /// The close of a client without pings after its inactivity timeout.
    const INACTIVE: Closing = Closing::new(4202, "Closed after inactivity");
    /// Whether watchlists are supported: users are notified when users of their watchlist come
    /// online or go offline. An application must enable them, too.
    const WATCHES: bool = false;
    /// How HTTP API requests are signed.
    const SIGNING: signature::SigningRules;
    /// Protocol details in which this vendor differs from others.
    const QUIRKS: Quirks;
    /// The application-level ping message, if the vendor has one.
    const PING: Option<&'static [u8]>;
    /// The application-level pong message.
    const PONG: &'static [u8];

    // --- connections ---

    /// Checks the vendor-specific part of the request for a new connection, such as the protocol
    /// version.
    ///
    /// # Errors
    /// The close that refuses the connection.
    fn check_opening(env: &Env, opening: &Opening<'_>) -> Result<(), Closing>;

    /// The inactivity timeout in seconds of a client whose protocol version has no ping; 0 if it
    /// has.
    fn inactivity_s(_env: &Env, _opening: &Opening<'_>) -> u64 {
        0
    }

    /// How long the client may be silent before a ping, and how long it may take to answer.
    fn heartbeat(env: &Env, app: &config::AppConfig) -> Heartbeat;

    /// The first message of a connection, which has its socket id.
    fn established(env: &Env, app: &config::AppConfig, socket_id: &str) -> String;

    /// Translates a close of the session, which has a code of RFC 6455, to the vendor's code.
    fn translate(closing: Closing) -> Closing {
        closing
    }

    /// The error event sent before a close, if there is one. `refused` is true if the connection
    /// was not admitted, if a sign-in or a signature was refused, or if the application has
    /// `error_before_close`.
    fn before_close(closing: &Closing, refused: bool) -> Option<Vec<u8>>;

    /// The response to a protocol error that does not close the connection.
    fn protocol_error(protocol_error: &ProtocolError<'_>) -> VendorResponse;

    // --- subscriptions ---

    /// The acknowledgement of a subscription. `data` is JSON: the roster on presence channels, else
    /// `{}`.
    fn subscribed(name: &str, data: &[u8]) -> Vec<u8>;

    /// The message that refuses a subscription.
    fn refused(name: &str, refusal: &SubscribeRefusal<'_>) -> Vec<u8>;

    /// Whether a subscription that the connection already has is acknowledged again.
    fn again(app: &config::AppConfig) -> bool;

    /// Whether a client event without a channel is published on the private or presence channel
    /// that the client is in, if it is in exactly one.
    fn infers_channel(_env: &Env) -> bool {
        false
    }

    /// The maximum length of a channel name, in bytes.
    fn name_length(_env: &Env, app: &config::AppConfig) -> usize {
        app.limits.channel_name_length
    }

    /// A presence channel's user id in the form that the hub keeps: `raw` is its JSON, and `text`
    /// its content if it is a string, else the same as `raw`.
    fn user_id<'i>(raw: &'i str, text: Cow<'i, str>) -> Cow<'i, str>;

    /// The members of a presence channel, as JSON data of the acknowledgement.
    fn roster(users: &Users) -> Vec<u8>;

    /// Appends the event that notifies the members of a presence channel of a new member.
    fn push_member_added(out: &mut Vec<u8>, name: &str, id: &str, info: Option<&str>);

    /// Appends the event that notifies the members of a presence channel that a member has left.
    fn push_member_removed(out: &mut Vec<u8>, name: &str, id: &str);

    /// Appends the event that reports a channel's number of subscriptions. Returns false if the
    /// vendor has no such event.
    fn push_count(_out: &mut Vec<u8>, _name: &str, _count: u64) -> bool {
        false
    }

    /// The message that a cache channel has no cached event. Empty if the vendor has no cache
    /// channels.
    fn cache_miss(_name: &str) -> Vec<u8> {
        Vec::new()
    }

    /// The acknowledgement of a sign-in. Empty if the vendor has no sign-in.
    fn signed_in(_user_data: &str) -> Vec<u8> {
        Vec::new()
    }

    /// The message with the users of a watchlist who are online and who are offline, if the vendor
    /// has watchlists.
    fn watchlist(_online: &[&str], _offline: &[&str]) -> Option<Vec<u8>> {
        None
    }

    // --- events ---

    /// Appends a client event. `data` is raw JSON, or `None` if the client sent none.
    fn push_client_event(
        out: &mut Vec<u8>,
        event: &str,
        channel: &str,
        data: Option<&str>,
        user_id: Option<&str>,
    );

    /// The data of a published event as subscribers get it. `data` is the content of a JSON string,
    /// or any other JSON value serialized; `_is_string` says which.
    fn event_data(data: Cow<'_, str>, _is_string: bool) -> Cow<'_, str> {
        data
    }

    // --- the HTTP API ---

    /// The maximum number of events in a batch.
    fn batch_events(_env: &Env, app: &config::AppConfig) -> usize {
        app.limits.batch_events
    }

    /// Appends a user id of a presence channel to a reply of the HTTP API.
    fn push_user_id(out: &mut Vec<u8>, id: &str) {
        push_string(out, id);
    }

    /// What a path below the application's refers to; `None` if the API has no such path.
    fn target(path: &str) -> Option<Target<'_>>;

    /// The body of an error reply.
    fn api_error(status: u16, message: &str) -> Vec<u8>;
}

/// Protocol details in which a vendor differs from others.
#[derive(Clone, Copy, Debug)]
pub struct Quirks {
    /// The number of binary messages that are answered as protocol errors before the connection is
    /// closed. The protocol has no binary messages.
    pub binary_messages: u8,
    /// Whether refused subscriptions count towards the limit of errors per second.
    pub refusals_count: bool,
    /// Whether a path without an application is refused with status 404 before the WebSocket
    /// upgrade.
    pub refuses_paths_early: bool,
    /// Whether the body of a batch may be the array of events itself.
    pub bare_batch: bool,
    /// Whether a publish may request attributes of its channels by `info`.
    pub publish_asks: bool,
    /// Whether queries of the API refuse invalid channel names.
    pub checks_names: bool,
    /// The HTTP status of the reply to a request that another application has signed; 401 treats it
    /// as a request with any other wrong key.
    pub foreign_key: u16,
}

/// The response to a protocol error that does not close the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VendorResponse {
    /// Sends this message, and counts towards the limit of errors per second.
    Send(Vec<u8>),
    /// Sends nothing, and counts towards the limit of errors per second.
    Count,
    /// Sends nothing, and does not count towards the limit.
    Ignore,
}

/// The event names of client commands.
#[derive(Clone, Copy, Debug)]
pub struct EventNames {
    /// A ping by the client.
    pub ping: &'static str,
    /// The client's answer to the server's ping.
    pub pong: &'static str,
    /// Subscribes to a channel.
    pub subscribe: &'static str,
    /// Unsubscribes from a channel.
    pub unsubscribe: &'static str,
    /// Signs a user in; empty if the vendor has no sign-in.
    pub sign_in: &'static str,
}

/// The kind of a channel, by its name's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// Anybody may subscribe.
    Public,
    /// A subscription needs a signature.
    Private,
    /// As private; the server cannot read the events, which publishers encrypt.
    Encrypted,
    /// As private, and the members know of each other.
    Presence,
    /// The channel of one signed-in user, to which events for that user are published.
    User,
}

/// The close codes with their reasons. By the code a client decides whether to reconnect: 4000 to
/// 4099 not at all, 4100 to 4199 after a delay, 4200 to 4299 immediately.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Codes {
    pub tls_required: Closing,
    pub unknown_app: Closing,
    pub app_disabled: Closing,
    pub over_quota: Closing,
    pub no_such_path: Closing,
    pub origin: Closing,
    pub sign_in: Closing,
    pub bad_signature: Closing,
    pub unauthorised: Closing,
    pub too_slow: Closing,
    pub too_many_errors: Closing,
    pub draining: Closing,
    pub silent: Closing,
    /// The reason of a termination by the API; the code is the application's
    /// `terminate_close_code`.
    pub terminated: &'static str,
}

/// A client's protocol error that does not close its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError<'m> {
    /// The message is not JSON.
    NotJson,
    /// The message is not an object with an `event`.
    NotAnObject,
    /// The command has no `data`.
    NoData,
    /// The `data` of a command is not an object.
    DataNotAnObject,
    /// The command names no channel.
    NoChannel,
    /// The sign-in lacks `auth` or `user_data`.
    NoSignIn,
    /// The event's name is no known command.
    Unsupported(&'m str),
    /// The message is binary.
    Binary,
    /// The connection is already subscribed to this channel.
    Subscribed(&'m str),
    /// The connection is not subscribed to this channel, on which it sent a client event.
    NotSubscribed(&'m str),
    /// The connection has already signed in as another user.
    SignedIn,
    /// The watchlist has more users than this limit; only the first ones are used.
    LongWatchlist(usize),
    /// The client event is refused; with the channel that it names.
    Event(BadEvent, Option<&'m str>),
}

/// Why a client event is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEvent {
    /// The application has client events disabled.
    Off,
    /// The event names no channel.
    NoChannel,
    /// The event's name is too long.
    LongName,
    /// The event's channel is neither a private nor a presence channel.
    Public,
    /// The event's data is too long.
    LongData,
    /// The event exceeds the limit of client events per second.
    TooMany,
}

/// Why a subscription is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeRefusal<'r> {
    /// The channel name is invalid; with the problem as text.
    Name(&'r str),
    /// The channel is another user's own channel, or nobody has signed in.
    User,
    /// The signature is missing or wrong.
    Signature,
    /// The member's `channel_data` is missing or invalid; with the problem as text.
    Member(&'r str),
    /// The member's `channel_data` or `user_id` is too long; with the problem as text.
    Large(&'r str),
    /// The connection exceeds the rate limit of this many subscriptions per second.
    TooMany(u16),
    /// The connection has reached its limit of this many subscriptions.
    SubscriptionLimit(usize),
    /// The presence channel has reached its limit of this many members.
    ChannelFull(usize),
    /// The application has reached its limit of this many channels, and the channel would be a new
    /// one.
    NoRoom(usize),
}

/// What a path of the HTTP API refers to.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'p> {
    /// Publish one event.
    Events,
    /// Publish a batch of events.
    Batch,
    /// Query the occupied channels.
    Channels,
    /// Query this channel.
    Channel(Cow<'p, str>),
    /// Query the users of this presence channel.
    Users(Cow<'p, str>),
    /// Publish an event to this signed-in user.
    ToUser(Cow<'p, str>),
    /// Close the connections of this signed-in user.
    Terminate(Cow<'p, str>),
}

/// The name prefix of a user's own channel.
pub const USER: &str = "#server-to-user-";

/// Decodes a path segment; `None` if it is malformed or empty.
pub fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    query::decode(segment, PlusSign::Literal).filter(|text| !text.is_empty())
}

impl SubscribeRefusal<'_> {
    /// The reason as text for people.
    pub fn text(&self, name: &str) -> Cow<'_, str> {
        match self {
            SubscribeRefusal::Name(problem)
            | SubscribeRefusal::Member(problem)
            | SubscribeRefusal::Large(problem) => Cow::Borrowed(problem),
            SubscribeRefusal::User => "Only the user who has signed in may subscribe".into(),
            SubscribeRefusal::Signature => format!("Invalid signature for {name}").into(),
            SubscribeRefusal::TooMany(max) => {
                format!("A connection may begin {max} subscriptions in a second").into()
            }
            SubscribeRefusal::SubscriptionLimit(max) => {
                format!("A connection may hold {max} subscriptions").into()
            }
            SubscribeRefusal::NoRoom(max) => {
                format!("An application may have {max} channels").into()
            }
            SubscribeRefusal::ChannelFull(max) => {
                format!("A presence channel may have {max} members").into()
            }
        }
    }
}
