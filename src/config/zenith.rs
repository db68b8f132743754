//! The Zenith dialect: its bounds, who may do what, and what is served without a back end.

use std::collections::HashSet;

use serde::Deserialize;

use super::error::{Error, Problem};
use super::schema::{Config, EndpointKind, Route, Secret};
use super::size;

/// The Zenith dialect. Without this section nothing of it is served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Zenith {
    /// `Name` of `Zenith/ServerInfo`.
    pub name: String,
    /// `Version` of `Zenith/ServerInfo`; empty is this program's.
    pub version: String,
    /// Bytes of one message from a client.
    #[serde(deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Bytes of a controller's and a topic's name together.
    pub topic_length: usize,
    /// Subscriptions that one connection may have; each reference to a topic is one.
    pub subscriptions_per_connection: usize,
    /// Calls and subscriptions of one connection that may wait for a back end.
    pub pending_per_connection: usize,
    /// Messages that one client may send in a second; 0 is any number.
    pub messages_per_s: u32,
    /// Wrong tokens, passwords and grants with which a connection is closed; 0 is any number.
    pub wrong_tokens_per_connection: u32,
    /// Those from one address in a minute, after which attempts to sign in from there are refused;
    /// 0 is any number.
    pub wrong_tokens_per_minute: u32,
    /// Seconds that a back end has for an answer, until a client sets another time.
    pub answer_timeout_s: u64,
    /// Seconds of silence after which a client is sent a ping.
    pub ping_s: u64,
    /// Further seconds of silence after which it is closed (1008).
    pub pong_s: u64,
    /// Publishes and other verbs that one request of a back end may have.
    pub batch: usize,
    /// Elements that a picture of mode `log` may have; one more and the oldest is forgotten.
    pub log_elements: usize,
    /// Scopes that are not granted to a connection without TLS.
    pub secure_scopes: Vec<String>,
    /// Who may sign in.
    pub tokens: Vec<ZenithToken>,
    /// Back ends.
    pub services: Vec<ZenithService>,
    /// What `Zenith/Feeds` tells.
    pub feeds: Vec<ZenithFeed>,
    /// Which topics there are; the more exact entry goes before the less exact one.
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

impl Config {
    /// Where Zenith is configured it has a route, and where it has a route it is configured.
    pub(super) fn complete(&mut self) {
        let is_zenith = |route: &Route| route.endpoint == EndpointKind::Zenith;
        match (&self.zenith, self.routes.iter().any(is_zenith)) {
            (None, true) => self.zenith = Some(Box::default()),
            (Some(_), false) if !self.routes.is_empty() => {
                self.routes.insert(0, Route::of(&["/Zenith", "/Zenith/*"], EndpointKind::Zenith));
            }
            _ => {}
        }
    }
}

/// A token by which a user signs in. Several may belong to one user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ZenithToken {
    /// The token.
    pub token: Secret,
    /// `UserID`.
    pub user: String,
    /// `DisplayName`; empty is the user's id.
    #[serde(default)]
    pub display_name: String,
    /// What the user may do, in words that topics ask for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// When it expires, as RFC 3339 has it; empty is never.
    #[serde(default)]
    pub expires: String,
    /// Connections of this user at a time, over all tokens; 0 is any number.
    #[serde(default)]
    pub sessions: usize,
    /// The user's password, for `Auth/AuthOwner`; empty is none.
    #[serde(default = "nothing")]
    pub password: Secret,
    /// The grant for `Auth/AuthCode`; empty is none.
    #[serde(default = "nothing")]
    pub grant: Secret,
}

impl ZenithToken {
    /// When it expires, in seconds since 1970.
    pub fn expires_unix_s(&self) -> Option<u64> {
        let at = bson::DateTime::parse_rfc3339_str(&self.expires).ok()?;
        u64::try_from(at.timestamp_millis() / 1000).ok()
    }
}

/// A back end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ZenithService {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// By which it signs in.
    pub token: Secret,
    /// The controllers that it may serve; empty is all.
    #[serde(default)]
    pub controllers: Vec<String>,
}

