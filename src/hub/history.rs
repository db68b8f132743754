//! The last messages of a channel, which its home keeps for who subscribes later.
//!
//! They are the frames that the subscribers have got, so keeping one costs a count. They go with
//! the last subscriber: nobody is told what was said in a group that has ended.

use super::mail::{Event, Squeezed};
use crate::mem::Frozen;
use std::collections::VecDeque;
use std::sync::Arc;

/// How much of a channel is kept, this event included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remember {
    /// Events.
    pub most: u32,
    /// Bytes of their frames.
    pub bytes: usize,
}

/// One kept event.
#[derive(Clone, Debug)]
pub struct Past {
    /// The frame.
    pub frame: Frozen,
    /// Its compressed forms, where some endpoint compresses.
    pub squeezed: Option<Arc<Squeezed>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<Past>,
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
    pub(super) fn push(&mut self, event: &Event, remember: Remember) -> u64 {
        let past = Past { frame: event.frame.clone(), squeezed: event.squeezed.clone() };
        self.bytes += past.frame.len();
        self.events.push_back(past);
        while self.events.len() > remember.most as usize {
            self.forget_first();
        }
        let mut lost = 0;
        while self.bytes > remember.bytes {
            self.forget_first();
            lost += 1;
        }
        lost
    }

    fn forget_first(&mut self) {
        self.bytes -= self.events.pop_front().map_or(0, |past| past.frame.len());
    }

    /// The events, the oldest first.
    pub(super) fn events(&self) -> Vec<Past> {
        self.events.iter().cloned().collect()
    }

    /// Bytes that it holds, about; with one compressed form of each frame that has such.
    pub(super) fn memory(&self) -> usize {
        let squeezes = self.events.back().is_some_and(|past| past.squeezed.is_some());
        let frames = if squeezes { 2 * self.bytes } else { self.bytes };
        let each = size_of::<Past>() + if squeezes { size_of::<Squeezed>() } else { 0 };
        size_of::<History>() + self.events.len() * each + frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts that are kept, and how many were lost, after these were pushed.
    fn check(texts: &[&str], most: u32, bytes: usize, kept: &[&str], lost: u64) {
        let mut history = History::new(1);
        let push = |text: &&str| {
            let event = Event { frame: Frozen::new(text.as_bytes()), ..Event::default() };
            history.push(&event, Remember { most, bytes })
        };
        assert_eq!(texts.iter().map(push).sum::<u64>(), lost, "{texts:?} {most} {bytes}");
        let found = history.events();
        let found: Vec<_> = found.iter().map(|past| str::from_utf8(&past.frame)).collect();
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
