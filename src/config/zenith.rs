//! The configuration section of the Zenith dialect: limits, tokens, back ends, feeds and topics.

use std::collections::HashSet;

use serde::Deserialize;

use super::error::{Error, Problem};
use super::secret::Secret;
use super::size;
use super::text::shape;

/// The Zenith dialect. It is not served without this section or a route to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Zenith {
    /// `Name` in the reply to `Zenith/ServerInfo`. Default: `polycast`.
    pub name: String,
    /// `Version` in the reply to `Zenith/ServerInfo`; empty (default) is this program's version.
    pub version: String,
    /// Maximum size of one message from a client in bytes. 1 KiB to 1 GiB and at most
    /// `limits.message_bytes`, default 1 MiB.
    #[serde(deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Maximum length of the names of a controller and a topic together, in bytes. 16 to 65536,
    /// default 1024.
    pub topic_length: usize,
    /// Maximum number of subscriptions of one connection; each `Sub` of the same topic counts. 1 to
    /// 1048576, default 10000.
    pub subscriptions_per_connection: usize,
    /// Maximum number of calls and subscriptions of one connection that wait for a back end. 1 to
    /// 1048576, default 1000.
    pub pending_per_connection: usize,
    /// Maximum number of messages of one client per second. 0 to 1000000; 0 (default) is unlimited.
    pub messages_per_s: u32,
    /// Number of wrong tokens, passwords and grants with which a connection is closed. 0 to
    /// 1000000, default 5; 0 is unlimited.
    pub wrong_tokens_per_connection: u32,
    /// Number of wrong tokens, passwords and grants from one address in a minute after which
    /// sign-ins from that address are refused until the minute ends. 0 to 1000000, default 10; 0 is
    /// unlimited.
    pub wrong_tokens_per_minute: u32,
    /// Time in seconds in which a back end must answer, unless the client sets another. 1 to 3600,
    /// default 35.
    pub answer_timeout_s: u64,
    /// Silence in seconds after which the server sends a ping to a client. 1 to 3600, default 30.
    pub ping_s: u64,
    /// Further silence in seconds after which the client is closed (1008). 1 to 3600, default 30.
    pub pong_s: u64,
    /// Maximum number of publishes and other commands in one request of a back end. 1 to 10000,
    /// default 1000.
    pub batch: usize,
    /// Maximum number of elements of a picture of mode `log`; beyond it the oldest is removed. 1 to
    /// 1048576, default 10000.
    pub log_elements: usize,
    /// Scopes that are not granted to a connection without TLS.
    pub secure_scopes: Vec<String>,
    /// The tokens by which users sign in.
    pub tokens: Vec<ZenithToken>,
    /// The back ends.
    pub services: Vec<ZenithService>,
    /// The feeds in the reply to `Zenith/Feeds`.
    pub feeds: Vec<ZenithFeed>,
    /// The topics. For a topic with several matching entries the most specific one applies.
    pub topics: Vec<ZenithTopic>,
}

impl Default for Zenith {
    fn default() -> Zenith {
        Zenith {
            name: "polycast".to_owned(),
            version: String::new(),
            message_bytes: 1 << 20,
            topic_length: 1024,
            subscriptions_per_connection: 10_000,
            pending_per_connection: 1000,
            messages_per_s: 0,
            wrong_tokens_per_connection: 5,
            wrong_tokens_per_minute: 10,
            answer_timeout_s: 35,
            ping_s: 30,
            pong_s: 30,
            batch: 1000,
            log_elements: 10_000,
            secure_scopes: Vec::new(),
            tokens: Vec::new(),
            services: Vec::new(),
            feeds: Vec::new(),
            topics: Vec::new(),
        }
    }
}

/// A token by which a user signs in. A user may have several tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ZenithToken {
    /// The token: visible ASCII characters, unique.
    pub token: Secret,
    /// `UserID` of the user. Not empty.
    pub user: String,
    /// `DisplayName` of the user; empty (default) is the user id.
    #[serde(default)]
    pub display_name: String,
    /// The scopes that the user has, which topics require.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// When the token expires, in RFC 3339 format; empty (default) is never.
    #[serde(default)]
    pub expires: String,
    /// Maximum number of simultaneous connections of this user, over all tokens; beyond it the
    /// oldest is closed. 0 (default) is unlimited.
    #[serde(default)]
    pub sessions: usize,
    /// The user's password for `Auth/AuthOwner`; empty (default) is none.
    #[serde(default = "nothing")]
    pub password: Secret,
    /// The grant for `Auth/AuthCode`; empty (default) is none.
    #[serde(default = "nothing")]
    pub grant: Secret,
}

