//! How threads wake a reactor that waits in the kernel.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

/// What wakes one reactor.
#[derive(Clone, Debug)]
pub enum WakeHandle {
    /// The descriptor of its ring, which takes messages from other rings.
    Ring(RawFd),
    /// An event descriptor, which is in the reactor's epoll set.
    Event(Arc<OwnedFd>),
}

impl WakeHandle {
    /// Adds to an event descriptor, which wakes the thread that waits for it.
    ///
    /// # Errors
    /// The system call fails. EAGAIN is no failure: the descriptor has events already.
    pub(crate) fn notify(event: &OwnedFd) -> io::Result<()> {
        match rustix::io::write(event, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
