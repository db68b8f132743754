//! What the system grants this process: processors, open files, locked memory, and connections that
//! wait to be accepted.

use super::sys::{self, LimitKind, ProcessLimit};
use crate::mem::group_files;
use std::fs;
use std::path::Path;

/// The quota of a whole processor, in the unit of [`Processors::quota`].
const WHOLE: u64 = 1000;
/// The number of open files below which a reactor has few connections.
const FEW_FILES: u64 = 1024;
/// The locked memory that one reactor may need for the queues of its ring, in bytes.
const RING_BYTES: u64 = 2 * 1024 * 1024;

/// The processors that this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processors {
    /// The numbers of the cores, in ascending order.
    pub cores: Vec<usize>,
    /// The number of threads that the process can keep busy, at least 1: the number of cores, or
    /// the quota of its control groups, rounded down, if that is less.
    pub threads: usize,
    /// The quota of its control groups in thousandths of a processor, if there is one.
    pub quota: Option<u64>,
}

impl Processors {
    /// Reads what the system grants.
    pub fn read() -> Processors {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let cores = sys::cores();
        // The standard library reads the quotas too, from wherever the groups are mounted.
        let parallelism = std::thread::available_parallelism().map_or(1, usize::from);
        Processors::of(cores, parallelism, quota(&read))
    }

    fn of(cores: Vec<usize>, parallelism: usize, quota: Option<u64>) -> Processors {
        let by_quota = quota.map_or(usize::MAX, |quota| (quota / WHOLE) as usize);
        let threads = parallelism.min(cores.len()).min(by_quota).max(1);
        Processors { cores, threads, quota }
    }

    /// Whether the process may use every one of its cores all the time. Otherwise the kernel must
    /// be free to move its threads to cores that are idle.
    pub fn are_whole(&self) -> bool {
        let cores = self.cores.len();
        self.threads == cores && self.quota.is_none_or(|quota| quota >= cores as u64 * WHOLE)
    }

    /// The quota as a number of processors, in words.
    pub fn quota_text(&self) -> String {
        match self.quota {
            Some(quota) => format!("{}.{:02}", quota / WHOLE, quota % WHOLE / 10),
            None => "none".to_owned(),
        }
    }
}

/// The least quota of the control groups of this process and their parents, in thousandths of a
/// processor.
fn quota(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let files = group_files(&groups, "cpu", "cpu.max", "cpu.cfs_quota_us");
    let quotas = files.into_iter().filter_map(|file| {
        let text = read(&file)?;
        let mut words = text.split_whitespace();
        // Without a quota this is `max` in version 2, and -1 in version 1.
        let quota: u64 = words.next()?.parse().ok()?;
        let period: u64 = match words.next() {
            Some(period) => period.parse().ok()?,
            None => read(&file.with_file_name("cpu.cfs_period_us"))?.trim().parse().ok()?,
        };
        (quota * WHOLE).checked_div(period)
    });
    quotas.min()
}

/// One thing that the system grants, and what it limits.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// The name that users know.
    pub name: &'static str,
    /// The value, and what it limits.
    pub value: String,
    /// How to raise it, if it is low.
    pub advice: Option<String>,
}

/// The limits of the process, after they were raised as far as it may.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLimits {
    /// The number of open files.
    pub files: Option<ProcessLimit>,
    /// Bytes of locked memory; `None` if the process is not limited.
    pub locked: Option<ProcessLimit>,
    /// The maximum number of connections that wait on one socket, if the system tells it.
    pub backlog: Option<u64>,
}

impl SystemLimits {
    /// Raises the limits of this process as far as it may, and returns them.
    pub fn raise() -> SystemLimits {
        let backlog = fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
        SystemLimits {
            files: sys::raise_limit(LimitKind::OpenFiles).ok(),
            locked: sys::raise_limit(LimitKind::LockedMemory)
                .ok()
                .filter(|limit| !limit.is_unlimited() && !sys::may_lock_all_memory()),
            backlog: backlog.and_then(|text| text.trim().parse().ok()),
        }
    }

    /// What each limits with this number of reactors, and how to raise it.
    pub fn describe(&self, reactors: usize) -> [Resource; 3] {
        let text = |limit: Option<u64>| limit.map_or("unknown".to_owned(), |it| it.to_string());
        let (files, backlog) = (self.files.map(|it| it.now), self.backlog);
        let wanted = locked_wanted(reactors);
        let is_low = |limit: Option<u64>, wanted: u64| limit.is_some_and(|limit| limit < wanted);
        let advise = |is_low: bool, advice: String| is_low.then_some(advice);
        [
            Resource {
                name: "open files",
                value: format!(
                    "{}, which bounds the connections of each reactor (epoll: of all together)",
                    text(files)
                ),
                advice: advise(is_low(files, FEW_FILES), files_advice()),
            },
            Resource {
                name: "locked memory",
                value: match self.locked {
                    Some(limit) => {
                        format!("{} KiB, for the rings of all reactors", limit.now / 1024)
                    }
                    None => "not limited".to_owned(),
                },
                advice: advise(is_low(self.locked.map(|it| it.now), wanted), locked_advice(wanted)),
            },
            Resource {
                name: "net.core.somaxconn",
                value: format!(
                    "{}, which bounds connections that wait to be accepted",
                    text(backlog)
                ),
                advice: advise(
                    is_low(backlog, sys::BACKLOG as u64),
                    format!("raise it with `sysctl -w net.core.somaxconn={}`", sys::BACKLOG),
                ),
            },
        ]
    }
}

