//! A guard at run time: its policy, its current keys, and the connections that hold its tokens.

use super::refused::Refused;
use super::{Flaw, KeySet, TokenHolders, TokenPolicy, verify};
use crate::claims::Claims;
use crate::mem::{RefreshList, RefreshRequest};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A guard, which accepts requests by their tokens.
#[derive(Debug)]
pub struct Guard {
    /// The guard's name in the configuration.
    pub name: String,
    /// What a token must have to be accepted.
    pub policy: TokenPolicy,
    /// The connections that hold tokens of this guard.
    pub holders: Arc<TokenHolders>,
    /// How many seconds before its expiry the client is asked to renew a token; 0 is never.
    pub challenge_s: u64,
    /// The keys of the configuration.
    pub keys: KeySet,
    /// The source of fetched keys, which are used in place of `keys` once there are any.
    pub remote: Option<Arc<RemoteKeys>>,
    /// Tokens that were refused lately, and need not be verified again.
    refused: Refused,
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// The token has this flaw.
    Flaw(Flaw),
    /// The token's key is not known, and no keys have been fetched so far.
    NoKeys,
}

impl Guard {
    /// A guard that verifies tokens with `keys`, or with those of `remote` once they are fetched.
    pub fn new(
        name: String,
        policy: TokenPolicy,
        keys: KeySet,
        remote: Option<Arc<RemoteKeys>>,
    ) -> Guard {
        let (holders, refused) = (Arc::default(), Refused::default());
        Guard { name, policy, holders, challenge_s: 0, keys, remote, refused }
    }

    /// Verifies a token at `now_s` seconds since 1970. If its key is not known, a fetch of the
    /// remote keys is requested. A token that was refused within the last minute is refused again
    /// without being verified.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub fn check(&self, token: &str, now_s: u64) -> Result<Claims, Unverified> {
        if token.len() > self.policy.token_bytes {
            return Err(Unverified::Flaw(Flaw::TooLong));
        }
        let fetched = self.remote.as_ref().and_then(|remote| remote.generation());
        let (generation, keys) = match &fetched {
            Some((generation, keys)) => (*generation, &**keys),
            None => (0, &self.keys),
        };
        let mark = self.refused.mark(token);
        if let Some(flaw) = self.refused.find(mark, generation, now_s) {
            return Err(Unverified::Flaw(flaw));
        }
        let flaw = match verify(token, &self.policy, keys, now_s) {
            Ok(claims) => return Ok(claims),
            Err(flaw) => flaw,
        };
        self.refused.put(mark, generation, now_s, flaw);
        match &self.remote {
            Some(remote) if flaw == Flaw::Key => {
                remote.refresh.want();
                Err(if fetched.is_some() { Unverified::Flaw(flaw) } else { Unverified::NoKeys })
            }
            _ => Err(Unverified::Flaw(flaw)),
        }
    }
}

/// A key set that is fetched from a URL again and again. A fetched set is kept until the next fetch
/// succeeds.
pub struct RemoteKeys {
    /// The URL of the JWK set.
    pub url: String,
    /// Whether the URL may lead to a private address.
    pub allow_private: bool,
    /// A PEM file of the certificate authorities for the URL's server; empty is the system's.
    pub ca_file: String,
    /// The time between two fetches, in milliseconds.
    pub refresh_ms: u64,
    /// The minimum time between two fetches, in milliseconds.
    pub floor_ms: u64,
    keys: Mutex<Option<(u32, Arc<KeySet>)>>,
    /// The request to fetch the keys soon.
    pub refresh: RefreshRequest,
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys").field("refresh_ms", &self.refresh_ms).finish_non_exhaustive()
    }
}

impl RemoteKeys {
    fn lock(&self) -> MutexGuard<'_, Option<(u32, Arc<KeySet>)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last fetched keys, if any.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.generation().map(|(_, keys)| keys)
    }

    /// The last fetched keys, with their generation: a number that no other fetched keys of this
    /// process have.
    fn generation(&self) -> Option<(u32, Arc<KeySet>)> {
        self.lock().clone()
    }

    /// Replaces the keys by freshly fetched ones.
    pub fn put(&self, keys: KeySet) {
        *self.lock() = Some((next_generation(), Arc::new(keys)));
    }
}

/// The next generation of fetched keys, from 1 on; 0 is for keys of the configuration. It wraps
/// after 2^32 fetches, long after the refusals by the old keys have expired.
fn next_generation() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).max(1)
}

/// All key sets that are to be fetched.
pub type Remotes = RefreshList<RemoteKeys>;

impl Remotes {
    /// Makes the source of the keys at `url`. Keys that were fetched from the same URL before are
    /// kept.
    pub fn at(
        &self,
        url: &str,
        allow_private: bool,
        ca_file: &str,
        refresh_ms: u64,
        floor_ms: u64,
    ) -> Arc<RemoteKeys> {
        let known = self.find(|it| it.url == url).and_then(|it| it.generation());
        Arc::new(RemoteKeys {
            url: url.to_owned(),
            allow_private,
            ca_file: ca_file.to_owned(),
            refresh_ms,
            floor_ms,
            keys: Mutex::new(known),
            refresh: RefreshRequest::new(self.notifier()),
        })
    }
}