/// One feed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ZenithFeed {
    /// `Name`.
    pub name: String,
    /// `Class`.
    pub class: String,
    /// `Status`, as long as no back end says otherwise.
    #[serde(default = "active")]
    pub status: String,
}

/// The topics of one kind: a kind is what stands before the first `!`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ZenithTopic {
    /// The controller.
    pub controller: String,
    /// The kind; or a whole topic, or `*` for all that have no entry.
    pub kind: String,
    /// What a new subscriber is given of what was published before.
    #[serde(default)]
    pub retain: RetainConfig,
    /// Whether null takes a member out of a picture of mode `merge`, or is its value.
    #[serde(default)]
    pub null_deletes: bool,
    /// Whether a subscription is refused as long as nothing was published on the topic.
    #[serde(default)]
    pub strict: bool,
    /// The scope that a subscription or a call needs; empty is none.
    #[serde(default)]
    pub scope: String,
    /// Whether calls and subscriptions are refused as `Unavailable` while no back end serves them.
    #[serde(default)]
    pub served: bool,
    /// JSON that every subscriber is given, and nothing more; empty is none.
    #[serde(default)]
    pub data: String,
    /// JSON that answers a call; empty is none.
    #[serde(default)]
    pub reply: String,
}

/// What is kept of a topic for those who subscribe later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetainConfig {
    /// The last data.
    Replace,
    /// The members of all objects, each with its last value.
    #[default]
    Merge,
    /// The elements of all arrays since the last one that clears.
    Log,
    /// Nothing.
    None,
}

/// The classes of feeds.
const CLASSES: [&str; 7] =
    ["Authority", "Channel", "Market", "News", "Scanner", "Trading", "Watchlist"];
/// The states of feeds.
pub const FEED_STATES: [&str; 6] =
    ["Initialising", "Active", "Closed", "Inactive", "Impaired", "Expired"];
/// Controllers that are the server's own.
pub const OWN_CONTROLLERS: [&str; 2] = ["Zenith", "Auth"];

/// Checks what types cannot say; the keys in errors begin below `zenith`.
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
            let accepted = "visible ASCII characters without blanks, one or more, that no other \
                            token and no other service has";
            return Err(Error::keyed(key, Problem::Secret { accepted }));
        }
    }
    for (index, token) in zenith.tokens.iter().enumerate() {
        if token.user.is_empty() {
            let accepted = "a text that is not empty";
            return Err(shape(format!("tokens[{index}].user"), &token.user, accepted));
        }
        if !token.expires.is_empty() && token.expires_unix_s().is_none() {
            let accepted = "nothing, or a time such as `2030-01-31T12:00:00Z`";
            return Err(shape(format!("tokens[{index}].expires"), &token.expires, accepted));
        }
    }
    Ok(())
}

fn check_feeds(feeds: &[ZenithFeed]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for (index, feed) in feeds.iter().enumerate() {
        if feed.name.is_empty() || !seen.insert(&feed.name) {
            let accepted = "a name that no other feed has";
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
            let accepted = "`*`, a kind or a topic that this controller has no other entry for";
            return Err(shape(format!("topics[{index}].kind"), kind, accepted));
        }
        for (key, json) in [("data", &topic.data), ("reply", &topic.reply)] {
            let parsed = serde_json::from_str::<serde::de::IgnoredAny>(json);
            let is_null = key == "data" && json.trim() == "null";
            if !json.is_empty() && (parsed.is_err() || is_null) {
                let accepted = "nothing, or a JSON value; data is not null";
                return Err(shape(format!("topics[{index}].{key}"), json, accepted));
            }
        }
    }
    Ok(())
}

fn shape(key: String, found: &str, accepted: &'static str) -> Error {
    Error::keyed(key, Problem::Shape { found: found.to_owned(), accepted })
}

fn active() -> String {
    "Active".to_owned()
}

fn nothing() -> Secret {
    Secret::new("")
}
