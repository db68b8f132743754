//! What visits all channels and then all connections of a core, because of one entry of the log of
//! a cluster: a node has ended, or states are stated again. Both are done in slices over turns,
//! because there may be millions of channels and hundreds of thousands of connections. Until the
//! last slice the shard takes nothing further of the log.

use super::Shard;
use super::session_visit::SessionVisit;
use crate::hub::{StateVisit, VisitedSlice};
use crate::session::SessionEvent;
use crate::time::Now;
use crate::work::{self, WorkKind};

/// The number of places for connections that one slice visits at most.
const SLICE: usize = 256;

impl Shard {
    /// Begins a visit, and does its first slice.
    pub(super) fn visit(&mut self, visit: StateVisit, now: Now) {
        self.hub.begin_visit(visit);
        let ends_nodes = matches!(visit, StateVisit::NodeGone(_) | StateVisit::RefreshEnd { .. });
        // Only this dialect has calls to connections of other nodes.
        if ends_nodes && self.env.config.zenith.is_some() {
            self.session_visit = Some(SessionVisit::new(self.sessions.end()));
        }
        self.continue_visit(now);
    }

    /// Goes on with a visit: one slice, and more while the turn has work left and the mail has
    /// room. Returns whether the visit has ended, so that the next arrival may be taken.
    pub fn continue_visit(&mut self, now: Now) -> bool {
        while self.is_visiting() {
            self.visit_slice(now);
            if self.work.is_spent() || !self.takes_requests() {
                break;
            }
        }
        !self.is_visiting()
    }

    /// Whether a visit has not ended.
    pub fn is_visiting(&self) -> bool {
        self.hub.is_visiting() || self.session_visit.is_some()
    }

    /// Does the next slice: of the channels, and after them of the connections.
    pub(super) fn visit_slice(&mut self, now: Now) {
        if !self.hub.is_visiting() {
            return self.visit_sessions(now);
        }
        let VisitedSlice { places, changes } = self.hub.visit_slice(&mut self.mail);
        let cost = work::LISTED * places as u64 + work::EFFECT * changes as u64;
        self.work.charge(WorkKind::Listing, cost);
        self.deliver_local(now);
    }

    /// Tells the next connections that a node has ended. What a connection does then may cost more
    /// than its visit, so a slice also ends with the work of the turn.
    fn visit_sessions(&mut self, now: Now) {
        for _ in 0..SLICE {
            let next = self.session_visit.as_mut().and_then(SessionVisit::next_index);
            let Some(index) = next else {
                self.session_visit = None;
                return;
            };
            self.work.charge(WorkKind::Listing, work::STEP);
            if let Some(slot) = self.sessions.slot_at(index) {
                self.on_event(slot, SessionEvent::NodeGone, now);
            }
            if self.work.is_spent() {
                return;
            }
        }
    }
}
