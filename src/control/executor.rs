//! The async runtime of the control thread: `tokio-uring` where io_uring can be used, else a plain
//! current-thread runtime of tokio. Sockets and timers are the same on both; only files differ.

use crate::config::IoDriver;
use crate::uring::RingWaker;
use std::cell::Cell;
use std::io;
use tokio::task::LocalSet;

thread_local! {
    static HAS_RING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs an [`Executor`] with a ring, so that files of `tokio-uring` work.
pub(super) fn has_ring() -> bool {
    HAS_RING.get()
}

/// A runtime whose tasks all run on the calling thread.
pub(super) enum Executor {
    Ring(Box<tokio_uring::Runtime>),
    Plain(tokio::runtime::Runtime, LocalSet),
}

impl Executor {
    /// Makes the runtime that `io` chooses.
    ///
    /// # Errors
    /// io_uring is demanded and cannot be used, or a runtime cannot be set up.
    pub(super) fn new(io: IoDriver) -> io::Result<Executor> {
        match io {
            IoDriver::IoUring => Executor::on_ring(),
            IoDriver::Epoll => Executor::plain(),
            // Tried first, because a runtime of tokio-uring that cannot be made leaks descriptors.
            IoDriver::Auto => match RingWaker::new().and_then(|_| Executor::on_ring()) {
                Ok(executor) => Ok(executor),
                Err(_) => Executor::plain(),
            },
        }
    }

    fn on_ring() -> io::Result<Executor> {
        let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
        Ok(Executor::Ring(Box::new(runtime)))
    }

    fn plain() -> io::Result<Executor> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Executor::Plain(runtime, LocalSet::new()))
    }

    /// Runs `future` and the tasks that it starts with [`tokio::task::spawn_local`], until `future`
    /// is ready.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        HAS_RING.set(matches!(self, Executor::Ring(_)));
        match self {
            Executor::Ring(runtime) => runtime.block_on(future),
            Executor::Plain(runtime, local) => local.block_on(runtime, future),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_executor_runs_tasks_with_and_without_a_ring() {
        for (io, rings) in [(IoDriver::Epoll, Some(false)), (IoDriver::Auto, None)] {
            let executor = Executor::new(io).expect("a runtime");
            let with_ring = executor.block_on(async {
                let task = tokio::task::spawn_local(async { has_ring() });
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                task.await.expect("no panic")
            });
            assert!(rings.is_none_or(|rings| rings == with_ring), "{io:?}");
            let expected = matches!(executor, Executor::Ring(_));
            assert_eq!(with_ring, expected, "{io:?}");
        }
    }
}
