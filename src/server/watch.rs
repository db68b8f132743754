//! Supervision of the threads: ended, panicked or stalled ones.

use super::{Error, Server};
use crate::gateway::{STALLED_MS, is_stalled};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Whether a thread or a task has panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);
/// How long the control thread may stall before the process ends, in milliseconds.
const GIVEN_UP_MS: u64 = 60_000;
/// The time between two checks above which the whole process is considered to have been suspended,
/// so that stalls are not judged, in milliseconds.
const PAUSED_MS: u64 = 2000;

/// Installs a panic hook that logs every panic and makes [`Watch::look`] fail afterwards, even if
/// the panic is caught, as async runtimes do for their tasks.
pub(super) fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!(thread = thread.name().unwrap_or("?"), "{panic}");
        PANICKED.store(true, Ordering::Release);
    }));
}

/// Supervises all threads of the server.
pub(super) struct Watch {
    /// The time of the last check, in milliseconds.
    looked_ms: Option<u64>,
    /// The time since when the process has not been suspended, in milliseconds.
    since_ms: u64,
    /// The names of the threads that were stalled at the last check.
    stalled: Vec<String>,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch { looked_ms: None, since_ms: 0, stalled: Vec::new() }
    }

    /// Checks all threads, and logs those that stall or continue.
    ///
    /// # Errors
    /// A thread has ended or panicked, or the control thread has stalled for more than a minute.
    pub(super) fn look(&mut self, server: &Server) -> Result<(), Error> {
        if server.threads.iter().any(JoinHandle::is_finished) {
            return Err(Error::Failed("a reactor has ended"));
        }
        if server.control.as_ref().is_some_and(|control| control.has_ended()) {
            return Err(Error::Failed("the control thread has ended"));
        }
        if PANICKED.load(Ordering::Acquire) {
            return Err(Error::Failed("a thread or a task has panicked"));
        }
        self.look_for_stalls(server, server.clock.now().ms)
    }

    fn look_for_stalls(&mut self, server: &Server, now_ms: u64) -> Result<(), Error> {
        let before_ms = self.looked_ms.replace(now_ms);
        if before_ms.is_none_or(|before_ms| now_ms - before_ms > PAUSED_MS) {
            self.since_ms = now_ms;
        }
        if now_ms - self.since_ms < STALLED_MS {
            return Ok(());
        }
        let cores = server.counters.iter().take(server.threads.len()).enumerate();
        let cores = cores.map(|(core, counters)| (format!("reactor {core}"), counters));
        let control =
            server.control.is_some().then(|| ("control".to_owned(), &server.env.runtime.control));
        let all = cores.chain(control).filter(|(_, counters)| is_stalled(counters, now_ms));
        let stalled: Vec<String> = all.map(|(thread, _)| thread).collect();
        for thread in stalled.iter().filter(|thread| !self.stalled.contains(thread)) {
            tracing::error!(thread, "a thread has not run for more than {STALLED_MS} ms");
        }
        for thread in self.stalled.iter().filter(|thread| !stalled.contains(thread)) {
            tracing::warn!(thread, "a thread runs again");
        }
        self.stalled = stalled;
        let beat_ms = server.env.runtime.control.beat_ms.get().max(self.since_ms);
        let controls = self.stalled.iter().any(|thread| thread == "control");
        match controls && now_ms.saturating_sub(beat_ms) > GIVEN_UP_MS {
            true => Err(Error::Failed("the control thread has not run for more than a minute")),
            false => Ok(()),
        }
    }
}
