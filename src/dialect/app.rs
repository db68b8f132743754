//! One application: its configuration, its keys and its counters.

use super::channels::idempotency::IdempotencyKeys;
use super::channels::signature;
use super::room::{Admission, AllRooms, ConnectionRoom};
use crate::config;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

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
    /// What all applications have in common.
    all: Arc<AllRooms>,
    /// Whether the maximum number of connections is that of all nodes of a cluster.
    shares_limit: bool,
}

/// The counters of one application on all cores, which are kept over reloads.
#[derive(Debug, Default)]
pub(super) struct Tally {
    room: ConnectionRoom,
    hooks_dropped: AtomicU64,
    /// When the log last reported requests with a stale timestamp, in milliseconds; 0 is never.
    stale_logged_ms: AtomicU64,
    idempotency: Arc<IdempotencyKeys>,
    /// The number of cores that have not taken what the log of the cluster had of the application
    /// when a reload has added it; [`UNREAD`] until that was read.
    unread: AtomicU32,
}

/// What the log has of an application was not read yet.
const UNREAD: u32 = u32::MAX;

impl Tally {
    /// The counters of a new application; `all_bytes` is the memory of all applications'
    /// idempotency keys.
    pub(super) fn new(all_bytes: &Arc<AtomicUsize>) -> Arc<Tally> {
        let idempotency = Arc::new(IdempotencyKeys::new(all_bytes.clone()));
        Arc::new(Tally { idempotency, ..Tally::default() })
    }

    /// The counters of an application that a reload adds to a node of a cluster, which has not read
    /// what the log has of it.
    pub(super) fn unread(all_bytes: &Arc<AtomicUsize>) -> Arc<Tally> {
        let tally = Tally::new(all_bytes);
        tally.unread.store(UNREAD, Ordering::Release);
        tally
    }
}

/// The interval at which the log reports requests of an application with a stale timestamp.
const STALE_LOG_INTERVAL_MS: u64 = 60_000;

impl App {
    /// An application, which is one of a node of a cluster or not.
    pub(super) fn new(
        config: config::AppConfig,
        tally: Arc<Tally>,
        all: Arc<AllRooms>,
        is_clustered: bool,
    ) -> App {
        let keys = config.key_pairs();
        let keys = keys.map(|(key, secret)| signature::AppKey::new(key, secret.expose())).collect();
        let shares_limit = is_clustered && config.limits.connections > 0;
        App { keys, config, tally, all, shares_limit }
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

    /// Counts one more connection, if the application has not its maximum number of connections. In
    /// a cluster that may have to wait until this node has reserved more connections.
    pub fn admit(&self, now_ms: u64) -> Admission {
        let room = &self.tally.room;
        let admission = match (self.shares_limit, self.config.limits.connections) {
            (true, _) => room.admit_reserved(&self.all, now_ms),
            (false, max) => match room.admit(if max == 0 { usize::MAX } else { max }) {
                true => Admission::Admitted,
                false => Admission::Full,
            },
        };
        if admission == Admission::Admitted {
            self.all.open.fetch_add(1, Ordering::Relaxed);
        }
        admission
    }

    /// Counts a connection that has waited, if there is room for it. If there is none, it waits on.
    pub fn admit_waiting(&self, now_ms: u64) -> bool {
        let room = &self.tally.room;
        let is_admitted = match self.shares_limit {
            true => room.admit_waiting(&self.all, now_ms),
            // The limit was removed.
            false => {
                room.stop_waiting();
                room.admit(usize::MAX)
            }
        };
        if is_admitted {
            self.all.open.fetch_add(1, Ordering::Relaxed);
        }
        is_admitted
    }

    /// Notes that a connection does not wait any more and was not admitted.
    pub fn stop_waiting(&self) {
        self.tally.room.stop_waiting();
    }

    /// Whether all nodes of a cluster together are known to have the maximum number of connections.
    pub fn is_full(&self) -> bool {
        self.tally.room.is_full()
    }

    /// The number of connections that wait, on all cores.
    pub fn waiting(&self) -> u32 {
        self.tally.room.waiting()
    }

    /// The number of connections that this node of a cluster has reserved.
    pub fn reserved(&self) -> u32 {
        self.tally.room.reserved()
    }

    /// Lets cores admit connections up to this number, of which more may be open already, until a
    /// time in milliseconds. From
    /// `ask_from` open ones on, the thread that reserves is woken. `is_full` says whether all nodes
    /// together are known to have the maximum. Returns the number of open connections.
    pub fn reserve(&self, reserved: (u32, u64), ask_from: u32, is_full: bool) -> u32 {
        self.tally.room.reserve(reserved, ask_from, is_full)
    }

    /// Lets cores admit no more connections than `target`, and what is open now. Returns the
    /// greater of the two.
    pub fn give_back(&self, target: u32) -> u32 {
        self.tally.room.give_back(target)
    }

    /// Whether the process has what the log of its cluster had of the application when a reload has
    /// added it. Until then it serves no client of the application.
    pub fn is_read(&self) -> bool {
        self.tally.unread.load(Ordering::Acquire) == 0
    }

    /// Whether what the log of the cluster has of the application is still to be read.
    pub fn awaits_reading(&self) -> bool {
        self.tally.unread.load(Ordering::Acquire) == UNREAD
    }

    /// Notes that the log was read, so that each of so many cores is about to take what it has of
    /// the application.
    pub fn await_cores(&self, cores: u16) {
        self.tally.unread.store(cores.into(), Ordering::Release);
    }

    /// Notes that a core has taken what the log has of the application.
    pub fn note_core(&self) {
        let step = |cores: u32| (cores != UNREAD).then(|| cores.saturating_sub(1));
        let _ = self.tally.unread.fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
    }

    /// Whether the configuration no longer has the application.
    pub fn is_gone(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of open connections of the application, on all cores.
    pub fn connections(&self) -> usize {
        self.tally.room.open() as usize
    }

    /// Counts one connection less, after [`App::admit`] has counted it.
    pub fn release(&self) {
        self.tally.room.release(&self.all);
        self.all.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_stale_requests_are_logged_once_a_minute() {
        let config = config::Config::demo().apps.remove(0);
        let app = App::new(config, Arc::default(), Arc::default(), false);
        assert!(app.stale_is_news(0));
        assert!(!app.stale_is_news(0));
        assert!(!app.stale_is_news(60_000));
        assert!(app.stale_is_news(60_001));
        assert!(!app.stale_is_news(120_000));
    }

    #[test]
    fn apps_that_a_reload_adds_are_read_when_all_cores_have_what_the_log_had() {
        let config = config::Config::demo().apps.remove(0);
        let app = |tally| App::new(config.clone(), tally, Arc::default(), true);
        assert!(app(Arc::default()).is_read());
        let app = app(Tally::unread(&Arc::default()));
        app.note_core();
        assert!(!app.is_read() && app.awaits_reading());
        app.await_cores(2);
        app.note_core();
        assert!(!app.is_read() && !app.awaits_reading());
        app.note_core();
        assert!(app.is_read());
        app.note_core();
        assert!(app.is_read());
    }
}
