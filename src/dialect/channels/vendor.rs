//! What distinguishes the vendors of channels: words, codes, paths and choices.
//!
//! All of it is known when the engine is compiled for a vendor, so nothing is looked up when a
//! message comes.

use super::super::{Closing, Env, Heartbeat, Opening};
use super::signature;
use crate::codec::json::push_string;
use crate::config;
use crate::http::query::{self, PlusSign};
use crate::hub::Users;
use std::borrow::Cow;
use std::fmt::Debug;

/// One vendor of channels.
pub trait Vendor: Debug + 'static {
    /// The names of what clients say.
    const SAYINGS: EventNames;
    /// What the beginnings of channel names mean, and whether the last event is kept. Longest
    /// first; the dash belongs to the prefix, so that `privateer` is public.
    const PREFIXES: &'static [(&'static str, ChannelKind, bool)];
    /// Beginnings of event names that are the server's own.
    const OWN_EVENTS: [&'static str; 2];
    /// Why connections are closed.
    const CODES: Codes;
    /// The close of a connection that the process has no room for.
    const OVERLOADED: Closing = Closing::new(4100, "Over capacity: the server is overloaded");
    /// The close of a client that has been silent and cannot be asked for a sign of life.
    const INACTIVE: Closing = Closing::new(4202, "Closed after inactivity");
    /// Whether users are told which users of their watchlist come and go, where an application
    /// wants it.
    const WATCHES: bool = false;
    /// How requests of the HTTP API are signed.
    const SIGNING: signature::SigningRules;
    /// What the vendor has chosen where others chose otherwise.
    const QUIRKS: Quirks;
    /// Asks a client for a sign of life, if the vendor has such a message.
    const PING: Option<&'static [u8]>;
    /// The answer to a client that asks.
    const PONG: &'static [u8];

    // --- connections ---

    /// Checks what is the vendor's own in the request for a new connection.
    ///
    /// # Errors
    /// The close that refuses it.
    fn check_opening(env: &Env, opening: &Opening<'_>) -> Result<(), Closing>;

    /// Seconds of silence after which a client is closed that cannot be asked for a sign of life; 0
    /// if it can be.
    fn inactivity_s(_env: &Env, _opening: &Opening<'_>) -> u64 {
        0
    }

    /// How long the peer may be silent.
    fn heartbeat(env: &Env, app: &config::AppConfig) -> Heartbeat;

    /// The first message of a connection.
    fn established(env: &Env, app: &config::AppConfig, socket_id: &str) -> String;

    /// The close for a reason of the session's own, which has a code of RFC 6455.
    fn translate(closing: Closing) -> Closing {
        closing
    }

    /// What is said before a close, if anything. `refused` is whether the connection was never
    /// admitted, or by who it says it is.
    fn before_close(closing: &Closing, refused: bool) -> Option<Vec<u8>>;

    /// What is done about a mistake that the connection survives.
    fn protocol_error(protocol_error: &ProtocolError<'_>) -> VendorResponse;

    // --- subscriptions ---

    /// The acknowledgement of a subscription; `data` is JSON, `{}` but on presence channels.
    fn subscribed(name: &str, data: &[u8]) -> Vec<u8>;

    /// The answer to a subscription that is refused.
    fn refused(name: &str, refusal: &SubscribeRefusal<'_>) -> Vec<u8>;

    /// Whether a subscription that the connection already has is acknowledged again.
    fn again(app: &config::AppConfig) -> bool;

    /// Whether a client's event that names no channel goes to the one private or presence channel
    /// that the client is in, if it is in one only.
    fn infers_channel(_env: &Env) -> bool {
        false
    }

    /// Bytes that a channel's name may have.
    fn name_length(_env: &Env, app: &config::AppConfig) -> usize {
        app.limits.channel_name_length
    }

    /// A user id of a presence channel as the hub has it: `raw` is its JSON, `text` its content if
    /// that is a string.
    fn user_id<'i>(raw: &'i str, text: Cow<'i, str>) -> Cow<'i, str>;

    /// The members of a presence channel, as the data of its acknowledgement.
    fn roster(users: &Users) -> Vec<u8>;

    /// Tells the others of a presence channel that a user has come.
    fn push_member_added(out: &mut Vec<u8>, name: &str, id: &str, info: Option<&str>);

    /// Tells the others of a presence channel that a user has left.
    fn push_member_removed(out: &mut Vec<u8>, name: &str, id: &str);

    /// Tells the subscribers of a channel how many they are; whether the vendor does.
    fn push_count(_out: &mut Vec<u8>, _name: &str, _count: u64) -> bool {
        false
    }

    /// Says that a cache channel has nothing to give, where there are such channels.
    fn cache_miss(_name: &str) -> Vec<u8> {
        Vec::new()
    }

    /// The acknowledgement of a sign-in, where users sign in.
    fn signed_in(_user_data: &str) -> Vec<u8> {
        Vec::new()
    }

    /// Tells a user which users of the watchlist are there now and which are not, if the vendor
    /// does.
    fn watchlist(_online: &[&str], _offline: &[&str]) -> Option<Vec<u8>> {
        None
    }

    // --- events ---

    /// An event from a client: `data` is raw JSON, or absent as it was.
    fn push_client_event(
        out: &mut Vec<u8>,
        event: &str,
        channel: &str,
        data: Option<&str>,
        user_id: Option<&str>,
    );

    /// The data of an event as subscribers get it, of a request's `data`: the content of a string,
    /// or what is not one, written out.
    fn event_data(data: Cow<'_, str>, _is_string: bool) -> Cow<'_, str> {
        data
    }

    // --- the HTTP API ---

    /// Events that one batch may have.
    fn batch_events(_env: &Env, app: &config::AppConfig) -> usize {
        app.limits.batch_events
    }

    /// The id of a user of a presence channel, for who asks.
    fn push_user_id(out: &mut Vec<u8>, id: &str) {
        push_string(out, id);
    }

    /// What a path below the application's names.
    fn target(path: &str) -> Option<Target<'_>>;

    /// The body of an answer that is an error.
    fn api_error(status: u16, message: &str) -> Vec<u8>;
}

/// What one vendor has chosen where others chose otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Quirks {
    /// Binary messages, which the protocol does not have, that are mistakes before the close.
    pub binary_messages: u8,
    /// Whether refused subscriptions count among the mistakes that a second may have.
    pub refusals_count: bool,
    /// Whether a path that names no application is refused before the WebSocket is one.
    pub refuses_paths_early: bool,
    /// Whether a batch may be the array of events itself.
    pub bare_batch: bool,
    /// Whether a publish may ask about its channels.
    pub publish_asks: bool,
    /// Whether the API refuses questions about names that no channel can have.
    pub checks_names: bool,
    /// The status for a request that another application has signed; 401 is that of any other one
    /// that is not signed.
    pub foreign_key: u16,
}

/// What is done about a mistake that the connection survives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VendorResponse {
    /// It is answered, and counts among those that a second may have.
    Say(Vec<u8>),
    /// It is not, but counts.
    Count,
    /// It is neither.
    Ignore,
}

/// The names of what clients say.
#[derive(Clone, Copy, Debug)]
pub struct EventNames {
    /// Asks us for a sign of life.
    pub ping: &'static str,
    /// The answer to our asking.
    pub pong: &'static str,
    /// Begins a subscription.
    pub subscribe: &'static str,
    /// Ends one.
    pub unsubscribe: &'static str,
    /// Says who the user is; empty where users do not.
    pub sign_in: &'static str,
}

/// What a channel's name says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// Anyone may subscribe.
    Public,
    /// Subscribing needs a signature.
    Private,
    /// As private; what is published is opaque to the server.
    Encrypted,
    /// As private, and its members know of each other.
    Presence,
    /// What is sent to one user who has signed in.
    User,
}

/// Close codes, with the text that goes with each. 4000 to 4099: do not come back; 4100 to 4199:
/// come back after a while; 4200 to 4299: come back at once.
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
    /// With the code that the application chooses.
    pub terminated: &'static str,
}

