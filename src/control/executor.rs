//! The async runtime of the control thread: `tokio-uring` where io_uring can be used, else a plain
//! current-thread runtime of tokio. Sockets and timers are the same on both; only files differ.
//! With musl as the C library it is always the plain one, for which tokio-uring does not compile.

#[cfg_attr(target_env = "musl", path = "executor/ring/absent.rs")]
mod ring;

use crate::config::IoDriver;
use crate::uring::RingWaker;
use ring::{HAS_RUNTIME, RingRuntime};
use std::cell::Cell;
use std::io;
use std::path::Path;
use tokio::task::LocalSet;

thread_local! {
    static HAS_RING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs an [`Executor`] with a ring, so that [`replace_file`] works.
pub(super) fn has_ring() -> bool {
    HAS_RING.get()
}

/// Replaces the file `path`, in `folder`, atomically: writes `bytes` to the new file `beside` it,
/// syncs and renames that, and syncs the folder. Only works if [`has_ring`].
///
/// # Errors
/// A file operation fails. If that happens before the rename, the old file is still there.
pub(super) async fn replace_file(
    path: &Path,
    beside: &Path,
    folder: &Path,
    bytes: Vec<u8>,
) -> io::Result<()> {
    ring::replace_file(path, beside, folder, bytes).await
}

/// A runtime whose tasks all run on the calling thread.
pub(super) struct Executor(Kind);

enum Kind {
    Ring(Box<RingRuntime>),
    Plain(tokio::runtime::Runtime, LocalSet),
}

impl Executor {
    /// Makes the runtime that `io` chooses.
    ///
    /// # Errors
    /// io_uring is demanded and cannot be used, or a runtime cannot be set up.
    pub(super) fn new(io: IoDriver) -> io::Result<Executor> {
        match io {
            IoDriver::IoUring if HAS_RUNTIME => Executor::on_ring(),
            IoDriver::IoUring | IoDriver::Epoll => Executor::plain(),
            // Tried first, because a runtime of tokio-uring that cannot be made leaks descriptors.
            IoDriver::Auto => match RingWaker::new().and_then(|_| Executor::on_ring()) {
                Ok(executor) => Ok(executor),
                Err(_) => Executor::plain(),
            },
        }
    }

    fn on_ring() -> io::Result<Executor> {
        Ok(Executor(Kind::Ring(Box::new(RingRuntime::new()?))))
    }

    fn plain() -> io::Result<Executor> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Executor(Kind::Plain(runtime, LocalSet::new())))
    }

    /// Runs `future` and the tasks that it starts with [`tokio::task::spawn_local`], until `future`
    /// is ready.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        HAS_RING.set(matches!(self.0, Kind::Ring(_)));
        match &self.0 {
            Kind::Ring(runtime) => runtime.block_on(future),
            Kind::Plain(runtime, local) => local.block_on(runtime, future),
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
            let expected = matches!(executor.0, Kind::Ring(_));
            assert_eq!(with_ring, expected, "{io:?}");
        }
    }
}
