//! The last events of a channel, which its home keeps for later subscribers.
//!
//! An entry shares the frame that the subscribers have got, so it costs one reference. There are
//! two kinds. A history without a lifetime is dropped when the last subscriber leaves, so that a
//! new group does not get the messages of an earlier one. A history with a lifetime keeps each
//! event until that time is over, also while the channel has no subscriber, and its events have
//! positions, by which a subscriber that was away says what it has got.

use super::event::HistoryLimit;
use super::forms::{EventForms, StreamPosition};
use super::frames::{CompressedFrames, SharedFrame};
use super::log_view::{LATE_MS, LogPlace, LogView};
use super::numbers::Numbers;
use crate::mem::Frozen;
use std::collections::VecDeque;
use std::sync::Arc;

/// The bytes of an event's frame besides its content: the two counts of a shared allocation.
const FRAME_BYTES: usize = 2 * size_of::<usize>();

/// The bytes of an entry's positioned form besides its frame's: the members that it adds, and the
/// tables of forms.
const FORM_BYTES: usize = 64 + size_of::<EventForms>() + 128;

/// A full queue of events gets room for this part of their number.
const SPARE_PART: usize = 16;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<HistoryEntry>,
    numbers: Numbers,
    /// The position of the last event that was pushed; its serial is 0 before the first one. In a
    /// cluster it is a position after which no event was received.
    position: StreamPosition,
    /// Bytes of the frames, and of the frames of which the entries have other forms.
    bytes: usize,
    formed_bytes: usize,
    formed: usize,
    /// The views of links through which subscribers have resumed; 0 stands for the channel itself.
    /// Each may need a form of each event.
    views: Vec<u16>,
    /// How long an event is kept, in milliseconds; 0 if the history ends with its last subscriber.
    ttl_ms: u64,
    /// When the channel was last seen without a subscriber, if it has none; in milliseconds.
    pub(super) idle_ms: Option<u64>,
    /// The time of the next examination, in milliseconds; `u64::MAX` if none is due. The hub
    /// maintains it, and the index that it is in.
    pub(super) look_ms: u64,
    /// The history's position in the order in which pictures and histories began; the hub maintains
    /// it.
    pub(super) since: u64,
    /// Bytes of the tables of a channel that exists only for its history.
    overhead: usize,
    /// The number of requests to resume that have found all events, and of those that have not.
    recovered: u32,
    not_recovered: u32,
}

/// The use of a history with positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryUsage {
    /// The position of the last event.
    pub position: StreamPosition,
    /// The number of events that are kept.
    pub events: usize,
    /// Their bytes with all tables, as the account of kept memory counts them.
    pub bytes: usize,
    /// The number of requests to resume, since the history began, whose events were found. The
    /// missed events of some of them may have been too large for their connection.
    pub recovered: u32,
    /// The number of requests to resume for which events are missing.
    pub not_recovered: u32,
}

/// One event of a history.
#[derive(Clone, Debug)]
pub(super) struct HistoryEntry {
    pub(super) shared: SharedFrame,
    /// The other forms of the event, if subscribers may need them.
    forms: Option<Arc<EventForms>>,
    /// The time at which it expires, in milliseconds; `u64::MAX` if it does not.
    until_ms: u64,
}

impl History {
    /// A history without an event. `overhead` is the bytes of a channel that exists only for it.
    pub(super) fn new(since: u64, stream: u64, ttl_ms: u64, overhead: usize) -> History {
        History {
            events: VecDeque::new(),
            numbers: Numbers::Counted,
            position: StreamPosition { stream, serial: 0 },
            bytes: 0,
            formed_bytes: 0,
            formed: 0,
            views: Vec::new(),
            ttl_ms,
            idle_ms: None,
            look_ms: u64::MAX,
            since,
            overhead,
            recovered: 0,
            not_recovered: 0,
        }
    }

    /// The history with its first event after this serial number.
    pub(super) fn after_serial(mut self, serial: u64) -> History {
        self.position.serial = serial;
        self
    }

    /// A history without an event, whose positions come from the log of a cluster.
    pub(super) fn of_log(since: u64, view: &LogView, ttl_ms: u64, overhead: usize) -> History {
        let mut history = History::new(since, view.stream, ttl_ms, overhead);
        history.numbers = Numbers::of_log(view.forgotten);
        history.position.serial = view.present();
        history
    }

