//! Messages to the service manager that started the process, such as systemd.

use sd_notify::NotifyState;
use std::io;
use std::time::{Duration, Instant};

/// The service manager, if there is one: the environment names its socket in `NOTIFY_SOCKET`, and
/// the interval of its watchdog in `WATCHDOG_USEC` (and in `WATCHDOG_PID` whom that is meant for).
pub(super) struct ServiceManager {
    /// The maximum time between two messages to the watchdog.
    watchdog: Option<Duration>,
    /// When the watchdog last got a message.
    fed: Option<Instant>,
    /// Whether the last message could not be sent.
    has_failed: bool,
    /// Whether another process reports to the service manager now.
    is_replaced: bool,
}

impl ServiceManager {
    pub(super) fn from_environment() -> ServiceManager {
        let watchdog = sd_notify::watchdog_enabled();
        ServiceManager { watchdog, fed: None, has_failed: false, is_replaced: false }
    }

    /// The server accepts connections, or has reloaded its configuration.
    pub(super) fn ready(&mut self) {
        self.send(&[NotifyState::Ready]);
    }

    /// The server reloads its configuration. [`ready`](Self::ready) must follow.
    pub(super) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => self.note(Err(error)),
        }
    }

    /// The server is about to end.
    pub(super) fn stopping(&mut self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// From now on the process `pid` is the service, and reports. This one sends nothing more.
    pub(super) fn hand_over(&mut self, pid: u32) {
        self.send(&[NotifyState::MainPid(pid)]);
        (self.is_replaced, self.watchdog) = (true, None);
    }

    /// The time within which [`feed`](Self::feed) must be called again, if there is a watchdog.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 3)
    }

    /// All threads run: tells the watchdog so, if there is one and a third of its time is over.
    pub(super) fn feed(&mut self) {
        let Some(interval) = self.interval() else { return };
        if self.fed.is_none_or(|fed| fed.elapsed() >= interval) {
            self.fed = Some(Instant::now());
            self.send(&[NotifyState::Watchdog]);
        }
    }

    fn send(&mut self, states: &[NotifyState<'_>]) {
        if self.is_replaced {
            return;
        }
        self.note(sd_notify::notify(states));
    }

    /// Logs the first failure after a success.
    fn note(&mut self, sent: io::Result<()>) {
        if let Err(error) = &sent
            && !self.has_failed
        {
            tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) cannot be notified");
        }
        self.has_failed = sent.is_err();
    }
}
