//! Warnings in the log about refused tokens and about `limits.handshakes`, at most once a minute.

use crate::stats::Counters;
use crate::time::{Deadline, Now};

const EVERY_MS: u64 = 60_000;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Warnings {
    next: Deadline,
    /// The counters at the last warning.
    warned_at: [u64; 4],
}

impl Default for Warnings {
    fn default() -> Warnings {
        Warnings { next: Deadline(0), warned_at: [0; 4] }
    }
}

impl Warnings {
    /// Call a few times a second. New events are logged at once, but at most once a minute.
    pub(super) fn look(&mut self, core: u16, counters: &Counters, now: Now) {
        if !self.next.due(now) {
            return;
        }
        let counts = [
            counters.guard_failures_closed.get(),
            counters.guard_throttled.get(),
            counters.refused_handshake.get(),
            counters.accept_handshakes.get(),
        ];
        if counts == self.warned_at {
            return;
        }
        let new = |at: usize| counts[at].wrapping_sub(self.warned_at[at]);
        if new(0) + new(1) > 0 {
            let (closed, throttled) = (new(0), new(1));
            tracing::warn!(core, closed, throttled, "many tokens were refused");
        }
        if new(2) + new(3) > 0 {
            let (closed, delayed) = (new(2), new(3));
            let text = "limits.handshakes is reached: new connections wait in the backlog";
            tracing::warn!(core, closed, delayed, "{text}");
        }
        self.warned_at = counts;
        self.next = now.plus_ms(EVERY_MS);
    }
}
