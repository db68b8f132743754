//! One application: its configuration, its keys, what is counted of it, and the pages that may use
//! its HTTP API.

use super::Env;
use super::channels::signature;
use crate::{config, http};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// One application.
#[derive(Debug)]
pub struct App {
    /// Its section of the configuration.
    pub config: config::AppConfig,
    /// Its keys, ready to verify with.
    pub keys: Vec<signature::AppKey>,
    /// Its connections on all cores, and those of all applications. Not touched by messages.
    pub(super) tally: Arc<Tally>,
    all: Arc<AtomicUsize>,
}

/// What is counted of one application on all cores, through all its configurations.
#[derive(Debug, Default)]
pub(super) struct Tally {
    connections: AtomicUsize,
    hooks_dropped: AtomicU64,
    /// When the log has said last that requests are refused for their time, in milliseconds; 0 is
    /// never.
    stale_logged_ms: AtomicU64,
}

/// How often the log says that requests of an application are refused for their time.
const STALE_SAID_EVERY_MS: u64 = 60_000;

impl App {
    pub(super) fn new(config: config::AppConfig, tally: Arc<Tally>, all: Arc<AtomicUsize>) -> App {
        let keys = config.key_pairs();
        let keys = keys.map(|(key, secret)| signature::AppKey::new(key, secret.expose())).collect();
        App { keys, config, tally, all }
    }

    /// Counts events for its webhooks that were dropped.
    pub fn count_dropped_hooks(&self, events: u64) {
        if events > 0 {
            self.tally.hooks_dropped.fetch_add(events, Ordering::Relaxed);
        }
    }

    /// Events for its webhooks that were dropped since the start of the process.
    pub fn dropped_hooks(&self) -> u64 {
        self.tally.hooks_dropped.load(Ordering::Relaxed)
    }

    /// Whether the log is to say at `now_ms` that requests are refused for their time: true once a
    /// minute, on one core.
    pub fn stale_is_news(&self, now_ms: u64) -> bool {
        let logged_ms = &self.tally.stale_logged_ms;
        let before_ms = logged_ms.load(Ordering::Relaxed);
        let now_ms = now_ms.max(1);
        let is_due = before_ms == 0 || now_ms >= before_ms + STALE_SAID_EVERY_MS;
        let swap = |before_ms| {
            logged_ms.compare_exchange(before_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed)
        };
        is_due && swap(before_ms).is_ok()
    }

    /// Counts one more connection, unless the application has as many as it may.
    pub fn admit(&self) -> bool {
        let max = match self.config.limits.connections {
            0 => usize::MAX,
            max => max,
        };
        let step = |count: usize| (count < max).then_some(count + 1);
        let counted =
            self.tally.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        if counted.is_ok() {
            self.all.fetch_add(1, Ordering::Relaxed);
        }
        counted.is_ok()
    }

    /// Whether the configuration no longer has it.
    pub fn is_gone(&self) -> bool {
        self.keys.is_empty()
    }

    /// Its connections now, on all cores.
    pub fn connections(&self) -> usize {
        self.tally.connections.load(Ordering::Relaxed)
    }

    /// Counts one connection less.
    pub fn release(&self) {
        self.tally.connections.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which pages of other origins may read an answer of the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedWith {
    /// Those of any origin.
    Everybody,
    /// Those of this one.
    Origin(String),
}

/// Which page may read the answer to a request of the HTTP API, as the application that its path
/// names has it: `None` if the request is of no such page.
pub fn shared_with(env: &Env, request: &http::Request<'_>) -> Option<SharedWith> {
    let target = env.target(config::EndpointKind::Apps, request.path(), request.query());
    let (app, _) = target?;
    let origins = &env.apps.get(app).config.cors_origins;
    if origins.iter().any(|origin| origin.as_str() == "*") {
        return Some(SharedWith::Everybody);
    }
    let origin = request.header("origin")?;
    let allowed = origins.iter().any(|allowed| allowed.matches(origin));
    allowed.then(|| SharedWith::Origin(origin.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_requests_are_news_once_a_minute() {
        let all = Arc::<AtomicUsize>::default();
        let config = config::Config::demo().apps.remove(0);
        let app = App::new(config, Arc::default(), all);
        assert!(app.stale_is_news(0));
        assert!(!app.stale_is_news(0));
        assert!(!app.stale_is_news(60_000));
        assert!(app.stale_is_news(60_001));
        assert!(!app.stale_is_news(120_000));
    }
}
