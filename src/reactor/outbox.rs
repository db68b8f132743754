//! The bounded queue of channel events from a core to the control thread, with a notifier that
//! wakes that thread.

use super::Reactor;
use crate::driver::Driver;
use crate::hub::ChannelEvent;
use crate::mem::Notifier;
use crate::mem::mailbox::Sender;
use crate::time::Now;

/// The sending end of one core's queue to the control thread.
pub struct Outbox {
    queue: Sender<ChannelEvent>,
    notifier: Notifier,
}

impl Outbox {
    /// Creates the outbox that sends to `queue`, whose receiver is woken by `notifier`.
    pub fn new(queue: Sender<ChannelEvent>, notifier: Notifier) -> Outbox {
        Outbox { queue, notifier }
    }
}

impl<D: Driver> Reactor<D> {
    /// Moves the hub's channel events into the queue to the control thread, and notifies that
    /// thread at most once. Events without room stay in the hub, which drops events above its
    /// limit.
    pub(super) fn hand_over_channel_events(&mut self, now: Now) {
        let Some(outbox) = &mut self.outbox else {
            // Nothing outside this core needs the events, but taking them publishes subscriber
            // counts to the channels' own subscribers.
            while self.shard.next_channel_event(now).is_some() {}
            return;
        };
        self.counters.hooks_dropped.add(self.shard.lost_channel_events());
        let mut notified = false;
        while let Some(channel_event) = self.shard.next_channel_event(now) {
            notified = true;
            if let Err(channel_event) = outbox.queue.push(channel_event) {
                self.shard.keep_channel_event(channel_event);
                break;
            }
        }
        if notified {
            outbox.notifier.notify();
        }
    }

    /// Counts the events that could not be handed over before the end as dropped.
    pub(super) fn drop_channel_events(&mut self, now: Now) {
        self.hand_over_channel_events(now);
        while self.shard.next_channel_event(now).is_some() {
            self.counters.hooks_dropped.add(1);
        }
    }
}
