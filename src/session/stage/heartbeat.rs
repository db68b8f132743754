//! Heartbeats: when a silent peer gets a ping, and when its connection is closed.
//!
//! The state of one connection's heartbeat is a function of times; it knows nothing of frames,
//! dialects and sessions.

use crate::dialect::Heartbeat;
use crate::mem::Slot;
use crate::time::{Deadline, Now};

/// The number of steps over which heartbeats are spread in time.
const SPREAD: u32 = 4096;

/// When bytes were last received from a peer, and which heartbeat was sent since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Liveness {
    /// The low 32 bits of the time in milliseconds, as bytes: the structure needs no padding.
    heard: [u8; 4],
    asked: Asked,
}

/// Which heartbeat was sent last since bytes were received from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// A ping frame was sent.
    Ping,
    /// The peer did not answer the ping frame, and the dialect's own ping message was sent.
    AppPing,
}

/// What is to be done when the deadline of a heartbeat is due, and the next deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeartbeatDue {
    /// Nothing: the peer was not silent for long enough.
    Received(Deadline),
    /// Nothing: the peer was asked and still has time to answer.
    Asked(Deadline),
    /// Send a heartbeat that the peer cannot answer.
    Record(Deadline),
    /// Send a ping frame.
    Ping(Deadline),
    /// Send the dialect's own ping message.
    AppPing(Deadline),
    /// Close the connection: the peer has not answered.
    Silent,
}

impl Liveness {
    pub(super) fn new(now_ms: u64) -> Liveness {
        Liveness { heard: low(now_ms), asked: Asked::Nothing }
    }

    /// Notes that bytes were received from the peer.
    pub(super) fn heard(&mut self, now: Now) {
        *self = Liveness::new(now.ms);
    }

    /// Returns what is due. `answers` is whether the peer can answer heartbeats; whether any other
    /// peer is alive shows in whether it reads. The peer has half of `answer_ms` for the ping
    /// frame, and the rest for the dialect's ping message.
    pub(super) fn due(&mut self, times: Heartbeat, answers: bool, now: Now) -> HeartbeatDue {
        let received_ms = full(u32::from_ne_bytes(self.heard), now);
        if now.ms.saturating_sub(received_ms) < times.silence_ms {
            self.asked = Asked::Nothing;
            return HeartbeatDue::Received(Deadline(received_ms + times.silence_ms));
        }
        if !answers {
            self.heard = low(now.ms);
            return HeartbeatDue::Record(now.plus_ms(times.silence_ms));
        }
        let (asked_ms, answer_ms) = match self.asked {
            Asked::Nothing => (0, times.answer_ms / 2),
            Asked::Ping => (times.answer_ms / 2, times.answer_ms.div_ceil(2)),
            Asked::AppPing => (times.answer_ms, 0),
        };
        let missed = Deadline(received_ms + times.silence_ms + asked_ms);
        if !missed.due(now) {
            return HeartbeatDue::Asked(missed);
        }
        let until = now.plus_ms(answer_ms);
        match self.asked {
            Asked::Nothing => {
                self.asked = Asked::Ping;
                HeartbeatDue::Ping(until)
            }
            Asked::Ping => {
                self.asked = Asked::AppPing;
                HeartbeatDue::AppPing(until)
            }
            Asked::AppPing => HeartbeatDue::Silent,
        }
    }
}

fn low(ms: u64) -> [u8; 4] {
    (ms as u32).to_ne_bytes()
}

/// The heartbeat times of one connection: up to an eighth of the configured silence is subtracted,
/// by the connection's index, so that connections which were opened in one burst do not get their
/// heartbeats in one burst.
pub(super) fn spread(times: Heartbeat, slot: Slot) -> Heartbeat {
    let index = u64::from(slot.index % SPREAD);
    // The silence can be endless, so that the product needs more than 64 bits.
    let less = u128::from(times.silence_ms / 8) * u128::from(index) / u128::from(SPREAD);
    let silence_ms = times.silence_ms - less as u64;
    Heartbeat { silence_ms, ..times }
}

/// Restores a time in milliseconds from its low 32 bits. It must lie in the last 49 days.
pub(super) fn full(low: u32, now: Now) -> u64 {
    now.ms.saturating_sub((now.ms as u32).wrapping_sub(low).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_that_are_endless_are_spread_for_every_index() {
        for index in [0, 8, 9, SPREAD - 1, u32::MAX] {
            let slot = Slot { index, generation: 1 };
            let times = Heartbeat { silence_ms: u64::MAX, answer_ms: 1 };
            assert!(spread(times, slot).silence_ms > u64::MAX / 8 * 7);
        }
    }

    #[test]
    fn heartbeats_of_one_burst_are_spread_evenly() {
        let times = Heartbeat { silence_ms: 120_000, answer_ms: 30_000 };
        let of = |index| spread(times, Slot { index, generation: 1 }).silence_ms;
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

    #[test]
    fn heartbeat_due_follows_from_the_silence_and_what_was_sent() {
        use Asked::{AppPing, Nothing, Ping};
        let times = Heartbeat { silence_ms: 100, answer_ms: 31 };
        let heard = 1000;
        let at = |ms| Deadline(heard + ms);
        for (asked, silent_ms, want, then) in [
            (Nothing, 0, HeartbeatDue::Received(at(100)), Nothing),
            (Nothing, 99, HeartbeatDue::Received(at(100)), Nothing),
            // Bytes that arrive after a ping count as its answer.
            (Ping, 99, HeartbeatDue::Received(at(100)), Nothing),
            (AppPing, 5, HeartbeatDue::Received(at(100)), Nothing),
            (Nothing, 100, HeartbeatDue::Ping(at(115)), Ping),
            (Nothing, 400, HeartbeatDue::Ping(at(415)), Ping),
            (Ping, 100, HeartbeatDue::Asked(at(115)), Ping),
            (Ping, 114, HeartbeatDue::Asked(at(115)), Ping),
            (Ping, 115, HeartbeatDue::AppPing(at(131)), AppPing),
            (AppPing, 130, HeartbeatDue::Asked(at(131)), AppPing),
            (AppPing, 131, HeartbeatDue::Silent, AppPing),
        ] {
            let mut liveness = Liveness { heard: low(heard), asked };
            let now = Now { ms: heard + silent_ms, unix_s: 0 };
            assert_eq!(liveness.due(times, true, now), want, "{asked:?} {silent_ms}");
            assert_eq!(liveness, Liveness { heard: low(heard), asked: then });
        }
    }

    #[test]
    fn heartbeat_that_cannot_be_answered_repeats() {
        let times = Heartbeat { silence_ms: 100, answer_ms: 30 };
        let now = |ms| Now { ms, unix_s: 0 };
        let mut liveness = Liveness::new(1000);
        for (ms, want) in [
            (1099, HeartbeatDue::Received(Deadline(1100))),
            (1101, HeartbeatDue::Record(Deadline(1201))),
            (1200, HeartbeatDue::Received(Deadline(1201))),
            (1201, HeartbeatDue::Record(Deadline(1301))),
        ] {
            assert_eq!(liveness.due(times, false, now(ms)), want, "{ms}");
        }
    }
}
