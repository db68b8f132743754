//! The section `apps`: one application.

use serde::Deserialize;

use super::app_history::{self, AppHistory};
use super::app_limits::{self, AppLimits};
use super::limits::Limits;
use super::profile::Profile;
use super::text::{Unique, check_name, check_origin, check_secret};
use super::webhook::{self, Webhook};
use crate::settings::error::{Error, Problem};
use crate::settings::pattern::Pattern;
use crate::settings::range::DAY_S;
use crate::settings::secret::Secret;
use crate::settings::section::{Section, section, words};

words!(AppDialect, DuplicateSubscribe, BadSignature, Profile);

section! {
    required
    /// Applications; at least one. id, key and secret are required.
    pub struct AppConfig {
        /// Identifies the application in the HTTP API; unique. A-Z, a-z, 0-9, `_`, `.` and `-`.
        pub id: String;
        /// Identifies the application to clients; public, unique. A-Z, a-z, 0-9, `_`, `.` and `-`.
        pub key: String;
        /// The secret that signs HTTP API requests and private channel subscriptions. Not empty.
        /// Better not stored in this file: "${APP_SECRET}".
        pub secret: Secret;
        /// Further pairs of key and secret that are also accepted, so that a pair can be replaced
        /// while clients are connected.
        #[serde(default)]
        pub keys: Vec<KeyPair>;
        /// A name for display.
        #[serde(default)]
        pub name: String;
        /// The protocol of its clients: "pusher" or "broadcastt". Broadcastt has no cache channels,
        /// no sign-in, no duplicate_subscribe (it is "ack"), no subscription_count and no webhooks;
        /// the last two are refused. A change takes effect with a restart.
        #[serde(default)]
        pub dialect: AppDialect;
        /// The service whose defaults apply to the keys that this application does not set, here
        /// and in its limits:
        /// - "polycast": the defaults in this file
        /// - "pusher": channel_name_length = 164
        /// - "vask": terminate_close_code = 4200, bad_signature = "close"
        /// - "soketi": activity_timeout_s = 30, duplicate_subscribe = "ack", error_before_close =
        ///   true, numeric_user_ids = true, counts_in_reads = true, cors_origins = ["*"],
        ///   event_bytes = 102400, message_bytes = 262144, presence_member_bytes = 2048,
        ///   user_id_length = 1024, client_events_per_s = 0, cache_ttl_s = 3600
        #[serde(default)]
        pub profile: Profile;
        /// Whether the application accepts connections and requests.
        #[serde(default = "yes")]
        pub enabled: bool;
        /// Whether connections without TLS are refused.
        #[serde(default)]
        pub require_tls: bool;
        /// Origins from which browsers may connect, such as `https://example.com` or
        /// `https://*.example.com`. Empty is any.
        #[serde(default)]
        pub allowed_origins: Vec<Pattern>;
        /// Whether a signed request is refused if it is more than 600 seconds old.
        #[serde(default = "yes")]
        pub check_timestamp: bool;
        /// The reply to a subscription that the connection already has: "error" or "ack".
        #[serde(default)]
        pub duplicate_subscribe: DuplicateSubscribe;
        /// What happens to a connection that subscribes to a channel with a wrong signature:
        /// "refuse" sends pusher:subscription_error and keeps the connection open; "close" sends
        /// the same and closes the connection with 4009.
        #[serde(default)]
        pub bad_signature: BadSignature;
        /// Whether the server sends a pusher:error with the same code before every close with a
        /// code of 4000 to 4299. Otherwise only connections that are refused at the start, or for a
        /// wrong signature, get it.
        #[serde(default)]
        pub error_before_close: bool;
        /// Whether a user may sign in whose id in user_data is a number; its digits are used as the
        /// id.
        #[serde(default)]
        pub numeric_user_ids: bool;
        /// Whether the responses to GET /channels and /channels/NAME include the counts and
        /// `occupied` of channels even if the request has no `info` parameter for them.
        #[serde(default)]
        pub counts_in_reads: bool;
        /// Origins of web pages that may use the HTTP API from a browser (CORS), such as
        /// `https://admin.example.com`; `*` matches any run of characters, and "*" alone any page.
        /// Preflight requests (OPTIONS) from these origins are answered. Requests must still be
        /// signed. Empty is none.
        #[serde(default)]
        pub cors_origins: Vec<Pattern>;
        /// Whether clients may publish client- events to each other on private and presence
        /// channels.
        #[serde(default)]
        pub client_events: bool;
        /// Whether subscribers are sent the subscription count of their channel, on all channels
        /// except presence channels: after each change up to a count of 100, at most every 5
        /// seconds above.
        #[serde(default)]
        pub subscription_count: bool;
        /// Whether a user who signs in with a `watchlist` is notified which of those users are
        /// online, and later when one of them comes online or goes offline.
        #[serde(default)]
        pub watchlist: bool;
        /// Time within which a connection must sign in or join a private or presence channel;
        /// otherwise it is closed with 4009. 0 is no such deadline.
        #[serde(default)]
        pub authorise_within_s: u64, seconds(0..=DAY_S);
        /// Activity timeout: silence after which client and server ping each other, in place of
        /// that in `[pusher]` or `[broadcastt]`. 0 uses the value of that section.
        #[serde(default)]
        pub activity_timeout_s: u64, seconds(0..=DAY_S);
        /// The close code for the connections of a user whom the application terminates: 4009 (do
        /// not reconnect) or another one.
        #[serde(default = "terminate")]
        pub terminate_close_code: u16, count(4000..=4299);
        /// Webhooks: HTTP endpoints that receive the events of the application's channels.
        #[serde(default)]
        pub webhooks: Vec<Webhook>;
        /// Channels whose last events are kept for clients that were away for a moment.
        #[serde(default)]
        pub history: Vec<AppHistory>;
        /// Limits of this application.
        #[serde(default)]
        pub limits: AppLimits;
    }
}

