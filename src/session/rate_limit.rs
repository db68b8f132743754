//! A bound on what a peer can send for next to nothing.

use super::Context;

/// Counts what costs a peer next to nothing to send: pings, pongs and empty frames.
#[derive(Default)]
pub(super) struct RateLimit {
    /// The low bits of the second in which was counted last.
    second: u16,
    frames: u16,
}

impl RateLimit {
    /// Counts so many more; true when that is more than a second may bring.
    pub(super) fn is_over(&mut self, more: u16, cx: &Context<'_>) -> bool {
        let second = (cx.now.ms / 1000) as u16;
        if second != self.second {
            *self = RateLimit { second, frames: 0 };
        }
        self.frames = self.frames.saturating_add(more);
        self.frames > cx.env.config.limits.control_frames_per_s
    }
}