/// What a client has done wrong that its connection survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError<'m> {
    /// A message that is not JSON.
    NotJson,
    /// A message that is not an object with an event.
    NotAnObject,
    /// A command without data.
    NoData,
    /// A command whose data is not an object.
    DataNotAnObject,
    /// A command that names no channel.
    NoChannel,
    /// A sign-in without its members.
    NoSignIn,
    /// An event that there is no such command for.
    Unsupported(&'m str),
    /// A binary message.
    Binary,
    /// A subscription that the connection has already.
    Subscribed(&'m str),
    /// An event on a channel to which it is not subscribed.
    NotSubscribed(&'m str),
    /// A second sign-in as somebody else.
    SignedIn,
    /// A watchlist of more users than this, of which the first ones count.
    LongWatchlist(usize),
    /// A client's event, and the channel that it names.
    Event(BadEvent, Option<&'m str>),
}

/// Why a client's event is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEvent {
    /// The application does not have them.
    Off,
    /// It names no channel.
    NoChannel,
    /// Its name is too long.
    LongName,
    /// Its channel is neither a private nor a presence one.
    Public,
    /// Its data is too long.
    LongData,
    /// It is one too many in a second.
    TooMany,
}

/// Why a subscription is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeRefusal<'r> {
    /// The name cannot be a channel's.
    Name(&'r str),
    /// The channel is a user's, and of another user.
    User,
    /// The signature is missing or wrong.
    Signature,
    /// What the channel is to show of the user will not do.
    Member(&'r str),
    /// It is longer than it may be.
    Large(&'r str),
    /// The connection has begun so many subscriptions in a second that this one is beyond its rate,
    /// which is this many.
    TooMany(u16),
    /// The connection holds this many subscriptions, and may not hold more.
    SubscriptionLimit(usize),
    /// The channel has this many members, and may not have more.
    ChannelFull(usize),
    /// The application may have this many channels, and has no room for a new one.
    NoRoom(usize),
}

/// What a path of the HTTP API names.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'p> {
    /// One event.
    Events,
    /// Several events.
    Batch,
    /// The occupied channels.
    Channels,
    /// One channel.
    Channel(Cow<'p, str>),
    /// The users of a presence channel.
    Users(Cow<'p, str>),
    /// One event for a user who has signed in.
    ToUser(Cow<'p, str>),
    /// The end of a user's connections.
    Terminate(Cow<'p, str>),
}

/// How the name of a user's channel begins.
pub const USER: &str = "#server-to-user-";

/// One segment of a path, if it stands for something.
pub fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    query::decode(segment, PlusSign::Literal).filter(|text| !text.is_empty())
}

impl SubscribeRefusal<'_> {
    /// In words for people.
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
