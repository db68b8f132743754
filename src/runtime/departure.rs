//! How the process is about to end.

use std::sync::atomic::{AtomicBool, Ordering};

/// How the process is about to end, which the main thread says before the drain begins.
#[derive(Debug, Default)]
pub struct Departure {
    leaving: AtomicBool,
    replaced: AtomicBool,
    draining: AtomicBool,
}

impl Departure {
    /// The process is about to drain.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// The process is about to drain, and another one has taken over its listening sockets, so that
    /// the address is ready.
    pub fn be_replaced(&self) {
        self.replaced.store(true, Ordering::Relaxed);
        self.leave();
    }

    /// The cores are about to be sent the command to drain.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether a core may have begun to drain, although another one has not taken the command yet.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the process is about to drain.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether another process has taken over the listening sockets.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Relaxed)
    }
}
