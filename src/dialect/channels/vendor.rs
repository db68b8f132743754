//! What a vendor with Pusher-like channels computes: the texts of messages whose form is its own,
//! and decisions that need the configuration or the request.
//!
//! The engine is generic over [`Vendor`], so nothing is looked up when a message arrives. What is
//! only names, codes and switches is in the vendor's [`VendorData`].

use super::super::closing::Closing;
use super::super::context::{Heartbeat, Opening};
use super::super::env::Env;
use super::data::{Refusals, VendorData};
use crate::codec::json::push_string;
use crate::config;
use crate::hub::Users;
use std::borrow::Cow;
use std::fmt::Debug;

/// A vendor whose channels work as Pusher's do.
pub trait Vendor: Debug + 'static {
    /// The vendor's names, codes, paths and switches.
    const DATA: &'static VendorData;

    // --- connections ---

    /// Checks the vendor-specific part of the request for a new connection, such as the protocol
    /// version.
    ///
    /// # Errors
    /// The close that refuses the connection.
    fn check_opening(_env: &Env, _opening: &Opening<'_>) -> Result<(), Closing> {
        Ok(())
    }

    /// The inactivity timeout in seconds of a client whose protocol version has no ping; 0 if it
    /// has.
    fn inactivity_s(_env: &Env, _opening: &Opening<'_>) -> u64 {
        0
    }

    /// The settings of an application's connections.
    fn settings(env: &Env, app: &config::AppConfig) -> VendorSettings;

    /// The error event sent before a close, if there is one. `refused` is true if the connection
    /// was not admitted, if a sign-in or a signature was refused, or if the application has
    /// `error_before_close`.
    fn before_close(closing: &Closing, refused: bool) -> Option<Vec<u8>>;

    /// The response to a protocol error that does not close the connection.
    fn protocol_error(protocol_error: &ProtocolError<'_>) -> VendorResponse;

    // --- subscriptions ---

    /// The message that refuses a subscription, with the type and the status of the error.
    fn subscription_error(name: &str, kind: &str, error: &str, status: u16) -> Vec<u8>;

    /// A presence channel's user id in the form that the hub keeps: `raw` is its JSON, and `text`
    /// its content if it is a string, else the same as `raw`.
    fn user_id<'i>(raw: &'i str, text: Cow<'i, str>) -> Cow<'i, str>;

    /// The members of a presence channel, as JSON data of the acknowledgement.
    fn roster(users: &Users) -> Vec<u8>;

    /// Appends the event that notifies the members of a presence channel of a new member.
    fn push_member_added(out: &mut Vec<u8>, name: &str, id: &str, info: Option<&str>);

    /// Appends the event that notifies the members of a presence channel that a member has left.
    fn push_member_removed(out: &mut Vec<u8>, name: &str, id: &str);

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

    /// Appends a user id of a presence channel to a reply of the HTTP API.
    fn push_user_id(out: &mut Vec<u8>, id: &str) {
        push_string(out, id);
    }
}

/// What the configuration says about an application's connections, in its vendor's section or in
/// the application's own.
#[derive(Clone, Copy, Debug)]
pub struct VendorSettings {
    /// The activity timeout that a client is given, in seconds.
    pub activity_s: u64,
    /// How long the client may be silent before a ping, and how long it may take to answer.
    pub heartbeat: Heartbeat,
    /// The maximum length of a channel name, in bytes.
    pub name_length: usize,
    /// The maximum number of events in a batch.
    pub batch_events: usize,
    /// Whether a client event without a channel is published on the private or presence channel
    /// that the client is in, if it is in exactly one.
    pub infers_channel: bool,
    /// Whether a subscription that the connection already has is acknowledged again.
    pub acknowledges_again: bool,
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
    /// The connection resumes after it has sent another message.
    LateResume,
    /// The message has more positions than this limit; only so many are used.
    ManyPositions(usize),
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
    /// The channel is a view of another one, and the view accepts no events.
    View,
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
    /// The cluster has not taken the member in time.
    NotStored,
}

impl SubscribeRefusal<'_> {
    /// The type and the status of the error.
    pub fn kind(&self, refusals: &Refusals) -> (&'static str, u16) {
        match self {
            SubscribeRefusal::Name(_) => refusals.name,
            SubscribeRefusal::User => refusals.user,
            SubscribeRefusal::Signature => refusals.signature,
            SubscribeRefusal::Member(_) => refusals.member,
            SubscribeRefusal::Large(_) => refusals.large,
            SubscribeRefusal::TooMany(_) => refusals.too_many,
            SubscribeRefusal::NotStored => refusals.unavailable,
            SubscribeRefusal::SubscriptionLimit(_)
            | SubscribeRefusal::ChannelFull(_)
            | SubscribeRefusal::NoRoom(_) => refusals.limit,
        }
    }

    /// The reason as text for people.
    pub fn text(&self, name: &str) -> Cow<'_, str> {
        match self {
            SubscribeRefusal::Name(problem)
            | SubscribeRefusal::Member(problem)
            | SubscribeRefusal::Large(problem) => Cow::Borrowed(problem),
            SubscribeRefusal::User => "Only the user who has signed in may subscribe".into(),
            SubscribeRefusal::Signature => format!("Invalid signature for {name}").into(),
            SubscribeRefusal::NotStored => {
                "The servers cannot agree on the members now, please try again".into()
            }
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
