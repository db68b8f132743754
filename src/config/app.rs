//! The section `apps`: one application.

use serde::Deserialize;

use super::app_limits::{self, AppLimits};
use super::error::{Error, Problem};
use super::limits::Limits;
use super::pattern::Pattern;
use super::profile::Profile;
use super::range::{DAY_S, range};
use super::secret::Secret;
use super::text::{Unique, check_name, check_origin, check_secret};
use super::webhook::{self, Webhook};

/// One application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct AppConfig {
    /// Identifies the application in the HTTP API; unique. ASCII letters, digits, `_`, `.` and `-`.
    pub id: String,
    /// Identifies the application to clients; public and unique. ASCII letters, digits, `_`, `.`
    /// and `-`.
    pub key: String,
    /// The secret that signs HTTP API requests and channel authorizations. Not empty.
    pub secret: Secret,
    /// Further pairs of key and secret that are also accepted, so that a pair can be replaced while
    /// clients are connected.
    #[serde(default)]
    pub keys: Vec<KeyPair>,
    /// A name for display; it has no effect.
    #[serde(default)]
    pub name: String,
    /// The protocol that the application's clients use. Default: `pusher`.
    #[serde(default)]
    pub dialect: AppDialect,
    /// The service whose defaults apply to the keys that the application does not set. Default:
    /// `polycast`.
    #[serde(default)]
    pub profile: Profile,
    /// Whether the application accepts connections and requests. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether connections without TLS are refused. Default: false.
    #[serde(default)]
    pub require_tls: bool,
    /// Origins from which browsers may connect; empty (default) is any.
    #[serde(default)]
    pub allowed_origins: Vec<Pattern>,
    /// Whether a signed request is refused if it is more than 600 seconds old. Default: true.
    #[serde(default = "yes")]
    pub check_timestamp: bool,
    /// The reply to a subscription that the connection already has. Default: error.
    #[serde(default)]
    pub duplicate_subscribe: DuplicateSubscribe,
    /// What happens to a connection that subscribes to a channel with a wrong signature. Default:
    /// refuse.
    #[serde(default)]
    pub bad_signature: BadSignature,
    /// Whether the server sends a `pusher:error` with the same code before every close with a code
    /// of the dialect. Default: false.
    #[serde(default)]
    pub error_before_close: bool,
    /// Whether users whose id is a number may sign in. Default: false.
    #[serde(default)]
    pub numeric_user_ids: bool,
    /// Whether HTTP API reads of channels include counts that the request did not ask for. Default:
    /// false.
    #[serde(default)]
    pub counts_in_reads: bool,
    /// Origins of web pages that may use the HTTP API (CORS); empty (default) is none.
    #[serde(default)]
    pub cors_origins: Vec<Pattern>,
    /// Whether clients may publish `client-` events. Default: false.
    #[serde(default)]
    pub client_events: bool,
    /// Whether subscribers are sent the subscription count of their channel, on all channels except
    /// presence channels. Default: false.
    #[serde(default)]
    pub subscription_count: bool,
    /// Whether users who sign in are notified when users of their watchlist come online or go
    /// offline. Default: false.
    #[serde(default)]
    pub watchlist: bool,
    /// Time in seconds within which a connection must sign in or join a private or presence
    /// channel. 0 to 86400; 0 (default) is no such deadline.
    #[serde(default)]
    pub authorise_within_s: u64,
    /// Activity timeout: silence in seconds after which client and server ping each other. 0 to
    /// 86400; 0 (default) uses the value of the dialect's section.
    #[serde(default)]
    pub activity_timeout_s: u64,
    /// The close code for the connections of a user whom the application terminates. 4000 to 4299,
    /// default 4009.
    #[serde(default = "terminate")]
    pub terminate_close_code: u16,
    /// The webhook endpoints that receive the events of the application's channels.
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
    /// Limits of this application.
    #[serde(default)]
    pub limits: AppLimits,
}

impl AppConfig {
    /// The application's own activity timeout, or that of its dialect's section if it has none, in
    /// seconds.
    pub fn activity_s(&self, of_dialect: u64) -> u64 {
        match self.activity_timeout_s {
            0 => of_dialect,
            own => own,
        }
    }

    /// The application's pairs of key and secret, the primary one first.
    pub fn key_pairs(&self) -> impl Iterator<Item = (&str, &Secret)> {
        let further = self.keys.iter().map(|pair| (pair.key.as_str(), &pair.secret));
        std::iter::once((self.key.as_str(), &self.secret)).chain(further)
    }
}

/// A key and the secret that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct KeyPair {
    /// The public part. ASCII letters, digits, `_`, `.` and `-`.
    pub key: String,
    /// The secret part, which signs.
    pub secret: Secret,
}

/// The protocol that an application's clients use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppDialect {
    /// Pusher Channels, protocol 7.
    #[default]
    Pusher,
    /// Broadcastt.
    Broadcastt,
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
    range("activity_timeout_s", app.activity_timeout_s, 0..=DAY_S, " seconds")?;
    range("authorise_within_s", app.authorise_within_s, 0..=DAY_S, " seconds")?;
    range("terminate_close_code", app.terminate_close_code.into(), 4000..=4299, "")?;
    for (index, hook) in app.webhooks.iter().enumerate() {
        webhook::check(hook).map_err(|error| error.under(&format!("webhooks[{index}]")))?;
    }
    check_dialect(app)?;
    app_limits::check(&app.limits, server)
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
