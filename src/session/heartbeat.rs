//! Heartbeats: when a silent peer gets a ping, and when its connection is closed.

use super::socket::{EXPIRED, LATE, Socket};
use super::{Context, Ending, StageResult};
use crate::dialect::{DialectEvent, Env, Why};
use crate::mem::Slot;
use crate::time::{Deadline, Now};

/// The number of steps over which heartbeats are spread in time.
const SPREAD: u32 = 4096;

/// Which heartbeat was sent last since bytes were received from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    None,
    /// A ping frame was sent.
    Ping,
    /// The peer did not answer the ping frame, and the dialect's own ping message was sent.
    AppPing,
}

impl Socket {
    /// Handles a deadline that is due: sends the next heartbeat, or closes the connection.
    pub(super) fn liveness(
        &mut self,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> StageResult {
        let now = cx.now;
        if !self.is_open() {
            // The peer did not send its close frame in time.
            cx.counters.timed_out.add(1);
            return StageResult::End(Ending::Cut);
        }
        if self.input.mid_message() && self.message_deadline(cx).due(now) {
            return self.end_late(out, cx);
        }
        if self.expiry(cx) {
            self.close(&EXPIRED, out);
            *deadline = now.plus_ms(cx.env.config.timeouts.close_ms);
            return StageResult::Again;
        }
        if self.dialect_deadline().due(now) {
            let after = self.call_dialect(DialectEvent::Deadline, out, cx);
            if !self.is_open() {
                *deadline = now.plus_ms(cx.env.config.timeouts.close_ms);
                return after;
            }
        }
        let answer_ms = self.heartbeat(cx.env).answer_ms;
        let silence_ms = self.silence_ms(cx.env, cx.conn.slot);
        let heard_ms = full(self.received, now);
        if now.ms.saturating_sub(heard_ms) < silence_ms {
            self.liveness = Liveness::None;
            *deadline = Deadline(heard_ms + silence_ms).min(self.own_deadline());
            if self.input.mid_message() {
                *deadline = (*deadline).min(self.message_deadline(cx));
            }
            return StageResult::Again;
        }
        if self.records().is_some() {
            return self.push_heartbeat(silence_ms, out, deadline, cx);
        }
        let (asked_ms, answer_ms) = match self.liveness {
            Liveness::None => (0, answer_ms / 2),
            Liveness::Ping => (answer_ms / 2, answer_ms.div_ceil(2)),
            Liveness::AppPing => (answer_ms, 0),
        };
        let missed = Deadline(heard_ms + silence_ms + asked_ms);
        if !missed.due(now) {
            // Only the dialect's deadline was due; the peer still has time to answer.
            *deadline = missed.min(self.own_deadline());
            return StageResult::Again;
        }
        match self.liveness {
            Liveness::None => {
                self.send_ping(out, cx);
                self.liveness = Liveness::Ping;
            }
            Liveness::Ping => {
                self.call_dialect(DialectEvent::AppPing, out, cx);
                self.liveness = Liveness::AppPing;
            }
            Liveness::AppPing => {
                cx.counters.timed_out.add(1);
                return self.close_for(Why::Silent, out, cx);
            }
        }
        *deadline = now.plus_ms(answer_ms).min(self.own_deadline());
        StageResult::Again
    }

    /// Closes the connection because a message did not arrive within `timeouts.message_ms`.
    fn end_late(&mut self, out: &mut Vec<u8>, cx: &Context<'_>) -> StageResult {
        cx.counters.timed_out.add(1);
        self.close(&LATE, out);
        StageResult::End(Ending::Flush)
    }

    /// How long the peer may be silent before a heartbeat is sent, in milliseconds. Up to an eighth
    /// of the configured time is subtracted, by the connection's index, so that connections which
    /// were opened in one burst do not get their heartbeats in one burst.
    pub(super) fn silence_ms(&self, env: &Env, slot: Slot) -> u64 {
        spread(self.heartbeat(env).silence_ms, slot)
    }
}

/// Restores a time in milliseconds from its low 32 bits. It must lie in the last 49 days.
pub(super) fn full(low: u32, now: Now) -> u64 {
    now.ms.saturating_sub((now.ms as u32).wrapping_sub(low).into())
}

fn spread(silence_ms: u64, slot: Slot) -> u64 {
    silence_ms - silence_ms / 8 * u64::from(slot.index % SPREAD) / u64::from(SPREAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_of_one_burst_are_spread_evenly() {
        let of = |index| spread(120_000, Slot { index, generation: 1 });
        assert_eq!((of(0), of(SPREAD / 2), of(SPREAD)), (120_000, 112_500, 120_000));
        let all: Vec<u64> = (0..SPREAD).map(of).collect();
        assert!(all.is_sorted_by(|a, b| a > b), "no two at once");
        assert!(all[all.len() - 1] > 120_000 - 120_000 / 8);
    }

    #[test]
    fn heartbeat_time_survives_a_wrap_of_its_low_bits() {
        for (then, later) in [(0, 0), (5, 7), (u64::from(u32::MAX), 10), (1 << 33, 1 << 31)] {
            let now = Now { ms: then + later, unix_s: 0 };
            assert_eq!(full(then as u32, now), then, "{then} {later}");
        }
    }
}
