//! What this kernel offers and, if io_uring cannot be set up, why not.

use super::kernel;
use super::resources::{self, Processors, SystemLimits};
use super::ring::Ring;
use crate::config::IoDriver;
use crate::driver::{Driver, Settings, SetupError};
use crate::stats::Counters;
use io_uring::{IoUring, Probe, opcode};
use std::fmt::Write;
use std::fs;
use std::sync::Arc;

/// The oldest kernel that has every required feature.
const KERNEL_FLOOR: (u32, u32) = (6, 1);

/// Why io_uring cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// The kernel is older than 6.1, or was built without io_uring.
    OldKernel,
    /// The setting `kernel.io_uring_disabled` forbids io_uring. Holds the value, 1 or 2.
    Disabled(u8),
    /// A seccomp filter of this process forbids io_uring. The default profiles of container
    /// runtimes have such a filter.
    Seccomp,
    /// The limit of open files, which holds for a ring's file table, is too low. Holds the limit.
    OpenFiles(u64),
    /// The limit of locked memory, against which newer kernels count rings, is too low. Holds the
    /// limit in bytes, and the number of reactors.
    LockedMemory(u64, usize),
    /// Another cause, which the error itself names.
    Other,
}

impl Unsupported {
    /// What the operator can do about the cause.
    pub fn advice(self) -> String {
        match self {
            Unsupported::OldKernel => "the kernel is too old: 6.1 or newer is required".to_owned(),
            Unsupported::Disabled(value) => format!(
                "kernel.io_uring_disabled is {value}: allow it with \
                 `sysctl -w kernel.io_uring_disabled=0`{}",
                if value == 1 { ", or run in the group kernel.io_uring_group" } else { "" }
            ),
            Unsupported::Seccomp => {
                "a seccomp profile forbids io_uring, as container runtimes do by \
                default: run with a profile that allows io_uring_setup, io_uring_enter and \
                io_uring_register"
                    .to_owned()
            }
            Unsupported::OpenFiles(limit) => {
                let advice = resources::files_advice();
                format!("the limit of open files is {limit}, which is too low: {advice}")
            }
            Unsupported::LockedMemory(limit, reactors) => {
                let advice = resources::locked_advice(resources::locked_wanted(reactors));
                format!(
                    "RLIMIT_MEMLOCK, the limit of locked memory, is {} KiB, which is too low: \
                     {advice}",
                    limit / 1024
                )
            }
            Unsupported::Other => "the kernel refused for another reason".to_owned(),
        }
    }
}

/// Facts about the system from which the cause of a failed set-up is derived.
#[derive(Clone, Debug, Default)]
struct Signs {
    release: String,
    /// The value of `kernel.io_uring_disabled`, where the kernel has it.
    disabled: Option<u8>,
    /// Whether a seccomp filter is in force for this process.
    filtered: bool,
    limits: SystemLimits,
    /// The number of reactors that are to be started.
    reactors: usize,
}

