//! The limit of control frames and empty frames per second, which cost a peer almost nothing to
//! send.

use crate::session::Context;

/// Counts pings, pongs and empty frames of one connection by the second.
#[derive(Default)]
pub(super) struct RateLimit {
    /// The low 16 bits of the second of the last count.
    second: u16,
    frames: u16,
}

impl RateLimit {
    /// Counts `more` frames. Returns true if this second has had more than
    /// `limits.control_frames_per_s`.
    pub(super) fn is_over(&mut self, more: u16, cx: &Context<'_>) -> bool {
        let second = (cx.now.ms / 1000) as u16;
        if second != self.second {
            *self = RateLimit { second, frames: 0 };
        }
        self.frames = self.frames.saturating_add(more);
        self.frames > cx.env.config.limits.control_frames_per_s
    }
}
