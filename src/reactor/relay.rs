//! The two bounded queues between a core and the thread that talks to the other process of an
//! upgrade, and the moment from which the other process orders.
//!
//! A core of the replaced process proposes events from the moment when it takes the queues over.
//! Mail that it has sent to homes before may be on its way then, so no core hands over what it
//! keeps before all cores propose and their earlier mail was taken. Events that are proposed
//! meanwhile wait.

use super::commands::Waker;
use super::relay_link::{RelayLink, RelayPhase, RelayProgress};
use super::requests::RequestsBefore;
use super::{Peers, Reactor};
use crate::dialect::RelayDeparture;
use crate::driver::Driver;
use crate::hub::RelayRole;
use crate::limits::{CLUSTER_QUEUE, RELAY_BYTES};
use crate::mem::Notifier;
use crate::mem::mailbox::{Receiver, Sender, mailbox};
use crate::shard::{RelayArrival, RelayEnd};
use crate::time::Now;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The maximum number of channels whose kept events are handed over in one turn.
const KEPT_PER_TURN: usize = 256;
/// How long a core hands over what it keeps, in milliseconds. The rest is left.
const KEPT_MS: u64 = 3000;

/// The ends of the queues of one core that the thread has.
pub struct CoreRelay {
    departures: Receiver<RelayDeparture>,
    arrivals: Sender<RelayArrival>,
    taken: Arc<AtomicU64>,
    core: u16,
    peers: Arc<Peers>,
    waker: Waker,
    /// Whether something was pushed since the core was last woken.
    pushed: bool,
}

/// Creates the queues of one core. `notifier` wakes the thread.
pub fn relay_link(
    role: RelayRole,
    peers: &Arc<Peers>,
    core: u16,
    notifier: &Notifier,
    progress: &Arc<RelayProgress>,
) -> (RelayLink, CoreRelay) {
    let (to_thread, departures) = mailbox(CLUSTER_QUEUE);
    let (arrivals, from_thread) = mailbox(CLUSTER_QUEUE);
    let phase = match role {
        RelayRole::Replaced => RelayPhase::Switching,
        RelayRole::Replacement => RelayPhase::Live,
    };
    let taken = Arc::<AtomicU64>::default();
    let link = RelayLink {
        role,
        departures: to_thread,
        arrivals: from_thread,
        before: RequestsBefore::default(),
        notifier: notifier.clone(),
        progress: progress.clone(),
        taken: taken.clone(),
        phase,
    };
    let (peers, waker) = (peers.clone(), Waker::default());
    (link, CoreRelay { departures, arrivals, taken, core, peers, waker, pushed: false })
}

impl CoreRelay {
    /// The next departure of the core.
    pub fn next_departure(&mut self) -> Option<RelayDeparture> {
        let departure = self.departures.pop()?;
        if let RelayDeparture::Ordered(ordered) = &departure {
            self.taken.fetch_add(ordered.bytes(), Ordering::Relaxed);
        }
        Some(departure)
    }

    /// Whether departures wait.
    pub fn has_departures(&mut self) -> bool {
        !self.departures.is_empty()
    }