    /// Notes that no event of the channel has come up to this serial number of the log, besides
    /// those that were pushed.
    pub(super) fn note_reached(&mut self, serial: u64) {
        self.position.serial = self.position.serial.max(serial);
    }

    /// Notes that no subscriber may resume after an event before the last one: the last one may be
    /// there a second time, at a place that it does not have on other nodes.
    pub(super) fn forbid_earlier(&mut self) {
        if let Numbers::OfLog(numbers) = &mut self.numbers {
            numbers.lost = numbers.lost.max(numbers.last);
        }
    }

    /// The serial number of the last event by the log of a cluster; 0 without one.
    pub(super) fn last_of_log(&self) -> u64 {
        match &self.numbers {
            Numbers::Counted => 0,
            Numbers::OfLog(numbers) => numbers.last,
        }
    }

    /// Whether there never was an event.
    pub(super) fn is_unused(&self) -> bool {
        match &self.numbers {
            Numbers::Counted => self.position.serial == 0,
            Numbers::OfLog(numbers) => numbers.last == 0,
        }
    }

    /// Counts a request to resume.
    pub(super) fn count_resume(&mut self, is_recovered: bool) {
        let count = if is_recovered { &mut self.recovered } else { &mut self.not_recovered };
        *count = count.saturating_add(1);
    }

    /// The present use.
    pub(super) fn usage(&self) -> HistoryUsage {
        HistoryUsage {
            position: self.position,
            events: self.events.len(),
            bytes: self.memory(),
            recovered: self.recovered,
            not_recovered: self.not_recovered,
        }
    }

    /// Whether the history outlives the channel's last subscriber.
    pub(super) fn outlives(&self) -> bool {
        self.ttl_ms > 0
    }

    /// The number of events.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// The position of the last event.
    pub(super) fn position(&self) -> StreamPosition {
        self.position
    }

    /// The position of the next event, which may have its place in the log of a cluster.
    pub(super) fn next(&self, place: Option<LogPlace>) -> StreamPosition {
        let serial = match (&self.numbers, place) {
            (Numbers::OfLog(_), Some(place)) => place.serial,
            _ => self.position.serial + 1,
        };
        StreamPosition { serial, ..self.position }
    }

    /// The serial number of the first event that is kept, or that of the next event, if they are
    /// consecutive.
    fn first(&self) -> u64 {
        self.position.serial + 1 - self.events.len() as u64
    }

    /// The serial number of the event at this index.
    fn serial_at(&self, index: usize) -> u64 {
        match &self.numbers {
            Numbers::Counted => self.first() + index as u64,
            Numbers::OfLog(numbers) => numbers.at(index).unwrap_or(self.position.serial),
        }
    }

    /// Appends the event at position [`History::next`] and removes the oldest events beyond the
    /// limit. Returns the number of events that were removed because of the limit in bytes, which
    /// may include the new event. Events beyond the limit in number, or beyond their lifetime, are
    /// not counted: a full history drops one for each event.
    pub(super) fn push(
        &mut self,
        shared: SharedFrame,
        forms: Option<Arc<EventForms>>,
        limit: HistoryLimit,
        now_ms: u64,
        place: Option<LogPlace>,
    ) -> u64 {
        let age_ms = place.map_or(0, |place| place.age_ms);
        let until_ms = match limit.ttl_ms() {
            0 => u64::MAX,
            ttl_ms => now_ms.saturating_add(ttl_ms.saturating_sub(age_ms)),
        };
        // Two, so that a channel drops expired events faster than new ones are added.
        self.expire(now_ms, 2);
        self.push_until(shared, forms, limit, until_ms, place)
    }

    /// Appends an event that expires at `until_ms`, in milliseconds; see [`History::push`].
    pub(super) fn push_until(
        &mut self,
        shared: SharedFrame,
        forms: Option<Arc<EventForms>>,
        limit: HistoryLimit,
        until_ms: u64,
        place: Option<LogPlace>,
    ) -> u64 {
        self.position = self.next(place);
        self.numbers.push(self.position.serial);
        self.ttl_ms = limit.ttl_ms();
        if self.events.len() == self.events.capacity() {
            // A queue that doubled its capacity would be half empty, at worst.
            self.events.reserve_exact(self.events.len() / SPARE_PART + 1);
        }
        self.bytes += shared.frame.len();
        if forms.is_some() {
            self.formed += 1;
            self.formed_bytes += shared.frame.len();
        }
        self.events.push_back(HistoryEntry { shared, forms, until_ms });
        self.trim(limit)
    }

