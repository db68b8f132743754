//! Supervision of the threads: ended, panicked or stalled ones.

use super::Error;
use crate::control::Control;
use crate::gateway::{STALLED_MS, is_stalled};
use crate::stats::Counters;
use std::io;
use std::sync::Arc;
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

/// The threads of a server at one moment.
pub(super) struct Threads<'s> {
    pub(super) reactors: &'s [JoinHandle<io::Result<()>>],
    pub(super) control: Option<&'s Control>,
    /// The counters of the reactors, by core; then those of the control thread, if there is one.
    pub(super) counters: &'s [Arc<Counters>],
    pub(super) control_counters: &'s Counters,
    pub(super) now_ms: u64,
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

    /// Checks all threads, and logs those that stall or continue. Returns whether all of them
    /// run.
    ///
    /// # Errors
    /// A thread has ended or panicked, or the control thread has stalled for more than a minute.
    pub(super) fn look(&mut self, threads: &Threads<'_>) -> Result<bool, Error> {
        if threads.reactors.iter().any(JoinHandle::is_finished) {
            return Err(Error::Failed("a reactor has ended"));
        }
        if threads.control.is_some_and(|control| control.has_ended()) {
            return Err(Error::Failed("the control thread has ended"));
        }
        if PANICKED.load(Ordering::Acquire) {
            return Err(Error::Failed("a thread or a task has panicked"));
        }
        self.look_for_stalls(threads, threads.now_ms)
    }

    fn look_for_stalls(&mut self, threads: &Threads<'_>, now_ms: u64) -> Result<bool, Error> {
        let before_ms = self.looked_ms.replace(now_ms);
        if before_ms.is_none_or(|before_ms| now_ms - before_ms > PAUSED_MS) {
            self.since_ms = now_ms;
        }
        if now_ms - self.since_ms < STALLED_MS {
            return Ok(self.stalled.is_empty());
        }
        let cores = threads.counters.iter().take(threads.reactors.len()).enumerate();
        let cores = cores.map(|(core, counters)| (format!("reactor {core}"), &**counters));
        let control = threads.control.map(|_| ("control".to_owned(), threads.control_counters));
        let all = cores.chain(control).filter(|(_, counters)| is_stalled(counters, now_ms));
        let stalled: Vec<String> = all.map(|(thread, _)| thread).collect();
        for thread in stalled.iter().filter(|thread| !self.stalled.contains(thread)) {
            tracing::error!(thread, "a thread has not run for more than {STALLED_MS} ms");
        }
        for thread in self.stalled.iter().filter(|thread| !stalled.contains(thread)) {
            tracing::warn!(thread, "a thread runs again");
        }
        self.stalled = stalled;
        let beat_ms = threads.control_counters.beat_ms.get().max(self.since_ms);
        let controls = self.stalled.iter().any(|thread| thread == "control");
        match controls && now_ms.saturating_sub(beat_ms) > GIVEN_UP_MS {
            true => Err(Error::Failed("the control thread has not run for more than a minute")),
            false => Ok(self.stalled.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn watch_finds_all_threads_running_unless_a_reactor_is_stalled() {
        let (end, ended) = mpsc::channel::<()>();
        let reactor = std::thread::spawn(move || {
            let _ = ended.recv();
            Ok(())
        });
        let reactors = [reactor];
        let counters = [Arc::new(Counters::default())];
        let mut watch = Watch::new();
        let mut look = |now_ms, beat_ms| {
            counters[0].beat_ms.set(beat_ms);
            let threads = Threads {
                reactors: &reactors,
                control: None,
                counters: &counters,
                control_counters: &Counters::default(),
                now_ms,
            };
            watch.look_for_stalls(&threads, now_ms).unwrap()
        };
        for now_ms in (1000..60_000).step_by(1000) {
            assert!(look(now_ms, now_ms), "at {now_ms} ms");
        }
        let beat_ms = 59_000;
        for now_ms in (60_000..=beat_ms + STALLED_MS).step_by(1000) {
            assert!(look(now_ms, beat_ms), "at {now_ms} ms");
        }
        assert!(!look(beat_ms + STALLED_MS + 1, beat_ms), "stalled");
        assert!(look(beat_ms + STALLED_MS + 2, beat_ms + STALLED_MS + 2), "it runs again");
        drop(end);
    }
}
