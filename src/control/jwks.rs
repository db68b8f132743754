//! Fetches of key sets (JSON Web Key Sets, RFC 7517) for guards: at the start, at an interval, and
//! when a token names an unknown key. The last valid key set stays in use until a fetch gets
//! another one.

use super::authorities::Authorities;
use super::client::Target;
use super::job::{Job, JobKind, JobSetup, Turn};
use super::results::Results;
use super::schedule::{Refreshable, Schedule};
use crate::dialect::Env;
use crate::jwt::{KeySet, RemoteKeys, Remotes};
use crate::mem::RefreshRequest;
use crate::stats::Counters;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The maximum size of a key set, in bytes.
const SET_BYTES: usize = 256 * 1024;
/// Timeout for fetching one key set.
const FETCH: Duration = Duration::from_secs(4);

pub(super) const JOB: JobKind = JobKind { is_needed, start };

fn is_needed(env: &Env) -> bool {
    !env.runtime.remotes.list().is_empty()
}

fn start(setup: &mut JobSetup) -> io::Result<Box<dyn Job>> {
    let (remotes, notifier) = (setup.env.runtime.remotes.clone(), setup.notifier.clone());
    let fetched = Results::new(&notifier);
    remotes.notifier().attach(move || notifier.notify());
    Ok(Box::new(KeySetJob {
        fetches: Fetches::new(remotes, setup.counters.clone()),
        fetched,
        authorities: setup.authorities.clone(),
    }))
}

/// A URL of a key set and the response body; `None` if the fetch failed.
type Fetched = (String, Option<Bytes>);

/// The fetches of key sets, with their requests.
struct KeySetJob {
    fetches: Fetches,
    fetched: Results<Fetched>,
    authorities: Rc<Authorities>,
}

impl Job for KeySetJob {
    fn turn(&mut self, turn: &mut Turn<'_>) {
        for (url, text) in self.fetched.take() {
            self.fetches.outcome(&url, text.as_deref(), turn.now_ms);
        }
        for remote in self.fetches.due(turn.now_ms) {
            let url = remote.url.clone();
            let fields = HeaderMap::new();
            let target =
                Target::new(&url, fields, remote.allow_private, &remote.ca_file, &self.authorities);
            let fetched = self.fetched.clone();
            tokio::task::spawn_local(async move {
                let text = match target {
                    Some(target) => target.get(SET_BYTES, FETCH).await,
                    None => None,
                };
                fetched.put((url, text));
            });
        }
    }

    fn deadline_ms(&self, _turn: &Turn<'_>) -> u64 {
        self.fetches.deadline_ms()
    }
}

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

/// The scheduled fetches of all key sets; see the module's documentation.
struct Fetches {
    schedule: Schedule<RemoteKeys>,
    counters: Arc<Counters>,
}

impl Fetches {
    fn new(remotes: Arc<Remotes>, counters: Arc<Counters>) -> Fetches {
        Fetches { schedule: Schedule::new(remotes), counters }
    }

    /// The key sets to fetch now. The caller reports each result with [`Fetches::outcome`].
    fn due(&mut self, now_ms: u64) -> Vec<Arc<RemoteKeys>> {
        self.schedule.due(now_ms)
    }

    /// Takes the response body that was fetched from `url`; `None` if the fetch failed. After a
    /// failure, or if the body has no usable key, the old key set stays in use.
    fn outcome(&mut self, url: &String, text: Option<&[u8]>, now_ms: u64) {
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
                    if text.is_some() { "include no usable key" } else { "cannot be fetched" };
                let url = without_query(url);
                tracing::warn!(url, "the keys of a guard {why}");
            }
        }
    }

    /// When the next fetch is due, in milliseconds; `u64::MAX` if none is.
    fn deadline_ms(&self) -> u64 {
        self.schedule.deadline_ms()
    }
}

/// A URL without its query and fragment, for log lines: the query may hold a secret.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_url_is_logged_without_its_query() {
        for (url, want) in [
            ("https://a.example/jwks?token=secret", "https://a.example/jwks"),
            ("https://a.example?token=secret", "https://a.example"),
            ("https://a.example/jwks?a=1?b=2#c", "https://a.example/jwks"),
            ("https://a.example/jwks", "https://a.example/jwks"),
        ] {
            assert_eq!(without_query(url), want);
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
        // The configuration is reloaded while the key set is being fetched.
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
        assert_eq!(it.counters.keys_fetched.get(), 2, "no entry requests it any more");
    }
}
