//! The two bounded queues between a core and the thread that follows the cluster's log: the events
//! that the core proposes, and what comes back.
//!
//! Nothing is dropped. Proposals without room stay in the shard, which reads no more from its
//! connections while they are many. A core takes nothing from the log while its mail to other cores
//! has no room; the thread then holds what is for this core, and asks the engine for no more.

use super::commands::Waker;
use super::{Peers, Reactor};
use crate::cluster::Arrival;
use crate::dialect::{Proposal, StateProposal};
use crate::driver::Driver;
use crate::limits::CLUSTER_QUEUE;
use crate::mem::Notifier;
use crate::mem::mailbox::{Receiver, Sender, mailbox};
use crate::time::Now;
use std::sync::Arc;

/// The room for states on their way to the thread. A hub proposes about as many at a time.
const STATE_QUEUE: usize = 1024;

/// A core's ends of its queues.
pub struct ClusterLink {
    proposals: Sender<Proposal>,
    states: Sender<StateProposal>,
    arrivals: Receiver<Arrival>,
    notifier: Notifier,
}

/// The ends of the queues of one core that the thread has.
pub struct CoreLink {
    proposals: Receiver<Proposal>,
    states: Receiver<StateProposal>,
    arrivals: Sender<Arrival>,
    core: u16,
    peers: Arc<Peers>,
    waker: Waker,
    /// Whether something was pushed since the core was last woken.
    pushed: bool,
}

/// Creates the queues of one core. `notifier` wakes the thread.
pub fn cluster_link(peers: &Arc<Peers>, core: u16, notifier: &Notifier) -> (ClusterLink, CoreLink) {
    let (to_thread, proposals) = mailbox(CLUSTER_QUEUE);
    let (states_to_thread, states) = mailbox(STATE_QUEUE);
    let (arrivals, from_thread) = mailbox(CLUSTER_QUEUE);
    let notifier = notifier.clone();
    let link = ClusterLink {
        proposals: to_thread,
        states: states_to_thread,
        arrivals: from_thread,
        notifier,
    };
    let (peers, waker) = (peers.clone(), Waker::default());
    (link, CoreLink { proposals, states, arrivals, core, peers, waker, pushed: false })
}

impl ClusterLink {
    /// Whether something has come from the log.
    pub(super) fn is_waiting(&mut self) -> bool {
        !self.arrivals.is_empty()
    }
}

impl CoreLink {
    /// The oldest proposal of the core.
    pub fn next_proposal(&mut self) -> Option<Proposal> {
        self.proposals.pop()
    }

    /// The oldest state of the core.
    pub fn next_state(&mut self) -> Option<StateProposal> {
        self.states.pop()
    }

    /// Sends something to the core. [`CoreLink::wake`] must follow.
    ///
    /// # Errors
    /// The queue is full; the arrival is returned.
    pub fn push(&mut self, arrival: Arrival) -> Result<(), Arrival> {
        self.arrivals.push(arrival)?;
        self.pushed = true;
        Ok(())
    }

    /// Wakes the core, if something was sent to it and it sleeps.
    pub fn wake(&mut self) {
        let peer = self.peers.core(self.core);
        if std::mem::take(&mut self.pushed)
            && peer.parking.needs_wake()
            && let Some(handle) = peer.wake.get()
        {
            // A core that is not woken finds the arrival when its sleep ends, within a second.
            let _ = self.waker.wake(handle);
        }
    }
}

impl<D: Driver> Reactor<D> {
    /// Moves the shard's proposals into the queue to the thread, and notifies it at most once.
    pub(super) fn hand_over_proposals(&mut self, now: Now) {
        let Some(link) = &mut self.cluster else { return };
        let mut notified = false;
        while let Some(proposal) = self.shard.next_proposal() {
            notified = true;
            if let Err(proposal) = link.proposals.push(proposal) {
                self.shard.return_proposal(proposal);
                break;
            }
        }
        while let Some(state) = self.shard.next_state(now) {
            notified = true;
            if let Err(state) = link.states.push(state) {
                self.shard.return_state(state);
                break;
            }
        }
        if notified {
            link.notifier.notify();
        }
    }

    /// Lets what has come from the log take effect, while there is room for the mail that this
    /// causes.
    pub(super) fn take_arrivals(&mut self, now: Now) {
        let Some(link) = &mut self.cluster else { return };
        for taken in 0..CLUSTER_QUEUE {
            let is_spent = taken >= super::mail::MIN_TAKEN && !self.shard.has_work_left();
            if is_spent || !self.shard.takes_requests() {
                return;
            }
            match link.arrivals.pop() {
                Some(arrival) => self.shard.arrive(arrival, now),
                None => return,
            }
        }
    }
}
