//! Limits on wrong tokens, passwords and grants, counted by client address. The server checks a
//! token quickly, so without a limit one connection could try many thousands a second.

use crate::dialect::Env;
use crate::hub::ConnId;
use crate::stats::Counters;
use crate::time::Now;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The length of a counting window in milliseconds: one minute from the first wrong attempt of an
/// address.
const WINDOW_MS: u64 = 60_000;
/// The maximum number of addresses that are counted separately. All further addresses share one
/// count.
const ADDRESSES_MAX: usize = 65_536;

/// The counts of wrong attempts, which all cores share; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct SignInAttempts(Mutex<AttemptTable>);

#[derive(Debug, Default)]
struct AttemptTable {
    wrong: HashMap<Origin, Window>,
    /// When expired windows were last removed, in milliseconds.
    cleaned_ms: u64,
    /// When a line was last logged, in milliseconds.
    logged_ms: Option<u64>,
    /// The number of wrong or refused attempts since the last logged line.
    unlogged: u64,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began_ms: u64,
    wrong: u32,
}

impl Window {
    fn is_over(self, now: Now) -> bool {
        now.ms.saturating_sub(self.began_ms) >= WINDOW_MS
    }
}

/// The source of attempts that are counted together: an IPv4 address, or an IPv6 network of 64
/// bits, because one host can have all addresses of such a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    V4(u32),
    V6(u64),
    /// All addresses that are not counted separately.
    Others,
}

