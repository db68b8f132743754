//! The moments at which events are due, and the CPU time of other processes.

use super::Plan;
use std::io;
use std::time::{Duration, Instant};

/// Calls `send` with the number of each event when it is due. It sends at once what it is late
/// with.
pub fn at_rate(
    plan: &Plan,
    begin: Instant,
    mut send: impl FnMut(usize) -> io::Result<()>,
) -> io::Result<()> {
    for number in 0..plan.count() {
        let due = due(plan, begin, number);
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        send(number)?;
    }
    Ok(())
}

/// When an event is due.
pub fn due(plan: &Plan, begin: Instant, number: usize) -> Instant {
    begin + Duration::from_secs_f64(number as f64 / f64::from(plan.rate))
}

/// The CPU time of a process, of all threads, in user and kernel mode.
pub fn cpu_of(process: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` is valid for the call to fill.
    let got = unsafe { libc::clock_getcpuclockid(process as libc::pid_t, &raw mut clock) };
    if got != 0 {
        return Err(io::Error::from_raw_os_error(got));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call to fill.
    match unsafe { libc::clock_gettime(clock, &raw mut time) } {
        0 => Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}
