//! Changes of all channels of a core at once, which follow from one entry of the log of a cluster:
//! a node has ended, or states are stated again. Such a visit is done in slices, because a core may
//! have millions of channels. Until it has ended the core must let nothing further of the log take
//! effect, so that all nodes make the same changes in the same order.

use super::mail::OutgoingMail;
use super::node_states::{RemovedStates, StateAuthor, StateVisit, UnfinishedVisit, VisitedSlice};
use super::{ChannelEventKind, EventMask, Hub, HubMessage};

/// The maximum number of places for channels that one slice visits.
const SLICE: usize = 256;
/// A slice ends with the channel with which it has made this many changes.
const SLICE_CHANGES: usize = 1024;

impl<M: HubMessage> Hub<M> {
    /// Begins a visit of all channels. [`Hub::visit_slice`] goes on with it.
    pub fn begin_visit(&mut self, visit: StateVisit) {
        debug_assert!(self.visit.is_none(), "the visit before has not ended");
        match visit {
            StateVisit::Restate => self.forget_states(),
            StateVisit::NewLog => self.clear_listed_pictures(),
            StateVisit::RefreshBegin => {
                self.clear_listed_pictures();
                self.begin_reading_pictures();
            }
            StateVisit::FirstReadEnd | StateVisit::RefreshEnd { .. } => {
                self.end_reading_pictures();
            }
            StateVisit::NodeGone(_) => {}
        }
        self.visit = Some(UnfinishedVisit { visit, next: 0 });
    }

    /// Whether a visit has not ended.
    pub fn is_visiting(&self) -> bool {
        self.visit.is_some()
    }

    /// Does the next slice of the visit. Further events may be in [`Hub::next_local`].
    pub fn visit_slice(&mut self, mail: &mut OutgoingMail<M>) -> VisitedSlice {
        let Some(UnfinishedVisit { visit, next }) = self.visit else {
            return VisitedSlice::default();
        };
        // Channels that were added at the end meanwhile have no states from before the visit.
        let end = self.channels.end();
        let max = (next + SLICE).min(end);
        let (mut until, mut changes) = (next, 0);
        while until < max && changes < SLICE_CHANGES {
            changes += self.visit_picture(visit, until as u32);
            changes += self.visit_channel(visit, until as u32, mail);
            until += 1;
        }
        self.visit = (until < end).then_some(UnfinishedVisit { visit, next: until });
        VisitedSlice { places: until - next, changes }
    }

    /// Returns the number of changes.
    fn visit_channel(&mut self, visit: StateVisit, at: u32, mail: &mut OutgoingMail<M>) -> usize {
        let channel = self.channels.get_mut(at as usize).and_then(Option::as_mut);
        let home = channel.and_then(|channel| channel.home.as_mut());
        let Some(nodes) = home.and_then(|home| home.nodes.as_mut()) else { return 0 };
        let (removed, is_ours) = match visit {
            StateVisit::NodeGone(StateAuthor { node, is_ours }) => {
                (nodes.has_node(node).then(|| nodes.remove_node(node)), is_ours)
            }
            StateVisit::RefreshEnd { is_ours } => (nodes.end_refresh(), is_ours),
            StateVisit::RefreshBegin => {
                nodes.begin_refresh();
                return nodes.present.len();
            }
            StateVisit::Restate => return self.restate_channel(at),
            StateVisit::NewLog | StateVisit::FirstReadEnd => return 0,
        };
        removed.map_or(0, |removed| self.note_removed(at, removed, is_ours, mail))
    }

    fn note_removed(
        &mut self,
        at: u32,
        removed: RemovedStates<M>,
        is_ours: bool,
        mail: &mut OutgoingMail<M>,
    ) -> usize {
        let changes = removed.members.len() + 1;
        for (user, change) in removed.members {
            let what = ChannelEventKind::MemberRemoved(user);
            self.note_change(at, EventMask::MEMBERS, is_ours, what);
            self.announce(at, change.into(), mail);
        }
        self.report_total(at, removed.before, is_ours);
        self.release_if_empty(at);
        changes
    }
}
