//! What a core knows of the log of a cluster, from which the positions of its histories come.
//!
//! The serial number of an event is made of its place in the log, so all nodes give an event the
//! same position, and a client may continue on any of them. What a node knows of the events before
//! a position differs: a node that has started late, or was away for long, has read only what was
//! still stored. So it says that nothing is missing after a position only if it has read the log
//! from there on, or if the event at the position would not have been read unless all that follow
//! it were, too.

/// The number of serial numbers of one entry of the log, which is the maximum number of its events.
const PLACES: u64 = 64;
/// Serial numbers must be below this, so that a JSON number carries them exactly.
pub const SERIAL_END: u64 = 1 << 53;
/// How much longer an event that was read late must live so that the later ones were surely read,
/// in milliseconds: an entry may be stored a second time up to `hold_ms` after the first, at most
/// 15 s, and clocks differ.
pub const LATE_MS: u64 = 17_000;

/// The serial number of the event at a place in the entry with this sequence number; `None` if
/// there is none.
pub fn log_serial(sequence: u64, place: usize) -> Option<u64> {
    let place = u64::try_from(place).ok().filter(|place| *place < PLACES)?;
    let serial = sequence.checked_mul(PLACES)?.checked_add(place)?;
    (serial < SERIAL_END).then_some(serial)
}

/// The largest serial number of the entries up to this one; 0 if there is none.
pub(super) fn end_of(sequence: u64) -> u64 {
    if sequence == 0 {
        return 0;
    }
    sequence.saturating_mul(PLACES).saturating_add(PLACES - 1).min(SERIAL_END - 1)
}

/// Whether a serial number may be one with which pictures of a log before are stated: that of the
/// end of an entry, or one before all entries. Few events have such a number.
pub(super) fn is_base(serial: u64) -> bool {
    serial < PLACES || serial % PLACES == PLACES - 1
}

/// Where an event is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// Its serial number; see [`log_serial`].
    pub serial: u64,
    /// How long ago the log has stored it, in milliseconds.
    pub age_ms: u64,
    /// How long the history of its channel remembers it, in seconds, if it does. The log keeps it
    /// at least as long.
    pub ttl_s: Option<u32>,
    /// Whether this node has delivered the event before, out of an earlier log.
    pub was_delivered: bool,
}

/// How a node goes on with the log: when it begins, when it is another log, and when entries were
/// stored that the node has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStart {
    /// Counts the logs, and the times that a log has lost its end, since the node has started.
    pub generation: u16,
    /// The number of the stream of all histories, which the epoch of the log decides.
    pub stream: u64,
    /// The sequence number up to which the node reads what was stored meanwhile.
    pub read_until: u64,
    /// The sequence number up to which entries may have expired before the node has read them; 0 if
    /// it has read everything, or will. What is read of them changes what is kept, and is not
    /// delivered: it would seem to follow what subscribers have got.
    pub known_after: u64,
    /// The sequence number up to which positions are void, because the log has lost entries and
    /// uses their numbers again; 0 if it has not.
    pub void_until: u64,
}

/// Up to where a core has received the entries of the log that are for it: a sequence number of a
/// generation, as one number that another thread can store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogMark(pub u64);

impl LogMark {
    /// The mark of this sequence number.
    pub fn new(generation: u16, sequence: u64) -> LogMark {
        LogMark(u64::from(generation) << 48 | sequence.min((1 << 48) - 1))
    }

    fn split(self) -> (u16, u64) {
        ((self.0 >> 48) as u16, self.0 & ((1 << 48) - 1))
    }
}

/// The logs of which the homes on all cores deliver events, as far as their mail has said. A core
/// takes another log a little earlier or later than others.
#[derive(Debug, Default)]
pub(super) struct HomeLogs(Vec<u16>);

impl HomeLogs {
    /// The number of the log of a home; 0 before the first one.
    pub(super) fn of(&self, home: u16) -> u16 {
        self.0.get(usize::from(home)).copied().unwrap_or(0)
    }

    /// Notes that a home goes on with another log.
    pub(super) fn begin(&mut self, home: u16, log: u16) {
        let home = usize::from(home);
        if self.0.len() <= home {
            self.0.resize(home + 1, 0);
        }
        self.0[home] = log;
    }
}

/// What a core knows of the log; all numbers besides `stream` and `generation` are serial numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogView {
    pub(super) generation: u16,
    pub(super) stream: u64,
    /// Everything up to this one was received.
    pub(super) reached: u64,
    /// Up to this one the node reads what was stored before it came, or while it was away.
    read_until: u64,
    /// Events up to this one may have expired before this node has read them.
    pub(super) floor: u64,
    /// The last event of those histories that were dropped.
    pub(super) forgotten: u64,
    /// Positions up to this one are void.
    void: u64,
    /// The last event of the log when it had lost those that are void.
    base: u64,
}

impl LogView {
    /// Notes how the node goes on. Returns whether it does so with another log, so that all
    /// histories are over.
    pub(super) fn begin(&mut self, start: LogStart) -> bool {
        let LogStart { generation, stream, .. } = start;
        let is_other = (self.generation, self.stream) != (generation, stream);
        if is_other {
            let void = end_of(start.void_until);
            let base = if void > 0 { end_of(start.read_until) } else { 0 };
            *self = LogView { generation, stream, void, base, ..LogView::default() };
        }
        self.floor = end_of(start.known_after);
        self.read_until = end_of(start.read_until).max(self.void);
        is_other
    }

    /// What the core knows of the events of an application, of which those up to this serial number
    /// may have expired before this node has read them.
    pub(super) fn with_floor(self, floor: u64) -> LogView {
        LogView { floor: self.floor.max(floor), ..self }
    }