    /// Sends something to the core. [`CoreRelay::wake`] must follow.
    ///
    /// # Errors
    /// The queue is full; the arrival is returned.
    pub fn push(&mut self, arrival: RelayArrival) -> Result<(), Box<RelayArrival>> {
        self.arrivals.push(arrival).map_err(Box::new)?;
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
    /// Whether the next turn must not wait for long.
    pub(super) fn is_relay_busy(&self) -> bool {
        self.shard.has_departures() || self.relay.as_ref().is_some_and(RelayLink::is_busy)
    }

    /// Handles what has come from the other process, while there is room for the mail that this
    /// causes.
    pub(super) fn take_relayed(&mut self, now: Now) {
        for taken in 0..CLUSTER_QUEUE {
            let Some(link) = &mut self.relay else { return };
            let is_spent = taken >= super::mail::MIN_TAKEN && !self.shard.has_work_left();
            if is_spent || !self.shard.takes_requests() {
                return;
            }
            let RelayLink { arrivals, before, .. } = link;
            if !self.mail.take_requests_before(arrivals, before, &mut self.shard, now) {
                return;
            }
            let Some(arrival) = link.arrivals.pop() else { return };
            match &arrival {
                RelayArrival::KeptEnd => _ = link.progress.adopted.fetch_add(1, Ordering::AcqRel),
                RelayArrival::Stop => link.phase = RelayPhase::Stopping,
                RelayArrival::End(RelayEnd::Alone) => self.relay = None,
                RelayArrival::End(RelayEnd::Closed) => link.phase = RelayPhase::Closed,
                _ => {}
            }
            self.shard.relayed(arrival, now);
        }
    }

    /// Takes over queues that are offered, and moves what is for the other process into the queue
    /// to the thread.
    pub(super) fn hand_over_departures(&mut self, now: Now) {
        if self.mail.me().relay.is_offered()
            && let Some(link) = self.mail.me().relay.take()
        {
            self.shard.begin_relay(link.role);
            self.relay = Some(link);
        }
        let Some(link) = &mut self.relay else { return };
        let mut notified = false;
        match &mut link.phase {
            RelayPhase::Switching => {
                if self.shard.mail().is_empty() {
                    link.progress.proposing.fetch_add(1, Ordering::AcqRel);
                    link.phase = RelayPhase::Awaiting;
                }
            }
            RelayPhase::Awaiting => {
                let proposing = link.progress.proposing.load(Ordering::Acquire);
                if proposing == self.mail.count() && !self.mail.is_waiting(true) {
                    let names = self.shard.kept_channels();
                    link.phase = RelayPhase::HandingOver(names, now.plus_ms(KEPT_MS));
                }
            }
            RelayPhase::HandingOver(..) => notified = self.hand_over_kept(now),
            RelayPhase::Live => notified = self.hand_over_events(),
            RelayPhase::Stopping => {
                if link.departures.push(RelayDeparture::Stopped).is_ok() {
                    link.phase = RelayPhase::Stopped;
                    notified = true;
                }
            }
            RelayPhase::Stopped => {}
            RelayPhase::Closed => self.shard.refuse_departures(now),
        }
        if notified && let Some(link) = &self.relay {
            link.notifier.notify();
        }
    }

    /// Hands over what the next channels keep. Returns whether the thread has something to do.
    fn hand_over_kept(&mut self, now: Now) -> bool {
        let Some(link) = &mut self.relay else { return false };
        let RelayPhase::HandingOver(names, until) = &mut link.phase else { return false };
        if until.due(now) {
            self.counters.upgrade_left.add(names.len() as u64);
            names.clear();
        }
        for _ in 0..KEPT_PER_TURN {
            let Some(name) = names.pop_front() else { break };
            let Some(kept) = self.shard.kept_of(&name, now) else { continue };
            if link.departures.push(RelayDeparture::Kept(Box::new(kept))).is_err() {
                names.push_front(name);
                return true;
            }
        }
        if names.is_empty() && link.departures.push(RelayDeparture::KeptEnd).is_ok() {
            link.phase = RelayPhase::Live;
        }
        true
    }

    /// Moves events into the queue to the thread. Gives the process that is replaced up if too many
    /// bytes wait for it. Returns whether the thread has something to do.
    fn hand_over_events(&mut self) -> bool {
        let Some(link) = &mut self.relay else { return false };
        let mut sent = 0;
        while let Some(departure) = self.shard.next_departure() {
            let after = match &departure {
                RelayDeparture::Proposed(proposal) => Some(proposal.after),
                _ => None,
            };
            if after.is_some_and(|after| !self.shard.mail().is_sent(after)) {
                self.shard.return_departure(departure);
                break;
            }
            if let Err(departure) = link.departures.push(departure) {
                self.shard.return_departure(departure);
                break;
            }
            sent += 1;
        }
        self.counters.upgrade_sent.add(sent);
        let waiting = self.shard.ordered_bytes() - link.taken.load(Ordering::Relaxed);
        if waiting > RELAY_BYTES {
            self.shard.give_up_relay();
            link.progress.lost.store(true, Ordering::Release);
            link.notifier.notify();
            self.relay = None;
            return false;
        }
        sent > 0
    }
}
