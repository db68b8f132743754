//! What distinguishes the vendors of channels: words, codes, paths and choices.
//!
//! All of it is known when the engine is compiled for a vendor, so nothing is looked up when a
//! message comes.

use super::super::{Closing, Env, Heartbeat, Opening};
use super::signature;
use crate::config;
use crate::http::query::{self, Plus};
use crate::hub::Users;
use std::borrow::Cow;
use std::fmt::Debug;

/// One vendor of channels.
pub trait Vendor: Debug + 'static {
    /// The names of what clients say.
    const SAYINGS: Sayings;
    /// What the beginnings of channel names mean, and whether the last event is kept. Longest
    /// first; the dash belongs to the prefix, so that `privateer` is public.
    const PREFIXES: &'static [(&'static str, Kind, bool)];
    /// Beginnings of event names that are the server's own.
    const OWN_EVENTS: [&'static str; 2];
    /// Why connections are closed.
    const CODES: Codes;
    /// How requests of the HTTP API are signed.
    const SIGNING: signature::Rules;
    /// Binary messages, which the protocol does not have, that are mistakes before the close.
    const BINARY_MESSAGES: u8;
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

    /// How long the peer may be silent.
    fn heartbeat(env: &Env) -> Heartbeat;

    /// The first message of a connection.
    fn established(env: &Env, socket_id: &str) -> String;

    /// What is said before a close, if anything. `refused` is whether the connection was never
    /// admitted, or by who it says it is.
    fn before_close(closing: &Closing, refused: bool) -> Option<Vec<u8>>;

    /// What is answered to a mistake that the connection survives, if anything.
    fn mistake(mistake: &Mistake<'_>) -> Option<Vec<u8>>;

    // --- subscriptions ---

    /// The acknowledgement of a subscription; `data` is JSON, `{}` but on presence channels.
    fn subscribed(name: &str, data: &[u8]) -> Vec<u8>;

    /// The answer to a subscription that is refused.
    fn refused(name: &str, refusal: &Refusal<'_>) -> Vec<u8>;

    /// Whether a subscription that the connection already has is acknowledged again.
    fn again(app: &config::App) -> bool;

    /// A user id of a presence channel as the hub has it: `raw` is its JSON, `text` its content if
    /// that is a string.
    fn user_id<'i>(raw: &'i str, text: Cow<'i, str>) -> Cow<'i, str>;

    /// The members of a presence channel, as the data of its acknowledgement.
    fn roster(users: &Users) -> Vec<u8>;

    /// Tells the others of a presence channel that a user has come.
    fn push_member_added(out: &mut Vec<u8>, name: &str, id: &str, info: Option<&str>);

    /// Tells the others of a presence channel that a user has left.
    fn push_member_removed(out: &mut Vec<u8>, name: &str, id: &str);

    /// Tells the subscribers of a channel how many they are, if the vendor does.
    fn push_count(out: &mut Vec<u8>, name: &str, count: u64) -> bool;

    /// Says that a cache channel has nothing to give.
    fn cache_miss(name: &str) -> Vec<u8>;

    /// The acknowledgement of a sign-in.
    fn signed_in(user_data: &str) -> Vec<u8>;

    // --- events ---

    /// An event from a client: `data` is raw JSON, or absent as it was.
    fn push_client_event(
        out: &mut Vec<u8>,
        event: &str,
        channel: &str,
        data: Option<&str>,
        user_id: Option<&str>,
    );

    // --- the HTTP API ---

    /// What a path below the application's names.
    fn target(path: &str) -> Option<Target<'_>>;

    /// The body of an answer that is an error.
    fn api_error(status: u16, message: &str) -> Vec<u8>;
}

/// The names of what clients say.
#[derive(Clone, Copy, Debug)]
pub struct Sayings {
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
pub enum Kind {
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
pub enum Mistake<'m> {
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
    /// A client's event.
    Event(BadEvent),
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
pub enum Refusal<'r> {
    /// The name cannot be a channel's.
    Name(&'r str),
    /// The channel is a user's, and of another user.
    User,
    /// The signature is missing or wrong.
    Signature,
    /// What the channel is to show of the user will not do.
    Member(&'r str),
    /// The connection holds this many subscriptions, and may not hold more.
    Full(usize),
    /// The channel has this many members, and may not have more.
    Crowded(usize),
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
    query::decode(segment, Plus::Plus).filter(|text| !text.is_empty())
}

impl Refusal<'_> {
    /// In words for people.
    pub fn text(&self, name: &str) -> Cow<'_, str> {
        match self {
            Refusal::Name(problem) | Refusal::Member(problem) => Cow::Borrowed(problem),
            Refusal::User => "Only the user who has signed in may subscribe".into(),
            Refusal::Signature => format!("Invalid signature for {name}").into(),
            Refusal::Full(most) => format!("A connection may hold {most} subscriptions").into(),
            Refusal::Crowded(most) => format!("A presence channel may have {most} members").into(),
        }
    }
}