impl Signs {
    fn read(reactors: usize) -> Signs {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        Signs {
            release: kernel::release(),
            disabled: read("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            filtered: seccomp.is_some_and(|mode| mode.trim() == "2"),
            limits: SystemLimits::raise(),
            reactors,
        }
    }

    fn kernel(&self) -> Option<(u32, u32)> {
        kernel::version(&self.release)
    }

    fn cause(&self, errno: i32) -> Unsupported {
        let old = self.kernel().is_some_and(|kernel| kernel < KERNEL_FLOOR);
        match (errno, self.disabled) {
            (libc::EPERM, Some(value @ (1 | 2))) => Unsupported::Disabled(value),
            (libc::EPERM | libc::EACCES | libc::ENOSYS, _) if self.filtered => Unsupported::Seccomp,
            (libc::ENOSYS | libc::EINVAL, _) => Unsupported::OldKernel,
            _ if old => Unsupported::OldKernel,
            _ => match (errno, self.limits.files, self.limits.locked) {
                (libc::EMFILE, Some(limit), _) => Unsupported::OpenFiles(limit.now),
                (libc::ENOMEM, _, Some(limit)) => {
                    Unsupported::LockedMemory(limit.now, self.reactors)
                }
                _ => Unsupported::Other,
            },
        }
    }
}

/// The cause of a failed set-up of one of `reactors` rings.
pub fn cause(error: &SetupError, reactors: usize) -> Unsupported {
    Signs::read(reactors).cause(error.error.raw_os_error().unwrap_or(0))
}

/// One line of the report.
struct Row {
    what: &'static str,
    found: bool,
    needed: bool,
    use_of_it: &'static str,
}

/// Tries the set-up that the server uses. Returns a table to be printed, and whether the server
/// can run with `io`.
pub fn report(io: IoDriver) -> (String, bool) {
    let processors = Processors::read();
    let signs = Signs::read(processors.threads);
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<28}{value}");
    };
    line("kernel", &format!("{} (io_uring: 6.1 or newer)", signs.release));
    let disabled = signs.disabled.map_or("not present".to_owned(), |value| value.to_string());
    line("kernel.io_uring_disabled", &disabled);
    line("seccomp filter", if signs.filtered { "active" } else { "none" });
    line("cores", &format!("{} {:?}", processors.cores.len(), processors.cores));
    line("cpu quota (cgroup)", &processors.quota_text());
    let pinned = if processors.are_whole() { "pinned" } else { "not pinned" };
    line("threads by default", &format!("{}, {pinned}", processors.threads));
    for resource in signs.limits.describe(processors.threads) {
        line(resource.name, &resource.value);
        if let Some(advice) = resource.advice {
            line("", &advice);
        }
    }
    let settings =
        Settings { files: 64, buffers: 16, buffer_bytes: 4096, accepts: 1, restricted: true };
    let ring = Ring::new(settings, Arc::new(Counters::default()));
    match &ring {
        Ok(_) => line("io_uring", "usable"),
        Err(error) => {
            line("io_uring", &error.to_string());
            let cause = signs.cause(error.error.raw_os_error().unwrap_or(0));
            line("", &cause.advice());
        }
    }
    let (driver, usable) = chosen(io, ring.is_ok());
    line("the server's driver", driver);
    for row in rows() {
        let state = match (row.found, row.needed) {
            (true, _) => "yes",
            (false, true) => "MISSING",
            (false, false) => "no",
        };
        let _ = writeln!(text, "  {:<26}{state:<9}{}", row.what, row.use_of_it);
    }
    let masking: Vec<&str> = crate::simd::versions().iter().map(|(name, _)| *name).collect();
    let _ = writeln!(text, "{:<28}{}", "masking", masking.join(", "));
    (text, usable)
}

/// The driver that the server uses with `io`, and what is lost with it; and whether it can run.
fn chosen(io: IoDriver, has_ring: bool) -> (&'static str, bool) {
    match (io, has_ring) {
        (IoDriver::Auto | IoDriver::IoUring, true) => ("io_uring", true),
        (IoDriver::IoUring, false) => ("none: io_uring is demanded", false),
        (IoDriver::Auto | IoDriver::Epoll, _) => {
            ("epoll: one system call for each operation, one open file for each connection", true)
        }
    }
}

