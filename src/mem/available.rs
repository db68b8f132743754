//! The memory that is available to this process, as the system reports it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The value, in bytes, if the system reports nothing.
const UNKNOWN: u64 = 1 << 30;

/// Bytes that were available to this process at the first call: the machine's `MemAvailable` (or
/// `MemTotal`), or a limit of its control groups, of version 1 or 2, if that is less.
pub fn available() -> u64 {
    static AVAILABLE: OnceLock<u64> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let read = |path: &Path| fs::read_to_string(path).ok();
        find(&read)
    })
}

fn find(read: &dyn Fn(&Path) -> Option<String>) -> u64 {
    let machine = read(Path::new("/proc/meminfo"))
        .and_then(|text| field(&text, "MemAvailable:").or_else(|| field(&text, "MemTotal:")));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let files = group_files(&groups, "memory", "memory.max", "memory.limit_in_bytes");
    let limits = files.into_iter().filter_map(|path| read(&path)?.trim().parse().ok());
    limits.chain(machine).min().unwrap_or(UNKNOWN)
}

/// A value of `/proc/meminfo`, which is in KiB, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The files that may have a limit of the control groups in `groups`, the content of
/// `/proc/self/cgroup`, and of their parents. In version 2 the file is named `v2`. In version 1 it
/// is named `v1`, in the hierarchy of `controller`. For memory, if there is no limit, it has `max`
/// in version 2, and a number larger than all memory in version 1.
pub fn group_files(groups: &str, controller: &str, v2: &str, v1: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, name) = match controllers {
            "" => (Path::new("/sys/fs/cgroup").to_owned(), v2),
            it if it.split(',').any(|it| it == controller) => {
                (Path::new("/sys/fs/cgroup").join(controller), v1)
            }
            _ => continue,
        };
        for group in Path::new(group.trim_start_matches('/')).ancestors() {
            files.push(root.join(group).join(name));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       8000 kB\nMemFree:  1 kB\nMemAvailable:    6000 kB\n";

    fn on(files: &[(&str, &str)]) -> u64 {
        find(&|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn available_memory_is_the_least_that_machine_and_groups_say() {
        let (v1, v2) = ("5:cpu,memory:/docker/a\n1:name=x:/\n", "0::/a.slice/b\n");
        let machine = ("/proc/meminfo", MEMINFO);
        assert_eq!(on(&[]), UNKNOWN);
        assert_eq!(on(&[machine]), 6000 * 1024);
        assert_eq!(on(&[("/proc/meminfo", "MemTotal: 8000 kB\n")]), 8000 * 1024);
        for (groups, file, text, expected) in [
            (v2, "/sys/fs/cgroup/a.slice/b/memory.max", "5000000\n", 5_000_000),
            (v2, "/sys/fs/cgroup/a.slice/memory.max", "4000000\n", 4_000_000),
            (v2, "/sys/fs/cgroup/memory.max", "3000000\n", 3_000_000),
            (v2, "/sys/fs/cgroup/memory.max", "max\n", 6000 * 1024),
            (v2, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "1\n", 6000 * 1024),
            (v1, "/sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "2000000", 2_000_000),
            (v1, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712", 6000 * 1024),
            (v1, "/sys/fs/cgroup/memory.max", "1\n", 6000 * 1024),
        ] {
            let found = on(&[machine, ("/proc/self/cgroup", groups), (file, text)]);
            assert_eq!(found, expected, "{file} {text}");
        }
    }
}
