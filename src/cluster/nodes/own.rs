//! This node's own entry: when it is renewed, and what follows from the answers.
//!
//! At any time one renewal is under way. It expects the sequence number of the one before, so the
//! engine refuses it if another node has declared this one dead meanwhile. An answer that does not
//! come is asked for by sending the same renewal again; the engine stores it once.

use super::timing::NodeTiming;
use crate::cluster::entry::NodePhase;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct OwnNode {
    timing: NodeTiming,
    /// The id of the present life.
    id: u64,
    /// The sequence number of the last renewal; 0 if there is none in this life.
    sequence: u64,
    under_way: Option<Renewal>,
    /// When the next renewal is due, in milliseconds.
    next_ms: u64,
    /// Whether it is due as soon as the one under way is answered.
    is_hastened: bool,
    /// When the last renewal that was stored had been sent first.
    acked_ms: Option<u64>,
    /// When a renewal was last read from the log.
    read_ms: Option<u64>,
    /// Since when renewals have been read without a break as long as the fence.
    steady_ms: u64,
    /// Since when a renewal is refused because another entry was expected.
    conflict_ms: Option<u64>,
}

/// A renewal that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Renewal {
    /// Its number among the entries about nodes.
    pub(super) number: u64,
    pub(super) state: NodePhase,
    /// The sequence number that it expects.
    pub(super) expected: u64,
    begun_ms: u64,
    /// When it is sent again; `None` if it has not been sent on this connection.
    again_ms: Option<u64>,
}

