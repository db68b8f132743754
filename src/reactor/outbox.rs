//! The bounded queue of channel events from a core to the control thread, with a notifier that
//! wakes that thread.

use super::Reactor;
use crate::hub::ChannelEvent;
use crate::mem::Notifier;
use crate::mem::mailbox::Sender;
use crate::time::Now;

/// The sending end of one core's queue to the control thread.
pub struct Outbox {
    lane: Sender<ChannelEvent>,
    notifier: Notifier,
}

impl Outbox {
    /// Creates the outbox that sends to `lane`, whose receiver is woken by `notifier`.
    pub fn new(lane: Sender<ChannelEvent>, notifier: Notifier) -> Outbox {
        Outbox { lane, notifier }
    }
}

impl Reactor {
    /// Moves the hub's channel events into the queue to the control thread, and notifies that
    /// thread at most once. Events without room stay in the hub, which drops events above its
    /// limit.
    pub(super) fn hand_over_notices(&mut self, now: Now) {
        let Some(outbox) = &mut self.outbox else {
            // Nothing outside this core needs the events, but taking them publishes subscriber
            // counts to the channels' own subscribers.
            while self.shard.next_notice(now).is_some() {}
            return;
        };
        self.counters.hooks_dropped.add(self.shard.lost_notices());
        let mut notified = false;
        while let Some(notice) = self.shard.next_notice(now) {
            notified = true;
            if let Err(notice) = outbox.lane.push(notice) {
                self.shard.keep_notice(notice);
                break;
            }
        }
        if notified {
            outbox.notifier.notify();
        }
    }

    /// Counts the events that could not be handed over before the end as dropped.
    pub(super) fn drop_notices(&mut self, now: Now) {
        self.hand_over_notices(now);
        while self.shard.next_notice(now).is_some() {
            self.counters.hooks_dropped.add(1);
        }
    }
}