/// How to raise the limit of open files.
pub fn files_advice() -> String {
    "raise it with `ulimit -n 1048576`, `LimitNOFILE=1048576` (systemd) or \
     `--ulimit nofile=1048576:1048576` (docker)"
        .to_owned()
}

pub(super) fn locked_advice(wanted: u64) -> String {
    let kib = wanted / 1024;
    format!(
        "kernels from 6.14 on count rings against it unless the process has CAP_IPC_LOCK: raise it \
         with `ulimit -l {kib}`, `LimitMEMLOCK={kib}K` (systemd) or `--ulimit memlock={wanted}` \
         (docker), or use fewer threads"
    )
}

/// The locked memory that the rings of `reactors` reactors may need, in bytes.
pub(super) fn locked_wanted(reactors: usize) -> u64 {
    RING_BYTES * reactors as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota_on(files: &[(&str, &str)]) -> Option<u64> {
        quota(&|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn processors_quota_is_the_least_of_the_groups() {
        let (v2, v1) = ("0::/a.slice/b\n", "3:cpuset:/\n2:cpu,cpuacct:/docker/a\n0::/\n");
        for (groups, file, text, period, expected) in [
            (v2, "/sys/fs/cgroup/a.slice/b/cpu.max", "50000 100000\n", "", Some(500)),
            (v2, "/sys/fs/cgroup/a.slice/cpu.max", "250000 100000\n", "", Some(2500)),
            (v2, "/sys/fs/cgroup/cpu.max", "max 100000\n", "", None),
            (v2, "/sys/fs/cgroup/cpu.max", "1 0\n", "", None),
            (v2, "/sys/fs/cgroup/cpu.max", "many 100000\n", "", None),
            (v2, "/sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us", "50000", "100000", None),
            (v1, "/sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us", "50000\n", "100000\n", Some(500)),
            (v1, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n", "100000\n", Some(4000)),
            (v1, "/sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us", "-1\n", "100000\n", None),
            (v1, "/sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us", "50000\n", "", None),
        ] {
            let beside = Path::new(file).with_file_name("cpu.cfs_period_us");
            let period_file = beside.to_str().unwrap();
            let files = [("/proc/self/cgroup", groups), (file, text), (period_file, period)];
            assert_eq!(quota_on(&files), expected, "{file} {text}");
        }
        let both = [
            ("/proc/self/cgroup", v2),
            ("/sys/fs/cgroup/a.slice/b/cpu.max", "300000 100000"),
            ("/sys/fs/cgroup/a.slice/cpu.max", "200000 100000"),
        ];
        assert_eq!(quota_on(&both), Some(2000));
        assert_eq!(quota_on(&[]), None, "nothing is mounted");
        assert_eq!(quota_on(&[("/proc/self/cgroup", v2)]), None, "the groups are not mounted");
    }

    #[test]
    fn processors_threads_follow_the_quota_and_are_pinned_only_on_whole_ones() {
        for (cores, parallelism, quota, threads, whole) in [
            (4, 4, None, 4, true),
            (4, 4, Some(4000), 4, true),
            (4, 4, Some(8000), 4, true),
            (4, 3, Some(3999), 3, false),
            (64, 2, Some(2000), 2, false),
            (64, 64, Some(2500), 2, false),
            (4, 1, Some(500), 1, false),
            (1, 1, Some(500), 1, false),
            (1, 1, Some(1000), 1, true),
            (1, 1, None, 1, true),
            // A quota that only the standard library has found.
            (4, 2, None, 2, false),
        ] {
            let found = Processors::of((0..cores).collect(), parallelism, quota);
            assert_eq!((found.threads, found.are_whole()), (threads, whole), "{cores} {quota:?}");
        }
        let half = Processors::of(vec![0, 1], 1, Some(500));
        assert_eq!(half.quota_text(), "0.50");
    }

    #[test]
    fn resources_that_are_low_say_how_to_raise_them() {
        let limit = |now| Some(ProcessLimit { now, max: now });
        let of = |files, locked, backlog| {
            let limits =
                SystemLimits { files: limit(files), locked: limit(locked), backlog: Some(backlog) };
            limits.describe(2).map(|it| it.advice.is_some())
        };
        assert_eq!(of(FEW_FILES, 2 * RING_BYTES, 4096), [false; 3]);
        assert_eq!(of(FEW_FILES - 1, 2 * RING_BYTES - 1, 4095), [true; 3]);
        let unlimited = SystemLimits { files: limit(FEW_FILES), ..SystemLimits::default() };
        let described = unlimited.describe(200);
        assert!(described.iter().all(|it| it.advice.is_none()));
        assert_eq!(described[1].value, "not limited");
        assert!(described[2].value.starts_with("unknown"));
        assert!(locked_advice(2 * RING_BYTES).contains("ulimit -l 4096`"));
    }
}
