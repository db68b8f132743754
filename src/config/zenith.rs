//! The configuration section of the Zenith dialect: limits, tokens, back ends, feeds and topics.

use std::collections::HashSet;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::size;
use super::text::shape;
use crate::settings::error::{Error, Problem};
use crate::settings::range::{GIB, at_most};
use crate::settings::secret::Secret;
use crate::settings::section::{Section, section, words};

words!(RetainConfig);

section! {
    /// The Zenith dialect, if it is to be served. Unless a route has the endpoint "zenith", /Zenith
    /// and /Zenith/* lead to it; `[[apps]]` are then not required.
    pub struct Zenith {
        /// The name of the server in the reply to Zenith/ServerInfo.
        pub name: String = "polycast".to_owned();
        /// The version of the server in that reply. Empty is this program's.
        pub version: String = String::new();
        /// Maximum size of one message from a client. At most the server's message_bytes.
        #[serde(deserialize_with = "size::wide")]
        pub message_bytes: u64 = 1 << 20, bytes(1024..=GIB);
        /// Maximum length of the names of a controller and a topic together.
        pub topic_length: usize = 1024, plain_bytes(16..=65_536);
        /// Maximum number of subscriptions of one connection; each `Sub` of the same topic counts.
        pub subscriptions_per_connection: usize = 10_000, count(1..=1 << 20);
        /// Maximum number of calls and subscriptions of one connection that wait for a back end.
        pub pending_per_connection: usize = 1000, count(1..=1 << 20);
        /// Maximum number of messages of one client per second; more are answered with `Limited`. 0
        /// is unlimited.
        pub messages_per_s: u32 = 0, count(0..=1_000_000);
        /// Number of wrong tokens, passwords or grants with which a connection is closed (1008). 0
        /// is unlimited.
        pub wrong_tokens_per_connection: u32 = 5, count(0..=1_000_000);
        /// Number of wrong tokens, passwords or grants from one address (of IPv6 the first 64 bits)
        /// in a minute after which all sign-ins from it are refused until the minute ends:
        /// connections are closed (1008), requests are answered with 429. Behind a proxy all
        /// clients have the proxy's address. 0 is unlimited.
        pub wrong_tokens_per_minute: u32 = 10, count(0..=1_000_000);
        /// Time within which a back end must answer, unless the client sets another.
        pub answer_timeout_s: u64 = 35, seconds(1..=3600);
        /// Silence after which the server sends a ping to a client.
        pub ping_s: u64 = 30, seconds(1..=3600);
        /// Further silence after which the server closes the connection (1008).
        pub pong_s: u64 = 30, seconds(1..=3600);
        /// Maximum number of containers (commands) in one request of a back end.
        pub batch: usize = 1000, count(1..=10_000);
        /// Maximum number of elements of a picture (merged state) of mode "log"; beyond it the
        /// oldest is removed.
        pub log_elements: usize = 10_000, count(1..=1 << 20);
        /// Scopes that are not granted to a connection without TLS.
        pub secure_scopes: Vec<String> = Vec::new();
        /// Tokens by which users sign in. A user may have several.
        pub tokens: Vec<ZenithToken> = Vec::new();
        /// Back ends, which connect by WebSocket or by POST to /Zenith/ingest.
        pub services: Vec<ZenithService> = Vec::new();
        /// The feeds in the reply to Zenith/Feeds.
        pub feeds: Vec<ZenithFeed> = Vec::new();
        /// Topics, in addition to those that a back end registers.
        pub topics: Vec<ZenithTopic> = Vec::new();
    }
}