impl AppConfig {
    /// An application with this id and pair of key and secret, and every other key at its default.
    pub(super) fn new(id: &str, key: &str, secret: &str) -> AppConfig {
        AppConfig {
            id: id.to_owned(),
            key: key.to_owned(),
            secret: Secret::new(secret),
            keys: Vec::new(),
            name: String::new(),
            dialect: AppDialect::default(),
            profile: Profile::default(),
            enabled: true,
            require_tls: false,
            allowed_origins: Vec::new(),
            check_timestamp: true,
            duplicate_subscribe: DuplicateSubscribe::default(),
            bad_signature: BadSignature::default(),
            error_before_close: false,
            numeric_user_ids: false,
            counts_in_reads: false,
            cors_origins: Vec::new(),
            client_events: false,
            subscription_count: false,
            watchlist: false,
            authorise_within_s: 0,
            terminate_close_code: terminate(),
            activity_timeout_s: 0,
            webhooks: Vec::new(),
            history: Vec::new(),
            limits: AppLimits::default(),
        }
    }

    /// The application's own activity timeout, or that of its dialect's section if it has none, in
    /// seconds.
    pub fn activity_s(&self, of_dialect: u64) -> u64 {
        match self.activity_timeout_s {
            0 => of_dialect,
            own => own,
        }
    }

    /// The history of this channel, if it has one.
    pub fn history_of(&self, channel: &str) -> Option<&AppHistory> {
        self.history.iter().find(|history| history.covers(channel))
    }

    /// The application's pairs of key and secret, the primary one first.
    pub fn key_pairs(&self) -> impl Iterator<Item = (&str, &Secret)> {
        let further = self.keys.iter().map(|pair| (pair.key.as_str(), &pair.secret));
        std::iter::once((self.key.as_str(), &self.secret)).chain(further)
    }
}

section! {
    required
    /// A key and the secret that belongs to it.
    pub struct KeyPair {
        /// The public part. ASCII letters, digits, `_`, `.` and `-`.
        pub key: String;
        /// The secret part, which signs.
        pub secret: Secret;
    }
}

