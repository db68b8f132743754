//! The memory that one connection holds, in bytes, and what happens to the connection when the core
//! is short of memory.

use super::{Context, Ending, Session, SessionEvent};
use crate::time::Now;

/// The maximum number of queued bytes with which a connection that ends for lack of memory still
/// gets a close frame or a response. With more, the peer has not read earlier bytes either.
const NOTIFY_BYTES: usize = 64 * 1024;

/// The rate at which bytes leave a write queue. A peer that reads too slowly is disconnected
/// although it makes progress.
#[derive(Clone, Default)]
pub struct SendRate {
    /// When counting began: the low 32 bits of the time in milliseconds; 0 while the queue is
    /// empty.
    since: u32,
    bytes: u32,
}

impl SendRate {
    /// Notes that `n` bytes were sent.
    pub fn add(&mut self, n: usize) {
        self.bytes = self.bytes.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// Checks the rate at a sweep. Returns true if the queue was not empty for `window_ms` and less
    /// than `min_per_s` bytes per second were sent in that time. 0 is no minimum.
    fn is_too_low(&mut self, waits: bool, min_per_s: u64, window_ms: u64, now: Now) -> bool {
        let now_ms = (now.ms as u32).max(1);
        if !waits {
            *self = SendRate::default();
            return false;
        }
        if self.since == 0 {
            *self = SendRate { since: now_ms, bytes: 0 };
            return false;
        }
        let passed = u64::from(now_ms.wrapping_sub(self.since));
        if passed < window_ms {
            return false;
        }
        let low = u64::from(self.bytes) * 1000 < min_per_s * passed;
        *self = SendRate { since: now_ms, bytes: 0 };
        low
    }
}

impl Session {
    /// Heap bytes of input that was not handled yet: an unfinished message or request, input that
    /// is held while reading is paused, and a parked message.
    pub fn input_bytes(&self) -> usize {
        self.link.held_input_bytes() + self.stage.held_bytes()
    }

    /// Heap bytes that only this connection holds: its input, and its own replies in the write
    /// queue. Shared frames are counted once, by [`crate::mem::frame_bytes`].
    pub fn held_bytes(&self) -> usize {
        self.input_bytes() + self.link.queue.held_bytes()
    }

    /// Bytes that would be freed if every connection that shares this one's frames were ended: its
    /// input and its whole write queue.
    pub fn burden(&self) -> usize {
        self.input_bytes() + self.link.queue.bytes()
    }

    /// Ends the connection because the core is short of memory, and frees its input.
    pub(super) fn on_out_of_memory(&mut self, cx: &mut Context<'_>) {
        if self.link.is_open() && self.link.queue.bytes() <= NOTIFY_BYTES {
            self.call(cx, SessionEvent::OutOfMemory);
        } else {
            self.end(Ending::Cut, cx);
        }
        self.drop_unneeded(cx);
    }

    /// Ends the connection at a sweep if its peer has read less than `limits.min_bytes_per_s` for
    /// `timeouts.send_ms`.
    pub(super) fn end_if_too_slow(&mut self, rate: &mut SendRate, cx: &mut Context<'_>) {
        let config = &cx.env.config;
        let (min, window) = (config.limits.min_bytes_per_s, config.timeouts.send_ms);
        let waits = !self.link.queue.is_empty() && self.link.ending() != Ending::Cut;
        if rate.is_too_low(waits, min, window, cx.now) {
            cx.counters.send_too_slow.add(1);
            self.end(Ending::Cut, cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_rate_has_a_bound_on_both_sides() {
        let now = |ms| Now { ms, unix_s: 0 };
        for (bytes, min, low) in
            [(10_239, 1024, true), (10_240, 1024, false), (0, 1024, true), (0, 0, false)]
        {
            let mut rate = SendRate::default();
            assert!(!rate.is_too_low(true, min, 10_000, now(5000)), "it begins");
            rate.bytes = bytes;
            assert!(!rate.is_too_low(true, min, 10_000, now(14_999)));
            assert_eq!(rate.is_too_low(true, min, 10_000, now(15_000)), low, "{bytes} {min}");
        }
        // An empty queue in between restarts the window.
        let mut rate = SendRate::default();
        assert!(!rate.is_too_low(true, 1024, 10_000, now(5000)));
        assert!(!rate.is_too_low(false, 1024, 10_000, now(10_000)));
        assert!(!rate.is_too_low(true, 1024, 10_000, now(15_000)));
        assert!(rate.is_too_low(true, 1024, 10_000, now(25_000)));
    }
}
