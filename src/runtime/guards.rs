//! The guards of routes, and the use of one by a dialect whose clients sign in by messages.

use super::Runtime;
use crate::claims::Claims;
use crate::config::{Config, GuardConfig, GuardKind};
use crate::jwt::{Guard, Remotes, Unverified};
use std::sync::Arc;

/// The guards of the configuration `new`, which replaces `old`; `live` are the guards of `old`. If
/// a guard has changed, all are made again; each takes over the token holders of the old guard with
/// the same name, so that their leases continue.
pub(super) fn next(
    live: &Arc<[Guard]>,
    old: &Config,
    new: &Config,
    remotes: &Remotes,
) -> Arc<[Guard]> {
    if old.guards == new.guards {
        return live.clone();
    }
    let next: Arc<[Guard]> = new.guards.iter().map(|config| guard(config, live, remotes)).collect();
    remotes.replace(next.iter().filter_map(|guard| guard.remote.clone()).collect());
    next
}

fn guard(config: &GuardConfig, old: &[Guard], remotes: &Remotes) -> Guard {
    let url = config.url();
    let (refresh_ms, floor_ms) = (config.keys_refresh_s * 1000, config.keys_floor_s * 1000);
    let remote = || remotes.at(&url, config.allow_private, &config.ca_file, refresh_ms, floor_ms);
    let remote = (!url.is_empty()).then(remote);
    let mut new = Guard::new(config.name.clone(), config.policy(), config.keys(), remote);
    new.challenge_s = config.challenge_s;
    let namesake = old.iter().find(|it| it.name == config.name);
    new.holders = namesake.map(|it| it.holders.clone()).unwrap_or_default();
    new
}

/// A guard that admits clients by tokens.
#[derive(Clone, Copy)]
pub struct TokenGuard<'r>(&'r Guard);

/// Why a guard does not accept a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// The token has a flaw.
    Flawed,
    /// The token's key is not known, and no keys have been fetched so far.
    NoKeys,
}

impl Runtime {
    /// Whether there is a guard of this name.
    pub fn has_guard(&self, name: &str) -> bool {
        self.guards.iter().any(|guard| guard.name == name)
    }

    /// The guard of this name, if it admits clients by tokens; `config` is the configuration of
    /// these objects.
    pub fn token_guard(&self, name: &str, config: &Config) -> Option<TokenGuard<'_>> {
        let mut guards = self.guards.iter().zip(&config.guards);
        let by_token = |config: &GuardConfig| config.kind == GuardKind::Jwt;
        let found = guards.find(|(guard, config)| guard.name == name && by_token(config));
        found.map(|(guard, _)| TokenGuard(guard))
    }
}

impl TokenGuard<'_> {
    /// The work of [`TokenGuard::check`] for this token, in the units of [`crate::work`].
    pub fn price(&self, token: &str) -> u64 {
        self.0.price(token)
    }

    /// Verifies a token at `now_s` seconds since 1970.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub fn check(&self, token: &str, now_s: u64) -> Result<Claims, TokenRefusal> {
        self.0.check(token, now_s).map_err(|unverified| match unverified {
            Unverified::Flaw(_) => TokenRefusal::Flawed,
            Unverified::NoKeys => TokenRefusal::NoKeys,
        })
    }

    /// Renews the leases of the connections with the identity of these claims. Returns whether
    /// there are any.
    pub fn renew(&self, claims: &Claims) -> bool {
        self.0.holders.renew(claims)
    }
}
