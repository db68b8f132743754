//! The two bounded queues between a core and the thread that follows the cluster's log: the events
//! that the core proposes, and what comes back.
//!
//! Nothing is dropped. Proposals without room stay in the shard, which reads no more from its
//! connections while they are many. A core takes nothing from the log while its mail to other cores
//! has no room; the thread then holds what is for this core, and asks the engine for no more.

use super::commands::Waker;
use super::requests::RequestsBefore;
use super::{Peers, Reactor};
use crate::cluster::Arrival;
use crate::dialect::{Proposal, StateProposal};
use crate::driver::Driver;
use crate::hub::LogMark;
use crate::limits::CLUSTER_QUEUE;
use crate::mem::Notifier;
use crate::mem::mailbox::{Receiver, Sender, mailbox};
use crate::time::Now;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The room for states on their way to the thread. A hub proposes about as many at a time.
const STATE_QUEUE: usize = 1024;

/// A core's ends of its queues.
pub struct ClusterLink {
    proposals: Sender<Proposal>,
    states: Sender<StateProposal>,
    arrivals: Receiver<Arrival>,
    /// The requests of other cores that come before these arrivals.
    before: RequestsBefore,
    /// Up to where the entries of the log were pushed; see [`LogMark`].
    mark: Arc<AtomicU64>,
    /// The number of gaps that the core has taken notice of.
    gaps: Arc<AtomicU64>,
    notifier: Notifier,
}

/// The ends of the queues of one core that the thread has.
pub struct CoreLink {
    proposals: Receiver<Proposal>,
    states: Receiver<StateProposal>,
    arrivals: Sender<Arrival>,
    mark: Arc<AtomicU64>,
    gaps: Arc<AtomicU64>,
    /// The number of gaps that were pushed.
    gaps_pushed: u64,
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
    let [mark, gaps] = [(); 2].map(|()| Arc::<AtomicU64>::default());
    let link = ClusterLink {
        proposals: to_thread,
        states: states_to_thread,
        arrivals: from_thread,
        before: RequestsBefore::default(),
        mark: mark.clone(),
        gaps: gaps.clone(),
        notifier: notifier.clone(),
    };
    let core_link = CoreLink {
        proposals,
        states,
        arrivals,
        mark,
        gaps,
        gaps_pushed: 0,
        core,
        peers: peers.clone(),
        waker: Waker::default(),
        pushed: false,
    };
    (link, core_link)
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
        let is_gap = matches!(arrival, Arrival::Gap);
        self.arrivals.push(arrival)?;
        self.pushed = true;
        self.gaps_pushed += u64::from(is_gap);
        Ok(())
    }

    /// Whether the core has taken notice of all gaps that were pushed. Until all cores have, no
    /// core may be sent what comes after a gap, because its home would deliver that to subscribers
    /// of others who have missed events.
    pub fn has_taken_gaps(&self) -> bool {
        self.gaps.load(Ordering::Acquire) == self.gaps_pushed
    }

    /// Notes that all entries of the log up to a mark were pushed that are for this core. The core
    /// is not woken: it needs the mark only when it has something to do.
    pub fn reach(&mut self, mark: LogMark) {
        self.mark.store(mark.0, Ordering::Release);
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
    /// The first one that must wait for a request keeps those after it, but no state: publishers
    /// could keep users from joining.
    pub(super) fn hand_over_proposals(&mut self, now: Now) {
        let Some(link) = &mut self.cluster else { return };
        let mut notified = false;
        // After the drain's deadline a core may have ended, whose mailbox stays full.
        let is_late = self.stopping.is_some_and(|deadline| deadline.due(now));
        while let Some(proposal) = self.shard.next_proposal() {
            if !is_late && !self.shard.mail().is_sent(proposal.after) {
                self.shard.return_proposal(proposal);
                break;
            }
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
    /// causes. The requests that other cores sent before they proposed it come first: a client that
    /// has subscribed and then publishes receives its own event.
    pub(super) fn take_arrivals(&mut self, now: Now) {
        let Some(link) = &mut self.cluster else { return };
        let mark = LogMark(link.mark.load(Ordering::Acquire));
        if !self.shard.takes_requests() || !self.shard.continue_visit(now) {
            return;
        }
        for taken in 0..CLUSTER_QUEUE {
            let is_spent = taken >= super::mail::MIN_TAKEN && !self.shard.has_work_left();
            if is_spent || !self.shard.takes_requests() || self.shard.is_visiting() {
                return;
            }
            if link.arrivals.is_empty() {
                // What was pushed before the mark was read has been taken.
                return self.shard.reach(mark);
            }
            let ClusterLink { arrivals, before, .. } = link;
            if !self.mail.take_requests_before(arrivals, before, &mut self.shard, now) {
                return;
            }
            match link.arrivals.pop() {
                Some(Arrival::Gap) => {
                    self.shard.arrive(Arrival::Gap, now);
                    link.gaps.fetch_add(1, Ordering::Release);
                    link.notifier.notify();
                }
                Some(arrival) => self.shard.arrive(arrival, now),
                None => return,
            }
        }
    }
}
