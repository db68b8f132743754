//! When the keys of guards are fetched: at the start, at an interval, and when a token names one
//! that is not known, but not too often. What was fetched last serves until something better comes.

use crate::jwt::{Keys, Remote, Remotes};
use crate::stats::Counters;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of a set of keys.
pub(super) const SET_BYTES: usize = 256 * 1024;

/// See the module's documentation. Time comes in as an argument.
pub(super) struct Fetches {
    remotes: Arc<Remotes>,
    counters: Arc<Counters>,
    by_url: HashMap<String, State>,
}

#[derive(Default)]
struct State {
    busy: bool,
    /// When it was begun last.
    last_ms: Option<u64>,
    /// When it is to begin again by itself.
    next_ms: u64,
    /// Failures in a row.
    failures: u32,
}

impl State {
    /// When it is to begin again.
    fn due_ms(&self, remote: &Remote) -> u64 {
        let soonest = self.last_ms.map_or(0, |last_ms| last_ms + remote.floor_ms);
        match (self.busy, remote.is_wanted()) {
            (true, _) => u64::MAX,
            (false, true) => soonest.min(self.next_ms),
            (false, false) => self.next_ms,
        }
    }
}

impl Fetches {
    pub(super) fn new(remotes: Arc<Remotes>, counters: Arc<Counters>) -> Fetches {
        Fetches { remotes, counters, by_url: HashMap::new() }
    }

    /// What is to be fetched now. Each is answered by [`Fetches::outcome`].
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Arc<Remote>> {
        let list = self.remotes.list();
        self.by_url.retain(|url, _| list.iter().any(|remote| remote.url == *url));
        let mut due = Vec::new();
        for remote in list {
            let state = self.by_url.entry(remote.url.clone()).or_default();
            if state.due_ms(&remote) <= now_ms {
                state.busy = true;
                state.last_ms = Some(now_ms);
                remote.begin();
                due.push(remote);
            }
        }
        due
    }

    /// Takes what has come from `url`, if anything has.
    pub(super) fn outcome(&mut self, url: &str, text: Option<&[u8]>, now_ms: u64) {
        let Some(state) = self.by_url.get_mut(url) else { return };
        let keys = text.and_then(Keys::from_set);
        state.busy = false;
        state.failures = if keys.is_some() { 0 } else { state.failures + 1 };
        for remote in self.remotes.list().iter().filter(|remote| remote.url == url) {
            // Twice as long after each failure, from the floor up to the interval.
            let later = remote.floor_ms << state.failures.min(16);
            let wait_ms = if keys.is_some() { remote.refresh_ms } else { later };
            state.next_ms = now_ms + wait_ms.min(remote.refresh_ms.max(remote.floor_ms));
            if let Some(keys) = &keys {
                remote.put(keys.clone());
            }
        }
        match keys {
            Some(_) => self.counters.keys_fetched.add(1),
            None => {
                self.counters.keys_failed.add(1);
                let why =
                    if text.is_some() { "hold no key that can be used" } else { "are not had" };
                tracing::warn!(url, "the keys of a guard {why}");
            }
        }
    }

    /// When to look again.
    pub(super) fn deadline_ms(&self) -> u64 {
        let list = self.remotes.list();
        let due = |remote: &Arc<Remote>| {
            self.by_url.get(&remote.url).map_or(0, |state| state.due_ms(remote))
        };
        list.iter().map(due).min().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://auth.example.com/jwks";

    fn set(kid: &str) -> Vec<u8> {
        // The key of RFC 8037 appendix A.2.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"{kid}"}}]}}"#).into()
    }

    fn fetches() -> (Fetches, Arc<Remotes>, Arc<Remote>) {
        let remotes = Arc::new(Remotes::default());
        let remote = remotes.at(URL, false, "", 60_000, 5000);
        remotes.replace(vec![remote.clone()]);
        (Fetches::new(remotes.clone(), Arc::default()), remotes, remote)
    }

    #[test]
    fn at_the_start_and_at_the_interval() {
        let (mut it, _, remote) = fetches();
        assert_eq!((it.deadline_ms(), it.due(100).len()), (0, 1));
        assert_eq!((it.deadline_ms(), it.due(100).len()), (u64::MAX, 0), "one at a time");
        it.outcome(URL, Some(&set("a")), 200);
        assert!(remote.keys().is_some());
        assert_eq!((it.deadline_ms(), it.due(60_199).len()), (60_200, 0));
        assert_eq!(it.due(60_200).len(), 1);
    }

    #[test]
    fn when_a_key_is_missed_but_not_before_the_floor() {
        let (mut it, _, remote) = fetches();
        it.due(0);
        it.outcome(URL, Some(&set("a")), 100);
        for _ in 0..1000 {
            remote.want();
        }
        assert_eq!((it.deadline_ms(), it.due(4999).len()), (5000, 0));
        assert_eq!(it.due(5000).len(), 1);
        // Missed again while it is fetched: once more, at the next floor.
        remote.want();
        assert!(it.due(5001).is_empty());
        it.outcome(URL, Some(&set("b")), 5100);
        assert_eq!((it.due(9999).len(), it.due(10_000).len()), (0, 1));
        it.outcome(URL, Some(&set("b")), 10_100);
        assert_eq!(it.deadline_ms(), 70_100);
    }

    #[test]
    fn what_is_down_or_talks_nonsense_is_tried_less_and_less_and_old_keys_stay() {
        let (mut it, _, remote) = fetches();
        it.due(0);
        it.outcome(URL, Some(&set("a")), 0);
        let mut now_ms = 60_000;
        for (text, wait_ms) in [
            (None, 10_000),
            (Some(&b"<html>"[..]), 20_000),
            (Some(&b"{\"keys\":[]}"[..]), 40_000),
            (None, 60_000),
            (None, 60_000),
        ] {
            assert_eq!(it.due(now_ms).len(), 1);
            it.outcome(URL, text, now_ms);
            now_ms += wait_ms;
            assert_eq!(it.deadline_ms(), now_ms);
        }
        assert_eq!(it.counters.keys_failed.get(), 5);
        assert!(remote.keys().is_some());
        it.due(now_ms);
        it.outcome(URL, Some(&set("b")), now_ms);
        assert_eq!(it.deadline_ms(), now_ms + 60_000);
        assert_eq!(it.counters.keys_fetched.get(), 2);
    }

    #[test]
    fn a_new_configuration_while_it_is_fetched() {
        let (mut it, remotes, _) = fetches();
        it.due(0);
        let anew = remotes.at(URL, false, "", 30_000, 5000);
        let same = remotes.at(URL, false, "", 30_000, 5000);
        let other = remotes.at("https://other.example/", false, "", 30_000, 5000);
        remotes.replace(vec![anew.clone(), same.clone(), other.clone()]);
        assert_eq!(it.due(10).len(), 1, "only the other is new");
        it.outcome(URL, Some(&set("a")), 20);
        assert!(anew.keys().is_some() && same.keys().is_some() && other.keys().is_none());
        remotes.replace(vec![other]);
        it.due(30);
        it.outcome(URL, Some(&set("b")), 40);
        assert_eq!(it.by_url.len(), 1);
    }
}
