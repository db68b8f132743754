//! A core's way to the control thread: one bounded lane, and a bell for when that thread sleeps.

use super::Reactor;
use crate::hub::Notice;
use crate::mem::Bell;
use crate::mem::mailbox::Sender;
use crate::time::Now;

/// The sending end of one core's lane.
pub struct Outbox {
    lane: Sender<Notice>,
    bell: Bell,
}

impl Outbox {
    /// A lane whose receiver is woken by `bell`.
    pub fn new(lane: Sender<Notice>, bell: Bell) -> Outbox {
        Outbox { lane, bell }
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
        let mut rung = false;
        while let Some(notice) = self.shard.next_notice(now) {
            rung = true;
            if let Err(notice) = outbox.lane.push(notice) {
                self.shard.keep_notice(notice);
                break;
            }
        }
        if rung {
            outbox.bell.ring();
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