impl Origin {
    fn of(address: IpAddr) -> Origin {
        match address.to_canonical() {
            IpAddr::V4(address) => Origin::V4(address.to_bits()),
            IpAddr::V6(address) => Origin::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl SignInAttempts {
    fn lock(&self) -> MutexGuard<'_, AttemptTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether at least `max` attempts from this address were wrong in the current window. A `max`
    /// of 0 is no limit.
    fn is_blocked(&self, address: IpAddr, now: Now, max: u32) -> bool {
        let table = self.lock();
        let origin = table.place(Origin::of(address));
        let window = table.wrong.get(&origin).filter(|window| !window.is_over(now));
        max > 0 && window.is_some_and(|window| window.wrong >= max)
    }

    /// Counts a wrong attempt from an address.
    fn note_wrong(&self, address: IpAddr, now: Now) {
        let mut table = self.lock();
        table.make_room(now);
        let origin = table.place(Origin::of(address));
        let window = table.wrong.entry(origin).or_insert(Window { began_ms: now.ms, wrong: 0 });
        if window.is_over(now) {
            *window = Window { began_ms: now.ms, wrong: 0 };
        }
        window.wrong = window.wrong.saturating_add(1);
    }

    /// Counts an attempt to be logged; once a minute, returns the number of attempts since the last
    /// logged line.
    fn to_log(&self, now: Now) -> Option<u64> {
        let mut table = self.lock();
        table.unlogged += 1;
        let is_due = table.logged_ms.is_none_or(|at| now.ms.saturating_sub(at) >= WINDOW_MS);
        is_due.then(|| {
            table.logged_ms = Some(now.ms);
            std::mem::take(&mut table.unlogged)
        })
    }
}

impl AttemptTable {
    /// The key under which attempts from `origin` are counted: `origin` itself, or
    /// [`Origin::Others`] if the table is full.
    fn place(&self, origin: Origin) -> Origin {
        match self.wrong.len() < ADDRESSES_MAX || self.wrong.contains_key(&origin) {
            true => origin,
            false => Origin::Others,
        }
    }

    /// Removes expired windows if the table is full, at most once a second.
    fn make_room(&mut self, now: Now) {
        if self.wrong.len() >= ADDRESSES_MAX && now.ms.saturating_sub(self.cleaned_ms) >= 1000 {
            self.cleaned_ms = now.ms;
            self.wrong.retain(|_, window| !window.is_over(now));
        }
    }
}

/// Whether a sign-in from this address is refused without checking the token or password. A refused
/// sign-in is counted and logged.
pub(super) fn is_refused(env: &Env, conn: ConnId, peer: SocketAddr, now: Now) -> bool {
    let max = env.zenith.config.wrong_tokens_per_minute;
    let attempts = &env.zenith.state.attempts;
    let refused = attempts.is_blocked(peer.ip(), now, max);
    if refused {
        note(env, conn, peer, now, |counters| counters.sign_ins_refused.add(1));
    }
    refused
}

/// Counts and logs a wrong token, password or grant.
pub(super) fn note_wrong(env: &Env, conn: ConnId, peer: SocketAddr, now: Now) {
    env.zenith.state.attempts.note_wrong(peer.ip(), now);
    note(env, conn, peer, now, |counters| counters.sign_ins_wrong.add(1));
}

fn note(env: &Env, conn: ConnId, peer: SocketAddr, now: Now, add: impl FnOnce(&Counters)) {
    if let Some(counters) = env.counters.get(usize::from(conn.core)) {
        add(counters);
    }
    if let Some(attempts) = env.zenith.state.attempts.to_log(now) {
        let address = peer.ip();
        tracing::warn!(attempts, last = %address, "sign-in attempts to Zenith have failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn at(ms: u64) -> Now {
        Now { ms, unix_s: 0 }
    }

    fn v4(address: u32) -> IpAddr {
        IpAddr::V4(address.into())
    }

    #[test]
    fn sign_in_attempts_of_an_address_are_bounded_for_a_minute() {
        let attempts = SignInAttempts::default();
        for wrong in 0..10 {
            assert!(!attempts.is_blocked(v4(1), at(wrong), 10), "{wrong}");
            attempts.note_wrong(v4(1), at(wrong));
        }
        assert!(attempts.is_blocked(v4(1), at(59_999), 10));
        assert!(!attempts.is_blocked(v4(1), at(59_999), 11));
        assert!(!attempts.is_blocked(v4(1), at(59_999), 0), "0 is no bound");
        assert!(!attempts.is_blocked(v4(2), at(59_999), 10), "another address");
        assert!(!attempts.is_blocked(v4(1), at(60_000), 10), "the minute is over");
        attempts.note_wrong(v4(1), at(60_000));
        assert!(!attempts.is_blocked(v4(1), at(60_001), 2) && attempts.0.lock().is_ok());
        assert!(attempts.is_blocked(v4(1), at(60_001), 1), "and the next one has begun");
    }

    #[test]
    fn sign_in_attempts_of_an_ipv6_network_count_together() {
        let attempts = SignInAttempts::default();
        let v6 = |high: u128, low: u128| IpAddr::V6(Ipv6Addr::from_bits(high << 64 | low));
        attempts.note_wrong(v6(7, 1), at(0));
        assert!(attempts.is_blocked(v6(7, u64::MAX.into()), at(0), 1));
        assert!(!attempts.is_blocked(v6(8, 1), at(0), 1));
        let mapped = IpAddr::V6(Ipv6Addr::from_bits(0xffff_0102_0304));
        attempts.note_wrong(mapped, at(0));
        assert!(attempts.is_blocked(v4(0x0102_0304), at(0), 1), "an IPv4 address in IPv6");
    }

    #[test]
    fn sign_in_attempts_of_too_many_addresses_count_together() {
        let attempts = SignInAttempts::default();
        for address in 0..ADDRESSES_MAX as u32 {
            attempts.note_wrong(v4(address), at(1000));
        }
        assert!(attempts.is_blocked(v4(0), at(1000), 1));
        assert!(!attempts.is_blocked(v4(u32::MAX), at(1000), 1));
        attempts.note_wrong(v4(u32::MAX), at(1000));
        assert!(attempts.is_blocked(v4(u32::MAX - 1), at(1000), 1), "nobody else has room");
        assert_eq!(attempts.lock().wrong.len(), ADDRESSES_MAX + 1);
        attempts.note_wrong(v4(u32::MAX), at(61_000));
        assert_eq!(attempts.lock().wrong.len(), 1);
    }

    #[test]
    fn sign_in_attempts_are_logged_once_a_minute() {
        let attempts = SignInAttempts::default();
        let logged = [0, 1, 59_999, 60_000, 60_001].map(|ms| attempts.to_log(at(ms)));
        assert_eq!(logged, [Some(1), None, None, Some(3), None]);
    }
}
