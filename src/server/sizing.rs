//! How many reactors and connections fit this machine, this container and the limits of this
//! process.

use super::Error;
use crate::config::{Config, IoDriver};
use crate::limits::{MAX_CORES, REACTOR_CONNECTIONS};
use crate::uring::resources::{Processors, SystemLimits, files_advice};

/// File descriptors reserved for other uses than connections: listeners, rings, logs.
const RESERVED_FILES: u64 = 64;
/// Open files of the process besides rings and listening sockets: standard streams, signals, the
/// control thread, a configuration that is read.
const OTHER_FILES: usize = 24;

/// The size of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerSize {
    /// The number of reactors.
    pub(super) reactors: u16,
    /// The cores to which the reactors are pinned, in turn; empty if they are not pinned.
    pub(super) pins: Vec<usize>,
    /// The maximum number of connections of each reactor.
    pub(super) connections: ConnectionBounds,
}

/// The maximum number of connections of one reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionBounds {
    /// With io_uring, whose descriptors are in a table of each ring.
    pub(super) ring: u32,
    /// With epoll, where all reactors share the process's table of open files.
    pub(super) epoll: u32,
}

impl ServerSize {
    /// Raises the limits of the process as far as it may, chooses the size, and logs both.
    ///
    /// # Errors
    /// The limit of open files is too low for any server with this configuration.
    pub(super) fn choose(config: &Config) -> Result<ServerSize, Error> {
        let (processors, limits) = (Processors::read(), SystemLimits::raise());
        let files = limits.files.map_or(u64::MAX, |limit| limit.now);
        let size = ServerSize::of(config, &processors, files)?;
        let pinned = !size.pins.is_empty();
        tracing::info!(
            cores = processors.cores.len(),
            cpu_quota = processors.quota_text(),
            reactors = size.reactors,
            pinned,
            "processors"
        );
        if config.pin && !pinned {
            tracing::info!("threads are not pinned: the cgroup's quota is not all cores");
        }
        for resource in limits.describe(size.reactors.into()) {
            let (name, value) = (resource.name, resource.value);
            match resource.advice {
                Some(advice) => tracing::warn!(value, "{name} is low: {advice}"),
                None => tracing::info!(value, "{name}"),
            }
        }
        let wanted = config.limits.connections.div_ceil(size.reactors.into());
        let bound = match config.io {
            IoDriver::Epoll => size.connections.epoll,
            IoDriver::Auto | IoDriver::IoUring => size.connections.ring,
        };
        if wanted > bound as usize {
            let (connections, advice) = (bound, files_advice());
            tracing::warn!(
                connections,
                "each reactor has fewer connections than limits.connections needs, because of the \
                 limit of open files: {advice}"
            );
        }
        Ok(size)
    }

    /// The size on these processors with a limit of `files` open files. The limit holds for the
    /// file table of each ring separately; with epoll it holds for all connections together.
    fn of(config: &Config, processors: &Processors, files: u64) -> Result<ServerSize, Error> {
        let reactors = match config.threads {
            0 => processors.threads.min(MAX_CORES),
            threads => threads,
        };
        let needed = OTHER_FILES + reactors * (1 + config.listeners.len());
        let needed = RESERVED_FILES.max(needed as u64);
        if files < needed {
            return Err(Error::OpenFiles { limit: files, needed, advice: files_advice() });
        }
        let max = files.saturating_sub(RESERVED_FILES).max(RESERVED_FILES) as usize;
        let wanted = match config.limits.connections {
            0 => usize::MAX,
            total => total.div_ceil(reactors),
        };
        let bound = |files: usize| wanted.min(files).min(REACTOR_CONNECTIONS) as u32;
        let pins = match config.pin && processors.are_whole() {
            true => processors.cores.clone(),
            false => Vec::new(),
        };
        // A reactor on epoll has two descriptors of its own.
        let needed = OTHER_FILES + reactors * (2 + config.listeners.len());
        let room = |reserved: usize| files.saturating_sub(reserved as u64) as usize;
        // With a low limit, half of what is left is for connections.
        let shared = room(needed.max(RESERVED_FILES as usize)).max(room(needed) / 2);
        let connections =
            ConnectionBounds { ring: bound(max), epoll: bound((shared / reactors).max(1)) };
        Ok(ServerSize { reactors: reactors as u16, pins, connections })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(cores: usize, threads: usize, quota: Option<u64>) -> Processors {
        Processors { cores: (0..cores).collect(), threads, quota }
    }

    fn size(config: &Config, processors: &Processors, files: u64) -> ServerSize {
        ServerSize::of(config, processors, files).unwrap()
    }

    #[test]
    fn sizing_follows_the_quota_and_pins_on_whole_cores_only() {
        let config = Config::demo();
        let whole = size(&config, &on(4, 4, None), 20_000);
        assert_eq!((whole.reactors, whole.pins), (4, vec![0, 1, 2, 3]));
        for (processors, reactors) in
            [(on(64, 2, Some(2000)), 2), (on(2, 1, Some(500)), 1), (on(1, 1, Some(500)), 1)]
        {
            let size = size(&config, &processors, 20_000);
            assert_eq!((size.reactors, size.pins.len()), (reactors, 0));
        }
        // The number of threads can be configured; the quota still moves them.
        let mut three = Config::demo();
        three.threads = 3;
        let size = size(&three, &on(4, 2, Some(2000)), 20_000);
        assert_eq!((size.reactors, size.pins.len()), (3, 0));
    }

    #[test]
    fn sizing_bounds_connections_by_open_files() {
        let mut config = Config::demo();
        let connections =
            |config: &Config, files| size(config, &on(2, 2, None), files).connections.ring;
        assert_eq!(connections(&config, 20_000), 20_000 - 64);
        assert_eq!(connections(&config, 129), 65);
        assert_eq!(connections(&config, 64), 64);
        config.limits.connections = 101;
        assert_eq!(connections(&config, 20_000), 51);
    }

    #[test]
    fn sizing_shares_open_files_between_the_reactors_of_epoll() {
        let mut config = Config::demo();
        let bounds = |config: &Config, reactors, files| {
            let ConnectionBounds { ring, epoll } =
                size(config, &on(reactors, reactors, None), files).connections;
            (ring, epoll)
        };
        assert_eq!(bounds(&config, 4, 1064), (1000, 250));
        assert_eq!(bounds(&config, 2, 64), (64, 8));
        assert_eq!(bounds(&config, 100, 1024), (960, 7), "the reactors need 324 files");
        assert_eq!(bounds(&config, 100, 224), (160, 1), "each reactor has at least one");
        let highest = REACTOR_CONNECTIONS as u32;
        assert_eq!(bounds(&config, 2, u64::MAX), (highest, highest));
        config.limits.connections = 1000;
        assert_eq!(bounds(&config, 4, 1064), (250, 250));
        config.limits.connections = 1001;
        assert_eq!(bounds(&config, 4, 1064), (251, 250));
    }

    #[test]
    fn sizing_names_the_limit_of_open_files_that_is_too_low() {
        let mut config = Config::demo();
        let of = |config: &Config, files| ServerSize::of(config, &on(2, 2, None), files);
        let error = of(&config, 63).unwrap_err().to_string();
        assert!(error.starts_with("the limit of open files is 63, and 64 are needed"), "{error}");
        assert!(error.contains("ulimit -n"), "{error}");
        config.threads = 100;
        assert!(of(&config, 223).is_err() && of(&config, 224).is_ok());
    }
}
