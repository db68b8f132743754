//! The choice of the driver, and what it means for the number of connections.

use super::Error;
use crate::config::Config;
use crate::driver::{Driver, SetupError};
use crate::epoll::Epoll;
use crate::limits::REACTOR_CONNECTIONS;
use crate::uring::{probe, sys};

/// File descriptors reserved for other uses than connections: listeners, drivers, logs.
const RESERVED_FILES: u64 = 64;
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

/// The maximum number of connections of one reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionBounds {
    /// With io_uring, whose descriptors are in a table of each ring.
    pub(super) ring: u32,
    /// With epoll, where all reactors share the process's table of open files.
    pub(super) epoll: u32,
}

/// The maximum numbers of connections: the configured limit, bounded by the limit of open files,
/// which is raised as far as possible, and by [`REACTOR_CONNECTIONS`].
pub(super) fn bounds(config: &Config, reactors: u16) -> Result<ConnectionBounds, Error> {
    let limit = sys::raise_file_limit()
        .map_err(|e| Error::System("cannot raise the limit of open files", e))?;
    Ok(bounds_under(limit, config.limits.connections, usize::from(reactors)))
}

fn bounds_under(file_limit: u64, configured: usize, reactors: usize) -> ConnectionBounds {
    let max = file_limit.saturating_sub(RESERVED_FILES).max(RESERVED_FILES) as usize;
    let wanted = match configured {
        0 => usize::MAX,
        total => total.div_ceil(reactors),
    };
    let bound = |files: usize| wanted.min(files).min(REACTOR_CONNECTIONS) as u32;
    ConnectionBounds { ring: bound(max), epoll: bound((max / reactors).max(1)) }
}

/// Why io_uring is not used, and what the operator can do about it.
pub(super) fn refusal(error: &SetupError) -> String {
    format!("{error}; {}; epoll is used instead", probe::cause(error).advice())
}

/// The error of a driver that is not replaced by another one.
pub(super) fn not_replaced(error: SetupError) -> Error {
    match error.driver {
        Epoll::NAME => Error::System("cannot set up epoll", error.error),
        _ => {
            let advice = probe::cause(&error).advice();
            Error::NoIoUring { error, advice }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_epoll_reactors_share_the_limit_of_open_files() {
        assert_eq!(bounds_under(1064, 0, 4), ConnectionBounds { ring: 1000, epoll: 250 });
        assert_eq!(bounds_under(1064, 1000, 4), ConnectionBounds { ring: 250, epoll: 250 });
        assert_eq!(bounds_under(1064, 1001, 4), ConnectionBounds { ring: 251, epoll: 250 });
        assert_eq!(
            bounds_under(10, 0, 1),
            ConnectionBounds { ring: 64, epoll: 64 },
            "a tiny limit"
        );
        assert_eq!(bounds_under(10, 0, 256).epoll, 1, "each reactor has at least one");
        let highest = REACTOR_CONNECTIONS as u32;
        assert_eq!(
            bounds_under(u64::MAX, 0, 2),
            ConnectionBounds { ring: highest, epoll: highest }
        );
    }
}