    /// Notes that everything up to a mark was received.
    pub(super) fn reach(&mut self, mark: LogMark) {
        let (generation, sequence) = mark.split();
        if generation == self.generation {
            self.reached = self.reached.max(end_of(sequence));
        }
    }

    /// Whether everything that was stored when the node came, or came back, was received. Until
    /// then events may be missing that are about to be read.
    pub(super) fn is_current(&self) -> bool {
        self.reached >= self.read_until.max(self.floor)
    }

    /// Whether events are still to come that are kept and not delivered: no subscriber may resume
    /// after what is kept now.
    pub(super) fn is_reading_late(&self) -> bool {
        self.present() > self.reached
    }

    /// The position after which a new subscriber gets everything.
    pub(super) fn present(&self) -> u64 {
        match self.floor {
            // Subscribers of this time are closed.
            floor if floor >= end_of(u64::MAX) => self.reached,
            floor => self.reached.max(floor),
        }
    }

    /// Whether an event at a place, which a history remembers for `ttl_ms`, was read so late that
    /// it may be there a second time, at a later place than other nodes have.
    pub(super) fn is_doubtful(&self, place: LogPlace, ttl_ms: u64) -> bool {
        place.serial <= self.floor && place.age_ms.saturating_add(LATE_MS) >= ttl_ms
    }

    /// Whether an event at a place is delivered.
    pub(super) fn delivers(&self, place: Option<LogPlace>) -> bool {
        place.is_none_or(|place| place.serial > self.floor)
    }

    /// The serial number up to which a log that has lost its end had been read before; 0 of another
    /// log.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Whether a position is void.
    pub(super) fn is_void(&self, serial: u64) -> bool {
        self.void > 0 && serial <= self.void
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_serial_numbers_rise_and_have_53_bits() {
        assert_eq!(log_serial(1, 0), Some(64));
        assert_eq!((log_serial(1, 63), log_serial(1, 64)), (Some(127), None));
        assert_eq!(log_serial(2, 0), Some(128));
        let last = (1 << 47) - 1;
        assert_eq!(log_serial(last, 63), Some((1 << 53) - 1));
        assert_eq!((log_serial(last + 1, 0), log_serial(u64::MAX, 63)), (None, None));
        assert_eq!(
            (end_of(1), end_of(last), end_of(u64::MAX)),
            (127, (1 << 53) - 1, (1 << 53) - 1)
        );
    }

    #[test]
    fn log_marks_of_another_generation_are_ignored() {
        let mut view = LogView::default();
        let start =
            LogStart { generation: 1, stream: 7, read_until: 5, known_after: 5, void_until: 0 };
        assert!(view.begin(start));
        assert_eq!((view.floor, view.is_current()), (5 * 64 + 63, false));
        view.reach(LogMark::new(0, 9));
        assert_eq!(view.reached, 0);
        view.reach(LogMark::new(1, 4));
        assert!(!view.is_current());
        view.reach(LogMark::new(1, 5));
        assert!(view.is_current());
        view.reach(LogMark::new(1, 3));
        assert_eq!(view.reached, 5 * 64 + 63, "it does not go back");
        // What was stored meanwhile is read, and only after a gap some of it may be missing.
        assert!(!view.begin(LogStart { read_until: 8, known_after: 0, ..start }));
        assert_eq!((view.floor, view.is_current()), (0, false));
        assert!(!view.begin(LogStart { read_until: 8, known_after: 8, ..start }));
        assert_eq!((view.floor, view.is_current()), (8 * 64 + 63, false));
        let place =
            |serial| Some(LogPlace { serial, age_ms: 0, ttl_s: None, was_delivered: false });
        assert!(!view.delivers(place(8 * 64 + 63)) && view.delivers(place(9 * 64)));
        assert!(view.delivers(None));
        let aged = |serial, age_ms| LogPlace { serial, age_ms, ttl_s: None, was_delivered: false };
        assert!(
            view.is_doubtful(aged(64, 3000), 20_000) && !view.is_doubtful(aged(64, 2999), 20_000)
        );
        assert!(!view.is_doubtful(aged(9 * 64, 3000), 20_000), "it was read in time");
        assert_eq!((view.reached, view.present()), (5 * 64 + 63, 8 * 64 + 63));
        // Nothing is known up to the present.
        assert!(!view.begin(LogStart { read_until: 8, known_after: u64::MAX, ..start }));
        assert_eq!((view.delivers(place(1 << 52)), view.present()), (false, 5 * 64 + 63));
        assert_eq!(LogMark::new(u16::MAX, u64::MAX).split(), (u16::MAX, (1 << 48) - 1));
    }

    #[test]
    fn log_view_of_another_log_knows_nothing_and_of_one_without_its_end_has_void_positions() {
        let start =
            LogStart { generation: 1, stream: 7, read_until: 5, known_after: 5, void_until: 0 };
        let mut view = LogView { forgotten: 100, reached: 9999, ..LogView::default() };
        assert!(view.begin(start) && !view.begin(start));
        assert_eq!((view.forgotten, view.reached, view.is_void(0)), (0, 0, false));
        let other = LogStart { generation: 2, stream: 8, read_until: 0, known_after: 0, ..start };
        assert!(view.begin(other));
        assert_eq!((view.floor, view.is_current()), (0, true));
        // It uses the numbers up to 9 again.
        let cut = LogStart { generation: 3, read_until: 2, known_after: 2, void_until: 9, ..other };
        assert!(view.begin(cut));
        let last = 9 * 64 + 63;
        assert!(view.is_void(last) && !view.is_void(last + 1));
        view.reach(LogMark::new(3, 8));
        assert!(!view.is_current());
        view.reach(LogMark::new(3, 9));
        assert_eq!((view.floor, view.is_current()), (2 * 64 + 63, true));
    }
}