section! {
    required
    /// Tokens by which users sign in. A user may have several.
    pub struct ZenithToken {
        /// The token; unique. Required. Better not stored in this file: "${TOKEN}".
        pub token: Secret;
        /// UserID of the user. Required.
        pub user: String;
        /// DisplayName of the user. Empty is the user id.
        #[serde(default)]
        pub display_name: String;
        /// The scopes that the user has; topics below require them.
        #[serde(default)]
        pub scopes: Vec<String>;
        /// When the token expires, such as "2030-01-31T12:00:00Z". Empty is never.
        #[serde(default)]
        pub expires: String;
        /// Maximum number of simultaneous connections of the user, over all tokens; beyond it the
        /// oldest is closed (4000). 0 is unlimited.
        #[serde(default)]
        pub sessions: usize;
        /// The user's password for Auth/AuthOwner. Empty is none.
        #[serde(default = "nothing")]
        pub password: Secret;
        /// The grant for Auth/AuthCode. Empty is none.
        #[serde(default = "nothing")]
        pub grant: Secret;
    }
}

impl ZenithToken {
    /// The expiry as a Unix timestamp in seconds; `None` if the token does not expire.
    pub fn expires_unix_s(&self) -> Option<u64> {
        let at = OffsetDateTime::parse(&self.expires, &Rfc3339).ok()?;
        u64::try_from(at.unix_timestamp()).ok()
    }
}

section! {
    required
    /// Back ends, which connect by WebSocket or by POST to /Zenith/ingest.
    pub struct ZenithService {
        /// A name for display.
        #[serde(default)]
        pub name: String;
        /// The token by which the back end signs in; unique. Required.
        pub token: Secret;
        /// The controllers that the back end may serve. Empty is all.
        #[serde(default)]
        pub controllers: Vec<String>;
    }
}

section! {
    required
    /// The feeds in the reply to Zenith/Feeds.
    pub struct ZenithFeed {
        /// The name of the feed; unique. Required.
        pub name: String;
        /// The class of the feed: "Authority", "Channel", "Market", "News", "Scanner", "Trading" or
        /// "Watchlist". Required.
        pub class: String;
        /// The status of the feed until a back end sets another: "Initialising", "Active",
        /// "Closed", "Inactive", "Impaired" or "Expired".
        #[serde(default = "active")]
        pub status: String;
    }
}

section! {
    required
    /// Topics, in addition to those that a back end registers.
    pub struct ZenithTopic {
        /// The controller; not "Zenith" or "Auth". Required.
        pub controller: String;
        /// The kind of the topics, which is the part of a topic's name before the first `!`; or a
        /// whole topic name, which takes precedence over its kind; or "*" for all topics without an
        /// entry. Required.
        pub kind: String;
        /// What is kept of earlier publishes and sent to a new subscriber: "replace", the last
        /// data; "merge", the members of all objects, each with its last value; "log", the elements
        /// of all arrays since the last one that clears; "none".
        #[serde(default)]
        pub retain: RetainConfig;
        /// Whether a null value deletes the member from a merged picture; otherwise null is its
        /// value.
        #[serde(default)]
        pub null_deletes: bool;
        /// Whether a subscription is refused until something has been published on the topic.
        #[serde(default)]
        pub strict: bool;
        /// The scope that a subscription or a call needs. Empty is none.
        #[serde(default)]
        pub scope: String;
        /// Whether calls and subscriptions are refused as `Unavailable` while no back end serves
        /// them.
        #[serde(default)]
        pub served: bool;
        /// Fixed JSON data that every subscriber is sent: '[{"Code":"XYZ"}]'. Empty is none.
        #[serde(default)]
        pub data: String;
        /// Fixed JSON that answers a call. Empty is none.
        #[serde(default)]
        pub reply: String;
    }
}

/// What is kept of a topic for later subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetainConfig {
    /// The last data.
    Replace,
    /// The members of all published objects, each with its last value.
    #[default]
    Merge,
    /// The elements of all published arrays since the last one that clears.
    Log,
    /// Nothing.
    None,
}

/// The accepted classes of feeds.
const CLASSES: [&str; 7] =
    ["Authority", "Channel", "Market", "News", "Scanner", "Trading", "Watchlist"];
/// The accepted states of feeds.
pub const FEED_STATES: [&str; 6] =
    ["Initialising", "Active", "Closed", "Inactive", "Impaired", "Expired"];
