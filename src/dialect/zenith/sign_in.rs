//! Refuses, counts and logs wrong sign-ins.

use crate::dialect::Env;
use crate::hub::ConnId;
use crate::stats::Counters;
use crate::time::Now;
use std::net::SocketAddr;

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
    if let Some(counters) = env.runtime.counters.get(usize::from(conn.core)) {
        add(counters);
    }
    if let Some(attempts) = env.zenith.state.attempts.to_log(now) {
        let address = peer.ip();
        tracing::warn!(attempts, last = %address, "sign-in attempts to Zenith have failed");
    }
}
