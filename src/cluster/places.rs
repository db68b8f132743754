//! The places of events in the log, from which histories take their positions, and what a node
//! knows of the entries that it has not read.

use super::engine::LogInfo;
use crate::crypto::sha256;
use crate::hub::{LATE_MS, LogMark, LogStart};

/// An entry counts as expired this much earlier than the log forgets it, in milliseconds: clocks
/// differ.
pub(super) const MARGIN_MS: u64 = 2000;
/// How long the log must still keep an entry so that a node that starts knows everything from that
/// entry on, in milliseconds: the entry may have been stored a first time so much earlier, clocks
/// differ, and the reading takes a while.
pub(super) const YOUNG_MS: u64 = LATE_MS + MARGIN_MS + 10_000;
/// Nothing is known up to the present.
const EVERYTHING: u64 = u64::MAX;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct LogPlaces {
    /// How long the log keeps every entry, in milliseconds.
    keep_ms: u64,
    /// The log that the node follows, as it was when the connection began.
    log: Option<LogInfo>,
    generation: u16,
    /// Whether everything that is stored has been delivered.
    is_current: bool,
    /// Everything was delivered that was stored before this time and after `known_after`, in
    /// milliseconds; `None` before the first connection.
    known_ms: Option<u64>,
    /// Entries up to this one may have expired before they were delivered.
    known_after: u64,
    /// Whether the log is read for the first time, and all that was read is old.
    is_beginning: bool,
    /// Whether it must be asked what was stored while nothing was delivered.
    is_doubtful: bool,
    /// The time of this turn and of the one before, in milliseconds. What the engine reports in a
    /// turn it may have known ever since the one before.
    turn_ms: u64,
    before_ms: u64,
    /// The time of the turn before the one in which the engine last said where the log ends, until
    /// the delivery begins, in milliseconds.
    log_ms: Option<u64>,
}

/// What the cores must know before anything that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogChange {
    pub(super) start: LogStart,
    /// Whether subscribers may have missed events, or will.
    pub(super) is_gap: bool,
}

impl LogPlaces {
    /// Nothing is known of the log.
    pub(super) fn new(keep_ms: u64) -> LogPlaces {
        LogPlaces {
            keep_ms,
            log: None,
            generation: 0,
            is_current: false,
            known_ms: None,
            known_after: 0,
            is_beginning: false,
            is_doubtful: false,
            turn_ms: 0,
            before_ms: 0,
            log_ms: None,
        }
    }

    /// Notes the time of a turn, in which everything is taken that the engine has reported.
    pub(super) fn turn(&mut self, now_ms: u64) {
        self.before_ms = std::mem::replace(&mut self.turn_ms, now_ms);
    }

    /// Notes that the engine says in this turn where the log ends. The delivery may begin later.
    pub(super) fn note_log(&mut self) {
        self.log_ms = Some(self.before_ms);
    }

    /// Notes that all entries after the position of the node were stored at most `age_ms` ago.
    pub(super) fn note_successor(&mut self, age_ms: u64) {
        let stored_ms = self.turn_ms.saturating_sub(age_ms);
        self.known_ms = self.known_ms.map(|known_ms| known_ms.max(stored_ms));
    }

    /// Notes that the engine can be used again, with this state of the log. `position` is the last
    /// entry that the node has applied before, and `is_gap` says that entries may have expired
    /// meanwhile. Returns nothing if nothing was missed.
    pub(super) fn attached(
        &mut self,
        log: LogInfo,
        position: u64,
        is_gap: bool,
    ) -> Option<LogChange> {
        let log_ms = self.log_ms.take().unwrap_or(self.before_ms);
        let reached = self.reached(position);
        let before = self.log.replace(log);
        self.is_beginning = before.is_none();
        let was_doubtful = std::mem::take(&mut self.is_doubtful);
        let is_same = before.is_some_and(|before| before.epoch == log.epoch);
        let is_cut = is_same && log.last < reached;
        let is_fresh = !is_same || is_cut;
        if !is_fresh && log.last == reached && self.known_after != EVERYTHING {
            (self.is_current, self.known_ms) = (true, Some(log_ms));
            return was_doubtful.then(|| LogChange { start: self.start(), is_gap: false });
        }
        self.is_current = false;
        // Another log is younger than what is known of the one before.
        let is_late = is_gap || self.known_after == EVERYTHING || self.is_late();
        let is_known_gap = !is_fresh && self.known_after == log.last;
        if is_late {
            (self.known_after, self.known_ms) = (log.last, Some(log_ms));
        } else if is_fresh {
            self.known_after = 0;
        }
        self.generation = self.generation.wrapping_add(is_fresh.into());
        let is_gap = is_late && before.is_some() && log.last > 0 && !is_known_gap;
        let void_until = if is_cut { reached } else { 0 };
        Some(LogChange { start: LogStart { void_until, ..self.start() }, is_gap })
    }