impl ZenithToken {
    /// The expiry as a Unix timestamp in seconds; `None` if the token does not expire.
    pub fn expires_unix_s(&self) -> Option<u64> {
        let at = bson::DateTime::parse_rfc3339_str(&self.expires).ok()?;
        u64::try_from(at.timestamp_millis() / 1000).ok()
    }
}

/// A back end, which answers calls and publishes topics.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ZenithService {
    /// A name for display; it has no effect.
    #[serde(default)]
    pub name: String,
    /// The token by which the back end signs in; visible ASCII characters, unique.
    pub token: Secret,
    /// The controllers that the back end may serve; empty (default) is all.
    #[serde(default)]
    pub controllers: Vec<String>,
}

/// One feed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ZenithFeed {
    /// `Name` of the feed; unique.
    pub name: String,
    /// `Class` of the feed: `Authority`, `Channel`, `Market`, `News`, `Scanner`, `Trading` or
    /// `Watchlist`.
    pub class: String,
    /// `Status` of the feed until a back end sets another; one of [`FEED_STATES`]. Default:
    /// `Active`.
    #[serde(default = "active")]
    pub status: String,
}

/// The topics of one kind. The kind of a topic is the part of its name before the first `!`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ZenithTopic {
    /// The controller; not `Zenith` or `Auth`.
    pub controller: String,
    /// The kind; or a whole topic name, or `*` for all topics without another entry.
    pub kind: String,
    /// What is kept of earlier publishes and sent to a new subscriber. Default: merge.
    #[serde(default)]
    pub retain: RetainConfig,
    /// Whether a null value deletes the member from a picture of mode `merge`; otherwise null is
    /// its value. Default: false.
    #[serde(default)]
    pub null_deletes: bool,
    /// Whether a subscription is refused until something has been published on the topic. Default:
    /// false.
    #[serde(default)]
    pub strict: bool,
    /// The scope that a subscription or a call needs; empty (default) is none.
    #[serde(default)]
    pub scope: String,
    /// Whether calls and subscriptions are refused as `Unavailable` while no back end serves them.
    /// Default: false.
    #[serde(default)]
    pub served: bool,
    /// Fixed JSON data that every subscriber is sent, and no other data; empty (default) is none.
    #[serde(default)]
    pub data: String,
    /// Fixed JSON that answers a call; empty (default) is none.
    #[serde(default)]
    pub reply: String,
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
    for (key, found, min, max, unit) in [
        ("message_bytes", zenith.message_bytes, 1024, 1 << 30, " bytes"),
        ("topic_length", zenith.topic_length as u64, 16, 65_536, " bytes"),
        (
            "subscriptions_per_connection",
            zenith.subscriptions_per_connection as u64,
            1,
            1 << 20,
            "",
        ),
        ("pending_per_connection", zenith.pending_per_connection as u64, 1, 1 << 20, ""),
        ("messages_per_s", zenith.messages_per_s.into(), 0, 1_000_000, ""),
        (
            "wrong_tokens_per_connection",
            zenith.wrong_tokens_per_connection.into(),
            0,
            1_000_000,
            "",
        ),
        ("wrong_tokens_per_minute", zenith.wrong_tokens_per_minute.into(), 0, 1_000_000, ""),
        ("answer_timeout_s", zenith.answer_timeout_s, 1, 3600, " seconds"),
        ("ping_s", zenith.ping_s, 1, 3600, " seconds"),
        ("pong_s", zenith.pong_s, 1, 3600, " seconds"),
        ("batch", zenith.batch as u64, 1, 10_000, ""),
        ("log_elements", zenith.log_elements as u64, 1, 1 << 20, ""),
    ] {
        if !(min..=max).contains(&found) {
            return Err(Error::keyed(key, Problem::Range { found, min, max, unit }));
        }
    }
    if zenith.message_bytes > server_message_bytes {
        let bound = "the server's limits.message_bytes";
        let (found, max) = (zenith.message_bytes, server_message_bytes);
        return Err(Error::keyed("message_bytes", Problem::Relation { found, bound, max }));
    }
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
