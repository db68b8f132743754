//! A core's way to the control thread: one bounded lane, and a bell for when that thread sleeps.

use super::Reactor;
use crate::hub::ChannelEvent;
use crate::mem::Notifier;
use crate::mem::mailbox::Sender;
use crate::time::Now;

/// The sending end of one core's lane.
pub struct Outbox {
    lane: Sender<ChannelEvent>,
    notifier: Notifier,
}

impl Outbox {
    /// A lane whose receiver is woken by `notifier`.
    pub fn new(lane: Sender<ChannelEvent>, notifier: Notifier) -> Outbox {
        Outbox { lane, notifier }
    }
}

impl Reactor {
    /// Hands over what the hub has noticed, as far as there is room, and rings at most once. What
    /// has no room waits in the hub, whose bound drops the rest.
    pub(super) fn hand_over_notices(&mut self, now: Now) {
        let Some(outbox) = &mut self.outbox else {
            // Nobody outside wants them; taking them tells those inside.
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

    /// Counts what could not be handed over before the end.
    pub(super) fn drop_notices(&mut self, now: Now) {
        self.hand_over_notices(now);
        while self.shard.next_notice(now).is_some() {
            self.counters.hooks_dropped.add(1);
        }
    }
}