impl OwnNode {
    pub(super) fn new(timing: NodeTiming, id: u64) -> OwnNode {
        OwnNode {
            timing,
            id,
            sequence: 0,
            under_way: None,
            next_ms: 0,
            is_hastened: false,
            acked_ms: None,
            read_ms: None,
            steady_ms: 0,
            conflict_ms: None,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Begins a life with another id, of which the log has nothing yet.
    pub(super) fn begin(&mut self, id: u64) {
        *self = OwnNode::new(self.timing, id);
    }

    /// Notes that the log is read from its beginning, which shows what it has of this node.
    pub(super) fn suspend(&mut self) {
        self.begin(self.id);
    }

    /// Goes on with the entry that was read from the log.
    pub(super) fn resume(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    /// Whether the log has an entry of this life, and the answers are not more than the fence old:
    /// otherwise this node may have been declared dead, and writes nothing besides renewals.
    pub(super) fn may_append(&self, now_ms: u64) -> bool {
        self.appends_until_ms().is_some_and(|until_ms| now_ms <= until_ms)
    }

    /// When the last renewal of this life was sent first that is stored, in milliseconds.
    pub(super) fn acked_ms(&self) -> Option<u64> {
        self.acked_ms
    }

    /// Until when this node may append if no further answer comes, in milliseconds; `None` if the
    /// log has no entry of this life.
    pub(super) fn appends_until_ms(&self) -> Option<u64> {
        Some(self.acked_ms? + self.timing.fence_ms())
    }

    /// Whether answers had come in this life, and have not for so long that it may not append.
    pub(super) fn is_fenced(&self, now_ms: u64) -> bool {
        self.acked_ms.is_some() && !self.may_append(now_ms)
    }

    /// Whether this node can know that another one is silent: its own renewals have been read for
    /// as long as a node must be silent, without a break.
    pub(super) fn can_judge(&self, now_ms: u64) -> bool {
        let is_reading = self.read_ms.is_some_and(|it| now_ms <= it + self.timing.fence_ms());
        is_reading && self.may_append(now_ms) && self.steady_ms + self.timing.dead_ms <= now_ms
    }

    /// When [`OwnNode::next`] has something, in milliseconds.
    pub(super) fn deadline_ms(&self) -> u64 {
        match (&self.under_way, self.conflict_ms) {
            (Some(renewal), _) => renewal.again_ms.unwrap_or(0),
            (None, Some(since_ms)) => since_ms + self.timing.dead_ms,
            (None, None) => self.next_ms,
        }
    }

    /// Lets the next renewal be due at once, because the state has changed.
    pub(super) fn hasten(&mut self) {
        (self.next_ms, self.is_hastened) = (0, true);
    }

    /// The renewal that is to be sent now. A new one has this state, and takes its number from
    /// `numbers`.
    pub(super) fn next(
        &mut self,
        state: NodePhase,
        numbers: &mut u64,
        now_ms: u64,
    ) -> Option<Renewal> {
        if self.under_way.is_none() && self.conflict_ms.is_none() && self.next_ms <= now_ms {
            *numbers += 1;
            let (number, expected) = (*numbers, self.sequence);
            let renewal = Renewal { number, state, expected, begun_ms: now_ms, again_ms: None };
            (self.under_way, self.is_hastened) = (Some(renewal), false);
        }
        let renewal = self.under_way.as_mut()?;
        if renewal.again_ms.is_some_and(|it| it > now_ms) {
            return None;
        }
        renewal.again_ms = Some(now_ms + self.timing.renew_ms);
        Some(*renewal)
    }

    /// Notes that the engine has come back: what is read now may explain a conflict.
    pub(super) fn attached(&mut self, now_ms: u64) {
        self.conflict_ms = self.conflict_ms.map(|_| now_ms);
    }

    /// Notes that answers that are missing will not come.
    pub(super) fn lost(&mut self) {
        if let Some(renewal) = &mut self.under_way {
            renewal.again_ms = None;
        }
    }

    /// Notes that an entry is stored. Returns the state that it has if it is the renewal under way.
    pub(super) fn stored(&mut self, number: u64, sequence: u64) -> Option<NodePhase> {
        let renewal = self.under_way.take_if(|it| it.number == number)?;
        self.sequence = self.sequence.max(sequence);
        self.acked_ms = Some(renewal.begun_ms);
        let next_ms = renewal.begun_ms + self.timing.renew_ms;
        self.next_ms = if self.is_hastened { 0 } else { next_ms };
        Some(renewal.state)
    }

    /// Notes that an entry was not stored. After a conflict the log has what has come between,
    /// which may have been read meanwhile.
    pub(super) fn refused(&mut self, number: u64, is_conflict: bool, now_ms: u64) -> bool {
        let Some(renewal) = self.under_way.take_if(|it| it.number == number) else { return false };
        match is_conflict {
            true if renewal.expected < self.sequence => self.next_ms = 0,
            true => self.conflict_ms = Some(now_ms),
            // Soon, and not at once: the log may be full.
            false => self.next_ms = now_ms + self.timing.renew_ms / 4,
        }
        true
    }

    /// Notes a renewal that was read from the log. Returns the state that it has if it is the one
    /// under way, whose answer may come later, or not at all.
    pub(super) fn read(&mut self, number: u64, sequence: u64, now_ms: u64) -> Option<NodePhase> {
        let fence_ms = self.timing.fence_ms();
        if self.read_ms.is_none_or(|it| it + fence_ms < now_ms) {
            self.steady_ms = now_ms;
        }
        self.read_ms = Some(now_ms);
        let stored = self.stored(number, sequence);
        if sequence > self.sequence {
            self.sequence = sequence;
            self.conflict_ms = None;
        }
        stored
    }

    /// Whether a conflict has lasted for so long that the log will not explain it any more.
    pub(super) fn is_stuck(&self, now_ms: u64) -> bool {
        self.conflict_ms.is_some_and(|since_ms| since_ms + self.timing.dead_ms <= now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::nodes::tests::TIMING;

    const UP: NodePhase = NodePhase::Up;

    /// A node whose first renewal, number 1, was sent at 0 and has sequence number 10.
    fn stored() -> OwnNode {
        let mut own = OwnNode::new(TIMING, 7);
        assert!(!own.may_append(0), "the log has nothing of it");
        let renewal = own.next(UP, &mut 0, 0).expect("the first is due at once");
        assert_eq!((renewal.number, renewal.expected), (1, 0));
        assert_eq!(own.stored(1, 10), Some(UP));
        own.read(1, 10, 0);
        own
    }

    #[test]
    fn cluster_own_node_renews_its_entry_in_time() {
        let mut own = stored();
        assert_eq!((own.deadline_ms(), own.next(UP, &mut 1, 999)), (1000, None));
        let renewal = own.next(NodePhase::Leaving, &mut 1, 1000).expect("it is due");
        assert_eq!((renewal.number, renewal.expected), (2, 10));
        // No answer: the same one is sent again, with the state that it had.
        assert_eq!((own.deadline_ms(), own.next(UP, &mut 2, 1999)), (2000, None));
        let again = own.next(UP, &mut 2, 2000).expect("it is due");
        assert_eq!((again.number, again.state), (2, NodePhase::Leaving));
        assert_eq!(own.stored(1, 11), None, "another one");
        assert_eq!(own.stored(2, 11), Some(NodePhase::Leaving));
        // The answer came late, so the next one is due since a second after the first attempt.
        assert_eq!(own.deadline_ms(), 2000);
        own.lost();
        let mut number = 2;
        assert_eq!(
            own.next(UP, &mut number, 2500).map(|it| (it.number, it.expected)),
            Some((3, 11))
        );
        own.lost();
        assert!(own.next(UP, &mut number, 2501).is_some(), "at once on another connection");
        // A change of the state does not wait.
        own.stored(3, 12);
        assert_eq!(own.next(UP, &mut number, 2502), None);
        own.hasten();
        assert!(own.next(UP, &mut number, 2503).is_some());
    }

    #[test]
    fn cluster_own_node_is_fenced_after_three_fifths_of_dead_ms() {
        let mut own = stored();
        for (now_ms, may) in [(0, true), (3000, true), (3001, false)] {
            assert_eq!((own.may_append(now_ms), own.is_fenced(now_ms)), (may, !may), "{now_ms}");
        }
        // An answer counts from when its renewal was sent first.
        own.next(UP, &mut 1, 1000);
        own.next(UP, &mut 1, 2000);
        own.stored(2, 11);
        assert!(own.may_append(4000) && !own.may_append(4001));
        own.begin(8);
        assert!(!own.may_append(4000) && !own.is_fenced(4000), "the log has nothing of this life");
    }

    #[test]
    fn cluster_own_node_judges_when_its_renewals_were_read_without_a_break() {
        let mut own = stored();
        let renew = |own: &mut OwnNode, number: u64, now_ms: u64| {
            own.hasten();
            assert!(own.next(UP, &mut (number - 1), now_ms).is_some());
            own.stored(number, 10 + number);
            own.read(number, 10 + number, now_ms);
        };
        renew(&mut own, 2, 3000);
        assert!(!own.can_judge(4999) && own.can_judge(5000), "5 s of renewals");
        assert!(own.can_judge(6000) && !own.can_judge(6001), "the last is 3 s old");
        renew(&mut own, 3, 6000);
        assert!(own.can_judge(6001), "the break is not longer than 3 s");
        renew(&mut own, 4, 9001);
        assert!(!own.can_judge(14_000), "the break was longer");
        renew(&mut own, 5, 12_000);
        assert!(!own.can_judge(14_000) && own.can_judge(14_001));
    }

    #[test]
    fn cluster_own_node_waits_after_a_conflict_for_what_the_log_has() {
        let mut own = stored();
        own.next(UP, &mut 1, 1000);
        assert!(own.refused(2, true, 1100) && !own.refused(2, true, 1100));
        assert_eq!(own.next(UP, &mut 2, 6099), None);
        assert!(!own.is_stuck(6099) && own.is_stuck(6100));
        own.attached(2000);
        assert!(!own.is_stuck(6999) && own.is_stuck(7000), "the engine was away");
        // An earlier attempt of its own was stored after all.
        own.read(2, 15, 1200);
        assert!(!own.is_stuck(6100));
        let renewal = own.next(UP, &mut 2, 1200).expect("it is due");
        assert_eq!((renewal.number, renewal.expected), (3, 15));
        // Another refusal explains itself: it is sent again a little later.
        assert!(own.refused(3, false, 1300));
        assert_eq!((own.next(UP, &mut 3, 1549), own.deadline_ms()), (None, 1550));
        assert!(own.next(UP, &mut 3, 1550).is_some());
    }

    /// An earlier renewal is read before the answer to the next one, which expected another.
    #[test]
    fn cluster_own_node_goes_on_after_a_conflict_that_it_has_read_already() {
        let mut own = stored();
        own.next(UP, &mut 2, 1000).expect("it is due");
        own.read(2, 15, 1010);
        assert!(own.refused(3, true, 1020) && !own.is_stuck(u64::MAX - TIMING.dead_ms));
        let renewal = own.next(UP, &mut 3, 1020).expect("it is due");
        assert_eq!((renewal.number, renewal.expected), (4, 15));
    }

    #[test]
    fn cluster_own_node_sends_a_change_of_its_state_after_the_renewal_under_way() {
        let mut own = stored();
        own.next(UP, &mut 1, 1000).expect("it is due");
        own.hasten();
        assert_eq!(own.next(NodePhase::Leaving, &mut 2, 1010), None, "one at a time");
        own.stored(2, 11);
        assert_eq!(own.deadline_ms(), 0);
        let renewal = own.next(NodePhase::Leaving, &mut 2, 1020).expect("it is due at once");
        assert_eq!((renewal.number, renewal.state), (3, NodePhase::Leaving));
        own.stored(3, 12);
        assert_eq!(own.deadline_ms(), 2020, "once");
    }

    #[test]
    fn cluster_own_node_takes_its_entry_from_the_log_for_an_answer() {
        let mut own = stored();
        own.next(UP, &mut 1, 1000);
        own.read(2, 20, 1010);
        assert!(own.may_append(4000) && own.under_way.is_none());
        assert_eq!(own.stored(2, 20), None, "it was noted");
        assert!(!own.refused(2, true, 1020), "of an attempt that came later");
        // The log was read from its beginning.
        own.suspend();
        own.resume(20);
        assert_eq!((own.id(), own.next(UP, &mut 2, 1030).map(|it| it.expected)), (7, Some(20)));
    }
}
