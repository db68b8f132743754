//! One application: its configuration, its keys and its counters.

use super::channels::idempotency::IdempotencyKeys;
use super::channels::signature;
use crate::config;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// One application.
#[derive(Debug)]
pub struct App {
    /// The application's section of the configuration.
    pub config: config::AppConfig,
    /// The application's keys, prepared for signature verification. Empty if the configuration no
    /// longer has the application.
    pub keys: Vec<signature::AppKey>,
    /// The counters of the application on all cores. They are not updated for each message.
    pub(super) tally: Arc<Tally>,
    /// The number of connections of all applications, on all cores.
    all: Arc<AtomicUsize>,
}

/// The counters of one application on all cores, which are kept over reloads.
#[derive(Debug, Default)]
pub(super) struct Tally {
    connections: AtomicUsize,
    hooks_dropped: AtomicU64,
    /// When the log last reported requests with a stale timestamp, in milliseconds; 0 is never.
    stale_logged_ms: AtomicU64,
    idempotency: Arc<IdempotencyKeys>,
}

impl Tally {
    /// The counters of a new application; `all_bytes` is the memory of all applications'
    /// idempotency keys.
    pub(super) fn new(all_bytes: &Arc<AtomicUsize>) -> Arc<Tally> {
        let idempotency = Arc::new(IdempotencyKeys::new(all_bytes.clone()));
        Arc::new(Tally { idempotency, ..Tally::default() })
    }
}

/// The interval at which the log reports requests of an application with a stale timestamp.
const STALE_LOG_INTERVAL_MS: u64 = 60_000;

impl App {
    pub(super) fn new(config: config::AppConfig, tally: Arc<Tally>, all: Arc<AtomicUsize>) -> App {
        let keys = config.key_pairs();
        let keys = keys.map(|(key, secret)| signature::AppKey::new(key, secret.expose())).collect();
        App { keys, config, tally, all }
    }

    /// Whether pages of every origin may read responses of the application's HTTP API (CORS).
    pub(super) fn shares_with_everybody(&self) -> bool {
        self.config.cors_origins.iter().any(|origin| origin.as_str() == "*")
    }

    /// The application's idempotency keys.
    pub fn idempotency(&self) -> &Arc<IdempotencyKeys> {
        &self.tally.idempotency
    }

    /// Counts events that were dropped instead of sent to the application's webhooks.
    pub fn count_dropped_hooks(&self, events: u64) {
        if events > 0 {
            self.tally.hooks_dropped.fetch_add(events, Ordering::Relaxed);
        }
    }

    /// The number of webhook events that were dropped since the start of the process.
    pub fn dropped_hooks(&self) -> u64 {
        self.tally.hooks_dropped.load(Ordering::Relaxed)
    }

    /// Whether the log is to report at `now_ms` that a request was refused for its timestamp: true
    /// once a minute, on one core.
    pub fn stale_is_news(&self, now_ms: u64) -> bool {
        let logged_ms = &self.tally.stale_logged_ms;
        let before_ms = logged_ms.load(Ordering::Relaxed);
        let now_ms = now_ms.max(1);
        let is_due = before_ms == 0 || now_ms >= before_ms + STALE_LOG_INTERVAL_MS;
        let swap = |before_ms| {
            logged_ms.compare_exchange(before_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed)
        };
        is_due && swap(before_ms).is_ok()
    }

    /// Counts one more connection; false if the application has its maximum number of connections.
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

    /// Whether the configuration no longer has the application.
    pub fn is_gone(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of open connections of the application, on all cores.
    pub fn connections(&self) -> usize {
        self.tally.connections.load(Ordering::Relaxed)
    }

    /// Counts one connection less, after [`App::admit`] has counted it.
    pub fn release(&self) {
        self.tally.connections.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_stale_requests_are_logged_once_a_minute() {
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
