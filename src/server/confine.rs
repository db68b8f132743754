//! The restrictions of the process, applied once it listens.
//!
//! Restrictions belong to threads. They are applied on the main thread before it starts the threads
//! of the reactors and the control thread, which inherit them. The log thread is started earlier:
//! the change of the user and the system call filter apply to it, the other restrictions do not. It
//! only writes to standard error.

use crate::config::{Config, Process};
use crate::driver::{Driver, Settings};
use crate::stats::Counters;
use crate::tls::CertificateStore;
use crate::uring::Ring;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, path_beneath_rules,
};
use nix::sys::prctl;
use nix::unistd::{self, User};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::ffi::CString;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Paths that libraries read: host names and certificate authorities, time zones, kernel
/// information.
const READABLE: [&str; 8] =
    ["/etc", "/usr", "/lib", "/lib64", "/proc", "/sys/fs/cgroup", "/sys/devices", "/dev/urandom"];

/// System calls that are refused because no server needs them: starting programs, access to other
/// processes' memory, mounts, kernel modules, clocks. Calls that the kernel or a library may need
/// in the future are not included.
const REFUSED: [i64; 34] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_acct,
    libc::SYS_personality,
];

/// Sets `no_new_privs` if the configuration says so: programs started by this process get no more
/// privileges than it has. Call it before a second thread is started.
///
/// # Errors
/// The kernel refuses it, which no kernel with io_uring does.
pub fn give_up_new_privileges(config: &Config) -> io::Result<()> {
    match config.process.no_new_privs {
        true => Ok(prctl::set_no_new_privs()?),
        false => Ok(()),
    }
}

/// Applies the restrictions of `config.process` to this thread and the threads that it starts. The
/// folders of `files` stay readable.
///
/// # Errors
/// The user does not exist, or the kernel refuses a restriction.
pub(super) fn confine(config: &Config, files: &[PathBuf]) -> io::Result<()> {
    let process = &config.process;
    if !process.user.is_empty() {
        become_user(&process.user)?;
    }
    if process.drop_capabilities || !process.user.is_empty() {
        drop_capabilities()?;
    }
    if process.landlock {
        let state = &config.zilliqa.node.state_file;
        let mut written: Vec<PathBuf> = match state.is_empty() {
            true => Vec::new(),
            false => vec![folder_of(Path::new(state))],
        };
        // The files of Unix sockets are removed when the server stops.
        written.extend(config.listeners.iter().filter_map(|it| it.address.path()).map(folder_of));
        for store in config.acme_stores() {
            // Access is granted only to what exists. If it cannot be created, the orders say so.
            let _ = CertificateStore::new(&store).create();
            written.push(store);
        }
        let pid_file = Some(Path::new(&config.pid_file)).filter(|_| !config.pid_file.is_empty());
        written.extend(pid_file.map(folder_of));
        let read = files.iter().map(|file| folder_of(file));
        let read = read.chain(process.readable.iter().map(PathBuf::from)).collect::<Vec<_>>();
        match restrict_files(&read, &written)? {
            true => tracing::info!(?read, ?written, "access to files is restricted"),
            false => tracing::warn!(
                "this kernel does not support Landlock: access to files is not restricted"
            ),
        }
    }
    if process.seccomp {
        refuse_system_calls()?;
        tracing::info!(refused = REFUSED.len(), "system calls are restricted");
    }
    Ok(())
}

/// The folder of a file. Access is granted to the folder, because a file is often replaced by
/// renaming another one.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Changes the user and its groups to `name`, for all threads of the process.
fn become_user(name: &str) -> io::Result<()> {
    let unknown = || io::Error::other(format!("process.user: the user {name} does not exist"));
    let user = User::from_name(name)?.ok_or_else(unknown)?;
    if (unistd::getuid(), unistd::getgid()) == (user.uid, user.gid) {
        // As after an upgrade: the process was started by one that has become this user.
        return Ok(());
    }
    unistd::initgroups(&CString::new(name)?, user.gid)?;
    unistd::setresgid(user.gid, user.gid, user.gid)?;
    Ok(unistd::setresuid(user.uid, user.uid, user.uid)?)
}

