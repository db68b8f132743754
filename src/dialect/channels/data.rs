//! What is data of a vendor with Pusher-like channels: names, codes, paths and switches, in one
//! constant table for each vendor.
//!
//! The engine is generic over the vendor, so the table is known at compile time and nothing is
//! looked up when a message arrives. What a vendor computes is in the trait
//! [`Vendor`](super::vendor::Vendor).

use super::super::closing::Closing;
use super::signature::SigningRules;
use crate::http::query::{self, PlusSign};
use std::borrow::Cow;

/// The table of one vendor.
#[derive(Debug)]
pub struct VendorData {
    /// The event names of client commands.
    pub commands: EventNames,
    /// The event names of the server's messages.
    pub events: ServerEvents,
    /// Channel name prefixes: the prefix, the channel kind, and whether it is a cache channel. The
    /// longest come first. The dash is part of the prefix, so that `privateer` is a public channel.
    pub prefixes: &'static [(&'static str, ChannelKind, bool)],
    /// Event name prefixes that are reserved for the server.
    pub own_events: [&'static str; 3],
    /// The close codes with their reasons.
    pub codes: Codes,
    /// Closes of the session, which have a code of RFC 6455, and the code that the vendor has for
    /// them.
    pub translated: &'static [(u16, u16)],
    /// How a refused subscription is reported.
    pub refusals: Refusals,
    /// How HTTP API requests are signed.
    pub signing: SigningRules,
    /// Protocol details in which this vendor differs from others.
    pub quirks: Quirks,
    /// The application-level ping message, if the vendor has one.
    pub ping: Option<&'static [u8]>,
    /// The application-level pong message.
    pub pong: &'static [u8],
    /// The paths of the HTTP API below the application's, without the first slash. A `*` stands for
    /// a segment, which the target gets decoded.
    pub paths: &'static [(&'static str, TargetOf)],
}

/// What a path of the HTTP API refers to, made from its decoded `*`, which is empty if the path has
/// none.
pub type TargetOf = for<'p> fn(Cow<'p, str>) -> Target<'p>;

impl VendorData {
    /// What a path below the application's refers to; `None` if the API has no such path.
    pub fn target<'p>(&self, path: &'p str) -> Option<Target<'p>> {
        let path = path.strip_prefix('/')?;
        self.paths.iter().find_map(|(pattern, target)| Some(target(matched(pattern, path)?)))
    }

    /// Translates a close of the session, which has a code of RFC 6455, to the vendor's code.
    pub fn translate(&self, closing: Closing) -> Closing {
        match self.translated.iter().find(|(code, _)| *code == closing.code) {
            Some((_, own)) => Closing { code: *own, ..closing },
            None => closing,
        }
    }
}

/// The decoded segment for which the `*` of a pattern stands, or an empty one if it has none;
/// `None` if the path does not match the pattern.
fn matched<'p>(pattern: &str, path: &'p str) -> Option<Cow<'p, str>> {
    if pattern == path && !pattern.contains('*') {
        return Some(Cow::Borrowed("")); // The usual case, without the search for segments.
    }
    let (mut parts, mut found) = (path.split('/'), Cow::Borrowed(""));
    for wanted in pattern.split('/') {
        let part = parts.next()?;
        match wanted {
            "*" => found = decoded(part)?,
            _ if part == wanted => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(found)
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

/// The event names of the server's messages.
#[derive(Clone, Copy, Debug)]
pub struct ServerEvents {
    /// The first message of a connection.
    pub established: &'static str,
    /// Acknowledges a subscription.
    pub subscribed: &'static str,
    /// Reports a channel's number of subscriptions, if the vendor does.
    pub count: Option<&'static str>,
    /// Reports that a cache channel has no cached event; empty if there are no cache channels.
    pub cache_miss: &'static str,
    /// Acknowledges a sign-in; empty if there is no sign-in.
    pub signed_in: &'static str,
    /// Has the users of a watchlist who are online and who are offline; empty if there are no
    /// watchlists.
    pub watchlist: &'static str,
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
    pub overloaded: Closing,
    /// A client without pings is closed by this after its inactivity timeout.
    pub inactive: Closing,
    /// The reason of a termination by the API; the code is the application's
    /// `terminate_close_code`.
    pub terminated: &'static str,
}

/// How a refused subscription is reported, by its reason: the type of the error, and its status.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names are those of the reasons")]
pub struct Refusals {
    pub name: (&'static str, u16),
    pub user: (&'static str, u16),
    pub signature: (&'static str, u16),
    pub member: (&'static str, u16),
    pub large: (&'static str, u16),
    pub too_many: (&'static str, u16),
    /// A limit on subscriptions, members or channels is reached.
    pub limit: (&'static str, u16),
    /// The servers cannot do it now; the client may try again.
    pub unavailable: (&'static str, u16),
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
    /// Whether watchlists are supported: users are notified when users of their watchlist come
    /// online or go offline. An application must enable them, too.
    pub watches: bool,
    /// Whether an error of the HTTP API repeats its status in the body.
    pub error_codes: bool,
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
    /// Read the history of this channel.
    History(Cow<'p, str>),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_path_pattern_matches_whole_segments() {
        for (pattern, path, found) in [
            ("events", "events", Some("")),
            ("events", "events/", None),
            ("events", "event", None),
            ("channels/*", "channels/a%40b", Some("a@b")),
            ("channels/*", "channels/", None),
            ("channels/*", "channels/%ff", None),
            ("channels/*", "channels/a/users", None),
            ("channels/*/users", "channels/a/users", Some("a")),
            ("channels/*/users", "channels/a", None),
        ] {
            assert_eq!(matched(pattern, path).as_deref(), found, "{pattern} {path}");
        }
    }
}
