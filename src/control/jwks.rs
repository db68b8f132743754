//! Fetches the keys of guards: at the start, at an interval, and when a token names one that is not
//! known. What was fetched last serves until something better comes.

use super::schedule::{Refreshable, Schedule};
use crate::jwt::{KeySet, RemoteKeys, Remotes};
use crate::mem::RefreshRequest;
use crate::stats::Counters;
use std::sync::Arc;

/// Bytes of a set of keys.
pub(super) const SET_BYTES: usize = 256 * 1024;

impl Refreshable for RemoteKeys {
    type Key = String;

    fn key(&self) -> String {
        self.url.clone()
    }

    fn refresh(&self) -> &RefreshRequest {
        &self.refresh
    }

    fn refresh_ms(&self) -> u64 {
        self.refresh_ms
    }

    fn floor_ms(&self) -> u64 {
        self.floor_ms
    }
}

/// See the module's documentation.
pub(super) struct Fetches {
    schedule: Schedule<RemoteKeys>,
    counters: Arc<Counters>,
}

impl Fetches {
    pub(super) fn new(remotes: Arc<Remotes>, counters: Arc<Counters>) -> Fetches {
        Fetches { schedule: Schedule::new(remotes), counters }
    }

    /// What is to be fetched now. Each is answered by [`Fetches::outcome`].
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Arc<RemoteKeys>> {
        self.schedule.due(now_ms)
    }

    /// Takes what has come from `url`, if anything has.
    pub(super) fn outcome(&mut self, url: &String, text: Option<&[u8]>, now_ms: u64) {
        let keys = text.and_then(KeySet::from_set);
        let remotes = self.schedule.outcome(url, keys.is_some(), now_ms);
        if remotes.is_empty() {
            return;
        }
        match keys {
            Some(keys) => {
                remotes.iter().for_each(|remote| remote.put(keys.clone()));
                self.counters.keys_fetched.add(1);
            }
            None => {
                self.counters.keys_failed.add(1);
                let why =
                    if text.is_some() { "hold no key that can be used" } else { "are not had" };
                let url = without_query(url);
                tracing::warn!(url, "the keys of a guard {why}");
            }
        }
    }

    /// When to look again.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.schedule.deadline_ms()
    }
}

/// A URL for the log: its query may hold a secret.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_url_is_logged_without_its_query() {
        for (url, shown) in [
            ("https://a.example/jwks?token=secret", "https://a.example/jwks"),
            ("https://a.example?token=secret", "https://a.example"),
            ("https://a.example/jwks?a=1?b=2#c", "https://a.example/jwks"),
            ("https://a.example/jwks", "https://a.example/jwks"),
        ] {
            assert_eq!(without_query(url), shown);
        }
    }

    fn set() -> Vec<u8> {
        // The key of RFC 8037 appendix A.2.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"a"}}]}}"#).into()
    }

    #[test]
    fn jwks_old_keys_stay_over_a_reload() {
        let url = "https://auth.example.com/jwks".to_owned();
        let remotes = Arc::new(Remotes::default());
        let remote = remotes.at(&url, false, "", 60_000, 5000);
        remotes.replace(vec![remote.clone()]);
        let mut it = Fetches::new(remotes.clone(), Arc::default());
        assert_eq!(it.due(0).len(), 1);
        it.outcome(&url, Some(&set()), 0);
        assert!(remote.keys().is_some());
        for text in [None, Some(&b"<html>"[..]), Some(&b"{\"keys\":[]}"[..])] {
            it.outcome(&url, text, 60_000);
        }
        assert_eq!(it.deadline_ms(), 60_000 + 40_000, "each of them is a failure");
        assert_eq!((it.counters.keys_failed.get(), it.counters.keys_fetched.get()), (3, 1));
        assert!(remote.keys().is_some());
        // A configuration is read while they are fetched.
        it.due(100_000);
        let fresh = || Arc::new(Remotes::default()).at(&url, false, "", 30_000, 5000);
        let (refreshed, same) = (fresh(), fresh());
        let other = remotes.at("https://other.example/", false, "", 30_000, 5000);
        remotes.replace(vec![refreshed.clone(), same.clone(), other.clone()]);
        assert_eq!(it.due(100_010).len(), 1, "only the other is new");
        it.outcome(&url, Some(&set()), 100_020);
        assert!(refreshed.keys().is_some() && same.keys().is_some() && other.keys().is_none());
        remotes.replace(vec![other]);
        it.due(100_030);
        it.outcome(&url, Some(&set()), 100_040);
        assert_eq!(it.counters.keys_fetched.get(), 2, "nobody asks any more");
    }
}