fn drop_capabilities() -> io::Result<()> {
    use caps::CapSet;
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Restricts this thread to reading below `read`, to all access below `written`, and to no further
/// listening on TCP ports. Returns whether the kernel supports it.
fn restrict_files(read: &[PathBuf], written: &[PathBuf]) -> io::Result<bool> {
    let abi = ABI::V4;
    let restrict = || {
        let all = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::BindTcp)?
            .create()?;
        // Paths that do not exist are skipped.
        all.add_rules(path_beneath_rules(READABLE, AccessFs::from_read(abi)))?
            .add_rules(path_beneath_rules(read, AccessFs::from_read(abi)))?
            .add_rules(path_beneath_rules(written, AccessFs::from_all(abi)))?
            .restrict_self()
    };
    let status = restrict().map_err(|error: landlock::RulesetError| io::Error::other(error))?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Makes the system calls of [`REFUSED`] fail with EPERM, in all threads.
fn refuse_system_calls() -> io::Result<()> {
    let rules = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
}

/// Applies all restrictions except the change of the user, and tries forbidden operations. Returns
/// a report, and whether all of them were refused.
pub fn try_restrictions() -> (String, bool) {
    let process =
        Process { drop_capabilities: true, landlock: true, seccomp: true, ..Process::default() };
    let config = Config { process, ..Config::default() };
    let has_landlock = std::fs::read_to_string("/proc/self/status").is_ok()
        && landlock_is_there().unwrap_or(false);
    let settings =
        Settings { files: 8, buffers: 16, buffer_bytes: 4096, accepts: 1, restricted: true };
    let confined = give_up_new_privileges(&config)
        .and_then(|()| confine(&config, &[PathBuf::from("/etc/hosts")]));
    let mut text = String::new();
    let mut all = true;
    let mut line = |what: &str, refused: Result<bool, String>| {
        let (word, fine) = match refused {
            Ok(true) => ("refused".to_owned(), true),
            Ok(false) => ("NOT REFUSED".to_owned(), false),
            Err(why) => (why, true),
        };
        all &= fine;
        let _ = writeln!(text, "{what:<44}{word}");
    };
    if let Err(error) = confined {
        return (format!("the restrictions cannot be applied: {error}"), false);
    }
    line("new privileges for other programs", Ok(prctl::get_no_new_privs().unwrap_or(false)));
    let ring = Ring::new(settings, Arc::new(Counters::default()));
    let ring = ring.map_err(|error| error.to_string());
    let tried = ring.and_then(|mut it| it.refuses_others().map_err(|error| error.to_string()));
    let is_refused = |errno: Option<i32>| errno == Some(libc::EACCES);
    let operation = tried.clone().map(|(operation, _)| is_refused(operation));
    line("a ring operation that is not needed", operation);
    line("a change of the ring's registrations", tried.map(|(_, change)| is_refused(change)));
    let capabilities = caps::read(None, caps::CapSet::Effective);
    line("use of capabilities", Ok(capabilities.is_ok_and(|set| set.is_empty())));
    let is = |outcome: io::Result<()>, errno| {
        Ok(outcome.err().and_then(|error| error.raw_os_error()) == Some(errno))
    };
    let landlock = |outcome: io::Result<()>| match has_landlock {
        true => is(outcome, libc::EACCES),
        false => Err("this kernel does not support Landlock".to_owned()),
    };
    line("access to another folder", landlock(std::fs::read_dir("/var").map(drop)));
    let made = std::env::temp_dir().join(format!("polycast-{}", std::process::id()));
    line("creation of a file", landlock(std::fs::File::create(&made).map(drop)));
    let allowed = std::fs::read("/etc/hosts").is_ok() && std::fs::read("/proc/self/stat").is_ok();
    line("(files that it needs can be read)", Ok(allowed));
    let program = std::process::Command::new("/bin/true").status().map(drop);
    line("start of another program", is(program, libc::EPERM));
    (text, all)
}

/// Whether the kernel supports Landlock. Creates a rule set without applying it.
fn landlock_is_there() -> Result<bool, landlock::RulesetError> {
    let hard = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    Ok(hard.handle_access(AccessFs::from_all(ABI::V1))?.create().is_ok())
}
