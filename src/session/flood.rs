//! A bound on what a peer can send for next to nothing.

use super::Surroundings;

/// Counts what costs a peer next to nothing to send: pings, pongs and empty frames.
#[derive(Default)]
pub(super) struct Flood {
    /// The low bits of the second in which was counted last.
    second: u16,
    frames: u16,
}

impl Flood {
    /// Counts so many more; true when that is more than a second may bring.
    pub(super) fn is_over(&mut self, more: u16, around: &Surroundings<'_>) -> bool {
        let second = (around.now.ms / 1000) as u16;
        if second != self.second {
            *self = Flood { second, frames: 0 };
        }
        self.frames = self.frames.saturating_add(more);
        self.frames > around.env.config.limits.control_frames_per_s
    }
}
