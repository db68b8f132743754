//! A guard as it runs: its policy, its keys of the moment, and who lives by its tokens.

use super::{Claims, Flaw, KeySet, TokenHolders, TokenPolicy, verify};
use crate::mem::{RefreshList, RefreshRequest};
use std::fmt;
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
    /// Checks a token at `now_s` seconds since 1970. Keys are asked for if its own is not known.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn check(&self, token: &str, now_s: u64) -> Result<Claims, Unverified> {
        let Some(remote) = &self.remote else {
            return verify(token, &self.policy, &self.keys, now_s).map_err(Unverified::Flaw);
        };
        let fetched = remote.keys();
        let keys = fetched.as_deref().unwrap_or(&self.keys);
        match verify(token, &self.policy, keys, now_s) {
            Err(Flaw::Key) => {
                remote.refresh.want();
                let unverified = if fetched.is_some() {
                    Unverified::Flaw(Flaw::Key)
                } else {
                    Unverified::NoKeys
                };
                Err(unverified)
            }
            other => other.map_err(Unverified::Flaw),
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
    keys: Mutex<Option<Arc<KeySet>>>,
    /// Whether fresh keys are to be fetched soon.
    pub refresh: RefreshRequest,
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("refresh_ms", &self.refresh_ms).finish_non_exhaustive()
    }
}

impl RemoteKeys {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<KeySet>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys that were fetched last, if any were.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.lock().clone()
    }

    /// Puts fresh keys in the place of the old ones.
    pub fn put(&self, keys: KeySet) {
        *self.lock() = Some(Arc::new(keys));
    }
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
        let known = self.find(|it| it.url == url).and_then(|it| it.keys());
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
