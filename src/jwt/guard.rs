//! A guard as it runs: its policy, its keys of the moment, and who lives by its tokens.

use super::refused::Refused;
use super::{Claims, Flaw, KeySet, TokenHolders, TokenPolicy, verify};
use crate::mem::{RefreshList, RefreshRequest};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module's documentation.
#[derive(Debug)]
pub struct Guard {
    /// What the configuration calls it.
    pub name: String,
    /// What its tokens must be.
    pub policy: TokenPolicy,
    /// Who lives by its tokens.
    pub holders: Arc<TokenHolders>,
    /// How many seconds before its end a token is to be renewed; 0 is never.
    pub challenge_s: u64,
    /// Keys of the configuration.
    pub keys: KeySet,
    /// Where further keys come from, if they do.
    pub remote: Option<Arc<RemoteKeys>>,
    /// Tokens that need not be verified again.
    refused: Refused,
}

/// What a token came to, if it is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// It is wrong.
    Flaw(Flaw),
    /// No key has been fetched so far.
    NoKeys,
}

impl Guard {
    /// A guard that verifies by `keys`, or by those of `remote`.
    pub fn new(
        name: String,
        policy: TokenPolicy,
        keys: KeySet,
        remote: Option<Arc<RemoteKeys>>,
    ) -> Guard {
        let (holders, refused) = (Arc::default(), Refused::default());
        Guard { name, policy, holders, challenge_s: 0, keys, remote, refused }
    }

    /// Checks a token at `now_s` seconds since 1970. Keys are asked for if its own is not known. A
    /// token that was refused within the last minute is refused without being verified.
    ///
    /// # Errors
    /// Why it is not believed.
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

/// Keys that are fetched from a URL. What was fetched stays until something better comes.
pub struct RemoteKeys {
    /// Where they are.
    pub url: String,
    /// Whether that may be at a private address.
    pub allow_private: bool,
    /// A PEM file of the authorities that vouch for it; empty: the system's.
    pub ca_file: String,
    /// How often they are fetched, in milliseconds.
    pub refresh_ms: u64,
    /// The least time between two fetches, in milliseconds.
    pub floor_ms: u64,
    keys: Mutex<Option<(u32, Arc<KeySet>)>>,
    /// Whether fresh keys are to be fetched soon.
    pub refresh: RefreshRequest,
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("refresh_ms", &self.refresh_ms).finish_non_exhaustive()
    }
}

impl RemoteKeys {
    fn lock(&self) -> MutexGuard<'_, Option<(u32, Arc<KeySet>)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys that were fetched last, if any were.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.generation().map(|(_, keys)| keys)
    }

    /// The same, with a number that no other keys of this process have.
    fn generation(&self) -> Option<(u32, Arc<KeySet>)> {
        self.lock().clone()
    }

    /// Puts fresh keys in the place of the old ones.
    pub fn put(&self, keys: KeySet) {
        *self.lock() = Some((next_generation(), Arc::new(keys)));
    }
}

/// From 1 on; 0 is for keys that stand in the configuration. It wraps after 2^32 fetches: what was
/// refused by the old keys is forgotten long before.
fn next_generation() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).max(1)
}

/// All keys that are to be fetched.
pub type Remotes = RefreshList<RemoteKeys>;

impl Remotes {
    /// Keys at `url`, those that are known of it included.
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
