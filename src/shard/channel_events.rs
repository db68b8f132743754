//! Channel events for webhooks.

use super::Shard;
use crate::dialect;
use crate::dialect::Event;
use crate::hub::{ChannelEvent, ChannelEventKind, SharedFrame};
use crate::time::Now;

impl Shard {
    /// Removes and returns the oldest channel event. A subscription count is also published to the
    /// channel's subscribers, if the dialect has an event for it.
    pub fn next_channel_event(&mut self, now: Now) -> Option<ChannelEvent> {
        if let Some(channel_event) = self.channel_event.take() {
            return Some(channel_event);
        }
        let channel_event = self.hub.next_channel_event()?;
        if let ChannelEventKind::Count(count) = channel_event.what
            && let Some(frame) =
                dialect::count(&self.env, channel_event.app, &channel_event.channel, count)
        {
            let compressed = self.env.compresses.then(Default::default);
            let mut event = Event::from(SharedFrame { frame, compressed });
            self.announce(channel_event.app, &channel_event.channel, &mut event, now);
        }
        Some(channel_event)
    }

    /// Takes back a channel event that could not be handed over.
    pub fn keep_channel_event(&mut self, channel_event: ChannelEvent) {
        self.channel_event = Some(channel_event);
    }

    /// Whether channel events wait to be handed over.
    pub fn has_channel_events(&self) -> bool {
        self.channel_event.is_some() || self.hub.has_channel_events()
    }

    /// The number of channel events that were dropped since the last call because their queue was
    /// full.
    pub fn lost_channel_events(&mut self) -> u64 {
        self.counters.hooks_cancelled.add(self.hub.cancelled_channel_events());
        let mut lost = 0;
        for (app, count) in self.hub.lost_channel_events() {
            if let Some(app) = self.env.apps.find(app) {
                app.count_dropped_hooks(count);
            }
            lost += count;
        }
        lost
    }
}
