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

/// The time at which a connection works: which turn, and which period of [`work::LIGHT_MS`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnTime {
    /// The low bits of the turn's number.
    pub turn: u16,
    /// The low bits of the period's number.
    pub period: u16,
}

/// How much a connection has used of its share of one turn, and how much in one period, in four
/// bytes. When the low bits of an old number return, a connection waits a little longer than
/// others, once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// The used part of the turn's share, in units of 1/[`Share::WHOLE`], and above it the low bits
    /// of the turn's number.
    turn: u16,
    /// What was used in the period, in the same units, and above it the low bits of the period's
    /// number.
    period: u16,
}

impl Share {
    const WHOLE: u16 = 1024;
    const MESSAGE: u64 = Share::WHOLE as u64 / work::CONNECTION_MESSAGES as u64;
    const BYTES: usize = work::CONNECTION_BYTES / Share::WHOLE as usize;
    const WORK: u64 = work::CONNECTION_WORK / Share::WHOLE as u64;
    const LIGHT: u16 = Share::WHOLE / work::LIGHT as u16;

    /// The bits of the two amounts; the rest of each field is a number.
    const TURN_BITS: u32 = 11;
    const PERIOD_BITS: u32 = 7;

    /// Counts one step that took `bytes` bytes and cost `work` units of work.
    pub(super) fn add(&mut self, at: TurnTime, bytes: usize, work: u64) {
        let used = Share::MESSAGE + (bytes / Share::BYTES) as u64 + work / Share::WORK;
        let used = used.min(Share::WHOLE.into()) as u16;
        let in_turn = amount(self.turn, at.turn, Share::TURN_BITS) + used;
        let recent = amount(self.period, at.period, Share::PERIOD_BITS) + used;
        self.turn = (at.turn << Share::TURN_BITS) | in_turn.min(Share::WHOLE);
        self.period = (at.period << Share::PERIOD_BITS) | recent.min(Share::LIGHT);
    }

    pub(super) fn is_used_up(self, at: TurnTime) -> bool {
        amount(self.turn, at.turn, Share::TURN_BITS) >= Share::WHOLE
    }

    /// Whether little was used in the period.
    pub(super) fn is_light(self, at: TurnTime) -> bool {
        amount(self.period, at.period, Share::PERIOD_BITS) < Share::LIGHT
    }
}

/// The amount in the low `bits` of a field, if the bits above are those of `number`; else 0.
fn amount(field: u16, number: u16, bits: u32) -> u16 {
    let is_now = field >> bits == (number << bits) >> bits;
    if is_now { field & ((1 << bits) - 1) } else { 0 }
}

const _: () = assert!(Share::WHOLE < 1 << Share::TURN_BITS);
const _: () = assert!(Share::LIGHT < 1 << Share::PERIOD_BITS);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{CONNECTION_BYTES, CONNECTION_MESSAGES, CONNECTION_WORK, LIGHT};

    /// The number of steps until the share of a turn is used up.
    fn steps(bytes: usize, work: u64) -> u32 {
        let (mut share, mut steps) = (Share::default(), 0);
        let [now, next] = [7, 8].map(|turn| TurnTime { turn, period: 3 });
        while !share.is_used_up(now) {
            share.add(now, bytes, work);
            steps += 1;
        }
        assert!(!share.is_used_up(next), "another turn");
        share.add(next, 0, 0);
        assert!(!share.is_used_up(next));
        steps
    }

    /// The number of steps, one in each turn, until the connection is busy.
    fn light_steps(bytes: usize, work: u64) -> u32 {
        let (mut share, mut at) = (Share::default(), TurnTime { turn: 0, period: 3 });
        while share.is_light(at) {
            share.add(at, bytes, work);
            at.turn += 1;
        }
        let next = TurnTime { period: 4, ..at };
        assert!(share.is_light(next), "another period");
        share.add(next, 0, 0);
        assert!(share.is_light(next));
        at.turn.into()
    }

    #[test]
    fn share_of_a_light_connection_is_bounded_over_several_turns() {
        let part = LIGHT as usize;
        assert_eq!(light_steps(7, 300), CONNECTION_MESSAGES / part as u32);
        assert_eq!(light_steps(CONNECTION_BYTES / part, 0), 1);
        assert_eq!(light_steps(CONNECTION_BYTES / part - 5 * Share::BYTES, 0), 2);
        assert_eq!(light_steps(0, CONNECTION_WORK / LIGHT), 1);
        assert_eq!(light_steps(0, CONNECTION_WORK / LIGHT - 5 * Share::WORK), 2);
        assert_eq!(light_steps(usize::MAX, u64::MAX), 1);
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