    /// Removes the oldest events beyond the limit; see [`History::push`].
    pub(super) fn trim(&mut self, limit: HistoryLimit) -> u64 {
        while self.events.len() > limit.max as usize {
            self.forget_first();
        }
        let mut lost = 0;
        while self.bytes > limit.bytes {
            self.forget_first();
            lost += 1;
        }
        lost
    }

    /// Removes at most `max` events that have expired. Returns their number.
    pub(super) fn expire(&mut self, now_ms: u64, max: usize) -> usize {
        let mut expired = 0;
        while expired < max && self.events.front().is_some_and(|first| first.until_ms <= now_ms) {
            self.forget_first();
            expired += 1;
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        expired
    }

    fn forget_first(&mut self) {
        let Some(entry) = self.events.pop_front() else { return };
        self.numbers.pop();
        self.bytes -= entry.shared.frame.len();
        if entry.forms.is_some() {
            self.formed -= 1;
            self.formed_bytes -= entry.shared.frame.len();
        }
    }

    /// When the history must be examined next, in milliseconds: when its first event expires, or
    /// the channel has been without a subscriber for the lifetime of an event. `None` if the
    /// history is over, and `u64::MAX` if a later change determines it.
    pub(super) fn next_look(&self, now_ms: u64) -> Option<u64> {
        match (self.events.front(), self.idle_ms) {
            (Some(first), _) => Some(first.until_ms),
            (None, None) => Some(u64::MAX),
            (None, Some(idle_ms)) => {
                let until_ms = idle_ms.saturating_add(self.ttl_ms);
                (until_ms > now_ms).then_some(until_ms)
            }
        }
    }

    /// The events, the oldest first.
    pub(super) fn events(&self) -> Vec<SharedFrame> {
        self.events.iter().map(|entry| entry.shared.clone()).collect()
    }

    /// The frames of the events that have not expired, the oldest first, each with the milliseconds
    /// that are left of its lifetime.
    pub(super) fn left(&self, now_ms: u64) -> Vec<(Frozen, u64)> {
        let alive = self.events.iter().filter(|entry| entry.until_ms > now_ms);
        alive.map(|entry| (entry.shared.frame.clone(), entry.until_ms - now_ms)).collect()
    }

    /// Whether every event after the one with this serial number is kept, because that event is
    /// kept, too, or is the last one, or because there was none before the first. In a cluster
    /// `view` is what the core knows of the log.
    pub(super) fn reaches(&self, serial: u64, now_ms: u64, view: Option<&LogView>) -> bool {
        let last = self.position.serial;
        match (&self.numbers, view) {
            (Numbers::OfLog(numbers), Some(view)) => {
                if serial > last || view.is_void(serial) || !view.is_current() {
                    return false;
                }
                // If it was read late, the event itself must be kept, and for long enough.
                let lives = |index: usize| {
                    let until_ms = self.events.get(index).map_or(0, |entry| entry.until_ms);
                    until_ms > now_ms.saturating_add(LATE_MS)
                };
                serial >= numbers.lost
                    && (serial >= view.floor || numbers.index_of(serial).is_some_and(lives))
            }
            _ => {
                let first = self.first();
                serial <= last && (serial >= first || serial == last || (serial == 0 && first == 1))
            }
        }
    }

    /// The serial number after which the last `count` events that are kept follow.
    pub(super) fn before_last(&self, count: u32) -> u64 {
        let kept = self.events.len();
        match (&self.numbers, kept - kept.min(count as usize)) {
            (Numbers::Counted, index) => self.position.serial - (kept - index) as u64,
            (Numbers::OfLog(numbers), index) => {
                numbers.at(index).map_or(self.position.serial, |serial| serial - 1)
            }
        }
    }

    /// Notes that a subscriber resumes through this view, or through none.
    pub(super) fn note_view(&mut self, view: u16) {
        if !self.views.contains(&view) {
            self.views.push(view);
        }
    }

    /// The events after `serial` that have not expired, the oldest first. All replays of an event
    /// share its forms.
    pub(super) fn missed_after(
        &mut self,
        serial: u64,
        now_ms: u64,
    ) -> Vec<(SharedFrame, Arc<EventForms>)> {
        let positions: Vec<_> = self.after(serial, now_ms).map(|(position, _)| position).collect();
        let begin = self.events.len() - positions.len();
        let mut missed = Vec::with_capacity(positions.len());
        for (position, entry) in positions.into_iter().zip(self.events.range_mut(begin..)) {
            let forms = entry.forms.get_or_insert_with(|| {
                self.formed += 1;
                self.formed_bytes += entry.shared.frame.len();
                Arc::new(EventForms::new(Some(position)))
            });
            missed.push((entry.shared.clone(), forms.clone()));
        }
        missed
    }

    /// The events after `serial` that have not expired, each with its position, the oldest first.
    pub(super) fn after(
        &self,
        serial: u64,
        now_ms: u64,
    ) -> impl Iterator<Item = (StreamPosition, &HistoryEntry)> {
        let stream = self.position.stream;
        let from = self.index_after(serial);
        let numbered = self.events.range(from..).zip(from..);
        let alive = numbered.skip_while(move |(entry, _)| entry.until_ms <= now_ms);
        alive.map(move |(entry, index)| {
            (StreamPosition { stream, serial: self.serial_at(index) }, entry)
        })
    }

    /// Whether an event after this serial number has expired and was not removed yet.
    pub(super) fn has_expired_after(&self, serial: u64, now_ms: u64) -> bool {
        let next = self.events.get(self.index_after(serial));
        next.is_some_and(|entry| entry.until_ms <= now_ms)
    }

    /// The index of the first event after this serial number.
    fn index_after(&self, serial: u64) -> usize {
        match &self.numbers {
            Numbers::Counted => {
                let after = serial.saturating_add(1).saturating_sub(self.first());
                after.min(self.events.len() as u64) as usize
            }
            Numbers::OfLog(numbers) => numbers.count_until(serial),
        }
    }

    /// Bytes of memory, estimated. An event with compressed frames is counted with one of them, and
    /// an event with forms with one for each view through which a subscriber has resumed.
    pub(super) fn memory(&self) -> usize {
        let is_compressing =
            self.events.back().is_some_and(|entry| entry.shared.compressed.is_some());
        let views = self.views.len().max(1);
        let frames = self.bytes + views * self.formed_bytes;
        let frames = if is_compressing { 2 * frames } else { frames };
        let compressed = if is_compressing { size_of::<CompressedFrames>() } else { 0 };
        size_of::<History>()
            + self.overhead
            + self.events.capacity() * size_of::<HistoryEntry>()
            + self.events.len() * (FRAME_BYTES + compressed)
            + self.formed * views * (FORM_BYTES + compressed)
            + self.views.capacity() * size_of::<u16>()
            + self.numbers.memory()
            + frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Frozen;

    /// Checks which texts are kept and how many were lost after `texts` were pushed.
    fn check(texts: &[&str], max: u32, bytes: usize, kept: &[&str], lost: u64) {
        let mut history = History::new(1, 7, 0, 0);
        let push = |text: &&str| {
            let entry = SharedFrame { frame: Frozen::new(text.as_bytes()), compressed: None };
            history.push(entry, None, HistoryLimit { max, bytes, ttl_s: 0 }, 0, None)
        };
        assert_eq!(texts.iter().map(push).sum::<u64>(), lost, "{texts:?} {max} {bytes}");
        let found = history.events();
        let found: Vec<_> = found.iter().map(|entry| str::from_utf8(&entry.frame)).collect();
        assert_eq!(found, kept.iter().map(|text| Ok(*text)).collect::<Vec<_>>());
        assert_eq!(history.bytes, kept.iter().map(|text| text.len()).sum::<usize>());
    }

    #[test]
    fn history_keeps_both_limits_on_both_sides() {
        check(&["a", "b", "c"], 3, 3, &["a", "b", "c"], 0);
        check(&["a", "b", "c"], 2, 3, &["b", "c"], 0);
        check(&["a", "b", "c"], 3, 2, &["b", "c"], 1);
        check(&["aa", "b", "ccc"], 3, 4, &["b", "ccc"], 1);
        check(&["aa", "b", "ccc"], 3, 3, &["ccc"], 2);
        // An event that does not fit alone is dropped with everything before it, so that a history
        // never has a gap.
        check(&["a", "bbbb"], 3, 3, &[], 2);
        check(&["a", "bbbb", "c"], 3, 3, &["c"], 2);
        check(&["", "", ""], 2, 1, &["", ""], 0);
    }

    const LIMIT: HistoryLimit = HistoryLimit { max: 3, bytes: 1000, ttl_s: 10 };

    /// A history of events whose texts are their serial numbers, one each second from time 0.
    fn numbered(count: u64) -> History {
        let mut history = History::new(1, 7, 10_000, 0);
        for serial in 1..=count {
            let frame = Frozen::new(serial.to_string().as_bytes());
            assert_eq!(history.next(None).serial, serial);
            let shared = SharedFrame { frame, compressed: None };
            history.push(shared, None, LIMIT, serial * 1000, None);
        }
        history
    }

    #[test]
    fn history_reaches_a_position_only_if_nothing_after_it_is_lost() {
        let reached =
            |count| (0..8).filter(|it| numbered(count).reaches(*it, 0, None)).collect::<Vec<_>>();
        assert_eq!(reached(0), [0]);
        assert_eq!(reached(1), [0, 1]);
        assert_eq!(reached(3), [0, 1, 2, 3]);
        assert_eq!(reached(5), [3, 4, 5]);
        let mut history = numbered(5);
        assert_eq!(history.expire(13_999, 9), 1, "the event of time 3000 lives until 13000");
        assert!(!history.reaches(3, 0, None) && history.reaches(4, 0, None));
        assert_eq!(history.expire(15_000, 9), 2);
        assert!(
            !history.reaches(4, 0, None)
                && history.reaches(5, 0, None)
                && !history.reaches(6, 0, None)
        );
    }

    #[test]
    fn history_lists_what_follows_a_position() {
        let history = numbered(5);
        let after = |serial, now_ms| -> Vec<u64> {
            history.after(serial, now_ms).map(|(position, _)| position.serial).collect()
        };
        assert_eq!(after(0, 0), [3, 4, 5]);
        assert_eq!(after(3, 0), [4, 5]);
        assert_eq!(after(5, 0), [0; 0]);
        assert_eq!(after(u64::MAX - 1, 0), [0; 0]);
        assert_eq!(after(0, 13_000), [4, 5], "expired, and not swept yet");
        let texts = history.after(2, 0).map(|(at, entry)| (at.serial, entry.shared.frame.clone()));
        for (serial, frame) in texts {
            assert_eq!(&*frame, serial.to_string().as_bytes());
        }
        assert_eq!([0, 2, 3, 9].map(|count| history.before_last(count)), [5, 3, 2, 2]);
    }

    #[test]
    fn history_is_over_when_its_events_are_and_the_channel_was_idle_for_as_long() {
        let mut history = numbered(5);
        history.idle_ms = Some(6000);
        assert_eq!(history.next_look(0), Some(13_000));
        history.expire(15_000, 9);
        assert_eq!(history.next_look(15_999), Some(16_000));
        assert_eq!(history.next_look(16_000), None);
        history.idle_ms = None;
        assert_eq!(history.next_look(16_000), Some(u64::MAX), "it has a subscriber");
    }

    #[test]
    fn history_keeps_an_event_in_64_bytes_besides_its_frame() {
        // While the queue grows, and after as many events again have replaced the first ones.
        for (count, text) in [(1, "x"), (2, "x"), (5, ""), (100, "x"), (10_000, "a small event")] {
            let limit = HistoryLimit { max: count, bytes: 1 << 30, ttl_s: 10 };
            let mut history = History::new(1, 7, 10_000, 0);
            let empty = history.memory();
            for pushed in 1..=2 * count {
                let shared = SharedFrame { frame: Frozen::new(text.as_bytes()), compressed: None };
                history.push(shared, None, limit, 0, None);
                let kept = history.len();
                assert_eq!(kept, pushed.min(count) as usize);
                let beside = history.memory() - empty - kept * text.len();
                let max = if kept < 5 { 40 + 64 * kept } else { 64 * kept };
                assert!(beside <= max, "{kept} events: {beside} bytes");
            }
        }
        assert_eq!(size_of::<HistoryEntry>(), 40);
    }

    #[test]
    fn history_counts_resumes() {
        let mut history = numbered(5);
        [true, false, true].into_iter().for_each(|recovered| history.count_resume(recovered));
        let position = StreamPosition { stream: 7, serial: 5 };
        let bytes = history.memory();
        let expected = HistoryUsage { position, events: 3, bytes, recovered: 2, not_recovered: 1 };
        assert_eq!(history.usage(), expected);
    }
}
