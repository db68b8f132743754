//! The pause of accepting while the listening sockets are handed over to another process.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The value of `fresh` before a core has reported.
const NO_REPORT: usize = usize::MAX;

/// Whether one core accepts connections. The main thread asks for a pause and its end; the core
/// reports when its last accept has completed.
#[derive(Debug)]
pub struct Accepting {
    pause: AtomicBool,
    /// The number of connections without a whole request, since accepting is paused.
    fresh: AtomicUsize,
}

impl Default for Accepting {
    fn default() -> Accepting {
        Accepting { pause: AtomicBool::new(false), fresh: AtomicUsize::new(NO_REPORT) }
    }
}

impl Accepting {
    /// Asks the core to pause accepting, or to continue. Wake the core afterwards.
    pub fn ask_pause(&self, pause: bool) {
        self.fresh.store(NO_REPORT, Ordering::SeqCst);
        self.pause.store(pause, Ordering::SeqCst);
    }

    pub(super) fn is_pause_asked(&self) -> bool {
        self.pause.load(Ordering::SeqCst)
    }

    pub(super) fn report(&self, fresh: usize) {
        self.fresh.store(fresh, Ordering::Release);
    }

    /// The number of connections of the core that have not sent a whole request, once accepting is
    /// paused and no accept is in flight; `None` before.
    pub fn fresh(&self) -> Option<usize> {
        Some(self.fresh.load(Ordering::Acquire)).filter(|fresh| *fresh != NO_REPORT)
    }
}