    /// Notes that entries were not delivered before they have expired, and that it is not known how
    /// many.
    pub(super) fn lag(&mut self) -> Option<LogChange> {
        let was_known = std::mem::replace(&mut self.known_after, EVERYTHING) != EVERYTHING;
        was_known.then(|| LogChange { start: self.start(), is_gap: true })
    }

    /// Notes that an entry was delivered, which was stored `age_ms` ago. Returns what has changed,
    /// before the entry takes effect.
    pub(super) fn entry(&mut self, sequence: u64, age_ms: u64, is_last: bool) -> Option<LogChange> {
        if self.is_beginning && age_ms.saturating_add(YOUNG_MS) <= self.keep_ms {
            self.is_beginning = false;
            if sequence <= self.known_after && self.known_after != EVERYTHING {
                return Some(self.begin_at(sequence, age_ms, is_last));
            }
        }
        let was_late = self.is_late();
        self.is_current = is_last;
        let stored_ms = self.turn_ms.saturating_sub(age_ms);
        let known_ms = if is_last { stored_ms.max(self.before_ms) } else { stored_ms };
        self.known_ms = Some(self.known_ms.map_or(known_ms, |before| before.max(known_ms)));
        let is_read_late = sequence <= self.known_after && self.known_after != EVERYTHING;
        if is_read_late || !was_late && self.known_after != EVERYTHING {
            return None;
        }
        // Entries before this one may be missing, and the next ones, too, while these are as old.
        self.is_doubtful = false;
        let known_after = if self.is_late() { EVERYTHING } else { sequence };
        if std::mem::replace(&mut self.known_after, known_after) == known_after {
            return None;
        }
        Some(LogChange { start: self.start(), is_gap: true })
    }

    /// Notes that nothing has expired after the entry before this one, which is the first that is
    /// young while the log is read for the first time: all later entries are younger.
    fn begin_at(&mut self, sequence: u64, age_ms: u64, is_last: bool) -> LogChange {
        self.is_current = is_last;
        self.known_after = sequence.saturating_sub(1);
        self.known_ms = Some(self.turn_ms.saturating_sub(age_ms));
        LogChange { start: self.start(), is_gap: false }
    }

    /// Notes that everything that is stored has been delivered. If that is so after a long time,
    /// entries may have been stored and have expired meanwhile, so that the engine must be asked
    /// for the state of the log; see [`LogPlaces::is_doubtful`].
    pub(super) fn current(&mut self) -> Option<LogChange> {
        if self.known_ms.is_none() || !self.is_late() {
            let known_ms = self.known_ms.map_or(self.before_ms, |it| it.max(self.before_ms));
            (self.is_current, self.known_ms) = (true, Some(known_ms));
            return None;
        }
        if std::mem::replace(&mut self.is_doubtful, true) {
            return None;
        }
        let start = LogStart { read_until: EVERYTHING, ..self.start() };
        Some(LogChange { start, is_gap: false })
    }

    /// Whether the engine must be asked for the state of the log.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// Up to where the entries of the log were delivered, if `position` was the last of them.
    pub(super) fn mark(&self, position: u64) -> LogMark {
        LogMark::new(self.generation, self.reached(position))
    }

    /// The last entries of the log may have expired, so that they are never delivered.
    fn reached(&self, position: u64) -> u64 {
        let last = self.log.filter(|_| self.is_current).map_or(0, |log| log.last);
        position.max(last)
    }

    /// Whether entries may have expired since everything was delivered.
    fn is_late(&self) -> bool {
        let since = |known_ms| self.turn_ms.saturating_sub(known_ms) + MARGIN_MS >= self.keep_ms;
        self.known_ms.is_none_or(since)
    }

    fn start(&self) -> LogStart {
        let LogInfo { epoch, last } = self.log.unwrap_or(LogInfo { epoch: 0, last: 0 });
        LogStart {
            generation: self.generation,
            stream: stream_of(epoch),
            read_until: last,
            known_after: self.known_after,
            void_until: 0,
        }
    }
}

