//! System calls that do not use the ring: listening sockets, limits of the process, cores, clocks.

use crate::time::Now;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Connections that the kernel completes and queues before they are accepted.
pub const BACKLOG: i32 = 4096;

/// A listening socket that shares its port with those of the other cores. Its connections inherit
/// its options: no delay for small segments, and keep-alive probes.
///
/// An IPv6 socket also takes IPv4 connections, unless `only_v6` is set. Without `shared` no other
/// socket may listen on the address, in this process or another.
pub fn listen(address: SocketAddr, only_v6: bool, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.bind(&address.into())?;
    begin_to_listen(&socket)?;
    Ok(socket)
}

/// Lets a bound socket take connections. `net.core.somaxconn` bounds how many of them can wait.
pub fn begin_to_listen(socket: &Socket) -> io::Result<()> {
    socket.listen(BACKLOG)
}

/// The number of the first descriptor that a service manager passes.
pub const LISTEN_FDS_START: RawFd = 3;

/// The descriptors that a service manager passes with `LISTEN_FDS`, with their names. None if
/// `LISTEN_PID` is not this process, and none in later calls. Call it before other code of this
/// process opens descriptors.
///
/// # Errors
/// A variable is malformed, or a descriptor is not open.
pub fn take_listen_fds() -> io::Result<Vec<(OwnedFd, String)>> {
    static ARE_TAKEN: AtomicBool = AtomicBool::new(false);
    if ARE_TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names()?.map(|(descriptor, name)| {
        // SAFETY: the descriptor is open, because it has been set to close on exec. The variables
        // say that it was passed to this process, so nothing else owns it, and this code runs once.
        (unsafe { OwnedFd::from_raw_fd(descriptor) }, name)
    });
    Ok(passed.collect())
}

/// A limit of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// The number of open files.
    OpenFiles,
    /// Bytes of locked memory.
    LockedMemory,
}

/// The value of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessLimit {
    /// The value in force.
    pub now: u64,
    /// The value up to which the process may raise it.
    pub max: u64,
}

impl ProcessLimit {
    /// Whether there is no limit.
    pub fn is_unlimited(&self) -> bool {
        self.now == libc::RLIM_INFINITY
    }
}

/// Raises a limit as far as this process may, and returns it.
pub fn raise_limit(kind: LimitKind) -> io::Result<ProcessLimit> {
    let resource = match kind {
        LimitKind::OpenFiles => libc::RLIMIT_NOFILE,
        LimitKind::LockedMemory => libc::RLIMIT_MEMLOCK,
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the call to fill.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        let wanted = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: `wanted` is valid for the call to read.
        if unsafe { libc::setrlimit(resource, &raw const wanted) } == 0 {
            limit = wanted;
        }
    }
    Ok(ProcessLimit { now: limit.rlim_cur, max: limit.rlim_max })
}

/// Raises the limit of open files as far as this process may, and returns it.
pub fn raise_file_limit() -> io::Result<u64> {
    Ok(raise_limit(LimitKind::OpenFiles)?.now)
}

/// Whether this process may lock memory without limit.
pub fn may_lock_all_memory() -> bool {
    use caps::{CapSet, Capability};
    caps::has_cap(None, CapSet::Effective, Capability::CAP_IPC_LOCK).unwrap_or(false)
}

/// The cores on which this process may run, in ascending order.
pub fn cores() -> Vec<usize> {
    // SAFETY: all-zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for the call to fill, and its size is stated.
    let got = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if got != 0 {
        return vec![0];
    }
    // SAFETY: `core` is below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

/// Pins the calling thread to `core`.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: all-zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` is below the set's size.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is valid for the call to read, and its size is stated.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// 64 bits from the system's random source.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer is valid for 8 bytes.
    match unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) } {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads both clocks. Each reactor has its own, and they share no state.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts at zero.
    pub fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Now {
        self.read().0
    }

    /// The time now, and the same as nanoseconds since the clock's start.
    pub fn read(&self) -> (Now, u64) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let ns = self.elapsed_ns();
        (Now { ms: ns / 1_000_000, unix_s: unix.as_secs() }, ns)
    }

    /// Nanoseconds since the clock's start.
    pub fn elapsed_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}
