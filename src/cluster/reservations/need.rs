//! How many connections of an application a node should have reserved.

/// What is true of an application on a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionNeed {
    /// The maximum number of connections on all nodes.
    pub(super) limit: u32,
    /// The number of open connections here.
    pub(super) open: u32,
    /// The number of connections that wait here.
    pub(super) waiting: u32,
    /// The number that this node has reserved.
    pub(super) reserved: u32,
    /// The number that the other nodes have reserved.
    pub(super) others: u64,
    /// The number of nodes.
    pub(super) nodes: u32,
}

impl ConnectionNeed {
    /// Whether more is reserved than the limit: it was lowered, or a node has come back with its
    /// connections that counted as dead.
    pub(super) fn is_over(&self) -> bool {
        self.others + u64::from(self.reserved) > self.limit.into()
    }

    /// Whether nothing of the limit is left.
    pub(super) fn is_exhausted(&self) -> bool {
        self.others + u64::from(self.reserved) >= self.limit.into()
    }

    /// What no node has reserved.
    fn free(&self) -> u32 {
        let taken = self.others + u64::from(self.reserved);
        u64::from(self.limit).saturating_sub(taken) as u32
    }

    fn needed(&self) -> u32 {
        self.open.saturating_add(self.waiting)
    }

    /// What is reserved beyond what is needed.
    fn surplus(&self) -> u32 {
        self.reserved.saturating_sub(self.needed())
    }

    /// What a node reserves at a time beyond its need: a quarter of its part of what it may get, so
    /// that little is left unused when the limit is nearly reached.
    fn chunk(&self) -> u32 {
        let available = u64::from(self.free()) + u64::from(self.surplus());
        (available / (4 * u64::from(self.nodes.max(1)))) as u32
    }

    /// The number of open connections from which on more is to be reserved, before all of it is in
    /// use.
    pub(super) fn ask_from(&self) -> u32 {
        match self.chunk() / 2 {
            0 => u32::MAX,
            low => self.reserved.saturating_sub(low) + 1,
        }
    }

    /// The number that this node should have reserved.
    pub(super) fn wanted(&self) -> u32 {
        if self.is_over() {
            return self.open;
        }
        let (needed, surplus, chunk) = (self.needed(), self.surplus(), self.chunk());
        let lacks = needed > self.reserved || needed > 0 && surplus < chunk / 2;
        let max = self.reserved.saturating_add(self.free());
        match () {
            // What is open is stated in any case.
            () if lacks => needed.saturating_add(chunk).min(max).max(self.open),
            () if surplus > 2 * chunk => needed + chunk,
            () => self.reserved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn need(limit: u32, open: u32, waiting: u32, reserved: u32, others: u64) -> ConnectionNeed {
        ConnectionNeed { limit, open, waiting, reserved, others, nodes: 3 }
    }

    #[test]
    fn reservations_grow_by_a_quarter_of_a_nodes_part() {
        // A chunk is 100 of 1200 with three nodes.
        assert_eq!(need(1200, 0, 0, 0, 0).wanted(), 0, "nobody connects");
        assert_eq!(need(1200, 0, 1, 0, 0).wanted(), 101);
        assert_eq!(need(1200, 0, 1, 0, 600).wanted(), 51);
        // The surplus is half of a chunk, or less.
        for (open, wanted, asks) in [(53, 100, false), (54, 149, true), (100, 191, true)] {
            let it = need(1200, open, 0, 100, 0);
            assert_eq!((it.wanted(), open >= it.ask_from()), (wanted, asks), "{open}");
        }
        // Never beyond the limit.
        assert_eq!(need(1200, 100, 50, 100, 1060).wanted(), 140);
        assert_eq!(need(1200, 100, 50, 100, 1100).wanted(), 100);
        // Near the limit it is what is needed.
        assert_eq!(need(10, 2, 1, 2, 5).wanted(), 3);
        assert_eq!(need(10, 3, 0, 3, 5).ask_from(), u32::MAX);
    }

    #[test]
    fn reservations_are_given_back_above_two_chunks() {
        // 300 are available, so a chunk is 25.
        for (reserved, wanted) in [(60, 60), (61, 35)] {
            assert_eq!(need(310, 10, 0, reserved, 0).wanted(), wanted, "{reserved}");
        }
        // Nothing is free: all of it in the end.
        let mut it = need(1000, 10, 0, 110, 890);
        let mut steps = Vec::new();
        while it.wanted() != it.reserved {
            let kept = it.wanted();
            it.others += u64::from(it.reserved - kept);
            it.reserved = kept;
            steps.push(kept);
        }
        assert_eq!(steps, [18, 10]);
    }

    #[test]
    fn reservations_over_the_limit_are_what_is_open() {
        let it = need(100, 40, 5, 60, 41);
        assert!(it.is_over() && it.is_exhausted());
        assert_eq!(it.wanted(), 40);
        let it = need(100, 40, 5, 60, 40);
        assert!(!it.is_over() && it.is_exhausted());
        assert_eq!(it.wanted(), 46, "it gives back what it does not need");
        assert!(!need(100, 40, 5, 60, 39).is_exhausted());
        // More is open than was reserved.
        assert_eq!(need(100, 80, 0, 10, 50).wanted(), 80);
        assert_eq!(need(100, 30, 0, 0, 50).wanted(), 34);
        assert_eq!(need(0, 7, 0, 0, 0).wanted(), 7);
    }

    proptest! {
        #[test]
        fn reservations_stay_within_the_limit(
            limit in 0..5000u32,
            open in 0..5000u32,
            waiting in 0..2000u32,
            reserved in 0..5000u32,
            others in 0..6000u64,
            nodes in 0..9u32,
        ) {
            let it = ConnectionNeed { limit, open, waiting, reserved, others, nodes };
            let wanted = it.wanted();
            let is_within = u64::from(wanted) + others <= limit.into();
            prop_assert!(is_within || wanted <= open, "{wanted} of {it:?}");
            // Whoever has what it wants, wants nothing else.
            if is_within && !it.is_over() {
                let others_of = ConnectionNeed { reserved: wanted, ..it };
                prop_assert!(others_of.wanted() <= wanted.max(open), "{it:?}");
            }
            // Something is wanted for those that wait, if there is something.
            if waiting > 0 && open >= reserved && !it.is_exhausted() {
                prop_assert!(wanted > reserved, "{wanted} of {it:?}");
            }
        }
    }
}