/// The number of the stream of all histories, the same on all nodes.
pub(super) fn stream_of(epoch: u64) -> u64 {
    let digest = sha256(&[b"polycast stream", &epoch.to_be_bytes()]);
    u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_MS: u64 = 60_000;

    impl LogPlaces {
        /// As in a turn at this time, shortly after another one.
        fn at(&mut self, ms: u64) -> &mut LogPlaces {
            self.turn(ms);
            self.turn(ms);
            self
        }
    }

    fn log(epoch: u64, last: u64) -> LogInfo {
        LogInfo { epoch, last }
    }

    /// A node that has read the log up to entry 5 at time 1000.
    fn joined() -> LogPlaces {
        let mut places = LogPlaces::new(KEEP_MS);
        let change = places.at(0).attached(log(1, 5), 0, false).expect("the first time");
        let start = LogStart {
            generation: 1,
            stream: stream_of(1),
            read_until: 5,
            known_after: 5,
            void_until: 0,
        };
        assert_eq!(change, LogChange { start, is_gap: false });
        assert_eq!(places.at(500).entry(3, 10 * KEEP_MS, false), None, "read late");
        assert_eq!(places.mark(3), LogMark::new(1, 3));
        assert_eq!(places.at(1000).current(), None);
        assert_eq!(places.mark(3), LogMark::new(1, 5), "4 and 5 have expired");
        places
    }

    /// Up to where nothing is known after a change, and whether it is a gap.
    fn gap(change: Option<LogChange>) -> Option<(u64, bool)> {
        change.map(|it| (it.start.known_after, it.is_gap))
    }

    #[test]
    fn cluster_places_of_a_node_that_begins_are_known_from_the_first_young_entry_on() {
        let old_ms = KEEP_MS - YOUNG_MS + 1;
        let begun = || {
            let mut places = LogPlaces::new(KEEP_MS);
            let change = places.at(100_000).attached(log(1, 9), 0, false);
            assert_eq!(gap(change), Some((9, false)));
            assert_eq!(places.at(100_000).entry(2, 10 * KEEP_MS, false), None);
            assert_eq!(places.at(100_000).entry(4, old_ms, false), None);
            places
        };
        let mut places = begun();
        let change = places.at(100_000).entry(5, old_ms - 1, false);
        assert_eq!(gap(change), Some((4, false)));
        assert_eq!(change.map(|it| it.start.read_until), Some(9));
        assert_eq!(places.at(100_000).entry(7, 0, false), None, "once");
        // The rest is read in time, or something of it may be missing after all.
        for (later_ms, is_late) in [(YOUNG_MS - MARGIN_MS - 1, false), (YOUNG_MS - MARGIN_MS, true)]
        {
            let mut places = begun();
            places.at(100_000).entry(5, old_ms - 1, false).expect("a change");
            let change = places.at(100_000 + later_ms).entry(8, 0, false);
            assert_eq!(gap(change), is_late.then_some((8, true)));
        }
        // What comes first is as young, or the log has nothing that is.
        let mut places = LogPlaces::new(KEEP_MS);
        assert!(places.at(0).attached(log(1, 9), 0, false).is_some());
        assert_eq!(gap(places.at(0).entry(1, 0, false)), Some((0, false)));
        let mut places = begun();
        assert_eq!(places.at(100_000).current(), None);
        assert_eq!(places.at(100_000).entry(10, 0, true), None);
        // Another connection: something may have expired in between.
        let mut places = begun();
        assert!(places.at(100_000).attached(log(1, 12), 4, false).is_some());
        assert_eq!(places.at(100_000).entry(5, 0, false), None);
        // A log that keeps entries for a short time only.
        let mut places = LogPlaces::new(YOUNG_MS - 1);
        assert!(places.at(0).attached(log(1, 9), 0, false).is_some());
        assert_eq!(places.at(0).entry(1, 0, false), None);
    }

    #[test]
    fn cluster_places_after_an_interruption_are_read_and_after_a_gap_not_known() {
        let mut places = joined();
        assert_eq!(
            places.at(10 * KEEP_MS).attached(log(1, 5), 3, false),
            None,
            "nothing was missed"
        );
        for (away_ms, known_after, is_gap) in
            [(KEEP_MS - 2001, 5, false), (KEEP_MS - 2000, 9, true)]
        {
            let mut places = joined();
            let change = places.at(1000 + away_ms).attached(log(1, 9), 5, false);
            assert_eq!(change.map(|it| it.start.read_until), Some(9), "4 were missed");
            assert_eq!(gap(change), Some((known_after, is_gap)));
            assert_eq!(places.mark(6), LogMark::new(1, 6));
            assert_eq!(places.at(1000 + away_ms).current(), None);
        }
        let mut places = joined();
        assert_eq!(gap(places.at(2000).attached(log(1, 12), 5, true)), Some((12, true)));
    }

    #[test]
    fn cluster_places_are_not_known_where_reading_is_later_than_the_log_keeps() {
        for (silence_ms, is_late) in [(KEEP_MS - 2001, false), (KEEP_MS - 2000, true)] {
            // A node that is stopped, with nothing to show for it but the time.
            let mut places = joined();
            let change = places.at(1000 + silence_ms).entry(6, 0, false);
            assert_eq!(gap(change), is_late.then_some((6, true)));
            assert_eq!(places.at(1000 + silence_ms).entry(7, 0, false), None);
        }
        // While what is read is as old, what follows may be missing, too.
        let mut places = joined();
        let change = places.at(2 * KEEP_MS).entry(6, KEEP_MS - 2000, false);
        assert_eq!(gap(change), Some((EVERYTHING, true)));
        assert_eq!(places.at(2 * KEEP_MS).entry(8, KEEP_MS - 2000, false), None);
        let change = places.at(2 * KEEP_MS).entry(9, KEEP_MS - 2001, false);
        assert_eq!(gap(change), Some((9, true)));
        assert_eq!(places.at(2 * KEEP_MS).entry(10, 0, false), None);
    }

    #[test]
    fn cluster_places_after_a_long_silence_are_asked_for() {
        for last in [5, 9] {
            let mut places = joined();
            let at_ms = 1000 + KEEP_MS - 2000;
            assert_eq!((places.at(at_ms - 1).current(), places.is_doubtful()), (None, false));
            let at_ms = at_ms + KEEP_MS;
            let change = places.at(at_ms).current().expect("it is doubtful");
            assert_eq!((change.start.read_until, change.is_gap), (EVERYTHING, false));
            assert_eq!((places.at(at_ms).current(), places.is_doubtful()), (None, true));
            let change = places.at(at_ms).attached(log(1, last), 5, false);
            assert_eq!(gap(change), Some(if last == 5 { (5, false) } else { (9, true) }));
            assert_eq!(change.map(|it| it.start.read_until), Some(last));
            assert_eq!((places.at(at_ms).current(), places.is_doubtful()), (None, false));
        }
        // What is reported may be as old as the turn before.
        let mut places = joined();
        places.turn(1000 + KEEP_MS);
        assert!(places.current().is_some() && places.is_doubtful());
        places.turn(KEEP_MS + 11_000);
        assert!(places.attached(log(1, 5), 5, false).is_some_and(|it| !it.is_gap));
        places.turn(2 * KEEP_MS - 1001);
        assert!(places.current().is_none() && !places.is_doubtful(), "known at 1000 + KEEP_MS");
        // So is the end of what was read late.
        let mut places = joined();
        assert!(places.at(2 * KEEP_MS).entry(6, KEEP_MS, false).is_some());
        assert!(places.at(2 * KEEP_MS).current().is_some() && places.is_doubtful());
        assert_eq!(gap(places.at(2 * KEEP_MS).attached(log(1, 6), 6, false)), Some((6, true)));
    }

    #[test]
    fn cluster_places_of_another_log_and_of_a_cut_one_begin_again() {
        for (at_ms, is_late) in [(KEEP_MS - 1001, false), (KEEP_MS - 1000, true)] {
            let mut places = joined();
            let change = places.at(at_ms).attached(log(2, 7), 5, false).expect("another log");
            assert_eq!((change.start.generation, change.start.stream), (2, stream_of(2)));
            assert_eq!(gap(Some(change)), Some((if is_late { 7 } else { 0 }, is_late)));
        }
        assert_ne!(stream_of(1), stream_of(2));
        let mut places = joined();
        let change = places.at(2000).attached(log(1, 4), 5, false).expect("it has lost its end");
        assert_eq!((change.start.generation, change.start.stream), (2, stream_of(1)));
        assert_eq!((change.start.known_after, change.start.void_until), (0, 5));
    }
}
