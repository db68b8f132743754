//! The position up to which a node has applied the log.

use super::engine::LogInfo;

/// An interruption counts as too long this much earlier than the log forgets, in milliseconds.
const MARGIN_MS: u64 = 2000;

/// See the module's documentation.
#[derive(Debug)]
pub struct Follower {
    /// How long the log keeps every entry, in milliseconds.
    keep_ms: u64,
    epoch: Option<u64>,
    position: u64,
    /// The position at which the node has read everything that was stored when it came.
    target: u64,
    has_joined: bool,
    /// Whatever was stored before this time was delivered, or counts as a gap, in milliseconds;
    /// before that, when the log was first reached.
    current_ms: u64,
    /// The end of the log when the delivery began, and when that was, in milliseconds: whatever is
    /// behind it was stored later.
    begun: (u64, u64),
    /// When the engine last said where the log ends, in milliseconds, until the delivery begins.
    log_ms: Option<u64>,
    /// Whether entries have expired before they were delivered, and not everything has been
    /// delivered since.
    has_lagged: bool,
    /// The highest sequence number that an entry of this node has got.
    stored: u64,
    rereading: Option<Rereading>,
}

/// The log is read from its beginning once more, because state may be missing here.
#[derive(Debug)]
struct Rereading {
    position: u64,
    target: u64,
    /// Whether what is missing up to the target counts as a gap already.
    is_gap: bool,
}

/// What is to be done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All of it takes effect.
    Apply,
    /// Its events have taken effect before; the state in it is noted again.
    Fold,
    /// Nothing: all of it was applied.
    Repeated,
}

/// How a node goes on when the engine can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The position after which the log is to be delivered.
    pub after: u64,
    /// Whether entries that this node has not applied may have expired.
    pub is_gap: bool,
    /// Whether the log is another one than before.
    pub is_new: bool,
    /// The number of entries that were stored meanwhile, some of which may have expired.
    pub missed: u64,
    /// Whether the log is read from its beginning, because state may have changed unseen.
    pub rereads: bool,
    /// Whether nothing was stored for so long that entries would have expired meanwhile, as while
    /// the engine was away from all nodes.
    pub was_still: bool,
}

impl Follower {
    /// A follower that has applied nothing.
    pub fn new(keep_ms: u64) -> Follower {
        Follower {
            keep_ms,
            epoch: None,
            position: 0,
            target: 0,
            has_joined: false,
            current_ms: 0,
            begun: (0, 0),
            log_ms: None,
            has_lagged: false,
            stored: 0,
            rereading: None,
        }
    }

    /// Notes that an entry of this node has got this sequence number.
    pub fn stored(&mut self, sequence: u64) {
        self.stored = self.stored.max(sequence);
    }

    /// The sequence number of the last entry that was applied.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The sequence number of the last entry that was applied, or that the log had when the
    /// delivery began, if that is higher.
    pub fn end(&self) -> u64 {
        self.position.max(self.begun.0)
    }

    /// Whether everything was read that was stored when the node came.
    pub fn has_joined(&self) -> bool {
        self.has_joined
    }

    /// Notes that the engine says now where the log ends. The delivery may begin later.
    pub fn note_log(&mut self, now_ms: u64) {
        self.log_ms = Some(now_ms);
    }

    /// The highest number that is known of an entry of the log of this life; 0 if none is.
    pub fn known_end(&self, epoch: u64) -> u64 {
        if self.epoch == Some(epoch) { self.position.max(self.stored) } else { 0 }
    }

    /// Whether the node was interrupted for so long that what was stored first may have expired. If
    /// the log still has the entry after the position, see [`Follower::note_successor`].
    pub fn is_doubtful(&self, log: LogInfo, now_ms: u64) -> bool {
        let goes_on = self.epoch == Some(log.epoch) && log.last >= self.stored;
        let is_reading = !self.has_joined || self.has_lagged || self.rereading.is_some();
        goes_on && !is_reading && log.last > self.position && self.was_long(now_ms)
    }

