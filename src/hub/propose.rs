//! Proposals: the events of a node in a cluster, which take effect only when the log of the cluster
//! has given them a place.
//!
//! Without a cluster the home of a channel orders an event as soon as it arrives. In a cluster the
//! core that gets the event proposes it, from [`Hub::publish`]; the event comes back to the home of
//! every node by [`Hub::apply`], in the order of the log.

use super::event::{Event, EventPayload, Retention};
use super::log_view::LogPlace;
use super::logged_picture::LoggedPictures;
use super::mail::{Ack, OutgoingMail, RequestMark};
use super::own_states::{OwnStates, StateTimes};
use super::{Hub, HubMessage};
use std::collections::VecDeque;
use std::sync::Arc;

/// An event that waits to be taken into the log of the cluster.
#[derive(Clone, Debug)]
pub struct Proposal<M> {
    /// The application's number.
    pub app: u32,
    /// The channel.
    pub name: Arc<str>,
    /// The event.
    pub event: Event<M>,
    /// The core and the request that wait until the event is in the log.
    pub origin: Option<(u16, Ack)>,
    /// The last request to the channel's home before the event, which must be in the home's mailbox
    /// before the event is handed over. So a client's subscription comes before what it publishes.
    pub after: RequestMark,
}

impl<M> Proposal<M> {
    /// A proposal that no request to the channel's home must come before.
    pub fn new(
        app: u32,
        name: impl Into<Arc<str>>,
        event: Event<M>,
        origin: Option<(u16, Ack)>,
    ) -> Proposal<M> {
        Proposal { app, name: name.into(), event, origin, after: RequestMark::default() }
    }
}

impl<M: HubMessage> Hub<M> {
    /// Proposes events from now on instead of ordering them, and states what is true here.
    pub fn follow_log(&mut self, times: StateTimes) {
        self.proposals.get_or_insert_default();
        self.own_states.get_or_insert_with(|| Box::new(OwnStates::new(times)));
        self.log.get_or_insert_default();
        self.pictures.get_or_insert_with(|| Box::new(LoggedPictures::new(times.picture_ms)));
    }

    /// Adds a proposal, if events are proposed. An event without any effect is not: it only brings
    /// its publisher an answer.
    pub(super) fn propose(
        &mut self,
        app: u32,
        name: &str,
        event: &Event<M>,
        (ack, after): (Option<Ack>, RequestMark),
    ) -> bool {
        if matches!((&event.payload, &event.retain), (EventPayload::Nothing, Retention::Nothing)) {
            return false;
        }
        let Some(proposals) = &mut self.proposals else { return false };
        let origin = ack.map(|ack| (self.core, ack));
        proposals.push_back(Proposal {
            app,
            name: name.into(),
            event: event.clone(),
            origin,
            after,
        });
        true
    }

    /// The oldest proposal that was not handed over.
    pub fn next_proposal(&mut self) -> Option<Proposal<M>> {
        self.proposals.as_mut()?.pop_front()
    }

    /// Takes back a proposal for which there is no room yet.
    pub fn return_proposal(&mut self, proposal: Proposal<M>) {
        if let Some(proposals) = &mut self.proposals {
            proposals.push_front(proposal);
        }
    }

    /// The number of proposals that were not handed over, to the log or to the process that
    /// replaces this one.
    pub fn proposal_count(&self) -> usize {
        self.proposals.as_ref().map_or(0, VecDeque::len) + self.waiting_for_replacement()
    }

    /// Lets an event take effect: it is ordered after all that were applied before, kept, and sent
    /// to the other cores with subscribers. This core is the channel's home. A history keeps the
    /// event by its `place` in the log. Returns the channel's index if the event is to be delivered
    /// to this core's subscribers. If the channel has no subscriber, nothing is allocated, unless
    /// the event must be kept.
    pub fn apply(
        &mut self,
        app: u32,
        name: &str,
        (event, place): (&mut Event<M>, Option<LogPlace>),
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) -> Option<u32> {
        let found = self.find(app, name, self.hasher.hash(app, name));
        if let (Some(place), Some(log)) = (place, &mut self.log) {
            log.reached = log.reached.max(place.serial);
            event.since_log = place.was_delivered.then_some(log.generation);
        }
        let name = |hub: &Hub<M>| hub.hasher.name(app, name);
        self.publish_at_home(found, name, (event, place), now_ms, mail)
    }
}
