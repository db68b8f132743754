//! The last messages of a channel, which its home keeps for later subscribers.
//!
//! An entry shares the frame that the subscribers have got, so it costs one reference. The history
//! is dropped when the last subscriber leaves, so that a new group does not get the messages of an
//! earlier one.

use super::mail::{CompressedFrames, Event};
use crate::mem::Frozen;
use std::collections::VecDeque;
use std::sync::Arc;

/// How much of a channel's history is kept, the present event included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimit {
    /// Number of events.
    pub max: u32,
    /// Bytes of their frames.
    pub bytes: usize,
}

/// One kept event.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// The frame.
    pub frame: Frozen,
    /// The compressed frames, if an endpoint compresses.
    pub compressed: Option<Arc<CompressedFrames>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<HistoryEntry>,
    /// Bytes of the frames.
    bytes: usize,
    /// The history's position in the order in which pictures and histories began; the hub maintains
    /// it.
    pub(super) since: u64,
}

impl History {
    pub(super) fn new(since: u64) -> History {
        History { events: VecDeque::new(), bytes: 0, since }
    }

    /// Appends an event and removes the oldest events beyond the limit. Returns the number of
    /// events that were removed because of the limit in bytes, which may include the new event.
    /// Events beyond the limit in number are not counted: a full history drops one for each event.
    pub(super) fn push(&mut self, event: &Event, history_limit: HistoryLimit) -> u64 {
        let entry =
            HistoryEntry { frame: event.frame.clone(), compressed: event.compressed.clone() };
        self.bytes += entry.frame.len();
        self.events.push_back(entry);
        while self.events.len() > history_limit.max as usize {
            self.forget_first();
        }
        let mut lost = 0;
        while self.bytes > history_limit.bytes {
            self.forget_first();
            lost += 1;
        }
        lost
    }

    fn forget_first(&mut self) {
        self.bytes -= self.events.pop_front().map_or(0, |entry| entry.frame.len());
    }

    /// The events, the oldest first.
    pub(super) fn events(&self) -> Vec<HistoryEntry> {
        self.events.iter().cloned().collect()
    }

    /// Bytes of memory, estimated. An event with compressed frames is counted with one of them.
    pub(super) fn memory(&self) -> usize {
        let is_compressing = self.events.back().is_some_and(|entry| entry.compressed.is_some());
        let frames = if is_compressing { 2 * self.bytes } else { self.bytes };
        let each = size_of::<HistoryEntry>()
            + if is_compressing { size_of::<CompressedFrames>() } else { 0 };
        size_of::<History>() + self.events.len() * each + frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks which texts are kept and how many were lost after `texts` were pushed.
    fn check(texts: &[&str], max: u32, bytes: usize, kept: &[&str], lost: u64) {
        let mut history = History::new(1);
        let push = |text: &&str| {
            let event = Event { frame: Frozen::new(text.as_bytes()), ..Event::default() };
            history.push(&event, HistoryLimit { max, bytes })
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
}
