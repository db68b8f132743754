//! The progress of a drain.

use std::ops::Range;

/// The maximum number of slices of a drain; each sweep closes one.
const SLICES: u32 = 16;
/// The minimum number of connections of a slice.
const SLICE_MIN: u32 = 256;

/// Progress of a drain. Connections are closed in slices, so that their clients do not all
/// reconnect at the same time.
pub(super) struct Drain {
    next: u32,
    slice: u32,
}

impl Drain {
    /// A drain of the connections with an index below `end`.
    pub(super) fn new(end: u32) -> Drain {
        Drain { next: 0, slice: end.div_ceil(SLICES).max(SLICE_MIN) }
    }

    /// Whether the last slice was the last one of a round.
    pub(super) fn is_done(&self) -> bool {
        self.next == 0
    }

    /// The indices of the next slice; all are below `end`. After the last slice the drain starts
    /// again from the first index, for connections that were accepted meanwhile.
    pub(super) fn next_slice(&mut self, end: u32) -> Range<u32> {
        let from = self.next.min(end);
        let to = from.saturating_add(self.slice).min(end);
        self.next = if to == end { 0 } else { to };
        from..to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drain_visits_every_index_and_starts_again() {
        let mut drain = Drain::new(600);
        let slices = [(); 4].map(|()| drain.next_slice(600));
        assert_eq!(slices, [0..256, 256..512, 512..600, 0..256]);
        let mut drain = Drain::new(16_000);
        assert_eq!(drain.next_slice(16_000), 0..1000);
        assert_eq!(drain.next_slice(500), 500..500, "most connections were closed meanwhile");
        assert_eq!(drain.next_slice(500), 0..500);
    }
}
