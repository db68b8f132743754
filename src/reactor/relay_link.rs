//! A core's ends of the queues between it and the thread that talks to the other process of an
//! upgrade, how they reach the core, and how far all cores are.

use super::requests::RequestsBefore;
use crate::dialect::RelayDeparture;
use crate::hub::{ChannelName, RelayRole};
use crate::mem::Notifier;
use crate::mem::mailbox::{Receiver, Sender};
use crate::shard::RelayArrival;
use crate::time::Deadline;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What the cores of a process have done of an upgrade.
#[derive(Debug, Default)]
pub struct RelayProgress {
    /// The number of cores that propose events and have sent their earlier mail.
    pub(super) proposing: AtomicUsize,
    /// The number of cores that have taken over what was kept.
    pub(super) adopted: AtomicUsize,
    /// Whether a core has given the other process up.
    pub(super) lost: AtomicBool,
}

impl RelayProgress {
    /// The number of cores that have taken over everything that the replaced process kept.
    pub fn adopted(&self) -> usize {
        self.adopted.load(Ordering::Acquire)
    }

    /// Whether a core has given the other process up, because it is too slow.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

/// The queues that are offered to a core.
#[derive(Default)]
pub struct RelayOffer {
    is_offered: AtomicBool,
    link: Mutex<Option<RelayLink>>,
}

impl RelayOffer {
    /// Offers queues. Wake the core afterwards.
    pub fn offer(&self, link: RelayLink) {
        if let Ok(mut place) = self.link.lock() {
            *place = Some(link);
        }
        self.is_offered.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_offered(&self) -> bool {
        self.is_offered.load(Ordering::SeqCst)
    }

    pub(super) fn take(&self) -> Option<RelayLink> {
        self.is_offered.store(false, Ordering::SeqCst);
        self.link.lock().ok()?.take()
    }
}

/// A core's ends of its queues.
pub struct RelayLink {
    pub(super) role: RelayRole,
    pub(super) departures: Sender<RelayDeparture>,
    pub(super) arrivals: Receiver<RelayArrival>,
    /// The requests of other cores that come before these arrivals.
    pub(super) before: RequestsBefore,
    pub(super) notifier: Notifier,
    pub(super) progress: Arc<RelayProgress>,
    /// The bytes of ordered events that the thread has taken.
    pub(super) taken: Arc<AtomicU64>,
    pub(super) phase: RelayPhase,
}

/// How far a core is.
pub(super) enum RelayPhase {
    /// Mail from before is not sent.
    Switching,
    /// Other cores have not sent theirs, or it was not taken.
    Awaiting,
    /// These channels are still to be handed over, until then.
    HandingOver(VecDeque<ChannelName>, Deadline),
    /// Events are exchanged.
    Live,
    /// Nothing more is sent, and the thread is not informed of that yet.
    Stopping,
    /// Nothing more is sent.
    Stopped,
    /// The other process is not there any more, and every event is refused.
    Closed,
}

impl RelayLink {
    /// Whether something has come from the thread.
    pub(super) fn is_waiting(&mut self) -> bool {
        !self.arrivals.is_empty()
    }

    /// Whether the core must not sleep for long, because a step of its own is due.
    pub(super) fn is_busy(&self) -> bool {
        match self.phase {
            RelayPhase::Live | RelayPhase::Stopped | RelayPhase::Closed => false,
            RelayPhase::Switching
            | RelayPhase::Awaiting
            | RelayPhase::HandingOver(..)
            | RelayPhase::Stopping => true,
        }
    }
}
