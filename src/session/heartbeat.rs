//! When a peer is asked for a sign of life.

use super::socket::Socket;
use crate::dialect::Env;
use crate::mem::Slot;

/// Places among which signs of life are spread over time.
const SPREAD: u32 = 4096;

impl Socket {
    /// How long the peer may be silent before it is asked for a sign of life. The connections that
    /// came in one burst are not asked in one: up to an eighth of the time is taken off, by the
    /// number of the connection's place.
    pub(super) fn silence_ms(&self, env: &Env, slot: Slot) -> u64 {
        spread(self.heartbeat(env).silence_ms, slot)
    }
}

fn spread(silence_ms: u64, slot: Slot) -> u64 {
    silence_ms - silence_ms / 8 * u64::from(slot.index % SPREAD) / u64::from(SPREAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_of_one_burst_are_spread_evenly() {
        let of = |index| spread(120_000, Slot { index, generation: 1 });
        assert_eq!((of(0), of(SPREAD / 2), of(SPREAD)), (120_000, 112_500, 120_000));
        let all: Vec<u64> = (0..SPREAD).map(of).collect();
        assert!(all.is_sorted_by(|a, b| a > b), "no two at once");
        assert!(all[all.len() - 1] > 120_000 - 120_000 / 8);
    }
}
