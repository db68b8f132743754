//! The configured tokens, users, topics and back ends, prepared for look-up, and the state that all
//! connections of the process share.

use super::registry::State;
use super::rule::{Backend, Rule};
use super::wire;
use crate::claims::Claims;
use crate::codec::value::Value;
use crate::config::{self, Secret};
use crate::crypto::{constant_time_eq, decode_base64, sha256};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Zenith's part of [`crate::dialect::Env`]. Empty if Zenith is not configured.
#[derive(Debug, Default)]
pub struct Directory {
    pub(super) config: config::Zenith,
    principals: Vec<Arc<Principal>>,
    services: Vec<Arc<ServiceEntry>>,
    /// Users and back ends, by the SHA-256 digest of their token.
    by_token: HashMap<[u8; 32], TokenOwner>,
    rules: HashMap<String, Arc<Rule>>,
    controllers: HashSet<Box<str>>,
    pub(super) state: Arc<State>,
}

/// The user or the back end that a token belongs to.
#[derive(Clone, Debug)]
pub(super) enum TokenOwner {
    Principal(Arc<Principal>),
    Service(Arc<ServiceEntry>),
}

/// A user with the rights that one token grants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Principal {
    pub(super) user: Box<str>,
    pub(super) display_name: Box<str>,
    pub(super) scopes: Vec<Box<str>>,
    /// The expiry of the token, as it is configured or as the guard's claims have it, in RFC 3339;
    /// empty if none.
    pub(super) expires: Box<str>,
    /// The expiry of the token, in seconds since 1970.
    pub(super) expires_unix_s: Option<u64>,
    /// The maximum number of connections at a time; 0 is no maximum.
    pub(super) sessions: usize,
    /// The guard whose token or certificate names this user; `None` if the configuration does.
    pub(super) guard: Option<Box<str>>,
    token: [u8; 32],
    password: Option<[u8; 32]>,
    grant: Option<[u8; 32]>,
}

/// A configured back end.
#[derive(Debug)]
pub(super) struct ServiceEntry {
    pub(super) name: Box<str>,
    controllers: Vec<Box<str>>,
}

impl ServiceEntry {
    /// Whether the back end may serve a controller.
    pub(super) fn may_serve(&self, controller: &str) -> bool {
        self.controllers.is_empty() || self.controllers.iter().any(|it| **it == *controller)
    }
}

/// The result of looking up a topic.
#[derive(Clone, Debug)]
pub(super) struct TopicLookup {
    /// `None` if no such topic is configured or registered.
    pub(super) rule: Option<Arc<Rule>>,
    pub(super) backend: Backend,
}

impl Directory {
    /// Creates the directory of a configuration.
    pub fn new(config: Option<&config::Zenith>, state: Arc<State>) -> Directory {
        let Some(config) = config else { return Directory { state, ..Directory::default() } };
        let mut directory = Directory { config: config.clone(), state, ..Directory::default() };
        for token in &config.tokens {
            let principal = Arc::new(Principal::new(token));
            directory.by_token.insert(principal.token, TokenOwner::Principal(principal.clone()));
            directory.principals.push(principal);
        }
        for service in &config.services {
            let controllers = service.controllers.iter().map(|it| it.as_str().into()).collect();
            let entry = Arc::new(ServiceEntry { name: service.name.as_str().into(), controllers });
            let token = digest(service.token.expose());
            directory.by_token.insert(token, TokenOwner::Service(entry.clone()));
            directory.services.push(entry);
        }
        for topic in &config.topics {
            directory.controllers.insert(topic.controller.as_str().into());
            let name = wire::channel(&topic.controller, &topic.kind);
            directory.rules.insert(name, Arc::new(Rule::new(topic)));
        }
        directory
    }

    /// Creates the directory of a reloaded configuration, with the same shared state.
    pub fn reloaded(&self, config: Option<&config::Zenith>) -> Directory {
        Directory::new(config, self.state.clone())
    }

    /// The owner of a token, which is plain or in base64.
    pub(super) fn token(&self, token: &str) -> Option<TokenOwner> {
        self.by_token.get(&digest(token)).cloned().or_else(|| {
            let mut plain = [0; 1024];
            let plain = decode_base64(token.as_bytes(), &mut plain).map(|len| &plain[..len])?;
            self.by_token.get(&sha256(&[plain])).cloned()
        })
    }

    /// The user with this user name and password.
    pub(super) fn owner(&self, user: &str, password: &str) -> Option<Arc<Principal>> {
        let given = digest(password);
        let is_owner = |it: &&Arc<Principal>| *it.user == *user && same(&it.password, &given);
        self.principals.iter().find(is_owner).cloned()
    }

