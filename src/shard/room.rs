//! The connections that wait until their application has room for them.

use super::Shard;
use crate::mem::Slot;
use crate::session::SessionEvent;
use crate::time::Now;

impl Shard {
    /// Lets a connection wait until its application may have room.
    pub(super) fn await_room(&mut self, app: u32, slot: Slot) {
        self.awaiting_room.entry(app).or_default().push(slot);
    }

    /// Asks the connections that wait for room of an application, the first one first. Those that
    /// go on waiting request that again.
    pub(super) fn offer_room(&mut self, app: u32, now: Now) {
        let waiting = self.awaiting_room.remove(&app).unwrap_or_default();
        for slot in waiting {
            self.on_event(slot, SessionEvent::Room, now);
            // Nothing is read of a connection that waits.
            self.try_resume(slot, now);
        }
    }

    /// Asks all connections that wait for room: some may have waited for too long.
    pub(super) fn offer_rooms(&mut self, now: Now) {
        let apps: Vec<u32> = self.awaiting_room.keys().copied().collect();
        apps.into_iter().for_each(|app| self.offer_room(app, now));
    }
}
