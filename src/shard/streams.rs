//! Counters of WebSockets by listener, if the configuration enables them.

use super::Shard;
use crate::mem::Slot;
use crate::session::Session;

impl Shard {
    /// Counts bytes of a connection if it is a client's WebSocket.
    pub(super) fn count(&mut self, slot: Slot, received: usize, sent: usize) {
        if self.env.config.metrics.zilla
            && let Some(session) = self.sessions.get_mut(slot)
        {
            session.count(received, sent, &self.counters);
        }
    }

    /// Counts the end of a connection if it was counted as a client's WebSocket.
    pub(super) fn count_end(&self, session: &Session) {
        session.count_end(&self.counters);
    }
}