    /// The user with this authorisation grant.
    pub(super) fn grantee(&self, grant: &str) -> Option<Arc<Principal>> {
        let given = digest(grant);
        self.principals.iter().find(|it| same(&it.grant, &given)).cloned()
    }

    /// Whether a user is still configured, with the same token and rights.
    pub(super) fn has(&self, principal: &Principal) -> bool {
        self.principals.iter().any(|it| **it == *principal)
    }

    /// Whether a controller is known: it is one of the server's own, is configured, or was
    /// registered by a back end.
    pub(super) fn knows(&self, controller: &str) -> bool {
        config::OWN_CONTROLLERS.contains(&controller)
            || self.controllers.contains(controller)
            || self.state.serves(controller)
    }

    /// Looks up the rule of a topic and the back end that serves it. A configured rule has
    /// precedence over a registered one.
    pub(super) fn look(&self, controller: &str, topic: &str) -> TopicLookup {
        let kind = wire::kind(topic);
        let (registered, backend) = self.state.served(controller, kind);
        let configured = [topic, kind, "*"]
            .iter()
            .find_map(|name| self.rules.get(&wire::channel(controller, name)).cloned());
        TopicLookup { rule: configured.or(registered), backend }
    }

    /// The feeds and their states, as the data of `Zenith/Feeds`.
    pub(super) fn feeds(&self) -> Value {
        let mut feeds = Vec::new();
        self.state.with_feeds(|states| {
            for feed in &self.config.feeds {
                let status = states.get(feed.name.as_str()).map_or(&*feed.status, |it| &**it);
                feeds.push(Value::map([
                    ("Name", Value::text(&feed.name)),
                    ("Class", Value::text(&feed.class)),
                    ("Status", Value::text(status)),
                ]));
            }
        });
        Value::Array(feeds)
    }

    /// Whether a feed is configured.
    pub(super) fn has_feed(&self, name: &str) -> bool {
        self.config.feeds.iter().any(|feed| feed.name == name)
    }

    /// `Version` of `Zenith/ServerInfo`: Major.Minor.Revision.Build.
    pub(super) fn server_version(&self) -> &str {
        match self.config.version.as_str() {
            "" => concat!(env!("CARGO_PKG_VERSION"), ".0"),
            version => version,
        }
    }
}

impl Principal {
    fn new(token: &config::ZenithToken) -> Principal {
        let secret = |secret: &Secret| match secret.expose() {
            "" => None,
            text => Some(digest(text)),
        };
        let name = match token.display_name.as_str() {
            "" => &token.user,
            _ => &token.display_name,
        };
        Principal {
            user: token.user.as_str().into(),
            display_name: name.as_str().into(),
            scopes: token.scopes.iter().map(|scope| scope.as_str().into()).collect(),
            expires: token.expires.as_str().into(),
            expires_unix_s: token.expires_unix_s(),
            sessions: token.sessions,
            guard: None,
            token: digest(token.token.expose()),
            password: secret(&token.password),
            grant: secret(&token.grant),
        }
    }
}

impl Principal {
    /// The user that a guard's claims name, with its roles as scopes; `None` if they name no
    /// identity.
    pub(super) fn of_claims(guard: &str, claims: &Claims) -> Option<Arc<Principal>> {
        let identity: Box<str> = claims.identity.as_deref()?.into();
        let end = claims.expires_s.and_then(|at| i64::try_from(at).ok()?.checked_mul(1000));
        let end = end.map(bson::DateTime::from_millis);
        let end = end.and_then(|at| at.try_to_rfc3339_string().ok());
        Some(Arc::new(Principal {
            user: identity.clone(),
            display_name: identity,
            scopes: claims.roles.iter().map(|role| role.as_str().into()).collect(),
            expires: end.unwrap_or_default().into(),
            expires_unix_s: claims.expires_s,
            sessions: 0,
            guard: Some(guard.into()),
            token: [0; 32],
            password: None,
            grant: None,
        }))
    }
}

/// The SHA-256 digest of a secret. Secrets are compared by their digests, so that the time of a
/// comparison does not reveal even their length.
fn digest(text: &str) -> [u8; 32] {
    sha256(&[text.as_bytes()])
}

fn same(secret: &Option<[u8; 32]>, given: &[u8; 32]) -> bool {
    secret.as_ref().is_some_and(|secret| constant_time_eq(secret, given))
}
