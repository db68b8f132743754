//! The connections that wait for a later turn.

use crate::mem::Slot;

/// Connections with reading paused that wait for a later turn, because of congestion or because a
/// share of work is used up. Each is on one of the lists. A connection is light if it has caused
/// little work in the present period of 64 ms ([`crate::work::LIGHT`] says how little). Light
/// connections are served first, so that they do not wait for those that keep the core busy.
#[derive(Default)]
pub(super) struct PausedConnections {
    /// The light ones.
    pub(super) light: Vec<Slot>,
    /// The others.
    pub(super) busy: Vec<Slot>,
    /// Whether light connections are being served. One that turns out to be busy has to wait with
    /// the others.
    pub(super) serves_light: bool,
}

impl PausedConnections {
    /// Whether no connection waits.
    pub(super) fn is_empty(&self) -> bool {
        self.light.is_empty() && self.busy.is_empty()
    }

    /// The list that is being served.
    pub(super) fn list(&mut self) -> &mut Vec<Slot> {
        if self.serves_light { &mut self.light } else { &mut self.busy }
    }
}
