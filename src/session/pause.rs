//! Paused reading: input that was already received is held, and each connection has a share of a
//! turn.

use crate::work;

/// The maximum number of held bytes with which more is read from a connection that waits only for
/// the next turn. Pausing and resuming a receive costs two kernel operations.
pub(super) const READ_AHEAD: usize = work::CONNECTION_BYTES;

/// Input that is held while reading is paused, and the number of its bytes that were already taken.
/// Taken bytes are removed only when they are more than half, so that a long input is not moved in
/// every turn.
#[derive(Debug, Default)]
pub struct HeldInput {
    bytes: Vec<u8>,
    taken: usize,
}

impl HeldInput {
    /// Adds input to the end.
    pub(super) fn hold(&mut self, rest: &[u8]) {
        self.bytes.extend_from_slice(rest);
    }

    /// The number of bytes that are kept, taken ones included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether all bytes were taken.
    pub(super) fn is_taken(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// The bytes that were not taken yet.
    pub fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.taken..]
    }

    /// Notes that `n` bytes of the rest were taken.
    pub fn take(&mut self, n: usize) {
        self.taken += n;
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.bytes.shrink_to_fit();
            self.taken = 0;
        }
    }
}

/// How much a connection has used of its share of one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// The low bits of the turn's number.
    turn: u16,
    /// The used part, in units of 1/[`Share::WHOLE`].
    used: u16,
}

impl Share {
    const WHOLE: u16 = 1024;
    const MESSAGE: u64 = Share::WHOLE as u64 / work::CONNECTION_MESSAGES as u64;
    const BYTES: usize = work::CONNECTION_BYTES / Share::WHOLE as usize;
    const WORK: u64 = work::CONNECTION_WORK / Share::WHOLE as u64;

    /// Counts one step that took `bytes` bytes and cost `work` units of work.
    pub(super) fn add(&mut self, turn: u16, bytes: usize, work: u64) {
        let used = Share::MESSAGE + (bytes / Share::BYTES) as u64 + work / Share::WORK;
        let before = if self.turn == turn { self.used } else { 0 };
        *self = Share { turn, used: before.saturating_add(used.min(u16::MAX.into()) as u16) };
    }

    pub(super) fn is_used_up(self, turn: u16) -> bool {
        self.turn == turn && self.used >= Share::WHOLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{CONNECTION_BYTES, CONNECTION_MESSAGES, CONNECTION_WORK};

    /// The number of steps until the share of a turn is used up.
    fn steps(bytes: usize, work: u64) -> u32 {
        let (mut share, mut steps) = (Share::default(), 0);
        while !share.is_used_up(7) {
            share.add(7, bytes, work);
            steps += 1;
        }
        assert!(!share.is_used_up(8), "another turn");
        share.add(8, 0, 0);
        assert!(!share.is_used_up(8));
        steps
    }

    #[test]
    fn share_is_bounded_in_messages_bytes_and_work() {
        assert_eq!(steps(7, 300), CONNECTION_MESSAGES);
        assert_eq!(steps(CONNECTION_BYTES, 0), 1);
        assert_eq!(steps(CONNECTION_BYTES - 5 * Share::BYTES, 0), 2);
        assert_eq!(steps(0, CONNECTION_WORK), 1);
        assert_eq!(steps(0, CONNECTION_WORK - 5 * Share::WORK), 2);
        assert_eq!(steps(usize::MAX, u64::MAX), 1);
    }

    #[test]
    fn held_input_is_taken_in_order_and_not_kept() {
        let mut held = HeldInput { bytes: (0..100).collect(), taken: 0 };
        let mut seen = Vec::new();
        for n in [1, 0, 40, 20, 39] {
            seen.extend_from_slice(&held.rest()[..n]);
            held.take(n);
        }
        assert_eq!(seen, (0..100).collect::<Vec<u8>>());
        assert!(held.rest().is_empty() && held.bytes.capacity() == 0);
    }
}