    /// Notes that the entry with this number is delivered first after an interruption, and when it
    /// was stored, in milliseconds. If it is the next one, all others after the position are
    /// younger. Returns whether it is.
    pub fn note_successor(&mut self, sequence: u64, stored_ms: u64) -> bool {
        let is_next = sequence == self.position + 1;
        if is_next {
            self.current_ms = self.current_ms.max(stored_ms);
        }
        is_next
    }

    /// Notes that the engine can be used again.
    pub fn attached(&mut self, log: LogInfo, now_ms: u64) -> Attached {
        let log_ms = self.log_ms.take().unwrap_or(now_ms);
        let before = self.epoch.replace(log.epoch);
        let is_same = before == Some(log.epoch);
        // A log that ends before our position has lost its end, and uses those numbers again.
        let has_shrunk = is_same && log.last < self.position.max(self.stored);
        self.position = if is_same { self.position.min(log.last) } else { 0 };
        if before.is_none() {
            (self.target, self.current_ms) = (log.last, now_ms);
        }
        if !is_same || has_shrunk {
            self.stored = 0;
        }
        let missed = if before.is_some() { log.last - self.position } else { 0 };
        let has_lagged = std::mem::take(&mut self.has_lagged);
        let is_long_gap = before.is_some() && (missed > 0 && self.was_long(now_ms) || has_lagged);
        let is_new = before.is_some() && !is_same || has_shrunk;
        let was_still = before.is_some() && !is_new && missed == 0 && self.was_long(now_ms);
        let rereads = is_new || is_long_gap;
        if rereads {
            self.rereading = Some(Rereading { position: 0, target: log.last, is_gap: is_long_gap });
        }
        self.begun = (log.last, log_ms);
        if is_long_gap {
            // Whatever expires of it until it is delivered is in this gap.
            self.current_ms = log_ms;
        }
        if self.position == log.last {
            self.has_joined = true;
            self.current_ms = log_ms;
        }
        let is_gap = is_long_gap && self.has_joined;
        let after = self.rereading.as_ref().map_or(self.position, |it| it.position);
        Attached { after, is_gap, is_new, missed, rereads, was_still }
    }

    /// Whether something may have expired that was stored since everything had been delivered.
    fn was_long(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.current_ms).saturating_add(MARGIN_MS) >= self.keep_ms
    }

    /// Whether entries may have expired before they were delivered, although the delivery was not
    /// interrupted: it was slower than they expire. `next` is the entry that is delivered now,
    /// `None` if there is no further one. Returns the log after whose beginning this node has to
    /// go on.
    pub fn lags(&self, next: Option<u64>, now_ms: u64) -> Option<LogInfo> {
        let epoch = self.epoch.filter(|_| self.has_joined && self.was_long(now_ms))?;
        let in_gap = |it: &Rereading| it.is_gap && next.is_none_or(|next| next <= it.target);
        if self.rereading.as_ref().is_some_and(in_gap) {
            return None;
        }
        let successor = self.position + 1;
        let is_hole = next.is_none_or(|it| it > successor);
        is_hole.then_some(LogInfo { epoch, last: next.unwrap_or(successor) })
    }

    /// Notes that entries have expired before they were delivered, and that not everything that is
    /// stored was delivered yet.
    pub fn note_lag(&mut self, now_ms: u64) {
        (self.has_lagged, self.current_ms) = (true, now_ms);
    }

    /// The log, if this node has caught up with it after entries had expired: more may have expired
    /// while it was behind, so it is read from its beginning once more.
    pub fn caught_up(&self) -> Option<LogInfo> {
        let epoch = self.epoch.filter(|_| self.has_lagged && self.rereading.is_none())?;
        Some(LogInfo { epoch, last: self.position })
    }

    /// Whether the log is read from its beginning.
    pub fn is_rereading(&self) -> bool {
        self.rereading.is_some()
    }

    /// Notes an entry, and says what is to be done with it.
    pub fn takes(&mut self, sequence: u64, is_last: bool, now_ms: u64) -> Taken {
        let mut taken = Taken::Repeated;
        if let Some(rereading) = &mut self.rereading
            && sequence > rereading.position
        {
            rereading.position = sequence;
            taken = Taken::Fold;
        }
        if sequence > self.position {
            self.position = sequence;
            taken = Taken::Apply;
        }
        self.has_joined |= self.position >= self.target;
        if self.position >= self.begun.0 {
            self.current_ms = self.current_ms.max(self.begun.1);
        }
        if is_last {
            self.current(now_ms);
        }
        taken
    }

    /// Notes that everything that is stored has been delivered.
    pub fn current(&mut self, now_ms: u64) {
        self.has_joined = true;
        self.current_ms = now_ms;
        if let Some(rereading) = &mut self.rereading {
            rereading.position = rereading.position.max(rereading.target);
        }
    }

    /// Whether the log has been read from its beginning to the end that it had, true once.
    pub fn has_reread(&mut self) -> bool {
        self.rereading.take_if(|it| it.position >= it.target).is_some()
    }
}