/// The controllers that the server serves itself.
pub const OWN_CONTROLLERS: [&str; 2] = ["Zenith", "Auth"];

/// Checks what types cannot express; the keys in errors are relative to `zenith`.
pub(super) fn check(zenith: &Zenith, server_message_bytes: u64) -> Result<(), Error> {
    zenith.check_ranges()?;
    let server = server_message_bytes;
    at_most("message_bytes", zenith.message_bytes, "the server's limits.message_bytes", server)?;
    check_secrets(zenith)?;
    check_feeds(&zenith.feeds)?;
    check_topics(&zenith.topics)
}

fn check_secrets(zenith: &Zenith) -> Result<(), Error> {
    let tokens = zenith.tokens.iter().enumerate();
    let tokens = tokens.map(|(index, it)| (format!("tokens[{index}].token"), &it.token));
    let services = zenith.services.iter().enumerate();
    let services = services.map(|(index, it)| (format!("services[{index}].token"), &it.token));
    let mut seen = HashSet::new();
    for (key, secret) in tokens.chain(services) {
        let plain = secret.expose().bytes().all(|byte| byte.is_ascii_graphic());
        if secret.expose().is_empty() || !plain || !seen.insert(secret.expose()) {
            let accepted = "one or more visible ASCII characters without spaces, different from \
                            every other token";
            return Err(Error::keyed(key, Problem::Secret { accepted }));
        }
    }
    for (index, token) in zenith.tokens.iter().enumerate() {
        if token.user.is_empty() {
            let accepted = "a string that is not empty";
            return Err(shape(format!("tokens[{index}].user"), &token.user, accepted));
        }
        if !token.expires.is_empty() && token.expires_unix_s().is_none() {
            let accepted = "an empty string, or a time such as `2030-01-31T12:00:00Z`";
            return Err(shape(format!("tokens[{index}].expires"), &token.expires, accepted));
        }
    }
    Ok(())
}

fn check_feeds(feeds: &[ZenithFeed]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for (index, feed) in feeds.iter().enumerate() {
        if feed.name.is_empty() || !seen.insert(&feed.name) {
            let accepted = "a name that is not empty and that no other feed has";
            return Err(shape(format!("feeds[{index}].name"), &feed.name, accepted));
        }
        if !CLASSES.contains(&feed.class.as_str()) {
            let accepted = "Authority, Channel, Market, News, Scanner, Trading, Watchlist";
            return Err(shape(format!("feeds[{index}].class"), &feed.class, accepted));
        }
        if !FEED_STATES.contains(&feed.status.as_str()) {
            let accepted = "Initialising, Active, Closed, Inactive, Impaired, Expired";
            return Err(shape(format!("feeds[{index}].status"), &feed.status, accepted));
        }
    }
    Ok(())
}

fn check_topics(topics: &[ZenithTopic]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for (index, topic) in topics.iter().enumerate() {
        let name = topic.controller.as_str();
        if name.is_empty() || name.contains('\0') || OWN_CONTROLLERS.contains(&name) {
            let accepted = "a name other than Zenith and Auth";
            return Err(shape(format!("topics[{index}].controller"), name, accepted));
        }
        let kind = topic.kind.as_str();
        if kind.is_empty() || kind.contains('\0') || !seen.insert((name, kind)) {
            let accepted = "`*`, a kind or a topic for which this controller has no other entry";
            return Err(shape(format!("topics[{index}].kind"), kind, accepted));
        }
        for (key, json) in [("data", &topic.data), ("reply", &topic.reply)] {
            let parsed = serde_json::from_str::<serde::de::IgnoredAny>(json);
            let is_null = key == "data" && json.trim() == "null";
            if !json.is_empty() && (parsed.is_err() || is_null) {
                let accepted = "an empty string, or a JSON value, which must not be null for \
                                `data`";
                return Err(shape(format!("topics[{index}].{key}"), json, accepted));
            }
        }
    }
    Ok(())
}

fn active() -> String {
    "Active".to_owned()
}

fn nothing() -> Secret {
    Secret::new("")
}