/// Defines [`AppDialect`] by the table of dialects.
macro_rules! app_dialects {
    (
        applications { $(
            $(#[$cfg:meta])* $Name:ident in $folder:ident {
                name: $name:tt, about: $about:tt, $($rest:tt)*
            }
        )* }
        routes { $($routes:tt)* }
    ) => {
        /// The protocol that an application's clients use.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
        pub enum AppDialect {
            $(
                #[doc = $about]
                #[serde(rename = $name)]
                $(#[$cfg])*
                $Name,
            )*
        }

        impl AppDialect {
            /// All of them; the first is the default.
            pub const ALL: &[AppDialect] = &[$($(#[$cfg])* AppDialect::$Name),*];

            /// Its name in the configuration.
            pub fn name(self) -> &'static str {
                match self {
                    $($(#[$cfg])* AppDialect::$Name => $name,)*
                }
            }
        }
    };
}
dialects!(app_dialects);

impl Default for AppDialect {
    fn default() -> AppDialect {
        AppDialect::ALL[0]
    }
}

/// The reply to a subscription that the connection already has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DuplicateSubscribe {
    /// An error; the subscription stays.
    #[default]
    Error,
    /// The same acknowledgement as for the first subscription.
    Ack,
}

/// What happens to a connection that subscribes to a channel with a wrong signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadSignature {
    /// The subscription is refused, and the connection stays open.
    #[default]
    Refuse,
    /// The subscription is refused, and the connection is closed with 4009.
    Close,
}

/// Checks one application; the keys in errors are relative to it, and `server` has the limits of
/// the whole server.
pub(super) fn check(app: &AppConfig, server: &Limits) -> Result<(), Error> {
    check_name("id", &app.id)?;
    check_name("key", &app.key)?;
    check_secret("secret", &app.secret)?;
    for (index, pair) in app.keys.iter().enumerate() {
        check_name(&format!("keys[{index}].key"), &pair.key)?;
        check_secret(&format!("keys[{index}].secret"), &pair.secret)?;
    }
    for (index, origin) in app.allowed_origins.iter().enumerate() {
        check_origin(&format!("allowed_origins[{index}]"), origin.as_str())?;
    }
    for (index, origin) in app.cors_origins.iter().enumerate() {
        check_origin(&format!("cors_origins[{index}]"), origin.as_str())?;
    }
    app.check_ranges()?;
    for (index, hook) in app.webhooks.iter().enumerate() {
        webhook::check(hook).map_err(|error| error.under(&format!("webhooks[{index}]")))?;
    }
    for (index, history) in app.history.iter().enumerate() {
        let key = format!("history[{index}]");
        app_history::check(history).map_err(|error| error.under(&key))?;
    }
    check_dialect(app)?;
    app_limits::check(&app.limits, server).map_err(|error| error.under("limits"))
}

/// Refuses settings of an application for features that the Broadcastt protocol does not have.
fn check_dialect(app: &AppConfig) -> Result<(), Error> {
    if app.dialect != AppDialect::Broadcastt {
        return Ok(());
    }
    let lacks = [
        ("webhooks", "[...]", !app.webhooks.is_empty()),
        ("subscription_count", "true", app.subscription_count),
    ];
    match lacks.into_iter().find(|(.., given)| *given) {
        Some((key, found, _)) => {
            let accepted = "only the default, because the dialect `broadcastt` does not support \
                            this key";
            Err(Error::keyed(key, Problem::Shape { found: found.to_owned(), accepted }))
        }
        None => Ok(()),
    }
}

/// Checks that ids and keys are unique. Both occur at the same place of request paths, so an id
/// must also differ from the keys of other applications.
pub(super) fn check_names(apps: &[AppConfig]) -> Result<(), Error> {
    let mut ids = Unique::default();
    let mut keys = Unique::default();
    for (index, app) in apps.iter().enumerate() {
        ids.add(&app.id, format!("apps[{index}].id"))?;
        for (place, (key, _)) in app.key_pairs().enumerate() {
            let path = match place {
                0 => format!("apps[{index}].key"),
                further => format!("apps[{index}].keys[{}].key", further - 1),
            };
            keys.add(key, path)?;
        }
    }
    for (index, app) in apps.iter().enumerate() {
        let own = format!("apps[{index}].");
        if let Some(other) = keys.place(&app.id).filter(|other| !other.starts_with(&own)) {
            let problem = Problem::Duplicate { value: app.id.clone(), other: other.clone() };
            return Err(Error::keyed(format!("{own}id"), problem));
        }
    }
    Ok(())
}

fn terminate() -> u16 {
    4009
}

fn yes() -> bool {
    true
}
