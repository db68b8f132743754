//! The limit of control frames and empty frames per second, which cost a peer almost nothing to
//! send.

use super::Context;
use crate::time::RateLimit;

/// Counts pings, pongs and empty frames of one connection by the second.
#[derive(Default)]
pub(super) struct ControlFrameLimit(RateLimit);

impl ControlFrameLimit {
    /// Counts `more` frames. Returns true if this second has had more than
    /// `limits.control_frames_per_s`.
    pub(super) fn is_over(&mut self, more: u16, cx: &Context<'_>) -> bool {
        let max = cx.env.config.limits.control_frames_per_s;
        self.0.add(more.into(), cx.now.ms) > max.into()
    }
}