#[cfg(test)]
impl Follower {
    /// The position after which entries are still to come.
    pub(super) fn attached_position(&self) -> u64 {
        self.rereading.as_ref().map_or(self.position, |it| it.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_MS: u64 = 60_000;

    const NOTHING_MISSED: Attached = Attached {
        after: 5,
        is_gap: false,
        is_new: false,
        missed: 0,
        rereads: false,
        was_still: false,
    };

    fn log(epoch: u64, last: u64) -> LogInfo {
        LogInfo { epoch, last }
    }

    /// A follower that has applied the entries up to 5, and was current at `1000`.
    fn joined() -> Follower {
        let mut follower = Follower::new(KEEP_MS);
        let attached = follower.attached(log(1, 5), 0);
        assert_eq!(attached, Attached { after: 0, ..NOTHING_MISSED });
        assert!(!follower.has_joined());
        assert_eq!(follower.takes(4, false, 500), Taken::Apply, "entries before it have expired");
        assert!(!follower.has_joined());
        assert_eq!(follower.takes(5, true, 1000), Taken::Apply);
        assert!(follower.has_joined());
        follower
    }

    #[test]
    fn cluster_follower_has_no_gap_if_the_next_entry_is_young() {
        let late = 1000 + KEEP_MS - MARGIN_MS;
        for (ms, last, is_doubtful) in [(late - 1, 6, false), (late, 6, true), (late, 5, false)] {
            assert_eq!(joined().is_doubtful(log(1, last), ms), is_doubtful, "{ms} {last}");
        }
        assert!(!joined().is_doubtful(log(2, 6), late), "another log");
        let mut follower = joined();
        follower.stored(7);
        assert!(!follower.is_doubtful(log(1, 6), late), "a log that has lost its end");
        assert!(!follower.attached(log(1, 5), 1001).was_still, "a short interruption");
        for (sequence, stored_ms, is_gap) in
            [(6, 1001, false), (6, 1000, true), (7, late, true), (6, 500, true)]
        {
            let mut follower = joined();
            assert_eq!(follower.note_successor(sequence, stored_ms), sequence == 6);
            let attached = follower.attached(log(1, 9), late);
            assert_eq!((attached.is_gap, attached.rereads), (is_gap, is_gap), "{sequence}");
            let settled = Follower { rereading: None, ..follower };
            assert!(!settled.is_doubtful(log(1, 9), late), "it has begun");
        }
        for (ms, was_still) in [(late - 1, false), (late, true)] {
            let attached = joined().attached(log(1, 5), ms);
            assert_eq!(attached, Attached { was_still, ..NOTHING_MISSED });
            assert!(!joined().attached(log(2, 0), ms).was_still, "another log");
        }
    }

    #[test]
    fn cluster_follower_notices_that_it_is_slower_than_entries_expire() {
        let follower = joined();
        let late = 1000 + KEEP_MS - MARGIN_MS;
        // The next entry is the successor, so nothing was between them.
        assert_eq!(follower.lags(Some(6), late), None);
        assert_eq!(follower.lags(Some(7), late - 1), None);
        assert_eq!(follower.lags(Some(7), late), Some(log(1, 7)));
        assert_eq!(follower.lags(None, late - 1), None);
        assert_eq!(follower.lags(None, late), Some(log(1, 6)));
        // Before it has joined, nobody relies on it.
        let mut follower = Follower::new(KEEP_MS);
        follower.attached(log(1, 5), 0);
        assert_eq!(follower.lags(Some(7), late), None);
    }

    /// After a long interruption there is one gap, however many holes the log has.
    #[test]
    fn cluster_follower_lags_only_if_entries_expire_while_it_reads() {
        let (mut follower, begun_ms) = (joined(), 1000 + KEEP_MS);
        assert!(follower.attached(log(1, 9), begun_ms).is_gap);
        for next in [7, 9, 11] {
            assert_eq!(follower.lags(Some(next), begun_ms + 100), None);
            follower.takes(next, false, begun_ms + 100);
        }
        assert!(follower.has_reread());
        // From then on entries have had the time to expire.
        let late = begun_ms + KEEP_MS - MARGIN_MS;
        assert_eq!(follower.lags(Some(13), late - 1), None);
        assert_eq!(follower.lags(Some(13), late), Some(log(1, 13)));
    }

    /// What was stored during an interruption expires earlier than what was stored since its end.
    #[test]
    fn cluster_follower_lags_if_what_it_has_missed_expires_while_it_reads() {
        let late = 1000 + KEEP_MS - MARGIN_MS;
        for (last, lags) in [(8, true), (7, false)] {
            let mut follower = joined();
            assert!(!follower.attached(log(1, last), late - 1).is_gap);
            follower.takes(7, false, late - 1);
            assert_eq!(follower.lags(Some(9), late).is_some(), lags, "{last}");
        }
    }

    #[test]
    fn cluster_follower_that_has_lagged_reads_again_when_it_has_caught_up() {
        let (mut follower, late) = (joined(), 1000 + KEEP_MS);
        let lag = follower.lags(Some(7), late).expect("6 has expired");
        follower.attached(lag, late);
        follower.note_lag(late);
        assert_eq!(follower.caught_up(), None, "it reads");
        assert_eq!(follower.takes(7, false, late), Taken::Apply);
        assert!(follower.has_reread());
        assert_eq!(follower.lags(Some(9), late + 1), None, "that is in the same gap");
        follower.takes(9, true, late + 1);
        let end = follower.caught_up().expect("it has lagged");
        let attached = follower.attached(end, late + 1);
        assert_eq!((attached.after, attached.rereads, attached.is_gap), (0, true, true));
        follower.current(late + 2);
        assert!(follower.has_reread());
        assert_eq!(follower.caught_up(), None);
    }

    #[test]
    fn cluster_follower_joins_an_empty_log_at_once() {
        let mut follower = Follower::new(KEEP_MS);
        follower.attached(log(1, 0), 0);
        assert!(follower.has_joined());
        // Everything that was stored has expired.
        let mut follower = Follower::new(KEEP_MS);
        follower.attached(log(1, 9), 0);
        assert!(!follower.has_joined());
        follower.current(1);
        assert!(follower.has_joined());
    }

    #[test]
    fn cluster_follower_applies_an_entry_once() {
        let mut follower = joined();
        for sequence in [5, 3] {
            assert_eq!(follower.takes(sequence, true, 1001), Taken::Repeated);
        }
        assert_eq!(follower.takes(7, true, 1002), Taken::Apply, "6 has expired or was removed");
        assert_eq!(follower.position(), 7);
    }

    #[test]
    fn cluster_follower_goes_on_after_its_position() {
        let mut follower = joined();
        let attached = follower.attached(log(1, 8), 5000);
        assert_eq!(attached, Attached { missed: 3, ..NOTHING_MISSED });
        let mut follower = joined();
        let attached = follower.attached(log(1, 5), u64::MAX);
        assert_eq!(attached, Attached { was_still: true, ..NOTHING_MISSED });
    }

    #[test]
    fn cluster_follower_has_a_gap_when_it_was_away_as_long_as_the_log_keeps() {
        let late = 1000 + KEEP_MS - MARGIN_MS;
        for (now_ms, last, is_gap) in [(late - 1, 6, false), (late, 6, true), (late, 5, false)] {
            let mut follower = joined();
            let attached = follower.attached(log(1, last), now_ms);
            // The log is read from its beginning then, for the state in it.
            let after = if is_gap { 0 } else { 5 };
            assert_eq!((attached.is_gap, attached.after), (is_gap, after), "{now_ms} {last}");
            assert_eq!(attached.rereads, is_gap);
            assert!(!follower.has_reread());
            if !is_gap {
                continue;
            }
            let taken = [3, 5, 6].map(|at| follower.takes(at, false, now_ms));
            assert_eq!(taken, [Taken::Fold, Taken::Fold, Taken::Apply]);
            assert!(follower.has_reread() && !follower.has_reread(), "it has its target");
        }
    }

    #[test]
    fn cluster_follower_goes_on_reading_again_after_an_interruption() {
        let late = 1000 + KEEP_MS;
        let mut follower = joined();
        follower.attached(log(1, 9), late);
        assert_eq!(follower.takes(3, false, late), Taken::Fold);
        // What has expired of 6 to 9 is in that gap.
        let attached = follower.attached(log(1, 9), late + 1);
        assert_eq!((attached.after, attached.rereads, attached.is_gap), (3, false, false));
        assert_eq!(follower.takes(4, false, late), Taken::Fold);
        assert_eq!(follower.takes(9, true, late), Taken::Apply);
        assert_eq!(follower.takes(8, true, late), Taken::Repeated);
        // An interruption that loses nothing.
        let attached = follower.attached(log(1, 10), late + 2);
        assert_eq!((attached.after, attached.rereads), (9, false));
        // Nothing of the log is stored any more.
        let mut follower = joined();
        follower.attached(log(1, 9), late);
        follower.current(late);
        assert!(follower.has_reread());
    }

    /// The first reading begins again if it was interrupted for long, since state may have been
    /// removed meanwhile.
    #[test]
    fn cluster_follower_that_reads_the_log_first_may_begin_again() {
        let late = 100 + KEEP_MS - MARGIN_MS;
        for (now_ms, rereads) in [(late - 1, false), (late, true)] {
            let mut follower = Follower::new(KEEP_MS);
            follower.attached(log(1, 9), 100);
            follower.takes(4, false, 200);
            let attached = follower.attached(log(1, 9), now_ms);
            assert_eq!((attached.rereads, attached.is_gap), (rereads, false), "{now_ms}");
            assert_eq!(attached.after, if rereads { 0 } else { 4 });
        }
    }

    #[test]
    fn cluster_follower_knows_a_log_that_has_lost_its_end() {
        for (stored, is_new) in [(8, false), (9, true)] {
            let mut follower = joined();
            follower.stored(stored);
            assert_eq!(follower.attached(log(1, 8), 2000).is_new, is_new, "{stored}");
            assert!(!follower.attached(log(1, 8), 2001).is_new, "only once");
        }
    }

    #[test]
    fn cluster_follower_begins_again_with_another_log() {
        for (other, position) in [(log(2, 9), 0), (log(1, 4), 4)] {
            let mut follower = joined();
            let attached = follower.attached(other, 5000);
            assert_eq!((attached.after, attached.is_gap, attached.is_new), (0, false, true));
            assert!(follower.has_joined(), "clients stay connected");
            assert_eq!(follower.takes(position + 1, false, 5001), Taken::Apply);
            let taken = if position > 0 { Taken::Repeated } else { Taken::Apply };
            assert_eq!(follower.takes(position.max(2), false, 5001), taken);
        }
    }
}
