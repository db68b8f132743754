//! Channel events for webhooks.

use super::Shard;
use crate::dialect;
use crate::hub::{ChannelEvent, ChannelEventKind, Event};
use crate::time::Now;

impl Shard {
    /// Removes and returns the oldest channel event. A subscription count is also published to the
    /// channel's subscribers, if the dialect has an event for it.
    pub fn next_notice(&mut self, now: Now) -> Option<ChannelEvent> {
        if let Some(notice) = self.notice.take() {
            return Some(notice);
        }
        let notice = self.hub.next_notice()?;
        if let ChannelEventKind::Count(count) = notice.what
            && let Some(frame) = dialect::count(&self.env, notice.app, &notice.channel, count)
        {
            let compressed = self.env.compresses.then(Default::default);
            let event = Event { frame, compressed, ..Event::default() };
            self.announce(notice.app, &notice.channel, &event, now);
        }
        Some(notice)
    }

    /// Takes back a channel event that could not be handed over.
    pub fn keep_notice(&mut self, notice: ChannelEvent) {
        self.notice = Some(notice);
    }

    /// Whether channel events wait to be handed over.
    pub fn has_notices(&self) -> bool {
        self.notice.is_some() || self.hub.has_notices()
    }

    /// The number of channel events that were dropped since the last call because their queue was
    /// full.
    pub fn lost_notices(&mut self) -> u64 {
        self.counters.hooks_cancelled.add(self.hub.cancelled_notices());
        let mut lost = 0;
        for (app, count) in self.hub.lost_notices() {
            if let Some(app) = self.env.apps.find(app) {
                app.count_dropped_hooks(count);
            }
            lost += count;
        }
        lost
    }
}