fn rows() -> Vec<Row> {
    let Ok(ring) = IoUring::new(8) else { return Vec::new() };
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe).is_ok();
    let supports = |code: u8| probed && probe.is_supported(code);
    let setup = |set: fn(&mut io_uring::Builder)| {
        let mut builder = IoUring::builder();
        set(&mut builder);
        builder.build(8).is_ok()
    };
    let row = |what, found, needed, use_of_it| Row { what, found, needed, use_of_it };
    let deferred = setup(|builder| {
        builder.setup_single_issuer().setup_defer_taskrun();
    });
    let no_array = setup(|builder| {
        builder.setup_no_sqarray();
    });
    let params = ring.params();
    vec![
        row("accept", supports(opcode::Accept::CODE), true, "into direct descriptors"),
        row(
            "connect",
            supports(opcode::Socket::CODE) && supports(opcode::Connect::CODE),
            true,
            "to the upstreams of a proxy",
        ),
        row("multishot receive", supports(opcode::SendZc::CODE), true, "6.0"),
        row("vectored send", supports(opcode::SendMsg::CODE), true, "one per connection and turn"),
        row("ring messages", supports(opcode::MsgRingData::CODE), true, "wake sleeping cores"),
        row("shutdown, close, cancel", supports(opcode::Shutdown::CODE), true, ""),
        row("deferred task running", deferred, true, "6.1"),
        row("completions are kept", params.is_feature_nodrop(), true, "when the queue overflows"),
        row(
            "waiting with a timeout",
            params.is_feature_ext_arg(),
            true,
            "the only timer of a core",
        ),
        row(
            "receive bundles",
            params.is_feature_recvsend_bundle(),
            false,
            "6.10; used from 6.18 on",
        ),
        row("no submission array", no_array, false, "6.6; used"),
        row("minimum wait", params.is_feature_min_timeout(), false, "6.12; not used"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::sys::ProcessLimit;
    use super::*;

    fn signs(release: &str, disabled: Option<u8>, filtered: bool) -> Signs {
        let limits = SystemLimits::default();
        Signs { release: release.to_owned(), disabled, filtered, limits, reactors: 2 }
    }

    #[test]
    fn probe_names_the_limit_that_is_too_low() {
        let limit = |now| Some(ProcessLimit { now, max: now });
        let mut signs = signs("6.18.0", Some(0), false);
        signs.limits = SystemLimits { files: limit(32), locked: limit(65536), backlog: None };
        assert_eq!(signs.cause(libc::EMFILE), Unsupported::OpenFiles(32));
        assert_eq!(signs.cause(libc::ENOMEM), Unsupported::LockedMemory(65536, 2));
        let advice = Unsupported::LockedMemory(65536, 2).advice();
        assert!(advice.contains("RLIMIT_MEMLOCK") && advice.contains("is 64 KiB"), "{advice}");
        assert!(Unsupported::OpenFiles(32).advice().contains("ulimit -n"));
        // A process that may lock all memory is short of memory itself.
        signs.limits.locked = None;
        assert_eq!(signs.cause(libc::ENOMEM), Unsupported::Other);
    }

    #[test]
    fn probe_finds_the_cause_of_a_refusal() {
        for (errno, signs, expected) in [
            (libc::ENOSYS, signs("4.19.0-1-amd64", None, false), Unsupported::OldKernel),
            (libc::EINVAL, signs("5.15.0", None, false), Unsupported::OldKernel),
            (libc::EPERM, signs("6.8.0", Some(2), false), Unsupported::Disabled(2)),
            (libc::EPERM, signs("6.8.0", Some(1), true), Unsupported::Disabled(1)),
            (libc::EPERM, signs("6.8.0", Some(0), true), Unsupported::Seccomp),
            (libc::ENOSYS, signs("6.8.0", None, true), Unsupported::Seccomp),
            (libc::ENOMEM, signs("6.8.0", Some(0), false), Unsupported::Other),
            (libc::ENOMEM, signs("5.19.1", None, false), Unsupported::OldKernel),
        ] {
            assert_eq!(signs.cause(errno), expected, "{errno} {signs:?}");
        }
    }

    #[test]
    fn probe_names_the_driver_that_runs() {
        for (io, has_ring, driver, usable) in [
            (IoDriver::Auto, true, "io_uring", true),
            (IoDriver::Auto, false, "epoll", true),
            (IoDriver::IoUring, true, "io_uring", true),
            (IoDriver::IoUring, false, "none", false),
            (IoDriver::Epoll, true, "epoll", true),
        ] {
            let (name, can_run) = chosen(io, has_ring);
            assert!(name.starts_with(driver) && can_run == usable, "{io:?} {has_ring}: {name}");
        }
    }

    #[test]
    fn probe_has_advice_for_every_cause() {
        for cause in [
            Unsupported::OldKernel,
            Unsupported::Disabled(1),
            Unsupported::Disabled(2),
            Unsupported::Seccomp,
        ] {
            assert!(cause.advice().len() > 30);
        }
        assert!(Unsupported::Disabled(1).advice().contains("io_uring_group"));
    }
}
