//! The driver that the reactors run on, and why it is not io_uring.

use super::Error;
use crate::driver::{Driver, SetupError};
use crate::epoll::Epoll;
use crate::uring::probe;

/// What is lost without io_uring.
const LOST: &str = "each operation is a system call of its own, and each connection takes one of \
                    the process's open files";

/// The driver that the reactors run on.
#[derive(Debug, Default)]
pub(super) struct RunningDriver {
    pub(super) name: &'static str,
    /// The maximum number of connections of each reactor.
    pub(super) connections: u32,
    /// Bytes of memory that the driver of each reactor holds at any load.
    pub(super) fixed_bytes: usize,
    /// Why io_uring is not used, if it was to be.
    pub(super) refused: Option<String>,
}

impl RunningDriver {
    pub(super) fn of<D: Driver>(driver: &D, connections: u32) -> RunningDriver {
        let (name, fixed_bytes) = (D::NAME, driver.fixed_bytes());
        RunningDriver { name, connections, fixed_bytes, refused: None }
    }

    /// Logs which driver runs and, if it is not io_uring, what is lost.
    pub(super) fn log(&self) {
        match &self.refused {
            Some(refused) => tracing::warn!(driver = self.name, "{refused}; {LOST}"),
            None if self.name == Epoll::NAME => tracing::info!(driver = self.name, "{LOST}"),
            None => tracing::info!(driver = self.name, "the reactors use this driver"),
        }
    }
}

/// Why io_uring is not used, and what the operator can do about it.
pub(super) fn refusal(error: &SetupError, reactors: usize) -> String {
    format!("{error}; {}; epoll is used instead", probe::cause(error, reactors).advice())
}

/// The error of a driver that is not replaced by another one.
pub(super) fn not_replaced(error: SetupError, reactors: usize) -> Error {
    match error.driver {
        Epoll::NAME => Error::System("cannot set up epoll", error.error),
        _ => {
            let advice = probe::cause(&error, reactors).advice();
            Error::NoIoUring { error, advice }
        }
    }
}
