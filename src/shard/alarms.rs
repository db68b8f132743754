//! What an operator is told once a minute, if it has happened.

use crate::stats::Counters;
use crate::time::{Deadline, Now};

const EVERY_MS: u64 = 60_000;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Alarms {
    next: Deadline,
    /// What the counters said last.
    on_peer: [u64; 4],
}

impl Default for Alarms {
    fn default() -> Alarms {
        Alarms { next: Deadline(0), on_peer: [0; 4] }
    }
}

impl Alarms {
    /// Call a few times a second. What has happened is logged at once, but not twice in a minute.
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
        if counts == self.on_peer {
            return;
        }
        let new = |at: usize| counts[at].wrapping_sub(self.on_peer[at]);
        if new(0) + new(1) > 0 {
            let (closed, throttled) = (new(0), new(1));
            tracing::warn!(core, closed, throttled, "many tokens are not accepted");
        }
        if new(2) + new(3) > 0 {
            let (closed, delayed) = (new(2), new(3));
            let text = "limits.handshakes is reached: newcomers wait until others have been served";
            tracing::warn!(core, closed, delayed, "{text}");
        }
        self.on_peer = counts;
        self.next = now.plus_ms(EVERY_MS);
    }
}
