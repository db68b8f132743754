//! The last messages of a channel, which its home keeps for who subscribes later.
//!
//! They are the frames that the subscribers have got, so keeping one costs a count. They go with
//! the last subscriber: nobody is told what was said in a group that has ended.

use super::mail::{CompressedFrames, Event};
use crate::mem::Frozen;
use std::collections::VecDeque;
use std::sync::Arc;

/// How much of a channel is kept, this event included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimit {
    /// Events.
    pub max: u32,
    /// Bytes of their frames.
    pub bytes: usize,
}

/// One kept event.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// The frame.
    pub frame: Frozen,
    /// Its compressed forms, where some endpoint compresses.
    pub compressed: Option<Arc<CompressedFrames>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<HistoryEntry>,
    /// Of the frames.
    bytes: usize,
    /// Its place in the order in which pictures and histories began; the hub's to keep.
    pub(super) since: u64,
}

impl History {
    pub(super) fn new(since: u64) -> History {
        History { events: VecDeque::new(), bytes: 0, since }
    }

    /// Keeps an event; the oldest make room. Says how many had to go for the bound in bytes, this
    /// one perhaps among them: those for the bound in number have had their time.
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

    /// Bytes that it holds, about; with one compressed form of each frame that has such.
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

    /// The texts that are kept, and how many were lost, after these were pushed.
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
    fn both_bounds_from_both_sides() {
        check(&["a", "b", "c"], 3, 3, &["a", "b", "c"], 0);
        check(&["a", "b", "c"], 2, 3, &["b", "c"], 0);
        check(&["a", "b", "c"], 3, 2, &["b", "c"], 1);
        check(&["aa", "b", "ccc"], 3, 4, &["b", "ccc"], 1);
        check(&["aa", "b", "ccc"], 3, 3, &["ccc"], 2);
        // What does not fit alone is not kept, and nothing before it: no gap is ever told.
        check(&["a", "bbbb"], 3, 3, &[], 2);
        check(&["a", "bbbb", "c"], 3, 3, &["c"], 2);
        check(&["", "", ""], 2, 1, &["", ""], 0);
    }
}
